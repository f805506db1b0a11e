"""The system test on a cloud nobody here wrote: the rendered templates and the real functions on MiniStack.

usage: run.py --deploy PROGRAM --zips FOLDER [--keep]

PROGRAM is the project's own deployment tool, which renders the templates and replaces code; the zips are
FOLDER/<function>/bootstrap.zip.
"""

import argparse
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError

from attacks import prove as prove_attacks
from cloud import ACCOUNT, REGION, outcome, scrubbed
from code_update import prove as prove_code_update
from deployment import CHECKOUT, ENV, TEMPLATES, Deployment
from gate import AUDIENCE, ISSUER, Answer, Client, Gate, b64url, new_file, unsealed
from templates import Template, deploy

UNKNOWN_FILE = "/files/0198e1a0-0000-7000-8000-000000000000"
# Less than a kibibyte: MiniStack ignores a range where a version is named (docs/attacks-on-files.md), and object-events takes no more
# than it asked for.
CONTENT = b"%PDF-1.7\n" + b"The quick brown fox jumps over the lazy dog.\n" * 20


class Run(Deployment):
    """The way through a deployment."""

    # The network that is not here

    def closed(self):
        """Without our endpoints nobody reaches bucket or API: the policies say so, and an evaluator that is not ours agrees."""
        self.report.part("closed from outside our network, until an operator opens it for the rest of this run")
        said = self.invoke("migrate")
        self.report.row("migrate makes schema, logins and grants", 0, said.get("already", said))
        self.report.row(
            "it connected as the owner, to the instance", [("portcullis_owner", "allowed")], self.instance.attempts
        )
        said = self.invoke("trust")
        self.report.holds("trust cannot even list the trust bucket", "FunctionError" in said, otherwise=said)
        reader = self.cloud.client_as("s3", self.as_role("authorizer"))
        refused = ""
        try:
            reader.get_object(Bucket=self.known["TrustBucket"], Key="trust/keys.json")
        except ClientError as error:
            refused = str(error)
        self.report.holds(
            "the authorizer's role cannot read it either",
            "explicit deny in a resource-based policy" in refused,
            otherwise=refused,
        )
        s3 = self.cloud.client("s3")
        for bucket in ["TrustBucket", "ObjectBucket"]:
            s3.delete_bucket_policy(Bucket=self.known[bucket])
        self.report.cannot(
            "come through a VPC endpoint (aws:SourceVpce), so bucket and API policies are taken off",
            "explicit deny",
            refused,
        )

    # The way

    def trust(self):
        """Genesis, operators' acts, a foreign issuer."""
        self.report.part("trust")
        said = self.invoke("trust")
        self.report.row("the first run makes two signing keys", 2, len(said.get("genesis", [])) or said)
        objects = [
            f"trust/{name}.json"
            for name in ["keys", "policies", "posture", "profiles", "revocations", "signing-state"]
        ]
        self.report.row("and publishes", objects, sorted(said.get("published", [])))
        names = [
            one["Name"]
            for one in self.cloud.client("ssm").describe_parameters()["Parameters"]
            if one["Type"] == "SecureString"
        ]
        self.report.holds(
            "the private halves are SecureStrings under the signing path",
            len(names) == 2 and all(name.startswith(f"/portcullis/signing/{ENV}/") for name in names),
            otherwise=names,
        )
        scopes = ["files:read", "files:write", "fields:encrypt:*.*", "fields:decrypt:*.*"]
        self.backend, self.reader = Client("acme-backend", "acme", scopes), Client(
            "acme-reader", "acme", ["files:read"]
        )
        self.globex = Client("globex-backend", "globex", scopes)
        for tenant in ["acme", "globex"]:
            self.report.row(f"admin: tenant {tenant}", "created", self.act("tenant.put", tenant=tenant).get("outcome"))
        for client in [self.backend, self.reader, self.globex]:
            said = self.act("client.put", **client.registration())
            self.report.row(f"admin: client {client.client_id}", "created", said.get("outcome", said))
        said = self.act(
            "issuer.put",
            id="partner",
            kind="generic",
            issuer=self.issuer.url,
            audience=ISSUER,
            algorithms=["RS256"],
            jwks_url=f"{self.issuer.url}/keys.json",
        )
        self.report.row("admin: an issuer, and a nudge for trust", "delivered", said.get("nudge", said))
        self.report.holds(
            "the nudge's event starts trust, which publishes the issuer",
            self.until(lambda: self.issuer.url in self.published("profiles")),
        )
        said = self.invoke("issuer-keys")
        self.report.holds(
            "issuer-keys fetches the issuer's keys over TLS and mirrors them",
            self.issuer.kid in self.published("issuers/partner"),
            otherwise=said,
        )

    def published(self, name):
        """A trust object, as text."""
        try:
            return (
                self.cloud.client("s3")
                .get_object(Bucket=self.known["TrustBucket"], Key=f"trust/{name}.json")["Body"]
                .read()
                .decode()
            )
        except self.cloud.client("s3").exceptions.NoSuchKey:
            return ""

    @staticmethod
    def until(holds, seconds=15):
        """Whether it comes to hold."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def api(self):
        """The API, closed and then opened."""
        self.report.part("API")
        self.stack("api")
        self.gate = Gate(self.cloud, self.known["ApiId"], self.known["StageName"])
        answer = self.gate.ask(self.backend.assertion())
        self.report.holds(
            "from elsewhere than our endpoint the open routes are denied by the API's policy",
            answer.status == 403 and b"explicit deny in a resource-based policy" in answer.body,
            otherwise=answer.outcome(),
        )
        answer = self.gate.call("GET", UNKNOWN_FILE, "x")
        self.report.cannot("apply an API's policy before a Lambda authorizer", "401", answer.outcome())
        # An operator opens it, so that the rest can be seen.
        self.cloud.client("apigateway").update_rest_api(
            restApiId=self.known["ApiId"], patchOperations=[{"op": "replace", "path": "/policy", "value": ""}]
        )

        answer = self.gate.call("GET", "/health")
        self.report.row("a route without a function answers", 200, answer.status)
        self.report.cannot("answer what the body says for a mock integration", "{}", answer.body.decode())

    def tokens(self):
        """A token, and what is none."""
        self.report.part("tokens")
        answer = self.gate.call("GET", "/.well-known/jwks.json")
        self.report.row("the key set holds the active key and a spare", 2, len(answer.json().get("keys", [])))
        answer = self.gate.ask(self.backend.assertion())
        self.report.row("acme-backend proves itself with its key and gets a token", "200", answer.outcome())
        self.token = answer.json()["access_token"]
        claims = unsealed(self.token)
        self.report.row(
            "for five minutes, this tenant and this API",
            (300, "acme", AUDIENCE),
            (claims["exp"] - claims["iat"], claims["tenant"], claims["aud"]),
        )
        assertion = self.backend.assertion()
        self.report.row("an assertion used once", "200", self.gate.ask(assertion).outcome())
        self.report.row("and used twice", "401 invalid_client", self.gate.ask(assertion).outcome())
        self.report.row(
            "the authorizer lets the token through, and the function finds no such file",
            "404 not_found",
            self.gate.call("GET", UNKNOWN_FILE, self.token).outcome(),
        )
        head, body, signature = self.token.split(".")
        other = json.dumps({**claims, "tenant": "globex"}).encode()
        for what, token in [
            ("no token", None),
            ("something that is no token", "x"),
            ("another tenant written into it", f"{head}.{b64url(other)}.{signature}"),
        ]:
            answer = self.gate.call("GET", UNKNOWN_FILE, token)
            self.report.row(f"{what} is turned away", 401, answer.status)
        self.report.cannot(
            "answer with the gateway responses of the body", '{"message":"Unauthorized"}', answer.body.decode()
        )
        reader = self.gate.ask(self.reader.assertion()).json()["access_token"]
        answer = self.gate.call("POST", "/files", reader, new_file(CONTENT))
        self.report.row("a token without files:write creates no file", 403, answer.status)

    def files(self):
        """Upload, event, download, end."""
        self.report.part("files")
        plan = self.gate.call("POST", "/files", self.token, new_file(CONTENT))
        self.report.row("a pending file and one exact signed PUT", "201", plan.outcome())
        file, upload = plan.json()["id"], plan.json()["upload"]
        self.report.row(
            "before the upload nobody reads it",
            "409 file_not_ready",
            self.gate.call("GET", f"/files/{file}/content", self.token).outcome(),
        )
        address = urlsplit(upload["url"])
        bucket, key = unquote(address.path).lstrip("/").split("/", 1)
        self.report.row(
            "the URL is for this bucket and tenant", (self.known["ObjectBucket"], f"t/acme/{file}"), (bucket, key)
        )
        target = f"{address.path}?{address.query}"
        answer = Answer(*self.cloud.raw("PUT", target, upload["headers"], CONTENT))
        signer = f"assumed-role/portcullis-{ENV}-upload-signer/"
        self.report.cannot(
            "let a signed URL in (s3:authType, s3:signatureAge, s3:if-none-match)",
            f"{signer}u-acme is not authorized to perform: s3:PutObject",
            answer.body.decode(),
        )

        # The operator puts the object that the client would have put, with the headers that were signed.
        s3, headers = self.cloud.client("s3"), upload["headers"]
        put = s3.put_object(
            Bucket=bucket,
            Key=key,
            Body=CONTENT,
            ContentType=headers["content-type"],
            IfNoneMatch="*",
            ChecksumSHA256=headers["x-amz-checksum-sha256"],
            ServerSideEncryption="aws:kms",
            SSEKMSKeyId=headers["x-amz-server-side-encryption-aws-kms-key-id"],
        )
        logs = self.until(lambda: "object:created" in self.log("object-events"))
        self.report.holds("the object-created event starts object-events", logs)
        self.report.cannot(
            "name the version in an object-created event", "not a valid version id", self.log("object-events")
        )
        event = {
            "version": "0",
            "id": "17793124-05d4-b198-2fde-7ededc63b103",
            "detail-type": "Object Created",
            "source": "aws.s3",
            "account": ACCOUNT,
            "time": "2026-01-01T00:00:00Z",
            "region": REGION,
            "resources": [f"arn:aws:s3:::{bucket}"],
            "detail": {
                "version": "0",
                "bucket": {"name": bucket},
                "object": {
                    "key": key,
                    "size": len(CONTENT),
                    "etag": put["ETag"].strip('"'),
                    "version-id": put["VersionId"],
                    "sequencer": "0A",
                },
                "request-id": "N4N7GDK58NMKJ12R",
                "requester": ACCOUNT,
                "source-ip-address": "127.0.0.1",
                "reason": "PutObject",
            },
        }
        self.replay(event)
        known = self.gate.call("GET", f"/files/{file}", self.token).json()
        self.report.row(
            "it compared the object with what was declared, and the file is clean", "clean", known.get("status")
        )

        answer = self.gate.call("GET", f"/files/{file}/content", self.token)
        self.report.row(
            "content answers with a redirect nobody may keep",
            "302 no-store",
            f"{answer.status} {answer.headers.get('cache-control')}",
        )
        address = urlsplit(answer.headers.get("location", ""))
        answer = Answer(*self.cloud.raw("GET", f"{address.path}?{address.query}"))
        self.report.cannot(
            "let a signed download in (s3:authType, s3:signatureAge)", "download-signer/", answer.body.decode()
        )
        versions = [pair.split("=", 1)[1] for pair in address.query.split("&") if pair.startswith("versionId=")]
        self.report.row("the URL names the version that was inspected", [put["VersionId"]], versions)
        stored = s3.get_object(Bucket=bucket, Key=key, VersionId=put["VersionId"])["Body"].read()
        self.report.holds(
            "which is the upload, byte for byte", hashlib.sha256(stored).digest() == hashlib.sha256(CONTENT).digest()
        )

        globex = self.gate.ask(self.globex.assertion()).json()["access_token"]
        self.report.row(
            "another tenant asks for the file",
            "404 not_found",
            self.gate.call("GET", f"/files/{file}", globex).outcome(),
        )
        self.report.row("its owner ends it", "204", self.gate.call("DELETE", f"/files/{file}", self.token).outcome())
        self.report.row(
            "and it is gone",
            "410 file_unavailable",
            self.gate.call("GET", f"/files/{file}/content", self.token).outcome(),
        )

    def replay(self, event):
        """An event that was given up, among others, from the dead-letter queue back to the function, by an operator's command."""
        sqs, name = self.cloud.client("sqs"), f"{self.function('object-events')}-dead-letters"
        queue = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        text = lambda value: {"DataType": "String", "StringValue": value}
        attributes = {"RequestID": text("c6af9ac6-7b61-11e6-9a41-93e8deadbeef"), "ErrorCode": text("200"), "ErrorMessage": text("unavailable")}
        foreign = json.loads(json.dumps(event))
        foreign["detail"]["bucket"]["name"] = "somebody-elses"
        for one in [event, foreign, {"no": "event"}]:
            sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(one), MessageAttributes=attributes)
        surroundings = scrubbed() | {
            "PATH": f"{Path(sys.executable).parent}:{scrubbed()['PATH']}",
            "ENV": ENV,
            "AWS_ENDPOINT_URL": self.cloud.url,
            "AWS_CA_BUNDLE": str(self.cloud.ca_file),
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.cloud.keys["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": self.cloud.keys["aws_secret_access_key"],
        }

        def run(**more):
            """One run; its status and lines."""
            words = [sys.executable, CHECKOUT / "scripts/replay", "object-events"]
            done = subprocess.run(words, env=surroundings | more, capture_output=True, text=True, timeout=120, check=False)
            return done.returncode, sorted(done.stdout.splitlines()) or done.stderr.splitlines()

        status, lines = run(DRY_RUN="1")
        self.report.row("replay, a look: three events wait", (0, 3), (status, sum(line.startswith("waiting") for line in lines)))
        self.until(lambda: self.waiting(queue) == 3)
        status, lines = run()
        self.report.row(
            "replay hands over what the function takes, and keeps what it does not",
            (1, ["2 replayed, 1 kept"]),
            (status, [line for line in lines if "kept" in line and "replayed" in line]),
            shown=" / ".join(lines),
        )
        left = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
        left = sum(int(left[name]) for name in ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"])
        self.report.row("what was kept lies in the queue", 1, left)

    def waiting(self, queue):
        """How many messages of a queue can be received."""
        said = self.cloud.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
        return int(said["Attributes"]["ApproximateNumberOfMessages"])

    def attacks(self):
        """What our adapter signs, bent, on MiniStack's S3."""
        prove_attacks(self, self.options.deploy.with_name("signed-attacks"), CHECKOUT / "docs/attacks-on-files.md")

    def watch(self):
        """Alarms and the dashboard."""
        self.report.part("tunnel and alarms")
        self.stack(
            "edge",
            [
                (
                    "AWS::ECS::Service, whose count of tasks is a parameter and so a text",
                    "unsupported operand type",
                    lambda resource: resource["Type"] == "AWS::ECS::Service",
                )
            ],
        )
        self.stack(
            "watch",
            [
                (
                    "an alarm over several metrics",
                    "(metric math) is not supported",
                    lambda resource: "Metrics" in resource.get("Properties", {}),
                )
            ],
        )

    def fields(self):
        """As far as MiniStack's IAM lets."""
        self.report.part("fields")
        items = {
            "items": [
                {"ref": "1", "table": "users", "column": "email", "row": "42", "plaintext": b64url(b"ada@example.com")}
            ]
        }
        answer = self.gate.call("POST", "/fields/encrypt", self.token, items)
        self.report.row(
            "the request reaches data-key, which tells its caller no more than this",
            "kms_denied",
            answer.json().get("items", [{}])[0].get("error", {}).get("code", answer.outcome()),
        )
        self.report.cannot(
            "let data-key make a data key (kms:EncryptionContext:*)",
            "GenerateDataKey: denied: 403 AccessDeniedException",
            self.log("data-key-encrypt"),
        )

    def roles(self):
        """Deployed roles, judged by an evaluator that is not ours."""
        self.report.part("roles")
        trust, objects = self.known["TrustBucket"], self.known["ObjectBucket"]
        read = lambda key: lambda s3: s3.get_object(Bucket=trust, Key=key)
        write = lambda key, bucket=trust: lambda s3: s3.put_object(Bucket=bucket, Key=key, Body=b"{}")
        for role, what, want, act in [
            ("authorizer", "reads trust/keys.json", "allowed", read("trust/keys.json")),
            ("authorizer", "writes trust/keys.json", "AccessDenied", write("trust/keys.json")),
            ("authorizer", "lists the trust bucket", "AccessDenied", lambda s3: s3.list_objects_v2(Bucket=trust)),
            ("token", "nudges under its own prefix", "allowed", write("trust-inbox/token/x")),
            ("token", "nudges under admin's", "AccessDenied", write("trust-inbox/admin/x")),
            ("token", "writes trust/keys.json", "AccessDenied", write("trust/keys.json")),
            ("token", "writes a file", "AccessDenied", write("t/acme/x", objects)),
            ("issuer-keys", "writes an issuer's keys", "allowed", write("trust/issuers/x.json")),
            ("issuer-keys", "writes trust/keys.json", "AccessDenied", write("trust/keys.json")),
            ("upload", "writes a file itself, without its signer", "AccessDenied", write("t/acme/x", objects)),
            (
                "download",
                "reads a file itself, without its signer",
                "AccessDenied",
                lambda s3: s3.get_object(Bucket=objects, Key="t/acme/x"),
            ),
            ("admin", "reads trust/keys.json", "AccessDenied", read("trust/keys.json")),
            ("data-key-decrypt", "writes trust/keys.json", "AccessDenied", write("trust/keys.json")),
        ]:
            s3 = self.cloud.client_as("s3", self.as_role(role))
            self.report.row(f"{role} {what}", want, outcome(lambda s3=s3, act=act: act(s3)))
        parameters = self.cloud.client_as("ssm", self.as_role("trust"))
        seal = {"Type": "SecureString", "KeyId": self.known["SigningKeyArn"], "Value": "x"}
        put = lambda name, **more: outcome(
            lambda: parameters.put_parameter(Name=f"/portcullis/signing/{name}", **seal, **more)
        )
        self.report.row("trust keeps a key under the signing path", "allowed", put(f"{ENV}/x"))
        self.report.row("trust keeps a key of another deployment", "AccessDeniedException", put("other/x"))
        self.report.cannot(
            "refuse to overwrite a signing key (ssm:Overwrite)", "allowed", put(f"{ENV}/x", Overwrite=True)
        )
        for role, signer, want in [
            ("upload", "upload-signer", "allowed"),
            ("upload", "download-signer", "AccessDenied"),
            ("download", "upload-signer", "AccessDenied"),
            ("token", "upload-signer", "AccessDenied"),
        ]:
            sts = self.cloud.client_as("sts", self.as_role(role))
            arn = f"arn:aws:iam::{ACCOUNT}:role/portcullis-{ENV}-{signer}"
            self.report.row(
                f"{role} becomes {signer}",
                want,
                outcome(lambda sts=sts, arn=arn: sts.assume_role(RoleArn=arn, RoleSessionName="system-test")),
            )
        for role, login, door, want in [
            ("upload", "upload", self.proxy, "allowed"),
            ("upload", "admin", self.proxy, "portcullis-mini-upload: implicitDeny"),
            ("token", "portcullis_owner", self.instance, "portcullis-mini-token: implicitDeny"),
            ("migrate", "portcullis_owner", self.proxy, "portcullis-mini-migrate: implicitDeny"),
            ("issuer-keys", "token", self.proxy, "portcullis-mini-issuer-keys: implicitDeny"),
        ]:
            name = "proxy" if door is self.proxy else "instance"
            token = self.database_token(role, login, door)
            self.report.row(f"{role} connects to the {name} as {login}", want, door.judge(token, login))
        token = self.database_token("upload", "upload", self.proxy)
        altered = token[:-1] + ("0" if token[-1] != "0" else "1")
        self.report.row(
            "a database token with one digit changed",
            "not authentic: SignatureDoesNotMatch",
            self.proxy.judge(altered, "upload"),
        )
        self.report.row(
            "a database token for the instance, at the proxy",
            "for another host",
            self.proxy.judge(self.database_token("upload", "upload", self.instance), "upload"),
        )
        refused = {verdict for door in [self.proxy, self.instance] for _, verdict in door.attempts} - {"allowed"}
        self.report.row("of the functions' own connections none was refused", set(), refused)
        logins = {login for login, _ in self.proxy.attempts}
        self.report.row(
            "they came as",
            ["admin", "data_key_encrypt", "download", "object_events", "token", "trust", "upload"],
            sorted(logins),
        )

    def database_token(self, role, login, door):
        """A database token that a role asks for, as botocore makes it."""
        return self.cloud.client_as("rds", self.as_role(role)).generate_db_auth_token(
            door.host, door.port, login, REGION
        )

    def permissions(self):
        """Whether anybody asks what a function's own policy says."""
        functions, name = self.cloud.client("lambda"), self.function("token")
        policy = json.loads(functions.get_policy(FunctionName=name, Qualifier="live")["Policy"])
        routes = sorted(
            statement["Condition"]["ArnLike"]["AWS:SourceArn"].split("/", 2)[2] for statement in policy["Statement"]
        )
        self.report.row(
            "the API may invoke token for its routes",
            [
                "GET/.well-known/jwks.json",
                "GET/.well-known/oauth-authorization-server",
                "POST/oauth2/introspect",
                "POST/oauth2/revoke",
                "POST/oauth2/token",
            ],
            routes,
        )
        for statement in policy["Statement"]:
            functions.remove_permission(FunctionName=name, Qualifier="live", StatementId=statement["Sid"])
        answer = self.gate.call("GET", "/.well-known/jwks.json")
        self.report.cannot("miss a Lambda permission that is not there", "200", answer.outcome())

    def kms_signer(self):
        """The functions once more, signing with KMS."""
        bucket = f"portcullis-kms-trust-{ACCOUNT}"
        self.cloud.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        template = Template(self.rendered / "functions.yaml")
        parameters = self.known | {"Env": "kms", "Signer": "kms", "TrustBucket": bucket}
        made = deploy(self.cloud, "portcullis-kms-functions", template.document, parameters, TEMPLATES)
        self.report.row("functions.yaml with Signer=kms", "CREATE_COMPLETE", f"{made.status} {made.reason}".strip())
        said = self.cloud.invoke("portcullis-kms-trust")
        self.report.holds("its first trust run makes no key", "FunctionError" in said, otherwise=said)
        self.report.cannot(
            "let trust make a signing key (kms:KeySpec, kms:KeyUsage)",
            "CreateKey: denied: 403 AccessDeniedException",
            self.log("trust", "kms"),
        )

    def revocation(self):
        """A revoked token."""
        self.report.part("revocation")
        self.report.row("the token is good", "404 not_found", self.gate.call("GET", UNKNOWN_FILE, self.token).outcome())
        self.report.row(
            "its client ends it", "200", self.gate.about("/oauth2/revoke", self.backend, self.token).outcome()
        )
        self.report.holds(
            "within seconds nobody takes it any more: nudge, event, trust, authorizer",
            self.until(lambda: self.gate.call("GET", UNKNOWN_FILE, self.token).status == 401),
        )

    def travel(self):
        """All of it."""
        self.deploy()
        self.closed()
        self.trust()
        self.api()
        self.watch()
        self.tokens()
        self.files()
        self.attacks()
        self.fields()
        self.roles()
        self.revocation()
        self.report.part("what MiniStack's IAM cannot judge")
        self.permissions()
        self.kms_signer()
        self.report.part("cargo lambda deploy")
        prove_code_update(self)
        self.report.part("what is said of it")
        self.report.listed()


def main():
    """Parses, runs, cleans up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--deploy", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--zips", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--keep", action="store_true", help="keep the logs also when all went well")
    options = parser.parse_args()
    # So that `finally` runs when somebody ends us.
    for ending in [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]:
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    root = CHECKOUT / ".local/cloud"
    root.mkdir(parents=True, exist_ok=True)
    folder, closing, run = Path(tempfile.mkdtemp(prefix="run-", dir=root)), [], None
    try:
        run = Run(options, folder, closing)
        run.travel()
    finally:
        for one in reversed(closing):
            one.stop()
        if run is None or run.report.failed or sys.exc_info()[0] or options.keep:
            print(f"logs: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    run.report.end()


if __name__ == "__main__":
    main()
