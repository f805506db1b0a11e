<?php
declare(strict_types=1);

/**
 * Who calls, according to the access token that the gate passes on. PHP 8.1 or later with openssl, no packages. RS256, which is
 * the gate's default; a deployment with another SIGNING_ALG needs a library here.
 */
final class Portcullis
{
    private const LIFE = 900;
    private const SKEW = 10;
    private const KEYS_AGE = 3600;

    public function __construct(
        private readonly string $issuer,
        private readonly string $audience,
        private readonly string $keysFile,
    ) {
    }

    /**
     * @param array<string, mixed> $server $_SERVER
     * @return array<string, mixed> the claims: sub, tenant, client_id, scope, kind, exp …
     * @throws UnexpectedValueException for whatever is not a valid token; answer 401 and say nothing more
     */
    public function caller(array $server, string $scope = 'app', ?int $now = null): array
    {
        $now ??= time();
        $header = $server['HTTP_AUTHORIZATION'] ?? '';
        if (!is_string($header) || preg_match('/^(?:Bearer|DPoP) ([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/Di', $header, $part) !== 1) {
            throw new UnexpectedValueException('authorization');
        }
        $head = self::object($part[1]);
        $kid = $head['kid'] ?? null;
        ksort($head);
        if ($head !== ['alg' => 'RS256', 'kid' => $kid, 'typ' => 'at+jwt'] || !is_string($kid)) {
            throw new UnexpectedValueException('header');
        }
        if (openssl_verify("$part[1].$part[2]", self::bytes($part[3]), $this->key($kid, $now), OPENSSL_ALGO_SHA256) !== 1) {
            throw new UnexpectedValueException('signature');
        }

        $claims = self::object($part[2]);
        foreach (['iss', 'sub', 'aud', 'client_id', 'jti', 'scope', 'tenant', 'kind'] as $name) {
            if (!is_string($claims[$name] ?? null) || $claims[$name] === '') {
                throw new UnexpectedValueException($name);
            }
        }
        [$issued, $expires] = [$claims['iat'] ?? null, $claims['exp'] ?? null];
        if (!is_int($issued) || !is_int($expires) || $expires <= $now || $issued > $now + self::SKEW || $expires - $issued > self::LIFE) {
            throw new UnexpectedValueException('time');
        }
        if ($claims['iss'] !== $this->issuer || $claims['aud'] !== $this->audience) {
            throw new UnexpectedValueException('issuer or audience');
        }
        if (!in_array($scope, explode(' ', $claims['scope']), true)) {
            throw new UnexpectedValueException('scope');
        }
        // The gate sets these itself. Another value means that the request did not come through it.
        foreach (['SUBJECT' => 'sub', 'TENANT' => 'tenant', 'CLIENT' => 'client_id'] as $name => $claim) {
            if (($server["HTTP_X_PORTCULLIS_$name"] ?? null) !== $claims[$claim]) {
                throw new UnexpectedValueException("x-portcullis-$name");
            }
        }
        return $claims;
    }

    /** The public key of a `kid`, from the file that a timer renews. */
    private function key(string $kid, int $now): OpenSSLAsymmetricKey
    {
        clearstatcache(true, $this->keysFile);
        $text = @file_get_contents($this->keysFile);
        $changed = @filemtime($this->keysFile);
        if ($text === false || $changed === false || $changed < $now - self::KEYS_AGE) {
            throw new RuntimeException('the key set is missing or too old');
        }
        foreach (json_decode($text, true, 8, JSON_THROW_ON_ERROR)['keys'] ?? [] as $jwk) {
            if (($jwk['kid'] ?? null) === $kid && ($jwk['kty'] ?? null) === 'RSA' && ($jwk['alg'] ?? 'RS256') === 'RS256') {
                $key = openssl_pkey_get_public(self::pem(self::bytes($jwk['n']), self::bytes($jwk['e'])));
                if ($key !== false && openssl_pkey_get_details($key)['bits'] >= 2048) {
                    return $key;
                }
            }
        }
        throw new UnexpectedValueException('key');
    }

    /** SubjectPublicKeyInfo (RFC 3279) of a modulus and an exponent. */
    private static function pem(string $n, string $e): string
    {
        $der = static function (int $tag, string $body): string {
            $length = strlen($body);
            $size = $length < 128 ? chr($length) : chr(0x80 | strlen($long = ltrim(pack('N', $length), "\0"))) . $long;
            return chr($tag) . $size . $body;
        };
        $integer = static fn (string $bytes): string => $der(0x02, (ord($bytes[0]) & 0x80 ? "\0" : '') . $bytes);
        $rsa = $der(0x30, $integer($n) . $integer($e));
        $algorithm = $der(0x30, "\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00");
        return "-----BEGIN PUBLIC KEY-----\n" . chunk_split(base64_encode($der(0x30, $algorithm . $der(0x03, "\0" . $rsa))), 64, "\n") . "-----END PUBLIC KEY-----\n";
    }

    /** @return array<string, mixed> */
    private static function object(string $part): array
    {
        try {
            $value = json_decode(self::bytes($part), true, 8, JSON_THROW_ON_ERROR);
        } catch (JsonException) {
            throw new UnexpectedValueException('json');
        }
        if (!is_array($value) || array_is_list($value)) {
            throw new UnexpectedValueException('json');
        }
        return $value;
    }

    private static function bytes(string $text): string
    {
        $bytes = base64_decode(strtr($text, '-_', '+/'), true);
        if ($bytes === false || $bytes === '' || rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=') !== $text) {
            throw new UnexpectedValueException('base64url');
        }
        return $bytes;
    }
}
