//! Turns object-created events into file state, and removes the bytes of files that have ended.
//!
//! An event is a hint that something may have happened. What did happen is asked of the bucket, compared with what was
//! declared, and recorded as a fact; the file's state follows from its facts. Events may be forged, repeated, late and out
//! of order: unknown keys, foreign buckets and missing rows change nothing. Scan verdicts are not understood yet: with
//! scanning on, a file stays `scanning`.

mod config;
mod event;
mod sweep;

pub use config::{Config, Scan};
pub use event::{Happening, happenings, is_scheduled};

use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::Clock;
use shared::object::{FileStatus, Head, ObjectHead, ObjectKey, ObjectStore, Sha256Digest, VersionId};
use shared::port::{Database, Fault, FaultKind, Parameter};

const FUNCTION: &str = "object-events";
const CREATED: &str = "object:created";

/// The function over its ports.
pub struct ObjectEvents<D, O, C> {
    /// Files and their facts.
    pub database: D,
    /// The object bucket.
    pub objects: O,
    /// The time.
    pub clock: C,
    /// Which objects count.
    pub config: Config,
}

impl<D: Database, O: ObjectStore, C: Clock> Handler for ObjectEvents<D, O, C> {
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        if is_scheduled(&event) {
            return self.sweep(invocation).await;
        }
        let Ok(happenings) = happenings(&event) else {
            Line::new(FUNCTION, "event").request(&invocation.request_id).decision("deny", "malformed_event").emit();
            return Err(Failure::MALFORMED_EVENT);
        };
        let mut failed = None;
        for happening in happenings {
            let line = Line::new(FUNCTION, CREATED).request(&invocation.request_id);
            match self.judge(&happening).await {
                Ok(Judged::Recorded { key, finding, status }) => {
                    let decision = if finding == Finding::AsDeclared { "allow" } else { "deny" };
                    line.decision(decision, finding.as_str())
                        .text("key", &key.to_string())
                        .text("status", status.as_str())
                        .emit();
                }
                // The key of what is not ours may be anybody's text; it is not repeated.
                Ok(Judged::Ignored(reason)) => line.decision("deny", reason).emit(),
                Err(fault) => {
                    line.decision("fault", "unavailable").fault(&fault).emit();
                    failed = Some(Failure::UNAVAILABLE);
                }
            }
        }
        failed.map_or(Ok(json!({})), Err)
    }
}

impl<D: Database, O: ObjectStore, C: Clock> ObjectEvents<D, O, C> {
    async fn judge(&self, happening: &Happening) -> Result<Judged, Fault> {
        if happening.bucket != self.config.object_bucket {
            return Ok(Judged::Ignored("foreign_bucket"));
        }
        let Ok(key) = ObjectKey::parse(&happening.key) else {
            return Ok(Judged::Ignored("unknown_key"));
        };
        // A bucket without versions is a fault of the deployment, and loud: nothing checked there stays checked.
        let version = happening.version.as_deref().unwrap_or_default();
        let version = VersionId::parse(version)
            .map_err(|malformed| Fault::new(FaultKind::Invalid, "s3", "Event").caused_by(malformed))?;

        let file = vec![Parameter::Text(key.tenant().as_str().to_owned()), Parameter::Uuid(key.file().uuid())];
        let Some(declared) = Declared::read(self.database.call("api.file_for_event", file.clone()).await?)? else {
            return Ok(Judged::Ignored("unknown_file"));
        };
        let mut parameters = file;
        parameters.push(Parameter::Text(self.config.object_bucket.clone()));
        // Nothing brings an ended file back, and its versions may be gone: what counts is that this one is known.
        if declared.ended {
            parameters.extend([
                Parameter::Text(version.as_str().to_owned()),
                Parameter::Text(String::new()),
                Parameter::Int(0),
            ]);
            return self.record(key, Finding::Late, parameters).await;
        }
        let Head::Found(head) = self.objects.head(&key, &version).await? else {
            return Ok(Judged::Ignored("object_gone"));
        };
        if head.version != version.as_str() {
            return Err(Fault::new(FaultKind::Invalid, "s3", "HeadObject").caused_by("another version was answered"));
        }

        let finding = declared.compare(&head, &self.config.bucket_key);
        parameters.extend([Parameter::Text(head.version), Parameter::Text(head.etag), Parameter::Int(head.size)]);
        self.record(key, finding, parameters).await
    }

    async fn record(&self, key: ObjectKey, finding: Finding, mut parameters: Vec<Parameter>) -> Result<Judged, Fault> {
        parameters.extend([
            Parameter::Text(finding.as_str().to_owned()),
            Parameter::Bool(self.config.scan == Scan::Off),
            Parameter::Int(self.clock.now().millis()),
        ]);
        let answer = self.database.call("api.record_created", parameters).await?;
        Ok(match status(&answer)? {
            Some(status) => Judged::Recorded { key, finding, status },
            None => Judged::Ignored("unknown_file"),
        })
    }
}

enum Judged {
    Recorded { key: ObjectKey, finding: Finding, status: FileStatus },
    Ignored(&'static str),
}

/// What an object turned out to be: as declared, or the first thing that differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finding {
    AsDeclared,
    Size,
    Digest,
    ContentType,
    Encryption,
    Late,
}

impl Finding {
    fn as_str(self) -> &'static str {
        match self {
            Finding::AsDeclared => "ok",
            Finding::Size => "size",
            Finding::Digest => "sha256",
            Finding::ContentType => "content_type",
            Finding::Encryption => "encryption",
            Finding::Late => "late",
        }
    }
}

/// What the uploader declared.
struct Declared {
    content_type: String,
    size: i64,
    sha256: Sha256Digest,
    ended: bool,
}

impl Declared {
    fn read(answer: Value) -> Result<Option<Declared>, Fault> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", content = "file", rename_all = "snake_case")]
        enum Answer {
            Found { content_type: String, size: i64, sha256: String, status: String },
            Unknown,
        }
        match serde_json::from_value(answer).map_err(|_| unreadable())? {
            Answer::Unknown => Ok(None),
            Answer::Found { content_type, size, sha256, status } => {
                let sha256 = Sha256Digest::from_hex(&sha256).map_err(|_| unreadable())?;
                let status = FileStatus::parse(&status).map_err(|_| unreadable())?;
                Ok(Some(Declared { content_type, size, sha256, ended: status.is_final() }))
            }
        }
    }

    fn compare(&self, head: &ObjectHead, bucket_key: &str) -> Finding {
        if head.size != self.size {
            return Finding::Size;
        }
        if head.sha256.as_deref().and_then(|text| Sha256Digest::parse(text).ok()) != Some(self.sha256) {
            return Finding::Digest;
        }
        if head.content_type.as_deref() != Some(self.content_type.as_str()) {
            return Finding::ContentType;
        }
        if head.encryption.as_deref() != Some("aws:kms") || head.encryption_key.as_deref() != Some(bucket_key) {
            return Finding::Encryption;
        }
        Finding::AsDeclared
    }
}

fn status(answer: &Value) -> Result<Option<FileStatus>, Fault> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("outcome") {
        "unknown" => Ok(None),
        "recorded" | "known" => FileStatus::parse(text("status")).map(Some).map_err(|_| unreadable()),
        _ => Err(unreadable()),
    }
}

fn unreadable() -> Fault {
    Fault::new(FaultKind::Invalid, "postgres", "api").caused_by("unreadable answer")
}
