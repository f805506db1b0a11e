"""Policies: of identities, sessions, keys and buckets; their conditions and their operators."""

import json
import uuid

from kms import CONTEXT, key, sealed
from probes import (
    IAM_ELEMENTS, IAM_EVALUATION, IAM_OPERATORS, IAM_SETS, IAM_VARIABLES, KMS_CONDITIONS, guide, kms_api, probe, ssm_api, told,
)

# KMS and SSM answer 400; the pages of common errors have both.
DENIED = ("400 AccessDeniedException", "403 AccessDeniedException")
KEY_POLICIES = guide("KMS key policies", "kms/latest/developerguide/key-policies.html", "Text")
SESSIONS = guide("IAM session policies", "IAM/latest/UserGuide/access_policies.html", "Session policies")


def as_role(target, service, called, **more):
    """A client of one of the template's roles."""
    return target.client(service, **target.role(called, **more))


def encrypt(target, called, of=None, context=None, **more):
    """Encrypt, as a role."""
    arguments = {"KeyId": of or key(target), "Plaintext": b"x"} | ({"EncryptionContext": context} if context else {})
    return told(lambda: as_role(target, "kms", called, **more).encrypt(**arguments))


# Identity policies -------------------------------------------------------------------------------------------------------


@probe("policy-nothing", "A role without policies may nothing", DENIED, IAM_EVALUATION)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-nothing").generate_random(NumberOfBytes=1))


@probe("policy-allow", "What a policy allows is allowed", "200", IAM_EVALUATION)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-admin").generate_random(NumberOfBytes=1))


@probe("policy-deny", "An explicit denial wins over what allows", DENIED, IAM_EVALUATION)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-denied").generate_random(NumberOfBytes=1))


@probe("policy-deny-beside", "and denies nothing beside", "200", IAM_EVALUATION)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-denied").list_keys())


@probe("policy-denied-first", "Whoever may not is not told whether there is such a key", (*DENIED, "400 NotFoundException"), kms_api("Encrypt", "Errors"))
def _(target):
    return encrypt(target, "probe-nothing", f"arn:aws:kms:{target.region}:{target.account}:key/{uuid.uuid4()}")


# Conditions of KMS -------------------------------------------------------------------------------------------------------

for label, context, want in [
    ("right", {"tenant": "acme"}, "200"), ("more", {"tenant": "acme", "more": "x"}, "200"), ("wrong", {"tenant": "globex"}, DENIED), ("missing", None, DENIED),
    ("name-case", {"Tenant": "acme"}, "200"), ("value-case", {"tenant": "Acme"}, DENIED),
]:
    @probe(f"condition-context-{label}", f"kms:EncryptionContext:tenant = acme, the context {label.replace('-', ' ')} (the key's name is matched in any case)", want,
           f"{KMS_CONDITIONS}: kms:EncryptionContext:context-key", context=context)
    def _(target, context):
        return encrypt(target, "probe-context", context=context)


for label, context, want in [
    ("both", {"tenant": "a", "purpose": "b"}, "200"), ("one", {"tenant": "a"}, "200"), ("more", {"tenant": "a", "other": "b"}, DENIED), ("none", None, DENIED),
    ("case", {"Tenant": "a"}, DENIED),
]:
    @probe(f"condition-context-keys-{label}", f"ForAllValues of kms:EncryptionContextKeys, with Null false: {label}", want, f"{KMS_CONDITIONS}: kms:EncryptionContextKeys; {IAM_SETS}", context=context)
    def _(target, context):
        return encrypt(target, "probe-context-keys", context=context)


for label, kind, algorithm, want in [("right", "DIGEST", "ECDSA_SHA_256", "200"), ("raw", "RAW", "ECDSA_SHA_256", DENIED)]:
    @probe(f"condition-sign-{label}", f"kms:MessageType = DIGEST: Sign {kind}", want, f"{KMS_CONDITIONS}: kms:MessageType, kms:SigningAlgorithm", kind=kind, algorithm=algorithm)
    def _(target, kind, algorithm):
        return told(lambda: as_role(target, "kms", "probe-signer").sign(KeyId=key(target, "ECC_NIST_P256", "SIGN_VERIFY"), Message=b"x" * 32, MessageType=kind, SigningAlgorithm=algorithm))


@probe("condition-reencrypt", "ReEncrypt needs ReEncryptFrom and ReEncryptTo", DENIED, kms_api("ReEncrypt", "Required permissions"))
def _(target):
    return told(lambda: as_role(target, "kms", "probe-from").re_encrypt(CiphertextBlob=sealed(target), SourceEncryptionContext=CONTEXT, DestinationKeyId=key(target)))


@probe("condition-alias", "kms:RequestAlias where the key is named by alias", "200", f"{KMS_CONDITIONS}: kms:RequestAlias")
def _(target):
    from kms import alias
    return encrypt(target, "probe-by-alias", alias(target))


@probe("condition-alias-id", "and where it is not", DENIED, f"{KMS_CONDITIONS}: kms:RequestAlias")
def _(target):
    return encrypt(target, "probe-by-alias")


@probe("condition-alias-resource", "An alias is never the resource of a cryptographic operation", DENIED, guide("KMS aliases in policies", "kms/latest/developerguide/alias-authorization.html", "Text"))
def _(target):
    from kms import alias
    return told(lambda: as_role(target, "kms", "probe-by-alias").generate_data_key(KeyId=alias(target), KeySpec="AES_256"))


# Parameters --------------------------------------------------------------------------------------------------------------


def parameter(target, path, kind="String", **more):
    """A parameter under /probe."""

    def make():
        called = f"/probe/{path}/{uuid.uuid4()}"
        target.client("ssm").put_parameter(Name=called, Value="x", Type=kind, **more)
        return called

    return target.memo(("policy parameter", path, kind), make)


SSM_IAM = guide("Parameter Store and IAM", "systems-manager/latest/userguide/sysman-paramstore-access.html", "Text")


@probe("policy-parameter", "A parameter under the role's own path", "200", SSM_IAM)
def _(target):
    return told(lambda: as_role(target, "ssm", "probe-parameters").get_parameter(Name=parameter(target, "own")))


@probe("policy-parameter-other", "one beside it", DENIED, SSM_IAM)
def _(target):
    return told(lambda: as_role(target, "ssm", "probe-parameters").get_parameter(Name=parameter(target, "others")))


@probe("policy-parameter-version", "A version of one's own", "200", SSM_IAM)
def _(target):
    return told(lambda: as_role(target, "ssm", "probe-parameters").get_parameter(Name=parameter(target, "own") + ":1"))


@probe("policy-parameters-mixed", "GetParameters with one name that is not allowed is denied as a whole", DENIED, ssm_api("GetParameters", "Errors"))
def _(target):
    return told(lambda: as_role(target, "ssm", "probe-parameters").get_parameters(Names=[parameter(target, "own"), parameter(target, "others")]))


@probe("policy-parameters-path", "GetParametersByPath is decided on the path", DENIED, SSM_IAM)
def _(target):
    return told(lambda: as_role(target, "ssm", "probe-parameters").get_parameters_by_path(Path="/probe", Recursive=True))


for overwrite, want in [(False, "200"), (True, DENIED)]:
    @probe(f"condition-overwrite-{overwrite}".lower(), f"ssm:Overwrite = false, PutParameter with Overwrite {overwrite}", want,
           guide("SSM condition keys", "service-authorization/latest/reference/list_awssystemsmanager.html", "ssm:Overwrite"), overwrite=overwrite)
    def _(target, overwrite):
        return told(lambda: as_role(target, "ssm", "probe-parameters").put_parameter(Name=f"/probe/own/{uuid.uuid4()}", Value="x", Type="String", Overwrite=overwrite))


VIA = guide("SecureString and KMS", "kms/latest/developerguide/services-parameter-store.html", "Permissions")


def sealed_parameter(target):
    own = target.memo("ssm key", lambda: target.client("kms").create_key()["KeyMetadata"]["Arn"])
    return parameter(target, "own", "SecureString", KeyId=own)


@probe("condition-via", "A SecureString is opened with the caller's own kms:Decrypt", "200", VIA)
def _(target):
    return told(lambda: as_role(target, "ssm", "probe-parameters-opened").get_parameter(Name=sealed_parameter(target), WithDecryption=True))


@probe("condition-via-none", "and not without it", DENIED, VIA)
def _(target):
    return told(lambda: as_role(target, "ssm", "probe-parameters").get_parameter(Name=sealed_parameter(target), WithDecryption=True))


@probe("condition-via-direct", "kms:ViaService does not hold for a call to KMS itself", DENIED, f"{KMS_CONDITIONS}: kms:ViaService")
def _(target):
    return told(lambda: as_role(target, "kms", "probe-parameters-opened").decrypt(CiphertextBlob=sealed(target), EncryptionContext=CONTEXT))


# Permissions boundaries --------------------------------------------------------------------------------------------------

BOUNDARIES = guide("Permissions boundaries", "IAM/latest/UserGuide/access_policies_boundaries.html", "Evaluating effective permissions")
EVERYTHING = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
NO_ALIASES = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:GenerateRandom", "Resource": "*"}]})


@probe("boundary-within", "What policy and boundary allow is allowed", "200", BOUNDARIES)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-bounded").generate_random(NumberOfBytes=1))


@probe("boundary-outside", "What the boundary does not allow is not, whatever a policy says", DENIED, BOUNDARIES)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-bounded").create_key())


@probe("boundary-denies", "A denial of the boundary wins", DENIED, BOUNDARIES)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-bounded").list_aliases())


@probe("boundary-alone", "A boundary grants nothing", DENIED, BOUNDARIES)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-bounded-alone").generate_random(NumberOfBytes=1))


@probe("boundary-session", "A session policy does not widen it", DENIED, BOUNDARIES)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-bounded", Policy=EVERYTHING).create_key())


@probe("boundary-session-narrows", "and narrows it", DENIED, BOUNDARIES)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-bounded", Policy=NO_ALIASES).list_keys())


# Session policies --------------------------------------------------------------------------------------------------------


def session(target, *statements, act=None):
    """What an administrator may do in a session narrowed to these statements: make a random number, unless told otherwise."""
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    keys = target.role("probe-admin", Policy=policy)
    return told(lambda: (act or (lambda client: client.generate_random(NumberOfBytes=1)))(target.client("kms", **keys)))


def allow(action="kms:GenerateRandom", resource="*", **more):
    """A statement that allows."""
    return {"Effect": "Allow", "Action": action, "Resource": resource} | more


RANDOM = "kms:GenerateRandom"

for label, statements, want in [
    ("allowed", [allow()], "200"), ("other", [allow("kms:ListKeys")], DENIED), ("case", [allow("KMS:generaterandom")], "200"), ("star", [allow("kms:Generate*")], "200"),
    ("question", [allow("kms:GenerateRando?")], "200"), ("question-short", [allow("kms:GenerateRandom?")], DENIED), ("service", [allow("s3:*")], DENIED), ("list", [allow(["s3:GetObject", RANDOM])], "200"),
    ("deny", [allow(), {"Effect": "Deny", "Action": RANDOM, "Resource": "*"}], DENIED),
    ("not-action", [{"Effect": "Allow", "NotAction": "kms:ListKeys", "Resource": "*"}], "200"), ("not-action-own", [{"Effect": "Allow", "NotAction": RANDOM, "Resource": "*"}], DENIED),
    ("deny-not-action", [allow("*"), {"Effect": "Deny", "NotAction": "s3:*", "Resource": "*"}], DENIED),
]:
    @probe(f"session-{label}", f"A session policy, how actions match: {label.replace('-', ' ')}", want, f"{SESSIONS}; {IAM_ELEMENTS}", statements=statements)
    def _(target, statements):
        return session(target, *statements)


@probe("session-no-more", "A session policy gives nothing that the role does not have", DENIED, SESSIONS)
def _(target):
    keys = target.role("probe-nothing", Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow("*")]}))
    return told(lambda: target.client("kms", **keys).generate_random(NumberOfBytes=1))


def described(target, statement):
    """DescribeKey in a session of one statement."""
    return session(target, statement, act=lambda client: client.describe_key(KeyId=key(target)))


for label, resource, want in [
    ("exact", "{}", "200"), ("star", "arn:aws:kms:*:111122223333:key/*", "200"), ("other", "arn:aws:kms:us-east-1:111122223333:key/other", DENIED),
    ("case", "ARN", DENIED), ("region", "arn:aws:kms:eu-west-1:111122223333:key/*", DENIED),
]:
    @probe(f"session-resource-{label}", f"How resources match: {label}", want, f"{IAM_ELEMENTS}: Resource", resource=resource)
    def _(target, resource):
        named = key(target).upper() if resource == "ARN" else resource.format(key(target))
        if resource == "ARN":
            named = "arn:aws:kms:us-east-1:111122223333:KEY/" + key(target).rpartition("/")[2]
        return described(target, allow("kms:DescribeKey", named))


for label, negated, want in [("other", "arn:aws:kms:us-east-1:111122223333:key/other", "200"), ("own", "arn:aws:kms:*:*:key/*", DENIED)]:
    @probe(f"session-not-resource-{label}", f"NotResource: {label}", want, f"{IAM_ELEMENTS}: NotResource", negated=negated)
    def _(target, negated):
        return described(target, {"Effect": "Allow", "Action": "kms:DescribeKey", "NotResource": negated})


# Operators ---------------------------------------------------------------------------------------------------------------

# The same in every run: they stand in the table.
SOON, EARLIER = "2099-01-01T00:00:00Z", "2020-01-01T00:00:00Z"
ROLE = "arn:aws:iam::111122223333:role/probe-admin"

for label, condition, holds in [
    ("string-equals", {"StringEquals": {"aws:PrincipalArn": ROLE}}, True),
    ("string-equals-case", {"StringEquals": {"aws:PrincipalArn": ROLE.replace("admin", "Admin")}}, False),
    ("string-equals-one-of", {"StringEquals": {"aws:PrincipalArn": ["x", ROLE]}}, True),
    ("string-equals-no-star", {"StringEquals": {"aws:PrincipalArn": ROLE[:-1] + "*"}}, False),
    ("key-case", {"StringEquals": {"AWS:principalarn": ROLE}}, True),
    ("string-not-equals", {"StringNotEquals": {"aws:PrincipalArn": "x"}}, True),
    ("string-not-equals-none-of", {"StringNotEquals": {"aws:PrincipalArn": ["x", ROLE]}}, False),
    ("string-ignore-case", {"StringEqualsIgnoreCase": {"aws:PrincipalArn": ROLE.upper()}}, True),
    ("string-not-ignore-case", {"StringNotEqualsIgnoreCase": {"aws:PrincipalArn": ROLE.upper()}}, False),
    ("string-like", {"StringLike": {"aws:PrincipalArn": "arn:*:role/probe-?dmin"}}, True),
    ("string-not-like", {"StringNotLike": {"aws:PrincipalArn": "arn:*"}}, False),
    ("arn-like", {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/probe-*"}}, True),
    ("arn-equals-star", {"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::*:role/probe-*"}}, True),
    ("arn-like-parts", {"ArnLike": {"aws:PrincipalArn": "arn:aws:i*:role/probe-admin"}}, None),
    ("arn-not-like", {"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/other"}}, True),
    ("bool", {"Bool": {"aws:ViaAWSService": "false"}}, None),
    ("null-absent", {"Null": {"kms:ViaService": "true"}}, True),
    ("null-present", {"Null": {"aws:PrincipalArn": "true"}}, False),
    ("missing-positive", {"StringEquals": {"kms:ViaService": "x"}}, False),
    ("missing-negative", {"StringNotEquals": {"kms:ViaService": "x"}}, True),
    ("missing-if-exists", {"StringEqualsIfExists": {"kms:ViaService": "x"}}, True),
    ("present-if-exists", {"StringEqualsIfExists": {"aws:PrincipalArn": "x"}}, False),
    ("missing-numeric", {"NumericLessThan": {"s3:signatureAge": "1"}}, False),
    ("missing-numeric-negative", {"NumericNotEquals": {"s3:signatureAge": "1"}}, True),
    ("date-less", {"DateLessThan": {"aws:CurrentTime": SOON}}, True),
    ("date-less-not", {"DateLessThan": {"aws:CurrentTime": EARLIER}}, False),
    ("date-greater", {"DateGreaterThan": {"aws:CurrentTime": EARLIER}}, True),
    ("date-epoch", {"DateLessThan": {"aws:CurrentTime": "4070908800"}}, True),
    ("numeric-epoch", {"NumericGreaterThan": {"aws:EpochTime": "1000"}}, True),
    ("numeric-epoch-less", {"NumericLessThanEquals": {"aws:EpochTime": "1000"}}, False),
    ("ip", {"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
    ("ip-other", {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}, False),
    ("ip-not", {"NotIpAddress": {"aws:SourceIp": ["203.0.113.0/24", "127.0.0.1"]}}, False),
    ("both-operators", {"StringEquals": {"aws:PrincipalArn": ROLE}, "StringLike": {"aws:PrincipalArn": "x*"}}, False),
    ("both-keys", {"StringEquals": {"aws:PrincipalArn": ROLE, "aws:RequestedRegion": "eu-west-3"}}, False),
    ("region", {"StringEquals": {"aws:RequestedRegion": "us-east-1"}}, True),
    ("account", {"StringEquals": {"aws:PrincipalAccount": "111122223333"}}, True),
    ("for-all-absent", {"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, True),
    ("for-any-absent", {"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, False),
    ("variable", {"StringLike": {"aws:PrincipalArn": "arn:aws:iam::${aws:PrincipalAccount}:role/probe-admin"}}, True),
    ("variable-star", {"StringLike": {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/probe${*}"}}, False),
    ("variable-absent", {"StringNotEquals": {"aws:PrincipalArn": "${aws:PrincipalTag/none}"}}, None),
]:
    if holds is None:
        # Documented for nobody to rely on, or a key whose presence depends on the way of the call.
        continue
    source = IAM_VARIABLES if label.startswith("variable") else IAM_SETS if label.startswith("for-") else IAM_OPERATORS

    @probe(f"operator-{label}", f"Whether a condition holds: {json.dumps(condition)[:110] if 'T' not in str(condition.get('DateLessThan', '')) else label}", "200" if holds else DENIED, source, condition=condition)
    def _(target, condition):
        return session(target, allow(Condition=condition))


# Policies of keys --------------------------------------------------------------------------------------------------------


@probe("key-policy-account", "A key whose policy names the account leaves it to identity policies", "200", KEY_POLICIES)
def _(target):
    return encrypt(target, "probe-admin", target.key_of("OpenKey"))


@probe("key-policy-account-nothing", "which a role without policies does not have", DENIED, KEY_POLICIES)
def _(target):
    return encrypt(target, "probe-nothing", target.key_of("OpenKey"))


@probe("key-policy-named", "A role that the key's policy names needs no identity policy", "200", KEY_POLICIES)
def _(target):
    return encrypt(target, "probe-nothing", target.key_of("ClosedKey"))


@probe("key-policy-closed", "Where the key's policy does not name the account, an identity policy is worth nothing", DENIED, KEY_POLICIES)
def _(target):
    return encrypt(target, "probe-admin", target.key_of("ClosedKey"))


@probe("key-policy-other-action", "A named role may what it is named for, and no more", DENIED, KEY_POLICIES)
def _(target):
    return told(lambda: as_role(target, "kms", "probe-nothing").generate_data_key(KeyId=target.key_of("ClosedKey"), KeySpec="AES_256"))


@probe("key-policy-deny", "A denial in the key's policy wins over identity policies", DENIED, KEY_POLICIES)
def _(target):
    return encrypt(target, "probe-admin", target.key_of("DenyingKey"))


@probe("key-policy-deny-unless", "unless its condition does not hold", "200", KEY_POLICIES)
def _(target):
    return encrypt(target, "probe-admin", target.key_of("DenyingKey"), {"tenant": "acme"})


@probe("key-policy-made", "CreateKey's own policy is in force from the start", DENIED, kms_api("CreateKey", "Policy"))
def _(target):
    policy = {"Version": "2012-10-17", "Statement": [{"Sid": "Make", "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["kms:PutKeyPolicy", "kms:DescribeKey"], "Resource": "*"}]}
    own = target.client("kms").create_key(Policy=json.dumps(policy), BypassPolicyLockoutSafetyCheck=True)["KeyMetadata"]["Arn"]
    return encrypt(target, "probe-admin", own)
