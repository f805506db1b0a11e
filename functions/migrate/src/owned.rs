//! The schema through the owner's connection.

use aws::Connector;
use migrate::{Applied, Migration, Schema, statements};
use rds::{Owner, RdsSettings};
use shared::port::{Fault, FaultKind};
use tokio::sync::Mutex;

/// A connection opened anew by every look at the record, and kept for what is applied after it.
pub(crate) struct Owned {
    rds: RdsSettings,
    aws: Connector,
    owner: Mutex<Option<Owner>>,
}

impl Owned {
    pub(crate) fn new(rds: RdsSettings, aws: Connector) -> Self {
        Self { rds, aws, owner: Mutex::default() }
    }
}

impl Schema for Owned {
    async fn applied(&self) -> Result<Vec<Applied>, Fault> {
        let mut owner = Owner::connect(self.rds.clone(), &self.aws).await?;
        owner.apply(&statements::record()).await?;
        let rows = owner.rows(statements::APPLIED).await?;
        *self.owner.lock().await = Some(owner);
        let applied = |row: Vec<Option<String>>| match <[Option<String>; 2]>::try_from(row) {
            Ok([Some(name), Some(hash)]) => Ok(Applied { name, hash }),
            _ => Err(Fault::new(FaultKind::Invalid, "postgres", "applied")),
        };
        rows.into_iter().map(applied).collect()
    }

    async fn apply(&self, migration: &Migration, hash: &str) -> Result<(), Fault> {
        let mut owner = self.owner.lock().await;
        let owner = owner.as_mut().ok_or_else(|| Fault::new(FaultKind::Invalid, "postgres", "apply"))?;
        owner.apply(&statements::batch(migration, hash)).await
    }
}
