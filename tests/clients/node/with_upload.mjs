// docs/recipes/upload.mjs in Node: the module that a page would load, with Node's fetch.
import { randomUUID } from 'node:crypto';
import { openAsBlob } from 'node:fs';
import * as jose from 'jose';
import { Report, client, manifest, privateKey } from './stack.mjs';
import { run } from './upload_cases.mjs';

const report = new Report('upload.mjs', `in Node ${process.version}`);
const who = client('acme-backend');
const key = await privateKey(who.client_id);
async function ask() {
  const assertion = await new jose.SignJWT({ jti: randomUUID() })
    .setProtectedHeader({ alg: who.alg, kid: who.kid }).setIssuer(who.client_id).setSubject(who.client_id)
    .setAudience(manifest.issuer).setIssuedAt().setExpirationTime('60s').sign(key);
  const form = new URLSearchParams({
    grant_type: 'client_credentials', client_assertion: assertion,
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
  });
  return (await (await fetch(`${manifest.gateway}/oauth2/token`, { method: 'POST', body: form })).json()).access_token;
}

let token = await ask();
let fresh = Date.now() + 240_000;
async function renewed() {
  token = await ask();
  fresh = Date.now() + 240_000;
  return token;
}

await run(await import(process.env.PORTCULLIS_UPLOAD), {
  api: manifest.gateway,
  // With a gigabyte a token would end on the way.
  authorize: async () => ({ authorization: `Bearer ${Date.now() < fresh ? token : await renewed()}` }),
  row: (...one) => report.row(...one),
  // Refused as one that has ended is.
  ended: `${token.slice(0, -8)}AAAAAAAA`,
  // A Blob of the file, of which nothing is in memory before it is read.
  gigabyte: process.env.PORTCULLIS_GB && (() => openAsBlob(process.env.PORTCULLIS_GB, { type: 'application/zip' })),
});
report.end();
