// node oidc-provider beside the stack, configured as near to it as it goes, as a second opinion on every answer: the same
// requests, good and bad, to both, comparing status and `error`. Where they differ the reason stands in
// tests/clients/differences.md; a difference without a row fails, and so does a row without a difference.
import { readFileSync } from 'node:fs';
import { createHmac, createPublicKey, generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { FORM, JWT_BEARER, assertion, b64, form, jws, now, part, send, told, who } from './bare.mjs';
import { Report, manifest, version } from './stack.mjs';

// Its advice for production is not for here, and says nothing of an answer.
console.warn = console.info = () => {};
process.env.NO_COLOR = '1';
const { default: Provider, errors } = await import('oidc-provider');

const report = new Report('oidc-provider', version('oidc-provider'));
const NAMES = ['twin', 'twin-bound', 'twin-foreign', 'twin-rsa'];
const clients = Object.fromEntries(NAMES.map((id) => [id, who(id)]));
const HELD = 'files:read files:write';

// Theirs ------------------------------------------------------------------------------------------------------------------
const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const base = `http://127.0.0.1:${server.address().port}`;
const algorithms = ['ES256', 'PS256', 'EdDSA', 'Ed25519'];
const tenantOf = (client) => clients[client.clientId].tenant;
const provider = new Provider(base, {
  clients: NAMES.map((id) => ({
    client_id: id, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
    token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [clients[id].jwk] }, scope: clients[id].scopes.join(' '),
    dpop_bound_access_tokens: clients[id].dpop,
  })),
  clientAuthMethods: ['private_key_jwt'],
  clockTolerance: 10,
  enabledJWA: { clientAuthSigningAlgValues: algorithms, dPoPSigningAlgValues: algorithms },
  scopes: HELD.split(' '),
  routes: { token: '/oauth2/token', revocation: '/oauth2/revoke', introspection: '/oauth2/introspect' },
  ttl: { ClientCredentials: (_ctx, _token, client) => (client.clientId === 'twin-rsa' ? 1 : 300) },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true, allowReplay: false },
    fapi: { enabled: true, profile: '2.0' },
    introspection: { enabled: true, allowedPolicy: async (ctx, client, token) => tenantOf(client) === tenantOf({ clientId: token.clientId }) },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => manifest.audience,
      getResourceServerInfo: (_ctx, resource) => {
        if (resource !== manifest.audience) throw new errors.InvalidTarget();
        return { scope: HELD, audience: resource, accessTokenFormat: 'opaque' };
      },
    },
  },
});
server.on('request', provider.callback());

// Both --------------------------------------------------------------------------------------------------------------------
class Side {
  nonce;

  constructor(issuer, ca) {
    Object.assign(this, { issuer, ca, token: `${issuer}/oauth2/token`, revoke: `${issuer}/oauth2/revoke`, introspect: `${issuer}/oauth2/introspect` });
  }

  async send(url, options) {
    const answer = await send(url, { method: 'POST', ca: this.ca, ...options });
    this.nonce = answer.headers['dpop-nonce'] ?? this.nonce;
    return answer;
  }

  post(url, fields, headers = []) {
    return this.send(url, { headers: ['Content-Type', FORM, ...headers], body: typeof fields === 'string' ? fields : form(fields) });
  }

  // The fields that authenticate a client.
  proven(id = 'twin', claims = {}, header = {}, key = undefined, alg = undefined) {
    const client = clients[id];
    return this.with(assertion(client, this.issuer, claims, header, key ?? client.key, alg ?? client.alg));
  }

  with(signed) {
    return { client_assertion_type: JWT_BEARER, client_assertion: signed };
  }

  // A grant that is good but for `fields` and `headers`.
  grant(fields = {}, headers = [], auth = this.proven()) {
    return this.post(this.token, { grant_type: 'client_credentials', ...auth, ...fields }, headers);
  }

  async issued(id = 'twin') {
    return (await this.grant({}, [], this.proven(id))).json.access_token;
  }

  // A proof for the token endpoint.
  proof(claims = {}, header = {}, pair = holder, alg = 'ES256') {
    const made = { jti: randomUUID(), htm: 'POST', htu: this.token, iat: now(), nonce: this.nonce, ...claims };
    const head = { typ: 'dpop+jwt', alg: 'ES256', jwk: pair.publicKey.export({ format: 'jwk' }), ...header };
    return jws(told(head), told(made), pair.privateKey, alg);
  }

  bound(...proofs) {
    return this.grant({ scope: 'files:read' }, proofs.flatMap((one) => ['DPoP', one]), this.proven('twin-bound'));
  }
}
const ours = new Side(manifest.issuer, readFileSync(manifest.ca_file));
const theirs = new Side(base);
const holder = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const expired = {
  ours: readFileSync(join(process.env.PORTCULLIS_NODE_CLIENTS, 'expired.jwt'), 'utf8'),
  theirs: await theirs.issued('twin-rsa'),
};
// Both have told their nonce once before proofs are judged.
for (const side of [ours, theirs]) await side.bound(side.proof());

const hs256 = (header, payload, secret) => {
  const signed = `${part(header)}.${part(payload)}`;
  return `${signed}.${b64(createHmac('sha256', secret).update(signed).digest())}`;
};
const claimsOf = (side, changes = {}) => told({ iss: 'twin', sub: 'twin', aud: side.issuer, jti: randomUUID(), iat: now(), exp: now() + 60, ...changes });
const HEAD = { alg: 'ES256', kid: 'twin-1', typ: 'JWT' };
const publicPem = createPublicKey(clients.twin.key).export({ type: 'spki', format: 'pem' });
const pause = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
const again = (act) => async (side) => { const once = act(side); await once(); return once(); };

// Requests ----------------------------------------------------------------------------------------------------------------
const requests = {
  // The grant and its parameters.
  'a good request': (s) => s.grant(),
  'with a scope it holds': (s) => s.grant({ scope: 'files:read' }),
  'with both scopes': (s) => s.grant({ scope: HELD }),
  'with an unknown parameter': (s) => s.grant({ unknown: 'x' }),
  'with its client_id': (s) => s.grant({ client_id: 'twin' }),
  'with the resource': (s) => s.grant({ resource: manifest.audience }),
  'no grant_type': (s) => s.grant({ grant_type: undefined }),
  'an empty grant_type': (s) => s.grant({ grant_type: '' }),
  'grant_type password': (s) => s.grant({ grant_type: 'password' }),
  'grant_type implicit': (s) => s.grant({ grant_type: 'implicit' }),
  'grant_type in upper case': (s) => s.grant({ grant_type: 'CLIENT_CREDENTIALS' }),
  'grant_type with a space after it': (s) => s.grant({ grant_type: 'client_credentials ' }),
  'grant_type twice': (s) => s.grant({ grant_type: ['client_credentials', 'client_credentials'] }),
  'scope twice': (s) => s.grant({ scope: ['files:read', 'files:read'] }),
  'resource twice': (s) => s.grant({ resource: [manifest.audience, manifest.audience] }),
  'client_id twice': (s) => s.grant({ client_id: ['twin', 'twin'] }),
  'an unknown parameter twice': (s) => s.grant({ unknown: ['x', 'x'] }),
  'an empty scope': (s) => s.grant({ scope: '' }),
  'a scope of a space': (s) => s.grant({ scope: ' ' }),
  'a scope nobody knows': (s) => s.grant({ scope: 'nobody:knows' }),
  'a scope that another client holds': (s) => s.grant({ scope: 'files:write' }, [], s.proven('twin-rsa')),
  'a scope with a quotation mark': (s) => s.grant({ scope: 'files:"read' }),
  'a scope named twice': (s) => s.grant({ scope: 'files:read files:read' }),
  'a resource nobody knows': (s) => s.grant({ resource: 'https://other.example' }),
  'a relative resource': (s) => s.grant({ resource: 'api' }),
  'a resource with a fragment': (s) => s.grant({ resource: `${manifest.audience}#x` }),
  'grant_type in the query only': (s) => s.post(`${s.token}?grant_type=client_credentials`, s.proven()),
  'the assertion in the query only': (s) => s.post(`${s.token}?${form(s.proven())}`, { grant_type: 'client_credentials' }),
  // Bodies and methods.
  'no body': (s) => s.post(s.token, ''),
  'a body of JSON': (s) => s.send(s.token, { headers: ['Content-Type', 'application/json'], body: JSON.stringify({ grant_type: 'client_credentials', ...s.proven() }) }),
  'a form called text/plain': (s) => s.send(s.token, { headers: ['Content-Type', 'text/plain'], body: form({ grant_type: 'client_credentials', ...s.proven() }) }),
  'a form without content type': (s) => s.send(s.token, { body: form({ grant_type: 'client_credentials', ...s.proven() }) }),
  'a form with its charset': (s) => s.send(s.token, { headers: ['Content-Type', `${FORM}; charset=utf-8`], body: form({ grant_type: 'client_credentials', ...s.proven() }) }),
  'a form in upper case': (s) => s.send(s.token, { headers: ['Content-Type', FORM.toUpperCase()], body: form({ grant_type: 'client_credentials', ...s.proven() }) }),
  'a form of 20 KB': (s) => s.grant({ unknown: 'x'.repeat(20_000) }),
  'a form of 60 KB': (s) => s.grant({ unknown: 'x'.repeat(60_000) }),
  'a percent sign alone': (s) => s.post(s.token, `${form({ grant_type: 'client_credentials', ...s.proven() })}&x=%`),
  'bytes that are no UTF-8': (s) => s.post(s.token, `${form({ grant_type: 'client_credentials', ...s.proven() })}&x=%ff`),
  'GET': (s) => s.send(s.token, { method: 'GET' }),
  'PUT': (s) => s.send(s.token, { method: 'PUT', headers: ['Content-Type', FORM], body: form({ grant_type: 'client_credentials', ...s.proven() }) }),
  'DELETE': (s) => s.send(s.token, { method: 'DELETE' }),
  'PATCH': (s) => s.send(s.token, { method: 'PATCH', headers: ['Content-Type', FORM], body: form({ grant_type: 'client_credentials', ...s.proven() }) }),
  // Who asks.
  'nobody': (s) => s.grant({}, [], {}),
  'a client_id alone': (s) => s.grant({ client_id: 'twin' }, [], {}),
  'a client_id alone that nobody knows': (s) => s.grant({ client_id: 'nobody' }, [], {}),
  'a client_secret': (s) => s.grant({ client_id: 'twin', client_secret: 'x' }, [], {}),
  'a client_secret beside the assertion': (s) => s.grant({ client_secret: 'x' }),
  'Basic': (s) => s.grant({}, ['Authorization', `Basic ${Buffer.from('twin:x').toString('base64')}`], {}),
  'Basic beside the assertion': (s) => s.grant({}, ['Authorization', `Basic ${Buffer.from('twin:x').toString('base64')}`]),
  'Bearer': (s) => s.grant({}, ['Authorization', 'Bearer x'], {}),
  'no client_assertion_type': (s) => s.grant({ client_assertion_type: undefined }),
  'another client_assertion_type': (s) => s.grant({ client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:saml2-bearer' }),
  'a client_assertion_type alone': (s) => s.grant({ client_assertion: undefined }),
  'client_assertion twice': (s) => { const { client_assertion: one } = s.proven(); return s.grant({ client_assertion: [one, one] }); },
  'client_assertion_type twice': (s) => s.grant({ client_assertion_type: [JWT_BEARER, JWT_BEARER] }),
  "another's client_id": (s) => s.grant({ client_id: 'twin-bound' }),
  'an assertion that is no JWT': (s) => s.grant({}, [], s.with('garbage')),
  'an assertion of two parts': (s) => s.grant({}, [], s.with(`${part(HEAD)}.${part(claimsOf(s))}`)),
  'an assertion of five parts': (s) => s.grant({}, [], s.with('a.b.c.d.e')),
  'an assertion with padding': (s) => s.grant({}, [], s.with(`${s.proven().client_assertion}=`)),
  'an assertion of 20 kB': (s) => s.grant({}, [], s.proven('twin', { x: 'x'.repeat(11_000) })),
  'a client that nobody knows': (s) => s.grant({}, [], s.proven('twin', { iss: 'nobody', sub: 'nobody' })),
  "a stranger's key": (s) => s.grant({}, [], s.proven('twin', {}, {}, stranger.privateKey)),
  'a signature cut short': (s) => s.grant({}, [], s.with(s.proven().client_assertion.slice(0, -4))),
  'other claims under the signature': (s) => { const [h, , v] = s.proven().client_assertion.split('.'); return s.grant({}, [], s.with(`${h}.${part(claimsOf(s))}.${v}`)); },
  'no signature': (s) => s.grant({}, [], s.with(`${part(HEAD)}.${part(claimsOf(s))}.`)),
  'alg none': (s) => s.grant({}, [], s.with(`${part({ ...HEAD, alg: 'none' })}.${part(claimsOf(s))}.`)),
  'alg nOnE': (s) => s.grant({}, [], s.with(`${part({ ...HEAD, alg: 'nOnE' })}.${part(claimsOf(s))}.`)),
  'HS256 keyed with the public key': (s) => s.grant({}, [], s.with(hs256({ ...HEAD, alg: 'HS256' }, claimsOf(s), publicPem))),
  'no alg': (s) => s.grant({}, [], s.proven('twin', {}, { alg: undefined })),
  'RS256 of a PS256 client': (s) => s.grant({ scope: 'files:read' }, [], s.proven('twin-rsa', {}, { alg: 'RS256' }, undefined, 'RS256')),
  'PS256 of a PS256 client': (s) => s.grant({ scope: 'files:read' }, [], s.proven('twin-rsa')),
  'expired five minutes ago': (s) => s.grant({}, [], s.proven('twin', { iat: now() - 360, exp: now() - 300 })),
  'no exp': (s) => s.grant({}, [], s.proven('twin', { exp: undefined })),
  'exp as text': (s) => s.grant({}, [], s.proven('twin', { exp: String(now() + 60) })),
  'exp with a fraction': (s) => s.grant({}, [], s.proven('twin', { exp: now() + 60.5 })),
  'exp in an hour': (s) => s.grant({}, [], s.proven('twin', { exp: now() + 3600 })),
  'exp before iat': (s) => s.grant({}, [], s.proven('twin', { iat: now() + 9, exp: now() + 5 })),
  'iat in an hour': (s) => s.grant({}, [], s.proven('twin', { iat: now() + 3600, exp: now() + 3660 })),
  'iat in eight seconds': (s) => s.grant({}, [], s.proven('twin', { iat: now() + 8 })),
  'nbf in an hour': (s) => s.grant({}, [], s.proven('twin', { nbf: now() + 3600 })),
  'nbf in eight seconds': (s) => s.grant({}, [], s.proven('twin', { nbf: now() + 8 })),
  'no iat': (s) => s.grant({}, [], s.proven('twin', { iat: undefined })),
  'no jti': (s) => s.grant({}, [], s.proven('twin', { jti: undefined })),
  'an empty jti': (s) => s.grant({}, [], s.proven('twin', { jti: '' })),
  'jti as a number': (s) => s.grant({}, [], s.proven('twin', { jti: 7 })),
  'the same assertion twice': again((s) => { const auth = s.proven(); return () => s.grant({}, [], auth); }),
  'another assertion with the same jti': again((s) => { const jti = randomUUID(); return () => s.grant({}, [], s.proven('twin', { jti })); }),
  'no iss': (s) => s.grant({}, [], s.proven('twin', { iss: undefined })),
  "another's iss": (s) => s.grant({}, [], s.proven('twin', { iss: 'twin-bound' })),
  'no sub': (s) => s.grant({}, [], s.proven('twin', { sub: undefined })),
  "another's sub": (s) => s.grant({}, [], s.proven('twin', { sub: 'twin-bound' })),
  'no aud': (s) => s.grant({}, [], s.proven('twin', { aud: undefined })),
  'aud of another server': (s) => s.grant({}, [], s.proven('twin', { aud: 'https://other.example' })),
  'aud is the token endpoint': (s) => s.grant({}, [], s.proven('twin', { aud: s.token })),
  'aud with a slash after it': (s) => s.grant({}, [], s.proven('twin', { aud: `${s.issuer}/` })),
  'aud as a list of one': (s) => s.grant({}, [], s.proven('twin', { aud: [s.issuer] })),
  'aud as a list of two': (s) => s.grant({}, [], s.proven('twin', { aud: [s.issuer, 'https://other.example'] })),
  'no typ': (s) => s.grant({}, [], s.proven('twin', {}, { typ: undefined })),
  'typ client-authentication+jwt': (s) => s.grant({}, [], s.proven('twin', {}, { typ: 'client-authentication+jwt' })),
  'typ at+jwt': (s) => s.grant({}, [], s.proven('twin', {}, { typ: 'at+jwt' })),
  'no kid': (s) => s.grant({}, [], s.proven('twin', {}, { kid: undefined })),
  'a kid nobody knows': (s) => s.grant({}, [], s.proven('twin', {}, { kid: 'nobody' })),
  'kid as a list': (s) => s.grant({}, [], s.proven('twin', {}, { kid: ['twin-1'] })),
  'crit': (s) => s.grant({}, [], s.proven('twin', {}, { crit: ['x'], x: 1 })),
  'b64 false': (s) => s.grant({}, [], s.proven('twin', {}, { crit: ['b64'], b64: false })),
  'its own key in the header': (s) => s.grant({}, [], s.proven('twin', {}, { jwk: stranger.publicKey.export({ format: 'jwk' }) }, stranger.privateKey)),
  'jku': (s) => s.grant({}, [], s.proven('twin', {}, { jku: 'https://other.example/jwks.json' })),
  'a claim twice': (s) => s.grant({}, [], s.with(jws(HEAD, JSON.stringify(claimsOf(s)).replace('{', '{"aud":"https://other.example",'), clients.twin.key))),
  // Proofs of possession.
  'bound: a right proof with the nonce': (s) => s.bound(s.proof()),
  'bound: no proof': (s) => s.bound(),
  'bound: no nonce': (s) => s.bound(s.proof({ nonce: undefined })),
  'bound: a nonce of nobody': (s) => s.bound(s.proof({ nonce: 'nobody' })),
  'bound: nonce as a number': (s) => s.bound(s.proof({ nonce: 7 })),
  'bound: two proofs': (s) => s.bound(s.proof(), s.proof()),
  'bound: garbage': (s) => s.bound('garbage'),
  'bound: no typ': (s) => s.bound(s.proof({}, { typ: undefined })),
  'bound: typ JWT': (s) => s.bound(s.proof({}, { typ: 'JWT' })),
  'bound: typ in upper case': (s) => s.bound(s.proof({}, { typ: 'DPOP+JWT' })),
  'bound: alg none': (s) => s.bound(`${part({ typ: 'dpop+jwt', alg: 'none', jwk: holder.publicKey.export({ format: 'jwk' }) })}.${part({ jti: randomUUID(), htm: 'POST', htu: s.token, iat: now(), nonce: s.nonce })}.`),
  'bound: no jwk': (s) => s.bound(s.proof({}, { jwk: undefined })),
  'bound: a private jwk': (s) => s.bound(s.proof({}, { jwk: holder.privateKey.export({ format: 'jwk' }) })),
  "bound: a stranger's jwk": (s) => s.bound(s.proof({}, { jwk: stranger.publicKey.export({ format: 'jwk' }) })),
  'bound: crit': (s) => s.bound(s.proof({}, { crit: ['x'], x: 1 })),
  'bound: no jti': (s) => s.bound(s.proof({ jti: undefined })),
  'bound: a jti of 200 characters': (s) => s.bound(s.proof({ jti: 'x'.repeat(200) })),
  'bound: no htm': (s) => s.bound(s.proof({ htm: undefined })),
  'bound: htm GET': (s) => s.bound(s.proof({ htm: 'GET' })),
  'bound: htm in lower case': (s) => s.bound(s.proof({ htm: 'post' })),
  'bound: no htu': (s) => s.bound(s.proof({ htu: undefined })),
  'bound: htu of another endpoint': (s) => s.bound(s.proof({ htu: s.revoke })),
  'bound: htu with a query': (s) => s.bound(s.proof({ htu: `${s.token}?a=1#b` })),
  'bound: htu in upper case': (s) => s.bound(s.proof({ htu: s.token.replace(/^[^/]*\/\/[^/]*/, (start) => start.toUpperCase()) })),
  'bound: htu with dot segments': (s) => s.bound(s.proof({ htu: `${s.issuer}/x/../oauth2/token` })),
  'bound: no iat': (s) => s.bound(s.proof({ iat: undefined })),
  'bound: iat as text': (s) => s.bound(s.proof({ iat: String(now()) })),
  'bound: iat an hour ago, with the nonce': (s) => s.bound(s.proof({ iat: now() - 3600 })),
  'bound: iat an hour ago, without': (s) => s.bound(s.proof({ iat: now() - 3600, nonce: undefined })),
  'bound: iat two minutes ago, with the nonce': (s) => s.bound(s.proof({ iat: now() - 120 })),
  'bound: exp a minute ago': (s) => s.bound(s.proof({ exp: now() - 60 })),
  'bound: exp ten minutes ago': (s) => s.bound(s.proof({ iat: now() - 200, exp: now() - 600 })),
  'bound: the same proof twice': again((s) => { const proof = s.proof(); return () => s.bound(proof); }),
  'bound: a claim twice': (s) => s.bound(jws({ typ: 'dpop+jwt', alg: 'ES256', jwk: holder.publicKey.export({ format: 'jwk' }) }, `{"htm":"GET",${JSON.stringify({ jti: randomUUID(), htm: 'POST', htu: s.token, iat: now(), nonce: s.nonce }).slice(1)}`, holder.privateKey)),
  'not bound, but with a proof': (s) => s.grant({}, ['DPoP', s.proof()]),
  'not bound, but with garbage for a proof': (s) => s.grant({}, ['DPoP', 'garbage']),
  'not bound, but with an empty proof': (s) => s.grant({}, ['DPoP', '']),
  'an unknown client with garbage for a proof': (s) => s.grant({}, ['DPoP', 'garbage'], s.proven('twin', { iss: 'nobody', sub: 'nobody' })),
};

// Introspection (RFC 7662) and revocation (RFC 7009): the same, twice, by name of the endpoint.
const handed = (endpoint, token, { fields = {}, by = 'twin', auth, headers } = {}) => async (s) =>
  s.post(s[endpoint], { ...(auth === undefined ? s.proven(by) : auth), token: typeof token === 'function' ? await token(s) : token, ...fields }, headers);
const ended = async (s, by) => { const token = await s.issued(); await handed('revoke', token, { by })(s); return token; };
for (const [name, endpoint] of [['introspection', 'introspect'], ['revocation', 'revoke']]) {
  Object.assign(requests, {
    [`${name}: a token of its own`]: handed(endpoint, (s) => s.issued()),
    [`${name}: with the right hint`]: handed(endpoint, (s) => s.issued(), { fields: { token_type_hint: 'access_token' } }),
    [`${name}: with a wrong hint`]: handed(endpoint, (s) => s.issued(), { fields: { token_type_hint: 'refresh_token' } }),
    [`${name}: with a hint nobody knows`]: handed(endpoint, (s) => s.issued(), { fields: { token_type_hint: 'nobody' } }),
    [`${name}: a token of another client of the tenant`]: handed(endpoint, (s) => s.issued('twin-rsa')),
    [`${name}: a token of another tenant`]: handed(endpoint, (s) => s.issued('twin-foreign')),
    [`${name}: an expired token`]: handed(endpoint, (s) => (s === ours ? expired.ours : expired.theirs)),
    [`${name}: garbage`]: handed(endpoint, 'garbage'),
    [`${name}: a JWT of nobody`]: handed(endpoint, () => `${part({ alg: 'ES256', typ: 'at+jwt' })}.${part({ iss: 'x' })}.${b64('x'.repeat(64))}`),
    [`${name}: no token`]: handed(endpoint, undefined),
    [`${name}: an empty token`]: handed(endpoint, ''),
    [`${name}: token twice`]: handed(endpoint, async (s) => { const token = await s.issued(); return [token, token]; }),
    [`${name}: nobody asks`]: handed(endpoint, (s) => s.issued(), { auth: {} }),
    [`${name}: a stranger asks`]: async (s) => handed(endpoint, 'garbage', { auth: s.proven('twin', {}, {}, stranger.privateKey) })(s),
    [`${name}: a client asks by its secret`]: handed(endpoint, 'garbage', { auth: { client_id: 'twin', client_secret: 'x' } }),
    [`${name}: the same assertion twice`]: async (s) => { const auth = s.proven(); await handed(endpoint, 'garbage', { auth })(s); return handed(endpoint, 'garbage', { auth })(s); },
    [`${name}: an assertion that was used for a token`]: async (s) => { const auth = s.proven(); await s.grant({}, [], auth); return handed(endpoint, 'garbage', { auth })(s); },
    [`${name}: aud is this endpoint`]: async (s) => handed(endpoint, 'garbage', { auth: s.proven('twin', { aud: s[endpoint] }) })(s),
    [`${name}: GET`]: (s) => s.send(`${s[endpoint]}?token=x`, { method: 'GET' }),
    [`${name}: a body of JSON`]: (s) => s.send(s[endpoint], { headers: ['Content-Type', 'application/json'], body: JSON.stringify({ token: 'x', ...s.proven() }) }),
  });
}
requests['revocation: a token that was ended'] = async (s) => handed('revoke', await ended(s))(s);
// Our verifiers learn of an end within seconds, so both are given ten.
requests['introspection: a token that its client has ended'] = async (s) => {
  const [token, until] = [await ended(s), Date.now() + 10_000];
  for (;;) {
    const answer = await handed('introspect', token)(s);
    if (!answer.json.active || Date.now() > until) return answer;
    await pause(200);
  }
};
requests['introspection: a token that another client wanted ended'] = async (s) => handed('introspect', await ended(s, 'twin-rsa'))(s);

// Comparison --------------------------------------------------------------------------------------------------------------
function outcome({ status, json }) {
  const active = json && 'active' in json && (json.active ? 'active' : 'inactive');
  const said = json?.error ?? json?.code ?? [active, json?.token_type].filter(Boolean).join(' ');
  return `${status} ${said}`.trim();
}

const page = readFileSync(process.env.PORTCULLIS_DIFFERENCES, 'utf8');
const rows = page.split('\n').filter((line) => line.startsWith('| ')).map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim()));
const explained = new Map(rows.slice(1).map(([what, we, they, why]) => [what, { we, they, why }]));

// The expired one was given a second.
await pause(1_100);
let same = 0;
let apart = 0;
for (const [what, act] of Object.entries(requests)) {
  const [we, they] = [outcome(await act(ours)), outcome(await act(theirs))];
  const row = explained.get(what);
  explained.delete(what);
  if (process.env.PORTCULLIS_DIFFERENCES_PRINT && we !== they) console.log(`| ${what} | ${we} | ${they} | ${row?.why ?? '?'} |`);
  if (row) {
    apart += 1;
    const holds = we !== they && row.we === we && row.they === they && (row.why ?? '').length > 10;
    report.row(`differs as it is written: ${what}`, `${row.we} / ${row.they}`, holds ? `${row.we} / ${row.they}` : `${we} / ${they}`);
  } else {
    same += 1;
    report.row(what, they, we);
  }
}
report.row('every row of the table is of a request that is made', [], [...explained.keys()]);
console.log(`  ${same + apart} requests to both: ${same} alike, ${apart} apart with a reason`);
server.closeAllConnections();
server.close();
report.end();
