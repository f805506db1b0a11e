//! Database connections that a proxy lends: as many as it has, each for a statement or a transaction.
//!
//! Whoever has none waits for the proxy's `ConnectionBorrowTimeout` and is then told so (RDS user guide, "Troubleshooting for RDS Proxy").
//! Unlimited until a test or a rule says otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::statements::Frames;

/// What the proxy says then. SQLSTATE `connection_exception`: AWS documents the words alone, and drivers report them under this class
/// (psycopg2 as `ConnectionException`).
pub(super) const TIMED_OUT: (&str, &str) = ("08000", "Timed-out waiting to acquire database connection.");

/// The connections that there are.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Option<(Arc<Semaphore>, Duration)>>);

impl Pool {
    /// From now on so many, and so long a wait for one; without a number as many as are asked for.
    pub(super) fn set(&self, most: Option<usize>, patience: Duration) {
        let most = most.map(|most| (Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))), patience));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = most;
    }

    fn current(&self) -> Option<(Arc<Semaphore>, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What one client has borrowed.
#[derive(Debug, Default)]
pub(super) struct Loan(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    /// Answers that the server owes.
    owed: u64,
    frames: Frames,
}

impl Loan {
    /// Before something is sent to the server; `false` when there was no connection for it in time.
    pub(super) async fn take(&self, pool: &Pool, round_trips: u64) -> bool {
        if self.held().permit.is_none()
            && let Some((connections, patience)) = pool.current()
        {
            let Ok(Ok(permit)) = tokio::time::timeout(patience, connections.acquire_owned()).await else {
                return false;
            };
            self.held().permit = Some(permit);
        }
        self.held().owed += round_trips;
        true
    }

    /// What the server has said. A connection goes back when everything is answered and no transaction is open.
    pub(super) fn answered(&self, bytes: &[u8]) {
        let mut held = self.held();
        let Held { permit, owed, frames } = &mut *held;
        frames.feed(bytes, |kind, body| {
            if kind == b'Z' {
                *owed = owed.saturating_sub(1);
                if *owed == 0 && body == b"I" {
                    *permit = None;
                }
            }
        });
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rds::pins::tests::message;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_connection_is_lent_for_a_transaction_and_goes_back_after_it() {
        let pool = Pool::default();
        pool.set(Some(1), SOON);
        let (one, other) = (Loan::default(), Loan::default());
        assert!(one.take(&pool, 1).await);
        assert!(!other.take(&pool, 1).await, "the only one is in use");
        one.answered(&message(b'Z', b"T"));
        assert!(one.take(&pool, 1).await, "the same one, in its transaction");
        assert!(!other.take(&pool, 1).await);
        for byte in message(b'Z', b"I") {
            assert!(!other.take(&pool, 1).await);
            one.answered(&[byte]);
        }
        assert!(other.take(&pool, 1).await);
        drop(other);
        assert!(one.take(&pool, 2).await, "who hangs up gives it back");
        one.answered(&message(b'Z', b"I"));
        assert!(!Loan::default().take(&pool, 1).await, "the second statement is not answered yet");
        pool.set(None, SOON);
        assert!(Loan::default().take(&pool, 1).await);
    }
}
