<?php
// The check of an RS256 token as PHP does it with what it has: openssl_verify, and the claims by hand.
declare(strict_types=1);
require __DIR__ . '/runtime.php';

function bytes(string $text): string
{
    $bytes = base64_decode(strtr($text, '-_', '+/'), true);
    return $bytes === false ? '' : $bytes;
}

/** The DER of one tag. */
function der(string $tag, string $value): string
{
    $length = strlen($value);
    $packed = $length < 128 ? chr($length) : (fn (string $bytes): string => chr(128 | strlen($bytes)) . $bytes)(ltrim(pack('N', $length), "\0"));
    return $tag . $packed . $value;
}

/** An RSA key of a JWK as PEM (RFC 8017 appendix A.1.1 in RFC 5280's wrapping). */
function pem(string $n, string $e): string
{
    $number = fn (string $bytes): string => der("\x02", (ord($bytes[0]) > 127 ? "\0" : '') . $bytes);
    $key = der("\x30", $number(bytes($n)) . $number(bytes($e)));
    $rsa = hex2bin('300d06092a864886f70d0101010500');
    return "-----BEGIN PUBLIC KEY-----\n" . chunk_split(base64_encode(der("\x30", $rsa . der("\x03", "\0" . $key))), 64, "\n") . "-----END PUBLIC KEY-----\n";
}

$key = openssl_pkey_get_public(pem((string) getenv('BENCH_RSA_N'), (string) getenv('BENCH_RSA_E')));
$issuer = getenv('BENCH_ISSUER');
$audience = getenv('BENCH_AUDIENCE');

/** @return ?array<string, mixed> */
$verified = function (string $token) use ($key, $issuer, $audience): ?array {
    $parts = explode('.', $token);
    if (count($parts) !== 3) {
        return null;
    }
    [$head, $payload, $signature] = $parts;
    $header = json_decode(bytes($head), true);
    if (!is_array($header) || ($header['alg'] ?? null) !== 'RS256' || ($header['typ'] ?? null) !== 'at+jwt') {
        return null;
    }
    if (openssl_verify("$head.$payload", bytes($signature), $key, OPENSSL_ALGO_SHA256) !== 1) {
        return null;
    }
    $claims = json_decode(bytes($payload), true);
    $now = time();
    $good = is_array($claims) && ($claims['iss'] ?? null) === $issuer && in_array($audience, (array) ($claims['aud'] ?? []), true)
        && is_int($claims['exp'] ?? null) && $claims['exp'] > $now && is_int($claims['iat'] ?? null) && $claims['iat'] <= $now + 60
        && isset($claims['sub'], $claims['jti'], $claims['client_id']);
    return $good ? $claims : null;
};

(new Runtime())->run(function (array $event) use ($verified): array {
    $header = $event['headers']['Authorization'] ?? '';
    $claims = str_starts_with($header, 'Bearer ') ? $verified(substr($header, 7)) : null;
    return [
        'principalId' => $claims['sub'] ?? 'nobody',
        'policyDocument' => ['Version' => '2012-10-17', 'Statement' => [[
            'Action' => 'execute-api:Invoke', 'Effect' => $claims === null ? 'Deny' : 'Allow', 'Resource' => $event['methodArn'],
        ]]],
    ];
});
