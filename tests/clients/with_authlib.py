"""Authlib and joserfc: an OAuth client that follows the metadata, and a second verifier of tokens."""

import time

from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.rfc7523 import PrivateKeyJWT, private_key_jwt_sign
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey

from stack import (
    CA, CLIENTS, GATEWAY, HTTP, MANIFEST, UNKNOWN_FILE, Report, ask, call, claims, forge, outcome, private_key, register, tampered,
    unsigned, version,
)

report = Report("Authlib", f"{version('authlib')} with joserfc {version('joserfc')}")
me = CLIENTS["acme-backend"]
key = ECKey.import_key(private_key("acme-backend"))

found = HTTP.get(get_well_known_url(MANIFEST["issuer"], external=True, suffix="oauth-authorization-server"), timeout=20)
metadata = AuthorizationServerMetadata(found.json())


def objections():
    """What Authlib says against each member of the metadata."""
    said = []
    for name in metadata.REGISTRY_KEYS:
        try:
            getattr(metadata, f"validate_{name}")()
        except ValueError as error:
            said.append(str(error))
    return said


# RFC 8414 §2 demands the member, and there is no authorization endpoint that a response type could be of.
report.row("the metadata by its rules: one objection, to an empty list", ['"response_types_supported" is required'], objections())


class ShortAssertion(PrivateKeyJWT):
    """Authlib's own is for the token endpoint and lives an hour; ours must be for the issuer and live minutes."""

    alg = "ES256"

    def sign(self, auth, token_endpoint):
        return private_key_jwt_sign(
            auth.client_secret, auth.client_id, MANIFEST["issuer"], alg=self.alg, header={"kid": me["kid"]}, expires_in=60
        )


def client(method):
    """A session that authenticates by `method`."""
    made = OAuth2Session(
        me["client_id"], key, scope="files:read files:write", token_endpoint_auth_method="private_key_jwt",
        revocation_endpoint_auth_method="private_key_jwt",
        token_endpoint=metadata["token_endpoint"],
    )
    made.trust_env = False
    made.verify = CA
    made.register_client_auth_method(method)
    return made


def fetch(made):
    try:
        return "issued", made.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    except OAuthError as error:
        return error.error, None


oauth = client(ShortAssertion())
said, issued = fetch(oauth)
report.row("OAuth2Session gets a token by private_key_jwt", "issued", said)
report.row("for the scopes it asked for", "files:read files:write", " ".join(sorted(issued["scope"].split())))
answer = oauth.get(GATEWAY + UNKNOWN_FILE, timeout=20)
report.row("and calls the API with it", (404, "not_found"), (answer.status_code, answer.json()["code"]))
said, again = fetch(oauth)
report.holds("the next one is another token", again and again["access_token"] != issued["access_token"])
# RFC 7662 and 7009: the same session asks about its token and ends it.
ends = again["access_token"]


def told(token, **more):
    return oauth.introspect_token(metadata["introspection_endpoint"], token=token, timeout=20, **more).json()


known = told(ends, token_type_hint="access_token")
report.row("introspect_token tells of a live token", (True, me["client_id"], "acme"), (known["active"], known["client_id"], known["tenant"]))
report.row("and nothing of what is none", {"active": False}, told("garbage"))
ended = oauth.revoke_token(metadata["revocation_endpoint"], token=ends, token_type_hint="access_token", timeout=20)
report.row("revoke_token ends it", (200, b""), (ended.status_code, ended.content))


def soon(wanted, look):
    """What is seen, looked for at most ten seconds: each verifier looks again when its list is five seconds old."""
    until = time.monotonic() + 10
    while (seen := look()) != wanted and time.monotonic() < until:
        time.sleep(0.2)
    return seen


for what, wanted, look in [
    ("within seconds, for introspection", {"active": False}, lambda: told(ends)),
    ("and at the gate", "401 unauthorized", lambda: outcome(call("GET", UNKNOWN_FILE, ends))),
]:
    report.row(what, wanted, soon(wanted, look))
usual = PrivateKeyJWT(headers={"kid": me["kid"]}, alg="ES256")
report.row("Authlib's usual assertion, for the token endpoint and an hour", "invalid_client", fetch(client(usual))[0])

keys = KeySet.import_key_set(HTTP.get(metadata["jwks_uri"], timeout=20).json())
text = {"essential": True}
rules = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": MANIFEST["issuer"]}, aud={"essential": True, "value": MANIFEST["audience"]},
    sub=text, exp=text, iat=text, jti=text, client_id=text, tenant={"essential": True, "value": "acme"},
)


def judged(token):
    """What joserfc says of an access token."""
    try:
        decoded = jwt.decode(token, keys, algorithms=["RS256"])
        rules.validate(decoded.claims)
    except (JoseError, ValueError) as error:
        return type(error).__name__
    return "valid"


token = issued["access_token"]
now = int(time.time())
report.row("joserfc verifies the token under the published keys", "valid", judged(token))
for what, bad, want in [
    ("with another tenant written in", tampered(token, tenant="globex"), "BadSignatureError"),
    ("with alg none", unsigned(token), "UnsupportedAlgorithmError"),
    ("expired", forge(token, iat=now - 400, exp=now - 100), "ExpiredTokenError"),
    ("for another API", forge(token, aud="https://other.example"), "InvalidClaimError"),
]:
    report.row(f"and refuses it {what}", want, judged(bad))


class Validator(JWTBearerTokenValidator):
    """Authlib's resource server."""

    def get_jwks(self):
        return keys


def admitted(bearer, audience=MANIFEST["audience"], scopes="files:read"):
    validator = Validator(MANIFEST["issuer"], audience)
    try:
        validator.validate_token(validator.authenticate_token(bearer), [scopes], None)
    except OAuth2Error as error:
        return error.error
    return "admitted"


report.row("Authlib's own resource server (RFC 9068) admits it", "admitted", admitted(token))
for what, want, got in [
    ("but not for another API", "invalid_token", admitted(token, audience="https://other.example")),
    ("nor without the scope", "insufficient_scope", admitted(token, scopes="fields:decrypt:*.*")),
    ("nor tampered", "invalid_token", admitted(tampered(token, tenant="globex"))),
    ("nor of another type", "invalid_token", admitted(forge(token, header={"typ": "JWT"}))),
]:
    report.row(what, want, got)

# RFC 9864 names it Ed25519, RFC 8037 EdDSA; both are the same key here.
pair = OKPKey.generate_key("Ed25519")
register("joserfc-ed25519", pair.as_dict(private=False, kid="ed", alg="EdDSA", use="sig"))
for name in ("EdDSA", "Ed25519"):
    signed = jwt.encode({"alg": name, "kid": "ed"}, claims("joserfc-ed25519"), pair, algorithms=[name])
    report.row(f"an assertion that names its algorithm {name}", "200", outcome(ask(signed)))
report.end()
