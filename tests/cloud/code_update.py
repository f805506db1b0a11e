"""`cargo lambda deploy`, as our command calls it: code changes, configuration does not, and no function comes to be."""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from cloud import REGION, scrubbed

# What a new revision of a function is bound to differ in. Everything else has to be the same, byte for byte.
REVISION = [
    "CodeSha256",
    "CodeSize",
    "LastModified",
    "RevisionId",
    "Version",
    "FunctionArn",
    "ResponseMetadata",
    "State",
    "StateReason",
    "StateReasonCode",
    "LastUpdateStatus",
    "LastUpdateStatusReason",
    "LastUpdateStatusReasonCode",
]


def prove(run):
    """On the deployed token function."""
    functions, name, report = run.cloud.client("lambda"), run.function("token"), run.report
    archive = changed(run.options.zips / "token/bootstrap.zip", run.staging / "target/lambda/token/bootstrap.zip")
    before, alias_before = configuration(functions, name), live(functions, name)
    report.holds("a program that is not the deployed one", before["CodeSha256"] != archive)

    said = command(run, "code", "token")
    report.row(
        "deploy code ENV=mini FUNCTION=token", 0, said.returncode if said.returncode == 0 else said.stdout + said.stderr
    )
    after, alias_after = configuration(functions, name), live(functions, name)
    report.row("the function has the new code", archive, after["CodeSha256"])
    report.row(
        "its configuration is what it was, byte for byte", settled(before), settled(after), shown=digest(settled(after))
    )
    report.holds("the alias moved to the new version", int(alias_after) > int(alias_before), otherwise=alias_after)
    published = configuration(functions, f"{name}:live")
    report.row("which has the new code", archive, published["CodeSha256"])
    report.row("and the configuration", settled(before), settled(published), shown=digest(settled(published)))
    report.row("it serves the API", "200", run.gate.call("GET", "/.well-known/jwks.json").outcome())

    said = command(run, "rollback", "token")
    report.row(
        "deploy rollback ENV=mini FUNCTION=token",
        0,
        said.returncode,
        shown=said.stdout.splitlines()[0] if said.stdout else None,
    )
    report.row("the alias is where it was", alias_before, live(functions, name))
    report.row("on the old code", before["CodeSha256"], configuration(functions, f"{name}:live")["CodeSha256"])

    # Where there is no such function, cargo-lambda would make one, and a role for it.
    there = inventory(run)
    said = command(run, "code", "token", env="elsewhere")
    report.row(
        "deploy code ENV=elsewhere, where there is no such function, is refused",
        (3, True),
        (said.returncode, "there is no function portcullis-elsewhere-token" in said.stdout),
        shown=None if said.returncode == 3 else said.stdout + said.stderr,
    )
    report.row("and nothing was made", there, inventory(run), shown=f"{len(there[0])} functions, {len(there[1])} roles")


def changed(source, target):
    """The same program with a byte after its end, which makes it another; answers the digest of its zip as Lambda tells it."""
    program = zipfile.ZipFile(source).read("bootstrap") + b"\n"
    entry = zipfile.ZipInfo("bootstrap")
    entry.external_attr = 0o755 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(entry, program)
    target.unlink()
    target.write_bytes(made.getvalue())
    return base64.b64encode(hashlib.sha256(made.getvalue()).digest()).decode()


def command(run, what, function, env="mini"):
    """One of our commands, in a checkout of its own."""
    home = run.folder / "home"
    home.mkdir(exist_ok=True)
    keys = {name.upper(): value for name, value in run.cloud.keys.items()}
    tools = {
        "AWS_ENDPOINT_URL": run.cloud.url,
        "AWS_REGION": REGION,
        "AWS_CA_BUNDLE": str(run.cloud.ca_file),
        "SSL_CERT_FILE": str(run.cloud.ca_file),
        "HOME": str(home),
        "NO_COLOR": "1",
        "AWS_PAGER": "",
    }
    return subprocess.run(
        [run.options.deploy, what, f"ENV={env}", f"FUNCTION={function}"],
        cwd=run.staging,
        text=True,
        env=scrubbed() | keys | tools | toolchain(),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )


def toolchain():
    """cargo-lambda asks cargo about the workspace."""
    home = Path.home()
    return {
        "CARGO_HOME": os.environ.get("CARGO_HOME", str(home / ".cargo")),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(home / ".rustup")),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def configuration(functions, name):
    """What get-function-configuration answers, once no update is under way."""
    functions.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    return functions.get_function_configuration(FunctionName=name)


def settled(found):
    """What must stay, as bytes."""
    return json.dumps({key: value for key, value in found.items() if key not in REVISION}, sort_keys=True)


def digest(text):
    """A short name for a long text."""
    return f"{len(text)} bytes, {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def live(functions, name):
    """The version that the alias stands for."""
    return functions.get_alias(FunctionName=name, Name="live")["FunctionVersion"]


def inventory(run):
    """Names of all functions and roles."""
    functions = [
        one["FunctionName"]
        for page in run.cloud.client("lambda").get_paginator("list_functions").paginate()
        for one in page["Functions"]
    ]
    roles = [
        one["RoleName"]
        for page in run.cloud.client("iam").get_paginator("list_roles").paginate()
        for one in page["Roles"]
    ]
    return sorted(functions), sorted(roles)
