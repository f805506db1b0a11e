//! Tokens that are bound to a key (RFC 9449), at the gate.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use authorizer::Authorizer;
use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::Timestamp;
use shared::digest::sha256;
use shared::encoding::base64url;
use shared::trust::Accepts;
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const STAGE: &str = "arn:aws:execute-api:us-east-1:111122223333:abc/v1";
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";

struct World {
    issuer: Issuer,
    holder: Issuer,
    bucket: TrustBucket,
    authorizer: Authorizer<Cedar, TrustBucket, FixedClock>,
}

impl World {
    fn new() -> Self {
        let (issuer, bucket) = (Issuer::new("k1"), TrustBucket::default());
        issuer.publish(&bucket, NOW);
        let authorizer = authorizer(&bucket);
        Self { issuer, holder: Issuer::new("h1"), bucket, authorizer }
    }

    fn token(&self) -> String {
        self.issuer.token(NOW, &json!({"cnf": {"jkt": self.holder.thumbprint()}}))
    }

    fn proof(&self, token: &str, jti: &str, changes: Value) -> String {
        let mut claims = json!({"ath": base64url(&sha256(token.as_bytes()))});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.holder.proof("GET", FILE, jti, NOW, &claims)
    }
}

fn authorizer(bucket: &TrustBucket) -> Authorizer<Cedar, TrustBucket, FixedClock> {
    let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
    Authorizer::new(accepts, bucket.clone(), FixedClock::at(NOW))
}

async fn passes(authorizer: &Authorizer<Cedar, TrustBucket, FixedClock>, headers: Value) -> bool {
    let event = json!({"type":"REQUEST","methodArn":format!("{STAGE}/GET{FILE}"),"resource":"/files/{id}","path":FILE,
        "httpMethod":"GET","multiValueHeaders":headers,"requestContext":{"requestId":"g-1"}});
    let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
    match authorizer.handle(event, &invocation).await {
        Ok(answer) => answer["policyDocument"]["Statement"][0]["Effect"] == "Allow",
        Err(failure) => {
            assert_eq!(failure, Failure::UNAUTHORIZED);
            false
        }
    }
}

#[tokio::test]
async fn a_bound_token_passes_with_a_fresh_proof_of_its_key_over_this_request_and_no_other() {
    let world = World::new();
    let token = world.token();
    let other = world.issuer.token(NOW, &json!({"jti": "other", "cnf": {"jkt": world.holder.thumbprint()}}));
    let good = world.proof(&token, "p1", json!({}));
    let thief = Issuer::new("t1");
    let stolen = thief.proof("GET", FILE, "p2", NOW, &json!({"ath": base64url(&sha256(token.as_bytes()))}));
    let dpop = |proofs: &[&str]| json!({"Authorization": [format!("DPoP {token}")], "DPoP": proofs});
    for (what, headers) in [
        ("no proof", dpop(&[])),
        ("as a bearer token", json!({"Authorization": [format!("Bearer {token}")]})),
        ("as a bearer token with the proof", json!({"Authorization": [format!("Bearer {token}")], "DPoP": [good]})),
        ("two proofs", dpop(&[&good, &good])),
        ("two proofs in one field", dpop(&[&format!("{good}, {good}")])),
        ("another's proof", dpop(&[&stolen])),
        ("a proof beside another token", json!({"Authorization": [format!("DPoP {other}")], "DPoP": [good]})),
        ("of another path", dpop(&[&world.proof(&token, "p", json!({"htu": format!("{ISSUER}/files")}))])),
        (
            "of the address inside",
            dpop(&[&world.proof(
                &token,
                "p",
                json!({"htu": format!("https://abc.execute-api.us-east-1.amazonaws.com/v1{FILE}")}),
            )]),
        ),
        ("of another method", dpop(&[&world.proof(&token, "p", json!({"htm": "DELETE"}))])),
        ("a minute and a second old", dpop(&[&world.proof(&token, "p", json!({"iat": NOW.seconds() - 61}))])),
        ("of in a minute", dpop(&[&world.proof(&token, "p", json!({"iat": NOW.seconds() + 60}))])),
    ] {
        assert!(!passes(&world.authorizer, headers).await, "{what}");
    }
    assert!(passes(&world.authorizer, dpop(&[&good])).await);
    assert!(!passes(&world.authorizer, dpop(&[&good])).await, "a proof counts once");
    let lower = json!({"authorization": [format!("dpOp {token}")], "dpop": [world.proof(&token, "p9", json!({}))]});
    assert!(passes(&world.authorizer, lower).await);
}

/// What SECURITY.md says of it: environments do not share what they have seen.
#[tokio::test]
async fn a_proof_that_was_caught_counts_once_more_in_another_environment_and_for_the_same_request_only() {
    let world = World::new();
    let (token, second) = (world.token(), authorizer(&world.bucket));
    let headers = json!({"Authorization": [format!("DPoP {token}")], "DPoP": [world.proof(&token, "p1", json!({}))]});
    assert!(passes(&world.authorizer, headers.clone()).await && passes(&second, headers.clone()).await);
    assert!(!passes(&world.authorizer, headers.clone()).await && !passes(&second, headers).await);
}

#[tokio::test]
async fn a_token_that_is_bound_to_nothing_is_no_dpop_token() {
    let world = World::new();
    let token = world.issuer.token(NOW, &json!({}));
    let proof = world.proof(&token, "p1", json!({}));
    for headers in [
        json!({"Authorization": [format!("DPoP {token}")], "DPoP": [proof]}),
        json!({"Authorization": [format!("DPoP {token}")]}),
        json!({"Authorization": [format!("Bearer {token}")], "DPoP": [proof]}),
    ] {
        assert!(!passes(&world.authorizer, headers).await);
    }
    assert!(passes(&world.authorizer, json!({"Authorization": [format!("Bearer {token}")]})).await);
}

#[tokio::test]
async fn a_confirmation_that_is_not_understood_is_a_refusal() {
    let world = World::new();
    let jkt = world.holder.thumbprint();
    for cnf in [json!({"x5t#S256": "x"}), json!({"jkt": jkt, "kid": "x"}), json!({}), json!(jkt), json!({"jkt": 1})] {
        let token = world.issuer.token(NOW, &json!({"cnf": cnf}));
        let headers =
            json!({"Authorization": [format!("DPoP {token}")], "DPoP": [world.proof(&token, "p", json!({}))]});
        assert!(!passes(&world.authorizer, headers).await, "{cnf}");
    }
}
