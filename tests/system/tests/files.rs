//! What files promise on the running stack: one writer, one object a session, room under a quota, the type that was declared, and
//! nothing lost with an event.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers outside of #[test] functions")]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use local::journey::Answer;
use serde_json::{Value, json};
use shared::digest::sha256;
use support::Running;

struct World {
    running: Running,
    token: String,
}

impl World {
    async fn start(parameters: &[(&str, &str)]) -> World {
        let running = Running::start_with(parameters).await;
        let token = running.token("acme-backend").await;
        World { running, token }
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.running.api.call(method, path, Some(&self.token), body).await.unwrap()
    }

    async fn plan(&self, content_type: &str, content: &[u8]) -> Answer {
        let digest = STANDARD.encode(sha256(content));
        let body =
            json!({"name": "a", "content_type": content_type, "size": content.len(), "mode": "put", "sha256": digest});
        self.call("POST", "/files", Some(&body)).await
    }

    async fn put(&self, plan: &Value, content: &[u8]) -> Answer {
        let upload = &plan["upload"];
        let headers = upload["headers"].as_object().unwrap();
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let put = self.running.api.send("PUT", upload["url"].as_str().unwrap(), &headers, content.to_vec().into());
        put.await.unwrap()
    }

    async fn settled(&self, id: &str) -> String {
        for _ in 0..100 {
            self.running.stack.events.idle().await;
            let status = self.call("GET", &format!("/files/{id}"), None).await.json()["status"].clone();
            if status != "pending" {
                return status.as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        "pending".to_owned()
    }
}

fn id(plan: &Value) -> &str {
    plan["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_keep_their_promises_with_sessions_that_reach_one_object() {
    let world = World::start(&[("SignerReach", "object")]).await;

    // Forty clients with one URL: one writes.
    let content = b"forty of them";
    let plan = world.plan("text/plain", content).await.json();
    let answers = join_all((0..40).map(|_| world.put(&plan, content))).await;
    let outcomes: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(outcomes.iter().filter(|status| **status == 200).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|status| [200, 409, 412].contains(status)), "{outcomes:?}");
    assert_eq!(world.settled(id(&plan)).await, "clean");
    let first = format!("t/acme/{}", id(&plan));
    let read = world.call("GET", &format!("/files/{}/content", id(&plan)), None).await;
    let read = world.running.api.send("GET", read.header("location"), &[], Vec::new().into()).await.unwrap();
    assert_eq!((read.status, read.body.as_ref()), (200, content.as_slice()));

    // Every session was for one object and no other.
    let second = world.plan("text/plain", b"2").await.json();
    assert_eq!(world.put(&second, b"2").await.status, 200);
    let second = format!("t/acme/{}", id(&second));
    let mut reached = Vec::new();
    for entry in world.running.stack.account.iam.trail() {
        let Some(policy) = &entry.session_policy else { continue };
        let resource = policy["Statement"][0]["Resource"].as_str().unwrap().to_owned();
        assert!(resource.ends_with(&first) || resource.ends_with(&second), "{resource}");
        assert!(
            entry.service != "s3" || resource == entry.resource,
            "{} with a session for {resource}",
            entry.resource
        );
        reached.push(resource);
    }
    assert!(reached.iter().any(|one| one.ends_with(&first)) && reached.iter().any(|one| one.ends_with(&second)));

    // A page that calls itself a picture.
    let page = b"<!doctype html><script>alert(1)</script>";
    let plan = world.plan("image/png", page).await.json();
    assert_eq!(world.put(&plan, page).await.status, 200);
    assert_eq!(world.settled(id(&plan)).await, "rejected");
    let receipt = world.call("GET", &format!("/files/{}/receipt", id(&plan)), None).await;
    assert_eq!(receipt.outcome(), "410 file_unavailable");

    // An event that was lost: as if nobody had told of the first file.
    let owner = world.running.owner().await;
    let forget = "DELETE FROM public.file_facts WHERE object_key = $$KEY$$;
         UPDATE public.files SET status = 'pending', version_id = NULL, etag = NULL, verdict = NULL, actual_size = NULL,
                actual_sha256 = NULL, url_expires_ms = url_expires_ms - 361000 WHERE object_key = $$KEY$$";
    owner.batch_execute(&forget.replace("KEY", &first)).await.unwrap();
    let file = format!("/files/{}", first.rsplit('/').next().unwrap());
    assert_eq!(world.call("GET", &file, None).await.json()["status"], "pending");
    assert!(world.running.stack.events.tick("portcullis-local-file-sweep").await);
    world.running.stack.events.idle().await;
    assert_eq!(world.call("GET", &file, None).await.json()["status"], "clean");

    // No room for more than an operator allows.
    let act =
        json!({"operation": "quota.put", "operator": "test", "tenant": "acme", "subject": "acme-backend", "files": 4});
    local::seed::act(&world.running.stack, act).await.unwrap();
    assert_eq!(world.plan("text/plain", b"4").await.status, 201);
    assert_eq!(world.plan("text/plain", b"5").await.outcome(), "403 quota_exceeded");
    let list = json!({"operation": "quota.list", "operator": "test", "tenant": "acme"});
    let list = local::seed::act(&world.running.stack, list).await.unwrap();
    assert_eq!(list["quotas"][0]["held"]["files"], 4, "{list}");
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_from_before_a_revocation_is_dead_and_nothing_is_stored() {
    for (before, status) in [("2020-01-01T00:00:00Z", 200), ("2099-01-01T00:00:00Z", 403)] {
        let world = World::start(&[("UrlsRevokedBefore", before)]).await;
        let plan = world.plan("text/plain", b"late").await.json();
        assert_eq!(world.put(&plan, b"late").await.status, status, "{before}");
        let places = &world.running.stack.places;
        let stored = world.running.stack.s3.look(places.object_bucket, &format!("t/acme/{}", id(&plan))).await;
        assert_eq!(stored.is_some(), status == 200, "{before}");
        world.running.stack.stop().await;
    }
}

/// `scripts/replay` as an operator runs it on the stack that runs here: whether it ended well, and what it said.
async fn replay(manifest: &std::path::Path, dry: bool) -> (i32, String) {
    let mut command = std::process::Command::new(support::root().join("scripts/replay"));
    command.arg("object-events").env("PORTCULLIS_MANIFEST", manifest).env_remove("ENV").env_remove("DRY_RUN");
    if dry {
        command.env("DRY_RUN", "1");
    }
    let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (ran.status.code().unwrap(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_kept_and_an_operator_replays_it() {
    let world = World::start(&[]).await;
    let stack = &world.running.stack;
    let home = tempfile::tempdir().unwrap();
    let manifest = home.path().join("portcullis.json");
    local::seed::write_manifest(stack, &world.running.clients, &manifest).unwrap();
    assert_eq!(replay(&manifest, false).await, (0, "0 replayed, 0 kept\n".to_owned()));

    // S3 is silent from the moment that the object is there, for longer than Lambda tries.
    let plan = world.plan("text/plain", b"hello").await.json();
    stack.events.hold();
    assert_eq!(world.put(&plan, b"hello").await.status, 200);
    // The event is on its way from S3 to the rules; it is held there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stack.s3.faults().set(local::faults::Faults { unavailable: true, ..Default::default() });
    stack.events.release().await;
    stack.events.idle().await;
    assert_eq!(stack.lambda.undelivered().len(), 1, "three tries, and it is given up");

    let key = format!("t/acme/{}", id(&plan));
    let (status, said) = replay(&manifest, true).await;
    assert!(status == 0 && said.contains("waiting") && said.contains(&key), "{status} {said}");
    let (status, said) = replay(&manifest, false).await;
    assert!(status == 1 && said.contains("kept") && said.contains("0 replayed, 1 kept"), "{status} {said}");
    stack.s3.faults().set(local::faults::Faults::default());
    let before = world.call("GET", &format!("/files/{}", id(&plan)), None).await.json();
    assert_eq!(before["status"], "pending");
    let (status, said) = replay(&manifest, false).await;
    assert!(status == 0 && said.contains("1 replayed, 0 kept"), "{status} {said}");
    assert_eq!(world.settled(id(&plan)).await, "clean");
    assert_eq!(replay(&manifest, false).await.1, "0 replayed, 0 kept\n", "what was taken is forgotten");
    world.running.stack.stop().await;
}
