"""MiniStack: started for one run, on loopback, over TLS, with every signature and every policy checked (AUTH=true)."""

import functools
import http.client
import json
import os
import secrets
import socket
import ssl
import sys
import time

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from processes import Program

REGION = "eu-central-1"
ACCOUNT = "111122223333"
# One, because it keeps the descriptions of services, which are large.
SESSION = botocore.session.get_session()


class Cloud:
    """A running MiniStack and its operator. `python` has it installed; by default the one that runs this."""

    def __init__(self, folder, authority, python=sys.executable, region=REGION):
        self.folder, self.ca_file, self.region = folder, authority.file, region
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.tls = ssl.create_default_context(cafile=str(self.ca_file))
        self.keys = {
            "aws_access_key_id": "AKIA" + secrets.token_hex(8).upper(),
            "aws_secret_access_key": secrets.token_urlsafe(30),
        }
        certificate, key = authority.certificate("ministack", ["127.0.0.1", "localhost", "*.execute-api.localhost"])
        home = folder / "ministack"
        home.mkdir()
        # Functions inherit this environment: nothing of the machine's is in it, and what a deployment on loopback needs beyond
        # its template is (the endpoint, which MiniStack hands on by itself, and whom to believe). The templates stay as shipped.
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home),
            "LANG": "C.UTF-8",
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_REGION": region,
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "AWS_ACCESS_KEY_ID": self.keys["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": self.keys["aws_secret_access_key"],
            "USE_SSL": "1",
            "MINISTACK_SSL_CERT": str(certificate),
            "MINISTACK_SSL_KEY": str(key),
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "AWS_ENDPOINT_URL": self.url,
            "PORTCULLIS_CA_FILE": str(self.ca_file),
        }
        # With TLS it takes port 443 as well if it can get it: while we hold it, it cannot.
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", 443))
            except OSError:
                pass
            self.program = Program(
                [python, "-m", "ministack.app"], folder / "ministack.log", env, "TERM", 1, cwd=home
            )
            try:
                self._wait()
            except BaseException:
                self.program.stop()
                raise

    def _wait(self):
        end = time.monotonic() + 30
        while not self.program.ended() and time.monotonic() < end:
            try:
                if self.raw("GET", "/_ministack/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"MiniStack did not start:\n{self.program.said()}")

    def stop(self):
        """Ends it and its functions. It would wait for functions that wait for events, so it is given a second."""
        self.program.stop()

    @functools.cache
    def client(self, service):
        """The operator's botocore client."""
        return self.client_as(service, self.keys)

    def client_as(self, service, keys):
        """A botocore client with these keys."""
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=120,
            proxies={},
            s3={"addressing_style": "path"},
        )
        return SESSION.create_client(
            service, region_name=self.region, endpoint_url=self.url, verify=str(self.ca_file), config=config, **keys
        )

    def raw(self, method, path, headers=None, body=None, timeout=60):
        """One request as it stands; answers status, header fields and body."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def invoke(self, function, payload=None):
        """Invokes a function as an operator would; answers what it answered, or `{"FunctionError": …}`."""
        answer = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(payload or {}).encode())
        said = json.loads(answer["Payload"].read() or b"null")
        return {"FunctionError": answer["FunctionError"], "said": said} if "FunctionError" in answer else said


def outcome(act):
    """`allowed`, or the code of the refusal."""
    try:
        act()
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "allowed"


def free_port():
    """A port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def scrubbed():
    """An environment of which nothing is the machine's own settings, for clients that we start."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
