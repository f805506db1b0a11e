//! A stage's limits: token buckets on the stack's clock.
//!
//! A limit is one of methods (API Gateway developer guide, "Throttle requests to your REST APIs": "applied at the API method level for a
//! stage"): one that covers several gives each of them a bucket of its own. The account's limit over all APIs is not here.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{Throttle, event::Incoming};

/// Resource and method.
type Method = (String, String);

/// The tokens that are left to each method, and since when.
#[derive(Debug, Default)]
pub(super) struct Buckets(Mutex<BTreeMap<Method, (f64, SystemTime)>>);

impl Buckets {
    /// Takes a token for this call of `method`, the one of the document (`ANY` where it says so); `false` when there is none left.
    /// Without a limit there always is.
    pub(super) fn take(&self, throttles: &[Throttle], incoming: &Incoming<'_>, method: &str) -> bool {
        let covers = |limit: &&Throttle| {
            (limit.resource == "/*" || limit.resource == incoming.resource)
                && (limit.method == "*" || limit.method == method)
        };
        let Some(limit) = throttles.iter().find(covers) else { return true };
        let now = incoming.received;
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let method = (incoming.resource.clone(), method.to_owned());
        let (tokens, since) = held.entry(method).or_insert((limit.burst, now));
        let passed = now.duration_since(*since).unwrap_or_default().as_secs_f64();
        *tokens = (*tokens + passed * limit.rate).min(limit.burst);
        // A clock that went back fills nothing, now or when it has caught up.
        *since = now.max(*since);
        let enough = *tokens >= 1.0;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }
}
