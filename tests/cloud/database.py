"""A real Postgres, and the door in front of it that MiniStack has none of.

On AWS the door is RDS Proxy (or the instance's own IAM authentication). Here it is 100 lines that decide nothing by themselves:
whether a token's signature holds, and whose it is, MiniStack says (the token *is* a signed request, so it is sent there); whether
that role may connect as that login, MiniStack's IAM says about the deployed policy.
"""

import os
import re
import select
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import parse_qsl

from cloud import ACCOUNT, REGION
from processes import Program

NOBODY = 65534
SSL_REQUEST = 80877103
SETTINGS = """
listen_addresses = ''
unix_socket_permissions = 0777
fsync = off
synchronous_commit = off
full_page_writes = off
logging_collector = off
log_min_messages = warning
timezone = 'UTC'
"""
# As RDS gives a fresh instance to its owner, who is no superuser.
SEED = [
    "CREATE ROLE rds_iam NOLOGIN",
    "CREATE ROLE portcullis_owner LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOBYPASSRLS NOREPLICATION",
    "GRANT rds_iam TO portcullis_owner WITH ADMIN OPTION",
    "CREATE DATABASE portcullis OWNER portcullis_owner",
]


class Postgres:
    """A server of its own on a unix socket and nowhere else."""

    def __init__(self, checkout):
        self.bin = find(checkout)
        # Root's Postgres runs as somebody who may not be able to reach the checkout; and a socket's path is short.
        self.home = Path(tempfile.mkdtemp(prefix="portcullis-cloud-", dir="/tmp"))
        self.home.chmod(0o711)
        self.data, self.sockets = self.home / "data", self.home / "s"
        self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        self.env = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LANG": "C", "LC_ALL": "C"}
        self.program = None
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self):
        for folder in [self.data, self.sockets]:
            folder.mkdir(mode=0o700)
            if self.user:
                os.chown(folder, NOBODY, NOBODY)
        # Others (the door) reach the socket through the folder.
        self.sockets.chmod(0o711)
        initdb = [
            self.bin / "initdb",
            "-D",
            self.data,
            "-U",
            "postgres",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        subprocess.run(initdb, check=True, env=self.env, cwd="/", stdout=subprocess.DEVNULL, **self.user)
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(SETTINGS + f"unix_socket_directories = '{self.sockets}'\n")
        (self.data / "pg_hba.conf").write_text("local all all trust\n")
        self.program = Program(
            [self.bin / "postgres", "-D", self.data],
            self.home / "postgres.log",
            self.env,
            "INT",
            10,
            cwd="/",
            **self.user,
        )
        end = time.monotonic() + 20
        while self._socket_refuses():
            if self.program.ended() or time.monotonic() > end:
                raise RuntimeError(f"Postgres did not start:\n{self.program.said()}")
            time.sleep(0.02)
        for statement in SEED:
            self.run(statement, "postgres")

    def _socket_refuses(self):
        try:
            self.run("SELECT 1", "postgres")
        except (OSError, ServerRefused):
            return True
        return False

    def run(self, statement, database="portcullis"):
        """Runs one statement as the superuser and answers the rows as text."""
        with self.connect() as plain:
            plain.sendall(startup({"user": "postgres", "database": database}))
            self._until_ready(plain)
            plain.sendall(message(b"Q", statement.encode() + b"\0"))
            return self._until_ready(plain)

    @staticmethod
    def _until_ready(plain):
        rows = []
        while True:
            kind, body = receive(plain)
            if kind == b"D":
                rows.append(columns(body))
            elif kind == b"E":
                raise ServerRefused(body.replace(b"\0", b" ").decode(errors="replace"))
            elif kind == b"Z":
                return rows

    def connect(self):
        """A connection to the socket."""
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(10)
        plain.connect(str(self.sockets / ".s.PGSQL.5432"))
        return plain

    def stop(self):
        """Ends it and removes what it kept."""
        if self.program:
            self.program.stop()
        shutil.rmtree(self.home, ignore_errors=True)


class ServerRefused(Exception):
    """What the server said."""


class Door:
    """TLS and an IAM token in front of Postgres, as one RDS Proxy or one instance."""

    def __init__(self, cloud, postgres, authority, resource_id):
        self.cloud, self.postgres, self.resource_id = cloud, postgres, resource_id
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.tls.load_cert_chain(*authority.certificate(resource_id, ["localhost"]))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = "localhost", self.listener.getsockname()[1]
        # (login, verdict) of every attempt.
        self.attempts = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        """Takes nobody in any more."""
        self.listener.close()

    def _accept(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain):
        plain.settimeout(20)
        try:
            if struct.unpack("!II", exactly(plain, 8)) != (8, SSL_REQUEST):
                return
            plain.sendall(b"S")
            with self.tls.wrap_socket(plain, server_side=True) as client:
                length = struct.unpack("!I", exactly(client, 4))[0]
                parameters = exactly(client, length - 4)[4:].split(b"\0")
                parameters = dict(zip(parameters[0::2], parameters[1::2]))
                login = parameters.get(b"user", b"").decode()
                client.sendall(message(b"R", struct.pack("!I", 3)))
                kind, password = receive(client)
                verdict = self.judge(password.rstrip(b"\0").decode(), login) if kind == b"p" else "no password"
                self.attempts.append((login, verdict))
                if verdict != "allowed":
                    fields = b"SFATAL\0C28000\0M" + f'PAM authentication failed for user "{login}"'.encode() + b"\0\0"
                    client.sendall(message(b"E", fields))
                    return
                with self.postgres.connect() as server:
                    server.sendall(
                        startup({name.decode(): value.decode() for name, value in parameters.items() if name})
                    )
                    carry(client, server)
        except (OSError, struct.error, EOFError):
            plain.close()

    def judge(self, token, login):
        """`allowed`, or why not."""
        target, _, query = token.partition("/?")
        asked = dict(parse_qsl(query))
        if target != f"{self.host}:{self.port}":
            return "for another host"
        if (
            asked.get("Action") != "connect"
            or asked.get("DBUser") != login
            or int(asked.get("X-Amz-Expires", "901")) > 900
        ):
            return "for something else"
        # An authentic token gets as far as IAM, which has not heard of anything this login may do there and says who asked.
        status, _, body = self.cloud.raw("GET", f"/?{query}", {"Host": target})
        body = body.decode(errors="replace")
        who = re.search(rf"arn:aws:sts::{ACCOUNT}:assumed-role/([\w+=,.@-]+)/", body)
        if status != 403 or "AccessDenied" not in body or not who:
            code = re.search(r"<Code>(\w+)</Code>", body)
            return f"not authentic: {code.group(1) if code else status}"
        resource = f"arn:aws:rds-db:{REGION}:{ACCOUNT}:dbuser:{self.resource_id}/{login}"
        result = self.cloud.client("iam").simulate_principal_policy(
            PolicySourceArn=f"arn:aws:iam::{ACCOUNT}:role/{who.group(1)}",
            ActionNames=["rds-db:connect"],
            ResourceArns=[resource],
        )
        decision = result["EvaluationResults"][0]["EvalDecision"]
        return "allowed" if decision == "allowed" else f"{who.group(1)}: {decision}"


def carry(client, server):
    """Carries bytes both ways until one side ends. One thread: a TLS connection is not for two."""
    client.settimeout(None)
    server.settimeout(None)
    while True:
        ready = [client] if client.pending() else select.select([client, server], [], [])[0]
        for source, sink in [(client, server), (server, client)]:
            if source in ready:
                data = source.recv(65536)
                if not data:
                    return
                sink.sendall(data)


def startup(parameters):
    """The first message of a client."""
    body = (
        struct.pack("!I", 196608)
        + b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
        + b"\0"
    )
    return struct.pack("!I", len(body) + 4) + body


def message(kind, body):
    """A message."""
    return kind + struct.pack("!I", len(body) + 4) + body


def receive(source):
    """The next message: kind and body."""
    kind = exactly(source, 1)
    return kind, exactly(source, struct.unpack("!I", exactly(source, 4))[0] - 4)


def exactly(source, length):
    """So many bytes."""
    data = b""
    while len(data) < length:
        more = source.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def columns(body):
    """The values of a row."""
    count, at, values = struct.unpack("!H", body[:2])[0], 2, []
    for _ in range(count):
        length = struct.unpack("!i", body[at : at + 4])[0]
        at += 4
        values.append(None if length < 0 else body[at : at + length].decode())
        at += max(length, 0)
    return values


def find(checkout):
    """Where Postgres' programs are: as scripts/need-postgres looks for them."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: -int(place.parent.name))
    places.append(checkout / ".local/postgres/bin")
    on_path = shutil.which("postgres")
    places += [Path(on_path).resolve().parent] if on_path else []
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise RuntimeError("no Postgres: scripts/need-postgres")
