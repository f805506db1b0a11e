//! Publishes the trust objects from Postgres and leads the signing keys through their life.
//!
//! Started by the schedule or by a nudge; what the event says does not matter, because everything published is read anew. The
//! five parts stand alone: a signing state that cannot be read must not keep a revocation from being published.
//!
//! A body is always gathered *after* the object it will replace was read, and written under that object's entity tag. So whoever
//! overwrites a publication has seen at least what it had seen; two instances at once cannot bring an older body back.
//!
//! What happens to a signing key, and when, is [`rotation`]'s decision; `signing` carries it out.

pub mod config;
mod publish;
pub mod rotation;
mod signing;

use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::issuer::{Profile, Profiles};
use shared::jwks::Algorithm;
use shared::name::Malformed;
use shared::policy::{Bundle, Release, Unfit};
use shared::port::{Database, Fault, FaultKind, ObjectReader, ObjectWriter, Parameter, SigningKeys};
use shared::trust::{Posture, Revocations, TrustObject};

use self::publish::{Held, Outcome, Shelf};
use self::rotation::{Move, Policy};
pub use shared::jwk::PublicJwk;

/// The key of the issuer profiles.
pub const PROFILES: &str = Profiles::KEY;
/// The key of the policies.
pub const POLICIES: &str = "trust/policies.json";
/// Verifiers keep them for an hour without a word from us.
const POLICIES_LIFE: i64 = 3_600_000;
const PROFILES_LIFE: i64 = Profiles::LAST_GOOD;
const POSTURE_LIFE: i64 = Posture::LAST_GOOD;
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
    /// How signing keys follow each other.
    pub policy: Policy,
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
    /// What happened to signing keys, in order.
    pub moves: Vec<Move>,
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
        let (revocations, keys, profiles, policies, posture) =
            tokio::join!(self.revocations(), self.signing(), self.profiles(), self.policies(), self.posture());
        let mut report = Report::default();
        for part in [revocations, keys, profiles, policies, posture] {
            report.published.extend(part.published);
            report.unchanged.extend(part.unchanged);
            report.genesis.extend(part.genesis);
            report.moves.extend(part.moves);
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

    async fn policies(&self) -> Report {
        let mut report = Report::default();
        for _ in 0..ATTEMPTS {
            let outcome = async {
                let held = self.shelf().read(POLICIES).await?;
                let body = self.bundles().await?;
                self.put(&mut report, POLICIES, &held, body, POLICIES_LIFE, self.clock.now()).await
            };
            match outcome.await {
                Ok(Outcome::Contested) => {}
                Ok(_) => return report,
                Err(fault) => return report.failed(fault),
            }
        }
        report.failed(contested())
    }

    /// The bundle that decides and the one that may follow. Until an operator promotes one, the shipped one decides. A row that is no
    /// bundle is a fault, and what was published stays; a candidate that is none is left out.
    async fn bundles(&self) -> Result<Value, Fault> {
        let unfit =
            |unfit: Unfit| Fault::new(FaultKind::Invalid, "trust", "trust_policies").caused_by(unfit.why.as_str());
        let rows = self.database.call("api.trust_policies", vec![]).await?;
        let release = |name: &str| rows.get(name).filter(|row| !row.is_null()).map(Release::parse).transpose();
        let active = match release("active").map_err(unfit)? {
            Some(active) => active,
            None => {
                let bundle = Bundle::shipped().map_err(unfit)?;
                Release { version: 0, hash: bundle.hash(), bundle }
            }
        };
        let candidate = release("candidate").unwrap_or_else(|unfit| {
            let line = Line::new("trust", "candidate_unfit").text("level", "ERROR");
            line.text("why", unfit.why.as_str()).emit();
            None
        });
        Ok(json!({ "active": active.to_value(), "candidate": candidate.map(|candidate| candidate.to_value()) }))
    }

    async fn posture(&self) -> Report {
        let mut report = Report::default();
        for _ in 0..ATTEMPTS {
            let outcome = async {
                let held = self.shelf().read(Posture::KEY).await?;
                let body = self.database.call("api.trust_devices", vec![]).await?;
                Posture::parse(&body).map_err(|malformed| refused("trust_devices", malformed))?;
                self.put(&mut report, Posture::KEY, &held, body, POSTURE_LIFE, self.clock.now()).await
            };
            match outcome.await {
                Ok(Outcome::Contested) => {}
                Ok(_) => return report,
                Err(fault) => return report.failed(fault),
            }
        }
        report.failed(contested())
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
            Outcome::Published if !report.published.contains(&key) => report.published.push(key),
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
            let moves = report.moves.iter().map(|one| json!({ "kid": one.kid, "what": one.what.as_str() }));
            let moves: Vec<Value> = moves.collect();
            Ok(json!({ "published": report.published, "unchanged": report.unchanged, "genesis": report.genesis,
                "moves": moves }))
        } else {
            Err(Failure::UNAVAILABLE)
        }
    }
}
