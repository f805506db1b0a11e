"""A headless Chromium: docs/recipes/upload.mjs in a page, with XMLHttpRequest and the browser's own cryptography.

The bucket is of another origin than the page, and opens itself to it by the CORS rules of the template (the stack was started with
this page among its AllowedOrigins): the browser asks, as anybody's does. The API is reached under the page's own origin: what
it says to pages elsewhere Cloudflare Access says at the edge, which is not here. A page of an origin that was not named gets nothing.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stack import GATEWAY, Report, call, forge, session, token

ROOT = Path(__file__).resolve().parents[2]
GIGABYTE = os.environ.get("PORTCULLIS_GB", "")
FILES = {
    "/upload.mjs": ROOT / "docs/recipes/upload.mjs",
    "/upload_cases.mjs": ROOT / "tests/clients/node/upload_cases.mjs",
}
PAGE = """<!doctype html><script type="module">
const tell = (path, body) => fetch(path, { method: 'POST', body: JSON.stringify(body) });
// Text of a gigabyte, each MiB another: a File on a disk, as one that somebody chose is. A Blob of that size that is made in memory
// Chromium cannot read again (NotReadableError).
const gigabyte = async () => {
  const kept = await (await navigator.storage.getDirectory()).getFileHandle('gigabyte.txt', { create: true });
  const out = await kept.createWritable();
  for (let at = 0; at < 1024; at += 1) {
    const piece = new Uint8Array(1 << 20).fill(97 + (at % 26));
    piece.set(new TextEncoder().encode(`${at}-${Math.random()} `));
    await out.write(piece);
  }
  await out.close();
  return kept.getFile();
};
try {
  const settings = await (await fetch('/settings')).json();
  const { run } = await import('/upload_cases.mjs');
  let told = Promise.resolve();
  await run(await import('/upload.mjs'), {
    api: `${location.origin}/api`,
    authorize: async () => ({ authorization: `Bearer ${await (await fetch('/token')).text()}` }),
    row: (...one) => { told = told.then(() => tell('/row', one)); },
    ended: settings.ended,
    gigabyte: settings.gigabyte && gigabyte,
  });
  await told;
  await tell('/end', navigator.userAgent);
} catch (error) {
  await tell('/end', `failed: ${error.name} ${error.message} ${error.stack}`);
}
</script>"""
# A page that has a signed URL and is of no named origin: by script, the bucket is closed to it in both directions.
STRANGER = """<!doctype html><script type="module">
const tell = (path, body) => fetch(path, { method: 'POST', body: JSON.stringify(body) });
const { upload, content } = await (await fetch('/signed')).json();
const outcome = (act) => act.then((answer) => String(answer.status), (error) => error.name);
await tell('/row', ['PUT', await outcome(fetch(upload.url, { method: 'PUT', headers: upload.headers, body: 'hello' }))]);
await tell('/row', ['GET', await outcome(fetch(content))]);
await tell('/end', navigator.userAgent);
</script>"""


class Pages(BaseHTTPRequestHandler):
    """Serves the page, passes its calls on to the API, and takes what it tells."""

    def do_GET(self):
        if self.path.startswith("/api/"):
            self.passed_on()
        elif self.path == "/settings":
            now = int(time.time())
            ended = forge(token("acme-backend"), iat=now - 301, exp=now - 1)
            self.answer(json.dumps({"ended": ended, "gigabyte": bool(GIGABYTE)}).encode(), "application/json")
        elif self.path == "/token":
            self.answer(fresh_token().encode(), "text/plain")
        elif self.path == "/signed":
            self.answer(json.dumps(self.server.signed).encode(), "application/json")
        elif self.path in FILES:
            self.answer(FILES[self.path].read_bytes(), "text/javascript")
        else:
            self.answer(self.server.page.encode(), "text/html")

    def do_POST(self):
        if self.path.startswith("/api/"):
            self.passed_on()
            return
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.told.put((self.path, body))
        self.answer(b"{}", "application/json")

    def passed_on(self):
        """As a proxy under one name for page and API would."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        kept = {name: self.headers[name] for name in ["authorization", "content-type", "idempotency-key", "accept"] if name in self.headers}
        said = GATE.request(self.command, GATEWAY + self.path.removeprefix("/api"), headers=kept, data=body or None, timeout=60)
        self.answer(said.content, said.headers.get("content-type", "application/json"), said.status_code)

    def answer(self, body, kind, status=200):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


GATE = session()
held = {"token": "", "until": 0.0}


def fresh_token():
    """One token for some minutes."""
    if time.monotonic() > held["until"]:
        held.update(token=token("acme-backend"), until=time.monotonic() + 200)
    return held["token"]


def visit(page, port=0, **more):
    """Opens a page; answers what it told, and how it ended."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Pages)
    server.told, server.page = queue.Queue(), page
    for name, value in more.items():
        setattr(server, name, value)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    rows, end = [], "no answer"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [os.environ["PORTCULLIS_CHROMIUM"], "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 f"--user-data-dir={profile}", "--remote-debugging-port=0", f"http://localhost:{server.server_port}/"]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as running:
            try:
                while True:
                    path, body = server.told.get(timeout=900 if GIGABYTE else 240)
                    if path == "/end":
                        end = body
                        break
                    rows.append(body)
            except queue.Empty:
                pass
            finally:
                # All of it: what is started may be a script, and a browser is many processes.
                os.killpg(running.pid, signal.SIGKILL)
    server.shutdown()
    return rows, end


found, ending = visit(PAGE, int(os.environ["PORTCULLIS_PAGE_PORT"]))
name = ending.partition("HeadlessChrome/")[2].partition(" ")[0]
report = Report("Chromium", name or "?")
for what, want, got in found:
    report.row(what, want, got)
report.holds("the page came to its end", bool(name), shown="yes")
if not name:
    print(ending, file=sys.stderr)

bearer = token("acme-backend")
digest = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # of `hello`
plain = {"name": "a.txt", "content_type": "text/plain", "size": 5, "sha256": digest, "mode": "put"}
plan, other = (call("POST", "/files", bearer, json=plain).json() for _ in range(2))
GATE.put(other["upload"]["url"], headers=other["upload"]["headers"], data=b"hello", timeout=20)
path = f"/files/{other['id']}"
while call("GET", path, bearer).json()["status"] == "pending":
    time.sleep(0.05)
content = GATE.get(f"{GATEWAY}{path}/content", headers={"authorization": f"Bearer {bearer}", "accept": "application/json"}, timeout=20).json()["url"]
found, ending = visit(STRANGER, signed={"upload": plan["upload"], "content": content})
report.row("a page of another origin, with signed URLs, gets nothing by script", [["PUT", "TypeError"], ["GET", "TypeError"]], found)
report.row("and has stored nothing", "pending", call("GET", f"/files/{plan['id']}", bearer).json()["status"])
report.end()
