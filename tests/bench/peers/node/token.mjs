// oidc-provider issuing one access token for client_credentials with private_key_jwt, within the process: light-my-request hands it
// the request without a socket, as adapters for Lambda do. It keeps what it must remember in memory.
import { generateKeyPairSync } from 'node:crypto';
import inject from 'light-my-request';

// Its advice for production is not for here.
console.warn = console.info = () => {};
process.env.NO_COLOR = '1';
const { default: Provider } = await import('oidc-provider');

const { BENCH_ISSUER: issuer, BENCH_AUDIENCE: audience, BENCH_CLIENT: client_id, BENCH_CLIENT_JWK: jwk } = process.env;
const signing = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
const scope = 'files:read files:write';
const provider = new Provider(issuer, {
  clients: [{
    client_id, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
    token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [JSON.parse(jwk)] }, scope,
  }],
  jwks: { keys: [{ ...signing, alg: 'RS256', use: 'sig', kid: 'bench' }] },
  clientAuthMethods: ['private_key_jwt'],
  enabledJWA: { clientAuthSigningAlgValues: ['ES256'] },
  scopes: scope.split(' '),
  routes: { token: '/oauth2/token' },
  ttl: { ClientCredentials: 300 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      getResourceServerInfo: () => ({ scope, audience, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
    },
  },
});
provider.proxy = true;
const dispatch = provider.callback();

export const handler = async (event) => {
  const { statusCode, headers, payload } = await inject(dispatch, {
    method: event.httpMethod, url: event.path, headers: event.headers, payload: event.body,
  });
  return { statusCode, headers, body: payload };
};
