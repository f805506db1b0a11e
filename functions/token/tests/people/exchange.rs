use serde_json::{Value, json};
use shared::clock::Clock as _;
use shared::jwt::Kind;
use testkit::access::{ADA, BEN, ID, TAG, TEAM};
use testkit::issuer::AUDIENCE;
use testkit::{Issuer, Team};

use crate::world::{ACCESS_TOKEN, EXCHANGE, HEADER, JWT, NOW, With, World, error, exchanging, json_of, tokens};

#[tokio::test]
async fn a_person_gets_a_bound_token_of_the_tenant_and_a_session() {
    let world = World::new().await;
    let response = world.exchange(&world.assertion(ADA, json!({})), &[]).await;
    let (access, refresh) = tokens(&response);
    assert_eq!((response.find("cache-control"), response.find("pragma")), (Some("no-store"), Some("no-cache")));
    assert!(response.find("dpop-nonce").is_some());
    let body = json_of(&response);
    assert_eq!((body["token_type"].as_str(), body["issued_token_type"].as_str()), (Some("DPoP"), Some(ACCESS_TOKEN)));
    assert_eq!((body["expires_in"].as_i64(), body["scope"].as_str()), (Some(300), Some("files:read files:write")));
    assert_eq!(refresh.len(), 43, "256 bits");
    let token = world.read(&access);
    assert_eq!(
        (token.kind, token.subject.as_str(), token.client_id.as_str()),
        (Kind::Human, &*format!("access|{ADA}"), "acme-web")
    );
    assert_eq!((token.tenant.as_str(), token.groups.iter().collect::<Vec<_>>()), ("acme", vec!["staff"]));
    assert_eq!((token.thumbprint, token.device), (Some(world.page.thumbprint()), None));
    assert_eq!(world.registry.sessions(), [(token.session.unwrap(), None)]);
}

#[tokio::test]
async fn a_token_says_on_which_device_its_key_was_made_and_otherwise_what_access_vouches_for() {
    let world = World::new().await;
    let device =
        json!({"id": "laptop-7", "disk_encrypted": true, "source": "operator", "checked_at": NOW.seconds() - 5});
    let list = |tenant: &str, keys: &[String]| {
        let body = json!({"tenants": {tenant: [{"device": device, "keys": keys}]}});
        world.issuer.put(&world.bucket, "trust/posture.json", world.clock.now(), body);
        world.clock.advance(60);
    };
    let said = async || {
        let response = world.exchange(&world.assertion(ADA, json!({})), &[]).await;
        world.read(&tokens(&response).0).device.map(|device| device.to_value())
    };
    assert_eq!(said().await, None, "there is no list");
    list("globex", &[world.page.thumbprint()]);
    assert_eq!(said().await, None, "another tenant's device");
    list("acme", &[world.page.thumbprint()]);
    assert_eq!(said().await, Some(device.clone()));
    let (_, refresh) = world.begun().await;
    let again = world.read(&tokens(&world.refresh(&refresh, &[]).await).0);
    assert_eq!(again.device.map(|device| device.to_value()), Some(device.clone()));
    list("acme", &[]);
    assert_eq!(said().await, None);
    let profile = json!({"id": ID, "kind": "cloudflare-access-managed", "issuer": TEAM, "audience": TAG, "algorithms": ["RS256"],
        "jwks_url": format!("{TEAM}/cdn-cgi/access/certs")});
    world.issuer.put(&world.bucket, "trust/profiles.json", world.clock.now(), json!({"profiles": [profile]}));
    world.clock.advance(60);
    let tier = json!({"id": ID, "managed": true, "source": "access-tier", "checked_at": world.clock.now().seconds()});
    assert_eq!(said().await, Some(tier));
}

#[tokio::test]
async fn a_page_that_cannot_read_its_assertion_sends_the_header_alone() {
    let world = World::new().await;
    let assertion = world.assertion(ADA, json!({}));
    let fields = [
        ("grant_type", EXCHANGE),
        ("client_id", "acme-web"),
        ("subject_token_type", HEADER),
        ("subject_token", "header"),
    ];
    let with = || With { assertion: Some(&assertion), ..With::default() };
    assert_eq!(world.read(&tokens(&world.send(&fields, with()).await).0).subject, format!("access|{ADA}"));
    let named = [&fields[..3], &[("subject_token", assertion.as_str())]].concat();
    for (what, fields, with) in [
        ("no header", fields.to_vec(), With::default()),
        ("the assertion in place of the word", named, with()),
        (
            "the header as a JWT",
            [&fields[..2], &[("subject_token_type", JWT), ("subject_token", "header")]].concat(),
            with(),
        ),
        (
            "two assertions",
            fields.to_vec(),
            With { headers: vec![("Cf-Access-Jwt-Assertion", json!([assertion, assertion]))], ..With::default() },
        ),
        (
            "two assertions in one field",
            fields.to_vec(),
            With {
                headers: vec![("Cf-Access-Jwt-Assertion", json!([format!("{assertion}, {assertion}")]))],
                ..With::default()
            },
        ),
        (
            "the cookie in place of the header",
            fields.to_vec(),
            With { headers: vec![("Cookie", json!([format!("CF_Authorization={assertion}")]))], ..With::default() },
        ),
    ] {
        assert_eq!(error(&world.send(&fields, with).await), (400, "invalid_request".into()), "{what}");
    }
}

#[tokio::test]
async fn the_requests_own_assertion_must_be_of_the_same_person() {
    let world = World::new().await;
    let (ada, ben) = (world.assertion(ADA, json!({})), world.assertion(BEN, json!({})));
    let service = world.team.service("e367826f93b8d71185e03fe518aff3b4.access", NOW);
    let later = world.assertion(ADA, json!({"exp": NOW.seconds() + 60}));
    for (own, status) in [(&ada, 200), (&later, 200), (&ben, 400), (&service, 400), (&"garbage".to_owned(), 400)] {
        let response = world.send(&exchanging(&ada), With { assertion: Some(own), ..With::default() }).await;
        assert_eq!(response.status(), status, "{}", response.body());
    }
}

#[tokio::test]
async fn assertions_that_prove_no_person_are_no_subject() {
    let world = World::new().await;
    let now = NOW.seconds();
    let other = Team::impostor();
    for (what, assertion) in [
        ("a service's", world.team.service("e367826f93b8d71185e03fe518aff3b4.access", NOW)),
        ("of another key", other.person(ADA, "ada@example.com", NOW, &json!({}))),
        ("of another application", world.assertion(ADA, json!({"aud": ["0".repeat(64)]}))),
        ("of two applications", world.assertion(ADA, json!({"aud": [testkit::access::TAG, "0".repeat(64)]}))),
        ("of another team", world.assertion(ADA, json!({"iss": "https://evil.cloudflareaccess.com"}))),
        ("expired", world.assertion(ADA, json!({"exp": now}))),
        ("of the global session", world.assertion(ADA, json!({"type": "org"}))),
        ("both forms at once", world.assertion(ADA, json!({"common_name": "e367826f93b8d71185e03fe518aff3b4.access"}))),
        ("an access token", world.issuer.token(NOW, &json!({"kind": "human"}))),
        ("a client assertion", world.backend.assertion("acme-backend", "j", NOW, &json!({}))),
        ("a proof", world.page.proof("POST", "/oauth2/token", "p", NOW, &json!({}))),
        ("garbage", "a.b.c".to_owned()),
    ] {
        let response = world.exchange(&assertion, &[]).await;
        assert_eq!(error(&response), (400, "invalid_request".into()), "{what}");
        assert_eq!(json_of(&response)["error_description"], "the subject_token is not acceptable", "{what}");
    }
    assert_eq!((world.issuer.signatures(), world.registry.sessions().len(), world.registry.proofs()), (0, 0, 0));
}

#[tokio::test]
async fn without_a_row_there_is_no_token_and_the_most_specific_row_decides() {
    let world = World::new().await;
    let person = |custom: Value| world.assertion(BEN, json!({"custom": {"groups": custom}}));
    let granted = async |assertion: &str| {
        let response = world.exchange(assertion, &[]).await;
        match response.status() {
            200 => {
                Ok((json_of(&response)["scope"].as_str().unwrap().to_owned(), world.read(&tokens(&response).0).groups))
            }
            _ => Err(error(&response).1),
        }
    };
    let scope = |granted: Result<(String, _), String>| granted.map(|(scope, _)| scope);
    let refused = Err("invalid_request".to_owned());
    assert_eq!(scope(granted(&person(json!([]))).await), refused, "nobody knows Ben");
    world.identity("acme", "group", "ops", &["ops"], &["files:read"]).await;
    world.identity("acme", "group", "eu", &["eu", "ops"], &["files:write"]).await;
    let (both, groups) = granted(&person(json!(["eu", "ops", "unknown"]))).await.unwrap();
    assert_eq!(both, "files:read files:write", "groups count together");
    assert_eq!(groups.iter().collect::<Vec<_>>(), ["eu", "ops"]);
    assert_eq!(scope(granted(&person(json!(["Ops"]))).await), refused, "groups are written in one way");
    world.identity("globex", "group", "visitors", &[], &["files:read"]).await;
    assert_eq!(scope(granted(&person(json!(["ops", "visitors"]))).await), refused, "of two tenants is of none");
    assert_eq!(scope(granted(&person(json!(["visitors"]))).await), refused, "a client of another tenant");
    world.identity("acme", "domain", "example.com", &[], &["files:write"]).await;
    assert_eq!(scope(granted(&person(json!(["ops", "visitors"]))).await).as_deref(), Ok("files:write"));
    world.identity("acme", "email", "ada@example.com", &[], &["files:read"]).await;
    assert_eq!(
        scope(granted(&person(json!(["ops"]))).await).as_deref(),
        Ok("files:read"),
        "whatever the case of the address"
    );
    world.identity_that("acme", "subject", BEN, (&[], &["files:read"]), false).await;
    assert_eq!(scope(granted(&person(json!(["ops"]))).await), refused, "one person shut out of a domain");
    world.without_identity("subject", BEN).await;
    assert_eq!(scope(granted(&person(json!([]))).await).as_deref(), Ok("files:read"));
}

#[tokio::test]
async fn an_address_matches_its_own_row_and_no_other() {
    let world = World::new().await;
    world.without_identity("subject", ADA).await;
    world.identity("acme", "domain", "example.com", &[], &["files:read"]).await;
    for (email, status) in [
        ("ada@example.com", 200),
        ("ADA@EXAMPLE.COM", 200),
        ("ada@sub.example.com", 400),
        ("ada@evilexample.com", 400),
        ("ada@example.com.evil.example", 400),
        ("\"ada@example.com\"@evil.example", 400),
        ("ada@evil.example@example.com", 400),
        ("ada@example.com ", 400),
        ("ada@ex\u{430}mple.com", 400),
        ("ada@example.co\u{217f}", 400),
    ] {
        let assertion = world.team.person(ADA, email, NOW, &json!({}));
        assert_eq!(world.exchange(&assertion, &[]).await.status(), status, "{email}");
    }
}

#[tokio::test]
async fn scopes_are_what_person_and_client_both_have() {
    let world = World::new().await;
    world.identity("acme", "subject", ADA, &[], &["files:read", "app", "fields:decrypt:*.email"]).await;
    for (asked, outcome) in [
        (None, Ok("fields:decrypt:users.email files:read")),
        (Some("files:read"), Ok("files:read")),
        (Some("fields:decrypt:users.email"), Ok("fields:decrypt:users.email")),
        (Some("app"), Err("invalid_scope")),
        (Some("files:write"), Err("invalid_scope")),
        (Some("fields:decrypt:*.email"), Err("invalid_scope")),
        (Some("fields:decrypt:users.*"), Err("invalid_scope")),
        (Some("admin"), Err("invalid_scope")),
        (Some(" "), Err("invalid_scope")),
    ] {
        let more: Vec<_> = asked.map(|asked| ("scope", asked)).into_iter().collect();
        let response = world.exchange(&world.assertion(ADA, json!({})), &more).await;
        match outcome {
            Ok(scope) => assert_eq!(json_of(&response)["scope"], scope),
            Err(code) => assert_eq!(error(&response), (400, code.to_owned()), "{asked:?}"),
        }
    }
    world.client("acme-web", json!({"scopes": ["files:read:tenant"]}));
    let none = world.exchange(&world.assertion(ADA, json!({})), &[]).await;
    assert_eq!(error(&none), (400, "invalid_scope".into()), "a token for nothing is none");
}

#[tokio::test]
async fn a_token_ends_before_its_assertion_does() {
    let world = World::new().await;
    for (left, life) in [(3600, 300), (120, 120), (1, 1)] {
        let response = world.exchange(&world.assertion(ADA, json!({"exp": NOW.seconds() + left})), &[]).await;
        assert_eq!(json_of(&response)["expires_in"], life, "{left}");
        let token = world.read(&tokens(&response).0);
        assert!(token.expires_at <= NOW.plus_seconds(left));
    }
    world.client("acme-web", json!({"ttl_seconds": 60}));
    let response = world.exchange(&world.assertion(ADA, json!({})), &[]).await;
    assert_eq!(json_of(&response)["expires_in"], 60);
}

#[tokio::test]
async fn what_is_no_exchange_of_ours_is_refused_and_burns_nothing() {
    let world = World::new().await;
    let ada = world.assertion(ADA, json!({}));
    let good = exchanging(&ada);
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    let typed = |kind: &'static str| [&good[..2], &[("subject_token_type", kind), good[3]]].concat();
    for (what, fields, want) in [
        ("no subject token", good[..3].to_vec(), "invalid_request"),
        ("no type of it", [&good[..2], &good[3..]].concat(), "invalid_request"),
        ("an ID token", typed("urn:ietf:params:oauth:token-type:id_token"), "invalid_request"),
        ("an access token", typed(ACCESS_TOKEN), "invalid_request"),
        ("an actor", with(&[("actor_token", "x"), ("actor_token_type", JWT)]), "invalid_request"),
        ("an actor's type alone", with(&[("actor_token_type", JWT)]), "invalid_request"),
        (
            "a refresh token as result",
            with(&[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")]),
            "invalid_request",
        ),
        ("another resource", with(&[("resource", "https://other.example")]), "invalid_target"),
        ("another audience", with(&[("audience", "https://other.example")]), "invalid_target"),
        ("a client nobody knows", [&good[..1], &[("client_id", "nobody")], &good[2..]].concat(), "invalid_client"),
        ("no client", [&good[..1], &good[2..]].concat(), "invalid_client"),
        (
            "a client with a key, by its name",
            [&good[..1], &[("client_id", "acme-backend")], &good[2..]].concat(),
            "invalid_client",
        ),
        ("a secret", with(&[("client_secret", "x")]), "invalid_client"),
    ] {
        let response = world.send(&fields, With::default()).await;
        assert_eq!(error(&response).1, want, "{what}");
        assert_eq!(response.find("cache-control"), Some("no-store"), "{what}");
    }
    assert_eq!((world.registry.sessions().len(), world.registry.proofs()), (0, 0));
    let named = with(&[("requested_token_type", ACCESS_TOKEN), ("resource", AUDIENCE), ("audience", AUDIENCE)]);
    assert_eq!(world.send(&named, With::default()).await.status(), 200);
}

#[tokio::test]
async fn each_client_keeps_to_its_own_grants() {
    let world = World::new().await;
    let ada = world.assertion(ADA, json!({}));
    let machine =
        world.raw("/oauth2/token", &[("grant_type", "client_credentials"), ("client_id", "acme-web")], &[]).await;
    assert_eq!(error(&machine), (400, "unauthorized_client".into()));
    for fields in [exchanging(&ada).to_vec(), vec![("grant_type", "refresh_token"), ("refresh_token", "x")]] {
        let fields: Vec<_> = fields.into_iter().filter(|(name, _)| *name != "client_id").collect();
        let confidential = world.of_backend("/oauth2/token", "a1", &fields).await;
        assert_eq!(error(&confidential), (400, "unauthorized_client".into()));
    }
    assert_eq!(world.registry.assertions(), 0);
    // A public client cannot be authenticated by whoever makes a key for it.
    let made = Issuer::new("h1").assertion("acme-web", "j", NOW, &json!({}));
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", made.as_str()),
    ];
    assert_eq!(error(&world.raw("/oauth2/token", &fields, &[]).await), (401, "invalid_client".into()));
    world.client("acme-web", json!({"enabled": false}));
    assert_eq!(error(&world.exchange(&ada, &[]).await), (401, "invalid_client".into()));
}

#[tokio::test]
async fn a_key_is_demanded_and_its_proof_counts_once() {
    let world = World::new().await;
    let ada = world.assertion(ADA, json!({}));
    let bare = world.raw("/oauth2/token", &exchanging(&ada), &[]).await;
    assert_eq!(error(&bare), (400, "invalid_dpop_proof".into()));
    let first =
        world.raw("/oauth2/token", &exchanging(&ada), &[("DPoP", json!([world.proof(&world.page, None)]))]).await;
    assert_eq!(error(&first), (400, "use_dpop_nonce".into()));
    let nonce = first.find("dpop-nonce").unwrap();
    let proof = json!([world.proof(&world.page, Some(nonce))]);
    let twenty =
        (0..20).map(|_| async { world.raw("/oauth2/token", &exchanging(&ada), &[("DPoP", proof.clone())]).await });
    let answers = futures::future::join_all(twenty).await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), 1);
    assert_eq!(answers.iter().filter(|answer| error(answer).1 == "invalid_dpop_proof").count(), 19);
    assert_eq!(world.registry.sessions().len(), 1);
    // The people's host and the machines' are one issuer: a proof names the issuer, whichever way it came.
    let elsewhere =
        world.page.proof("POST", "/oauth2/token", "e", NOW, &json!({"htu": "https://people.example/oauth2/token"}));
    let elsewhere = world.raw("/oauth2/token", &exchanging(&ada), &[("DPoP", json!([elsewhere]))]).await;
    assert_eq!(error(&elsewhere), (400, "invalid_dpop_proof".into()));
}

#[tokio::test]
async fn a_fault_of_the_surroundings_begins_nothing() {
    let world = World::new().await;
    let ada = world.assertion(ADA, json!({}));
    world.begun().await;
    for (what, broken) in [("signer", 0), ("database", 1)] {
        let break_it = |down| if broken == 0 { world.issuer.set_down(down) } else { world.registry.set_down(down) };
        break_it(true);
        let response = world.exchange(&ada, &[]).await;
        assert_eq!(error(&response), (503, "temporarily_unavailable".into()), "{what}");
        assert_eq!(response.find("retry-after"), Some("1"));
        break_it(false);
    }
    assert_eq!(world.registry.sessions().len(), 1);
    assert_eq!(world.exchange(&ada, &[]).await.status(), 200);
    let fresh = World::new().await;
    fresh.bucket.remove("trust/issuers/access.json");
    assert_eq!(
        error(&fresh.exchange(&ada, &[]).await),
        (503, "temporarily_unavailable".into()),
        "without the issuer's keys"
    );
}

#[tokio::test]
async fn nobody_is_handed_a_token_that_is_revoked_already() {
    let world = World::new().await;
    let second = world.clock.now().seconds();
    let revoke = |kind: &'static str, value: String, at| {
        world.act(
            "api.revoke",
            vec![crate::world::text(kind), crate::world::text(&value), shared::port::Parameter::Int(at)],
        )
    };
    revoke("sub", format!("access|{ADA}"), second).await;
    let ada = world.assertion(ADA, json!({}));
    let response = world.exchange(&ada, &[]).await;
    assert_eq!(error(&response), (503, "temporarily_unavailable".into()));
    world.clock.advance(1);
    assert_eq!(world.exchange(&ada, &[]).await.status(), 200, "a second later, as `Retry-After` says");
}

#[tokio::test]
async fn no_answer_and_no_log_line_holds_what_was_presented() {
    let world = World::new().await;
    let ada = world.assertion(ADA, json!({"exp": NOW.seconds()}));
    let response = world.exchange(&ada, &[]).await;
    assert!(ada.split('.').all(|part| !response.body().contains(part)));
    assert!(!response.body().contains("example.com") && !response.body().contains(ADA));
}
