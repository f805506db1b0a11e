//! A token endpoint with clients of both kinds.

use std::sync::Arc;

use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Invocation, Routes as _};
use shared::clock::{Clock as _, Timestamp};
use shared::entropy::SystemEntropy;
use shared::http::{Request, Response};
use shared::jwks::Algorithm;
use shared::policy::Policing;
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, Platform, Registry, TrustBucket};
use token::{Token, config::Settings};

pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
pub(crate) const FIND: &str = "api.client_for_token";
pub(crate) const CONSUME: &str = "api.consume_assertion";

pub(crate) struct World {
    pub(crate) issuer: Issuer,
    pub(crate) client: Issuer,
    pub(crate) platform: Platform,
    pub(crate) registry: Registry,
    pub(crate) bucket: TrustBucket,
    pub(crate) clock: FixedClock,
    endpoint: Token<Registry, Issuer, TrustBucket, FixedClock, SystemEntropy>,
}

impl World {
    /// `acme-backend` has a key, and each kind of platform has a client of its name without one.
    pub(crate) fn new() -> Self {
        let (issuer, client, platform) = (Issuer::new("k1"), Issuer::new("c1"), Platform::new("p1"));
        let (registry, bucket, clock) = (Registry::with_tenant("acme"), TrustBucket::default(), FixedClock::at(NOW));
        issuer.publish(&bucket, NOW);
        platform.publish(&bucket, NOW);
        let settings = Settings { issuer: ISSUER.into(), audience: AUDIENCE.into(), algorithm: Algorithm::Es256 };
        let (signer, reader) = (issuer.clone(), bucket.clone());
        let policies = Arc::new(Policing::<Cedar, _, _>::new(bucket.clone(), clock.clone()));
        let endpoint = Token::new(settings, registry.clone(), signer, reader, policies, clock.clone(), SystemEntropy);
        let world = Self { issuer, client, platform, registry, bucket, clock, endpoint };
        world.register("acme-backend", json!({"jwks": {"keys": [world.client.jwk()]}}));
        for (kind, _) in testkit::platform::KINDS {
            world.register(kind, json!({"federation": [Platform::rule(kind)]}));
        }
        world
    }

    /// Adds a client without key or workload, some of its row changed.
    pub(crate) fn register(&self, client_id: &str, changes: Value) {
        let mut row = json!({"client_id": client_id, "tenant": "acme", "name": "", "jwks": {"keys": []}, "federation": [],
            "algorithms": ["ES256"], "scopes": ["files:read", "files:write"], "dpop": false, "ttl_seconds": 300,
            "enabled": true, "version": 1});
        for (name, value) in changes.as_object().unwrap() {
            row[name] = value.clone();
        }
        self.registry.add_client(row);
    }

    /// What the client signs for itself.
    pub(crate) fn own(&self, client_id: &str, jti: &str) -> String {
        self.client.assertion(client_id, jti, self.clock.now(), &json!({}))
    }

    /// What the platform signs for its workload.
    pub(crate) fn of(&self, kind: &str, jti: &str, changes: &Value) -> String {
        self.platform.assertion(kind, jti, self.clock.now(), changes)
    }

    pub(crate) async fn ask(&self, assertion: &str, more: &[(&str, &str)]) -> Response {
        self.send("/oauth2/token", assertion, more, None).await
    }

    pub(crate) async fn send(
        &self,
        path: &str,
        assertion: &str,
        more: &[(&str, &str)],
        proof: Option<&str>,
    ) -> Response {
        let fixed = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        let pair = |(name, value): &(&str, &str)| format!("{name}={}", encode(value));
        let body = fixed.iter().chain(more).map(pair).collect::<Vec<_>>().join("&");
        let mut headers = json!({"Content-Type": ["application/x-www-form-urlencoded"]});
        if let Some(proof) = proof {
            headers["DPoP"] = json!([proof]);
        }
        let event = json!({"resource": path, "path": path, "httpMethod": "POST", "multiValueHeaders": headers, "body": body,
            "isBase64Encoded": false, "requestContext": {"requestId": "g-1", "httpMethod": "POST"}});
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        let request = Request::parse(&event.to_string()).unwrap();
        self.endpoint.answer(&request, &invocation).await.unwrap_or_else(|problem| Response::problem(problem, "g-1"))
    }

    /// Nothing was signed and nothing used up.
    pub(crate) fn is_untouched(&self) -> bool {
        (self.registry.assertions(), self.issuer.signatures()) == (0, 0)
    }
}

fn encode(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

pub(crate) fn json_of(response: &Response) -> Value {
    serde_json::from_str(response.body()).unwrap()
}

pub(crate) fn error(response: &Response) -> (u16, String) {
    (response.status(), json_of(response)["error"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn invalid_client() -> (u16, String) {
    (401, "invalid_client".to_owned())
}
