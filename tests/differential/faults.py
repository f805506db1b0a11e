"""Services that refuse for a while: throttling, outages, a proxy that has no connection to lend. Asked of a stack beside the one that the
others ask, which shows nobody else what it is told to show; an emulator that cannot be told to has none of it."""

from botocore.config import Config

import database
from probes import S3_ERRORS, SILENT, SSM_COMMON, guide, probe, told

KMS_COMMON = guide("KMS throttling", "kms/latest/developerguide/throttling.html", "Text")
STS_COMMON = guide("STS common errors", "STS/latest/APIReference/CommonErrors.html", "ThrottlingException")
RETRIES = guide("SDK retry behavior", "sdkref/latest/guide/feature-retry-behavior.html", "standard mode")
# Once more is enough to be seen, and waits a second at most.
AGAIN = Config(retries={"total_max_attempts": 2, "mode": "standard"})

CALLS = {
    "ssm": lambda target, config=None: told(lambda: target.client("ssm", config=config).get_parameters(Names=["/probe/none"])),
    "kms": lambda target, config=None: told(lambda: target.client("kms", config=config).generate_random(NumberOfBytes=1)),
    "sts": lambda target, config=None: told(lambda: target.client("sts", config=config).get_caller_identity()),
    "s3": lambda target, config=None: told(lambda: target.client("s3", config=config).list_buckets()),
}

for service, says, want, source in [
    ("ssm", "SSM refuses a call beyond its rate", "400 ThrottlingException", f"{SSM_COMMON}: ThrottlingException"),
    ("kms", "KMS refuses a call beyond its quota", "400 ThrottlingException", KMS_COMMON),
    ("sts", "STS refuses a call beyond its rate", ("400 Throttling", "400 ThrottlingException"), STS_COMMON),
    ("s3", "S3 refuses a call beyond its rate", "503 SlowDown", f"{S3_ERRORS}: SlowDown"),
]:
    @probe(f"{service}-throttled", says, want, source, service=service)
    def _(target, service):
        return CALLS[service](target.struck(f"{service} throttle first=1"))

    @probe(f"{service}-throttled-again", "and an SDK that tries again is answered", "200", RETRIES, service=service)
    def _(target, service):
        return CALLS[service](target.struck(f"{service} throttle first=1"), AGAIN)


@probe("ssm-throttled-for-good", "and gives up with that error where it goes on", "400 ThrottlingException", RETRIES)
def _(target):
    return CALLS["ssm"](target.struck("ssm throttle"), AGAIN)


@probe("ssm-outage", "SSM fails by itself", "500 InternalServerError", guide("SSM GetParameters", "systems-manager/latest/APIReference/API_GetParameters.html", "InternalServerError"))
def _(target):
    return CALLS["ssm"](target.struck("ssm 5xx first=1"))


@probe("ssm-throttled-unsigned", "Whether a call that nobody signed is throttled or refused first", SILENT, SSM_COMMON)
def _(target):
    struck = target.struck("ssm throttle first=1")
    return told(lambda: struck.client("ssm", aws_secret_access_key="x" * 40).get_parameters(Names=["/probe/none"]))


def lent(target, show):
    """What a client hears for whose statement the proxy has no connection in time."""
    struck = target.struck("db.token borrow first=1")
    return database.connected(struck, database.token(struck), show=show)


@probe("rds-borrow", "A statement for which no database connection was free in time", "Timed-out waiting to acquire database connection.", database.TROUBLE)
def _(target):
    return lent(target, lambda error: str(error).strip().split("\n")[-1])


@probe("rds-borrow-state", "and under which SQLSTATE (drivers report class 08)", SILENT, database.TROUBLE)
def _(target):
    return lent(target, lambda error: error.sqlstate)
