//! What the local stack adds to the functions: held where no clock is needed, told where one is. `make figures` measures the rest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, HashMap};

use local::stack::UNTHROTTLED;
use serde_json::Value;
use support::Running;

/// All of it with Postgres, in MiB.
const MEMORY: u64 = 300;
const UNKNOWN: &str = "/files/0198e1a0-0000-7000-8000-000000000000";

/// This process and all that come from it.
fn tree() -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or_default()).or_default().push(pid);
    }
    let (mut found, mut waiting) = (Vec::new(), vec![std::process::id()]);
    while let Some(pid) = waiting.pop() {
        found.push(pid);
        waiting.extend(children.get(&pid).into_iter().flatten());
    }
    found
}

/// KiB by program: pages that several map are shared out among them.
fn memory() -> BTreeMap<String, u64> {
    let mut held = BTreeMap::new();
    for pid in tree() {
        let Ok(rollup) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        let pss =
            rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse::<u64>().ok());
        *held.entry(name).or_default() += pss.unwrap_or_default();
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_stack_stays_within_its_memory_and_a_request_asks_each_process_once() {
    let running = Running::start_with(UNTHROTTLED).await;
    let view = &running.stack.account.view;
    view.switch_on();
    let token = running.token("acme-backend").await;
    let ask = async || running.api.call("GET", UNKNOWN, Some(&token), None).await.unwrap().status;
    assert_eq!(ask().await, 404);
    let starts = |name: &str| running.stack.lambda.cold_starts(&format!("portcullis-local-{name}"));
    let before = (starts("authorizer"), starts("download"));
    for _ in 0..300 {
        assert_eq!(ask().await, 404);
    }
    assert_eq!(
        (starts("authorizer"), starts("download")),
        before,
        "one process each serves one request after the other"
    );
    let (_, seen, _) = view.after(0);
    let seen: Vec<Value> =
        seen.iter().filter_map(|seen| view.find(seen.number)).map(|seen| serde_json::to_value(seen).unwrap()).collect();
    let mut own: Vec<u64> = Vec::new();
    for seen in seen.iter().filter(|seen| seen["path"] == UNKNOWN).skip(1) {
        let kinds: Vec<&str> =
            seen["parts"].as_array().unwrap().iter().map(|part| part["kind"].as_str().unwrap()).collect();
        let count = |kind: &str| kinds.iter().filter(|held| **held == kind).count();
        assert_eq!((count("authorizer"), count("function"), count("database")), (1, 1, 1), "{seen:#}");
        own.push(seen["times"]["gateway"].as_u64().unwrap());
    }
    own.sort_unstable();
    println!(
        "the stack's own, of {} requests: p50 {} us, p90 {} us",
        own.len(),
        own[own.len() / 2],
        own[own.len() * 9 / 10]
    );
    let held = memory();
    let whole = held.values().sum::<u64>() / 1024;
    println!("{whole} MiB: {held:?} KiB");
    assert!(held.contains_key("postgres") && held.contains_key("authorizer"), "{held:?}");
    assert!(whole <= MEMORY, "{whole} MiB: {held:?} KiB");
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_seen_and_remembered_does_not_grow_with_what_comes() {
    let running = Running::start_with(UNTHROTTLED).await;
    running.stack.account.view.switch_on();
    running.stack.account.iam.keep_last(200);
    let token = running.token("acme-backend").await;
    for _ in 0..450 {
        assert_eq!(running.api.call("GET", "/.well-known/jwks.json", None, None).await.unwrap().status, 200);
    }
    running.encrypt(&token, &["x"]).await;
    let (_, seen, _) = running.stack.account.view.after(0);
    assert_eq!(seen.len(), local::view::REQUESTS);
    assert!(running.stack.account.iam.trail().len() <= 401);
    running.stack.stop().await;
}
