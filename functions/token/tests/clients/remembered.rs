//! What a token costs: one statement for a client that was asked for lately, and what is remembered never decides.

use serde_json::json;
use testkit::{Issuer, Platform};

use crate::world::{CONSUME, FIND, NOW, World, error, invalid_client, json_of};

const NONCES: &str = "api.nonce_keys";
const WITH_PROOF: &str = "api.consume_with_proof";

#[tokio::test]
async fn a_token_costs_two_statements_and_the_next_ones_of_the_minute_one() {
    let world = World::new();
    for (after, calls) in [(0, vec![FIND, CONSUME]), (1, vec![CONSUME]), (59, vec![CONSUME]), (60, vec![FIND, CONSUME])]
    {
        world.clock.set(NOW.plus_seconds(after));
        assert_eq!(world.ask(&world.own("acme-backend", &after.to_string()), &[]).await.status(), 200);
        assert_eq!(world.registry.take_calls(), calls, "after {after} s");
    }
    for jti in ["x", "y"] {
        let calls = if jti == "x" { vec![FIND, CONSUME] } else { vec![CONSUME] };
        let assertion = world.of("spiffe", jti, &json!({}));
        assert_eq!(world.ask(&assertion, &[("client_id", "spiffe")]).await.status(), 200);
        assert_eq!(world.registry.take_calls(), calls, "{jti}");
    }
}

#[tokio::test]
async fn a_bound_token_costs_one_statement_too_and_its_nonce_none() {
    let world = World::new();
    world.register("acme-backend", json!({"dpop": true, "jwks": {"keys": [world.client.jwk()]}}));
    let holder = Issuer::new("h1");
    let mut calls = Vec::new();
    for number in 0..3 {
        let assertion = world.own("acme-backend", &number.to_string());
        let mut nonce = None;
        for step in ["a", "b"] {
            let proof =
                holder.proof("POST", "/oauth2/token", &format!("{number}{step}"), NOW, &json!({"nonce": nonce}));
            let response = world.send("/oauth2/token", &assertion, &[], Some(&proof)).await;
            nonce = response.find("dpop-nonce").map(str::to_owned);
            assert_eq!(response.status(), if step == "a" { 400 } else { 200 });
            calls.push(world.registry.take_calls());
        }
    }
    assert_eq!(calls[..2], [vec![FIND, NONCES], vec![WITH_PROOF]]);
    assert_eq!(calls[2..], [vec![], vec![WITH_PROOF], vec![], vec![WITH_PROOF]], "warm");
}

#[tokio::test]
async fn a_disabled_client_is_refused_at_once_whatever_is_remembered() {
    for tenant in [false, true] {
        let world = World::new();
        assert_eq!(world.ask(&world.own("acme-backend", "a"), &[]).await.status(), 200);
        if tenant {
            use shared::port::{Database as _, Parameter};
            let text = |text: &str| Parameter::Text(text.to_owned());
            let put = vec![text("op"), text("r"), Parameter::Int(NOW.millis()), text("acme"), text("acme")];
            let put = [put, vec![Parameter::Bool(false)]].concat();
            world.registry.call("api.tenant_put", put).await.unwrap();
        } else {
            world.register("acme-backend", json!({"enabled": false, "jwks": {"keys": [world.client.jwk()]}}));
        }
        world.registry.take_calls();
        assert_eq!(error(&world.ask(&world.own("acme-backend", "b"), &[]).await), invalid_client());
        assert_eq!(world.registry.take_calls(), [CONSUME, FIND]);
        assert_eq!(error(&world.ask(&world.own("acme-backend", "c"), &[]).await), invalid_client());
        assert_eq!(world.registry.take_calls(), [FIND], "and is not remembered");
        assert_eq!(world.registry.assertions(), 1);
    }
}

#[tokio::test]
async fn a_changed_client_is_judged_as_it_is_now() {
    let world = World::new();
    let keys = json!({"keys": [world.client.jwk()]});
    assert_eq!(world.ask(&world.own("acme-backend", "a"), &[]).await.status(), 200);
    world.registry.take_calls();
    // Narrower: the token that was signed for the remembered row is never handed out.
    world.register("acme-backend", json!({"jwks": keys, "scopes": ["files:read"], "ttl_seconds": 60}));
    let narrowed = world.ask(&world.own("acme-backend", "b"), &[]).await;
    assert_eq!((&json_of(&narrowed)["scope"], &json_of(&narrowed)["expires_in"]), (&json!("files:read"), &json!(60)));
    assert_eq!(world.registry.take_calls(), [CONSUME, FIND, CONSUME]);
    // Wider: what the remembered row refuses the new one allows.
    world.register("acme-backend", json!({"jwks": keys, "scopes": ["files:read", "app"]}));
    let widened = world.ask(&world.own("acme-backend", "c"), &[("scope", "app")]).await;
    assert_eq!(json_of(&widened)["scope"], "app");
    assert_eq!(world.registry.take_calls(), [FIND, CONSUME]);
    // Another key, and another workload.
    let next = Issuer::new("c2");
    world.register("acme-backend", json!({"jwks": {"keys": [next.jwk()]}, "federation": [Platform::rule("spiffe")]}));
    let by_next = next.assertion("acme-backend", "d", NOW, &json!({}));
    assert_eq!(world.ask(&by_next, &[]).await.status(), 200);
    assert_eq!(world.registry.take_calls(), [FIND, CONSUME]);
    let svid = world.of("spiffe", "e", &json!({}));
    assert_eq!(world.ask(&svid, &[("client_id", "acme-backend")]).await.status(), 200);
    assert_eq!(world.registry.take_calls(), [CONSUME]);
    assert_eq!(error(&world.ask(&world.own("acme-backend", "f"), &[]).await), invalid_client(), "the former key");
    // Binding demanded from now on.
    world.register("acme-backend", json!({"jwks": {"keys": [next.jwk()]}, "dpop": true}));
    let unbound = next.assertion("acme-backend", "g", NOW, &json!({}));
    assert_eq!(error(&world.ask(&unbound, &[]).await), (400, "invalid_dpop_proof".into()));
}

#[tokio::test]
async fn a_refusal_costs_no_more_statements_than_it_did_without_memory() {
    let world = World::new();
    let used = world.own("acme-backend", "a");
    assert_eq!(world.ask(&used, &[]).await.status(), 200);
    world.registry.take_calls();
    let stranger = Issuer::new("c1").assertion("acme-backend", "x", NOW, &json!({}));
    for (what, assertion, more, calls) in [
        ("a replay", used.clone(), vec![], vec![CONSUME]),
        ("a forgery", stranger, vec![], vec![FIND]),
        ("too wide a scope", world.own("acme-backend", "b"), vec![("scope", "app")], vec![FIND]),
        ("an unknown client", world.own("nobody", "b"), vec![], vec![FIND]),
        ("garbage", "a.b.c".to_owned(), vec![], vec![]),
        (
            "a platform that nobody knows",
            world.of("spiffe", "b", &json!({"sub": "spiffe://x/y"})),
            vec![("client_id", "spiffe")],
            vec![],
        ),
        (
            "a forged SVID",
            Platform::new("p1").assertion("spiffe", "b", NOW, &json!({})),
            vec![("client_id", "spiffe")],
            vec![],
        ),
    ] {
        assert_ne!(world.ask(&assertion, &more).await.status(), 200, "{what}");
        assert_eq!(world.registry.take_calls(), calls, "{what}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_not_mistaken_for_a_refusal() {
    let world = World::new();
    assert_eq!(world.ask(&world.own("acme-backend", "a"), &[]).await.status(), 200);
    let assertion = world.own("acme-backend", "b");
    world.registry.set_down(true);
    assert_eq!(error(&world.ask(&assertion, &[]).await), (503, "temporarily_unavailable".into()));
    world.registry.set_down(false);
    assert_eq!(world.ask(&assertion, &[]).await.status(), 200, "nothing was used up");
}
