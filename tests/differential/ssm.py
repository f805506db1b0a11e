"""SSM Parameter Store: names, versions, labels, tiers, and what is sealed by KMS."""

import base64
import uuid

from probes import KMS_STATES, SIGV4, SILENT, SSM_COMMON, SSM_SECURE, probe, signed_at, ssm_api, told

PUT = ssm_api("PutParameter")
GET = ssm_api("GetParameter")


def ssm(target):
    """The operator's client."""
    return target.client("ssm")


def name():
    """A name that nobody has."""
    return f"/probe/{uuid.uuid4()}"


def put(target, called, value="one", kind="String", **more):
    """Puts a parameter."""
    return ssm(target).put_parameter(Name=called, Value=value, Type=kind, **more)


def held(target):
    """A parameter of three versions."""

    def make():
        called = name()
        for value in ("one", "two", "three"):
            put(target, called, value, Overwrite=value != "one")
        return called

    return target.memo("parameter", make)


def key(target, number=1):
    """A key for SecureStrings."""
    return target.memo(("ssm key", number), lambda: target.client("kms").create_key()["KeyMetadata"]["Arn"])


def secret(target):
    """A SecureString under a key of its own."""

    def make():
        called = name()
        put(target, called, "a secret", "SecureString", KeyId=key(target))
        return called

    return target.memo("secret", make)


def value(answer):
    """The value that GetParameter answered."""
    return answer["Parameter"]["Value"]


def got(target, called, show=value, **more):
    """What GetParameter says."""
    return told(lambda: ssm(target).get_parameter(Name=called, **more), show)


@probe("ssm-get", "GetParameter answers the newest version", "200 three", ssm_api("GetParameter", "Description"))
def _(target):
    return got(target, held(target))


@probe("ssm-get-shape", "GetParameter tells type, version, ARN and data type", "200 String 3 True text", ssm_api("GetParameter", "Response"))
def _(target):
    def shown(answer):
        one = answer["Parameter"]
        return f"{one['Type']} {one['Version']} {one['ARN'] == arn(target, held(target))} {one['DataType']}"

    return got(target, held(target), shown)


def arn(target, called):
    """The ARN of a parameter."""
    return f"arn:aws:ssm:{target.region}:{target.account}:parameter{called if called.startswith('/') else '/' + called}"


@probe("ssm-get-arn", "A parameter may be named by its ARN", "200 three", ssm_api("GetParameter", "Name"))
def _(target):
    return got(target, arn(target, held(target)))


@probe("ssm-get-unknown", "GetParameter of nothing", "400 ParameterNotFound", f"{GET}: ParameterNotFound")
def _(target):
    return got(target, name())


for selector, want in [("1", "200 one"), ("2", "200 two"), ("3", "200 three"), ("4", "400 ParameterVersionNotFound"), ("nolabel", "400 ParameterVersionNotFound")]:
    @probe(f"ssm-version-{selector}", f"GetParameter of name:{selector}, of three versions", want, ssm_api("GetParameter", "Name; ParameterVersionNotFound"), selector=selector)
    def _(target, selector):
        return got(target, f"{held(target)}:{selector}")


@probe("ssm-selector", "The answer names the parameter without its selector, and the selector", "200 True :2", ssm_api("GetParameter", "Response: Name, Selector"))
def _(target):
    return got(target, f"{held(target)}:2", lambda answer: f"{answer['Parameter']['Name'] == held(target)} {answer['Parameter'].get('Selector')}")


@probe("ssm-put", "PutParameter answers version and tier", "200 1 Standard", ssm_api("PutParameter", "Response"))
def _(target):
    return told(lambda: put(target, name()), lambda answer: f"{answer['Version']} {answer.get('Tier')}")


@probe("ssm-put-again", "PutParameter of what is there, without Overwrite", "400 ParameterAlreadyExists", f"{PUT}: ParameterAlreadyExists")
def _(target):
    called = name()
    put(target, called)
    return told(lambda: put(target, called))


@probe("ssm-put-overwrite", "PutParameter with Overwrite makes the next version", "200 2", ssm_api("PutParameter", "Overwrite"))
def _(target):
    called = name()
    put(target, called)
    return told(lambda: put(target, called, "two", Overwrite=True), lambda answer: answer["Version"])


@probe("ssm-put-overwrite-new", "Overwrite of nothing makes version 1", "200 1", ssm_api("PutParameter", "Overwrite"))
def _(target):
    return told(lambda: put(target, name(), Overwrite=True), lambda answer: answer["Version"])


@probe("ssm-put-type-change", "The type of a parameter cannot be changed", "400 HierarchyTypeMismatchException", f"{PUT}: HierarchyTypeMismatchException")
def _(target):
    called = name()
    put(target, called)
    return told(lambda: put(target, called, "x", "StringList", Overwrite=True))


@probe("ssm-put-no-type", "A new parameter needs a type", "400 ValidationException", ssm_api("PutParameter", "Type"))
def _(target):
    return told(lambda: ssm(target).put_parameter(Name=name(), Value="x"))


@probe("ssm-put-same-type", "An old one keeps its type", "200", ssm_api("PutParameter", "Type"))
def _(target):
    called = name()
    put(target, called)
    return told(lambda: ssm(target).put_parameter(Name=called, Value="x", Overwrite=True))


for label, called, want in [
    ("aws", "aws-thing", "400 ValidationException"), ("ssm", "/SSM/thing", "400 ValidationException"), ("space", "/probe/a b", "400 ValidationException"),
    ("empty", "", "400 ValidationException"), ("double-slash", "/probe//x", "400 ValidationException"), ("unqualified", "probe/x", "400 ValidationException"),
    ("sixteen-levels", "/" + "/".join("abcdefghijklmnop"), "400 HierarchyLevelLimitExceededException"), ("sign", "/probe/x!", "400 ValidationException"),
    ("long", "/probe/" + "x" * 2049, "400 ValidationException"),
]:
    @probe(f"ssm-name-{label}", f"PutParameter of a name that is not allowed: {label.replace('-', ' ')}", want, f"{ssm_api('PutParameter', 'Name')}; errors", called=called)
    def _(target, called):
        return told(lambda: put(target, called))


@probe("ssm-name-fifteen-levels", "A hierarchy has fifteen levels at most", "200", ssm_api("PutParameter", "Name"))
def _(target):
    return told(lambda: put(target, f"/{uuid.uuid4()}" + "/x" * 14))


for tier, length, want in [
    ("Standard", 4096, "200"), ("Standard", 4097, "400 ValidationException"), ("Advanced", 4097, "200"), ("Advanced", 8192, "200"),
    ("Advanced", 8193, "400 ValidationException"), ("Intelligent-Tiering", 4097, "200"), (None, 4097, "400 ValidationException"),
]:
    @probe(f"ssm-size-{tier}-{length}", f"A value of {length} characters in tier {tier or 'of the default, Standard'} (4 KB, Advanced 8 KB)", want, ssm_api("PutParameter", "Value, Tier"), tier=tier, length=length)
    def _(target, tier, length):
        return told(lambda: put(target, name(), "x" * length, **({"Tier": tier} if tier else {})))


@probe("ssm-empty-value", "A value is not empty", "400 ValidationException", ssm_api("PutParameter", "Value"))
def _(target):
    return told(lambda: put(target, name(), ""))


@probe("ssm-tier-back", "An advanced parameter does not become a standard one", "400 ValidationException", ssm_api("PutParameter", "Tier"))
def _(target):
    called = name()
    put(target, called, Tier="Advanced")
    return told(lambda: put(target, called, Overwrite=True, Tier="Standard"))


@probe("ssm-tier-chosen", "Intelligent-Tiering takes the advanced tier for what is too large for the other", "200 Advanced", ssm_api("PutParameter", "Tier"))
def _(target):
    return told(lambda: put(target, name(), "x" * 5000, Tier="Intelligent-Tiering"), lambda answer: answer.get("Tier"))


# Several at once ---------------------------------------------------------------------------------------------------------

SEVERAL = ssm_api("GetParameters", "Names; Response")


@probe("ssm-several", "GetParameters answers what there is, and names what there is not", "200 1 1", SEVERAL)
def _(target):
    return told(lambda: ssm(target).get_parameters(Names=[held(target), name()]), lambda answer: f"{len(answer['Parameters'])} {len(answer['InvalidParameters'])}")


for number, want in [(10, "200"), (11, "400 ValidationException"), (0, "400 ValidationException")]:
    @probe(f"ssm-several-{number}", f"GetParameters of {number} names (1 to 10 are allowed)", want, SEVERAL, number=number)
    def _(target, number):
        return told(lambda: ssm(target).get_parameters(Names=[name() for _ in range(number)]))


def tree(target):
    """/probe/<id> with a, b and c/d below it."""

    def make():
        root = name()
        for one in ("a", "b", "c/d"):
            put(target, f"{root}/{one}", one)
        put(target, f"{root}x", "a neighbour")
        return root

    return target.memo("tree", make)


PATH = ssm_api("GetParametersByPath", "Path, Recursive, MaxResults")


def below(target, path, **more):
    """The names below a path."""
    return told(lambda: ssm(target).get_parameters_by_path(Path=path, **more), lambda answer: " ".join(sorted(one["Name"].removeprefix(tree(target)) for one in answer["Parameters"])))


@probe("ssm-path", "GetParametersByPath answers one level", "200 /a /b", PATH)
def _(target):
    return below(target, tree(target))


@probe("ssm-path-recursive", "and all of them with Recursive, no neighbour among them", "200 /a /b /c/d", PATH)
def _(target):
    return below(target, tree(target), Recursive=True)


@probe("ssm-path-slash", "A path may end with a slash", "200 /a /b", PATH)
def _(target):
    return below(target, tree(target) + "/")


@probe("ssm-path-unqualified", "A path begins with a slash", "400 ValidationException", PATH)
def _(target):
    return told(lambda: ssm(target).get_parameters_by_path(Path="probe"))


@probe("ssm-path-nothing", "A path with nothing below it", "200 0", PATH)
def _(target):
    return told(lambda: ssm(target).get_parameters_by_path(Path=name()), lambda answer: len(answer["Parameters"]))


for number, want in [(10, "200"), (11, "400 ValidationException"), (0, "400 ValidationException")]:
    @probe(f"ssm-path-most-{number}", f"GetParametersByPath of {number} at a time (1 to 10 are allowed)", want, PATH, number=number)
    def _(target, number):
        return told(lambda: ssm(target).get_parameters_by_path(Path=tree(target), MaxResults=number))


@probe("ssm-path-pages", "The next token leads to the next page", "a b", PATH)
def _(target):
    seen, token = [], {}
    for _ in range(4):
        answer = ssm(target).get_parameters_by_path(Path=tree(target), MaxResults=1, **token)
        seen += [one["Value"] for one in answer["Parameters"]]
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    return " ".join(sorted(seen))


@probe("ssm-path-token", "A token that is none", "400 InvalidNextToken", ssm_api("GetParametersByPath", "InvalidNextToken"))
def _(target):
    return told(lambda: ssm(target).get_parameters_by_path(Path=tree(target), NextToken="nothing-of-the-kind"))


# Versions and labels -----------------------------------------------------------------------------------------------------

LABEL = ssm_api("LabelParameterVersion", "Labels")


def labelled(target):
    """A parameter of two versions, the first labelled `good`."""

    def make():
        called = name()
        put(target, called, "one")
        put(target, called, "two", Overwrite=True)
        ssm(target).label_parameter_version(Name=called, ParameterVersion=1, Labels=["good"])
        return called

    return target.memo("labelled", make)


@probe("ssm-label", "GetParameter of name:label answers the labelled version", "200 one", LABEL)
def _(target):
    return got(target, f"{labelled(target)}:good")


@probe("ssm-label-moved", "A label that is given to another version moves there", "200 two", LABEL)
def _(target):
    called = name()
    put(target, called, "one")
    put(target, called, "two", Overwrite=True)
    ssm(target).label_parameter_version(Name=called, ParameterVersion=1, Labels=["here"])
    ssm(target).label_parameter_version(Name=called, ParameterVersion=2, Labels=["here"])
    return got(target, f"{called}:here")


for label in ("aws-one", "1st", "ssmthing", "a b"):
    @probe(f"ssm-label-invalid-{label.replace(' ', '-')}", f"The label {label!r} is answered in InvalidLabels", f"200 {label}", LABEL, label=label)
    def _(target, label):
        called = name()
        put(target, called)
        return told(lambda: ssm(target).label_parameter_version(Name=called, Labels=[label]), lambda answer: " ".join(answer["InvalidLabels"]))


@probe("ssm-label-long", "A label has 100 characters at most", "400 ValidationException", LABEL)
def _(target):
    called = name()
    put(target, called)
    return told(lambda: ssm(target).label_parameter_version(Name=called, Labels=["x" * 101]))


@probe("ssm-label-many", "A version has ten labels at most", ("400 ParameterVersionLabelLimitExceeded", "400 ValidationException"), ssm_api("LabelParameterVersion", "ParameterVersionLabelLimitExceeded"))
def _(target):
    called = name()
    put(target, called)
    ssm(target).label_parameter_version(Name=called, Labels=[f"label{number}" for number in range(10)])
    return told(lambda: ssm(target).label_parameter_version(Name=called, Labels=["eleventh"]))


@probe("ssm-label-version", "A label for a version that is not there", "400 ParameterVersionNotFound", ssm_api("LabelParameterVersion", "ParameterVersionNotFound"))
def _(target):
    return told(lambda: ssm(target).label_parameter_version(Name=labelled(target), ParameterVersion=9, Labels=["x"]))


@probe("ssm-label-unknown", "A label for no parameter", "400 ParameterNotFound", ssm_api("LabelParameterVersion", "ParameterNotFound"))
def _(target):
    return told(lambda: ssm(target).label_parameter_version(Name=name(), Labels=["x"]))


@probe("ssm-history", "GetParameterHistory answers every version", "200 one two three", ssm_api("GetParameterHistory", "Response"))
def _(target):
    return told(lambda: ssm(target).get_parameter_history(Name=held(target)), lambda answer: " ".join(one["Value"] for one in answer["Parameters"]))


@probe("ssm-history-labels", "GetParameterHistory tells the labels", "200 good", ssm_api("GetParameterHistory", "Response"))
def _(target):
    return told(lambda: ssm(target).get_parameter_history(Name=labelled(target)), lambda answer: " ".join(label for one in answer["Parameters"] for label in one.get("Labels", [])))


@probe("ssm-hundred-versions", "The 101st version pushes the first one out", "400 ParameterVersionNotFound", f"{ssm_api('GetParameter', 'ParameterVersionNotFound')}; {ssm_api('PutParameter', 'ParameterMaxVersionLimitExceeded')}")
def _(target):
    called = name()
    for number in range(101):
        put(target, called, f"v{number}", Overwrite=True)
    return got(target, f"{called}:1")


@probe("ssm-hundred-labelled", "unless a label holds it", "400 ParameterMaxVersionLimitExceeded", ssm_api("PutParameter", "ParameterMaxVersionLimitExceeded"))
def _(target):
    called = name()
    put(target, called, "v0")
    ssm(target).label_parameter_version(Name=called, ParameterVersion=1, Labels=["kept"])
    for number in range(99):
        put(target, called, f"v{number}", Overwrite=True)
    return told(lambda: put(target, called, "one more", Overwrite=True))


@probe("ssm-delete", "DeleteParameter takes all versions away", "400 ParameterNotFound", ssm_api("DeleteParameter", "Description"))
def _(target):
    called = name()
    put(target, called)
    ssm(target).delete_parameter(Name=called)
    return got(target, f"{called}:1")


@probe("ssm-delete-unknown", "DeleteParameter of nothing", "400 ParameterNotFound", ssm_api("DeleteParameter", "ParameterNotFound"))
def _(target):
    return told(lambda: ssm(target).delete_parameter(Name=name()))


# SecureString ------------------------------------------------------------------------------------------------------------


@probe("ssm-secret", "A SecureString is opened WithDecryption", "200 a secret", SSM_SECURE)
def _(target):
    return got(target, secret(target), WithDecryption=True)


@probe("ssm-secret-closed", "and not without: the value is a ciphertext", "200 a ciphertext", SSM_SECURE)
def _(target):
    return got(target, secret(target), lambda answer: "the secret" if "a secret" in value(answer) else "a ciphertext")


def ciphertext(target):
    """What is stored of the SecureString."""
    return base64.b64decode(ssm(target).get_parameter(Name=secret(target))["Parameter"]["Value"], validate=True)


@probe("ssm-secret-kms", "The ciphertext is KMS's, under the context PARAMETER_ARN", "200 a secret", f"{SSM_SECURE}: encryption context")
def _(target):
    return told(lambda: target.client("kms").decrypt(CiphertextBlob=ciphertext(target), EncryptionContext={"PARAMETER_ARN": arn(target, secret(target))}),
                lambda answer: answer["Plaintext"].decode())


@probe("ssm-secret-other-context", "and opens under no other context", "400 InvalidCiphertextException", f"{SSM_SECURE}: encryption context")
def _(target):
    return told(lambda: target.client("kms").decrypt(CiphertextBlob=ciphertext(target), EncryptionContext={"PARAMETER_ARN": arn(target, name())}))


@probe("ssm-secret-unknown-key", "A SecureString under no key", "400 InvalidKeyId", f"{PUT}: InvalidKeyId")
def _(target):
    return told(lambda: put(target, name(), "x", "SecureString", KeyId=str(uuid.uuid4())))


@probe("ssm-secret-asymmetric", "A SecureString under an asymmetric key", "400 InvalidKeyId", f"{SSM_SECURE}: symmetric keys only")
def _(target):
    pair = target.client("kms").create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    return told(lambda: put(target, name(), "x", "SecureString", KeyId=pair))


@probe("ssm-secret-default-key", "Without KeyId a SecureString is sealed under alias/aws/ssm", "200 x", SSM_SECURE)
def _(target):
    called = name()
    put(target, called, "x", "SecureString")
    return got(target, called, WithDecryption=True)


@probe("ssm-secret-alias", "A SecureString under a key named by alias", "200 x", SSM_SECURE)
def _(target):
    called, alias = name(), f"alias/{uuid.uuid4()}"
    target.client("kms").create_alias(AliasName=alias, TargetKeyId=key(target))
    put(target, called, "x", "SecureString", KeyId=alias)
    return got(target, called, WithDecryption=True)


@probe("ssm-key-of-string", "KeyId is for SecureStrings", "400 ValidationException", ssm_api("PutParameter", "KeyId"))
def _(target):
    return told(lambda: put(target, name(), "x", KeyId=key(target)))


@probe("ssm-secret-disabled", "WithDecryption while the key is disabled", "400 InvalidKeyId", f"{GET}: InvalidKeyId; {KMS_STATES}")
def _(target):
    own, called = target.client("kms").create_key()["KeyMetadata"]["Arn"], name()
    put(target, called, "x", "SecureString", KeyId=own)
    target.client("kms").disable_key(KeyId=own.rpartition("/")[2])
    return got(target, called, WithDecryption=True)


@probe("ssm-secret-disabled-closed", "and without: the ciphertext is answered", "200 a ciphertext", SSM_SECURE)
def _(target):
    own, called = target.client("kms").create_key()["KeyMetadata"]["Arn"], name()
    put(target, called, "not for everybody", "SecureString", KeyId=own)
    target.client("kms").disable_key(KeyId=own.rpartition("/")[2])
    return got(target, called, lambda answer: "the secret" if "not for everybody" in value(answer) else "a ciphertext")


@probe("ssm-secret-advanced", "An advanced SecureString of 8 KB comes back", "200 8192", SSM_SECURE)
def _(target):
    called = name()
    put(target, called, "x" * 8192, "SecureString", Tier="Advanced", KeyId=key(target))
    return got(target, called, lambda answer: len(value(answer)), WithDecryption=True)


@probe("ssm-secret-not-shown", "What is refused does not show the value (sensitive in the API model)", "without it", ssm_api("PutParameter", "Value"))
def _(target):
    called = name()
    put(target, called)
    try:
        put(target, called, "a very secret value", "SecureString")
    except ssm(target).exceptions.ClientError as error:
        return "with it" if "very secret" in str(error.response) else "without it"
    return "taken"


# Who signs ---------------------------------------------------------------------------------------------------------------


def listed(target, **changes):
    return told(lambda: target.client("ssm", **(target.somebody() | changes)).get_parameters(Names=["/probe/none"]))


@probe("ssm-unknown-access-key", "A call with an unknown access key id", ("400 UnrecognizedClientException", "403 UnrecognizedClientException"), SSM_COMMON)
def _(target):
    return listed(target, aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_session_token=None)


@probe("ssm-wrong-secret", "A call with a wrong secret", ("400 InvalidSignatureException", "403 InvalidSignatureException"), SIGV4)
def _(target):
    return listed(target, aws_secret_access_key="x" * 40)


@probe("ssm-old", "A call signed sixteen minutes ago", ("400 InvalidSignatureException", "403 InvalidSignatureException"), SIGV4)
def _(target):
    with signed_at(minutes=-16):
        return listed(target)


@probe("ssm-wrong-region", "A call signed for another region", ("400 InvalidSignatureException", "403 InvalidSignatureException"), SIGV4)
def _(target):
    return listed(target, region_name="eu-west-3")
