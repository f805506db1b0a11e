//! Mirrors the issuers' public keys into the trust bucket.
//!
//! The only function with a route to the internet. It reads who the issuers are from `trust/profiles.json`, which it cannot write, and
//! writes `trust/issuers/{id}.json`, where it can write nothing but keys of the algorithms that the profile names. What an issuer
//! publishes is read as strictly as a verifier reads it; where that or the fetch fails, the last good keys stay until their own
//! `not_after`, and the others are mirrored all the same. The run itself then fails, so that alarms see it.

pub mod config;
mod key_set;

use futures::StreamExt as _;
use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::issuer::{Profile, Profiles};
use shared::jwks::MAX_BYTES;
use shared::name::Malformed;
use shared::port::{Fault, FaultKind, Fetch, ObjectReader, ObjectWriter, Precondition, Read, Written};
use shared::trust::{Envelope, TrustObject};

pub use self::key_set::read as read_key_set;

/// How long mirrored keys may be used, in milliseconds: an issuer may be out of reach for two days.
pub const LIFE: i64 = 48 * 3_600 * 1_000;
/// How old mirrored keys become before they are written again unchanged, in milliseconds: what an issuer published last serves for
/// an hour less than [`LIFE`] at least, and a run that finds nothing new leaves the object, and whoever keeps its tag, alone.
pub const RENEWED: i64 = 3_600 * 1_000;
/// How many issuers are asked at once.
const AT_ONCE: usize = 8;
/// How often a mirror starts over because somebody else wrote meanwhile.
const ATTEMPTS: usize = 3;

/// The mirror over its ports.
pub struct Mirror<F, O, C> {
    /// The public web.
    pub fetch: F,
    /// The trust bucket.
    pub bucket: O,
    /// The time.
    pub clock: C,
}

/// What one run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The issuers whose keys lie in the bucket as they are published, in the order of the profiles.
    pub mirrored: Vec<String>,
    /// How many of them were written by this run.
    pub written: usize,
    /// What could not be done, by issuer; `profiles` where nobody could be asked.
    pub faults: Vec<(String, Fault)>,
}

/// What lies in the bucket now.
struct Held {
    envelope: Option<Envelope>,
    when: Precondition,
    /// S3 says "denied" for an object that does not exist to a role that may not list. A conditional write tells which it was.
    denied: Option<Fault>,
}

impl<F: Fetch, O: ObjectReader + ObjectWriter, C: Clock> Mirror<F, O, C> {
    /// Asks every issuer for its keys and writes those that are new or an hour old.
    pub async fn run(&self) -> Report {
        let profiles = match self.profiles().await {
            Ok(profiles) => profiles,
            Err(fault) => return Report { faults: vec![("profiles".to_owned(), fault)], ..Report::default() },
        };
        let asked: Vec<_> = profiles.foreign().iter().map(|profile| self.mirror(profile)).collect();
        let answers: Vec<Result<bool, Fault>> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
        let mut report = Report::default();
        for (profile, answer) in profiles.foreign().iter().zip(answers) {
            let id = profile.id().to_string();
            match answer {
                Ok(written) => {
                    report.written += usize::from(written);
                    report.mirrored.push(id);
                }
                Err(fault) => report.faults.push((id, fault)),
            }
        }
        report
    }

    async fn profiles(&self) -> Result<Profiles, Fault> {
        let refused = |malformed: Malformed| Fault::new(FaultKind::Invalid, "trust", "profiles").caused_by(malformed);
        let body = match self.bucket.read(Profiles::KEY, None).await? {
            Read::Found { body, .. } => body,
            Read::Missing | Read::Unchanged => return Err(Fault::new(FaultKind::NotFound, "trust", "profiles")),
        };
        let envelope = Envelope::open(&body).map_err(refused)?;
        if self.clock.now().millis() >= envelope.not_after {
            return Err(Fault::new(FaultKind::Unavailable, "trust", "profiles").caused_by("past its end"));
        }
        Profiles::parse(&envelope.body).map_err(refused)
    }

    /// Whether it had to be written.
    async fn mirror(&self, profile: &Profile) -> Result<bool, Fault> {
        let key = profile.id().object_key();
        for _ in 0..ATTEMPTS {
            // Held first, fetched second: whoever overwrites has asked the issuer later than what it overwrites.
            let held = self.held(&key).await?;
            let document = self.fetch.get(profile.jwks_url(), MAX_BYTES).await?;
            let body = key_set::read(&document, profile.algorithms(), profile.kind().usage())
                .map_err(|malformed| Fault::new(FaultKind::Invalid, "issuer", "keys").caused_by(malformed))?;
            let now = self.clock.now();
            let changed = !held.envelope.as_ref().is_some_and(|last| same(&last.body, &body));
            if !changed && held.envelope.as_ref().is_some_and(|last| lasts(last, now)) {
                return Ok(false);
            }
            let version =
                held.envelope.as_ref().map_or(now.millis(), |last| now.millis().max(last.version.saturating_add(1)));
            let kids = kids(&body);
            let envelope = Envelope { version, issued_at: version, not_after: now.plus_millis(LIFE).millis(), body };
            match self.bucket.write(&key, envelope.seal(), held.when).await {
                Ok(Written::Stored { .. }) => {
                    let line = Line::new("issuer-keys", if changed { "keys_changed" } else { "keys_renewed" });
                    line.text("issuer", profile.id().as_str()).text("kids", &kids).emit();
                    return Ok(true);
                }
                Ok(Written::PreconditionFailed) => {
                    if let Some(denied) = held.denied {
                        return Err(denied);
                    }
                }
                // S3 answers 409 when two conditional writes meet.
                Err(fault) if fault.kind == FaultKind::Conflict => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::new(FaultKind::Conflict, "trust", "issuers"))
    }

    async fn held(&self, key: &str) -> Result<Held, Fault> {
        let absent = |denied| Held { envelope: None, when: Precondition::Absent, denied };
        match self.bucket.read(key, None).await {
            Ok(Read::Found { body, etag }) => {
                // An unreadable object is replaced: verifiers refuse it already.
                Ok(Held { envelope: Envelope::open(&body).ok(), when: Precondition::Matches(etag), denied: None })
            }
            Ok(Read::Missing | Read::Unchanged) => Ok(absent(None)),
            Err(fault) if fault.kind == FaultKind::Denied => Ok(absent(Some(fault))),
            Err(fault) => Err(fault),
        }
    }
}

/// Whether the same keys are there, in whichever order an issuer lists them today: verifiers look them up by name.
fn same(held: &Value, read: &Value) -> bool {
    let keys = |body: &Value| body.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let (held_keys, read_keys) = (keys(held), keys(read));
    let alone = held.as_object().is_some_and(|members| members.len() == 1);
    // No two of what was read have one name, so that as many of the same are the same.
    alone && held_keys.len() == read_keys.len() && read_keys.iter().all(|key| held_keys.contains(key))
}

/// Whether an envelope of ours is young enough to stay. One that would outlive what is written now was not written by this clock.
fn lasts(last: &Envelope, now: Timestamp) -> bool {
    let left = last.not_after.saturating_sub(now.millis());
    left > LIFE - RENEWED && left <= LIFE
}

fn kids(body: &Value) -> String {
    let keys = body.get("keys").and_then(Value::as_array).into_iter().flatten();
    keys.filter_map(|key| key.get("kid").and_then(Value::as_str)).collect::<Vec<_>>().join(" ")
}

impl<F: Fetch, O: ObjectReader + ObjectWriter, C: Clock> Handler for Mirror<F, O, C> {
    async fn handle(&self, _event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        let report = self.run().await;
        for (issuer, fault) in &report.faults {
            let line = Line::new("issuer-keys", "mirror").request(&invocation.request_id);
            line.text("issuer", issuer).decision("fault", "not_mirrored").fault(fault).emit();
        }
        let line = Line::new("issuer-keys", "run").request(&invocation.request_id);
        let (mirrored, faults) = (report.mirrored.len(), report.faults.len());
        let line = line.number("mirrored", mirrored as i64).number("written", report.written as i64);
        line.number("faults", faults as i64).emit();
        if report.faults.is_empty() { Ok(json!({ "mirrored": report.mirrored })) } else { Err(Failure::UNAVAILABLE) }
    }
}
