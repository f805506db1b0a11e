//! A team of Cloudflare Access: signs assertions of people and services, and publishes its profile and mirrored keys into a trust bucket.

use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::encoding::base64url;
use shared::trust::Envelope;

use crate::TrustBucket;
use crate::issuer::changed;

/// The team's domain.
pub const TEAM: &str = "https://team.cloudflareaccess.com";
/// The application's tag.
pub const TAG: &str = "32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228";
/// The issuer's id among ours.
pub const ID: &str = "access";
/// `sub` of a person.
pub const ADA: &str = "7335d417-61da-459d-899c-0a01c76a2f94";
/// `sub` of another.
pub const BEN: &str = "0c8a5a38-7b6a-4f0e-9d1e-5a2f1f8f3b11";

/// A team with a key of its own. RSA takes its time, so teams of one program share two keys.
pub struct Team(&'static RsaKeyPair);

impl Team {
    /// The team that `publish` makes known.
    pub fn new() -> Self {
        static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
        Self(KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    /// Somebody with another key under the same name.
    pub fn impostor() -> Self {
        static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
        Self(KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    /// Publishes the profile and the key, good for a day.
    pub fn publish(&self, bucket: &TrustBucket, now: Timestamp) {
        let profile = json!({"id": ID, "kind": "cloudflare-access", "issuer": TEAM, "audience": TAG, "algorithms": ["RS256"],
            "jwks_url": format!("{TEAM}/cdn-cgi/access/certs")});
        put(bucket, "trust/profiles.json", now, json!({"profiles": [profile]}));
        let public = PublicKeyComponents::<Vec<u8>>::from(self.0.public_key());
        let key = json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "team-1", "n": base64url(&public.n), "e": base64url(&public.e)});
        put(bucket, &format!("trust/issuers/{ID}.json"), now, json!({"keys": [key]}));
    }

    /// A person's assertion for the next hour, some of its claims changed; a change to `null` removes the claim.
    pub fn person(&self, subject: &str, email: &str, now: Timestamp, changes: &Value) -> String {
        let now = now.seconds();
        let claims = json!({"aud": [TAG], "email": email, "exp": now + 3600, "iat": now, "nbf": now, "iss": TEAM, "type": "app",
            "identity_nonce": "6ei69kawdKzMIAPF", "sub": subject, "country": "US"});
        self.sign(&changed(claims, changes))
    }

    /// A service token's assertion for the next hour.
    pub fn service(&self, common_name: &str, now: Timestamp) -> String {
        let now = now.seconds();
        self.sign(&json!({"type": "app", "aud": [TAG], "exp": now + 3600, "iss": TEAM, "common_name": common_name, "iat": now, "sub": ""}))
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "RS256", "kid": "team-1", "typ": "JWT"});
        let signed =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", base64url(&signature))
    }
}

impl Default for Team {
    fn default() -> Self {
        Self::new()
    }
}

fn put(bucket: &TrustBucket, key: &str, now: Timestamp, body: Value) {
    let at = now.millis();
    bucket.put(key, Envelope { version: at, issued_at: at, not_after: at + 86_400_000, body }.seal());
}
