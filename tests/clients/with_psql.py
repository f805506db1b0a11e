"""psql through the database proxy, with IAM tokens for passwords."""

import os
import subprocess

from database import ADDRESS, REFUSED, SAFE, TIMED_OUT, bad_passwords, without_connections
from stack import Report, database_token

said = subprocess.run(["psql", "--version"], capture_output=True, text=True, check=True).stdout
report = Report("psql", said.split()[2])


def run(statements, password, user="token", **changes):
    """psql and what became of it."""
    address = " ".join(f"{name}={value}" for name, value in (ADDRESS | SAFE | {"user": user} | changes).items())
    words = ["psql", "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--quiet", "--set=VERBOSITY=verbose"]
    words += [word for statement in statements for word in ("--command", statement)]
    return subprocess.run([*words, address], env=os.environ | {"PGPASSWORD": password}, capture_output=True, text=True, timeout=30)


def psql(statement, password, user="token", **changes):
    """What psql printed, or its complaint in few words."""
    done = run([statement], password, user, **changes)
    if done.returncode == 0:
        return done.stdout.strip()
    for known in (REFUSED, "requires TLS", "permission denied", "certificate verify failed", "password authentication failed"):
        if known in done.stderr:
            return known
    return done.stderr.strip()[-200:]


good = database_token("token")
report.row("a login by token", "token", psql("SELECT current_user", good))
report.row("TLS, and the server's name verified", "t", psql("SELECT true", good))
report.row("the login may call its own function", "acme", psql("SELECT api.client_for_token('acme-backend') -> 'client' ->> 'tenant'", good))
for what, statement in {
    "and touch no table": "SELECT * FROM public.clients",
    "nor write one": "INSERT INTO public.tenants (tenant) VALUES ('mine')",
    "nor call another login's function": "SELECT api.trust_snapshot(0)",
    "nor an internal one": "SELECT internal.across_tenants(true)",
    "nor make a table": "CREATE TABLE public.mine (x int)",
    "nor become the owner": "SET ROLE portcullis_owner",
}.items():
    report.row(what, "permission denied", psql(statement, good))
report.row("sslmode=disable", "requires TLS", psql("SELECT 1", good, sslmode="disable"))
report.row("an authority that is not the stack's: psql hangs up", "certificate verify failed",
           psql("SELECT 1", good, sslrootcert=os.environ["PORTCULLIS_OTHER_CA"]))
for what, password in bad_passwords().items():
    report.row(what, REFUSED, psql("SELECT 1", password))
report.row("the superuser by token", REFUSED, psql("SELECT 1", database_token("postgres"), user="postgres"))
report.row("a login that does not exist", REFUSED, psql("SELECT 1", database_token("nobody"), user="nobody"))

# No database connection was free for a statement within the proxy's ConnectionBorrowTimeout.
with without_connections() as lend_nothing:
    place, token = lend_nothing()
    done = run(["SELECT 1", "SELECT 'went on'"], token, **place)
    said = done.stderr.splitlines()
    report.row("nothing to lend in time: the proxy's words", f"FATAL:  08000: {TIMED_OUT}", said[0] if said else "nothing")
    report.row("psql has lost its connection, and says no more of its script", (2, ""), (done.returncode, done.stdout.strip()))
    report.row("the next psql, with the same token, is as before", "token", psql("SELECT current_user", token, **place))
    place, token = lend_nothing("db.token borrow")
    every = [run(["SELECT 1"], token, **place) for _ in range(3)]
    report.row("while it lasts, every login is let in and every statement refused", [2] * 3, [done.returncode for done in every])
    place, token = lend_nothing("")
    report.row("and nothing of it stays", "acme", psql("SELECT api.client_for_token('acme-backend') -> 'client' ->> 'tenant'", token, **place))
report.end()
