"""S3: signed URLs and headers, digests, conditional writes, forms, parts, versions, and who may what."""

import base64
import concurrent.futures
import datetime
import hashlib
import hmac
import json
import time
import uuid
from pathlib import Path

import yaml
from botocore.config import Config

from probes import (
    SILENT, S3_CHECKS, S3_ERRORS, S3_HEADER, S3_LIMITS, S3_POST, S3_QUERY, S3_VERSIONS, S3_WRITES, guide, probe, s3_api, send, signed_at, told,
)

BUCKET, CLOSED = "probe-objects", "probe-closed"
CONTENT = b"what is in an object"
V4 = Config(signature_version="s3v4")
KMS_S3 = guide("S3 SSE-KMS", "AmazonS3/latest/userguide/UsingKMSEncryption.html", "Text")
POLICY_KEYS = guide("S3 policy keys for SigV4", "AmazonS3/latest/API/bucket-policy-s3-sigv4-conditions.html", "Condition keys")


def s3(target, **changes):
    """The operator's client."""
    return target.client("s3", config=V4, **changes)


def name(prefix="p"):
    """A key that nobody has."""
    return f"{prefix}/{uuid.uuid4()}"


def put(target, key=None, body=CONTENT, bucket=BUCKET, **more):
    """Puts an object; answers its key."""
    key = key or name()
    s3(target).put_object(Bucket=bucket, Key=key, Body=body, **more)
    return key


def held(target):
    """An object that nobody changes."""
    return target.memo("object", lambda: put(target))


def sha256(content):
    """A digest as S3 writes it."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def md5(content):
    """The same for Content-MD5."""
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def url(target, operation="get_object", key=None, seconds=60, bucket=BUCKET, keys=None, **parameters):
    """A URL that boto3 signs."""
    client = s3(target, **(target.somebody() | (keys or {})))
    return client.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key or held(target)} | parameters, ExpiresIn=seconds)


def went(target, link, method="GET", body=None, headers=None):
    """What a URL answers."""
    answer = send(link, method, headers, body, target.ca)
    return f"{answer.told()}{'' if answer.status >= 300 or method != 'GET' or answer.body == CONTENT else ' with another content'}"


# Signed URLs -------------------------------------------------------------------------------------------------------------


@probe("s3-url", "A signed URL is good", "200", S3_QUERY)
def _(target):
    return went(target, url(target))


@probe("s3-url-expired", "A signed URL is refused after its time", "403 AccessDenied", S3_QUERY)
def _(target):
    with signed_at(minutes=-2):
        link = url(target)
    return went(target, link)


@probe("s3-url-expired-text", "and told so", "Request has expired", S3_QUERY)
def _(target):
    with signed_at(minutes=-2):
        link = url(target)
    return send(link, ca=target.ca).text.partition("<Message>")[2].partition("</Message>")[0]


@probe("s3-url-early", "A signed URL of tomorrow is refused", "403 AccessDenied", S3_QUERY)
def _(target):
    with signed_at(days=1):
        link = url(target)
    return went(target, link)


@probe("s3-url-stretched", "A longer life written in breaks the signature", "403 SignatureDoesNotMatch", S3_QUERY)
def _(target):
    return went(target, url(target).replace("X-Amz-Expires=60", "X-Amz-Expires=600"))


for label, seconds, want in [("week", 604800, "200"), ("more", 604801, "400 AuthorizationQueryParametersError"), ("negative", -1, "400 AuthorizationQueryParametersError")]:
    @probe(f"s3-url-expires-{label}", f"X-Amz-Expires = {seconds} (a week at most)", want, S3_QUERY, seconds=seconds)
    def _(target, seconds):
        return went(target, url(target, seconds=seconds))


@probe("s3-url-zeroed", "A signature of zeros", "403 SignatureDoesNotMatch", S3_ERRORS)
def _(target):
    link = url(target)
    return went(target, link[:-64] + "0" * 64)


@probe("s3-url-other-key", "Another key written in", "403 SignatureDoesNotMatch", S3_ERRORS)
def _(target):
    other = put(target)
    return went(target, url(target).replace(held(target), other))


@probe("s3-url-response-added", "A response-* parameter added", "403 SignatureDoesNotMatch", S3_ERRORS)
def _(target):
    return went(target, url(target) + "&response-content-type=text%2Fhtml")


@probe("s3-url-response", "A signed response-content-disposition is honoured", "200 attachment", s3_api("GetObject", "response-content-disposition"))
def _(target):
    answer = send(url(target, ResponseContentDisposition="attachment"), ca=target.ca)
    return f"{answer.status} {answer.header('content-disposition')}"


for method in ("PUT", "DELETE", "HEAD"):
    @probe(f"s3-url-as-{method}".lower(), f"A URL signed for GET, used for {method}", ("403 SignatureDoesNotMatch", "403"), S3_ERRORS, method=method)
    def _(target, method):
        return went(target, url(target), method, CONTENT if method == "PUT" else None)


@probe("s3-url-wrong-secret", "A URL signed with a wrong secret", "403 SignatureDoesNotMatch", S3_ERRORS)
def _(target):
    return went(target, url(target, keys={"aws_secret_access_key": "x" * 40}))


@probe("s3-url-unknown-key", "A URL signed with an unknown access key id", "403 InvalidAccessKeyId", S3_ERRORS)
def _(target):
    return went(target, url(target, keys={"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_session_token": None}))


@probe("s3-url-region", "A URL signed for another region", "400 AuthorizationQueryParametersError", S3_ERRORS)
def _(target):
    return went(target, url(target, keys={"region_name": "eu-west-3"}))


@probe("s3-url-long-term", "A URL signed with long-term keys", "200", S3_QUERY)
def _(target):
    return went(target, url(target, keys=target.keys() | {"aws_session_token": None}))


@probe("s3-url-token-removed", "with the token left out", ("403 InvalidAccessKeyId", "403 SignatureDoesNotMatch", "400 InvalidToken"), S3_QUERY)
def _(target):
    link = url(target, keys=target.role("probe-admin"))
    return went(target, "?".join([link.split("?")[0], "&".join(pair for pair in link.split("?")[1].split("&") if not pair.startswith("X-Amz-Security-Token"))]))


@probe("s3-url-token-forged", "signed with another session's token", ("400 InvalidToken", "403 InvalidAccessKeyId"), S3_ERRORS)
def _(target):
    return went(target, url(target, keys=target.role("probe-admin") | {"aws_session_token": target.role("probe-nothing")["aws_session_token"]}))


@probe("s3-url-version-2", "A URL signed with version 2", "400 InvalidRequest", guide("S3 Signature Version 2 turned off", "AmazonS3/latest/userguide/dev-using-sigv4.html", "Text"))
def _(target):
    client = target.client("s3", config=Config(signature_version="s3"), **target.somebody())
    return went(target, client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": held(target)}, ExpiresIn=60))


@probe("s3-url-and-header", "A URL's signature and an Authorization header together", "400 InvalidArgument", S3_ERRORS)
def _(target):
    return went(target, url(target), headers={"authorization": "AWS4-HMAC-SHA256 Credential=x"})


@probe("s3-url-incomplete", "A URL without X-Amz-SignedHeaders", "400 AuthorizationQueryParametersError", S3_QUERY)
def _(target):
    return went(target, url(target).replace("&X-Amz-SignedHeaders=host", ""))


@probe("s3-url-unsigned-header", "An x-amz-* header that is not signed", "403 AccessDenied", S3_HEADER)
def _(target):
    return went(target, url(target, "put_object", name()), "PUT", CONTENT, {"x-amz-acl": "public-read"})


@probe("s3-url-unsigned-copy", "An unsigned x-amz-copy-source", "403 AccessDenied", S3_HEADER)
def _(target):
    return went(target, url(target, "put_object", name()), "PUT", b"", {"x-amz-copy-source": f"/{BUCKET}/{held(target)}"})


for label, headers, want in [("right", {"content-type": "text/plain"}, "200"), ("wrong", {"content-type": "text/html"}, "403 SignatureDoesNotMatch"), ("missing", {}, "403 SignatureDoesNotMatch")]:
    @probe(f"s3-url-type-{label}", f"A URL that signs the content type, used with one that is {label}", want, S3_QUERY, headers=headers)
    def _(target, headers):
        return went(target, url(target, "put_object", name(), ContentType="text/plain"), "PUT", CONTENT, headers)


for label, body, want in [("right", CONTENT, "200"), ("wrong", CONTENT + b"!", "403 SignatureDoesNotMatch")]:
    @probe(f"s3-url-length-{label}", f"A URL that signs the length, used with one that is {label}", want, S3_QUERY, body=body)
    def _(target, body):
        return went(target, url(target, "put_object", name(), ContentLength=len(CONTENT)), "PUT", body)


def summed(target, key, digest=None):
    """A URL that signs a SHA-256 of the body, and the headers that go with it."""
    digest = digest or sha256(CONTENT)
    return url(target, "put_object", key, ChecksumSHA256=digest), {"x-amz-checksum-sha256": digest, "x-amz-sdk-checksum-algorithm": "SHA256"}


def sent_summed(target, body, digest=None, change=None):
    key = name()
    link, headers = summed(target, key, digest)
    query = link.split("?")[1].lower()
    headers = {field: value for field, value in headers.items() if field in query.replace("%3b", ";").partition("x-amz-signedheaders=")[2].partition("&")[0].split(";")}
    if change:
        change(headers)
    said = went(target, link, "PUT", body, headers)
    there = told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key))
    return said, there


@probe("s3-sum-right", "A URL that signs a checksum, with the body it is of", "200", S3_CHECKS)
def _(target):
    return sent_summed(target, CONTENT)[0]


@probe("s3-sum-other", "with another body", "400 BadDigest", f"{S3_CHECKS}; {S3_ERRORS}: BadDigest")
def _(target):
    return sent_summed(target, CONTENT + b"!")[0]


@probe("s3-sum-nothing-stored", "which stores nothing", "404 404", S3_CHECKS)
def _(target):
    return sent_summed(target, CONTENT + b"!")[1]


@probe("s3-sum-malformed", "A checksum that is no SHA-256", "400 InvalidRequest", s3_api("PutObject", "x-amz-checksum-sha256"))
def _(target):
    return sent_summed(target, CONTENT, digest="bm90IGEgZGlnZXN0")[0]


# Headers -----------------------------------------------------------------------------------------------------------------


@probe("s3-anonymous-get", "A GET that nobody signed", "403 AccessDenied", S3_ERRORS)
def _(target):
    return went(target, f"{target.url('s3')}/{BUCKET}/{held(target)}")


@probe("s3-anonymous-put", "A PUT that nobody signed", "403 AccessDenied", S3_ERRORS)
def _(target):
    return went(target, f"{target.url('s3')}/{BUCKET}/{name()}", "PUT", CONTENT)


def listed(target, **changes):
    return told(lambda: s3(target, **(target.somebody() | changes)).list_objects_v2(Bucket=BUCKET, MaxKeys=1))


@probe("s3-unknown-access-key", "A call with an unknown access key id", "403 InvalidAccessKeyId", S3_ERRORS)
def _(target):
    return listed(target, aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_session_token=None)


@probe("s3-wrong-secret", "A call with a wrong secret", "403 SignatureDoesNotMatch", S3_ERRORS)
def _(target):
    return listed(target, aws_secret_access_key="x" * 40)


for label, minutes in [("old", -16), ("early", 16)]:
    @probe(f"s3-{label}", f"A call dated {abs(minutes)} minutes {'ago' if minutes < 0 else 'ahead'}", "403 RequestTimeTooSkewed", S3_ERRORS, minutes=minutes)
    def _(target, minutes):
        with signed_at(minutes=minutes):
            return listed(target)


@probe("s3-fourteen-minutes", "A call signed fourteen minutes ago", "200", f"{S3_ERRORS}: RequestTimeTooSkewed; {guide('S3 authentication', 'AmazonS3/latest/API/RESTAuthentication.html', 'Time stamp requirement: 15 minutes')}")
def _(target):
    with signed_at(minutes=-14):
        return listed(target)


@probe("s3-token-altered", "A session's keys with another session's token", ("400 InvalidToken", "403 InvalidAccessKeyId"), S3_ERRORS)
def _(target):
    return listed(target, **(target.role("probe-admin") | {"aws_session_token": target.role("probe-nothing")["aws_session_token"]}))


def signed_put(target, body=CONTENT, headers=None, change=None, unsigned=None):
    """A PUT signed in the header."""
    return target.signed("s3", "PUT", f"/{BUCKET}/{name()}", headers or {}, body, change=change, unsigned=unsigned).told()


@probe("s3-header", "A PUT signed in the header", "200", S3_HEADER)
def _(target):
    return signed_put(target)


@probe("s3-header-unsigned", "with an x-amz-* header that is not signed", "403 AccessDenied", S3_HEADER)
def _(target):
    return signed_put(target, unsigned={"x-amz-acl": "public-read"})


@probe("s3-header-no-hash", "without x-amz-content-sha256", ("400 InvalidRequest", "400 MissingSecurityHeader"), S3_HEADER)
def _(target):
    def change(headers):
        for field in [field for field in headers if field.lower() == "x-amz-content-sha256"]:
            del headers[field]

    return signed_put(target, change=change)


@probe("s3-header-body-changed", "with another body than its hash", "400 XAmzContentSHA256Mismatch", S3_ERRORS)
def _(target):
    key = name()
    import botocore.auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    keys, place = target.somebody(), f"{target.url('s3')}/{BUCKET}/{key}"
    request = AWSRequest(method="PUT", url=place, data=CONTENT, headers={"X-Amz-Content-SHA256": hashlib.sha256(CONTENT).hexdigest()})
    request.context["payload_signing_enabled"] = True
    botocore.auth.S3SigV4Auth(Credentials(keys["aws_access_key_id"], keys["aws_secret_access_key"], keys["aws_session_token"]), "s3", target.region).add_auth(request)
    return send(place, "PUT", dict(request.headers.items()), CONTENT + b"!", target.ca).told()


@probe("s3-header-version-2", "An Authorization header of version 2", "400 InvalidRequest", guide("S3 Signature Version 2 turned off", "AmazonS3/latest/userguide/dev-using-sigv4.html", "Text"))
def _(target):
    headers = {"authorization": f"AWS {target.keys()['aws_access_key_id']}:c2lnbmF0dXJl", "date": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())}
    return went(target, f"{target.url('s3')}/{BUCKET}/{held(target)}", headers=headers)


for label, digest, want in [("right", md5(CONTENT), "200"), ("other", md5(b"other"), "400 BadDigest"), ("malformed", "bm90IGEgZGlnZXN0", "400 InvalidDigest")]:
    @probe(f"s3-md5-{label}", f"Content-MD5 that is {label}", want, f"{S3_ERRORS}: BadDigest, InvalidDigest", digest=digest)
    def _(target, digest):
        return signed_put(target, headers={"content-md5": digest})


@probe("s3-md5-nothing-stored", "BadDigest leaves the old object there", "200 the old one", S3_ERRORS)
def _(target):
    key = put(target)
    target.signed("s3", "PUT", f"/{BUCKET}/{key}", {"content-md5": md5(b"other")}, b"the new one")
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key), lambda answer: "the old one" if answer["Body"].read() == CONTENT else "the new one")


for algorithm, member in [("SHA256", "ChecksumSHA256"), ("SHA1", "ChecksumSHA1"), ("CRC32", "ChecksumCRC32")]:
    @probe(f"s3-checksum-{algorithm}".lower(), f"A {algorithm} that boto3 sends comes back", "200 with it", S3_CHECKS, algorithm=algorithm, member=member)
    def _(target, algorithm, member):
        key = put(target, ChecksumAlgorithm=algorithm)
        return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED"), lambda answer: "with it" if answer.get(member) else "without it")


@probe("s3-checksum-other", "A checksum of another body", "400 BadDigest", S3_CHECKS)
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=name(), Body=CONTENT, ChecksumSHA256=sha256(b"other")))


@probe("s3-checksum-not-asked", "HeadObject tells no checksum unless asked to", "200 without it", s3_api("HeadObject", "x-amz-checksum-mode"))
def _(target):
    key = put(target, ChecksumAlgorithm="SHA256")
    return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key), lambda answer: "with it" if answer.get("ChecksumSHA256") else "without it")


# Conditional requests ----------------------------------------------------------------------------------------------------


@probe("s3-once-first", "If-None-Match: * where there is nothing", "200", S3_WRITES)
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=name(), Body=b"x", IfNoneMatch="*"))


@probe("s3-once-second", "If-None-Match: * where there is something", "412 PreconditionFailed", S3_WRITES)
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=held(target), Body=b"x", IfNoneMatch="*"))


@probe("s3-once-race", "Of twenty writers at once with If-None-Match: * one wins", "1 of 20", S3_WRITES)
def _(target):
    key = name()
    client = s3(target)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda number: told(lambda: client.put_object(Bucket=BUCKET, Key=key, Body=str(number).encode() * 1000, IfNoneMatch="*")), range(20)))
    return f"{answers.count('200')} of {len(answers)}"


@probe("s3-once-deleted", "After a delete marker If-None-Match: * writes again", "200", S3_WRITES)
def _(target):
    key = put(target)
    s3(target).delete_object(Bucket=BUCKET, Key=key)
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=key, Body=b"x", IfNoneMatch="*"))


@probe("s3-once-etag", "If-None-Match of a write takes * alone", "501 NotImplemented", s3_api("PutObject", "If-None-Match"))
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=name(), Body=b"x", IfNoneMatch='"abc"'))


def etag(target, key):
    """The ETag of an object."""
    return s3(target).head_object(Bucket=BUCKET, Key=key)["ETag"]


@probe("s3-match", "If-Match of the object's ETag", "200", S3_WRITES)
def _(target):
    key = put(target)
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=key, Body=b"x", IfMatch=etag(target, key)))


@probe("s3-match-other", "If-Match of another ETag", "412 PreconditionFailed", S3_WRITES)
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=held(target), Body=b"x", IfMatch='"' + "0" * 32 + '"'))


@probe("s3-match-nothing", "If-Match where there is nothing", "404 NoSuchKey", S3_WRITES)
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=name(), Body=b"x", IfMatch='"' + "0" * 32 + '"'))


READS = s3_api("GetObject", "If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since")
PAST, FUTURE = datetime.datetime(2020, 1, 1), datetime.datetime(2035, 1, 1)

for label, condition, want in [
    ("none-match", lambda tag: {"IfNoneMatch": tag}, "304 304"), ("none-match-other", lambda tag: {"IfNoneMatch": '"x"'}, "200"), ("match", lambda tag: {"IfMatch": tag}, "200"),
    ("match-other", lambda tag: {"IfMatch": '"x"'}, "412 PreconditionFailed"), ("modified", lambda tag: {"IfModifiedSince": PAST}, "200"),
    ("unmodified", lambda tag: {"IfUnmodifiedSince": PAST}, "412 PreconditionFailed"), ("match-wins", lambda tag: {"IfMatch": tag, "IfUnmodifiedSince": PAST}, "200"),
    ("none-match-wins", lambda tag: {"IfNoneMatch": tag, "IfModifiedSince": PAST}, "304 304"),
]:
    @probe(f"s3-read-{label}", f"GetObject under a condition: {label.replace('-', ' ')}", want, READS, condition=condition)
    def _(target, condition):
        return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=held(target), **condition(etag(target, held(target)))))


# Ranges ------------------------------------------------------------------------------------------------------------------

RANGE = s3_api("GetObject", "Range")
for label, wanted, want in [
    ("first", "bytes=0-3", "206 what bytes 0-3/20"), ("middle", "bytes=5-6", "206 is bytes 5-6/20"), ("last", "bytes=-6", "206 object bytes 14-19/20"), ("from", "bytes=14-", "206 object bytes 14-19/20"),
    ("beyond", "bytes=14-99", "206 object bytes 14-19/20"), ("outside", "bytes=20-", "416 InvalidRange"), ("longer", "bytes=-99", "206 what is in an object bytes 0-19/20"),
]:
    @probe(f"s3-range-{label}", f"Range: {wanted} of twenty bytes", want, RANGE, wanted=wanted)
    def _(target, wanted):
        return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=held(target), Range=wanted), lambda answer: f"{answer['Body'].read().decode()} {answer['ContentRange']}")


# Keys, headers, what is not there ----------------------------------------------------------------------------------------


@probe("s3-no-such-key", "GetObject of nothing, by who may list", "404 NoSuchKey", S3_ERRORS)
def _(target):
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=name()))


@probe("s3-no-such-bucket", "GetObject in no bucket", "404 NoSuchBucket", S3_ERRORS)
def _(target):
    return told(lambda: s3(target).get_object(Bucket="probe-no-such-bucket", Key="x"))


@probe("s3-put-no-such-bucket", "PutObject in no bucket", "404 NoSuchBucket", S3_ERRORS)
def _(target):
    return told(lambda: s3(target).put_object(Bucket="probe-no-such-bucket", Key="x", Body=b"x"))


for length, want in [(1024, "200"), (1025, "400 KeyTooLongError")]:
    @probe(f"s3-key-{length}", f"A key of {length} bytes (1024 at most)", want, guide("S3 object keys", "AmazonS3/latest/userguide/object-keys.html", "Text"), length=length)
    def _(target, length):
        stem = f"{uuid.uuid4()}-"
        return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=stem + "x" * (length - len(stem)), Body=b"x"))


@probe("s3-key-folder", "A key and another that continues it after a slash are two objects", "a b", guide("S3 object keys", "AmazonS3/latest/userguide/object-keys.html", "Text"))
def _(target):
    stem = name()
    put(target, stem, b"a")
    put(target, stem + "/more", b"b")
    return " ".join(s3(target).get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() for key in (stem, stem + "/more"))


@probe("s3-key-signs", "A key with spaces, signs and letters of other alphabets", "200", guide("S3 object keys", "AmazonS3/latest/userguide/object-keys.html", "Safe characters, characters that might require special handling"))
def _(target):
    key = name() + "/a b+c&d=é€~(1)!'*%25"
    put(target, key)
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key), lambda answer: answer["Body"].read() == CONTENT)


@probe("s3-etag-md5", "The ETag of a plain object is its MD5", "the MD5", s3_api("PutObject", "Response: ETag"))
def _(target):
    answer = s3(target).put_object(Bucket=BUCKET, Key=name(), Body=CONTENT)
    return "the MD5" if answer["ETag"].strip('"') == hashlib.md5(CONTENT).hexdigest() else "another"


@probe("s3-metadata", "Metadata, type and disposition come back", "200 you text/plain attachment", s3_api("HeadObject", "Response"))
def _(target):
    key = put(target, Metadata={"for": "you"}, ContentType="text/plain", ContentDisposition="attachment")
    return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key), lambda answer: f"{answer['Metadata'].get('for')} {answer['ContentType']} {answer['ContentDisposition']}")


@probe("s3-metadata-large", "User-defined metadata has 2 KB at most", "400 MetadataTooLarge", f"{S3_ERRORS}; {guide('S3 metadata', 'AmazonS3/latest/userguide/UsingMetadata.html', 'User-defined: 2 KB')}")
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=name(), Body=b"x", Metadata={"large": "x" * 2049}))


@probe("s3-default-type", "An object without a type is binary/octet-stream", "200 binary/octet-stream", s3_api("PutObject", "Content-Type"))
def _(target):
    key = name()
    target.signed("s3", "PUT", f"/{BUCKET}/{key}", {}, CONTENT)
    return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key), lambda answer: answer["ContentType"])


@probe("s3-default-encryption", "Every object is encrypted, with SSE-S3 unless told otherwise", "200 AES256", guide("S3 default encryption", "AmazonS3/latest/userguide/default-bucket-encryption.html", "Text"))
def _(target):
    return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=held(target)), lambda answer: answer.get("ServerSideEncryption"))


@probe("s3-owner", "x-amz-expected-bucket-owner of another account", "403 AccessDenied", guide("S3 bucket owner condition", "AmazonS3/latest/userguide/bucket-owner-condition.html", "Text"))
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=name(), Body=b"x", ExpectedBucketOwner="999988887777"))


@probe("s3-no-length", "A PUT without Content-Length", "411 MissingContentLength", S3_ERRORS)
def _(target):
    import http.client
    import ssl
    import urllib.parse
    link = urllib.parse.urlsplit(url(target, "put_object", name()))
    secure = link.scheme == "https"
    connection = (http.client.HTTPSConnection(link.hostname, link.port, context=ssl.create_default_context(cafile=target.ca), timeout=20) if secure
                  else http.client.HTTPConnection(link.hostname, link.port, timeout=20))
    connection.putrequest("PUT", f"{link.path}?{link.query}", skip_accept_encoding=True)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    connection.send(b"1\r\nx\r\n0\r\n\r\n")
    answer = connection.getresponse()
    said = answer.read().decode()
    connection.close()
    return f"{answer.status} {said.partition('<Code>')[2].partition('</Code>')[0]}".strip()


@probe("s3-request-id", "Every refusal has a RequestId and a HostId", "with both", guide("S3 error responses", "AmazonS3/latest/API/ErrorResponses.html", "REST error responses"))
def _(target):
    text = send(f"{target.url('s3')}/{BUCKET}/{held(target)}", ca=target.ca).text
    return "with both" if "<RequestId>" in text and "<HostId>" in text else "without"


# Versions ----------------------------------------------------------------------------------------------------------------


def versions(target):
    """An object of two versions: its key and their ids."""

    def make():
        key = name()
        return key, [s3(target).put_object(Bucket=BUCKET, Key=key, Body=body)["VersionId"] for body in (b"one", b"two")]

    return target.memo("versions", make)


VERSIONING = guide("S3 versioning", "AmazonS3/latest/userguide/versioning-workflows.html", "Text")


@probe("s3-version-old", "An old version is read by its id", "200 one", VERSIONING)
def _(target):
    key, ids = versions(target)
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key, VersionId=ids[0]), lambda answer: answer["Body"].read().decode())


@probe("s3-version-newest", "Without an id the newest is read", "200 two", VERSIONING)
def _(target):
    key, _ = versions(target)
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key), lambda answer: answer["Body"].read().decode())


@probe("s3-version-unknown", "A version that is not there", ("404 NoSuchVersion", "400 InvalidArgument"), f"{S3_ERRORS}: NoSuchVersion, InvalidArgument")
def _(target):
    key, ids = versions(target)
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key, VersionId=ids[0][::-1]))


def marked(target):
    """A deleted object: its key, its version and the marker's id."""

    def make():
        key = name()
        version = s3(target).put_object(Bucket=BUCKET, Key=key, Body=CONTENT)["VersionId"]
        return key, version, s3(target).delete_object(Bucket=BUCKET, Key=key)["VersionId"]

    return target.memo("marked", make)


@probe("s3-marker", "DeleteObject leaves a marker", "204 True", s3_api("DeleteObject", "Response: x-amz-delete-marker"))
def _(target):
    key = put(target)
    return told(lambda: s3(target).delete_object(Bucket=BUCKET, Key=key), lambda answer: str(answer.get("DeleteMarker")))


@probe("s3-marker-get", "after which there is nothing", "404 NoSuchKey", S3_VERSIONS)
def _(target):
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=marked(target)[0]))


@probe("s3-marker-header", "and the answer says why", "404 true", S3_VERSIONS)
def _(target):
    answer = send(url(target, key=marked(target)[0]), ca=target.ca)
    return f"{answer.status} {answer.header('x-amz-delete-marker')}"


@probe("s3-marker-version", "The version is still there", "200", S3_VERSIONS)
def _(target):
    key, version, _ = marked(target)
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key, VersionId=version))


@probe("s3-marker-itself", "A marker cannot be read", "405 MethodNotAllowed", S3_VERSIONS)
def _(target):
    key, _, marker = marked(target)
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key, VersionId=marker))


@probe("s3-marker-removed", "Without its marker the object is back", "200", S3_VERSIONS)
def _(target):
    key = put(target)
    marker = s3(target).delete_object(Bucket=BUCKET, Key=key)["VersionId"]
    s3(target).delete_object(Bucket=BUCKET, Key=key, VersionId=marker)
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key))


@probe("s3-delete-nothing", "DeleteObject of nothing", "204", s3_api("DeleteObject", "Response"))
def _(target):
    return told(lambda: s3(target).delete_object(Bucket=BUCKET, Key=name()))


# Forms -------------------------------------------------------------------------------------------------------------------


def form(target, key=None, conditions=None, fields=None, seconds=60, secret=None, keys=None, expiration=None, omit=()):
    """A POST form with a policy of our own, signed as S3 documents it."""
    keys = keys or target.somebody()
    now = datetime.datetime.now(datetime.timezone.utc)
    date, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    key = key or name()
    own = {
        "key": key, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": f"{keys['aws_access_key_id']}/{date}/{target.region}/s3/aws4_request", "x-amz-date": stamp,
    } | (fields or {})
    if keys.get("aws_session_token"):
        own["x-amz-security-token"] = keys["aws_session_token"]
    policy = {
        "expiration": expiration or (now + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "conditions": [{"bucket": BUCKET}] + [{field: value} for field, value in own.items() if field not in omit] + (conditions or []),
    }
    encoded = base64.b64encode(json.dumps(policy).encode()).decode()
    signing = ("AWS4" + (secret or keys["aws_secret_access_key"])).encode()
    for part in (date, target.region, "s3", "aws4_request"):
        signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
    return own | {"policy": encoded, "x-amz-signature": hmac.new(signing, encoded.encode(), hashlib.sha256).hexdigest()}


def post(target, fields, body=CONTENT, remove=(), **changes):
    """Sends a form; status and code."""
    fields = {field: value for field, value in (fields | changes).items() if field not in remove}
    line = uuid.uuid4().hex
    parts = [f'--{line}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n' for field, value in fields.items()]
    start = "".join(parts) + f'--{line}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\nContent-Type: application/octet-stream\r\n\r\n'
    whole = start.encode() + body + f"\r\n--{line}--\r\n".encode()
    return send(f"{target.url('s3')}/{BUCKET}", "POST", {"content-type": f"multipart/form-data; boundary={line}"}, whole, target.ca).told()


RANGES = [["content-length-range", 5, 25]]


@probe("s3-form", "A form as its policy says", "204", S3_POST)
def _(target):
    return post(target, form(target, conditions=RANGES))


@probe("s3-form-stored", "stores the file", "200", S3_POST)
def _(target):
    key = name()
    post(target, form(target, key))
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key), lambda answer: answer["Body"].read() == CONTENT)


@probe("s3-form-large", "A file larger than content-length-range", "400 EntityTooLarge", S3_ERRORS)
def _(target):
    return post(target, form(target, conditions=RANGES), b"x" * 26)


@probe("s3-form-small", "A file smaller than content-length-range", "400 EntityTooSmall", S3_ERRORS)
def _(target):
    return post(target, form(target, conditions=RANGES), b"x" * 4)


@probe("s3-form-expired", "A form whose policy has expired", "403 AccessDenied", S3_POST)
def _(target):
    return post(target, form(target, expiration="2020-01-01T00:00:00Z"))


@probe("s3-form-signature", "A form with another signature", "403 SignatureDoesNotMatch", S3_ERRORS)
def _(target):
    return post(target, form(target), **{"x-amz-signature": "0" * 64})


@probe("s3-form-secret", "A form signed with a wrong secret", "403 SignatureDoesNotMatch", S3_ERRORS)
def _(target):
    return post(target, form(target, secret="x" * 40))


@probe("s3-form-key", "A form for another key", "403 AccessDenied", S3_POST)
def _(target):
    return post(target, form(target), key=name())


@probe("s3-form-extra", "A form with a field that the policy does not name", "403 AccessDenied", S3_POST)
def _(target):
    return post(target, form(target), acl="public-read")


@probe("s3-form-extra-encryption", "also if it is about encryption", "403 AccessDenied", S3_POST)
def _(target):
    return post(target, form(target), **{"x-amz-server-side-encryption": "aws:kms"})


@probe("s3-form-ignored", "but for x-ignore- fields", "204", S3_POST)
def _(target):
    return post(target, form(target), **{"x-ignore-this": "x"})


@probe("s3-form-missing", "A form without a field that the policy names", "403 AccessDenied", S3_POST)
def _(target):
    return post(target, form(target, fields={"content-type": "text/plain"}), remove=("content-type",))


@probe("s3-form-other-type", "A form with another content type", "403 AccessDenied", S3_POST)
def _(target):
    return post(target, form(target, fields={"content-type": "text/plain"}), **{"content-type": "text/html"})


@probe("s3-form-starts-with", "starts-with $key", "204", S3_POST)
def _(target):
    return post(target, form(target, key="p/x", conditions=[["starts-with", "$key", "p/"]], omit=("key",)), key=name("p"))


@probe("s3-form-starts-with-other", "starts-with $key, with another beginning", "403 AccessDenied", S3_POST)
def _(target):
    return post(target, form(target, key="p/x", conditions=[["starts-with", "$key", "p/"]], omit=("key",)), key=name("q"))


@probe("s3-form-policy-no-json", "A policy that is no JSON", "400 InvalidPolicyDocument", S3_ERRORS)
def _(target):
    fields = form(target)
    encoded = base64.b64encode(b"no policy").decode()
    keys, date = target.somebody(), fields["x-amz-date"][:8]
    signing = ("AWS4" + keys["aws_secret_access_key"]).encode()
    for part in (date, target.region, "s3", "aws4_request"):
        signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
    return post(target, fields, policy=encoded, **{"x-amz-signature": hmac.new(signing, encoded.encode(), hashlib.sha256).hexdigest()})


@probe("s3-form-unsigned", "A form that nobody signed", "403 AccessDenied", S3_ERRORS)
def _(target):
    return post(target, {"key": name()})


@probe("s3-form-no-key", "A form without a key", "400 InvalidArgument", guide("S3 POST Object", "AmazonS3/latest/API/RESTObjectPOST.html", "Form fields: key is required"))
def _(target):
    return post(target, form(target, omit=("key",)), remove=("key",))


@probe("s3-form-unknown-key", "A form signed with an unknown access key id", "403 InvalidAccessKeyId", S3_ERRORS)
def _(target):
    return post(target, form(target, keys=target.keys() | {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE"}))


@probe("s3-form-long-term", "A form signed with long-term keys", "204", S3_POST)
def _(target):
    return post(target, form(target, keys=target.keys()))


@probe("s3-form-session-stripped", "with its token left out", ("403 InvalidAccessKeyId", "403 AccessDenied", "400 InvalidToken"), S3_POST)
def _(target):
    return post(target, form(target, keys=target.role("probe-admin")), remove=("x-amz-security-token",))


@probe("s3-form-role", "A form of a role for a key that it may not write", "403 AccessDenied", guide("S3 POST", "AmazonS3/latest/API/sigv4-UsingHTTPPOST.html", "Text"))
def _(target):
    return post(target, form(target, keys=target.role("probe-objects")))


@probe("s3-form-success-status", "success_action_status 201 answers a document", "201", guide("S3 POST Object", "AmazonS3/latest/API/RESTObjectPOST.html", "success_action_status"))
def _(target):
    return post(target, form(target, fields={"success_action_status": "201"}))


# Parts -------------------------------------------------------------------------------------------------------------------

MIB = 1 << 20
COMPLETE = s3_api("CompleteMultipartUpload")


def begun(target, key=None, **more):
    """An upload of parts with SHA-256, as the gate plans it: key and id."""
    key = key or name()
    return key, s3(target).create_multipart_upload(Bucket=BUCKET, Key=key, ChecksumAlgorithm="SHA256", **more)["UploadId"]


def sent(target, key, upload, number, body):
    """A part: what CompleteMultipartUpload wants to know of it."""
    answer = s3(target).upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=body, ChecksumSHA256=sha256(body))
    return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": sha256(body)}


def completed(target, key, upload, parts, **more):
    """What CompleteMultipartUpload says."""
    return told(lambda: s3(target).complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **more))


def two(target):
    """An upload of two parts, sent and not completed."""
    key, upload = begun(target)
    return key, upload, [sent(target, key, upload, 1, b"a" * (5 * MIB)), sent(target, key, upload, 2, b"the end")]


@probe("s3-parts", "Two parts become one object", "200 5242887", COMPLETE)
def _(target):
    key, upload, parts = two(target)
    completed(target, key, upload, parts)
    return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key), lambda answer: answer["ContentLength"])


@probe("s3-parts-checksum", "whose checksum is that of its parts' checksums", "200 COMPOSITE", S3_CHECKS)
def _(target):
    key, upload, parts = two(target)
    completed(target, key, upload, parts)
    whole = sha256(b"".join(base64.b64decode(part["ChecksumSHA256"]) for part in parts)) + "-2"
    return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED"),
                lambda answer: answer.get("ChecksumType", "without its type") if answer.get("ChecksumSHA256") == whole else "another checksum")


@probe("s3-parts-etag", "and whose ETag ends with the number of parts", "-2", s3_api("CompleteMultipartUpload", "Response: ETag"))
def _(target):
    key, upload, parts = two(target)
    completed(target, key, upload, parts)
    return etag(target, key).strip('"')[-2:]


@probe("s3-parts-small", "A part under 5 MiB that is not the last", "400 EntityTooSmall", f"{COMPLETE}: EntityTooSmall")
def _(target):
    key, upload = begun(target)
    return completed(target, key, upload, [sent(target, key, upload, 1, b"a"), sent(target, key, upload, 2, b"b")])


for label, change, want in [
    ("order", lambda parts: parts[::-1], "400 InvalidPartOrder"), ("etag", lambda parts: [parts[0] | {"ETag": '"' + "0" * 32 + '"'}, parts[1]], "400 InvalidPart"),
    ("missing", lambda parts: [parts[0], parts[1] | {"PartNumber": 3}], "400 InvalidPart"), ("none", lambda parts: [], "400 MalformedXML"),
    ("checksum", lambda parts: [parts[0] | {"ChecksumSHA256": sha256(b"other")}, parts[1]], "400 InvalidPart"), ("twice", lambda parts: [parts[0], parts[0]], "400 InvalidPartOrder"),
]:
    @probe(f"s3-parts-wrong-{label}", f"CompleteMultipartUpload with its parts wrong: {label}", want, f"{COMPLETE}: InvalidPart, InvalidPartOrder; {S3_ERRORS}", change=change)
    def _(target, change):
        key, upload = target.memo("parts", lambda: begun(target))
        parts = target.memo("parts sent", lambda: [sent(target, key, upload, number, letter * (5 * MIB)) for number, letter in ((1, b"a"), (2, b"b"))])
        return completed(target, key, upload, change(parts))


@probe("s3-parts-checksum-left-out", "CompleteMultipartUpload without the checksums that the parts have", "400 InvalidRequest", S3_CHECKS)
def _(target):
    key, upload, parts = two(target)
    return completed(target, key, upload, [{field: part[field] for field in ("PartNumber", "ETag")} for part in parts])


@probe("s3-parts-once", "CompleteMultipartUpload with If-None-Match: * where there is something", "412 PreconditionFailed", S3_WRITES)
def _(target):
    key, upload = begun(target)
    parts = [sent(target, key, upload, 1, b"a")]
    put(target, key)
    return completed(target, key, upload, parts, IfNoneMatch="*")


@probe("s3-parts-part-digest", "A part that is not its checksum", "400 BadDigest", S3_CHECKS)
def _(target):
    key, upload = begun(target)
    return told(lambda: s3(target).upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"x", ChecksumSHA256=sha256(b"y")))


for number, want in [(0, "400 InvalidArgument"), (1, "200"), (10000, "200"), (10001, "400 InvalidArgument")]:
    @probe(f"s3-part-number-{number}", f"Part number {number} (1 to 10000 are allowed)", want, S3_LIMITS, number=number)
    def _(target, number):
        key, upload = target.memo("numbers", lambda: begun(target))
        return told(lambda: s3(target).upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=b"x", ChecksumSHA256=sha256(b"x")))


@probe("s3-parts-unknown", "A part of no upload", "404 NoSuchUpload", S3_ERRORS)
def _(target):
    return told(lambda: s3(target).upload_part(Bucket=BUCKET, Key=name(), UploadId="nothing", PartNumber=1, Body=b"x", ChecksumSHA256=sha256(b"x")))


@probe("s3-parts-other-key", "A part of another key's upload", "404 NoSuchUpload", S3_ERRORS)
def _(target):
    _, upload = begun(target)
    return told(lambda: s3(target).upload_part(Bucket=BUCKET, Key=name(), UploadId=upload, PartNumber=1, Body=b"x", ChecksumSHA256=sha256(b"x")))


@probe("s3-parts-aborted", "A part of an upload that was aborted", "404 NoSuchUpload", s3_api("AbortMultipartUpload", "Description"))
def _(target):
    key, upload = begun(target)
    s3(target).abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
    return told(lambda: s3(target).upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"x", ChecksumSHA256=sha256(b"x")))


@probe("s3-parts-invisible", "Parts are no object before they are completed", "404 404", COMPLETE)
def _(target):
    key, upload = begun(target)
    sent(target, key, upload, 1, b"x")
    return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key))


@probe("s3-parts-list", "ListParts tells number, size and checksum", "200 1 1 True", s3_api("ListParts", "Response"))
def _(target):
    key, upload = begun(target)
    sent(target, key, upload, 1, b"x")
    return told(lambda: s3(target).list_parts(Bucket=BUCKET, Key=key, UploadId=upload),
                lambda answer: " ".join(f"{part['PartNumber']} {part['Size']} {part.get('ChecksumSHA256') == sha256(b'x')}" for part in answer["Parts"]))


# Encryption and policies -------------------------------------------------------------------------------------------------


def sealing(target):
    """A KMS key for objects."""
    return target.memo("s3 key", lambda: target.client("kms").create_key()["KeyMetadata"]["Arn"])


@probe("s3-kms", "SSE-KMS is echoed with the key's ARN", "200 aws:kms True", KMS_S3)
def _(target):
    key = put(target, ServerSideEncryption="aws:kms", SSEKMSKeyId=sealing(target))
    return told(lambda: s3(target).head_object(Bucket=BUCKET, Key=key), lambda answer: f"{answer.get('ServerSideEncryption')} {answer.get('SSEKMSKeyId') == sealing(target)}")


@probe("s3-kms-etag", "The ETag of an object under SSE-KMS is not its MD5", "another", s3_api("PutObject", "Response: ETag"))
def _(target):
    answer = s3(target).put_object(Bucket=BUCKET, Key=name(), Body=CONTENT, ServerSideEncryption="aws:kms", SSEKMSKeyId=sealing(target))
    return "the MD5" if answer["ETag"].strip('"') == hashlib.md5(CONTENT).hexdigest() else "another"


@probe("s3-kms-no-right", "Reading it needs kms:Decrypt as well", "403 AccessDenied", KMS_S3)
def _(target):
    key = put(target, name("own"), ServerSideEncryption="aws:kms", SSEKMSKeyId=sealing(target))
    return told(lambda: s3(target, **target.role("probe-objects")).get_object(Bucket=BUCKET, Key=key))


@probe("s3-kms-disabled", "Reading it while its key is disabled", "400 KMS.DisabledException", KMS_S3)
def _(target):
    own = target.client("kms").create_key()["KeyMetadata"]["Arn"]
    key = put(target, ServerSideEncryption="aws:kms", SSEKMSKeyId=own)
    target.client("kms").disable_key(KeyId=own.rpartition("/")[2])
    return told(lambda: s3(target).get_object(Bucket=BUCKET, Key=key))


@probe("s3-kms-unknown", "Writing under a key that does not exist", "400 KMS.NotFoundException", S3_ERRORS)
def _(target):
    unknown = f"arn:aws:kms:{target.region}:{target.account}:key/{uuid.uuid4()}"
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=name(), Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=unknown))


@probe("s3-encryption-unknown", "An encryption that there is not", ("400 InvalidEncryptionAlgorithmError", "400 InvalidArgument"), S3_ERRORS)
def _(target):
    return told(lambda: s3(target).put_object(Bucket=BUCKET, Key=name(), Body=b"x", ServerSideEncryption="rot13"))


ROLE = guide("S3 and IAM", "AmazonS3/latest/userguide/security_iam_service-with-iam.html", "Text")

for label, act, want in [
    ("get", lambda client, target: client.get_object(Bucket=BUCKET, Key=target.memo("own object", lambda: put(target, name("own")))), "200"),
    ("put", lambda client, target: client.put_object(Bucket=BUCKET, Key=name("own"), Body=b"x"), "200"),
    ("get-other", lambda client, target: client.get_object(Bucket=BUCKET, Key=held(target)), "403 AccessDenied"),
    ("put-other", lambda client, target: client.put_object(Bucket=BUCKET, Key=name("others"), Body=b"x"), "403 AccessDenied"),
    ("delete", lambda client, target: client.delete_object(Bucket=BUCKET, Key=target.memo("own object", lambda: put(target, name("own")))), "403 AccessDenied"),
    ("list", lambda client, target: client.list_objects_v2(Bucket=BUCKET), "403 AccessDenied"),
    ("missing", lambda client, target: client.get_object(Bucket=BUCKET, Key=name("own")), "403 AccessDenied"),
    ("dots", lambda client, target: client.get_object(Bucket=BUCKET, Key="own/../" + held(target)), "403 AccessDenied"),
    ("version", lambda client, target: client.get_object(Bucket=BUCKET, Key=versions(target)[0], VersionId=versions(target)[1][0]), "403 AccessDenied"),
]:
    says = "without s3:ListBucket nobody is told what is missing" if label == "missing" else f"a role limited to own/*: {label.replace('-', ' ')}"

    @probe(f"s3-role-{label}", says[0].upper() + says[1:], want, ROLE if label != "missing" else s3_api("GetObject", "Permissions: 403 without s3:ListBucket"), act=act)
    def _(target, act):
        return told(lambda: act(s3(target, **target.role("probe-objects")), target))


for label, arguments, want in [("own", {"Prefix": "own/"}, "200"), ("all", {}, "403 AccessDenied"), ("other", {"Prefix": "others/"}, "403 AccessDenied")]:
    @probe(f"s3-lister-{label}", f"s3:prefix in a condition, ListObjectsV2 of {label}", want, guide("S3 condition keys", "AmazonS3/latest/userguide/amazon-s3-policy-keys.html", "s3:prefix"), arguments=arguments)
    def _(target, arguments):
        return told(lambda: s3(target, **target.role("probe-lister")).list_objects_v2(Bucket=BUCKET, **arguments))


for label, arguments, want in [("without", {}, "403 AccessDenied"), ("other", {"ServerSideEncryption": "AES256"}, "403 AccessDenied"), ("with", {"ServerSideEncryption": "aws:kms"}, "200")]:
    @probe(f"s3-bucket-policy-sealed-{label}", f"A bucket policy that demands SSE-KMS, PutObject {label} it", want, guide("S3 protecting data with SSE-KMS", "AmazonS3/latest/userguide/UsingKMSEncryption.html", "Requiring SSE-KMS"), arguments=arguments)
    def _(target, arguments):
        more = arguments | ({"SSEKMSKeyId": sealing(target)} if arguments.get("ServerSideEncryption") == "aws:kms" else {})
        return told(lambda: s3(target, **target.role("probe-admin")).put_object(Bucket=CLOSED, Key=name("sealed"), Body=b"x", **more))


def closed(target, prefix):
    """An object in the closed bucket."""
    return target.memo(("closed", prefix), lambda: put(target, name(prefix), bucket=CLOSED))


for label, ago, want in [("young", 0, "200"), ("old", -11, "403 AccessDenied")]:
    @probe(f"s3-bucket-policy-age-{label}", f"s3:signatureAge of ten minutes at most, a URL signed {-ago} minutes ago", want, POLICY_KEYS, ago=ago)
    def _(target, ago):
        key = closed(target, "aged")
        with signed_at(minutes=ago):
            link = url(target, key=key, bucket=CLOSED, seconds=3600, keys=target.role("probe-admin"))
        return went(target, link)


@probe("s3-bucket-policy-auth-url", "s3:authType REST-HEADER alone, a signed URL", "403 AccessDenied", POLICY_KEYS)
def _(target):
    return went(target, url(target, key=closed(target, "headers"), bucket=CLOSED, keys=target.role("probe-admin")))


@probe("s3-bucket-policy-auth-header", "and a signed header", "200", POLICY_KEYS)
def _(target):
    return told(lambda: s3(target, **target.role("probe-admin")).get_object(Bucket=CLOSED, Key=closed(target, "headers")))


for label, arguments, want in [("without", {}, "403 AccessDenied"), ("with", {"IfNoneMatch": "*"}, "200")]:
    @probe(f"s3-bucket-policy-once-{label}", f"s3:if-none-match demanded, PutObject {label} it", want, guide("S3 enforcing conditional writes", "AmazonS3/latest/userguide/conditional-writes-enforce.html", "Text"), arguments=arguments)
    def _(target, arguments):
        return told(lambda: s3(target, **target.role("probe-admin")).put_object(Bucket=CLOSED, Key=name("once"), Body=b"x", **arguments))


@probe("s3-bucket-policy-named", "A role that the bucket's policy names needs no identity policy", "200", ROLE)
def _(target):
    return told(lambda: s3(target, **target.role("probe-nothing")).get_object(Bucket=CLOSED, Key=closed(target, "shared")))


@probe("s3-bucket-policy-not-named", "and gets nothing beside", "403 AccessDenied", ROLE)
def _(target):
    return told(lambda: s3(target, **target.role("probe-nothing")).get_object(Bucket=CLOSED, Key=closed(target, "aged")))


# Lifecycle ---------------------------------------------------------------------------------------------------------------

ENDING = "probe-ending"
LIFECYCLE = guide("S3 lifecycle elements", "AmazonS3/latest/userguide/intro-lifecycle-rules.html", "Text")
EXPIRING = guide("S3 expiring objects", "AmazonS3/latest/userguide/lifecycle-expire-general-considerations.html", "Text")
PUT_LIFECYCLE = s3_api("PutBucketLifecycleConfiguration")
DATA = yaml.safe_load((Path(__file__).parents[2] / "infra/aws/data.yaml").read_text())["Resources"]


def deployed(logical):
    """The lifecycle rules of a bucket of the project's own template, as CloudFormation gives them to S3."""
    rules = []
    for rule in DATA[logical]["Properties"]["LifecycleConfiguration"]["Rules"]:
        given = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
        if "ExpirationInDays" in rule:
            given["Expiration"] = {"Days": rule["ExpirationInDays"]}
        if "ExpiredObjectDeleteMarker" in rule:
            given["Expiration"] = {"ExpiredObjectDeleteMarker": rule["ExpiredObjectDeleteMarker"]}
        if "NoncurrentVersionExpiration" in rule:
            given["NoncurrentVersionExpiration"] = {"NoncurrentDays": rule["NoncurrentVersionExpiration"]["NoncurrentDays"]}
        if "AbortIncompleteMultipartUpload" in rule:
            given["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]}
        rules.append(given)
    return rules


def rule(**more):
    """A rule that ends what lies below `logs/` after three days."""
    return {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}} | more


def governed(target, *rules, client=None):
    """Puts rules."""
    return (client or s3(target)).put_bucket_lifecycle_configuration(Bucket=ENDING, LifecycleConfiguration={"Rules": list(rules)})


def rules_of(target):
    return s3(target).get_bucket_lifecycle_configuration(Bucket=ENDING)


@probe("s3-lifecycle-none", "A bucket without rules", "404 NoSuchLifecycleConfiguration", s3_api("GetBucketLifecycleConfiguration", "Special errors"))
def _(target):
    s3(target).delete_bucket_lifecycle(Bucket=ENDING)
    return told(lambda: rules_of(target))


for logical in ("TrustBucketResource", "ObjectBucketResource"):
    @probe(f"s3-lifecycle-{logical[:-8].lower()}", f"The rules of data.yaml's {logical} are taken and come back", "200", PUT_LIFECYCLE, logical=logical)
    def _(target, logical):
        governed(target, *deployed(logical))
        return told(lambda: rules_of(target), lambda answer: sorted(answer["Rules"], key=lambda one: one["ID"]) == sorted(deployed(logical), key=lambda one: one["ID"]))


@probe("s3-lifecycle-replaced", "Rules are put in place of those before", "200 1", PUT_LIFECYCLE)
def _(target):
    governed(target, rule(), rule(ID="b"))
    governed(target, rule())
    return told(lambda: rules_of(target), lambda answer: len(answer["Rules"]))


@probe("s3-lifecycle-deleted", "Rules are removed", "204", s3_api("DeleteBucketLifecycle", "Response"))
def _(target):
    governed(target, rule())
    return told(lambda: s3(target).delete_bucket_lifecycle(Bucket=ENDING))


@probe("s3-lifecycle-told", "Whoever writes or reads an object that a rule ends is told when: the midnight after its days", "on the day", EXPIRING)
def _(target):
    governed(target, rule())
    client, key = s3(target), name("logs")
    before = datetime.datetime.now(datetime.timezone.utc)
    told_to_writer = client.put_object(Bucket=ENDING, Key=key, Body=CONTENT).get("Expiration")
    told_to_reader = client.head_object(Bucket=ENDING, Key=key).get("Expiration")
    days = {(moment + datetime.timedelta(days=4)).strftime("%a, %d %b %Y 00:00:00 GMT") for moment in (before, datetime.datetime.now(datetime.timezone.utc))}
    wanted = {f'expiry-date="{day}", rule-id="a"' for day in days}
    return "on the day" if told_to_writer in wanted and told_to_reader == told_to_writer else f"{told_to_writer} {told_to_reader}"


@probe("s3-lifecycle-not-told", "and who writes elsewhere is not", "None", EXPIRING)
def _(target):
    governed(target, rule())
    return str(s3(target).put_object(Bucket=ENDING, Key=name("kept"), Body=CONTENT).get("Expiration"))


@probe("s3-lifecycle-off", "nor by a rule that is off", "None", LIFECYCLE)
def _(target):
    governed(target, rule(Status="Disabled"))
    return str(s3(target).put_object(Bucket=ENDING, Key=name("logs"), Body=CONTENT).get("Expiration"))


@probe("s3-lifecycle-gone", "When after that midnight an object is gone (the queue is worked on \"asynchronously\"): ours at once, on a clock that tests put ahead", SILENT, EXPIRING)
def _(target):
    governed(target, rule(Expiration={"Days": 1}))
    client, key = s3(target), name("logs")
    client.put_object(Bucket=ENDING, Key=key, Body=CONTENT)
    return "there until then" if told(lambda: client.head_object(Bucket=ENDING, Key=key)) == "200" else "gone before"


MALFORMED = "400 MalformedXML"
for label, rules, want in [
    ("twice", [rule(), rule()], "400 InvalidArgument"), ("zero", [rule(Expiration={"Days": 0})], "400 InvalidArgument"), ("minus", [rule(Expiration={"Days": -1})], "400 InvalidArgument"),
    ("idle", [{"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}}], "400 InvalidRequest"), ("both", [rule(Expiration={"Days": 1, "ExpiredObjectDeleteMarker": True})], MALFORMED),
    ("status", [rule(Status="On")], MALFORMED), ("nothing", [], MALFORMED), ("long", [rule(ID="x" * 256)], "400 InvalidArgument"),
    ("parts-zero", [rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 0})], "400 InvalidArgument"),
]:
    @probe(f"s3-lifecycle-{label}", f"Rules that are refused: {label}", want, f"{PUT_LIFECYCLE}; {LIFECYCLE}", rules=rules)
    def _(target, rules):
        return told(lambda: governed(target, *rules))


@probe("s3-lifecycle-role", "Rules are put by who may", "403 AccessDenied", f"{PUT_LIFECYCLE}: s3:PutLifecycleConfiguration")
def _(target):
    return told(lambda: governed(target, rule(), client=s3(target, **target.role("probe-nothing"))))


@probe("s3-lifecycle-read-role", "and read by who may", "403 AccessDenied", s3_api("GetBucketLifecycleConfiguration", "s3:GetLifecycleConfiguration"))
def _(target):
    return told(lambda: s3(target, **target.role("probe-nothing")).get_bucket_lifecycle_configuration(Bucket=ENDING))
