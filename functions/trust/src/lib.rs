//! Publishes the trust objects from Postgres and makes the first signing keys.
//!
//! Started by the schedule or by a nudge; what the event says does not matter, because everything published is read anew. The
//! three parts stand alone: a signing state that cannot be read must not keep a revocation from being published.
//!
//! A body is always gathered *after* the object it will replace was read, and written under that object's entity tag. So whoever
//! overwrites a publication has seen at least what it had seen; two instances at once cannot bring an older body back.
//!
//! Genesis happens once: without `signing-state.json` *and* without `keys.json`, two keys are made, one active at once and one
//! published as its spare. Moving keys through their life (`published`, `active`, `retiring`, `removed`) is not built yet; the
//! state carries what it will need.

pub mod config;
mod publish;

use serde_json::{Map, Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::issuer::{Profile, Profiles};
use shared::jwks::Algorithm;
use shared::name::Malformed;
use shared::port::{Database, Fault, FaultKind, ObjectReader, ObjectWriter, Parameter, SigningKeys};
use shared::trust::{KeyState, OwnKeys, Revocations, SigningKey, SigningState, TrustObject};

use self::publish::{Held, Outcome, Shelf};
pub use shared::jwk::PublicJwk;

/// The key of the issuer profiles.
pub const PROFILES: &str = Profiles::KEY;
const PROFILES_LIFE: i64 = Profiles::LAST_GOOD;
/// How often a part starts over because somebody else wrote meanwhile.
const ATTEMPTS: usize = 5;

/// What this deployment issues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issues {
    /// `iss` of our tokens.
    pub issuer: String,
    /// `aud` of our tokens.
    pub audience: String,
    /// What they are signed with.
    pub algorithm: Algorithm,
}

/// The publisher over its ports.
pub struct Publisher<D, O, K, C> {
    /// Holds the revocations and the issuers.
    pub database: D,
    /// The trust bucket.
    pub bucket: O,
    /// Makes signing keys.
    pub keys: K,
    /// The time.
    pub clock: C,
    /// What is issued.
    pub issues: Issues,
}

/// What one run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The objects written.
    pub published: Vec<&'static str>,
    /// The objects left alone: same body, far enough from `not_after`.
    pub unchanged: Vec<&'static str>,
    /// The key ids that genesis made, active one first.
    pub genesis: Vec<String>,
    /// What could not be done.
    pub faults: Vec<Fault>,
}

impl<D, O, K, C> Publisher<D, O, K, C>
where
    D: Database,
    O: ObjectReader + ObjectWriter,
    K: SigningKeys,
    C: Clock,
{
    /// Publishes whatever changed or comes near its `not_after`.
    pub async fn publish(&self) -> Report {
        let (revocations, keys, profiles) = tokio::join!(self.revocations(), self.signing(), self.profiles());
        let mut report = Report::default();
        for part in [revocations, keys, profiles] {
            report.published.extend(part.published);
            report.unchanged.extend(part.unchanged);
            report.genesis.extend(part.genesis);
            report.faults.extend(part.faults);
        }
        report
    }

    async fn revocations(&self) -> Report {
        let mut report = Report::default();
        for _ in 0..ATTEMPTS {
            match self.revocations_once(&mut report).await {
                Ok(Outcome::Contested) => {}
                Ok(_) => return report,
                Err(fault) => return report.failed(fault),
            }
        }
        report.failed(contested())
    }

    async fn revocations_once(&self, report: &mut Report) -> Result<Outcome, Fault> {
        let held = self.shelf().read(Revocations::KEY).await?;
        let now = self.clock.now();
        let mut snapshot = self.database.call("api.trust_snapshot", vec![Parameter::Int(now.millis())]).await?;
        let body = snapshot.get_mut("revocations").map(Value::take).unwrap_or_default();
        Revocations::parse(&body).map_err(|malformed| refused("trust_snapshot", malformed))?;
        self.put(report, Revocations::KEY, &held, body, Revocations::LAST_GOOD, now).await
    }

    async fn profiles(&self) -> Report {
        let mut report = Report::default();
        let Issues { issuer, audience, algorithm } = &self.issues;
        let own = json!({ "id": "own", "issuer": issuer, "audience": audience, "algorithms": [algorithm.as_str()] });
        for _ in 0..ATTEMPTS {
            let outcome = async {
                let held = self.shelf().read(PROFILES).await?;
                let profiles = [vec![own.clone()], self.foreign_issuers().await?].concat();
                let body = json!({ "profiles": profiles });
                self.put(&mut report, PROFILES, &held, body, PROFILES_LIFE, self.clock.now()).await
            };
            match outcome.await {
                Ok(Outcome::Contested) => {}
                Ok(_) => return report,
                Err(fault) => return report.failed(fault),
            }
        }
        report.failed(contested())
    }

    /// The foreign issuers as verifiers read them. One that names us as its issuer is left out: our own tokens are verified by our
    /// own keys and no others.
    async fn foreign_issuers(&self) -> Result<Vec<Value>, Fault> {
        let malformed = |malformed| refused("trust_issuers", malformed);
        let rows = self.database.call("api.trust_issuers", vec![]).await?;
        let rows = rows.get("issuers").cloned().unwrap_or_default();
        let profiles = Profiles::parse(&json!({ "profiles": rows })).map_err(malformed)?;
        let (ours, foreign): (Vec<&Profile>, Vec<&Profile>) =
            profiles.foreign().iter().partition(|profile| profile.issuer() == self.issues.issuer);
        for profile in ours {
            let line = Line::new("trust", "issuer_is_own").text("level", "ERROR");
            line.text("issuer", profile.id().as_str()).emit();
        }
        Ok(foreign.into_iter().map(Profile::to_value).collect())
    }

    async fn signing(&self) -> Report {
        let mut report = Report::default();
        for _ in 0..ATTEMPTS {
            match self.signing_once(&mut report).await {
                Ok(Outcome::Contested) => {}
                Ok(_) => return report,
                Err(fault) => return report.failed(fault),
            }
        }
        report.failed(contested())
    }

    async fn signing_once(&self, report: &mut Report) -> Result<Outcome, Fault> {
        let held_keys = self.shelf().read(OwnKeys::KEY).await?;
        let held_state = self.shelf().read(SigningState::KEY).await?;
        let now = self.clock.now();
        let state = match &held_state {
            Held::Missing if matches!(held_keys, Held::Missing) => self.genesis(now).await?,
            // Keys were published once, so there was a state: whoever removed it must bring it back, or every token dies with
            // a second genesis.
            Held::Missing => return Err(refused("signing_state", Malformed("signing state"))),
            held => held.body().and_then(read_state).map_err(|malformed| refused("signing_state", malformed))?,
        };
        let body = serde_json::to_value(&state).unwrap_or_default();
        let written = self.put(report, SigningState::KEY, &held_state, body, SigningState::LAST_GOOD, now).await?;
        match (&held_state, written) {
            (Held::Missing, Outcome::Contested) => {
                // Somebody else's genesis came first: theirs counts. These keys sign nothing, ever.
                for key in &state.keys {
                    Line::new("trust", "genesis_lost").text("kid", &key.kid).text("key", &key.key).emit();
                }
                return Ok(Outcome::Contested);
            }
            (_, Outcome::Contested) => return Ok(Outcome::Contested),
            (Held::Missing, _) => {
                for key in &state.keys {
                    Line::new("trust", "genesis").text("kid", &key.kid).text("key", &key.key).emit();
                }
                report.genesis = state.keys.iter().map(|key| key.kid.clone()).collect();
            }
            _ => {}
        }
        if state.active(self.issues.algorithm).is_none() {
            Line::new("trust", "no_active_key")
                .text("level", "WARN")
                .text("alg", self.issues.algorithm.as_str())
                .emit();
        }
        let body = key_set(&state).map_err(|malformed| refused("signing_state", malformed))?;
        self.put(report, OwnKeys::KEY, &held_keys, body, OwnKeys::LAST_GOOD, now).await
    }

    async fn genesis(&self, now: Timestamp) -> Result<SigningState, Fault> {
        let mut keys = Vec::new();
        for state in [KeyState::Active, KeyState::Published] {
            let created = self.keys.create(self.issues.algorithm).await?;
            let jwk = PublicJwk::from_spki(&created.public_der, self.issues.algorithm)
                .map_err(|malformed| refused("created_key", malformed))?;
            keys.push(SigningKey {
                kid: jwk.kid,
                alg: self.issues.algorithm.as_str().to_owned(),
                key: created.key,
                state,
                created_at: now.millis(),
                activated_at: (state == KeyState::Active).then_some(now.millis()),
                retired_at: None,
                removed_at: None,
                jwk: jwk.members,
            });
        }
        Ok(SigningState { keys })
    }

    async fn put(
        &self,
        report: &mut Report,
        key: &'static str,
        held: &Held,
        body: Value,
        life: i64,
        now: Timestamp,
    ) -> Result<Outcome, Fault> {
        let outcome = self.shelf().put(key, held, body, life, now).await?;
        match outcome {
            Outcome::Published => report.published.push(key),
            Outcome::Unchanged if !report.published.contains(&key) => report.unchanged.push(key),
            _ => {}
        }
        Ok(outcome)
    }

    fn shelf(&self) -> Shelf<'_, O> {
        Shelf(&self.bucket)
    }
}

impl Report {
    fn failed(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}

/// A state that breaks its own rules is never repaired and never replaced: it stops here.
fn read_state(body: &Value) -> Result<SigningState, Malformed> {
    let state = SigningState::parse(body)?;
    for algorithm in OwnKeys::ALGORITHMS {
        let active = |key: &&SigningKey| key.state == KeyState::Active && key.alg == algorithm.as_str();
        if state.keys.iter().filter(active).count() > 1 {
            return Err(Malformed("signing state"));
        }
    }
    Ok(state)
}

/// The JWK Set of every key whose tokens may be alive or are to come, as verifiers read it.
fn key_set(state: &SigningState) -> Result<Value, Malformed> {
    let published = state.keys.iter().filter(|key| key.state != KeyState::Removed);
    let keys: Vec<Map<String, Value>> = published
        .clone()
        .map(|key| {
            let mut jwk = key.jwk.clone();
            jwk.insert("portcullis_state".to_owned(), json!(key.state));
            jwk
        })
        .collect();
    let body = json!({ "keys": keys });
    let read = OwnKeys::parse(&body)?;
    // What verifiers would not take, or would know by another name, is not published.
    let as_named = |key: &SigningKey| {
        read.0.find(&key.kid).is_some_and(|read| read.thumbprint == key.kid && read.algorithm.as_str() == key.alg)
    };
    if published.clone().all(as_named) { Ok(body) } else { Err(Malformed("signing state")) }
}

fn refused(operation: &'static str, malformed: Malformed) -> Fault {
    Fault::new(FaultKind::Invalid, "trust", operation).caused_by(malformed)
}

fn contested() -> Fault {
    Fault::new(FaultKind::Conflict, "trust", "publish")
}

impl<D, O, K, C> Handler for Publisher<D, O, K, C>
where
    D: Database,
    O: ObjectReader + ObjectWriter,
    K: SigningKeys,
    C: Clock,
{
    async fn handle(&self, _event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        let report = self.publish().await;
        for fault in &report.faults {
            Line::new("trust", "publish").request(&invocation.request_id).fault(fault).emit();
        }
        let line = Line::new("trust", "publish").request(&invocation.request_id);
        line.text("published", &report.published.join(" ")).number("faults", report.faults.len() as i64).emit();
        if report.faults.is_empty() {
            Ok(json!({ "published": report.published, "unchanged": report.unchanged, "genesis": report.genesis }))
        } else {
            Err(Failure::UNAVAILABLE)
        }
    }
}
