//! The corpus of attacks (`docs/attacks.md`) at a function, which believes neither the token nor the gate's word for it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod support;

use serde_json::json;
use shared::boot::Routes as _;
use shared::clock::Timestamp;
use shared::http::{AuthorizerContext, Request};
use shared::object::Scan;
use support::{ID, invocation};
use testkit::{Files, Issuer, attacks};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

struct World {
    issuer: Issuer,
    files: Files,
    inner: support::World,
}

/// A file of `acme-backend`, and a function that knows the issuer's key.
fn world() -> World {
    let (issuer, inner) = (Issuer::new("k1"), support::world(Scan::Off));
    issuer.publish(&inner.trust, NOW);
    inner.files.seed(ID, "acme", "acme-backend");
    World { issuer, files: inner.files.clone(), inner }
}

impl World {
    /// The status that this text gets as a bearer token, though the gate's word for it is right.
    async fn judge(&self, token: &str) -> u16 {
        let request = Request {
            method: "GET".to_owned(),
            resource: "/files/{id}".to_owned(),
            path: format!("/files/{ID}"),
            path_parameters: [("id".to_owned(), ID.to_string())].into(),
            query: Vec::new(),
            headers: [("authorization".to_owned(), format!("Bearer {token}"))].into_iter().collect(),
            body: Vec::new(),
            authorizer: Some(AuthorizerContext {
                jti: "0198e1a0-0000-7000-8000-000000000001".to_owned(),
                subject: "acme-backend".to_owned(),
            }),
            request_id: "r-1".to_owned(),
        };
        match self.inner.download.answer(&request, &invocation()).await {
            Ok(answer) => answer.status(),
            Err(problem) => problem.code.status(),
        }
    }
}

#[tokio::test]
async fn no_attack_of_the_corpus_reaches_the_data_even_past_the_gate() {
    let (world, other) = (world(), Issuer::new("k2"));
    let good = attacks::access(&world.issuer, NOW);
    let genuine = world.issuer.token(NOW, &json!({}));
    assert_eq!(world.judge(&genuine).await, 200);
    for (what, token) in attacks::all(&world.issuer, &other, &good, NOW) {
        assert_eq!(world.judge(&token).await, 401, "{what}");
    }
    assert_eq!(world.judge(&genuine).await, 200, "the good token still passes");
    assert_eq!(world.files.calls().len(), 2, "the database was asked for the good token alone");
}

#[tokio::test]
async fn another_token_than_the_one_the_gate_saw_opens_nothing() {
    let world = world();
    for changes in
        [json!({"jti": "0198e1a0-0000-7000-8000-000000000002"}), json!({"sub": "somebody", "client_id": "somebody"})]
    {
        assert_eq!(world.judge(&world.issuer.token(NOW, &changes)).await, 403, "{changes}");
    }
}
