//! Questions and bundles for the tests of the engine.
#![allow(dead_code, reason = "each test file takes what it needs")]

use cedar::Cedar;
use serde_json::{Value, json};
use shared::policy::{Ask, Bundle, Decision, Loaded, Policies as _, Release, SCHEMA, Unfit};

/// A bundle without examples, which `compile` takes as it is.
pub(crate) fn bundle(policies: &[(&str, &str)], tenants: Value) -> Bundle {
    let policies: Vec<Value> = policies.iter().map(|(id, text)| json!({"id": id, "text": text})).collect();
    let bundle = json!({"schema": SCHEMA, "policies": policies, "tenants": tenants, "examples": []});
    Bundle::parse(&bundle).unwrap()
}

/// The engine with these common policies.
pub(crate) fn engine(policies: &[&str]) -> Cedar {
    compile(policies).unwrap()
}

/// The same, as far as it gets.
pub(crate) fn compile(policies: &[&str]) -> Result<Cedar, Unfit> {
    let names: Vec<String> = (0..policies.len()).map(|at| format!("p{at}")).collect();
    let named: Vec<_> = names.iter().map(String::as_str).zip(policies.iter().copied()).collect();
    Cedar::compile(&bundle(&named, json!({})))
}

/// A bundle with its examples run.
pub(crate) fn load(bundle: Bundle) -> Result<Loaded<Cedar>, Unfit> {
    Loaded::load(Release { version: 1, hash: bundle.hash(), bundle })
}

/// A question, some of it changed: `{"/what/invoke/age": 7}`; a change to `null` takes the member away.
pub(crate) fn ask(changes: Value) -> Ask {
    let mut ask = json!({"principal": {"kind": "machine", "id": "acme-backend", "tenant": "acme"}, "now": 1_800_000_000,
        "net": {"ip": "198.51.100.7", "country": "PT"},
        "what": {"invoke": {"action": "files:read", "method": "GET", "path": "/files/{id}", "iss": "https://gate.example",
            "client_id": "acme-backend", "scopes": ["files:read", "fields:decrypt:users.email"], "age": 10, "bound": false}}});
    for (pointer, value) in changes.as_object().unwrap() {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        let parent = ask.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(member);
        } else {
            parent.insert(member.to_owned(), value.clone());
        }
    }
    serde_json::from_value(ask).unwrap()
}

/// A question about a token.
pub(crate) fn mint(changes: Value) -> Ask {
    mint_by(changes, json!({}))
}

/// The same by somebody or at some time else.
pub(crate) fn mint_by(changes: Value, mut around: Value) -> Ask {
    let mut what = json!({"audience": "https://api.example", "grant": "client_credentials", "issuer": "own",
        "client_id": "acme-backend", "scopes": ["files:read"], "ttl": 300, "bound": false});
    what.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    around.as_object_mut().unwrap().insert("/what".to_owned(), json!({ "mint": what }));
    ask(around)
}

/// A device as a token carries it.
pub(crate) fn device(changes: Value) -> Value {
    let mut device = json!({"id": "d-1", "source": "cloudflare", "checked_at": 1_799_999_900});
    device.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    device
}

/// What became of it, in one word, and by whom.
pub(crate) fn said(decision: &Decision) -> (&'static str, Vec<&str>) {
    (decision.reason.as_str(), decision.policies.iter().map(String::as_str).collect())
}
