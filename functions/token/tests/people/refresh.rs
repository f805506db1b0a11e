use serde_json::{Value, json};
use shared::clock::Clock as _;
use shared::port::Parameter;
use shared::trust::{Revocations, TrustObject as _};
use testkit::Issuer;
use testkit::access::{ADA, BEN};

use crate::world::{NOW, With, World, error, json_of, text, tokens};

fn ended(world: &World) -> Option<&'static str> {
    world.registry.sessions().last().unwrap().1
}

#[tokio::test]
async fn a_session_goes_on_one_token_after_the_other() {
    let world = World::new().await;
    let (first, mut refresh) = world.begun().await;
    let session = world.read(&first).session;
    for _ in 0..5 {
        world.clock.advance(240);
        let response = world.refresh(&refresh, &[]).await;
        let (access, next) = tokens(&response);
        assert_ne!(next, refresh);
        let token = world.read(&access);
        assert_eq!((&token.session, token.thumbprint), (&session, Some(world.page.thumbprint())));
        assert_eq!(
            (json_of(&response)["token_type"].as_str(), response.find("pragma")),
            (Some("DPoP"), Some("no-cache"))
        );
        refresh = next;
    }
}

#[tokio::test]
async fn one_statement_looks_and_one_acts() {
    let world = World::new().await;
    world.begun().await;
    let calls =
        || world.registry.take_calls().into_iter().filter(|call| *call != "api.client_for_token").collect::<Vec<_>>();
    calls();
    let (_, refresh) = world.begun().await;
    assert_eq!(calls(), ["api.person_for_token", "api.session_start"]);
    tokens(&world.refresh(&refresh, &[]).await);
    assert_eq!(calls(), ["api.session_for_refresh", "api.session_refresh"]);
}

#[tokio::test]
async fn a_used_token_ends_the_session_and_its_living_tokens() {
    let world = World::new().await;
    let (_, first) = world.begun().await;
    let (access, second) = tokens(&world.refresh(&first, &[]).await);
    world.clock.advance(21);
    world.bucket.take_writes();
    assert_eq!(error(&world.refresh(&first, &[]).await), (400, "invalid_grant".into()));
    assert_eq!(ended(&world), Some("reused"));
    assert!(world.bucket.take_writes().iter().any(|key| key.starts_with("trust-inbox/token/")), "verifiers are told");
    assert_eq!(error(&world.refresh(&second, &[]).await), (400, "invalid_grant".into()), "the successor as well");
    let revocations = Revocations::parse(&world.registry_snapshot().await["revocations"]).unwrap();
    assert!(revocations.hits(&world.read(&access)));
}

#[tokio::test]
async fn a_lost_answer_is_made_up_for_twice_and_by_nobody_else() {
    let world = World::new().await;
    let (_, first) = world.begun().await;
    let (_, lost) = tokens(&world.refresh(&first, &[]).await);
    world.clock.advance(20);
    let (_, sibling) = tokens(&world.refresh(&first, &[]).await);
    let (_, other) = tokens(&world.refresh(&first, &[]).await);
    assert!(lost != sibling && sibling != other);
    // The first sibling that is used is the one; whoever holds another one is found out.
    tokens(&world.refresh(&sibling, &[]).await);
    assert_eq!(ended(&world), None);
    assert_eq!(error(&world.refresh(&lost, &[]).await), (400, "invalid_grant".into()));
    assert_eq!(ended(&world), Some("reused"));
}

#[tokio::test]
async fn a_third_retry_is_one_too_many() {
    let world = World::new().await;
    let (_, first) = world.begun().await;
    for _ in 0..3 {
        tokens(&world.refresh(&first, &[]).await);
    }
    assert_eq!(error(&world.refresh(&first, &[]).await), (400, "invalid_grant".into()));
    assert_eq!(ended(&world), Some("reused"));
}

#[tokio::test]
async fn a_retry_after_the_successor_was_used_is_reuse_within_the_grace_too() {
    let world = World::new().await;
    let (_, first) = world.begun().await;
    let (_, second) = tokens(&world.refresh(&first, &[]).await);
    tokens(&world.refresh(&second, &[]).await);
    assert_eq!(error(&world.refresh(&first, &[]).await), (400, "invalid_grant".into()));
    assert_eq!(ended(&world), Some("reused"));
}

#[tokio::test]
async fn a_thief_with_the_token_but_without_key_or_person_gets_nothing() {
    let world = World::new().await;
    let (_, refresh) = world.begun().await;
    let (thief, ada) = (Issuer::new("t1"), world.assertion(ADA, json!({})));
    world.identity("acme", "subject", BEN, &[], &["files:read"]).await;
    let ben = world.assertion(BEN, json!({}));
    let service = world.team.service("e367826f93b8d71185e03fe518aff3b4.access", NOW);
    let expired = world.assertion(ADA, json!({"exp": NOW.seconds()}));
    let with = |assertion, key| With { assertion, key, ..With::default() };
    for (what, with) in [
        ("another key", with(Some(&*ada), Some(&thief))),
        ("no assertion", with(None, None)),
        ("another person's assertion", with(Some(&*ben), None)),
        ("a service's assertion", with(Some(&*service), None)),
        ("an expired assertion", with(Some(&*expired), None)),
        ("garbage for an assertion", with(Some("a.b.c"), None)),
    ] {
        let response = world.refresh_with(&refresh, &[], with).await;
        assert_eq!(error(&response), (400, "invalid_grant".into()), "{what}");
    }
    world.client("acme-other", json!({}));
    let fields = [("grant_type", "refresh_token"), ("client_id", "acme-other"), ("refresh_token", refresh.as_str())];
    let other = world.send(&fields, With { assertion: Some(&ada), ..With::default() }).await;
    assert_eq!(error(&other), (400, "invalid_grant".into()), "another client");
    assert_eq!(ended(&world), None, "none of them ended it");
    tokens(&world.refresh(&refresh, &[]).await);
    // Once the token is used, whoever shows it without the key shows that it was stolen.
    let response =
        world.refresh_with(&refresh, &[], With { assertion: Some(&ada), key: Some(&thief), ..With::default() }).await;
    assert_eq!((error(&response).1.as_str(), ended(&world)), ("invalid_grant", Some("reused")));
}

#[tokio::test]
async fn what_is_no_refresh_token_is_answered_alike() {
    let world = World::new().await;
    let (access, refresh) = world.begun().await;
    for presented in
        ["x", &access, &refresh[1..], &format!("{refresh}="), &"A".repeat(43), &world.assertion(ADA, json!({}))]
    {
        assert_eq!(error(&world.refresh(presented, &[]).await), (400, "invalid_grant".into()), "{presented}");
    }
    let none = [("grant_type", "refresh_token"), ("client_id", "acme-web")];
    let ada = world.assertion(ADA, json!({}));
    assert_eq!(
        error(&world.send(&none, With { assertion: Some(&ada), ..With::default() }).await),
        (400, "invalid_request".into())
    );
    assert_eq!(ended(&world), None);
}

#[tokio::test]
async fn scope_shrinks_and_never_grows_and_follows_what_the_person_may_do() {
    let world = World::new().await;
    let (_, mut refresh) = world.begun().await;
    for (asked, outcome) in [
        (Some("files:read"), Ok("files:read")),
        (None, Ok("files:read files:write")),
        (Some("files:read fields:decrypt:users.email"), Err("invalid_scope")),
        (Some("app"), Err("invalid_scope")),
    ] {
        let more: Vec<_> = asked.map(|asked| ("scope", asked)).into_iter().collect();
        let response = world.refresh(&refresh, &more).await;
        match outcome {
            Ok(scope) => {
                assert_eq!(json_of(&response)["scope"], scope);
                refresh = tokens(&response).1;
            }
            Err(code) => assert_eq!(error(&response), (400, code.to_owned())),
        }
    }
    let scopes = ["files:read", "fields:decrypt:users.email"];
    world.identity("acme", "subject", ADA, &["guests"], &scopes).await;
    let (access, next) = tokens(&world.refresh(&refresh, &[]).await);
    let token = world.read(&access);
    assert_eq!(
        token.scopes.to_string(),
        "files:read",
        "what the person lost is lost, what was won needs a new session"
    );
    assert_eq!(token.groups.iter().collect::<Vec<_>>(), ["guests"]);
    world.without_identity("subject", ADA).await;
    assert_eq!(error(&world.refresh(&next, &[]).await), (400, "invalid_grant".into()), "no row, no token");
    world.identity("globex", "subject", ADA, &[], &["files:read"]).await;
    assert_eq!(error(&world.refresh(&next, &[]).await), (400, "invalid_grant".into()), "another tenant's person now");
    assert_eq!(ended(&world), None, "and nothing of it used the token up");
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_and_at_the_end_of_its_day() {
    let idle = World::new().await;
    let (_, refresh) = idle.begun().await;
    idle.clock.advance(3600);
    assert_eq!(error(&idle.refresh(&refresh, &[]).await), (400, "invalid_grant".into()));
    assert_eq!(ended(&idle), Some("expired"));

    let busy = World::new().await;
    let (_, mut refresh) = busy.begun().await;
    for _ in 0..12 {
        busy.clock.advance(3599);
        refresh = tokens(&busy.refresh(&refresh, &[]).await).1;
    }
    // Twelve hours less twelve seconds: the last token ends with the session.
    let response = busy.refresh(&refresh, &[]).await;
    assert_eq!(json_of(&response)["expires_in"], 12);
    busy.clock.advance(12);
    assert_eq!(error(&busy.refresh(&tokens(&response).1, &[]).await), (400, "invalid_grant".into()));
    assert_eq!(ended(&busy), Some("expired"));
}

#[tokio::test]
async fn a_token_of_a_refresh_ends_before_its_assertion_does() {
    let world = World::new().await;
    let (_, refresh) = world.begun().await;
    let short = world.assertion(ADA, json!({"exp": NOW.seconds() + 30}));
    let response = world.refresh_with(&refresh, &[], With { assertion: Some(&short), ..With::default() }).await;
    assert_eq!(json_of(&response)["expires_in"], 30);
}

#[tokio::test]
async fn of_twenty_refreshes_at_once_three_get_tokens_and_the_session_ends() {
    let world = World::new().await;
    let (_, refresh) = world.begun().await;
    let answers = futures::future::join_all((0..20).map(|_| world.refresh(&refresh, &[]))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), 3);
    assert!(answers.iter().filter(|answer| answer.status() != 200).all(|answer| error(answer).1 == "invalid_grant"));
    assert_eq!(ended(&world), Some("reused"));
}

#[tokio::test]
async fn a_request_sent_twice_byte_by_byte_shows_nothing_about_who_holds_the_token() {
    let world = World::new().await;
    let (_, refresh) = world.begun().await;
    let ada = world.assertion(ADA, json!({}));
    let fields = [("grant_type", "refresh_token"), ("client_id", "acme-web"), ("refresh_token", refresh.as_str())];
    let headers = |proof: String| [("DPoP", json!([proof])), ("Cf-Access-Jwt-Assertion", json!([ada]))];
    let first = world.raw("/oauth2/token", &fields, &headers(world.proof(&world.page, None))).await;
    let proof = world.proof(&world.page, first.find("dpop-nonce"));
    tokens(&world.raw("/oauth2/token", &fields, &headers(proof.clone())).await);
    for wait in [0, 21, 60] {
        world.clock.advance(wait);
        let again = world.raw("/oauth2/token", &fields, &headers(proof.clone())).await;
        assert_eq!(error(&again), (400, "invalid_dpop_proof".into()));
    }
    assert_eq!(ended(&world), None);
}

#[tokio::test]
async fn a_fault_of_the_surroundings_uses_nothing_up() {
    let world = World::new().await;
    let (_, refresh) = world.begun().await;
    let proofs = world.registry.proofs();
    for signer in [true, false] {
        let set = |down| if signer { world.issuer.set_down(down) } else { world.registry.set_down(down) };
        set(true);
        assert_eq!(error(&world.refresh(&refresh, &[]).await), (503, "temporarily_unavailable".into()));
        set(false);
    }
    assert_eq!(world.registry.proofs(), proofs);
    tokens(&world.refresh(&refresh, &[]).await);
}

#[tokio::test]
async fn operators_end_sessions_by_what_they_are_of() {
    type Named = fn(&str) -> String;
    let cases: [(&str, Named); 4] = [
        ("sub", |_| format!("access|{ADA}")),
        ("sid", str::to_owned),
        ("client_id", |_| "acme-web".to_owned()),
        ("tenant", |_| "acme".to_owned()),
    ];
    for (kind, value) in cases {
        let world = World::new().await;
        let (access, refresh) = world.begun().await;
        let value = value(&world.read(&access).session.unwrap());
        let now = world.clock.now().seconds();
        world.act("api.revoke", vec![text(kind), text(&value), Parameter::Int(now)]).await;
        assert_eq!(ended(&world), Some("revoked"), "{kind}");
        world.clock.advance(2);
        assert_eq!(error(&world.refresh(&refresh, &[]).await), (400, "invalid_grant".into()), "{kind}");
        let (_, again) = world.begun().await;
        tokens(&world.refresh(&again, &[]).await);
    }
}

#[tokio::test]
async fn a_page_ends_its_own_session_by_either_token_and_nobody_elses() {
    for by_access in [true, false] {
        let world = World::new().await;
        world.client("acme-other", json!({}));
        let (access, refresh) = world.begun().await;
        let presented = if by_access { &access } else { &refresh };
        let end = async |client: &str, token: &str| {
            let response = world.raw("/oauth2/revoke", &[("client_id", client), ("token", token)], &[]).await;
            assert_eq!((response.status(), response.body()), (200, ""), "{client}");
        };
        for (client, token) in [("acme-other", &**presented), ("acme-web", "garbage"), ("acme-web", "a.b.c")] {
            end(client, token).await;
            assert_eq!(ended(&world), None, "{client}");
        }
        end("acme-web", presented).await;
        assert_eq!(ended(&world), Some("revoked"));
        assert!(world.bucket.take_writes().iter().any(|key| key.starts_with("trust-inbox/token/")));
        end("acme-web", presented).await;
        assert!(world.bucket.take_writes().is_empty(), "a second time changes nothing");
        assert_eq!(error(&world.refresh(&refresh, &[]).await), (400, "invalid_grant".into()));
        let none = world.raw("/oauth2/revoke", &[("client_id", "acme-web")], &[]).await;
        assert_eq!(error(&none), (400, "invalid_request".into()));
        let unknown = world.raw("/oauth2/revoke", &[("client_id", "nobody"), ("token", presented)], &[]).await;
        assert_eq!(error(&unknown), (401, "invalid_client".into()));
    }
}

#[tokio::test]
async fn a_service_of_the_tenant_is_told_who_the_person_is() {
    let world = World::new().await;
    let (access, refresh) = world.begun().await;
    let told = json_of(&world.of_backend("/oauth2/introspect", "i1", &[("token", &access)]).await);
    assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!(format!("access|{ADA}"))));
    assert_eq!((&told["groups"], &told["sid"]), (&json!(["staff"]), &json!(world.read(&access).session)));
    assert_eq!((&told["token_type"], &told["kind"]), (&json!("DPoP"), &json!("human")));
    let inactive = |response| assert_eq!(json_of(&response), json!({"active": false}));
    inactive(world.of_backend("/oauth2/introspect", "i2", &[("token", &refresh)]).await);
    world.client(
        "acme-backend",
        json!({"tenant": "globex", "jwks": {"keys": [world.backend.jwk()]}, "algorithms": ["ES256"], "dpop": false}),
    );
    inactive(world.of_backend("/oauth2/introspect", "i3", &[("token", &access)]).await);
    let public = world.raw("/oauth2/introspect", &[("client_id", "acme-web"), ("token", &access)], &[]).await;
    assert_eq!(error(&public), (401, "invalid_client".into()), "who holds no key is told nothing");
}

impl World {
    async fn registry_snapshot(&self) -> Value {
        use shared::port::Database as _;
        let now = Parameter::Int(self.clock.now().millis());
        self.registry.call("api.trust_snapshot", vec![now]).await.unwrap()
    }
}
