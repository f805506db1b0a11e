//! From an operator's `issuer.put` to mirrored keys that verify what the issuer signs, and back when the issuer fails.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use local::access::{AUDIENCE, Canned, Key};
use local::journey::Answer;
use local::seed::{self, act};
use serde_json::{Value, json};
use support::Running;

const MIRROR: &str = "trust/issuers/access.json";

async fn object(running: &Running, key: &str) -> Value {
    let bytes = running.stack.s3.look(running.stack.places.trust_bucket, key).await;
    bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap()).unwrap_or_default()
}

async fn mirror(running: &Running) -> std::io::Result<Value> {
    running.stack.invoke("issuer-keys", &json!({})).await
}

/// Whether one of the mirrored keys verifies the assertion, with nobody's code but the cryptography.
fn verifies(mirrored: &Value, assertion: &str) -> bool {
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().0).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    let keys = mirrored["body"]["keys"].as_array().unwrap();
    let Some(key) = keys.iter().find(|key| key["kid"] == header["kid"] && key["alg"] == header["alg"]) else {
        return false;
    };
    let member = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let key = RsaPublicKeyComponents { n: member("n"), e: member("e") };
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrored_keys_verify_what_access_signs_and_follow_its_rotation() {
    let running = Running::start().await;
    let access = &running.stack.access;
    let profiles = object(&running, "trust/profiles.json").await;
    let foreign = &profiles["body"]["profiles"][1];
    assert_eq!((&foreign["id"], &foreign["audience"]), (&json!(seed::ACCESS), &json!(AUDIENCE)));
    assert_eq!(foreign["issuer"], access.team_domain());

    let first = object(&running, MIRROR).await;
    assert_eq!(first["body"]["keys"].as_array().unwrap().len(), 2, "both keys of the team: {first}");
    assert_eq!(first["not_after"].as_i64().unwrap() - first["issued_at"].as_i64().unwrap(), 48 * 3_600_000);
    let user = access.user_assertion("7335d417-61da-459d-899c-0a01c76a2f94", "ada@example.com").unwrap();
    let service = access.service_assertion("e367826f93b8d71185e03fe518aff3b4.access").unwrap();
    for assertion in [&user, &service] {
        assert!(verifies(&first, assertion));
        assert!(!verifies(&first, &assertion.replacen('.', ".e30", 1)), "other claims under the same signature");
    }

    access.rotate(Key::generate().unwrap());
    let fresh = access.user_assertion("7335d417-61da-459d-899c-0a01c76a2f94", "ada@example.com").unwrap();
    assert!(!verifies(&first, &fresh));
    mirror(&running).await.unwrap();
    let second = object(&running, MIRROR).await;
    assert!(verifies(&second, &fresh) && verifies(&second, &user), "the key before it is still published");
    assert!(second["version"].as_i64() > first["version"].as_i64());
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_that_may_not_be_believed_leaves_the_last_good_one() {
    let running = Running::start().await;
    let access = &running.stack.access;
    let held = object(&running, MIRROR).await;
    let mut private = access.published();
    private["keys"][0]["d"] = json!("AAAA");
    let mut oversized = access.published();
    oversized["pad"] = json!("x".repeat(256 * 1024));
    let mut page = Canned::json(&access.published());
    page.content_type = "text/html";
    let mut moved = Canned::json(&access.published());
    moved.status = http::StatusCode::FOUND;
    let mut down = Canned::json(&json!({}));
    down.status = http::StatusCode::BAD_GATEWAY;
    let broken = Canned { body: "{\"keys\":[".into(), ..Canned::json(&json!({})) };
    for (what, canned) in [
        ("a private key", Canned::json(&private)),
        ("more than 256 KB", Canned::json(&oversized)),
        ("no JSON by its name", page),
        ("a redirect", moved),
        ("an outage", down),
        ("half an answer", broken),
        ("no keys", Canned::json(&json!({"keys": []}))),
    ] {
        let asked = access.asked();
        access.answer_with(Some(canned));
        let refused = mirror(&running).await;
        assert!(refused.unwrap_err().to_string().contains("ServiceUnavailable"), "{what}");
        assert!(access.asked() > asked, "{what}");
        assert_eq!(object(&running, MIRROR).await, held, "{what}");
    }
    access.answer_with(None);
    assert_eq!(mirror(&running).await.unwrap(), json!({"mirrored": [seed::ACCESS]}), "and it comes back by itself");
    assert_eq!(object(&running, MIRROR).await, held, "as it was: the same keys are not written twice in an hour");
    access.rotate(Key::generate().unwrap());
    mirror(&running).await.unwrap();
    assert!(object(&running, MIRROR).await["version"].as_i64() > held["version"].as_i64());
    running.stack.stop().await;
}

const GITHUB: &str = "https://token.actions.githubusercontent.com";
const STS: &str = "https://0f9c.tokens.sts.global.api.aws";

/// What GitHub signs for a job of a repository, for this stack.
fn job(running: &Running, jti: &str, repository: &str) -> String {
    let now = running.stack.account.clock.seconds();
    let claims = json!({"iss": GITHUB, "aud": running.stack.places.gateway, "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
        "iat": now, "nbf": now - 600, "exp": now + 300, "jti": jti, "ref": "refs/heads/main", "repository_id": repository,
        "repository_owner_id": "65", "repository": "octo-org/octo-repo"});
    running.stack.access.sign(&claims).unwrap()
}

/// What STS signs for a role.
fn role(running: &Running, jti: &str, role: &str) -> String {
    let now = running.stack.account.clock.seconds();
    let claims = json!({"iss": STS, "aud": running.stack.places.gateway, "sub": format!("arn:aws:iam::111122223333:role/{role}"),
        "iat": now, "exp": now + 300, "jti": jti,
        "https://sts.amazonaws.com/": {"aws_account": "111122223333", "source_region": "eu-west-1"}});
    running.stack.access.sign(&claims).unwrap()
}

async fn token(running: &Running, client_id: &str, assertion: &str) -> Answer {
    let form = format!(
        "grant_type=client_credentials&client_id={client_id}&client_assertion_type=\
         urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}"
    );
    let url = format!("{}/oauth2/token", running.stack.places.gateway);
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    running.api.send("POST", &url, &headers, form.into()).await.unwrap()
}

/// The platforms' issuers and a client for a workload of each; the stand-in's keys serve for theirs.
async fn workloads(running: &Running) {
    let keys = running.stack.access.certs_url();
    for (id, kind, issuer) in [("github", "github-actions", GITHUB), ("aws", "aws-sts", STS)] {
        let put = json!({"operation": "issuer.put", "operator": "test", "id": id, "kind": kind, "issuer": issuer,
            "algorithms": ["RS256"], "jwks_url": keys});
        act(&running.stack, put).await.unwrap();
    }
    running.stack.invoke("trust", &json!({})).await.unwrap();
    mirror(running).await.unwrap();
    let job = json!({"issuer": "github", "repository_id": "74", "repository_owner_id": "65", "ref": "refs/heads/main"});
    let role = json!({"issuer": "aws", "role_arn": "arn:aws:iam::111122223333:role/payments"});
    for (client_id, rule) in [("ci", job), ("payments", role)] {
        let put = json!({"operation": "client.put", "operator": "test", "tenant": "acme", "client_id": client_id,
            "scopes": ["files:read", "files:write"], "dpop": false, "federation": [rule]});
        assert_eq!(act(&running.stack, put.clone()).await.unwrap()["outcome"], "created");
        assert_eq!(act(&running.stack, put.clone()).await.unwrap()["outcome"], "unchanged");
        let mut other = put;
        other["client_id"] = json!("other");
        let refused = running.stack.invoke("admin", &other).await.unwrap();
        assert_eq!(refused["error"]["code"], "federation_taken", "one workload is one client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_gets_its_token_with_what_its_platform_signs_and_nothing_registered_at_ours() {
    let running = Running::start().await;
    workloads(&running).await;
    let invalid = "401 invalid_client";
    for (client_id, good, wrong) in [
        ("ci", job(&running, "j-1", "74"), job(&running, "j-2", "75")),
        ("payments", role(&running, "r-1", "payments"), role(&running, "r-2", "other")),
    ] {
        assert_eq!(token(&running, client_id, &wrong).await.outcome(), invalid, "{client_id}: another workload");
        assert_eq!(token(&running, "acme-backend", &good).await.outcome(), invalid, "{client_id}: another client");
        assert_eq!(token(&running, "", &good).await.outcome(), invalid, "{client_id}: no client named");
        let answers = futures::future::join_all((0..20).map(|_| token(&running, client_id, &good))).await;
        let outcomes: Vec<String> = answers.iter().map(Answer::outcome).collect();
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{outcomes:?}");
        assert!(answers.iter().all(|answer| answer.status == 200 || answer.outcome() == invalid), "{outcomes:?}");
        let granted = answers.iter().find(|answer| answer.status == 200).unwrap().json();
        let access_token = granted["access_token"].as_str().unwrap();
        let file = json!({"name": "a.txt", "content_type": "text/plain", "size": 5, "mode": "put",
            "sha256": "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="});
        let created = running.api.call("POST", "/files", Some(access_token), Some(&file)).await.unwrap();
        assert_eq!(created.status, 201, "{client_id} is admitted at the gate: {}", created.outcome());
    }
    let user = running.stack.access.user_assertion("7335d417-61da-459d-899c-0a01c76a2f94", "ada@example.com").unwrap();
    assert_eq!(token(&running, "ci", &user).await.outcome(), invalid, "a person is no workload");
    let disable = json!({"operation": "client.disable", "operator": "test", "tenant": "acme", "client_id": "ci"});
    act(&running.stack, disable).await.unwrap();
    let late = token(&running, "ci", &job(&running, "j-3", "74")).await;
    assert_eq!(late.outcome(), invalid, "disabled means at once, whatever an environment remembers");
    // A key that the platform made a moment ago is believed as soon as it is mirrored.
    running.stack.access.rotate(Key::generate().unwrap());
    let fresh = role(&running, "r-3", "payments");
    assert_eq!(token(&running, "payments", &fresh).await.outcome(), invalid);
    running.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_issuer_leaves_the_profiles_and_is_asked_no_more() {
    let running = Running::start().await;
    act(&running.stack, json!({"operation": "issuer.remove", "operator": "test", "id": seed::ACCESS})).await.unwrap();
    running.stack.invoke("trust", &json!({})).await.unwrap();
    let profiles = object(&running, "trust/profiles.json").await;
    assert_eq!(profiles["body"]["profiles"].as_array().unwrap().len(), 1);
    let asked = running.stack.access.asked();
    assert_eq!(mirror(&running).await.unwrap(), json!({"mirrored": []}));
    assert_eq!(running.stack.access.asked(), asked);
    running.stack.stop().await;
}
