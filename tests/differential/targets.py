"""Whom the probes ask: the stack of this project, moto, and MiniStack with AUTH=true."""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from pathlib import Path

import boto3
import botocore.auth
import yaml
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from probes import Absent, send

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "cloud"))
import authority  # noqa: E402
import cloud  # noqa: E402
import processes  # noqa: E402

ACCOUNT = "111122223333"
REGION = "us-east-1"
TEMPLATE = yaml.safe_load((HERE / "template.yaml").read_text())


def resources(kind):
    """The properties of the template's resources of one type, by logical id."""
    return {name: one["Properties"] for name, one in TEMPLATE["Resources"].items() if one["Type"] == kind}


class Target:
    """Somebody to ask. `memo` keeps what several probes share."""

    name = version = None
    region, account = REGION, ACCOUNT
    ca = None
    database = None
    gateway = None
    gateway_headers = {}

    def __init__(self):
        self.made = {}

    def memo(self, what, make):
        """What `make` made the first time."""
        if what not in self.made:
            try:
                self.made[what] = (make(), None)
            except Exception as error:
                self.made[what] = (None, error)
        value, error = self.made[what]
        if error:
            raise error
        return value

    def keys(self):
        """The operator's keys, as boto3 takes them."""
        raise NotImplementedError

    def url(self, service):
        """Where a service is."""
        raise NotImplementedError

    def client(self, service, config=None, **changes):
        """A client of boto3 with the operator's keys, or others."""

        def make():
            base = Config(
                retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=40, proxies={}, parameter_validation=False,
                s3={"addressing_style": "path"},
            )
            arguments = {"region_name": self.region, "verify": self.ca} | self.keys() | changes
            if "endpoint_url" not in arguments:
                arguments["endpoint_url"] = self.url(service)
            made = self.session.client(service, config=base.merge(config) if config else base, **arguments)
            return made

        shown = tuple(sorted((name, str(value)) for name, value in changes.items()))
        return self.memo(("client", service, shown, repr(sorted(vars(config).items(), key=str)) if config else None), make)

    session = boto3.session.Session()

    def role(self, name, **more):
        """Keys of a session of one of the template's roles."""

        def make():
            arguments = {"RoleArn": f"arn:aws:iam::{self.account}:role/{name}", "RoleSessionName": "probe"} | more
            made = self.client("sts").assume_role(**arguments)["Credentials"]
            return {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"], "aws_session_token": made["SessionToken"]}

        return self.memo(("role", name, json.dumps(more, sort_keys=True)), make)

    def somebody(self):
        """Keys of a session that may do everything: the operator's own are above suspicion at some emulators, and not asked for a signature."""
        return self.role("probe-admin")

    def key_of(self, logical):
        """The ARN of one of the template's keys."""
        raise NotImplementedError

    def functions(self, **changes):
        """A client of whoever runs the probes' function."""
        return self.client("lambda", **changes)

    def signed(self, service, method, path, headers=None, body=b"", keys=None, change=None, region=None, unsigned=None):
        """A request signed by botocore as it stands; `change` alters the headers afterwards, `unsigned` adds some."""
        keys = keys or self.somebody()
        url = self.url(service) + path
        request = AWSRequest(method=method, url=url, data=body, headers=headers or {})
        credentials = Credentials(keys["aws_access_key_id"], keys["aws_secret_access_key"], keys.get("aws_session_token"))
        signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
        signer(credentials, service, region or self.region).add_auth(request)
        sent = dict(request.headers.items()) | (unsigned or {})
        if change:
            change(sent)
        return send(url, method, {name: value.decode() if isinstance(value, bytes) else value for name, value in sent.items()}, body, self.ca)

    def raw_json(self, service, operation, body, **more):
        """A signed call in awsJson1.1 that boto3 would not send; status and code."""
        headers = {"x-amz-target": operation, "content-type": "application/x-amz-json-1.1"}
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.signed(service, "POST", "/", headers, text, **more)
        try:
            said = json.loads(answer.text or "{}")
        except ValueError:
            said = {}
        code = str(said.get("__type") or said.get("code") or "").rpartition("#")[2]
        return f"{answer.status} {code}".strip()

    def struck(self, rules):
        """The same, while these faults happen to it."""
        raise Absent

    def stop(self):
        """Ends it."""


class Ours(Target):
    """The stack that `local dev --with tests/differential/template.yaml` started; its manifest says where it is."""

    name = "ours"

    def __init__(self, manifest=None):
        super().__init__()
        self.manifest = json.loads(Path(manifest or os.environ["PORTCULLIS_MANIFEST"]).read_text())
        self.version = ""
        self.ca = self.manifest["ca_file"]
        self.database = self.manifest["postgres"]
        own = self.manifest.get("own") or {}
        self.gateway = own.get("gateway")
        self.own_keys = own.get("keys", {})
        self.lambda_url = own.get("lambda")

    def functions(self, **changes):
        return self.client("lambda", **({"endpoint_url": self.lambda_url} | changes))

    spare = None

    def begin(self):
        """Starts a stack beside this one, for `struck`."""
        self.spare = Spare()

    def struck(self, rules):
        if not self.spare:
            self.begin()
        beside = self.memo("spare", self.spare.ready)
        request = urllib.request.Request(
            beside.manifest["view"] + "faults", json.dumps({"faults": rules, "seed": 1}).encode(), {"content-type": "application/json"}, method="PUT"
        )
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()
        return beside

    def stop(self):
        if self.spare:
            self.spare.stop()

    def keys(self):
        held = self.manifest["aws"]
        return {"aws_access_key_id": held["access_key_id"], "aws_secret_access_key": held["secret_access_key"]}

    def url(self, service):
        return self.manifest["aws"]["endpoints"][service]

    def key_of(self, logical):
        return self.own_keys[logical]


class Spare:
    """A stack of ours that is told to fail, and starts while something else is asked."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="portcullis-spare-")
        home = Path(self.folder.name)
        checkout = HERE.parents[1]
        command = [checkout / "target/debug/local", "dev", "--home", home, "--attached", "--quiet"]
        env = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR", "LANG")}
        self.log = open(home / "stack.log", "wb")
        self.program = subprocess.Popen(command, cwd=checkout, env=env, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log)
        self.manifest = home / "portcullis.json"

    def ready(self):
        """What to ask, when it is there."""
        end = time.monotonic() + 60
        while time.monotonic() < end and self.program.poll() is None:
            # The address of the view is the last that is written.
            if self.manifest.exists() and '"view"' in self.manifest.read_text():
                return Ours(self.manifest)
            time.sleep(0.05)
        raise RuntimeError(f"no second stack:\n{(Path(self.folder.name) / 'stack.log').read_text()}")

    def stop(self):
        """Ends it with its standard input."""
        self.program.stdin.close()
        self.program.wait(30)
        self.log.close()
        self.folder.cleanup()


class Peer(Target):
    """Somebody else's emulator, into which the template's roles, keys and buckets are put by its own API."""

    def fill(self):
        """Makes what the template has."""
        iam, kms, s3 = self.client("iam"), self.client("kms"), self.client("s3")
        for policy in resources("AWS::IAM::ManagedPolicy").values():
            iam.create_policy(PolicyName=policy["ManagedPolicyName"], PolicyDocument=json.dumps(policy["PolicyDocument"]))
        for role in resources("AWS::IAM::Role").values():
            bound = {name: role[name] for name in ("PermissionsBoundary",) if name in role}
            iam.create_role(RoleName=role["RoleName"], AssumeRolePolicyDocument=json.dumps(role["AssumeRolePolicyDocument"]), **bound)
            for policy in role.get("Policies", []):
                iam.put_role_policy(RoleName=role["RoleName"], PolicyName=policy["PolicyName"], PolicyDocument=json.dumps(policy["PolicyDocument"]))
        self.own_keys = {}
        for name, key in resources("AWS::KMS::Key").items():
            made = kms.create_key(KeySpec=key.get("KeySpec", "SYMMETRIC_DEFAULT"), KeyUsage=key.get("KeyUsage", "ENCRYPT_DECRYPT"), Policy=json.dumps(key["KeyPolicy"]))
            self.own_keys[name] = made["KeyMetadata"]["Arn"]
        for bucket in resources("AWS::S3::Bucket").values():
            s3.create_bucket(Bucket=bucket["BucketName"])
            s3.put_bucket_versioning(Bucket=bucket["BucketName"], VersioningConfiguration={"Status": "Enabled"})
        for policy in resources("AWS::S3::BucketPolicy").values():
            s3.put_bucket_policy(Bucket=policy["Bucket"], Policy=json.dumps(policy["PolicyDocument"]))

    def key_of(self, logical):
        return self.own_keys[logical]

    def url(self, service):
        return self.place

    def stop(self):
        self.program.stop()


class Moto(Peer):
    """moto's server."""

    name, version = "moto", "5.2.5"

    def __init__(self, folder, python):
        super().__init__()
        port = cloud.free_port()
        self.place = f"http://127.0.0.1:{port}"
        env = cloud.scrubbed() | {"HOME": str(folder), "MOTO_ACCOUNT_ID": ACCOUNT}
        self.program = processes.Program([python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], folder / "moto.log", env, "TERM", 1, cwd=folder)
        end = time.monotonic() + 60
        while not self.program.ended() and time.monotonic() < end:
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.place + "/moto-api/", timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise RuntimeError(f"moto did not start:\n{self.program.said()}")
        self.fill()

    def keys(self):
        return {"aws_access_key_id": "AKIA" + "M" * 16, "aws_secret_access_key": "m" * 40}


class MiniStack(Peer):
    """MiniStack as the system test starts it, with AUTH=true."""

    name, version = "MiniStack", "1.5.33"

    def __init__(self, folder, python):
        super().__init__()
        self.cloud = cloud.Cloud(folder, authority.Authority(folder), python=python, region=REGION)
        self.program = self.cloud.program
        self.place, self.ca = self.cloud.url, str(self.cloud.ca_file)
        self.fill()
        self.deploy()

    def deploy(self):
        """The function and its API, by CloudFormation."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as made:
            program = zipfile.ZipInfo("bootstrap")
            program.external_attr = 0o755 << 16
            made.writestr(program, (HERE / "function").read_text())
        self.client("s3").put_object(Bucket="probe-objects", Key="function.zip", Body=archive.getvalue())
        parts = ("AWS::Lambda::", "AWS::ApiGateway::")
        chosen = {name: one for name, one in TEMPLATE["Resources"].items() if one["Type"].startswith(parts)}
        formation = self.client("cloudformation")
        formation.create_stack(StackName="probe", TemplateBody=json.dumps({"Resources": chosen}))
        formation.get_waiter("stack_create_complete").wait(StackName="probe", WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        api = formation.describe_stack_resource(StackName="probe", LogicalResourceId="Api")["StackResourceDetail"]["PhysicalResourceId"]
        self.gateway = f"{self.place}/test"
        self.gateway_headers = {"host": f"{api}.execute-api.localhost:{self.cloud.port}"}

    def keys(self):
        return dict(self.cloud.keys)
