//! An outside client: knows the addresses, the authority's certificate and its own key, and nothing of the inside.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::http::send;
use crate::seed::Client;

pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header fields.
    pub headers: http::HeaderMap,
    /// The body's bytes.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header field's value.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The status and, where the body has one, its stable code.
    pub fn outcome(&self) -> String {
        let body = self.json();
        let code = ["code", "error"].iter().find_map(|name| body.get(*name)?.as_str().map(str::to_owned));
        match code.or_else(|| self.s3_code()) {
            Some(code) => format!("{} {code}", self.status),
            None => self.status.to_string(),
        }
    }

    fn s3_code(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.body).ok()?;
        let (_, rest) = text.split_once("<Code>")?;
        rest.split_once("</Code>").map(|(code, _)| code.to_owned())
    }
}

/// Calls the API over https.
#[derive(Clone)]
pub struct Api {
    base: String,
    tls: Arc<rustls::ClientConfig>,
    clock: Clock,
}

impl Api {
    /// A client of the API at `base`.
    pub fn new(base: &str, tls: Arc<rustls::ClientConfig>, clock: Clock) -> Self {
        Self { base: base.to_owned(), tls, clock }
    }

    /// The API's base URL.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The clock that assertions and proofs are dated by.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sends one request.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> io::Result<Answer> {
        let mut headers = Vec::new();
        let authorization = token.map(|token| format!("Bearer {token}"));
        if let Some(value) = &authorization {
            headers.push(("authorization", value.as_str()));
        }
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        self.send(method, &format!("{}{path}", self.base), &headers, body.into()).await
    }

    /// Sends one request to any address, header by header.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: Bytes) -> io::Result<Answer> {
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        let (parts, body) = send(request, Some(Arc::clone(&self.tls))).await?.into_parts();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// A fresh client assertion (RFC 7523 §3).
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn assertion(&self, client: &Client) -> io::Result<String> {
        let now = seconds(&self.clock);
        client.sign(
            &json!({"alg": "ES256", "typ": "JWT", "kid": client.kid}),
            &json!({"iss": client.client_id, "sub": client.client_id, "aud": self.base, "jti": unique(),
                "iat": now, "exp": now + 60}),
        )
    }

    /// Asks for a token with this assertion.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn token_with(&self, assertion: &str, scope: Option<&str>) -> io::Result<Answer> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        form.append_pair("client_assertion_type", JWT_BEARER).append_pair("client_assertion", assertion);
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", &format!("{}/oauth2/token", self.base), &headers, form.finish().into()).await
    }

    /// Asks `/oauth2/revoke` or `/oauth2/introspect` about `token`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn about(&self, path: &str, client: &Client, token: &str) -> io::Result<Answer> {
        let assertion = self.assertion(client)?;
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token).append_pair("token_type_hint", "access_token");
        form.append_pair("client_assertion_type", JWT_BEARER).append_pair("client_assertion", &assertion);
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send("POST", &format!("{}{path}", self.base), &headers, form.finish().into()).await
    }

    /// Gets a token.
    ///
    /// # Errors
    /// When none is issued.
    pub async fn token(&self, client: &Client, scope: Option<&str>) -> io::Result<String> {
        let answer = self.token_with(&self.assertion(client)?, scope).await?;
        let token = answer.json().get("access_token").and_then(Value::as_str).map(str::to_owned);
        token.ok_or_else(|| io::Error::other(format!("no token for {}: {}", client.client_id, answer.outcome())))
    }
}

/// Seconds since the epoch.
pub fn seconds(clock: &Clock) -> u64 {
    clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[expect(clippy::disallowed_methods, reason = "a client's own assertion id")]
pub(super) fn unique() -> String {
    uuid::Uuid::new_v4().to_string()
}
