//! A platform that workloads run on, with a real key: signs what each kind of platform signs, and is mirrored into a trust bucket.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::encoding::base64url;
use shared::trust::Envelope;

use crate::TrustBucket;
use crate::issuer::ISSUER;

/// The kinds of platforms, each with the issuer of its documentation.
pub const KINDS: [(&str, &str); 4] = [
    ("aws-sts", "https://0f9c.tokens.sts.global.api.aws"),
    ("github-actions", "https://token.actions.githubusercontent.com"),
    ("kubernetes", "https://oidc.eks.eu-west-1.amazonaws.com/id/0A1B"),
    ("spiffe", "spiffe://prod.example"),
];

/// One RS256 key under an id. Clones share it.
#[derive(Clone)]
pub struct Platform {
    kid: String,
    pair: Arc<RsaKeyPair>,
}

impl Platform {
    /// A fresh key.
    pub fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    /// The public key as the mirror writes it for a platform of this kind.
    pub fn jwk(&self, kind: &str) -> Value {
        let public = PublicKeyComponents::<Vec<u8>>::from(self.pair.public_key());
        let usage = if kind == "spiffe" { "jwt-svid" } else { "sig" };
        json!({"kty": "RSA", "alg": "RS256", "use": usage, "kid": self.kid, "n": base64url(&public.n), "e": base64url(&public.e)})
    }

    /// The profile of a platform of this kind, under its kind as id.
    pub fn profile(kind: &str) -> Value {
        json!({"id": kind, "kind": kind, "issuer": issuer(kind), "algorithms": ["RS256"], "jwks_url": "https://keys.example/"})
    }

    /// Publishes the profiles of all kinds, and this key for each of them.
    pub fn publish(&self, bucket: &TrustBucket, now: Timestamp) {
        let own = json!({"id": "own", "issuer": ISSUER, "audience": "a", "algorithms": ["ES256"]});
        let foreign = KINDS.iter().map(|(kind, _)| Self::profile(kind));
        let profiles: Vec<Value> = [own].into_iter().chain(foreign).collect();
        put(bucket, "trust/profiles.json", now, json!({ "profiles": profiles }));
        for (kind, _) in KINDS {
            self.mirror(bucket, kind, now);
        }
    }

    /// Publishes this key as the only one of a kind of platform, for two days.
    pub fn mirror(&self, bucket: &TrustBucket, kind: &str, now: Timestamp) {
        put(bucket, &format!("trust/issuers/{kind}.json"), now, json!({"keys": [self.jwk(kind)]}));
    }

    /// What a platform of this kind signs for a workload that wants to speak to us; a change to `null` removes a claim.
    pub fn assertion(&self, kind: &str, jti: &str, now: Timestamp, changes: &Value) -> String {
        let at = now.seconds();
        let own = match kind {
            "aws-sts" => json!({"sub": "arn:aws:iam::111122223333:role/payments", "exp": at + 300,
                "https://sts.amazonaws.com/": {"aws_account": "111122223333", "source_region": "eu-west-1"}}),
            "github-actions" => {
                json!({"sub": "repo:octo-org/octo-repo:ref:refs/heads/main", "exp": at + 300, "nbf": at - 600,
                "ref": "refs/heads/main", "repository_id": "74", "repository_owner_id": "65"})
            }
            "kubernetes" => json!({"sub": "system:serviceaccount:payments:api", "exp": at + 3_607, "nbf": at,
                "kubernetes.io": {"namespace": "payments", "serviceaccount": {"name": "api", "uid": "u-1"}}}),
            _ => json!({"sub": "spiffe://prod.example/ns/payments/api", "exp": at + 300}),
        };
        let mut claims = json!({"iss": issuer(kind), "aud": [ISSUER], "iat": at, "jti": jti});
        for (name, value) in own.as_object().into_iter().flatten().chain(changes.as_object().into_iter().flatten()) {
            claims[name] = value.clone();
        }
        if let Some(claims) = claims.as_object_mut() {
            claims.retain(|_, value| !value.is_null());
        }
        let mut header = json!({"alg": "RS256", "kid": self.kid});
        if kind != "kubernetes" {
            header["typ"] = json!("JWT");
        }
        self.jws(&header, &claims)
    }

    /// A compact JWS of exactly this header and these claims.
    pub fn jws(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let input = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
        format!("{input}.{}", base64url(&signature))
    }

    /// The rule, as a client's row holds it, that names the workload of [`Platform::assertion`].
    pub fn rule(kind: &str) -> Value {
        let mut rule = match kind {
            "aws-sts" => json!({"role_arn": "arn:aws:iam::111122223333:role/payments"}),
            "github-actions" => json!({"repository_id": "74", "repository_owner_id": "65", "ref": "refs/heads/main"}),
            "kubernetes" => json!({"namespace": "payments", "service_account": "api"}),
            _ => json!({"spiffe_id": "spiffe://prod.example/ns/payments/api"}),
        };
        rule["issuer"] = json!(kind);
        rule["iss"] = json!(issuer(kind));
        rule
    }
}

fn issuer(kind: &str) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, issuer)| issuer)
}

fn put(bucket: &TrustBucket, key: &str, now: Timestamp, body: Value) {
    let at = now.millis();
    bucket.put(key, Envelope { version: at, issued_at: at, not_after: at + 48 * 3_600_000, body }.seal());
}
