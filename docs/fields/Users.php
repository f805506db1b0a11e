<?php
declare(strict_types=1);

/**
 * Encrypted e-mail addresses for a table `users`, through the gate. PHP 8.1 or later with openssl, no packages. `Fields` speaks to the
 * gate; `Users` to the database, through PDO (PostgreSQL, MySQL, MariaDB).
 */
final class Failed extends RuntimeException
{
}

final class Fields
{
    /** How the column is indexed. Writers and searches must agree for good, so it stands here and nowhere else. */
    private const EMAIL = ['table' => 'users', 'column' => 'email'];
    private const INDEX = ['normalisation' => 'nfc_casefold', 'bits' => 10, 'partitions' => 1];
    private const BATCH = 500;

    private string $token = '';
    private int $until = 0;

    public function __construct(
        private readonly string $gateway,
        private readonly string $clientId,
        private readonly string $keyPem,
        private readonly string $kid,
        private readonly ?string $caFile = null,
    ) {
    }

    /**
     * @param list<array{row: string, value: string}> $fields
     * @return list<string> records, bytes
     */
    public function encrypt(array $fields): array
    {
        $item = fn (array $field): array => self::EMAIL + ['row' => $field['row'], 'plaintext' => self::encoded($field['value'])];
        return array_map(self::decoded(...), $this->ask('encrypt', array_map($item, $fields), 'record'));
    }

    /**
     * @param list<array{row: string, record: string}> $fields
     * @return list<string> values
     */
    public function decrypt(array $fields): array
    {
        $item = fn (array $field): array => self::EMAIL + ['row' => $field['row'], 'record' => self::encoded($field['record'])];
        return array_map(self::decoded(...), $this->ask('decrypt', array_map($item, $fields), 'plaintext'));
    }

    /**
     * All entries of each value, one for each partition: store any one of them, search for all.
     *
     * @param list<string> $values
     * @return list<list<string>>
     */
    public function index(array $values): array
    {
        $item = fn (string $value): array => self::EMAIL + self::INDEX + ['value' => self::encoded($value)];
        $decode = fn (array $entries): array => array_map(self::decoded(...), $entries);
        return array_map($decode, $this->ask('index', array_map($item, $values), 'index'));
    }

    /** What each item was asked for, in order. Sends again what may succeed later, and gives up after five attempts. */
    private function ask(string $operation, array $items, string $member): array
    {
        $done = [];
        $waiting = array_keys($items);
        for ($attempt = 0; $attempt < 5; $attempt++) {
            $failed = [];
            foreach (array_chunk($waiting, self::BATCH) as $part) {
                // The place in the list is the reference: an answer is matched by it and not by luck.
                $batch = array_map(fn (int $at): array => ['ref' => (string) $at] + $items[$at], $part);
                [$status, $answer] = $this->send("/fields/$operation", json_encode(['items' => $batch], JSON_THROW_ON_ERROR), 'application/json', $this->bearer());
                if ($status === 429 || $status === 503) {
                    $failed = [...$failed, ...$part];
                    continue;
                }
                if ($status !== 200 && $status !== 207) {
                    throw new Failed((string) ($answer['code'] ?? $status));
                }
                foreach ($answer['items'] as $item) {
                    if ($item['ok']) {
                        $done[(int) $item['ref']] = $item[$member];
                    } elseif ($item['error']['retryable']) {
                        $failed[] = (int) $item['ref'];
                    } else {
                        throw new Failed($item['error']['code']);
                    }
                }
            }
            if ($failed === []) {
                ksort($done);
                return array_values($done);
            }
            $waiting = $failed;
            usleep((int) (2 ** $attempt * random_int(500_000, 1_000_000)));
        }
        throw new Failed('unavailable');
    }

    /** An access token, asked for again half a minute before it ends. */
    private function bearer(): string
    {
        if (time() > $this->until) {
            $now = time();
            $claims = ['iss' => $this->clientId, 'sub' => $this->clientId, 'aud' => $this->gateway, 'jti' => bin2hex(random_bytes(16)), 'iat' => $now, 'exp' => $now + 60];
            $form = http_build_query(['grant_type' => 'client_credentials', 'client_assertion' => $this->signed($claims),
                'client_assertion_type' => 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer']);
            [$status, $answer] = $this->send('/oauth2/token', $form, 'application/x-www-form-urlencoded', null);
            if ($status !== 200) {
                throw new Failed((string) ($answer['error'] ?? $status));
            }
            [$this->token, $this->until] = [$answer['access_token'], $now + $answer['expires_in'] - 30];
        }
        return $this->token;
    }

    /** A JWT under ES256: openssl signs in DER, JOSE wants the two numbers of 32 bytes side by side. */
    private function signed(array $claims): string
    {
        $head = ['alg' => 'ES256', 'kid' => $this->kid];
        $text = implode('.', array_map(fn (array $part): string => self::encoded(json_encode($part, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES)), [$head, $claims]));
        openssl_sign($text, $der, $this->keyPem, OPENSSL_ALGO_SHA256) ?: throw new Failed('key');
        $fixed = '';
        for ($at = 3, $number = 0; $number < 2; $number++) {
            $length = ord($der[$at]);
            $fixed .= str_pad(ltrim(substr($der, $at + 1, $length), "\0"), 32, "\0", STR_PAD_LEFT);
            $at += $length + 2;
        }
        return $text . '.' . self::encoded($fixed);
    }

    /** @return array{int, array<string, mixed>} */
    private function send(string $path, string $body, string $type, ?string $bearer): array
    {
        $headers = ["Content-Type: $type", ...($bearer === null ? [] : ["Authorization: Bearer $bearer"])];
        $tls = $this->caFile === null ? [] : ['cafile' => $this->caFile];
        $context = stream_context_create([
            'http' => ['method' => 'POST', 'header' => $headers, 'content' => $body, 'timeout' => 20, 'ignore_errors' => true, 'follow_location' => 0],
            'ssl' => $tls + ['verify_peer' => true, 'verify_peer_name' => true],
        ]);
        $text = @file_get_contents($this->gateway . $path, false, $context);
        if ($text === false || preg_match('{^HTTP/\S+ (\d{3})}', $http_response_header[0], $found) !== 1) {
            return [503, []];
        }
        return [(int) $found[1], json_decode($text, true) ?? []];
    }

    private static function encoded(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }

    private static function decoded(string $text): string
    {
        return base64_decode(strtr($text, '-_', '+/'), true) ?: '';
    }
}

final class Users
{
    public function __construct(private readonly PDO $database, private readonly Fields $fields)
    {
        $database->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
    }

    /** In one transaction: the row has its number before the record is made, because the record is bound to it. */
    public function create(string $name, string $email): string
    {
        $this->database->beginTransaction();
        $this->database->prepare('INSERT INTO users (name) VALUES (?)')->execute([$name]);
        $row = $this->database->lastInsertId();
        $this->change($row, $email);
        $this->database->commit();
        return $row;
    }

    public function change(string $row, string $email): void
    {
        [$record] = $this->fields->encrypt([['row' => $row, 'value' => $email]]);
        [$entries] = $this->fields->index([$email]);
        $update = $this->database->prepare('UPDATE users SET email_sealed = ?, email_index = ? WHERE id = ?');
        $update->bindValue(1, $record, PDO::PARAM_LOB);
        $update->bindValue(2, $entries[random_int(0, count($entries) - 1)], PDO::PARAM_LOB);
        $update->bindValue(3, $row);
        $update->execute();
    }

    /**
     * The users with this address. Entries match more than they mean: what was found is decrypted and compared.
     *
     * @return list<string>
     */
    public function find(string $email): array
    {
        [$entries] = $this->fields->index([$email]);
        $select = $this->database->prepare('SELECT id, email_sealed FROM users WHERE email_index IN (' . implode(', ', array_fill(0, count($entries), '?')) . ')');
        foreach ($entries as $at => $entry) {
            $select->bindValue($at + 1, $entry, PDO::PARAM_LOB);
        }
        $select->execute();
        // PostgreSQL answers a stream for binary columns, MySQL a string.
        $bytes = fn (mixed $column): string => is_resource($column) ? (string) stream_get_contents($column) : (string) $column;
        $found = array_map(fn (array $one): array => ['row' => (string) $one[0], 'record' => $bytes($one[1])], $select->fetchAll(PDO::FETCH_NUM));
        $emails = $found === [] ? [] : $this->fields->decrypt($found);
        $same = fn (string $there): bool => strcasecmp($there, $email) === 0;
        return array_column(array_filter($found, fn (int $at): bool => $same($emails[$at]), ARRAY_FILTER_USE_KEY), 'row');
    }
}
