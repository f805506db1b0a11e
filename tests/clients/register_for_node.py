"""Registers the clients that Node's programs are, for these cannot sign AWS requests.

To the folder named go their private keys (`{client_id}.pem`), `clients.json`, which says what they are, and `expired.jwt`, a token
of another client of `acme` that was good until a minute ago.
"""

import json
import sys
import time
from pathlib import Path

from joserfc.jwk import ECKey, OKPKey, RSAKey

from stack import act, forge, token

MADE = {
    "ES256": lambda: ECKey.generate_key("P-256"),
    "PS256": lambda: RSAKey.generate_key(2048),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
}
CLIENTS = [
    ("node-ed25519", "acme", "EdDSA", {"dpop": False, "scopes": ["files:read"]}),
    # FAPI 2.0: two clients whose tokens are bound; a module is for PS256 alone.
    ("fapi-one", "acme", "PS256", {"dpop": True, "scopes": ["files:read", "files:write"]}),
    ("fapi-two", "acme", "ES256", {"dpop": True, "scopes": ["files:read", "files:write", "files:read:tenant"]}),
    # Those that ask two servers the same things.
    ("twin", "acme", "ES256", {"dpop": False, "scopes": ["files:read", "files:write"]}),
    ("twin-bound", "acme", "ES256", {"dpop": True, "scopes": ["files:read"]}),
    ("twin-foreign", "globex", "ES256", {"dpop": False, "scopes": ["files:read"]}),
    ("twin-rsa", "acme", "PS256", {"dpop": False, "scopes": ["files:read"]}),
]

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
told = {}
for client_id, tenant, alg, more in CLIENTS:
    pair, kid = MADE[alg](), f"{client_id}-1"
    public = pair.as_dict(private=False) | {"kid": kid, "alg": alg, "use": "sig"}
    public = {name: public[name] for name in ("kty", "crv", "x", "y", "n", "e", "kid", "alg", "use") if name in public}
    act("client.put", tenant=tenant, client_id=client_id, jwks={"keys": [public]}, **more)
    (folder / f"{client_id}.pem").write_bytes(pair.as_pem(private=True))
    told[client_id] = {"tenant": tenant, "alg": alg, "kid": kid, "jwk": public} | more
(folder / "clients.json").write_text(json.dumps(told, indent=2))
now = int(time.time())
(folder / "expired.jwt").write_text(forge(token("acme-reader"), iat=now - 360, exp=now - 60))
