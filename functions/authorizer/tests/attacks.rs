//! The corpus of attacks (`docs/attacks.md`) at the gate.

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
use shared::trust::Accepts;
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, TrustBucket, attacks};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";

struct World {
    issuer: Issuer,
    bucket: TrustBucket,
    authorizer: Authorizer<Cedar, TrustBucket, FixedClock>,
}

impl World {
    fn new() -> Self {
        let (issuer, bucket) = (Issuer::new("k1"), TrustBucket::default());
        issuer.publish(&bucket, NOW);
        let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let authorizer = Authorizer::new(accepts, bucket.clone(), FixedClock::at(NOW));
        Self { issuer, bucket, authorizer }
    }

    /// What the gate answers to this text as a bearer token, and as the token of a `TOKEN` authorizer.
    async fn judge(&self, token: &str) -> [Result<Value, Failure>; 2] {
        let arn = format!("arn:aws:execute-api:us-east-1:111122223333:abc/v1/GET{FILE}");
        let bearer = format!("Bearer {token}");
        let request = json!({"type":"REQUEST","methodArn":arn,"resource":"/files/{id}","path":FILE,"httpMethod":"GET",
            "multiValueHeaders":{"Authorization":[bearer]},"requestContext":{"requestId":"g-1"}});
        let simple = json!({"type":"TOKEN","methodArn":arn,"authorizationToken":bearer});
        let invocation = || Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        [self.authorizer.handle(request, &invocation()).await, self.authorizer.handle(simple, &invocation()).await]
    }
}

#[tokio::test]
async fn no_attack_of_the_corpus_passes_the_gate_and_the_good_token_still_does() {
    let (world, other) = (World::new(), Issuer::new("k2"));
    let good = attacks::access(&world.issuer, NOW);
    let genuine = world.issuer.token(NOW, &json!({}));
    let corpus = attacks::all(&world.issuer, &other, &good, NOW);
    assert!(corpus.len() > 200, "the corpus has lost cases: {}", corpus.len());
    assert!(world.judge(&genuine).await.iter().all(|answer| answer.is_ok()));
    let reads = world.bucket.reads();
    for (what, token) in corpus {
        for answer in world.judge(&token).await {
            assert_eq!(answer, Err(Failure::UNAUTHORIZED), "{what}");
        }
    }
    for answer in world.judge(&genuine).await {
        let effect = answer.unwrap()["policyDocument"]["Statement"][0]["Effect"].clone();
        assert_eq!(effect, "Allow", "the good token still passes");
    }
    assert!(world.bucket.reads() <= reads + 1, "no attack makes the gate look for keys over and over");
}

#[tokio::test]
async fn what_was_made_for_another_use_is_no_access_token() {
    let (world, client) = (World::new(), Issuer::new("k1"));
    let now = NOW.seconds();
    // Signed by our own key, as if the thief of another use had found a way to have it signed.
    let ours = |header: Value, claims: Value| world.issuer.jws(&header, &claims);
    let base = json!({"iss":ISSUER,"sub":"acme-backend","aud":AUDIENCE,"client_id":"acme-backend","iat":now,"exp":now + 300,
        "jti":"j","scope":"files:read","tenant":"acme","kind":"machine"});
    for (what, token) in [
        ("a client assertion", client.assertion("acme-backend", "a", NOW, &json!({}))),
        ("a client assertion by our key", world.issuer.assertion("acme-backend", "a", NOW, &json!({}))),
        ("a proof of possession", client.proof("GET", FILE, "p", NOW, &json!({}))),
        ("a proof of possession by our key", world.issuer.proof("GET", FILE, "p", NOW, &json!({}))),
        ("an ID token", ours(json!({"alg":"ES256","typ":"JWT","kid":"k1"}), base.clone())),
        ("an access token without its type", ours(json!({"alg":"ES256","kid":"k1"}), base.clone())),
        (
            "an assertion of Access",
            ours(
                json!({"alg":"ES256","typ":"JWT","kid":"k1"}),
                json!({"iss":"https://team.cloudflareaccess.com",
            "aud":["4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2"],"type":"app","sub":"x","email":"a@b.example","iat":now,
            "nbf":now,"exp":now + 300}),
            ),
        ),
        ("a refresh token", "kJ8Vb1hQ1sQh8Wn0mJ2c4oQ0xg3rX9pZ6tT5yU7iO8A".to_owned()),
        ("a security event", ours(json!({"alg":"ES256","typ":"secevent+jwt","kid":"k1"}), base.clone())),
        ("a client's key as its own issuer", client.token(NOW, &json!({}))),
    ] {
        for answer in world.judge(&token).await {
            assert_eq!(answer, Err(Failure::UNAUTHORIZED), "{what}");
        }
    }
    let good = ours(json!({"alg":"ES256","typ":"at+jwt","kid":"k1"}), base);
    assert!(world.judge(&good).await.iter().all(|answer| answer.is_ok()));
}
