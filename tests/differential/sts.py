"""STS: who one is, who one may become, and for how long."""

import json

from probes import (
    IAM_EVALUATION, SIGV4, STS_COMMON, guide, probe, send, signed_at, sts_api, told,
)

ASSUME = sts_api("AssumeRole")
CHAINING = guide("IAM role chaining", "IAM/latest/UserGuide/id_roles.html", "Role chaining: one hour at most")
TRUST = guide("IAM trust policies", "IAM/latest/UserGuide/id_roles_update-role-trust-policy.html", "Text")


def sts(target):
    """The operator's client."""
    return target.client("sts")


def role(target, called):
    """The ARN of a role of the template."""
    return f"arn:aws:iam::{target.account}:role/{called}"


def assume(target, called="probe-admin", client=None, show=None, **changes):
    """What AssumeRole says."""
    arguments = {"RoleArn": role(target, called) if ":" not in called else called, "RoleSessionName": "probe"} | changes
    return told(lambda: (client or sts(target)).assume_role(**arguments), show)


@probe("sts-identity", "GetCallerIdentity tells account, ARN and user id", "200 111122223333", sts_api("GetCallerIdentity", "Response"))
def _(target):
    return told(lambda: sts(target).get_caller_identity(), lambda answer: answer["Account"] if {"Arn", "UserId"} <= set(answer) else "and not all")


@probe("sts-identity-role", "A session's ARN is assumed-role/ROLE/NAME", "200 arn:aws:sts::111122223333:assumed-role/probe-admin/probe", sts_api("GetCallerIdentity", "Examples"))
def _(target):
    return told(lambda: target.client("sts", **target.role("probe-admin")).get_caller_identity(), lambda answer: answer["Arn"])


@probe("sts-identity-free", "GetCallerIdentity needs no permission", "200", sts_api("GetCallerIdentity", "Description"))
def _(target):
    return told(lambda: target.client("sts", **target.role("probe-nothing")).get_caller_identity())


@probe("sts-assume", "AssumeRole answers keys, a token, an expiry, and who one is now", "200", sts_api("AssumeRole", "Response"))
def _(target):
    def shown(answer):
        made = answer["Credentials"]
        user = answer["AssumedRoleUser"]
        good = made["AccessKeyId"].startswith("ASIA") and made["SessionToken"] and made["Expiration"]
        return bool(good and user["Arn"].endswith(":assumed-role/probe-admin/probe") and user["AssumedRoleId"].endswith(":probe")) or "in another form"

    return assume(target, show=shown)


@probe("sts-assume-role-id", "AssumedRoleId begins with AROA", "200 AROA", guide("IAM identifiers", "IAM/latest/UserGuide/reference_identifiers.html", "Unique ID prefixes"))
def _(target):
    return assume(target, show=lambda answer: answer["AssumedRoleUser"]["AssumedRoleId"][:4])


for seconds, want in [(899, "400 ValidationError"), (900, "200"), (3600, "200"), (3601, "400 ValidationError"), (43200, "400 ValidationError"), (43201, "400 ValidationError")]:
    @probe(f"sts-duration-{seconds}", f"A session of {seconds} s, of a role whose maximum is the default hour", want, sts_api("AssumeRole", "DurationSeconds"), seconds=seconds)
    def _(target, seconds):
        return assume(target, DurationSeconds=seconds)


@probe("sts-duration-default", "Without DurationSeconds a session lasts an hour", "200 3600", sts_api("AssumeRole", "DurationSeconds"))
def _(target):
    import datetime
    return assume(target, show=lambda answer: round((answer["Credentials"]["Expiration"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds() / 60) * 60)


@probe("sts-duration-chained", "A session that becomes another role does so for an hour at most", "400 ValidationError", CHAINING)
def _(target):
    return assume(target, "probe-chained", target.client("sts", **target.role("probe-admin")), DurationSeconds=3601)


@probe("sts-chained", "A role may become another that trusts it", "200", TRUST)
def _(target):
    return assume(target, "probe-chained", target.client("sts", **target.role("probe-admin")))


@probe("sts-chained-refused", "A role that the other does not trust may not", "403 AccessDenied", TRUST)
def _(target):
    return assume(target, "probe-chained", target.client("sts", **target.role("probe-nothing")))


@probe("sts-chained-without-permission", "nor one without a policy that allows it, where the trust policy names the account", "403 AccessDenied", IAM_EVALUATION)
def _(target):
    return assume(target, "probe-admin", target.client("sts", **target.role("probe-nothing")))


@probe("sts-direct", "A role that the trust policy names itself needs no policy of its own, in the same account", "200", sts_api("AssumeRole", "Description: (Optional) same account"))
def _(target):
    return assume(target, "probe-direct", target.client("sts", **target.role("probe-nothing")))


@probe("sts-stranger", "A role that trusts another account alone", "403 AccessDenied", TRUST)
def _(target):
    return assume(target, "probe-stranger")


@probe("sts-service-role", "A role that trusts Lambda alone", "403 AccessDenied", TRUST)
def _(target):
    return assume(target, "probe-function")


@probe("sts-unknown-role", "A role that does not exist", "403 AccessDenied", f"{STS_COMMON}; {guide('IAM troubleshooting', 'IAM/latest/UserGuide/troubleshoot_roles.html', 'I cannot assume a role')}")
def _(target):
    return assume(target, "probe-none")


for given, want in [("twelve-apes", "200"), ("other", "403 AccessDenied"), (None, "403 AccessDenied")]:
    @probe(f"sts-external-{given or 'none'}", f"A role that demands an external id, asked with {given or 'none'}", want, guide("IAM external id", "IAM/latest/UserGuide/id_roles_common-scenarios_third-party.html", "External ID"), given=given)
    def _(target, given):
        return assume(target, "probe-external", **({"ExternalId": given} if given else {}))


for label, changes, want in [
    ("arn", {"RoleArn": "probe-admin-is-no-role-arn"}, "400 ValidationError"), ("name-space", {"RoleSessionName": "a b"}, "400 ValidationError"),
    ("name-short", {"RoleSessionName": "a"}, "400 ValidationError"), ("name-long", {"RoleSessionName": "a" * 65}, "400 ValidationError"),
    ("name-64", {"RoleSessionName": "a" * 64}, "200"), ("name-signs", {"RoleSessionName": "a+=,.@-_"}, "200"), ("no-name", {"RoleSessionName": None}, "400 ValidationError"),
    ("policy-no-json", {"Policy": "{"}, "400 MalformedPolicyDocument"), ("policy-long", {"Policy": " " * 2049}, "400 ValidationError"),
    ("policy-principal", {"Policy": json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}]})}, "400 MalformedPolicyDocument"),
    ("external-long", {"ExternalId": "x" * 1225}, "400 ValidationError"),
]:
    @probe(f"sts-invalid-{label}", f"AssumeRole, the form of its arguments: {label.replace('-', ' ')}", want, sts_api("AssumeRole", "Request parameters; MalformedPolicyDocument"), changes=changes)
    def _(target, changes):
        arguments = {"RoleArn": role(target, "probe-admin"), "RoleSessionName": "probe"} | changes
        return told(lambda: sts(target).assume_role(**{name: value for name, value in arguments.items() if value is not None}))


@probe("sts-packed", "PackedPolicySize comes with a session policy", "200 with it", sts_api("AssumeRole", "Response: PackedPolicySize"))
def _(target):
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
    return assume(target, show=lambda answer: "with it" if answer.get("PackedPolicySize") else "without it", Policy=policy)


# Tokens ------------------------------------------------------------------------------------------------------------------


def identity(target, **changes):
    return told(lambda: target.client("sts", **(target.somebody() | changes)).get_caller_identity())


@probe("sts-token-missing", "A session's keys without its token", ("403 InvalidClientTokenId", "403 ExpiredToken"), STS_COMMON)
def _(target):
    keys = target.role("probe-admin")
    return identity(target, aws_access_key_id=keys["aws_access_key_id"], aws_secret_access_key=keys["aws_secret_access_key"], aws_session_token=None)


@probe("sts-token-altered", "A session's keys with one character of its token changed", "403 InvalidClientTokenId", STS_COMMON)
def _(target):
    keys = target.role("probe-admin")
    token = keys["aws_session_token"]
    middle = len(token) // 2
    return identity(target, **(keys | {"aws_session_token": token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1:]}))


@probe("sts-token-of-another", "A session's keys with another session's token", "403 InvalidClientTokenId", STS_COMMON)
def _(target):
    return identity(target, **(target.role("probe-admin") | {"aws_session_token": target.role("probe-nothing")["aws_session_token"]}))


@probe("kms-token-missing", "KMS: a session's keys without its token", ("400 UnrecognizedClientException", "403 UnrecognizedClientException"), STS_COMMON)
def _(target):
    keys = target.role("probe-admin")
    return told(lambda: target.client("kms", aws_access_key_id=keys["aws_access_key_id"], aws_secret_access_key=keys["aws_secret_access_key"], aws_session_token=None).list_keys())


@probe("kms-token-altered", "KMS: a session's keys with another session's token", ("400 UnrecognizedClientException", "403 UnrecognizedClientException"), STS_COMMON)
def _(target):
    keys = target.role("probe-admin") | {"aws_session_token": target.role("probe-nothing")["aws_session_token"]}
    return told(lambda: target.client("kms", **keys).list_keys())


@probe("sts-unknown-access-key", "A call with an unknown access key id", "403 InvalidClientTokenId", STS_COMMON)
def _(target):
    return identity(target, aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_session_token=None)


@probe("sts-wrong-secret", "A call with a wrong secret", "403 SignatureDoesNotMatch", SIGV4)
def _(target):
    return identity(target, aws_secret_access_key="x" * 40)


@probe("sts-old", "A call signed sixteen minutes ago", "403 SignatureDoesNotMatch", SIGV4)
def _(target):
    with signed_at(minutes=-16):
        return identity(target)


@probe("sts-early", "A call dated sixteen minutes ahead", "403 SignatureDoesNotMatch", SIGV4)
def _(target):
    with signed_at(minutes=16):
        return identity(target)


@probe("sts-wrong-region", "A call signed for another region than the endpoint's", "403 SignatureDoesNotMatch", SIGV4)
def _(target):
    return identity(target, region_name="eu-west-3")


@probe("sts-wrong-service", "A call whose scope names another service", "403 SignatureDoesNotMatch", SIGV4)
def _(target):
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    keys, body = target.somebody(), b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = {"content-type": "application/x-www-form-urlencoded"}
    request = AWSRequest(method="POST", url=target.url("sts") + "/", data=body, headers=headers)
    botocore.auth.SigV4Auth(Credentials(keys["aws_access_key_id"], keys["aws_secret_access_key"], keys["aws_session_token"]), "kms", target.region).add_auth(request)
    return send(target.url("sts") + "/", "POST", dict(request.headers.items()), body, target.ca).told()


@probe("sts-body-changed", "A body that is not the one that was signed", "403 SignatureDoesNotMatch", SIGV4)
def _(target):
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    keys, body = target.somebody(), b"Action=GetCallerIdentity&Version=2011-06-15"
    request = AWSRequest(method="POST", url=target.url("sts") + "/", data=body, headers={"content-type": "application/x-www-form-urlencoded"})
    botocore.auth.SigV4Auth(Credentials(keys["aws_access_key_id"], keys["aws_secret_access_key"], keys["aws_session_token"]), "sts", target.region).add_auth(request)
    return send(target.url("sts") + "/", "POST", dict(request.headers.items()), body + b"&More=x", target.ca).told()


@probe("sts-unsigned", "A call without any signature", "403 MissingAuthenticationToken", STS_COMMON)
def _(target):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return send(target.url("sts") + "/", "POST", headers, b"Action=GetCallerIdentity&Version=2011-06-15", target.ca).told()


@probe("sts-unknown-action", "An action that does not exist", "400 InvalidAction", STS_COMMON)
def _(target):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return target.signed("sts", "POST", "/", headers, b"Action=OpenSesame&Version=2011-06-15").told()
