//! Whatever is left out before the engine is asked, the answer is Cedar's own over all policies and the whole question.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::sync::LazyLock;

use cedar::Cedar;
use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision as Effect, Entities, EntityId, EntityTypeName, EntityUid, Policy,
    PolicyId, PolicySet, Request, Schema,
};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use shared::policy::{Ask, Policies as _, SCHEMA, os_version};
use support::{ask, bundle, device, mint_by};

static PUBLISHED: LazyLock<Schema> = LazyLock::new(|| Schema::from_cedarschema_str(SCHEMA).unwrap().0);

/// Cedar as its manual has it: a request that is checked against the schema, all entities, one set of all policies. On top of it only
/// what `docs/policies.md` says: a policy that fails denies, and every other answer names its policies.
fn plainly(policies: &[(String, String)], ask: &Ask) -> (String, Vec<String>) {
    let asked = serde_json::to_value(ask).unwrap();
    let uid = |kind: &str, id: &str| {
        let kind: EntityTypeName = format!("Portcullis::{kind}").parse().unwrap();
        EntityUid::from_type_name_and_id(kind, EntityId::new(id))
    };
    let text = |pointer: &str| asked.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    let kind = if text("/principal/kind") == "human" { "User" } else { "Workload" };
    let principal = uid(kind, &text("/principal/id"));
    let invoke = asked["what"].get("invoke");
    let (action, of, id) = match invoke {
        None => ("mint".to_owned(), "Audience", text("/what/mint/audience")),
        Some(invoke) => {
            let named = format!("{} {}", invoke["method"].as_str().unwrap(), invoke["path"].as_str().unwrap());
            (text("/what/invoke/action"), "Route", named)
        }
    };
    let (action, resource) = (uid("Action", &action), uid(of, &id));
    let Ok(context) = Context::from_json_value(context(&asked), Some((&PUBLISHED, &action))) else {
        return ("policy_error".to_owned(), vec![]);
    };
    let entities = Entities::from_json_value(entities(&asked, kind, of, &id), Some(&PUBLISHED)).unwrap();
    let request = Request::new(principal, action, resource, context, Some(&PUBLISHED)).unwrap();
    let parsed = policies.iter().map(|(id, text)| Policy::parse(Some(PolicyId::new(id)), text).unwrap());
    let response = Authorizer::new().is_authorized(&request, &PolicySet::from_policies(parsed).unwrap(), &entities);
    let failed = |error: &AuthorizationError| {
        let AuthorizationError::PolicyEvaluationError(error) = error;
        error.policy_id().to_string()
    };
    let failures: Vec<String> = response.diagnostics().errors().map(failed).collect();
    let reasons: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    let (reason, mut named) = match (failures.is_empty(), response.decision(), reasons.is_empty()) {
        (false, ..) => ("policy_error", failures),
        (true, Effect::Allow, _) => ("permitted", reasons),
        (true, Effect::Deny, false) => ("forbidden", reasons),
        (true, Effect::Deny, true) => ("not_permitted", reasons),
    };
    named.sort_unstable();
    (reason.to_owned(), named)
}

/// The context as the schema describes it.
fn context(asked: &Value) -> Value {
    let mut context =
        Map::from_iter([("now".to_owned(), asked["now"].clone()), ("net".to_owned(), asked["net"].clone())]);
    if let Some(device) = asked.get("device") {
        let mut device = device.clone();
        let members = device.as_object_mut().unwrap();
        let version = members.remove("os_version").and_then(|version| os_version(version.as_str().unwrap()));
        members.extend(version.map(|version| ("os_version".to_owned(), version.into())));
        context.insert("device".to_owned(), device);
    }
    let (name, deed) = asked["what"].as_object().unwrap().iter().next().unwrap();
    let mut deed = deed.as_object().unwrap().clone();
    let operation = |scope: &Value| match scope.as_str().unwrap().splitn(3, ':').collect::<Vec<_>>()[..] {
        ["fields", operation, _] => json!(format!("fields:{operation}")),
        _ => scope.clone(),
    };
    let operations: Value = deed["scopes"].as_array().unwrap().iter().map(operation).collect();
    deed.insert("operations".to_owned(), operations);
    deed.entry("details").or_insert(json!(false));
    for name in ["action", "method", "path", "audience"] {
        deed.remove(name);
    }
    match name.as_str() {
        "invoke" => drop(context.insert("token".to_owned(), deed.into())),
        _ => context.extend(deed),
    }
    context.into()
}

fn entities(asked: &Value, kind: &str, of: &str, id: &str) -> Value {
    let named = |kind: &str, id: &str| json!({"type": format!("Portcullis::{kind}"), "id": id});
    let tenant = asked["principal"]["tenant"].as_str().unwrap();
    let groups = asked["principal"]["groups"].as_array().cloned().unwrap_or_default();
    let groups = groups.iter().map(|group| named("Group", &format!("{tenant}/{}", group.as_str().unwrap())));
    let parents: Vec<Value> = groups.chain([named("Tenant", tenant)]).collect();
    let attributes = match &asked["what"]["invoke"] {
        Value::Null => json!({}),
        invoke => json!({"method": invoke["method"], "path": invoke["path"]}),
    };
    let id_of_principal = asked["principal"]["id"].as_str().unwrap();
    json!([
        {"uid": named(kind, id_of_principal), "attrs": {"tenant": {"__entity": named("Tenant", tenant)}}, "parents": parents},
        {"uid": named(of, id), "attrs": attributes, "parents": []},
    ])
}

/// What conditions are made of. Some the screen understands, some it does not; some fail now and then, some always.
const INVOKING: &[&str] = &[
    "context.token.bound",
    "context.token.details == false",
    r#"context.token.client_id == "other""#,
    r#""acme-backend" != context.token.client_id"#,
    r#"context.token.client_id like "acme-*""#,
    r#"["acme-backend", "x"].contains(context.token.client_id)"#,
    r#"context.token.scopes.contains("files:read")"#,
    r#"context.token.operations.containsAny(["fields:decrypt", "app"])"#,
    r#"context.token.scopes.containsAll(["app", "files:read"])"#,
    "context.token.scopes.isEmpty()",
    r#"["files:read", "app"].containsAll(context.token.scopes)"#,
    r#"context.token has sid && context.token.sid == "s1""#,
    r#"!(context.token has sid && context.token.sid != "s1")"#,
    "context.token.client_id == context.token.iss",
    r#"context.token.iss == "https://gate.example""#,
    "context.token.age == context.now",
    "context.token.age > 10",
    "10 >= context.token.age",
    "context.token.age == 10",
    "-5 < context.token.age",
    "context.token.age + 9223372036854775797 > 0",
    "context.token.age + 9223372036854775797 - 1 != 7",
    "context.token.age * 2 < 21",
    r#"resource.method == "GET""#,
    r#"resource.path like "/files*""#,
    r#"resource == Portcullis::Route::"GET /files/{id}""#,
    r#"Portcullis::Route::"GET /files/{id}".method == "GET""#,
    r#"action == Portcullis::Action::"app""#,
    r#"action in Portcullis::Action::"invoke""#,
    "[context.token] == [context.token]",
    "context.token == context.token",
    r#"context.token["bound"] && context["token"].age < 11"#,
    "(if context.token.bound then context.token else context.token).age > 10",
];

const MINTING: &[&str] = &[
    "context.ttl <= 900",
    "context.ttl - 901 == 0",
    "context.ttl + 9223372036854774907 > 0",
    "context.bound",
    "!context.details",
    r#"context.grant == "refresh_token" && context.issuer == "access""#,
    r#"context.scopes.contains("app")"#,
    r#"context.operations.containsAny(["files:read"])"#,
    r#"context.client_id != "other""#,
    r#"resource == Portcullis::Audience::"https://other.example""#,
];

/// What every context has.
const ALWAYS: &[&str] = &[
    "true",
    "context.now > 1800000003",
    "context.now == 1800000001 || context.now == 1800000004",
    "context.now * 9223372036854775807 > 0",
    "context has device",
    "!(context has device)",
    "context has device.os",
    "context has device.managed && context.device.managed",
    "context has device && context.device has managed && !context.device.managed",
    "context has device && context.device has os_version && context.device.os_version < 15000060000100000",
    "context has device && context.now - context.device.checked_at < 100",
    r#"context has device && context.device has os && context.device.os == "macOS""#,
    r#"context has device && context.device.source == "cloudflare" && context.device == context.device"#,
    r#"context has device && context.device.id == "d-1""#,
    "context has device && context.device has disk_encrypted && !context.device.disk_encrypted",
    "context has device.firewall && context.device.firewall",
    "context has grant",
    "context has token",
    r#"context has token && context.token.client_id == "other""#,
    "context has token.sid",
    "context has nothing",
    "context.net has country",
    "context has net.country",
    r#"context.net has country && context.net.country == "XY""#,
    r#"context.net has country && ["PT", "ES"].contains(context.net.country)"#,
    r#"context.net.ip.isInRange(ip("10.0.0.0/8"))"#,
    r#"context.net.ip.isInRange(ip("198.51.100.7"))"#,
    r#"context.net.ip.isInRange(ip("198.51.100.6/31"))"#,
    r#"context.net.ip.isInRange(ip("0.0.0.0/0"))"#,
    r#"context.net.ip.isInRange(ip("::/0"))"#,
    r#"context.net.ip.isInRange(ip("2001:db8::/33"))"#,
    "context.net.ip.isLoopback()",
    r#"context.net.ip == ip("::1")"#,
    r#"principal.tenant == Portcullis::Tenant::"acme""#,
    r#"principal in Portcullis::Group::"acme/staff""#,
    "principal is Portcullis::User",
    r#"principal == Portcullis::User::"access|1""#,
    r#"principal has tenant && principal in [Portcullis::Tenant::"globex", Portcullis::Tenant::"x"]"#,
    r#"Portcullis::User::"access|1".tenant == Portcullis::Tenant::"acme""#,
    r#"Portcullis::User::"access|1" in Portcullis::Group::"acme/staff""#,
    "context == context",
    "context.net == context.net",
    "(if context.now > 1800000002 then context.net else context.net) has country",
    r#"context has device && (if context.now > 1800000002 then context.device else context.device).source == "cloudflare""#,
    "[1, 2].contains(2)",
];

const HEADS: &[(&str, &str)] = &[
    ("principal", "resource"),
    ("principal", "resource"),
    ("principal", "resource"),
    ("principal is Portcullis::User", "resource"),
    ("principal is Portcullis::Workload", "resource"),
    (r#"principal == Portcullis::User::"access|1""#, "resource"),
    (r#"principal in Portcullis::Tenant::"acme""#, "resource"),
    (r#"principal in Portcullis::Group::"acme/staff""#, "resource"),
    (r#"principal is Portcullis::User in Portcullis::Group::"acme/staff""#, "resource"),
];
const ACTIONS: &[&str] = &[
    r#"== Portcullis::Action::"files:read""#,
    r#"== Portcullis::Action::"app""#,
    r#"in Portcullis::Action::"invoke""#,
    r#"in [Portcullis::Action::"files:read", Portcullis::Action::"invoke"]"#,
    r#"in [Portcullis::Action::"files:read", Portcullis::Action::"app"]"#,
    r#"in [Portcullis::Action::"mint", Portcullis::Action::"invoke"]"#,
    r#"== Portcullis::Action::"mint""#,
];

fn condition(atoms: Vec<&'static str>) -> impl Strategy<Value = String> {
    let leaf = select(atoms).prop_map(|atom| format!("({atom})"));
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" && "))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|all| format!("({})", all.join(" || "))),
            inner.clone().prop_map(|one| format!("(!{one})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(if {a} then {b} else {c})")),
        ]
    })
}

/// One policy, or what would be one: what does not validate is no policy, and is left away.
fn policy() -> impl Strategy<Value = String> {
    let head = (any::<bool>(), select(HEADS.to_vec()), select(ACTIONS.to_vec()));
    head.prop_flat_map(|(forbid, (principal, resource), action)| {
        let deeds = if action.contains("mint") { MINTING } else { INVOKING };
        let atoms: Vec<_> = ALWAYS.iter().chain(deeds).copied().collect();
        let resource = if deeds == INVOKING && forbid && principal == "principal" {
            vec![resource, r#"resource == Portcullis::Route::"GET /files/{id}""#, "resource is Portcullis::Route"]
        } else {
            vec![resource]
        };
        let clause = (any::<bool>(), condition(atoms));
        (select(resource), prop::collection::vec(clause, 0..3)).prop_map(move |(resource, clauses)| {
            let clauses = clauses
                .iter()
                .map(|(when, condition)| format!(" {} {{ {condition} }}", if *when { "when" } else { "unless" }));
            let effect = if forbid { "forbid" } else { "permit" };
            format!("{effect} ({principal}, action {action}, {resource}){};", clauses.collect::<String>())
        })
    })
}

/// A question in which some things are as another one has them.
fn asked() -> impl Strategy<Value = Ask> {
    let one = |pointer: &'static str, values: Vec<Value>| select(values).prop_map(move |value| (pointer, value));
    let person = |tenant: &str| json!({"kind": "human", "id": "access|1", "tenant": tenant, "groups": ["staff", "x"]});
    let devices = vec![
        device(json!({})),
        device(json!({"managed": false, "os": "macOS", "os_version": "14.0", "checked_at": 1_799_999_850})),
        device(
            json!({"managed": true, "os": "Windows", "os_version": "15.6.1", "disk_encrypted": true, "firewall": false}),
        ),
    ];
    let nets = vec![
        json!({"ip": "10.1.2.3"}),
        json!({"ip": "198.51.100.7", "country": "XY"}),
        json!({"ip": "::1", "country": "ES"}),
        json!({"ip": "2001:db8:8000::1"}),
    ];
    let around = prop_oneof![
        one("/now", (0..6).map(|more| json!(1_800_000_000 + more)).collect()),
        one("/net", nets),
        one("/device", devices),
        one("/principal", vec![person("acme"), person("globex")]),
        one("/principal/tenant", vec![json!("globex")]),
    ];
    let invoke = prop_oneof![
        one("/what/invoke/age", vec![json!(0), json!(11), json!(21)]),
        one("/what/invoke/action", vec![json!("app"), json!("files:write")]),
        one("/what/invoke/path", vec![json!("/files")]),
        one("/what/invoke/client_id", vec![json!("other")]),
        one("/what/invoke/scopes", vec![json!([]), json!(["app"]), json!(["files:read", "app", "fields:index:a.b"])]),
        one("/what/invoke/bound", vec![json!(true)]),
        one("/what/invoke/details", vec![json!(true)]),
        one("/what/invoke/sid", vec![json!("s1"), json!("s2")]),
    ];
    let mint = prop_oneof![
        one("audience", vec![json!("https://other.example")]),
        one("grant", vec![json!("refresh_token")]),
        one("issuer", vec![json!("access")]),
        one("client_id", vec![json!("other")]),
        one("scopes", vec![json!([]), json!(["app"])]),
        one("ttl", vec![json!(900), json!(901)]),
        one("bound", vec![json!(true)]),
        one("details", vec![json!(true)]),
    ];
    let object = |pairs: Vec<(&str, Value)>| -> Value {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
    };
    let around = prop::collection::vec(around, 0..4);
    prop_oneof![
        3 => (around.clone(), prop::collection::vec(invoke, 0..4))
            .prop_map(move |(around, invoke)| ask(object(around.into_iter().chain(invoke).collect()))),
        1 => (around, prop::collection::vec(mint, 0..4))
            .prop_map(move |(around, mint)| mint_by(object(mint), object(around))),
    ]
}

/// The policies that are some, by the names that they have in the engine.
fn valid(policies: &[String], name: impl Fn(usize) -> String) -> Vec<(String, String)> {
    let valid = policies.iter().filter(|policy| support::compile(&[policy]).is_ok());
    valid.enumerate().map(|(at, policy)| (name(at), policy.clone())).collect()
}

#[test]
fn most_of_what_the_conditions_are_made_of_is_valid() {
    let mut invalid = Vec::new();
    for (action, atoms) in [("app", INVOKING), ("mint", MINTING), ("app", ALWAYS), ("mint", ALWAYS)] {
        for atom in atoms {
            // What is always the same is refused when it stands alone.
            let flag = if action == "app" { "context.token.bound" } else { "context.bound" };
            let text = format!(
                r#"permit (principal, action == Portcullis::Action::"{action}", resource) when {{ {flag} || ({atom}) }};"#
            );
            invalid.extend(support::compile(&[&text]).err());
        }
    }
    assert!(invalid.is_empty(), "{invalid:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_left_out_changes_no_answer(common in prop::collection::vec(policy(), 1..7),
        own in prop::collection::vec(policy(), 0..3), asked in prop::collection::vec(asked(), 24)) {
        let (common, own) = (valid(&common, |at| format!("p{at}")), valid(&own, |at| format!("o{at}")));
        let named: Vec<_> = common.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        let tenants: Vec<_> = own.iter().map(|(id, text)| json!({"id": id, "text": text})).collect();
        let engine = Cedar::compile(&bundle(&named, json!({ "acme": tenants }))).unwrap();
        for ask in asked {
            let mut all = common.clone();
            if ask.principal.tenant == "acme" {
                all.extend(own.iter().map(|(id, text)| (format!("acme:{id}"), text.clone())));
            }
            let expected = plainly(&all, &ask);
            let decision = engine.decide(&ask);
            let found = (decision.reason.as_str().to_owned(), decision.policies.clone());
            prop_assert_eq!(found, expected, "{:?} by {:#?}", ask, all);
        }
    }
}
