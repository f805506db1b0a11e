// Who calls, by the access token that the gate passes on, with what Node brings along: RS256 and nothing else. More is in portcullis.mjs.
import { createPublicKey, verify } from 'node:crypto';

const read = (part) => JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));

/** The claims of the token, or null. `keys`: the gate's JWK Set, as /.well-known/jwks.json answers it. */
export function caller(authorization, keys, issuer, audience) {
  try {
    const [head, body, signature, more] = String(authorization).split(' ')[1].split('.');
    const [header, claims] = [read(head), read(body)];
    const jwk = keys.keys.find((key) => key.kid === header.kid && key.alg === 'RS256' && header.alg === 'RS256');
    const key = createPublicKey({ key: jwk, format: 'jwk' });
    const good = more === undefined && verify('RSA-SHA256', Buffer.from(`${head}.${body}`), key, Buffer.from(signature, 'base64url'));
    const own = header.typ === 'at+jwt' && claims.iss === issuer && claims.aud === audience && claims.exp > Date.now() / 1000;
    return good && own && claims.scope.split(' ').includes('app') ? claims : null;
  } catch {
    return null;
  }
}
