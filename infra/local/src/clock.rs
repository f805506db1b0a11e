//! The one clock of a stack: credentials, signatures, keys and caches all read it, so a test can move them together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock shared by everything in one stack. Clones show the same time.
#[derive(Clone)]
pub struct Clock {
    start: Option<SystemTime>,
    ahead: Arc<AtomicU64>,
}

impl Clock {
    /// Follows the machine's clock, plus whatever [`Clock::advance`] added.
    pub fn system() -> Clock {
        Clock { start: None, ahead: Arc::default() }
    }

    /// Stands still at `start` until [`Clock::advance`] moves it.
    pub fn at(start: SystemTime) -> Clock {
        Clock { start: Some(start), ahead: Arc::default() }
    }

    /// The current time of this stack.
    pub fn now(&self) -> SystemTime {
        let ahead = Duration::from_millis(self.ahead.load(Ordering::SeqCst));
        let base = match self.start {
            Some(start) => start,
            None => system_now(),
        };
        base.checked_add(ahead).unwrap_or(base)
    }

    /// Seconds since the epoch, rounded down.
    pub fn seconds(&self) -> u64 {
        self.now().duration_since(UNIX_EPOCH).map(|passed| passed.as_secs()).unwrap_or_default()
    }

    /// Moves this clock and all its clones forward, to the millisecond.
    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place of the stack that reads the machine's clock")]
fn system_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_still_moves_only_by_advance_and_with_all_its_clones() {
        let clock = Clock::at(UNIX_EPOCH + Duration::from_secs(1_000));
        let clone = clock.clone();
        assert_eq!(clone.seconds(), 1_000);
        clock.advance(Duration::from_secs(60));
        assert_eq!(clone.now(), UNIX_EPOCH + Duration::from_secs(1_060));
    }

    #[test]
    fn a_system_clock_can_be_put_ahead() {
        let (plain, ahead) = (Clock::system(), Clock::system());
        ahead.advance(Duration::from_secs(3_600));
        assert!(ahead.seconds() >= plain.seconds() + 3_599);
    }
}
