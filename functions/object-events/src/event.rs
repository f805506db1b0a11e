//! The shapes in which S3 tells of objects: through EventBridge, and as a direct notification.

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
