//! The functions under faults in words: of the database, of the functions themselves, of the gate and of the services, each once. What is
//! struck is refused or tried again, nobody is told more, and the next request is as if nothing had been.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use local::journey::Answer;
use serde_json::json;
use support::{Running, files};

/// What the client sees, the kind of thing that may be.
fn outcome(answer: std::io::Result<Answer>) -> String {
    answer.map_or_else(|_| "no answer".to_owned(), |answer| answer.status.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_leaves_a_clear_answer_or_none_and_nothing_behind() {
    let running = Running::start().await;
    let faults = &running.stack.account.faults;
    let token = running.token("acme-backend").await;
    let unknown = "/files/0198e1a0-0000-7000-8000-000000000000";
    let read = async || outcome(running.api.call("GET", unknown, Some(&token), None).await);
    let create = async || outcome(running.api.call("POST", "/files", Some(&token), Some(&files::new_file())).await);
    let issue = async || {
        let assertion = running.api.assertion(running.client("acme-backend")).unwrap();
        outcome(running.api.token_with(&assertion, None).await)
    };
    let cases: &[(&str, &str, &[&str])] = &[
        ("db.download latency=20ms first=1", "read", &["404"]),
        ("db.download lost first=1", "read", &["404", "503"]),
        ("db.download failover first=1", "read", &["404", "503"]),
        ("db.download borrow first=1", "read", &["404", "503"]),
        ("db.upload borrow first=1", "create", &["503"]),
        ("db.token borrow first=1", "issue", &["200", "503"]),
        ("db.upload lost first=1", "create", &["201", "503"]),
        ("db.upload failover first=1", "create", &["201", "503"]),
        ("db.token failover first=1", "issue", &["200", "503"]),
        ("function.download throttle first=1", "read", &["500", "503"]),
        ("function.authorizer throttle first=1", "read", &["500", "503"]),
        ("function.download crash first=1", "read", &["500", "502"]),
        ("function.authorizer crash first=1", "read", &["500", "503"]),
        ("function.upload latency=10ms..20ms first=1", "create", &["201"]),
        ("gateway reset first=1", "read", &["no answer"]),
        ("gateway lost first=1", "create", &["no answer"]),
        ("gateway latency=10ms first=1", "read", &["404"]),
        ("kms.Sign throttle first=1", "issue", &["200", "503"]),
        ("kms.Sign 5xx first=1", "issue", &["200", "503"]),
        ("kms.Sign expired first=1", "issue", &["503", "500"]),
        ("kms.Sign reset first=1", "issue", &["200", "503"]),
        ("kms.Sign lost first=1", "issue", &["200", "503"]),
        ("kms.Sign cut first=1", "issue", &["200", "500", "503"]),
        ("kms.Sign wrong first=1", "issue", &["200", "500", "503"]),
    ];
    for (rule, what, wanted) in cases {
        faults.replace(rule, Some(3)).unwrap();
        let (got, after) = match *what {
            "read" => (read().await, read().await),
            "create" => (create().await, create().await),
            _ => (issue().await, issue().await),
        };
        assert!(wanted.contains(&got.as_str()), "{rule}: {got}");
        assert_eq!(faults.told()["rules"][0]["struck"], json!(1), "{rule}");
        let well = match *what {
            "read" => "404",
            "create" => "201",
            _ => "200",
        };
        assert_eq!(after, well, "after {rule}");
    }
    // A connection is only asked for where there is none.
    for rule in ["db.download refuse first=1", "db.download expired first=1"] {
        running.stack.proxy.drop_connections();
        running.stack.lambda.recycle("portcullis-local-download").await;
        faults.replace(rule, Some(3)).unwrap();
        let got = read().await;
        assert!(["404", "503"].contains(&got.as_str()), "{rule}: {got}");
        assert_eq!(faults.told()["rules"][0]["struck"], json!(1), "{rule}");
        assert_eq!(read().await, "404", "after {rule}");
    }
    running.stack.stop().await;
}

/// The session of a process that has signed nothing yet ends while it reads its key: it asks again, and no denial is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_at_ssm_is_an_outage_and_never_a_denial() {
    let running = Running::start_with(&[("Signer", "ssm")]).await;
    let faults = &running.stack.account.faults;
    let issue = async || {
        let assertion = running.api.assertion(running.client("acme-backend")).unwrap();
        outcome(running.api.token_with(&assertion, None).await)
    };
    running.stack.lambda.recycle("portcullis-local-token").await;
    faults.replace("ssm.GetParameter expired first=1", Some(3)).unwrap();
    assert_eq!(issue().await, "200", "the repetition reads the key");
    assert_eq!(faults.told()["rules"][0]["struck"], json!(1));
    running.stack.lambda.recycle("portcullis-local-token").await;
    faults.replace("ssm.GetParameter expired", Some(3)).unwrap();
    assert_eq!(issue().await, "503", "patience ends before the caller's");
    faults.replace("", None).unwrap();
    assert_eq!(issue().await, "200", "the same process, a moment later");
    running.stack.stop().await;
}

/// What S3 did not say whole is no fact about an object: nothing that is recorded once and for ever may come of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_not_rejected_for_an_answer_that_was_cut() {
    let running = Running::start().await;
    let token = running.token("acme-backend").await;
    for rule in ["s3.HeadObject cut first=1", "s3.GetObject cut first=1"] {
        let plan = running.api.call("POST", "/files", Some(&token), Some(&files::new_file())).await.unwrap().json();
        running.stack.account.faults.replace(rule, Some(1)).unwrap();
        assert_eq!(files::put(&running, &plan["upload"]).await.status, 200);
        let struck = || running.stack.account.faults.told()["rules"][0]["struck"] == json!(1);
        for _ in 0..200 {
            if struck() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(struck(), "{rule}: {}", running.stack.account.faults.told());
        running.stack.events.idle().await;
        running.stack.account.faults.replace("", None).unwrap();
        let path = format!("/files/{}", plan["id"].as_str().unwrap());
        let status = running.api.call("GET", &path, Some(&token), None).await.unwrap().json()["status"].clone();
        assert!(status == "clean" || status == "pending", "{rule}: {status}");
    }
    running.stack.stop().await;
}
