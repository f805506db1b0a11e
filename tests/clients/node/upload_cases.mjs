// What docs/recipes/upload.mjs must do, wherever it runs: against the real API and bucket, in Node and in a browser.

const EACH = 5 * 1024 * 1024;

// Text that is nobody else's, so that no file is taken for another.
function text(size, salt) {
  const line = `${salt} the quick brown fox jumps over the lazy dog\n`;
  return new Blob([line.repeat(Math.ceil(size / line.length)).slice(0, size)], { type: 'text/plain' });
}

export async function run({ upload, sha256 }, { api, authorize, row, ended, gigabyte }) {
  const options = { api, authorize, name: 'upload.txt', pause: 50 };
  const get = async (path, headers = {}) => (await fetch(api + path, { headers: { ...headers, ...(await authorize('GET', api + path)) } })).json();
  const settled = async (id) => {
    for (let tries = 0; tries < 200; tries += 1) {
      const { status } = await get(`/files/${id}`);
      if (status !== 'pending') return status;
      await new Promise((wake) => setTimeout(wake, 50));
    }
    return 'pending';
  };
  const back = async (id) => {
    const { url } = await get(`/files/${id}/content`, { accept: 'application/json' });
    return sha256(await (await fetch(url)).blob());
  };
  const direct = async (method, url, headers, body, _progress, signal) => {
    const answer = await fetch(url, { method, headers, body, signal });
    return { status: answer.status, text: await answer.text() };
  };
  const outcome = (act) => act.then(() => 'done', (error) => (error.name === 'UploadError' ? error.code : error.name));

  for (const size of [1, EACH]) {
    const file = text(size, `${size}-${Math.random()}`);
    const seen = [];
    const { id, mode } = await upload(file, { ...options, onProgress: ({ sent }) => seen.push(sent) });
    row(`${size} bytes by one PUT`, 'put clean', `${mode} ${await settled(id)}`);
    row('come back as they were', await sha256(file), await back(id));
    row('and progress rises to their size', true, seen.every((sent, place) => sent >= (seen[place - 1] ?? 0)) && seen.at(-1) === size);
  }

  // What goes wrong on the way.
  let calls = 0;
  const lostRequest = async (...request) => {
    calls += 1;
    if (calls === 1) throw new TypeError('the connection broke');
    return direct(...request);
  };
  let { id } = await upload(text(100, `r${Math.random()}`), { ...options, send: lostRequest });
  row('a request that is lost is sent again', '2 clean', `${calls} ${await settled(id)}`);
  calls = 0;
  const lostAnswer = async (...request) => {
    calls += 1;
    const answer = await direct(...request);
    if (calls === 1) throw new TypeError('the connection broke');
    return answer;
  };
  ({ id } = await upload(text(100, `a${Math.random()}`), { ...options, send: lostAnswer }));
  row('one whose answer is lost made its file all the same', 'clean', await settled(id));
  const altered = async (method, url, headers, body) => direct(method, url, headers, calls++ ? body : new Blob(['x'.repeat(body.size)]));
  calls = 0;
  ({ id } = await upload(text(100, `b${Math.random()}`), { ...options, send: altered }));
  row('bytes that were changed on the way are sent again', '2 clean', `${calls} ${await settled(id)}`);
  calls = 0;
  const never = async () => {
    calls += 1;
    throw new TypeError('no network');
  };
  row('and not for ever', 'TypeError 5', `${await outcome(upload(text(9, 'n'), { ...options, send: never }))} ${calls}`);
  const type = await outcome(upload(new Blob(['MZ'], { type: 'application/x-msdownload' }), options));
  row('a type that is not taken is told at once', 'unsupported_type', type);

  // A token that has ended at the plan, the parts and the completion: each time another one is asked for, and nothing begins anew.
  let asked = 0;
  let renewed = 0;
  const ending = async (method, url, refused) => {
    asked += 1;
    renewed += refused ? 1 : 0;
    return asked % 2 === 0 || refused ? authorize(method, url) : { authorization: `Bearer ${ended}` };
  };
  const several = text(2 * EACH + 9, `t${Math.random()}`);
  ({ id } = await upload(several, { ...options, authorize: ending, whole: 1, partSize: EACH }));
  row('a token that ends on the way is renewed, and the upload goes on', 'clean 3', `${await settled(id)} ${renewed}`);
  asked = 0;
  const dead = async () => {
    asked += 1;
    return { authorization: `Bearer ${ended}` };
  };
  row('one that stays refused is told after the second answer', 'unauthorized 2', `${await outcome(upload(text(9, 'd'), { ...options, authorize: dead }))} ${asked}`);

  // A large file that is stopped, and goes on.
  const large = text(3 * EACH + 7, `l${Math.random()}`);
  const stop = new AbortController();
  let planned;
  const sent = [];
  const counting = async (...request) => {
    const answer = await direct(...request);
    sent.push(Number(new URL(request[1]).searchParams.get('partNumber')));
    if (sent.length === 2) stop.abort();
    return answer;
  };
  const first = { ...options, whole: 1, partSize: EACH, atOnce: 1, signal: stop.signal, send: counting, onPlan: (plan) => { planned = plan; } };
  row('a large file is stopped in the middle', 'AbortError', await outcome(upload(large, first)));
  row('it was to have four parts, of which two had gone', '4 2', `${planned.parts} ${sent.length}`);
  const before = sent.splice(0).length;
  const stored = JSON.parse(JSON.stringify(planned));
  row('with another file it does not go on', 'other_file', await outcome(upload(text(9, 'o'), { ...options, resume: stored })));
  const seen = [];
  const done = await upload(large, { ...options, resume: stored, send: counting, onProgress: (at) => seen.push(at.sent) });
  row('with its own it does, and sends what was missing', `multipart ${4 - before}`, `${done.mode} ${new Set(sent).size}`);
  row('and is whole', `clean ${await sha256(large)}`, `${await settled(done.id)} ${await back(done.id)}`);
  row('progress ended at its size', large.size, seen.at(-1));
  const again = await upload(large, { ...options, resume: stored, send: counting });
  row('once more changes nothing', done.id, again.id);
  if (gigabyte) await enormous({ upload, sha256 }, { options, get, settled, row, direct, gigabyte });
}

// A gigabyte, stopped after a third of its parts and gone on with; compared part by part, by ranges.
async function enormous({ upload, sha256 }, { options, get, settled, row, direct, gigabyte }) {
  const each = 16 * 1024 * 1024;
  const file = await gigabyte();
  const stop = new AbortController();
  const parts = Math.ceil(file.size / each);
  let planned;
  const sent = [];
  const counting = async (...request) => {
    const answer = await direct(...request);
    sent.push(Number(new URL(request[1]).searchParams.get('partNumber')));
    if (sent.length === Math.floor(parts / 3)) stop.abort();
    return answer;
  };
  const began = Date.now();
  const stopped = await upload(file, { ...options, partSize: each, signal: stop.signal, send: counting, onPlan: (plan) => { planned = plan; } })
    .then(() => 'done', (error) => error.name);
  const before = sent.splice(0).length;
  row(`${file.size} bytes, stopped`, 'AbortError true', `${stopped} ${before >= Math.floor(parts / 3)}`);
  const { id } = await upload(file, { ...options, resume: planned, send: counting });
  const both = new Set(sent).size;
  row('goes on with what was missing', true, both <= parts - Math.floor(parts / 3) && both > 0);
  row('and is clean', 'clean', await settled(id));
  const { url } = await get(`/files/${id}/content`, { accept: 'application/json' });
  let same = 0;
  for (let at = 0; at < file.size; at += each) {
    const slice = file.slice(at, at + each);
    const answer = await fetch(url, { headers: { range: `bytes=${at}-${at + slice.size - 1}` } });
    if (answer.status === 206 && (await sha256(await answer.blob())) === (await sha256(slice))) same += 1;
  }
  row(`it comes back by ranges (${Math.round((Date.now() - began) / 1000)} s up and down)`, parts, same);
}
