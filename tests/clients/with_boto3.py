"""boto3: KMS, STS, S3 and Lambda as an operator's scripts use them."""

import base64
import hashlib
import io
import json
import os
import uuid

from botocore.config import Config
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from stack import HTTP, MANIFEST, Report, aws, aws_outcome, call, new_file, outcome, settled, signed_ago, signing_key, token, version

report = Report("boto3", version("boto3"))
kms, sts, s3, functions = aws("kms"), aws("sts"), aws("s3"), aws("lambda")
env, bucket, trust = MANIFEST["env"], MANIFEST["bucket"], MANIFEST["trust_bucket"]
data_key = MANIFEST["kms_keys"]["data"]

# KMS
context = {"tenant": "acme", "purpose": "field"}
made = kms.generate_data_key(KeyId=data_key, KeySpec="AES_256", EncryptionContext=context)
blob = made["CiphertextBlob"]
report.row("GenerateDataKey gives 32 bytes", 32, len(made["Plaintext"]))
opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=context)
report.holds("Decrypt gives them back", opened["Plaintext"] == made["Plaintext"])
report.row("and names the key", data_key, opened["KeyId"])
flipped = blob[:-1] + bytes([blob[-1] ^ 1])
bucket_key = MANIFEST["kms_keys"]["bucket"]
for what, want, act in [
    ("Decrypt in another context", "InvalidCiphertextException", {"EncryptionContext": {"tenant": "globex"}}),
    ("Decrypt without its context", "InvalidCiphertextException", {}),
    ("Decrypt of a blob with one bit flipped", "InvalidCiphertextException", {"CiphertextBlob": flipped}),
    ("Decrypt under another key", "IncorrectKeyException", {"EncryptionContext": context, "KeyId": bucket_key}),
]:
    arguments = {"CiphertextBlob": blob} | act
    if "CiphertextBlob" in act:
        arguments["EncryptionContext"] = context
    report.row(what, want, aws_outcome(lambda arguments=arguments: kms.decrypt(**arguments)))
nobody = f"arn:aws:kms:{MANIFEST['region']}:111122223333:key/{uuid.uuid4()}"
report.row("a key that does not exist", "NotFoundException",
           aws_outcome(lambda: kms.generate_data_key(KeyId=nobody, KeySpec="AES_256")))
signing = signing_key()
rule = {"KeyId": signing, "MessageType": "DIGEST", "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"}
digest = hashlib.sha256(b"message").digest()
signature = kms.sign(Message=digest, **rule)["Signature"]
public = serialization.load_der_public_key(kms.get_public_key(KeyId=signing)["PublicKey"])
public.verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())
report.holds("Sign, which OpenSSL verifies under GetPublicKey", True)
report.row("Verify of another message", "KMSInvalidSignatureException",
           aws_outcome(lambda: kms.verify(Message=hashlib.sha256(b"other").digest(), Signature=signature, **rule)))
report.row("Sign with the key for data", "InvalidKeyUsageException",
           aws_outcome(lambda: kms.sign(**(rule | {"KeyId": data_key, "Message": digest}))))

# Who may ask
report.row("GetCallerIdentity", "111122223333", sts.get_caller_identity()["Account"])
wrong = aws("sts", aws_secret_access_key="x" * 40)
report.row("GetCallerIdentity with a wrong secret", "SignatureDoesNotMatch", aws_outcome(wrong.get_caller_identity))
with signed_ago(minutes=16):
    report.row("GetCallerIdentity signed 16 minutes ago", "SignatureDoesNotMatch", aws_outcome(sts.get_caller_identity))
wrong = aws("kms", aws_access_key_id="AKIAIOSFODNN7EXAMPLE")
report.row("KMS with an unknown key id", "UnrecognizedClientException",
           aws_outcome(lambda: wrong.list_keys()))
elsewhere = aws("kms", region_name="eu-west-1")
report.row("KMS signed for another region", "InvalidSignatureException", aws_outcome(elsewhere.list_keys))
elsewhere, refusals = aws("s3", region_name="eu-west-1"), []
elsewhere.meta.events.register_first(
    "needs-retry.s3", lambda response, **_: refusals.append(response[1].get("Error", {}).get("Code")))
elsewhere.list_objects_v2(Bucket=bucket)
report.row("S3 signed for another region: boto3 is told, and asks anew", ["AuthorizationHeaderMalformed", None], refusals)

# S3
bearer = token("acme-backend")
content = b"%PDF-1.7 " + uuid.uuid4().bytes
plan = new_file(bearer, content)
upload = plan["upload"]
put = HTTP.request(upload["method"], upload["url"], headers=upload["headers"], data=content, timeout=20)
report.row("a file uploaded by requests with the signed URL", (200, "clean"), (put.status_code, settled(bearer, plan["id"])))
listed = s3.list_objects_v2(Bucket=bucket, Prefix="t/acme/")["Contents"]
entry = next(entry for entry in listed if plan["id"] in entry["Key"])
report.row("ListObjectsV2 shows it", len(content), entry["Size"])
got = s3.get_object(Bucket=bucket, Key=entry["Key"], ChecksumMode="ENABLED")
report.holds("GetObject reads it, with its checksum verified", got["Body"].read() == content)
report.row("it lies encrypted under the bucket's key", ("aws:kms", bucket_key), (got["ServerSideEncryption"], got["SSEKMSKeyId"]))
part = s3.get_object(Bucket=bucket, Key=entry["Key"], Range="bytes=0-7")
report.row("GetObject of a range", (206, b"%PDF-1.7"), (part["ResponseMetadata"]["HTTPStatusCode"], part["Body"].read()))
for size in (1, 5 << 20):
    whole = os.urandom(size)
    sized = new_file(bearer, whole, content_type="application/octet-stream")
    put = HTTP.request(sized["upload"]["method"], sized["upload"]["url"], headers=sized["upload"]["headers"], data=whole, timeout=60)
    status = (put.status_code, settled(bearer, sized["id"]))
    key = next(entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix="t/acme/")["Contents"] if sized["id"] in entry["Key"])
    taken = io.BytesIO()
    s3.download_fileobj(bucket, key, taken)
    report.row(f"{size} bytes up by their URL and down by boto3's transfer manager", (200, "clean", True), (*status, taken.getvalue() == whole))
page = s3.get_paginator("list_objects_v2").paginate(Bucket=trust, PaginationConfig={"PageSize": 1})
names = [entry["Key"] for found in page for entry in found.get("Contents", [])]
report.holds("a paginated listing of the trust bucket", {"trust/keys.json", "trust/revocations.json"} <= set(names))
report.row("HeadObject of nothing", "404", aws_outcome(lambda: s3.head_object(Bucket=bucket, Key="t/acme/none")))
report.row("GetObject of nothing", "NoSuchKey", aws_outcome(lambda: s3.get_object(Bucket=bucket, Key="t/acme/none")))
report.row("a bucket that does not exist", "NoSuchBucket",
           aws_outcome(lambda: s3.list_objects_v2(Bucket="portcullis-local-nothing")))
name = f"client-tests/{uuid.uuid4()}"
s3.upload_fileobj(io.BytesIO(content), trust, name)
report.holds("an upload by s3transfer, chunked and with its checksum", s3.head_object(Bucket=trust, Key=name)["ContentLength"])
report.row("written once: If-None-Match on what is there", "PreconditionFailed",
           aws_outcome(lambda: s3.put_object(Bucket=trust, Key=name, Body=b"x", IfNoneMatch="*")))
report.row("a body that is not its checksum", "BadDigest",
           aws_outcome(lambda: s3.put_object(Bucket=trust, Key=name, Body=b"x",
                                             ChecksumSHA256=base64.b64encode(bytes(32)).decode())))
tag = s3.head_object(Bucket=trust, Key=name)["ETag"]
report.row("a conditional read of what has not changed", "304",
           aws_outcome(lambda: s3.get_object(Bucket=trust, Key=name, IfNoneMatch=tag)))

# URLs that boto3 signs
v4 = aws("s3", config=Config(signature_version="s3v4"))
where = {"Bucket": bucket, "Key": entry["Key"]}
url = v4.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
answer = HTTP.get(url, timeout=20)
report.row("a URL presigned by boto3", (200, content), (answer.status_code, answer.content))
report.row("with another key written in", 403, HTTP.get(url.replace("t/acme", "t/globex", 1), timeout=20).status_code)
report.row("with a longer life written in", 403, HTTP.get(url.replace("Expires=60", "Expires=600"), timeout=20).status_code)
report.row("used to write", 403, HTTP.put(url, data=b"x", timeout=20).status_code)
with signed_ago(minutes=2):
    expired = v4.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
answer = HTTP.get(expired, timeout=20)
report.row("expired a minute ago", (403, True), (answer.status_code, "Request has expired" in answer.text))
v2 = aws("s3", config=Config(signature_version="s3")).generate_presigned_url("get_object", Params=where, ExpiresIn=60)
report.row("signed with version 2", 400, HTTP.get(v2, timeout=20).status_code)

# Forms: ours beside the one that boto3 signs for the same terms
plan = call("POST", "/files", bearer, json={"name": "a.png", "content_type": "image/png", "max_size": 100, "mode": "post"}).json()
ours, key = plan["upload"], plan["upload"]["fields"]["key"]
said = json.loads(base64.b64decode(ours["fields"]["policy"]))
own = {"x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-security-token", "policy", "x-amz-signature", "key"}
fixed = {name: value for name, value in ours["fields"].items() if name not in own}
theirs = v4.generate_presigned_post(bucket, key, Fields=dict(fixed), ExpiresIn=300,
                                    Conditions=[{name: value} for name, value in fixed.items()] + [["content-length-range", 1, 100]])
wanted = json.loads(base64.b64decode(theirs["fields"]["policy"]))


def terms(policy):
    """What a policy fixes, without who signed it and when."""
    exact = {}
    for condition in policy["conditions"]:
        if isinstance(condition, dict):
            exact.update(condition)
        elif condition[0] == "eq":
            exact[condition[1][1:]] = condition[2]
        else:
            exact[condition[0]] = condition[1:]
    return {name: value for name, value in exact.items() if name not in own - {"key"}}


report.row("a form fixes what boto3's form fixes", terms(wanted), terms(said))
report.row("under the same names", {name.lower() for name in theirs["fields"]} | {"x-amz-security-token"},
           {name.lower() for name in ours["fields"]})
report.row("and goes to the same place", theirs["url"].rstrip("/"), ours["url"].rstrip("/"))


def post(form, body, **changes):
    """Sends a form as `requests` writes it; answers the status and S3's code."""
    answer = HTTP.post(form["url"], data=form["fields"] | changes, files={"file": ("a.png", body)}, timeout=20)
    return f"{answer.status_code} {answer.text.partition('<Code>')[2].partition('</Code>')[0]}".strip()


picture = b"\x89PNG\r\n\x1a\n" + b"x" * 92
report.row("ours with more bytes than it allows", "400 EntityTooLarge", post(ours, picture + b"x"))
report.row("ours with none", "400 EntityTooSmall", post(ours, b""))
report.row("ours for another key", "403 AccessDenied", post(ours, b"x", key=key[:-1] + ("1" if key.endswith("0") else "0")))
report.row("ours with a field more", "403 AccessDenied", post(ours, b"x", acl="public-read"))
report.row("ours as it is", "204", post(ours, picture))
report.row("the event completes it", "clean", settled(bearer, plan["id"]))
known = call("GET", f"/files/{plan['id']}", bearer).json()
report.row("and tells what it turned out to be", (100, base64.b64encode(hashlib.sha256(picture).digest()).decode()),
           (known["size"], known["sha256"]))
elsewhere = v4.generate_presigned_post(trust, f"client-tests/{uuid.uuid4()}", ExpiresIn=60)
report.row("a form that boto3 signed for itself", "204", post(elsewhere, b"x"))
report.row("with another signature", "403 SignatureDoesNotMatch", post(elsewhere, b"x", **{"x-amz-signature": "0" * 64}))

# Parts: planned by the API, sent by `requests`, looked at by boto3
parts = [b"PK\x03\x04".ljust(5 << 20, b"a"), b"b" * (5 << 20), b"the end"]
whole = b"".join(parts)
plan = call("POST", "/files", bearer, json={"name": "a.zip", "content_type": "application/zip", "size": len(whole),
                                            "part_size": 5 << 20, "mode": "multipart"}).json()
report.row("a plan of three parts", {"part_size": 5 << 20, "parts": 3}, plan["upload"])
named = [{"part": place + 1, "size": len(part), "sha256": base64.b64encode(hashlib.sha256(part).digest()).decode()}
         for place, part in enumerate(parts)]
file = f"/files/{plan['id']}"


def sent(numbers):
    """Signs all three parts and sends some of them; answers what was there before."""
    signed = call("POST", f"{file}/parts", bearer, json={"parts": named, "resume": True}).json()
    for one in signed["parts"]:
        if one["part"] in numbers:
            answer = HTTP.put(one["url"], data=parts[one["part"] - 1], headers=one["headers"], timeout=60)
            answer.raise_for_status()
    return signed["uploaded"]


report.row("two parts of it", [], sent({1, 3}))
report.row("is not whole", "409 parts_missing", outcome(call("POST", f"{file}/complete", bearer)))
report.row("a stopped upload goes on", [1, 3], sent({2}))
report.row("and is made one object", 200, call("POST", f"{file}/complete", bearer).status_code)
report.row("the event completes it", "clean", settled(bearer, plan["id"]))
composite = base64.b64encode(hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()).decode()
held = s3.head_object(Bucket=bucket, Key=f"t/acme/{plan['id']}", ChecksumMode="ENABLED")
report.row("S3 has the digest that anybody can compute", (f"{composite}-3", len(whole)), (held["ChecksumSHA256"], held["ContentLength"]))
location = call("GET", f"{file}/content", bearer, allow_redirects=False).headers["location"]
report.holds("it comes back whole", HTTP.get(location, timeout=60).content == whole)

# Lambda
admin = f"portcullis-{env}-admin"


def invoke(payload, **more):
    answer = functions.invoke(FunctionName=admin, Payload=json.dumps(payload), **more)
    return answer, json.loads(answer["Payload"].read() or b"null")


answer, said = invoke({"operation": "client.list", "operator": "boto3", "tenant": "acme"})
report.row("Invoke of admin: client.list", (200, None), (answer["StatusCode"], answer.get("FunctionError")))
report.holds("lists the seeded clients", "acme-backend" in json.dumps(said))
answer, said = invoke({"operation": "client.list", "operator": "boto3", "tenant": "acme", "surprise": 1}, LogType="Tail")
report.row("a member nobody knows is refused, not failed", (None, True), (answer.get("FunctionError"), "error" in said))
report.row("DryRun", 204, functions.invoke(FunctionName=admin, InvocationType="DryRun")["StatusCode"])
report.row("a function that does not exist", "ResourceNotFoundException",
           aws_outcome(lambda: functions.invoke(FunctionName=f"portcullis-{env}-nothing")))
report.end()
