//! One tenant that fills an environment's memory, and the others in it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use serde_json::{Value, json};
use support::{Lab, field, sealed, with};

const ALL: &str = "fields:encrypt:*.* fields:decrypt:*.*";

/// So many subjects' fields of one tenant: as many keys, made and opened in one environment each.
async fn flood(lab: &Lab, keys: usize) {
    for batch in 0..keys / 250 {
        let scoped = |at| with(field("ssn", "42", b"x"), "scope", json!(format!("subject:{batch}-{at}")));
        let items: Vec<Value> = (0..250).map(scoped).collect();
        let made = lab.encrypt_as("globex", ALL, json!(items)).await;
        assert_eq!(made.status, 200);
        let items: Vec<Value> = made.text("record").iter().map(|record| sealed("ssn", "42", record)).collect();
        assert_eq!(lab.decrypt_as("globex", ALL, json!(items)).await.status, 200);
    }
}

#[tokio::test]
async fn a_flood_of_one_tenants_keys_costs_the_others_no_call() {
    let lab = Lab::new();
    let columns: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let plain: Vec<Value> = columns.iter().map(|column| field(column, "42", b"quiet")).collect();
    let records = lab.encrypt(json!(plain)).await.text("record");
    let sealed: Vec<Value> =
        columns.iter().zip(&records).map(|(column, record)| sealed(column, "42", record)).collect();
    assert_eq!(lab.decrypt(json!(sealed)).await.status, 200);
    lab.clock.advance(1);
    flood(&lab, 2_500).await;
    lab.forget();
    assert_eq!(lab.decrypt(json!(sealed)).await.status, 200);
    assert_eq!(lab.encrypt(json!(plain)).await.status, 200);
    assert!(lab.operations().is_empty(), "nothing of a quiet tenant's was pushed out");
    assert!(lab.database.take_calls().is_empty());
}
