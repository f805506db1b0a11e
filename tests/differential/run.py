"""Puts every probe to the targets and writes the table.

usage: run.py                            the probes against our stack alone ($PORTCULLIS_MANIFEST), as the tests of outside clients are
       run.py --all --moto PYTHON --ministack PYTHON [--table FILE]    against moto and MiniStack as well; writes the table
       run.py --only PREFIX              those probes alone, with what came
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import botocore.session

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import database  # noqa: E402,F401
import gateway  # noqa: E402,F401
import kms  # noqa: E402,F401
import policies  # noqa: E402,F401
import s3  # noqa: E402,F401
import ssm  # noqa: E402,F401
import sts  # noqa: E402,F401
import faults  # noqa: E402,F401,I001  last: its stack starts meanwhile
from probes import PROBES, SILENT, outcome, verdict  # noqa: E402
from targets import MiniStack, Moto, Ours  # noqa: E402

AREAS = {
    "kms": "KMS", "ssm": "SSM Parameter Store", "sts": "STS", "s3": "S3", "policies": "Policies", "gateway": "The gateway and its functions",
    "database": "RDS Proxy", "faults": "Refusals on demand",
}
NAMES = ["ours", "moto", "MiniStack"]
SIGNS = {"right": "right", "wrong": "**wrong**", "absent": "-", SILENT: SILENT}


# Errors that the pages of one operation do not have, because they are those of all: the pages of common errors. The last two are
# told of by people who met them where the documents name another one as well.
COMMON = {
    "ValidationException", "AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationTokenException",
    "UnknownOperationException", "ValidationError", "AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch", "MissingAuthenticationToken",
    "InvalidAction", "ExpiredToken", "InvalidArnException", "NotAuthorizedException", "ThrottlingException", "Throttling",
}


def undeclared():
    """The codes that a probe wants of an operation although AWS's own description of the API, as botocore has it, declares no such error."""
    session, found = botocore.session.get_session(), []
    models = {name: session.get_service_model(name.lower()) for name in ("KMS", "SSM", "STS")}
    for one in PROBES:
        named = re.findall(r"\[(KMS|SSM|STS) ([A-Z]\w+)\]", one.source)
        shapes = [shape for service, operation in named if operation in models[service].operation_names for shape in models[service].operation_model(operation).error_shapes]
        declared = {shape.name for shape in shapes} | {shape.metadata.get("error", {}).get("code") for shape in shapes} | COMMON
        for want in one.want:
            status, _, code = want.partition(" ")
            if shapes and status.isdigit() and int(status) >= 400 and code not in declared:
                found.append(f"{one.identity} wants {want}, which {named[0][1]} does not declare")
    return found


def asked(target, only):
    """What a target answers to each probe, and how long it took."""
    answers = {}
    for one in PROBES:
        if only and not one.identity.startswith(only):
            continue
        since = time.monotonic()
        answers[one.identity] = outcome(one, target)
        if os.environ.get("PORTCULLIS_PROBE_TIMES"):
            print(f"{time.monotonic() - since:6.2f} {one.identity}", file=sys.stderr)
    return answers


def ask(name, python, only):
    """Starts a target, asks it, ends it."""
    if name == "ours":
        target = Ours()
        if not only:
            target.begin()
        try:
            return asked(target, only)
        finally:
            target.stop()
    with tempfile.TemporaryDirectory(prefix="portcullis-differential-") as folder:
        target = (Moto if name == "moto" else MiniStack)(Path(folder), python)
        try:
            return asked(target, only)
        finally:
            target.stop()


def cell(text):
    """Text in a cell of a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(answers):
    """The page."""
    lines = [
        "# The local stack beside moto and MiniStack", "",
        "Written by `make differential`; not by hand. The same probes, put in Python (boto3, psycopg, plain HTTP) to our local stack, to moto",
        f"{Moto.version} and to MiniStack {MiniStack.version} with `AUTH=true`. What is wanted is what AWS documents, with the page; where AWS documents nothing, or more",
        "than a probe can tell apart, the row says that only AWS can settle it, and nobody is judged. `-`: there is no such thing there at all.",
        "`tests/differential/README.md` says how a probe is written.", "",
        "| | probes | right | wrong | absent | only AWS can settle |", "|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        verdicts = [verdict(one, answers[name][one.identity]) for one in PROBES]
        counts = [verdicts.count(kind) for kind in ("right", "wrong", "absent", SILENT)]
        lines.append(f"| {name} | {len(verdicts)} | {' | '.join(str(count) for count in counts)} |")
    for area, title in AREAS.items():
        lines += ["", f"## {title}", "", "| probe | what AWS documents | source | wanted | ours | moto | MiniStack |", "|---|---|---|---|---|---|---|"]
        for one in PROBES:
            if one.area != area:
                continue
            cells = []
            for name in NAMES:
                said = answers[name][one.identity]
                judged = verdict(one, said)
                cells.append(SIGNS[judged] if judged in ("right", "absent") else f"{SIGNS[judged]}: {said}" if judged == "wrong" else said)
            wanted = " or ".join(one.want)
            lines.append(f"| {' | '.join(cell(text) for text in [one.identity, one.says, one.source, wanted, *cells])} |")
    return "\n".join(lines) + "\n"


def everyday(answers):
    """One line for each probe, as the other clients of the stack tell theirs."""
    lost = 0
    for fault in undeclared():
        lost += 1
        print(f"  FAIL differential: {fault}")
    for one in PROBES:
        if one.identity not in answers:
            continue
        said = answers[one.identity]
        judged = verdict(one, said)
        if judged in ("right", SILENT):
            print(f"  ok   differential: {one.identity:<48} {said}")
        else:
            lost += 1
            print(f"  FAIL differential: {one.identity:<48} wanted {' or '.join(one.want)}, got {said}")
    return lost


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--all", action="store_true")
    arguments.add_argument("--moto")
    arguments.add_argument("--ministack")
    arguments.add_argument("--table", type=Path)
    arguments.add_argument("--only")
    arguments.add_argument("--target", default="ours")
    given = arguments.parse_args()
    if given.target != "ours" or (given.only and not given.all):
        answers = ask(given.target, given.moto or given.ministack, given.only)
        if given.target == "ours":
            sys.exit(1 if everyday(answers) else 0)
        json.dump(answers, sys.stdout)
        return
    if not given.all:
        print(f"differential {len(PROBES)} probes")
        sys.exit(1 if everyday(ask("ours", None, None)) else 0)
    started = {}
    for name, python in [("moto", ["--moto", given.moto]), ("MiniStack", ["--ministack", given.ministack])]:
        started[name] = subprocess.Popen([sys.executable, __file__, "--target", name, *python], stdout=subprocess.PIPE)
    answers = {"ours": ask("ours", None, None)}
    for name, program in started.items():
        answers[name] = json.loads(program.communicate()[0])
    lost = everyday(answers["ours"])
    if given.table:
        given.table.write_text(table(answers))
    for name in NAMES:
        verdicts = [verdict(one, answers[name][one.identity]) for one in PROBES]
        print(name, {kind: verdicts.count(kind) for kind in SIGNS})
    sys.exit(1 if lost else 0)


main()
