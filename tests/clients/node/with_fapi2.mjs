// The fourteen modules that the OpenID conformance suite runs for
// fapi2-security-profile-final-test-plan[openid=plain_oauth][client_auth_type=private_key_jwt][sender_constrain=dpop]
// [fapi_profile=fapi_client_credentials_grant], as a client sees them: over HTTPS, with jose and Node's own crypto.
//
// The protected resource is GET /files/{id} of a file that the client declared: it answers 200 with a body to its owner and
// has no effect, so that a refusal (400 or 401) can be told from everything else. docs/conformance.md runs the suite itself.
import { readFileSync } from 'node:fs';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import tls from 'node:tls';
import * as jose from 'jose';
import { FORM, JWT_BEARER, assertion, b64, form, hashed, jws, now, part, send, told, who } from './bare.mjs';
import { Report, manifest, version } from './stack.mjs';

const PREFIX = 'fapi2-security-profile-final-';
const report = new Report('fapi2', `fourteen modules with jose ${version('jose')}`);
const ca = readFileSync(manifest.ca_file);
const issuer = manifest.issuer;
const METADATA = `${issuer}/.well-known/oauth-authorization-server`;

// Checks of one module: a row for each that fails, and one for the module.
async function module(name, run) {
  let count = 0;
  const failed = [];
  const check = (what, want, got) => {
    count += 1;
    const holds = Array.isArray(want) ? want.some((one) => one === got) : want === got;
    if (!holds) failed.push(`${what}: wanted ${JSON.stringify(want)}, got ${JSON.stringify(got)}`);
  };
  try {
    await run(check);
  } catch (error) {
    failed.push(`it broke off: ${error.stack}`);
  }
  for (const fault of failed) report.row(`${PREFIX}${name}`, 'holds', fault);
  if (failed.length === 0) report.row(`${PREFIX}${name}`, `${count} checks`, `${count} checks`);
}

const { json: metadata } = await send(METADATA, { ca });

// A client, the key its tokens are bound to, and its file.
function holder(id, alg = 'ES256') {
  const pair = alg === 'PS256' ? generateKeyPairSync('rsa', { modulusLength: 2048 }) : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { client: who(id), alg, key: pair.privateKey, jwk: pair.publicKey.export({ format: 'jwk' }) };
}

// A proof by jose; only what jose cannot make is made by hand.
async function proof({ key, jwk, alg }, htm, htu, claims = {}, header = {}) {
  const made = told({ jti: randomUUID(), htm, htu, iat: now(), ...claims });
  return new jose.SignJWT(made).setProtectedHeader({ typ: 'dpop+jwt', alg, jwk, ...header }).sign(key);
}

let nonce;
async function ask(fields, headers) {
  const answer = await send(metadata.token_endpoint, { method: 'POST', ca, headers: ['Content-Type', FORM, ...headers], body: form(fields) });
  nonce = answer.headers['dpop-nonce'] ?? nonce;
  return answer;
}

// The token endpoint's answer to `me`; once more where it wants its nonce (RFC 9449 §8).
async function grant(me, { claims, header, fields, signedBy, proven = {}, proofHeader } = {}) {
  const body = () => ({
    grant_type: 'client_credentials', scope: 'files:read files:write', client_assertion_type: JWT_BEARER,
    client_assertion: signedBy ?? assertion(me.client, issuer, claims, header), ...fields,
  });
  const attempt = async () =>
    ask(body(), proven === null ? [] : ['DPoP', await proof(me, 'POST', metadata.token_endpoint, { nonce, ...proven }, proofHeader)]);
  const first = await attempt();
  return first.json?.error === 'use_dpop_nonce' ? attempt() : first;
}

// The resource, with exactly these headers.
const resource = (me, headers, { method = 'GET', query = '' } = {}) =>
  send(`${manifest.gateway}/files/${me.file}${query}`, { method, ca, headers });

const htuOf = (me) => `${manifest.gateway}/files/${me.file}`;

// The resource with a right proof, some of its claims changed.
async function call(me, { token = me.token, scheme = 'DPoP', claims = {}, accept, by = me } = {}) {
  const proven = await proof(by, 'GET', htuOf(me), { ath: hashed(token), ...claims });
  return resource(me, ['Authorization', `${scheme} ${token}`, 'DPoP', proven, ...(accept ? ['Accept', accept] : [])]);
}

// Gets a token and declares the file that will be read.
async function settle(me) {
  me.token = (await grant(me)).json.access_token;
  const url = `${manifest.gateway}/files`;
  const content = JSON.stringify({ name: 'fapi.txt', content_type: 'text/plain', size: 5, mode: 'put', sha256: 'LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=' });
  const proven = await proof(me, 'POST', url, { ath: hashed(me.token) });
  const made = await send(url, { method: 'POST', ca, body: content, headers: ['Content-Type', 'application/json', 'Authorization', `DPoP ${me.token}`, 'DPoP', proven] });
  me.file = made.json.id;
  return me;
}

const BAD_CLIENT = ['invalid_client', 'invalid_grant'];
const refusedClient = (check, what, answer, errors = BAD_CLIENT) => {
  check(`${what}: status`, [400, 401], answer.status);
  check(`${what}: error`, errors, answer.json?.error);
  check(`${what}: JSON`, true, /^application\/json/.test(answer.headers['content-type'] ?? ''));
};

// Whether a TLS connection of this version comes about.
const speaks = (protocol) => new Promise((resolve) => {
  const { hostname, port } = new URL(issuer);
  const socket = tls.connect({ host: hostname, port, ca, servername: hostname, minVersion: protocol, maxVersion: protocol, ciphers: 'DEFAULT:@SECLEVEL=0' });
  socket.once('secureConnect', () => { socket.destroy(); resolve(true); });
  socket.once('error', () => resolve(false));
});

const one = await settle(holder('fapi-one'));
const two = await settle(holder('fapi-two', 'PS256'));

await module('discovery-end-point-verification', async (check) => {
  const answer = await send(METADATA, { ca });
  check('status', 200, answer.status);
  check('content type', true, /^application\/json/.test(answer.headers['content-type']));
  check('issuer is the one asked', issuer, answer.json.issuer);
  check('issuer has no query, fragment or user', true, /^https:\/\/[^/?#@]+$/.test(issuer));
  for (const name of ['token_endpoint', 'jwks_uri', 'revocation_endpoint', 'introspection_endpoint']) {
    check(`${name} is https at the issuer`, true, answer.json[name]?.startsWith(`${issuer}/`) ?? false);
  }
  check('client_credentials', true, answer.json.grant_types_supported.includes('client_credentials'));
  check('private_key_jwt', true, answer.json.token_endpoint_auth_methods_supported.includes('private_key_jwt'));
  check('no weaker method', true, answer.json.token_endpoint_auth_methods_supported.every((one) => ['private_key_jwt', 'none'].includes(one)));
  for (const name of ['token_endpoint_auth_signing_alg_values_supported', 'dpop_signing_alg_values_supported']) {
    const named = answer.json[name] ?? [];
    check(`${name}: at least one`, true, named.length > 0);
    check(`${name}: none but FAPI's`, true, named.every((alg) => ['PS256', 'ES256', 'EdDSA', 'Ed25519'].includes(alg)));
  }
  check('scope syntax', true, answer.json.scopes_supported.every((scope) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(scope)));
  const { json: keys } = await send(answer.json.jwks_uri, { ca });
  check('keys without private members', true, keys.keys.length > 0 && keys.keys.every((key) => !['d', 'p', 'q', 'k'].some((name) => name in key)));
  check('keys with ids, each its own', keys.keys.length, new Set(keys.keys.map((key) => key.kid)).size);
});

await module('happy-flow', async (check) => {
  for (const me of [one, two]) {
    const answer = await grant(me);
    check('status', 200, answer.status);
    check('no-store', true, (answer.headers['cache-control'] ?? '').includes('no-store'));
    check('token type', 'dpop', answer.json.token_type?.toLowerCase());
    check('at least 128 bits', true, answer.json.access_token.length >= 22);
    check('expires_in is a number', true, Number.isInteger(answer.json.expires_in) && answer.json.expires_in > 0);
    check('no refresh token', false, 'refresh_token' in answer.json);
    check('scope as asked', 'files:read files:write', answer.json.scope);
    for (const accept of [undefined, '*/*', 'application/json;charset=UTF-8, text/html;q=0.1', 'image/png']) {
      const read = await call(me, { token: answer.json.access_token, accept });
      check(`the resource with Accept ${accept}`, [200, 201], read.status);
      check('Date', true, !Number.isNaN(Date.parse(read.headers.date)));
    }
    const proven = await proof(me, 'GET', htuOf(me), { ath: hashed(me.token) });
    check('the token in the query', [400, 401], (await resource(me, ['DPoP', proven], { query: `?access_token=${me.token}` })).status);
  }
  check("one's key with the other's token", [400, 401], (await call(two, { token: two.token, by: one })).status);
  check("one's token for the other's file", [403, 404], (await call(two, { token: one.token, by: one })).status);
  // As the suite is configured, both clients are sent to one URL.
  const whole = (await grant(two, { fields: { scope: 'files:read:tenant' } })).json.access_token;
  const proven = await proof(two, 'GET', htuOf(one), { ath: hashed(whole) });
  check("one's file for the other with files:read:tenant", 200, (await resource(one, ['Authorization', `DPoP ${whole}`, 'DPoP', proven])).status);
  check('no token', 401, (await resource(one, [])).status);
  for (const [protocol, wanted] of [['TLSv1', false], ['TLSv1.1', false], ['TLSv1.2', true], ['TLSv1.3', true]]) {
    check(protocol, wanted, await speaks(protocol));
  }
});

await module('access-token-type-header-case-sensitivity', async (check) => {
  for (const scheme of ['dpOp', 'dPoP', 'DPOP', 'dpop']) check(scheme, [200, 201], (await call(one, { scheme })).status);
});

await module('check-dpop-proof-nbf-exp', async (check) => {
  const dates = () => ({ nbf: now(), exp: now() + 300 });
  const answer = await grant(one, { proven: dates() });
  check('the token endpoint', 200, answer.status);
  check('the resource', 200, (await call(one, { token: answer.json.access_token, claims: dates() })).status);
});

for (const [name, offset] of [
  ['ensure-dpopproof-with-iat-10seconds-before-succeeds', -10],
  ['ensure-dpopproof-with-iat-10seconds-after-succeeds', 10],
]) {
  await module(name, async (check) => {
    const answer = await grant(one, { proven: { iat: now() + offset } });
    check('the token endpoint', 200, answer.status);
    const claims = { iat: now() + offset };
    check('the resource', 200, (await call(one, { token: answer.json.access_token, claims })).status);
  });
}

await module('ensure-client-id-in-token-endpoint', async (check) => {
  const forged = assertion({ ...two.client, alg: one.client.alg, kid: one.client.kid }, issuer, {}, {}, one.client.key, one.client.alg);
  const same = assertion({ ...two.client, alg: one.client.alg }, issuer, {}, {}, one.client.key, one.client.alg);
  refusedClient(check, "the other's id, one's key and kid", await grant(two, { signedBy: forged, fields: { client_id: two.client.id } }));
  refusedClient(check, "the other's id and kid, one's key", await grant(two, { signedBy: same, fields: { client_id: two.client.id } }));
  const mine = assertion(one.client, issuer);
  refusedClient(check, "the other's id beside one's assertion", await grant(one, { signedBy: mine, fields: { client_id: two.client.id } }));
});

await module('ensure-holder-of-key-required', async (check) => {
  const answer = await grant(one, { proven: null });
  check('status', 400, answer.status);
  check('error', ['invalid_request', 'invalid_grant', 'invalid_dpop_proof'], answer.json?.error);
  check('JSON', true, /^application\/json/.test(answer.headers['content-type']));
  check('no token', false, 'access_token' in (answer.json ?? {}));
  for (const [protocol, wanted] of [['TLSv1.1', false], ['TLSv1.2', true]]) check(protocol, wanted, await speaks(protocol));
});

await module('ensure-signed-client-assertion-with-RS256-fails', async (check) => {
  const rs256 = assertion({ ...one.client, alg: 'RS256' }, issuer, {}, {}, one.client.key, 'RS256');
  refusedClient(check, 'a PS256 client by RS256', await grant(one, { signedBy: rs256 }), ['invalid_client']);
});

await module('ensure-client-assertion-in-token-endpoint', async (check) => {
  const bare = { client_assertion: undefined, client_assertion_type: undefined, client_id: one.client.id };
  refusedClient(check, 'no assertion', await grant(one, { fields: bare }), ['invalid_client', 'invalid_request']);
});

const assertionFails = (name, claims) => module(name, async (check) => {
  for (const one of claims()) refusedClient(check, JSON.stringify(one), await grant(two, { claims: one }));
});
await assertionFails('ensure-client-assertion-with-exp-is-5-minutes-in-past-fails', () => [{ iat: now() - 360, exp: now() - 300 }, { exp: now() - 300 }]);
await assertionFails('ensure-client-assertion-with-wrong-aud-fails', () =>
  ['https://other.example', metadata.token_endpoint, `${issuer}/`, [issuer], [issuer, 'https://other.example']].map((aud) => ({ aud })));
await assertionFails('ensure-client-assertion-with-no-sub-fails', () => [{ sub: undefined }]);

await module('dpop-negative-tests', async (check) => {
  const me = one;
  me.token = (await grant(me)).json.access_token;
  const url = htuOf(me);
  const ath = hashed(me.token);
  const header = () => ({ typ: 'dpop+jwt', alg: me.alg, jwk: me.jwk });
  const claims = () => ({ jti: randomUUID(), htm: 'GET', htu: url, iat: now(), ath });
  // A proof by hand, with these members changed or left out; `alg` says how it is truly signed.
  const bare = (changedHeader = {}, changedClaims = {}, key = me.key, alg = me.alg) =>
    jws(told({ ...header(), ...changedHeader }), told({ ...claims(), ...changedClaims }), key, alg);
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const spoilt = (text) => {
    const [head, body, signature] = text.split('.');
    const bytes = Buffer.from(signature, 'base64url');
    bytes[20] ^= 1;
    return `${head}.${body}.${b64(bytes)}`;
  };
  const host = new URL(url);
  const once = bare();
  const PASSES = [200, 201];
  const REFUSED = [400, 401];
  const carried = async (proofs, { scheme = 'DPoP', name = 'DPoP', query } = {}) =>
    (await resource(me, ['Authorization', `${scheme} ${me.token}`, ...proofs.flatMap((value) => [name, value])], { query })).status;
  const cases = [
    [1, 'the header is called DPOP', PASSES, () => carried([bare()], { name: 'DPOP' })],
    [2, 'two DPoP headers', REFUSED, () => carried([bare(), bare()])],
    [3, 'a JWT of two parts', REFUSED, () => carried([bare().split('.').slice(0, 2).join('.')])],
    [4, 'no typ', REFUSED, () => carried([bare({ typ: undefined })])],
    [5, 'no alg', REFUSED, () => carried([bare({ alg: undefined })])],
    [6, 'no jwk', REFUSED, () => carried([bare({ jwk: undefined })])],
    [7, 'no jti', REFUSED, () => carried([bare({}, { jti: undefined })])],
    [8, 'no htm', REFUSED, () => carried([bare({}, { htm: undefined })])],
    [9, 'no htu', REFUSED, () => carried([bare({}, { htu: undefined })])],
    [10, 'no iat', REFUSED, () => carried([bare({}, { iat: undefined })])],
    [11, 'no ath', REFUSED, () => carried([bare({}, { ath: undefined })])],
    [12, 'another typ', REFUSED, () => carried([bare({ typ: 'dpop+jwt+wrongyousee' })])],
    [13, 'RS256', REFUSED, () => carried([bare({ alg: 'RS256', jwk: rsa.publicKey.export({ format: 'jwk' }) }, {}, rsa.privateKey, 'RS256')])],
    [14, 'alg none', REFUSED, () => carried([`${part({ ...header(), alg: 'none' })}.${part(claims())}.`])],
    [15, 'a bad signature', REFUSED, () => carried([spoilt(bare())])],
    [16, 'a private key in the header', REFUSED, () => carried([bare({ jwk: me.key.export({ format: 'jwk' }) })])],
    [17, 'htm PUT', REFUSED, () => carried([bare({}, { htm: 'PUT' })])],
    [18, 'query and fragment in htu', PASSES, () => carried([bare({}, { htu: `${url}?a=1#b` })])],
    [19, 'htu without the query of the request', PASSES, () => carried([bare()], { query: '?a=1' })],
    [20, 'htu of another resource', REFUSED, () => carried([bare({}, { htu: `${manifest.gateway}/files/other` })])],
    [21, 'iat an hour ago', REFUSED, () => carried([bare({}, { iat: now() - 3600 })])],
    [22, 'iat in an hour', REFUSED, () => carried([bare({}, { iat: now() + 3600 })])],
    [23, 'a jti for the first time', PASSES, () => carried([once])],
    // The suite only warns: environments share no memory. There are few of them here, and none takes it twice.
    [24, 'and once more in the same environment', REFUSED, async () => {
      for (let times = 0; times < 8; times += 1) {
        const status = await carried([once]);
        if (REFUSED.includes(status)) return status;
      }
      return 200;
    }],
    [25, 'ath of another token', REFUSED, () => carried([bare({}, { ath: hashed('other') })])],
    [26, "another key's proof", REFUSED, () => carried([bare({ alg: 'PS256', jwk: two.jwk }, {}, two.key, 'PS256')])],
    [27, 'more members in header and claims', PASSES, () => carried([bare({ foo: { a: 1 } }, { bar: [1] })])],
    [28, 'scheme and host in upper case', PASSES, () => carried([bare({}, { htu: `HTTPS://${host.host.toUpperCase()}${host.pathname}` })])],
    // The stack listens on no default port: its own, spelled out, is all that can be explicit. shared/src/dpop has the other.
    [29, 'the port spelled out', PASSES, () => carried([bare({}, { htu: `https://${host.hostname}:${host.port || 443}${host.pathname}` })])],
    [30, 'no proof, scheme DPoP', REFUSED, () => carried([])],
    [31, 'no proof, scheme Bearer', REFUSED, () => carried([], { scheme: 'Bearer' })],
    [32, 'a right proof at the end', PASSES, () => carried([bare()])],
  ];
  check('all of them', 32, new Set(cases.map(([number]) => number)).size);
  for (const [number, what, wanted, run] of cases) {
    const got = await run();
    report.row(`${PREFIX}dpop-negative-tests ${number}: ${what}`, wanted === PASSES ? 'passes' : 'refused',
      wanted.includes(got) ? (wanted === PASSES ? 'passes' : 'refused') : `${got}`);
    check(`case ${number}, ${what}`, wanted, got);
  }
});
report.end();
