"""What the tests of outside clients share: where the running stack is, who may ask it, and how a check is told.

A check is one line, `ok` or `FAIL`; the program ends with 1 if one of them failed.
"""

import base64
import contextlib
import functools
import hashlib
import json
import os
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from importlib.metadata import version as installed
from pathlib import Path
from unittest import mock

import boto3
import jwt
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

MANIFEST = json.loads(Path(os.environ["PORTCULLIS_MANIFEST"]).read_text())
GATEWAY = MANIFEST["gateway"]
CA = MANIFEST["ca_file"]
REGION = MANIFEST["region"]
CLIENTS = {client["client_id"]: client for client in MANIFEST["clients"]}
UNKNOWN_FILE = "/files/0198e1a0-0000-7000-8000-000000000000"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Report:
    """The checks of one client."""

    def __init__(self, client, version):
        self.client = client
        self.failed = False
        print(f"{client} {version}", flush=True)

    def row(self, what, want, got):
        """Holds when what came is what had to come."""
        holds = got == want
        self.failed = self.failed or not holds
        outcome = got if holds else f"wanted {want}, got {got}"
        print(f"  {'ok  ' if holds else 'FAIL'} {self.client}: {what:<66} {outcome}", flush=True)

    def holds(self, what, truth, shown="yes"):
        """Holds when `truth` is true."""
        self.row(what, shown, shown if truth else "no")

    def end(self):
        """Ends the program."""
        sys.exit(1 if self.failed else 0)


def version(package):
    """The installed version of a Python package."""
    return installed(package)


def b64url(data):
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def session():
    """An HTTP session that trusts the stack's authority and nothing of the machine's surroundings."""
    made = requests.Session()
    made.trust_env = False
    made.verify = CA
    return made


HTTP = session()


def private_key(client_id):
    """A client's key, PKCS #8 PEM."""
    return Path(CLIENTS[client_id]["private_key_file"]).read_text()


def claims(client_id, **changes):
    """The claims of a fresh client assertion (RFC 7523 §3); a change to None leaves the claim out."""
    now = int(time.time())
    made = {"iss": client_id, "sub": client_id, "aud": MANIFEST["issuer"], "jti": str(uuid.uuid4()), "iat": now}
    made = made | {"exp": now + 60} | changes
    return {name: value for name, value in made.items() if value is not None}


def assertion(client_id, **changes):
    """A client assertion as PyJWT makes it."""
    headers = {"kid": CLIENTS[client_id]["kid"]}
    return jwt.encode(claims(client_id, **changes), private_key(client_id), algorithm="ES256", headers=headers)


def ask(signed, **more):
    """The token endpoint's answer to an assertion."""
    form = {"grant_type": "client_credentials", "client_assertion_type": JWT_BEARER, "client_assertion": signed}
    return HTTP.post(f"{GATEWAY}/oauth2/token", data=form | more, timeout=20)


def token(client_id, **more):
    """An access token."""
    answer = ask(assertion(client_id), **more)
    answer.raise_for_status()
    return answer.json()["access_token"]


def call(method, path, bearer=None, **more):
    """One request to the API."""
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    return HTTP.request(method, GATEWAY + path, headers=headers, timeout=20, **more)


def outcome(answer):
    """Status and stable code of an answer."""
    try:
        body = answer.json()
    except ValueError:
        body = {}
    code = body.get("code") or body.get("error") if isinstance(body, dict) else None
    return f"{answer.status_code} {code}" if code else str(answer.status_code)


def new_file(bearer, content, name="report.pdf", content_type="application/pdf"):
    """Declares a file and answers its plan."""
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    body = {"name": name, "content_type": content_type, "size": len(content), "sha256": digest, "mode": "put"}
    answer = call("POST", "/files", bearer, json=body)
    answer.raise_for_status()
    return answer.json()


def settled(bearer, file):
    """A file's status once it is no longer pending, asked for at most ten seconds."""
    end = time.monotonic() + 10
    while True:
        status = call("GET", f"/files/{file}", bearer).json().get("status")
        if status != "pending" or time.monotonic() > end:
            return status
        time.sleep(0.05)


@functools.cache
def aws(service, **more):
    """A boto3 client of the local operator."""
    keys = MANIFEST["aws"]
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20, proxies={})
    config = config.merge(more.pop("config", None) or Config())
    arguments = {
        "region_name": REGION,
        "endpoint_url": keys["endpoints"].get(service),
        "aws_access_key_id": keys["access_key_id"],
        "aws_secret_access_key": keys["secret_access_key"],
    }
    return boto3.client(service, config=config, **(arguments | more))


def aws_outcome(act):
    """`allowed`, or the code of the refusal."""
    try:
        act()
    except ClientError as error:
        return error.response["Error"]["Code"]
    except BotoCoreError as error:
        return type(error).__name__
    return "allowed"


@contextlib.contextmanager
def signed_ago(**age):
    """Lets botocore sign with the date of some time ago."""
    then = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(**age)
    with mock.patch("botocore.auth.get_current_datetime", lambda *_, **__: then):
        yield


def act(operation, **more):
    """An operator's act, by invoking `admin`."""
    payload = json.dumps({"operation": operation, "operator": "client-tests"} | more)
    answer = aws("lambda").invoke(FunctionName=f"portcullis-{MANIFEST['env']}-admin", Payload=payload)
    said = json.loads(answer["Payload"].read())
    if "FunctionError" in answer or "error" in said:
        raise RuntimeError(f"{operation}: {said}")
    return said


def register(client_id, public_jwk):
    """Registers a client of `acme` that may read files and signs with this key."""
    act("client.put", tenant="acme", client_id=client_id, jwks={"keys": [public_jwk]}, scopes=["files:read"], dpop=False)


def database_token(user, **changes):
    """A token for the database login `user` as `generate_db_auth_token` makes it."""
    proxy = MANIFEST["postgres"]["proxy"]
    arguments = {"DBHostname": proxy["host"], "Port": proxy["port"], "DBUsername": user} | changes
    return aws("rds", endpoint_url=None).generate_db_auth_token(**arguments)


@functools.cache
def signing_key():
    """The ARN of the key that signs access tokens."""
    state = aws("s3").get_object(Bucket=MANIFEST["trust_bucket"], Key="trust/signing-state.json")
    keys = json.loads(state["Body"].read())["body"]["keys"]
    return next(key["key"] for key in keys if key["state"] == "active")


def forge(access_token, header=None, **changes):
    """A copy of a token with other claims and a right signature, which only the account's owner can make: a signature
    alone must not be enough."""
    key = signing_key()
    head = jwt.get_unverified_header(access_token) | (header or {})
    body = jwt.decode(access_token, options={"verify_signature": False}) | changes
    kept = [{name: value for name, value in part.items() if value is not None} for part in (head, body)]
    signed = ".".join(b64url(json.dumps(part).encode()) for part in kept)
    answer = aws("kms").sign(
        KeyId=key,
        Message=hashlib.sha256(signed.encode()).digest(),
        MessageType="DIGEST",
        SigningAlgorithm="RSASSA_PKCS1_V1_5_SHA_256",
    )
    return f"{signed}.{b64url(answer['Signature'])}"


def unsigned(access_token):
    """A copy of a token with `alg` none and an empty signature."""
    body = jwt.decode(access_token, options={"verify_signature": False})
    return jwt.encode(body, None, algorithm="none", headers={"typ": "at+jwt"})


def tampered(signed, **changes):
    """A copy of a JWS with other claims under the old signature."""
    head, _, signature = signed.split(".")
    body = jwt.decode(signed, options={"verify_signature": False}) | changes
    return f"{head}.{b64url(json.dumps(body).encode())}.{signature}"
