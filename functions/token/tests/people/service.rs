//! A workload behind Cloudflare Access: its service token, and a key of the moment.

use serde_json::{Value, json};
use shared::jwt::Kind;
use testkit::Issuer;
use testkit::access::ADA;

use crate::world::{ACCESS_TOKEN, EXCHANGE, HEADER, JWT, NOW, With, World, error, exchanging, json_of};

const SERVICE: &str = "e367826f93b8d71185e03fe518aff3b4.access";
const OTHER: &str = "00000000000000000000000000000001.access";

async fn world() -> World {
    let world = World::new().await;
    world.client("acme-batch", json!({"service": SERVICE, "scopes": ["files:read", "files:write"]}));
    world
}

fn asking<'a>(client: &'a str, assertion: &'a str) -> [(&'a str, &'a str); 4] {
    [("grant_type", EXCHANGE), ("client_id", client), ("subject_token_type", JWT), ("subject_token", assertion)]
}

#[tokio::test]
async fn a_service_gets_the_bound_token_of_its_client_and_no_session() {
    let world = world().await;
    let assertion = world.team.service(SERVICE, NOW);
    let response = world.send(&asking("acme-batch", &assertion), With::default()).await;
    let body = json_of(&response);
    assert_eq!(response.status(), 200, "{body}");
    assert_eq!((body["token_type"].as_str(), body["issued_token_type"].as_str()), (Some("DPoP"), Some(ACCESS_TOKEN)));
    assert_eq!((body["scope"].as_str(), body.get("refresh_token")), (Some("files:read files:write"), None));
    let token = world.read(body["access_token"].as_str().unwrap());
    assert_eq!(
        (token.kind, token.subject.as_str(), token.client_id.as_str()),
        (Kind::Machine, "acme-batch", "acme-batch")
    );
    assert_eq!((token.thumbprint, token.session, token.device), (Some(world.page.thumbprint()), None, None));
    assert_eq!(token.service.as_deref(), Some(SERVICE), "the gate asks for the service token again");
    assert!(world.registry.sessions().is_empty());
    // The assertion may come again while it lives, as Access's own cookie does: each time with a proof of its own.
    let fields = [
        ("grant_type", EXCHANGE),
        ("client_id", "acme-batch"),
        ("subject_token_type", HEADER),
        ("subject_token", "header"),
        ("scope", "files:read"),
    ];
    let again = world.send(&fields, With { assertion: Some(&assertion), ..With::default() }).await;
    assert_eq!(json_of(&again)["scope"], "files:read");
}

#[tokio::test]
async fn a_services_token_ends_with_its_assertion() {
    let world = world().await;
    let assertion = world.team.service(SERVICE, NOW);
    world.clock.advance(3600 - 40);
    let body = json_of(&world.send(&asking("acme-batch", &assertion), With::default()).await);
    assert_eq!(body["expires_in"], 40, "{body}");
    world.clock.advance(41);
    let late = world.send(&asking("acme-batch", &assertion), With::default()).await;
    assert_eq!(error(&late), (400, "invalid_request".into()));
}

#[tokio::test]
async fn what_is_not_this_clients_service_is_refused_alike_and_signs_nothing() {
    let world = world().await;
    world.client("acme-off", json!({"service": SERVICE, "enabled": false}));
    let (service, other) = (world.team.service(SERVICE, NOW), world.team.service(OTHER, NOW));
    let person = world.assertion(ADA, json!({}));
    let own = |assertion| With { assertion: Some(assertion), ..With::default() };
    for (what, fields, with, wanted) in [
        ("another service token", asking("acme-batch", &other), With::default(), (400, "invalid_request")),
        (
            "a client that is registered with none",
            asking("acme-web", &service),
            With::default(),
            (400, "invalid_request"),
        ),
        ("a person at a service's client", asking("acme-batch", &person), With::default(), (400, "invalid_request")),
        ("a client that is disabled", asking("acme-off", &service), With::default(), (401, "invalid_client")),
        ("an unknown client", asking("nobody", &service), With::default(), (401, "invalid_client")),
        ("a client with a key", asking("acme-backend", &service), With::default(), (401, "invalid_client")),
        ("beside another service's", asking("acme-batch", &service), own(&other), (400, "invalid_request")),
        ("beside a person's", asking("acme-batch", &service), own(&person), (400, "invalid_request")),
    ] {
        let response = world.send(&fields, with).await;
        assert_eq!(error(&response), (wanted.0, wanted.1.to_owned()), "{what}: {}", response.body());
    }
    for more in [("scope", "app"), ("scope", "fields:decrypt:users.*")] {
        let fields = [&asking("acme-batch", &service)[..], &[more]].concat();
        assert_eq!(error(&world.send(&fields, With::default()).await), (400, "invalid_scope".into()), "{more:?}");
    }
    let fields = [&asking("acme-batch", &service)[..], &[("resource", "https://other.example")]].concat();
    assert_eq!(error(&world.send(&fields, With::default()).await), (400, "invalid_target".into()));
    assert_eq!((world.issuer.signatures(), world.registry.sessions().len(), world.registry.proofs()), (0, 0, 0));
}

#[tokio::test]
async fn a_service_without_a_proof_or_with_a_used_one_gets_nothing() {
    let world = world().await;
    let assertion = world.team.service(SERVICE, NOW);
    let fields = asking("acme-batch", &assertion);
    let bare = world.raw("/oauth2/token", &fields, &[]).await;
    assert_eq!(error(&bare), (400, "invalid_dpop_proof".into()));
    let first = world.raw("/oauth2/token", &fields, &[("DPoP", json!([world.proof(&world.page, None)]))]).await;
    let nonce = first.find("dpop-nonce").unwrap().to_owned();
    let proof = world.proof(&world.page, Some(&nonce));
    let headers: [(&str, Value); 1] = [("DPoP", json!([proof]))];
    assert_eq!(world.raw("/oauth2/token", &fields, &headers).await.status(), 200);
    assert_eq!(error(&world.raw("/oauth2/token", &fields, &headers).await), (400, "invalid_dpop_proof".into()));
    assert_eq!(world.registry.proofs(), 1);
}

#[tokio::test]
async fn a_session_ends_where_its_client_becomes_a_services() {
    let world = world().await;
    let (_, refresh) = world.begun().await;
    world.client("acme-web", json!({"service": SERVICE, "version": 2}));
    assert_eq!(error(&world.refresh(&refresh, &[]).await), (400, "invalid_grant".into()));
    let thief = Issuer::new("t1");
    let service = world.team.service(SERVICE, NOW);
    let with = With { assertion: Some(&service), key: Some(&thief), ..With::default() };
    assert_eq!(error(&world.refresh_with(&refresh, &[], with).await), (400, "invalid_grant".into()));
    assert_eq!(error(&world.send(&exchanging(&world.assertion(ADA, json!({}))), With::default()).await).0, 400);
}

#[tokio::test]
async fn whoever_holds_a_services_token_may_end_it() {
    let world = world().await;
    let assertion = world.team.service(SERVICE, NOW);
    let token = async || {
        let body = json_of(&world.send(&asking("acme-batch", &assertion), With::default()).await);
        body["access_token"].as_str().unwrap().to_owned()
    };
    let (first, second) = (token().await, token().await);
    let end = async |client: &str, token: &str| {
        let fields = [("client_id", client), ("token", token)];
        world.raw("/oauth2/revoke", &fields, &[]).await.status()
    };
    assert_eq!(end("acme-web", &first).await, 200, "another client ends nothing, and is not told so");
    assert!(world.registry.revoked().is_empty());
    assert_eq!(end("acme-batch", &first).await, 200);
    let ended: Vec<String> = world.registry.revoked().into_iter().map(|(jti, _)| jti).collect();
    assert_eq!(ended, [world.read(&first).jti]);
    assert_ne!(ended, [world.read(&second).jti]);
    assert_eq!(end("acme-batch", &first[..first.len() - 4]).await, 200, "what is no token is answered alike");
}
