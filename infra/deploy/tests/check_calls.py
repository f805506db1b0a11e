#!/usr/bin/env python3
"""Whether the AWS CLI accepts every call that the tests recorded, and whether the answers that tests/live.rs makes up have
the shapes of AWS's own models (botocore).

usage: check_calls.py FOLDER     where cargo left the tests' files (target/tmp); wants awscli and botocore: a Python of
scripts/test-clients (.local/clients/venv) has both.
"""
import json
import os
import pathlib
import subprocess
import sys

import botocore.session
from botocore import xform_name

session = botocore.session.get_session()
SERVICES = {"s3api": "s3"}
# The CLI decodes policy documents of IAM and templates in JSON, which are text in the model.
DECODED = {"PolicyDocument", "AssumeRolePolicyDocument", "TemplateBody"}
faults = set()


def check(value, shape, at):
    if value is None:
        return
    kind = shape.type_name
    if at.rsplit(".", 1)[-1] in DECODED and isinstance(value, dict):
        return
    if kind == "structure":
        if not isinstance(value, dict):
            faults.add(f"{at}: no structure")
            return
        for name, member in value.items():
            if name not in shape.members:
                faults.add(f"{at}.{name}: unknown")
            else:
                check(member, shape.members[name], f"{at}.{name}")
    elif kind == "list":
        if not isinstance(value, list):
            faults.add(f"{at}: no list")
            return
        for item in value:
            check(item, shape.member, f"{at}[]")
    elif kind == "map":
        for item in value.values():
            check(item, shape.value, f"{at}{{}}")
    else:
        python = {"string": str, "boolean": bool, "integer": int, "long": int, "float": (int, float), "double": (int, float),
                  "timestamp": (str, int, float), "blob": str}[kind]
        if not isinstance(value, python) or (python is int and isinstance(value, bool)):
            faults.add(f"{at}: {type(value).__name__}, must be {kind}")
        elif getattr(shape, "enum", None) and isinstance(value, str) and value not in shape.enum:
            faults.add(f"{at}: `{value}` is none of {shape.enum}")


folder = pathlib.Path(sys.argv[1])
seen = set()
for path in folder.glob("live-answers-*.json"):
    for call, answer in json.loads(path.read_text()):
        service, operation = call.split(" ")
        model = session.get_service_model(SERVICES.get(service, service))
        name = next(n for n in model.operation_names if xform_name(n, "-") == operation)
        check(answer, model.operation_model(name).output_shape, f"{service} {operation}")
        seen.add(call)
print(f"answers of {len(seen)} operations")

# One call of each form: the values do not matter, nobody listens at the endpoint.
forms = {}
for path in folder.glob("calls-*.json"):
    for line in json.loads(path.read_text()):
        forms.setdefault((*line[:2], *sorted(part for part in line if part.startswith("--"))), line)
environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_MAX_ATTEMPTS": "1"}
aws = pathlib.Path(sys.executable).parent / "aws"
for line in forms.values():
    # What a test's scratch folder held is gone; the CLI reads files before it asks.
    line = [("fileb://" if part.startswith("fileb://") else "file://") + __file__ if "file" in part[:5] and "://" in part else part for part in line]
    line = [__file__ if previous == "--body" else part for previous, part in zip(["", *line], line)]
    line = [json.dumps([{"ParameterKey": "a", "ParameterValue": "b"}]) if previous == "--parameters" and line[0] == "cloudformation" else part
            for previous, part in zip(["", *line], line)]
    done = subprocess.run([aws, *line, "--endpoint-url", "http://127.0.0.1:1"], capture_output=True, text=True, env=environment, cwd=folder)
    if "Could not connect to the endpoint URL" not in done.stderr:
        faults.add(f"aws {' '.join(line[:2])}: {done.stderr.strip()[-300:]}")
print(f"{len(forms)} forms of calls")
print("\n".join(sorted(faults)) or "every answer has the shape of its model, and the AWS CLI accepts every call")
sys.exit(bool(faults))
