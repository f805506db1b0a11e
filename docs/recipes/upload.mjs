// Uploads files through Portcullis as a page should: checksum, progress, retry, and large files in parts that go on after a
// stop. For browsers and for Node 18 or later; no dependency.
//
//   import { upload } from './upload.mjs';
//   const { id } = await upload(input.files[0], {
//     api: 'https://api.example.com',
//     authorize: async (method, url, refused) => ({ authorization: `Bearer ${await token({ fresh: !!refused })}` }),
//     onProgress: ({ sent, size }) => { bar.value = sent / size; },
//     onPlan: (plan) => localStorage.setItem('upload', JSON.stringify(plan)),
//   });
//
// After a stop (a closed tab, a lost connection), with the same file: upload(file, { …, resume: JSON.parse(stored) }).
// `authorize` is asked for each request to the API, so that a DPoP proof can be made for it; nothing of it goes to the bucket.
// Tokens live for minutes and uploads for hours: where the API answers 401 it is asked once more, with that answer as `refused`, and
// has to bring a token that is not the old one (and, for DPoP, the answer's `DPoP-Nonce` in its proof).

const WHOLE = 64 * 1024 * 1024; // larger files are sent in parts: WebCrypto hashes only what it can hold
const BATCH = 20; // parts that are hashed and signed for at once; their URLs live five minutes
const AT_ONCE = 3;
const TRIES = 5;

/** The bucket's or the API's refusal. */
export class UploadError extends Error {
  constructor(message, status, code) {
    super(message);
    this.name = 'UploadError';
    this.status = status;
    this.code = code;
  }
}

/** Uploads a Blob or File; answers `{ id, mode }` once the bytes are there. The API scans and checks them after that. */
export async function upload(file, options) {
  const job = { file, sent: new Map(), send: options.send ?? sender(), ...options };
  job.type = options.type ?? (file.type || 'application/octet-stream');
  job.name = options.name ?? file.name ?? 'upload';
  if (options.resume?.mode === 'multipart') return parts(job, options.resume);
  return file.size > (options.whole ?? WHOLE) ? parts(job, await plan(job)) : whole(job);
}

/** Base64 of the SHA-256 of a Blob. */
export async function sha256(blob) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await blob.arrayBuffer()));
  return btoa(String.fromCharCode(...digest));
}

async function whole(job) {
  const body = { name: job.name, content_type: job.type, size: job.file.size, sha256: await sha256(job.file), mode: 'put' };
  // The same key again gives the same file and a fresh URL: a retry makes nothing twice.
  const key = crypto.randomUUID();
  const made = await retry(job, async () => {
    const answer = await api(job, 'POST', '/files', body, { 'idempotency-key': key });
    // Answered without a URL: an earlier try got through.
    if (answer.upload) await put(job, 1, answer.upload, job.file);
    return answer;
  });
  return { id: made.id, mode: 'put' };
}

async function plan(job) {
  const body = { name: job.name, content_type: job.type, size: job.file.size, mode: 'multipart' };
  if (job.partSize) body.part_size = job.partSize;
  const key = crypto.randomUUID();
  const made = await retry(job, () => api(job, 'POST', '/files', body, { 'idempotency-key': key }));
  const planned = { mode: 'multipart', id: made.id, part_size: made.upload.part_size, parts: made.upload.parts, size: job.file.size };
  await job.onPlan?.(planned);
  return planned;
}

async function parts(job, planned) {
  if (planned.size !== job.file.size) throw new UploadError('another file than the one that was begun', 0, 'other_file');
  const path = `/files/${planned.id}`;
  const slice = (part) => job.file.slice((part - 1) * planned.part_size, part * planned.part_size);
  for (let first = 1; first <= planned.parts; first += BATCH) {
    const numbers = Array.from({ length: Math.min(BATCH, planned.parts - first + 1) }, (_, place) => first + place);
    const named = [];
    for (const part of numbers) named.push({ part, size: slice(part).size, sha256: await sha256(slice(part)) });
    // Whatever fails, the whole batch is asked for once more; `resume` leaves out what has arrived.
    const went = await retry(job, async () => {
      const signed = await api(job, 'POST', `${path}/parts`, { parts: named, resume: true });
      for (const part of signed.uploaded) progress(job, part, slice(part).size);
      const queue = [...signed.parts];
      const work = async () => {
        for (let one = queue.shift(); one; one = queue.shift()) await put(job, one.part, one, slice(one.part));
      };
      await Promise.all(Array.from({ length: job.atOnce ?? AT_ONCE }, work));
      return true;
    }).catch((error) => {
      // Completed before the stop, though nobody heard of it.
      if (error.code !== 'file_already_uploaded') throw error;
      return false;
    });
    if (!went) break;
  }
  await retry(job, () => api(job, 'POST', `${path}/complete`));
  return { id: planned.id, mode: 'multipart' };
}

async function put(job, part, { method, url, headers }, body) {
  job.signal?.throwIfAborted();
  const answer = await job.send(method, url, headers, body, (sent) => progress(job, part, sent), job.signal);
  // 412: an earlier try got through, though its answer did not; the bucket writes once.
  if (answer.status !== 200 && answer.status !== 412) {
    const code = /<Code>(\w+)<\/Code>/.exec(answer.text)?.[1];
    throw new UploadError(`the bucket answered ${answer.status} ${code ?? ''}`.trim(), answer.status, code);
  }
  progress(job, part, body.size);
}

async function api(job, method, path, body, headers = {}) {
  const url = job.api + path;
  for (let refused; ; ) {
    const answer = await fetch(url, {
      method,
      headers: { ...(body && { 'content-type': 'application/json' }), ...headers, ...(await job.authorize(method, url, refused)) },
      body: body && JSON.stringify(body),
      signal: job.signal,
    });
    const said = await answer.json().catch(() => ({}));
    if (answer.ok) return said;
    if (answer.status !== 401 || refused) {
      throw new UploadError(`the API answered ${answer.status} ${said.code ?? ''}`.trim(), answer.status, said.code);
    }
    refused = answer;
  }
}

function progress(job, part, sent) {
  job.sent.set(part, sent);
  let all = 0;
  for (const one of job.sent.values()) all += one;
  job.onProgress?.({ sent: all, size: job.file.size });
}

// What may pass when it is tried again: no answer, a service that is busy, a URL that has died, bytes that were lost on the way.
const PASSING = new Set([0, 403, 409, 429, 500, 502, 503, 504]);
const FINAL = new Set(['insufficient_scope', 'forbidden', 'quota_exceeded', 'authorizer_missing', 'idempotency_conflict', 'file_already_uploaded']);

async function retry(job, act) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await act();
    } catch (error) {
      const passes = !(error instanceof UploadError) || PASSING.has(error.status) || error.code === 'BadDigest';
      if (job.signal?.aborted || !passes || FINAL.has(error.code) || tries >= TRIES) throw error;
      await new Promise((wake) => setTimeout(wake, (job.pause ?? 500) * 2 ** (tries - 1) * (0.5 + Math.random())));
    }
  }
}

// A page learns how much was sent from XMLHttpRequest alone; elsewhere a part counts when it is there.
function sender() {
  return typeof XMLHttpRequest === 'undefined' ? byFetch : byRequest;
}

async function byFetch(method, url, headers, body, _progress, signal) {
  const answer = await fetch(url, { method, headers, body, signal });
  return { status: answer.status, text: await answer.text() };
}

function byRequest(method, url, headers, body, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onload = () => resolve({ status: request.status, text: request.responseText });
    request.onerror = () => reject(new UploadError('no answer from the bucket', 0));
    request.onabort = () => reject(new DOMException('the upload was stopped', 'AbortError'));
    signal?.addEventListener('abort', () => request.abort(), { once: true });
    if (signal?.aborted) reject(new DOMException('the upload was stopped', 'AbortError'));
    else request.send(body);
  });
}
