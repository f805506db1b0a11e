//! `docs/operations/admin.md` against the code: every act has a section, whose line works and whose lists are complete.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use admin::Admin;
use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Handler, Invocation};
use shared::clock::Timestamp;
use shared::entropy::SystemEntropy;
use shared::policy::check;
use shared::port::{Database, Parameter};
use testkit::{FixedClock, Registry, TrustBucket};

const PAGE: &str = include_str!("../../../docs/operations/admin.md");
const ACT: &str = include_str!("../src/act.rs");
const REFUSAL: &str = include_str!("../src/refusal.rs");
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const LINE: &str =
    "aws lambda invoke --function-name portcullis-ENV-admin:live --cli-binary-format raw-in-base64-out --payload ";
const HOW: &str = "docs/operations/admin.md: copy the section of another act and write its heading (## `operation`), what it does, its \
    line (a long payload as `fileb://body.json` with the body in a ```json block), a row per field (`name` or `name`?), `Outcomes: …. Errors: ….`";

/// What the page says of one act.
struct Section {
    operation: &'static str,
    payload: Value,
    /// Name, and whether it may be left out.
    fields: Vec<(&'static str, bool)>,
    outcomes: BTreeSet<&'static str>,
    errors: BTreeSet<&'static str>,
}

/// The words in backticks.
fn named(text: &'static str) -> BTreeSet<&'static str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn sections() -> Vec<Section> {
    PAGE.split("\n## `")
        .skip(1)
        .map(|text| {
            let (operation, text) = text.split_once('`').unwrap();
            let sent = text.lines().find_map(|line| line.strip_prefix(LINE)?.strip_suffix(" /dev/stdout"));
            let sent = match sent {
                // A long one stands in a block of its own.
                Some("fileb://body.json") => {
                    text.split_once("```json\n").and_then(|(_, block)| block.split("```").next())
                }
                sent => sent.and_then(|sent| sent.strip_prefix('\'')?.strip_suffix('\'')),
            };
            let sent = sent.unwrap_or_else(|| panic!("{operation} has no line that begins {LINE}\n{HOW}"));
            let payload = serde_json::from_str(sent).unwrap_or_else(|error| panic!("{operation}: {error}"));
            let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
            let fields = rows.map(|(name, rest)| (name, rest.starts_with('?'))).collect();
            let (outcomes, errors) = text
                .split_once("\nOutcomes: ")
                .and_then(|(_, rest)| rest.split_once(" Errors: "))
                .unwrap_or_else(|| panic!("{operation} names no outcomes and errors\n{HOW}"));
            Section { operation, payload, fields, outcomes: named(outcomes), errors: named(errors) }
        })
        .collect()
}

/// Errors that every act can have.
fn common() -> BTreeSet<&'static str> {
    let text = PAGE.split_once("Errors of every act: ").unwrap().1;
    named(text.split_once("\n\n").unwrap().0)
}

/// The texts between `before` and the next quotation mark.
fn quoted<'a>(source: &'a str, before: &str) -> BTreeSet<&'a str> {
    source.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// All sources of the function, one after the other.
fn sources() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).map(read).collect()
}

/// A world in which an active key and its successor are known.
async fn world() -> Admin<Registry, TrustBucket, FixedClock, SystemEntropy> {
    let registry = Registry::with_tenant("acme");
    let key = |kid: &str, state: &str, ripe: Value| {
        json!({ "kid": kid, "alg": "ES256", "key": "arn", "state": state, "created_ms": 1, "activated_ms": 1, "retired_ms": null,
            "removed_ms": null, "ripe_ms": ripe, "urgent_ms": ripe })
    };
    let stolen = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    let keys = json!([
        key(&"a".repeat(43), "active", json!(null)),
        key(stolen, "published", json!(1)),
        key(&"c".repeat(43), "published", json!(1)),
    ]);
    registry.call("api.trust_signing", vec![Parameter::Int(NOW.millis()), Parameter::Json(keys)]).await.unwrap();
    let (inbox, clock) = (TrustBucket::default(), FixedClock::at(NOW));
    Admin { database: registry, inbox, clock, entropy: SystemEntropy, check: check::<Cedar> }
}

async fn act(admin: &Admin<Registry, TrustBucket, FixedClock, SystemEntropy>, event: Value) -> Value {
    let invocation =
        Invocation { request_id: "req-1".into(), deadline: NOW.plus_seconds(10), function_arn: String::new() };
    admin.handle(event, &invocation).await.unwrap()
}

#[test]
fn the_page_has_every_act_and_no_other() {
    let coded: Vec<&str> = ACT
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" => "))
        .filter(|(name, called)| called.contains('(') && !name.is_empty() && (name.contains('.') || *name == "revoke"))
        .map(|(name, _)| name)
        .collect();
    assert!(coded.len() >= 10, "the acts are no longer where they were read: {coded:?}");
    let told: Vec<&str> = sections().iter().map(|section| section.operation).collect();
    for operation in &coded {
        assert!(told.contains(operation), "{operation} is not on the page. {HOW}");
    }
    for operation in &told {
        assert!(coded.contains(operation), "{operation} is on the page and not in act.rs");
    }
    assert_eq!(told.len(), coded.len(), "an act stands on the page twice");
}

#[tokio::test]
async fn every_line_of_the_page_is_an_act_that_is_done() {
    let admin = world().await;
    for section in sections() {
        let Section { operation, payload, outcomes, .. } = section;
        assert_eq!((&payload["operation"], &payload["operator"]), (&json!(operation), &json!("ann")));
        let answer = act(&admin, payload).await;
        let outcome = answer["outcome"].as_str().unwrap_or_default();
        assert!(outcomes.contains(outcome), "{operation}: {answer} is none of {outcomes:?}");
    }
}

#[tokio::test]
async fn every_field_is_on_the_page_and_is_needed_or_not_as_it_says() {
    let mut told: BTreeSet<&str> = ["operation", "operator"].into();
    for section in sections() {
        let Section { operation, payload, fields, errors, .. } = section;
        for member in
            payload.as_object().unwrap().keys().filter(|name| !["operation", "operator"].contains(&name.as_str()))
        {
            assert!(
                fields.iter().any(|(name, _)| name == member),
                "{operation}: the line has {member}, the rows have not"
            );
        }
        for (name, optional) in fields {
            told.insert(name);
            // `exp` stands in place of `at` with one kind, `at` with the others.
            let mut wrong = payload.clone();
            if operation == "revoke" && name == "at" {
                wrong["kind"] = json!("sub");
            }
            wrong[name] = json!({"a": 1});
            let refused = act(&world().await, wrong).await["error"].clone();
            assert!(
                refused["field"] == name && refused["code"] != "unknown_field",
                "{operation}: {name} is no field of it: {refused}"
            );
            let code = refused["code"].as_str().unwrap();
            assert!(code == "wrong_type" || errors.contains(code), "{operation}: {code} is not among its errors");
            let mut less = payload.clone();
            less.as_object_mut().unwrap().remove(name);
            let refused = act(&world().await, less).await["error"].clone();
            let missing = refused["code"] == "missing_field" && refused["field"] == name;
            assert_eq!(missing, !optional, "{operation}: whether {name} may be left out: {refused}");
        }
    }
    let source = sources();
    let mut read = BTreeSet::new();
    for way in ["text(\"", "bool(\"", "value(\"", "optional_int(\"", "optional_texts(\"", "optional_text(\""] {
        read.extend(quoted(&source, &format!("fields.{way}")));
    }
    let untold: Vec<_> = read.difference(&told).collect();
    assert!(untold.is_empty(), "the sources read {untold:?}, and the page does not say so. {HOW}");
}

#[test]
fn every_error_is_on_the_page_and_no_other() {
    let coded = quoted(REFUSAL, "=> \"");
    assert!(coded.len() >= 25, "the codes are no longer where they were read");
    let mut told = common();
    for Section { operation, errors, outcomes, .. } in sections() {
        assert!(errors.is_disjoint(&common()), "{operation} repeats an error of every act");
        assert!(!outcomes.is_empty(), "{operation} names no outcome");
        told.extend(errors);
    }
    let (untold, unknown) = (coded.difference(&told).collect::<Vec<_>>(), told.difference(&coded).collect::<Vec<_>>());
    assert!(
        untold.is_empty(),
        "refusal.rs knows {untold:?}: name each in the section of the acts that it is of. {HOW}"
    );
    assert!(unknown.is_empty(), "the page names {unknown:?}, which are no errors of admin");
}
