"""Who calls, according to the access token that the gate passes on. Needs PyJWT 2.10 or later with cryptography."""

import json
import os
import re
import time

import jwt

LIFE, SKEW, KEYS_AGE = 900, 10, 3600


class Refused(Exception):
    """Not a valid token: answer 401 and say nothing more."""


class Portcullis:
    def __init__(self, issuer: str, audience: str, keys_file: str, algorithm: str = "RS256"):
        self.issuer, self.audience, self.keys_file, self.algorithm = issuer, audience, keys_file, algorithm

    def caller(self, headers: dict[str, str], scope: str = "app", now: float | None = None) -> dict:
        """`headers` with lower-case names, one value each. Returns the claims."""
        now = time.time() if now is None else now
        match = re.fullmatch(r"(?:Bearer|DPoP) ([\w-]+\.[\w-]+\.[\w-]+)", headers.get("authorization", ""), re.A | re.I)
        if not match:
            raise Refused("authorization")
        token = match[1]
        try:
            head = jwt.get_unverified_header(token)
            if set(head) != {"alg", "typ", "kid"} or head["typ"] != "at+jwt":
                raise Refused("header")
            claims = jwt.decode(
                token,
                self._key(head["kid"], now),
                algorithms=[self.algorithm],
                issuer=self.issuer,
                audience=self.audience,
                # Times are judged below, by one clock and without leeway.
                options={
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "require": ["iss", "sub", "aud", "client_id", "jti", "scope", "tenant", "kind", "iat", "exp"],
                },
            )
        except jwt.PyJWTError as error:
            raise Refused(str(error)) from None
        issued, expires = claims["iat"], claims["exp"]
        if type(issued) is not int or type(expires) is not int:
            raise Refused("time")
        if expires <= now or issued > now + SKEW or expires - issued > LIFE:
            raise Refused("time")
        if scope not in str(claims["scope"]).split(" "):
            raise Refused("scope")
        # The gate sets these itself. Another value means that the request did not come through it.
        for name, claim in (("subject", "sub"), ("tenant", "tenant"), ("client", "client_id")):
            if headers.get(f"x-portcullis-{name}") != claims[claim]:
                raise Refused(f"x-portcullis-{name}")
        return claims

    def _key(self, kid: str, now: float) -> jwt.PyJWK:
        """The public key of a `kid`, from the file that a timer renews."""
        if os.stat(self.keys_file).st_mtime < now - KEYS_AGE:
            raise RuntimeError("the key set is too old")
        with open(self.keys_file, encoding="utf-8") as file:
            for jwk in json.load(file)["keys"]:
                if jwk.get("kid") == kid and jwk.get("alg", self.algorithm) == self.algorithm:
                    return jwt.PyJWK(jwk, self.algorithm)
        raise Refused("key")
