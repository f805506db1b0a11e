//! What clients and verifiers read about us: authorization server metadata (RFC 8414) and the key set (RFC 7517).

use serde_json::{Value, json};
use shared::clock::Clock;
use shared::details;
use shared::http::Response;
use shared::name::Malformed;
use shared::port::ObjectReader;
use shared::problem::{Code, Problem};
use shared::trust::{Cached, OwnKeys, TrustObject};

use crate::config::Settings;
use crate::grant::TOKEN_EXCHANGE;

/// The metadata document. Nothing is listed that does not exist.
pub(crate) fn answer(settings: &Settings) -> Response {
    let issuer = &settings.issuer;
    // RFC 9864 calls EdDSA with this curve `Ed25519`; clients choose by either name.
    let (methods, algorithms) = (["private_key_jwt"], ["ES256", "PS256", "EdDSA", "Ed25519"]);
    // People come with clients that hold no key.
    let with_none = ["private_key_jwt", "none"];
    Response::json(
        200,
        &json!({
            "issuer": issuer,
            "token_endpoint": format!("{issuer}/oauth2/token"),
            "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
            "grant_types_supported": ["client_credentials", TOKEN_EXCHANGE, "refresh_token"],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": with_none,
            "token_endpoint_auth_signing_alg_values_supported": algorithms,
            "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
            "revocation_endpoint_auth_methods_supported": with_none,
            "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
            "introspection_endpoint": format!("{issuer}/oauth2/introspect"),
            "introspection_endpoint_auth_methods_supported": methods,
            "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
            "dpop_signing_alg_values_supported": algorithms,
            "authorization_details_types_supported": details::TYPES,
            "scopes_supported": ["files:read", "files:write", "files:read:tenant", "app"],
        }),
    )
    .header("cache-control", "public, max-age=300")
}

/// `trust/keys.json` as outside verifiers read it: the standard members only.
struct Published(Value);

impl TrustObject for Published {
    const KEY: &'static str = OwnKeys::KEY;
    const FRESH: i64 = OwnKeys::FRESH;
    const LAST_GOOD: i64 = OwnKeys::LAST_GOOD;

    fn parse(body: &Value) -> Result<Self, Malformed> {
        OwnKeys::parse(body)?;
        let keys = body.get("keys").and_then(Value::as_array).ok_or(Malformed("key set"))?;
        let standard = |key: &Value| {
            let members = ["kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"];
            members.iter().filter_map(|name| Some(((*name).to_owned(), key.get(name)?.clone()))).collect::<Value>()
        };
        Ok(Self(json!({"keys": keys.iter().map(standard).collect::<Vec<_>>()})))
    }
}

/// Serves the key set.
pub(crate) struct KeyDocument<R, C> {
    reader: R,
    clock: C,
    published: Cached<Published>,
}

impl<R: ObjectReader, C: Clock> KeyDocument<R, C> {
    /// Reads nothing yet.
    pub(crate) fn new(reader: R, clock: C) -> Self {
        Self { reader, clock, published: Cached::default() }
    }

    /// The key set, which anybody may keep for five minutes.
    pub(crate) async fn answer(&self) -> Result<Response, Problem> {
        let keys = self.published.current(&self.reader, &self.clock).await.map_err(|_| Code::TrustStale)?;
        Ok(Response::json(200, &keys.0).header("cache-control", "public, max-age=300"))
    }
}
