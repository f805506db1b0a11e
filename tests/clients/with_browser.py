"""A headless Chromium: docs/recipes/upload.mjs in a page, with XMLHttpRequest and the browser's own cryptography.

The page is of another origin than API and bucket, as it would be. What AWS allows by CORS the local stack does not speak, so the
browser is told not to ask; what CORS would allow is the bucket's configuration, which the templates' tests look at.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from stack import GATEWAY, Report, token

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "/upload.mjs": ROOT / "docs/recipes/upload.mjs",
    "/upload_cases.mjs": ROOT / "tests/clients/node/upload_cases.mjs",
}
PAGE = """<!doctype html><script type="module">
const tell = (path, body) => fetch(path, { method: 'POST', body: JSON.stringify(body) });
try {
  const { api, token } = await (await fetch('/settings')).json();
  const { run } = await import('/upload_cases.mjs');
  let told = Promise.resolve();
  await run(await import('/upload.mjs'), {
    api, authorize: async () => ({ authorization: `Bearer ${token}` }),
    row: (...one) => { told = told.then(() => tell('/row', one)); },
  });
  await told;
  await tell('/end', navigator.userAgent);
} catch (error) {
  await tell('/end', `failed: ${error.stack}`);
}
</script>"""


class Pages(BaseHTTPRequestHandler):
    """Serves the page and takes what it tells."""

    told = queue.Queue()

    def do_GET(self):
        if self.path == "/settings":
            body, kind = json.dumps({"api": GATEWAY, "token": token("acme-backend")}), "application/json"
        elif self.path in FILES:
            body, kind = FILES[self.path].read_text(), "text/javascript"
        else:
            body, kind = PAGE, "text/html"
        self.answer(body.encode(), kind)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.told.put((self.path, body))
        self.answer(b"{}", "application/json")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


browser = os.environ["PORTCULLIS_CHROMIUM"]
server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
threading.Thread(target=server.serve_forever, daemon=True).start()
rows, end = [], "no answer"
with tempfile.TemporaryDirectory() as profile:
    words = [browser, "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors", "--disable-web-security",
             f"--user-data-dir={profile}", "--remote-debugging-port=0", f"http://localhost:{server.server_port}/"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            while True:
                path, body = Pages.told.get(timeout=240)
                if path == "/end":
                    end = body
                    break
                rows.append(body)
        except queue.Empty:
            pass
        finally:
            running.terminate()
name = end.partition("HeadlessChrome/")[2].partition(" ")[0]
report = Report("Chromium", name or "?")
for what, want, got in rows:
    report.row(what, want, got)
report.holds("the page came to its end", bool(name), shown="yes")
if not name:
    print(end, file=sys.stderr)
report.end()
