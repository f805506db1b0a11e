//! An engine that was asked before answers as one that never was.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};
use shared::policy::Policies as _;
use support::{ask, compile, device, engine, mint_by, said};

/// Policies that look at everything there is to look at, for people, for machines, for one and for all.
const POLICIES: [&str; 14] = [
    r#"permit (principal, action in Portcullis::Action::"invoke", resource) when { context.token.operations.contains("files:read") };"#,
    r#"permit (principal is Portcullis::User, action == Portcullis::Action::"files:read", resource) when { context.token.bound };"#,
    r#"forbid (principal is Portcullis::User, action in Portcullis::Action::"invoke", resource) unless { context has device && context.now - context.device.checked_at < 100 };"#,
    r#"forbid (principal is Portcullis::Workload, action == Portcullis::Action::"app", resource) when { context.token.age > 10 };"#,
    r#"forbid (principal, action == Portcullis::Action::"files:read", resource) when { context.net.ip.isInRange(ip("10.0.0.0/8")) };"#,
    r#"forbid (principal, action == Portcullis::Action::"files:read", resource) when { context.net has country && context.net.country == "XY" };"#,
    r#"forbid (principal in Portcullis::Group::"acme/staff", action == Portcullis::Action::"files:read", resource) when { context has device && context.device has os_version && context.device.os_version < 15000060000100000 };"#,
    r#"forbid (principal in Portcullis::Tenant::"globex", action in Portcullis::Action::"invoke", resource) when { context.now > 1800000005 };"#,
    r#"permit (principal == Portcullis::User::"acme-backend", action == Portcullis::Action::"app", resource);"#,
    r#"forbid (principal, action in Portcullis::Action::"invoke", resource == Portcullis::Route::"GET /files/{id}") when { context.token has sid && context.token.sid == "s1" };"#,
    r#"forbid (principal, action == Portcullis::Action::"files:read", resource) when { context.token.age + 9223372036854775797 > 0 && context.token.details };"#,
    r#"forbid (principal, action == Portcullis::Action::"files:read", resource) when { context.token.client_id == "other" };"#,
    r#"forbid (principal is Portcullis::User in Portcullis::Group::"acme/staff", action == Portcullis::Action::"files:read", resource) when { context.now == 1800000007 };"#,
    r#"permit (principal, action == Portcullis::Action::"app", resource) when { resource.method == "ANY" && principal.tenant == Portcullis::Tenant::"acme" };"#,
];

/// A question in which one or more things are as another one has them.
fn asked() -> impl Strategy<Value = Value> {
    let one =
        |pointer: &'static str, values: Vec<Value>| select(values).prop_map(move |value| json!({ pointer: value }));
    let staff = json!(["staff"]);
    let old = device(json!({"os_version": "14.0.0", "checked_at": 1_799_999_850}));
    prop::collection::vec(
        prop_oneof![
            one("/now", (0..9).map(|more| json!(1_800_000_000 + more)).collect()),
            one("/what/invoke/age", vec![json!(0), json!(10), json!(11)]),
            one(
                "/net",
                vec![json!({"ip": "10.1.2.3"}), json!({"ip": "198.51.100.7", "country": "XY"}), json!({"ip": "::1"})]
            ),
            one("/device", vec![device(json!({})), device(json!({"os_version": "15.6.1"})), old]),
            one("/principal/kind", vec![json!("human"), json!("machine")]),
            one("/principal", vec![json!({"kind": "human", "id": "acme-backend", "tenant": "acme", "groups": staff})]),
            one("/principal/tenant", vec![json!("globex"), json!("acme")]),
            one("/what/invoke/action", vec![json!("app"), json!("files:write")]),
            one("/what/invoke/method", vec![json!("ANY")]),
            one("/what/invoke/path", vec![json!("/files")]),
            one("/what/invoke/client_id", vec![json!("other")]),
            one("/what/invoke/scopes", vec![json!([]), json!(["files:write"]), json!(["files:read", "app"])]),
            one("/what/invoke/bound", vec![json!(true)]),
            one("/what/invoke/details", vec![json!(true)]),
            one("/what/invoke/sid", vec![json!("s1"), json!("s2")]),
        ],
        0..4,
    )
    .prop_map(|changes| {
        let mut all = json!({});
        changes.iter().for_each(|change| all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone()));
        all
    })
}

/// Policies of tokens to be issued.
const MINTING: [&str; 7] = [
    r#"permit (principal, action == Portcullis::Action::"mint", resource) when { context.ttl <= 900 };"#,
    r#"forbid (principal is Portcullis::User, action == Portcullis::Action::"mint", resource) unless { context.bound };"#,
    r#"forbid (principal, action == Portcullis::Action::"mint", resource) when { context.now > 1800000003 };"#,
    r#"forbid (principal, action == Portcullis::Action::"mint", resource) when { context.scopes.contains("app") && !context.details };"#,
    r#"forbid (principal, action == Portcullis::Action::"mint", resource) when { context.net has country && context.net.country == "XY" };"#,
    r#"forbid (principal, action == Portcullis::Action::"mint", resource) when { context.grant == "refresh_token" && context.issuer == "access" };"#,
    r#"forbid (principal, action == Portcullis::Action::"mint", resource == Portcullis::Audience::"https://other.example");"#,
];

/// A question about a token in which one or more things are as another one has them.
fn minted() -> impl Strategy<Value = (Value, Value)> {
    let one = |name: &'static str, values: Vec<Value>| select(values).prop_map(move |value| (name, value));
    let within = prop_oneof![
        one("audience", vec![json!("https://other.example")]),
        one("grant", vec![json!("refresh_token")]),
        one("issuer", vec![json!("access")]),
        one("client_id", vec![json!("other")]),
        one("scopes", vec![json!([]), json!(["app"]), json!(["files:read", "app"])]),
        one("ttl", vec![json!(900), json!(901)]),
        one("bound", vec![json!(true)]),
        one("details", vec![json!(true)]),
    ];
    let around = prop_oneof![
        one("/now", (0..6).map(|more| json!(1_800_000_000 + more)).collect()),
        one("/net", vec![json!({"ip": "198.51.100.7", "country": "XY"}), json!({"ip": "::1"})]),
        one("/principal/kind", vec![json!("human")]),
        one("/principal/tenant", vec![json!("globex")]),
    ];
    let object = |pairs: Vec<(&str, Value)>| pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    (prop::collection::vec(within, 0..3).prop_map(object), prop::collection::vec(around, 0..3).prop_map(object))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn who_issued_before_issues_as_who_did_not(policies in subsequence(MINTING.to_vec(), 1..=MINTING.len()),
        asked in prop::collection::vec(minted(), 2..24)) {
        let experienced = compile(&policies).unwrap();
        for (within, around) in asked {
            let ask = mint_by(within, around);
            prop_assert_eq!(experienced.decide(&ask), compile(&policies).unwrap().decide(&ask), "{:?}", ask);
        }
    }

    #[test]
    fn who_was_asked_before_answers_as_who_was_not(policies in subsequence(POLICIES.to_vec(), 1..=POLICIES.len()),
        asked in prop::collection::vec(asked(), 2..24)) {
        let experienced = compile(&policies).unwrap();
        for changes in asked {
            let ask = ask(changes);
            prop_assert_eq!(experienced.decide(&ask), compile(&policies).unwrap().decide(&ask), "{:?}", ask);
        }
    }
}

#[test]
fn the_second_at_which_an_answer_turns_is_not_slept_through() {
    let engine = engine(&POLICIES[..3]);
    let person = |now: i64| {
        let who = json!({"kind": "human", "id": "access|1", "tenant": "acme"});
        ask(json!({"/principal": who, "/now": now, "/device": device(json!({"checked_at": 1_800_000_000}))}))
    };
    for now in [1_800_000_000, 1_800_000_099] {
        assert!(engine.decide(&person(now)).allows(), "{now}");
    }
    assert_eq!(said(&engine.decide(&person(1_800_000_100))), ("forbidden", vec!["p2"]));
    assert!(engine.decide(&person(1_800_000_099)).allows());
}

#[test]
fn a_failure_is_not_remembered_and_a_good_answer_not_made_of_it() {
    let engine = engine(&[POLICIES[0], POLICIES[10]]);
    let narrowed = |age: i64| ask(json!({"/what/invoke/details": true, "/what/invoke/age": age}));
    for _ in 0..2 {
        assert_eq!(said(&engine.decide(&narrowed(11))).0, "policy_error");
        assert_eq!(said(&engine.decide(&narrowed(10))), ("forbidden", vec!["p1"]));
    }
}
