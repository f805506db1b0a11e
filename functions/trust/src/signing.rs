//! Carries out what [`rotation`] decides: the signing state, the published key set, the keys themselves.
//!
//! Each step is one conditional write, and what the next one needs is in the state before it begins, so a run may end anywhere and
//! another may be at work at the same time. An intention to make keys is written first: only the writer of it makes them, and
//! whoever finds one that came to nothing waits, longer each time, before trying again. So a fault that comes back every minute
//! does not leave a key behind every minute.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use shared::audit::Line;
use shared::clock::{Clock, Timestamp};
use shared::name::Malformed;
use shared::port::{Database, Fault, ObjectReader, ObjectWriter, Parameter, SigningKeys};
use shared::trust::{KeyState, Making, OwnKeys, SigningKey, SigningState, TrustObject};

use crate::publish::{Held, Outcome};
use crate::rotation::{self, Orders, Plan, Seen};
use crate::{ATTEMPTS, PublicJwk, Publisher, Report, contested, refused};

/// Keys that this run is to make, because its intention was written.
struct Task {
    making: Making,
    count: usize,
    /// Nobody has published a key yet.
    first: bool,
}

enum Turn {
    Contested,
    Done(SigningState, Option<Task>),
}

impl<D, O, K, C> Publisher<D, O, K, C>
where
    D: Database,
    O: ObjectReader + ObjectWriter,
    K: SigningKeys,
    C: Clock,
{
    pub(crate) async fn signing(&self) -> Report {
        let mut report = Report::default();
        let outcome = async {
            let Some(task) = self.advance(&mut report).await? else { return Ok(()) };
            let (made, fault) = self.make(task.count).await;
            if !made.is_empty() {
                self.keep(&task, &made, &mut report).await?;
                // What is still missing, because not every key could be made, waits for its time.
                self.advance(&mut report).await?;
            }
            fault.map_or(Ok(()), Err)
        };
        match outcome.await {
            Ok(()) => report,
            Err(fault) => report.failed(fault),
        }
    }

    async fn advance(&self, report: &mut Report) -> Result<Option<Task>, Fault> {
        for _ in 0..ATTEMPTS {
            if let Turn::Done(state, task) = self.advance_once(report).await? {
                self.measure(&state);
                return Ok(task);
            }
        }
        Err(contested())
    }

    async fn advance_once(&self, report: &mut Report) -> Result<Turn, Fault> {
        let held_keys = self.shelf().read(OwnKeys::KEY).await?;
        let held_state = self.shelf().read(SigningState::KEY).await?;
        let unpublished = matches!(held_keys, Held::Missing);
        let malformed = |malformed| refused("signing_state", malformed);
        let (plan, unordered) = match &held_state {
            Held::Missing if unpublished => (rotation::genesis(&self.policy, self.clock.now()), None),
            // Keys were published once, so there was a state: whoever removed it must bring it back, or every token dies with
            // a second genesis.
            Held::Missing => return Err(malformed(Malformed("signing state"))),
            held => {
                let state = held.body().and_then(read_state).map_err(malformed)?;
                if state.keys.is_empty() && !unpublished {
                    return Err(malformed(Malformed("signing state")));
                }
                let published = key_ids(&held_keys);
                let orders = self.orders(&state).await;
                let seen = Seen { published: &published, orders: orders.as_ref().ok(), now: self.clock.now() };
                (rotation::plan(&state, &seen, &self.policy), orders.err())
            }
        };
        let Plan { state, moves, make } = plan;
        let body = serde_json::to_value(&state).unwrap_or_default();
        let now = self.clock.now();
        let written = self.put(report, SigningState::KEY, &held_state, body, SigningState::LAST_GOOD, now).await?;
        if written == Outcome::Contested {
            return Ok(Turn::Contested);
        }
        let moved = !moves.is_empty();
        for one in moves {
            Line::new("trust", one.what.as_str()).text("kid", &one.kid).emit();
            report.moves.push(one);
        }
        if moved && let Err(fault) = self.orders(&state).await {
            report.faults.push(fault);
        }
        if state.keys.iter().any(|key| key.state != KeyState::Removed) {
            let body = key_set(&state).map_err(malformed)?;
            let published = self.put(report, OwnKeys::KEY, &held_keys, body, OwnKeys::LAST_GOOD, now).await?;
            if published == Outcome::Contested {
                return Ok(Turn::Contested);
            }
        }
        report.faults.extend(unordered);
        let making = state.making.filter(|_| make > 0);
        let task = making.map(|making| Task { making, count: make, first: unpublished });
        Ok(Turn::Done(state, task))
    }

    /// Makes keys until one cannot be made.
    async fn make(&self, count: usize) -> (Vec<SigningKey>, Option<Fault>) {
        let mut made = Vec::new();
        for _ in 0..count {
            match self.make_one().await {
                Ok(key) => made.push(key),
                Err(fault) => return (made, Some(fault)),
            }
        }
        (made, None)
    }

    async fn make_one(&self) -> Result<SigningKey, Fault> {
        let algorithm = self.issues.algorithm;
        let created = self.keys.create(algorithm).await?;
        let jwk = PublicJwk::from_spki(&created.public_der, algorithm)
            .map_err(|malformed| refused("created_key", malformed))?;
        Ok(SigningKey {
            kid: jwk.kid,
            alg: algorithm.as_str().to_owned(),
            key: created.key,
            state: KeyState::Published,
            created_at: self.clock.now().millis(),
            published_at: None,
            activated_at: None,
            retired_at: None,
            removed_at: None,
            jwk: jwk.members,
        })
    }

    /// Records keys that were made, unless somebody has given this making up for lost.
    async fn keep(&self, task: &Task, made: &[SigningKey], report: &mut Report) -> Result<(), Fault> {
        let mut unsure = None;
        for _ in 0..ATTEMPTS {
            let outcome = async {
                let held = self.shelf().read(SigningState::KEY).await?;
                let state =
                    held.body().and_then(read_state).map_err(|malformed| refused("signing_state", malformed))?;
                if made.iter().all(|key| state.keys.iter().any(|held| held.kid == key.kid)) {
                    // An earlier attempt was written although its answer said nothing.
                    return Ok(Some(Outcome::Published));
                }
                let Some(next) = rotation::record(&state, task.making, made, task.first) else { return Ok(None) };
                let body = serde_json::to_value(&next).unwrap_or_default();
                let now = self.clock.now();
                self.put(report, SigningState::KEY, &held, body, SigningState::LAST_GOOD, now).await.map(Some)
            };
            match outcome.await {
                Ok(Some(Outcome::Contested)) => {}
                Ok(Some(_)) => {
                    let what = if task.first { "genesis" } else { "key_made" };
                    for key in made {
                        Line::new("trust", what).text("kid", &key.kid).text("key", &key.key).emit();
                    }
                    if task.first {
                        report.genesis = made.iter().map(|key| key.kid.clone()).collect();
                    }
                    return Ok(());
                }
                Ok(None) => {
                    unsure = None;
                    break;
                }
                Err(fault) if fault.is_transient() => unsure = Some(fault),
                Err(fault) => {
                    unsure = Some(fault);
                    break;
                }
            }
        }
        // They sign nothing, ever: a person may delete them.
        for key in made {
            Line::new("trust", "key_lost").text("level", "ERROR").text("kid", &key.kid).text("key", &key.key).emit();
        }
        Err(unsure.unwrap_or_else(contested))
    }

    /// Tells Postgres which keys there are, for the operators, and asks what they ordered.
    async fn orders(&self, state: &SigningState) -> Result<Orders, Fault> {
        let described = |key: &SigningKey| {
            let turns = rotation::turns(key, &self.policy);
            json!({ "kid": key.kid, "alg": key.alg, "key": key.key, "state": key.state, "created_ms": key.created_at,
                "activated_ms": key.activated_at, "retired_ms": key.retired_at, "removed_ms": key.removed_at,
                "ripe_ms": turns.map(|(ripe, _)| ripe), "urgent_ms": turns.map(|(_, urgent)| urgent) })
        };
        let keys = Parameter::Json(state.keys.iter().map(described).collect());
        let now = Parameter::Int(self.clock.now().millis());
        let answer = self.database.call("api.trust_signing", vec![now, keys]).await?;
        let kids = |name: &str| -> Option<HashSet<String>> {
            let listed = answer.get(name)?.as_array()?.iter();
            listed.map(|kid| kid.as_str().map(str::to_owned)).collect()
        };
        let orders = kids("replace").zip(kids("dropped")).map(|(replace, dropped)| Orders { replace, dropped });
        orders.ok_or_else(|| refused("trust_signing", Malformed("orders")))
    }

    /// How old the key is that signs, as metrics: one that is overdue means that rotation is stuck.
    fn measure(&self, state: &SigningState) {
        let now = self.clock.now();
        let active = state.active(self.issues.algorithm);
        if active.is_none() {
            let line = Line::new("trust", "no_active_key").text("level", "WARN");
            line.text("alg", self.issues.algorithm.as_str()).emit();
        }
        let ripe = |key: &&SigningKey| {
            rotation::turns(key, &self.policy).is_some_and(|(ripe, _)| Timestamp::from_millis(ripe) <= now)
        };
        let count = |keys: usize| i64::try_from(keys).unwrap_or(i64::MAX);
        let mut metrics = vec![
            ("SigningKeys", "Count", i64::from(active.is_some())),
            ("SigningKeysRipe", "Count", count(state.keys.iter().filter(ripe).count())),
        ];
        if let Some(since) = active.and_then(|key| key.activated_at) {
            let age = now.millis().saturating_sub(since);
            metrics.push(("SigningKeyAge", "Seconds", age / 1_000));
            metrics.push(("SigningKeyLeft", "Seconds", self.policy.period.saturating_sub(age) / 1_000));
        }
        Line::new("trust", "signing").metrics(now, &metrics).emit();
    }
}

/// A state that breaks its own rules is never repaired and never replaced: it stops here.
fn read_state(body: &Value) -> Result<SigningState, Malformed> {
    let state = SigningState::parse(body)?;
    let mut kids = HashSet::new();
    if !state.keys.iter().all(|key| kids.insert(&key.kid)) {
        return Err(Malformed("signing state"));
    }
    for algorithm in OwnKeys::ALGORITHMS {
        let active = |key: &&SigningKey| key.state == KeyState::Active && key.alg == algorithm.as_str();
        if state.keys.iter().filter(active).count() > 1 {
            return Err(Malformed("signing state"));
        }
    }
    Ok(state)
}

/// The key ids that verifiers find; none where they find no set that they would take.
fn key_ids(held: &Held) -> HashSet<String> {
    let read = held.body().and_then(OwnKeys::parse);
    read.map(|keys| keys.0.iter().map(|key| key.kid.clone()).collect()).unwrap_or_default()
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
