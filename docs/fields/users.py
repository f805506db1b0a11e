"""Users with encrypted e-mail addresses. Needs requests, PyJWT with cryptography, and psycopg 3."""

import base64
import secrets
import time
import uuid

import jwt
import requests

# How the column is indexed. Writers and searches must agree for good, so it stands here and nowhere else.
EMAIL = {"table": "users", "column": "email"}
INDEX = {"normalisation": "nfc_casefold", "bits": 10, "partitions": 1}
BATCH = 500


class Failed(Exception):
    """An item that will fail again: the code says why (docs/errors.md)."""


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Fields:
    """The gate's field operations, in batches, with the token that they need."""

    def __init__(self, gateway, client_id, key, kid, http=None):
        self.gateway, self.client_id, self.key, self.kid = gateway, client_id, key, kid
        self.http = http or requests.Session()
        self.token, self.until = None, 0.0

    def bearer(self):
        """An access token, asked for again half a minute before it ends."""
        if time.time() > self.until:
            now = int(time.time())
            claims = {"iss": self.client_id, "sub": self.client_id, "aud": self.gateway, "jti": str(uuid.uuid4()),
                      "iat": now, "exp": now + 60}
            assertion = jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": self.kid})
            form = {"grant_type": "client_credentials", "client_assertion": assertion,
                    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
            answer = self.http.post(f"{self.gateway}/oauth2/token", data=form, timeout=20)
            answer.raise_for_status()
            self.token, self.until = answer.json()["access_token"], now + answer.json()["expires_in"] - 30
        return self.token

    def ask(self, operation, items, member):
        """What each item was asked for, in order. Sends again what may succeed later, and gives up after five attempts."""
        done = [None] * len(items)
        waiting = list(range(len(items)))
        for attempt in range(5):
            failed, pause = [], 2**attempt / 10 * (1 + secrets.randbelow(100) / 100)
            for start in range(0, len(waiting), BATCH):
                part = waiting[start:start + BATCH]
                # The place in the list is the reference: an answer is matched by it and not by luck.
                body = {"items": [items[at] | {"ref": str(at)} for at in part]}
                answer = self.http.post(f"{self.gateway}/fields/{operation}", json=body, timeout=20,
                                        headers={"authorization": f"Bearer {self.bearer()}"})
                if answer.status_code in (429, 503):
                    pause = max(pause, float(answer.headers.get("retry-after", 1)))
                    failed += part
                    continue
                if answer.status_code not in (200, 207):
                    raise Failed(answer.json().get("code", answer.status_code))
                for item in answer.json()["items"]:
                    if item["ok"]:
                        done[int(item["ref"])] = item[member]
                    elif item["error"]["retryable"]:
                        failed.append(int(item["ref"]))
                    else:
                        raise Failed(item["error"]["code"])
            if not failed:
                return done
            waiting = sorted(failed)
            time.sleep(pause)
        raise Failed("unavailable")

    def encrypt(self, fields):
        """Records of (row, value) pairs."""
        items = [EMAIL | {"row": str(row), "plaintext": encoded(value.encode())} for row, value in fields]
        return [decoded(record) for record in self.ask("encrypt", items, "record")]

    def decrypt(self, fields):
        """Values of (row, record) pairs."""
        items = [EMAIL | {"row": str(row), "record": encoded(record)} for row, record in fields]
        return [decoded(value).decode() for value in self.ask("decrypt", items, "plaintext")]

    def index(self, values):
        """All entries of each value, one for each partition: store any one of them, search for all."""
        items = [EMAIL | INDEX | {"value": encoded(value.encode())} for value in values]
        return [[decoded(entry) for entry in entries] for entries in self.ask("index", items, "index")]


class Users:
    """The table."""

    def __init__(self, database, fields):
        self.database, self.fields = database, fields

    def sealed(self, users):
        """The columns of (id, address) pairs."""
        records = self.fields.encrypt(users)
        entries = self.fields.index([email for _, email in users])
        return [(record, secrets.choice(some)) for record, some in zip(records, entries, strict=True)]

    def create(self, name, email):
        """A new user. The row has its number before it is written: the record is bound to it."""
        (row,) = self.database.execute("SELECT nextval(pg_get_serial_sequence('users', 'id'))").fetchone()
        ((record, entry),) = self.sealed([(row, email)])
        self.database.execute("INSERT INTO users (id, name, email_sealed, email_index) VALUES (%s, %s, %s, %s)",
                              (row, name, record, entry))
        return row

    def change(self, row, email):
        """Another address."""
        ((record, entry),) = self.sealed([(row, email)])
        self.database.execute("UPDATE users SET email_sealed = %s, email_index = %s WHERE id = %s", (record, entry, row))

    def email(self, row):
        """The address of a user."""
        (record,) = self.database.execute("SELECT email_sealed FROM users WHERE id = %s", (row,)).fetchone()
        return self.fields.decrypt([(row, record)])[0]

    def find(self, email):
        """The users with this address. Entries match more than they mean: what was found is decrypted and compared."""
        (entries,) = self.fields.index([email])
        found = self.database.execute("SELECT id, email_sealed FROM users WHERE email_index = ANY (%s)", (entries,)).fetchall()
        emails = self.fields.decrypt(found)
        return [row for (row, _), there in zip(found, emails, strict=True) if there.casefold() == email.casefold()]

    def fill(self):
        """Encrypts what an older table has in clear. May be stopped anywhere and run again: a row is done when its clear text is
        gone, and one that somebody changed meanwhile is left for the next round."""
        done = 0
        while True:
            rows = self.database.execute(
                "SELECT id, email FROM users WHERE email IS NOT NULL ORDER BY id LIMIT %s", (BATCH,)).fetchall()
            if not rows:
                return done
            sealed = self.sealed(rows)
            # What was written must be readable before the only other copy goes.
            if self.fields.decrypt([(row, record) for (row, _), (record, _) in zip(rows, sealed, strict=True)]) != [email for _, email in rows]:
                raise Failed("not what was sealed")
            for (row, email), (record, entry) in zip(rows, sealed, strict=True):
                changed = self.database.execute(
                    "UPDATE users SET email_sealed = %s, email_index = %s, email = NULL WHERE id = %s AND email = %s",
                    (record, entry, row, email))
                done += changed.rowcount
