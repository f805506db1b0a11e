//! The end of a file on the running stack: what nobody reads any more, and when its bytes go.
//!
//! The stack's clock is the machine's, so the wait is shortened where it is kept: in the row.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers outside of #[test] functions")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use local::faults::Faults;
use local::journey::Answer;
use serde_json::{Value, json};
use shared::digest::sha256;
use support::Running;

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
