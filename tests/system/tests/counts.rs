//! How often a warm call goes out: AWS calls and database round trips, held against the bench's budgets; and how much memory a batch
//! takes. Neither depends on the build, so they need no release binaries.

#![allow(clippy::panic, reason = "helpers outside of #[test] functions; a test may fail loudly")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers outside of #[test] functions")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use local::stack::ENV;
use serde_json::{Value, json};
use support::{Running, root};

/// Calls of which every one must cost the same.
const CALLS: u64 = 3;
/// Trust objects are fresh for five seconds; what takes longer has to read again, and proves nothing here.
const FRESH: Duration = Duration::from_millis(4_500);
/// What a batch may take in memory for each byte of its body; `docs/fields/README.md` says it.
const MULTIPLE: u64 = 8;

/// What one deployment has sent out so far, by service.
fn sent(running: &Running, deployment: &str) -> BTreeMap<&'static str, u64> {
    let session = format!("/portcullis-{ENV}-{deployment}");
    let trail = running.stack.account.iam.trail();
    let calls = |service: &str| {
        trail.iter().filter(|entry| entry.service == service && entry.principal.ends_with(&session)).count() as u64
    };
    let round_trips = running.stack.proxy.round_trips(&deployment.replace('-', "_"));
    BTreeMap::from([("s3", calls("s3")), ("kms", calls("kms")), ("sts", calls("sts")), ("round_trips", round_trips)])
}

/// What the budgets say of a case, for all of a few calls. A broken number is an average: its few calls in a hundred are
/// the bench's to count.
fn budget(case: &str) -> BTreeMap<&'static str, u64> {
    let text = std::fs::read_to_string(root().join("tests/bench/budgets.json")).unwrap();
    let budgets: Value = serde_json::from_str(&text).unwrap();
    let case = &budgets["calls"][case];
    ["s3", "kms", "sts", "round_trips"].map(|name| (name, case[name].as_f64().unwrap().floor() as u64 * CALLS)).into()
}

/// Makes the call until it is warm, then a few times within the freshness of the trust objects, and compares what the
/// deployments sent out meanwhile.
async fn holds(running: &Running, cases: &[(&str, &str)], call: impl AsyncFn() -> u16, status: u16) {
    for _ in 0..5 {
        assert_eq!(call().await, status, "{cases:?}");
        let before: Vec<_> = cases.iter().map(|(deployment, _)| sent(running, deployment)).collect();
        let since = Instant::now();
        for _ in 0..CALLS {
            assert_eq!(call().await, status, "{cases:?}");
        }
        let after: Vec<_> = cases.iter().map(|(deployment, _)| sent(running, deployment)).collect();
        if since.elapsed() > FRESH {
            continue;
        }
        for (((deployment, case), before), after) in cases.iter().zip(before).zip(after) {
            let found: BTreeMap<_, _> = after.iter().map(|(name, count)| (*name, count - before[name])).collect();
            assert_eq!(found, budget(case), "{deployment}: {case}, {CALLS} calls");
        }
        return;
    }
    panic!("{cases:?}: this machine is too slow to stay within the freshness of a trust object");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_call_goes_out_as_often_as_the_budgets_say() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    let gate = ("authorizer", "authorizer, token seen before");

    let client = running.client("acme-backend");
    let ask = async || running.api.token_with(&running.api.assertion(client).unwrap(), None).await.unwrap().status;
    holds(&running, &[("token", "token")], ask, 200).await;

    // Two requests a token; the one that is told the nonce costs nothing.
    let bound = running.client("acme-bound");
    let ask = async || {
        let assertion = running.api.assertion(bound).unwrap();
        let mut said = json!({});
        for status in [400, 200] {
            let proof = running.api.proof(bound, "POST", "/oauth2/token", &said).unwrap();
            let answer = running.api.bound_token(&assertion, &proof).await.unwrap();
            assert_eq!(answer.status, status, "{}", answer.outcome());
            said = json!({"nonce": answer.header("dpop-nonce")});
        }
        200
    };
    holds(&running, &[("token", "token")], ask, 200).await;

    let file = json!({"name": "a.txt", "content_type": "text/plain", "size": 5, "mode": "put",
        "sha256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="});
    let create = async || running.api.call("POST", "/files", Some(&token), Some(&file)).await.unwrap();
    holds(&running, &[gate, ("upload", "upload")], async || create().await.status, 201).await;

    let form = json!({"name": "a.txt", "content_type": "text/plain", "max_size": 5, "mode": "post"});
    let large = json!({"name": "a.zip", "content_type": "application/zip", "size": 10_000_u64 * (8 << 20),
        "part_size": 8 << 20, "mode": "multipart"});
    for (case, body) in [("upload, form", &form), ("upload, plan of 10,000 parts", &large)] {
        let create = async || running.api.call("POST", "/files", Some(&token), Some(body)).await.unwrap().status;
        holds(&running, &[gate, ("upload", case)], create, 201).await;
    }
    let large = running.api.call("POST", "/files", Some(&token), Some(&large)).await.unwrap().json();
    let path = format!("/files/{}/parts", large["id"].as_str().unwrap());
    let digest = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
    let parts: Vec<Value> = (1..=500).map(|part| json!({"part": part, "size": 8 << 20, "sha256": digest})).collect();
    let parts = json!({"parts": parts});
    let sign = async || running.api.call("POST", &path, Some(&token), Some(&parts)).await.unwrap().status;
    holds(&running, &[gate, ("upload", "upload, 500 part URLs")], sign, 200).await;

    let plan = create().await.json();
    let headers = plan["upload"]["headers"].as_object().unwrap();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    let put = running.api.send("PUT", plan["upload"]["url"].as_str().unwrap(), &headers, "hello".into()).await.unwrap();
    assert_eq!(put.status, 200, "{}", put.outcome());
    let path = format!("/files/{}", plan["id"].as_str().unwrap());
    let get = async |path: &str| running.api.call("GET", path, Some(&token), None).await.unwrap();
    let since = Instant::now();
    while get(&path).await.json()["status"] != "clean" {
        assert!(since.elapsed() < Duration::from_secs(20), "the file does not become readable");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holds(&running, &[gate, ("download", "download, metadata")], async || get(&path).await.status, 200).await;
    let content = format!("{path}/content");
    holds(&running, &[gate, ("download", "download, content")], async || get(&content).await.status, 302).await;

    let texts = vec!["x".repeat(64); 1_000];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (count, encrypted, decrypted) in [(1, "encrypt 1", "decrypt 1"), (1_000, "encrypt 1,000", "decrypt 1,000")] {
        let encrypt = async || running.encrypt(&token, &texts[..count]).await;
        holds(&running, &[gate, ("data-key-encrypt", encrypted)], async || encrypt().await.status, 200).await;
        let answer = encrypt().await.json();
        let items: Vec<Value> = answer["items"].as_array().unwrap().iter().enumerate().map(back).collect();
        let body = json!({"items": items});
        let decrypt = async || {
            let answer = running.api.call("POST", "/fields/decrypt", Some(&token), Some(&body)).await.unwrap();
            let plaintext = answer.json()["items"][0]["plaintext"].as_str().map(|text| URL_SAFE_NO_PAD.decode(text));
            assert_eq!(plaintext, Some(Ok(vec![b'x'; 64])));
            answer.status
        };
        holds(&running, &[gate, ("data-key-decrypt", decrypted)], decrypt, 200).await;
    }
    running.stack.stop().await;
}

fn back((row, item): (usize, &Value)) -> Value {
    json!({"ref": row.to_string(), "table": "users", "column": "email", "row": row.to_string(),
        "record": item["record"]})
}

/// The most memory that the process of a deployment has held, in KiB (`VmHWM`).
fn peak(running: &Running, deployment: &str) -> u64 {
    let name = format!("AWS_LAMBDA_FUNCTION_NAME=portcullis-{ENV}-{deployment}");
    let ca = format!("PORTCULLIS_CA_FILE={}", running.stack.places.ca_file.display());
    let peaks = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let environ = std::fs::read(entry.path().join("environ")).ok()?;
        let holds = |text: &str| environ.split(|byte| *byte == 0).any(|one| one == text.as_bytes());
        if !holds(&name) || !holds(&ca) {
            return None;
        }
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    });
    peaks.max().unwrap()
}

/// So many fields of so many bytes, from their records or plaintexts.
fn fields(member: &str, contents: &[String]) -> Value {
    let item = |(row, content): (usize, &String)| json!({"ref": row.to_string(), "table": "users", "column": "email", "row": row.to_string(), member: content});
    json!({"items": contents.iter().enumerate().map(item).collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_a_small_multiple_of_its_body_in_memory() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    // What a thousand fields take, and what each mebibyte of a larger body takes above that.
    let mut first = BTreeMap::new();
    for (mebibytes, count, length) in [(0, 1_000, 64), (1, 12, 61_440), (2, 25, 61_440), (4, 51, 61_440)] {
        let mut contents = vec![URL_SAFE_NO_PAD.encode(vec![b'x'; length]); count];
        for (operation, member, answered) in [("encrypt", "plaintext", "record"), ("decrypt", "record", "plaintext")] {
            let deployment = format!("data-key-{operation}");
            running.stack.lambda.recycle(&format!("portcullis-{ENV}-{deployment}")).await;
            let (path, body) = (format!("/fields/{operation}"), fields(member, &contents));
            let size = body.to_string().len() as u64;
            // Once more than once: what is left of one call is there in the next.
            for _ in 0..3 {
                let answer = running.api.call("POST", &path, Some(&token), Some(&body)).await.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.outcome());
                let answer = answer.json();
                let texts = answer["items"].as_array().unwrap().iter().map(|item| item[answered].as_str().unwrap());
                contents = texts.map(str::to_owned).collect();
                assert_eq!(contents.len(), count);
            }
            let peak = peak(&running, &deployment);
            let base = *first.entry(operation).or_insert(peak);
            println!("{operation}: {count} fields of {length} B, a body of {size} B: {} KiB at most", peak);
            assert!(mebibytes > 0 || peak <= 32 * 1_024, "{operation}: {peak} KiB");
            let most = base + MULTIPLE * size / 1_024;
            assert!(
                peak <= most,
                "{operation}: a body of {size} B takes {peak} KiB, {base} and {MULTIPLE} times the body"
            );
        }
    }
    running.stack.stop().await;
}
