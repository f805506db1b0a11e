//! Exporting to and importing from messages of the AWS Encryption SDK, by those who may, and by nobody else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::encoding::base64url;
use shared::entropy::SystemEntropy;
use shared::esdk::{Envelope, Framing, MAX_MESSAGE, Message, write};
use shared::pc1::{DataKey, MessageId, MessageIds};
use shared::port::FaultKind;
use support::{ARN, FOREIGN_ARN, Lab, bytes, field, sealed, with};

const DAY: i64 = 86_400_000;
const CONTEXT: [(&str, &str); 2] = [("department", "hr"), ("tenant", "acme")];

fn incoming(row: &str, message: &[u8]) -> Value {
    json!({"ref": row, "table": "users", "column": "ssn", "row": row, "message": base64url(message)})
}

fn fresh() -> MessageId {
    MessageIds::draw(1, &SystemEntropy).next().unwrap()
}

/// A message as another writer makes one, under a KMS key of his.
fn foreign(lab: &Lab, arn: &str, context: &[(&str, &str)], plaintext: &[u8]) -> Vec<u8> {
    let key = [9; 32];
    let pairs: BTreeMap<String, String> =
        context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let wrapped = lab.kms.wrap_for_message(arn, &pairs, &key);
    let envelope = Envelope { key_arn: arn, context, wrapped: &wrapped };
    write(&DataKey::parse(&key).unwrap(), fresh(), &envelope, Framing::USUAL, plaintext).unwrap()
}

#[tokio::test]
async fn an_exported_record_opens_with_the_wrapped_key_it_carries() {
    let lab = Lab::new();
    let record = lab.record().await;
    let key = lab.kms.keys_seen().remove(0);
    for (item, framed) in [
        (sealed("ssn", "42", &record), true),
        (with(sealed("ssn", "42", &record), "frame_length", json!(256)), true),
        (with(sealed("ssn", "42", &record), "frame_length", json!(0)), false),
    ] {
        let answer = lab.export(json!([item])).await;
        assert_eq!((answer.status, answer.codes()), (200, vec!["ok"]));
        let bytes = bytes(&answer.text("message").remove(0));
        let message = Message::parse(&bytes, 1).unwrap();
        let (id, wrapped) = lab.database.rows(|rows| (rows[0].id.to_string(), rows[0].wrapped.clone().unwrap()));
        assert_eq!(message.context(), [("data_key_id", id.as_str()), ("purpose", "field"), ("tenant", "acme")]);
        assert_eq!((message.data_keys()[0].info, message.data_keys()[0].blob), (ARN.as_bytes(), &wrapped[..]));
        assert_eq!(message.open(&DataKey::parse(&key).unwrap()).unwrap().as_slice(), b"123-45-6789");
        let head = 3 + 32 + 2 + usize::from(u16::from_be_bytes([bytes[35], bytes[36]]));
        let content_type = bytes[head + 2 + 2 + 7 + 2 + ARN.len() + 2 + wrapped.len()];
        assert_eq!(content_type, if framed { 2 } else { 1 });
    }
}

#[tokio::test]
async fn no_two_exports_share_a_message_id_and_the_key_is_marked_once() {
    let lab = Lab::new();
    let record = lab.record().await;
    let items = json!(vec![sealed("ssn", "42", &record); 50]);
    let mut ids = BTreeSet::new();
    for _ in 0..2 {
        let answer = lab.export(items.clone()).await;
        assert_eq!(answer.status, 200);
        ids.extend(answer.text("message").iter().map(|message| bytes(message)[3..35].to_vec()));
    }
    ids.insert(bytes(&record)[17..49].to_vec());
    assert_eq!(ids.len(), 101, "nor with the record");
    let marked = lab.database.rows(|rows| rows[0].exported_at);
    assert!(marked.is_some());
    lab.clock.advance(1_000);
    lab.export(items).await;
    assert_eq!(lab.database.rows(|rows| rows[0].exported_at), marked);
}

#[tokio::test]
async fn what_does_not_open_is_not_exported_and_marks_nothing() {
    let lab = Lab::new();
    let record = lab.record().await;
    let mut flipped = bytes(&record);
    flipped[90] ^= 1;
    for (item, code) in [
        (sealed("ssn", "43", &record), "decrypt_failed"),
        (sealed("email", "42", &record), "decrypt_failed"),
        (sealed("ssn", "42", &base64url(&flipped)), "decrypt_failed"),
        (with(sealed("ssn", "42", &record), "frame_length", json!(1)), "malformed"),
        (with(sealed("ssn", "42", &record), "frame_length", json!(65_537)), "malformed"),
    ] {
        assert_eq!(lab.export(json!([item.clone()])).await.codes(), [code], "{item}");
    }
    let globex = lab.export_as("globex", "fields:export:*.*", json!([sealed("ssn", "42", &record)])).await;
    assert_eq!(globex.codes(), ["key_unavailable"]);
    for scope in ["fields:decrypt:*.*", "fields:rewrap:*.*", "fields:export:users.email"] {
        let answer = lab.export_as("acme", scope, json!([sealed("ssn", "42", &record)])).await;
        assert_eq!(answer.codes(), ["forbidden"], "{scope}");
    }
    assert_eq!(lab.database.rows(|rows| rows[0].exported_at), None);
    assert!(!lab.database.take_calls().contains(&"api.export_data_keys"));
}

#[tokio::test]
async fn a_subjects_field_leaves_only_if_the_caller_knows_what_that_means() {
    let lab = Lab::new();
    let item = with(field("ssn", "42", b"x"), "scope", json!("subject:ann"));
    let record = lab.encrypt(json!([item])).await.text("record").remove(0);
    let answer = lab.export(json!([sealed("ssn", "42", &record)])).await;
    assert_eq!(answer.codes(), ["unshreddable"]);
    assert_eq!(answer.items()[0]["error"]["retryable"], false);
    let no = with(sealed("ssn", "42", &record), "allow_unshreddable", json!(false));
    assert_eq!(lab.export(json!([no])).await.codes(), ["unshreddable"]);
    assert_eq!(lab.database.rows(|rows| rows[0].exported_at), None);
    let yes = with(sealed("ssn", "42", &record), "allow_unshreddable", json!(true));
    assert_eq!(lab.export(json!([yes])).await.codes(), ["ok"]);
    assert!(lab.database.rows(|rows| rows[0].exported_at).is_some(), "the receipt of an erasure will name it");
}

#[tokio::test]
async fn our_own_message_comes_back_into_any_row_of_its_column_under_the_newest_key() {
    let lab = Lab::new();
    let record = lab.record().await;
    let message = bytes(&lab.export(json!([sealed("ssn", "42", &record)])).await.text("message").remove(0));
    lab.clock.advance(DAY + 1);
    lab.forget();
    let answer = lab.import(json!([incoming("7", &message)])).await;
    assert_eq!((answer.status, answer.codes()), (200, vec!["ok"]));
    assert_eq!(lab.kms.take_opened(), 0, "the key came from the row, not from the message");
    let back = answer.text("record").remove(0);
    assert_ne!(bytes(&back)[1..49], bytes(&record)[1..49]);
    assert_eq!(lab.decrypt(json!([sealed("ssn", "7", &back)])).await.text("plaintext"), [base64url(b"123-45-6789")]);

    // What a record may not do by itself, it may not do by way of a message either.
    let in_another_column = with(incoming("7", &message), "column", json!("email"));
    assert_eq!(lab.import(json!([in_another_column])).await.codes(), ["decrypt_failed"]);
    let globex = lab.import_as("globex", "fields:import:*.*", json!([incoming("7", &message)])).await;
    assert_eq!(globex.codes(), ["key_unavailable"]);
    lab.database.rows(|rows| {
        "shredded".clone_into(&mut rows[0].state);
        rows[0].wrapped = None;
    });
    lab.clock.advance(301_000);
    assert_eq!(lab.import(json!([incoming("7", &message)])).await.codes(), ["key_shredded"]);
}

#[tokio::test]
async fn a_subjects_message_comes_back_to_its_subject() {
    let lab = Lab::new();
    let item = with(field("ssn", "42", b"x"), "scope", json!("subject:ann"));
    let record = lab.encrypt(json!([item])).await.text("record").remove(0);
    let item = with(sealed("ssn", "42", &record), "allow_unshreddable", json!(true));
    let message = bytes(&lab.export(json!([item])).await.text("message").remove(0));
    let scoped = |scope: &str| with(incoming("42", &message), "scope", json!(scope));
    let answer = lab.import(json!([
        incoming("42", &message),
        scoped("subject:ann"),
        scoped("subject:bob"),
        scoped("column:users/ssn")
    ]));
    let answer = answer.await;
    assert_eq!(answer.codes(), ["ok", "ok", "forbidden", "forbidden"]);
    let scopes: Vec<String> = lab.database.rows(|rows| rows.iter().map(|row| row.scope.clone()).collect());
    assert_eq!(scopes, ["subject:ann"]);
}

#[tokio::test]
async fn anothers_message_is_read_for_the_tenant_whose_key_it_names() {
    let lab = Lab::new();
    let message = foreign(&lab, FOREIGN_ARN, &CONTEXT, b"123-45-6789");
    let answer = lab.import(json!([incoming("1", &message), incoming("2", &message)])).await;
    assert_eq!(answer.codes(), ["ok", "ok"]);
    assert_eq!(lab.kms.take_opened(), 1, "one call for one wrapped key");
    let back = answer.text("record");
    assert_eq!(
        lab.decrypt(json!([sealed("ssn", "1", &back[0]), sealed("ssn", "2", &back[1])])).await.text("plaintext"),
        vec![base64url(b"123-45-6789"); 2]
    );
    let item = with(incoming("1", &message), "context", json!({"department": "hr"}));
    assert_eq!(lab.import(json!([item])).await.codes(), ["ok"]);
    lab.kms.take_opened();

    for (what, item) in [
        ("another tenant", None),
        (
            "a context that it does not have",
            Some(with(incoming("1", &message), "context", json!({"department": "it"}))),
        ),
        ("a pair that it does not have", Some(with(incoming("1", &message), "context", json!({"purpose": "field"})))),
    ] {
        let answer = match item {
            None => lab.import_as("globex", "fields:import:*.*", json!([incoming("1", &message)])).await,
            Some(item) => lab.import(json!([item])).await,
        };
        assert!(matches!(answer.codes()[..], ["key_unavailable" | "decrypt_failed"]), "{what}: {:?}", answer.codes());
        assert_eq!(lab.kms.take_opened(), 0, "{what}: KMS was not asked");
    }
    let elsewhere = foreign(&lab, "arn:aws:kms:us-east-1:111122223333:key/another", &CONTEXT, b"x");
    let alias = foreign(&lab, "arn:aws:kms:us-east-1:111122223333:alias/app", &CONTEXT, b"x");
    let items = json!([incoming("1", &elsewhere), incoming("1", &alias)]);
    assert_eq!(lab.import(items).await.codes(), ["key_unavailable", "key_unavailable"]);
    assert_eq!(lab.kms.take_opened(), 0);
    for scope in ["fields:encrypt:*.*", "fields:import:users.email"] {
        let answer = lab.import_as("acme", scope, json!([incoming("1", &message)])).await;
        assert_eq!(answer.codes(), ["forbidden"], "{scope}");
    }
}

#[tokio::test]
async fn an_altered_message_imports_nothing() {
    let lab = Lab::new();
    let good = foreign(&lab, FOREIGN_ARN, &CONTEXT, b"123-45-6789");
    let items: Vec<Value> = (0..good.len())
        .map(|at| {
            let mut altered = good.clone();
            altered[at] ^= 1;
            incoming("1", &altered)
        })
        .collect();
    for items in items.chunks(200) {
        let answer = lab.import(json!(items)).await;
        assert!(answer.items().iter().all(|item| item["ok"] == false), "no flipped bit passes");
    }
    for (message, code) in [
        (&b""[..], "malformed"),
        (&good[..good.len() - 1], "malformed"),
        (&[&good[..], &[0]].concat(), "malformed"),
        (b"\x01\x80", "unsupported_version"),
        (b"\x02\x03\x78", "unsupported_version"),
        (&vec![2; MAX_MESSAGE + 1], "too_large"),
    ] {
        assert_eq!(lab.import(json!([incoming("1", message)])).await.codes(), [code], "{} bytes", message.len());
    }
    let record = lab.record().await;
    assert_eq!(lab.import(json!([incoming("1", &bytes(&record))])).await.codes(), ["unsupported_version"]);
    // A message under our own KMS key that is none of ours: the data key comes from the row, and does not fit.
    let id = lab.database.rows(|rows| rows[0].id.to_string());
    let context = [("data_key_id", id.as_str()), ("purpose", "field"), ("tenant", "acme")];
    let forged = foreign(&lab, ARN, &context, b"x");
    assert_eq!(lab.import(json!([incoming("1", &forged)])).await.codes(), ["decrypt_failed"]);
    let upper = id.to_uppercase();
    for context in [
        vec![("data_key_id", id.as_str()), ("purpose", "writer"), ("tenant", "acme")],
        vec![("data_key_id", id.as_str()), ("purpose", "field"), ("tenant", "globex")],
        vec![("data_key_id", upper.as_str()), ("purpose", "field"), ("tenant", "acme")],
        vec![("data_key_id", id.as_str()), ("more", "x"), ("purpose", "field"), ("tenant", "acme")],
        vec![],
    ] {
        let forged = foreign(&lab, ARN, &context, b"x");
        assert_eq!(lab.import(json!([incoming("1", &forged)])).await.codes(), ["key_unavailable"], "{context:?}");
    }
    assert_eq!(lab.database.rows(|rows| rows.len()), 1, "nothing opened, so no key was made");
}

#[tokio::test]
async fn the_batch_answers_item_by_item_and_one_bad_message_stops_nobody() {
    let lab = Lab::new();
    let items: Vec<Value> = (0..300)
        .map(|n: usize| {
            let plaintext = n.to_string();
            let arn = if n == 7 { "arn:aws:kms:us-east-1:111122223333:key/another" } else { FOREIGN_ARN };
            with(incoming(&plaintext, &foreign(&lab, arn, &CONTEXT, plaintext.as_bytes())), "ref", json!("same"))
        })
        .collect();
    let answer = lab.import(json!(items)).await;
    assert_eq!((answer.status, answer.items().len()), (207, 300));
    let codes = answer.codes();
    assert_eq!(codes[7], "key_unavailable");
    let many = codes.iter().filter(|code| **code == "too_many_keys").count();
    assert_eq!((many, codes.iter().filter(|code| **code == "ok").count()), (300 - 1 - 256, 256));
    for n in [0_usize, 6, 8, 200] {
        let record = answer.items()[n]["record"].as_str().unwrap();
        let opened = lab.decrypt(json!([sealed("ssn", &n.to_string(), record)])).await;
        assert_eq!(opened.text("plaintext"), [base64url(n.to_string().as_bytes())]);
    }
    for (fault, code) in [(FaultKind::Throttled, "kms_throttled"), (FaultKind::Denied, "kms_denied")] {
        let lab = Lab::new();
        let message = foreign(&lab, FOREIGN_ARN, &CONTEXT, b"x");
        lab.kms.set_fault(Some(fault));
        assert_eq!(lab.import(json!([incoming("1", &message)])).await.codes(), [code]);
        lab.kms.set_fault(None);
        let expected = if fault == FaultKind::Denied { "kms_denied" } else { "ok" };
        assert_eq!(lab.import(json!([incoming("1", &message)])).await.codes(), [expected], "{code}");
        lab.clock.advance(31_000);
        assert_eq!(lab.import(json!([incoming("1", &message)])).await.codes(), ["ok"], "{code}");
    }
}

#[tokio::test]
async fn a_batch_of_another_shape_is_refused_whole() {
    let lab = Lab::new();
    let record = lab.record().await;
    let good = incoming("1", b"x");
    let mut no_row = good.clone();
    no_row.as_object_mut().unwrap().remove("row");
    for item in [
        no_row,
        with(good.clone(), "record", json!("AA")),
        with(good.clone(), "to", json!({"table": "users", "column": "ssn", "row": "1"})),
        with(good.clone(), "frame_length", json!(0)),
        with(good.clone(), "context", json!(["a", "b"])),
        with(good.clone(), "context", json!({"a": 1})),
        with(good.clone(), "tenant", json!("globex")),
        sealed("ssn", "1", "AA"),
    ] {
        assert_eq!(lab.import(json!([item.clone()])).await.status, 400, "{item}");
    }
    let twice = r#"{"items":[{"ref":"1","table":"users","column":"ssn","row":"1","message":"AA","context":{"a":"1","a":"2"}}]}"#;
    let token = lab.token("acme", "fields:import:*.*");
    assert_eq!(lab.send(&lab.maintain, lab.event("/fields/import", &token, twice)).await.status, 400);
    let good = sealed("ssn", "42", &record);
    for item in [
        with(good.clone(), "frame_length", json!(-1)),
        with(good.clone(), "frame_length", json!("0")),
        with(good.clone(), "allow_unshreddable", json!("yes")),
        with(good.clone(), "context", json!({})),
        with(good.clone(), "to", json!({"table": "users", "column": "ssn", "row": "1"})),
        incoming("1", b"x"),
    ] {
        assert_eq!(lab.export(json!([item.clone()])).await.status, 400, "{item}");
    }
    for stray in ["frame_length", "allow_unshreddable"] {
        let item = with(good.clone(), stray, if stray == "frame_length" { json!(0) } else { json!(true) });
        assert_eq!(lab.decrypt(json!([item.clone()])).await.status, 400, "{stray}");
        assert_eq!(lab.rewrap(json!([item])).await.status, 400, "{stray}");
    }
}
