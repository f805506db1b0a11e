"""Prints the configuration with which the OpenID Foundation's conformance suite runs against the local stack.

Registers two clients for it, declares and uploads the file that is its resource. docs/conformance.md says the rest.
"""

import base64
import hashlib
import json
import time
import uuid

import jwt
from joserfc.jwk import ECKey, RSAKey

from stack import GATEWAY, HTTP, JWT_BEARER, MANIFEST, act, b64url, claims

CONTENT = b"the resource of the conformance suite\n"


def client(client_id, pair, alg, scopes):
    """A registered client and its private key as the suite wants it."""
    named = {"kid": f"{client_id}-{uuid.uuid4()}", "alg": alg, "use": "sig"}
    wanted = ("kty", "crv", "x", "y", "n", "e")
    public = {name: value for name, value in pair.as_dict(private=False).items() if name in wanted} | named
    act("client.put", tenant="acme", client_id=client_id, jwks={"keys": [public]}, scopes=scopes)
    return {"client_id": client_id, "scope": " ".join(scopes), "jwks": {"keys": [pair.as_dict(private=True) | named]}}


def proof(pair, method, url, **more):
    """A proof of possession of an EC key (RFC 9449 §4.2)."""
    made = {"jti": str(uuid.uuid4()), "htm": method, "htu": url, "iat": int(time.time())} | more
    public = pair.as_dict(private=False)
    headers = {"typ": "dpop+jwt", "jwk": {name: public[name] for name in ("kty", "crv", "x", "y")}}
    return jwt.encode(made, pair.as_pem(private=True), "ES256", headers)


def uploaded(owner, key):
    """The id of a file of this client, with its bytes in place."""
    bound, url = ECKey.generate_key("P-256"), f"{GATEWAY}/oauth2/token"
    signed = jwt.encode(claims(owner["client_id"]), key.as_pem(private=True), "PS256", {"kid": owner["jwks"]["keys"][0]["kid"]})
    form = {"grant_type": "client_credentials", "client_assertion_type": JWT_BEARER, "client_assertion": signed}
    told = HTTP.post(url, data=form, headers={"dpop": proof(bound, "POST", url)}, timeout=20).headers["dpop-nonce"]
    answer = HTTP.post(url, data=form, headers={"dpop": proof(bound, "POST", url, nonce=told)}, timeout=20)
    answer.raise_for_status()
    token, url = answer.json()["access_token"], f"{GATEWAY}/files"
    ath = b64url(hashlib.sha256(token.encode()).digest())
    body = {"name": "suite.txt", "content_type": "text/plain", "size": len(CONTENT), "mode": "put"}
    body["sha256"] = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
    headers = {"authorization": f"DPoP {token}", "dpop": proof(bound, "POST", url, ath=ath)}
    plan = HTTP.post(url, json=body, headers=headers, timeout=20)
    plan.raise_for_status()
    upload = plan.json()["upload"]
    HTTP.request(upload["method"], upload["url"], headers=upload["headers"], data=CONTENT, timeout=20).raise_for_status()
    return plan.json()["id"]


rsa, ec = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
one = client("suite-one", rsa, "PS256", ["files:read", "files:write"])
two = client("suite-two", ec, "ES256", ["files:read:tenant"])
configuration = {
    "alias": "portcullis",
    "description": "Portcullis, client credentials with private_key_jwt and DPoP",
    "server": {"discoveryUrl": f"{MANIFEST['issuer']}/.well-known/oauth-authorization-server"},
    "client": one,
    "client2": two,
    "resource": {"resourceUrl": f"{GATEWAY}/files/{uploaded(one, rsa)}"},
}
print(json.dumps(configuration, indent=2))
