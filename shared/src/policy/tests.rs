use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::audit::Line;
use crate::clock::{Clock, Timestamp};
use crate::port::{Fault, FaultKind, ObjectReader, Read};
use crate::trust::{Envelope, Stale, TrustObject as _};

/// An engine whose policies are two words: what they do, and the action that they are about.
struct Words {
    policies: Vec<(Option<String>, String, String, String)>,
    reads: Reads,
}

impl Policies for Words {
    fn compile(bundle: &Bundle) -> Result<Self, Unfit> {
        let common = bundle.policies.iter().map(|policy| (None, policy));
        let own = bundle
            .tenants
            .iter()
            .flat_map(|(tenant, policies)| policies.iter().map(move |policy| (Some(tenant.clone()), policy)));
        let mut policies = Vec::new();
        for (tenant, Policy { id, text }) in common.chain(own) {
            let (does, about) = text.split_once(' ').ok_or_else(|| Unfit::new(Why::Syntax, "two words").at(id))?;
            let name = tenant.as_ref().map_or(id.clone(), |tenant| format!("{tenant}:{id}"));
            policies.push((tenant, name, does.to_owned(), about.to_owned()));
        }
        let reads = Reads { time: bundle.policies.iter().any(|policy| policy.id == "time"), ..Reads::default() };
        Ok(Self { policies, reads })
    }

    fn decide(&self, ask: &Ask) -> Decision {
        let What::Invoke(invoke) = &ask.what else { return Decision::error() };
        let by = |word: &str| -> Vec<String> {
            let asked = self.policies.iter().filter(|(tenant, _, does, about)| {
                tenant.as_ref().is_none_or(|tenant| *tenant == ask.principal.tenant)
                    && does == word
                    && *about == invoke.action
            });
            asked.map(|(_, name, ..)| name.clone()).collect()
        };
        for (word, reason) in
            [("fail", Reason::PolicyError), ("forbid", Reason::Forbidden), ("permit", Reason::Permitted)]
        {
            let policies = by(word);
            if !policies.is_empty() {
                return Decision { reason, policies };
            }
        }
        Decision { reason: Reason::NotPermitted, policies: Vec::new() }
    }

    fn reads(&self) -> Reads {
        self.reads
    }
}

fn question(action: &str) -> Value {
    json!({"principal": {"kind": "machine", "id": "c", "tenant": "acme"}, "now": 1,
        "what": {"invoke": {"action": action, "method": "GET", "path": "/", "iss": "i", "client_id": "c", "scopes": [],
            "age": 1, "bound": false}}})
}

fn ask(action: &str) -> Ask {
    serde_json::from_value(question(action)).unwrap()
}

fn example(name: &str, action: &str, expect: &str, policies: Option<&[&str]>) -> Value {
    let mut example = json!({"name": name, "ask": question(action), "expect": expect});
    if let Some(policies) = policies {
        example["policies"] = json!(policies);
    }
    example
}

fn value(policies: &[(&str, &str)], examples: &[Value]) -> Value {
    let policies: Vec<Value> = policies.iter().map(|(id, text)| json!({"id": id, "text": text})).collect();
    json!({"schema": SCHEMA, "policies": policies, "examples": examples})
}

/// A bundle that permits `read`, forbids `write`, and shows it.
fn fit() -> Bundle {
    bundle(&[("reads", "permit read"), ("writes", "forbid write")])
}

fn bundle(policies: &[(&str, &str)]) -> Bundle {
    let examples = [example("in", "read", "allow", None), example("out", "other", "deny", None)];
    Bundle::parse(&value(policies, &examples)).unwrap()
}

fn release(bundle: &Bundle) -> Value {
    Release { version: 3, hash: bundle.hash(), bundle: bundle.clone() }.to_value()
}

fn published(active: &Value, candidate: &Value) -> Result<Published<Words>, crate::name::Malformed> {
    Published::parse(&json!({"active": active, "candidate": candidate}))
}

#[test]
fn one_reason_allows_and_each_has_its_name() {
    for (reason, name) in [
        (Reason::Permitted, "permitted"),
        (Reason::NotPermitted, "not_permitted"),
        (Reason::Forbidden, "forbidden"),
        (Reason::PolicyError, "policy_error"),
        (Reason::NetUnknown, "net_unknown"),
    ] {
        let decision = Decision { reason, policies: Vec::new() };
        assert_eq!((decision.allows(), reason.as_str()), (reason == Reason::Permitted, name));
    }
    for (why, name) in [
        (Why::Malformed, "malformed"),
        (Why::TooLarge, "too_large"),
        (Why::Schema, "schema"),
        (Why::Syntax, "syntax"),
        (Why::Invalid, "invalid"),
        (Why::Example, "example"),
        (Why::Hash, "hash"),
    ] {
        assert_eq!(why.as_str(), name);
    }
    assert!(!Decision::error().allows());
}

#[test]
fn what_one_of_two_reads_both_read() {
    let none = Reads::default();
    for one in
        [Reads { time: true, ..none }, Reads { net: true, ..none }, Reads { device: true, ..none }, Reads::ALL, none]
    {
        assert_eq!((one.or(none), none.or(one), one.or(one)), (one, one, one));
    }
}

#[test]
fn a_bundle_must_decide_its_examples_as_they_say_and_show_both_answers() {
    let policies = [("a", "permit read"), ("b", "permit read"), ("c", "forbid write"), ("d", "fail odd")];
    let (allowed, denied) = (example("in", "read", "allow", None), example("out", "other", "deny", None));
    let with = |more: Value| vec![allowed.clone(), denied.clone(), more];
    for (what, examples, at) in [
        ("both shown", vec![allowed.clone(), denied.clone()], None),
        ("by whom, in any order", with(example("x", "read", "allow", Some(&["b", "a"]))), None),
        ("by nobody", with(example("x", "other", "deny", Some(&[]))), None),
        ("forbidden is denied", with(example("x", "write", "deny", Some(&["c"]))), None),
        ("nothing shown", vec![], Some(None)),
        ("only what is allowed", vec![allowed.clone()], Some(None)),
        ("only what is denied", vec![denied.clone()], Some(None)),
        ("allowed after all", with(example("x", "read", "deny", None)), Some(Some("x"))),
        ("denied after all", with(example("x", "other", "allow", None)), Some(Some("x"))),
        ("forbidden after all", with(example("x", "write", "allow", None)), Some(Some("x"))),
        ("a failure is no denial", with(example("x", "odd", "deny", None)), Some(Some("x"))),
        ("a failure is no permission", with(example("x", "odd", "allow", None)), Some(Some("x"))),
        ("by another", with(example("x", "read", "allow", Some(&["c"]))), Some(Some("x"))),
        ("by another beside", with(example("x", "read", "allow", Some(&["a"]))), Some(Some("x"))),
        ("by more", with(example("x", "other", "deny", Some(&["c"]))), Some(Some("x"))),
    ] {
        let judged = check::<Words>(Bundle::parse(&value(&policies, &examples)).unwrap());
        let found = judged.err().map(|unfit| {
            assert_eq!(unfit.why, Why::Example, "{what}");
            unfit.at
        });
        assert_eq!(found.as_ref().map(Option::as_deref), at, "{what}");
    }
    assert_eq!(check::<Words>(bundle(&[("x", "word")])).unwrap_err().why, Why::Syntax);
    // What has no policy has nothing to show; what has one for a tenant alone has.
    let mut empty = value(&[], &[]);
    assert_eq!(check::<Words>(Bundle::parse(&empty).unwrap()), Ok(()));
    assert!(Bundle::parse(&empty).unwrap().is_empty() && !fit().is_empty());
    empty["tenants"] = json!({"acme": [], "globex": [{"id": "a", "text": "permit read"}]});
    assert!(!Bundle::parse(&empty).unwrap().is_empty());
    assert_eq!(check::<Words>(Bundle::parse(&empty).unwrap()).unwrap_err().why, Why::Example);
}

#[test]
fn a_candidate_is_asked_and_told_of_where_it_differs_and_never_heeded() {
    let active = bundle(&[("reads", "permit read"), ("odd", "fail odd"), ("writes", "forbid write")]);
    let candidate =
        bundle(&[("may", "permit read"), ("time", "permit odd"), ("all", "forbid new"), ("x", "fail write")]);
    let both = published(&release(&active), &release(&candidate)).unwrap();
    let shadow = |action: &str| both.judge(&ask(action)).shadow.map(|(decision, hash)| (decision.reason, hash));
    let of_candidate = |reason| Some((reason, candidate.hash()));
    assert_eq!(shadow("read"), None, "both permit, by others");
    assert_eq!(shadow("new"), None, "both deny");
    assert_eq!(shadow("odd"), of_candidate(Reason::Permitted));
    assert_eq!(shadow("write"), of_candidate(Reason::PolicyError), "denied by both, but one fails");
    for (action, reason) in [
        ("read", Reason::Permitted),
        ("odd", Reason::PolicyError),
        ("write", Reason::Forbidden),
        ("new", Reason::NotPermitted),
    ] {
        let judged = both.judge(&ask(action));
        assert_eq!((judged.decision.reason, judged.hash), (reason, active.hash()), "{action}");
    }
    let nothing = bundle(&[("reads", "permit read")]);
    let narrower =
        published(&release(&active), &release(&bundle(&[("r", "permit read"), ("all", "forbid odd")]))).unwrap();
    let shadow = narrower.judge(&ask("odd")).shadow.map(|(decision, _)| decision.reason);
    assert_eq!(shadow, Some(Reason::Forbidden), "fails now and would be forbidden");
    // What either could look at moves.
    assert!(both.reads().time && !narrower.reads().time);
    let timely = published(&release(&candidate), &release(&nothing)).unwrap();
    assert!(timely.reads().time && !published(&release(&nothing), &Value::Null).unwrap().reads().time);
}

#[test]
fn lines_name_the_bundle_and_who_determined() {
    let many: Vec<(String, &str)> = (0..20).map(|at| (format!("p{at:02}"), "permit read")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(id, text)| (id.as_str(), *text)).collect();
    let (active, candidate) = (bundle(&many), bundle(&[("r", "permit read"), ("no", "forbid new")]));
    let turned = bundle(&[("r", "permit read"), ("new", "permit new")]);
    let judged = published(&release(&active), &Value::Null).unwrap().judge(&ask("read"));
    let line: Value = serde_json::from_str(&judged.explain(Line::new("f", "e")).render()).unwrap();
    assert_eq!((&line["policy"], line["policies"].as_array().unwrap().len()), (&json!(active.hash()), 16));
    assert!(judged.shadow_line("f", &ask("read"), "r-1").is_none());
    let judged = published(&release(&turned), &release(&candidate)).unwrap().judge(&ask("new"));
    let line: Value = serde_json::from_str(&judged.shadow_line("f", &ask("new"), "r-1").unwrap().render()).unwrap();
    assert_eq!(
        line,
        json!({"level": "INFO", "function": "f", "event": "policy_shadow", "request_id": "r-1",
            "policy": turned.hash(), "active": "allow", "candidate_policy": candidate.hash(), "candidate": "deny",
            "candidate_reason": "forbidden", "candidate_policies": ["no"], "ask": question("new")})
    );
}

#[test]
fn an_unfit_bundle_serves_nobody_and_an_unfit_candidate_is_none() {
    let good = release(&fit());
    let unfit = release(&bundle(&[("writes", "forbid write")]));
    let mut altered = good.clone();
    altered["bundle"]["policies"][0]["text"] = json!("permit other");
    for bad in [&unfit, &altered, &Value::Null, &json!([1, "", {}]), &json!({"version": 1})] {
        assert!(published(bad, &good).is_err(), "{bad}");
        assert!(published(&good, bad).unwrap().candidate.is_none(), "{bad}");
    }
    assert!(published(&good, &good).unwrap().candidate.is_some());
    for body in [json!([]), json!({}), json!({"candidate": good}), json!({"active": good, "next": good})] {
        assert!(Published::<Words>::parse(&body).is_err(), "{body}");
    }
    assert!(Published::<Words>::parse(&json!({"active": good})).unwrap().candidate.is_none());
    assert_eq!((Published::<Words>::FRESH, Published::<Words>::LAST_GOOD), (60_000, 3_600_000));
    let loaded = published(&good, &Value::Null).unwrap().active;
    assert_eq!((loaded.version, &loaded.hash), (3, &fit().hash()));
}

/// What was compiled once is not compiled again, whether it is published again or promoted, and nothing else is taken for it.
#[test]
fn what_is_published_again_is_what_it_was() {
    let (one, two) = (fit(), bundle(&[("r", "permit read"), ("n", "permit new")]));
    let held = published(&release(&one), &release(&two)).unwrap();
    let mut later = release(&two);
    later["version"] = json!(4);
    let next = held.follow(&json!({"active": later, "candidate": release(&one)})).unwrap();
    assert_eq!((next.active.version, next.candidate.as_ref().unwrap().version), (4, 3));
    assert_eq!([&next.active.hash, &next.candidate.as_ref().unwrap().hash], [&two.hash(), &one.hash()]);
    assert!(next.judge(&ask("new")).decision.allows() && !held.judge(&ask("new")).decision.allows());
    assert_eq!(next.judge(&ask("new")).shadow.map(|(decision, _)| decision.reason), Some(Reason::NotPermitted));
    let third = bundle(&[("r", "permit read"), ("w", "permit write")]);
    let next = held.follow(&json!({"active": release(&third)})).unwrap();
    assert!(next.judge(&ask("write")).decision.allows() && next.candidate.is_none());
    assert!(held.follow(&json!({"active": release(&bundle(&[("w", "forbid write")]))})).is_err());
}

/// What a bundle may have at the most, and one more.
#[test]
fn a_bundle_is_as_large_as_it_may_be_and_no_larger() {
    let numbered = |count: usize| -> Vec<Value> {
        (0..count).map(|at| json!({"id": format!("p{at}"), "text": "permit read"})).collect()
    };
    let shown = |count: usize| vec![example("in", "read", "allow", None); count];
    let named = |length: usize| vec![example(&"n".repeat(length), "read", "allow", None)];
    let why = |value: &Value| Bundle::parse(value).err().map(|unfit| unfit.why);
    let of =
        |policies: &[Value], examples: &[Value]| json!({"schema": SCHEMA, "policies": policies, "examples": examples});
    assert_eq!(why(&of(&numbered(5_000), &[])), None);
    assert_eq!(why(&of(&numbered(5_001), &[])), Some(Why::TooLarge));
    let mut spread = of(&numbered(2_500), &[]);
    spread["tenants"] = json!({"acme": numbered(2_500)});
    assert_eq!(why(&spread), None);
    spread["tenants"]["globex"] = json!(numbered(1));
    assert_eq!(why(&spread), Some(Why::TooLarge));
    assert_eq!(why(&of(&[], &shown(2_000))), None);
    assert_eq!(why(&of(&[], &shown(2_001))), Some(Why::TooLarge));
    assert_eq!((why(&of(&[], &named(200))), why(&of(&[], &named(201)))), (None, Some(Why::TooLarge)));
    let long = |length: usize| of(&[json!({"id": "a", "text": " ".repeat(length)})], &[]);
    assert_eq!((why(&long(16_384)), why(&long(16_385))), (None, Some(Why::TooLarge)));
    let policies = |count: usize, last: usize| -> Vec<Value> {
        let length = |at: usize| if at + 1 == count { last } else { 16_384 };
        (0..count).map(|at| json!({"id": format!("p{at:04}"), "text": " ".repeat(length(at))})).collect()
    };
    let size = |value: &Value| serde_json::to_string(value).unwrap().len();
    let rest = 2 * 1024 * 1024 - size(&of(&policies(128, 0), &[]));
    assert_eq!((size(&of(&policies(128, rest), &[])), rest < 16_384), (2 * 1024 * 1024, true));
    assert_eq!(why(&of(&policies(128, rest), &[])), None);
    assert_eq!(why(&of(&policies(128, rest + 1), &[])), Some(Why::TooLarge));
    for (id, named) in [
        ("a".repeat(64), true),
        ("9".to_owned(), true),
        ("a.b_c-d".to_owned(), true),
        ("a".repeat(65), false),
        (String::new(), false),
        (".a".to_owned(), false),
        ("-".to_owned(), false),
        ("a b".to_owned(), false),
        ("é".to_owned(), false),
    ] {
        let value = of(&[json!({"id": id, "text": "permit read"})], &[]);
        assert_eq!(why(&value), (!named).then_some(Why::Malformed), "{id}");
    }
    let nul = of(&[json!({"id": "a", "text": "permit \u{0}"})], &[]);
    assert_eq!(why(&nul), Some(Why::Malformed));
}

struct At(i64);

impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(self.0)
    }
}

#[derive(Default)]
struct Bucket(AtomicBool);

impl ObjectReader for Arc<Bucket> {
    async fn read(&self, key: &str, _: Option<&str>) -> Result<Read, Fault> {
        if self.0.load(Ordering::SeqCst) || key != "trust/policies.json" {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "GetObject"));
        }
        let envelope =
            Envelope { version: 1, issued_at: 1, not_after: 10_000_000, body: json!({"active": release(&fit())}) };
        Ok(Read::Found { body: envelope.seal(), etag: "e".to_owned() })
    }
}

#[tokio::test]
async fn a_judge_answers_by_what_is_published_and_nobody_where_nothing_is() {
    let bucket = Arc::new(Bucket::default());
    let judge = Policing::<Words, _, _>::new(Arc::clone(&bucket), At(1));
    assert!(judge.judge(&ask("read")).await.unwrap().decision.allows());
    bucket.0.store(true, Ordering::SeqCst);
    assert!(!judge.judge(&ask("write")).await.unwrap().decision.allows(), "what was read a moment ago");
    let judge = Policing::<Words, _, _>::new(bucket, At(1));
    assert_eq!(judge.judge(&ask("read")).await, Err(Stale("trust/policies.json")));
}

#[test]
fn operations_are_named_once_and_a_question_reads_as_it_was_written() {
    let mut question = question("read");
    question["what"]["invoke"]["scopes"] = json!(["fields:decrypt:a.b", "fields:decrypt:*.*", "files:read"]);
    let asked: Ask = serde_json::from_value(question.clone()).unwrap();
    assert_eq!(asked.operations(), ["fields:decrypt", "files:read"]);
    assert_eq!(serde_json::to_value(&asked).unwrap(), question, "what is false or absent is not written");
    question["what"]["invoke"]["details"] = json!(true);
    question["net"] = json!({"ip": "198.51.100.7", "country": "PT"});
    question["device"] = json!({"id": "d", "source": "s", "checked_at": 1});
    let asked: Ask = serde_json::from_value(question.clone()).unwrap();
    assert_eq!(serde_json::to_value(&asked).unwrap(), question);
    question["device"]["risk"] = json!(1);
    assert!(serde_json::from_value::<Ask>(question).is_err());
    let mint = json!({"principal": {"kind": "human", "id": "access|1", "tenant": "acme", "groups": ["staff"]}, "now": 1,
        "what": {"mint": {"audience": "a", "grant": "g", "issuer": "own", "client_id": "c", "scopes": ["app"], "ttl": 300, "bound": true}}});
    let asked: Ask = serde_json::from_value(mint.clone()).unwrap();
    assert_eq!((asked.operations(), serde_json::to_value(&asked).unwrap()), (vec!["app"], mint));
}
