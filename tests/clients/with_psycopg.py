"""psycopg through the database proxy: the extended protocol, and the same refusals."""

import psycopg

from database import ADDRESS, REFUSED, SAFE, TIMED_OUT, bad_passwords, without_connections
from stack import Report, database_token, version

report = Report("psycopg", f"{version('psycopg')} with libpq {psycopg.pq.version()}")


def connect(password, user="token", **changes):
    return psycopg.connect(**(ADDRESS | SAFE | {"user": user, "password": password, "connect_timeout": 10} | changes))


def refusal(password, **changes):
    """The proxy's sentence, or what came in its place."""
    try:
        with connect(password, **changes):
            return "connected"
    except psycopg.OperationalError as error:
        return next((known for known in (REFUSED, "requires TLS") if known in str(error)), str(error)[-200:])


good = database_token("token")
with connect(good) as connection:
    row = connection.execute("SELECT api.client_for_token(%s) -> 'client' ->> 'tenant'", ["acme-backend"]).fetchone()
    report.row("a function with a bound parameter", ("acme",), row)
    report.holds("over TLS", connection.pgconn.ssl_in_use)
    connection.rollback()
    try:
        connection.execute("SELECT * FROM public.clients WHERE client_id = %s", ["acme-backend"])
        said = "read"
    except psycopg.errors.InsufficientPrivilege as error:
        said = error.diag.sqlstate
    report.row("a table with a bound parameter", "42501", said)
report.row("sslmode=disable", "requires TLS", refusal(good, sslmode="disable"))
for what, password in bad_passwords().items():
    report.row(what, REFUSED, refusal(password))

# No database connection was free for a statement within the proxy's ConnectionBorrowTimeout.
with without_connections() as lend_nothing:
    place, token = lend_nothing()
    connection = connect(token, **place)
    try:
        connection.execute("SELECT %s", [1])
        said = "answered"
    except psycopg.OperationalError as error:
        said = f"{type(error).__name__} {error.sqlstate} {error.diag.message_primary}"
    report.row("nothing to lend in time", f"ConnectionException 08000 {TIMED_OUT}", said)
    report.holds("the connection is known as broken, not as idle", connection.broken and connection.closed)
    with connect(token, **place) as connection:
        row = connection.execute("SELECT api.client_for_token(%s) -> 'client' ->> 'tenant'", ["acme-backend"]).fetchone()
    report.row("the next one is as before", ("acme",), row)
report.end()
