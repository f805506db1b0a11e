//! Operators' acts on data keys, by direct invocation under IAM: closing keys, wrapping them anew, encrypting columns of other
//! databases in place, and destroying keys.
//!
//! The maintaining deployment alone does them, all but the last, which has a deployment of its own. No route leads here: what comes through API Gateway has a request context, and an event
//! with one is never looked at. Like `admin`, an act carries who the operator claims to be, kept beside the request id that CloudTrail
//! knows, and a refusal is an answer that changed nothing.

mod act;
mod column;
mod fields;
mod refusal;
mod rewrap;
mod rotate;
mod shred;

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation, text};
use shared::clock::{Clock, Timestamp};
use shared::entropy::Entropy;
use shared::port::{Column, Database, Fault, KeyRewrapping, KeyWrapping, Parameter};

use self::act::Act;
pub use self::refusal::{Code, Denied};
pub use self::shred::Shredder;
use crate::keys::{FOR_MOVERS, Kms, Mover, ReaderKeys, WriterKeys};

/// The acts' world.
pub struct MaintenanceWorld<W, D, C, E, T> {
    /// Wraps data keys, and wraps them anew.
    pub wrapping: W,
    /// The one KMS key, by ARN.
    pub key_arn: String,
    /// Holds wrapped keys, receipts and the audit.
    pub database: D,
    /// The time.
    pub clock: C,
    /// Randomness.
    pub entropy: E,
    /// The database whose columns may be encrypted in place, where there is one.
    pub target: Option<T>,
}

/// The acts.
pub struct Maintenance<W, D, C, E, T> {
    wrapping: Arc<W>,
    key_arn: String,
    database: Arc<D>,
    clock: C,
    entropy: E,
    mover: Mover<Arc<W>, Arc<D>, C, E>,
    target: Option<T>,
}

/// Who acts, and under which invocation.
pub(crate) struct Who<'a> {
    operator: String,
    request_id: &'a str,
}

impl Who<'_> {
    /// The first parameters of every SQL function that writes the audit.
    fn parameters(&self, now: i64, more: impl IntoIterator<Item = Parameter>) -> Vec<Parameter> {
        let mut parameters = vec![
            Parameter::Text(self.operator.clone()),
            Parameter::Text(self.request_id.to_owned()),
            Parameter::Int(now),
        ];
        parameters.extend(more);
        parameters
    }
}

/// What an act came to: an answer, or a refusal that changed nothing.
pub(crate) type Outcome = Result<Value, Denied>;

impl<W, D, C, E, T> Maintenance<W, D, C, E, T>
where
    W: KeyRewrapping + KeyWrapping,
    D: Database,
    C: Clock + Clone,
    E: Entropy + Clone,
    T: Column,
{
    /// The acts over their ports.
    pub fn new(world: MaintenanceWorld<W, D, C, E, T>) -> Self {
        let MaintenanceWorld { wrapping, key_arn, database, clock, entropy, target } = world;
        let (wrapping, database) = (Arc::new(wrapping), Arc::new(database));
        let kms = Arc::new(Kms::new(Arc::clone(&wrapping), key_arn.clone()));
        let reader = ReaderKeys::new(Arc::clone(&kms), Arc::clone(&database), clock.clone());
        let writer =
            WriterKeys::new(FOR_MOVERS, Arc::clone(&kms), Arc::clone(&database), clock.clone(), entropy.clone());
        let mover = Mover { kms, clock: clock.clone(), reader, writer };
        Self { wrapping, key_arn, database, clock, entropy, mover, target }
    }

    /// Does one act. After a fault the same act may be sent again.
    async fn act(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        let (act, operator) = match Act::parse(event) {
            Ok(parsed) => parsed,
            Err(denied) => {
                let line = Line::new("data-key-maintain", "refused").request(&invocation.request_id);
                line.decision("deny", denied.code.as_str()).emit();
                return Ok(denied.into_value());
            }
        };
        let line = Line::new("data-key-maintain", act.name()).request(&invocation.request_id);
        let line = line.text("operator", &operator).text("target", &act.target());
        let who = Who { operator, request_id: &invocation.request_id };
        let outcome = match &act {
            Act::Rotate(rotate) => self.rotate(rotate, &who).await,
            Act::Rewrap(rewrap) => self.rewrap(rewrap, &who, invocation.deadline).await,
            Act::Migrate(migrate) => self.migrate(migrate, &who, invocation.deadline).await,
        };
        // No act leaves a key in memory for the next one.
        self.mover.sweep(Timestamp::from_millis(i64::MAX));
        answered(line, outcome)
    }
}

/// What the operator is told, and the line in the log.
fn answered(line: Line, outcome: Result<Outcome, Fault>) -> Result<Value, Failure> {
    match outcome {
        Ok(Ok(answer)) => {
            let done = answer.get("outcome").and_then(Value::as_str).unwrap_or("done");
            line.decision("allow", done).emit();
            Ok(answer)
        }
        Ok(Err(denied)) => {
            line.decision("deny", denied.code.as_str()).emit();
            Ok(denied.into_value())
        }
        Err(fault) => {
            line.decision("fault", "unavailable").fault(&fault).emit();
            Err(Failure::UNAVAILABLE)
        }
    }
}

impl<W, D, C, E, T> Handler for Maintenance<W, D, C, E, T>
where
    W: KeyRewrapping + KeyWrapping,
    D: Database,
    C: Clock + Clone,
    E: Entropy + Clone,
    T: Column,
{
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        self.act(event, invocation).await
    }
}

/// A deployment that answers callers and, where it is configured so, operators.
pub struct Maintained<F, M> {
    /// What callers may ask for with their tokens.
    pub fields: F,
    /// What operators may ask for, where this deployment maintains keys.
    pub maintenance: Option<M>,
}

impl<F: Handler, M: Handler> Handler for Maintained<F, M> {
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        match &self.maintenance {
            Some(maintenance) if is_act(&event) => maintenance.handle(event, invocation).await,
            _ => self.fields.handle(event, invocation).await,
        }
    }

    async fn handle_text(&self, event: &RawValue, invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        if let Some(maintenance) = &self.maintenance
            && let Some(act) = serde_json::from_str(event.get()).ok().filter(is_act)
        {
            return maintenance.handle(act, invocation).await.and_then(|answer| text(&answer));
        }
        self.fields.handle_text(event, invocation).await
    }

    fn panicked(&self, invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        self.fields.panicked(invocation)
    }
}

/// What a process is by its configuration: one of the deployments that answer callers, or the one that destroys.
pub enum Program<F, S> {
    /// Answers callers, and operators where it maintains keys.
    Fields(F),
    /// Destroys data keys.
    Shredder(S),
}

impl<F: Handler, S: Handler> Handler for Program<F, S> {
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        match self {
            Self::Fields(fields) => fields.handle(event, invocation).await,
            Self::Shredder(shredder) => shredder.handle(event, invocation).await,
        }
    }

    async fn handle_text(&self, event: &RawValue, invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        match self {
            Self::Fields(fields) => fields.handle_text(event, invocation).await,
            Self::Shredder(shredder) => shredder.handle_text(event, invocation).await,
        }
    }

    fn panicked(&self, invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        match self {
            Self::Fields(fields) => fields.panicked(invocation),
            Self::Shredder(shredder) => shredder.panicked(invocation),
        }
    }
}

/// Whether an event is an operator's. API Gateway's events always have a request context, and nobody can put an `operation` beside it
/// from outside; what a caller asks for directly carries a token.
fn is_act(event: &Value) -> bool {
    let named = event.get("operation").and_then(Value::as_str);
    event.get("requestContext").is_none() && named.is_some_and(|name| act::NAMES.contains(&name))
}

/// An answer of the database that is not what its function promises.
fn broken(operation: &'static str) -> Fault {
    Fault::new(shared::port::FaultKind::Invalid, "rds", operation).caused_by("the answer is not of its documented form")
}

/// A number of the answer as an SQL function gives it.
fn number(operation: &'static str, answer: &Value, name: &str) -> Result<i64, Fault> {
    answer.get(name).and_then(Value::as_i64).ok_or_else(|| broken(operation))
}

/// The outcome that an SQL function names.
fn outcome<'a>(operation: &'static str, answer: &'a Value) -> Result<&'a str, Fault> {
    answer.get("outcome").and_then(Value::as_str).ok_or_else(|| broken(operation))
}
