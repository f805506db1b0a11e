"""cryptography: pc1 and the blind index, implemented a second time from their pages, against the pages and the running stack."""

import base64
import os
import re
import uuid
from pathlib import Path

import psycopg

import pc1
from stack import MANIFEST, Report, aws, b64url, call, token, version

FORMATS = Path(__file__).resolve().parents[2] / "docs" / "formats"
ME = "acme-backend"
report = Report("cryptography", version("cryptography"))


def refused(act):
    """Whether it is."""
    try:
        act()
    except pc1.Refused:
        return True
    return False


def said(page, after, name):
    """A value of a page's known answers: the first of that name after a mark."""
    text = (FORMATS / page).read_text()
    return re.search(rf"^{name} +([0-9A-Za-z_-]+)", text[text.index(after):], re.MULTILINE).group(1)


def unb64url(text):
    """Bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# The known answers of the page
data_key, key_id = bytes(range(32)), uuid.UUID("01920000-0000-7000-8000-0000000000a1")
place = {"tenant": "acme", "table": "users", "column": "ssn", "row": "42"}
for name, message_id, more, plaintext in [
    ("A", bytes(range(0x40, 0x60)), {}, b"123-45-6789"),
    ("B", bytes(reversed(range(0x40, 0x60))), {"version": 7}, b""),
]:
    there = pc1.context(**place, **more)
    report.row(f"known answer {name}: context", said("pc1.md", f"**{name}.**", "context"), there.hex())
    record = pc1.seal(data_key, key_id, message_id, there, plaintext)
    report.row(f"known answer {name}: record", said("pc1.md", f"**{name}.**", "record"), record.hex())
    report.row(f"known answer {name}: opens", plaintext, pc1.open_(data_key, record, there))
    flipped = [record[:at] + bytes([record[at] ^ 1 << bit]) + record[at + 1:] for at in range(len(record)) for bit in range(8)]
    report.holds(f"known answer {name}: {len(flipped)} flipped bits refused",
                 all(refused(lambda altered=altered: pc1.open_(data_key, altered, there)) for altered in flipped))
    elsewhere = [place | {"row": "43"}, place | {"column": "email"}, place | {"tenant": "globex"}, place | {"version": 0}]
    report.holds(f"known answer {name}: refused in another place",
                 all(refused(lambda other=other: pc1.open_(data_key, record, pc1.context(**other))) for other in elsewhere))

index_key, index_id = bytes(range(0x80, 0xA0)), uuid.UUID("01920000-0000-7000-8000-0000000000b2")
column = {"tenant": "acme", "table": "users", "column": "email"}
ann = pc1.normalised(b"Ann@Example.com", "nfc_casefold")
whole = said("blind-index.md", "## Known answer", "partition 0  h")
report.row("known answer D: the whole hash", whole, pc1.entry(index_key, index_id, column, ann, 256).hex())
report.row("known answer D: 12 and 16 bits", ["c2e0", "c2e5", "0c20"],
           [pc1.entry(index_key, index_id, column, ann, bits, at).hex() for bits, at in [(12, 0), (16, 0), (12, 3)]])

# The running stack: its records opened here, ours opened there
bearer = token(ME)
kms = aws("kms")


def wrapped(purpose, **which):
    """A data key of `acme`, as the owner of account and database can get at it."""
    query = "SELECT id, wrapped FROM data_keys WHERE tenant = 'acme' AND purpose = %s AND (%s::uuid IS NULL OR id = %s)"
    with psycopg.connect(MANIFEST["postgres"]["admin_url"]) as database:
        found, blob = database.execute(query, (purpose, which.get("id"), which.get("id"))).fetchone()
    bound = {"tenant": "acme", "purpose": purpose, "data_key_id": str(found)}
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=bound, KeyId=MANIFEST["kms_keys"]["data"])
    return found, opened["Plaintext"]


item = {"ref": "1", "table": "users", "column": "ssn", "row": "42"}
for plaintext in [b"", b"123-45-6789", "Zoë".encode(), os.urandom(65_536)]:
    sealed = call("POST", "/fields/encrypt", bearer, json={"items": [item | {"plaintext": b64url(plaintext)}]}).json()
    record = unb64url(sealed["items"][0]["record"])
    found, live = wrapped("field", id=pc1.key_id(record))
    there = pc1.context(**place)
    report.holds(f"a record of {len(plaintext)} bytes from the API opens here", pc1.open_(live, record, there) == plaintext)
    ours = pc1.seal(live, found, os.urandom(32), there, plaintext)
    opened = call("POST", "/fields/decrypt", bearer, json={"items": [item | {"record": b64url(ours)}]}).json()
    report.holds(f"a record of {len(plaintext)} bytes from here opens there", opened["items"][0].get("plaintext") == b64url(plaintext))
    moved = item | {"record": b64url(ours), "to": {"table": "users", "column": "tax_id", "row": "43", "version": "2"}}
    moved = unb64url(call("POST", "/fields/rewrap", bearer, json={"items": [moved]}).json()["items"][0]["record"])
    _, live = wrapped("field", id=pc1.key_id(moved))
    there = pc1.context("acme", "users", "tax_id", "43", 2)
    report.holds("and moved by the API, in its new place here", pc1.open_(live, moved, there) == plaintext)

for value, how, bits in [("Ann@Example.com", "nfc_casefold", 12), ("STRASSE", "nfc_casefold", 63), ("x", "exact", 256), ("+49 (30) 12-34", "digits", 9)]:
    asked = {"ref": "1", "table": "users", "column": "email", "value": b64url(value.encode()), "normalisation": how, "bits": bits}
    asked |= {"partitions": 3} if bits != 256 else {}
    made = call("POST", "/fields/index", bearer, json={"items": [asked]}).json()["items"][0]["index"]
    found, live = wrapped("index")
    here = [b64url(pc1.entry(live, found, column, pc1.normalised(value.encode(), how), bits, at)) for at in range(len(made))]
    report.row(f"{len(made)} entries of {value!r}, {how}, {bits} bits", made, here)
report.end()
