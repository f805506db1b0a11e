// aws-jwt-verify, AWS's own verifier, on our tokens and our key set.
import { JwtVerifier } from 'aws-jwt-verify';
import * as oauth from 'oauth4webapi';
import { Report, client, corpus, manifest, privateKey, refusal, version } from './stack.mjs';

const report = new Report('aws-jwt-verify', version('aws-jwt-verify'));
const issuer = new URL(manifest.issuer);
const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' }));
const me = { client_id: 'acme-backend' };
const proof = oauth.PrivateKeyJwt({ key: await privateKey(me.client_id), kid: client(me.client_id).kid });
const issued = await oauth.processClientCredentialsResponse(
  server,
  me,
  await oauth.clientCredentialsGrantRequest(server, me, proof, { scope: 'files:read' }),
);
const token = issued.access_token;

const verifier = (changes = {}) =>
  JwtVerifier.create({ issuer: manifest.issuer, audience: manifest.audience, jwksUri: server.jwks_uri, ...changes });
const payload = await verifier({ scope: 'files:read' }).verify(token);
report.row('verifies the RS256 token by issuer, audience, scope and key set', 'acme', payload.tenant);
for (const [what, wanted, changes] of [
  ['refuses it for another audience', 'JwtInvalidAudienceError', { audience: 'https://other.example' }],
  ['refuses it without the scope', 'JwtInvalidScopeError', { scope: 'files:write' }],
]) {
  report.row(what, wanted, await refusal(() => verifier(changes).verify(token)));
}
const elsewhere = verifier({ issuer: 'https://issuer.example' });
report.row('refuses it for another issuer', 'JwtInvalidIssuerError', await refusal(() => elsewhere.verify(token)));
const bad = corpus(token);
for (const [what, wanted, copy] of [
  ['refuses it tampered', 'JwtInvalidSignatureError', bad.tampered],
  ['refuses it with alg none', 'JwtParseError', bad.unsigned],
  ['refuses it as HS256', 'JwtInvalidSignatureAlgorithmError', bad.downgraded],
  ['refuses it under an unknown key', 'KidNotFoundInJwksError', bad.strangerKey],
]) {
  report.row(what, wanted, await refusal(() => verifier().verify(copy)));
}
report.end();
