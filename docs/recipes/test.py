#!/usr/bin/env python3
"""Holds the three recipes to what they promise: the same tokens to each, made here, with a key set of the gate's shape.

Needs PyJWT with cryptography, php (openssl) and node with jose 6 (NODE_PATH is not read for modules: set JOSE to the folder
that holds node_modules). Usage: test.py [php] [python] [node]
"""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import jwt
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = pathlib.Path(__file__).parent
ISSUER, AUDIENCE, NOW = "https://machines.example.com", "https://api.example.com/v1", int(time.time())


def b64(data):
    data = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


key, other = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)
curve = ec.generate_private_key(ec.SECP256R1())
number = lambda n: b64(n.to_bytes((n.bit_length() + 7) // 8, "big"))
public = key.public_key().public_numbers()
point = curve.public_key().public_numbers()
KEYS = {"keys": [
    {"kty": "RSA", "kid": "good", "alg": "RS256", "use": "sig", "n": number(public.n), "e": number(public.e)},
    {"kty": "EC", "kid": "curve", "alg": "ES256", "use": "sig", "crv": "P-256", "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))},
]}
HEAD = {"alg": "RS256", "typ": "at+jwt", "kid": "good"}
CLAIMS = {"iss": ISSUER, "sub": "acme-backend", "aud": AUDIENCE, "client_id": "acme-backend", "jti": "0198c0de-0000-7000-8000-000000000000",
          "iat": NOW, "exp": NOW + 300, "scope": "files:read app", "tenant": "acme", "kind": "machine"}


def token(head=HEAD, claims=CLAIMS, by=key, raw=None):
    text = f"{b64(head)}.{raw or b64(claims)}"
    return f"{text}.{b64(by.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def but(what, **changes):
    changed = {**what, **changes}
    return {name: value for name, value in changed.items() if value is not ...}


good = token()


def hs256():
    """The public key as the secret of an HMAC: what a verifier falls for that lets the token choose."""
    mac = hmac.HMAC(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), hashes.SHA256())
    text = f"{b64(but(HEAD, alg='HS256'))}.{b64(CLAIMS)}"
    mac.update(text.encode())
    return f"{text}.{b64(mac.finalize())}"


HEADERS = {"x-portcullis-subject": "acme-backend", "x-portcullis-tenant": "acme", "x-portcullis-client": "acme-backend"}
bearer = lambda text, **more: but({"authorization": f"Bearer {text}", **HEADERS}, **more)
CASES = [  # name, headers, whether they pass
    ("a good token", bearer(good), True),
    ("the scheme in any case", bearer(good, authorization=f"bearer {good}"), True),
    ("a bound token, whose proof the gate has checked", bearer(good, authorization=f"DPoP {token(claims=but(CLAIMS, cnf={'jkt': 'x'}))}"), True),
    ("no header", HEADERS, False),
    ("two tokens", bearer(good, authorization=f"Bearer {good}, Bearer {good}"), False),
    ("basic", bearer(good, authorization="Basic eDp5"), False),
    ("a line end behind it", bearer(good + "\n"), False),
    ("no signature", bearer(good.rsplit(".", 1)[0] + "."), False),
    ("another key", bearer(token(by=other)), False),
    ("a changed claim", bearer(".".join([good.split(".")[0], b64(but(CLAIMS, sub="root")), good.split(".")[2]]), **{"x-portcullis-subject": "root"}), False),
    ("alg none", bearer(f"{b64(but(HEAD, alg='none'))}.{b64(CLAIMS)}."), False),
    ("alg HS256 with the public key", bearer(hs256()), False),
    ("another algorithm's key", bearer(token(head=but(HEAD, kid="curve"))), False),
    ("an algorithm we did not choose", bearer(jwt.encode(CLAIMS, curve, "ES256", headers={"typ": "at+jwt", "kid": "curve"})), False),
    ("an unknown key", bearer(token(head=but(HEAD, kid="new"))), False),
    ("no kid", bearer(token(head=but(HEAD, kid=...))), False),
    ("a kid that is a list", bearer(token(head=but(HEAD, kid=["good"]))), False),
    ("another typ", bearer(token(head=but(HEAD, typ="JWT"))), False),
    ("a client assertion's typ", bearer(token(head=but(HEAD, typ="client-authentication+jwt"))), False),
    ("a key of its own", bearer(token(head=but(HEAD, jwk=KEYS["keys"][0]))), False),
    ("critical extensions", bearer(token(head=but(HEAD, crit=["b64"], b64=False))), False),
    ("another issuer", bearer(token(claims=but(CLAIMS, iss="https://machines.example.com/"))), False),
    ("another audience", bearer(token(claims=but(CLAIMS, aud="https://other.example.com"))), False),
    ("an array of audiences", bearer(token(claims=but(CLAIMS, aud=[AUDIENCE]))), False),
    ("expired this second", bearer(token(claims=but(CLAIMS, iat=NOW - 300, exp=NOW))), False),
    ("a life of a hundred hours", bearer(token(claims=but(CLAIMS, exp=NOW + 360000))), False),
    ("from the future", bearer(token(claims=but(CLAIMS, iat=NOW + 60))), False),
    ("exp as text", bearer(token(claims=but(CLAIMS, exp=str(NOW + 300)))), False),
    ("exp as a fraction", bearer(token(claims=but(CLAIMS, exp=NOW + 300.5))), False),
    *[(f"no {name}", bearer(token(claims=but(CLAIMS, **{name: ...}))), False) for name in CLAIMS],
    ("a scope that only looks like it", bearer(token(claims=but(CLAIMS, scope="files:read application"))), False),
    ("another subject in the header", bearer(good, **{"x-portcullis-subject": "root"}), False),
    ("another tenant in the header", bearer(good, **{"x-portcullis-tenant": "globex"}), False),
    ("no header of the gate", {"authorization": f"Bearer {good}"}, False),
    ("payload that is a list", bearer(token(raw=b64([]))), False),
    ("payload that is no JSON", bearer(token(raw=b64(b"x"))), False),
]

PROGRAMS = {
    "php": ["php", "-r", """
        require $argv[1]; $in = json_decode(stream_get_contents(STDIN), true);
        $gate = new Portcullis($in['issuer'], $in['audience'], $in['keys']);
        foreach ($in['cases'] as $headers) {
            $server = [];
            foreach ($headers as $name => $value) { $server['HTTP_' . strtoupper(strtr($name, '-', '_'))] = $value; }
            try { $gate->caller($server, 'app', $in['now']); echo "1\n"; } catch (UnexpectedValueException) { echo "0\n"; }
        }"""],
    "python": [sys.executable, "-c", """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("portcullis", sys.argv[1]); it = importlib.util.module_from_spec(spec); spec.loader.exec_module(it)
given = json.load(sys.stdin); gate = it.Portcullis(given["issuer"], given["audience"], given["keys"])
for headers in given["cases"]:
    try: gate.caller(headers, now=given["now"]); print(1)
    except it.Refused: print(0)
"""],
    "node": ["node", "--input-type=module", "-e", """
import { readFileSync } from "node:fs";
const { Portcullis, Refused } = await import(process.argv[1]);
const given = JSON.parse(readFileSync(0)); const gate = new Portcullis({ ...given, keysFile: given.keys });
for (const headers of given.cases) {
  try { await gate.caller(headers, { now: given.now }); console.log(1); } catch (error) { if (!(error instanceof Refused)) throw error; console.log(0); }
}"""],
}
FILES = {"php": "portcullis.php", "python": "portcullis.py", "node": "portcullis.mjs"}


def main(names):
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        keys = pathlib.Path(folder, "keys.json")
        keys.write_text(json.dumps(KEYS))
        if "JOSE" in os.environ:
            pathlib.Path(folder, "node_modules").symlink_to(pathlib.Path(os.environ["JOSE"], "node_modules").resolve())
        for name in names:
            recipe = shutil.copy(HERE / FILES[name], folder)
            given = {"issuer": ISSUER, "audience": AUDIENCE, "keys": str(keys), "now": NOW, "cases": [headers for _, headers, _ in CASES]}

            def ask():
                return subprocess.run([*PROGRAMS[name], recipe], input=json.dumps(given), capture_output=True, text=True)

            run = ask()
            answers = [line == "1" for line in run.stdout.split()]
            wrong = [case for (case, _, expected), answer in zip(CASES, answers) if answer != expected]
            whole = run.returncode == 0 and len(answers) == len(CASES)
            # Keys that nobody renewed, and a rollback of them, let nobody in: an operational fault, and not a 401.
            os.utime(keys, (NOW - 3601, NOW - 3601))
            stale = ask()
            os.utime(keys)
            refuses = stale.returncode != 0 and "1" not in stale.stdout.split()
            print(f"{name}: {len(answers)} of {len(CASES)} asked, {len(wrong)} wrong, stale keys {'refused' if refuses else 'SERVED'}")
            for case in wrong:
                print(f"  wrong: {case}")
            if not whole:
                print(run.stderr[-2000:])
            failed |= bool(wrong) or not whole or not refuses
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PROGRAMS)))
