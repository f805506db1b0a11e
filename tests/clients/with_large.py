"""One gigabyte, up and down: docs/recipes/upload.sh killed and gone on with, parts by requests, ranges by curl and by boto3's
transfer manager. Tokens live thirty seconds, the least there is, and the way takes longer. Run by GB=1 scripts/test-clients; the
Node and Chromium programs send a gigabyte of their own then.

What the stack and the functions hold in memory meanwhile is looked at: it must not grow with the file.
"""

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
from boto3.s3.transfer import TransferConfig
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stack import CA, CLIENTS, GATEWAY, HTTP, MANIFEST, Report, act, aws, call, new_file, settled, token

SOURCE = Path(os.environ["PORTCULLIS_GB"])
SIZE = SOURCE.stat().st_size
RECIPE = Path(__file__).resolve().parents[2] / "docs/recipes/upload.sh"
PART = 32 << 20
COUNT = -(-SIZE // PART)
report = Report("gigabyte", f"of {SIZE} bytes")


def digest_of(path):
    """SHA-256 of a file."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def peaks():
    """The most that the stack and its functions have held in memory (VmHWM), by program, in MB."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            mine = f"PORTCULLIS_CA_FILE={CA}\0" in (process / "environ").read_text()
            mine = mine or str(Path(os.environ["PORTCULLIS_MANIFEST"]).parent) in (process / "cmdline").read_text()
            status = (process / "status").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if mine and name in ("local", "upload", "download", "object-events"):
            peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            found[name] = max(found.get(name, 0), round(peak / 1024))
    return found


# A client whose tokens end on the way.
ME = "acme-short"
key = ec.generate_private_key(ec.SECP256R1())
jwk = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": f"{ME}-1", "alg": "ES256", "use": "sig"}
act("client.put", tenant="acme", client_id=ME, jwks={"keys": [jwk]}, scopes=["files:read", "files:write"], dpop=False, ttl_seconds=30)
scratch = Path(tempfile.mkdtemp())
pem = scratch / "key.pem"
pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
CLIENTS[ME] = {"client_id": ME, "kid": f"{ME}-1", "private_key_file": str(pem)}
claims = jwt.decode(token(ME), options={"verify_signature": False})
report.row("a client's tokens live for seconds", 30, claims["exp"] - claims["iat"])
held = {"token": "", "until": 0.0}


def mine():
    """A token with some seconds left."""
    if time.monotonic() > held["until"]:
        held.update(token=token(ME), until=time.monotonic() + 20)
    return held["token"]


# What a small file takes is what the programs are compared with.
small = b"%PDF-1.7 " + os.urandom(1 << 20)
plan = new_file(mine(), small)
HTTP.put(plan["upload"]["url"], headers=plan["upload"]["headers"], data=small, timeout=60)
report.row("a small file first", "clean", settled(mine(), plan["id"]))
before = peaks()

# upload.sh, killed after some parts and gone on with.
given = scratch / "token"
given.write_text(mine())
over = threading.Event()


def keep_fresh():
    """Renews what TOKEN_COMMAND prints; the recipe asks for it only when its own has ended."""
    while not over.wait(5):
        given.write_text(mine())


threading.Thread(target=keep_fresh, daemon=True).start()
asked = scratch / "asked"
surroundings = {"PATH": os.environ["PATH"], "TMPDIR": str(scratch), "API": GATEWAY, "PART_SIZE": str(PART),
                "CURL_OPTIONS": f"--cacert {CA} --limit-rate 30M", "TOKEN_COMMAND": f"echo >>{asked}; cat {given}"}
began, told = time.monotonic(), []
words = ["bash", RECIPE, SOURCE, "application/zip"]
with subprocess.Popen(words, env=surroundings, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True) as running:
    for line in running.stderr:
        told.append(line.strip())
        if line.startswith(f"part {COUNT // 3} "):
            os.killpg(running.pid, signal.SIGKILL)
id = told[0].partition("RESUME=")[2].partition(" ")[0]
report.row("upload.sh: killed after a third of its parts", COUNT // 3, sum("sent" in line for line in told))
done = subprocess.run(words, env=surroundings | {"RESUME": id}, capture_output=True, text=True, timeout=900, check=False)
went = time.monotonic() - began
report.row("gone on with, it sends what was missing", (id, True), (done.stdout.strip(), done.stderr.count(" sent") <= COUNT - COUNT // 3))
report.holds("and asked for tokens on the way", len(asked.read_text()) >= 3, shown=f"{len(asked.read_text())} times in {went:.0f} s")
report.row("it is clean", "clean", settled(mine(), id))

# Down by curl, broken off and gone on with, by two signed URLs of one version.
copy = scratch / "copy"


def fetch(*more):
    """One download with a fresh URL."""
    words = ["curl", "--silent", "--show-error", "--cacert", CA, "--location", "--header", f"Authorization: Bearer {mine()}", "--output", copy, *more]
    return subprocess.run([*map(str, words), f"{GATEWAY}/files/{id}/content"], check=False, timeout=900).returncode


fetch("--max-filesize", str(SIZE), "--range", f"0-{SIZE // 2}")
report.row("curl: the first half", SIZE // 2 + 1, copy.stat().st_size)
report.row("and the rest, from where it broke off", (0, digest_of(SOURCE)), (fetch("--continue-at", "-"), digest_of(copy)))
copy.unlink()

# Parts by requests, several at once, each batch with a token of its own; down by boto3, in ranges at once.
body = {"name": "gigabyte.zip", "content_type": "application/zip", "size": SIZE, "part_size": PART, "mode": "multipart"}
id = call("POST", "/files", mine(), json=body).json()["id"]


def part(number):
    """The bytes of a part."""
    with open(SOURCE, "rb") as content:
        content.seek((number - 1) * PART)
        return content.read(PART)


def send(number):
    """Signs and sends one part."""
    data = part(number)
    named = {"part": number, "size": len(data), "sha256": base64.b64encode(hashlib.sha256(data).digest()).decode()}
    one = call("POST", f"/files/{id}/parts", mine(), json={"parts": [named]}).json()["parts"][0]
    return HTTP.put(one["url"], data=data, headers=one["headers"], timeout=120).status_code


began = time.monotonic()
with ThreadPoolExecutor(3) as pool:
    statuses = set(pool.map(send, range(1, COUNT + 1)))
completed = call("POST", f"/files/{id}/complete", mine())
report.row("requests: all parts, three at once", ({200}, 200), (statuses, completed.status_code))
report.holds("it is clean", settled(mine(), id) == "clean", shown=f"after {time.monotonic() - began:.0f} s")
objects = aws("s3")
found = objects.list_objects_v2(Bucket=MANIFEST["bucket"], Prefix=f"t/acme/{id}")["Contents"]
report.row("one object of that size", [SIZE], [one["Size"] for one in found])
objects.download_file(MANIFEST["bucket"], found[0]["Key"], str(copy), Config=TransferConfig(multipart_chunksize=16 << 20, max_concurrency=4))
report.row("boto3: down in ranges, four at once", digest_of(SOURCE), digest_of(copy))

# Memory. A debug build is larger than what ships, and holds what that must hold; and it may not grow.
after = peaks()
over.set()
for name in ["upload", "download", "object-events"]:
    had, has = before.get(name), after.get(name)
    report.holds(f"{name}: at most 32 MB, and no more for a gigabyte than for a megabyte", had and has and has <= 32 and has - had <= 4, shown=f"{had} MB, then {has} MB")
# Parts that are on their way are in memory, each at most three times over; of what is stored nothing is.
most = before["local"] + 3 * 3 * (PART >> 20) + 128
report.holds("the local S3 holds parts, not files", after["local"] <= most, shown=f"{before['local']} MB, then {after['local']} MB")
shutil.rmtree(scratch)
report.end()
