//! A stage's limits: token buckets on the stack's clock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{Throttle, event::Incoming};

/// The tokens that are left, by the place of the limit in its list.
#[derive(Debug, Default)]
pub(super) struct Buckets(Mutex<BTreeMap<usize, (f64, SystemTime)>>);

impl Buckets {
    /// Takes a token for this call; `false` when there is none left. Without a limit there always is.
    pub(super) fn take(&self, throttles: &[Throttle], incoming: &Incoming<'_>) -> bool {
        let covers = |limit: &Throttle| {
            (limit.resource == "/*" || limit.resource == incoming.resource)
                && (limit.method == "*" || limit.method == incoming.request.method.as_str())
        };
        let Some((place, limit)) = throttles.iter().enumerate().find(|(_, limit)| covers(limit)) else { return true };
        let now = incoming.received;
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = held.entry(place).or_insert((limit.burst, now));
        let passed = now.duration_since(*since).unwrap_or_default().as_secs_f64();
        *tokens = (*tokens + passed * limit.rate).min(limit.burst);
        *since = now;
        let enough = *tokens >= 1.0;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }
}
