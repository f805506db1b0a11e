//! EventBridge: object events matched against the template's rules, and schedules on the real clock.
//!
//! Delivery is asynchronous invocation, so at least once: Lambda's queue retries twice. The knobs make the promise
//! visible to a test by doubling, losing and reordering events.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, macros::format_description};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    account::Account,
    lambda::{Invoke, Kind},
    request_id,
    template::Deployment,
};

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
        let (knobs, held) = (Knobs::default(), Mutex::new(None));
        let inner = Arc::new(Inner { account, lambda, rules: known, knobs, held });
        Ok(Self { inner, schedules: Mutex::default() })
    }

    /// Publishes the creation of an object.
    pub async fn object_created(&self, created: ObjectCreated) {
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
            if take(&self.knobs.drop) {
                continue;
            }
            let copies = if take(&self.knobs.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                let held = match self.held.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                    Some(held) => {
                        held.push((function.clone(), payload.clone()));
                        true
                    }
                    None => false,
                };
                if !held {
                    self.invoke(function, payload.clone()).await;
                }
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

/// An event pattern: every field must be there and match one of its alternatives.
#[derive(Debug)]
enum Pattern {
    Fields(BTreeMap<String, Pattern>),
    Any(Vec<Test>),
}

#[derive(Debug)]
enum Test {
    Equals(Value),
    EqualsIgnoringCase(String),
    Prefix(String),
    Suffix(String),
    Wildcard(Vec<String>),
    AnythingBut(Vec<Test>),
    Exists(bool),
}

impl Pattern {
    fn parse(value: &Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) if fields.is_empty() => Err("an empty pattern".to_owned()),
            Value::Object(fields) => {
                if let Some(operator) = fields.keys().find(|name| name.starts_with('$')) {
                    return Err(format!("unsupported pattern operator {operator}"));
                }
                let parsed = fields.iter().map(|(name, value)| Ok((name.clone(), Self::parse(value)?)));
                Ok(Self::Fields(parsed.collect::<Result<_, String>>()?))
            }
            Value::Array(tests) if !tests.is_empty() => {
                Ok(Self::Any(tests.iter().map(Test::parse).collect::<Result<_, _>>()?))
            }
            other => Err(format!("a pattern lists alternatives, not {other}")),
        }
    }

    fn matches(&self, event: &Value) -> bool {
        self.holds(Some(event))
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Fields(fields) => fields.iter().all(|(name, pattern)| {
                pattern.holds(value.and_then(Value::as_object).and_then(|object| object.get(name)))
            }),
            Self::Any(tests) => match value {
                Some(Value::Array(items)) => tests.iter().any(|test| match test {
                    Test::Exists(wanted) => *wanted,
                    test => items.iter().any(|item| test.holds(Some(item))),
                }),
                value => tests.iter().any(|test| test.holds(value)),
            },
        }
    }
}

impl Test {
    fn parse(value: &Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) if fields.len() == 1 => Self::operator(fields),
            Value::Object(_) | Value::Array(_) => Err(format!("unsupported alternative {value}")),
            plain => Ok(Self::Equals(plain.clone())),
        }
    }

    fn operator(fields: &Map<String, Value>) -> Result<Self, String> {
        let unsupported = || format!("unsupported alternative {}", Value::Object(fields.clone()));
        let (name, value) = fields.iter().next().ok_or_else(unsupported)?;
        let text = || value.as_str().map(str::to_owned).ok_or_else(unsupported);
        Ok(match name.as_str() {
            "prefix" => Self::Prefix(text()?),
            "suffix" => Self::Suffix(text()?),
            "equals-ignore-case" => Self::EqualsIgnoringCase(text()?),
            "wildcard" => Self::Wildcard(text()?.split('*').map(str::to_owned).collect()),
            "exists" => Self::Exists(value.as_bool().ok_or_else(unsupported)?),
            "anything-but" => Self::AnythingBut(match value {
                Value::Array(items) => items.iter().map(Self::parse).collect::<Result<_, _>>()?,
                one => vec![Self::parse(one)?],
            }),
            _ => return Err(unsupported()),
        })
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        let text = value.and_then(Value::as_str);
        match self {
            Self::Equals(wanted) => value == Some(wanted),
            Self::EqualsIgnoringCase(wanted) => text.is_some_and(|text| text.eq_ignore_ascii_case(wanted)),
            Self::Prefix(prefix) => text.is_some_and(|text| text.starts_with(prefix)),
            Self::Suffix(suffix) => text.is_some_and(|text| text.ends_with(suffix)),
            Self::Wildcard(parts) => text.is_some_and(|text| wildcard(parts, text)),
            Self::AnythingBut(tests) => value.is_some() && !tests.iter().any(|test| test.holds(value)),
            Self::Exists(wanted) => value.is_some() == *wanted,
        }
    }
}

/// `parts` are the texts between the stars.
fn wildcard(parts: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = parts else {
        return parts.first().is_some_and(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
        rest = after;
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_what_eventbridge_would_match() {
        let event = json!({
            "source": "aws.s3",
            "resources": ["a", "b"],
            "detail": {"bucket": {"name": "objects"}, "object": {"key": "t/acme/1", "size": 5, "deleted": null}},
        });
        let cases = [
            (json!({"source": ["aws.s3"]}), true),
            (json!({"source": ["other", "aws.s3"]}), true),
            (json!({"source": ["AWS.S3"]}), false),
            (json!({"source": [{"equals-ignore-case": "AWS.S3"}]}), true),
            (json!({"source": ["aws.s3"], "detail": {"bucket": {"name": ["other"]}}}), false),
            (json!({"resources": ["b"]}), true),
            (json!({"resources": ["c"]}), false),
            (json!({"detail": {"object": {"size": [5]}}}), true),
            (json!({"detail": {"object": {"size": ["5"]}}}), false),
            (json!({"detail": {"object": {"deleted": [null]}}}), true),
            (json!({"detail": {"object": {"key": [{"prefix": "t/"}]}}}), true),
            (json!({"detail": {"object": {"key": [{"prefix": "x/"}, {"suffix": "/1"}]}}}), true),
            (json!({"detail": {"object": {"key": [{"wildcard": "t/*/1"}]}}}), true),
            (json!({"detail": {"object": {"key": [{"wildcard": "t/*/2"}]}}}), false),
            (json!({"detail": {"object": {"key": [{"anything-but": "t/acme/1"}]}}}), false),
            (json!({"detail": {"object": {"key": [{"anything-but": [{"prefix": "x/"}]}]}}}), true),
            (json!({"detail": {"object": {"missing": [{"anything-but": "x"}]}}}), false),
            (json!({"detail": {"object": {"missing": [{"exists": false}]}}}), true),
            (json!({"detail": {"object": {"key": [{"exists": false}]}}}), false),
            (json!({"missing": {"below": [{"exists": false}]}}), true),
            (json!({"missing": {"below": ["x"]}}), false),
        ];
        for (pattern, wanted) in cases {
            assert_eq!(Pattern::parse(&pattern).unwrap().matches(&event), wanted, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_is_not_understood_is_refused() {
        for pattern in [
            json!({}),
            json!([]),
            json!("aws.s3"),
            json!({"source": "aws.s3"}),
            json!({"source": []}),
            json!({"$or": [{"source": ["a"]}]}),
            json!({"source": [{"cidr": "10.0.0.0/8"}]}),
            json!({"source": [{"numeric": ["=", 1]}]}),
            json!({"source": [{"prefix": "a", "suffix": "b"}]}),
            json!({"source": [["a"]]}),
        ] {
            assert!(Pattern::parse(&pattern).is_err(), "{pattern}");
        }
    }

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
