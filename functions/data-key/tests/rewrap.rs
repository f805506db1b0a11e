//! Rewrapping: to the newest key and to another place, by those who may, and by nobody else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::collections::BTreeSet;

use data_key::Deployment;
use serde_json::{Value, json};
use shared::boot::Handler as _;
use shared::encoding::base64url;
use shared::port::FaultKind;
use support::{Lab, bytes, field, sealed, with};

const DAY: i64 = 86_400_000;

/// A move of `users.ssn`, row 42, to another place.
fn moved(record: &str, to: Value) -> Value {
    with(sealed("ssn", "42", record), "to", to)
}

fn place(table: &str, column: &str, row: &str) -> Value {
    json!({"table": table, "column": column, "row": row})
}

fn key_of(record: &str) -> Vec<u8> {
    bytes(record)[1..17].to_vec()
}

fn message_of(record: &str) -> Vec<u8> {
    bytes(record)[17..49].to_vec()
}

#[tokio::test]
async fn a_record_goes_to_the_newest_key_and_keeps_its_place() {
    let lab = Lab::new();
    let old = lab.record().await;
    lab.clock.advance(DAY + 1);
    let answer = lab.rewrap(json!([sealed("ssn", "42", &old)])).await;
    assert_eq!((answer.status, answer.codes()), (200, vec!["ok"]));
    let new = answer.text("record").remove(0);
    assert_ne!((key_of(&new), message_of(&new)), (key_of(&old), message_of(&old)));
    assert_eq!(bytes(&new).len(), bytes(&old).len());
    let opened = lab.decrypt(json!([sealed("ssn", "42", &new), sealed("ssn", "42", &old)])).await;
    assert_eq!(opened.text("plaintext"), vec![base64url(b"123-45-6789"); 2], "the old one still opens");
    assert_eq!(lab.decrypt(json!([sealed("ssn", "43", &new)])).await.codes(), ["decrypt_failed"]);

    // Again on the same day: the same key, and still another message id.
    let again = lab.rewrap(json!([sealed("ssn", "42", &new)])).await.text("record").remove(0);
    assert_eq!(key_of(&again), key_of(&new));
    assert_ne!(message_of(&again), message_of(&new));
}

#[tokio::test]
async fn the_encrypt_deployment_goes_on_with_the_key_that_a_move_made() {
    let lab = Lab::new();
    let old = lab.record().await;
    lab.clock.advance(DAY + 1);
    let new = lab.rewrap(json!([sealed("ssn", "42", &old)])).await.text("record").remove(0);
    assert_eq!(key_of(&lab.record().await), key_of(&new), "one active key for each scope and day");
    let next = Lab::new();
    let made = next.record().await;
    next.forget();
    let moved = next.rewrap(json!([sealed("ssn", "42", &made)])).await.text("record").remove(0);
    assert_eq!(key_of(&moved), key_of(&made));
    assert_eq!(next.operations(), ["Decrypt"], "to open and to seal under one key is one call");
    assert_eq!(next.database.take_calls(), ["api.data_keys_for_decrypt", "api.current_data_keys_to_move"]);
}

#[tokio::test]
async fn a_moved_record_opens_in_its_new_place_and_nowhere_else() {
    let lab = Lab::new();
    let old = lab.record().await;
    for to in [
        place("users", "ssn", "43"),
        place("users", "tax_id", "42"),
        place("people", "ssn", "42"),
        with(place("users", "ssn", "42"), "version", json!(2)),
    ] {
        let answer = lab.rewrap(json!([moved(&old, to.clone())])).await;
        assert_eq!(answer.codes(), ["ok"], "{to}");
        let new = answer.text("record").remove(0);
        let mut there = json!({"ref": "1", "record": new});
        for (member, value) in to.as_object().unwrap() {
            there[member] = value.clone();
        }
        let opened = lab.decrypt(json!([there, sealed("ssn", "42", &new)])).await;
        assert_eq!(opened.codes(), ["ok", "decrypt_failed"], "{to}");
        assert_eq!(opened.items()[0]["plaintext"], base64url(b"123-45-6789"));
    }
}

#[tokio::test]
async fn a_version_that_is_not_named_at_the_new_place_is_none() {
    let lab = Lab::new();
    let item = with(field("ssn", "42", b"x"), "version", json!(7));
    let old = lab.encrypt(json!([item])).await.text("record").remove(0);
    let versioned = |record: &str| with(sealed("ssn", "42", record), "version", json!(7));
    let kept = lab.rewrap(json!([versioned(&old)])).await.text("record").remove(0);
    assert_eq!(
        lab.decrypt(json!([versioned(&kept), sealed("ssn", "42", &kept)])).await.codes(),
        ["ok", "decrypt_failed"]
    );
    let to = place("users", "ssn", "42");
    let bare = lab.rewrap(json!([with(versioned(&old), "to", to)])).await.text("record").remove(0);
    assert_eq!(
        lab.decrypt(json!([versioned(&bare), sealed("ssn", "42", &bare)])).await.codes(),
        ["decrypt_failed", "ok"]
    );
}

#[tokio::test]
async fn nothing_that_was_altered_or_moved_by_others_is_made_good_by_a_move() {
    let lab = Lab::new();
    let record = lab.record().await;
    let good = bytes(&record);
    let items: Vec<Value> = (0..good.len() * 8)
        .map(|bit| {
            let mut altered = good.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            sealed("ssn", "42", &base64url(&altered))
        })
        .collect();
    let answer = lab.rewrap(json!(items)).await;
    assert_eq!(answer.status, 207);
    assert!(answer.items().iter().all(|item| item["ok"] == false), "no flipped bit passes");

    let elsewhere = [
        sealed("ssn", "43", &record),
        sealed("email", "42", &record),
        with(sealed("ssn", "42", &record), "table", json!("people")),
        with(sealed("ssn", "42", &record), "version", json!(0)),
        sealed("ssn", "42", &base64url(&good[..96])),
        sealed("ssn", "42", &base64url(&[&good[..], &[0]].concat())),
        sealed("ssn", "42", &base64url(b"\x02\x04\x78")),
    ];
    let codes = lab.rewrap(json!(elsewhere)).await;
    let failed = "decrypt_failed";
    assert_eq!(codes.codes(), [failed, failed, failed, failed, "malformed", failed, "use_import"]);
    // To name the place as the destination does not help either.
    let forged = with(moved(&record, place("users", "ssn", "42")), "row", json!("43"));
    assert_eq!(lab.rewrap(json!([forged])).await.codes(), ["decrypt_failed"]);
}

#[tokio::test]
async fn another_tenants_record_is_unknown_and_swapped_wrappings_serve_nobody() {
    let lab = Lab::new();
    let record = lab.record().await;
    let globex = lab.rewrap_as("globex", "fields:rewrap:*.*", json!([sealed("ssn", "42", &record)])).await;
    assert_eq!(globex.codes(), ["key_unavailable"]);
    let other = lab.encrypt(json!([field("email", "42", b"ann@example.com")])).await.text("record").remove(0);
    lab.database.rows(|rows| {
        let (one, two) = (rows[0].wrapped.clone(), rows[1].wrapped.clone());
        (rows[0].wrapped, rows[1].wrapped) = (two, one);
    });
    let answer = lab.rewrap(json!([sealed("ssn", "42", &record), sealed("email", "42", &other)])).await;
    assert_eq!(answer.codes(), ["key_unavailable", "key_unavailable"]);
    lab.database.rows(|rows| rows[0].kms_key_arn.push('0'));
    assert_eq!(lab.rewrap(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_unavailable"]);
}

#[tokio::test]
async fn both_ends_of_a_move_need_the_right_and_nobody_is_asked_before() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.forget();
    let to_note = moved(&record, place("users", "note", "42"));
    for (scope, item) in [
        ("fields:decrypt:users.ssn fields:encrypt:users.ssn", sealed("ssn", "42", &record)),
        ("fields:rewrap:users.note", to_note.clone()),
        ("fields:rewrap:users.ssn", to_note.clone()),
        ("fields:rewrap:users.ssn fields:encrypt:users.note fields:decrypt:users.note", to_note.clone()),
        ("fields:rewrap:users.ssn", moved(&record, with(place("users", "note", ""), "version", json!("007")))),
    ] {
        let answer = lab.rewrap_as("acme", scope, json!([item])).await;
        // What is not a row at all cannot hide that the column is forbidden, nor the other way round.
        assert!(["forbidden"] == answer.codes()[..], "{scope}: {:?}", answer.codes());
    }
    assert!(lab.operations().is_empty() && lab.database.take_calls().is_empty());
    let both = "fields:rewrap:users.ssn fields:rewrap:users.note";
    assert_eq!(lab.rewrap_as("acme", both, json!([to_note])).await.codes(), ["ok"]);
}

#[tokio::test]
async fn a_field_keeps_its_subject_and_one_without_may_get_one() {
    let lab = Lab::new();
    let own = lab.record().await;
    let of_ann = with(field("ssn", "42", b"123-45-6789"), "scope", json!("subject:ann"));
    let of_ann = lab.encrypt(json!([of_ann])).await.text("record").remove(0);
    let to = |scope: &str| with(place("users", "tax_id", "42"), "scope", json!(scope));
    let answer = lab
        .rewrap(json!([
            sealed("ssn", "42", &of_ann),
            moved(&of_ann, place("users", "tax_id", "42")),
            moved(&of_ann, to("subject:ann")),
            moved(&of_ann, to("subject:bob")),
            moved(&of_ann, to("column:users/tax_id")),
            moved(&own, to("subject:ann")),
            moved(&own, to("column:users/tax_id")),
            moved(&own, to("column:users/ssn")),
            moved(&own, to("index")),
        ]))
        .await;
    assert_eq!(
        answer.codes(),
        ["ok", "ok", "ok", "forbidden", "forbidden", "ok", "ok", "malformed", "malformed"],
        "a move takes no field out of its subject's erasure"
    );
    let scope_of = |at: usize| {
        let id = key_of(answer.items()[at]["record"].as_str().unwrap());
        lab.database.rows(|rows| rows.iter().find(|row| row.id.as_bytes()[..] == id).unwrap().scope.clone())
    };
    assert_eq!([0, 1, 2, 5].map(scope_of), ["subject:ann"; 4]);
    assert_eq!(scope_of(6), "column:users/tax_id");
}

#[tokio::test]
async fn order_and_references_are_kept_and_one_bad_item_stops_nobody() {
    let lab = Lab::new();
    let plain: Vec<Value> = (0..1_000).map(|n| field("ssn", &n.to_string(), n.to_string().as_bytes())).collect();
    let records = lab.encrypt(json!(plain)).await.text("record");
    let mut items: Vec<Value> = records
        .iter()
        .enumerate()
        .map(|(n, record)| with(sealed("ssn", &n.to_string(), record), "ref", json!("same")))
        .collect();
    items[500] = sealed("ssn", "0", &records[500]);
    let answer = lab.rewrap(json!(items)).await;
    assert_eq!((answer.status, answer.items().len()), (207, 1_000));
    let bad: Vec<usize> = (0..1_000).filter(|n| answer.items()[*n]["ok"] != true).collect();
    assert_eq!(bad, [500]);
    let back: Vec<Value> = (0..1_000)
        .filter(|n| *n != 500)
        .map(|n| sealed("ssn", &n.to_string(), answer.items()[n]["record"].as_str().unwrap()))
        .collect();
    let opened = lab.decrypt(json!(back)).await;
    assert_eq!(opened.status, 200);
    let expected: Vec<String> =
        (0..1_000).filter(|n| *n != 500).map(|n: u32| base64url(n.to_string().as_bytes())).collect();
    assert_eq!(opened.text("plaintext"), expected);
    let messages: BTreeSet<Vec<u8>> =
        answer.items().iter().filter_map(|item| item["record"].as_str()).map(message_of).collect();
    assert_eq!(messages.len(), 999);
    assert!(answer.items().iter().enumerate().all(|(n, item)| n == 500 || item["ref"] == "same"));
}

#[tokio::test]
async fn a_shredded_key_moves_nothing_and_a_key_past_its_day_seals_nothing() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.database.rows(|rows| {
        "shredded".clone_into(&mut rows[0].state);
        rows[0].wrapped = None;
    });
    assert_eq!(lab.rewrap(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_shredded"]);
    assert_eq!(lab.database.rows(|rows| rows.len()), 1, "nothing opened, so no key was made");
}

#[tokio::test]
async fn what_kms_refuses_fails_its_items_and_no_wrong_thing_stays_in_memory() {
    for (fault, code) in [(FaultKind::Throttled, "kms_throttled"), (FaultKind::Denied, "kms_denied")] {
        let lab = Lab::new();
        let record = lab.record().await;
        lab.clock.advance(DAY + 1);
        lab.kms.set_fault(Some(fault));
        let item = json!([sealed("ssn", "42", &record)]);
        let answer = lab.rewrap(item.clone()).await;
        assert_eq!((answer.status, answer.codes()), (207, vec![code]));
        lab.kms.set_fault(None);
        lab.clock.advance(31_000);
        assert_eq!(lab.rewrap(item).await.codes(), ["ok"], "{code}");
    }
    let lab = Lab::new();
    let record = lab.record().await;
    lab.kms.set_fault(Some(FaultKind::Unavailable));
    assert_eq!(lab.rewrap(json!([sealed("ssn", "42", &record)])).await.status, 503);
    lab.kms.set_fault(None);
    lab.database.set_down(true);
    assert_eq!(lab.rewrap(json!([sealed("ssn", "42", &record)])).await.status, 503);
    lab.database.set_down(false);
    lab.kms.set_length(31);
    assert_eq!(lab.rewrap(json!([sealed("ssn", "42", &record)])).await.codes(), ["key_unavailable"]);
    lab.kms.set_length(32);
    assert_eq!(lab.rewrap(json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
}

#[tokio::test]
async fn a_batch_of_another_shape_is_refused_whole() {
    let lab = Lab::new();
    let record = lab.record().await;
    let good = sealed("ssn", "42", &record);
    let mut no_row = good.clone();
    no_row.as_object_mut().unwrap().remove("row");
    for item in [
        no_row,
        field("ssn", "42", b"x"),
        with(good.clone(), "scope", json!("subject:ann")),
        with(good.clone(), "tenant", json!("globex")),
        moved(&record, json!(["users", "ssn", "43"])),
        moved(&record, json!({})),
        moved(&record, json!({"table": "users", "column": "ssn"})),
        moved(&record, with(place("users", "ssn", "42"), "tenant", json!("globex"))),
        moved(&record, with(place("users", "ssn", "42"), "version", json!(-1))),
        moved(&record, Value::Null),
        moved(&record, json!("users.ssn")),
    ] {
        assert_eq!(lab.rewrap(json!([item.clone()])).await.status, 400, "{item}");
    }
    let stray = json!([moved(&record, place("users", "ssn", "42"))]);
    assert_eq!(lab.decrypt(stray.clone()).await.status, 400, "nothing is moved by reading it");
    assert_eq!(lab.inspect(stray).await.status, 400);
    for bad in [
        place("us.ers", "ssn", "1"),
        place("users", "ssn", ""),
        with(place("users", "ssn", "1"), "version", json!("007")),
    ] {
        assert_eq!(lab.rewrap(json!([moved(&record, bad)])).await.codes(), ["malformed"]);
    }
}

#[tokio::test]
async fn each_deployment_moves_or_not_as_its_operations_say() {
    let lab = Lab::new();
    let record = lab.record().await;
    let token = lab.token("acme", "fields:rewrap:*.* fields:decrypt:*.* fields:encrypt:*.*");
    let body = json!({"items": [sealed("ssn", "42", &record)]}).to_string();
    for (function, resource, status) in [
        (&lab.encrypt, "/fields/rewrap", 404),
        (&lab.decrypt, "/fields/rewrap", 404),
        (&lab.maintain, "/fields/decrypt", 404),
        (&lab.maintain, "/fields/encrypt", 404),
        (&lab.maintain, "/fields/index", 404),
        (&lab.maintain, "/fields/rewrap", 200),
    ] {
        assert_eq!(lab.send(function, lab.event(resource, &token, &body)).await.status, status, "{resource}");
    }
    let direct = json!({"operation": "rewrap", "access_token": token, "items": [sealed("ssn", "42", &record)]});
    let answer = lab.maintain.handle(direct.clone(), &lab.invocation()).await.unwrap();
    assert_eq!(answer["items"][0]["ok"], true, "{answer}");
    for function in [&lab.encrypt, &lab.decrypt] {
        assert_eq!(function.handle(direct.clone(), &lab.invocation()).await.unwrap()["status"], 404);
    }
}

#[tokio::test]
async fn a_warm_environment_asks_kms_nothing_and_forgets_every_key_in_its_time() {
    let lab = Lab::new();
    let record = lab.record().await;
    let item = json!([sealed("ssn", "42", &record)]);
    lab.rewrap(item.clone()).await;
    lab.forget();
    assert_eq!(lab.rewrap(item.clone()).await.status, 200);
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec![]));
    // Whatever reads the key again does not lengthen its stay.
    let subject = with(field("ssn", "42", b"x"), "scope", json!("subject:ann"));
    let of_ann = lab.encrypt(json!([subject])).await.text("record").remove(0);
    let lab_item = json!([sealed("ssn", "42", &of_ann)]);
    lab.rewrap(lab_item.clone()).await;
    lab.forget();
    for _ in 0..4 {
        lab.clock.advance(70_000);
        lab.rewrap(lab_item.clone()).await;
    }
    assert!(lab.operations().is_empty());
    lab.clock.advance(25_000);
    lab.rewrap(lab_item).await;
    assert_eq!(lab.operations(), ["Decrypt"], "305 s after the first call the key is asked for again");
    let fresh = lab.fresh(Deployment::Maintain);
    let body = json!({"items": item}).to_string();
    let token = lab.token("acme", "fields:rewrap:*.*");
    assert_eq!(lab.send(&fresh, lab.event("/fields/rewrap", &token, &body)).await.status, 200);
}
