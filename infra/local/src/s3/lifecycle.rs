//! Lifecycle rules: what of a bucket ends by itself, judged on the stack's clock.
//!
//! What a rule says ends at the midnight (UTC) after its days are over, as AWS rounds it (S3 user guide, "Lifecycle configuration
//! elements"); AWS removes it some time after that, this stand-in before the first request of the new day. Storage classes, and filters by
//! tag, size or date, are refused: nothing here has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::{
    AbortIncompleteMultipartUpload, ExpirationStatus, LifecycleExpiration, LifecycleRule, NoncurrentVersionExpiration,
    Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Result};
use serde_json::{Map, Value};

use super::conditions::http_date;
use super::refusal::{error, not_implemented};
use crate::account::letters;

const DAY: u64 = 86_400;
const MOST_RULES: usize = 1_000;
const LONGEST_ID: usize = 255;

/// One rule that is in force, as far as it says anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    id: String,
    prefix: String,
    expires: Option<u64>,
    lone_markers: bool,
    noncurrent: Option<u64>,
    newest_kept: usize,
    unfinished: Option<u64>,
}

impl Rule {
    /// When a current object of this key, written then, becomes a former one.
    pub(crate) fn expires(&self, key: &str, written: SystemTime) -> Option<SystemTime> {
        self.expires.filter(|_| self.covers(key)).map(|days| end(written, days))
    }

    /// Whether a version that was replaced then, by so many newer former ones, is over.
    pub(crate) fn former_is_over(&self, key: &str, replaced: SystemTime, newer: usize, now: SystemTime) -> bool {
        self.covers(key) && newer >= self.newest_kept && self.noncurrent.is_some_and(|days| end(replaced, days) <= now)
    }

    /// Whether a delete marker that has nothing left to hide is over.
    pub(crate) fn marker_is_over(&self, key: &str, made: SystemTime, now: SystemTime) -> bool {
        self.covers(key) && (self.lone_markers || self.expires.is_some_and(|days| end(made, days) <= now))
    }

    /// Whether an upload that was begun then is given up.
    pub(crate) fn upload_is_over(&self, key: &str, begun: SystemTime, now: SystemTime) -> bool {
        self.covers(key) && self.unfinished.is_some_and(|days| end(begun, days) <= now)
    }

    fn covers(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
    }

    fn read(rule: &LifecycleRule) -> S3Result<(Self, bool)> {
        if rule.transitions.is_some() || rule.noncurrent_version_transitions.is_some() {
            return Err(not_implemented());
        }
        let enabled = match rule.status.as_str() {
            ExpirationStatus::ENABLED => true,
            ExpirationStatus::DISABLED => false,
            _ => return Err(malformed()),
        };
        let prefix = prefix(rule)?;
        let mut read = Self { id: rule.id.clone().unwrap_or_default(), prefix, ..Self::default() };
        if let Some(expiration) = &rule.expiration {
            let days = expiration.days.map(|days| positive(days, "Expiration")).transpose()?;
            match (days, expiration.expired_object_delete_marker, &expiration.date) {
                (_, _, Some(_)) => return Err(not_implemented()),
                (Some(days), None, None) => read.expires = Some(days),
                (None, Some(lone), None) => read.lone_markers = lone,
                _ => return Err(malformed()),
            }
        }
        if let Some(former) = &rule.noncurrent_version_expiration {
            let days = former.noncurrent_days.ok_or_else(malformed)?;
            read.noncurrent = Some(positive(days, "NoncurrentVersionExpiration")?);
            read.newest_kept =
                usize::try_from(former.newer_noncurrent_versions.unwrap_or_default()).map_err(|_| malformed())?;
        }
        if let Some(unfinished) = &rule.abort_incomplete_multipart_upload {
            let days = unfinished.days_after_initiation.ok_or_else(malformed)?;
            read.unfinished = Some(positive(days, "AbortIncompleteMultipartUpload")?);
        }
        let acts = rule.expiration.is_some() || read.noncurrent.is_some() || read.unfinished.is_some();
        if !acts {
            let message = "At least one action needs to be specified in a rule";
            return Err(error(S3ErrorCode::InvalidRequest, message));
        }
        Ok((read, enabled))
    }
}

/// The rules of one bucket.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    given: Vec<LifecycleRule>,
    rules: Vec<Rule>,
}

impl Lifecycle {
    /// Reads the property `LifecycleConfiguration` of a bucket in a template.
    ///
    /// # Errors
    /// What is not known, and what S3 would refuse.
    pub fn of_template(configuration: &Value) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let rules = configuration.get("Rules").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let given = rules.iter().filter_map(|rule| of_template(rule, &mut faults)).collect();
        if configuration.as_object().is_none_or(|all| all.keys().any(|name| name != "Rules")) {
            faults.push("LifecycleConfiguration: unknown property".to_owned());
        }
        let read = Self::read(given).map_err(|refused| vec![format!("LifecycleConfiguration: {refused:?}")]);
        if faults.is_empty() { read } else { Err(faults) }
    }

    /// Checks what a caller gives and names the rules that have no name.
    pub(crate) fn read(mut given: Vec<LifecycleRule>) -> S3Result<Self> {
        if given.is_empty() || given.len() > MOST_RULES {
            return Err(malformed());
        }
        let (mut rules, mut names) = (Vec::new(), BTreeSet::new());
        for rule in &mut given {
            let id = rule.id.get_or_insert_with(|| letters(48)).clone();
            if id.len() > LONGEST_ID {
                let message = "ID length should not exceed allowed limit of 255";
                return Err(error(S3ErrorCode::InvalidArgument, message));
            }
            if !names.insert(id.clone()) {
                let message = format!("Rule ID must be unique. Found same ID for more than one rule: {id}");
                return Err(error(S3ErrorCode::InvalidArgument, message));
            }
            let (read, enabled) = Rule::read(rule)?;
            rules.extend(enabled.then_some(read));
        }
        Ok(Self { given, rules })
    }

    /// The rules as they were given.
    pub(crate) fn given(&self) -> Vec<LifecycleRule> {
        self.given.clone()
    }
}

/// The rules of all buckets, and when they were last followed.
#[derive(Debug, Default)]
pub(crate) struct Lifecycles {
    held: Mutex<BTreeMap<String, Lifecycle>>,
    /// The day, counted from the epoch.
    followed: AtomicU64,
}

impl Lifecycles {
    /// Puts these rules in place of those that the bucket had, or none.
    pub(crate) fn set(&self, bucket: &str, lifecycle: Option<Lifecycle>) {
        let mut held = self.lock();
        match lifecycle {
            Some(lifecycle) => held.insert(bucket.to_owned(), lifecycle),
            None => held.remove(bucket),
        };
        self.followed.store(0, Ordering::SeqCst);
    }

    pub(crate) fn of(&self, bucket: &str) -> Option<Lifecycle> {
        self.lock().get(bucket).cloned()
    }

    /// The buckets and their rules, if a day has begun, or rules have changed, since they were last asked for.
    pub(crate) fn due(&self, now: SystemTime) -> Vec<(String, Vec<Rule>)> {
        let today = seconds(now) / DAY;
        if self.followed.swap(today, Ordering::SeqCst) == today {
            return Vec::new();
        }
        self.lock().iter().map(|(bucket, lifecycle)| (bucket.clone(), lifecycle.rules.clone())).collect()
    }

    /// `x-amz-expiration` of a current object.
    pub(crate) fn expiration(&self, bucket: &str, key: &str, written: SystemTime) -> Option<String> {
        let held = self.lock();
        let rules = held.get(bucket)?.rules.iter();
        let (ends, rule) =
            rules.filter_map(|rule| Some((rule.expires(key, written)?, rule))).min_by_key(|(ends, _)| *ends)?;
        let date = http_date(&Timestamp::from(ends))?;
        let id: String = url::form_urlencoded::byte_serialize(rule.id.as_bytes()).collect();
        Some(format!("expiry-date=\"{date}\", rule-id=\"{id}\""))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Lifecycle>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The midnight after so many days.
fn end(since: SystemTime, days: u64) -> SystemTime {
    let day = (seconds(since) / DAY).saturating_add(days).saturating_add(1);
    UNIX_EPOCH.checked_add(Duration::from_secs(day.saturating_mul(DAY))).unwrap_or(since)
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map(|passed| passed.as_secs()).unwrap_or_default()
}

/// Of a rule in either form: `Filter`, or the older `Prefix`.
fn prefix(rule: &LifecycleRule) -> S3Result<String> {
    match (&rule.filter, &rule.prefix) {
        (Some(filter), None) => {
            let other = filter.and.is_some()
                || filter.tag.is_some()
                || filter.object_size_greater_than.is_some()
                || filter.object_size_less_than.is_some();
            if other { Err(not_implemented()) } else { Ok(filter.prefix.clone().unwrap_or_default()) }
        }
        (None, Some(prefix)) => Ok(prefix.clone()),
        // Neither, or both.
        _ => Err(malformed()),
    }
}

fn positive(days: i32, action: &str) -> S3Result<u64> {
    let refused =
        || error(S3ErrorCode::InvalidArgument, format!("'Days' for {action} action must be a positive integer"));
    u64::try_from(days).ok().filter(|days| *days > 0).ok_or_else(refused)
}

fn malformed() -> S3Error {
    error(
        S3ErrorCode::MalformedXML,
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
}

/// A rule as CloudFormation spells it. A template's rule without a prefix is one for the whole bucket.
fn of_template(rule: &Value, faults: &mut Vec<String>) -> Option<LifecycleRule> {
    const KNOWN: [&str; 7] = [
        "Id",
        "Status",
        "Prefix",
        "ExpirationInDays",
        "ExpiredObjectDeleteMarker",
        "NoncurrentVersionExpiration",
        "AbortIncompleteMultipartUpload",
    ];
    let all = rule.as_object()?;
    faults.extend(unknown(all, &KNOWN));
    let mut days = |within: &Map<String, Value>, name: &str| {
        let number = template::scalar(within.get(name)?)?.parse::<i32>().ok();
        if number.is_none() {
            faults.push(format!("lifecycle rule: {name} is no whole number"));
        }
        number
    };
    let expiration = LifecycleExpiration {
        days: days(all, "ExpirationInDays"),
        expired_object_delete_marker: all.get("ExpiredObjectDeleteMarker").and_then(Value::as_bool),
        ..Default::default()
    };
    let former = all.get("NoncurrentVersionExpiration").and_then(Value::as_object).map(|former| {
        let (noncurrent_days, newer) = (days(former, "NoncurrentDays"), days(former, "NewerNoncurrentVersions"));
        NoncurrentVersionExpiration { noncurrent_days, newer_noncurrent_versions: newer }
    });
    let unfinished = all.get("AbortIncompleteMultipartUpload").and_then(Value::as_object).map(|unfinished| {
        AbortIncompleteMultipartUpload { days_after_initiation: days(unfinished, "DaysAfterInitiation") }
    });
    let text = |name: &str| all.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(LifecycleRule {
        abort_incomplete_multipart_upload: unfinished,
        expiration: Some(expiration).filter(|one| *one != LifecycleExpiration::default()),
        filter: None,
        id: text("Id"),
        noncurrent_version_expiration: former,
        noncurrent_version_transitions: None,
        prefix: Some(text("Prefix").unwrap_or_default()),
        status: ExpirationStatus::from(text("Status").unwrap_or_default()),
        transitions: None,
    })
}

fn unknown(all: &Map<String, Value>, known: &[&str]) -> Vec<String> {
    let unknown = all.keys().filter(|name| !known.contains(&name.as_str()));
    unknown.map(|name| format!("lifecycle rule: unknown property `{name}`")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(day: u64, hour: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(day * DAY + hour * 3_600)
    }

    fn one(rule: Value) -> Rule {
        Lifecycle::of_template(&json!({ "Rules": [rule] })).unwrap().rules.remove(0)
    }

    #[test]
    fn days_are_over_at_the_midnight_after_them() {
        // AWS's own example: written on the 15th at 10:30, three days, ends when the 19th begins.
        let rule = one(json!({"Id": "a", "Status": "Enabled", "Prefix": "logs/", "ExpirationInDays": 3}));
        assert_eq!(rule.expires("logs/x", at(15, 10)), Some(at(19, 0)));
        assert_eq!(rule.expires("other/x", at(15, 10)), None);
    }

    #[test]
    fn a_former_version_counts_from_its_replacement_and_the_newest_are_kept() {
        let former = json!({"NoncurrentDays": "30", "NewerNoncurrentVersions": 1});
        let rule = one(json!({"Status": "Enabled", "NoncurrentVersionExpiration": former}));
        assert!(!rule.former_is_over("k", at(1, 5), 1, at(31, 23)));
        assert!(rule.former_is_over("k", at(1, 5), 1, at(32, 0)));
        assert!(!rule.former_is_over("k", at(1, 5), 0, at(320, 0)), "the newest former one");
    }

    #[test]
    fn a_rule_that_is_off_does_nothing_and_one_that_cannot_be_is_refused() {
        let off = Lifecycle::of_template(&json!({"Rules": [{"Id": "a", "Status": "Disabled", "ExpirationInDays": 1}]}));
        assert_eq!(off.unwrap().rules, []);
        for (rule, told) in [
            (json!({"Status": "Enabled"}), "At least one action"),
            (json!({"Status": "On", "ExpirationInDays": 1}), "MalformedXML"),
            (json!({"Status": "Enabled", "ExpirationInDays": 0}), "positive integer"),
            (json!({"Status": "Enabled", "ExpirationInDays": "x"}), "no whole number"),
            (json!({"Status": "Enabled", "ExpirationInDays": 1, "ExpiredObjectDeleteMarker": true}), "MalformedXML"),
            (json!({"Status": "Enabled", "TagFilters": [], "ExpirationInDays": 1}), "unknown property `TagFilters`"),
            (json!({"Status": "Enabled", "NoncurrentVersionExpiration": {}}), "MalformedXML"),
        ] {
            let faults = Lifecycle::of_template(&json!({ "Rules": [rule] })).unwrap_err().join("; ");
            assert!(faults.contains(told), "{rule}: {faults}");
        }
        let twice = json!({"Id": "a", "Status": "Enabled", "ExpirationInDays": 1});
        let faults = Lifecycle::of_template(&json!({ "Rules": [twice, twice] })).unwrap_err().join("; ");
        assert!(faults.contains("must be unique"), "{faults}");
        assert!(Lifecycle::of_template(&json!({ "Rules": [] })).is_err());
    }

    #[test]
    fn rules_are_followed_once_a_day_and_when_they_change() {
        let all = Lifecycles::default();
        let rule = json!({"Rules": [{"Id": "a b", "Status": "Enabled", "ExpirationInDays": 1}]});
        all.set("b", Some(Lifecycle::of_template(&rule).unwrap()));
        assert_eq!(all.due(at(20, 1)).len(), 1);
        assert_eq!(all.due(at(20, 23)).len(), 0);
        assert_eq!(all.due(at(21, 0)).len(), 1);
        let told = all.expiration("b", "k", at(0, 3)).unwrap();
        assert_eq!(told, r#"expiry-date="Sat, 03 Jan 1970 00:00:00 GMT", rule-id="a+b""#);
        all.set("b", None);
        assert_eq!((all.due(at(21, 1)).len(), all.expiration("b", "k", at(0, 3))), (0, None));
    }
}
