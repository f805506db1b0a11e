"""docs/fields: the users of the recipe, with a database and the running gate, in Python, in Rust and as far as it goes in PHP."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg

from stack import CA, CLIENTS, GATEWAY, MANIFEST, Report, private_key, session

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "docs" / "fields"
sys.path.insert(0, str(RECIPE))
import users  # noqa: E402

report = Report("recipe", "Python")
ME = "acme-backend"
KEY, KID = private_key(ME), CLIENTS[ME]["kid"]
ADMIN = MANIFEST["postgres"]["admin_url"]

with psycopg.connect(ADMIN, autocommit=True) as owner:
    owner.execute("DROP DATABASE IF EXISTS recipe")
    owner.execute("CREATE DATABASE recipe")
database = psycopg.connect(ADMIN, dbname="recipe", autocommit=True)
database.execute((RECIPE / "schema.sql").read_text())
fields = users.Fields(GATEWAY, ME, KEY, KID, session())
table = users.Users(database, fields)

# From nothing
ada = table.create("Ada", "Ada@Example.com")
others = [table.create(f"User {n}", f"user{n}@example.com") for n in range(20)]
report.row("a new user's address comes back", "Ada@Example.com", table.email(ada))
report.row("and is found, whatever its case", [ada], table.find("ADA@example.COM"))
report.row("an address that nobody has", [], table.find("nobody@example.com"))
table.change(ada, "ada@lovelace.example")
report.row("a changed address is found by its new form alone", ([ada], []), (table.find("ada@lovelace.example"), table.find("ada@example.com")))
stored = database.execute("SELECT email, email_sealed, email_index FROM users").fetchall()
text = b"".join(sealed + entry for _, sealed, entry in stored)
report.holds("nothing of an address is in the table", all(email is None for email, _, _ in stored) and b"example" not in text.lower())
report.row("a record is 97 bytes longer than the address", 97 + len("ada@lovelace.example"),
           database.execute("SELECT octet_length(email_sealed) FROM users WHERE id = %s", (ada,)).fetchone()[0])
database.execute("UPDATE users SET email_sealed = (SELECT email_sealed FROM users WHERE id = %s) WHERE id = %s", (ada, others[0]))
try:
    swapped = table.email(others[0])
except users.Failed as failed:
    swapped = str(failed)
report.row("somebody else's record in a row of his own choice", "decrypt_failed", swapped)
table.change(others[0], "user0@example.com")

# What was in clear before
rows = [(f"Old {n}", f"old{n % 1200}@example.com") for n in range(1_300)]
with database.cursor() as cursor:
    cursor.executemany("INSERT INTO users (name, email) VALUES (%s, %s)", rows)
clear = "SELECT count(*) FROM users WHERE email IS NOT NULL"


class Stopped(Exception):
    """The program was killed here."""


def stop_after(updates):
    """A database whose connection is lost after some updates."""
    class Lost:
        left = updates

        def execute(self, statement, parameters=()):
            if statement.startswith("UPDATE"):
                if self.left == 0:
                    raise Stopped
                self.left -= 1
            return database.execute(statement, parameters)
    return Lost()


try:
    users.Users(stop_after(700), fields).fill()
except Stopped:
    pass
report.row("filling, killed in the middle: rows left", 600, database.execute(clear).fetchone()[0])
report.row("and run again: rows filled", 600, table.fill())
report.row("rows left in clear", 0, database.execute(clear).fetchone()[0])
report.row("addresses found, one of two users and one of one", (2, 1), (len(table.find("OLD7@example.com")), len(table.find("old1199@example.com"))))
every = database.execute("SELECT id, name, email_sealed FROM users WHERE name LIKE 'Old %%' ORDER BY id").fetchall()
opened = fields.decrypt([(row, sealed) for row, _, sealed in every])
report.holds("all 1,300 read as what they were", opened == [email for _, email in rows])

# Rust, in the same table: docs/fields/users.rs is compiled with the workspace
arguments = [GATEWAY, ME, CLIENTS[ME]["private_key_file"], KID, CA, ADMIN.replace(f"/{MANIFEST['postgres']['database']}?", "/recipe?")]
ran = subprocess.run([ROOT / "target/debug/recipe-users", *arguments], capture_output=True, text=True, timeout=120, check=False)
row, *answer = json.loads(ran.stdout) if ran.returncode == 0 else [0, ran.stderr.splitlines()[:3]]
want = ["Grace@Example.org", True, 0, True, True, "decrypt_failed"]
report.row("Rust: made, read, found, changed; 601 fields out and in; a swapped record", want, answer)
report.row("what Rust wrote, Python reads and finds", ("hopper@example.org", [row]), (table.email(row), table.find("HOPPER@example.org")) if row else ran.stderr)
database.close()

# PHP, as far as this machine has it
if shutil.which("php"):
    program = """
        require $argv[1];
        $fields = new Fields($argv[2], $argv[3], file_get_contents($argv[4]), $argv[5], $argv[6]);
        $values = array_map(fn (int $n): string => "User$n@Example.com", range(0, 600));
        $rows = array_map(fn (int $n, string $value): array => ['row' => (string) $n, 'value' => $value], array_keys($values), $values);
        $records = $fields->encrypt($rows);
        $sealed = array_map(fn (int $n, string $record): array => ['row' => (string) $n, 'record' => $record], array_keys($values), $records);
        $entries = $fields->index(['user7@example.com', $values[7], $values[8]]);
        try {
            $fields->decrypt([['row' => '8', 'record' => $records[7]]]);
            $swapped = 'opened';
        } catch (Failed $failed) {
            $swapped = $failed->getMessage();
        }
        echo json_encode([$fields->decrypt($sealed) === $values, $entries[0] === $entries[1], bin2hex($entries[1][0]), $swapped]);
    """
    arguments = [str(RECIPE / "Users.php"), GATEWAY, ME, CLIENTS[ME]["private_key_file"], KID, CA]
    ran = subprocess.run(["php", "-n", "-d", "display_errors=stderr", "-r", program, "--", *arguments], capture_output=True, text=True, timeout=120, check=False)
    answer = json.loads(ran.stdout) if ran.returncode == 0 and ran.stdout else ran.stderr.splitlines()[:3]
    entry = fields.index(["user7@example.com"])[0][0].hex()
    report.row("PHP: 601 fields out and in, search entries, a swapped record", [True, True, entry, "decrypt_failed"], answer)
else:
    print("  (no PHP on this machine: its recipe is not run)")
report.end()
