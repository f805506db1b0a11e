// openid-client: what most Node programs use. Discovery, grants with DPoP, introspection, revocation, and the API, by its defaults.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as jose from 'jose';
import * as client from 'openid-client';
import { who } from './bare.mjs';
import { Report, UNKNOWN_FILE, manifest, refusal, version } from './stack.mjs';

const report = new Report('openid-client', version('openid-client'));
const FILE = new URL(UNKNOWN_FILE, manifest.gateway);

// A configuration by discovery (RFC 8414) for a registered client.
async function configured(id, changed = {}) {
  const { alg, kid } = who(id);
  const key = await jose.importPKCS8(readFileSync(join(process.env.PORTCULLIS_NODE_CLIENTS, `${id}.pem`), 'utf8'), alg);
  const proof = client.PrivateKeyJwt({ key, kid }, { [client.modifyAssertion]: (_header, payload) => Object.assign(payload, changed) });
  return client.discovery(new URL(manifest.issuer), id, undefined, proof, { algorithm: 'oauth2' });
}

const config = await configured('twin');
const server = config.serverMetadata();
report.row('discovery finds our endpoints', ['token', 'introspect', 'revoke'].map((name) => `${manifest.issuer}/oauth2/${name}`),
  [server.token_endpoint, server.introspection_endpoint, server.revocation_endpoint]);
const issued = await client.clientCredentialsGrant(config, { scope: 'files:read', resource: manifest.audience });
report.row('clientCredentialsGrant with a resource', ['bearer', 300, 'files:read'], [issued.token_type, issued.expires_in, issued.scope]);
const read = await client.fetchProtectedResource(config, issued.access_token, FILE, 'GET');
report.row('fetchProtectedResource passes the gate', 404, read.status);

const told = await client.tokenIntrospection(config, issued.access_token);
report.row('tokenIntrospection of it', [true, 'twin', 'acme', 'Bearer'], [told.active, told.client_id, told.tenant, told.token_type]);
report.row('and of what is no token', '{"active":false}', JSON.stringify(await client.tokenIntrospection(config, 'garbage')));
const foreign = await configured('twin-foreign');
report.row("another tenant's question about it", '{"active":false}', JSON.stringify(await client.tokenIntrospection(foreign, issued.access_token)));
await client.tokenRevocation(foreign, issued.access_token);
report.row("another tenant's tokenRevocation of it ends nothing", true, (await client.tokenIntrospection(config, issued.access_token)).active);
await client.tokenRevocation(config, issued.access_token, { token_type_hint: 'access_token' });
// Each verifier looks again when its list is five seconds old.
async function soon(wanted, look) {
  const until = Date.now() + 10_000;
  for (;;) {
    const seen = await look();
    if (seen === wanted || Date.now() > until) return seen;
    await new Promise((resolve) => { setTimeout(resolve, 200); });
  }
}
report.row('its own tokenRevocation ends it within seconds', false,
  await soon(false, async () => (await client.tokenIntrospection(config, issued.access_token)).active));
const REFUSED = 'OAUTH_WWW_AUTHENTICATE_CHALLENGE';
const knock = () => refusal(() => client.fetchProtectedResource(config, issued.access_token, FILE, 'GET'));
report.row('at the gate too', REFUSED, await soon(REFUSED, knock));

for (const algorithm of ['ES256', 'PS256', 'Ed25519']) {
  const bound = await configured('twin-bound');
  const DPoP = client.getDPoPHandle(bound, await client.randomDPoPKeyPair(algorithm));
  const grant = await client.clientCredentialsGrant(bound, {}, { DPoP });
  report.row(`${algorithm}: a bound token, the nonce dealt with by itself`, 'dpop', grant.token_type);
  const reads = await client.fetchProtectedResource(bound, grant.access_token, FILE, 'GET', null, undefined, { DPoP });
  report.row(`${algorithm}: passes the gate`, 404, reads.status);
  const described = await client.tokenIntrospection(bound, grant.access_token);
  report.row(`${algorithm}: introspection names its key`, await DPoP.calculateThumbprint(), described.cnf?.jkt);
}

for (const [what, wanted, act] of [
  ['a scope it does not hold', 'invalid_scope', async () => client.clientCredentialsGrant(config, { scope: 'app' })],
  ['another resource', 'invalid_target', async () => client.clientCredentialsGrant(config, { resource: 'https://other.example' })],
  ['a grant nobody has', 'unsupported_grant_type', async () => client.genericGrantRequest(config, 'urn:example:nobody', {})],
  ['a bound client without a proof', 'invalid_dpop_proof', async () => client.clientCredentialsGrant(await configured('twin-bound'), {})],
  ['an assertion for an hour', 'invalid_client', async () => client.clientCredentialsGrant(await configured('twin', { exp: Math.floor(Date.now() / 1000) + 3600 }), {})],
  ['an assertion for the token endpoint', 'invalid_client', async () => client.clientCredentialsGrant(await configured('twin', { aud: server.token_endpoint }), {})],
]) {
  report.row(`${what}: told by our error`, wanted, await refusal(act));
}
report.end();
