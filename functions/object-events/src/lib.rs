//! Turns object-created events and scan verdicts into file state, and removes the bytes of files that have ended.
//!
//! An event is a hint that something may have happened. What did happen is asked of the bucket, compared with what was
//! declared, and recorded as a fact; the file's state follows from its facts. Events may be forged, repeated, late and out
//! of order: unknown keys, foreign buckets and missing rows change nothing. A scanner's verdict is a fact about one version;
//! with scanning on, a file stays `scanning` until there is one about the version that was checked.

mod config;
mod event;
mod sweep;

pub use config::Config;
pub use event::{Happening, Scanned, Told, Verdict, happenings, is_scheduled, told};

use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::Clock;
use shared::object::{
    ContentType, FileStatus, Head, ObjectHead, ObjectKey, ObjectStore, Scan, Sha256Digest, VersionId,
};
use shared::port::{Database, Fault, FaultKind, Parameter};

const FUNCTION: &str = "object-events";
const CREATED: &str = "object:created";
const SCANNED: &str = "object:scanned";

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
        let happenings = match told(&event) {
            Ok(Told::Created(happenings)) => happenings,
            Ok(Told::Scanned(scanned)) => {
                let line = Line::new(FUNCTION, SCANNED).request(&invocation.request_id);
                return said(line, self.hear(&scanned).await).map_or(Ok(json!({})), Err);
            }
            Err(_) => {
                Line::new(FUNCTION, "event").request(&invocation.request_id).decision("deny", "malformed_event").emit();
                return Err(Failure::MALFORMED_EVENT);
            }
        };
        let mut failed = None;
        for happening in happenings {
            let line = Line::new(FUNCTION, CREATED).request(&invocation.request_id);
            failed = said(line, self.judge(&happening).await).or(failed);
        }
        failed.map_or(Ok(json!({})), Err)
    }
}

/// Ends the line of what was decided about one object; the failure that makes the event come again, if there was one.
fn said(line: Line, judged: Result<Judged, Fault>) -> Option<Failure> {
    match judged {
        Ok(Judged::Recorded { key, finding, status }) => {
            let decision = if matches!(finding, "ok" | "NO_THREATS_FOUND") { "allow" } else { "deny" };
            line.decision(decision, finding).text("key", &key.to_string()).text("status", status.as_str()).emit();
            None
        }
        // The key of what is not ours may be anybody's text; it is not repeated.
        Ok(Judged::Ignored(reason)) => {
            line.decision("deny", reason).emit();
            None
        }
        Err(fault) => {
            line.decision("fault", "unavailable").fault(&fault).emit();
            Some(Failure::UNAVAILABLE)
        }
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
        let Some(declared) = Declared::read(self.database.call("api.file_for_event", file).await?)? else {
            return Ok(Judged::Ignored("unknown_file"));
        };
        // Nothing brings an ended file back, and its versions may be gone: what counts is that this one is known.
        if declared.ended {
            return self.record(key, &version, Finding::Late, Seen::default()).await;
        }
        let Head::Found(head) = self.objects.head(&key, &version).await? else {
            return Ok(Judged::Ignored("object_gone"));
        };
        if head.version != version.as_str() {
            return Err(Fault::new(FaultKind::Invalid, "s3", "HeadObject").caused_by("another version was answered"));
        }

        let (finding, sha256) = self.compare(&key, &version, &declared, &head).await?;
        let seen = Seen { etag: head.etag, size: head.size, sha256 };
        self.record(key, &version, finding, seen).await
    }

    /// What a scanner said counts of our account's scans of our bucket, and of the version that it names alone: for whatever
    /// it finds, that version need not have been told of yet.
    async fn hear(&self, scanned: &Scanned) -> Result<Judged, Fault> {
        if scanned.object.bucket != self.config.object_bucket {
            return Ok(Judged::Ignored("foreign_bucket"));
        }
        let ours = self.config.bucket_key.split(':').nth(4);
        if ours != Some(scanned.account.as_str()) || scanned.plan.split(':').nth(4) != ours {
            return Ok(Judged::Ignored("foreign_scanner"));
        }
        let Ok(key) = ObjectKey::parse(&scanned.object.key) else {
            return Ok(Judged::Ignored("unknown_key"));
        };
        let version = VersionId::parse(scanned.object.version.as_deref().unwrap_or_default())
            .map_err(|malformed| Fault::new(FaultKind::Invalid, "guardduty", "Event").caused_by(malformed))?;
        let parameters = vec![
            Parameter::Text(key.tenant().as_str().to_owned()),
            Parameter::Uuid(key.file().uuid()),
            Parameter::Text(self.config.object_bucket.clone()),
            Parameter::Text(version.as_str().to_owned()),
            Parameter::Text(scanned.etag.trim_matches('"').to_owned()),
            Parameter::Text(scanned.verdict.as_str().to_owned()),
            Parameter::Int(self.clock.now().millis()),
        ];
        let answer = self.database.call("api.record_verdict", parameters).await?;
        Ok(match status(&answer)? {
            Some(status) => Judged::Recorded { key, finding: scanned.verdict.as_str(), status },
            None => Judged::Ignored("unknown_file"),
        })
    }

    /// What the object turned out to be, and its digest.
    async fn compare(
        &self,
        key: &ObjectKey,
        version: &VersionId,
        declared: &Declared,
        head: &ObjectHead,
    ) -> Result<(Finding, Option<String>), Fault> {
        let finding = declared.compare(head, &self.config.bucket_key);
        if finding != Finding::AsDeclared {
            return Ok((finding, head.sha256.clone()));
        }
        let gone = || Fault::new(FaultKind::Conflict, "s3", "GetObject").caused_by("gone between two looks");
        let told = ContentType::parse(&declared.content_type).ok().filter(|told| told.is_told_by_its_start());
        if let Some(content_type) = told {
            let start = self.objects.start(key, version, ContentType::LOOKED_AT).await?.ok_or_else(gone)?;
            if !content_type.fits(&start) {
                return Ok((Finding::Start, head.sha256.clone()));
            }
        }
        // A form need not say a digest, and then S3 keeps none of the kind that we compare.
        if head.sha256.is_some() || !matches!(declared.bytes, Bytes::Form { .. }) {
            return Ok((finding, head.sha256.clone()));
        }
        let digest = self.objects.hash(key, version).await?.ok_or_else(gone)?;
        Ok((finding, Some(digest.to_string())))
    }

    async fn record(&self, key: ObjectKey, version: &VersionId, finding: Finding, seen: Seen) -> Result<Judged, Fault> {
        let parameters = vec![
            Parameter::Text(key.tenant().as_str().to_owned()),
            Parameter::Uuid(key.file().uuid()),
            Parameter::Text(self.config.object_bucket.clone()),
            Parameter::Text(version.as_str().to_owned()),
            Parameter::Text(seen.etag),
            Parameter::Int(seen.size),
            Parameter::OptionalText(seen.sha256),
            Parameter::Text(finding.as_str().to_owned()),
            Parameter::Bool(self.config.scan == Scan::Off),
            Parameter::Int(self.clock.now().millis()),
        ];
        let answer = self.database.call("api.record_created", parameters).await?;
        Ok(match status(&answer)? {
            Some(status) => Judged::Recorded { key, finding: finding.as_str(), status },
            None => Judged::Ignored("unknown_file"),
        })
    }
}

/// What is recorded of a version.
#[derive(Default)]
struct Seen {
    etag: String,
    size: i64,
    sha256: Option<String>,
}

enum Judged {
    Recorded { key: ObjectKey, finding: &'static str, status: FileStatus },
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
    /// It does not begin as files of its type do.
    Start,
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
            Finding::Start => "start",
            Finding::Late => "late",
        }
    }
}

/// What the uploader declared.
struct Declared {
    content_type: String,
    bytes: Bytes,
    ended: bool,
}

/// What was declared of the bytes.
enum Bytes {
    /// All of them.
    Put { size: i64, sha256: Sha256Digest },
    /// How many at most.
    Form { longest: i64 },
    /// How many, and the digest that their parts amount to, as S3 writes it; none while not every part was signed.
    Parts { size: i64, digest: Option<String> },
}

impl Declared {
    fn read(answer: Value) -> Result<Option<Declared>, Fault> {
        #[derive(Deserialize)]
        #[serde(tag = "outcome", content = "file", rename_all = "snake_case")]
        enum Answer {
            Found(Row),
            Unknown,
        }
        #[derive(Deserialize)]
        struct Row {
            mode: String,
            content_type: String,
            size: Option<i64>,
            sha256: Option<String>,
            max_size: Option<i64>,
            parts: Option<i64>,
            parts_sha256: Option<String>,
            status: String,
        }
        let row = match serde_json::from_value(answer).map_err(|_| unreadable())? {
            Answer::Unknown => return Ok(None),
            Answer::Found(row) => row,
        };
        let sha256 = row.sha256.as_deref().map(Sha256Digest::from_hex).transpose().map_err(|_| unreadable())?;
        let bytes = match row.mode.as_str() {
            "put" => Bytes::Put { size: row.size.ok_or_else(unreadable)?, sha256: sha256.ok_or_else(unreadable)? },
            "post" => Bytes::Form { longest: row.max_size.ok_or_else(unreadable)? },
            "multipart" => {
                let digest = row.parts_sha256.as_deref().map(Sha256Digest::from_hex).transpose();
                let (digest, parts) = (digest.map_err(|_| unreadable())?, row.parts.ok_or_else(unreadable)?);
                let digest = digest.map(|digest| format!("{digest}-{parts}"));
                Bytes::Parts { size: row.size.ok_or_else(unreadable)?, digest }
            }
            _ => return Err(unreadable()),
        };
        let status = FileStatus::parse(&row.status).map_err(|_| unreadable())?;
        Ok(Some(Declared { content_type: row.content_type, bytes, ended: status.is_final() }))
    }

    fn compare(&self, head: &ObjectHead, bucket_key: &str) -> Finding {
        let digest = head.sha256.as_deref().map(Sha256Digest::parse);
        let (right_size, right_digest) = match &self.bytes {
            Bytes::Put { size, sha256 } => {
                (head.size == *size, matches!(digest, Some(Ok(digest)) if digest == *sha256))
            }
            Bytes::Parts { size, digest } => {
                (head.size == *size, digest.is_some() && head.sha256.as_deref() == digest.as_deref())
            }
            // Whatever digest it has must be one of the whole.
            Bytes::Form { longest } => ((1..=*longest).contains(&head.size), !matches!(digest, Some(Err(_)))),
        };
        if !right_size {
            return Finding::Size;
        }
        if !right_digest {
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
