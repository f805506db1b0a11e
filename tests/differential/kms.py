"""KMS: keys in all their states, what is sealed under them, signatures, and who names a key how."""

import hashlib
import time
import uuid

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from probes import (
    KMS_CONTEXT, KMS_ROTATION, KMS_SPECS, KMS_STATES, SILENT, SIGV4, KMS_COMMON, kms_api, probe, send, signed_at, told,
)

CONTEXT = {"tenant": "acme", "purpose": "field"}
SECRET = b"thirty-two bytes of a data key.."
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def kms(target):
    """The operator's client."""
    return target.client("kms")


def made(target, spec="SYMMETRIC_DEFAULT", usage="ENCRYPT_DECRYPT"):
    """A key of its own for whoever changes its state; its ARN."""
    return kms(target).create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["Arn"]


def disable(target, one):
    """Disables a key, by its id: what it is named by here is not what is asked."""
    kms(target).disable_key(KeyId=one.rpartition("/")[2])


def leave(target, one, days=7):
    """Schedules a key's deletion, by its id."""
    return kms(target).schedule_key_deletion(KeyId=one.rpartition("/")[2], PendingWindowInDays=days)


def key(target, spec="SYMMETRIC_DEFAULT", usage="ENCRYPT_DECRYPT", number=1):
    """A key that nobody changes; its ARN."""
    return target.memo(("key", spec, usage, number), lambda: made(target, spec, usage))


def alias(target):
    """An alias of the first symmetric key."""

    def make():
        name = f"alias/differential-{uuid.uuid4()}"
        kms(target).create_alias(AliasName=name, TargetKeyId=key(target))
        return name

    return target.memo("alias", make)


def arn(target, resource, region=None, account=None):
    """An ARN in the target's account."""
    return f"arn:aws:kms:{region or target.region}:{account or target.account}:{resource}"


def sealed(target, of=None, context=None):
    """A ciphertext of SECRET."""
    context = CONTEXT if context is None else context
    return kms(target).encrypt(KeyId=of or key(target), Plaintext=SECRET, EncryptionContext=context)["CiphertextBlob"]


def blob(target):
    """A ciphertext that everybody may read and nobody changes."""
    return target.memo("blob", lambda: sealed(target))


def opened(target, ciphertext, context=None, **more):
    """What Decrypt says."""
    arguments = {"CiphertextBlob": ciphertext} | more
    if context != {}:
        arguments["EncryptionContext"] = CONTEXT if context is None else context
    return told(lambda: kms(target).decrypt(**arguments), lambda answer: answer["Plaintext"] == SECRET or "another text")


# Ciphertexts -------------------------------------------------------------------------------------------------------------

DECRYPT = kms_api("Decrypt")


@probe("kms-decrypt", "Decrypt of what Encrypt made answers the plaintext", "200", kms_api("Decrypt", "Response"))
def _(target):
    return opened(target, blob(target))


def flipped(target, place):
    changed = bytearray(blob(target))
    changed[place(len(changed))] ^= 1
    return opened(target, bytes(changed))


for name, place in {
    "first": lambda length: 0, "second": lambda length: 1, "10th": lambda length: 9, "40th": lambda length: 39,
    "middle": lambda length: length // 2, "last but 16": lambda length: length - 17, "last": lambda length: length - 1,
}.items():
    probe(f"kms-flip-{name.replace(' ', '-')}", f"A ciphertext with one bit of its {name} byte flipped is corrupt",
          "400 InvalidCiphertextException", f"{DECRYPT}: InvalidCiphertextException", place=place)(flipped)


@probe("kms-flip-every-byte", "A bit flipped in any byte makes a ciphertext corrupt", "400 InvalidCiphertextException",
       f"{DECRYPT}: InvalidCiphertextException")
def _(target):
    whole = blob(target)
    answers = {flipped(target, lambda _, place=place: place) for place in range(0, len(whole), 3)}
    return " and ".join(sorted(answers))


for name, change in {
    "cut by one byte": lambda text: text[:-1], "cut in half": lambda text: text[: len(text) // 2], "one byte longer": lambda text: text + b"\0",
    "of one byte": lambda text: text[:1], "of random bytes": lambda text: bytes(hashlib.shake_128(b"random").digest(len(text))),
}.items():
    @probe(f"kms-ciphertext-{name.replace(' ', '-')}", f"A ciphertext {name} is no ciphertext", "400 InvalidCiphertextException",
           f"{DECRYPT}: InvalidCiphertextException", change=change)
    def _(target, change):
        return opened(target, change(blob(target)))


for name, context, want, says in [
    ("other-value", {"tenant": "globex", "purpose": "field"}, "400 InvalidCiphertextException", "another value in the encryption context"),
    ("extra-pair", CONTEXT | {"more": "x"}, "400 InvalidCiphertextException", "a pair more in the encryption context"),
    ("missing-pair", {"tenant": "acme"}, "400 InvalidCiphertextException", "a pair less in the encryption context"),
    ("none", {}, "400 InvalidCiphertextException", "no encryption context where there was one"),
    ("key-case", {"Tenant": "acme", "purpose": "field"}, "400 InvalidCiphertextException", "the encryption context is case-sensitive: names"),
    ("value-case", {"tenant": "Acme", "purpose": "field"}, "400 InvalidCiphertextException", "the encryption context is case-sensitive: values"),
    ("order", {"purpose": "field", "tenant": "acme"}, "200", "the order of the pairs does not matter"),
    ("shifted", {"tenantacme": "", "purpose": "field"}, "400 InvalidCiphertextException", "names and values are not run together"),
]:
    @probe(f"kms-context-{name}", f"Decrypt with {says}" if want != "200" and "sensitive" not in says else f"Decrypt: {says}", want, KMS_CONTEXT, context=context)
    def _(target, context):
        return opened(target, blob(target), context)


@probe("kms-context-added", "A ciphertext without context does not open under one", "400 InvalidCiphertextException", KMS_CONTEXT)
def _(target):
    return opened(target, sealed(target, context={}), {"tenant": "acme"})


@probe("kms-context-empty", "No context and an empty one are the same", "200", KMS_CONTEXT)
def _(target):
    bare = kms(target).encrypt(KeyId=key(target), Plaintext=SECRET)["CiphertextBlob"]
    return told(lambda: kms(target).decrypt(CiphertextBlob=bare, EncryptionContext={}), lambda answer: answer["Plaintext"] == SECRET)


@probe("kms-context-asymmetric", "An encryption context cannot be used with an asymmetric key",
       ("400 ValidationException", "400 InvalidKeyUsageException", "400 UnsupportedOperationException"), KMS_CONTEXT)
def _(target):
    rsa_key = key(target, "RSA_2048", "SIGN_VERIFY")
    return told(lambda: kms(target).encrypt(KeyId=rsa_key, Plaintext=b"x", EncryptionContext=CONTEXT))


@probe("kms-decrypt-names-key", "Decrypt with the key's own id", "200", kms_api("Decrypt", "KeyId"))
def _(target):
    return opened(target, blob(target), KeyId=key(target))


@probe("kms-decrypt-other-key", "Decrypt under another key than the ciphertext's", "400 IncorrectKeyException", f"{DECRYPT}: IncorrectKeyException")
def _(target):
    return opened(target, blob(target), KeyId=key(target, number=2))


@probe("kms-decrypt-other-usage", "Decrypt with the id of a key for signatures",
       ("400 IncorrectKeyException", "400 InvalidKeyUsageException"), f"{DECRYPT}: IncorrectKeyException, InvalidKeyUsageException")
def _(target):
    return opened(target, blob(target), KeyId=key(target, "RSA_2048", "SIGN_VERIFY"))


@probe("kms-decrypt-unknown-key", "Decrypt with the id of no key", "400 NotFoundException", f"{DECRYPT}: NotFoundException")
def _(target):
    return opened(target, blob(target), KeyId=str(uuid.uuid4()))


@probe("kms-decrypt-too-long", "CiphertextBlob holds 6144 bytes at most", "400 ValidationException", kms_api("Decrypt", "CiphertextBlob"))
def _(target):
    return opened(target, b"x" * 6145)


@probe("kms-decrypt-algorithm", "Decrypt under the algorithm of an asymmetric key",
       ("400 InvalidKeyUsageException", "400 InvalidCiphertextException"), f"{kms_api('Decrypt', 'EncryptionAlgorithm')}; errors")
def _(target):
    return opened(target, blob(target), EncryptionAlgorithm="RSAES_OAEP_SHA_256")


@probe("kms-decrypt-key-arn", "Decrypt answers the ARN of the key", "200", kms_api("Decrypt", "Response: KeyId"))
def _(target):
    return told(lambda: kms(target).decrypt(CiphertextBlob=blob(target), EncryptionContext=CONTEXT), lambda answer: answer["KeyId"] == key(target) or "no ARN")


@probe("kms-encrypt-key-arn", "Encrypt by alias answers the ARN of the key", "200", kms_api("Encrypt", "Response: KeyId"))
def _(target):
    return told(lambda: kms(target).encrypt(KeyId=alias(target), Plaintext=b"x"), lambda answer: answer["KeyId"] == key(target) or "no ARN of the key")


@probe("kms-encrypt-algorithm", "Encrypt answers the algorithm", "200 SYMMETRIC_DEFAULT", kms_api("Encrypt", "Response: EncryptionAlgorithm"))
def _(target):
    return told(lambda: kms(target).encrypt(KeyId=key(target), Plaintext=b"x"), lambda answer: answer.get("EncryptionAlgorithm"))


@probe("kms-encrypt-random", "Two ciphertexts of one text differ", "they differ", kms_api("Encrypt", "Description"))
def _(target):
    return "they differ" if sealed(target) != sealed(target) else "they are equal"


for length, want in [(1, "200"), (4096, "200"), (4097, "400 ValidationException"), (0, "400 ValidationException")]:
    @probe(f"kms-encrypt-{length}", f"Encrypt of {length} bytes (1 to 4096 are allowed)", want, kms_api("Encrypt", "Plaintext"), length=length)
    def _(target, length):
        return told(lambda: kms(target).encrypt(KeyId=key(target), Plaintext=b"x" * length))


@probe("kms-encrypt-signing-key", "Encrypt with a key for signatures", "400 InvalidKeyUsageException", kms_api("Encrypt", "InvalidKeyUsageException"))
def _(target):
    return told(lambda: kms(target).encrypt(KeyId=key(target, "RSA_2048", "SIGN_VERIFY"), Plaintext=b"x", EncryptionAlgorithm="RSAES_OAEP_SHA_256"))


@probe("kms-material-decrypt", "Decrypt names the key material that sealed the text", "200", kms_api("Decrypt", "Response: KeyMaterialId"))
def _(target):
    return told(lambda: kms(target).decrypt(CiphertextBlob=blob(target), EncryptionContext=CONTEXT),
                lambda answer: len(answer.get("KeyMaterialId", "")) == 64 or "without KeyMaterialId")


# Names of keys -----------------------------------------------------------------------------------------------------------

FORMS = kms_api("Encrypt", "KeyId")


def named(target, form):
    names = {
        "id": lambda: key(target).rpartition("/")[2], "ARN": lambda: key(target), "alias": lambda: alias(target),
        "alias ARN": lambda: arn(target, alias(target)), "unknown id": lambda: str(uuid.uuid4()), "no UUID": lambda: "nothing-of-the-kind",
        "unknown ARN": lambda: arn(target, f"key/{uuid.uuid4()}"), "unknown alias": lambda: "alias/nothing",
        "other region": lambda: arn(target, key(target).rpartition(":")[2], region="eu-west-3"),
        "other account": lambda: arn(target, f"key/{uuid.uuid4()}", account="999988887777"),
        "other account, same id": lambda: arn(target, key(target).rpartition(":")[2], account="999988887777"),
        "other service": lambda: key(target).replace(":kms:", ":s3:"), "too long": lambda: "x" * 2049, "empty": lambda: "",
    }
    return told(lambda: kms(target).encrypt(KeyId=names[form](), Plaintext=b"x"), lambda answer: answer["KeyId"] == key(target) or "another key")


for form, want in [
    ("id", "200"), ("ARN", "200"), ("alias", "200"), ("alias ARN", "200"), ("unknown id", "400 NotFoundException"),
    ("no UUID", "400 NotFoundException"), ("unknown ARN", "400 NotFoundException"), ("unknown alias", "400 NotFoundException"),
    ("other region", "400 NotFoundException"), ("other account", ("400 NotFoundException", "400 AccessDeniedException")),
    ("other account, same id", ("400 NotFoundException", "400 AccessDeniedException")),
    ("other service", ("400 InvalidArnException", "400 NotFoundException", "400 ValidationException")),
    ("too long", "400 ValidationException"), ("empty", "400 ValidationException"),
]:
    probe(f"kms-key-id-{form.replace(' ', '-').replace(',', '')}", f"Encrypt under a KeyId of this form: {form}", want, f"{FORMS}; errors", form=form)(named)


for operation in ("disable_key", "enable_key", "cancel_key_deletion"):
    @probe(f"kms-arn-{operation.replace('_', '-')}", f"{operation} of a key named by its ARN", "200", kms_api("DisableKey", "KeyId: key ID or key ARN"), operation=operation)
    def _(target, operation):
        own = made(target)
        if operation == "cancel_key_deletion":
            leave(target, own)
        return told(lambda: getattr(kms(target), operation)(KeyId=own))


@probe("kms-alias-managed", "DisableKey takes no alias", ("400 NotFoundException", "400 ValidationException", "400 InvalidArnException"), kms_api("DisableKey", "KeyId: key ID or key ARN"))
def _(target):
    own, name = made(target), f"alias/{uuid.uuid4()}"
    kms(target).create_alias(AliasName=name, TargetKeyId=own)
    return told(lambda: kms(target).disable_key(KeyId=name))


@probe("kms-alias-prefix", "An alias begins with alias/", "400 ValidationException", kms_api("CreateAlias", "AliasName"))
def _(target):
    return told(lambda: kms(target).create_alias(AliasName="differential", TargetKeyId=key(target)))


@probe("kms-alias-reserved", "An alias does not begin with alias/aws/", ("400 NotAuthorizedException", "400 ValidationException", "400 InvalidAliasNameException"), kms_api("CreateAlias", "AliasName"))
def _(target):
    return told(lambda: kms(target).create_alias(AliasName="alias/aws/differential", TargetKeyId=key(target)))


@probe("kms-alias-sign", "An alias is made of letters, digits, /, _ and -", ("400 ValidationException", "400 InvalidAliasNameException"), kms_api("CreateAlias", "AliasName"))
def _(target):
    return told(lambda: kms(target).create_alias(AliasName="alias/some thing", TargetKeyId=key(target)))


@probe("kms-alias-twice", "An alias there is already", "400 AlreadyExistsException", kms_api("CreateAlias", "AlreadyExistsException"))
def _(target):
    return told(lambda: kms(target).create_alias(AliasName=alias(target), TargetKeyId=key(target)))


@probe("kms-alias-nothing", "An alias of no key", "400 NotFoundException", kms_api("CreateAlias", "NotFoundException"))
def _(target):
    return told(lambda: kms(target).create_alias(AliasName=f"alias/{uuid.uuid4()}", TargetKeyId=str(uuid.uuid4())))


@probe("kms-alias-update", "UpdateAlias moves an alias; new texts are sealed under the other key", "200", kms_api("UpdateAlias", "Description"))
def _(target):
    name = f"alias/{uuid.uuid4()}"
    kms(target).create_alias(AliasName=name, TargetKeyId=key(target))
    kms(target).update_alias(AliasName=name, TargetKeyId=key(target, number=2))
    return told(lambda: kms(target).encrypt(KeyId=name, Plaintext=b"x"), lambda answer: answer["KeyId"] == key(target, number=2) or "the old key")


@probe("kms-alias-update-usage", "UpdateAlias does not move an alias to a key of another usage", ("400 ValidationException", "400 KMSInvalidStateException"),
       kms_api("UpdateAlias", "Description: same key usage"))
def _(target):
    name = f"alias/{uuid.uuid4()}"
    kms(target).create_alias(AliasName=name, TargetKeyId=key(target))
    return told(lambda: kms(target).update_alias(AliasName=name, TargetKeyId=key(target, "RSA_2048", "SIGN_VERIFY")))


@probe("kms-alias-delete", "DeleteAlias of nothing", "400 NotFoundException", kms_api("DeleteAlias", "NotFoundException"))
def _(target):
    return told(lambda: kms(target).delete_alias(AliasName=f"alias/{uuid.uuid4()}"))


# Data keys ---------------------------------------------------------------------------------------------------------------

DATA = kms_api("GenerateDataKey", "KeySpec, NumberOfBytes")


@probe("kms-data-key-both", "GenerateDataKey takes KeySpec or NumberOfBytes, not both", "400 ValidationException", DATA)
def _(target):
    return told(lambda: kms(target).generate_data_key(KeyId=key(target), KeySpec="AES_256", NumberOfBytes=32))


@probe("kms-data-key-neither", "GenerateDataKey demands KeySpec or NumberOfBytes", "400 ValidationException", DATA)
def _(target):
    return told(lambda: kms(target).generate_data_key(KeyId=key(target)))


@probe("kms-data-key-spec", "GenerateDataKey knows AES_128 and AES_256", "400 ValidationException", DATA)
def _(target):
    return told(lambda: kms(target).generate_data_key(KeyId=key(target), KeySpec="AES_512"))


for spec, length in [("AES_256", 32), ("AES_128", 16)]:
    @probe(f"kms-data-key-{spec}", f"GenerateDataKey {spec} makes {length} bytes, which Decrypt gives back", "200", DATA, spec=spec, length=length)
    def _(target, spec, length):
        answer = kms(target).generate_data_key(KeyId=key(target), KeySpec=spec, EncryptionContext=CONTEXT)
        plain = answer["Plaintext"]
        return told(lambda: kms(target).decrypt(CiphertextBlob=answer["CiphertextBlob"], EncryptionContext=CONTEXT),
                    lambda back: (back["Plaintext"] == plain and len(plain) == length) or "another key")


for number, want in [(0, "400 ValidationException"), (1, "200 1"), (1024, "200 1024"), (1025, "400 ValidationException")]:
    @probe(f"kms-data-key-{number}-bytes", f"GenerateDataKey of {number} bytes (1 to 1024 are allowed)", want, DATA, number=number)
    def _(target, number):
        return told(lambda: kms(target).generate_data_key(KeyId=key(target), NumberOfBytes=number), lambda answer: len(answer["Plaintext"]))

    @probe(f"kms-random-{number}", f"GenerateRandom of {number} bytes (1 to 1024 are allowed)", want, kms_api("GenerateRandom", "NumberOfBytes"), number=number)
    def _(target, number):
        return told(lambda: kms(target).generate_random(NumberOfBytes=number), lambda answer: len(answer["Plaintext"]))


@probe("kms-data-key-blind", "GenerateDataKeyWithoutPlaintext answers no plaintext", "200", kms_api("GenerateDataKeyWithoutPlaintext", "Response"))
def _(target):
    return told(lambda: kms(target).generate_data_key_without_plaintext(KeyId=key(target), KeySpec="AES_256"), lambda answer: "Plaintext" not in answer or "with the plaintext")


@probe("kms-data-key-signing-key", "GenerateDataKey under a key for signatures", "400 InvalidKeyUsageException", kms_api("GenerateDataKey", "InvalidKeyUsageException"))
def _(target):
    return told(lambda: kms(target).generate_data_key(KeyId=key(target, "RSA_2048", "SIGN_VERIFY"), KeySpec="AES_256"))


@probe("kms-data-key-material", "GenerateDataKey names the key material", "200", kms_api("GenerateDataKey", "Response: KeyMaterialId"))
def _(target):
    return told(lambda: kms(target).generate_data_key(KeyId=key(target), KeySpec="AES_256"), lambda answer: len(answer.get("KeyMaterialId", "")) == 64 or "without KeyMaterialId")


PAIR = kms_api("GenerateDataKeyPair", "Response")


@probe("kms-pair", "GenerateDataKeyPair answers a DER public key and its PKCS #8 private key", "200", PAIR)
def _(target):
    answer = kms(target).generate_data_key_pair(KeyId=key(target), KeyPairSpec="ECC_NIST_P256", EncryptionContext=CONTEXT)
    private = serialization.load_der_private_key(answer["PrivateKeyPlaintext"], None)
    public = serialization.load_der_public_key(answer["PublicKey"])
    return "200" if private.public_key().public_numbers() == public.public_numbers() else "200 of two pairs"


@probe("kms-pair-sealed", "Decrypt opens a pair's private key under its context", "200", PAIR)
def _(target):
    answer = kms(target).generate_data_key_pair(KeyId=key(target), KeyPairSpec="RSA_2048", EncryptionContext=CONTEXT)
    return told(lambda: kms(target).decrypt(CiphertextBlob=answer["PrivateKeyCiphertextBlob"], EncryptionContext=CONTEXT),
                lambda back: back["Plaintext"] == answer["PrivateKeyPlaintext"] or "another key")


@probe("kms-pair-blind", "GenerateDataKeyPairWithoutPlaintext answers no private key", "200", kms_api("GenerateDataKeyPairWithoutPlaintext", "Response"))
def _(target):
    return told(lambda: kms(target).generate_data_key_pair_without_plaintext(KeyId=key(target), KeyPairSpec="ECC_NIST_EDWARDS25519"),
                lambda answer: "PrivateKeyPlaintext" not in answer or "with the private key")


@probe("kms-pair-asymmetric", "A data key pair is sealed under a symmetric key", "400 InvalidKeyUsageException", kms_api("GenerateDataKeyPair", "InvalidKeyUsageException"))
def _(target):
    return told(lambda: kms(target).generate_data_key_pair(KeyId=key(target, "RSA_2048", "SIGN_VERIFY"), KeyPairSpec="ECC_NIST_P256"))


# ReEncrypt ---------------------------------------------------------------------------------------------------------------

AGAIN = kms_api("ReEncrypt")
OTHER = {"tenant": "acme", "purpose": "index"}


def again(target, **changes):
    arguments = {"CiphertextBlob": blob(target), "SourceEncryptionContext": CONTEXT, "DestinationKeyId": key(target, number=2),
                 "DestinationEncryptionContext": OTHER} | changes
    return kms(target).re_encrypt(**{name: value for name, value in arguments.items() if value is not None})


@probe("kms-reencrypt", "ReEncrypt moves a text to another key and another context", "200", kms_api("ReEncrypt", "Description"))
def _(target):
    moved = again(target)["CiphertextBlob"]
    return opened(target, moved, OTHER)


@probe("kms-reencrypt-same-key", "ReEncrypt changes the context alone", "200", kms_api("ReEncrypt", "Description"))
def _(target):
    return opened(target, again(target, DestinationKeyId=key(target))["CiphertextBlob"], OTHER)


@probe("kms-reencrypt-old-stays", "ReEncrypt leaves the old ciphertext good", "200", kms_api("ReEncrypt", "Description"))
def _(target):
    again(target)
    return opened(target, blob(target))


@probe("kms-reencrypt-old-context", "What ReEncrypt made does not open under the old context", "400 InvalidCiphertextException", KMS_CONTEXT)
def _(target):
    return opened(target, again(target)["CiphertextBlob"])


@probe("kms-reencrypt-both-arns", "ReEncrypt answers both keys' ARNs", "200", kms_api("ReEncrypt", "Response"))
def _(target):
    return told(lambda: again(target), lambda answer: (answer["SourceKeyId"], answer["KeyId"]) == (key(target), key(target, number=2)) or "no ARNs")


@probe("kms-reencrypt-materials", "ReEncrypt names both key materials", "200", kms_api("ReEncrypt", "Response"))
def _(target):
    return told(lambda: again(target), lambda answer: {"SourceKeyMaterialId", "DestinationKeyMaterialId"} <= set(answer) or "without them")


for name, changes, want in [
    ("source-context", {"SourceEncryptionContext": OTHER}, "400 InvalidCiphertextException"),
    ("no-source-context", {"SourceEncryptionContext": None}, "400 InvalidCiphertextException"),
    ("unknown-destination", {"DestinationKeyId": "alias/nothing"}, "400 NotFoundException"),
]:
    @probe(f"kms-reencrypt-{name}", f"ReEncrypt with a wrong {name.replace('-', ' ')}", want, AGAIN, changes=changes)
    def _(target, changes):
        return told(lambda: again(target, **changes))


@probe("kms-reencrypt-other-source", "ReEncrypt with another SourceKeyId than the ciphertext's", "400 IncorrectKeyException", f"{AGAIN}: IncorrectKeyException")
def _(target):
    return told(lambda: again(target, SourceKeyId=key(target, number=2)))


@probe("kms-reencrypt-source", "ReEncrypt with the ciphertext's SourceKeyId", "200", AGAIN)
def _(target):
    return told(lambda: again(target, SourceKeyId=key(target)))


@probe("kms-reencrypt-flipped", "ReEncrypt of a corrupt ciphertext", "400 InvalidCiphertextException", f"{AGAIN}: InvalidCiphertextException")
def _(target):
    text = blob(target)
    return told(lambda: again(target, CiphertextBlob=text[:-1] + bytes([text[-1] ^ 1])))


@probe("kms-reencrypt-signing-key", "ReEncrypt to a key for signatures", "400 InvalidKeyUsageException", f"{AGAIN}: InvalidKeyUsageException")
def _(target):
    return told(lambda: again(target, DestinationKeyId=key(target, "RSA_2048", "SIGN_VERIFY"), DestinationEncryptionContext=None))


# DryRun ------------------------------------------------------------------------------------------------------------------

DRY = "DryRunOperationException"

for operation, arguments in {
    "Encrypt": lambda target: {"KeyId": key(target), "Plaintext": b"x"},
    "Decrypt": lambda target: {"CiphertextBlob": blob(target), "EncryptionContext": CONTEXT},
    "ReEncrypt": lambda target: {"CiphertextBlob": blob(target), "SourceEncryptionContext": CONTEXT, "DestinationKeyId": key(target)},
    "GenerateDataKey": lambda target: {"KeyId": key(target), "KeySpec": "AES_256"},
    "GenerateDataKeyWithoutPlaintext": lambda target: {"KeyId": key(target), "KeySpec": "AES_256"},
    "GenerateDataKeyPair": lambda target: {"KeyId": key(target), "KeyPairSpec": "ECC_NIST_P256"},
    "Sign": lambda target: {"KeyId": key(target, "ECC_NIST_P256", "SIGN_VERIFY"), "Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"},
    "GenerateMac": lambda target: {"KeyId": key(target, "HMAC_256", "GENERATE_VERIFY_MAC"), "Message": b"x", "MacAlgorithm": "HMAC_SHA_256"},
}.items():
    @probe(f"kms-dry-{operation}", f"{operation} with DryRun says that it would have succeeded", f"400 {DRY}", kms_api(operation, DRY), operation=operation, arguments=arguments)
    def _(target, operation, arguments):
        snake = {"ReEncrypt": "re_encrypt"}.get(operation) or "".join("_" + sign.lower() if sign.isupper() else sign for sign in operation).lstrip("_")
        given = arguments(target) | {"DryRun": True}
        return told(lambda: getattr(kms(target), snake)(**given))


@probe("kms-dry-wrong-context", "DryRun tells first what is wrong", "400 InvalidCiphertextException", kms_api("Decrypt", "DryRun"))
def _(target):
    return told(lambda: kms(target).decrypt(CiphertextBlob=blob(target), EncryptionContext=OTHER, DryRun=True))


@probe("kms-dry-missing-key", "DryRun of no key", "400 NotFoundException", kms_api("Encrypt", "DryRun"))
def _(target):
    return told(lambda: kms(target).encrypt(KeyId=str(uuid.uuid4()), Plaintext=b"x", DryRun=True))


# States ------------------------------------------------------------------------------------------------------------------


def disabled(target):
    """A key that was used and then disabled, and a ciphertext under it."""

    def make():
        one = made(target)
        text = sealed(target, one)
        disable(target, one)
        return one, text

    return target.memo("disabled", make)


def leaving(target):
    """A key that waits for its deletion, and a ciphertext under it."""

    def make():
        one = made(target)
        text = sealed(target, one)
        leave(target, one)
        return one, text

    return target.memo("leaving", make)


def signer(target, state):
    """A signing key, its signature over b"x", in that state."""

    def make():
        one = made(target, "ECC_NIST_P256", "SIGN_VERIFY")
        signature = kms(target).sign(KeyId=one, Message=b"x", SigningAlgorithm="ECDSA_SHA_256")["Signature"]
        if state == "disabled":
            disable(target, one)
        else:
            leave(target, one)
        return one, signature

    return target.memo(("signer", state), make)


USES = {
    "Encrypt": lambda client, one, text, target: client.encrypt(KeyId=one, Plaintext=b"x"),
    "Decrypt": lambda client, one, text, target: client.decrypt(CiphertextBlob=text, EncryptionContext=CONTEXT),
    "GenerateDataKey": lambda client, one, text, target: client.generate_data_key(KeyId=one, KeySpec="AES_256"),
    "GenerateDataKeyPair": lambda client, one, text, target: client.generate_data_key_pair(KeyId=one, KeyPairSpec="ECC_NIST_P256"),
    "ReEncrypt from": lambda client, one, text, target: client.re_encrypt(CiphertextBlob=text, SourceEncryptionContext=CONTEXT, DestinationKeyId=key(target)),
    "ReEncrypt to": lambda client, one, text, target: client.re_encrypt(CiphertextBlob=blob(target), SourceEncryptionContext=CONTEXT, DestinationKeyId=one),
    "RotateKeyOnDemand": lambda client, one, text, target: client.rotate_key_on_demand(KeyId=one),
}
SIGNER_USES = {
    "Sign": lambda client, one, signature: client.sign(KeyId=one, Message=b"x", SigningAlgorithm="ECDSA_SHA_256"),
    "Verify": lambda client, one, signature: client.verify(KeyId=one, Message=b"x", Signature=signature, SigningAlgorithm="ECDSA_SHA_256"),
    "GetPublicKey": lambda client, one, signature: client.get_public_key(KeyId=one),
}
# The key state table lets KMS answer either for a key that waits for its deletion.
PENDING = ("400 KMSInvalidStateException", "400 DisabledException")

for operation, use in USES.items():
    slug = operation.replace(" ", "-")

    @probe(f"kms-disabled-{slug}", f"{operation} with a disabled key", "400 DisabledException", KMS_STATES, use=use)
    def _(target, use):
        one, text = disabled(target)
        return told(lambda: use(kms(target), one, text, target))

    @probe(f"kms-pending-{slug}", f"{operation} with a key that waits for its deletion", PENDING, KMS_STATES, use=use)
    def _(target, use):
        one, text = leaving(target)
        return told(lambda: use(kms(target), one, text, target))

for operation, use in SIGNER_USES.items():
    @probe(f"kms-disabled-{operation}", f"{operation} with a disabled key", "400 DisabledException", KMS_STATES, use=use)
    def _(target, use):
        one, signature = signer(target, "disabled")
        return told(lambda: use(kms(target), one, signature))

    @probe(f"kms-pending-{operation}", f"{operation} with a key that waits for its deletion", PENDING, KMS_STATES, use=use)
    def _(target, use):
        one, signature = signer(target, "pending")
        return told(lambda: use(kms(target), one, signature))


for operation, want in [("enable_key", "400 KMSInvalidStateException"), ("disable_key", "400 KMSInvalidStateException"),
                        ("schedule_key_deletion", "400 KMSInvalidStateException"), ("describe_key", "200 PendingDeletion")]:
    @probe(f"kms-pending-{operation.replace('_', '-')}", f"{operation} with a key that waits for its deletion", want, KMS_STATES, operation=operation)
    def _(target, operation):
        one, _ = leaving(target)
        return told(lambda: getattr(kms(target), operation)(KeyId=one), lambda answer: answer["KeyMetadata"]["KeyState"] if "KeyMetadata" in answer else True)


@probe("kms-pending-create-alias", "CreateAlias of a key that waits for its deletion", "400 KMSInvalidStateException", KMS_STATES)
def _(target):
    one, _ = leaving(target)
    return told(lambda: kms(target).create_alias(AliasName=f"alias/{uuid.uuid4()}", TargetKeyId=one))


@probe("kms-disabled-describe", "DescribeKey of a disabled key", "200 Disabled", KMS_STATES)
def _(target):
    one, _ = disabled(target)
    return told(lambda: kms(target).describe_key(KeyId=one), lambda answer: answer["KeyMetadata"]["KeyState"])


@probe("kms-disabled-rotation", "EnableKeyRotation of a disabled key", "400 DisabledException", KMS_STATES)
def _(target):
    one, _ = disabled(target)
    return told(lambda: kms(target).enable_key_rotation(KeyId=one))


@probe("kms-enabled-again", "EnableKey makes old ciphertexts readable again", "200", kms_api("EnableKey", "Description"))
def _(target):
    one = made(target)
    text = sealed(target, one)
    disable(target, one)
    kms(target).enable_key(KeyId=one.rpartition("/")[2])
    return opened(target, text)


for days, want in [(6, "400 ValidationException"), (7, "200"), (30, "200"), (31, "400 ValidationException")]:
    @probe(f"kms-window-{days}", f"A key may wait {days} days for its deletion (7 to 30 are allowed)", want, kms_api("ScheduleKeyDeletion", "PendingWindowInDays"), days=days)
    def _(target, days):
        return told(lambda: leave(target, made(target), days))


@probe("kms-cancel", "CancelKeyDeletion leaves the key disabled", "200 Disabled", kms_api("CancelKeyDeletion", "Description"))
def _(target):
    one = made(target)
    leave(target, one)
    kms(target).cancel_key_deletion(KeyId=one)
    return told(lambda: kms(target).describe_key(KeyId=one), lambda answer: answer["KeyMetadata"]["KeyState"])


@probe("kms-cancel-nothing", "CancelKeyDeletion of a key that does not wait for it", "400 KMSInvalidStateException", KMS_STATES)
def _(target):
    return told(lambda: kms(target).cancel_key_deletion(KeyId=made(target).rpartition("/")[2]))


# Rotation ----------------------------------------------------------------------------------------------------------------


def rotated(target):
    """A key rotated on demand, its first material, a ciphertext of before and one of after."""

    def make():
        one = made(target)
        before = kms(target).generate_data_key(KeyId=one, KeySpec="AES_256")
        kms(target).rotate_key_on_demand(KeyId=one)
        for _ in range(100):
            current = kms(target).describe_key(KeyId=one)["KeyMetadata"].get("CurrentKeyMaterialId")
            if current != before.get("KeyMaterialId"):
                break
            time.sleep(0.05)
        return one, before, kms(target).generate_data_key(KeyId=one, KeySpec="AES_256")

    return target.memo("rotated", make)


@probe("kms-rotate", "RotateKeyOnDemand answers the key", "200", kms_api("RotateKeyOnDemand", "Response"))
def _(target):
    one = made(target)
    return told(lambda: kms(target).rotate_key_on_demand(KeyId=one), lambda answer: answer["KeyId"] in (one, one.rpartition("/")[2]) or "another key")


@probe("kms-rotate-old", "After a rotation old ciphertexts still open", "200", KMS_ROTATION)
def _(target):
    _, before, _ = rotated(target)
    return told(lambda: kms(target).decrypt(CiphertextBlob=before["CiphertextBlob"]), lambda answer: answer["Plaintext"] == before["Plaintext"])


@probe("kms-rotate-old-material", "Decrypt of an old ciphertext names the old material", "200", kms_api("Decrypt", "Response: KeyMaterialId"))
def _(target):
    _, before, _ = rotated(target)
    return told(lambda: kms(target).decrypt(CiphertextBlob=before["CiphertextBlob"]), lambda answer: answer["KeyMaterialId"] == before["KeyMaterialId"] or "the new one")


@probe("kms-rotate-new-material", "New data keys are sealed under new material", "new", KMS_ROTATION)
def _(target):
    _, before, after = rotated(target)
    return "new" if after["KeyMaterialId"] != before["KeyMaterialId"] else "old"


@probe("kms-rotate-current", "DescribeKey names the material that is current", "200", kms_api("DescribeKey", "CurrentKeyMaterialId"))
def _(target):
    one, _, after = rotated(target)
    return told(lambda: kms(target).describe_key(KeyId=one), lambda answer: answer["KeyMetadata"]["CurrentKeyMaterialId"] == after["KeyMaterialId"] or "another")


@probe("kms-rotate-list", "ListKeyRotations shows the rotation", "200 ON_DEMAND", kms_api("ListKeyRotations", "Response"))
def _(target):
    one, _, _ = rotated(target)
    return told(lambda: kms(target).list_key_rotations(KeyId=one), lambda answer: " ".join(entry["RotationType"] for entry in answer["Rotations"]))


@probe("kms-rotate-list-all", "ListKeyRotations with ALL_KEY_MATERIAL shows the first material too", "200 NON_CURRENT CURRENT", kms_api("ListKeyRotations", "IncludeKeyMaterial"))
def _(target):
    one, _, _ = rotated(target)
    return told(lambda: kms(target).list_key_rotations(KeyId=one, IncludeKeyMaterial="ALL_KEY_MATERIAL"),
                lambda answer: " ".join(sorted((entry["KeyMaterialState"] for entry in answer["Rotations"]), reverse=True)))


@probe("kms-rotate-asymmetric", "RotateKeyOnDemand of an asymmetric key", "400 UnsupportedOperationException", kms_api("RotateKeyOnDemand", "UnsupportedOperationException"))
def _(target):
    return told(lambda: kms(target).rotate_key_on_demand(KeyId=key(target, "RSA_2048", "SIGN_VERIFY")))


@probe("kms-rotate-hmac", "RotateKeyOnDemand of an HMAC key", "400 UnsupportedOperationException", kms_api("RotateKeyOnDemand", "UnsupportedOperationException"))
def _(target):
    return told(lambda: kms(target).rotate_key_on_demand(KeyId=key(target, "HMAC_256", "GENERATE_VERIFY_MAC")))


@probe("kms-rotation-status", "A key does not rotate by itself unless told to", "200 False", kms_api("GetKeyRotationStatus", "Response"))
def _(target):
    return told(lambda: kms(target).get_key_rotation_status(KeyId=key(target)), lambda answer: str(answer["KeyRotationEnabled"]))


@probe("kms-rotation-enable", "EnableKeyRotation: every 365 days unless told otherwise", "200 True 365", kms_api("EnableKeyRotation", "RotationPeriodInDays"))
def _(target):
    one = made(target)
    kms(target).enable_key_rotation(KeyId=one)
    return told(lambda: kms(target).get_key_rotation_status(KeyId=one), lambda answer: f"{answer['KeyRotationEnabled']} {answer.get('RotationPeriodInDays')}")


for days, want in [(89, "400 ValidationException"), (90, "200"), (2560, "200"), (2561, "400 ValidationException")]:
    @probe(f"kms-rotation-{days}-days", f"EnableKeyRotation every {days} days (90 to 2560 are allowed)", want, kms_api("EnableKeyRotation", "RotationPeriodInDays"), days=days)
    def _(target, days):
        return told(lambda: kms(target).enable_key_rotation(KeyId=made(target), RotationPeriodInDays=days))


@probe("kms-rotation-enable-asymmetric", "EnableKeyRotation of an asymmetric key", "400 UnsupportedOperationException", kms_api("EnableKeyRotation", "UnsupportedOperationException"))
def _(target):
    return told(lambda: kms(target).enable_key_rotation(KeyId=key(target, "RSA_2048", "SIGN_VERIFY")))


@probe("kms-rotate-limit", "A key is rotated on demand 25 times at most", "400 LimitExceededException", kms_api("RotateKeyOnDemand", "LimitExceededException"))
def _(target):
    one = made(target)
    for _ in range(26):
        said = told(lambda: kms(target).rotate_key_on_demand(KeyId=one))
        if said != "200":
            return said
        # A rotation that is not done yet would be in the way of the next.
        for _ in range(100):
            if "OnDemandRotationStartDate" not in kms(target).get_key_rotation_status(KeyId=one):
                break
            time.sleep(0.02)
    return "200 twenty-six times"


# Signatures --------------------------------------------------------------------------------------------------------------


def checked(target, spec, algorithm, signature, message):
    """Whether OpenSSL takes a signature under the key's public key."""
    public = target.memo(("public", spec), lambda: serialization.load_der_public_key(kms(target).get_public_key(KeyId=key(target, spec, "SIGN_VERIFY"))["PublicKey"]))
    digest = HASHES[algorithm[-3:]]
    try:
        if isinstance(public, rsa.RSAPublicKey) and "PSS" in algorithm:
            public.verify(signature, message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, message, padding.PKCS1v15(), digest)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, message, ec.ECDSA(digest))
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
    except InvalidSignature:
        return "a signature that OpenSSL refuses"
    return True


ALGORITHMS = {
    "RSA_2048": [f"RSASSA_{kind}_SHA_{bits}" for kind in ("PKCS1_V1_5", "PSS") for bits in ("256", "384", "512")],
    "RSA_3072": ["RSASSA_PKCS1_V1_5_SHA_256"],
    "ECC_NIST_P256": ["ECDSA_SHA_256"], "ECC_NIST_P384": ["ECDSA_SHA_384"], "ECC_NIST_P521": ["ECDSA_SHA_512"],
    "ECC_NIST_EDWARDS25519": ["ED25519_SHA_512"],
}
MESSAGE = b"what is signed"
SIGN = kms_api("Sign", "Message, MessageType, SigningAlgorithm")


def digest_of(algorithm, message=MESSAGE):
    """The digest that DIGEST takes."""
    return hashlib.new(f"sha{algorithm[-3:]}", message).digest()


for spec, algorithms in ALGORITHMS.items():
    for algorithm in algorithms:
        slug = f"{spec}-{algorithm}".lower()

        @probe(f"kms-sign-{slug}-raw", f"Sign RAW with {spec}, {algorithm}: a signature that OpenSSL takes", "200", SIGN, spec=spec, algorithm=algorithm)
        def _(target, spec, algorithm):
            return told(lambda: kms(target).sign(KeyId=key(target, spec, "SIGN_VERIFY"), Message=MESSAGE, MessageType="RAW", SigningAlgorithm=algorithm),
                        lambda answer: checked(target, spec, algorithm, answer["Signature"], MESSAGE))

        if spec != "ECC_NIST_EDWARDS25519":
            @probe(f"kms-sign-{slug}-digest", f"Sign DIGEST with {spec}, {algorithm}: the same, and KMS does not hash again", "200", SIGN, spec=spec, algorithm=algorithm)
            def _(target, spec, algorithm):
                return told(lambda: kms(target).sign(KeyId=key(target, spec, "SIGN_VERIFY"), Message=digest_of(algorithm), MessageType="DIGEST", SigningAlgorithm=algorithm),
                            lambda answer: checked(target, spec, algorithm, answer["Signature"], MESSAGE))


for name, spec, algorithm, message, kind, want in [
    ("digest-short", "RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256", b"x" * 31, "DIGEST", "400 ValidationException"),
    ("digest-long", "RSA_2048", "RSASSA_PSS_SHA_256", b"x" * 33, "DIGEST", "400 ValidationException"),
    ("digest-of-another-hash", "ECC_NIST_P256", "ECDSA_SHA_256", b"x" * 48, "DIGEST", "400 ValidationException"),
    ("raw-4096", "ECC_NIST_P256", "ECDSA_SHA_256", b"x" * 4096, "RAW", "200"),
    ("raw-4097", "ECC_NIST_P256", "ECDSA_SHA_256", b"x" * 4097, "RAW", "400 ValidationException"),
    ("raw-nothing", "ECC_NIST_P256", "ECDSA_SHA_256", b"", "RAW", "400 ValidationException"),
    ("other-algorithm", "ECC_NIST_P256", "ECDSA_SHA_384", MESSAGE, "RAW", "400 InvalidKeyUsageException"),
    ("rsa-algorithm", "ECC_NIST_P256", "RSASSA_PSS_SHA_256", MESSAGE, "RAW", "400 InvalidKeyUsageException"),
    ("unknown-algorithm", "ECC_NIST_P256", "ECDSA_SHA_1", MESSAGE, "RAW", "400 ValidationException"),
    ("unknown-type", "ECC_NIST_P256", "ECDSA_SHA_256", MESSAGE, "HASHED", "400 ValidationException"),
    ("ed25519-digest", "ECC_NIST_EDWARDS25519", "ED25519_SHA_512", b"x" * 64, "DIGEST", "400 ValidationException"),
]:
    @probe(f"kms-sign-{name}", f"Sign {kind} of {len(message)} bytes with {spec}, {algorithm}", want, SIGN, spec=spec, algorithm=algorithm, message=message, kind=kind)
    def _(target, spec, algorithm, message, kind):
        return told(lambda: kms(target).sign(KeyId=key(target, spec, "SIGN_VERIFY"), Message=message, MessageType=kind, SigningAlgorithm=algorithm))


@probe("kms-sign-symmetric", "Sign with a symmetric key", "400 InvalidKeyUsageException", kms_api("Sign", "InvalidKeyUsageException"))
def _(target):
    return told(lambda: kms(target).sign(KeyId=key(target), Message=MESSAGE, SigningAlgorithm="RSASSA_PSS_SHA_256"))


@probe("kms-sign-der", "An ECDSA signature is DER, not two numbers in a row", "200", kms_api("Sign", "Response: Signature"))
def _(target):
    def shown(answer):
        utils.decode_dss_signature(answer["Signature"])
        return True

    return told(lambda: kms(target).sign(KeyId=key(target, "ECC_NIST_P256", "SIGN_VERIFY"), Message=MESSAGE, SigningAlgorithm="ECDSA_SHA_256"), shown)


def signature(target, spec="RSA_2048", algorithm="RSASSA_PKCS1_V1_5_SHA_256"):
    """A signature over MESSAGE."""
    return target.memo(("signature", spec, algorithm), lambda: kms(target).sign(
        KeyId=key(target, spec, "SIGN_VERIFY"), Message=MESSAGE, SigningAlgorithm=algorithm)["Signature"])


VERIFY = kms_api("Verify", "KMSInvalidSignatureException")


def verify(target, spec="RSA_2048", algorithm="RSASSA_PKCS1_V1_5_SHA_256", **changes):
    arguments = {"KeyId": key(target, spec, "SIGN_VERIFY"), "Message": MESSAGE, "Signature": signature(target, spec, algorithm), "SigningAlgorithm": algorithm}
    return told(lambda: kms(target).verify(**(arguments | changes)), lambda answer: answer["SignatureValid"] or "not valid")


for spec, algorithm in [("RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256"), ("RSA_2048", "RSASSA_PSS_SHA_384"), ("ECC_NIST_P256", "ECDSA_SHA_256"), ("ECC_NIST_P384", "ECDSA_SHA_384"),
                        ("ECC_NIST_EDWARDS25519", "ED25519_SHA_512")]:
    @probe(f"kms-verify-{spec}-{algorithm}".lower(), f"Verify of a good signature, {algorithm}", "200", kms_api("Verify", "Response"), spec=spec, algorithm=algorithm)
    def _(target, spec, algorithm):
        return verify(target, spec, algorithm)

    @probe(f"kms-verify-{spec}-{algorithm}-other".lower(), f"Verify of another message, {algorithm}", "400 KMSInvalidSignatureException", VERIFY, spec=spec, algorithm=algorithm)
    def _(target, spec, algorithm):
        return verify(target, spec, algorithm, Message=MESSAGE + b"!")


@probe("kms-verify-digest", "Verify DIGEST of what was signed RAW", "200", kms_api("Verify", "MessageType"))
def _(target):
    return verify(target, Message=digest_of("256"), MessageType="DIGEST")


@probe("kms-verify-flipped", "Verify of a signature with one bit flipped", "400 KMSInvalidSignatureException", VERIFY)
def _(target):
    good = signature(target)
    return verify(target, Signature=good[:-1] + bytes([good[-1] ^ 1]))


@probe("kms-verify-cut", "Verify of half a signature", "400 KMSInvalidSignatureException", VERIFY)
def _(target):
    return verify(target, Signature=signature(target)[:128])


@probe("kms-verify-other-algorithm", "Verify under another algorithm of the same key", "400 KMSInvalidSignatureException", VERIFY)
def _(target):
    return verify(target, SigningAlgorithm="RSASSA_PSS_SHA_256")


@probe("kms-verify-salt", "PSS has a salt as long as the digest: Verify refuses the longest", SILENT, f"{KMS_SPECS}: the salt length is given for Sign only")
def _(target):
    answer = kms(target).sign(KeyId=key(target, "RSA_2048", "SIGN_VERIFY"), Message=MESSAGE, SigningAlgorithm="RSASSA_PSS_SHA_256")
    public = serialization.load_der_public_key(kms(target).get_public_key(KeyId=key(target, "RSA_2048", "SIGN_VERIFY"))["PublicKey"])
    for name, length in [("32 bytes", 32), ("222 bytes", 222)]:
        try:
            public.verify(answer["Signature"], MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), length), hashes.SHA256())
            return f"a salt of {name}"
        except InvalidSignature:
            pass
    return "a salt of another length"


PUBLIC = kms_api("GetPublicKey", "Response")

for spec, want in [("RSA_2048", "200 RSA_2048 SIGN_VERIFY 6"), ("ECC_NIST_P256", "200 ECC_NIST_P256 SIGN_VERIFY 1"), ("ECC_NIST_P384", "200 ECC_NIST_P384 SIGN_VERIFY 1"),
                   ("ECC_NIST_EDWARDS25519", "200 ECC_NIST_EDWARDS25519 SIGN_VERIFY 2")]:
    @probe(f"kms-public-{spec}".lower(), f"GetPublicKey tells spec, usage and the {want[-1]} algorithms of {spec}", want, f"{PUBLIC}; {KMS_SPECS}", spec=spec)
    def _(target, spec):
        return told(lambda: kms(target).get_public_key(KeyId=key(target, spec, "SIGN_VERIFY")),
                    lambda answer: f"{answer['KeySpec']} {answer['KeyUsage']} {len(answer['SigningAlgorithms'])}")


@probe("kms-public-symmetric", "GetPublicKey of a symmetric key", ("400 UnsupportedOperationException", "400 InvalidKeyUsageException"), kms_api("GetPublicKey", "Errors"))
def _(target):
    return told(lambda: kms(target).get_public_key(KeyId=key(target)))


@probe("kms-public-der", "GetPublicKey answers a DER SubjectPublicKeyInfo", "200", PUBLIC)
def _(target):
    return told(lambda: kms(target).get_public_key(KeyId=key(target, "RSA_2048", "SIGN_VERIFY")), lambda answer: serialization.load_der_public_key(answer["PublicKey"]).key_size == 2048)


# HMAC --------------------------------------------------------------------------------------------------------------------

MAC = kms_api("GenerateMac", "Response")


def mac(target, bits="256", message=MESSAGE):
    """A MAC and the key that made it."""
    one = key(target, f"HMAC_{bits}", "GENERATE_VERIFY_MAC")
    return one, kms(target).generate_mac(KeyId=one, Message=message, MacAlgorithm=f"HMAC_SHA_{bits}")["Mac"]


for bits in ("256", "384", "512"):
    @probe(f"kms-mac-{bits}", f"GenerateMac HMAC_SHA_{bits} answers {int(bits) // 8} bytes, which VerifyMac takes", "200", MAC, bits=bits)
    def _(target, bits):
        one, made_mac = mac(target, bits)
        if len(made_mac) * 8 != int(bits):
            return "a MAC of another length"
        return told(lambda: kms(target).verify_mac(KeyId=one, Message=MESSAGE, Mac=made_mac, MacAlgorithm=f"HMAC_SHA_{bits}"), lambda answer: answer["MacValid"])


@probe("kms-mac-other", "VerifyMac of another message", "400 KMSInvalidMacException", kms_api("VerifyMac", "KMSInvalidMacException"))
def _(target):
    one, made_mac = mac(target)
    return told(lambda: kms(target).verify_mac(KeyId=one, Message=b"other", Mac=made_mac, MacAlgorithm="HMAC_SHA_256"))


@probe("kms-mac-algorithm", "GenerateMac under the algorithm of another key spec", "400 InvalidKeyUsageException", kms_api("GenerateMac", "InvalidKeyUsageException"))
def _(target):
    return told(lambda: kms(target).generate_mac(KeyId=key(target, "HMAC_256", "GENERATE_VERIFY_MAC"), Message=MESSAGE, MacAlgorithm="HMAC_SHA_512"))


@probe("kms-mac-symmetric", "GenerateMac with a key for encryption", "400 InvalidKeyUsageException", kms_api("GenerateMac", "InvalidKeyUsageException"))
def _(target):
    return told(lambda: kms(target).generate_mac(KeyId=key(target), Message=MESSAGE, MacAlgorithm="HMAC_SHA_256"))


@probe("kms-mac-4097", "GenerateMac takes 4096 bytes at most", "400 ValidationException", kms_api("GenerateMac", "Message"))
def _(target):
    return told(lambda: kms(target).generate_mac(KeyId=key(target, "HMAC_256", "GENERATE_VERIFY_MAC"), Message=b"x" * 4097, MacAlgorithm="HMAC_SHA_256"))


@probe("kms-mac-encrypt", "Encrypt with an HMAC key", "400 InvalidKeyUsageException", kms_api("Encrypt", "InvalidKeyUsageException"))
def _(target):
    return told(lambda: kms(target).encrypt(KeyId=key(target, "HMAC_256", "GENERATE_VERIFY_MAC"), Plaintext=b"x"))


# Making keys -------------------------------------------------------------------------------------------------------------

CREATE = kms_api("CreateKey", "KeySpec, KeyUsage")

for name, arguments, want in [
    ("rsa-without-usage", {"KeySpec": "RSA_2048"}, "400 ValidationException"),
    ("hmac-without-usage", {"KeySpec": "HMAC_256"}, "400 ValidationException"),
    ("symmetric-for-signatures", {"KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "SIGN_VERIFY"}, "400 ValidationException"),
    ("unknown-spec", {"KeySpec": "RSA_1024", "KeyUsage": "SIGN_VERIFY"}, "400 ValidationException"),
    ("long-description", {"Description": "x" * 8193}, "400 ValidationException"),
    ("reserved-tag", {"Tags": [{"TagKey": "aws:x", "TagValue": "y"}]}, ("400 TagException", "400 ValidationException")),
    ("same-tag-twice", {"Tags": [{"TagKey": "x", "TagValue": "y"}] * 2}, ("400 TagException", "400 ValidationException")),
    ("policy-no-json", {"Policy": "no policy"}, "400 MalformedPolicyDocumentException"),
]:
    @probe(f"kms-create-{name}", f"CreateKey: {name.replace('-', ' ')}", want, CREATE if "tag" not in name else kms_api("CreateKey", "TagException"), arguments=arguments)
    def _(target, arguments):
        return told(lambda: kms(target).create_key(**arguments))


@probe("kms-create-defaults", "CreateKey without arguments makes a symmetric, enabled, single-Region key", "200 SYMMETRIC_DEFAULT ENCRYPT_DECRYPT Enabled AWS_KMS False", kms_api("CreateKey", "Description"))
def _(target):
    def shown(answer):
        told_ = answer["KeyMetadata"]
        return f"{told_['KeySpec']} {told_['KeyUsage']} {told_['KeyState']} {told_['Origin']} {told_['MultiRegion']}"

    return told(lambda: kms(target).create_key(), shown)


# Who signs ---------------------------------------------------------------------------------------------------------------


def listed(target, **changes):
    return told(lambda: target.client("kms", **(target.somebody() | changes)).list_keys(Limit=1))


@probe("kms-unknown-access-key", "A call with an unknown access key id", ("400 UnrecognizedClientException", "403 UnrecognizedClientException"), KMS_COMMON)
def _(target):
    return listed(target, aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_session_token=None)


@probe("kms-wrong-secret", "A call with a wrong secret", ("400 InvalidSignatureException", "403 InvalidSignatureException"), SIGV4)
def _(target):
    return listed(target, aws_secret_access_key="x" * 40)


@probe("kms-wrong-region", "A call signed for another region", ("400 InvalidSignatureException", "403 InvalidSignatureException"), SIGV4)
def _(target):
    return listed(target, region_name="eu-west-3")


@probe("kms-old", "A call signed sixteen minutes ago", ("400 InvalidSignatureException", "403 InvalidSignatureException"), SIGV4)
def _(target):
    with signed_at(minutes=-16):
        return listed(target)


@probe("kms-early", "A call dated sixteen minutes ahead", ("400 InvalidSignatureException", "403 InvalidSignatureException"), SIGV4)
def _(target):
    with signed_at(minutes=16):
        return listed(target)


@probe("kms-long-term-token", "A long-term key with somebody's session token", ("400 UnrecognizedClientException", "403 UnrecognizedClientException"), KMS_COMMON)
def _(target):
    return listed(target, **(target.keys() | {"aws_session_token": "IQoJb3JpZ2luX2VjEXAMPLE"}))


@probe("kms-unsigned", "A call without any signature", ("400 MissingAuthenticationTokenException", "403 MissingAuthenticationTokenException"), KMS_COMMON)
def _(target):
    answer = send(target.url("kms"), "POST", {"x-amz-target": "TrentService.ListKeys", "content-type": "application/x-amz-json-1.1"}, b"{}", target.ca)
    return f"{answer.status} {answer.text.partition('MissingAuthenticationTokenException')[1]}".strip()


@probe("kms-unknown-operation", "An operation that does not exist", ("400 UnknownOperationException", "404 UnknownOperationException"), KMS_COMMON)
def _(target):
    return target.raw_json("kms", "TrentService.OpenSesame", {})


@probe("kms-request-id", "Every answer has an x-amzn-RequestId", "with one", kms_api("ListKeys", "Examples"))
def _(target):
    headers = kms(target).list_keys(Limit=1)["ResponseMetadata"]["HTTPHeaders"]
    return "with one" if headers.get("x-amzn-requestid") else "without"
