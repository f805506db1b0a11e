// docs/recipes/upload.mjs in Node: the module that a page would load, with Node's fetch.
import { randomUUID } from 'node:crypto';
import * as jose from 'jose';
import { Report, client, manifest, privateKey } from './stack.mjs';
import { run } from './upload_cases.mjs';

const report = new Report('upload.mjs', `in Node ${process.version}`);
const who = client('acme-backend');
const key = await privateKey(who.client_id);
const assertion = await new jose.SignJWT({ jti: randomUUID() })
  .setProtectedHeader({ alg: who.alg, kid: who.kid }).setIssuer(who.client_id).setSubject(who.client_id)
  .setAudience(manifest.issuer).setIssuedAt().setExpirationTime('60s').sign(key);
const form = new URLSearchParams({
  grant_type: 'client_credentials', client_assertion: assertion,
  client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
});
const { access_token: token } = await (await fetch(`${manifest.gateway}/oauth2/token`, { method: 'POST', body: form })).json();

await run(await import(process.env.PORTCULLIS_UPLOAD), {
  api: manifest.gateway,
  authorize: async () => ({ authorization: `Bearer ${token}` }),
  row: (...one) => report.row(...one),
});
report.end();
