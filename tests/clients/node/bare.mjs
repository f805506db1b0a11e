// What no library makes for us: headers sent twice, signatures over malformed parts, methods that are not meant.
// Signing is Node's own; nothing here is code of the servers it speaks to.
import { readFileSync } from 'node:fs';
import { createHash, createPrivateKey, randomUUID, sign } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { join } from 'node:path';

export const JWT_BEARER = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
export const now = () => Math.floor(Date.now() / 1000);
export const b64 = (value) => Buffer.from(value).toString('base64url');
export const part = (value) => b64(typeof value === 'string' ? value : JSON.stringify(value));
export const hashed = (text) => createHash('sha256').update(text).digest('base64url');
// The same object without the members that are undefined.
export const told = (value) => JSON.parse(JSON.stringify(value));

const folder = process.env.PORTCULLIS_NODE_CLIENTS;
const registered = folder ? JSON.parse(readFileSync(join(folder, 'clients.json'), 'utf8')) : {};

// A client that `register_for_node.py` made: id, alg, kid, jwk and its key.
export function who(id) {
  return { id, ...registered[id], key: createPrivateKey(readFileSync(join(folder, `${id}.pem`))) };
}

const PADDINGS = { PS256: { padding: 6, saltLength: 32 }, RS256: { padding: 1 } };

// A compact JWS of exactly this header and this payload; `alg` says how it is truly signed.
export function jws(header, payload, key, alg = header.alg) {
  const signed = `${part(header)}.${part(payload)}`;
  const hash = /^E[dD]/.test(alg) ? null : 'sha256';
  return `${signed}.${b64(sign(hash, Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363', ...PADDINGS[alg] }))}`;
}

// A client assertion for `aud`, some of its claims or header members changed; one that is undefined is left out.
export function assertion(client, aud, claims = {}, header = {}, key = client.key, alg = client.alg) {
  const made = { iss: client.id, sub: client.id, aud, jti: randomUUID(), iat: now(), exp: now() + 60, ...claims };
  return jws(told({ alg: client.alg, kid: client.kid, typ: 'JWT', ...header }), told(made), key, alg);
}

// One request with headers as they are listed, name and value in turn, repeated ones too.
export function send(url, { method = 'GET', headers = [], body, ca } = {}) {
  const { protocol, hostname, port, pathname, search } = new URL(url);
  const content = body === undefined ? [] : ['Content-Length', String(Buffer.byteLength(body))];
  const options = {
    method, hostname, port, path: pathname + search, ca, agent: false, timeout: 20_000,
    headers: ['Host', `${hostname}:${port}`, ...headers, ...content],
  };
  return new Promise((resolve, reject) => {
    const asked = (protocol === 'https:' ? https : http).request(options, (answer) => {
      const pieces = [];
      answer.on('data', (piece) => pieces.push(piece));
      answer.on('error', reject);
      answer.on('end', () => {
        const text = Buffer.concat(pieces).toString();
        let json;
        try { json = JSON.parse(text); } catch { json = undefined; }
        resolve({ status: answer.statusCode, headers: answer.headers, text, json });
      });
    });
    asked.on('timeout', () => asked.destroy(new Error('no answer in time')));
    asked.on('error', reject);
    asked.end(body);
  });
}

export const FORM = 'application/x-www-form-urlencoded';
// A form; a field whose value is a list comes as often as that has members, an undefined one not at all.
export function form(fields) {
  const pairs = Object.entries(fields).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).filter((one) => one !== undefined).map((one) => [name, one]));
  return new URLSearchParams(pairs).toString();
}
