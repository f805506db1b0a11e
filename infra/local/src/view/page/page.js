'use strict';
// What is shown was written by whoever sent the requests: it goes into the page as text and never as markup.

const place = (id) => document.getElementById(id);
const rows = new Map();
const KEPT = 400;
let version = 0;
let chosen = null;
let paused = false;

const make = (name, text, ...classes) => {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = String(text);
  for (const one of classes) if (one) made.classList.add(one);
  return made;
};
const milliseconds = (micros) => (micros === undefined || micros === null ? '' : (micros / 1000).toFixed(1));
const clock = (at) => new Date(at).toISOString().slice(11, 23);
const statusClass = (status) => (status >= 500 ? 'bad' : status >= 400 ? 'odd' : 'good');
const OUTCOMES = ['allow', 'deny', 'open', 'fault'];
const KINDS = ['authorizer', 'function', 'aws', 'database'];
const known = (word, words) => (words.includes(word) ? word : '');

function decision(seen) {
  const cell = make('td', undefined);
  if (!seen.verdict) return cell;
  const { outcome, reason, policies, by } = seen.verdict;
  cell.append(make('span', outcome, known(outcome, OUTCOMES)), ` ${reason}`);
  if (policies.length) cell.append(' ', make('code', policies.join(' ')));
  if (by !== 'authorizer') cell.append(' ', make('span', `by ${by}`, 'soft'));
  return cell;
}

function row(seen) {
  const made = make('tr');
  const times = seen.times || {};
  const request = make('td', undefined, 'code');
  request.append(`${seen.method} ${seen.path}`);
  if (seen.door !== 'gateway') request.append(' ', make('span', seen.door, 'soft'));
  made.append(
    make('td', clock(seen.at), 'time'),
    make('td', seen.status === null ? '…' : seen.status, seen.status && statusClass(seen.status)),
    request,
    decision(seen),
    make('td', seen.function),
    ...[times.total, times.authorizer, times.function, times.gateway].map((time) => make('td', milliseconds(time), 'number')),
  );
  made.dataset.number = seen.number;
  made.tabIndex = 0;
  made.addEventListener('click', () => open(seen.number));
  made.addEventListener('keydown', (event) => { if (event.key === 'Enter') open(seen.number); });
  if (seen.number === chosen) made.classList.add('chosen');
  return made;
}

const fits = (seen, words) => {
  const verdict = seen.verdict || { outcome: '', reason: '', policies: [] };
  const text = [seen.method, seen.path, seen.route, seen.function, seen.client, seen.status, seen.id, seen.door, verdict.outcome, verdict.reason, ...verdict.policies];
  const all = text.join(' ').toLowerCase();
  return words.every((word) => all.includes(word));
};
const words = () => place('filter').value.toLowerCase().split(/\s+/).filter(Boolean);

function take(seen) {
  const held = rows.get(seen.number);
  const made = row(seen);
  made.hidden = !fits(seen, words());
  if (held) held.row.replaceWith(made);
  else place('requests').prepend(made);
  rows.set(seen.number, { seen, row: made });
  while (rows.size > KEPT) {
    const oldest = Math.min(...rows.keys());
    rows.get(oldest).row.remove();
    rows.delete(oldest);
  }
}

function notice({ at, level, text }) {
  const list = place('notices');
  list.hidden = false;
  list.prepend(make('div', `${clock(at)} ${text}`, level === 'error' ? 'error' : ''));
  while (list.childElementCount > 20) list.lastElementChild.remove();
}

const ask = async (path, options) => {
  const answer = await fetch(path, { cache: 'no-store', ...options });
  return { status: answer.status, body: await answer.json() };
};

async function follow() {
  for (;;) {
    try {
      const { body } = await ask(`news?after=${version}`);
      // A stack that was started anew counts from the beginning.
      if (body.version < version) location.reload();
      while (paused) await new Promise((go) => setTimeout(go, 200));
      version = body.version;
      for (const seen of body.requests) take(seen);
      for (const one of body.notices) notice(one);
      place('state').textContent = `${rows.size} requests`;
      if (chosen !== null && body.requests.some((seen) => seen.number === chosen)) await open(chosen, true);
    } catch {
      place('state').textContent = 'the stack does not answer';
      await new Promise((go) => setTimeout(go, 1000));
    }
  }
}

function depth(parts, part) {
  let deep = 0;
  for (let at = part.within; at !== null && at !== undefined && parts[at] && deep < 3; at = parts[at].within) deep += 1;
  return deep;
}

function shownPart(seen, part) {
  const total = Math.max(1, seen.times ? seen.times.total : 0, ...seen.parts.map((one) => one.from + (one.took || 0)));
  const deep = depth(seen.parts, part);
  const made = make('div', undefined, 'part', deep ? `depth${deep}` : '');
  const head = make('div');
  head.append(make('strong', part.name), ' ', make('span', part.kind, 'soft'), ' ', part.outcome);
  head.append(' ', make('span', part.took === null ? 'under way' : `${milliseconds(part.took)} ms`, 'soft'));
  if (part.own !== null) head.append(make('span', ` (its own ${milliseconds(part.own)} ms${part.cold ? ', a process was started' : ''})`, 'soft'));
  if (part.fault) head.append(' ', make('span', `fault: ${part.fault}`, 'odd'));
  const track = make('div', undefined, 'track');
  const bar = make('div', undefined, 'bar', known(part.kind, KINDS));
  bar.style.left = `${(100 * part.from) / total}%`;
  bar.style.width = `${(100 * (part.took || 0)) / total}%`;
  track.append(bar);
  made.append(head, track);
  for (const judged of part.judged) {
    const line = make('div', undefined, 'code');
    line.append(make('span', judged.allowed ? 'allow' : 'deny', judged.allowed ? 'allow' : 'deny'), ` ${judged.action} ${judged.resource} `);
    const within = judged.within ? ` within ${judged.within}` : '';
    line.append(make('span', `${judged.statement || judged.reason}${within}`, 'soft'));
    made.append(line);
  }
  for (const said of part.said) made.append(make('div', said.map(([name, value]) => `${name}=${value}`).join('  '), 'code', 'soft'));
  return made;
}

async function open(number, again) {
  chosen = number;
  for (const [held, { row: one }] of rows) one.classList.toggle('chosen', held === number);
  const { status, body } = await ask(`requests/${number}`);
  if (chosen !== number || (again && status !== 200)) return;
  const shown = place('opened');
  shown.hidden = false;
  document.querySelector('main').classList.add('two');
  if (status !== 200) {
    shown.replaceChildren(make('p', body.error));
    return;
  }
  const close = make('button', 'close');
  close.type = 'button';
  close.addEventListener('click', () => {
    chosen = null;
    shown.hidden = true;
    document.querySelector('main').classList.remove('two');
    for (const { row: one } of rows.values()) one.classList.remove('chosen');
  });
  const list = make('dl');
  const verdict = body.verdict;
  const facts = [
    ['request id', body.id], ['status', body.status], ['route', body.route], ['client', body.client], ['function', body.function],
    ['decision', verdict && `${verdict.outcome} ${verdict.reason} by ${verdict.by}`], ['policies', verdict && verdict.policies.join(' ')],
    ['parts left out', body.left_out || null],
    ...body.headers,
  ];
  for (const [name, value] of facts) if (value !== null && value !== undefined && value !== '') list.append(make('dt', name), make('dd', value, 'code'));
  shown.replaceChildren(close, make('h2', `${body.method} ${body.path}`), list, ...body.parts.map((part) => shownPart(body, part)));
}

function showFaults({ status, body }) {
  const bad = status !== 200;
  place('struck').classList.toggle('bad', bad);
  if (bad) {
    place('struck').textContent = body.error;
    return;
  }
  if (document.activeElement !== place('rules')) place('rules').value = body.faults;
  place('seed').value = body.seed;
  place('struck').textContent = body.rules.map((rule) => `${rule.rule}: ${rule.struck} of ${rule.met}`).join('; ');
}

place('filter').addEventListener('input', () => {
  const wanted = words();
  for (const { seen, row: one } of rows.values()) one.hidden = !fits(seen, wanted);
});
place('pause').addEventListener('click', () => {
  paused = !paused;
  place('pause').textContent = paused ? 'go on' : 'pause';
});
place('strike').addEventListener('click', async () => {
  const seed = place('seed').value.trim();
  const body = { faults: place('rules').value, seed: seed === '' ? null : Number(seed) };
  showFaults(await ask('faults', { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }));
});
setInterval(() => ask('faults').then(showFaults).catch(() => {}), 3000);
ask('faults').then(showFaults).catch(() => {});
follow();
