//! What a stack tells whoever watches it: each request's way through the gate, with its decisions and times.
//!
//! [`record`] is the model, in one place; [`Span`] writes it from wherever the request is; [`terminal`] and [`page`] read it. Memory
//! is bounded: the last [`REQUESTS`] requests with [`PARTS`] parts each. A view that is off costs one load of an atomic a request.
//!
//! What is kept is what may be shown: [`shown`] decides that when it is written, so that neither reader can forget to.

pub mod page;
pub mod record;
pub mod shown;
pub mod terminal;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{broadcast, watch};

use self::record::{Door, Judged, Kind, Notice, Part, Seen, Times, Verdict};

/// How many requests are remembered.
pub const REQUESTS: usize = 400;
/// How many parts of a request are remembered.
pub const PARTS: usize = 96;
/// How many notices are remembered.
const NOTICES: usize = 40;
/// How many policy decisions of a part are remembered.
const JUDGED: usize = 16;
/// How many finished requests a slow reader may be behind before it misses some.
const BACKLOG: usize = 1_024;

tokio::task_local! {
    /// The request, or part of one, on whose behalf a task works.
    static CURRENT: Span;
}

/// What is seen of one stack. Clones show the same; off until it is switched on.
#[derive(Clone, Debug)]
pub struct View(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    on: AtomicBool,
    ring: Mutex<Ring>,
    version: watch::Sender<u64>,
    finished: broadcast::Sender<Arc<Seen>>,
    /// Which event the process with these keys works on.
    at_work: Mutex<HashMap<String, Span>>,
}

#[derive(Debug, Default)]
struct Ring {
    seen: VecDeque<Seen>,
    notices: VecDeque<Notice>,
    /// The number of the next request.
    next: u64,
    version: u64,
}

impl Default for View {
    fn default() -> Self {
        Self(Arc::new(Inner {
            on: AtomicBool::new(false),
            ring: Mutex::default(),
            version: watch::Sender::new(0),
            finished: broadcast::Sender::new(BACKLOG),
            at_work: Mutex::default(),
        }))
    }
}

impl View {
    /// Begins to look.
    pub fn switch_on(&self) {
        self.0.on.store(true, Ordering::Relaxed);
    }

    /// Whether anybody looks.
    #[must_use]
    pub fn on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    /// A request begins; `None` while nobody looks.
    pub(crate) fn begin(&self, door: Door, at: SystemTime, fill: impl FnOnce(&mut Seen)) -> Option<Span> {
        if !self.on() {
            return None;
        }
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut seen = Seen::new(door, u64::try_from(at).unwrap_or(u64::MAX));
        fill(&mut seen);
        let mut ring = self.ring();
        seen.number = ring.next;
        let number = seen.number;
        ring.next += 1;
        seen.version = ring.turn();
        ring.seen.push_back(seen);
        while ring.seen.len() > REQUESTS {
            ring.seen.pop_front();
        }
        self.tell(ring);
        Some(Span { view: self.clone(), number, part: None, since: Instant::now(), began: Instant::now() })
    }

    /// Says something that belongs to no request: a build that failed, faults that changed.
    pub fn notice(&self, at: SystemTime, level: &'static str, text: &str) {
        if !self.on() {
            return;
        }
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut ring = self.ring();
        let version = ring.turn();
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        ring.notices.push_back(Notice { version, at, level, text: shown::lines(text) });
        while ring.notices.len() > NOTICES {
            ring.notices.pop_front();
        }
        self.tell(ring);
    }

    /// What has changed since `version`: the newest version, requests without their parts, notices.
    #[must_use]
    pub fn after(&self, version: u64) -> (u64, Vec<Seen>, Vec<Notice>) {
        let ring = self.ring();
        let seen = ring.seen.iter().filter(|seen| seen.version > version).map(Seen::outline).collect();
        let notices = ring.notices.iter().filter(|notice| notice.version > version).cloned().collect();
        (ring.version, seen, notices)
    }

    /// One request with all that is known of it.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<Seen> {
        self.ring().find(number).cloned()
    }

    /// Waits until something is newer than `version`, or for as long as `patience`.
    pub async fn newer(&self, version: u64, patience: Duration) {
        let mut changes = self.0.version.subscribe();
        let newer = async { drop(changes.wait_for(|now| *now > version).await) };
        drop(tokio::time::timeout(patience, newer).await);
    }

    /// Every request from now on, when it has ended.
    #[must_use]
    pub fn finished(&self) -> broadcast::Receiver<Arc<Seen>> {
        self.0.finished.subscribe()
    }

    /// The event that the process with this access key id works on.
    pub(crate) fn worked_on_by(&self, key: &str) -> Option<Span> {
        self.0.at_work.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, ring: MutexGuard<'_, Ring>) {
        let version = ring.version;
        drop(ring);
        self.0.version.send_replace(version);
    }
}

impl Ring {
    fn turn(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn place(&self, number: u64) -> Option<usize> {
        let first = self.seen.front()?.number;
        usize::try_from(number.checked_sub(first)?).ok()
    }

    fn find(&self, number: u64) -> Option<&Seen> {
        self.seen.get(self.place(number)?)
    }
}

/// A request on its way, or a part of it. It writes to the view, and nowhere once the request is forgotten.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    view: View,
    number: u64,
    /// The part, by its place; one past the last that is kept says nothing more.
    part: Option<usize>,
    /// When the request began.
    since: Instant,
    /// When this part of it began.
    began: Instant,
}

impl Span {
    /// The request, or part, that the running task works for.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs `work` on behalf of this span.
    pub(crate) async fn scope<T>(span: Option<Self>, work: impl Future<Output = T>) -> T {
        match span {
            Some(span) => CURRENT.scope(span, work).await,
            None => work.await,
        }
    }

    /// The same for what runs on a thread of its own.
    pub(crate) fn sync_scope<T>(span: Option<Self>, work: impl FnOnce() -> T) -> T {
        match span {
            Some(span) => CURRENT.sync_scope(span, work),
            None => work(),
        }
    }

    /// Begins a part of this one.
    pub(crate) fn open(&self, kind: Kind, name: &str) -> Self {
        let began = Instant::now();
        let (within, from) = (self.part, micros(began.duration_since(self.since)));
        let mut part = None;
        self.change(|seen| {
            part = Some(seen.parts.len());
            if seen.parts.len() < PARTS {
                seen.parts.push(Part::new(kind, shown::text(name), within, from));
            } else {
                part = Some(PARTS);
                seen.left_out = seen.left_out.saturating_add(1);
            }
        });
        Self { part: part.or(Some(PARTS)), began, ..self.clone() }
    }

    /// Ends the part with what came of it.
    pub(crate) fn close(&self, outcome: &str) {
        let took = micros(self.began.elapsed());
        self.change_part(|part| {
            part.took = Some(took);
            part.outcome = shown::text(outcome);
        });
    }

    /// How long the function's process itself had the event, and whether it had to be started for it.
    pub(crate) fn ran(&self, own: Duration, cold: bool) {
        self.change_part(|part| {
            part.own = Some(micros(own));
            part.cold = cold;
        });
    }

    /// What a function's process wrote about its decision.
    pub(crate) fn said(&self, log: &str) {
        let said = shown::said(log);
        if !said.is_empty() {
            self.change_part(|part| part.said = said);
        }
    }

    /// What policy said about a call.
    pub(crate) fn judged(&self, judged: Judged) {
        self.change_part(|part| {
            if part.judged.len() < JUDGED {
                part.judged.push(judged);
            }
        });
    }

    /// Names the fault that was put in the call's way.
    pub(crate) fn struck(&self, rule: &str) {
        self.change_part(|part| part.fault = Some(shown::text(rule)));
    }

    /// Changes what is known of the request as a whole.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Seen)) {
        let mut ring = self.view.ring();
        let Some(place) = ring.place(self.number) else { return };
        let version = ring.turn();
        if let Some(seen) = ring.seen.get_mut(place) {
            change(seen);
            seen.version = version;
        }
        self.view.tell(ring);
    }

    fn change_part(&self, change: impl FnOnce(&mut Part)) {
        let Some(place) = self.part else { return };
        self.change(|seen| {
            if let Some(part) = seen.parts.get_mut(place) {
                change(part);
            }
        });
    }

    /// The request has ended with this status.
    pub(crate) fn finish(&self, status: u16, verdict: impl FnOnce(&Seen) -> Option<Verdict>) {
        let total = micros(self.since.elapsed());
        let mut whole = None;
        let watched = self.view.0.finished.receiver_count() > 0;
        self.change(|seen| {
            seen.status = Some(status);
            seen.times = Some(Times::of(total, &seen.parts));
            if let Some(verdict) = verdict(seen) {
                seen.verdict = Some(verdict);
            }
            whole = watched.then(|| Arc::new(seen.clone()));
        });
        if let Some(whole) = whole {
            drop(self.view.0.finished.send(whole));
        }
    }

    /// What was decided about the request.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        self.view.ring().find(self.number)?.verdict.clone()
    }

    /// Everything that comes with these keys belongs to this span, until the guard goes.
    pub(crate) fn worked_on_by(&self, key: &str) -> AtWork {
        let mut at_work = self.view.0.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        at_work.insert(key.to_owned(), self.clone());
        AtWork { view: self.view.clone(), key: key.to_owned() }
    }
}

/// See [`Span::worked_on_by`].
#[derive(Debug)]
pub(crate) struct AtWork {
    view: View,
    key: String,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.view.0.at_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
