"""A URL for one PUT by boto3, with everything signed that the upload function signs."""
import json
import os
import uuid

import boto3
from botocore.config import Config

# Virtual addressing and the regional endpoint, as for a bucket in production; nothing is sent to it.
S3 = boto3.client(
    "s3",
    region_name="us-east-1",
    aws_access_key_id="AKIDEXAMPLEEXAMPLE00",
    aws_secret_access_key="bench",
    aws_session_token="t" * 400,
    config=Config(signature_version="s3v4", s3={"addressing_style": "virtual"}),
)


def handler(event, _context):
    asked = json.loads(event["body"])
    url = S3.generate_presigned_url(
        "put_object",
        Params={
            "Bucket": "portcullis-bench-objects",
            "Key": f"files/acme/{uuid.uuid4()}",
            "ContentType": asked["content_type"],
            "ContentLength": asked["size"],
            "ChecksumSHA256": asked["sha256"],
            "IfNoneMatch": "*",
            "ServerSideEncryption": "aws:kms",
            "SSEKMSKeyId": "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        },
        ExpiresIn=300,
        HttpMethod="PUT",
    )
    return {"statusCode": 201, "headers": {"content-type": "application/json"}, "body": json.dumps({"url": url})}
