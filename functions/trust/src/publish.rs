//! One object of the trust bucket: read, compared, replaced under its entity tag.

use serde_json::Value;
use shared::clock::Timestamp;
use shared::name::Malformed;
use shared::port::{Fault, FaultKind, ObjectReader, ObjectWriter, Precondition, Read, Written};
use shared::trust::Envelope;

/// What lies in the bucket now.
pub(crate) enum Held {
    /// Nothing.
    Missing,
    /// An object, readable as an envelope or not.
    Found { etag: String, envelope: Option<Envelope> },
}

impl Held {
    /// The body, if there is a readable object.
    pub(crate) fn body(&self) -> Result<&Value, Malformed> {
        match self {
            Self::Found { envelope: Some(envelope), .. } => Ok(&envelope.body),
            _ => Err(Malformed("trust object")),
        }
    }

    fn envelope(&self) -> Option<&Envelope> {
        match self {
            Self::Found { envelope, .. } => envelope.as_ref(),
            Self::Missing => None,
        }
    }
}

/// What became of a publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Written.
    Published,
    /// Nothing to write.
    Unchanged,
    /// Somebody else wrote since the object was read; nothing was written.
    Contested,
}

/// The bucket, as publications see it.
pub(crate) struct Shelf<'a, O>(pub(crate) &'a O);

impl<O: ObjectReader + ObjectWriter> Shelf<'_, O> {
    pub(crate) async fn read(&self, key: &str) -> Result<Held, Fault> {
        match self.0.read(key, None).await? {
            Read::Missing => Ok(Held::Missing),
            Read::Found { body, etag } => Ok(Held::Found { etag, envelope: Envelope::open(&body).ok() }),
            Read::Unchanged => Err(Fault::new(FaultKind::Invalid, "s3", "GetObject")),
        }
    }

    /// Replaces `held` by `body`, unless it is the same and more than half of its life is left, but no more than a life: a clock
    /// that was ahead for a moment must not leave an object that never ends. The version always rises, also when the clock
    /// went back.
    pub(crate) async fn put(
        &self,
        key: &str,
        held: &Held,
        body: Value,
        life: i64,
        now: Timestamp,
    ) -> Result<Outcome, Fault> {
        let last = held.envelope();
        let in_its_life = |last: &Envelope| {
            let left = last.not_after.saturating_sub(now.millis());
            left > life / 2 && left <= life
        };
        if last.is_some_and(|last| last.body == body && in_its_life(last)) {
            return Ok(Outcome::Unchanged);
        }
        let version = last.map_or(now.millis(), |last| now.millis().max(last.version.saturating_add(1)));
        let envelope = Envelope { version, issued_at: version, not_after: now.plus_millis(life).millis(), body };
        let when = match held {
            Held::Missing => Precondition::Absent,
            Held::Found { etag, .. } => Precondition::Matches(etag.clone()),
        };
        match self.0.write(key, envelope.seal(), when).await {
            Ok(Written::Stored { .. }) => Ok(Outcome::Published),
            Ok(Written::PreconditionFailed) => Ok(Outcome::Contested),
            // S3 answers 409 when two conditional writes meet.
            Err(fault) if fault.kind == FaultKind::Conflict => Ok(Outcome::Contested),
            Err(fault) => Err(fault),
        }
    }
}
