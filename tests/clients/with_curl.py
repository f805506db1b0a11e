"""curl: an upload and a download with signed URLs, and the requests that must be refused."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from stack import CA, GATEWAY, Report, forge, new_file, settled, token

said = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
report = Report("curl", said.split()[1])
SHOW = "%{http_code} %{num_redirects} %header{content-disposition}" if tuple(map(int, said.split()[1].split(".")[:2])) >= (7, 84) else "%{http_code} %{num_redirects} "


def curl(*words):
    """Runs curl; answers the status, the redirects followed and the disposition."""
    base = ["curl", "--silent", "--show-error", "--max-time", "20", "--cacert", CA, "--write-out", SHOW]
    done = subprocess.run([*base, *map(str, words)], capture_output=True, text=True, timeout=30)
    if done.returncode:
        return f"exit {done.returncode}", "0", ""
    return tuple((done.stdout.split(" ", 2) + ["", ""])[:3])


with tempfile.TemporaryDirectory() as scratch:
    scratch = Path(scratch)
    source, body = scratch / "report.pdf", scratch / "body"
    content = b"%PDF-1.7 sent by curl\n" * 1_000
    source.write_bytes(content)
    bearer = token("acme-backend")
    authorization = ("--header", f"Authorization: Bearer {bearer}")

    def put(upload, what=source, replace=None, more=()):
        """Uploads; answers the status and S3's code."""
        headers = upload["headers"] | (replace or {})
        words = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
        status = curl("--upload-file", what, "--output", body, *words, *more, upload["url"])[0]
        code = body.read_text().partition("<Code>")[2].partition("</Code>")[0] if body.exists() else ""
        return f"{status} {code}".strip()

    def code():
        """The stable code of the last problem."""
        return json.loads(body.read_text()).get("code")

    plan = new_file(bearer, content, "Überblick.pdf")
    upload, file = plan["upload"], f"{GATEWAY}/files/{plan['id']}"
    altered = {name: value for name, value in upload["headers"].items() if name.lower() == "content-type"}
    report.row("an upload with an altered header", "403 SignatureDoesNotMatch", put(upload, replace=dict.fromkeys(altered, "text/html")))
    report.row("an upload with a header nobody signed", "403 AccessDenied", put(upload, more=("--header", "x-amz-acl: public-read")))
    without = {name: value for name, value in upload["headers"].items() if name.lower() != "if-none-match"}
    report.row("an upload without write-once", "403 SignatureDoesNotMatch", put(upload | {"headers": without}))
    other = scratch / "other"
    other.write_bytes(content[::-1])
    report.row("an upload of other bytes", "400 BadDigest", put(upload, what=other))
    other.write_bytes(content[1:])
    lengths = {name: str(len(content) - 1) for name in upload["headers"] if name.lower() == "content-length"}
    report.row("an upload of fewer bytes", "403 SignatureDoesNotMatch", put(upload, what=other, replace=lengths))
    report.row("before the upload nobody reads it", ("409", "file_not_ready"),
               (curl(*authorization, "--output", body, f"{file}/content")[0], code()))
    report.row("the upload with its URL and headers", "200", put(upload))
    report.row("the event completes it", "clean", settled(bearer, plan["id"]))
    report.row("the same upload a second time", "412 PreconditionFailed", put(upload))

    copy = scratch / "copy"
    status, redirects, disposition = curl("--location", *authorization, "--output", copy, f"{file}/content")
    report.row("a download that follows the redirect", ("200", "1"), (status, redirects))
    report.holds("is the upload, byte for byte", copy.exists() and copy.read_bytes() == content)
    if "header" in SHOW:
        report.holds("and can only be saved, under its name", "filename*=UTF-8''%C3%9Cberblick.pdf" in disposition and disposition.startswith("attachment"))
    status = curl(*authorization, "--header", "Accept: application/json", "--output", body, f"{file}/content")[0]
    report.row("the JSON form", ("200", ["expires_at", "url"]), (status, sorted(json.loads(body.read_text()))))
    url = json.loads(body.read_text())["url"]
    copy.unlink(missing_ok=True)
    report.row("its URL reads the file as well", ("200", True), (curl("--output", copy, url)[0], copy.exists() and copy.read_bytes() == content))
    report.row("and another name in it does not", "403", curl("--output", body, url.replace("attachment", "inline", 1))[0])
    report.row("and not by DELETE", "403", curl("--request", "DELETE", "--output", body, url)[0])

    report.row("another tenant's client", ("404", "not_found"),
               (curl("--header", f"Authorization: Bearer {token('globex-backend')}", "--output", body, file)[0], code()))
    report.row("no token", ("401", "unauthorized"), (curl("--output", body, file)[0], code()))
    report.row("two tokens", ("401", "unauthorized"), (curl(*authorization, *authorization, "--output", body, file)[0], code()))
    report.row("a path that does not exist", "403", curl(*authorization, "--output", body, f"{GATEWAY}/nothing")[0])
    report.row("a body that is not JSON", ("400", "malformed_request"),
               (curl(*authorization, "--json" if "header" in SHOW else "--data", "{", "--output", body, f"{GATEWAY}/files")[0], code()))
    bare = subprocess.run(["curl", "--silent", "--max-time", "20", f"{GATEWAY}/.well-known/jwks.json"], capture_output=True)
    report.row("without the stack's authority curl does not talk", 60, bare.returncode)

    # docs/recipes/upload.sh, as somebody would use it.
    if shutil.which("jq") and shutil.which("openssl"):
        recipe = Path(__file__).resolve().parents[2] / "docs/recipes/upload.sh"
        given = scratch / "token"

        def shell(*words, **more):
            """Runs the recipe; answers its last line, and what it told on the way."""
            more = {name: str(value) for name, value in more.items()}
            surroundings = {"PATH": os.environ["PATH"], "TMPDIR": str(scratch), "API": GATEWAY, "CURL_OPTIONS": f"--cacert {CA}",
                            "WHOLE": str(5 << 20)} | more
            done = subprocess.run(["bash", recipe, *map(str, words)], env=surroundings, capture_output=True, text=True, timeout=120)
            return done.stdout.strip(), done.stderr

        def fetched(id):
            """The file as it is downloaded, once it is clean."""
            status, copy = settled(bearer, id), scratch / "fetched"
            curl("--location", *authorization, "--output", copy, f"{GATEWAY}/files/{id}/content")
            return status, copy.read_bytes() if copy.exists() else b""

        for size in [1, 5 << 20]:
            whole = scratch / f"{size}.txt"
            whole.write_bytes(b"x" * size)
            id, _ = shell(whole, "text/plain", TOKEN=bearer)
            report.row(f"upload.sh: {size} bytes", ("clean", True), (lambda got: (got[0], got[1] == whole.read_bytes()))(fetched(id)))

        # Tokens of three seconds, rightly signed, and an upload that takes longer.
        def short(seconds=3):
            now, next_one = int(time.time()), scratch / "next-token"
            next_one.write_text(forge(bearer, iat=now - 300 + seconds, exp=now + seconds))
            # In one step: whoever reads it finds a whole one.
            next_one.replace(given)

        large = scratch / "large.txt"
        large.write_bytes(os.urandom(8).hex().encode() * (21 << 16))
        ending = threading.Event()

        def renewing():
            while not ending.wait(0.5):
                short()

        short()
        threading.Thread(target=renewing, daemon=True).start()
        asked = scratch / "asked"
        slow = {"PART_SIZE": 5 << 20, "CURL_OPTIONS": f"--cacert {CA} --limit-rate 4M", "TOKEN_COMMAND": f"echo >>{asked}; cat {given}"}
        id, told = shell(large, "text/plain", **slow)
        report.row("upload.sh: 21 MiB in parts, with tokens of three seconds", ("clean", True), (lambda got: (got[0], got[1] == large.read_bytes()))(fetched(id)))
        report.row("each part was sent once", 5, told.count(" sent"))
        if told.count(" sent") != 5:
            print(told[-2000:])
        report.holds("and a token was asked for more than once", len(asked.read_text()) > 1)
        ending.set()
        dead = forge(bearer, iat=int(time.time()) - 300, exp=int(time.time()) + 1)
        time.sleep(2)
        id, told = shell(large, "text/plain", PART_SIZE=5 << 20, TOKEN=dead)
        report.row("with one token alone, which has ended, it stops and says why", ("", True), (id, "401" in told and "unauthorized" in told))

        # Killed in the middle, and gone on with.
        surroundings = {"PATH": os.environ["PATH"], "TMPDIR": str(scratch), "API": GATEWAY, "TOKEN": bearer, "PART_SIZE": str(5 << 20), "WHOLE": "1",
                        "CURL_OPTIONS": f"--cacert {CA} --limit-rate 8M"}
        told = []
        with subprocess.Popen(["bash", recipe, large, "text/plain"], env=surroundings, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              text=True, start_new_session=True) as running:
            for line in running.stderr:
                told.append(line.strip())
                if line.startswith("part 2 "):
                    os.killpg(running.pid, signal.SIGKILL)
        id = told[0].partition("RESUME=")[2].partition(" ")[0]
        report.row("upload.sh: killed after two parts", 2, sum("sent" in line for line in told))
        again, told = shell(large, "text/plain", TOKEN=bearer, PART_SIZE=5 << 20, RESUME=id)
        report.row("gone on with, it sends the others", (id, True), (again, told.count(" is there") >= 2 and told.count(" sent") <= 3))
        report.row("and the file is whole", ("clean", True), (lambda got: (got[0], got[1] == large.read_bytes()))(fetched(id)))
        again, _ = shell(large, "text/plain", TOKEN=bearer, PART_SIZE=5 << 20, RESUME=id)
        report.row("once more changes nothing", id, again)
        refused, told = shell(source, "application/x-msdownload", TOKEN=bearer)
        report.row("a type that is not taken is told at once", ("", 1, True), (refused, told.count("POST /files"), "unsupported_type" in told))
    else:
        print("  (no jq or openssl on this machine: upload.sh is not run)")
report.end()
