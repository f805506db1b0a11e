//! The whole stack with its signing keys in SSM parameters.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use local::faults::Faults;
use local::journey::{Answer, claims};
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::jwks::{Algorithm, KeySet};
use shared::jwt;
use support::Running;

const SSM: &[(&str, &str)] = &[("Signer", "ssm")];
const TOKEN: &str = "portcullis-local-token";

fn throttled(calls: u32) -> Faults {
    Faults { throttle_next: calls, ..Faults::default() }
}

fn says_come_back(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.outcome());
    assert!(!answer.header("retry-after").is_empty(), "no Retry-After: {:?}", answer.headers);
    let body = String::from_utf8_lossy(&answer.body);
    for inside in ["ssm", "Throttl", "parameter", "127.0.0.1"] {
        assert!(!body.contains(inside), "{body}");
    }
}

impl Running {
    /// Verifies a token under the published key set as an application would.
    async fn verify(&self, token: &str) {
        let answer = self.api.call("GET", "/.well-known/jwks.json", None, None).await.unwrap();
        let set: Value = serde_json::from_slice(&answer.body).unwrap();
        let algorithms = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
        let keys = KeySet::parse(&set, &algorithms).unwrap();
        let now = Timestamp::from_seconds(claims(token)["iat"].as_i64().unwrap());
        jwt::access_token(token, &self.stack.places.gateway, local::stack::AUDIENCE, &keys, now).unwrap();
    }

    fn reads(&self) -> u64 {
        self.stack.ssm.calls().get("GetParameter").copied().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_signed_with_a_key_from_ssm_pass_the_gate() {
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let running = Running::start_with(&[("Signer", "ssm"), ("SigningAlg", algorithm)]).await;
        assert_eq!(running.reads(), 0, "nothing is read before the first token");
        let token = running.token("acme-backend").await;
        running.verify(&token).await;
        assert_eq!(running.encrypt(&token, &["ada@example.com"]).await.status, 200);
        running.verify(&running.token("globex-backend").await).await;
        assert_eq!(running.reads(), 1, "the key is read once");

        // Two keys by genesis, each a SecureString of its own under this deployment's path, none of it in KMS.
        assert_eq!(running.stack.ssm.calls()["PutParameter"], 2);
        let key = running.stack.signing_key().await.unwrap();
        let kid = key.strip_prefix("/portcullis/signing/local/").expect(&key);
        let found = running.stack.ssm.perform(&running.stack.account.operator(), "GetParameter", &json!({"Name": key}));
        let found = found.unwrap()["Parameter"].clone();
        assert_eq!(found["Type"], "SecureString");
        assert_eq!(running.stack.kms.calls().get("Sign"), None);
        assert_eq!(running.stack.kms.calls().get("CreateKey"), None);
        let answer = running.api.call("GET", "/.well-known/jwks.json", None, None).await.unwrap();
        let set: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(set["keys"].as_array().unwrap().iter().any(|key| key["kid"] == kid && key["alg"] == algorithm));

        // A new process has nothing in memory and reads it again; the old tokens stay good.
        let before = running.stack.lambda.cold_starts(TOKEN);
        running.stack.lambda.recycle(TOKEN).await;
        let later = running.token("acme-backend").await;
        running.verify(&later).await;
        running.verify(&token).await;
        assert_eq!((running.reads(), running.stack.lambda.cold_starts(TOKEN)), (2, before + 1));
        running.stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_by_ssm_a_token_is_waited_for_or_refused_and_nothing_is_consumed() {
    let running = Running::start_with(SSM).await;
    let assertion = running.api.assertion(running.client("acme-backend")).unwrap();
    running.stack.ssm.faults().set(throttled(u32::MAX));
    let since = Instant::now();
    says_come_back(&running.api.token_with(&assertion, None).await.unwrap());
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    assert!(running.reads() >= 3, "it was tried {} times", running.reads());
    assert_eq!(running.count("assertion_ids").await, 0);

    running.stack.ssm.faults().set(throttled(3));
    assert_eq!(running.api.token_with(&assertion, None).await.unwrap().status, 200, "the same assertion, after pauses");

    // A warm function needs SSM no more.
    running.stack.ssm.faults().set(Faults { unavailable: true, ..Faults::default() });
    running.verify(&running.token("acme-backend").await).await;
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_swapped_or_closed_signs_nothing() {
    let running = Running::start_with(SSM).await;
    let (operator, key) = (running.stack.account.operator(), running.stack.signing_key().await.unwrap());
    let perform = |operation: &str, input: Value| running.stack.ssm.perform(&operator, operation, &input).unwrap();
    let assertion = running.api.assertion(running.client("acme-backend")).unwrap();
    let good = perform("GetParameter", json!({"Name": key, "WithDecryption": true}))["Parameter"]["Value"].clone();
    let canary = "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5LTU4Y2Q=\n-----END PRIVATE KEY-----\n";
    let write = |value: &Value| {
        perform(
            "PutParameter",
            json!({"Name": key, "Value": value, "Overwrite": true, "KeyId": running.stack.places.signing_key}),
        );
    };
    write(&json!(canary));
    says_come_back(&running.api.token_with(&assertion, None).await.unwrap());
    // The spare's private key is a good key, and not the one that the name says.
    let spare = perform("GetParametersByPath", json!({"Path": "/portcullis/signing/local", "WithDecryption": true}));
    let spare = spare["Parameters"].as_array().unwrap().iter().find(|found| found["Name"] != key).unwrap().clone();
    write(&spare["Value"]);
    says_come_back(&running.api.token_with(&assertion, None).await.unwrap());
    write(&good);
    let kms = |operation: &str| {
        let input = json!({"KeyId": running.stack.places.signing_key});
        running.stack.kms.perform(&operator, None, operation, &input).unwrap();
    };
    kms("DisableKey");
    says_come_back(&running.api.token_with(&assertion, None).await.unwrap());
    kms("EnableKey");
    assert_eq!(running.count("assertion_ids").await, 0);
    assert_eq!(running.api.token_with(&assertion, None).await.unwrap().status, 200);

    for function in [TOKEN, "portcullis-local-trust"] {
        let log = running.stack.lambda.log(function);
        for secret in ["Y2FuYXJ5LTU4Y2Q", "canary-58cd"] {
            assert!(!log.contains(secret), "{function}: {log}");
        }
        let pems = [good.as_str().unwrap(), spare["Value"].as_str().unwrap()];
        for line in pems.iter().flat_map(|pem| pem.lines().skip(1)).filter(|line| line.len() == 64) {
            assert!(!log.contains(line), "{function} logs a private key");
        }
    }
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_token_opens_a_signing_key() {
    let running = Running::start_with(SSM).await;
    let key = running.stack.signing_key().await.unwrap();
    let account = &running.stack.account;
    for function in running.stack.lambda.functions().map(str::to_owned).collect::<Vec<_>>() {
        let caller = account.session(&function, &function, Some(account.function_arn(&function)));
        let input = json!({"Name": key, "WithDecryption": true});
        let outcome = running.stack.ssm.perform(&caller, "GetParameter", &input).map_err(|refusal| refusal.code);
        match function.as_str() {
            TOKEN => assert!(outcome.is_ok()),
            _ => assert_eq!(outcome, Err("AccessDeniedException"), "{function}"),
        }
    }
    running.stack.stop().await;
}
