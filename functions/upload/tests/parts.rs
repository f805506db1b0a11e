//! Large files in process: what parts are signed for, and what becomes one object.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use shared::http::Request;
use shared::object::Sha256Digest;
use shared::problem::Code;
use support::{DAY, ID, World, answer, caller, start};
use testkit::files::Fact;
use testkit::objects::CANARY;

const KEY: &str = "t/acme/01920000-0000-7000-8000-0000000000f1";
const EACH: u64 = 5 << 20;
const LAST: u64 = 7;

/// A world with one file of alice's of three parts, the last of 7 bytes.
fn world() -> World {
    let world = support::pending();
    world.files.change(ID, |row| {
        (row.mode, row.sha256, row.content_type) = ("multipart".to_owned(), None, "application/zip".to_owned());
        (row.size, row.part_size) = (i64::try_from(2 * EACH + LAST).ok(), i64::try_from(EACH).ok());
    });
    world
}

fn request(id: &str, body: &str) -> Request {
    support::request(Some(id), &[("Content-Type", "application/json")], body)
}

fn part(number: u64) -> Value {
    let size = if number == 3 { LAST } else { EACH };
    json!({ "part": number, "size": size, "sha256": Sha256Digest::of(format!("part {number}").as_bytes()).to_string() })
}

fn parts(numbers: &[u64]) -> Value {
    json!({ "parts": numbers.iter().map(|number| part(*number)).collect::<Vec<_>>() })
}

impl World {
    async fn sign(&self, body: &Value) -> Result<Value, Code> {
        self.sign_as("acme", "alice", &ID.to_string(), body).await
    }

    async fn sign_as(&self, tenant: &str, subject: &str, id: &str, body: &Value) -> Result<Value, Code> {
        let signed = self.upload.sign_parts(&caller(tenant, subject), &request(id, &body.to_string())).await;
        signed.map(|response| answer(&response)).map_err(|problem| problem.code)
    }

    async fn complete(&self) -> Result<Value, Code> {
        let done = self.upload.complete(&caller("acme", "alice"), &request(&ID.to_string(), "")).await;
        done.map(|response| answer(&response)).map_err(|problem| problem.code)
    }

    async fn delete(&self) -> u16 {
        self.upload.delete(&caller("acme", "alice"), &request(&ID.to_string(), "")).await.unwrap().status()
    }

    /// Signs and sends all that is asked for.
    async fn send(&self, numbers: &[u64]) {
        self.sign(&parts(numbers)).await.unwrap();
        for (terms, _) in self.signing.parts() {
            self.signing.send(&terms);
        }
    }
}

#[tokio::test]
async fn a_part_is_signed_for_its_number_size_and_digest_under_the_servers_upload() {
    let world = world();
    let said = world.sign(&parts(&[1, 3])).await.unwrap();
    assert_eq!((&said["id"], &said["expires_at"]), (&json!(ID.to_string()), &json!(start().seconds() + 300)));
    let first = &said["parts"][0];
    assert_eq!((&first["part"], &first["method"]), (&json!(1), &json!("PUT")));
    assert_eq!(first["headers"]["x-amz-checksum-sha256"], part(1)["sha256"]);
    assert!(!said.to_string().contains("upload-1\""), "S3's upload is nobody's to know by itself: {said}");
    let signed = world.signing.parts();
    assert_eq!(signed.len(), 2);
    let (terms, life) = &signed[1];
    assert_eq!((terms.key.to_string().as_str(), terms.upload.as_str(), life.seconds()), (KEY, "upload-1", 300));
    assert_eq!((terms.part.number, terms.part.size), (3, LAST));
    let row = world.files.row(ID).unwrap();
    assert_eq!((row.upload_id.as_deref(), row.parts.len()), (Some("upload-1"), 2));
    assert_eq!(row.url_expires_ms, (start().seconds() + 300) * 1000);

    // The upload is begun once; a part may be signed for again, for other bytes too.
    let mut other = part(1);
    other["sha256"] = json!(Sha256Digest::of(b"other").to_string());
    world.sign(&json!({ "parts": [other] })).await.unwrap();
    assert_eq!(world.signing.calls(), ["begin"]);
    assert_eq!(world.signing.parts()[2].0.upload.as_str(), "upload-1");
    assert_eq!(world.files.row(ID).unwrap().parts[&1].1, shared::encoding::hex(Sha256Digest::of(b"other").as_bytes()));
}

#[tokio::test]
async fn five_hundred_parts_are_signed_with_one_session_and_one_statement() {
    let world = world();
    world.files.change(ID, |row| row.size = i64::try_from(500 * EACH).ok());
    let list = |count: u64| -> Value {
        let one = |number| json!({ "part": number, "size": EACH, "sha256": Sha256Digest::of(b"x").to_string() });
        json!({ "parts": (1..=count).map(one).collect::<Vec<_>>() })
    };
    let said = world.sign(&list(500)).await.unwrap();
    assert_eq!(said["parts"].as_array().unwrap().len(), 500);
    assert_eq!(world.files.calls(), ["api.sign_parts", "api.begin_parts"]);
    world.sign(&list(500)).await.unwrap();
    assert_eq!(world.files.calls().len(), 3, "what is begun costs one statement");
    assert_eq!(world.sign(&list(501)).await, Err(Code::PayloadTooLarge));
}

#[tokio::test]
async fn a_list_that_breaks_a_rule_signs_nothing_at_all() {
    let with = |name: &str, value: Value| {
        let mut one = part(1);
        one[name] = value;
        json!({ "parts": [part(2), one] })
    };
    for (body, want) in [
        (json!({}), Code::MalformedRequest),
        (json!({ "parts": [] }), Code::MalformedRequest),
        (json!({ "parts": [part(1), part(1)] }), Code::MalformedRequest),
        (with("part", json!(0)), Code::MalformedRequest),
        (with("part", json!(4)), Code::MalformedRequest),
        (with("part", json!(10_001)), Code::MalformedRequest),
        (with("part", json!(-1)), Code::MalformedRequest),
        (with("size", json!(EACH - 1)), Code::MalformedRequest),
        (with("size", json!(LAST)), Code::MalformedRequest),
        (with("size", json!(0)), Code::MalformedRequest),
        (with("sha256", json!("aGVsbG8=")), Code::MalformedRequest),
        (with("upload_id", json!("upload-1")), Code::MalformedRequest),
        (with("key", json!("t/globex/x")), Code::MalformedRequest),
        (json!({ "parts": [part(1)], "upload_id": "u" }), Code::MalformedRequest),
        (json!({ "parts": [part(1)], "resume": "yes" }), Code::MalformedRequest),
    ] {
        let world = world();
        assert_eq!(world.sign(&body).await, Err(want), "{body}");
        assert!(world.signing.parts().is_empty() && world.signing.calls().is_empty(), "{body}");
        assert!(world.files.row(ID).unwrap().parts.is_empty(), "{body}");
    }
}

#[tokio::test]
async fn parts_are_their_owners_own() {
    for (tenant, subject, id) in [
        ("globex", "alice", ID.to_string()),
        ("acme", "bob", ID.to_string()),
        ("acme", "alice", "01920000-0000-7000-8000-0000000000f2".to_owned()),
        ("acme", "alice", "x".to_owned()),
    ] {
        let world = world();
        world.send(&[1, 2, 3]).await;
        let before = world.signing.calls();
        assert_eq!(world.sign_as(tenant, subject, &id, &parts(&[1])).await, Err(Code::NotFound));
        let caller = caller(tenant, subject);
        let refused = world.upload.complete(&caller, &request(&id, "")).await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound);
        assert_eq!(world.signing.calls(), before, "S3 was asked");
    }
}

#[tokio::test]
async fn what_was_signed_and_sent_becomes_one_object_once() {
    let world = world();
    assert_eq!(world.complete().await, Err(Code::PartsMissing), "nothing was begun");
    world.send(&[1, 2]).await;
    assert_eq!(world.complete().await, Err(Code::PartsMissing), "one was never signed");
    world.sign(&parts(&[3])).await.unwrap();
    assert_eq!(world.complete().await, Err(Code::PartsMissing), "one was never sent");
    world.send(&[3]).await;
    let said = world.complete().await.unwrap();
    assert_eq!(said, json!({ "id": ID.to_string(), "mode": "multipart", "status": "pending" }));
    assert!(world.signing.open_uploads().is_empty());
    let calls = world.signing.calls();
    assert_eq!(world.complete().await.unwrap(), said, "it may be asked again");
    assert_eq!(world.signing.calls(), calls, "and then S3 is left alone");
    assert_eq!(world.sign(&parts(&[1])).await, Err(Code::FileAlreadyUploaded));
}

#[tokio::test]
async fn a_part_that_is_not_what_was_signed_last_completes_nothing() {
    type Change = fn(&mut std::collections::BTreeMap<u32, shared::object::HeldPart>);
    let cases: [(&str, Change); 5] = [
        ("size", |held| held.get_mut(&2).unwrap().size -= 1),
        ("digest", |held| held.get_mut(&2).unwrap().sha256 = Some(Sha256Digest::of(b"x").to_string())),
        ("no digest", |held| held.get_mut(&2).unwrap().sha256 = None),
        ("one too few", |held| drop(held.remove(&3))),
        ("one too many", |held| {
            let more = held[&1].clone();
            held.insert(4, more);
        }),
    ];
    for (what, change) in cases {
        let world = world();
        world.send(&[1, 2, 3]).await;
        world.signing.change(KEY, "upload-1", change);
        assert_eq!(world.complete().await, Err(Code::PartsMissing), "{what}");
        assert!(!world.signing.calls().contains(&"complete"), "{what}");
    }
    // A part that was signed for again counts as it was signed last.
    let world = world();
    world.send(&[1, 2, 3]).await;
    let mut other = part(2);
    other["sha256"] = json!(Sha256Digest::of(b"other").to_string());
    world.sign(&json!({ "parts": [other] })).await.unwrap();
    assert_eq!(world.complete().await, Err(Code::PartsMissing));
    world.signing.send(&world.signing.parts().pop().unwrap().0);
    world.complete().await.unwrap();
}

#[tokio::test]
async fn who_goes_on_after_a_stop_is_told_what_is_there() {
    let world = world();
    world.send(&[1, 2]).await;
    let mut body = parts(&[1, 2, 3]);
    body["resume"] = json!(true);
    let mut changed = part(2);
    changed["sha256"] = json!(Sha256Digest::of(b"changed since").to_string());
    body["parts"][1] = changed;
    let said = world.sign(&body).await.unwrap();
    assert_eq!(said["uploaded"], json!([1]));
    let named: Vec<&Value> = said["parts"].as_array().unwrap().iter().map(|part| &part["part"]).collect();
    assert_eq!(named, [&json!(2), &json!(3)]);
    // Who does not ask pays nothing, and is told nothing.
    let calls = world.signing.calls().len();
    assert!(world.sign(&parts(&[1])).await.unwrap().get("uploaded").is_none());
    assert_eq!(world.signing.calls().len(), calls);
}

#[tokio::test]
async fn an_upload_that_s3_ended_is_begun_anew() {
    let world = world();
    world.send(&[1, 2, 3]).await;
    world.signing.lose(KEY, "upload-1");
    assert_eq!(world.complete().await, Err(Code::PartsMissing));
    world.send(&[1, 2, 3]).await;
    assert_eq!(world.files.row(ID).unwrap().upload_id.as_deref(), Some("upload-2"));
    world.complete().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_was_lost_on_its_way_loses_nothing() {
    // S3 made the object and the row does not know it: S3 says of the upload what it says of one that never was.
    let world = world();
    world.send(&[1, 2, 3]).await;
    world.complete().await.unwrap();
    let unwritten =
        || world.files.change(ID, |row| (row.completed, row.upload_id) = (false, Some("upload-1".to_owned())));
    unwritten();
    assert_eq!(world.complete().await.unwrap()["status"], "pending", "it has happened");
    assert_eq!(world.signing.calls().iter().filter(|call| **call == "complete").count(), 1, "and happens once");
    // Its event may be heard before whoever asks again.
    unwritten();
    world.files.record(ID, Fact::created("v1", "ok", true));
    assert_eq!(world.complete().await.unwrap()["status"], world.files.row(ID).unwrap().status());
    assert_eq!(world.complete().await.unwrap(), world.complete().await.unwrap());

    // What was ended meanwhile is not completed.
    let world = self::world();
    world.send(&[1, 2, 3]).await;
    world.complete().await.unwrap();
    world.files.change(ID, |row| (row.completed, row.upload_id) = (false, Some("upload-1".to_owned())));
    assert_eq!(world.delete().await, 204);
    assert_eq!(world.complete().await, Err(Code::FileUnavailable));

    // A completion that found parts missing is none: an upload that is gone afterwards is begun anew.
    let world = self::world();
    world.send(&[1, 2]).await;
    assert_eq!(world.complete().await, Err(Code::PartsMissing));
    world.signing.lose(KEY, "upload-1");
    assert_eq!(world.complete().await, Err(Code::PartsMissing));
    world.send(&[1, 2, 3]).await;
    assert_eq!(world.files.row(ID).unwrap().upload_id.as_deref(), Some("upload-2"));
    world.complete().await.unwrap();

    // Nor is one that found a part not arrived that was signed for, whoever ended the upload in S3 afterwards.
    let world = self::world();
    world.send(&[1, 2]).await;
    world.sign(&parts(&[3])).await.unwrap();
    assert_eq!(world.complete().await, Err(Code::PartsMissing));
    world.signing.lose(KEY, "upload-1");
    assert_eq!(world.complete().await, Err(Code::PartsMissing));
    assert_eq!(world.files.row(ID).unwrap().upload_id, None, "the next parts begin another");

    // S3 or the database silent in between: the next try goes on.
    for call in ["parts", "complete"] {
        let world = self::world();
        world.send(&[1, 2, 3]).await;
        world.signing.set_failing(Some(call));
        assert_eq!(world.complete().await, Err(Code::ServiceUnavailable), "{call}");
        world.signing.set_failing(None);
        world.complete().await.unwrap();
    }
    let world = self::world();
    world.signing.set_failing(Some("begin"));
    assert_eq!(world.sign(&parts(&[1])).await, Err(Code::ServiceUnavailable));
    world.signing.set_failing(None);
    world.send(&[1, 2, 3]).await;
    world.complete().await.unwrap();
}

#[tokio::test]
async fn of_two_uploads_begun_at_once_one_stays() {
    let world = world();
    world.files.change(ID, |row| row.upload_id = None);
    // The other one was faster between our question and our answer.
    world.sign(&parts(&[1])).await.unwrap();
    world.files.change(ID, |row| row.upload_id = Some("theirs".to_owned()));
    assert_eq!(world.sign(&parts(&[2])).await.unwrap()["parts"][0]["part"], 2);
    assert_eq!(world.signing.parts().pop().unwrap().0.upload.as_str(), "theirs");
}

#[tokio::test]
async fn a_file_that_has_ended_takes_no_parts_and_its_upload_ends_with_it() {
    let world = world();
    world.send(&[1]).await;
    assert_eq!(world.delete().await, 204);
    assert!(world.signing.open_uploads().is_empty());
    assert_eq!(world.files.row(ID).unwrap().upload_id, None);
    assert_eq!(world.sign(&parts(&[2])).await, Err(Code::FileUnavailable));
    assert_eq!(world.complete().await, Err(Code::FileUnavailable));

    // Without S3 or STS the file ends all the same; the sweep ends the parts.
    for trouble in
        [|world: &World| world.signing.set_failing(Some("abort")), |world: &World| world.signing.set_down(true)]
    {
        let world = self::world();
        world.send(&[1]).await;
        trouble(&world);
        assert_eq!(world.delete().await, 204);
        assert_eq!(world.files.row(ID).unwrap().upload_id.as_deref(), Some("upload-1"));
        assert_eq!(world.files.row(ID).unwrap().status(), "deleted");
    }

    let world = self::world();
    world.clock.advance(DAY);
    assert_eq!(world.sign(&parts(&[1])).await, Err(Code::FileUnavailable));
    assert_eq!(world.complete().await, Err(Code::FileUnavailable));
    let world = self::world();
    world.files.record(ID, Fact::created("v1", "ok", true));
    assert_eq!(world.sign(&parts(&[1])).await, Err(Code::FileAlreadyUploaded));
}

#[tokio::test]
async fn a_file_of_another_mode_has_no_parts_and_one_of_parts_no_url() {
    let world = world();
    let renewed = world.upload.renew(&caller("acme", "alice"), &request(&ID.to_string(), "")).await.unwrap_err();
    assert_eq!(renewed.code, Code::UnsupportedMode);
    world.files.seed(ID, "acme", "alice");
    world.files.change(ID, |row| row.created_ms = start().millis());
    assert_eq!(world.sign(&parts(&[1])).await, Err(Code::UnsupportedMode));
    assert_eq!(world.complete().await, Err(Code::UnsupportedMode));
}

#[tokio::test]
async fn no_part_is_signed_past_its_session() {
    let world = world();
    world.signing.set_left(200);
    assert_eq!(world.sign(&parts(&[1])).await.unwrap()["expires_at"], start().seconds() + 140);
    for left in [119, 60, 0] {
        world.signing.set_left(left);
        assert_eq!(world.sign(&parts(&[1])).await, Err(Code::SignerUnavailable));
        assert_eq!(world.signing.parts().len(), 1);
    }
}

/// Runs the tests named as their own process and looks at all that they log.
#[test]
fn no_log_line_holds_a_url_an_upload_or_a_secret() {
    let own = std::env::current_exe().unwrap();
    let named = ["what_was_signed_and_sent_becomes_one_object_once", "who_goes_on_after_a_stop_is_told_what_is_there"];
    let ran = std::process::Command::new(own).args(["--nocapture", "--exact"]).args(named).output().unwrap();
    let logged = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success() && logged.contains("\"decision\":\"allow\""), "{logged}");
    assert!(!logged.contains(CANARY) && !logged.contains("upload-1") && !logged.contains("objects.test"), "{logged}");
}
