// oauth4webapi and jose: discovery, client credentials with private_key_jwt, and the errors as a client sees them.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import * as jose from 'jose';
import * as oauth from 'oauth4webapi';
import { Report, UNKNOWN_FILE, client, corpus, manifest, privateKey, refusal, version } from './stack.mjs';

const report = new Report('oauth4webapi', `${version('oauth4webapi')} with jose ${version('jose')}`);
const issuer = new URL(manifest.issuer);
const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' });
const server = await oauth.processDiscoveryResponse(issuer, found);
report.row('discovery (RFC 8414) finds the token endpoint', `${manifest.issuer}/oauth2/token`, server.token_endpoint);

const me = { client_id: 'acme-backend' };
const { kid } = client(me.client_id);
const key = await privateKey(me.client_id);
const proof = oauth.PrivateKeyJwt({ key, kid });
const ask = (authentication, form = {}) => oauth.clientCredentialsGrantRequest(server, me, authentication, form);

const issued = await oauth.processClientCredentialsResponse(server, me, await ask(proof, { scope: 'files:read' }));
report.row('client credentials with PrivateKeyJwt', ['bearer', 300], [issued.token_type, issued.expires_in]);
report.row('for the scope it asked for', 'files:read', issued.scope);

const resource = (token) => oauth.protectedResourceRequest(token, 'GET', new URL(UNKNOWN_FILE, manifest.gateway));
const answer = await resource(issued.access_token);
report.row('the API lets it in: a file that does not exist', [404, 'not_found'], [answer.status, (await answer.json()).code]);
const bad = corpus(issued.access_token);
report.row('a tampered token ends in its WWW-Authenticate error', 'OAUTH_WWW_AUTHENTICATE_CHALLENGE', await refusal(() => resource(bad.tampered)));

// The resource server's side: RFC 9068 by oauth4webapi, RFC 7519 by jose.
const request = (token) => new Request(manifest.gateway + UNKNOWN_FILE, { headers: { authorization: `Bearer ${token}` } });
const claims = await oauth.validateJwtAccessToken(server, request(issued.access_token), manifest.audience);
report.row('validateJwtAccessToken (RFC 9068) takes the token', 'acme-backend', claims.client_id);
for (const [what, token] of Object.entries(bad)) {
  const said = await refusal(() => oauth.validateJwtAccessToken(server, request(token), manifest.audience));
  report.row(`and refuses it ${what}`, true, said !== 'accepted');
}
const wrong = await refusal(() => oauth.validateJwtAccessToken(server, request(issued.access_token), 'https://other.example'));
report.row('and refuses it for another API', true, wrong !== 'accepted');
const keys = jose.createRemoteJWKSet(new URL(server.jwks_uri));
const rules = { issuer: manifest.issuer, audience: manifest.audience, typ: 'at+jwt', algorithms: ['RS256'] };
const verified = await jose.jwtVerify(issued.access_token, keys, rules);
report.row('jose verifies it under the published keys', 'acme', verified.payload.tenant);
report.row('jose refuses it tampered', 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED', await refusal(() => jose.jwtVerify(bad.tampered, keys, rules)));
report.row('jose refuses it unsigned', true, (await refusal(() => jose.jwtVerify(bad.unsigned, keys, rules))) !== 'accepted');
report.row('jose refuses an unknown key', 'ERR_JWKS_NO_MATCHING_KEY', await refusal(() => jose.jwtVerify(bad.strangerKey, keys, rules)));

// Errors of the token endpoint.
const processed = async (response) => refusal(async () => oauth.processClientCredentialsResponse(server, me, await response));
let seen;
const remembered = async (...parts) => {
  await proof(...parts);
  seen = parts[2].get('client_assertion');
};
report.row('an assertion, once', 'accepted', await processed(ask(remembered)));
const replayed = (_server, asking, body) => {
  body.set('client_id', asking.client_id);
  body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
  body.set('client_assertion', seen);
};
report.row('the same assertion replayed', 'invalid_client', await processed(ask(replayed)));
const hour = oauth.PrivateKeyJwt({ key, kid }, { [oauth.modifyAssertion]: (_header, payload) => { payload.exp = payload.iat + 3600; } });
report.row('an assertion that lives an hour', 'invalid_client', await processed(ask(hour)));
const endpoint = oauth.PrivateKeyJwt({ key, kid }, { [oauth.modifyAssertion]: (_header, payload) => { payload.aud = server.token_endpoint; } });
report.row('an assertion for the token endpoint', 'invalid_client', await processed(ask(endpoint)));
const ed25519 = await jose.importPKCS8(readFileSync(process.env.PORTCULLIS_ED25519_KEY, 'utf8'), 'Ed25519');
const other = { client_id: 'node-ed25519' };
const named = {};
const edProof = oauth.PrivateKeyJwt(
  { key: ed25519, kid: 'node-ed25519-1' },
  { [oauth.modifyAssertion]: (header) => { named.alg = header.alg; } },
);
const edIssued = await refusal(async () =>
  oauth.processClientCredentialsResponse(server, other, await oauth.clientCredentialsGrantRequest(server, other, edProof, {})));
report.row('a client with an Ed25519 key, as RFC 9864 names it', ['Ed25519', 'accepted'], [named.alg, edIssued]);
const { privateKey: stranger } = await crypto.subtle.generateKey({ name: 'Ed25519' }, false, ['sign', 'verify']);
report.row('an Ed25519 key nobody registered', 'invalid_client', await processed(ask(oauth.PrivateKeyJwt({ key: stranger, kid }))));
report.row('a client secret', 'invalid_client', await processed(ask(oauth.ClientSecretBasic('secret'))));
report.row('a scope the client does not hold', 'invalid_scope', await processed(ask(proof, { scope: 'app' })));
report.row('a resource that is not this API', 'invalid_target', await processed(ask(proof, { resource: 'https://other.example' })));

// Tokens bound to a key (RFC 9449): nonce, grant, resource, and what a thief has.
const bound = { client_id: 'acme-bound' };
const boundProof = oauth.PrivateKeyJwt({ key: await privateKey(bound.client_id), kid: client(bound.client_id).kid });
for (const algorithm of ['ES256', 'PS256', 'Ed25519']) {
  const DPoP = oauth.DPoP(bound, await oauth.generateKeyPair(algorithm));
  const granted = async () =>
    oauth.processClientCredentialsResponse(server, bound, await oauth.clientCredentialsGrantRequest(server, bound, boundProof, {}, { DPoP }));
  const first = await granted().then(() => null, (error) => error);
  report.row(`${algorithm}: the first proof is told the nonce to use`, true, first !== null && oauth.isDPoPNonceError(first));
  const token = await granted();
  report.row(`${algorithm}: and the second gets a bound token`, 'dpop', token.token_type);
  const call = (path, options) => oauth.protectedResourceRequest(token.access_token, 'GET', new URL(path, manifest.gateway), undefined, null, options);
  const passes = await call(UNKNOWN_FILE, { DPoP });
  report.row(`${algorithm}: which passes the gate with a proof`, [404, 'not_found'], [passes.status, (await passes.json()).code]);
  const query = await call(`${UNKNOWN_FILE}?a=1`, { DPoP });
  report.row(`${algorithm}: with a query in the URL too`, 404, query.status);
  report.row(`${algorithm}: and not as a bearer token`, 'OAUTH_WWW_AUTHENTICATE_CHALLENGE', await refusal(() => call(UNKNOWN_FILE)));
  const thief = oauth.DPoP(bound, await oauth.generateKeyPair(algorithm));
  report.row(`${algorithm}: nor with another key`, 'OAUTH_WWW_AUTHENTICATE_CHALLENGE', await refusal(() => call(UNKNOWN_FILE, { DPoP: thief })));
}
const unbound = await refusal(async () =>
  oauth.processClientCredentialsResponse(server, bound, await oauth.clientCredentialsGrantRequest(server, bound, boundProof, {})));
report.row('a bound client without a proof', 'invalid_dpop_proof', unbound);

// People: token exchange (RFC 8693) of an Access assertion by a public client, and refresh.
const page = { client_id: manifest.access.client_id };
const DPoP = oauth.DPoP(page, await oauth.generateKeyPair('ES256'));
const accessKey = await jose.importPKCS8(readFileSync(manifest.access.signing_key_file, 'utf8'), 'RS256');
const ASSERTION = 'cf-access-jwt-assertion';
const assertionOf = (sub, email) =>
  new jose.SignJWT({ type: 'app', email, identity_nonce: 'n', country: 'US', aud: [manifest.access.audience] })
    .setProtectedHeader({ alg: 'RS256', kid: manifest.access.kid, typ: 'JWT' })
    .setIssuer(manifest.access.team_domain).setSubject(sub).setIssuedAt().setNotBefore('0s').setExpirationTime('1h')
    .sign(accessKey);
const ADA = '7335d417-61da-459d-899c-0a01c76a2f94';
const ada = await assertionOf(ADA, `ada@${manifest.access.email_domain}`);
const eve = await assertionOf('0c8a5a38-7b6a-4f0e-9d1e-5a2f1f8f3b11', 'eve@elsewhere.example');
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const recognized = { access_token: () => {} };
const exchange = async (form, headers = {}, key = DPoP) => {
  const once = async () => oauth.processGenericTokenEndpointResponse(server, page,
    await oauth.genericTokenEndpointRequest(server, page, oauth.None(), EXCHANGE, form, { DPoP: key, headers }),
    { recognizedTokenTypes: recognized });
  return once().catch((error) => (oauth.isDPoPNonceError(error) ? once() : Promise.reject(error)));
};
const ofJwt = (token) => ({ subject_token: token, subject_token_type: 'urn:ietf:params:oauth:token-type:jwt' });
const session = await exchange(ofJwt(ada));
report.row('token exchange of an Access assertion', ['dpop', 'urn:ietf:params:oauth:token-type:access_token', 300],
  [session.token_type, session.issued_token_type, session.expires_in]);
const header = await exchange({ subject_token: 'header', subject_token_type: 'urn:portcullis:token-type:access-header' }, { [ASSERTION]: ada });
report.row('or of the one that the request carries', true, typeof header.refresh_token === 'string');
report.row('of somebody nobody knows', 'invalid_request', await refusal(() => exchange(ofJwt(eve))));
report.row('of another person than the request is of', 'invalid_request', await refusal(() => exchange(ofJwt(ada), { [ASSERTION]: eve })));
report.row('by a client that has a key', 'unauthorized_client', await refusal(async () =>
  oauth.processGenericTokenEndpointResponse(server, me, await oauth.genericTokenEndpointRequest(server, me, proof, EXCHANGE, ofJwt(ada)))));
const asPerson = (token, headers) =>
  oauth.protectedResourceRequest(token, 'GET', new URL(UNKNOWN_FILE, manifest.gateway), new Headers(headers), null, { DPoP });
const passed = await asPerson(session.access_token, { [ASSERTION]: ada });
report.row('the person passes the gate beside the assertion', [404, 'not_found'], [passed.status, (await passed.json()).code]);
report.row('and not without it', 'OAUTH_WWW_AUTHENTICATE_CHALLENGE', await refusal(() => asPerson(session.access_token, {})));
const personal = await oauth.validateJwtAccessToken(server,
  new Request(manifest.gateway + UNKNOWN_FILE, { headers: { authorization: `Bearer ${session.access_token}` } }), manifest.audience)
  .catch((error) => error.code);
report.row('validateJwtAccessToken sees that the token is bound', true, typeof personal === 'string');
const refreshing = async (token, headers = { [ASSERTION]: ada }, key = DPoP) => {
  const once = async () => oauth.processRefreshTokenResponse(server, page,
    await oauth.refreshTokenGrantRequest(server, page, oauth.None(), token, { DPoP: key, headers }));
  return once().catch((error) => (oauth.isDPoPNonceError(error) ? once() : Promise.reject(error)));
};
const second = await refreshing(session.refresh_token);
report.row('refresh rotates the token', ['dpop', true], [second.token_type, second.refresh_token !== session.refresh_token]);
const third = await refreshing(second.refresh_token);
const otherKey = oauth.DPoP(page, await oauth.generateKeyPair('ES256'));
report.row('with another key', 'invalid_grant', await refusal(() => refreshing(third.refresh_token, undefined, otherKey)));
report.row('without the assertion', 'invalid_grant', await refusal(() => refreshing(third.refresh_token, {})));
const told = await oauth.processIntrospectionResponse(server, me, await oauth.introspectionRequest(server, me, proof, third.access_token));
report.row('introspection tells whose it is', [true, `access|${ADA}`, ['staff']], [told.active, told.sub, told.groups]);
report.row('a token used before', 'invalid_grant', await refusal(() => refreshing(session.refresh_token)));
report.row('ends the session', 'invalid_grant', await refusal(() => refreshing(third.refresh_token)));
const over = async (token) =>
  refusal(async () => oauth.processRevocationResponse(await oauth.revocationRequest(server, page, oauth.None(), token)));
report.row('a page ends its own session', ['accepted', 'invalid_grant'],
  [await over(header.refresh_token), await refusal(() => refreshing(header.refresh_token))]);

// A page on the people's host, which is not the issuer's: Access adds its assertion to whatever the page sends. Proofs are signed for the
// issuer, which is what the library is told; where the requests go is the page's business.
const people = createServer(async (request, response) => {
  const body = [];
  for await (const part of request) body.push(part);
  const kept = ['accept', 'authorization', 'content-type', 'dpop'].filter((name) => request.headers[name]);
  const headers = Object.fromEntries(kept.map((name) => [name, request.headers[name]]));
  const answered = await fetch(manifest.gateway + request.url,
    { method: request.method, headers: { ...headers, [ASSERTION]: ada }, body: body.length ? Buffer.concat(body) : undefined });
  const told = [...answered.headers].filter(([name]) => ['content-type', 'dpop-nonce', 'www-authenticate'].includes(name));
  response.writeHead(answered.status, Object.fromEntries(told)).end(Buffer.from(await answered.arrayBuffer()));
});
await new Promise((up) => people.listen(0, '127.0.0.1', up));
const origin = `http://127.0.0.1:${people.address().port}`;
const here = { [oauth.customFetch]: (url, options) => fetch(`${url}`.replace(manifest.issuer, origin), options) };
const onPage = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...here }));
const pageKey = oauth.DPoP(page, await oauth.generateKeyPair('ES256'));
const HEADER = { subject_token: 'header', subject_token_type: 'urn:portcullis:token-type:access-header' };
const login = async () => oauth.processGenericTokenEndpointResponse(onPage, page,
  await oauth.genericTokenEndpointRequest(onPage, page, oauth.None(), EXCHANGE, HEADER, { DPoP: pageKey, ...here }), { recognizedTokenTypes: recognized });
const held = await login().catch(login);
report.row('a page of another host than the issuer gets a session', 'dpop', held.token_type);
const used = await oauth.protectedResourceRequest(held.access_token, 'GET', new URL(UNKNOWN_FILE, manifest.issuer), undefined, null, { DPoP: pageKey, ...here });
report.row('and passes the gate from there', [404, 'not_found'], [used.status, (await used.json()).code]);
const continued = async () => oauth.processRefreshTokenResponse(onPage, page,
  await oauth.refreshTokenGrantRequest(onPage, page, oauth.None(), held.refresh_token, { DPoP: pageKey, ...here }));
report.row('and refreshes there', 'dpop', (await continued().catch(continued)).token_type);
people.close();
people.closeAllConnections();

// Introspection (RFC 7662) and revocation (RFC 7009).
const described = async (token) =>
  oauth.processIntrospectionResponse(server, me, await oauth.introspectionRequest(server, me, proof, token));
const lively = await described(issued.access_token);
report.row('introspection of a live token', [true, 'acme-backend', 'files:read', 'acme'], [lively.active, lively.client_id, lively.scope, lively.tenant]);
report.row('and of what is no token: inactive and nothing else', '{"active":false}', JSON.stringify(await described('garbage')));
const ended = async (token) =>
  refusal(async () => oauth.processRevocationResponse(await oauth.revocationRequest(server, me, proof, token)));
report.row('revocation of its own token', 'accepted', await ended(issued.access_token));
report.row('revocation of what is no token is no error', 'accepted', await ended('garbage'));
report.end();
