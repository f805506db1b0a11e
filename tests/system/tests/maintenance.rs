//! Data keys maintained on the running stack, with the real functions: rotated, wrapped anew, erased, and torn away by a killed process,
//! a killed Postgres connection and a KMS key that somebody disabled.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use local::faults::Faults;
use local::stack::ENV;
use serde_json::{Value, json};
use support::Running;

const MAINTAIN: &str = "data-key-maintain";
const SHRED: &str = "data-key-shred";

struct World {
    running: Running,
    token: String,
}

impl World {
    async fn start() -> Self {
        let running = Running::start().await;
        let token = running.token("acme-backend").await;
        Self { running, token }
    }

    async fn act(&self, operation: &str, more: Value) -> std::io::Result<Value> {
        let mut event = json!({"operation": operation, "operator": "ann"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let deployment = if operation == "shred" { SHRED } else { MAINTAIN };
        self.running.stack.invoke(deployment, &event).await
    }

    async fn done(&self, operation: &str, more: Value) -> Value {
        self.act(operation, more).await.unwrap()
    }

    fn kms(&self, operation: &str, more: Value) {
        let stack = &self.running.stack;
        let mut input = json!({"KeyId": stack.places.data_key});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stack.kms.perform(&stack.account.operator(), None, operation, &input).unwrap();
    }

    /// Fields of so many subjects, each under a key of its own, and one under its column's.
    async fn records(&self, subjects: usize) -> Vec<String> {
        let items: Vec<Value> = (0..=subjects)
            .map(|n| {
                let mut item = json!({"ref": n.to_string(), "table": "users", "column": "email", "row": n.to_string(),
                    "plaintext": URL_SAFE_NO_PAD.encode(format!("value {n}"))});
                if n < subjects {
                    item["scope"] = json!(format!("subject:s-{n}"));
                }
                item
            })
            .collect();
        let body = json!({"items": items});
        let answer = self.running.api.call("POST", "/fields/encrypt", Some(&self.token), Some(&body)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.outcome());
        let items = answer.json();
        items["items"].as_array().unwrap().iter().map(|item| item["record"].as_str().unwrap().to_owned()).collect()
    }

    /// What each record opens to, or the code of its refusal.
    async fn opened(&self, records: &[String]) -> Vec<String> {
        let items: Vec<Value> = records
            .iter()
            .enumerate()
            .map(|(n, record)| json!({"ref": n.to_string(), "table": "users", "column": "email", "row": n.to_string(), "record": record}))
            .collect();
        let body = json!({"items": items});
        let answer = self.running.api.call("POST", "/fields/decrypt", Some(&self.token), Some(&body)).await.unwrap();
        let answer = answer.json();
        let text = |item: &Value| match item["plaintext"].as_str() {
            Some(text) => String::from_utf8(URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap(),
            None => item["error"]["code"].as_str().unwrap().to_owned(),
        };
        answer["items"].as_array().map(|items| items.iter().map(text).collect()).unwrap_or_default()
    }

    /// Another environment of every deployment: nothing is in memory.
    async fn cold(&self) {
        for deployment in ["data-key-encrypt", "data-key-decrypt", MAINTAIN] {
            self.running.stack.lambda.recycle(&format!("portcullis-{ENV}-{deployment}")).await;
        }
    }

    /// Ends the process of the maintaining deployment as the kernel would.
    fn kill(&self) -> usize {
        let name = format!("AWS_LAMBDA_FUNCTION_NAME=portcullis-{ENV}-{MAINTAIN}");
        let ca = format!("PORTCULLIS_CA_FILE={}", self.running.stack.places.ca_file.display());
        let mut killed = 0;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let holds = |text: &str| environ.split(|byte| *byte == 0).any(|one| one == text.as_bytes());
            if holds(&name) && holds(&ca) {
                let pid = entry.file_name().into_string().unwrap();
                assert!(std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
                killed += 1;
            }
        }
        killed
    }
}

fn values(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("value {n}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_kms_key_a_killed_process_and_torn_connections_lose_no_field() {
    let world = World::start().await;
    let records = world.records(80).await;
    assert_eq!(world.opened(&records).await, values(81));
    world.kms("RotateKeyOnDemand", json!({}));
    let dry = world.done("keys.rewrap", json!({"dry_run": true})).await;
    assert!(dry["stale"].as_i64().unwrap() >= 81 && dry["cost_usd"].as_str().unwrap().starts_with("0.0002"), "{dry}");

    // The process is gone in the middle of a page, and of the next, once before and once after the page was stored.
    let kms = world.running.stack.kms.faults();
    for wait in [600, 2_800] {
        kms.set(Faults { latency: Duration::from_secs(1), ..Faults::default() });
        let run = world.act("keys.rewrap", json!({}));
        let kill = async {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            world.kill()
        };
        let (answer, killed) = tokio::join!(run, kill);
        assert!(killed > 0 && answer.is_err(), "after {wait} ms, {killed} killed: {answer:?}");
        kms.set(Faults::default());
        world.cold().await;
        assert_eq!(world.opened(&records).await, values(81));
    }

    // Every connection of the database is torn while a run is under way.
    kms.set(Faults { latency: Duration::from_millis(60), ..Faults::default() });
    let owner = world.running.owner().await;
    let tear = async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(70)).await;
            let torn = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'data_key_maintain'";
            owner.batch_execute(torn).await.unwrap();
        }
    };
    let (_, ()) = tokio::join!(world.act("keys.rewrap", json!({})), tear);
    kms.set(Faults::default());
    world.cold().await;
    assert_eq!(world.opened(&records).await, values(81));

    let done = world.done("keys.rewrap", json!({})).await;
    assert_eq!((&done["outcome"], &done["refused"]), (&json!("rewrapped"), &json!(0)), "{done}");
    assert_eq!(world.done("keys.rewrap", json!({"dry_run": true})).await["stale"], 0);
    world.cold().await;
    assert_eq!(world.opened(&records).await, values(81));
    let kept = "public.data_keys WHERE wrapped IS NULL OR key_material_id IS NULL";
    assert_eq!(world.running.count(kept).await, 0);
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kms_key_that_somebody_disabled_or_deletes_is_said_and_is_remembered_for_nobody() {
    let world = World::start().await;
    let records = world.records(3).await;
    for (away, back) in [
        (("DisableKey", json!({})), ["EnableKey"].as_slice()),
        (("ScheduleKeyDeletion", json!({"PendingWindowInDays": 30})), ["CancelKeyDeletion", "EnableKey"].as_slice()),
    ] {
        world.kms(away.0, away.1);
        world.cold().await;
        assert_eq!(world.opened(&records).await, ["kms_denied"; 4], "{}", away.0);
        for dry_run in [true, false] {
            let answer = world.done("keys.rewrap", json!({"dry_run": dry_run})).await;
            // A disabled key still tells its rotations; whatever it is asked to do with a data key it refuses.
            let said = answer["error"]["code"].as_str().or(answer["reason"].as_str()).or(answer["outcome"].as_str());
            assert!(["kms_denied", "counted", "rewrapped"].contains(&said.unwrap()), "{}: {answer}", away.0);
        }
        back.iter().for_each(|operation| world.kms(operation, json!({})));
        world.cold().await;
        assert_eq!(world.opened(&records).await, values(4), "{}", away.0);
    }
    // Throttled for longer than a call waits: each item says so, and the next batch is served.
    world.cold().await;
    world.running.stack.kms.faults().set(Faults { throttle_next: 12, ..Faults::default() });
    let opened = world.opened(&records).await;
    assert!(opened.iter().all(|one| one == "kms_throttled" || one.starts_with("value")), "{opened:?}");
    assert!(opened.iter().any(|one| one == "kms_throttled"), "{opened:?}");
    world.running.stack.kms.faults().set(Faults::default());
    assert_eq!(world.opened(&records).await, values(4));
    world.running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_subject_opens_nowhere_at_once_and_the_others_go_on() {
    let world = World::start().await;
    let records = world.records(3).await;
    assert_eq!(world.opened(&records).await, values(4), "every environment has the keys in memory now");
    let erased = world.done("shred", json!({"tenant": "acme", "scope": "subject:s-1", "confirm": "subject:s-1"})).await;
    assert_eq!((&erased["outcome"], &erased["shredded"]), (&json!("shredded"), &json!(1)), "{erased}");
    let after = ["value 0", "key_shredded", "value 2", "value 3"];
    assert_eq!(world.opened(&records).await, after);
    world.cold().await;
    assert_eq!(world.opened(&records).await, after);
    // Nothing else in the house can do it, and nothing of a caller's reaches it.
    for deployment in ["data-key-encrypt", "data-key-decrypt", MAINTAIN] {
        let event = json!({"operation": "shred", "operator": "ann", "tenant": "acme", "scope": "subject:s-2", "confirm": "subject:s-2"});
        let answer = world.running.stack.invoke(deployment, &event).await.unwrap();
        assert_eq!(answer["code"], "not_found", "{deployment}: {answer}");
    }
    let rotated = world.done("keys.rotate", json!({"tenant": "acme"})).await;
    assert_eq!(rotated["outcome"], "rotated");
    world.cold().await;
    assert_eq!(world.opened(&records).await, after, "a closed key opens what it made");
    assert_eq!(world.opened(&world.records(1).await).await, values(2));
    let receipts = "public.shred_receipts WHERE tenant = 'acme'";
    assert_eq!(world.running.count(receipts).await, 1);
    world.running.stack.stop().await;
}
