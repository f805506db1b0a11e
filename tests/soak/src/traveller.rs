//! One of those who ask: its dice, its connections, what it knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use local::journey::claims;
use serde_json::Value;

use crate::connection::{Got, Line};
use crate::dice::Dice;
use crate::ledger::{Ledger, Token, Wish};
use crate::oracle::{Item, Judged, Weather, judge, judge_items, judge_signed};
use crate::world::World;

/// The tenants and the client of each that may do everything.
pub const TENANTS: [(&str, &str); 2] = [("acme", "acme-backend"), ("globex", "globex-backend")];
/// A file that nobody has.
pub const NOWHERE: &str = "/files/0198e1a0-0000-7000-8000-000000000000";
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What must not have happened.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The phase.
    pub phase: String,
    /// Who asked.
    pub worker: usize,
    /// Which of its operations.
    pub operation: u64,
    /// What it was about.
    pub what: String,
    /// What came of it.
    pub got: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, worker, operation, what, got } = self;
        write!(f, "{phase}, worker {worker}, operation {operation}: {what}: {got}")
    }
}

/// A lie that is planted in a run, to see that the oracle finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A revocation is taken for acknowledged that nobody made.
    Unrevoked,
    /// A file's row is taken out of the database.
    LostFile,
    /// The key of a record is taken out of the database.
    LostKey,
    /// A token is written into a function's log.
    Leak,
}

/// How often each kind of question was answered how.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Operations by kind.
    pub deeds: BTreeMap<&'static str, u64>,
    /// Requests.
    pub asked: u64,
    /// Right answers.
    pub right: u64,
    /// Faults that may be, by outcome.
    pub faults: BTreeMap<String, u64>,
    /// Fields that were encrypted, and opened again.
    pub fields: [u64; 2],
    /// Revoked tokens that were admitted in a calm after the seconds in which every copy is read again, by a process whose re-read was slow.
    pub late: u64,
    /// Faults in calms, on a busy machine.
    pub calm: u64,
}

/// Where in a run somebody is.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// `storm 3` and the like.
    pub name: String,
    /// Its weather.
    pub weather: Weather,
}

/// One of those who ask.
pub struct Traveller {
    pub(crate) world: Arc<World>,
    pub(crate) line: Line,
    pub(crate) dice: Dice,
    /// Who this is.
    pub number: usize,
    /// Operations so far.
    pub operation: u64,
    /// What it knows.
    pub ledger: Ledger,
    /// What it saw.
    pub tally: Tally,
    pub(crate) phase: Phase,
    pub(crate) plant: Option<Plant>,
    stop: Arc<AtomicBool>,
    seed: u64,
}

impl Traveller {
    /// One that knows nothing yet.
    ///
    /// # Errors
    /// When the stack's authority is unusable.
    pub fn new(world: &Arc<World>, seed: u64, number: usize, stop: &Arc<AtomicBool>) -> std::io::Result<Self> {
        Ok(Self {
            world: Arc::clone(world),
            line: Line::new(world.stack.ca.client_config()?),
            dice: Dice::new(seed, format!("worker {number}")),
            number,
            operation: 0,
            ledger: Ledger::default(),
            tally: Tally::default(),
            phase: Phase::default(),
            plant: None,
            stop: Arc::clone(stop),
            seed,
        })
    }

    /// The same with a lie.
    #[must_use]
    pub fn planted(self, plant: Option<Plant>) -> Self {
        Self { plant, ..self }
    }

    /// Does so many operations in this weather, or fewer where another one has found a violation.
    ///
    /// # Errors
    /// The first violation.
    pub async fn travel(&mut self, phase: &Phase, operations: usize) -> Result<(), Violation> {
        self.phase = phase.clone();
        for _ in 0..operations {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.operation += 1;
            // Each operation has dice of its own: what the one before met does not change it.
            self.dice = Dice::new(self.seed, format!("worker {} operation {}", self.number, self.operation));
            let done = self.deed().await;
            if done.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            done?;
        }
        Ok(())
    }

    pub(crate) fn violation(&self, what: &str, got: impl Into<String>) -> Violation {
        let (phase, what) = (self.phase.name.clone(), what.to_owned());
        Violation { phase, worker: self.number, operation: self.operation, what, got: got.into() }
    }

    /// Counts an answer that was judged.
    fn judged<T>(
        &mut self,
        what: &str,
        got: &Got,
        judged: Result<(Judged, T), String>,
    ) -> Result<(Judged, T), Violation> {
        self.tally.asked += 1;
        match &judged {
            Ok((Judged::Right, _)) => self.tally.right += 1,
            Ok((Judged::Fault, _)) => {
                self.tally.calm += u64::from(!self.phase.weather.storms());
                let outcome = got.outcome();
                // What a socket says of its end is not of interest, and differs.
                let outcome = outcome.split(':').next().unwrap_or_default().to_owned();
                *self.tally.faults.entry(outcome).or_default() += 1;
            }
            Err(_) => {}
        }
        judged.map_err(|why| self.violation(what, why))
    }

    /// Sends a request to the gate and holds the answer to these outcomes.
    pub(crate) async fn ask(
        &mut self,
        what: &str,
        request: (&str, &str),
        token: Option<&str>,
        body: Option<&Value>,
        right: &[&str],
    ) -> Result<(Judged, Got), Violation> {
        let got = self.send(request, token, body).await;
        self.judge(what, got, right)
    }

    async fn send(&mut self, request: (&str, &str), token: Option<&str>, body: Option<&Value>) -> Got {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("accept", "*/*")];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers.extend(body.map(|_| ("content-type", "application/json")));
        let body = body.map(Value::to_string).unwrap_or_default();
        self.with(request, &headers, body.into()).await
    }

    /// Sends a request to the gate with these headers.
    pub(crate) async fn with(&mut self, (method, path): (&str, &str), headers: &[(&str, &str)], body: Bytes) -> Got {
        let url = format!("{}{path}", self.world.stack.places.gateway);
        self.line.ask(method, &url, headers, body).await
    }

    /// Holds an answer of the gate to these outcomes.
    pub(crate) fn judge(&mut self, what: &str, got: Got, right: &[&str]) -> Result<(Judged, Got), Violation> {
        let judged = judge(right, &got, &self.phase.weather).map(|judged| (judged, ()));
        let (judged, ()) = self.judged(what, &got, judged)?;
        Ok((judged, got))
    }

    /// Sends a form to the gate.
    pub(crate) async fn form(
        &mut self,
        what: &str,
        path: &str,
        fields: &[(&str, &str)],
        right: &[&str],
    ) -> Result<(Judged, Got), Violation> {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let got = self.with(("POST", path), &[("content-type", FORM)], form.into()).await;
        self.judge(what, got, right)
    }

    /// Sends a request to the bucket, as a signed URL says.
    pub(crate) async fn signed(
        &mut self,
        what: &str,
        (method, url): (&str, &str),
        headers: &[(&str, &str)],
        body: &[u8],
        right: &[&str],
    ) -> Result<(Judged, Got), Violation> {
        let got = self.line.ask(method, url, headers, Bytes::copy_from_slice(body)).await;
        let judged = judge_signed(right, &got, &self.phase.weather).map(|judged| (judged, ()));
        let (judged, ()) = self.judged(what, &got, judged)?;
        Ok((judged, got))
    }

    /// Sends a batch of fields; `None` is a fault of all of it.
    pub(crate) async fn batch(
        &mut self,
        what: &str,
        path: &str,
        token: &str,
        items: Vec<Value>,
        wanted: &[Item],
    ) -> Result<Option<Vec<Option<String>>>, Violation> {
        let body = serde_json::json!({"items": items});
        let got = self.send(("POST", path), Some(token), Some(&body)).await;
        let items = judge_items(wanted, &got, &self.phase.weather);
        let faulty = |items: &Option<Vec<Option<String>>>| {
            if items.is_some() { Judged::Right } else { Judged::Fault }
        };
        let (_, items) = self.judged(what, &got, items.map(|items| (faulty(&items), items)))?;
        Ok(items)
    }

    /// Asks for a token; `None` is a fault.
    pub(crate) async fn issue(
        &mut self,
        client: &'static str,
        tenant: &'static str,
    ) -> Result<Option<Token>, Violation> {
        let assertion =
            self.world.assertion(client).map_err(|error| self.violation("an assertion", error.to_string()))?;
        let fields = asking(&assertion);
        let (judged, got) =
            self.form("a token for an assertion that holds", "/oauth2/token", &fields, &["200"]).await?;
        let body = got.answer().map(local::journey::Answer::json).unwrap_or_default();
        let value = body["access_token"].as_str().unwrap_or_default().to_owned();
        if judged == Judged::Fault {
            return Ok(None);
        }
        let said = claims(&value);
        if said["tenant"] != tenant || said["client_id"] != client {
            return Err(self.violation("a token for an assertion that holds", format!("one of {said}")));
        }
        let expires = said["exp"].as_u64().unwrap_or_default();
        Ok(Some(Token { value, client, tenant, expires, revoked: Wish::No, refused: false }))
    }

    /// Says something about a token, as its client.
    pub(crate) async fn about(
        &mut self,
        path: &str,
        client: &str,
        token: &str,
        right: &[&str],
    ) -> Result<(Judged, Got), Violation> {
        let assertion =
            self.world.assertion(client).map_err(|error| self.violation("an assertion", error.to_string()))?;
        let fields =
            [("token", token), ("client_assertion_type", JWT_BEARER), ("client_assertion", assertion.as_str())];
        self.form(&format!("{path} of its own token"), path, &fields, right).await
    }

    /// A token of this tenant that holds for a while: one that is known, or a new one. `None` where none can be had now.
    pub(crate) async fn token(&mut self, tenant: &'static str) -> Result<Option<Token>, Violation> {
        let client = TENANTS.iter().find(|(name, _)| *name == tenant).map_or("", |(_, client)| *client);
        let soon = self.world.clock.seconds() + 45;
        let held = |one: &&Token| one.client == client && one.revoked == Wish::No && one.expires > soon;
        let known: Vec<&Token> = self.ledger.tokens.iter().filter(held).collect();
        if known.len() > 2 {
            return Ok(self.dice.pick(&known).map(|one| (*one).clone()));
        }
        for _ in 0..3 {
            if let Some(token) = self.issue(client, tenant).await? {
                self.ledger.tokens.push(token.clone());
                return Ok(Some(token));
            }
        }
        Ok(None)
    }
}

/// What a client asks for a token with.
pub(crate) fn asking(assertion: &str) -> [(&'static str, &str); 3] {
    [("grant_type", "client_credentials"), ("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)]
}

/// How long ago; nothing for what never was.
pub(crate) fn since(wish: Wish, now: Instant) -> Option<std::time::Duration> {
    match wish {
        Wish::Done(at) => Some(now.saturating_duration_since(at)),
        _ => None,
    }
}
