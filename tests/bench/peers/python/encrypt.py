"""Fields encrypted one by one by the AWS Encryption SDK, the key in the process: no call to KMS is in it."""
import base64
import json
import os

import aws_encryption_sdk
from aws_encryption_sdk import CachingCryptoMaterialsManager, LocalCryptoMaterialsCache
from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy, EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider


class OneKey(RawMasterKeyProvider):
    """A raw AES key."""

    provider_id = "bench"

    def _get_raw_key(self, _key_id):
        return WrappingKey(WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING, bytes(32), EncryptionKeyType.SYMMETRIC)


CLIENT = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
PROVIDER = OneKey()
PROVIDER.add_master_key("bench")
CACHING = os.environ["BENCH_PEER"] == "python-encrypt-caching"
# Key commitment; the default signs each message with ECDSA as well.
SUITE = (
    Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
    if os.environ["BENCH_PEER"] == "python-encrypt-signed"
    else Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
)
if CACHING:
    source = {
        "materials_manager": CachingCryptoMaterialsManager(
            master_key_provider=PROVIDER, cache=LocalCryptoMaterialsCache(100), max_age=3600.0
        )
    }
else:
    source = {"key_provider": PROVIDER}


def sealed(item):
    plaintext = item["plaintext"]
    context = {"tenant": "acme", "table": item["table"], "column": item["column"]}
    if not CACHING:
        context["row"] = item["row"]
    message, _ = CLIENT.encrypt(
        source=base64.urlsafe_b64decode(plaintext + "=" * (-len(plaintext) % 4)),
        encryption_context=context,
        algorithm=SUITE,
        **source,
    )
    return {"ref": item["ref"], "record": base64.b64encode(message).decode()}


def handler(event, _context):
    items = json.loads(event["body"])["items"]
    return {"statusCode": 200, "body": json.dumps({"items": [sealed(item) for item in items]})}
