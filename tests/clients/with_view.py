"""A headless Chromium on the decision view of the stack: what it shows, and what requests that attack it through what it shows come to.

Chromium is driven over a pipe, by the DevTools protocol. Everything that an attacker writes (path, query, header fields) is sent to the gate
as markup and as script; the page must show it as text. It runs nothing, opens no dialog and asks nobody but the stack.
"""

import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from urllib.parse import urlsplit

from stack import CA, GATEWAY, MANIFEST, UNKNOWN_FILE, Report, call, token

VIEW = MANIFEST["view"]
CANARY = "xss-canary"
MARKUP = [
    f"<img src=x onerror=alert('{CANARY}')>",
    f"<script>document.title='{CANARY}'</script>",
    f"\"><svg onload=alert('{CANARY}')>",
    f"javascript:alert('{CANARY}')//",
    f"</td></tr></table><iframe srcdoc=\"<script>parent.document.title='{CANARY}'</script>\">",
    f"{{{{constructor.constructor('alert(1)')()}}}} ${{alert(1)}} {CANARY}",
]


def held(report, what, truth, more=""):
    """A check; what was seen is told where it does not hold."""
    report.holds(what, bool(truth))
    if not truth and more:
        print(f"       {more}", file=sys.stderr, flush=True)


class Browser:
    """One page of a Chromium that is asked over file descriptors 3 and 4."""

    def __init__(self, program, profile):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()

        def place():
            # The two may stand in each other's way.
            first, second = os.dup(to_browser), os.dup(from_browser)
            os.dup2(first, 3)
            os.dup2(second, 4)

        words = [program, "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
                 "--remote-debugging-pipe", "about:blank"]
        self.running = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        start_new_session=True, close_fds=False, preexec_fn=place)
        os.close(to_browser)
        os.close(from_browser)
        self.number, self.held, self.events = 0, b"", []
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Log"]:
            self.ask(f"{domain}.enable")

    def message(self, patience):
        deadline = time.monotonic() + patience
        while b"\0" not in self.held:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.read], [], [], left)[0]:
                return None
            piece = os.read(self.read, 1 << 16)
            if not piece:
                raise RuntimeError("the browser has ended")
            self.held += piece
        one, self.held = self.held.split(b"\0", 1)
        return json.loads(one)

    def ask(self, method, **parameters):
        self.number += 1
        words = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            words["sessionId"] = self.session
        os.write(self.write, json.dumps(words).encode() + b"\0")
        while True:
            said = self.message(60)
            if said is None:
                raise RuntimeError(f"no answer to {method}")
            if said.get("id") == self.number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return said["result"]
            self.events.append(said)

    def value(self, expression):
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, expression, patience=20):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.1)
        return None

    def said(self, method):
        while (one := self.message(0.2)) is not None:
            self.events.append(one)
        return [event["params"] for event in self.events if event.get("method") == method]

    def end(self):
        os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()


def attack():
    """Sends each piece of markup in the target, the query and header fields, as bytes that no library would let through."""
    place = urlsplit(GATEWAY)
    context = ssl.create_default_context(cafile=CA)
    for number, text in enumerate(MARKUP):
        # The gate's own parser lets quotes and braces through; of the rest there are escapes, which somebody on the way may undo.
        for target in [f'/{number}/"onerror={{{CANARY}}}', f"/files/%3Cimg%20src=x%3E{CANARY}", f"/nowhere?%3Cscript%3E{CANARY}=1"]:
            lines = [f"GET {target} HTTP/1.1", f"Host: {place.netloc}", f"User-Agent: {text}", f"Accept: {text}", f"Origin: {text}",
                     "Authorization: Bearer a.b.c", f"X-{number}: {text}", f"Content-Type: {text}", "Connection: close", "", ""]
            with context.wrap_socket(socket.create_connection((place.hostname, place.port)), server_hostname=place.hostname) as wire:
                wire.sendall("\r\n".join(lines).encode())
                while wire.recv(1 << 16):
                    pass


def row(seen_path, status):
    """An expression that finds a row by what it shows."""
    return f"""(() => {{ for (const row of document.querySelectorAll('#requests tr'))
        if (row.cells[2].textContent.startsWith({json.dumps(seen_path)}) && row.cells[1].textContent === {json.dumps(str(status))}) return row;
        return null; }})()"""


def shown(browser, report):
    browser.ask("Page.navigate", url=VIEW)
    call("GET", UNKNOWN_FILE, token("acme-backend"))
    allowed = browser.until(f"{row('POST /oauth2/token', 200)} !== null")
    held(report, "a request appears without a reload", bool(allowed))
    refused = row(f"GET {UNKNOWN_FILE}", 404)
    held(report, "its decision, policies and times stand in its row", bool(browser.until(
        f"(() => {{ const row = {refused}; return row && /^allow policy/.test(row.cells[3].textContent) && row.cells[4].textContent === 'download'"
        f" && Number(row.cells[5].textContent) > 0; }})()")))
    browser.value(f"{refused}.click()")
    opened = browser.until("document.querySelectorAll('#opened .part').length > 2 && document.getElementById('opened').textContent")
    held(report, "a request is opened and its parts are seen", bool(opened) and all(
        word in opened for word in ["authorizer", "download", "api.", "database", "acme/acme-backend"]), opened or "nothing")
    bars = browser.value("[...document.querySelectorAll('#opened .bar')].every((bar) => bar.style.width.endsWith('%'))")
    held(report, "each part has a bar of its time", bars)
    browser.value("document.getElementById('filter').value = 'nothing-like-this'; document.getElementById('filter').dispatchEvent(new Event('input'))")
    hidden = browser.value("[...document.querySelectorAll('#requests tr')].every((row) => row.hidden)")
    browser.value("document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input'))")
    held(report, "the list is filtered", hidden and browser.value("[...document.querySelectorAll('#requests tr')].some((row) => !row.hidden)"))


def controlled(browser, report):
    set_faults = "document.getElementById('rules').value = {}; document.getElementById('strike').click()"
    browser.value(set_faults.format(json.dumps("kms trottle")))
    said = browser.until("document.getElementById('struck').textContent.includes('character 5') && document.getElementById('struck').textContent")
    held(report, "a fault that is none is named with its place", bool(said), said or "nothing")
    # Of an operation that nobody uses here: other programs run beside this one.
    browser.value(set_faults.format(json.dumps("ssm.GetParameterHistory throttle 50%")))
    set_to = browser.until("document.getElementById('struck').textContent.startsWith('ssm.GetParameterHistory throttle 50%: 0 of 0') && document.getElementById('seed').value")
    held(report, "faults are set on the page", bool(set_to))
    browser.value(set_faults.format(json.dumps("")))
    held(report, "and lifted", bool(browser.until("document.getElementById('struck').textContent === ''")))


def attacked(browser, report):
    before = browser.value("document.querySelectorAll('*').length >= 0 && document.title")
    attack()
    arrived = browser.until(f"[...document.querySelectorAll('#requests tr')].filter((row) => row.textContent.includes('{CANARY}')).length >= {3 * len(MARKUP)}")
    held(report, "what attacks the page is shown", bool(arrived))
    numbers = browser.value(f"[...document.querySelectorAll('#requests tr')].filter((row) => row.textContent.includes('{CANARY}')).map((row) => row.dataset.number)")
    opened = 0
    for number in numbers:
        browser.value(f"document.querySelector('#requests tr[data-number=\"{number}\"]').click()")
        # Its header fields hold the markup as well.
        opened += bool(browser.until(f"document.getElementById('opened').textContent.includes('{CANARY}')", 5))
    held(report, "and opened, with its header fields", opened == len(numbers) and opened >= 3 * len(MARKUP), f"{opened} of {len(numbers)}")
    foreign = browser.value("""[...document.querySelectorAll('*')].filter((one) => ['IMG', 'SVG', 'IFRAME', 'OBJECT', 'A', 'FORM', 'EMBED'].includes(one.tagName.toUpperCase())
        || [...one.attributes].some((attribute) => attribute.name.startsWith('on'))).map((one) => one.outerHTML)""")
    scripts = browser.value("document.scripts.length")
    held(report, "as text: no element and no script came of it", foreign == [] and scripts == 1, f"{foreign} {scripts}")
    held(report, "nothing ran", browser.value("document.title") == before and not browser.said("Page.javascriptDialogOpening"))
    asked = {urlsplit(event["request"]["url"]).netloc for event in browser.said("Network.requestWillBeSent") if event["request"]["url"].startswith("http")}
    held(report, "nobody was asked but the stack", asked == {urlsplit(VIEW).netloc}, str(asked))
    broken = [event["entry"]["text"] for event in browser.said("Log.entryAdded") if "Content Security Policy" in event["entry"]["text"]]
    thrown = browser.said("Runtime.exceptionThrown")
    held(report, "the page keeps to its own policy and throws nothing", not broken and not thrown, f"{broken} {thrown}")
    # What script of our own could not do either, had it got in.
    inline = browser.value("(() => { try { const one = document.createElement('div'); one.innerHTML = '<b>x</b>'; return one.innerHTML; } catch (error) { return error.name; } })()")
    held(report, "no script could make markup of a text", inline == "TypeError", inline)
    blocked = browser.value("fetch('https://localhost:1/').then(() => 'sent', (error) => error.name)")
    violations = browser.value("new Promise((tell) => { document.addEventListener('securitypolicyviolation', (event) => tell(event.effectiveDirective)); fetch('http://127.0.0.2:1/').catch(() => {}); })")
    held(report, "nor tell anybody", blocked == "TypeError" and violations == "connect-src", f"{blocked} {violations}")


def framed(browser, report):
    """A page of another origin."""
    browser.ask("Page.navigate", url=f"data:text/html,<iframe src='{VIEW}'></iframe>")
    time.sleep(1)
    tree = browser.ask("Page.getFrameTree")["frameTree"]
    children = [child["frame"] for child in tree.get("childFrames", [])]
    held(report, "no other page has it in a frame", all(VIEW not in child.get("url", "") or child.get("unreachableUrl") for child in children), str(children))
    read = browser.value(f"fetch({json.dumps(VIEW + 'news?wait=0')}).then((answer) => answer.text(), (error) => error.name)")
    held(report, "no other page reads it", read == "TypeError", str(read)[:80])
    written = browser.value(f"fetch({json.dumps(VIEW + 'faults')}, {{ method: 'PUT', mode: 'cors', headers: {{ 'content-type': 'application/json' }}, body: '{{}}' }}).then((answer) => answer.status, (error) => error.name)")
    held(report, "no other page sets faults", written == "TypeError", str(written))


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(os.environ["PORTCULLIS_CHROMIUM"], profile)
        try:
            version = browser.value("navigator.userAgent").partition("HeadlessChrome/")[2].partition(" ")[0]
            report = Report("Chromium on the decision view", version or "?")
            shown(browser, report)
            controlled(browser, report)
            attacked(browser, report)
            framed(browser, report)
        finally:
            browser.end()
    report.end()


main()
