"""What a probe is, and how its outcome is told. The probes themselves stand in the modules beside this one."""

import http.client
import ssl
import urllib.parse
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from unittest import mock

from botocore.exceptions import BotoCoreError, ClientError

# Where documentation is silent, or allows more than one answer, and only a real account could settle it.
SILENT = "only AWS can settle"


class Absent(Exception):
    """The target has no such thing at all: a service, a database, a gateway."""


class Probe:
    """One question, put to every target in the same words."""

    def __init__(self, identity, area, says, want, source, ask):
        self.identity, self.area, self.says, self.source, self.ask = identity, area, says, source, ask
        self.want = want if isinstance(want, tuple) else (want,)


PROBES = []


def probe(identity, says, want, source, **details):
    """Registers what follows under `identity`. `says` is what AWS documents, `source` where, and `want` the outcome that follows from
    it, or several where more than one does, or SILENT."""

    def register(ask):
        area = ask.__module__
        if any(held.identity == identity for held in PROBES):
            raise ValueError(f"two probes are {identity}")
        PROBES.append(Probe(identity, area, says, want, source, (lambda target: ask(target, **details)) if details else ask))
        return ask

    return register


def told(act, show=None):
    """`200`, and what `show` makes of the answer; or status and code of the refusal."""
    try:
        answer = act()
    except ClientError as error:
        said = error.response
        return f"{said['ResponseMetadata']['HTTPStatusCode']} {said['Error']['Code']}"
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    if show is None:
        return str(status)
    shown = show(answer)
    return f"{status} {shown}" if shown is not True else str(status)


def outcome(probe_, target):
    """What a target answers to a probe. It never raises: what breaks is an outcome, too."""
    try:
        return probe_.ask(target)
    except Absent:
        return None
    except ClientError as error:
        said = error.response
        status = said.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return f"cannot be asked: {error.operation_name} {status} {said.get('Error', {}).get('Code')}"
    except (BotoCoreError, OSError, http.client.HTTPException, ssl.SSLError) as error:
        return f"no answer ({type(error).__name__})"
    except Exception as error:  # An answer of another shape than AWS's is the target's, not a failure of the run.
        return f"unreadable ({type(error).__name__})"


def verdict(probe_, said):
    """`right`, `wrong`, `absent`, or that only AWS can settle it."""
    if said is None:
        return "absent"
    if probe_.want == (SILENT,):
        return SILENT
    return "right" if said in probe_.want else "wrong"


@contextmanager
def signed_at(**off):
    """Lets botocore sign with another date: `minutes=-16` for sixteen minutes ago."""
    then = datetime.now(timezone.utc).replace(tzinfo=None) + timedelta(**off)
    with mock.patch("botocore.auth.get_current_datetime", lambda *_, **__: then):
        yield


class Answer:
    """An answer over plain HTTP."""

    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {}
        for name, value in headers:
            self.headers.setdefault(name.lower(), []).append(value)

    def header(self, name):
        """The first value of a header field, or None."""
        return self.headers.get(name.lower(), [None])[0]

    @property
    def text(self):
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def code(self):
        """The code of an error in XML."""
        return self.text.partition("<Code>")[2].partition("</Code>")[0]

    def told(self):
        """Status, and the code of an error in XML."""
        return f"{self.status} {self.code}".strip()


def send(url, method="GET", headers=None, body=None, ca=None, timeout=40):
    """One request as it stands: nothing is added but Host and Content-Length."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context, timeout=timeout)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    target = parts.path or "/"
    if parts.query:
        target += "?" + parts.query
    try:
        connection.request(method, target, body=body, headers=headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.getheaders(), answer.read())
    finally:
        connection.close()


API = "https://docs.aws.amazon.com"


def kms_api(operation, section="Errors"):
    """A page of the KMS API reference."""
    return f"[KMS {operation}]({API}/kms/latest/APIReference/API_{operation}.html), {section}"


def ssm_api(operation, section="Errors"):
    """A page of the Systems Manager API reference."""
    return f"[SSM {operation}]({API}/systems-manager/latest/APIReference/API_{operation}.html), {section}"


def sts_api(operation, section="Errors"):
    """A page of the STS API reference."""
    return f"[STS {operation}]({API}/STS/latest/APIReference/API_{operation}.html), {section}"


def s3_api(operation, section="Errors"):
    """A page of the S3 API reference."""
    return f"[S3 {operation}]({API}/AmazonS3/latest/API/API_{operation}.html), {section}"


def guide(name, path, section):
    """A page of a guide."""
    return f"[{name}]({API}/{path}), {section}"


S3_ERRORS = guide("S3 error responses", "AmazonS3/latest/API/ErrorResponses.html", "List of error codes")
S3_QUERY = guide("S3 SigV4 query parameters", "AmazonS3/latest/API/sigv4-query-string-auth.html", "Calculating a signature")
S3_HEADER = guide("S3 SigV4 header", "AmazonS3/latest/API/sig-v4-header-based-auth.html", "Calculating a signature")
S3_POST = guide("S3 POST policy", "AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html", "Policy elements")
S3_CHECKS = guide("S3 checking object integrity", "AmazonS3/latest/userguide/checking-object-integrity.html", "Checksums")
S3_WRITES = guide("S3 conditional writes", "AmazonS3/latest/userguide/conditional-writes.html", "Behaviour")
S3_LIMITS = guide("S3 multipart limits", "AmazonS3/latest/userguide/qfacts.html", "Table")
S3_VERSIONS = guide("S3 delete markers", "AmazonS3/latest/userguide/DeleteMarker.html", "Text")
KMS_STATES = guide("KMS key states", "kms/latest/developerguide/key-state.html", "Key state table")
KMS_COMMON = guide("KMS common errors", "kms/latest/APIReference/CommonErrors.html", "List")
KMS_CONTEXT = guide("KMS encryption context", "kms/latest/developerguide/encrypt_context.html", "Text")
KMS_CONDITIONS = guide("KMS condition keys", "kms/latest/developerguide/conditions-kms.html", "Each key")
KMS_ROTATION = guide("KMS key rotation", "kms/latest/developerguide/rotate-keys.html", "Text")
KMS_SPECS = guide("KMS key specs", "kms/latest/developerguide/symm-asymm-choose-key-spec.html", "Signing algorithms")
SSM_COMMON = guide("SSM common errors", "systems-manager/latest/APIReference/CommonErrors.html", "List")
STS_COMMON = guide("STS common errors", "STS/latest/APIReference/CommonErrors.html", "List")
SIGV4 = guide("IAM SigV4 troubleshooting", "IAM/latest/UserGuide/reference_sigv-troubleshooting.html", "Text")
SSM_SECURE = guide("SecureString and KMS", "kms/latest/developerguide/services-parameter-store.html", "Text")
IAM_EVALUATION = guide("IAM policy evaluation", "IAM/latest/UserGuide/reference_policies_evaluation-logic.html", "Text")
IAM_OPERATORS = guide("IAM condition operators", "IAM/latest/UserGuide/reference_policies_elements_condition_operators.html", "Each operator")
IAM_SETS = guide(
    "IAM multivalued keys", "IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html", "Set operators"
)
IAM_VARIABLES = guide("IAM policy variables", "IAM/latest/UserGuide/reference_policies_variables.html", "Text")
IAM_ELEMENTS = guide("IAM JSON elements", "IAM/latest/UserGuide/reference_policies_elements.html", "Each element")
