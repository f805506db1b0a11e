//! The one clock of a stack: credentials, signatures, keys and caches all read it, so a test can move them together.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A clock shared by everything in one stack. Clones show the same time.
#[derive(Clone)]
pub struct Clock {
    start: Option<SystemTime>,
    ahead: Arc<AtomicU64>,
    /// Milliseconds by which a fault has put it ahead, or back. The function processes know nothing of it.
    skew: Arc<AtomicI64>,
    shared: Option<Arc<Shared>>,
}

/// How function processes learn of a clock that was put ahead.
struct Shared {
    file: File,
    environment: BTreeMap<String, String>,
}

impl Clock {
    /// Follows the machine's clock, plus whatever [`Clock::advance`] added.
    pub fn system() -> Clock {
        Clock { start: None, ahead: Arc::default(), skew: Arc::default(), shared: None }
    }

    /// As [`Clock::system`], for the function processes too: a small library, built in `folder` by the machine's C compiler, puts
    /// their wall clock ahead by as much. Their timeouts run on as always.
    ///
    /// # Errors
    /// When the folder cannot be written or there is no `cc`.
    pub fn of_processes_too(folder: &Path) -> io::Result<Clock> {
        std::fs::create_dir_all(folder)?;
        let (page, source, library) = (folder.join("ahead"), folder.join("ahead.c"), folder.join("ahead.so"));
        std::fs::write(&page, 0_i64.to_ne_bytes())?;
        std::fs::write(&source, include_str!("clock/ahead.c"))?;
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output()?;
        if !built.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&built.stderr).into_owned()));
        }
        let environment = [("LD_PRELOAD", &library), ("LOCAL_CLOCK", &page)];
        let environment = environment.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        let file = File::options().write(true).open(page)?;
        let shared = Some(Arc::new(Shared { file, environment: environment.into() }));
        Ok(Clock { shared, ..Clock::system() })
    }

    /// What a function process needs in its environment to see this clock.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.shared.as_ref().map(|shared| shared.environment.clone()).unwrap_or_default()
    }

    /// Whether [`Clock::advance`] moves the function processes as well.
    pub fn moves_processes(&self) -> bool {
        self.shared.is_some()
    }

    /// What the function processes take for the time.
    pub fn of_the_processes(&self) -> SystemTime {
        if self.moves_processes() { self.unskewed() } else { system_now() }
    }

    /// Stands still at `start` until [`Clock::advance`] moves it.
    pub fn at(start: SystemTime) -> Clock {
        Clock { start: Some(start), ahead: Arc::default(), skew: Arc::default(), shared: None }
    }

    /// The current time of this stack.
    pub fn now(&self) -> SystemTime {
        let (now, skew) = (self.unskewed(), self.skew.load(Ordering::SeqCst));
        let by = Duration::from_millis(skew.unsigned_abs());
        let skewed = if skew < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        skewed.unwrap_or(now)
    }

    /// Puts the clock so many milliseconds ahead of the functions', or behind it, in place of the skew before.
    pub fn set_skew(&self, ahead: i64) {
        self.skew.store(ahead, Ordering::SeqCst);
    }

    fn unskewed(&self) -> SystemTime {
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
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let ahead = self.ahead.fetch_add(by, Ordering::SeqCst).saturating_add(by);
        if let Some(shared) = &self.shared {
            // Eight bytes of a mapped page: the processes see all of them or none.
            let _ = shared.file.write_at(&ahead.to_ne_bytes(), 0);
        }
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
