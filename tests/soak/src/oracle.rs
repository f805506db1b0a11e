//! What an answer means: right, a fault that may be, or a violation.
//!
//! **What must be in any weather.** A token that was forged, has expired or is missing is never admitted. A token that holds is never answered
//! 401 or 403. A record opens to its own plaintext or not at all, and never elsewhere. A file is handed out after its upload only, and to
//! its tenant only. An error says nothing of the inside. Every 429 and 503 says when to come back.
//!
//! **What a storm may answer besides**, each with its reason:
//!
//! * no answer: where a rule cuts connections of the gateway, or a call hangs for longer than the gateway waits. Other rules are no reason,
//!   but a cut connection cannot be told from a slow one by whoever sits in front of it, so it is allowed in every storm;
//! * 503 `service_unavailable`, `signer_unavailable`, `trust_stale`, `temporarily_unavailable`, and 429 `too_many_requests`, with
//!   `Retry-After` (docs/errors.md);
//! * 500 `internal_error` where a rule kills processes: the gateway answers so for a function that died (`DEFAULT_5XX`, openapi.yaml);
//! * items of a batch with `kms_throttled`, `kms_unavailable` or `deadline`, which say that they may be sent again;
//! * a completion: 409 `parts_missing` where S3's listing of the parts is old or cut;
//! * a ticket's URL, which lives for 30 s: 403 `AccessDenied` where the clock of the services is as much ahead;
//! * straight at the bucket, what S3 says of itself: 5xx, `SlowDown`, and where sessions end before their time `ExpiredToken`.

use serde_json::Value;

use crate::connection::Got;

/// What surrounds a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// The rules; none in a calm.
    pub rules: String,
    /// Whether the machine has so much else to do that limits of time are missed without any rule: then what says "come back" is no
    /// violation in a calm either, but is counted.
    pub busy: bool,
}

impl Weather {
    /// Whether there are faults at all.
    #[must_use]
    pub fn storms(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether a fault may be.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        self.storms() || self.busy
    }

    /// Whether a rule of one of these places has one of these kinds; an empty list is any.
    #[must_use]
    pub fn has(&self, places: &[&str], kinds: &[&str]) -> bool {
        self.rules.split([';', '\n']).any(|rule| {
            let mut words = rule.split_whitespace();
            let (place, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let place = place.split('.').next().unwrap_or_default();
            let kind = kind.split('=').next().unwrap_or_default();
            let any = |list: &[&str], one: &str| list.is_empty() || list.contains(&one);
            !place.is_empty() && any(places, place) && any(kinds, kind)
        })
    }
}

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// As it must be.
    Right,
    /// A fault that may be.
    Fault,
}

/// What no error of ours says.
const INSIDE: &[&str] = &[
    "arn:",
    "panicked",
    "SELECT ",
    "postgres",
    "SQLSTATE",
    "127.0.0.1",
    "eyJ",
    ".rs:",
    "/tmp/",
    "/var/",
    "kms.",
    "IQoJ",
    "AKIA",
    "ASIA",
    "X-Amz",
    "connection refused",
    "RUST_BACKTRACE",
    "hyper",
    "api.",
];
const COME_BACK: [&str; 4] =
    ["503 service_unavailable", "503 signer_unavailable", "503 trust_stale", "503 temporarily_unavailable"];

/// Judges an answer of the gate, of which these outcomes are right.
///
/// # Errors
/// What is wrong with it.
pub fn judge(right: &[&str], got: &Got, weather: &Weather) -> Result<Judged, String> {
    let Got::Answer(answer) = got else {
        return if weather.may_fail() { Ok(Judged::Fault) } else { Err(got.outcome()) };
    };
    let outcome = answer.outcome();
    let body = String::from_utf8_lossy(&answer.body);
    if answer.status >= 400
        && let Some(inside) = INSIDE.iter().find(|inside| body.contains(**inside))
    {
        return Err(format!("{outcome}, and says {inside:?}: {body}"));
    }
    if [429, 503].contains(&answer.status) && answer.header("retry-after").parse::<u32>().is_err() {
        return Err(format!("{outcome} without Retry-After"));
    }
    if right.contains(&outcome.as_str()) {
        return Ok(Judged::Right);
    }
    let may_be = COME_BACK.contains(&outcome.as_str())
        || outcome == "429 too_many_requests"
        || outcome == "500 internal_error" && weather.has(&["function"], &["crash"]);
    if weather.may_fail() && may_be { Ok(Judged::Fault) } else { Err(format!("{outcome}: {body}")) }
}

/// Judges an answer of the bucket to a signed URL, of which these outcomes are right.
///
/// # Errors
/// What is wrong with it.
pub fn judge_signed(right: &[&str], got: &Got, weather: &Weather) -> Result<Judged, String> {
    let Got::Answer(answer) = got else {
        return if weather.may_fail() { Ok(Judged::Fault) } else { Err(got.outcome()) };
    };
    let outcome = answer.outcome();
    if right.contains(&outcome.as_str()) {
        return Ok(Judged::Right);
    }
    let ended = outcome.ends_with("ExpiredToken") && weather.has(&["s3", "*"], &["expired"]);
    let torn = weather.has(&["s3", "*"], &["cut"])
        && right.iter().any(|right| outcome.split(' ').next() == Some(right.split(' ').next().unwrap_or_default()));
    let may_be = answer.status >= 500 || ended || torn;
    if weather.may_fail() && may_be { Ok(Judged::Fault) } else { Err(outcome) }
}

/// What an item of a batch has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `ok`, with this member.
    Has(&'static str),
    /// `ok`, with this member of this value.
    Is(&'static str, String),
    /// Not `ok`, for one of these reasons.
    Never(&'static [&'static str]),
}

/// Judges a batch: for each item its member, or `None` for a fault that may be. A fault of the whole batch is `Ok(None)`.
///
/// # Errors
/// What is wrong with it.
pub fn judge_items(wanted: &[Item], got: &Got, weather: &Weather) -> Result<Option<Vec<Option<String>>>, String> {
    if judge(&["200", "207"], got, weather)? == Judged::Fault {
        return Ok(None);
    }
    let answer = got.answer().map(local::journey::Answer::json).unwrap_or_default();
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.len() != wanted.len() {
        return Err(format!("{} items for {}: {answer}", items.len(), wanted.len()));
    }
    let each = wanted.iter().zip(items).map(|(wanted, item)| judge_item(wanted, item, weather));
    each.collect::<Result<Vec<_>, _>>().map(Some)
}

fn judge_item(wanted: &Item, item: &Value, weather: &Weather) -> Result<Option<String>, String> {
    let code = item.pointer("/error/code").and_then(Value::as_str).unwrap_or_default();
    if item["ok"] == true {
        let member = |name: &str| {
            let value = item.get(name).map(|value| value.as_array().and_then(|all| all.first()).unwrap_or(value));
            value.and_then(Value::as_str).map(str::to_owned)
        };
        return match wanted {
            Item::Has(name) => member(name).map(Some).ok_or_else(|| format!("no {name}")),
            Item::Is(name, value) if member(name).as_ref() == Some(value) => Ok(member(name)),
            Item::Is(name, _) => Err(format!("another {name} than it was")),
            Item::Never(_) => Err("it opens".to_owned()),
        };
    }
    if let Item::Never(codes) = wanted
        && codes.contains(&code)
    {
        return Ok(None);
    }
    let again = ["kms_throttled", "kms_unavailable", "deadline"].contains(&code) && item["error"]["retryable"] == true;
    if weather.may_fail() && again { Ok(None) } else { Err(format!("an item is {item}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use local::journey::Answer;

    fn got(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Got {
        let mut map = http::HeaderMap::new();
        headers.iter().for_each(|(name, value)| drop(map.insert(*name, value.parse().unwrap())));
        Got::Answer(Answer { status, headers: map, body: body.to_owned().into() })
    }

    fn storm(rules: &str) -> Weather {
        Weather { rules: rules.to_owned(), busy: false }
    }

    const ADMITTED: &str = r#"{"code":"not_found"}"#;
    const UNAUTHORIZED: &str = r#"{"code":"unauthorized"}"#;
    const DOWN: &str = r#"{"code":"service_unavailable"}"#;

    #[test]
    fn a_forged_token_that_is_admitted_is_a_violation_in_any_weather() {
        for weather in [Weather::default(), storm("kms throttle 10%"), storm("gateway lost; function crash 1%")] {
            assert!(judge(&["401 unauthorized"], &got(404, &[], ADMITTED), &weather).is_err());
            assert_eq!(judge(&["401 unauthorized"], &got(401, &[], UNAUTHORIZED), &weather), Ok(Judged::Right));
        }
    }

    #[test]
    fn a_token_that_holds_is_never_refused() {
        for weather in [Weather::default(), storm("s3 5xx; db refuse; clock skew=30s; function crash 9%")] {
            for (status, body) in [(401, UNAUTHORIZED), (403, r#"{"code":"forbidden"}"#), (302, ""), (200, "{}")] {
                assert!(judge(&["404 not_found"], &got(status, &[], body), &weather).is_err(), "{status}");
            }
        }
    }

    #[test]
    fn faults_may_be_in_a_storm_only_and_say_when_to_come_back() {
        let down = got(503, &[("retry-after", "1")], DOWN);
        assert_eq!(judge(&["404 not_found"], &down, &storm("kms 5xx")), Ok(Judged::Fault));
        assert!(judge(&["404 not_found"], &down, &Weather::default()).is_err());
        assert!(judge(&["404 not_found"], &got(503, &[], DOWN), &storm("kms 5xx")).is_err(), "no Retry-After");
        let nothing = Got::Nothing("cut".to_owned());
        assert_eq!(judge(&["200"], &nothing, &storm("gateway lost 1%")), Ok(Judged::Fault));
        assert!(judge(&["200"], &nothing, &Weather::default()).is_err());
        let bug = got(500, &[], r#"{"code":"internal_error"}"#);
        assert!(judge(&["200"], &bug, &storm("kms 5xx; gateway lost 1%")).is_err(), "nobody was killed");
        assert_eq!(judge(&["200"], &bug, &storm("kms 5xx; function.token crash 3%")), Ok(Judged::Fault));
    }

    #[test]
    fn an_error_that_tells_of_the_inside_is_a_violation_even_where_it_is_the_right_one() {
        for inside in INSIDE {
            let body = format!(r#"{{"code":"unauthorized","title":"{inside}"}}"#);
            assert!(judge(&["401 unauthorized"], &got(401, &[], &body), &storm("kms 5xx")).is_err(), "{inside}");
        }
    }

    #[test]
    fn a_record_that_opens_elsewhere_or_to_something_else_is_a_violation() {
        let opened = got(200, &[], r#"{"items":[{"ref":"1","ok":true,"plaintext":"YQ"}]}"#);
        let is = |value: &str| vec![Item::Is("plaintext", value.to_owned())];
        for weather in [Weather::default(), storm("kms cut 5%")] {
            assert_eq!(judge_items(&is("YQ"), &opened, &weather), Ok(Some(vec![Some("YQ".to_owned())])));
            assert!(judge_items(&is("Yg"), &opened, &weather).is_err());
            assert!(judge_items(&[Item::Never(&["decrypt_failed"])], &opened, &weather).is_err());
            assert!(judge_items(&[], &opened, &weather).is_err(), "one item for none");
        }
        let failed = |code: &str, retryable: bool| {
            got(
                207,
                &[],
                &format!(
                    r#"{{"items":[{{"ref":"1","ok":false,"error":{{"code":"{code}","retryable":{retryable}}}}}]}}"#
                ),
            )
        };
        assert!(judge_items(&is("YQ"), &failed("decrypt_failed", false), &storm("kms cut 5%")).is_err());
        for rules in ["kms cut 5%", "kms expired 5%"] {
            assert!(judge_items(&is("YQ"), &failed("kms_denied", false), &storm(rules)).is_err());
        }
        assert!(judge_items(&is("YQ"), &failed("kms_throttled", true), &Weather::default()).is_err());
        assert_eq!(
            judge_items(&is("YQ"), &failed("kms_throttled", true), &storm("kms throttle")),
            Ok(Some(vec![None]))
        );
        let never = [Item::Never(&["decrypt_failed"])];
        assert_eq!(judge_items(&never, &failed("decrypt_failed", false), &Weather::default()), Ok(Some(vec![None])));
    }

    #[test]
    fn a_signed_url_that_takes_what_it_must_not_is_a_violation() {
        let refused = ["412 PreconditionFailed", "400 BadDigest"];
        for weather in [Weather::default(), storm("s3 5xx 10%")] {
            assert!(judge_signed(&refused, &got(200, &[], ""), &weather).is_err());
            assert_eq!(
                judge_signed(&refused, &got(412, &[], "<Code>PreconditionFailed</Code>"), &weather),
                Ok(Judged::Right)
            );
        }
        let ended = got(400, &[], "<Code>ExpiredToken</Code>");
        assert!(judge_signed(&["200"], &ended, &storm("s3 5xx 10%")).is_err());
        assert_eq!(judge_signed(&["200"], &ended, &storm("s3.GetObject expired 10%")), Ok(Judged::Fault));
    }

    #[test]
    fn a_busy_machine_excuses_what_says_come_back_and_nothing_else() {
        let busy = Weather { rules: String::new(), busy: true };
        assert_eq!(judge(&["404 not_found"], &got(503, &[("retry-after", "1")], DOWN), &busy), Ok(Judged::Fault));
        for (status, body) in [(401, UNAUTHORIZED), (503, DOWN), (500, r#"{"code":"internal_error"}"#), (200, "{}")] {
            assert!(judge(&["404 not_found"], &got(status, &[], body), &busy).is_err(), "{status}");
        }
        assert!(judge(&["401 unauthorized"], &got(404, &[], ADMITTED), &busy).is_err());
    }

    #[test]
    fn rules_are_told_apart_by_place_and_kind() {
        let weather = storm("kms.Sign throttle 2%; function.token crash 1%");
        assert!(
            weather.has(&["kms"], &[]) && weather.has(&["function"], &["crash"]) && weather.has(&[], &["throttle"])
        );
        assert!(
            !weather.has(&["function"], &["throttle"])
                && !weather.has(&["s3"], &[])
                && !Weather::default().has(&[], &[])
        );
    }
}
