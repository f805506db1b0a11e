"""psql through the database proxy, with IAM tokens for passwords."""

import os
import subprocess

from database import ADDRESS, REFUSED, SAFE, bad_passwords
from stack import Report, database_token

said = subprocess.run(["psql", "--version"], capture_output=True, text=True, check=True).stdout
report = Report("psql", said.split()[2])


def psql(statement, password, user="token", **changes):
    """What psql printed, or its complaint in few words."""
    address = " ".join(f"{name}={value}" for name, value in (ADDRESS | SAFE | {"user": user} | changes).items())
    words = ["psql", "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--quiet", "--command", statement, address]
    done = subprocess.run(words, env=os.environ | {"PGPASSWORD": password}, capture_output=True, text=True, timeout=30)
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
report.end()
