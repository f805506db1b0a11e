"""An outside client of the gate: its own key, an address, and nothing of the inside."""

import base64
import hashlib
import json
import time
import uuid
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://gate.example"
AUDIENCE = "https://api.gate.example"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Answer:
    """What came back."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        """The body as JSON, or an empty object."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    def outcome(self):
        """Status and stable code."""
        body = self.json()
        code = body.get("code") or body.get("error") if isinstance(body, dict) else None
        if not code and b"<Code>" in self.body:
            code = self.body.split(b"<Code>")[1].split(b"</Code>")[0].decode()
        return f"{self.status} {code}" if code else str(self.status)


class Client:
    """A registered client and the key it proves itself with (RFC 7523)."""

    def __init__(self, client_id, tenant, scopes):
        self.client_id, self.tenant, self.scopes = client_id, tenant, scopes
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), f"{client_id}-1"

    def registration(self):
        """What an operator tells `admin`."""
        point = self.key.public_key().public_numbers()
        key = {
            "kty": "EC",
            "crv": "P-256",
            "alg": "ES256",
            "use": "sig",
            "kid": self.kid,
            "x": b64url(point.x.to_bytes(32, "big")),
            "y": b64url(point.y.to_bytes(32, "big")),
        }
        return {
            "tenant": self.tenant,
            "client_id": self.client_id,
            "jwks": {"keys": [key]},
            "scopes": self.scopes,
            "dpop": False,
        }

    def assertion(self):
        """A fresh assertion."""
        now = int(time.time())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": ISSUER,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "exp": now + 60,
        }
        signed = ".".join(
            b64url(json.dumps(part).encode()) for part in [{"alg": "ES256", "typ": "JWT", "kid": self.kid}, claims]
        )
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class Gate:
    """The deployed API, addressed as API Gateway addresses it: by its own host name, the stage first in the path."""

    def __init__(self, cloud, api_id, stage):
        self.cloud, self.stage = cloud, stage
        self.host = f"{api_id}.execute-api.localhost:{cloud.port}"

    def send(self, method, path, headers=None, body=None):
        """One request."""
        return Answer(*self.cloud.raw(method, f"/{self.stage}{path}", {"Host": self.host, **(headers or {})}, body))

    def call(self, method, path, token=None, body=None, **headers):
        """One request of JSON."""
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        return self.send(method, path, headers, json.dumps(body).encode() if body is not None else None)

    def ask(self, assertion):
        """The token endpoint's answer."""
        form = {"grant_type": "client_credentials", "client_assertion_type": JWT_BEARER, "client_assertion": assertion}
        return self.send(
            "POST", "/oauth2/token", {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode()
        )

    def about(self, path, client, token):
        """What the token endpoint's siblings answer about a token."""
        form = {
            "token": token,
            "token_type_hint": "access_token",
            "client_assertion_type": JWT_BEARER,
            "client_assertion": client.assertion(),
        }
        return self.send("POST", path, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode())


def b64url(data):
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsealed(token):
    """The claims of a token, unverified."""
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def new_file(content, name="report.pdf"):
    """The body that declares a file."""
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return {"name": name, "content_type": "application/pdf", "size": len(content), "sha256": digest, "mode": "put"}
