//! What S3 sends to a function itself: the message of
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>, version 2.1.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::ObjectCreated;
use crate::account::Account;

/// What stays as it is in the key of a message; a space becomes `+` besides.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*');

/// A function that S3 notifies of what is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The name of the configuration, which stands in each message.
    pub id: String,
    /// The bucket.
    pub bucket: String,
    /// How the keys begin; empty for all.
    pub prefix: String,
    /// How they end; empty for all.
    pub suffix: String,
    /// The function, `NAME` or `NAME:ALIAS`.
    pub function: String,
}

impl Notification {
    pub(super) fn concerns(&self, created: &ObjectCreated) -> bool {
        self.bucket == created.bucket && created.key.starts_with(&self.prefix) && created.key.ends_with(&self.suffix)
    }
}

pub(super) fn event(created: &ObjectCreated, account: &Account, configuration: &str) -> Value {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let now = OffsetDateTime::from(account.clock.now()).format(format).unwrap_or_default();
    let name = match created.reason.as_str() {
        "POST Object" => "ObjectCreated:Post",
        "CompleteMultipartUpload" => "ObjectCreated:CompleteMultipartUpload",
        "CopyObject" => "ObjectCreated:Copy",
        _ => "ObjectCreated:Put",
    };
    let key = utf8_percent_encode(&created.key, PLAIN).to_string().replace("%20", "+");
    json!({"Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": account.region,
        "eventTime": now,
        "eventName": name,
        "userIdentity": {"principalId": format!("AWS:{}", account.id)},
        "requestParameters": {"sourceIPAddress": created.source_ip},
        "responseElements": {"x-amz-request-id": created.request_id, "x-amz-id-2": created.request_id},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": configuration,
            "bucket": {
                "name": created.bucket,
                "ownerIdentity": {"principalId": account.id},
                "arn": format!("arn:aws:s3:::{}", created.bucket),
            },
            "object": {
                "key": key,
                "size": created.size,
                "eTag": created.etag,
                "versionId": created.version_id,
                "sequencer": created.sequencer,
            },
        },
    }]})
}
