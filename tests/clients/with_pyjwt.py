"""PyJWT and requests: tokens, the API, and everything that must be refused."""

import base64
import hashlib
import hmac
import json
import ssl
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from stack import (
    CA, GATEWAY, HTTP, MANIFEST, UNKNOWN_FILE, Report, ask, assertion, b64url, call, claims, forge, outcome, private_key,
    new_file, register, settled, tampered, token, unsigned, version,
)

ME = "acme-backend"
KID = "acme-backend-1"
report = Report("PyJWT", version("pyjwt"))


def hs256(header, payload, secret):
    """A JWS under a public key used as a secret; PyJWT itself declines to make one."""
    signed = ".".join(b64url(json.dumps(part).encode()) for part in (header, payload))
    return f"{signed}.{b64url(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def public_pem(key):
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


# A token, and what a resource server makes of it.
metadata = HTTP.get(f"{GATEWAY}/.well-known/oauth-authorization-server", timeout=20).json()
report.row("the metadata names the issuer", MANIFEST["issuer"], metadata["issuer"])
answer = ask(assertion(ME))
report.row("a token for a signed assertion", "200", outcome(answer))
report.row("nobody may keep the answer", "no-store", answer.headers.get("cache-control"))
body = answer.json()
report.row("it lives for five minutes, as a bearer token", ("Bearer", 300), (body["token_type"], body["expires_in"]))
access = body["access_token"]

keys = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=ssl.create_default_context(cafile=CA))
key = keys.get_signing_key_from_jwt(access)
rules = {"algorithms": ["RS256"], "audience": MANIFEST["audience"], "issuer": metadata["issuer"]}
required = {"require": ["iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope", "tenant"]}
verified = jwt.decode(access, key, options=required, **rules)
report.row("PyJWT verifies it under the published keys", ME, verified["sub"])
report.row("its type is that of RFC 9068", "at+jwt", jwt.get_unverified_header(access)["typ"])
try:
    jwt.decode(tampered(access, tenant="globex"), key, **rules)
    refusal = "accepted"
except jwt.InvalidTokenError as error:
    refusal = type(error).__name__
report.row("PyJWT refuses it with another tenant written in", "InvalidSignatureError", refusal)

report.row("the API lets it in: a file that does not exist", "404 not_found", outcome(call("GET", UNKNOWN_FILE, access)))
item = {"ref": "1", "table": "users", "column": "email", "row": "42"}
sealed = call("POST", "/fields/encrypt", access, json={"items": [item | {"plaintext": b64url(b"ada@example.com")}]})
record = sealed.json()["items"][0]["record"]
opened = call("POST", "/fields/decrypt", access, json={"items": [item | {"record": record}]}).json()["items"][0]
report.row("a field encrypted and decrypted", b64url(b"ada@example.com"), opened.get("plaintext"))
moved = call("POST", "/fields/decrypt", access, json={"items": [item | {"record": record, "row": "43"}]})
report.row("but not in another row", "decrypt_failed", moved.json()["items"][0].get("error", {}).get("code"))

# A receipt, checked with its own key set alone.
content = b"%PDF-1.7 " + access[-9:].encode()
plan = new_file(access, content)
upload = plan["upload"]
report.row("a file for a receipt", 200, HTTP.put(upload["url"], data=content, headers=upload["headers"], timeout=20).status_code)
report.row("arrives", "clean", settled(access, plan["id"]))
receipt = call("GET", f"/files/{plan['id']}/receipt", access).json()["receipt"]
receipt_keys = jwt.PyJWKClient(f"{GATEWAY}/.well-known/receipts/jwks.json", ssl_context=ssl.create_default_context(cafile=CA))
said = jwt.decode(receipt, receipt_keys.get_signing_key_from_jwt(receipt), algorithms=["ES256"], issuer=metadata["issuer"])
report.row("PyJWT verifies its receipt under the receipts' keys", (ME, base64.b64encode(hashlib.sha256(content).digest()).decode()),
           (said["sub"], said["file"]["checksum"]["value"]))
report.row("which is no token by its type", "portcullis-receipt+jwt", jwt.get_unverified_header(receipt)["typ"])
report.row("nor by its key", True, jwt.get_unverified_header(receipt)["kid"] not in {one.key_id for one in keys.get_signing_keys()})
report.row("and no credential", "401 unauthorized", outcome(call("GET", UNKNOWN_FILE, receipt)))
try:
    changed = tampered(receipt, sub="somebody")
    jwt.decode(changed, receipt_keys.get_signing_key_from_jwt(changed), algorithms=["ES256"], issuer=metadata["issuer"])
    refusal = "accepted"
except jwt.InvalidTokenError as error:
    refusal = type(error).__name__
report.row("PyJWT refuses it with another uploader written in", "InvalidSignatureError", refusal)

# Tokens that must not pass. The first of them shows that the forger's signature is a right one.
now = int(time.time())
pem = public_pem(key.key)
header = {"alg": "HS256", "typ": "at+jwt", "kid": jwt.get_unverified_header(access)["kid"]}
report.row("an unchanged copy, signed anew", "404 not_found", outcome(call("GET", UNKNOWN_FILE, forge(access))))
corpus = {
    "no token": None,
    "an expired token": forge(access, iat=now - 400, exp=now - 100),
    "a token that would live 100 hours": forge(access, iat=now, exp=now + 360_000),
    "a token of tomorrow": forge(access, iat=now + 86_400, exp=now + 86_700),
    "a token for another API": forge(access, aud="https://other.example"),
    "a token for several APIs": forge(access, aud=[MANIFEST["audience"], "https://other.example"]),
    "a token without aud": forge(access, aud=None),
    "a token of another issuer": forge(access, iss="https://issuer.example"),
    "a token of another type": forge(access, header={"typ": "JWT"}),
    "a token of an unknown key": forge(access, header={"kid": "nobody"}),
    "a token with an unknown critical header": forge(access, header={"crit": ["x"], "x": 1}),
    "a token with its own key in the header": forge(access, header={"jwk": {"kty": "oct", "k": "AA"}}),
    "a token signed PS256 by name only": forge(access, header={"alg": "PS256"}),
    "alg none": unsigned(access),
    "HS256 with the public key as secret": hs256(header, verified, pem),
    "another tenant written in": tampered(access, tenant="globex"),
    "more scope written in": tampered(access, scope="files:read:tenant"),
    "a client assertion in place of a token": assertion(ME),
    "half a token": access[: len(access) // 2],
}
for what, bad in corpus.items():
    answer = call("GET", UNKNOWN_FILE, bad)
    report.row(what, "401 unauthorized", outcome(answer))
answer = call("GET", UNKNOWN_FILE, corpus["an expired token"])
challenge = answer.headers.get("www-authenticate") or answer.headers.get("x-amzn-remapped-www-authenticate")
report.row("with a challenge (RFC 6750 §3)", 'Bearer error="invalid_token", DPoP algs="ES256 PS256 EdDSA", error="invalid_token"', challenge)
answer = HTTP.get(f"{GATEWAY}{UNKNOWN_FILE}", params={"access_token": access}, timeout=20)
report.row("a token in the query", "401 unauthorized", outcome(answer))

# Assertions that must not do.
mine = private_key(ME)
my_public = public_pem(serialization.load_pem_private_key(mine.encode(), None).public_key())
foreign = ec.generate_private_key(ec.SECP256R1())
other = rsa.generate_private_key(65_537, 2_048)
headers = {"kid": KID}
corpus = {
    "an expired assertion": assertion(ME, iat=now - 400, exp=now - 100),
    "an assertion that lives an hour": assertion(ME, exp=now + 3_600),
    "an assertion for another server": assertion(ME, aud="https://issuer.example"),
    "an assertion for the token endpoint, as before RFC 7523bis": assertion(ME, aud=metadata["token_endpoint"]),
    "an assertion for several servers": assertion(ME, aud=[MANIFEST["issuer"], "https://issuer.example"]),
    "an assertion without an id": assertion(ME, jti=None),
    "an assertion about another client": assertion(ME, sub="globex-backend"),
    "another client's key": jwt.encode(claims(ME), private_key("globex-backend"), "ES256", headers),
    "an unregistered key": jwt.encode(claims(ME), foreign, "ES256", headers),
    "an RSA key": jwt.encode(claims(ME), other, "RS256", headers),
    "alg none in an assertion": jwt.encode(claims(ME), None, "none", headers),
    "HS256 with the client's public key": hs256({"alg": "HS256", "kid": KID}, claims(ME), my_public),
    "a tampered assertion": tampered(assertion(ME), jti="another"),
    "an access token in place of an assertion": access,
}
for what, bad in corpus.items():
    report.row(what, "401 invalid_client", outcome(ask(bad)))

# Clients with other keys, registered by an operator.
pair = ed25519.Ed25519PrivateKey.generate()
public = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(pair.public_key()))
register("pyjwt-eddsa", public | {"kid": "1", "alg": "EdDSA", "use": "sig"})
signed = jwt.encode(claims("pyjwt-eddsa"), pair, "EdDSA", {"kid": "1"})
report.row("a client with an Ed25519 key", "200", outcome(ask(signed)))
public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(other.public_key()))
register("pyjwt-ps256", {name: public[name] for name in ("kty", "n", "e")} | {"kid": "1", "alg": "PS256", "use": "sig"})
report.row("a client with an RSA key, PS256", "200",
           outcome(ask(jwt.encode(claims("pyjwt-ps256"), other, "PS256", {"kid": "1"}))))
report.row("the same key, RS256", "401 invalid_client",
           outcome(ask(jwt.encode(claims("pyjwt-ps256"), other, "RS256", {"kid": "1"}))))

once = assertion(ME)
report.row("an assertion, once", "200", outcome(ask(once)))
report.row("and once more", "401 invalid_client", outcome(ask(once)))
form = {"grant_type": "client_credentials"}
answer = HTTP.post(f"{GATEWAY}/oauth2/token", data=form, auth=(ME, "secret"), timeout=20)
report.row("a client secret", "401 invalid_client", outcome(answer))
report.row("a scope the client does not hold", "400 invalid_scope", outcome(ask(assertion("acme-reader"), scope="app")))
reader = token("acme-reader")
report.row("a route beyond the token's scopes", "403 forbidden", outcome(call("POST", "/files", reader, json={})))
report.end()
