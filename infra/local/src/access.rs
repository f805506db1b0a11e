//! A stand-in for Cloudflare Access: publishes its keys as a team domain does and signs assertions with the claims that Access signs
//! (Cloudflare One documentation, "Validate JWTs" and "Application token").

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::http::{Request, Response, Server, serve};

/// Where a team domain publishes its keys.
pub const CERTS: &str = "/cdn-cgi/access/certs";

/// The tag of the one application: 64 hexadecimal digits.
pub const AUDIENCE: &str = "4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2";

/// How long an assertion lives: the application's session duration, in seconds.
pub const SESSION: u64 = 24 * 3_600;

/// One RS256 key of the team.
pub struct Key {
    kid: String,
    pair: RsaKeyPair,
    pkcs8: Vec<u8>,
    jwk: Value,
    certificate: String,
}

impl Key {
    /// A fresh key. RSA takes from 50 ms to seconds: not for a thread that others wait on.
    ///
    /// # Errors
    /// When the random source or an encoder fails.
    pub fn generate() -> io::Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(io::Error::other)?;
        let pkcs8 = pkcs8.as_ref().to_vec();
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let kid: String = digest(&SHA256, &public.n).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let jwk = json!({"kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig",
            "e": URL_SAFE_NO_PAD.encode(&public.e), "n": URL_SAFE_NO_PAD.encode(&public.n)});
        let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
        let signer = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_RSA_SHA256);
        let signer = signer.map_err(io::Error::other)?;
        let certificate = rcgen::CertificateParams::default().self_signed(&signer).map_err(io::Error::other)?.pem();
        Ok(Self { kid, pair, pkcs8, jwk, certificate })
    }
}

/// An answer of the key endpoint that a test puts in the place of the true one.
#[derive(Clone, Debug)]
pub struct Canned {
    /// The status.
    pub status: http::StatusCode,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Canned {
    /// 200 with this JSON.
    pub fn json(body: &Value) -> Self {
        Self { status: http::StatusCode::OK, content_type: "application/json", body: body.to_string().into() }
    }
}

/// A team domain with one application.
pub struct Access {
    clock: Clock,
    team_domain: String,
    /// The signing key first, then the one before it, which is still published.
    keys: Mutex<[Arc<Key>; 2]>,
    canned: Mutex<Option<Canned>>,
    asked: AtomicUsize,
}

impl Access {
    /// A team domain under this URL. The first key signs.
    pub fn new(clock: Clock, team_domain: String, keys: [Key; 2]) -> Arc<Self> {
        let keys = Mutex::new(keys.map(Arc::new));
        Arc::new(Self { clock, team_domain, keys, canned: Mutex::default(), asked: AtomicUsize::default() })
    }

    /// Publishes the keys on `listener`.
    ///
    /// # Errors
    /// When the listener is not on loopback.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener, tls: Arc<rustls::ServerConfig>) -> io::Result<Server> {
        let access = Arc::clone(self);
        serve(listener, Some(tls), 16 * 1024, move |request| {
            let access = Arc::clone(&access);
            async move { access.answer(&request) }
        })
        .await
    }

    /// `iss` of its assertions.
    pub fn team_domain(&self) -> &str {
        &self.team_domain
    }

    /// Where its keys are.
    pub fn certs_url(&self) -> String {
        format!("{}{CERTS}", self.team_domain)
    }

    /// The id of the key that signs now.
    pub fn kid(&self) -> String {
        self.key().kid.clone()
    }

    /// The key that signs now, PKCS #8 DER.
    pub fn signing_key(&self) -> Vec<u8> {
        self.key().pkcs8.clone()
    }

    /// What is published, as a team domain publishes it.
    pub fn published(&self) -> Value {
        let keys = self.lock(&self.keys).clone();
        let certificate = |key: &Arc<Key>| json!({"kid": key.kid, "cert": key.certificate});
        let (current, all): (Value, Vec<Value>) =
            (keys.first().map(certificate).unwrap_or_default(), keys.iter().map(certificate).collect());
        json!({"keys": keys.iter().map(|key| key.jwk.clone()).collect::<Vec<_>>(),
            "public_cert": current, "public_certs": all})
    }

    /// Makes `key` the one that signs; the one before it stays published, the one before that goes.
    pub fn rotate(&self, key: Key) {
        let mut keys = self.lock(&self.keys);
        let [current, _] = keys.clone();
        *keys = [Arc::new(key), current];
    }

    /// Answers this instead of the keys, or the keys again.
    pub fn answer_with(&self, canned: Option<Canned>) {
        *self.lock(&self.canned) = canned;
    }

    /// How often the keys were asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The assertion of a person who passed the application's policy.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn user_assertion(&self, subject: &str, email: &str) -> io::Result<String> {
        let now = self.clock.seconds();
        self.sign(&json!({"aud": [AUDIENCE], "email": email, "exp": now + SESSION, "iat": now, "nbf": now,
            "iss": self.team_domain, "type": "app", "identity_nonce": "6ei69kawdKzMIAPF", "sub": subject, "country": "US"}))
    }

    /// The assertion of a service token: no e-mail, no `nbf`, an empty `sub`, its client id as `common_name`.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn service_assertion(&self, common_name: &str) -> io::Result<String> {
        let now = self.clock.seconds();
        self.sign(&json!({"type": "app", "aud": [AUDIENCE], "exp": now + SESSION, "iss": self.team_domain,
            "common_name": common_name, "iat": now, "sub": ""}))
    }

    /// A compact JWS of these claims under the key that signs now, with the header that Access writes.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, claims: &Value) -> io::Result<String> {
        let key = self.key();
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&json!({"alg": "RS256", "kid": key.kid, "typ": "JWT"})), part(claims));
        let mut signature = vec![0; key.pair.public_modulus_len()];
        key.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature)
            .map_err(io::Error::other)?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    fn answer(&self, request: &Request) -> Response {
        if request.method != http::Method::GET || request.uri.path() != CERTS {
            return respond(http::StatusCode::NOT_FOUND, "text/html", Bytes::new());
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let canned = self.lock(&self.canned).clone().unwrap_or_else(|| Canned::json(&self.published()));
        respond(canned.status, canned.content_type, canned.body)
    }

    fn key(&self) -> Arc<Key> {
        let [current, _] = self.lock(&self.keys).clone();
        current
    }

    fn lock<'a, T>(&self, held: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn respond(status: http::StatusCode, content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    use super::*;

    fn decoded(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn assertions_carry_the_claims_of_access_and_verify_under_a_published_key() {
        let clock = Clock::at(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let keys = [Key::generate().unwrap(), Key::generate().unwrap()];
        let access = Access::new(clock, "https://localhost:1".to_owned(), keys);
        let names = |value: &Value| {
            let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let user = access.user_assertion("7335d417-61da-459d-899c-0a01c76a2f94", "ada@example.com").unwrap();
        let service = access.service_assertion("e367826f93b8d71185e03fe518aff3b4.access").unwrap();
        let first = access.kid();
        access.rotate(Key::generate().unwrap());
        assert_ne!(access.kid(), first);
        for (assertion, expected) in [
            (user, vec!["aud", "country", "email", "exp", "iat", "identity_nonce", "iss", "nbf", "sub", "type"]),
            (service, vec!["aud", "common_name", "exp", "iat", "iss", "sub", "type"]),
        ] {
            let parts: Vec<&str> = assertion.split('.').collect();
            let (header, claims) = (decoded(parts[0]), decoded(parts[1]));
            assert_eq!(header, json!({"alg": "RS256", "kid": first, "typ": "JWT"}));
            assert_eq!(names(&claims), expected);
            assert_eq!(claims["aud"], json!([AUDIENCE]));
            let published = access.published();
            let jwk = published["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap();
            let member = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
            let key = RsaPublicKeyComponents { n: member("n"), e: member("e") };
            let signed = format!("{}.{}", parts[0], parts[1]);
            let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
            assert!(key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).is_ok());
        }
        access.rotate(Key::generate().unwrap());
        let published = access.published();
        assert!(published["keys"].as_array().unwrap().iter().all(|key| key["kid"] != json!(first)), "two keys at most");
        assert!(published["public_certs"][1]["cert"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
