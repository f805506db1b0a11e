"""boto3: KMS, STS, S3 and Lambda as an operator's scripts use them."""

import base64
import hashlib
import io
import json
import uuid

from botocore.config import Config
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from stack import HTTP, MANIFEST, Report, aws, aws_outcome, new_file, settled, signed_ago, signing_key, token, version

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
