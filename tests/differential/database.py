"""RDS Proxy with IAM authentication: whose token opens it, and whose does not. No emulator here has one but ours."""

import ssl
import socket
import struct

import psycopg

from probes import SILENT, Absent, guide, probe, signed_at

IAM = guide("RDS IAM database authentication", "AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html", "Text")
CONNECTING = guide("RDS connecting with IAM", "AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html", "Token lifetime: 15 minutes; parameters")
PROXY = guide("RDS Proxy and IAM", "AmazonRDS/latest/UserGuide/rds-proxy-iam-setup.html", "Text")
TROUBLE = guide("RDS Proxy troubleshooting", "AmazonRDS/latest/UserGuide/rds-proxy.troubleshooting.html", "PostgreSQL error messages")
REFUSED = "28P01 The IAM authentication failed"


def token(target, user="token", host=None, port=None, **changes):
    """A token as boto3 makes it."""
    if not target.database:
        raise Absent
    proxy = target.database["proxy"]
    client = target.client("rds", endpoint_url=None, **changes)
    return client.generate_db_auth_token(DBHostname=host or proxy["host"], Port=port or proxy["port"], DBUsername=user)


def connected(target, password, user="token", show=None, **more):
    """`connected as USER`, or SQLSTATE and the beginning of what the proxy says, or what `show` makes of the error."""
    proxy = target.database["proxy"]
    arguments = {"host": proxy["host"], "port": proxy["port"], "dbname": target.database["database"], "sslmode": "verify-full", "sslrootcert": target.ca, "connect_timeout": 10}
    try:
        with psycopg.connect(**(arguments | {"user": user, "password": password} | more)) as connection:
            return f"connected as {connection.execute('SELECT current_user').fetchone()[0]}"
    except psycopg.OperationalError as error:
        if show:
            return show(error)
        text = str(error).strip().split("\n")[-1]
        state = getattr(error, "sqlstate", None) or error.diag.sqlstate
        for known in ("The IAM authentication failed", "This RDS Proxy requires TLS connections", "certificate verify failed", "does not match host name"):
            if known in text:
                return f"{state or ('28P01' if known.startswith('The IAM') else '')} {known}".strip()
        return text


def changed(target, change, user="token"):
    """A connection with a token that is changed after it was signed."""
    return connected(target, change(token(target)), user)


@probe("rds-token", "A token opens the proxy for its user", "connected as token", CONNECTING)
def _(target):
    return connected(target, token(target))


@probe("rds-token-role", "A role without rds-db:connect is refused", REFUSED, IAM)
def _(target):
    return connected(target, token(target, **target.role("probe-nothing")))


@probe("rds-token-role-allowed", "A session of a role with it is let in", "connected as token", IAM)
def _(target):
    return connected(target, token(target, **target.role("probe-admin")))


for label, act in {
    "password": lambda target: connected(target, "a password" if target.database else token(target)),
    "other-user": lambda target: connected(target, token(target, "upload")),
    "wrong-secret": lambda target: connected(target, token(target, aws_secret_access_key="x" * 40)),
    "unknown-key": lambda target: connected(target, token(target, aws_access_key_id="AKIAIOSFODNN7EXAMPLE")),
    "other-region": lambda target: connected(target, token(target, region_name="eu-west-3")),
    "other-host": lambda target: connected(target, token(target, host="db.example.com")),
    "other-port": lambda target: connected(target, token(target, port=5432)),
    "stretched": lambda target: changed(target, lambda text: text.replace("X-Amz-Expires=900", "X-Amz-Expires=9000")),
    "signature": lambda target: changed(target, lambda text: text[:-64] + "0" * 64),
    "extra": lambda target: changed(target, lambda text: text + "&more=x"),
    "twice": lambda target: changed(target, lambda text: text.replace("DBUser=token", "DBUser=token&DBUser=upload")),
    "action-case": lambda target: changed(target, lambda text: text.replace("Action=connect", "action=connect")),
    "other-action": lambda target: changed(target, lambda text: text.replace("Action=connect", "Action=describe")),
    "no-token": lambda target: changed(target, lambda text: text.partition("?")[0]),
    "session-token-removed": lambda target: connected(target, without(token(target, **target.role("probe-admin")), "X-Amz-Security-Token")),
    "session-token-of-another": lambda target: connected(target, token(target, **(target.role("probe-admin") | {"aws_session_token": target.role("probe-nothing")["aws_session_token"]}))),
}.items():
    @probe(f"rds-{label}", f"A connection with a token that is not good: {label.replace('-', ' ')}", REFUSED, f"{CONNECTING}; {TROUBLE}", act=act)
    def _(target, act):
        return act(target)


def without(text, parameter):
    """A token without one of its parameters."""
    start, _, query = text.partition("?")
    return start + "?" + "&".join(pair for pair in query.split("&") if not pair.startswith(parameter))


for label, minutes, want in [("14-minutes", -14, "connected as token"), ("16-minutes", -16, REFUSED), ("ahead", 20, REFUSED)]:
    @probe(f"rds-age-{label}", f"A token of {abs(minutes)} minutes {'ago' if minutes < 0 else 'ahead'} (it is good for fifteen)", want, CONNECTING, minutes=minutes)
    def _(target, minutes):
        with signed_at(minutes=minutes):
            made = token(target)
        return connected(target, made)


@probe("rds-no-tls", "A connection without TLS", "28000 This RDS Proxy requires TLS connections", f"{TROUBLE}; {PROXY}")
def _(target):
    said = connected(target, token(target), sslmode="disable")
    return "28000 " + said if said.startswith("This RDS") else said


@probe("rds-other-authority", "A client that believes another authority hangs up", "certificate verify failed", guide("RDS Proxy TLS", "AmazonRDS/latest/UserGuide/rds-proxy.howitworks.html", "TLS"))
def _(target):
    import certifi
    made = token(target)
    return connected(target, made, sslrootcert=certifi.where())


def raw(target, startup):
    """What the proxy says to a startup message, over TLS."""
    if not target.database:
        raise Absent
    proxy = target.database["proxy"]
    with socket.create_connection((proxy["host"], proxy["port"]), timeout=10) as plain:
        plain.sendall(struct.pack("!ii", 8, 80877103))
        if plain.recv(1) != b"S":
            return "no TLS"
        context = ssl.create_default_context(cafile=target.ca)
        with context.wrap_socket(plain, server_hostname=proxy["host"]) as secure:
            secure.sendall(startup)
            said = secure.recv(4096)
    if said[:1] == b"E":
        fields = {field[:1]: field[1:].decode() for field in said[5:].split(b"\0") if field}
        return f"{fields.get(b'S')} {fields.get(b'C')}"
    if said[:1] == b"R":
        return f"authentication {struct.unpack('!i', said[5:9])[0]}"
    return f"{said[:1]!r}"


def startup(version=196608, **parameters):
    """A startup message."""
    body = struct.pack("!i", version) + b"".join(name.encode() + b"\0" + value.encode() + b"\0" for name, value in parameters.items()) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


@probe("rds-cleartext", "The proxy asks for the token as a cleartext password, over TLS alone", "authentication 3", CONNECTING)
def _(target):
    return raw(target, startup(user="token", database="portcullis"))


@probe("rds-protocol-2", "What is said to a protocol that is not 3.0", SILENT, TROUBLE)
def _(target):
    return raw(target, startup(131072, user="token"))


@probe("rds-no-user", "What is said to a startup message without a user", SILENT, TROUBLE)
def _(target):
    return raw(target, startup(database="portcullis"))


@probe("rds-replication", "A replication connection", SILENT, TROUBLE)
def _(target):
    return raw(target, startup(user="token", database="portcullis", replication="true"))
