"""The stacks, as the project's own tool renders them, made on MiniStack."""

import functools
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from authority import Authority
from cloud import ACCOUNT, REGION, Cloud, outcome
from database import Door, Postgres
from gate import AUDIENCE, ISSUER
from issuer import Issuer
from report import Report
from templates import Template, delete, deploy, unknown_types

CHECKOUT = Path(__file__).resolve().parents[2]
ENV = "mini"
TEMPLATES = "templates"
PROXY_ID = "prx-0a1b2c3d4e5f60718"


class Deployment:
    """One deployment, and what an operator can do with it."""

    def __init__(self, options, folder, closing):
        self.options, self.folder, self.report = options, folder, Report()
        authority = Authority(folder)
        self.cloud = started(closing, Cloud(folder, authority))
        self.postgres = started(closing, Postgres(CHECKOUT))
        self.issuer = started(closing, Issuer(authority))
        self.authority, self.closing = authority, closing
        self.report.row("MiniStack is up, over TLS, with AUTH=true, on loopback", "1.5.33", version("ministack"))
        self.report.row(
            "an access key that it never gave is refused",
            "InvalidClientTokenId",
            outcome(
                self.cloud.client_as(
                    "sts", {"aws_access_key_id": "AKIAAAAAAAAAAAAAAAAA", "aws_secret_access_key": "x" * 40}
                ).get_caller_identity
            ),
        )

    def function(self, deployment):
        """The name of a function."""
        return f"portcullis-{ENV}-{deployment}"

    def invoke(self, deployment, payload=None):
        """An operator's invocation."""
        return self.cloud.invoke(self.function(deployment), payload)

    def act(self, operation, **more):
        """An operator's act; what `admin` answers."""
        return self.invoke("admin", {"operation": operation, "operator": "system-test"} | more)

    @functools.cache
    def as_role(self, name):
        """Session keys of one of the deployed roles. Only a role that Lambda may take on can be taken on like this: MiniStack
        lets the account's root user stand for a service."""
        arn = f"arn:aws:iam::{ACCOUNT}:role/portcullis-{ENV}-{name}"
        given = self.cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="system-test")["Credentials"]
        return {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }

    def deploy(self):
        """Keys, buckets, functions."""
        self.report.part("deployment")
        self.render()
        self.known = {
            "Env": ENV,
            "Issuer": ISSUER,
            "Audience": AUDIENCE,
            "Signer": "ssm",
            "Scan": "off",
            "SigningAlg": "RS256",
            "Architecture": "arm64" if platform.machine() == "aarch64" else "x86_64",
            "CodePrefix": "code/",
            "S3PrefixListId": "pl-0a1b2c3d",
            "GitHubRepository": "acme/gate",
            "GitHubProviderArn": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com",
        }
        # Before there is the code bucket, templates come by a bucket of the operator's.
        self.cloud.client("s3").create_bucket(
            Bucket=TEMPLATES, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        self.stack("bootstrap")
        self.upload(self.known["CodeBucket"])
        self.network()
        self.stack("data")
        # Doors of our own in place of the proxy and of the instance, and MiniStack's own endpoint in place of S3's names.
        self.proxy = started(self.closing, Door(self.cloud, self.postgres, self.authority, PROXY_ID))
        self.instance = started(
            self.closing, Door(self.cloud, self.postgres, self.authority, self.known["DbResourceId"])
        )
        self.known |= {
            "DbMode": "proxy",
            "DbHost": "localhost",
            "DbPort": str(self.proxy.port),
            "DbProxyResourceId": PROXY_ID,
            "DbDirectHost": "localhost",
            "DbDirectPort": str(self.instance.port),
            "SigningHost": self.cloud.url,
        }
        functions = self.stack("functions")
        self.configurations(functions)

    def render(self):
        """Renders the templates as a deployment does, in a checkout of this run's own: links, but for what a run writes."""
        self.staging = self.folder / "checkout"
        self.staging.mkdir()
        for name in ["Cargo.lock", "Cargo.toml", "functions", "infra", "rust-toolchain.toml", "shared", "tests"]:
            (self.staging / name).symlink_to(CHECKOUT / name)
        (self.staging / ".local").mkdir()
        (self.staging / ".local/venv-build").symlink_to(CHECKOUT / ".local/venv-build")
        for one in self.options.zips.glob("*/bootstrap.zip"):
            folder = self.staging / "target/lambda" / one.parent.name
            folder.mkdir(parents=True)
            (folder / "bootstrap.zip").symlink_to(one)
        said = subprocess.run(
            [self.options.deploy, "render"], cwd=self.staging, capture_output=True, text=True, check=False
        )
        self.report.row("deploy render", 0, said.returncode, shown=said.stdout.strip())
        if said.returncode != 0:
            raise RuntimeError(said.stdout + said.stderr)
        self.rendered = self.staging / "target/infra"

    def upload(self, bucket):
        """Puts each program where the rendered functions look for it."""
        functions = Template(self.rendered / "functions.yaml").of("AWS::Lambda::Function").values()
        keys = {one["Code"]["S3Key"]["Fn::Sub"].replace("${CodePrefix}", "code/") for one in functions}
        for key in sorted(keys):
            program = self.options.zips / Path(key).stem / "bootstrap.zip"
            self.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=program.read_bytes())
        self.report.row(
            "every program is in the code bucket, under its digest",
            [],
            [key for key in keys if not re.fullmatch(r"code/[0-9a-f]{64}/[a-z-]+\.zip", key)],
            shown=f"{len(keys)} programs",
        )

    def network(self):
        """network.yaml stands and falls with types that MiniStack does not know. What the others want of it is made by hand."""
        template = Template(self.rendered / "network.yaml")
        refused = self.make(template)
        for kind in unknown_types(refused):
            self.report.cannot(f"make {kind} (network.yaml)", kind, refused.reason)
        ec2 = self.cloud.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{index}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
                "SubnetId"
            ]
            for index, zone in enumerate("ab")
        ]
        group = ec2.create_security_group(GroupName="any", Description="any", VpcId=vpc)["GroupId"]
        kinds = {"SubnetIds": ",".join(subnets), "SecurityGroupId": group, "EndpointId": "vpce-0a1b2c3d", "VpcId": vpc}
        for output in template.document["Outputs"]:
            self.known[output] = next((value for kind, value in kinds.items() if output.endswith(kind)), "")
        self.known |= {
            "Network": "none",
            "TunnelCredentialsParameter": f"/portcullis/{ENV}/tunnel",
            "ImageUri": f"{self.known['ImageRepositoryUri']}@sha256:{'0' * 64}",
        }

    def stack(self, name, lacking=()):
        """Deploys a rendered template, less what MiniStack has no provisioner for, and learns its outputs. `lacking` is what it
        refuses of types that it knows: what, why, which resources."""
        template = Template(self.rendered / f"{name}.yaml")
        made = self.make(template)
        unknown = unknown_types(made)
        for kind in unknown:
            self.report.cannot(f"make {kind} ({name}.yaml)", kind, made.reason)
        if unknown:
            template.leave_out(lambda resource: resource["Type"] in unknown)
            made = self.make(template)
        for what, reason, which in lacking:
            self.report.cannot(f"make {what} ({name}.yaml)", reason, made.reason)
            template.leave_out(which)
            delete(self.cloud, f"portcullis-{ENV}-{name}")
            made = self.make(template)
        self.report.row(
            f"{name}.yaml: {len(template.document['Resources'])} resources",
            "CREATE_COMPLETE",
            f"{made.status} {made.reason}".strip(),
        )
        if made.status != "CREATE_COMPLETE":
            raise RuntimeError(f"{name} was not made")
        self.known |= made.outputs
        return template

    def make(self, template):
        """One attempt."""
        return deploy(self.cloud, f"portcullis-{ENV}-{template.name}", template.document, self.known, TEMPLATES)

    def configurations(self, template):
        """Each function is configured as its template says, and nothing of this test is in it."""
        functions = template.of("AWS::Lambda::Function")
        wrong, foreign, queueless = [], set(), []
        for properties in functions.values():
            name = properties["FunctionName"]["Fn::Sub"].replace("${Env}", ENV)
            found = self.cloud.client("lambda").get_function_configuration(FunctionName=name)
            wanted = {
                key: properties[key]
                for key in ["Runtime", "Handler", "MemorySize", "Timeout", "Description", "TracingConfig"]
                if key in properties
            }
            wrong += [f"{name} {key}" for key, value in wanted.items() if found[key] != value]
            wrong += [] if found["LoggingConfig"]["LogFormat"] == "JSON" else [f"{name} LoggingConfig"]
            queueless += [name] if "DeadLetterConfig" in properties and "DeadLetterConfig" not in found else []
            foreign |= set(found["Environment"]["Variables"]) - set(properties["Environment"]["Variables"])
        self.report.row(f"{len(functions)} functions are configured as their templates say", [], wrong)
        self.report.row("and have no variable that is not in them (no endpoint, no CA)", [], sorted(foreign))
        self.report.cannot(
            "give a function its dead-letter queue (DeadLetterConfig)", "object-events", f"without one: {queueless}"
        )

    def log(self, deployment, env=ENV):
        """What a function has logged."""
        events = self.cloud.client("logs").filter_log_events(logGroupName=f"portcullis-{env}-{deployment}")["events"]
        return "\n".join(event["message"] for event in events)


def started(closing, one):
    """Remembers that it has to be stopped."""
    closing.append(one)
    return one
