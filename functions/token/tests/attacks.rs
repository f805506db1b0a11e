//! The corpus of attacks (`docs/attacks.md`) at the token endpoint, where an assertion is believed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use std::fmt::Write as _;
use std::sync::Arc;

use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Invocation, Routes as _};
use shared::clock::Timestamp;
use shared::entropy::SystemEntropy;
use shared::http::{Request, Response};
use shared::jwks::Algorithm;
use shared::policy::Policing;
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, Registry, TrustBucket, attacks};
use token::{Token, config::Settings};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

struct World {
    issuer: Issuer,
    client: Issuer,
    registry: Registry,
    endpoint: Token<Registry, Issuer, TrustBucket, FixedClock, SystemEntropy>,
}

impl World {
    fn new() -> Self {
        let (issuer, client) = (Issuer::new("k1"), Issuer::new("c1"));
        let (registry, bucket) = (Registry::with_tenant("acme"), TrustBucket::default());
        issuer.publish(&bucket, NOW);
        registry
            .add_client(json!({"client_id":"acme-backend","tenant":"acme","name":"","jwks":{"keys":[client.jwk()]},
            "algorithms":["ES256"],"scopes":["files:read"],"dpop":false,"ttl_seconds":300,"enabled":true,"version":1}));
        let settings = Settings { issuer: ISSUER.into(), audience: AUDIENCE.into(), algorithm: Algorithm::Es256 };
        let clock = FixedClock::at(NOW);
        let policies = Arc::new(Policing::<Cedar, _, _>::new(bucket.clone(), clock.clone()));
        let (reader, signer) = (bucket, issuer.clone());
        let endpoint = Token::new(settings, registry.clone(), signer, reader, policies, clock, SystemEntropy);
        Self { issuer, client, registry, endpoint }
    }

    /// The answer of one of the three endpoints to this text as the client's assertion.
    async fn judge(&self, path: &str, assertion: &str) -> (u16, Value) {
        let encode = |text: &str| {
            text.bytes().fold(String::new(), |mut sent, byte| {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => sent.push(char::from(byte)),
                    other => {
                        let _ = write!(sent, "%{other:02X}");
                    }
                }
                sent
            })
        };
        let body = format!(
            "grant_type=client_credentials&token=x&client_assertion_type={}&client_assertion={}",
            encode(JWT_BEARER),
            encode(assertion)
        );
        let event = json!({"resource":path,"path":path,"httpMethod":"POST","body":body,"isBase64Encoded":false,
            "multiValueHeaders":{"Content-Type":["application/x-www-form-urlencoded"]},
            "requestContext":{"requestId":"g-1","httpMethod":"POST"}});
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        let answer = match self.endpoint.answer(&Request::parse(&event.to_string()).unwrap(), &invocation).await {
            Ok(answer) => answer,
            Err(problem) => Response::problem(problem, "g-1"),
        };
        (answer.status(), serde_json::from_str(answer.body()).unwrap_or_default())
    }
}

#[tokio::test]
async fn no_attack_of_the_corpus_proves_a_client_and_the_good_assertion_still_does() {
    let (world, other) = (World::new(), Issuer::new("c2"));
    let good = attacks::assertion(&world.client, NOW);
    let corpus = attacks::all(&world.client, &other, &good, NOW);
    assert!(corpus.len() > 150, "the corpus has lost cases: {}", corpus.len());
    for path in ["/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"] {
        for (what, assertion) in &corpus {
            let (status, body) = world.judge(path, assertion).await;
            let told = (status, body["error"].as_str().unwrap_or_default());
            // What is longer than a form may be is no assertion at all.
            let too_long = told == (400, "invalid_request") && assertion.len() > 15_000;
            assert!(told == (401, "invalid_client") || too_long, "{path}: {what}: {status} {body}");
        }
    }
    assert_eq!((world.registry.assertions(), world.issuer.signatures()), (0, 0), "nothing was consumed or signed");
    let genuine = world.client.assertion("acme-backend", "good", NOW, &json!({}));
    assert_eq!(world.judge("/oauth2/token", &genuine).await.0, 200, "the good assertion still counts");
}

#[tokio::test]
async fn what_was_made_for_another_use_proves_no_client() {
    let world = World::new();
    let now = NOW.seconds();
    let by_client = |header: Value, claims: Value| world.client.jws(&header, &claims);
    let base = json!({"iss":"acme-backend","sub":"acme-backend","aud":ISSUER,"jti":"j","iat":now,"exp":now + 60});
    for (what, assertion) in [
        ("an access token of ours", world.issuer.token(NOW, &json!({}))),
        ("an access token by the client's key", world.client.token(NOW, &json!({}))),
        (
            "an assertion called an access token",
            by_client(json!({"alg":"ES256","typ":"at+jwt","kid":"c1"}), base.clone()),
        ),
        ("an assertion called a proof", by_client(json!({"alg":"ES256","typ":"dpop+jwt","kid":"c1"}), base.clone())),
        ("a proof of possession", world.client.proof("POST", "/oauth2/token", "p", NOW, &json!({}))),
        ("a request object", by_client(json!({"alg":"ES256","typ":"oauth-authz-req+jwt","kid":"c1"}), base.clone())),
        ("a security event", by_client(json!({"alg":"ES256","typ":"secevent+jwt","kid":"c1"}), base)),
        ("a refresh token", "kJ8Vb1hQ1sQh8Wn0mJ2c4oQ0xg3rX9pZ6tT5yU7iO8A".to_owned()),
    ] {
        let (status, body) = world.judge("/oauth2/token", &assertion).await;
        assert_eq!((status, body["error"].as_str()), (401, Some("invalid_client")), "{what}");
    }
    assert_eq!(world.registry.assertions(), 0);
}
