"""Registers a client with an Ed25519 key, whose private half goes to the file named: Node's clients cannot sign AWS requests."""

import sys
from pathlib import Path

from joserfc.jwk import OKPKey

from stack import register

pair = OKPKey.generate_key("Ed25519")
register("node-ed25519", pair.as_dict(private=False, kid="node-ed25519-1", alg="EdDSA", use="sig"))
Path(sys.argv[1]).write_bytes(pair.as_pem(private=True))
