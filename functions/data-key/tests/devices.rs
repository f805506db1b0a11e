//! Columns whose plaintext leaves for managed devices only, by whichever operation and way in.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use data_key::{Deployment, DeviceColumns};
use serde_json::{Value, json};
use shared::boot::Handler as _;
use support::{Lab, field, sealed, with};

/// A token that was issued on a device of which this is known, or on none.
fn token(lab: &Lab, managed: Option<Value>) -> String {
    let scope = "fields:decrypt:*.* fields:export:*.* fields:rewrap:*.*";
    let mut more = json!({"scope": scope});
    if let Some(managed) = managed {
        more["device"] = json!({"id": "laptop-7", "source": "operator", "checked_at": support::START / 1000});
        if managed != Value::Null {
            more["device"]["managed"] = managed;
        }
    }
    lab.token_with(&more)
}

#[tokio::test]
async fn plaintext_of_a_named_column_leaves_for_managed_devices_only() {
    let lab = Lab::new();
    let ssn = lab.record().await;
    let email = lab.encrypt(json!([field("email", "42", b"ann@example.com")])).await.text("record").remove(0);
    let demand = |deployment| {
        lab.changed(deployment, |config| config.device_columns = DeviceColumns::parse("users.ssn").unwrap())
    };
    let (decrypt, maintain) = (demand(Deployment::Decrypt), demand(Deployment::Maintain));
    let to = |column: &str, row: &str| json!({"table": "users", "column": column, "row": row});
    let items = json!([sealed("ssn", "42", &ssn), sealed("email", "42", &email)]);
    // A record that goes to another column would be read there; one that stays in its own goes nowhere.
    let moved = json!([
        with(sealed("ssn", "42", &ssn), "to", to("email", "42")),
        with(sealed("email", "42", &email), "to", to("ssn", "42")),
        with(sealed("ssn", "42", &ssn), "to", to("ssn", "43")),
        sealed("ssn", "42", &ssn),
    ]);
    for (device, here) in [
        (None, "forbidden"),
        (Some(json!(null)), "forbidden"),
        (Some(json!(false)), "forbidden"),
        (Some(json!(true)), "ok"),
    ] {
        let token = token(&lab, device.clone());
        let event = |path: &str, items: &Value| lab.event(path, &token, &json!({"items": items}).to_string());
        lab.forget();
        let opened = lab.send(&decrypt, event("/fields/decrypt", &items)).await;
        assert_eq!(opened.codes(), [here, "ok"], "{device:?}");
        let exported = lab.send(&maintain, event("/fields/export", &items)).await;
        assert_eq!(exported.codes(), [here, "ok"], "{device:?}");
        let rewrapped = lab.send(&maintain, event("/fields/rewrap", &moved)).await;
        assert_eq!(rewrapped.codes(), [here, "ok", "ok", "ok"], "{device:?}");
        // Nobody judged a device at the gate for what was invoked directly: what the token says of one counts here too.
        let direct = json!({"operation": "decrypt", "access_token": token, "items": items});
        let answer = decrypt.handle(direct, &lab.invocation()).await.unwrap();
        let codes: Vec<&str> = answer["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["error"]["code"].as_str().unwrap_or("ok"))
            .collect();
        assert_eq!(codes, [here, "ok"], "{device:?}");
    }
    // Where every item is refused, nobody is asked for a key.
    let token = token(&lab, None);
    let cold = demand(Deployment::Decrypt);
    lab.forget();
    let event = lab.event("/fields/decrypt", &token, &json!({"items": [sealed("ssn", "42", &ssn)]}).to_string());
    assert_eq!(lab.send(&cold, event).await.codes(), ["forbidden"]);
    assert!(lab.operations().is_empty() && lab.database.take_calls().is_empty());
    // Without a list nobody is asked for a device.
    let event = lab.event("/fields/decrypt", &token, &json!({"items": items}).to_string());
    assert_eq!(lab.send(&lab.decrypt, event).await.codes(), ["ok", "ok"]);
}
