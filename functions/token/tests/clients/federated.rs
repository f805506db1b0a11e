//! Workloads that are clients.

use serde_json::json;
use shared::jwks::{Algorithm, KeySet};
use shared::jwt;
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::platform::KINDS;
use testkit::{Issuer, Platform};

use crate::world::{CONSUME, FIND, NOW, World, error, invalid_client, json_of};

#[tokio::test]
async fn a_workload_gets_a_token_as_the_client_that_it_is() {
    let world = World::new();
    let keys = KeySet::parse(&json!({"keys": [world.issuer.jwk()]}), &[Algorithm::Es256]).unwrap();
    for (kind, _) in KINDS {
        world.registry.take_calls();
        let response = world.ask(&world.of(kind, "a", &json!({})), &[("client_id", kind)]).await;
        assert_eq!(response.status(), 200, "{kind}: {}", response.body());
        assert_eq!(world.registry.take_calls(), [FIND, CONSUME], "{kind}");
        let body = json_of(&response);
        let token = body["access_token"].as_str().unwrap();
        let token = jwt::access_token(token, ISSUER, AUDIENCE, &keys, NOW).unwrap();
        assert_eq!((token.subject.as_str(), token.client_id.as_str(), token.tenant.as_str()), (kind, kind, "acme"));
        assert_eq!(token.kind, jwt::Kind::Machine);
        assert!(body.get("refresh_token").is_none());
    }
    assert_eq!(world.registry.assertions(), 2, "STS and GitHub count once, the others while they live");
}

#[tokio::test]
async fn the_request_says_which_client_and_no_other_than_the_workloads_own_will_do() {
    let world = World::new();
    for (kind, _) in KINDS {
        let assertion = world.of(kind, "a", &json!({}));
        for named in [&[][..], &[("client_id", "")], &[("client_id", "acme-backend")], &[("client_id", "nobody")]] {
            assert_eq!(error(&world.ask(&assertion, named).await), invalid_client(), "{kind} {named:?}");
        }
        for (other, _) in KINDS.iter().filter(|(other, _)| *other != kind) {
            let response = world.ask(&assertion, &[("client_id", other)]).await;
            assert_eq!(error(&response), invalid_client(), "{kind} as {other}");
        }
        let injected = world.ask(&assertion, &[("client_id", "x' OR '1'='1")]).await;
        assert_eq!(error(&injected), invalid_client());
    }
    assert!(world.is_untouched());
}

#[tokio::test]
async fn the_right_platform_with_another_workload_is_refused() {
    let world = World::new();
    let bound = |namespace: &str, name: &str| {
        json!({"sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": "u"}}})
    };
    for (kind, changes) in [
        ("aws-sts", json!({"sub": "arn:aws:iam::111122223333:role/other"})),
        ("aws-sts", json!({"sub": "arn:aws:iam::999999999999:role/payments"})),
        ("github-actions", json!({"repository_id": "75"})),
        ("github-actions", json!({"repository_owner_id": "66"})),
        ("github-actions", json!({"ref": "refs/heads/feature"})),
        ("github-actions", json!({"ref": "refs/pull/1/merge"})),
        ("github-actions", json!({"ref": null})),
        ("kubernetes", bound("other", "api")),
        ("kubernetes", bound("payments", "other")),
        ("spiffe", json!({"sub": "spiffe://prod.example/ns/other"})),
        ("spiffe", json!({"sub": "spiffe://test.example/ns/payments/api"})),
        ("spiffe", json!({"aud": [ISSUER, "https://other.example"]})),
        ("github-actions", json!({"aud": format!("{ISSUER}/oauth2/token")})),
        ("github-actions", json!({"aud": AUDIENCE})),
        ("aws-sts", json!({"exp": NOW.seconds() + 900})),
        ("aws-sts", json!({"jti": null})),
        ("kubernetes", json!({"exp": NOW.seconds() + 86_400})),
        ("kubernetes", json!({"iss": "kubernetes/serviceaccount", "exp": null, "iat": null, "nbf": null})),
        ("kubernetes", json!({"iss": "https://oidc.eks.eu-west-1.amazonaws.com/id/FFFF"})),
        ("github-actions", json!({"iss": ISSUER})),
    ] {
        let response = world.ask(&world.of(kind, "a", &changes), &[("client_id", kind)]).await;
        assert_eq!(error(&response), invalid_client(), "{kind} {changes}");
        assert_eq!(json_of(&response)["error_description"], "client authentication failed");
    }
    let forged = Platform::new("p1");
    for (kind, _) in KINDS {
        let response = world.ask(&forged.assertion(kind, "a", NOW, &json!({})), &[("client_id", kind)]).await;
        assert_eq!(error(&response), invalid_client(), "{kind}: another key under the same name");
    }
    assert!(world.is_untouched());
}

#[tokio::test]
async fn a_workload_is_no_key_holder_and_a_key_holder_no_workload() {
    let world = World::new();
    let named = [("client_id", "kubernetes")];
    assert_eq!(error(&world.ask(&world.own("kubernetes", "a"), &named).await), invalid_client(), "it has no key");
    let as_client = world.of("kubernetes", "a", &json!({"iss": "acme-backend", "sub": "acme-backend"}));
    assert_eq!(error(&world.ask(&as_client, &[("client_id", "acme-backend")]).await), invalid_client());
    let svid = json!({"sub": "spiffe://prod.example/ns/payments/api", "exp": NOW.seconds() + 60, "aud": ISSUER});
    let own_key = world.client.jws(&json!({"alg": "ES256", "kid": "c1"}), &svid);
    assert_eq!(error(&world.ask(&own_key, &[("client_id", "spiffe")]).await), invalid_client());
    assert!(world.is_untouched());
    world.register("both", json!({"jwks": {"keys": [world.client.jwk()]}, "federation": [Platform::rule("spiffe")]}));
    assert_eq!(world.ask(&world.own("both", "a"), &[]).await.status(), 200);
    assert_eq!(world.ask(&world.of("spiffe", "a", &json!({})), &[("client_id", "both")]).await.status(), 200);
}

#[tokio::test]
async fn an_id_that_now_means_another_issuer_takes_no_client_along() {
    let world = World::new();
    let mut rule = Platform::rule("kubernetes");
    rule["iss"] = json!("https://oidc.eks.eu-west-1.amazonaws.com/id/FORMER");
    world.register("kubernetes", json!({ "federation": [rule] }));
    let response = world.ask(&world.of("kubernetes", "a", &json!({})), &[("client_id", "kubernetes")]).await;
    assert_eq!(error(&response), invalid_client());
    assert!(world.is_untouched());
}

#[tokio::test]
async fn of_fifty_at_once_one_counts_where_assertions_count_once_and_all_where_they_do_not() {
    for (kind, wins) in [("aws-sts", 1), ("github-actions", 1), ("kubernetes", 50), ("spiffe", 50)] {
        let world = World::new();
        let assertion = world.of(kind, "once", &json!({}));
        let named = [("client_id", kind)];
        let answers = futures::future::join_all((0..50).map(|_| world.ask(&assertion, &named))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status() == 200).count(), wins, "{kind}");
        let refused = answers.iter().filter(|answer| answer.status() != 200);
        assert!(refused.map(error).all(|error| error == invalid_client()));
        assert_eq!(world.registry.assertions(), usize::from(wins == 1), "{kind}");
    }
}

#[tokio::test]
async fn one_id_counts_once_for_each_issuer_and_client_and_no_more() {
    let world = World::new();
    for (assertion, named) in [
        (world.of("aws-sts", "same", &json!({})), "aws-sts"),
        (world.of("github-actions", "same", &json!({})), "github-actions"),
        (world.own("acme-backend", "same"), "acme-backend"),
    ] {
        let named = [("client_id", named)];
        assert_eq!(world.ask(&assertion, &named).await.status(), 200);
        assert_eq!(error(&world.ask(&assertion, &named).await), invalid_client());
    }
    assert_eq!(world.registry.assertions(), 3);
}

#[tokio::test]
async fn a_bound_workload_sends_the_same_assertion_again_after_the_nonce() {
    let world = World::new();
    world.register("github-actions", json!({"dpop": true, "federation": [Platform::rule("github-actions")]}));
    let (holder, assertion) = (Issuer::new("h1"), world.of("github-actions", "a", &json!({})));
    let named = [("client_id", "github-actions")];
    let path = "/oauth2/token";
    assert_eq!(error(&world.ask(&assertion, &named).await), (400, "invalid_dpop_proof".into()));
    let proof = holder.proof("POST", path, "p1", NOW, &json!({}));
    let first = world.send(path, &assertion, &named, Some(&proof)).await;
    assert_eq!(error(&first), (400, "use_dpop_nonce".into()));
    assert!(world.is_untouched());
    let proof = holder.proof("POST", path, "p2", NOW, &json!({"nonce": first.find("dpop-nonce").unwrap()}));
    let second = world.send(path, &assertion, &named, Some(&proof)).await;
    assert_eq!((second.status(), json_of(&second)["token_type"].as_str()), (200, Some("DPoP")));
    // While a projected token may be used again, a proof may not.
    world.register("kubernetes", json!({"dpop": true, "federation": [Platform::rule("kubernetes")]}));
    let assertion = world.of("kubernetes", "a", &json!({}));
    let nonce = second.find("dpop-nonce").unwrap();
    let proof = holder.proof("POST", path, "p3", NOW, &json!({ "nonce": nonce }));
    let send = || world.send(path, &assertion, &[("client_id", "kubernetes")], Some(&proof));
    assert_eq!(send().await.status(), 200);
    assert_eq!(error(&send().await), (400, "invalid_dpop_proof".into()));
}

#[tokio::test]
async fn a_workload_ends_its_tokens_and_asks_about_them() {
    let world = World::new();
    let named = ("client_id", "aws-sts");
    let response = world.ask(&world.of("aws-sts", "a", &json!({})), &[named]).await;
    let token = json_of(&response)["access_token"].as_str().unwrap().to_owned();
    let about = async |path: &str, jti: &str| {
        world.send(path, &world.of("aws-sts", jti, &json!({})), &[named, ("token", &token)], None).await
    };
    assert_eq!(json_of(&about("/oauth2/introspect", "b").await)["active"], true);
    assert_eq!(about("/oauth2/revoke", "c").await.status(), 200);
    assert_eq!(world.registry.revoked().len(), 1);
    assert_eq!(error(&about("/oauth2/revoke", "c").await), invalid_client());
}

#[tokio::test]
async fn a_platforms_new_key_is_believed_at_once_and_unknown_ones_are_asked_for_twice_a_minute() {
    let world = World::new();
    let named = [("client_id", "spiffe")];
    let ask = async |platform: &Platform, jti: &str| {
        world.ask(&platform.assertion("spiffe", jti, NOW, &json!({})), &named).await.status()
    };
    assert_eq!(ask(&world.platform, "a").await, 200);
    let next = Platform::new("p2");
    next.mirror(&world.bucket, "spiffe", NOW.plus_seconds(1));
    assert_eq!(ask(&next, "b").await, 200);
    assert_eq!(ask(&world.platform, "c").await, 401, "and the former one is gone");
    let (reads, stranger) = (world.bucket.reads(), Platform::new("p3"));
    for jti in ["d", "e", "f"] {
        assert_eq!(ask(&stranger, jti).await, 401);
    }
    assert_eq!(world.bucket.reads(), reads, "nobody makes us read by inventing key ids");
    assert_eq!(ask(&next, "g").await, 200);
}

#[tokio::test]
async fn without_profiles_or_keys_nobody_can_be_judged_and_key_holders_are_not_hindered() {
    let world = World::new();
    let named = [("client_id", "kubernetes")];
    let unavailable = (503, "temporarily_unavailable".to_owned());
    let assertion = world.of("kubernetes", "a", &json!({}));
    for key in ["trust/issuers/kubernetes.json", "trust/profiles.json"] {
        let world = World::new();
        world.bucket.remove(key);
        let response = world.ask(&world.of("kubernetes", "a", &json!({})), &named).await;
        assert_eq!((error(&response), response.find("retry-after")), (unavailable.clone(), Some("1")), "{key}");
        assert!(world.is_untouched());
        assert_eq!(world.ask(&world.own("acme-backend", "a"), &[]).await.status(), 200, "{key}");
    }
    assert_eq!(world.ask(&assertion, &named).await.status(), 200);
    // What is mirrored serves until its own end and not a moment longer, whatever else is fresh.
    let end = 48 * 3_600;
    for (after, status) in [(end - 1, 200), (end, 503)] {
        let now = NOW.plus_seconds(after);
        world.clock.set(now);
        world.issuer.publish(&world.bucket, now);
        world.bucket.remove("trust/issuers/kubernetes.json");
        let profiles = json!({"profiles": [Platform::profile("kubernetes")]});
        world.issuer.put(&world.bucket, "trust/profiles.json", now, profiles);
        let assertion = world.of("kubernetes", "late", &json!({}));
        assert_eq!(world.ask(&assertion, &named).await.status(), status, "{after}");
    }
}

#[tokio::test]
async fn a_removed_issuer_is_believed_no_more() {
    let world = World::new();
    let named = [("client_id", "kubernetes")];
    assert_eq!(world.ask(&world.of("kubernetes", "a", &json!({})), &named).await.status(), 200);
    let now = NOW.plus_seconds(60);
    world.clock.set(now);
    world.issuer.put(&world.bucket, "trust/profiles.json", now, json!({"profiles": []}));
    assert_eq!(error(&world.ask(&world.of("kubernetes", "b", &json!({})), &named).await), invalid_client());
}
