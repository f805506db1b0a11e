//! Bundles: their examples, their tenants, and the index that must leave nothing out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

mod support;

use cedar::Cedar;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use shared::policy::{Bundle, Policies as _, SCHEMA, Why};
use support::{ask, load, mint, said};

#[test]
fn the_shipped_bundle_decides_its_examples() {
    load(Bundle::shipped().unwrap()).unwrap_or_else(|unfit| panic!("{unfit:?}"));
}

#[test]
fn no_policy_of_the_shipped_bundle_can_be_turned_dropped_or_widened_unseen() {
    let shipped = Bundle::shipped().unwrap();
    for at in 0..shipped.policies.len() {
        let (id, text) = (shipped.policies[at].id.clone(), shipped.policies[at].text.clone());
        let turned = if text.contains("permit (") {
            text.replace("permit (", "forbid (")
        } else {
            text.replace("forbid (", "permit (")
        };
        let widened = format!("{};", text.rsplit_once("\nwhen").or(text.rsplit_once("\nunless")).unwrap().0);
        for (what, text) in [("turned", turned), ("widened", widened)] {
            let mut bundle = shipped.clone();
            bundle.policies[at].text = text;
            assert_eq!(load(bundle).err().unwrap().why, Why::Example, "{id} {what}");
        }
        let mut bundle = shipped.clone();
        bundle.policies.remove(at);
        assert_eq!(load(bundle).err().unwrap().why, Why::Example, "{id} dropped");
    }
}

#[test]
fn a_bundle_shows_what_it_allows_and_what_it_denies() {
    let shipped = Bundle::shipped().unwrap();
    for keep in ["allow", "deny", "nothing"] {
        let mut bundle = shipped.to_value();
        bundle["examples"].as_array_mut().unwrap().retain(|example| example["expect"] == keep);
        assert_eq!(load(Bundle::parse(&bundle).unwrap()).err().unwrap().why, Why::Example, "{keep}");
    }
    let mut bundle = shipped.to_value();
    bundle["examples"][0]["policies"] = json!(["app"]);
    let unfit = load(Bundle::parse(&bundle).unwrap()).err().unwrap();
    assert_eq!(
        (unfit.why, unfit.detail.as_str()),
        (Why::Example, "permitted by [mint-registered]"),
        "for another reason"
    );
}

#[test]
fn an_error_is_no_denial_that_an_example_could_expect() {
    let fails = r#"forbid (principal, action == Portcullis::Action::"app", resource) when { context.now + 9223372036854775807 > 0 };"#;
    let mut bundle = Bundle::shipped().unwrap().to_value();
    bundle["policies"].as_array_mut().unwrap().push(json!({"id": "fails", "text": fails}));
    assert_eq!(load(Bundle::parse(&bundle).unwrap()).err().unwrap().why, Why::Example);
}

const COMMON: &[(&str, &str)] = &[
    (
        "read",
        r#"permit (principal, action == Portcullis::Action::"files:read", resource) when { context.token.operations.contains("files:read") };"#,
    ),
    (
        "bound",
        r#"forbid (principal, action == Portcullis::Action::"fields:read", resource) unless { context.token.bound };"#,
    ),
];

fn of_tenants() -> Cedar {
    let own = json!({
        "acme": [
            {"id": "more", "text": r#"permit (principal, action in Portcullis::Action::"invoke", resource);"#},
            {"id": "read", "text": r#"forbid (principal, action == Portcullis::Action::"app", resource);"#},
        ],
        "globex": [{"id": "less", "text": r#"forbid (principal, action in Portcullis::Action::"invoke", resource);"#}],
    });
    Cedar::compile(&support::bundle(COMMON, own)).unwrap_or_else(|unfit| panic!("{unfit:?}"))
}

#[test]
fn a_tenants_policies_are_asked_about_its_own_alone() {
    let engine = of_tenants();
    for (tenant, action, reason, by) in [
        ("acme", "files:read", "permitted", &["acme:more", "read"][..]),
        ("acme", "files:write", "permitted", &["acme:more"]),
        ("acme", "app", "forbidden", &["acme:read"]),
        ("globex", "files:read", "forbidden", &["globex:less"]),
        ("globex", "files:write", "forbidden", &["globex:less"]),
        ("initech", "files:read", "permitted", &["read"]),
        ("initech", "files:write", "not_permitted", &[]),
        ("", "files:write", "not_permitted", &[]),
    ] {
        let ask = ask(json!({"/principal/tenant": tenant, "/what/invoke/action": action}));
        assert_eq!(said(&engine.decide(&ask)), (reason, by.to_vec()), "{tenant} {action}");
    }
}

#[test]
fn a_tenants_permit_widens_nothing_that_the_common_ones_forbid() {
    let engine = of_tenants();
    let ask = |bound: bool| ask(json!({"/what/invoke/action": "fields:read", "/what/invoke/bound": bound}));
    assert_eq!(said(&engine.decide(&ask(false))), ("forbidden", vec!["bound"]));
    assert_eq!(said(&engine.decide(&ask(true))), ("permitted", vec!["acme:more"]));
}

#[test]
fn a_tenant_named_in_a_policy_of_another_gains_nothing() {
    let own = json!({"acme": [{"id": "p", "text":
        r#"permit (principal in Portcullis::Tenant::"globex", action == Portcullis::Action::"mint", resource);"#}]});
    let engine = Cedar::compile(&support::bundle(&[], own)).unwrap_or_else(|unfit| panic!("{unfit:?}"));
    for tenant in ["acme", "globex"] {
        let mut ask = mint(json!({}));
        ask.principal.tenant = tenant.to_owned();
        assert!(!engine.decide(&ask).allows(), "{tenant}");
    }
}

/// A head in the scope, where the index sees it, or the same as a condition, where it does not.
#[derive(Clone, Debug)]
struct Rule {
    forbid: bool,
    action: &'static str,
    principal: Option<&'static str>,
    resource: Option<&'static str>,
}

impl Rule {
    fn text(&self, in_head: bool) -> String {
        let effect = if self.forbid { "forbid" } else { "permit" };
        let head = |what: &str, constraint: Option<&str>| match constraint {
            Some(constraint) if in_head => format!("{what} {constraint}"),
            _ => what.to_owned(),
        };
        let conditions: Vec<String> = [("principal", self.principal), ("resource", self.resource)]
            .into_iter()
            .filter_map(|(what, constraint)| Some(format!("{what} {}", constraint.filter(|_| !in_head)?)))
            .collect();
        let when =
            if conditions.is_empty() { String::new() } else { format!(" when {{ {} }}", conditions.join(" && ")) };
        format!(
            "{effect} ({}, action {}, {}){when};",
            head("principal", self.principal),
            self.action,
            head("resource", self.resource)
        )
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let actions = select(vec![
        r#"== Portcullis::Action::"files:read""#,
        r#"== Portcullis::Action::"app""#,
        r#"in Portcullis::Action::"invoke""#,
        r#"in [Portcullis::Action::"files:read", Portcullis::Action::"app"]"#,
    ]);
    let principals = select(vec![
        None,
        Some(r#"== Portcullis::User::"access|1""#),
        Some(r#"in Portcullis::Tenant::"acme""#),
        Some(r#"in Portcullis::Group::"acme/staff""#),
        Some(r#"in Portcullis::User::"access|1""#),
        Some("is Portcullis::User"),
        Some("is Portcullis::Workload"),
        Some(r#"is Portcullis::User in Portcullis::Group::"acme/staff""#),
    ]);
    let resources = select(vec![
        None,
        Some(r#"== Portcullis::Route::"GET /files/{id}""#),
        Some(r#"in Portcullis::Route::"ANY /app/{proxy+}""#),
    ]);
    (any::<bool>(), actions, principals, resources).prop_map(|(forbid, action, principal, resource)| Rule {
        forbid,
        action,
        principal,
        resource,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_index_leaves_nothing_out(rules in prop::collection::vec(rule(), 1..8), tenant in select(vec!["acme", "globex"]),
        human: bool, groups in select(vec![json!([]), json!(["staff"]), json!(["x", "staff"])]),
        route in select(vec![("files:read", "GET", "/files/{id}"), ("app", "ANY", "/app/{proxy+}")])) {
        let compiled = |in_head: bool| {
            let texts: Vec<String> = rules.iter().map(|rule| rule.text(in_head)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            support::engine(&texts)
        };
        let kind = if human { "human" } else { "machine" };
        let groups = if human { groups } else { json!([]) };
        let ask = ask(json!({"/principal": {"kind": kind, "id": "access|1", "tenant": tenant, "groups": groups},
            "/what/invoke/action": route.0, "/what/invoke/method": route.1, "/what/invoke/path": route.2}));
        prop_assert_eq!(compiled(true).decide(&ask), compiled(false).decide(&ask));
    }
}

/// What a decision costs beside 10, 100 and 1,000 policies, printed and not asserted: the machine decides that.
#[test]
fn what_a_decision_costs() {
    let route = |at: usize| format!("POST /app/{at}");
    for (count, spread) in [(10, false), (100, false), (1_000, false), (1_000, true)] {
        let mut policies = Bundle::shipped().unwrap().policies;
        let more = count - policies.len();
        let text = |at: usize| {
            match spread {
            true => format!(r#"forbid (principal, action == Portcullis::Action::"app", resource == Portcullis::Route::"{}") when {{ context.token.age > 600 }};"#, route(at)),
            false => r#"forbid (principal, action == Portcullis::Action::"files:read", resource) when { context.token.age > 600 };"#.to_owned(),
        }
        };
        policies.extend((0..more).map(|at| shared::policy::Policy { id: format!("x{at}"), text: text(at) }));
        let mut bundle = json!({"schema": SCHEMA, "examples": []});
        bundle["policies"] = serde_json::to_value(&policies).unwrap();
        let started = std::time::Instant::now();
        let engine = Cedar::compile(&Bundle::parse(&bundle).unwrap()).unwrap_or_else(|unfit| panic!("{unfit:?}"));
        let (loaded, ask) = (started.elapsed(), ask(json!({})));
        assert!(engine.decide(&ask).allows());
        let started = std::time::Instant::now();
        let times: u32 = if count > 100 && !spread { 20 } else { 200 };
        for _ in 0..times {
            assert!(std::hint::black_box(engine.decide(&ask)).allows());
        }
        let kind = if spread { "of other routes" } else { "of this route" };
        println!(
            "{count} policies, the further ones {kind}: load {loaded:?}, decision {:?}",
            started.elapsed() / times
        );
    }
}

#[test]
fn every_member_of_a_question_is_known_to_the_schema() {
    let engine = support::engine(&[
        r#"permit (principal, action in Portcullis::Action::"invoke", resource);"#,
        r#"permit (principal, action == Portcullis::Action::"mint", resource);"#,
    ]);
    let device: Value = support::device(
        json!({"managed": true, "os": "macOS", "os_version": "15.6.1", "disk_encrypted": true, "firewall": false}),
    );
    let whole = json!({"/device": device, "/what/invoke/sid": "s", "/what/invoke/details": true});
    assert!(engine.decide(&ask(whole)).allows());
    let mut whole = mint(json!({"details": true}));
    whole.device = ask(json!({"/device": device})).device;
    assert!(engine.decide(&whole).allows());
    for action in ["files:create", "files:write", "files:read", "fields:write", "fields:read", "fields:maintain", "app"]
    {
        assert!(engine.decide(&ask(json!({"/what/invoke/action": action}))).allows(), "{action}");
    }
}
