<?php
// Who calls, by the access token that the gate passes on, with PHP's openssl: RS256 and nothing else. More is in portcullis.php.

function decoded(string $part): string { return base64_decode(strtr($part, '-_', '+/'), true) ?: throw new ValueError(); }
function der(int $tag, string $value): string {
    $size = strlen($value);
    return chr($tag) . ($size < 128 ? chr($size) : ($size < 256 ? "\x81" . chr($size) : "\x82" . pack('n', $size))) . $value;
}

/** The claims of the token, or null. `$keys`: the gate's JWK Set, as /.well-known/jwks.json answers it, decoded into arrays. */
function caller(string $authorization, array $keys, string $issuer, string $audience): ?array {
    try {
        $parts = explode('.', explode(' ', $authorization)[1] ?? '');
        [$head, $body, $signature] = count($parts) === 3 ? $parts : throw new ValueError();
        [$header, $claims] = [json_decode(decoded($head), true, 8, JSON_THROW_ON_ERROR), json_decode(decoded($body), true, 8, JSON_THROW_ON_ERROR)];
        $fits = fn(array $key): bool => ($key['kid'] ?? null) === ($header['kid'] ?? '') && ($key['alg'] ?? '') === 'RS256' && ($header['alg'] ?? '') === 'RS256';
        $jwk = current(array_filter($keys['keys'], $fits)) ?: throw new ValueError();
        $pair = der(0x30, der(2, "\0" . decoded($jwk['n'])) . der(2, decoded($jwk['e'])));
        $info = der(0x30, hex2bin('300d06092a864886f70d0101010500') . der(3, "\0" . $pair));
        $pem = "-----BEGIN PUBLIC KEY-----\n" . chunk_split(base64_encode($info), 64) . "-----END PUBLIC KEY-----\n";
        $good = openssl_verify("$head.$body", decoded($signature), $pem, OPENSSL_ALGO_SHA256) === 1;
        $own = $header['typ'] === 'at+jwt' && $claims['iss'] === $issuer && $claims['aud'] === $audience && $claims['exp'] > time();
        return $good && $own && in_array('app', explode(' ', $claims['scope']), true) ? $claims : null;
    } catch (Throwable) {
        return null;
    }
}
