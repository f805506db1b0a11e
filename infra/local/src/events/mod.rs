//! EventBridge: object events matched against the template's rules, and schedules on the real clock; and S3's own notifications, which go
//! straight to a function.
//!
//! Delivery is asynchronous invocation, so at least once: Lambda's queue retries twice. The knobs make the promise
//! visible to a test by doubling, losing and reordering events.

mod notification;
mod pattern;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use time::{OffsetDateTime, macros::format_description};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    account::Account,
    lambda::{Invoke, Kind},
    request_id,
    template::{Deployment, PermissionSpec},
};

pub use self::notification::Notification;
use self::pattern::Pattern;
pub use crate::s3::ObjectCreated;

/// The rules of one deployment.
pub struct Events {
    inner: Arc<Inner>,
    schedules: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    account: Arc<Account>,
    lambda: Arc<dyn Invoke>,
    rules: Vec<Rule>,
    permissions: Vec<PermissionSpec>,
    notifications: Mutex<Vec<Notification>>,
    knobs: Knobs,
    held: Mutex<Option<Vec<(String, Bytes)>>>,
}

#[derive(Default)]
struct Knobs {
    duplicate: AtomicU32,
    drop: AtomicU32,
}

struct Rule {
    name: String,
    arn: String,
    pattern: Option<Pattern>,
    period: Option<Duration>,
    targets: Vec<String>,
    input: Option<Value>,
}

impl Events {
    /// Reads the rules.
    ///
    /// # Errors
    /// Every pattern operator and schedule expression that is not supported, and every target that EventBridge may not
    /// invoke.
    pub fn new(account: Arc<Account>, deployment: &Deployment, lambda: Arc<dyn Invoke>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let mut known = Vec::new();
        for rule in deployment.rules.clone() {
            let mut fault = |text: String| faults.push(format!("rule {}: {text}", rule.name));
            let pattern = rule.pattern.as_ref().map(Pattern::parse).transpose();
            let period = rule.schedule.as_deref().map(rate).transpose();
            if rule.pattern.is_none() && rule.schedule.is_none() {
                fault("neither pattern nor schedule".to_owned());
            }
            for target in &rule.targets {
                let service = "events.amazonaws.com";
                if !deployment.permissions.iter().any(|one| one.covers(target, service, &rule.arn)) {
                    fault(format!("no permission lets {service} invoke {target}"));
                }
            }
            if rule.targets.is_empty() {
                fault("no target".to_owned());
            }
            match (pattern, period) {
                (Ok(pattern), Ok(period)) => {
                    known.push(Rule {
                        name: rule.name,
                        arn: rule.arn,
                        pattern,
                        period,
                        targets: rule.targets,
                        input: rule.input,
                    });
                }
                (pattern, period) => pattern.err().into_iter().chain(period.err()).for_each(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (knobs, held, notifications) = (Knobs::default(), Mutex::new(None), Mutex::default());
        let permissions = deployment.permissions.clone();
        let inner = Arc::new(Inner { account, lambda, rules: known, permissions, notifications, knobs, held });
        Ok(Self { inner, schedules: Mutex::default() })
    }

    /// Has S3 notify a function itself of what is created in a bucket, beside what EventBridge is told.
    ///
    /// # Errors
    /// When the function's resource policy does not let S3 invoke it for this bucket, as S3 refuses such a configuration.
    pub fn notify(&self, notification: Notification) -> Result<(), String> {
        let bucket = format!("arn:aws:s3:::{}", notification.bucket);
        let allowed = |one: &PermissionSpec| one.covers(&notification.function, "s3.amazonaws.com", &bucket);
        if !self.inner.permissions.iter().any(allowed) {
            return Err("Unable to validate the following destination configurations".to_owned());
        }
        self.inner.notifications.lock().unwrap_or_else(PoisonError::into_inner).push(notification);
        Ok(())
    }

    /// What S3 itself would send to a function about an object.
    pub fn notification(&self, created: &ObjectCreated, configuration: &str) -> Value {
        notification::event(created, &self.inner.account, configuration)
    }

    /// Publishes the creation of an object.
    pub async fn object_created(&self, created: ObjectCreated) {
        let notifications = self.inner.notifications.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for one in notifications.iter().filter(|one| one.concerns(&created)) {
            let event = self.notification(&created, &one.id);
            self.inner.deliver(&one.function, &Bytes::from(event.to_string())).await;
        }
        let detail = json!({
            "version": "0",
            "bucket": {"name": created.bucket},
            "object": {
                "key": created.key,
                "size": created.size,
                "etag": created.etag,
                "version-id": created.version_id,
                "sequencer": created.sequencer,
            },
            "request-id": created.request_id,
            "requester": self.inner.account.id,
            "source-ip-address": created.source_ip,
            "reason": created.reason,
        });
        let resource = format!("arn:aws:s3:::{}", created.bucket);
        let event = self.inner.envelope("aws.s3", "Object Created", &resource, detail);
        self.publish(event).await;
    }

    /// Publishes any event to the rules that match it.
    pub async fn publish(&self, event: Value) {
        for rule in &self.inner.rules {
            if rule.pattern.as_ref().is_some_and(|pattern| pattern.matches(&event)) {
                self.inner.fire(rule, &event).await;
            }
        }
    }

    /// Runs every `rate(…)` rule on the machine's clock, first after one period.
    pub fn start_schedules(&self) {
        let mut schedules = self.schedules.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, rule) in self.inner.rules.iter().enumerate() {
            let Some(period) = rule.period else { continue };
            let inner = Arc::clone(&self.inner);
            schedules.push(tokio::spawn(async move {
                let mut ticks = interval_at(Instant::now() + period, period);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
                loop {
                    ticks.tick().await;
                    inner.tick(index).await;
                }
            }));
        }
    }

    /// Ends what [`Events::start_schedules`] began: a rule fires when it is told to, and at no other time.
    pub fn stop_schedules(&self) {
        for schedule in self.schedules.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            schedule.abort();
        }
    }

    /// Fires a scheduled rule now. False when there is no scheduled rule of that name.
    pub async fn tick(&self, rule: &str) -> bool {
        let found = self.inner.rules.iter().position(|one| one.name == rule && one.period.is_some());
        if let Some(index) = found {
            self.inner.tick(index).await;
        }
        found.is_some()
    }

    /// Names of the scheduled rules.
    pub fn scheduled(&self) -> Vec<&str> {
        self.inner.rules.iter().filter(|rule| rule.period.is_some()).map(|rule| rule.name.as_str()).collect()
    }

    /// Waits until no event is queued or running. Events held back by [`Events::hold`] do not count.
    pub async fn idle(&self) {
        self.inner.lambda.idle().await;
    }

    /// Knob: delivers each of the next `count` events twice.
    pub fn duplicate(&self, count: u32) {
        self.inner.knobs.duplicate.store(count, Ordering::Relaxed);
    }

    /// Knob: loses the next `count` events.
    pub fn lose(&self, count: u32) {
        self.inner.knobs.drop.store(count, Ordering::Relaxed);
    }

    /// Knob: keeps events back until [`Events::release`].
    pub fn hold(&self) {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
    }

    /// Delivers the events that were held back, the last one first.
    pub async fn release(&self) {
        let held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        for (function, payload) in held.into_iter().flatten().rev() {
            self.inner.invoke(&function, payload).await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop_schedules();
    }
}

impl Inner {
    async fn tick(&self, index: usize) {
        let Some(rule) = self.rules.get(index) else { return };
        let event = self.envelope("aws.events", "Scheduled Event", &rule.arn, json!({}));
        self.fire(rule, &event).await;
    }

    async fn fire(&self, rule: &Rule, event: &Value) {
        let payload = Bytes::from(rule.input.as_ref().unwrap_or(event).to_string());
        for function in &rule.targets {
            self.deliver(function, &payload).await;
        }
    }

    /// Once, or as the knobs say.
    async fn deliver(&self, function: &str, payload: &Bytes) {
        if take(&self.knobs.drop) {
            return;
        }
        let copies = if take(&self.knobs.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let held = match self.held.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                Some(held) => {
                    held.push((function.to_owned(), payload.clone()));
                    true
                }
                None => false,
            };
            if !held {
                self.invoke(function, payload.clone()).await;
            }
        }
    }

    async fn invoke(&self, function: &str, payload: Bytes) {
        // A refusal here means a rule names no function: `Events::new` cannot see it, the template reader does.
        drop(self.lambda.invoke(function, payload, Kind::Event).await);
    }

    fn envelope(&self, source: &str, kind: &str, resource: &str, detail: Value) -> Value {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        let now = OffsetDateTime::from(self.account.clock.now());
        json!({
            "version": "0",
            "id": request_id::fresh(),
            "detail-type": kind,
            "source": source,
            "account": self.account.id,
            "time": now.format(format).unwrap_or_default(),
            "region": self.account.region,
            "resources": [resource],
            "detail": detail,
        })
    }
}

fn take(knob: &AtomicU32) -> bool {
    knob.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// `rate(1 minute)`, `rate(5 minutes)`, hours and days.
fn rate(expression: &str) -> Result<Duration, String> {
    let unsupported = || format!("unsupported schedule {expression}");
    let inner = expression.strip_prefix("rate(").and_then(|rest| rest.strip_suffix(')')).ok_or_else(unsupported)?;
    let (count, unit) = inner.split_once(' ').ok_or_else(unsupported)?;
    let count: u64 = count.parse().map_err(|_| unsupported())?;
    let seconds = match (count, unit) {
        (1, "minute") => 60,
        (2.., "minutes") => 60,
        (1, "hour") => 3600,
        (2.., "hours") => 3600,
        (1, "day") => 86_400,
        (2.., "days") => 86_400,
        _ => return Err(unsupported()),
    };
    Ok(Duration::from_secs(count.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rates_are_schedules_here() {
        assert_eq!(rate("rate(1 minute)"), Ok(Duration::from_secs(60)));
        assert_eq!(rate("rate(5 minutes)"), Ok(Duration::from_secs(300)));
        assert_eq!(rate("rate(12 hours)"), Ok(Duration::from_secs(43_200)));
        for wrong in ["rate(1 minutes)", "rate(2 minute)", "rate(0 minutes)", "rate(1 week)", "cron(0 12 * * ? *)", ""]
        {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
