"""A Lambda authorizer as PyJWT's guide writes one: signature, issuer, audience, times, required claims and the type of the token."""
import os

import jwt

KEY = jwt.PyJWK({"kty": "RSA", "alg": "RS256", "n": os.environ["BENCH_RSA_N"], "e": os.environ["BENCH_RSA_E"]})
ISSUER = os.environ["BENCH_ISSUER"]
AUDIENCE = os.environ["BENCH_AUDIENCE"]


def policy(effect, principal, arn):
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": arn}
    return {"principalId": principal, "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}


def handler(event, _context):
    header = event["headers"].get("Authorization", "")
    try:
        if not header.startswith("Bearer "):
            raise jwt.InvalidTokenError
        verified = jwt.decode_complete(
            header[7:],
            KEY,
            algorithms=["RS256"],
            issuer=ISSUER,
            audience=AUDIENCE,
            options={"require": ["exp", "iat", "sub", "jti", "client_id"]},
        )
        if verified["header"].get("typ") != "at+jwt":
            raise jwt.InvalidTokenError
    except jwt.InvalidTokenError:
        return policy("Deny", "nobody", event["methodArn"])
    return policy("Allow", verified["payload"]["sub"], event["methodArn"])
