"""Who calls, by the access token that the gate passes on, with Python's standard library alone: RS256 and nothing else. More is in portcullis.py."""

import base64
import hashlib
import json
import time

SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")


def decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def caller(authorization, keys, issuer, audience):
    """The claims of the token, or None. `keys`: the gate's JWK Set, as /.well-known/jwks.json answers it."""
    try:
        head, body, signature = authorization.split(" ")[1].split(".")
        header, claims = json.loads(decode(head)), json.loads(decode(body))
        key = next(key for key in keys["keys"] if key["kid"] == header["kid"] and key["alg"] == header["alg"] == "RS256")
        n, e, seal = int.from_bytes(decode(key["n"]), "big"), int.from_bytes(decode(key["e"]), "big"), decode(signature)
        digest = SHA256 + hashlib.sha256(f"{head}.{body}".encode()).digest()
        sealed = b"\0\1".ljust(len(decode(key["n"])) - len(digest) - 1, b"\xff") + b"\0" + digest
        good = len(seal) == len(sealed) and pow(int.from_bytes(seal, "big"), e, n) == int.from_bytes(sealed, "big")
        own = (header["typ"], claims["iss"], claims["aud"]) == ("at+jwt", issuer, audience) and claims["exp"] > time.time()
        return claims if good and own and "app" in claims["scope"].split(" ") else None
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError):
        return None
