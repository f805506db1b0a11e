//! The tenant's index key: one for all its columns, until somebody rotates it.

use std::sync::{Arc, Mutex};

use serde::Deserialize;
use shared::clock::{Clock, Timestamp};
use shared::entropy::{Entropy, uuid_v7};
use shared::name::Tenant;
use shared::pc1::DataKey;
use shared::port::{Database, Fault, KeyWrapping, Parameter};
use tokio::sync::Mutex as Turn;
use uuid::Uuid;

use super::{Failed, KEY_LIFE, Kms, MAX_CACHED, broken, bytes, context, locked};
use crate::cache::Cache;
use crate::refusal::Refusal;

const CURRENT: &str = "api.current_index_key";
const INSERT: &str = "api.insert_index_key";
const PURPOSE: &str = "index";

/// A key that column keys are derived from.
#[derive(Clone)]
pub(crate) struct Indexing {
    pub(crate) id: Uuid,
    pub(crate) key: Arc<DataKey>,
}

/// The index keys that this environment knows.
pub(crate) struct IndexKeys<W, D, C, E> {
    kms: Arc<Kms<W>>,
    database: D,
    clock: C,
    entropy: E,
    held: Mutex<Cache<Tenant, Indexing>>,
    // Whoever finds nothing warm waits here for whoever is fetching already.
    cold: Turn<()>,
}

#[derive(Deserialize)]
struct Row {
    id: Uuid,
    kms_key_arn: String,
    wrapped: String,
}

#[derive(Deserialize)]
struct Answer {
    outcome: String,
    key: Option<Row>,
}

impl<W: KeyWrapping, D: Database, C: Clock, E: Entropy> IndexKeys<W, D, C, E> {
    pub(crate) fn new(kms: Arc<Kms<W>>, database: D, clock: C, entropy: E) -> Self {
        Self { kms, database, clock, entropy, held: Mutex::new(Cache::new(MAX_CACHED)), cold: Turn::new(()) }
    }

    /// The tenant's key. The outer `Err` means that the database gave no answer.
    pub(crate) async fn take(&self, tenant: &Tenant, deadline: Timestamp) -> Result<Result<Indexing, Refusal>, Fault> {
        if let Some(warm) = self.warm(tenant) {
            return Ok(Ok(warm));
        }
        let _turn = self.cold.lock().await;
        if let Some(warm) = self.warm(tenant) {
            return Ok(Ok(warm));
        }
        match self.fetch(tenant, deadline).await {
            Ok(indexing) => Ok(Ok(indexing)),
            Err(Failed::Refused(refusal)) => Ok(Err(refusal)),
            Err(Failed::Fault(fault)) => Err(fault),
        }
    }

    /// Lets go of every key whose time has come.
    pub(crate) fn sweep(&self, now: Timestamp) {
        self.kms.sweep(now);
        locked(&self.held).sweep(now);
    }

    fn warm(&self, tenant: &Tenant) -> Option<Indexing> {
        let now = self.clock.now();
        let mut held = locked(&self.held);
        held.sweep(now);
        held.find(tenant, now).map(|indexing| indexing.clone())
    }

    async fn fetch(&self, tenant: &Tenant, deadline: Timestamp) -> Result<Indexing, Failed> {
        let answer = self.database.call(CURRENT, vec![Parameter::Text(tenant.as_str().to_owned())]).await?;
        let answer: Answer = serde_json::from_value(answer).map_err(|_| broken(CURRENT))?;
        match (answer.outcome.as_str(), answer.key) {
            ("found", Some(row)) => self.adopt(tenant, &row, deadline).await,
            ("none", None) => self.create(tenant, deadline).await,
            _ => Err(broken(CURRENT).into()),
        }
    }

    async fn adopt(&self, tenant: &Tenant, row: &Row, deadline: Timestamp) -> Result<Indexing, Failed> {
        let wrapped = bytes(CURRENT, &row.wrapped)?;
        let (now, context) = (self.clock.now(), context(tenant, PURPOSE, row.id));
        let kept = self.kms.unwrap(&context, &row.kms_key_arn, &wrapped, now, deadline).await?;
        Ok(self.hold(tenant, Indexing { id: row.id, key: kept.key }, now, kept.until))
    }

    /// Makes the tenant's first index key. Whoever loses the race wipes its own and takes the winner's: entries under two
    /// keys would never meet.
    async fn create(&self, tenant: &Tenant, deadline: Timestamp) -> Result<Indexing, Failed> {
        let now = self.clock.now();
        self.kms.permits(tenant, PURPOSE, now, deadline)?;
        let id = uuid_v7(now, &self.entropy);
        let generated = self.kms.wrapping.generate(&context(tenant, PURPOSE, id)).await;
        let generated = generated.map_err(|fault| self.kms.refused(tenant, PURPOSE, now, &fault))?;
        let key = DataKey::parse(generated.plaintext.expose()).map_err(|_| Refusal::KeyRefused)?;
        drop(generated.plaintext);
        let parameters = vec![
            Parameter::Text(tenant.as_str().to_owned()),
            Parameter::Uuid(id),
            Parameter::Text(self.kms.key_arn.clone()),
            Parameter::OptionalText(generated.material),
            Parameter::Bytes(generated.wrapped),
            Parameter::Int(now.millis()),
        ];
        let answer = self.database.call(INSERT, parameters).await?;
        let answer: Answer = serde_json::from_value(answer).map_err(|_| broken(INSERT))?;
        match (answer.outcome.as_str(), answer.key) {
            ("inserted" | "lost", Some(row)) if row.id == id => {
                Ok(self.hold(tenant, Indexing { id, key: Arc::new(key) }, now, now.plus_seconds(KEY_LIFE)))
            }
            ("lost", Some(row)) => {
                drop(key);
                self.adopt(tenant, &row, deadline).await
            }
            _ => Err(broken(INSERT).into()),
        }
    }

    fn hold(&self, tenant: &Tenant, indexing: Indexing, now: Timestamp, until: Timestamp) -> Indexing {
        locked(&self.held).hold(tenant.clone(), indexing.clone(), now, until);
        indexing
    }
}
