"""The AWS CLI, as an operator types it."""

import base64
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from stack import MANIFEST, REGION, Report, database_token, new_file, settled, token, version, HTTP

report = Report("AWS CLI", version("awscli"))
keys, env = MANIFEST["aws"], MANIFEST["env"]
AWS = Path(sys.executable).with_name("aws")
ambient = {
    "AWS_ACCESS_KEY_ID": keys["access_key_id"],
    "AWS_SECRET_ACCESS_KEY": keys["secret_access_key"],
    "AWS_DEFAULT_REGION": REGION,
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
ambient |= {f"AWS_ENDPOINT_URL_{service.upper()}": url for service, url in keys["endpoints"].items()}


def aws(*words, **changes):
    """Runs `aws`; answers its status, output and complaint."""
    done = subprocess.run([AWS, *words], env=os.environ | ambient | changes, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def answer(*words):
    """What `aws` said, as JSON."""
    status, said, complaint = aws(*words)
    return json.loads(said) if status == 0 else {"complaint": complaint.strip()}


def refusal(*words, **changes):
    """The code in the complaint of a refused call."""
    status, _, complaint = aws(*words, **changes)
    return complaint.partition("(")[2].partition(")")[0] if status else "allowed"


with tempfile.TemporaryDirectory() as scratch:
    scratch = Path(scratch)
    data_key, bucket = MANIFEST["kms_keys"]["data"], MANIFEST["bucket"]
    made = answer("kms", "generate-data-key", "--key-id", data_key, "--key-spec", "AES_256", "--encryption-context", "tenant=acme")
    report.row("kms generate-data-key gives 32 bytes", 32, len(base64.b64decode(made["Plaintext"])))
    blob = scratch / "blob"
    blob.write_bytes(base64.b64decode(made["CiphertextBlob"]))
    decrypt = ("kms", "decrypt", "--ciphertext-blob", f"fileb://{blob}", "--encryption-context")
    report.holds("kms decrypt gives them back", answer(*decrypt, "tenant=acme").get("Plaintext") == made["Plaintext"])
    report.row("kms decrypt in another context", "InvalidCiphertextException", refusal(*decrypt, "tenant=globex"))
    who = ("sts", "get-caller-identity")
    report.row("sts get-caller-identity", "111122223333", answer(*who).get("Account"))
    report.row("and with a wrong secret", "SignatureDoesNotMatch", refusal(*who, AWS_SECRET_ACCESS_KEY="x" * 40))

    bearer, content = token("acme-backend"), b"%PDF-1.7 from the command line\n"
    plan = new_file(bearer, content)
    upload = plan["upload"]
    HTTP.request(upload["method"], upload["url"], headers=upload["headers"], data=content, timeout=20)
    report.row("(a file is there)", "clean", settled(bearer, plan["id"]))
    listed = answer("s3api", "list-objects-v2", "--bucket", bucket, "--prefix", "t/acme/").get("Contents", [])
    name = next((entry["Key"] for entry in listed if plan["id"] in entry["Key"]), "none")
    report.holds("s3api list-objects-v2 shows it", name != "none")
    copy = scratch / "copy"
    aws("s3api", "get-object", "--bucket", bucket, "--key", name, "--checksum-mode", "ENABLED", str(copy))
    report.holds("s3api get-object reads it, byte for byte", copy.exists() and copy.read_bytes() == content)
    report.row("s3api get-object of nothing", "NoSuchKey", refusal("s3api", "get-object", "--bucket", bucket, "--key", "t/none", str(copy)))
    status, said, _ = aws("s3", "ls", f"s3://{MANIFEST['trust_bucket']}/trust/")
    report.row("s3 ls of the trust bucket", (0, True), (status, "keys.json" in said))
    presign = ("s3", "presign", f"s3://{bucket}/{name}", "--expires-in", "60")
    # In us-east-1 version 1 still presigns with signature version 2, which S3 refuses for buckets made since June 2020.
    report.row("s3 presign with signature version 2, its default here", 400, HTTP.get(aws(*presign)[1].strip(), timeout=20).status_code)
    config = scratch / "config"
    config.write_text("[default]\ns3 =\n  signature_version = s3v4\n")
    url = aws(*presign, AWS_CONFIG_FILE=str(config))[1].strip()
    report.holds("s3 presign with signature version 4 gives a URL that reads it", HTTP.get(url, timeout=20).content == content)

    out = scratch / "out"
    act = json.dumps({"operation": "client.list", "operator": "aws-cli", "tenant": "acme"})
    # Version 1 takes the payload as it is; version 2 needs --cli-binary-format raw-in-base64-out.
    done = answer("lambda", "invoke", "--function-name", f"portcullis-{env}-admin", "--payload", act, str(out))
    report.row("lambda invoke of admin: client.list", 200, done.get("StatusCode"))
    report.holds("lists the seeded clients", out.exists() and "acme-backend" in out.read_text())
    report.row("lambda invoke of nothing", "ResourceNotFoundException",
               refusal("lambda", "invoke", "--function-name", "portcullis-local-nothing", str(out)))

    # Every line of the page for operators, as it stands there; version 1 of the CLI does without one of its words.
    page = (Path(__file__).parent.parent.parent / "docs/operations/admin.md").read_text()
    sections = [section for section in page.split("\n## `")[1:]]
    report.holds("docs/operations/admin.md has lines", len(sections) >= 10)
    for section in sections:
        line = next(line for line in section.splitlines() if line.startswith("aws lambda invoke --function-name portcullis-ENV-"))
        if "fileb://body.json" in line:
            line = line.replace("fileb://body.json", shlex.quote(section.partition("```json\n")[2].partition("```")[0]))
        words = shlex.split(line.replace("portcullis-ENV-", f"portcullis-{env}-").replace("--cli-binary-format raw-in-base64-out ", ""))
        payload = words.index("--payload") + 1
        operation = json.loads(words[payload])["operation"]
        if operation == "policy.promote":  # with the hash of the bundle it would shut most routes of this stack
            words[payload] = json.dumps(json.loads(words[payload]) | {"hash": "0" * 64})
        _, said, complaint = aws(*words[1:-1], str(out))
        told = json.loads(out.read_text()) if not complaint else {"error": {"code": complaint}}
        # The key of one line is nobody's on this stack, so that nothing is dropped.
        done = told.get("outcome") or told["error"]["code"]
        without = {"signing.drop": "signing_key_unknown", "policy.promote": "policy_unknown"}
        report.row(f"the page's line for {operation}", (without.get(operation, done), True), (done, "FunctionError" not in said and (operation in without or "outcome" in told)))
    # And `make admin`, which signs by itself.
    script = Path(__file__).parent.parent.parent / "scripts/admin"
    for act, wanted, code in [
        (["client.list", '{"tenant":"acme"}'], "listed", 0),
        (["client.list", '{"tenant":"Acme"}'], "invalid_tenant", 1),
        (["client.list", "no JSON"], "", 2),
    ]:
        ran = subprocess.run([sys.executable, script, *act], env=os.environ | {"OPERATOR": "ann"}, capture_output=True, text=True, timeout=60)
        answered = json.loads(ran.stdout or "{}")
        said = answered.get("outcome") or answered.get("error", {}).get("code", "")
        report.row(f"scripts/admin {' '.join(act)}", (wanted, code), (said, ran.returncode))

    path = f"{AWS.parent}{os.pathsep}{os.environ['PATH']}"
    for name, wanted in [(env, ("listed", 0)), ("nothing", ("", 2)), ("../x", ("", 2))]:
        told = os.environ | ambient | {"ENV": name, "OPERATOR": "ann", "PATH": path}
        ran = subprocess.run([sys.executable, script, "client.list", '{"tenant":"acme"}'], env=told, capture_output=True, text=True, timeout=60)
        report.row(f"and with ENV={name} by the AWS CLI", wanted, (json.loads(ran.stdout or "{}").get("outcome", ""), ran.returncode))

    proxy = MANIFEST["postgres"]["proxy"]
    words = ("rds", "generate-db-auth-token", "--hostname", proxy["host"], "--port", str(proxy["port"]), "--username", "token")
    status, said, _ = aws(*words)
    shape = said.partition("X-Amz-Date")[0]
    report.row("rds generate-db-auth-token has the form that boto3's has", database_token("token").partition("X-Amz-Date")[0], shape)
report.end()
