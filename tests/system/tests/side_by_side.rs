//! Two environments of the gate at the same time, as Lambda starts them: what one of them has seen, the other has not. Revocation must not
//! depend on that, and SECURITY.md says what does.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use local::journey::claims;
use local::seed::act;
use local::stack::ENV;
use serde_json::json;
use shared::digest::sha256;
use support::Running;

const FILE: &str = "/files/01900000-0000-7000-8000-000000000000";
/// The gate lets it pass, and nobody has such a file.
const PASSES: u16 = 404;
/// So many requests are on their way at once that no environment is without one.
const AT_ONCE: usize = 8;
/// After so many seconds the revocations are read again.
const FRESH: Duration = Duration::from_secs(5);

/// How often the gate let the same request pass, of so many at once.
async fn passed(running: &Running, token: &str, proof: Option<&str>) -> usize {
    let once = async || match proof {
        Some(proof) => running.api.proven(FILE, token, proof).await.unwrap().status,
        None => running.api.call("GET", FILE, Some(token), None).await.unwrap().status,
    };
    let statuses = join_all((0..AT_ONCE).map(|_| once())).await;
    assert!(statuses.iter().all(|status| [PASSES, 401].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == PASSES).count()
}

async fn bound(running: &Running) -> String {
    let (api, client) = (&running.api, running.client("acme-bound"));
    let ask = async |nonce| {
        let proof = api.proof(client, "POST", "/oauth2/token", &nonce).unwrap();
        api.bound_token(&api.assertion(client).unwrap(), &proof).await.unwrap()
    };
    let asked = ask(json!({})).await;
    let answer = ask(json!({"nonce": asked.header("dpop-nonce")})).await;
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_holds_in_every_environment_and_a_proof_counts_once_in_each() {
    let running = Running::start_ahead(&[]).await;
    let environments = || usize::try_from(running.stack.lambda.cold_starts(&format!("portcullis-{ENV}-authorizer")));
    let token = running.token("acme-backend").await;
    assert_eq!(passed(&running, &token, None).await, AT_ONCE);
    assert!(environments().unwrap() > 1, "the requests ran side by side");
    assert_eq!(passed(&running, &token, None).await, AT_ONCE, "and every environment has seen the token by now");

    let stolen = bound(&running).await;
    let ath = json!({"ath": URL_SAFE_NO_PAD.encode(sha256(stolen.as_bytes()))});
    let proof = running.api.proof(running.client("acme-bound"), "GET", FILE, &ath).unwrap();
    let mut counted = 0;
    for _ in 0..3 {
        counted += passed(&running, &stolen, Some(&proof)).await;
    }
    let most = environments().unwrap();
    assert!((1..=most).contains(&counted), "{counted} times in {most} environments");
    let foreign = running.api.proof(running.client("acme-reader"), "GET", FILE, &ath).unwrap();
    assert_eq!(passed(&running, &stolen, Some(&foreign)).await, 0, "from another device it counts nowhere");

    for (kind, value) in [("jti", &claims(&token)["jti"]), ("client_id", &json!("acme-bound"))] {
        let revoke = json!({"operation": "revoke", "operator": "test", "kind": kind, "value": value});
        act(&running.stack, revoke).await.unwrap();
    }
    running.stack.events.idle().await;
    running.stack.invoke("trust", &json!({})).await.unwrap();
    running.stack.account.clock.advance(FRESH);
    assert_eq!(passed(&running, &token, None).await, 0, "what was remembered passes in none of them");
    let fresh = running.api.proof(running.client("acme-bound"), "GET", FILE, &ath).unwrap();
    assert_eq!(passed(&running, &stolen, Some(&fresh)).await, 0, "nor with a proof that nobody has seen");
    let other = running.token("acme-reader").await;
    assert_eq!(passed(&running, &other, None).await, AT_ONCE, "others go on");
    running.stack.stop().await;
}
