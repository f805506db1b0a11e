//! The endpoint, a team of people and a page that they use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Invocation, Routes as _};
use shared::clock::{Clock as _, Timestamp};
use shared::entropy::SystemEntropy;
use shared::http::{Request, Response};
use shared::jwks::{Algorithm, KeySet};
use shared::jwt::{self, AccessToken};
use shared::policy::Policing;
use shared::port::{Database as _, Parameter};
use testkit::access::{ADA, ID};
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, Registry, Team, TrustBucket};
use token::{Token, config::Settings};

pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
pub(crate) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub(crate) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(crate) const HEADER: &str = "urn:portcullis:token-type:access-header";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(crate) struct World {
    pub(crate) issuer: Issuer,
    pub(crate) backend: Issuer,
    /// The key of the page.
    pub(crate) page: Issuer,
    pub(crate) team: Team,
    pub(crate) registry: Registry,
    pub(crate) bucket: TrustBucket,
    pub(crate) clock: FixedClock,
    endpoint: Token<Registry, Issuer, TrustBucket, FixedClock, SystemEntropy>,
    proofs: AtomicUsize,
}

/// What a request carries besides the form.
#[derive(Clone, Default)]
pub(crate) struct With<'a> {
    pub(crate) assertion: Option<&'a str>,
    pub(crate) key: Option<&'a Issuer>,
    pub(crate) headers: Vec<(&'a str, Value)>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (issuer, backend, page) = (Issuer::new("k1"), Issuer::new("c1"), Issuer::new("h1"));
        let (team, registry, bucket) = (Team::new(), Registry::with_tenant("acme"), TrustBucket::default());
        registry.add_tenant("globex");
        issuer.publish(&bucket, NOW);
        team.publish(&bucket, NOW);
        let settings = Settings { issuer: ISSUER.into(), audience: AUDIENCE.into(), algorithm: Algorithm::Es256 };
        let clock = FixedClock::at(NOW);
        let policies = Arc::new(Policing::<Cedar, _, _>::new(bucket.clone(), clock.clone()));
        let endpoint = Token::new(
            settings,
            registry.clone(),
            issuer.clone(),
            bucket.clone(),
            policies,
            clock.clone(),
            SystemEntropy,
        );
        let proofs = AtomicUsize::default();
        let world = Self { issuer, backend, page, team, registry, bucket, clock, endpoint, proofs };
        world.client("acme-web", json!({}));
        world.client(
            "acme-backend",
            json!({"jwks": {"keys": [world.backend.jwk()]}, "algorithms": ["ES256"], "dpop": false}),
        );
        world
            .act(
                "api.issuer_put",
                vec![
                    text(ID),
                    text("cloudflare-access"),
                    text("https://team.cloudflareaccess.com"),
                    Parameter::OptionalText(Some("a".to_owned())),
                    texts(&["RS256"]),
                    text("https://team.cloudflareaccess.com/certs"),
                ],
            )
            .await;
        world.identity("acme", "subject", ADA, &["staff"], &["files:read", "files:write"]).await;
        world
    }

    /// A public client, some of its row changed.
    pub(crate) fn client(&self, client_id: &str, changes: Value) {
        let mut row = json!({"client_id": client_id, "tenant": "acme", "name": "", "jwks": {"keys": []}, "algorithms": ["none"],
            "scopes": ["files:read", "files:write", "fields:decrypt:users.*"], "dpop": true, "ttl_seconds": 600, "enabled": true, "version": 1});
        for (name, value) in changes.as_object().unwrap() {
            row[name] = value.clone();
        }
        self.registry.add_client(row);
    }

    pub(crate) async fn act(&self, function: &'static str, parameters: Vec<Parameter>) -> Value {
        let all = [vec![text("op"), text("req"), Parameter::Int(self.clock.now().millis())], parameters].concat();
        self.registry.call(function, all).await.unwrap()
    }

    pub(crate) async fn identity(&self, tenant: &str, by: &str, value: &str, groups: &[&str], scopes: &[&str]) {
        self.identity_that(tenant, by, value, (groups, scopes), true).await;
    }

    pub(crate) async fn identity_that(
        &self,
        tenant: &str,
        by: &str,
        value: &str,
        (groups, scopes): (&[&str], &[&str]),
        enabled: bool,
    ) {
        let parameters =
            vec![text(tenant), text(ID), text(by), text(value), texts(groups), texts(scopes), Parameter::Bool(enabled)];
        let answer = self.act("api.identity_put", parameters).await;
        assert!(answer.get("identity").is_some(), "{answer}");
    }

    pub(crate) async fn without_identity(&self, by: &str, value: &str) {
        let answer = self.act("api.identity_remove", vec![text("acme"), text(ID), text(by), text(value)]).await;
        assert_eq!(answer["outcome"], "removed");
    }

    pub(crate) fn assertion(&self, subject: &str, changes: Value) -> String {
        self.team.person(subject, "Ada@Example.com", self.clock.now(), &changes)
    }

    /// A proof nobody has seen.
    pub(crate) fn proof(&self, key: &Issuer, nonce: Option<&str>) -> String {
        let jti = format!("p{}", self.proofs.fetch_add(1, Ordering::SeqCst));
        key.proof("POST", "/oauth2/token", &jti, self.clock.now(), &json!({"nonce": nonce}))
    }

    pub(crate) async fn raw(&self, path: &str, fields: &[(&str, &str)], headers: &[(&str, Value)]) -> Response {
        let body = fields.iter().map(|(n, v)| format!("{n}={}", encode(v))).collect::<Vec<_>>().join("&");
        let mut multi = json!({"Content-Type": ["application/x-www-form-urlencoded"]});
        for (name, value) in headers {
            multi[*name] = value.clone();
        }
        let event = json!({"resource": path, "path": path, "httpMethod": "POST", "multiValueHeaders": multi, "body": body,
            "isBase64Encoded": false, "requestContext": {"requestId": "g-1", "httpMethod": "POST"}});
        let request = Request::parse(&event.to_string()).unwrap();
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        self.endpoint.answer(&request, &invocation).await.unwrap()
    }

    /// One request to the token endpoint with a proof and its nonce, as a page makes it.
    pub(crate) async fn send(&self, fields: &[(&str, &str)], with: With<'_>) -> Response {
        let key = with.key.unwrap_or(&self.page);
        let headers = |proof: String| {
            let mut headers = with.headers.clone();
            headers.push(("DPoP", json!([proof])));
            headers.extend(with.assertion.map(|assertion| ("Cf-Access-Jwt-Assertion", json!([assertion]))));
            headers
        };
        let first = self.raw("/oauth2/token", fields, &headers(self.proof(key, None))).await;
        let Some(nonce) = first.find("dpop-nonce").filter(|_| error(&first).1 == "use_dpop_nonce") else {
            return first;
        };
        self.raw("/oauth2/token", fields, &headers(self.proof(key, Some(nonce)))).await
    }

    pub(crate) async fn exchange(&self, assertion: &str, more: &[(&str, &str)]) -> Response {
        let fields = [&exchanging(assertion)[..], more].concat();
        self.send(&fields, With::default()).await
    }

    /// A session of Ada: its access token and refresh token.
    pub(crate) async fn begun(&self) -> (String, String) {
        let response = self.exchange(&self.assertion(ADA, json!({})), &[]).await;
        tokens(&response)
    }

    pub(crate) async fn refresh(&self, token: &str, more: &[(&str, &str)]) -> Response {
        let assertion = self.assertion(ADA, json!({}));
        self.refresh_with(token, more, With { assertion: Some(&assertion), ..With::default() }).await
    }

    pub(crate) async fn refresh_with(&self, token: &str, more: &[(&str, &str)], with: With<'_>) -> Response {
        let fields =
            [&[("grant_type", "refresh_token"), ("client_id", "acme-web"), ("refresh_token", token)][..], more]
                .concat();
        self.send(&fields, with).await
    }

    pub(crate) fn read(&self, token: &str) -> AccessToken {
        let keys = KeySet::parse(&json!({"keys": [self.issuer.jwk()]}), &[Algorithm::Es256]).unwrap();
        jwt::access_token(token, ISSUER, AUDIENCE, &keys, self.clock.now()).unwrap()
    }

    /// A request of the confidential client.
    pub(crate) async fn of_backend(&self, path: &str, jti: &str, fields: &[(&str, &str)]) -> Response {
        let assertion = self.backend.assertion("acme-backend", jti, self.clock.now(), &json!({}));
        let own = [("client_assertion_type", JWT_BEARER), ("client_assertion", assertion.as_str())];
        self.raw(path, &[fields, &own].concat(), &[]).await
    }
}

pub(crate) fn exchanging(assertion: &str) -> [(&str, &str); 4] {
    [("grant_type", EXCHANGE), ("client_id", "acme-web"), ("subject_token_type", JWT), ("subject_token", assertion)]
}

pub(crate) fn text(text: &str) -> Parameter {
    Parameter::Text(text.to_owned())
}

pub(crate) fn texts(texts: &[&str]) -> Parameter {
    Parameter::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

pub(crate) fn json_of(response: &Response) -> Value {
    serde_json::from_str(response.body()).unwrap_or_default()
}

pub(crate) fn error(response: &Response) -> (u16, String) {
    (response.status(), json_of(response)["error"].as_str().unwrap_or_default().to_owned())
}

/// The access token and the refresh token of an answer.
pub(crate) fn tokens(response: &Response) -> (String, String) {
    assert_eq!(response.status(), 200, "{}", response.body());
    let body = json_of(response);
    (body["access_token"].as_str().unwrap().to_owned(), body["refresh_token"].as_str().unwrap().to_owned())
}

fn encode(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}
