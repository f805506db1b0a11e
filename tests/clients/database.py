"""The passwords that the database proxy must take and refuse, for whichever client presents them."""

import contextlib
import os
import sys
from pathlib import Path

from stack import MANIFEST, aws, database_token, signed_ago

sys.path.append(str(Path(__file__).resolve().parents[1] / "differential"))

PROXY = MANIFEST["postgres"]["proxy"]
DATABASE = MANIFEST["postgres"]["database"]
ADDRESS = {"host": PROXY["host"], "port": str(PROXY["port"]), "dbname": DATABASE}
SAFE = {"sslmode": "verify-full", "sslrootcert": MANIFEST["ca_file"]}
REFUSED = "The IAM authentication failed for the role"
# What AWS documents for a client that had no database connection within the proxy's ConnectionBorrowTimeout.
TIMED_OUT = "Timed-out waiting to acquire database connection."


@contextlib.contextmanager
def without_connections():
    """A second stack, for the faults that nobody else is to meet, and how to make its proxy lend nothing for the next statement.

    Yields that: a function that answers where the proxy is and a token for it."""
    from targets import Ours

    first = Ours(os.environ["PORTCULLIS_MANIFEST"])

    def lend_nothing(faults="db.token borrow first=1"):
        beside = first.struck(faults)
        proxy = beside.database["proxy"]
        address = {"host": proxy["host"], "port": str(proxy["port"]), "dbname": beside.database["database"]}
        token = beside.client("rds", endpoint_url=None).generate_db_auth_token(
            DBHostname=proxy["host"], Port=proxy["port"], DBUsername="token")
        return address | {"sslmode": "verify-full", "sslrootcert": beside.ca}, token

    try:
        yield lend_nothing
    finally:
        first.stop()


def bad_passwords():
    """What no login may enter with."""
    with signed_ago(minutes=16):
        expired = database_token("token")
    fresh = database_token("token")
    other = f"{PROXY['host']}:{PROXY['port'] + 1}"
    stranger = aws("rds", endpoint_url=None, aws_secret_access_key="x" * 40)
    return {
        "an expired token, signed 16 minutes ago": expired,
        "its life stretched by hand": expired.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"),
        "another user's token": database_token("upload"),
        "another user written in": database_token("upload").replace("DBUser=upload", "DBUser=token"),
        "a token for another port": database_token("token", Port=PROXY["port"] + 1),
        "that one, readdressed": database_token("token", Port=PROXY["port"] + 1).replace(other, other[:-len(str(PROXY['port']))] + str(PROXY["port"])),
        "a token for another region": database_token("token", Region="eu-west-1"),
        "a token signed with a wrong secret": stranger.generate_db_auth_token(
            DBHostname=PROXY["host"], Port=PROXY["port"], DBUsername="token"),
        "one digit of the signature changed": fresh[:-1] + ("0" if fresh[-1] != "0" else "1"),
        "a plain password": "correct horse battery staple",
    }
