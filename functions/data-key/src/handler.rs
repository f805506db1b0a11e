//! From an event to an answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation, by_text, malformed, text};
use shared::clock::{Clock, Timestamp};
use shared::entropy::Entropy;
use shared::gate::{Caller, Gate};
use shared::http::{Request, Response};
use shared::port::{Database, KeyWrapping, MessageKeys, ObjectReader};
use shared::problem::{Code, Problem};
use uuid::Uuid;

use crate::batch::{self, Answer, Batch, Direct, Done, Item, MAX_BODY};
use crate::config::{Config, Deployment, DeviceColumns, ImportKeys, Operation, Operations, Purposes};
use crate::keys::{FOR_MOVERS, FOR_WRITERS, IndexKeys, Kms, Mover, ReaderKeys, WriterKeys};
use crate::refusal::Refusal;
use crate::{decrypt, encrypt, export, import, index, inspect, rewrap};

/// The world that a deployment works in.
pub struct World<W, D, R, C, E> {
    /// Wraps data keys.
    pub wrapping: W,
    /// Holds wrapped keys.
    pub database: D,
    /// Reads the trust objects.
    pub trust: R,
    /// The time.
    pub clock: C,
    /// Randomness.
    pub entropy: E,
}

/// One deployment: the gate, the keys of its operations, and nothing of the other's.
pub struct DataKey<W, D, R, C, E> {
    operations: Operations,
    import_keys: ImportKeys,
    purposes: Purposes,
    honey_keys: BTreeSet<Uuid>,
    device_columns: DeviceColumns,
    gate: Gate<R, C>,
    clock: C,
    entropy: E,
    database: Arc<D>,
    keys: Keys<W, Arc<D>, C, E>,
}

enum Keys<W, D, C, E> {
    Writer(WriterKeys<W, D, C, E>, IndexKeys<W, D, C, E>),
    Reader(ReaderKeys<W, D, C>),
    Mover(Mover<W, D, C, E>),
}

impl<W: KeyWrapping, D: Database, C: Clock, E: Entropy> Keys<W, D, C, E> {
    fn sweep(&self, now: Timestamp) {
        match self {
            Self::Writer(writer, index) => {
                writer.sweep(now);
                index.sweep(now);
            }
            Self::Reader(reader) => reader.sweep(now),
            Self::Mover(mover) => mover.sweep(now),
        }
    }
}

impl<W, D, R, C, E> DataKey<W, D, R, C, E>
where
    W: KeyWrapping + MessageKeys,
    D: Database,
    R: ObjectReader,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    /// A deployment as configured.
    pub fn new(config: Config, world: World<W, D, R, C, E>) -> Self {
        let World { wrapping, database, trust, clock, entropy } = world;
        let (kms, database) = (Arc::new(Kms::new(wrapping, config.data_key_arn.clone())), Arc::new(database));
        let writer =
            |source| WriterKeys::new(source, Arc::clone(&kms), Arc::clone(&database), clock.clone(), entropy.clone());
        let reader = || ReaderKeys::new(Arc::clone(&kms), Arc::clone(&database), clock.clone());
        let deployment = config.operations.deployment();
        let keys = match deployment {
            Deployment::Encrypt => {
                let index = IndexKeys::new(Arc::clone(&kms), Arc::clone(&database), clock.clone(), entropy.clone());
                Keys::Writer(writer(FOR_WRITERS), index)
            }
            Deployment::Decrypt => Keys::Reader(reader()),
            Deployment::Maintain => {
                let (kms, clock) = (Arc::clone(&kms), clock.clone());
                Keys::Mover(Mover { kms, clock, reader: reader(), writer: writer(FOR_MOVERS) })
            }
        };
        let gate = Gate::new(deployment.name(), config.accepts.clone(), trust, clock.clone());
        let Config { operations, import_keys, purposes, honey_keys, device_columns, .. } = config;
        Self { operations, import_keys, purposes, honey_keys, device_columns, gate, clock, entropy, database, keys }
    }

    /// A request that came through API Gateway.
    async fn request(&self, request: &Request, invocation: &Invocation) -> Result<Response, Problem> {
        let asked = self.operations.find(|operation| operation.resource() == request.resource);
        let operation = asked.filter(|_| request.method == "POST").ok_or(Problem::new(Code::NotFound))?;
        let caller = match operation {
            Operation::Encrypt | Operation::Decrypt => self.gate.admit_narrowed(request, &[]).await?,
            _ => self.gate.admit(request, &[]).await?,
        };
        let Batch { items, purpose_of_use } = request.json(MAX_BODY)?;
        let asked = Asked { operation, items, purpose: purpose_of_use, request_id: &request.request_id };
        let answer = self.batch(&caller, asked, invocation.deadline).await?;
        Ok(Response::json(answer.status(), &answer))
    }

    /// A direct invocation. Lambda says nothing of the invoker, so the payload carries the caller's token.
    async fn direct(&self, event: Value, invocation: &Invocation) -> Result<Value, Problem> {
        let named = event.get("operation").and_then(Value::as_str);
        let asked = self.operations.find(|operation| named == Some(operation.as_str()));
        let operation = asked.ok_or(Problem::new(Code::NotFound))?;
        let direct: Direct = serde_json::from_value(event).map_err(|_| Problem::new(Code::MalformedRequest))?;
        let caller = self.gate.admit_direct(direct.access_token.0.expose(), &invocation.request_id).await?;
        let asked = Asked {
            operation,
            items: direct.items,
            purpose: direct.purpose_of_use,
            request_id: &invocation.request_id,
        };
        let answer = self.batch(&caller, asked, invocation.deadline).await?;
        serde_json::to_value(&answer).map_err(|_| Code::Internal.into())
    }

    /// Tells, to the log and to nobody else, that somebody opened with a key under which nobody has anything to open.
    fn look_for_honey(&self, done: &Done, caller: &Caller, request_id: &str) {
        let found: Vec<String> = done.keys.intersection(&self.honey_keys).map(Uuid::to_string).collect();
        if !found.is_empty() {
            Line::new(self.operations.deployment().name(), "honey")
                .request(request_id)
                .who(caller.tenant.as_str(), &caller.subject, &caller.jti)
                .text("level", "ERROR")
                .list("keys", found)
                .decision("allow", "honey_key")
                .emit();
        }
    }

    async fn batch(&self, caller: &Caller, asked: Asked<'_>, deadline: Timestamp) -> Result<Answer, Problem> {
        let Asked { operation, mut items, purpose, request_id } = asked;
        batch::check(&items, operation)?;
        let purposes = if operation.answers_plaintext() { &self.purposes } else { &Purposes::default() };
        if !purposes.admit(purpose.as_deref()) {
            return Err(Code::MalformedRequest.into());
        }
        for item in &mut items {
            item.bar_unless(operation, |table, column| {
                self.device_columns.admit(caller.device.as_ref(), table, column)
            });
        }
        let started = self.clock.now();
        let line = Line::new(self.operations.deployment().name(), operation.action())
            .request(request_id)
            .who(caller.tenant.as_str(), &caller.subject, &caller.jti)
            .list("columns", columns(&items, caller, operation))
            .number("items", count(items.len()));
        let line = purpose.iter().fold(line, |line, purpose| line.text("purpose", purpose));
        let done = match (operation, &self.keys) {
            (Operation::Encrypt, Keys::Writer(keys, _)) => {
                encrypt::batch(keys, &self.entropy, caller, items, deadline).await
            }
            (Operation::Index, Keys::Writer(_, keys)) => index::batch(keys, caller, items, deadline).await,
            (Operation::Decrypt, Keys::Reader(keys)) => decrypt::batch(keys, caller, items, deadline).await,
            (Operation::Rewrap, Keys::Mover(keys)) => rewrap::batch(keys, &self.entropy, caller, items, deadline).await,
            (Operation::Export, Keys::Mover(keys)) => {
                let times = (started, deadline);
                export::batch(&keys.reader, &self.database, &self.entropy, caller, items, times).await
            }
            (Operation::Import, Keys::Mover(keys)) => {
                import::batch(keys, &self.import_keys, &self.entropy, caller, items, deadline).await
            }
            (Operation::Inspect, _) => inspect::batch(&self.database, caller, items, started).await,
            _ => return Err(Code::NotFound.into()),
        };
        if let Ok(done) = &done {
            self.look_for_honey(done, caller, request_id);
        }
        let Done { outcomes, keys } = match done {
            Ok(done) => done,
            Err(fault) => {
                line.decision("fault", "database").fault(&fault).emit();
                return Err(fault.into());
            }
        };
        let answer = Answer { outcomes };
        let failed = answer.outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
        let line = line
            .number("failed", count(failed))
            .number("millis", self.clock.now().millis_since(started))
            .number("data_keys", count(keys.len()))
            .list("keys", keys.iter().map(Uuid::to_string));
        let refusals = answer.refusals();
        if failed < answer.outcomes.len() {
            line.decision("allow", if failed == 0 { "ok" } else { &refusals }).emit();
        } else if answer.outcomes.iter().any(|outcome| matches!(outcome.result, Err(Refusal::KmsUnavailable))) {
            // Nothing was done for anybody, and the same batch may succeed in a moment.
            line.decision("fault", &refusals).emit();
            return Err(Code::ServiceUnavailable.into());
        } else {
            line.decision("deny", &refusals).emit();
        }
        Ok(answer)
    }
}

/// What a caller asked for.
struct Asked<'a> {
    operation: Operation,
    items: Vec<Item>,
    purpose: Option<String>,
    request_id: &'a str,
}

impl<W, D, R, C, E> Handler for DataKey<W, D, R, C, E>
where
    W: KeyWrapping + MessageKeys,
    D: Database,
    R: ObjectReader,
    C: Clock + Clone,
    E: Entropy + Clone,
{
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        by_text(self, event, invocation).await
    }

    async fn handle_text(&self, event: &RawValue, invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        // Whatever is asked, and whether it is granted: no key stays past its time.
        self.keys.sweep(self.clock.now());
        let Ok(request) = Request::parse(event.get()) else {
            return match directly_asked(event.get()) {
                Some(event) => {
                    let answer = self.direct(event, invocation).await;
                    text(&answer.unwrap_or_else(|problem| problem.body(&invocation.request_id)))
                }
                None => text(&malformed(self.operations.deployment().name(), invocation).proxied()),
            };
        };
        let answer = self.request(&request, invocation).await;
        text(&answer.unwrap_or_else(|problem| Response::problem(problem, &request.request_id)).proxied())
    }

    fn panicked(&self, invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        text(&Response::problem(Code::Internal.into(), &invocation.request_id).proxied())
    }
}

/// An event that is no request of API Gateway's, if it asks for an operation. API Gateway's events always have a request context, and
/// nobody can put an `operation` beside it from outside.
fn directly_asked(event: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(event).ok()?;
    (event.get("requestContext").is_none() && event.get("operation").is_some()).then_some(event)
}

/// The columns that the caller may touch. What it may not is counted among the refusals: it would be text of its choice.
fn columns(items: &[Item], caller: &Caller, operation: Operation) -> BTreeSet<String> {
    let may = |table: &str, column: &str| caller.scopes.allows_column(operation.as_str(), table, column);
    items.iter().flat_map(|item| item.column_names(may)).collect()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
