// What the tests of Node's clients share: where the running stack is, and how a check is told.
import { readFileSync } from 'node:fs';
import { webcrypto } from 'node:crypto';
import * as jose from 'jose';

export const manifest = JSON.parse(readFileSync(process.env.PORTCULLIS_MANIFEST, 'utf8'));
export const UNKNOWN_FILE = '/files/0198e1a0-0000-7000-8000-000000000000';

// Node 18 has no global crypto.
globalThis.crypto ??= webcrypto;

export function version(name) {
  const lock = JSON.parse(readFileSync(new URL('./package-lock.json', import.meta.url), 'utf8'));
  return lock.packages[`node_modules/${name}`].version;
}

export class Report {
  #client;
  #failed = false;

  constructor(client, version) {
    this.#client = client;
    console.log(`${client} ${version}`);
  }

  row(what, want, got) {
    const [wanted, came] = [want, got].map((value) => (typeof value === 'string' ? value : JSON.stringify(value)));
    const holds = wanted === came;
    this.#failed ||= !holds;
    console.log(`  ${holds ? 'ok  ' : 'FAIL'} ${this.#client}: ${what.padEnd(66)} ${holds ? came : `wanted ${wanted}, got ${came}`}`);
  }

  end() {
    process.exitCode = this.#failed ? 1 : 0;
  }
}

export const client = (id) => manifest.clients.find((found) => found.client_id === id);

export function privateKey(id) {
  return jose.importPKCS8(readFileSync(client(id).private_key_file, 'utf8'), client(id).alg);
}

// The name of the error that `act` ends with, or `accepted`.
export async function refusal(act) {
  try {
    await act();
    return 'accepted';
  } catch (error) {
    return error.error ?? error.code ?? error.constructor.name;
  }
}

const text = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const read = (part) => JSON.parse(Buffer.from(part, 'base64url').toString());

// Copies of a token that no verifier may take.
export function corpus(token) {
  const [head, body, signature] = token.split('.');
  return {
    tampered: `${head}.${text({ ...read(body), tenant: 'globex' })}.${signature}`,
    unsigned: `${text({ ...read(head), alg: 'none' })}.${body}.`,
    downgraded: `${text({ ...read(head), alg: 'HS256' })}.${body}.${signature}`,
    strangerKey: `${text({ ...read(head), kid: 'nobody' })}.${body}.${signature}`,
  };
}
