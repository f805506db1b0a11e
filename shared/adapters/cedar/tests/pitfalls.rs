//! What is known to go wrong with Cedar, each as a test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use proptest::prelude::*;
use serde_json::json;
use shared::policy::{Bundle, Policies as _, Reads, Why};
use support::{ask, compile, device, engine, load, mint, said};

const PERMIT: &str = r#"permit (principal, action in Portcullis::Action::"invoke", resource);"#;
/// Valid under the schema, and an overflow whenever it is asked.
const FAILS: &str =
    r#"(principal, action in Portcullis::Action::"invoke", resource) when { context.now + 9223372036854775807 > 0 };"#;

#[test]
fn an_empty_bundle_denies_everything() {
    let empty = load(support::bundle(&[], json!({"acme": []}))).unwrap_or_else(|unfit| panic!("{unfit:?}"));
    for ask in [ask(json!({})), mint(json!({})), ask(json!({"/principal/kind": "human"}))] {
        assert_eq!(said(&empty.decide(&ask)), ("not_permitted", vec![]));
    }
}

#[test]
fn a_policy_that_fails_denies_where_the_engine_would_skip_it() {
    for effect in ["forbid", "permit"] {
        let failing = format!("{effect} {FAILS}");
        let decision = engine(&[PERMIT, &failing]).decide(&ask(json!({})));
        assert_eq!(said(&decision), ("policy_error", vec!["p1"]), "{effect}");
    }
    let others = engine(&[PERMIT, &format!("forbid {FAILS}")]);
    assert_eq!(said(&others.decide(&mint(json!({})))), ("not_permitted", vec![]), "it is not asked about tokens");
}

#[test]
fn an_optional_attribute_must_be_guarded() {
    for unguarded in [
        "context.device.managed",
        "context has device && context.device.managed",
        "context.net.country == \"PT\"",
        "context has device && context.device.os_version > 0",
        "context.token.sid == \"s\"",
    ] {
        let policy =
            format!(r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when {{ {unguarded} }};"#);
        let unfit = compile(&[&policy]).err().unwrap();
        assert_eq!((unfit.why, unfit.at.as_deref()), (Why::Invalid, Some("p0")), "{unguarded}");
    }
}

#[test]
fn what_validates_and_can_never_apply_is_refused() {
    for head in [
        r#"(principal, action == Portcullis::Action::"invoke", resource)"#,
        r#"(principal, action == Portcullis::Action::"files:burn", resource)"#,
        r#"(principal, action == Portcullis::Action::"mint", resource is Portcullis::Route)"#,
        r#"(principal is Portcullis::Group, action == Portcullis::Action::"mint", resource)"#,
        "(principal, action, resource)",
    ] {
        let unfit = compile(&[&format!("permit {head};")]).err().unwrap();
        assert_eq!(unfit.why, Why::Invalid, "{head}: {}", unfit.detail);
    }
    for text in
        ["", "permit", "permit (principal, action, resource); permit (principal, action, resource);", "allow all;"]
    {
        assert_eq!(compile(&[text]).err().unwrap().why, Why::Syntax, "{text}");
    }
}

#[test]
fn a_device_that_is_not_there_is_not_managed() {
    let policy = r#"forbid (principal, action in Portcullis::Action::"invoke", resource) unless {
        context has device && context.device has managed && context.device.managed && context.now - context.device.checked_at < 900 };"#;
    let engine = engine(&[PERMIT, policy]);
    for (device, reason) in [
        (json!(null), "forbidden"),
        (device(json!({})), "forbidden"),
        (device(json!({"managed": false})), "forbidden"),
        (device(json!({"managed": true, "checked_at": 1_799_999_100})), "forbidden"),
        (device(json!({"managed": true, "checked_at": 1_799_999_101})), "permitted"),
    ] {
        let ask = ask(json!({"/device": device}));
        assert_eq!(engine.decide(&ask).reason.as_str(), reason, "{device}");
    }
}

#[test]
fn versions_compare_as_versions_and_what_is_none_is_absent() {
    let policy = r#"permit (principal, action in Portcullis::Action::"invoke", resource) when {
        context has device && context.device has os_version && context.device.os_version >= 15000060000100000 };"#;
    let engine = engine(&[policy]);
    for (version, permitted) in [
        ("15.6.1", true),
        ("15.10", true),
        ("15.6", false),
        ("9.99", false),
        ("26.0", true),
        ("15.6.1-beta", false),
        ("", false),
    ] {
        let device = if version.is_empty() { json!({}) } else { json!({"os_version": version}) };
        let decision = engine.decide(&ask(json!({"/device": support::device(device)})));
        assert_eq!(decision.allows(), permitted, "{version}");
    }
}

#[test]
fn an_address_that_is_unknown_denies_as_soon_as_a_policy_could_need_it() {
    let nowhere = || ask(json!({"/net": null}));
    assert_eq!(said(&engine(&[PERMIT]).decide(&nowhere())), ("permitted", vec!["p0"]));
    for looks in [
        r#"context.net.ip.isInRange(ip("10.0.0.0/8"))"#,
        r#"context.net has country && context.net.country == "KP""#,
        r#"context["net"].ip.isLoopback()"#,
        r#"context["\u{6e}et"].ip.isIpv6()"#,
    ] {
        let policy =
            format!(r#"forbid (principal, action == Portcullis::Action::"app", resource) when {{ {looks} }};"#);
        let decision = engine(&[PERMIT, &policy]).decide(&nowhere());
        assert_eq!(said(&decision), ("net_unknown", vec![]), "{looks}");
    }
}

#[test]
fn what_a_policy_could_look_at_is_known() {
    let reads = |condition: &str| {
        let policy =
            format!(r#"permit (principal, action == Portcullis::Action::"app", resource) when {{ {condition} }};"#);
        engine(&[&policy]).reads()
    };
    let nothing = Reads::default();
    for (condition, expected) in [
        (r#"context.token.operations.contains("app")"#, nothing),
        (r#"context.token has sid && context.token.sid == "s""#, nothing),
        (r#"principal.tenant == Portcullis::Tenant::"acme""#, nothing),
        ("context.token.age < 60", Reads { time: true, ..nothing }),
        (r#"context["token"]["age"] < 60"#, Reads { time: true, ..nothing }),
        ("context.now > 0", Reads { time: true, ..nothing }),
        ("context has device", Reads { device: true, ..nothing }),
        ("context.net.ip.isIpv4() || context.now == 1", Reads { net: true, time: true, ..nothing }),
        (
            "context has device && context.now - context.device.checked_at < 900",
            Reads { device: true, time: true, ..nothing },
        ),
        ("[context.token] == [context.token]", Reads { time: true, ..nothing }),
        ("context == context", Reads::ALL),
        ("if context.token.bound then context.now > 1 else false", Reads { time: true, ..nothing }),
    ] {
        assert_eq!(reads(condition), expected, "{condition}");
    }
    let ttl = r#"permit (principal, action == Portcullis::Action::"mint", resource) when { context.ttl <= 300 };"#;
    assert_eq!(engine(&[ttl]).reads(), nothing);
    assert_eq!(engine(&[]).reads(), nothing);
    let shipped = load(Bundle::shipped().unwrap()).unwrap_or_else(|unfit| panic!("{unfit:?}"));
    assert_eq!(shipped.reads(), nothing, "the shipped bundle looks at tokens and routes");
}

#[test]
fn addresses_are_compared_as_addresses() {
    let engine = engine(&[
        r#"permit (principal, action in Portcullis::Action::"invoke", resource) when { context.net.ip.isInRange(ip("198.51.100.0/24")) };"#,
    ]);
    for (ip, permitted) in
        [("198.51.100.7", true), ("::ffff:198.51.100.7", true), ("198.51.101.7", false), ("2001:db8::1", false)]
    {
        assert_eq!(engine.decide(&ask(json!({"/net/ip": ip}))).allows(), permitted, "{ip}");
    }
}

#[test]
fn a_question_that_the_schema_does_not_know_is_denied() {
    let engine = engine(&[PERMIT]);
    for action in ["files:burn", "invoke", "mint", "", "files:read\"", "FILES:READ"] {
        assert_eq!(
            engine.decide(&ask(json!({"/what/invoke/action": action}))).reason.as_str(),
            "policy_error",
            "{action}"
        );
    }
}

#[test]
fn groups_of_the_same_name_are_each_tenants_own() {
    let engine = engine(&[
        r#"permit (principal in Portcullis::Group::"acme/staff", action in Portcullis::Action::"invoke", resource);"#,
    ]);
    let of = |tenant: &str, groups: serde_json::Value| {
        let who = json!({"kind": "human", "id": "access|1", "tenant": tenant, "groups": groups});
        engine.decide(&ask(json!({"/principal": who}))).allows()
    };
    assert!(of("acme", json!(["staff"])) && of("acme", json!(["a", "staff"])));
    assert!(!of("globex", json!(["staff"])) && !of("acme", json!([])) && !of("globex", json!(["acme/staff"])));
}

#[test]
fn names_are_names_and_never_text_of_the_language() {
    let engine = engine(&[
        r#"permit (principal == Portcullis::Workload::"acme-backend", action in Portcullis::Action::"invoke", resource);"#,
        r#"permit (principal in Portcullis::Tenant::"acme", action == Portcullis::Action::"app", resource);"#,
    ]);
    for id in
        ["acme-backend\"", "\" || true || \"", "acme-backend\u{0}", "*", "Portcullis::Workload::\"acme-backend\"", ""]
    {
        assert!(!engine.decide(&ask(json!({"/principal/id": id}))).allows(), "{id:?}");
    }
    let human = ask(json!({"/principal/kind": "human"}));
    assert!(!engine.decide(&human).allows(), "a person by the name of a workload is another");
}

#[test]
fn a_column_scope_counts_as_its_operation() {
    let engine = engine(&[
        r#"permit (principal, action == Portcullis::Action::"files:read", resource) when { context.token.operations.contains("fields:decrypt") };"#,
    ]);
    let with = |scopes: serde_json::Value| engine.decide(&ask(json!({"/what/invoke/scopes": scopes}))).allows();
    assert!(with(json!(["fields:decrypt:users.email"])) && with(json!(["app", "fields:decrypt:*.*"])));
    assert!(!with(json!(["fields:encrypt:users.email"])) && !with(json!(["app"])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_failing_policy_never_allows_whatever_stands_beside_it(permits in 0..6_usize, at in 0..6_usize, forbids: bool) {
        let failing = format!("{} {FAILS}", if forbids { "forbid" } else { "permit" });
        let mut policies = vec![PERMIT; permits];
        policies.insert(at.min(permits), &failing);
        let decision = engine(&policies).decide(&ask(json!({})));
        prop_assert_eq!(decision.reason.as_str(), "policy_error");
        prop_assert!(!decision.allows());
    }
}
