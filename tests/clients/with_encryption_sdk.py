"""aws-encryption-sdk: opens what the API exports, writes what the API imports, with the local KMS behind both."""

import base64
import logging
import os

import aws_encryption_sdk
from aws_encryption_sdk import CommitmentPolicy
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from aws_encryption_sdk.identifiers import Algorithm
from aws_encryption_sdk.key_providers.kms import KMSMasterKey, KMSMasterKeyConfig
from botocore.exceptions import ClientError
from cryptography.exceptions import InvalidTag

from stack import MANIFEST, Report, aws, b64url, call, token, version

# It tells every refusal as an error of its own; what came of each is told below.
logging.disable(logging.CRITICAL)
report = Report("aws-encryption-sdk", version("aws-encryption-sdk"))
OURS, THEIRS, NOBODYS = (MANIFEST["kms_keys"][name] for name in ("data", "import", "bucket"))
COMMITTED = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
SIGNED = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
sdk = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
loose = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT)
bearers = {tenant: token(f"{tenant}-backend") for tenant in ("acme", "globex")}
CONTEXT = {"department": "hr", "record": "7"}


def unb64url(text):
    """Bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key(arn):
    """One KMS key, used by the local operator."""
    return KMSMasterKey(config=KMSMasterKeyConfig(key_id=arn, client=aws("kms")))


def ask(operation, tenant="acme", column="ssn", row="42", **more):
    """One item, and what came of it: its value, or the code of its refusal."""
    item = {"ref": "1", "table": "users", "column": column, "row": row} | more
    answer = call("POST", f"/fields/{operation}", bearers[tenant], json={"items": [item]}).json()["items"][0]
    if not answer["ok"]:
        return answer["error"]["code"]
    wanted = {"decrypt": "plaintext", "export": "message"}.get(operation, "record")
    return answer[wanted] if operation != "decrypt" else unb64url(answer[wanted])


def opens(message, arn=OURS, **more):
    """What the SDK makes of a message: plaintext and header, or the name of its refusal."""
    try:
        return sdk.decrypt(source=message, key_provider=key(arn), **more)
    except (AWSEncryptionSDKClientError, ClientError, InvalidTag) as refusal:
        return type(refusal).__name__, None


def written(arn, plaintext, suite, frame_length, client=sdk):
    """A message as the SDK writes it."""
    return client.encrypt(source=plaintext, key_provider=key(arn), algorithm=suite, frame_length=frame_length,
                          encryption_context=CONTEXT)[0]


# Out: what the API exports, the SDK opens
ids = set()
for plaintext in [b"", b"123-45-6789", os.urandom(4096), os.urandom(65_536)]:
    record = ask("encrypt", plaintext=b64url(plaintext))
    for frames, shape in [({}, "in frames"), ({"frame_length": 256}, "in frames of 256"), ({"frame_length": 0}, "unframed")]:
        message = unb64url(ask("export", record=record, **frames))
        opened, header = opens(message)
        report.holds(f"an export of {len(plaintext)} bytes, {shape}, opens", opened == plaintext)
        ids.add(header.message_id)
report.row("its suite", COMMITTED, header.algorithm)
report.row("its context is the key's, and nothing of the field's", ({"tenant": "acme", "purpose": "field"}, {"data_key_id", "purpose", "tenant"}),
           ({name: header.encryption_context[name] for name in ("tenant", "purpose")}, set(header.encryption_context)))
report.row("twelve exports, twelve message ids", 12, len(ids))
record = ask("encrypt", plaintext=b64url(b"123-45-6789"))
message = unb64url(ask("export", record=record))
report.row("the same record once more has another id", True, message[3:35] != unb64url(ask("export", record=record))[3:35])
refusals = {opens(message[:at] + bytes([message[at] ^ 1]) + message[at + 1:])[0] for at in range(7, len(message), 9)}
report.holds("one bit flipped anywhere: refused", b"123-45-6789" not in refusals, ", ".join(sorted(map(str, refusals))))
report.holds("another KMS key does not open it", opens(message, THEIRS)[1] is None, opens(message, THEIRS)[0])

# In: what the SDK writes, the API imports
for suite, signed in [(COMMITTED, ""), (SIGNED, ", signed")]:
    for frame_length, shape in [(4096, "framed"), (128, "in frames of 128 bytes"), (0, "unframed")]:
        for plaintext in [b"", b"123-45-6789", os.urandom(4097)]:
            message = written(THEIRS, plaintext, suite, frame_length)
            record = ask("import", message=b64url(message))
            opened = ask("decrypt", record=record)
            report.holds(f"a message of {len(plaintext)} bytes, {shape}{signed}, is imported", opened == plaintext)
plaintext = os.urandom(65_536)
record = ask("import", message=b64url(written(THEIRS, plaintext, SIGNED, 4096)))
report.holds("64 KiB, signed, are imported", ask("decrypt", record=record) == plaintext)

good = {suite: written(THEIRS, b"123-45-6789", suite, 4096) for suite in (COMMITTED, SIGNED)}
for suite, message in good.items():
    flipped = {ask("import", message=b64url(message[:at] + bytes([message[at] ^ 1]) + message[at + 1:]))
               for at in range(0, len(message), 17)}
    codes = {"decrypt_failed", "key_unavailable", "malformed", "too_large", "unsupported_version"}
    report.holds(f"{suite.name}: one bit flipped anywhere is refused", flipped <= codes, ", ".join(sorted(flipped)))
footer = good[SIGNED]
report.row("a signed message without its footer", "malformed", ask("import", message=b64url(footer[:-105])))
legacy = written(THEIRS, b"x", Algorithm.AES_256_GCM_IV12_TAG16_HKDF_SHA256, 4096, loose)
report.row("a suite that does not commit to its key", "unsupported_version", ask("import", message=b64url(legacy)))
report.row("one byte over 64 KiB", "too_large", ask("import", message=b64url(written(THEIRS, bytes(65_537), COMMITTED, 4096))))
message = b64url(good[COMMITTED])
report.row("for another tenant than the key is named for", "key_unavailable", ask("import", "globex", message=message))
report.row("a KMS key that nobody named", "key_unavailable", ask("import", message=b64url(written(NOBODYS, b"x", COMMITTED, 4096))))
report.row("with a pair of its context demanded", b"123-45-6789",
           ask("decrypt", record=ask("import", message=message, context={"department": "hr"})))
report.row("with another one demanded", "decrypt_failed", ask("import", message=message, context={"department": "it"}))
report.row("under our own KMS key, but none of our data keys", "key_unavailable",
           ask("import", message=b64url(written(OURS, b"x", COMMITTED, 4096))))

# There and back
record = ask("encrypt", plaintext=b64url(b"123-45-6789"))
message = ask("export", record=record)
report.row("an export comes back into another row", b"123-45-6789",
           ask("decrypt", row="43", record=ask("import", row="43", message=message)))
report.row("but into no other column", "decrypt_failed", ask("import", column="email", message=message))
report.row("and to no other tenant", "key_unavailable", ask("import", "globex", message=message))
report.end()
