//! An issuer with a real key: signs tokens and assertions, publishes itself into a trust bucket, and is a `Signer`.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Map, Value, json};
use shared::clock::Timestamp;
use shared::encoding::base64url;
use shared::jwks::{Algorithm, KeySet};
use shared::policy::{Bundle, Release};
use shared::port::{Fault, FaultKind, PublicKeys, Signer};
use shared::trust::Envelope;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::TrustBucket;

/// The issuer identifier of the fakes.
pub const ISSUER: &str = "https://gate.example";
/// The audience of the fakes.
pub const AUDIENCE: &str = "https://api.example";
/// How the fake signer addresses its key.
pub const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/0198e1a0-0000-4000-8000-000000000001";

/// A key pair with an id. Clones share the key.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    kid: String,
    pair: EcdsaKeyPair,
    down: AtomicBool,
    signatures: AtomicUsize,
}

impl Issuer {
    /// A fresh ES256 key under this id.
    pub fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self(Arc::new(Inner {
            kid: kid.to_owned(),
            pair,
            down: AtomicBool::default(),
            signatures: AtomicUsize::default(),
        }))
    }

    /// The public key.
    pub fn jwk(&self) -> Value {
        let point = self.0.pair.public_key().as_ref();
        json!({"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":self.0.kid,
            "x":base64url(&point[1..33]),"y":base64url(&point[33..])})
    }

    /// A compact JWS of exactly this header and these claims.
    pub fn jws(&self, header: &Value, claims: &Value) -> String {
        let input =
            format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
        format!("{input}.{}", base64url(&self.raw(input.as_bytes())))
    }

    /// The id of the key.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// The public key as a DER `SubjectPublicKeyInfo` (RFC 5480).
    pub fn public_der(&self) -> Vec<u8> {
        const P256: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        [&shared::encoding::from_hex(P256).unwrap(), self.0.pair.public_key().as_ref()].concat()
    }

    /// A compact JWS of exactly these texts, whatever they are.
    pub fn sign_texts(&self, header: &str, claims: &str) -> String {
        self.sign_bytes(header.as_bytes(), claims.as_bytes())
    }

    /// A compact JWS of exactly these bytes, whatever they are.
    pub fn sign_bytes(&self, header: &[u8], claims: &[u8]) -> String {
        let input = format!("{}.{}", base64url(header), base64url(claims));
        format!("{input}.{}", base64url(&self.raw(input.as_bytes())))
    }

    /// An access token with the standard claims, some of them changed; a change to `null` removes the claim.
    pub fn token(&self, now: Timestamp, changes: &Value) -> String {
        let claims = json!({"iss":ISSUER,"sub":"acme-backend","aud":AUDIENCE,"client_id":"acme-backend",
            "iat":now.seconds(),"exp":now.seconds() + 300,"jti":"0198e1a0-0000-7000-8000-000000000001",
            "scope":"files:read files:write","tenant":"acme","kind":"machine"});
        self.jws(&json!({"alg":"ES256","typ":"at+jwt","kid":self.0.kid}), &changed(claims, changes))
    }

    /// A client assertion of `client_id` for [`ISSUER`], some of its claims changed.
    pub fn assertion(&self, client_id: &str, jti: &str, now: Timestamp, changes: &Value) -> String {
        let claims = json!({"iss":client_id,"sub":client_id,"aud":ISSUER,"jti":jti,
            "iat":now.seconds(),"exp":now.seconds() + 60});
        self.jws(&json!({"alg":"ES256","kid":self.0.kid}), &changed(claims, changes))
    }

    /// A proof of possession (RFC 9449) of this key over a request to `path` of [`ISSUER`], some of its claims changed.
    pub fn proof(&self, method: &str, path: &str, jti: &str, now: Timestamp, changes: &Value) -> String {
        let mut key = self.jwk();
        if let Some(members) = key.as_object_mut() {
            members.retain(|name, _| ["kty", "crv", "x", "y"].contains(&name.as_str()));
        }
        let claims = json!({"jti":jti,"htm":method,"htu":format!("{ISSUER}{path}"),"iat":now.seconds()});
        self.jws(&json!({"typ":"dpop+jwt","alg":"ES256","jwk":key}), &changed(claims, changes))
    }

    /// RFC 7638 thumbprint of the key.
    pub fn thumbprint(&self) -> String {
        let set = KeySet::parse(&json!({"keys":[self.jwk()]}), &[Algorithm::Es256]).unwrap();
        set.iter().next().map(|key| key.thumbprint.clone()).unwrap_or_default()
    }

    /// Publishes this key as the only one, and no revocations, good for a day.
    pub fn publish(&self, bucket: &TrustBucket, now: Timestamp) {
        self.put(bucket, "trust/keys.json", now, json!({"keys":[self.jwk()]}));
        self.put(bucket, "trust/revocations.json", now, json!({}));
        self.put(bucket, "trust/policies.json", now, shipped_policies());
        let key = json!({"kid":self.0.kid,"alg":"ES256","key":KEY,"state":"active","created_at":now.millis()});
        self.put(bucket, "trust/signing-state.json", now, json!({"keys":[key]}));
    }

    /// Publishes one object in its envelope.
    pub fn put(&self, bucket: &TrustBucket, key: &str, now: Timestamp, body: Value) {
        let at = now.millis();
        bucket.put(key, Envelope { version: at, issued_at: at, not_after: at + 86_400_000, body }.seal());
    }

    /// Makes signing fail as throttled, or work again.
    pub fn set_down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    /// How many signatures were made through the port.
    pub fn signatures(&self) -> usize {
        self.0.signatures.load(Ordering::SeqCst)
    }

    fn raw(&self, input: &[u8]) -> Vec<u8> {
        self.0.pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec()
    }
}

impl Signer for Issuer {
    async fn sign(&self, key: &str, algorithm: Algorithm, input: &[u8]) -> Result<Vec<u8>, Fault> {
        if self.0.down.load(Ordering::SeqCst) {
            return Err(Fault::new(FaultKind::Throttled, "kms", "Sign"));
        }
        if key != KEY || algorithm != Algorithm::Es256 {
            return Err(Fault::new(FaultKind::Invalid, "kms", "Sign"));
        }
        self.0.signatures.fetch_add(1, Ordering::SeqCst);
        Ok(self.raw(input))
    }
}

impl PublicKeys for Issuer {
    async fn public_der(&self, key: &str) -> Result<Vec<u8>, Fault> {
        if self.0.down.load(Ordering::SeqCst) {
            return Err(Fault::new(FaultKind::Throttled, "kms", "GetPublicKey"));
        }
        if key == KEY {
            Ok(Issuer::public_der(self))
        } else {
            Err(Fault::new(FaultKind::Invalid, "kms", "GetPublicKey"))
        }
    }
}

/// The body of `trust/policies.json` as it is published before any operator acts.
pub fn shipped_policies() -> Value {
    let bundle = Bundle::shipped().unwrap();
    json!({"active": Release { version: 0, hash: bundle.hash(), bundle }.to_value(), "candidate": null})
}

pub(crate) fn changed(claims: Value, changes: &Value) -> Value {
    let mut claims = claims.as_object().cloned().unwrap_or_else(Map::new);
    for (name, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            claims.remove(name);
        } else {
            claims.insert(name.clone(), value.clone());
        }
    }
    Value::Object(claims)
}
