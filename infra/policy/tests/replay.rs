//! What a log says of a bundle that did not decide it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use policy::{Replay, event, load};
use serde_json::{Value, json};
use shared::audit::Line;
use shared::policy::{Ask, Bundle};

fn ask(action: &str) -> Ask {
    serde_json::from_value(
        json!({"principal": {"kind": "machine", "id": "acme-backend", "tenant": "acme"}, "now": 1_800_000_000,
        "what": {"invoke": {"action": action, "method": "GET", "path": "/files/{id}", "iss": "https://gate.example",
            "client_id": "acme-backend", "scopes": ["files:read"], "age": 10, "bound": false}}}),
    )
    .unwrap()
}

/// A line as the authorizer writes it.
fn line(event: &'static str, decision: &'static str, action: &str) -> String {
    let policies = [String::from("files-read")];
    Line::new("authorizer", event).decision(decision, "policy").list("policies", policies).ask(&ask(action)).render()
}

fn shipped() -> Value {
    let mut bundle = Bundle::shipped().unwrap().to_value();
    bundle.as_object_mut().unwrap().remove("schema");
    bundle
}

#[test]
fn a_log_shows_what_another_bundle_would_change() {
    let mut bundle = shipped();
    bundle["tenants"] = json!({"acme": [{"id": "frozen", "text": "forbid (principal, action in Portcullis::Action::\"invoke\", resource) when { context.now > 1799999999 };"}]});
    let (same, other) = (load(&shipped().to_string()).unwrap(), load(&bundle.to_string()).unwrap());
    let log = [
        format!("2027-01-15T08:00:00.000Z {}", line("request", "allow", "files:read")),
        line("request", "allow", "files:read"),
        line("request", "deny", "files:create"),
        line("policy_shadow", "allow", "files:read"),
        "START RequestId: 6f5 Version: 3".to_owned(),
        r#"{"event":"request","decision":"deny","reason":"token_expired"}"#.to_owned(),
        r#"{"event":"request","decision":"allow","ask":{"what":"else"}}"#.to_owned(),
    ];
    let run = |bundle| {
        let mut replay = Replay::default();
        for one in &log {
            replay.line(one, bundle);
        }
        replay
    };
    let unchanged = run(&same);
    assert_eq!((unchanged.asked, unchanged.passed_over, unchanged.unreadable, unchanged.changes.len()), (3, 3, 1, 0));
    let changed = run(&other);
    assert_eq!(changed.changes.values().sum::<usize>(), 2);
    assert_eq!(
        changed.render(),
        "       2  allow [files-read] -> deny forbidden [acme:frozen]  acme/acme-backend files:read GET /files/{id}\n\
         3 decisions asked again, 2 would change; 3 other lines, 1 unreadable questions\n"
    );
}

#[test]
fn what_is_packed_is_what_was_checked() {
    let packed = event(&shipped().to_string(), "alice").unwrap();
    assert_eq!((packed["operation"].as_str(), packed["operator"].as_str()), (Some("policy.put"), Some("alice")));
    assert_eq!(packed["bundle"], shipped());
    for broken in ["", "[]", "{}", r#"{"policies":[],"policies":[],"examples":[]}"#] {
        assert!(event(broken, "alice").is_err(), "{broken}");
    }
}
