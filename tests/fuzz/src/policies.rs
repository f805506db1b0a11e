//! Policies: a text that compiles decides the same whatever it cannot look at, and a bundle prints as it was read.

use std::net::IpAddr;
use std::sync::LazyLock;

use cedar::Cedar;
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::device::Device;
use shared::policy::{
    Ask, Bundle, Decision, Invoke, Loaded, Mint, Net, Policies, Principal, Reason, Release, SCHEMA, What,
};

/// Questions that policies are asked, with and without all that may be unknown.
static ASKS: LazyLock<Vec<Ask>> = LazyLock::new(|| {
    let person =
        |kind: &str, groups: &[&str]| json!({"kind": kind, "id": "acme-backend", "tenant": "acme", "groups": groups});
    let invoke = |action: &str, scope: &str| {
        json!({"invoke": {"action": action, "method": "GET", "path": "/files/{id}", "iss": "https://gate.example",
            "client_id": "acme-backend", "scopes": [scope], "age": 10, "bound": true}})
    };
    let mint = json!({"mint": {"audience": "https://api.example", "grant": "client_credentials", "issuer": "own",
        "client_id": "acme-backend", "scopes": ["files:read"], "ttl": 300, "bound": false}});
    let ask = |principal: Value, what: Value| {
        let ask = json!({"principal": principal, "now": 1_800_000_000, "net": {"ip": "198.51.100.7", "country": "PT"},
            "device": {"id": "d", "managed": true, "os": "macos", "os_version": "15.6.1", "disk_encrypted": true,
                "source": "operator", "checked_at": 1_799_999_000}, "what": what});
        serde_json::from_value(ask).unwrap()
    };
    vec![
        ask(person("machine", &[]), invoke("files:read", "files:read")),
        ask(person("human", &["staff"]), invoke("fields:read", "fields:decrypt:users.email")),
        ask(person("human", &["staff"]), mint.clone()),
        ask(person("machine", &[]), mint),
    ]
});

/// The text of one policy.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let bundle = json!({"schema": SCHEMA, "policies": [{"id": "p", "text": text}],
        "tenants": {"globex": [{"id": "p", "text": text}]}, "examples": []});
    let Ok(bundle) = Bundle::parse(&bundle) else { return };
    assert_eq!(Bundle::parse(&bundle.to_value()).as_ref(), Ok(&bundle));
    let Ok(engine) = Cedar::compile(&bundle) else { return };
    // Whoever keeps an answer may keep it as long as nothing moves that the policies could look at.
    let reads = engine.reads();
    // Another process comes to the same answer, which remembers nothing yet.
    let fresh = Cedar::compile(&bundle).expect("it compiled before");
    for ask in ASKS.iter() {
        let decision = engine.decide(ask);
        assert_eq!(engine.decide(ask), decision, "a second time it is another answer");
        assert!(decision.policies.iter().all(|name| name == "p"), "{:?} is not acme's", decision.policies);
        assert_eq!(fresh.decide(ask), decision);
        for (may, moved) in [(reads.time, later(ask)), (reads.net, elsewhere(ask)), (reads.device, on_another(ask))] {
            assert!(may || engine.decide(&moved) == decision, "it looked at what it does not say that it reads");
        }
        let unknown = Ask { net: None, ..ask.clone() };
        let expected = if reads.net { Reason::NetUnknown } else { decision.reason };
        assert_eq!(engine.decide(&unknown).reason, expected);
        allows_what_it_says(&decision);
    }
}

fn allows_what_it_says(decision: &Decision) {
    assert_eq!(decision.allows(), decision.reason == Reason::Permitted);
    assert!(!decision.allows() || !decision.policies.is_empty(), "nobody permitted it");
}

fn later(ask: &Ask) -> Ask {
    let mut moved = Ask { now: ask.now + 86_400 * 3, ..ask.clone() };
    if let What::Invoke(Invoke { age, .. }) = &mut moved.what {
        *age += 200;
    }
    moved
}

fn elsewhere(ask: &Ask) -> Ask {
    let ip: IpAddr = "2001:db8::7".parse().unwrap();
    Ask { net: Some(Net { ip, country: None }), ..ask.clone() }
}

fn on_another(ask: &Ask) -> Ask {
    let other = Device {
        id: "e".to_owned(),
        managed: Some(false),
        checked_at: Timestamp::from_seconds(1),
        ..ask.device.clone().unwrap()
    };
    Ask { device: if ask.now % 2 == 0 { Some(other) } else { None }, ..ask.clone() }
}

/// A bundle or a release of one, as an operator or the bucket brings it. Its schema is put in: there is one that passes.
pub fn policy_bundle(data: &[u8]) {
    let Ok(mut value) = shared::json::value(data, 16) else { return };
    if let Some(members) = value.as_object_mut().filter(|members| !members.contains_key("bundle")) {
        members.entry("schema").or_insert_with(|| SCHEMA.into());
    }
    if let Ok(release) = Release::parse(&value) {
        assert_eq!(release.bundle.hash(), release.hash, "the hash is another bundle's");
    }
    let Ok(bundle) = Bundle::parse(&value) else { return };
    assert_eq!(Bundle::parse(&bundle.to_value()).as_ref(), Ok(&bundle));
    let release = Release { version: 1, hash: bundle.hash(), bundle };
    assert_eq!(Release::parse(&release.to_value()).as_ref(), Ok(&release));
    let mut altered = release.to_value();
    altered["bundle"]["policies"] = json!([{"id": "x", "text": "permit (principal, action, resource);"}]);
    assert!(altered == release.to_value() || Release::parse(&altered).is_err());
    let asks: Vec<_> = release.bundle.examples.iter().map(|example| example.ask.clone()).collect();
    let Ok(loaded) = Loaded::<Cedar>::load(release) else { return };
    for ask in &asks {
        allows_what_it_says(&loaded.decide(ask));
        let text = serde_json::to_value(ask).unwrap();
        assert_eq!(serde_json::from_value::<Ask>(text).ok().as_ref(), Some(ask));
        match &ask.what {
            What::Mint(Mint { scopes, .. }) | What::Invoke(Invoke { scopes, .. }) => {
                assert!(ask.operations().len() <= scopes.len());
            }
        }
        let Principal { tenant, .. } = &ask.principal;
        let foreign = |name: &String| name.split_once(':').is_some_and(|(of, _)| of != tenant);
        assert!(!loaded.decide(ask).policies.iter().any(foreign), "another tenant's policy had a say");
    }
}
