//! The shapes in which S3 tells of objects, through EventBridge and as a direct notification, and in which a scanner tells what
//! it found: GuardDuty's, which another scanner may speak as well.

use std::borrow::Cow;

use aws_lambda_events::eventbridge::EventBridgeEvent;
use aws_lambda_events::s3::S3Event;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::name::Malformed;

/// An object that is said to have been created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// Its bucket.
    pub bucket: String,
    /// Its key, decoded.
    pub key: String,
    /// Its version; absent where the bucket keeps none.
    pub version: Option<String>,
}

/// What is said to have happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// Objects were created.
    Created(Vec<Happening>),
    /// A scanner looked at an object.
    Scanned(Scanned),
}

/// What a scanner says of one version of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// The account that the event is of, and the plan that asked for the scan.
    pub account: String,
    /// ARN of the plan that asked for the scan.
    pub plan: String,
    /// The version.
    pub object: Happening,
    /// Its entity tag; empty where the scanner says none.
    pub etag: String,
    /// What it found.
    pub verdict: Verdict,
}

/// What a scan can end in (GuardDuty Malware Protection for S3, `scanResultStatus`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing was found.
    NoThreatsFound,
    /// Something was.
    ThreatsFound,
    /// The object is of a kind that is not scanned.
    Unsupported,
    /// The scanner may not read it.
    AccessDenied,
    /// The scan went wrong, or ended in a way that nobody knew when this was written.
    Failed,
}

impl Verdict {
    /// The verdict as it is recorded.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::NoThreatsFound => "NO_THREATS_FOUND",
            Verdict::ThreatsFound => "THREATS_FOUND",
            Verdict::Unsupported => "UNSUPPORTED",
            Verdict::AccessDenied => "ACCESS_DENIED",
            Verdict::Failed => "FAILED",
        }
    }

    /// A threat is one whatever else is said. A word that is not known is not clean, and neither is a scan that was not
    /// completed, whatever it says.
    fn read(scan: &str, result: &str) -> Verdict {
        match (scan, result) {
            (_, "THREATS_FOUND") => Verdict::ThreatsFound,
            ("COMPLETED", "NO_THREATS_FOUND") => Verdict::NoThreatsFound,
            ("COMPLETED" | "SKIPPED", "UNSUPPORTED") => Verdict::Unsupported,
            (_, "ACCESS_DENIED") => Verdict::AccessDenied,
            _ => Verdict::Failed,
        }
    }
}

/// Reads what an event tells. The error says nothing of the event's content.
pub fn told(event: &Value) -> Result<Told, Malformed> {
    match event.get("source").and_then(Value::as_str) {
        Some("aws.guardduty") => scanned(event).map(Told::Scanned),
        _ => happenings(event).map(Told::Created),
    }
}

fn scanned(event: &Value) -> Result<Scanned, Malformed> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Detail {
        schema_version: String,
        scan_status: String,
        resource_type: String,
        s3_object_details: Object,
        scan_result_details: Option<Outcome>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Object {
        bucket_name: String,
        object_key: String,
        e_tag: Option<String>,
        version_id: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outcome {
        scan_result_status: Option<String>,
    }
    let malformed = || Malformed("event");
    let envelope = EventBridgeEvent::<Value>::deserialize(event).map_err(|_| malformed())?;
    if envelope.detail_type != "GuardDuty Malware Protection Object Scan Result" {
        return Err(malformed());
    }
    let detail = Detail::deserialize(envelope.detail).map_err(|_| malformed())?;
    // As with S3's own events, another minor version only adds.
    if detail.schema_version.split('.').next() != Some("1") || detail.resource_type != "S3_OBJECT" {
        return Err(malformed());
    }
    let result = detail.scan_result_details.and_then(|outcome| outcome.scan_result_status).unwrap_or_default();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Scanned {
        account: text(event.get("account")),
        plan: text(event.pointer("/resources/0")),
        object: Happening {
            bucket: detail.s3_object_details.bucket_name,
            key: detail.s3_object_details.object_key,
            version: detail.s3_object_details.version_id,
        },
        etag: detail.s3_object_details.e_tag.unwrap_or_default(),
        verdict: Verdict::read(&detail.scan_status, &result),
    })
}

/// Whether an event is the schedule's, which has nothing to say but that it is time. Whoever else may invoke the function
/// could as well wait for the schedule.
pub fn is_scheduled(event: &Value) -> bool {
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    text("source") == Some("aws.events") && text("detail-type") == Some("Scheduled Event")
}

/// The objects that an event says were created. Empty for events that are known and of no interest: deletions and S3's test
/// event. Fields that are not needed may be there or not; the error says nothing of the event's content.
pub fn happenings(event: &Value) -> Result<Vec<Happening>, Malformed> {
    if event.get("Records").is_some() {
        return notification(event);
    }
    if event.get("Event").and_then(Value::as_str) == Some("s3:TestEvent") {
        return Ok(Vec::new());
    }
    event_bridge(event)
}

fn event_bridge(event: &Value) -> Result<Vec<Happening>, Malformed> {
    #[derive(Serialize, Deserialize)]
    struct Detail {
        bucket: Bucket,
        object: Object,
    }
    #[derive(Serialize, Deserialize)]
    struct Bucket {
        name: String,
    }
    #[derive(Serialize, Deserialize)]
    struct Object {
        key: String,
        #[serde(rename = "version-id")]
        version_id: Option<String>,
    }
    let event = EventBridgeEvent::<Value>::deserialize(event).map_err(|_| Malformed("event"))?;
    match (event.source.as_str(), event.detail_type.as_str()) {
        ("aws.s3", "Object Created") => {}
        ("aws.s3", "Object Deleted") => return Ok(Vec::new()),
        _ => return Err(Malformed("event")),
    }
    let Detail { bucket, object } = Detail::deserialize(event.detail).map_err(|_| Malformed("event"))?;
    Ok(vec![Happening { bucket: bucket.name, key: object.key, version: object.version_id }])
}

fn notification(event: &Value) -> Result<Vec<Happening>, Malformed> {
    let event = S3Event::deserialize(event).map_err(|_| Malformed("event"))?;
    let mut happenings = Vec::new();
    for record in event.records {
        // The minor version rises as fields are added; only another major one would mean another shape.
        let major = record.event_version.as_deref().and_then(|version| version.split('.').next());
        if record.event_source.as_deref() != Some("aws:s3") || major != Some("2") {
            return Err(Malformed("event"));
        }
        let name = record.event_name.ok_or(Malformed("event"))?;
        if !name.starts_with("ObjectCreated:") {
            continue;
        }
        let key = record.s3.object.key.ok_or(Malformed("event"))?;
        happenings.push(Happening {
            bucket: record.s3.bucket.name.ok_or(Malformed("event"))?,
            key: form_decoded(&key)?,
            version: record.s3.object.version_id,
        });
    }
    Ok(happenings)
}

/// Keys of notifications are encoded as forms are: `+` is a space. The crate decodes nothing.
fn form_decoded(text: &str) -> Result<String, Malformed> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(Cow::into_owned).map_err(|_| Malformed("event"))
}
