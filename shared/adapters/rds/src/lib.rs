//! Postgres behind RDS Proxy: IAM tokens, verify-full TLS, typed statements.
//!
//! One connection per sandbox, opened by the first call with a token minted for it. Each call is one unnamed, typed
//! `SELECT api.f($1, …)` and so one round trip that does not pin a proxy's session. A connection found dead *before* a
//! statement was handed to it is replaced once, with a fresh token; a statement whose fate is unknown is
//! [`Unavailable`](FaultKind::Unavailable) and never sent again, unless the caller says through [`Rds::idempotent`] that
//! sending it twice is harmless.

mod column;
mod connect;
mod fault;
mod owner;
mod statement;

pub use self::column::Target;
pub use self::connect::{Mode, RdsSettings};
pub use self::owner::Owner;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use shared::port::{Database, Fault, FaultKind, Parameter};
use tokio::sync::Mutex;
use tokio_postgres::Client;

use self::connect::Dialer;
use self::fault::{SERVICE, fault};
use self::statement::Statement;

/// A connection idle for longer is probed before use: a thawed sandbox cannot know what died meanwhile. Counted on the
/// wall clock, since a frozen sandbox's monotonic clock stands still.
const TRUSTED_IDLE: Duration = Duration::from_secs(5);
const PROBE: Duration = Duration::from_millis(500);

/// The database of one function, under one login.
#[derive(Debug)]
pub struct Rds {
    dialer: Dialer,
    statement_timeout: Duration,
    held: Mutex<Option<Held>>,
}

#[derive(Clone, Debug)]
struct Held {
    client: Arc<Client>,
    used: SystemTime,
}

impl Rds {
    /// Takes the settings; nothing is opened and no certificate is parsed.
    #[must_use]
    pub fn new(settings: RdsSettings, aws: &aws::Connector) -> Self {
        let statement_timeout = settings.statement_timeout;
        Self { dialer: Dialer::new(settings, aws), statement_timeout, held: Mutex::new(None) }
    }

    /// The same database for statements that may run twice: a lost answer is asked for once more.
    #[must_use]
    pub fn idempotent(self: &Arc<Self>) -> Idempotent {
        Idempotent(Arc::clone(self))
    }

    /// A connection that was alive a moment ago.
    async fn client(&self) -> Result<Arc<Client>, Fault> {
        let mut held = self.held.lock().await;
        let now = self.dialer.now();
        if let Some(found) = held.as_mut() {
            // Lets the driver see what the socket already knows.
            tokio::task::yield_now().await;
            let mut alive = !found.client.is_closed();
            if alive && now.duration_since(found.used).is_ok_and(|idle| idle > TRUSTED_IDLE) {
                let probe = tokio::time::timeout(PROBE, found.client.check_connection()).await;
                alive = matches!(probe, Ok(Ok(())));
            }
            if alive {
                found.used = now;
                return Ok(Arc::clone(&found.client));
            }
        }
        *held = None;
        let client = Arc::new(self.dialer.connect().await?);
        *held = Some(Held { client: Arc::clone(&client), used: now });
        Ok(client)
    }

    /// Forgets `client`, unless somebody has replaced it already.
    async fn discard(&self, client: &Arc<Client>) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|found| Arc::ptr_eq(&found.client, client)) {
            *held = None;
        }
    }

    async fn once(&self, statement: &Statement) -> Result<Value, Lost> {
        let client = self.client().await.map_err(Lost::before)?;
        let answer = tokio::time::timeout(self.statement_timeout, statement.run(&client)).await;
        let error = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => {
                self.discard(&client).await;
                let fault =
                    Fault::new(FaultKind::Unavailable, SERVICE, statement.name()).caused_by("statement timeout");
                return Err(Lost { fault, unknown: true });
            }
        };
        let broken = error.as_db_error().is_none() && (error.is_closed() || client.is_closed() || fault::is_io(&error));
        let lost = broken || fault::ends_session(&error);
        if lost {
            self.discard(&client).await;
        }
        Err(Lost { fault: fault(statement.name(), error), unknown: lost })
    }

    async fn run(&self, statement: Statement, twice: bool) -> Result<Value, Fault> {
        match self.once(&statement).await {
            Ok(value) => Ok(value),
            Err(lost) if lost.unknown && twice => self.once(&statement).await.map_err(|lost| lost.fault),
            Err(lost) => Err(lost.fault),
        }
    }
}

impl Database for Rds {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        self.run(Statement::new(function, parameters)?, false).await
    }
}

/// [`Rds`] for statements that may run twice.
#[derive(Clone, Debug)]
pub struct Idempotent(Arc<Rds>);

impl Database for Idempotent {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        self.0.run(Statement::new(function, parameters)?, true).await
    }
}

/// A failed attempt.
struct Lost {
    fault: Fault,
    /// The statement left this process and no answer came back.
    unknown: bool,
}

impl Lost {
    fn before(fault: Fault) -> Self {
        Self { fault, unknown: false }
    }
}
