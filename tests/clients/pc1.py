"""The record format pc1 and the blind index, written from docs/formats and from nothing else, on the package `cryptography`."""

import hmac
import unicodedata
import uuid
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

INFO = b"pc1\x01"
NONCE = bytes(11) + b"\x01"
SHORTEST, LONGEST = 97, 65_633


class Refused(Exception):
    """A record that does not open; why is nobody's business."""


def pairs(**values):
    """Pairs of a key and a value, sorted by key, each with its length before it."""
    out = len(values).to_bytes(2, "big")
    for key, value in sorted(values.items()):
        for part in (key.encode(), value.encode()):
            out += len(part).to_bytes(2, "big") + part
    return out


def context(tenant, table, column, row, version=None):
    """The place of a field."""
    place = {"tenant": tenant, "table": table, "column": column, "row": row}
    return pairs(**place, **({} if version is None else {"version": str(version)}))


def keys(data_key, message_id):
    """The key of a record, and its commitment."""
    okm = HKDF(SHA512(), 64, salt=message_id, info=INFO + b"KEYCOMMIT").derive(data_key)
    return okm[:32], okm[32:]


def seal(data_key, data_key_id, message_id, place, plaintext):
    """A record."""
    key, commitment = keys(data_key, message_id)
    head = b"\x01" + data_key_id.bytes + message_id
    return head + commitment + AESGCM(key).encrypt(NONCE, plaintext, head + place)


def key_id(record):
    """The data key that a record names."""
    if not SHORTEST <= len(record) <= LONGEST or record[0] != 1:
        raise Refused
    return uuid.UUID(bytes=record[1:17])


def open_(data_key, record, place):
    """The plaintext of a record."""
    key_id(record)
    key, commitment = keys(data_key, record[17:49])
    if not hmac.compare_digest(commitment, record[49:81]):
        raise Refused
    try:
        return AESGCM(key).decrypt(NONCE, record[81:], record[:49] + place)
    except InvalidTag:
        raise Refused from None


def normalised(value, how):
    """The one form of a value that is searched."""
    if how == "exact":
        return value
    text = value.decode()
    if how == "nfc_casefold":
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).encode()
    digits = "".join(character for character in text if "0" <= character <= "9")
    if not digits or any(character.isnumeric() and not "0" <= character <= "9" for character in text):
        raise Refused
    return digits.encode()


def entry(index_key, index_key_id, place, value, bits, partition=0):
    """An entry of a blind index; `place` has tenant, table and column."""
    key = HKDF(SHA512(), 32, salt=index_key_id.bytes, info=INFO + b"INDEXKEY" + pairs(**place)).derive(index_key)
    whole = hmac.digest(key, bytes([partition]) + value, sha256)[: -(-bits // 8)]
    return whole[:-1] + bytes([whole[-1] & (0xFF << (-bits % 8) & 0xFF)])
