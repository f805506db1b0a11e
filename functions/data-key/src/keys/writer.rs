//! Keys to encrypt under: one active key for each scope and day.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::clock::{Clock, Timestamp};
use shared::digest::sha256;
use shared::entropy::{Entropy, uuid_v7};
use shared::name::Tenant;
use shared::pc1::DataKey;
use shared::port::{Database, Fault, KeyWrapping, Parameter};
use tokio::sync::Mutex as Turn;
use uuid::Uuid;

use super::{Failed, Kms, MAX_CACHED, PARALLEL, broken, bytes, context, locked};
use crate::cache::Cache;
use crate::refusal::Refusal;
use crate::scope::Scope;

/// By which functions a deployment learns of active keys, and which of their wrappings it may open.
pub(crate) struct Source {
    current: &'static str,
    insert: &'static str,
    purpose: &'static str,
}

/// The deployment that encrypts: it may open what is wrapped for writers, and no other wrapping.
pub(crate) const FOR_WRITERS: &Source =
    &Source { current: "api.current_data_keys", insert: "api.insert_data_key", purpose: "writer" };
/// The deployment that moves records: it may open fields anyway.
pub(crate) const FOR_MOVERS: &Source =
    &Source { current: "api.current_data_keys_to_move", insert: "api.insert_data_key_to_move", purpose: "field" };

/// Messages that are reserved at a time.
const BLOCK: u64 = 10_000;

/// A key with enough messages reserved for the items that asked for it.
#[derive(Clone)]
pub(crate) struct Sealing {
    pub(crate) id: Uuid,
    pub(crate) key: Arc<DataKey>,
}

/// The keys that this environment encrypts under.
pub(crate) struct WriterKeys<W, D, C, E> {
    source: &'static Source,
    kms: Arc<Kms<W>>,
    database: D,
    clock: C,
    entropy: E,
    held: Mutex<Cache<(Tenant, Scope), Held>>,
    // Whoever finds nothing warm waits here for whoever is fetching already.
    cold: Turn<()>,
}

struct Held {
    sealing: Sealing,
    /// Of the wrapping that this deployment may open.
    wrapped: [u8; 32],
    messages: u64,
    until: Timestamp,
}

/// A scope's active key as the database hands it out.
#[derive(Deserialize)]
struct Row {
    scope: String,
    id: Uuid,
    kms_key_arn: String,
    #[serde(alias = "writer_wrapped")]
    wrapped: Option<String>,
    encrypt_until: i64,
    messages: u64,
}

#[derive(Deserialize)]
struct Rows {
    keys: Vec<Row>,
}

#[derive(Deserialize)]
struct Inserted {
    outcome: String,
    key: Row,
}

type Taken = BTreeMap<Scope, Result<Sealing, Refusal>>;

impl<W: KeyWrapping, D: Database, C: Clock, E: Entropy> WriterKeys<W, D, C, E> {
    pub(crate) fn new(source: &'static Source, kms: Arc<Kms<W>>, database: D, clock: C, entropy: E) -> Self {
        Self { source, kms, database, clock, entropy, held: Mutex::new(Cache::new(MAX_CACHED)), cold: Turn::new(()) }
    }

    /// A key for each scope, with as many messages as wanted. `Err` means that the database gave no answer.
    pub(crate) async fn take(
        &self,
        tenant: &Tenant,
        wanted: &BTreeMap<Scope, u64>,
        deadline: Timestamp,
    ) -> Result<Taken, Fault> {
        let mut taken = self.take_warm(tenant, wanted);
        if taken.len() == wanted.len() {
            return Ok(taken);
        }
        let _turn = self.cold.lock().await;
        let mut cold = without(wanted, &taken);
        taken.extend(self.take_warm(tenant, &cold));
        cold = without(&cold, &taken);
        if cold.is_empty() {
            return Ok(taken);
        }
        let mut rows = self.rows(tenant, &cold, false).await?;
        let fetches: Vec<_> =
            cold.iter().map(|(scope, count)| self.fetch(tenant, scope, *count, rows.remove(scope), deadline)).collect();
        let fetched: Vec<_> = stream::iter(fetches).buffer_unordered(PARALLEL).collect().await;
        for (scope, outcome) in fetched {
            let result = match outcome {
                Ok(sealing) => Ok(sealing),
                Err(Failed::Refused(refusal)) => Err(refusal),
                Err(Failed::Fault(fault)) => return Err(fault),
            };
            taken.insert(scope, result);
        }
        Ok(taken)
    }

    /// Lets go of every key whose time has come.
    pub(crate) fn sweep(&self, now: Timestamp) {
        self.kms.sweep(now);
        locked(&self.held).sweep(now);
    }

    /// What memory alone can serve. Subjects are never served so: their row is read every time.
    fn take_warm(&self, tenant: &Tenant, wanted: &BTreeMap<Scope, u64>) -> Taken {
        let now = self.clock.now();
        let mut held = locked(&self.held);
        held.sweep(now);
        let mut taken = Taken::new();
        for (scope, count) in wanted.iter().filter(|(scope, _)| !scope.is_subject()) {
            let Some(held) = held.find(&(tenant.clone(), scope.clone()), now) else { continue };
            if let Some(left) = held.messages.checked_sub(*count) {
                held.messages = left;
                taken.insert(scope.clone(), Ok(held.sealing.clone()));
            }
        }
        taken
    }

    /// Reads the active keys of `scopes`, reserving messages where memory has too few left.
    async fn rows(
        &self,
        tenant: &Tenant,
        scopes: &BTreeMap<Scope, u64>,
        reserve: bool,
    ) -> Result<BTreeMap<Scope, Row>, Fault> {
        let now = self.clock.now();
        let wanted: Vec<Value> = {
            let mut held = locked(&self.held);
            scopes
                .iter()
                .map(|(scope, count)| {
                    let left = held.find(&(tenant.clone(), scope.clone()), now).map_or(0, |held| held.messages);
                    let messages = if reserve || left < *count { BLOCK } else { 0 };
                    json!({"scope": scope.as_str(), "messages": messages})
                })
                .collect()
        };
        let parameters = vec![
            Parameter::Text(tenant.as_str().to_owned()),
            Parameter::Json(Value::Array(wanted)),
            Parameter::Int(now.millis()),
        ];
        let answer = self.database.call(self.source.current, parameters).await?;
        let rows: Rows = serde_json::from_value(answer).map_err(|_| broken(self.source.current))?;
        Ok(rows.keys.into_iter().map(|row| (Scope::stored(&row.scope), row)).collect())
    }

    async fn fetch(
        &self,
        tenant: &Tenant,
        scope: &Scope,
        count: u64,
        row: Option<Row>,
        deadline: Timestamp,
    ) -> (Scope, Result<Sealing, Failed>) {
        let outcome = match row {
            Some(row) => self.adopt(tenant, scope, count, row, deadline).await,
            None => self.create(tenant, scope, count, deadline).await,
        };
        (scope.clone(), outcome)
    }

    /// Takes messages of the key in `row`, unwrapping it unless memory holds it.
    async fn adopt(
        &self,
        tenant: &Tenant,
        scope: &Scope,
        count: u64,
        mut row: Row,
        deadline: Timestamp,
    ) -> Result<Sealing, Failed> {
        let wrapped = bytes(self.source.current, row.wrapped.as_deref().unwrap_or_default())?;
        let (now, digest) = (self.clock.now(), sha256(&wrapped));
        let known = {
            let mut held = locked(&self.held);
            let same = |held: &&mut Held| held.sealing.id == row.id && held.wrapped == digest;
            held.find(&(tenant.clone(), scope.clone()), now)
                .filter(same)
                .map(|held| (held.sealing.clone(), held.messages, held.until))
        };
        let (sealing, left, until) = match known {
            Some(known) => known,
            None => {
                let context = context(tenant, self.source.purpose, row.id);
                let kept = self.kms.unwrap(&context, &row.kms_key_arn, &wrapped, now, deadline).await?;
                (Sealing { id: row.id, key: kept.key }, 0, kept.until)
            }
        };
        if left.saturating_add(row.messages) < count {
            // Memory had counted on another key than the one that is active by now.
            let again = self.rows(tenant, &BTreeMap::from([(scope.clone(), count)]), true).await?.remove(scope);
            row.messages = match again {
                Some(again) if again.id == row.id => again.messages,
                _ => return Err(Refusal::KmsUnavailable.into()),
            };
        }
        let messages = left.saturating_add(row.messages).saturating_sub(count);
        let held = Held { sealing: sealing.clone(), wrapped: digest, messages, until };
        self.hold(tenant, scope, held, now, row.encrypt_until);
        Ok(sealing)
    }

    /// Makes the scope's key of the day. Whoever loses the race wipes its own key and takes the winner's.
    async fn create(&self, tenant: &Tenant, scope: &Scope, count: u64, deadline: Timestamp) -> Result<Sealing, Failed> {
        let now = self.clock.now();
        self.kms.permits(tenant, scope.as_str(), now, deadline)?;
        let id = uuid_v7(now, &self.entropy);
        let refused = |fault: Fault| self.kms.refused(tenant, scope.as_str(), now, &fault);
        let generated = self.kms.wrapping.generate(&context(tenant, "field", id)).await.map_err(refused)?;
        let key = DataKey::parse(generated.plaintext.expose()).map_err(|_| Refusal::KeyRefused)?;
        self.kms.permits(tenant, scope.as_str(), self.clock.now(), deadline)?;
        let writer_wrapped =
            self.kms.wrapping.wrap(&context(tenant, "writer", id), &generated.plaintext).await.map_err(refused)?;
        drop(generated.plaintext);
        let ours = sha256(if self.source.purpose == "writer" { &writer_wrapped } else { &generated.wrapped });
        let parameters = vec![
            Parameter::Text(tenant.as_str().to_owned()),
            Parameter::Uuid(id),
            Parameter::Text(scope.as_str().to_owned()),
            Parameter::Text(self.kms.key_arn.clone()),
            Parameter::OptionalText(generated.material),
            Parameter::Bytes(generated.wrapped),
            Parameter::Bytes(writer_wrapped),
            Parameter::Int(i64::try_from(BLOCK).unwrap_or(i64::MAX)),
            Parameter::Int(now.millis()),
        ];
        let answer = self.database.call(self.source.insert, parameters).await?;
        let inserted: Inserted = serde_json::from_value(answer).map_err(|_| broken(self.source.insert))?;
        match inserted.outcome.as_str() {
            "inserted" if inserted.key.id == id => {
                let kept = self.kms.keep((context(tenant, self.source.purpose, id), ours), key, now);
                let sealing = Sealing { id, key: kept.key };
                let messages = inserted.key.messages.saturating_sub(count);
                let held = Held { sealing: sealing.clone(), wrapped: ours, messages, until: kept.until };
                self.hold(tenant, scope, held, now, inserted.key.encrypt_until);
                Ok(sealing)
            }
            "lost" => {
                drop(key);
                self.adopt(tenant, scope, count, inserted.key, deadline).await
            }
            _ => Err(broken(self.source.insert).into()),
        }
    }

    /// Holds a key for its time in memory, and never past the end of its day.
    fn hold(&self, tenant: &Tenant, scope: &Scope, held: Held, now: Timestamp, encrypt_until: i64) {
        let until = held.until.min(Timestamp::from_millis(encrypt_until));
        locked(&self.held).hold((tenant.clone(), scope.clone()), held, now, until);
    }
}

fn without(wanted: &BTreeMap<Scope, u64>, taken: &Taken) -> BTreeMap<Scope, u64> {
    wanted
        .iter()
        .filter(|(scope, _)| !taken.contains_key(*scope))
        .map(|(scope, count)| (scope.clone(), *count))
        .collect()
}
