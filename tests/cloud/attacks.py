"""The attacks of docs/attacks-on-files.md on MiniStack's S3: what it answers, and what lies there afterwards.

What signs is our own adapter (the program `signed-attacks`), with sessions of MiniStack's STS. The role may do everything with the
objects of one bucket: what refuses here is the signature, not a policy, because MiniStack does not know the keys of ours.
"""

import json
import re
import subprocess

from cloud import ACCOUNT, REGION

BUCKET = "attacked"
ROLE = "attacker"


def told(page):
    """The page's rows: attack -> what AWS documents, what MiniStack does."""
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]
    return {row[0].strip(): (row[1].strip(), row[3].strip()) for row in rows if len(row) == 4 and row[0] != "attack"}


def prove(deployment, program, page):
    """Makes the attacks; each row must be the page's."""
    report, cloud = deployment.report, deployment.cloud
    report.part("attacks on what is signed, against a server that nobody here wrote")
    s3, iam = cloud.client("s3"), cloud.client("iam")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    whom = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [whom]}))
    may = {"Effect": "Allow", "Action": ["s3:*", "kms:*"], "Resource": "*"}
    iam.put_role_policy(
        RoleName=ROLE, PolicyName="all", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [may]})
    )

    def session():
        arn = f"arn:aws:iam::{ACCOUNT}:role/{ROLE}"
        given = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="u-acme")["Credentials"]
        return {"id": given["AccessKeyId"], "secret": given["SecretAccessKey"], "token": given["SessionToken"]}

    target = {
        "endpoint": cloud.url,
        "bucket": BUCKET,
        "bucket_key": key,
        "region": REGION,
        "ca_file": str(cloud.ca_file),
        "upload": session(),
        "download": session(),
        "other": session(),
    }
    ran = subprocess.run([program], input=json.dumps(target), capture_output=True, text=True, timeout=120, check=False)
    report.row("the program that signs and bends came to its end", (0, ""), (ran.returncode, ran.stderr))
    rows, known = [json.loads(line) for line in ran.stdout.splitlines()], told(page)
    # Which object each attack was about, and which a bent key would lead to.
    stored = {
        one["Key"]: s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read().decode(errors="replace")
        for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    }
    ours = {row["key"] for row in rows}
    for row in rows:
        got = "as AWS" if row["got"] == row["wanted"] else row["got"]
        found = stored.get(row["key"])
        if found != row["keeps"]:
            got += ", **stores it**" if found is not None else ", **loses it**"
        report.row(f"{row['what']} ({row['wanted']})", known.get(row["what"], ("", "not on the page"))[1], got)
    strays = sorted(re.sub(r"[0-9a-f]{12}$", "...", one) for one in set(stored) - ours)
    report.row("nothing lies under a key that nobody signed", [], strays)
    report.row("the page has these attacks and no others", sorted(known), sorted(row["what"] for row in rows))
