//! The trust bucket in memory: whole objects, entity tags, conditional reads and writes (RFC 9110 §13.1).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use shared::port::{Fault, FaultKind, ObjectReader, ObjectWriter, Precondition, Read, Written};

/// A bucket. Clones share it.
#[derive(Clone, Default)]
pub struct TrustBucket(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Vec<u8>, String)>,
    writes: Vec<String>,
    reads: usize,
    tags: u64,
    down: bool,
    before_write: Option<Hook>,
}

type Hook = Pin<Box<dyn Future<Output = ()> + Send>>;

impl TrustBucket {
    /// The text of an object, if there is one.
    pub fn text(&self, key: &str) -> Option<String> {
        self.with(|state| state.objects.get(key).map(|(body, _)| String::from_utf8_lossy(body).into_owned()))
    }

    /// An object read as JSON; `null` when there is none or it is no JSON.
    pub fn json(&self, key: &str) -> Value {
        self.text(key).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Stores an object without any condition, as another writer would.
    pub fn put(&self, key: &str, body: impl Into<Vec<u8>>) {
        let body = body.into();
        self.with(|state| state.store(key, body));
    }

    /// Removes an object.
    pub fn remove(&self, key: &str) {
        self.with(|state| state.objects.remove(key));
    }

    /// The keys held, in order.
    pub fn keys(&self) -> Vec<String> {
        self.with(|state| state.objects.keys().cloned().collect())
    }

    /// The keys of all writes that were stored through the port, in order, forgotten by asking.
    pub fn take_writes(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.writes))
    }

    /// How many reads were asked of it.
    pub fn reads(&self) -> usize {
        self.with(|state| state.reads)
    }

    /// Makes every call fail as unavailable, or work again.
    pub fn set_down(&self, down: bool) {
        self.with(|state| state.down = down);
    }

    /// Runs `hook` once, just before the next write is judged: what another writer does in that gap.
    pub fn before_next_write(&self, hook: impl Future<Output = ()> + Send + 'static) {
        self.with(|state| state.before_write = Some(Box::pin(hook)));
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn store(&mut self, key: &str, body: Vec<u8>) -> String {
        self.tags += 1;
        let etag = format!("\"{}\"", self.tags);
        self.objects.insert(key.to_owned(), (body, etag.clone()));
        etag
    }
}

impl ObjectReader for TrustBucket {
    async fn read(&self, key: &str, known: Option<&str>) -> Result<Read, Fault> {
        // A real read lets others run meanwhile.
        tokio::task::yield_now().await;
        self.with(|state| {
            state.reads += 1;
            if state.down {
                return Err(Fault::new(FaultKind::Unavailable, "s3", "GetObject"));
            }
            Ok(match state.objects.get(key) {
                None => Read::Missing,
                Some((_, etag)) if known == Some(etag) => Read::Unchanged,
                Some((body, etag)) => Read::Found { body: body.clone(), etag: etag.clone() },
            })
        })
    }
}

impl ObjectWriter for TrustBucket {
    async fn write(&self, key: &str, body: Vec<u8>, when: Precondition) -> Result<Written, Fault> {
        tokio::task::yield_now().await;
        if let Some(hook) = self.with(|state| state.before_write.take()) {
            hook.await;
        }
        self.with(|state| {
            if state.down {
                return Err(Fault::new(FaultKind::Unavailable, "s3", "PutObject"));
            }
            let held = state.objects.get(key).map(|(_, etag)| etag.as_str());
            let holds = match &when {
                Precondition::Always => true,
                Precondition::Absent => held.is_none(),
                Precondition::Matches(etag) => held == Some(etag),
            };
            if !holds {
                return Ok(Written::PreconditionFailed);
            }
            let etag = state.store(key, body);
            state.writes.push(key.to_owned());
            Ok(Written::Stored { etag })
        })
    }
}
