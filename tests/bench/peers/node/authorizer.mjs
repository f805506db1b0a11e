// A Lambda authorizer as aws-jwt-verify's guide writes one. Its keys are there at start, so that nothing is fetched.
import { JwtRsaVerifier } from 'aws-jwt-verify';

const { BENCH_RSA_N: n, BENCH_RSA_E: e, BENCH_RSA_KID: kid, BENCH_ISSUER: issuer, BENCH_AUDIENCE: audience } = process.env;
const verifier = JwtRsaVerifier.create({
  issuer,
  audience,
  jwksUri: `${issuer}/.well-known/jwks.json`,
  customJwtCheck: ({ header, payload }) => {
    if (header.typ !== 'at+jwt') throw new Error('type');
    for (const claim of ['exp', 'iat', 'sub', 'jti', 'client_id']) if (payload[claim] === undefined) throw new Error(claim);
  },
});
verifier.cacheJwks({ keys: [{ kty: 'RSA', use: 'sig', alg: 'RS256', kid, n, e }] });

const policy = (Effect, principalId, Resource) => ({
  principalId,
  policyDocument: { Version: '2012-10-17', Statement: [{ Action: 'execute-api:Invoke', Effect, Resource }] },
});

export const handler = async (event) => {
  const header = event.headers.Authorization ?? '';
  try {
    if (!header.startsWith('Bearer ')) throw new Error('none');
    const payload = await verifier.verify(header.slice(7));
    return policy('Allow', payload.sub, event.methodArn);
  } catch {
    return policy('Deny', 'nobody', event.methodArn);
  }
};
