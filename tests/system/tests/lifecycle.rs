//! The end of a file on the running stack: what nobody reads any more, and when its bytes go.
//!
//! The stack's clock is the machine's, so the wait is shortened where it is kept: in the row.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers outside of #[test] functions")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use local::events::ObjectCreated;
use local::faults::Faults;
use local::journey::Answer;
use local::lambda::Kind;
use serde_json::{Value, json};
use shared::digest::sha256;
use support::{Running, send_form};

const CONTENT: &[u8] = b"hello";
const SWEEP: &str = "portcullis-local-file-sweep";

struct World {
    running: Running,
    token: String,
}

impl World {
    async fn start() -> World {
        let running = Running::start().await;
        let token = running.token("acme-backend").await;
        World { running, token }
    }

    async fn call(&self, method: &str, path: &str) -> Answer {
        self.running.api.call(method, path, Some(&self.token), None).await.unwrap()
    }

    async fn create(&self) -> (String, Value) {
        let digest = STANDARD.encode(sha256(CONTENT));
        let body = json!({"name": "a.txt", "content_type": "text/plain", "size": 5, "mode": "put", "sha256": digest});
        let plan = self.running.api.call("POST", "/files", Some(&self.token), Some(&body)).await.unwrap().json();
        (plan["id"].as_str().unwrap().to_owned(), plan["upload"].clone())
    }

    async fn put(&self, upload: &Value) -> Answer {
        let headers = upload["headers"].as_object().unwrap();
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let put = self.running.api.send("PUT", upload["url"].as_str().unwrap(), &headers, CONTENT.into());
        put.await.unwrap()
    }

    /// Waits until the events have had their effect.
    async fn settled(&self, id: &str) -> String {
        for _ in 0..100 {
            self.running.stack.events.idle().await;
            let status = self.call("GET", &format!("/files/{id}")).await.json()["status"].as_str().unwrap().to_owned();
            if status != "pending" {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        "pending".to_owned()
    }

    async fn sweep(&self) {
        assert!(self.running.stack.events.tick(SWEEP).await, "the template has no such schedule");
        self.running.stack.events.idle().await;
    }

    /// As if the file had been made this much earlier, and swept as long ago.
    async fn older(&self, id: &str, seconds: i64) {
        let moved = format!(
            "UPDATE public.files SET created_ms = created_ms - {millis}, url_expires_ms = url_expires_ms - {millis},
                    sweep_ms = sweep_ms - {millis} WHERE id = '{id}'",
            millis = seconds * 1000
        );
        self.running.owner().await.batch_execute(&moved).await.unwrap();
    }

    async fn bytes(&self, id: &str) -> bool {
        let places = &self.running.stack.places;
        self.running.stack.s3.look(places.object_bucket, &format!("t/acme/{id}")).await.is_some()
    }

    async fn purged(&self, id: &str) -> bool {
        self.running.count(&format!("public.files WHERE id = '{id}' AND purged_ms IS NOT NULL")).await == 1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_files_bytes_go_when_no_url_can_be_alive_and_nothing_brings_it_back() {
    let world = World::start().await;
    let ((id, upload), (kept, other)) = (world.create().await, world.create().await);
    assert_eq!((world.put(&upload).await.status, world.put(&other).await.status), (200, 200));
    assert_eq!((world.settled(&id).await, world.settled(&kept).await), ("clean".to_owned(), "clean".to_owned()));
    let content = format!("/files/{id}/content");
    assert_eq!(world.call("DELETE", &format!("/files/{id}")).await.status, 204);
    assert_eq!(world.call("GET", &content).await.outcome(), "410 file_unavailable");

    // While the URL may be alive the bytes stay, because they are what shuts it out.
    world.sweep().await;
    assert!(world.bytes(&id).await);
    assert_eq!(world.put(&upload).await.outcome(), "412 PreconditionFailed");

    world.older(&id, 361).await;
    world.sweep().await;
    assert!(!world.bytes(&id).await && world.purged(&id).await);
    assert!(world.bytes(&kept).await, "another file's bytes went");

    // In truth the URL lives on here: what it writes now is shut out by the tombstone, and goes with the next sweep.
    assert_eq!(world.put(&upload).await.status, 200);
    world.running.stack.events.idle().await;
    for _ in 0..100 {
        if !world.purged(&id).await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(world.call("GET", &content).await.outcome(), "410 file_unavailable");
    world.older(&id, 601).await;
    world.sweep().await;
    assert!(!world.bytes(&id).await && world.purged(&id).await);
    assert_eq!(world.call("GET", &format!("/files/{kept}/content")).await.status, 302);
    let undelivered = world.running.stack.lambda.undelivered();
    assert!(undelivered.is_empty(), "{undelivered:?}");
    world.running.stack.stop().await;
}

impl World {
    async fn form(&self) -> (String, Value) {
        let body = json!({"name": "a.txt", "content_type": "text/plain", "max_size": 10, "mode": "post"});
        let plan = self.running.api.call("POST", "/files", Some(&self.token), Some(&body)).await.unwrap().json();
        (plan["id"].as_str().unwrap().to_owned(), plan["upload"].clone())
    }

    async fn post(&self, upload: &Value, content: &[u8]) -> Answer {
        send_form(&self.running.api, upload, content).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_brings_a_file_of_a_size_that_nobody_knew_and_once() {
    let world = World::start().await;
    let ((id, upload), (twice, other)) = (world.form().await, world.form().await);
    let before = world.call("GET", &format!("/files/{id}")).await.json();
    assert_eq!((&before["size"], &before["sha256"]), (&Value::Null, &Value::Null));
    assert_eq!(world.post(&upload, b"more than ten").await.outcome(), "400 EntityTooLarge");
    assert_eq!(world.post(&upload, b"").await.outcome(), "400 EntityTooSmall");
    assert_eq!(world.post(&upload, CONTENT).await.status, 204);
    assert_eq!(world.settled(&id).await, "clean");
    let after = world.call("GET", &format!("/files/{id}")).await.json();
    assert_eq!((&after["size"], &after["sha256"]), (&json!(5), &json!(STANDARD.encode(sha256(CONTENT)))));
    let location = world.call("GET", &format!("/files/{id}/content")).await.header("location").to_owned();
    let read = world.running.api.send("GET", &location, &[], bytes::Bytes::new()).await.unwrap();
    assert_eq!(read.body, CONTENT);

    // Its holder may send it again while it lives; then the file ends, whatever was in the second one.
    assert_eq!((world.post(&other, CONTENT).await.status, world.post(&other, b"other").await.status), (204, 204));
    for _ in 0..100 {
        world.running.stack.events.idle().await;
        if world.settled(&twice).await == "rejected" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(world.call("GET", &format!("/files/{twice}/content")).await.outcome(), "410 file_unavailable");
    let undelivered = world.running.stack.lambda.undelivered();
    assert!(undelivered.is_empty(), "{undelivered:?}");
    world.running.stack.stop().await;
}

impl World {
    async fn ask(&self, path: &str, body: &Value) -> Answer {
        self.running.api.call("POST", path, Some(&self.token), Some(body)).await.unwrap()
    }

    async fn send_part(&self, one: &Value, content: &[u8]) -> u16 {
        let digest = one["headers"]["x-amz-checksum-sha256"].as_str().unwrap();
        let headers = [("x-amz-checksum-sha256", digest)];
        let url = one["url"].as_str().unwrap();
        self.running.api.send("PUT", url, &headers, content.to_vec().into()).await.unwrap().status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_in_parts_and_a_stopped_one_goes_on() {
    const EACH: usize = 5 << 20;
    let world = World::start().await;
    let (first, last) = (vec![b'a'; EACH], b"the end".to_vec());
    let body = json!({"name": "a.txt", "content_type": "text/plain", "size": EACH + 7, "part_size": EACH, "mode": "multipart"});
    let plan = world.ask("/files", &body).await.json();
    assert_eq!(plan["upload"], json!({"part_size": EACH, "parts": 2}));
    let file = format!("/files/{}", plan["id"].as_str().unwrap());
    let part = |number: u64, content: &[u8]| json!({"part": number, "size": content.len(), "sha256": STANDARD.encode(sha256(content))});
    let all = json!({"parts": [part(1, &first), part(2, &last)], "resume": true});
    let signed = world.ask(&format!("{file}/parts"), &all).await;
    assert_eq!(signed.status, 200, "{}", world.running.stack.lambda.log("portcullis-local-upload"));
    let signed = signed.json();
    assert_eq!(world.send_part(&signed["parts"][0], &first).await, 200);
    assert_eq!(world.ask(&format!("{file}/complete"), &json!({})).await.outcome(), "409 parts_missing");
    assert_eq!(world.send_part(&signed["parts"][0], &vec![b'b'; EACH]).await, 400, "other bytes");
    assert_eq!(world.send_part(&signed["parts"][1], b"the end!").await, 403, "another length");

    // The client dies here. Another one hashes the file again and sends what is not there.
    let signed = world.ask(&format!("{file}/parts"), &all).await.json();
    assert_eq!((&signed["uploaded"], &signed["parts"][0]["part"]), (&json!([1]), &json!(2)));
    assert_eq!(world.send_part(&signed["parts"][0], &last).await, 200);
    let done = world.ask(&format!("{file}/complete"), &json!({})).await;
    assert_eq!(done.status, 200, "{}", done.outcome());
    assert_eq!(world.settled(plan["id"].as_str().unwrap()).await, "clean");
    assert_eq!(world.ask(&format!("{file}/complete"), &json!({})).await.status, 200);
    assert_eq!(world.ask(&format!("{file}/parts"), &all).await.outcome(), "409 file_already_uploaded");
    let said = world.call("GET", &file).await.json();
    let digests = [first.as_slice(), &last].map(sha256).concat();
    assert_eq!(
        (&said["size"], &said["sha256"]),
        (&json!(EACH + 7), &json!(format!("{}-2", STANDARD.encode(sha256(&digests)))))
    );
    let location = world.call("GET", &format!("{file}/content")).await.header("location").to_owned();
    let read = world.running.api.send("GET", &location, &[("range", "bytes=5242879-5242883")], bytes::Bytes::new());
    let read = read.await.unwrap();
    assert_eq!((read.status, read.body.as_ref()), (206, b"athe ".as_slice()));

    // One that is given up: its parts go with it, and its URLs with them.
    let plan = world.ask("/files", &body).await.json();
    let file = format!("/files/{}", plan["id"].as_str().unwrap());
    let signed = world.ask(&format!("{file}/parts"), &all).await.json();
    assert_eq!(world.send_part(&signed["parts"][0], &first).await, 200);
    assert_eq!(world.call("DELETE", &file).await.status, 204);
    assert_eq!(world.send_part(&signed["parts"][1], &last).await, 404, "S3 knows the upload no longer");
    assert_eq!(world.ask(&format!("{file}/parts"), &all).await.outcome(), "410 file_unavailable");
    let undelivered = world.running.stack.lambda.undelivered();
    assert!(undelivered.is_empty(), "{undelivered:?}");
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_scanning_on_nobody_reads_a_file_before_its_verdict() {
    let running = Running::start_with(&[("Scan", "guardduty")]).await;
    let token = running.token("acme-backend").await;
    let world = World { running, token };
    let bucket = world.running.stack.places.object_bucket.to_owned();
    let verdict = |id: &str, version: &str, result: &str| {
        json!({"version": "0", "id": "e", "source": "aws.guardduty", "account": local::stack::ACCOUNT, "region": "us-east-1",
            "time": "2026-01-01T00:00:00Z", "detail-type": "GuardDuty Malware Protection Object Scan Result",
            "resources": [format!("arn:aws:guardduty:us-east-1:{}:malware-protection-plan/p", local::stack::ACCOUNT)],
            "detail": {"schemaVersion": "1.0", "scanStatus": "COMPLETED", "resourceType": "S3_OBJECT",
                "s3ObjectDetails": {"bucketName": bucket, "objectKey": format!("t/acme/{id}"), "eTag": "e",
                    "versionId": version, "s3Throttled": false},
                "scanResultDetails": {"scanResultStatus": result, "threats": null}}})
    };
    for (result, status, content) in [
        ("NO_THREATS_FOUND", "clean", "302"),
        ("THREATS_FOUND", "infected", "410 file_unavailable"),
        ("UNSUPPORTED", "unscannable", "409 file_unscannable"),
    ] {
        let (id, upload) = world.create().await;
        let version = world.put(&upload).await.header("x-amz-version-id").to_owned();
        assert_eq!(world.settled(&id).await, "scanning");
        assert_eq!(world.call("GET", &format!("/files/{id}/content")).await.outcome(), "409 file_not_ready");
        let events = &world.running.stack.events;
        events.publish(verdict(&id, "another-version", "NO_THREATS_FOUND")).await;
        events.idle().await;
        assert_eq!(world.call("GET", &format!("/files/{id}/content")).await.outcome(), "409 file_not_ready");
        events.publish(verdict(&id, &version, result)).await;
        events.idle().await;
        let found = world.call("GET", &format!("/files/{id}")).await.json()["status"].as_str().unwrap().to_owned();
        assert_eq!(found, status);
        assert_eq!(world.call("GET", &format!("/files/{id}/content")).await.outcome(), content);
    }
    let undelivered = world.running.stack.lambda.undelivered();
    assert!(undelivered.is_empty(), "{undelivered:?}");
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3s_own_notification_makes_a_file_readable_as_eventbridge_does_and_both_do_no_more() {
    let world = World::start().await;
    let (id, upload) = world.create().await;
    let stack = &world.running.stack;
    stack.events.hold();
    let put = world.put(&upload).await;
    let created = ObjectCreated {
        bucket: stack.places.object_bucket.to_owned(),
        key: format!("t/acme/{id}"),
        size: u64::try_from(CONTENT.len()).unwrap(),
        etag: put.header("etag").trim_matches('"').to_owned(),
        version_id: put.header("x-amz-version-id").to_owned(),
        sequencer: "0A".to_owned(),
        reason: "PutObject".to_owned(),
        request_id: "C3D13FE58DE4C810".to_owned(),
        source_ip: "127.0.0.1".to_owned(),
    };
    stack.events.idle().await;
    assert_eq!(world.call("GET", &format!("/files/{id}/content")).await.outcome(), "409 file_not_ready");
    let notified = stack.events.notification(&created, "direct");
    let function = "portcullis-local-object-events";
    let answered = stack.lambda.invoke(function, notified.to_string().into(), Kind::RequestResponse).await.unwrap();
    assert!(answered.function_error.is_none(), "{:?}", answered.payload);
    assert_eq!(world.settled(&id).await, "clean");
    stack.events.release().await;
    stack.events.idle().await;
    assert_eq!(world.settled(&id).await, "clean");
    assert_eq!(world.call("GET", &format!("/files/{id}/content")).await.status, 302);
    assert!(stack.lambda.undelivered().is_empty());
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_filled_expires_after_a_day_and_no_sooner() {
    let world = World::start().await;
    let ((old, upload), (young, _)) = (world.create().await, world.create().await);
    world.older(&old, 86_401).await;
    world.older(&young, 86_000).await;
    assert_eq!(world.call("POST", &format!("/files/{old}/url")).await.outcome(), "410 file_unavailable");
    world.sweep().await;
    assert_eq!((world.settled(&old).await, world.purged(&old).await), ("expired".to_owned(), true));
    let again = world.call("POST", &format!("/files/{young}/url")).await;
    assert_eq!(again.status, 200, "{}", again.outcome());
    assert_eq!(world.put(&again.json()["upload"]).await.status, 200);
    assert_eq!(world.settled(&young).await, "clean");

    // An object that comes to an expired file is never served, and goes.
    assert_eq!(world.put(&upload).await.status, 200);
    for _ in 0..100 {
        world.running.stack.events.idle().await;
        if !world.purged(&old).await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(world.call("GET", &format!("/files/{old}/content")).await.outcome(), "410 file_unavailable");
    world.older(&old, 601).await;
    world.sweep().await;
    assert!(!world.bytes(&old).await && world.purged(&old).await);
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_s3_does_not_answer_loses_nothing() {
    let world = World::start().await;
    let (id, upload) = world.create().await;
    assert_eq!(world.put(&upload).await.status, 200);
    assert_eq!(world.settled(&id).await, "clean");
    assert_eq!(world.call("DELETE", &format!("/files/{id}")).await.status, 204);
    world.older(&id, 361).await;
    let scheduled = json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}});
    world.running.stack.s3.faults().set(Faults { unavailable: true, ..Faults::default() });
    let failed = world.running.stack.invoke("object-events", &scheduled).await.unwrap_err().to_string();
    assert!(failed.contains("ServiceUnavailable"), "{failed}");
    world.running.stack.s3.faults().set(Faults::default());
    assert!(world.bytes(&id).await && !world.purged(&id).await);
    world.older(&id, 601).await;
    world.sweep().await;
    assert!(!world.bytes(&id).await && world.purged(&id).await);
    world.running.stack.stop().await;
}
