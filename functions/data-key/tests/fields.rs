//! What the two deployments promise, run in-process over honest fakes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop where it stands")]

mod support;

use data_key::Deployment;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use shared::boot::{Handler as _, Invocation};
use shared::encoding::base64url;
use shared::name::{Identifier, Tenant};
use shared::pc1::{Context, DataKey, MessageId, Row, seal};
use shared::port::FaultKind;
use support::{ARN, Lab, answer, bytes, field, sealed, with};

const DAY: i64 = 86_400_000;

#[tokio::test]
async fn what_was_encrypted_decrypts_in_its_place() {
    let lab = Lab::new();
    let items = json!([
        field("ssn", "42", b"123-45-6789"),
        field("email", "42", b""),
        with(field("ssn", "43", &[0xff, 0]), "version", json!("7")),
        with(field("ssn", "44", b"x"), "version", json!(0)),
        with(field("ssn", "45", b"subject"), "scope", json!("subject:s-1")),
    ]);
    let sealed_items = lab.encrypt(items).await;
    assert_eq!((sealed_items.status, sealed_items.codes()), (200, vec!["ok"; 5]));
    let records = sealed_items.text("record");
    assert!(records.iter().all(|record| record.starts_with("AQ")));
    assert_eq!(bytes(&records[0]).len(), 97 + 11);

    let opened = lab
        .decrypt(json!([
            sealed("ssn", "42", &records[0]),
            sealed("email", "42", &records[1]),
            with(sealed("ssn", "43", &records[2]), "version", json!(7)),
            with(sealed("ssn", "44", &records[3]), "version", json!("0")),
            sealed("ssn", "45", &records[4]),
        ]))
        .await;
    assert_eq!(opened.status, 200);
    let plaintexts: Vec<Vec<u8>> = opened.text("plaintext").iter().map(|text| bytes(text)).collect();
    assert_eq!(plaintexts, [b"123-45-6789".to_vec(), vec![], vec![0xff, 0], b"x".to_vec(), b"subject".to_vec()]);
    assert_eq!(opened.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_record_opens_nowhere_else() {
    let lab = Lab::new();
    let record = lab.record().await;
    let other = lab.encrypt(json!([field("email", "42", b"other")])).await.text("record").remove(0);
    let crossed = [&bytes(&record)[..81], &bytes(&other)[81..]].concat();
    for item in [
        sealed("email", "42", &record),
        sealed("ssn", "43", &record),
        with(sealed("ssn", "42", &record), "table", json!("people")),
        with(sealed("ssn", "42", &record), "version", json!("0")),
        with(sealed("ssn", "42", &record), "version", json!("1")),
        with(with(sealed("ssn", "42", &record), "table", json!("ssn")), "column", json!("users")),
        sealed("ssn", "42", &base64url(&crossed)),
    ] {
        let answer = lab.decrypt(json!([item])).await;
        assert_eq!((answer.status, answer.codes()), (207, vec!["decrypt_failed"]), "{item}");
        assert_eq!(answer.items()[0]["error"], json!({"code": "decrypt_failed", "retryable": false}));
    }
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
}

#[tokio::test]
async fn every_bit_of_a_record_matters() {
    let lab = Lab::new();
    let record = bytes(&lab.record().await);
    let flipped: Vec<Value> = (0..record.len() * 8)
        .map(|bit| {
            let mut record = record.clone();
            record[bit / 8] ^= 1 << (bit % 8);
            sealed("ssn", "42", &base64url(&record))
        })
        .collect();
    let answer = lab.decrypt(Value::Array(flipped)).await;
    assert_eq!((answer.status, answer.codes().len()), (207, 864));
    for (bit, code) in answer.codes().into_iter().enumerate() {
        let expected: &[&str] = match bit / 8 {
            0 => &["unsupported_version", "use_import"],
            1..17 => &["key_unavailable"],
            _ => &["decrypt_failed"],
        };
        assert!(expected.contains(&code), "bit {bit}: {code}");
    }
}

#[tokio::test]
async fn records_of_another_length_or_version_say_what_they_are() {
    let lab = Lab::new();
    let record = bytes(&lab.record().await);
    let starting = |byte: u8| [&[byte], &record[1..]].concat();
    for (record, code) in [
        (vec![], "malformed"),
        (record[..96].to_vec(), "malformed"),
        ([&[1_u8][..], &[0; 65_633]].concat(), "malformed"),
        (starting(0), "unsupported_version"),
        (starting(2), "use_import"),
        (starting(0xff), "unsupported_version"),
        (b"AQGSAAAAAHAAgAAAAAAAAKFA".repeat(5), "unsupported_version"),
        (record[..record.len() - 1].to_vec(), "decrypt_failed"),
        ([&record[..], &[0]].concat(), "decrypt_failed"),
    ] {
        let answer = lab.decrypt(json!([sealed("ssn", "42", &base64url(&record))])).await;
        assert_eq!(answer.codes(), [code], "{} bytes", record.len());
    }
}

#[tokio::test]
async fn bytes_on_the_wire_are_canonical_base64url() {
    let lab = Lab::new();
    for text in ["AQI=", "AQJ", "A", "A QI", "AQ+/", "AQI\n", "AQI\u{e9}"] {
        let item = with(field("ssn", "42", b""), "plaintext", json!(text));
        assert_eq!(lab.encrypt(json!([item])).await.codes(), ["malformed"], "{text:?}");
        assert_eq!(lab.decrypt(json!([sealed("ssn", "42", text)])).await.codes(), ["malformed"], "{text:?}");
    }
    assert!(lab.kms.take_calls().is_empty() && lab.database.take_calls().is_empty());
}

#[tokio::test]
async fn a_key_of_another_tenant_is_as_unknown_as_one_that_never_was() {
    let lab = Lab::new();
    let record = lab.record().await;
    let mut unknown = bytes(&record);
    unknown[16] ^= 1;
    lab.forget();
    let foreign = lab.decrypt_as("globex", "fields:decrypt:*.*", json!([sealed("ssn", "42", &record)])).await;
    let foreign_calls = (lab.operations(), lab.database.take_calls());
    let unknown =
        lab.decrypt_as("globex", "fields:decrypt:*.*", json!([sealed("ssn", "42", &base64url(&unknown))])).await;
    let unknown_calls = (lab.operations(), lab.database.take_calls());
    assert_eq!((foreign.status, &foreign.body), (unknown.status, &unknown.body));
    assert_eq!(foreign.codes(), ["key_unavailable"]);
    assert_eq!(foreign_calls, unknown_calls);
    assert_eq!(foreign_calls, (vec![], vec!["api.data_keys_for_decrypt"]));
}

#[tokio::test]
async fn a_warm_key_of_one_tenant_serves_no_other() {
    let lab = Lab::new();
    let record = lab.record().await;
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.status, 200, "warm for acme");
    let foreign = lab.decrypt_as("globex", "fields:decrypt:*.*", json!([sealed("ssn", "42", &record)])).await;
    assert_eq!(foreign.codes(), ["key_unavailable"]);
    // The same column of another tenant is another key, in a warm environment too, and neither opens the other's.
    let theirs = lab
        .encrypt_as("globex", "fields:encrypt:*.*", json!([field("ssn", "42", b"987-65-4321")]))
        .await
        .text("record")
        .remove(0);
    assert_ne!(bytes(&theirs)[1..17], bytes(&record)[1..17]);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &theirs)])).await.codes(), ["key_unavailable"]);
    let mut grafted = bytes(&theirs);
    grafted[1..17].copy_from_slice(&bytes(&record)[1..17]);
    let grafted = base64url(&grafted);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &grafted)])).await.codes(), ["decrypt_failed"]);
}

#[tokio::test]
async fn a_humans_token_is_no_credential_of_a_direct_invocation() {
    let lab = Lab::new();
    for (kind, code) in [("machine", None), ("human", Some("unauthorized"))] {
        let event =
            json!({"operation": "encrypt", "access_token": lab.token_of(kind), "items": [field("ssn", "1", b"x")]});
        let answer = lab.encrypt.handle(event, &lab.invocation()).await.unwrap();
        assert_eq!(answer.get("code").and_then(Value::as_str), code, "{kind}: {answer}");
    }
    // Nor is a machine's that must come with a service token, whose assertion has no place here.
    let token = lab.token_with(&json!({"service": "e367826f93b8d71185e03fe518aff3b4.access"}));
    let event = json!({"operation": "encrypt", "access_token": token, "items": [field("ssn", "1", b"x")]});
    assert_eq!(lab.encrypt.handle(event, &lab.invocation()).await.unwrap()["code"], "unauthorized");
}

#[tokio::test]
async fn an_index_key_opens_no_record() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.database.rows(|rows| rows[0].purpose = "index".to_owned());
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_unavailable"]);
}

#[tokio::test]
async fn a_key_of_another_column_is_not_even_unwrapped() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.forget();
    assert_eq!(lab.decrypt(json!([sealed("email", "42", &record)])).await.codes(), ["decrypt_failed"]);
    assert_eq!(lab.operations(), [""; 0]);
}

#[tokio::test]
async fn what_somebody_did_to_a_key_row_is_found_out() {
    let swap = |rows: &mut Vec<testkit::data_keys::Row>| {
        let first = rows[0].wrapped.clone();
        rows[0].wrapped = rows[1].wrapped.clone();
        rows[1].wrapped = first;
    };
    let foreign = |rows: &mut Vec<testkit::data_keys::Row>| {
        for row in rows {
            row.kms_key_arn = ARN.replace("1234abcd", "00000000");
        }
    };
    let moved = |rows: &mut Vec<testkit::data_keys::Row>| rows[0].wrapped.as_mut().unwrap()[20] ^= 1;
    for (change, code) in
        [(&swap as &dyn Fn(&mut Vec<_>), "key_unavailable"), (&foreign, "key_unavailable"), (&moved, "key_unavailable")]
    {
        let lab = Lab::new();
        let records = lab.encrypt(json!([field("ssn", "42", b"a"), field("email", "42", b"b")])).await.text("record");
        lab.database.rows(change);
        assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &records[0])])).await.codes(), [code]);
    }
    let lab = Lab::new();
    let record = lab.record().await;
    lab.database.rows(|rows| rows[0].context = json!({"tenant": "globex"}));
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"], "the copy decides nothing");
}

#[tokio::test]
async fn a_foreign_kms_key_in_the_row_is_never_called() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.database.rows(|rows| rows[0].kms_key_arn = ARN.replace("1234abcd", "00000000"));
    lab.forget();
    lab.clock.advance(301_000);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_unavailable"]);
    assert_eq!(lab.encrypt(json!([field("ssn", "43", b"x")])).await.codes(), ["key_unavailable"]);
    assert_eq!(lab.operations(), [""; 0]);
}

#[tokio::test]
async fn a_data_key_of_another_length_is_no_key() {
    for length in [0, 31, 33] {
        let lab = Lab::new();
        let record = lab.record().await;
        lab.kms.set_length(length);
        assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_unavailable"]);
    }
}

#[tokio::test]
async fn the_writers_wrapping_cannot_serve_the_reader() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.database.rows(|rows| rows[0].wrapped = rows[0].writer_wrapped.clone());
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_unavailable"]);
}

#[tokio::test]
async fn each_deployment_names_its_own_purpose_to_kms() {
    let lab = Lab::new();
    let record = lab.record().await;
    let purposes: Vec<_> = lab.kms.take_calls().iter().map(|call| (call.operation, call.context.purpose)).collect();
    assert_eq!(purposes, [("GenerateDataKey", "field"), ("Encrypt", "writer")]);
    lab.decrypt(json!([sealed("ssn", "42", &record)])).await;
    let calls = lab.kms.take_calls();
    let id = lab.database.rows(|rows| rows[0].id);
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].operation, calls[0].context.purpose), ("Decrypt", "field"));
    assert_eq!((calls[0].context.tenant.as_str(), calls[0].context.data_key_id), ("acme", id));
    lab.send(
        &lab.fresh(Deployment::Encrypt),
        lab.event(
            "/fields/encrypt",
            &lab.token("acme", "fields:encrypt:*.*"),
            &json!({"items": [field("ssn", "42", b"x")]}).to_string(),
        ),
    )
    .await;
    let calls = lab.kms.take_calls();
    assert_eq!((calls.len(), calls[0].operation, calls[0].context.purpose), (1, "Decrypt", "writer"));
}

#[tokio::test]
async fn a_shredded_key_opens_nothing_and_a_closed_one_still_opens() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.database.rows(|rows| rows[0].state = "decrypt_only".to_owned());
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
    lab.database.rows(|rows| {
        rows[0].state = "shredded".to_owned();
        rows[0].wrapped = None;
    });
    lab.clock.advance(300_000);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_shredded"]);
}

#[tokio::test]
async fn shredding_a_subject_acts_at_once() {
    let lab = Lab::new();
    let item = with(field("ssn", "42", b"x"), "scope", json!("subject:s-1"));
    let record = lab.encrypt(json!([item])).await.text("record").remove(0);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
    lab.forget();
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec!["api.data_keys_for_decrypt"]));
    assert_eq!(lab.encrypt(json!([item])).await.codes(), ["ok"]);
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec!["api.current_data_keys"]));
    lab.database.rows(|rows| {
        rows[0].state = "shredded".to_owned();
        (rows[0].wrapped, rows[0].writer_wrapped) = (None, None);
    });
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_shredded"]);
    let renewed = lab.encrypt(json!([item])).await.text("record").remove(0);
    assert_ne!(bytes(&renewed)[1..17], bytes(&record)[1..17]);
}

#[tokio::test]
async fn a_key_encrypts_for_its_day_and_no_longer() {
    let lab = Lab::new();
    let key_of = |record: &str| bytes(record)[1..17].to_vec();
    let first = lab.record().await;
    lab.clock.advance(DAY - 1);
    assert_eq!(key_of(&lab.record().await), key_of(&first));
    lab.clock.advance(1);
    let second = lab.record().await;
    assert_ne!(key_of(&second), key_of(&first));
    let states = lab.database.rows(|rows| {
        rows.iter()
            .map(|row| (row.state.clone(), row.writer_wrapped.is_some(), row.wrapped.is_some()))
            .collect::<Vec<_>>()
    });
    assert_eq!(states, [("decrypt_only".to_owned(), false, true), ("active".to_owned(), true, true)]);
    let both = lab.decrypt(json!([sealed("ssn", "42", &first), sealed("ssn", "42", &second)])).await;
    assert_eq!(both.codes(), ["ok", "ok"]);
}

#[tokio::test]
async fn a_key_in_memory_ends_with_its_day() {
    let lab = Lab::new();
    lab.record().await;
    lab.clock.advance(DAY - 100_000);
    let last = lab.record().await;
    lab.clock.advance(99_999);
    assert_eq!(bytes(&lab.record().await)[1..17], bytes(&last)[1..17]);
    lab.clock.advance(1);
    assert_ne!(bytes(&lab.record().await)[1..17], bytes(&last)[1..17]);
}

#[tokio::test]
async fn a_key_that_was_replaced_elsewhere_is_not_used_again() {
    let lab = Lab::new();
    let item = with(field("ssn", "42", b"x"), "scope", json!("subject:s-1"));
    let first = lab.encrypt(json!([item])).await.text("record").remove(0);
    lab.database.rows(|rows| {
        rows[0].state = "decrypt_only".to_owned();
        rows[0].writer_wrapped = None;
    });
    let body = json!({"items": [item]}).to_string();
    let event = lab.event("/fields/encrypt", &lab.token("acme", "fields:encrypt:*.*"), &body);
    lab.send(&lab.fresh(Deployment::Encrypt), event).await;
    lab.forget();
    let second = lab.encrypt(json!([item])).await.text("record").remove(0);
    assert_ne!(bytes(&second)[1..17], bytes(&first)[1..17]);
    assert_eq!(lab.operations(), ["Decrypt"]);
    // Memory had messages of the old key only, so the new one was asked for more.
    assert_eq!(lab.database.take_calls(), ["api.current_data_keys", "api.current_data_keys"]);
    assert_eq!(lab.database.rows(|rows| rows[1].reserved), 20_000);
    let both = lab.decrypt(json!([sealed("ssn", "42", &first), sealed("ssn", "42", &second)])).await;
    assert_eq!(both.codes(), ["ok", "ok"]);
}

#[tokio::test]
async fn a_key_in_memory_serves_only_the_row_it_came_from() {
    let lab = Lab::new();
    let item = with(field("ssn", "42", b"x"), "scope", json!("subject:s-1"));
    let record = lab.encrypt(json!([item])).await.text("record").remove(0);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
    lab.database.rows(|rows| rows[0].wrapped.as_mut().unwrap()[20] ^= 1);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_unavailable"]);
    lab.database.rows(|rows| rows[0].writer_wrapped.as_mut().unwrap()[20] ^= 1);
    assert_eq!(lab.encrypt(json!([item])).await.codes(), ["key_unavailable"]);
}

#[tokio::test]
async fn a_record_made_with_the_key_of_another_column_does_not_open() {
    let lab = Lab::new();
    let record = lab.record().await;
    let (key, id) = (lab.kms.keys_seen().remove(0), lab.database.rows(|rows| rows[0].id));
    let name = |text| Identifier::parse(text).unwrap();
    let (tenant, row) = (Tenant::parse("acme").unwrap(), Row::parse("42").unwrap());
    let context = Context { tenant: &tenant, table: &name("users"), column: &name("email"), row: &row, version: None };
    let forged =
        seal(&DataKey::parse(&key).unwrap(), id, MessageId::from_bytes([9; 32]), &context, b"planted").unwrap();
    let forged = base64url(&forged);
    let answer = lab.decrypt(json!([sealed("ssn", "42", &record), sealed("email", "42", &forged)])).await;
    assert_eq!(answer.codes(), ["ok", "decrypt_failed"]);
    assert_eq!(lab.decrypt(json!([sealed("email", "42", &forged)])).await.codes(), ["decrypt_failed"]);
}

#[tokio::test]
async fn a_closed_key_is_not_used_past_its_cache_time() {
    let lab = Lab::new();
    let first = lab.record().await;
    lab.database.rows(|rows| {
        rows[0].state = "decrypt_only".to_owned();
        rows[0].writer_wrapped = None;
    });
    lab.clock.advance(300_000);
    assert_ne!(bytes(&lab.record().await)[1..17], bytes(&first)[1..17]);
}

#[tokio::test]
async fn a_key_is_closed_when_its_messages_are_used_up() {
    let lab = Lab::new();
    lab.record().await;
    lab.database.rows(|rows| rows[0].reserved = (1 << 32) - 5_000);
    lab.clock.advance(300_000);
    lab.record().await;
    let states: Vec<_> = lab.database.rows(|rows| rows.iter().map(|row| row.state.clone()).collect());
    assert_eq!(states, ["decrypt_only", "active"]);
}

fn thousand(start: usize) -> Value {
    (0..1_000).map(|row| field("ssn", &(start + row).to_string(), b"123-45-6789")).collect()
}

#[tokio::test]
async fn a_warm_batch_of_a_thousand_calls_nobody() {
    let lab = Lab::new();
    assert_eq!(lab.encrypt(thousand(0)).await.status, 200);
    assert_eq!(lab.operations(), ["GenerateDataKey", "Encrypt"]);
    assert_eq!(lab.database.take_calls(), ["api.current_data_keys", "api.insert_data_key"]);
    for _ in 0..9 {
        assert_eq!(lab.encrypt(thousand(0)).await.status, 200);
    }
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec![]));
    assert_eq!(lab.encrypt(thousand(0)).await.status, 200);
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec!["api.current_data_keys"]));
    assert_eq!(lab.database.rows(|rows| rows[0].reserved), 20_000);
}

#[tokio::test]
async fn a_warm_decryption_of_a_thousand_calls_nobody() {
    let lab = Lab::new();
    let records = lab.encrypt(thousand(0)).await.text("record");
    let items: Value = (0..1_000).map(|row| sealed("ssn", &row.to_string(), &records[row])).collect();
    assert_eq!(lab.decrypt(items.clone()).await.status, 200);
    lab.forget();
    assert_eq!(lab.decrypt(items).await.status, 200);
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec![]));
}

#[tokio::test]
async fn message_ids_are_drawn_at_once_and_never_twice() {
    let lab = Lab::new();
    lab.encrypt(thousand(0)).await;
    let before = lab.entropy.0.load(std::sync::atomic::Ordering::SeqCst);
    let records = lab.encrypt(thousand(0)).await.text("record");
    assert_eq!(lab.entropy.0.load(std::sync::atomic::Ordering::SeqCst), before + 1);
    let ids: std::collections::BTreeSet<Vec<u8>> =
        records.iter().map(|record| bytes(record)[17..49].to_vec()).collect();
    assert_eq!(ids.len(), 1_000);
}

#[tokio::test]
async fn order_and_references_are_kept() {
    let lab = Lab::new();
    let items: Value = (0..300)
        .map(|row| {
            with(field(&format!("c{}", row % 7), &row.to_string(), &[1]), "ref", json!(format!("é-{}", row / 2)))
        })
        .collect();
    let expected: Vec<String> = (0..300).map(|row| format!("é-{}", row / 2)).collect();
    let answer = lab.encrypt(items).await;
    assert_eq!((answer.status, answer.text("ref")), (200, expected));
    let records = answer.text("record");
    let items: Value =
        (0..300).map(|row| sealed(&format!("c{}", row % 7), &row.to_string(), &records[row])).rev().collect();
    let answer = lab.decrypt(items).await;
    assert_eq!((answer.status, answer.text("ref")[0].as_str()), (200, "299"));
}

#[tokio::test]
async fn one_bad_item_among_a_thousand_fails_alone() {
    let lab = Lab::new();
    let mut items = thousand(0);
    items[500]["row"] = json!("");
    let answer = lab.encrypt(items).await;
    assert_eq!((answer.status, answer.codes().iter().filter(|code| **code == "ok").count()), (207, 999));
    assert_eq!(answer.items()[500]["error"], json!({"code": "malformed", "retryable": false}));
    assert_eq!(answer.items()[500]["ref"], "500");
}

#[tokio::test]
async fn batches_outside_their_limits_are_refused_before_any_work() {
    let lab = Lab::new();
    let token = lab.token("acme", "fields:encrypt:*.*");
    let batch = |count: usize| json!({"items": vec![field("ssn", "1", b"x"); count]}).to_string();
    let large = "x".repeat(4 * 1024 * 1024 + 1);
    for (body, status, code) in [
        (batch(0), 400, "malformed_request"),
        (batch(1_001), 400, "malformed_request"),
        (large, 413, "payload_too_large"),
        ("{".to_owned(), 400, "malformed_request"),
        ("[]".to_owned(), 400, "malformed_request"),
        (
            json!({"items": [with(field("ssn", "1", b"x"), "tenant", json!("globex"))]}).to_string(),
            400,
            "malformed_request",
        ),
        (json!({"items": [field("ssn", "1", b"x")], "tenant": "globex"}).to_string(), 400, "malformed_request"),
        (json!({"items": [sealed("ssn", "1", "AQ")]}).to_string(), 400, "malformed_request"),
        (
            r#"{"items":[{"ref":"1","table":"u","column":"c","row":"\ud800","plaintext":""}]}"#.to_owned(),
            400,
            "malformed_request",
        ),
    ] {
        let answer = lab.send(&lab.encrypt, lab.event("/fields/encrypt", &token, &body)).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{} bytes", body.len());
        assert_eq!(answer.body["request_id"], "r-1");
    }
    assert!(lab.kms.take_calls().is_empty() && lab.database.take_calls().is_empty());
}

#[tokio::test]
async fn a_plaintext_of_64_kib_is_sealed_and_one_byte_more_is_too_large() {
    let lab = Lab::new();
    let answer = lab.encrypt(json!([field("ssn", "1", &[7; 65_536]), field("ssn", "2", &[7; 65_537])])).await;
    assert_eq!((answer.status, answer.codes()), (207, vec!["ok", "too_large"]));
    let record = answer.items()[0]["record"].as_str().unwrap().to_owned();
    assert_eq!(bytes(&record).len(), 65_633);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "1", &record)])).await.codes(), ["ok"]);
}

#[tokio::test]
async fn values_that_no_place_can_have_are_malformed() {
    let lab = Lab::new();
    for (member, value) in [
        ("row", json!("a\0b")),
        ("row", json!("a\u{7f}")),
        ("row", json!("x".repeat(257))),
        ("version", json!("007")),
        ("version", json!("18446744073709551616")),
        ("table", json!("us.ers")),
        ("column", json!("")),
        ("scope", json!("index")),
        ("scope", json!("column:users/email")),
        ("ref", json!("x".repeat(65))),
    ] {
        let answer = lab.encrypt(json!([with(field("ssn", "1", b"x"), member, value.clone())])).await;
        assert_eq!((answer.status, answer.codes()), (207, vec!["malformed"]), "{member} {value}");
    }
    assert!(lab.kms.take_calls().is_empty());
}

#[tokio::test]
async fn a_column_outside_the_scopes_is_forbidden_without_a_call() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.forget();
    for scope in ["fields:encrypt:users.email", "fields:decrypt:*.*", "fields:encrypt:cards.*", "files:read"] {
        let answer = lab.encrypt_as("acme", scope, json!([field("ssn", "42", b"x")])).await;
        assert_eq!((answer.status, answer.codes()), (207, vec!["forbidden"]), "{scope}");
    }
    for scope in ["fields:decrypt:users.email", "fields:encrypt:*.*"] {
        let answer = lab.decrypt_as("acme", scope, json!([sealed("ssn", "42", &record)])).await;
        assert_eq!((answer.status, answer.codes()), (207, vec!["forbidden"]), "{scope}");
    }
    assert!(lab.kms.take_calls().is_empty() && lab.database.take_calls().is_empty());
    let mixed =
        json!([field("ssn", "1", b"x"), field("email", "1", b"x"), with(field("ssn", "", b"x"), "row", json!(""))]);
    let answer = lab.encrypt_as("acme", "fields:encrypt:users.email", mixed).await;
    assert_eq!(answer.codes(), ["forbidden", "ok", "forbidden"]);
}

#[tokio::test]
async fn an_operation_of_the_other_deployment_does_not_exist() {
    let lab = Lab::new();
    let token = lab.token("acme", "fields:encrypt:*.* fields:decrypt:*.*");
    for (function, resource) in [
        (&lab.decrypt, "/fields/encrypt"),
        (&lab.encrypt, "/fields/decrypt"),
        (&lab.encrypt, "/fields/rewrap"),
        (&lab.encrypt, "/fields/{operation}"),
    ] {
        let answer = lab.send(function, lab.event(resource, &token, "no body at all")).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("not_found")), "{resource}");
    }
    let get = with(lab.event("/fields/encrypt", &token, "{}"), "httpMethod", json!("GET"));
    assert_eq!(lab.send(&lab.encrypt, get).await.status, 404);
    let direct = json!({"operation": "encrypt", "access_token": 7});
    let answer = lab.decrypt.handle(direct, &lab.invocation()).await.unwrap();
    assert_eq!((answer["status"].as_u64(), answer["code"].as_str()), (Some(404), Some("not_found")));
}

#[tokio::test]
async fn nobody_passes_without_a_token_or_past_the_gate() {
    let lab = Lab::new();
    let body = json!({"items": [field("ssn", "1", b"x")]}).to_string();
    let good = lab.token("acme", "fields:encrypt:*.*");
    let mut unsigned = good.clone();
    unsigned.truncate(good.len() - 4);
    let event = |token: &str| lab.event("/fields/encrypt", token, &body);
    let mut without = event(&good);
    without["multiValueHeaders"].as_object_mut().unwrap().remove("Authorization");
    let mut beside = event(&good);
    beside["requestContext"]["authorizer"] = Value::Null;
    let mut another = event(&good);
    another["requestContext"]["authorizer"]["jti"] = json!("0198e1a0-0000-7000-8000-000000000002");
    for (event, status) in [(event(&unsigned), 401), (event("x"), 401), (without, 401), (beside, 403), (another, 403)] {
        assert_eq!(lab.send(&lab.encrypt, event).await.status, status);
    }
    let stale = event(&good);
    lab.clock.advance(301_000);
    assert_eq!(lab.send(&lab.encrypt, stale).await.status, 401, "expired");
    assert!(lab.kms.take_calls().is_empty() && lab.database.take_calls().is_empty());
}

#[tokio::test]
async fn without_trust_data_nobody_is_served() {
    let lab = Lab::new();
    lab.set_trust_down(true);
    let answer = lab.encrypt(json!([field("ssn", "1", b"x")])).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("trust_stale")));
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn a_direct_invocation_is_served_by_its_token() {
    let lab = Lab::new();
    let token = lab.token("acme", "fields:encrypt:*.* fields:decrypt:*.*");
    let payload = json!({"operation": "encrypt", "access_token": token, "items": [field("ssn", "42", b"hi")]});
    let sealed_items = lab.encrypt.handle(payload.clone(), &lab.invocation()).await.unwrap();
    let record = sealed_items["items"][0]["record"].as_str().unwrap();
    let payload_back = json!({"operation": "decrypt", "access_token": token, "items": [sealed("ssn", "42", record)]});
    let opened = lab.decrypt.handle(payload_back, &lab.invocation()).await.unwrap();
    assert_eq!(opened["items"][0]["plaintext"], base64url(b"hi"));
    for (event, status) in [
        (with(payload.clone(), "access_token", json!("x.y.z")), 401),
        (with(payload.clone(), "tenant", json!("globex")), 400),
        (with(payload.clone(), "items", json!([])), 400),
        (json!({"operation": "encrypt", "items": [field("ssn", "42", b"hi")]}), 400),
        (with(payload, "operation", json!("shred")), 404),
    ] {
        let answer = lab.encrypt.handle(event, &lab.invocation()).await.unwrap();
        assert_eq!(answer["status"], status);
        assert_eq!(answer["request_id"], "r-1");
    }
}

#[tokio::test]
async fn an_event_of_another_shape_is_refused_without_echo() {
    let lab = Lab::new();
    for event in [json!({}), json!([]), json!("canary"), json!({"requestContext": {}, "operation": "canary"})] {
        let answer = answer(lab.encrypt.handle(event, &lab.invocation()).await.unwrap());
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("malformed_request")));
        assert!(!answer.body.to_string().contains("canary"));
    }
    let status = |event: &RawValue| answer(serde_json::from_str(event.get()).unwrap()).status;
    assert!(lab.encrypt.panicked(&lab.invocation()).is_ok_and(|event| status(&event) == 500));
    assert!(lab.decrypt.panicked(&lab.invocation()).is_ok_and(|event| status(&event) == 500));
}

#[tokio::test]
async fn without_kms_or_postgres_nothing_is_half_done() {
    let lab = Lab::new();
    lab.database.set_down(true);
    for answer in [
        lab.encrypt(json!([field("ssn", "1", b"x")])).await,
        lab.decrypt(json!([sealed("ssn", "1", &base64url(&[1; 100]))])).await,
    ] {
        assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("service_unavailable")));
        assert_eq!(answer.headers["retry-after"], "1");
    }
    lab.database.set_down(false);
    lab.kms.set_fault(Some(FaultKind::Unavailable));
    let answer = lab.encrypt(json!([field("ssn", "1", b"x")])).await;
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, Some("1")));
    assert!(lab.database.rows(|rows| rows.is_empty()));
    lab.kms.set_fault(None);
    let record = lab.record().await;
    lab.kms.set_fault(Some(FaultKind::Unavailable));
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.status, 503);
    let mixed = lab.encrypt(json!([field("ssn", "1", b"x"), field("email", "1", b"x")])).await;
    assert_eq!((mixed.status, mixed.codes()), (207, vec!["ok", "kms_unavailable"]));
    assert_eq!(mixed.items()[1]["error"]["retryable"], true);
    lab.kms.set_fault(None);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
}

#[tokio::test]
async fn a_denial_stands_for_thirty_seconds_and_throttling_does_not() {
    let lab = Lab::new();
    let record = lab.record().await;
    let item = json!([sealed("ssn", "42", &record)]);
    lab.forget();
    lab.kms.set_fault(Some(FaultKind::Throttled));
    for _ in 0..2 {
        let answer = lab.decrypt(item.clone()).await;
        assert_eq!((answer.status, answer.codes()), (207, vec!["kms_throttled"]));
        assert_eq!(answer.items()[0]["error"]["retryable"], true);
    }
    assert_eq!(lab.operations().len(), 2);
    lab.kms.set_fault(Some(FaultKind::Denied));
    assert_eq!(lab.decrypt(item.clone()).await.codes(), ["kms_denied"]);
    lab.kms.set_fault(None);
    lab.clock.advance(29_999);
    assert_eq!(lab.decrypt(item.clone()).await.codes(), ["kms_denied"]);
    assert_eq!(lab.operations().len(), 1);
    lab.clock.advance(1);
    assert_eq!(lab.decrypt(item).await.codes(), ["ok"]);

    lab.kms.set_fault(Some(FaultKind::Denied));
    lab.forget();
    for _ in 0..3 {
        assert_eq!(lab.encrypt(json!([field("email", "1", b"x")])).await.codes(), ["kms_denied"]);
    }
    assert_eq!(lab.operations(), ["GenerateDataKey"]);
}

#[tokio::test]
async fn no_call_to_kms_starts_with_less_than_half_a_second_left() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.forget();
    let token = lab.token("acme", "fields:encrypt:*.* fields:decrypt:*.*");
    for (left, code) in [(499, "deadline"), (500, "ok")] {
        let invocation =
            Invocation { deadline: lab.invocation().deadline.plus_millis(left - 10_000), ..lab.invocation() };
        let body = json!({"items": [sealed("ssn", "42", &record)]}).to_string();
        let event = lab.event("/fields/decrypt", &token, &body);
        assert_eq!(answer(lab.decrypt.handle(event, &invocation).await.unwrap()).codes(), [code]);
        let body = json!({"items": [field("email", "42", b"x")]}).to_string();
        let event = lab.event("/fields/encrypt", &token, &body);
        assert_eq!(answer(lab.encrypt.handle(event, &invocation).await.unwrap()).codes(), [code]);
        let calls = lab.operations().len();
        assert_eq!(calls, if code == "ok" { 3 } else { 0 });
    }
}

#[tokio::test]
async fn a_key_stays_in_memory_for_five_minutes() {
    let lab = Lab::new();
    let record = lab.record().await;
    let item = json!([sealed("ssn", "42", &record)]);
    lab.decrypt(item.clone()).await;
    lab.forget();
    lab.clock.advance(299_999);
    lab.decrypt(item.clone()).await;
    lab.record().await;
    assert_eq!(lab.operations(), [""; 0]);
    lab.clock.advance(1);
    lab.decrypt(item).await;
    lab.record().await;
    assert_eq!(lab.operations(), ["Decrypt", "Decrypt"]);
}

#[tokio::test]
async fn whoever_loses_the_race_takes_the_winners_key() {
    let lab = Lab::new();
    let winner = lab.fresh(Deployment::Encrypt);
    let token = lab.token("acme", "fields:encrypt:*.*");
    let body = json!({"items": [field("ssn", "42", b"x")]}).to_string();
    // The winner's row, made in a world of its own and put in the loser's way.
    let first = lab.send(&winner, lab.event("/fields/encrypt", &token, &body)).await;
    let row = lab.database.rows(std::mem::take).remove(0);
    lab.forget();
    let raced = row.clone();
    lab.database.before_next_insert(move |rows| rows.push(raced));
    let second = lab.encrypt(json!([field("ssn", "42", b"x")])).await;
    assert_eq!(lab.operations(), ["GenerateDataKey", "Encrypt", "Decrypt"]);
    assert_eq!(second.codes(), ["ok"]);
    assert_eq!(lab.database.rows(|rows| rows.iter().map(|row| row.id).collect::<Vec<_>>()), [row.id]);
    let records = [first.text("record").remove(0), second.text("record").remove(0)];
    assert!(records.iter().all(|record| bytes(record)[1..17] == *row.id.as_bytes()));
    let opened = lab.decrypt(json!([sealed("ssn", "42", &records[0]), sealed("ssn", "42", &records[1])])).await;
    assert_eq!(opened.codes(), ["ok", "ok"]);
}

#[tokio::test]
async fn concurrent_batches_fetch_a_key_once() {
    let lab = Lab::new();
    let (one, two, three) = tokio::join!(
        lab.encrypt(json!([field("ssn", "1", b"x")])),
        lab.encrypt(json!([field("ssn", "2", b"x")])),
        lab.encrypt(json!([field("ssn", "3", b"x")]))
    );
    assert_eq!(lab.operations(), ["GenerateDataKey", "Encrypt"]);
    let records = [one, two, three].map(|answer| answer.text("record").remove(0));
    let item = |at: usize| json!([sealed("ssn", &(at + 1).to_string(), &records[at])]);
    let (one, two, three) = tokio::join!(lab.decrypt(item(0)), lab.decrypt(item(1)), lab.decrypt(item(2)));
    assert_eq!(lab.operations(), ["Decrypt"]);
    assert!([one, two, three].iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn a_batch_uses_at_most_256_keys() {
    let lab = Lab::new();
    let items: Value = (0..300)
        .map(|at| with(field("ssn", &at.to_string(), b"x"), "scope", json!(format!("subject:s-{at}"))))
        .collect();
    let answer = lab.encrypt(items).await;
    let codes = answer.codes();
    assert_eq!(answer.status, 207);
    assert_eq!((&codes[..256], &codes[256..]), (&["ok"; 256][..], &["too_many_keys"; 44][..]));
    assert_eq!(answer.items()[299]["error"]["retryable"], true);
    let rest: Value = (256..300)
        .map(|at| with(field("ssn", &at.to_string(), b"x"), "scope", json!(format!("subject:s-{at}"))))
        .collect();
    let rest = lab.encrypt(rest).await.text("record");
    let records: Vec<String> =
        answer.items()[..256].iter().map(|item| item["record"].as_str().unwrap().to_owned()).chain(rest).collect();
    let items: Value = (0..300).map(|at: usize| sealed("ssn", &at.to_string(), &records[at])).collect();
    let codes: Vec<String> = lab.decrypt(items).await.codes().into_iter().map(str::to_owned).collect();
    assert_eq!(codes.iter().filter(|code| *code == "ok").count(), 256);
    assert_eq!(codes.iter().filter(|code| *code == "too_many_keys").count(), 44);
}

#[tokio::test]
async fn no_answer_and_no_row_holds_a_key() {
    let lab = Lab::new();
    let record = lab.record().await;
    let opened = lab.decrypt(json!([sealed("ssn", "42", &record)])).await;
    let refused = lab.decrypt(json!([sealed("ssn", "43", &record)])).await;
    let rows = lab.database.rows(|rows| format!("{rows:?}"));
    for key in lab.kms.keys_seen() {
        let (hex, text) = (shared::encoding::hex(&key), base64url(&key));
        for shown in [&opened.body.to_string(), &refused.body.to_string(), &rows, &record] {
            assert!(!shown.contains(&hex) && !shown.contains(&text) && !shown.contains(&format!("{key:?}")));
        }
    }
}
