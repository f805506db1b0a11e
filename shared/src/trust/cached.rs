//! One trust object, kept in memory.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Envelope, TrustObject};
use crate::clock::{Clock, Timestamp};
use crate::port::{ObjectReader, Read};

/// How long a decision waits for a re-read while it could go on with what it holds.
const WINDOW: Duration = Duration::from_millis(100);
/// How long the first decision of a sandbox waits: without the object it cannot decide at all.
const FIRST_WINDOW: Duration = Duration::from_secs(2);
/// How long a decision waits for a re-read that is far over due: a copy that is [`LATE`] times as old as a fresh one may be. The window
/// above is too short for whoever has to open a connection first, or is far from the bucket, and what was revoked meanwhile would pass for as
/// long as a copy serves at all.
const LATE_WINDOW: Duration = Duration::from_secs(1);
/// How many times as old.
const LATE: i64 = 3;
/// After a decision that waited so, the next one does after this long: an outage costs one such window in ten seconds.
const LATE_PAUSE: i64 = 10_000;
/// After a failed re-read the next one waits this long, so that an outage costs one window a second and not one a request.
const PAUSE: i64 = 1_000;

/// How often, at most, an object is read before it is due, because something in it was not found.
const EARLY: i64 = 30_000;

/// The object is older than it may be, or was never loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stale(
    /// The object's key, or what the keys of its kind begin with.
    pub &'static str,
);

/// A trust object and when it was last known to be current.
pub struct Cached<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    held: Option<Held<T>>,
    not_before: Timestamp,
    early: Timestamp,
    /// When the next decision may wait longer for what is far over due.
    patient: Timestamp,
}

struct Held<T> {
    value: Arc<T>,
    etag: String,
    version: i64,
    not_after: Timestamp,
    read_at: Timestamp,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        let long_ago = Timestamp::from_millis(i64::MIN);
        Self { state: Mutex::new(State { held: None, not_before: long_ago, early: long_ago, patient: long_ago }) }
    }
}

impl<T: TrustObject> Cached<T> {
    /// The object, read again first if it is due. Costs nothing while it is fresh.
    pub fn current<R: ObjectReader, C: Clock>(
        &self,
        reader: &R,
        clock: &C,
    ) -> impl Future<Output = Result<Arc<T>, Stale>> + Send {
        self.at(T::KEY, reader, clock, false)
    }

    /// The same for one of many objects of the kind, which lies at `key`; a cache serves one key.
    ///
    /// `early`: something in it was not found, so that it is read again although it is not due, unless that was done less than half a
    /// minute ago.
    pub async fn at<R: ObjectReader, C: Clock>(
        &self,
        key: &str,
        reader: &R,
        clock: &C,
        early: bool,
    ) -> Result<Arc<T>, Stale> {
        let started = clock.now();
        let (known, window) = {
            let mut state = self.lock();
            let early = early && !(0..EARLY).contains(&started.millis_since(state.early));
            let fresh = state.held.as_ref().is_some_and(|held| started.millis_since(held.read_at) < T::FRESH);
            let waits = started < state.not_before;
            if early {
                state.early = started;
            }
            let held = state.held.as_ref();
            let usable = held.filter(|held| held.serves::<T>(started));
            if let Some(held) = usable.filter(|_| waits || fresh && !early) {
                return Ok(Arc::clone(&held.value));
            }
            let late = usable.is_some_and(|held| started.millis_since(held.read_at) >= LATE * T::FRESH);
            let window = match usable {
                None => FIRST_WINDOW,
                Some(_) if late && started >= state.patient => LATE_WINDOW,
                Some(_) => WINDOW,
            };
            let known = held.map(|held| held.etag.clone());
            if window == LATE_WINDOW {
                state.patient = started.plus_millis(LATE_PAUSE);
            }
            (known, window)
        };
        let read = tokio::time::timeout(window, reader.read(key, known.as_deref())).await;
        let mut state = self.lock();
        let renewed = match read {
            Ok(Ok(Read::Unchanged)) => state.held.as_mut().map(|held| held.read_at = held.read_at.max(started)),
            Ok(Ok(Read::Found { body, etag })) => state.replace(&body, etag, started),
            Ok(Ok(Read::Missing) | Err(_)) | Err(_) => None,
        };
        if renewed.is_none() {
            state.not_before = started.plus_millis(PAUSE);
        }
        let now = clock.now();
        state
            .held
            .as_ref()
            .filter(|held| held.serves::<T>(now))
            .map(|held| Arc::clone(&held.value))
            .ok_or(Stale(T::KEY))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: TrustObject> State<T> {
    /// Takes a newer object over; anything malformed or older leaves what is held.
    fn replace(&mut self, body: &[u8], etag: String, read_at: Timestamp) -> Option<()> {
        let envelope = Envelope::open(body).ok()?;
        if self.held.as_ref().is_some_and(|held| envelope.version < held.version) {
            return None;
        }
        let value = match &self.held {
            Some(held) => held.value.follow(&envelope.body),
            None => T::parse(&envelope.body),
        };
        let value = Arc::new(value.ok()?);
        let not_after = Timestamp::from_millis(envelope.not_after);
        self.held = Some(Held { value, etag, version: envelope.version, not_after, read_at });
        Some(())
    }
}

impl<T> Held<T> {
    fn serves<O: TrustObject>(&self, now: Timestamp) -> bool {
        now.millis_since(self.read_at) <= O::LAST_GOOD && now < self.not_after
    }
}
