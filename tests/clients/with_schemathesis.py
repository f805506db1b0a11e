"""schemathesis: requests that nobody here thought of, made from the OpenAPI document, and answers held to it.

What it finds stands in schemathesis.md with a reason, or is a failure; so is a row of that page that it no longer finds.
PORTCULLIS_SCHEMATHESIS=N (make schemathesis) goes on with N other seeds, in which only what has no reason fails.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from stack import CA, GATEWAY, Report, token, version

HERE = Path(__file__).parent
DOCUMENT = HERE.parent.parent / "infra/aws/openapi.yaml"
SEED = 20261122


def explained(every):
    """The rows of the page: check and operation; without `every` only those of the everyday run."""
    rows = set()
    for line in (HERE / "schemathesis.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ST") and (every or "other seeds" not in cells[0]):
            rows.add((cells[0].split(" ")[0], cells[1]))
    return rows


def found(seed, examples, phases):
    """What one run finds, how many requests it made, and what broke."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        program = Path(sys.executable).with_name("schemathesis")
        command = [
            program, "run", DOCUMENT, "--url", GATEWAY, "--tls-verify", CA, "--header", f"Authorization: Bearer {token('acme-backend')}",
            "--phases", phases, "--max-examples", str(examples), "--seed", str(seed), "--workers", "1", "--continue-on-failure", "--no-color",
            "--request-timeout", "40", "--report", "json", "--report-json-path", report, "--suppress-health-check", "all",
        ]
        told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not report.exists():
            return set(), 0, told.stdout[-2000:] + told.stderr[-2000:], told.stdout
        said = json.loads(report.read_text())
        failures = {(one["code"], operation) for one in said["failures"] for operation in one["operations"]}
        return failures, said["test_cases"]["generated"], json.dumps(said["errors"]) if said["errors"] else "", told.stdout


report = Report("schemathesis", version("schemathesis"))
known = explained(every=True)
failures, requests, broken, said = found(SEED, 1, "coverage,fuzzing")
report.row("it ran to its end", "", broken)
report.holds(f"it made {requests} requests of every operation", requests > 500)
report.row("it found nothing that has no reason", [], sorted(failures - known))
report.row("every row of schemathesis.md is still found", [], sorted(explained(every=False) - failures))
if broken or failures - known:
    print(said)
for number in range(int(os.environ.get("PORTCULLIS_SCHEMATHESIS") or 0)):
    # Each with a token of its own, which lives for minutes.
    seed = random.randrange(1 << 31)
    more, requests, broken, said = found(seed, 20, "fuzzing,stateful")
    report.row(f"with the seed {seed}, {requests} requests", ([], ""), (sorted(more - known), broken))
    if more - known:
        print(said)
report.end()
