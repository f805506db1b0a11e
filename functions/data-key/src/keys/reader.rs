//! Keys to open records with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, stream};
use serde::Deserialize;
use shared::clock::{Clock, Timestamp};
use shared::digest::sha256;
use shared::name::Tenant;
use shared::pc1::DataKey;
use shared::port::{Database, Fault, KeyWrapping, Parameter};
use tokio::sync::Mutex as Turn;
use uuid::Uuid;

use super::{Kms, MAX_CACHED, PARALLEL, broken, bytes, context, locked};
use crate::cache::Cache;
use crate::refusal::Refusal;
use crate::scope::Scope;

const KEYS: &str = "api.data_keys_for_decrypt";

/// A key and what it may open.
#[derive(Clone)]
pub(crate) struct Opening {
    pub(crate) scope: Scope,
    pub(crate) key: Arc<DataKey>,
}

/// The keys that this environment decrypts with.
pub(crate) struct ReaderKeys<W, D, C> {
    kms: Arc<Kms<W>>,
    database: D,
    clock: C,
    held: Mutex<Cache<(Tenant, Uuid), Held>>,
    // Whoever finds nothing warm waits here for whoever is fetching already.
    cold: Turn<()>,
}

struct Held {
    opening: Opening,
    wrapped: [u8; 32],
}

#[derive(Deserialize)]
struct Rows {
    keys: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: Uuid,
    scope: String,
    state: String,
    kms_key_arn: String,
    wrapped: Option<String>,
}

type Taken = BTreeMap<Uuid, Result<Opening, Refusal>>;

impl<W: KeyWrapping, D: Database, C: Clock> ReaderKeys<W, D, C> {
    pub(crate) fn new(kms: Arc<Kms<W>>, database: D, clock: C) -> Self {
        Self { kms, database, clock, held: Mutex::new(Cache::new(MAX_CACHED)), cold: Turn::new(()) }
    }

    /// The keys that `wanted` names, each with the columns whose fields it is to open. `Err` means that the database gave no
    /// answer.
    pub(crate) async fn take(
        &self,
        tenant: &Tenant,
        wanted: &BTreeMap<Uuid, BTreeSet<Scope>>,
        deadline: Timestamp,
    ) -> Result<Taken, Fault> {
        let mut taken = self.take_warm(tenant, wanted.keys());
        if taken.len() == wanted.len() {
            return Ok(taken);
        }
        let _turn = self.cold.lock().await;
        let missing: Vec<Uuid> = wanted.keys().filter(|id| !taken.contains_key(id)).copied().collect();
        taken.extend(self.take_warm(tenant, missing.iter()));
        let cold: Vec<Uuid> = missing.into_iter().filter(|id| !taken.contains_key(id)).collect();
        if cold.is_empty() {
            return Ok(taken);
        }
        let parameters = vec![Parameter::Text(tenant.as_str().to_owned()), Parameter::Uuids(cold.clone())];
        let answer = self.database.call(KEYS, parameters).await?;
        let rows: Rows = serde_json::from_value(answer).map_err(|_| broken(KEYS))?;
        let nothing = BTreeSet::new();
        let fetches: Vec<_> = rows
            .keys
            .into_iter()
            .filter(|row| cold.contains(&row.id))
            .map(|row| {
                let columns = wanted.get(&row.id).unwrap_or(&nothing);
                self.fetch(tenant, row, columns, deadline)
            })
            .collect();
        let fetched: Vec<_> = stream::iter(fetches).buffer_unordered(PARALLEL).collect().await;
        for (id, outcome) in fetched {
            taken.insert(id, outcome?);
        }
        for id in cold {
            taken.entry(id).or_insert(Err(Refusal::UnknownKey));
        }
        Ok(taken)
    }

    /// Lets go of every key whose time has come.
    pub(crate) fn sweep(&self, now: Timestamp) {
        self.kms.sweep(now);
        locked(&self.held).sweep(now);
    }

    /// What memory alone can serve. Subjects are never served so: their row is read every time.
    fn take_warm<'a>(&self, tenant: &Tenant, wanted: impl Iterator<Item = &'a Uuid>) -> Taken {
        let now = self.clock.now();
        let mut held = locked(&self.held);
        held.sweep(now);
        wanted
            .filter_map(|id| {
                let held = held.find(&(tenant.clone(), *id), now)?;
                (!held.opening.scope.is_subject()).then(|| (*id, Ok(held.opening.clone())))
            })
            .collect()
    }

    async fn fetch(
        &self,
        tenant: &Tenant,
        row: Row,
        columns: &BTreeSet<Scope>,
        deadline: Timestamp,
    ) -> (Uuid, Result<Result<Opening, Refusal>, Fault>) {
        let id = row.id;
        (id, self.judge(tenant, row, columns, deadline).await)
    }

    async fn judge(
        &self,
        tenant: &Tenant,
        row: Row,
        columns: &BTreeSet<Scope>,
        deadline: Timestamp,
    ) -> Result<Result<Opening, Refusal>, Fault> {
        let wrapped = match (row.state.as_str(), row.wrapped) {
            ("active" | "decrypt_only", Some(wrapped)) => bytes(KEYS, &wrapped)?,
            ("shredded", _) => {
                locked(&self.held).forget(&(tenant.clone(), row.id));
                self.kms.forget(&context(tenant, "field", row.id));
                return Ok(Err(Refusal::KeyShredded));
            }
            _ => return Err(broken(KEYS)),
        };
        let scope = Scope::stored(&row.scope);
        // A key that may open nothing of what was asked is not unwrapped for it.
        if !columns.iter().any(|column| scope.covers(column)) {
            return Ok(Err(Refusal::OtherScope));
        }
        let (now, digest) = (self.clock.now(), sha256(&wrapped));
        let known = {
            let mut held = locked(&self.held);
            let same = |held: &&mut Held| held.wrapped == digest && held.opening.scope == scope;
            held.find(&(tenant.clone(), row.id), now).filter(same).map(|held| held.opening.clone())
        };
        if let Some(opening) = known.filter(|_| row.kms_key_arn == self.kms.key_arn) {
            return Ok(Ok(opening));
        }
        let context = context(tenant, "field", row.id);
        Ok(self.kms.unwrap(&context, &row.kms_key_arn, &wrapped, now, deadline).await.map(|kept| {
            let opening = Opening { scope, key: kept.key };
            let held = Held { opening: opening.clone(), wrapped: digest };
            locked(&self.held).hold((tenant.clone(), row.id), held, now, kept.until);
            opening
        }))
    }
}
