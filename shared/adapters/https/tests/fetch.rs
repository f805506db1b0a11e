//! What the adapter fetches and what it does not, from a real server on loopback.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail loudly")]

use std::time::Duration;

use aws::Trust;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use https::Https;
use local::ca::Ca;
use local::http::{Request, Server, bind, serve};
use shared::port::{FaultKind, Fetch as _};
use shared::url::HttpsUrl;

async fn answer(request: Request) -> Response<Full<Bytes>> {
    let respond = |status: StatusCode, headers: &[(&str, &str)], body: Bytes| {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    };
    let target = request.uri.to_string();
    match target.as_str() {
        "/keys?p=1" => {
            let seen = format!(
                "{} {}",
                request.headers["host"].to_str().unwrap(),
                request.headers["accept"].to_str().unwrap()
            );
            respond(StatusCode::OK, &[("content-type", "application/json")], seen.into())
        }
        "/moved" => respond(StatusCode::FOUND, &[("location", "/keys?p=1")], Bytes::new()),
        "/moved-away" => {
            respond(StatusCode::MOVED_PERMANENTLY, &[("location", "https://evil.example/keys")], Bytes::new())
        }
        "/exactly" => respond(StatusCode::OK, &[], vec![b'x'; 1_000].into()),
        "/large" => respond(StatusCode::OK, &[], vec![b'x'; 1_001].into()),
        "/empty" => respond(StatusCode::NO_CONTENT, &[], Bytes::new()),
        "/busy" => respond(StatusCode::TOO_MANY_REQUESTS, &[], Bytes::new()),
        "/broken" => respond(StatusCode::BAD_GATEWAY, &[], "canary-19".into()),
        "/private" => respond(StatusCode::FORBIDDEN, &[], Bytes::new()),
        "/silent" => std::future::pending().await,
        _ => respond(StatusCode::NOT_FOUND, &[], Bytes::new()),
    }
}

struct World {
    ca: Ca,
    server: Server,
}

impl World {
    async fn start(name: &str) -> Self {
        let ca = Ca::generate().unwrap();
        let tls = ca.server_config(&[name]).unwrap();
        let server = serve(bind().await.unwrap(), Some(tls), 10, answer).await.unwrap();
        Self { ca, server }
    }

    fn url(&self, target: &str) -> HttpsUrl {
        HttpsUrl::parse(&format!("https://localhost:{}{target}", self.server.addr.port())).unwrap()
    }

    fn client(&self) -> Https {
        Https::new(Trust::custom(self.ca.pem().as_bytes().to_vec()).unwrap())
    }
}

#[tokio::test]
async fn a_document_is_fetched_from_where_it_lies() {
    let world = World::start("localhost").await;
    let found = world.client().get(&world.url("/keys?p=1"), 1_000).await.unwrap();
    assert_eq!(found.content_type.as_deref(), Some("application/json"));
    let expected = format!("localhost:{} application/json", world.server.addr.port());
    assert_eq!(String::from_utf8(found.body).unwrap(), expected);
    assert_eq!(world.client().get(&world.url("/exactly"), 1_000).await.unwrap().body.len(), 1_000);
}

#[tokio::test]
async fn anything_but_a_whole_answer_is_a_fault_and_no_redirect_is_followed() {
    let world = World::start("localhost").await;
    for (target, kind) in [
        ("/moved", FaultKind::Invalid),
        ("/moved-away", FaultKind::Invalid),
        ("/large", FaultKind::Invalid),
        ("/empty", FaultKind::Invalid),
        ("/busy", FaultKind::Throttled),
        ("/broken", FaultKind::Unavailable),
        ("/private", FaultKind::Denied),
        ("/nowhere", FaultKind::NotFound),
    ] {
        let fault = world.client().get(&world.url(target), 1_000).await.unwrap_err();
        assert_eq!(fault.kind, kind, "{target}");
        assert!(!format!("{fault:?}").contains("canary"), "{target}");
    }
}

#[tokio::test]
async fn only_the_configured_authority_and_the_right_name_are_believed() {
    let world = World::start("localhost").await;
    let other = Ca::generate().unwrap();
    let stranger = Https::new(Trust::custom(other.pem().as_bytes().to_vec()).unwrap());
    let public = Https::new(Trust::amazon());
    for client in [stranger, public] {
        let fault = client.get(&world.url("/keys?p=1"), 1_000).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unavailable);
    }
    let renamed = World::start("other.example").await;
    assert!(renamed.client().get(&renamed.url("/keys?p=1"), 1_000).await.is_err());
}

#[tokio::test]
async fn a_host_that_is_silent_or_gone_costs_the_limit_and_no_more() {
    let world = World::start("localhost").await;
    let trust = Trust::custom(world.ca.pem().as_bytes().to_vec()).unwrap();
    let client = Https::with_timeout(trust, Duration::from_millis(100));
    assert_eq!(client.get(&world.url("/silent"), 1_000).await.unwrap_err().kind, FaultKind::Unavailable);
    let url = world.url("/keys?p=1");
    drop(world);
    tokio::task::yield_now().await;
    assert_eq!(client.get(&url, 1_000).await.unwrap_err().kind, FaultKind::Unavailable);
}
