//! What `index` and `inspect` promise, run in-process over honest fakes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop where it stands")]

mod support;

use data_key::Deployment;
use serde_json::{Value, json};
use shared::boot::{Handler as _, Invocation};
use shared::encoding::base64url;
use shared::port::FaultKind;
use support::{ARN, Lab, START, answer, bytes, field, sealed, searched, with};

const DAY: i64 = 86_400_000;

fn entries(item: &Value) -> Vec<String> {
    item["index"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn equal_values_meet_and_others_do_not() {
    let lab = Lab::new();
    let wide = |value: &[u8]| with(searched("email", value), "bits", json!(63));
    let answer = lab
        .index(json!([
            wide(b"Ann@Example.com"),
            wide(b"ANN@EXAMPLE.COM"),
            wide(b"bob@example.com"),
            with(wide(b"Ann@Example.com"), "column", json!("phone")),
            with(wide(b"Ann@Example.com"), "table", json!("staff")),
            with(wide(b"Ann@Example.com"), "normalisation", json!("exact")),
        ]))
        .await;
    assert_eq!((answer.status, answer.codes()), (200, vec!["ok"; 6]));
    let made: Vec<Vec<String>> = answer.items().iter().map(entries).collect();
    assert_eq!(made[0], made[1]);
    for other in &made[2..] {
        assert_ne!(&made[0], other);
    }
    let mut members: Vec<_> = answer.items()[0].as_object().unwrap().keys().cloned().collect();
    members.sort();
    assert_eq!(members, ["index", "ok", "ref"]);
    // Another environment, another day, and still the same entry.
    lab.clock.advance(3 * DAY);
    let event = lab.event(
        "/fields/index",
        &lab.token("acme", "fields:index:users.email"),
        &json!({"items": [wide(b"ann@example.com")]}).to_string(),
    );
    let later = lab.send(&lab.fresh(Deployment::Encrypt), event).await;
    assert_eq!(entries(&later.items()[0]), made[0]);
}

#[tokio::test]
async fn another_tenant_gets_other_bytes() {
    let lab = Lab::new();
    let items = json!([with(searched("email", b"ann@example.com"), "bits", json!(256))]);
    let (acme, globex) = (lab.index(items.clone()).await, lab.index_as("globex", "fields:index:*.*", items).await);
    assert_eq!((acme.codes(), globex.codes()), (vec!["ok"], vec!["ok"]));
    let (acme, globex) = (entries(&acme.items()[0]), entries(&globex.items()[0]));
    assert_ne!(acme, globex);
    assert_eq!((bytes(&acme[0]).len(), bytes(&globex[0]).len()), (32, 32));
    let tenants: Vec<_> =
        lab.database.rows(|rows| rows.iter().map(|row| (row.tenant.clone(), row.purpose.clone())).collect());
    assert_eq!(tenants, [("acme".to_owned(), "index".to_owned()), ("globex".to_owned(), "index".to_owned())]);
}

#[tokio::test]
async fn bits_and_partitions_are_as_asked() {
    let lab = Lab::new();
    let asked = |bits: u64, partitions: u64| {
        with(with(searched("email", b"x"), "bits", json!(bits)), "partitions", json!(partitions))
    };
    let answer = lab.index(json!([asked(12, 1), asked(12, 4), asked(63, 255), asked(8, 1), asked(1, 1)])).await;
    assert_eq!(answer.status, 200);
    let made: Vec<Vec<String>> = answer.items().iter().map(entries).collect();
    assert_eq!(made.iter().map(Vec::len).collect::<Vec<_>>(), [1, 4, 255, 1, 1]);
    assert_eq!(made[0][0], made[1][0], "one partition is partition 0");
    let entry = bytes(&made[0][0]);
    assert_eq!((entry.len(), entry[1] & 0x0f), (2, 0));
    assert_eq!((bytes(&made[2][0]).len(), bytes(&made[3][0]).len(), bytes(&made[4][0])[0] & 0x7f), (8, 1, 0));
    for (bits, partitions) in [(0, 1), (64, 1), (255, 1), (257, 1), (256, 2), (12, 0), (12, 256)] {
        let answer = lab.index(json!([asked(bits, partitions)])).await;
        assert_eq!((answer.status, answer.codes()), (207, vec!["malformed"]), "{bits} {partitions}");
    }
}

#[tokio::test]
async fn values_that_their_normalisation_cannot_read_fail_alone_and_without_a_call() {
    let lab = Lab::new();
    let digits = |value: &[u8]| with(searched("phone", value), "normalisation", json!("digits"));
    let bad = json!([
        searched("email", b"\xff"),
        digits(b""),
        digits(b"n/a"),
        digits("\u{661}".as_bytes()),
        with(searched("email", b"x"), "normalisation", json!("lowercase")),
        with(searched("email", b"x"), "value", json!("AQ==")),
        with(searched("email", b"x"), "row", json!("")),
        with(searched("email", b"x"), "version", json!("007")),
        with(searched("email", b"x"), "column", json!("a.b")),
        with(searched("email", b"x"), "ref", json!("x".repeat(65))),
    ]);
    let answer = lab.index(bad).await;
    assert_eq!((answer.status, answer.codes()), (207, vec!["malformed"; 10]));
    assert!(lab.kms.take_calls().is_empty() && lab.database.take_calls().is_empty());
    let answer = lab
        .index(json!([digits(b"+49 30 1234"), digits(b"n/a"), digits(b"49301234"), searched("email", &[b'x'; 65_537])]))
        .await;
    assert_eq!(answer.codes(), ["ok", "malformed", "ok", "too_large"]);
    assert_eq!(entries(&answer.items()[0]), entries(&answer.items()[2]));
    let answer = lab.index(json!([with(searched("email", b"x"), "row", json!("42"))])).await;
    assert_eq!(answer.codes(), ["ok"], "a row beside it decides nothing");
}

#[tokio::test]
async fn a_column_outside_the_scopes_is_forbidden_without_a_call() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.forget();
    for scope in ["fields:index:users.phone", "fields:encrypt:*.*", "fields:inspect:*.*", "files:read"] {
        let answer = lab.index_as("acme", scope, json!([searched("email", b"x")])).await;
        assert_eq!((answer.status, answer.codes()), (207, vec!["forbidden"]), "{scope}");
    }
    for scope in ["fields:inspect:users.email", "fields:decrypt:*.*", "fields:index:*.*"] {
        let answer = lab.inspect_as("acme", scope, json!([sealed("ssn", "42", &record)])).await;
        assert_eq!((answer.status, answer.codes()), (207, vec!["forbidden"]), "{scope}");
    }
    assert!(lab.kms.take_calls().is_empty() && lab.database.take_calls().is_empty());
}

#[tokio::test]
async fn the_index_key_is_made_once_named_by_its_purpose_and_kept_for_five_minutes() {
    let lab = Lab::new();
    let items = json!([searched("email", b"x"), searched("phone", b"x")]);
    lab.index(items.clone()).await;
    let calls: Vec<_> = lab.kms.take_calls().iter().map(|call| (call.operation, call.context.purpose)).collect();
    assert_eq!(calls, [("GenerateDataKey", "index")]);
    assert_eq!(lab.database.take_calls(), ["api.current_index_key", "api.insert_index_key"]);
    lab.clock.advance(299_999);
    lab.index(items.clone()).await;
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec![]));
    lab.clock.advance(1);
    lab.index(items).await;
    let calls: Vec<_> = lab.kms.take_calls().iter().map(|call| (call.operation, call.context.purpose)).collect();
    assert_eq!(calls, [("Decrypt", "index")]);
    assert_eq!(lab.database.take_calls(), ["api.current_index_key"]);
}

#[tokio::test]
async fn concurrent_batches_make_the_index_key_once_and_whoever_loses_the_race_takes_the_winners() {
    let lab = Lab::new();
    let item = json!([searched("email", b"x")]);
    let (one, two, three) = tokio::join!(lab.index(item.clone()), lab.index(item.clone()), lab.index(item.clone()));
    assert_eq!(lab.operations(), ["GenerateDataKey"]);
    assert!([&one, &two, &three].iter().all(|answer| entries(&answer.items()[0]) == entries(&one.items()[0])));

    let winner = lab.database.rows(std::mem::take);
    lab.database.before_next_insert(move |rows| rows.extend(winner));
    let event =
        lab.event("/fields/index", &lab.token("acme", "fields:index:*.*"), &json!({ "items": item }).to_string());
    let raced = lab.send(&lab.fresh(Deployment::Encrypt), event).await;
    assert_eq!(lab.operations(), ["GenerateDataKey", "Decrypt"]);
    assert_eq!(entries(&raced.items()[0]), entries(&one.items()[0]));
    assert_eq!(lab.database.rows(|rows| rows.len()), 1);
}

#[tokio::test]
async fn what_somebody_did_to_the_index_keys_row_is_found_out() {
    let item = || json!([searched("email", b"x")]);
    let changes: [fn(&mut testkit::data_keys::Row); 3] = [
        |row| row.kms_key_arn = ARN.replace("1234abcd", "00000000"),
        |row| row.wrapped.as_mut().unwrap()[20] ^= 1,
        |row| row.id = uuid::Uuid::nil(),
    ];
    for change in changes {
        let lab = Lab::new();
        lab.index(item()).await;
        lab.clock.advance(300_000);
        lab.database.rows(|rows| change(&mut rows[0]));
        assert_eq!(lab.index(item()).await.codes(), ["key_unavailable"]);
    }
    // A field key in the place of the index key does not unwrap either: its purpose is another.
    let lab = Lab::new();
    lab.record().await;
    lab.database.rows(|rows| (rows[0].purpose, rows[0].scope) = ("index".to_owned(), "index".to_owned()));
    assert_eq!(lab.index(item()).await.codes(), ["key_unavailable"]);
    for length in [0, 31, 33] {
        let lab = Lab::new();
        lab.index(item()).await;
        lab.clock.advance(300_000);
        lab.kms.set_length(length);
        assert_eq!(lab.index(item()).await.codes(), ["key_unavailable"]);
    }
}

#[tokio::test]
async fn a_fault_while_indexing_leaves_nothing_half_done() {
    let lab = Lab::new();
    let item = json!([searched("email", b"x")]);
    lab.database.set_down(true);
    for answer in [lab.index(item.clone()).await, lab.inspect(json!([sealed("ssn", "1", &record_of(7))])).await] {
        assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("service_unavailable")));
        assert_eq!(answer.headers["retry-after"], "1");
    }
    lab.database.set_down(false);
    for (kind, status, code) in [
        (FaultKind::Unavailable, 503, None),
        (FaultKind::Throttled, 207, Some("kms_throttled")),
        (FaultKind::Denied, 207, Some("kms_denied")),
    ] {
        lab.kms.set_fault(Some(kind));
        let answer = lab.index(item.clone()).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.codes().first().copied(), code);
        assert!(lab.database.rows(|rows| rows.is_empty()));
    }
    lab.kms.set_fault(None);
    assert_eq!(lab.index(item.clone()).await.codes(), ["kms_denied"], "a denial stands for 30 s");
    lab.clock.advance(30_000);
    let invocation = Invocation { deadline: lab.clock_now_plus(499), ..lab.invocation() };
    let body = json!({ "items": item }).to_string();
    let event = lab.event("/fields/index", &lab.token("acme", "fields:index:*.*"), &body);
    assert_eq!(answer(lab.encrypt.handle(event, &invocation).await.unwrap()).codes(), ["deadline"]);
    assert_eq!(lab.index(item).await.codes(), ["ok"]);
}

/// A record's bytes, its key id all of one byte.
fn record_of(byte: u8) -> String {
    base64url(&[&[1_u8][..], &[byte; 16], &[0; 80]].concat())
}

#[tokio::test]
async fn a_records_header_is_told_without_kms_and_without_the_right_to_decrypt() {
    let lab = Lab::new();
    let record = lab.record().await;
    let subject = with(field("ssn", "43", b"x"), "scope", json!("subject:s-1"));
    let subject = lab.encrypt(json!([subject])).await.text("record").remove(0);
    let ids = lab.database.rows(|rows| rows.iter().map(|row| row.id.to_string()).collect::<Vec<_>>());
    lab.forget();
    let scope = "fields:inspect:users.ssn";
    let without_row = json!({"ref": "r", "table": "users", "column": "ssn", "record": record});
    let items = json!([sealed("ssn", "42", &record), sealed("ssn", "43", &subject), without_row]);
    let answer = lab.inspect_as("acme", scope, items.clone()).await;
    assert_eq!(answer.status, 200);
    let header = |reference: &str, id: &str, state: &str| json!({"ref": reference, "ok": true, "version": 1, "data_key_id": id, "state": state, "created_at": START / 1000});
    assert_eq!(
        answer.items(),
        [header("42", &ids[0], "active"), header("43", &ids[1], "active"), header("r", &ids[0], "active")]
    );
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec!["api.data_keys_for_inspect"]));
    lab.clock.advance(DAY);
    lab.database.rows(|rows| {
        rows[1].state = "shredded".to_owned();
        (rows[1].wrapped, rows[1].writer_wrapped) = (None, None);
    });
    let answer = lab.inspect_as("acme", scope, items.clone()).await;
    assert_eq!(
        answer.items(),
        [
            header("42", &ids[0], "decrypt_only"),
            header("43", &ids[1], "shredded"),
            header("r", &ids[0], "decrypt_only")
        ],
        "past its day a key encrypts no more, whoever closes it"
    );
    let direct = json!({"operation": "inspect", "access_token": lab.token("acme", scope), "items": items});
    let answered = lab.decrypt.handle(direct, &lab.invocation()).await.unwrap();
    assert_eq!(answered["items"], json!(answer.items()), "the deployment that decrypts tells the same");
}

#[tokio::test]
async fn a_key_of_another_tenant_or_column_is_as_unknown_as_one_that_never_was() {
    let lab = Lab::new();
    let record = lab.record().await;
    lab.index(json!([searched("email", b"x")])).await;
    let index_key = lab.database.rows(|rows| rows[1].id);
    let of_index_key = base64url(&[&[1_u8][..], index_key.as_bytes(), &[0; 80]].concat());
    lab.forget();
    let unknown = lab.inspect(json!([sealed("ssn", "42", &record_of(7))])).await;
    assert_eq!((unknown.status, unknown.codes()), (207, vec!["key_unavailable"]));
    let foreign = lab.inspect_as("globex", "fields:inspect:*.*", json!([sealed("ssn", "42", &record)])).await;
    assert_eq!((foreign.status, &foreign.body), (unknown.status, &unknown.body));
    let column = lab.inspect(json!([sealed("email", "42", &record)])).await;
    assert_eq!((column.status, &column.body), (unknown.status, &unknown.body));
    let index = lab.inspect(json!([sealed("ssn", "42", &of_index_key)])).await;
    assert_eq!((index.status, &index.body), (unknown.status, &unknown.body));
    assert_eq!((lab.operations(), lab.database.take_calls()), (vec![], vec!["api.data_keys_for_inspect"; 4]));
}

#[tokio::test]
async fn what_is_no_record_is_not_inspected() {
    let lab = Lab::new();
    let record = bytes(&lab.record().await);
    lab.forget();
    let starting = |byte: u8| base64url(&[&[byte], &record[1..]].concat());
    for (text, code) in [
        (String::new(), "malformed"),
        (base64url(&record[..96]), "malformed"),
        (base64url(&[&[1_u8][..], &[0; 65_633]].concat()), "malformed"),
        (starting(0), "unsupported_version"),
        (starting(2), "use_import"),
        (starting(0xff), "unsupported_version"),
        (format!("{}=", base64url(&record)), "malformed"),
    ] {
        assert_eq!(lab.inspect(json!([sealed("ssn", "42", &text)])).await.codes(), [code], "{} chars", text.len());
    }
    assert!(lab.database.take_calls().is_empty());
    let items: Value = (0..=255_u8).map(|at| sealed("ssn", &at.to_string(), &record_of(at))).collect();
    let mut items = items.as_array().unwrap().clone();
    items.push(sealed("ssn", "x", &base64url(&record)));
    let codes = lab.inspect(Value::Array(items)).await;
    assert_eq!((codes.codes()[255], codes.codes()[256]), ("key_unavailable", "too_many_keys"));
}

#[tokio::test]
async fn operations_of_the_other_deployment_do_not_exist_and_bodies_of_another_shape_are_refused_whole() {
    let lab = Lab::new();
    let token = lab.token("acme", "fields:index:*.* fields:inspect:*.*");
    let answer = lab.send(&lab.decrypt, lab.event("/fields/index", &token, "no body at all")).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("not_found")));
    let direct = json!({"operation": "index", "access_token": 7});
    assert_eq!(lab.decrypt.handle(direct, &lab.invocation()).await.unwrap()["status"], 404);
    for (resource, items) in [
        ("/fields/index", json!([])),
        ("/fields/index", json!([field("email", "1", b"x")])),
        ("/fields/index", json!([sealed("email", "1", "AQ")])),
        ("/fields/index", json!([with(searched("email", b"x"), "tenant", json!("globex"))])),
        ("/fields/index", json!([with(searched("email", b"x"), "scope", json!("subject:a"))])),
        ("/fields/index", json!([with(searched("email", b"x"), "bits", json!("12"))])),
        ("/fields/index", json!(vec![searched("email", b"x"); 1_001])),
        ("/fields/inspect", json!([searched("email", b"x")])),
        ("/fields/inspect", json!([field("email", "1", b"x")])),
        ("/fields/inspect", json!([with(sealed("email", "1", "AQ"), "bits", json!(12))])),
        ("/fields/encrypt", json!([searched("email", b"x")])),
    ] {
        let body = json!({ "items": items }).to_string();
        let answer = lab.send(&lab.encrypt, lab.event(resource, &token, &body)).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (400, Some("malformed_request")), "{resource}");
    }
    assert!(lab.kms.take_calls().is_empty() && lab.database.take_calls().is_empty());
}

#[tokio::test]
async fn no_answer_holds_an_index_key_or_a_value() {
    let lab = Lab::new();
    let answer = lab.index(json!([searched("email", b"canary-77aa"), searched("email", b"\xffcanary-77aa")])).await;
    let rows = lab.database.rows(|rows| format!("{rows:?}"));
    for key in lab.kms.keys_seen() {
        let (hex, text) = (shared::encoding::hex(&key), base64url(&key));
        for shown in [&answer.body.to_string(), &rows] {
            assert!(!shown.contains(&hex) && !shown.contains(&text) && !shown.contains("canary"));
        }
    }
}
