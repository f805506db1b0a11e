//! The owner's own door, for `migrate` alone: plain SQL, straight to the instance.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::connect::{Dialer, RdsSettings};
use crate::fault::{SERVICE, fault};
use shared::port::{Fault, FaultKind};

/// Longest wait for one batch: building an index takes longer than any request may.
const PATIENCE: Duration = Duration::from_secs(60);

/// A direct connection that may run statements of any kind.
///
/// Migrations take session locks and change settings, which would pin a proxy's connection: the settings must say
/// [`Mode::Direct`](crate::Mode::Direct).
#[derive(Debug)]
pub struct Owner {
    client: Client,
}

impl Owner {
    /// Connects once.
    ///
    /// # Errors
    /// `Invalid` for a connection through the proxy; otherwise as the server answers.
    pub async fn connect(settings: RdsSettings, aws: &aws::Connector) -> Result<Self, Fault> {
        if settings.mode != crate::Mode::Direct {
            return Err(Fault::new(FaultKind::Invalid, SERVICE, "connect").caused_by("migrations go to the instance"));
        }
        Ok(Self { client: Dialer::new(settings, aws).connect().await? })
    }

    /// Runs `statements` as one transaction: all of them or none.
    ///
    /// # Errors
    /// The first statement that failed; nothing of the batch remains.
    pub async fn apply(&mut self, statements: &str) -> Result<(), Fault> {
        let work = async {
            let transaction = self.client.transaction().await?;
            transaction.batch_execute(statements).await?;
            transaction.commit().await
        };
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(done) => done.map_err(|error| fault("apply", error)),
            Err(_) => Err(late("apply")),
        }
    }

    /// Runs one statement and returns its rows as text, NULL as `None`.
    ///
    /// # Errors
    /// As the server answers.
    pub async fn rows(&self, statement: &str) -> Result<Vec<Vec<Option<String>>>, Fault> {
        let messages = match tokio::time::timeout(PATIENCE, self.client.simple_query(statement)).await {
            Ok(done) => done.map_err(|error| fault("rows", error))?,
            Err(_) => return Err(late("rows")),
        };
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

fn late(operation: &'static str) -> Fault {
    Fault::new(FaultKind::Unavailable, SERVICE, operation).caused_by("statement timeout")
}
