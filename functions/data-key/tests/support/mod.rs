//! A deployment of each kind over one fake world, and callers with real tokens.
#![allow(dead_code, reason = "each test file uses what it needs of it")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use data_key::{Config, DataKey, Deployment, DeviceColumns, ImportKeys, Operations, Purposes, World};
use serde_json::{Value, json};
use shared::boot::{Handler as _, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::encoding::{base64url, from_base64url};
use shared::entropy::{Entropy, SystemEntropy};
use shared::port::{Fault, FaultKind, ObjectReader, Read};
use shared::trust::{Accepts, Envelope};
use testkit::data_keys::DataKeys;
use testkit::wrapping::Wrapping;

pub(crate) const START: i64 = 1_800_000_000_000;
pub(crate) const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
/// The KMS key of messages that `acme` may import.
pub(crate) const FOREIGN_ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/aaaaaaaa-12ab-34cd-56ef-1234567890ab";
const ISSUER: &str = "https://gate.example";
const AUDIENCE: &str = "https://api.example";
const ALL: &str = "fields:encrypt:*.* fields:decrypt:*.*";

#[derive(Clone)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Counts how often randomness is asked for.
#[derive(Clone, Default)]
pub(crate) struct CountedEntropy(pub(crate) Arc<AtomicUsize>);

impl Entropy for CountedEntropy {
    fn fill(&self, out: &mut [u8]) {
        self.0.fetch_add(1, Ordering::SeqCst);
        SystemEntropy.fill(out);
    }
}

#[derive(Clone)]
pub(crate) struct TrustObjects {
    jwk: Value,
    clock: ManualClock,
    down: Arc<Mutex<bool>>,
}

impl ObjectReader for TrustObjects {
    async fn read(&self, key: &str, _known: Option<&str>) -> Result<Read, Fault> {
        if *self.down.lock().unwrap() {
            return Err(Fault::new(FaultKind::Unavailable, "s3", "GetObject"));
        }
        let body = match key {
            "trust/keys.json" => json!({"keys": [self.jwk]}),
            "trust/revocations.json" => json!({}),
            _ => return Ok(Read::Missing),
        };
        let now = self.clock.now().millis();
        let envelope = Envelope { version: now, issued_at: now, not_after: now + 86_400_000, body };
        Ok(Read::Found { body: envelope.seal(), etag: format!("\"{now}\"") })
    }
}

type Deployed = DataKey<Wrapping, DataKeys, TrustObjects, ManualClock, CountedEntropy>;

pub(crate) struct Lab {
    pub(crate) clock: ManualClock,
    pub(crate) kms: Wrapping,
    pub(crate) database: DataKeys,
    pub(crate) entropy: CountedEntropy,
    pub(crate) trust: TrustObjects,
    pub(crate) encrypt: Deployed,
    pub(crate) decrypt: Deployed,
    pub(crate) maintain: Deployed,
    pair: EcdsaKeyPair,
}

pub(crate) struct Answer {
    pub(crate) status: u64,
    pub(crate) headers: Value,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn items(&self) -> &[Value] {
        self.body["items"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The code of each item, `ok` where it succeeded.
    pub(crate) fn codes(&self) -> Vec<&str> {
        let code = |item: &'_ Value| if item["ok"] == true { "ok" } else { "" };
        self.items()
            .iter()
            .map(|item| item.pointer("/error/code").and_then(Value::as_str).unwrap_or_else(|| code(item)))
            .collect()
    }

    pub(crate) fn text(&self, member: &str) -> Vec<String> {
        self.items().iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::trusting(None)
    }

    /// The same where another key than the lab's own is published.
    pub(crate) fn trusting(key: Option<Value>) -> Self {
        let clock = ManualClock(Arc::new(AtomicI64::new(START)));
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1",
            "x": base64url(&point[1..33]), "y": base64url(&point[33..])});
        let jwk = key.unwrap_or(jwk);
        let trust = TrustObjects { jwk, clock: clock.clone(), down: Arc::default() };
        let (kms, database, entropy) = (Wrapping::default(), DataKeys::default(), CountedEntropy::default());
        let deploy = |deployment| deploy(deployment, &kms, &database, &trust, &clock, &entropy, |_| {});
        let (encrypt, decrypt) = (deploy(Deployment::Encrypt), deploy(Deployment::Decrypt));
        let maintain = deploy(Deployment::Maintain);
        Self { clock, kms, database, entropy, trust, encrypt, decrypt, maintain, pair }
    }

    /// Another environment of the same deployment, with nothing in memory.
    pub(crate) fn fresh(&self, deployment: Deployment) -> Deployed {
        self.changed(deployment, |_| {})
    }

    /// The same, configured otherwise.
    pub(crate) fn changed(&self, deployment: Deployment, change: impl FnOnce(&mut Config)) -> Deployed {
        deploy(deployment, &self.kms, &self.database, &self.trust, &self.clock, &self.entropy, change)
    }

    pub(crate) fn set_trust_down(&self, down: bool) {
        *self.trust.down.lock().unwrap() = down;
    }

    pub(crate) fn token(&self, tenant: &str, scope: &str) -> String {
        self.sign(tenant, scope, "machine", &json!({}))
    }

    /// A machine's with more claims.
    pub(crate) fn token_with(&self, more: &Value) -> String {
        self.sign("acme", ALL, "machine", more)
    }

    /// A token of a machine or a human, with every right on columns.
    pub(crate) fn token_of(&self, kind: &str) -> String {
        self.sign("acme", ALL, kind, &json!({}))
    }

    fn sign(&self, tenant: &str, scope: &str, kind: &str, more: &Value) -> String {
        let now = self.clock.now().seconds();
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": "k1"});
        let mut claims = json!({"iss": ISSUER, "sub": "backend", "aud": AUDIENCE, "client_id": "backend",
            "jti": "0198e1a0-0000-7000-8000-000000000001", "iat": now, "exp": now + 300,
            "scope": scope, "tenant": tenant, "kind": kind});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let signed = [header, claims].map(|part| base64url(part.to_string().as_bytes())).join(".");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", base64url(signature.as_ref()))
    }

    pub(crate) fn invocation(&self) -> Invocation {
        Invocation {
            request_id: "r-1".to_owned(),
            deadline: self.clock.now().plus_seconds(10),
            function_arn: String::new(),
        }
    }

    pub(crate) fn event(&self, resource: &str, token: &str, body: &str) -> Value {
        json!({"resource": resource, "path": resource, "httpMethod": "POST",
            "multiValueHeaders": {"Authorization": [format!("Bearer {token}")], "Content-Type": ["application/json"]},
            "requestContext": {"requestId": "r-1", "httpMethod": "POST",
                "authorizer": {"jti": "0198e1a0-0000-7000-8000-000000000001", "sub": "backend"}},
            "body": body, "isBase64Encoded": false})
    }

    pub(crate) async fn send(&self, function: &Deployed, event: Value) -> Answer {
        answer(function.handle(event, &self.invocation()).await.unwrap())
    }

    pub(crate) async fn encrypt_as(&self, tenant: &str, scope: &str, items: Value) -> Answer {
        let body = json!({"items": items}).to_string();
        self.send(&self.encrypt, self.event("/fields/encrypt", &self.token(tenant, scope), &body)).await
    }

    pub(crate) async fn decrypt_as(&self, tenant: &str, scope: &str, items: Value) -> Answer {
        let body = json!({"items": items}).to_string();
        self.send(&self.decrypt, self.event("/fields/decrypt", &self.token(tenant, scope), &body)).await
    }

    pub(crate) async fn encrypt(&self, items: Value) -> Answer {
        self.encrypt_as("acme", ALL, items).await
    }

    pub(crate) async fn decrypt(&self, items: Value) -> Answer {
        self.decrypt_as("acme", ALL, items).await
    }

    pub(crate) async fn index_as(&self, tenant: &str, scope: &str, items: Value) -> Answer {
        let body = json!({"items": items}).to_string();
        self.send(&self.encrypt, self.event("/fields/index", &self.token(tenant, scope), &body)).await
    }

    pub(crate) async fn index(&self, items: Value) -> Answer {
        self.index_as("acme", "fields:index:*.*", items).await
    }

    pub(crate) async fn inspect_as(&self, tenant: &str, scope: &str, items: Value) -> Answer {
        let body = json!({"items": items}).to_string();
        self.send(&self.encrypt, self.event("/fields/inspect", &self.token(tenant, scope), &body)).await
    }

    pub(crate) async fn inspect(&self, items: Value) -> Answer {
        self.inspect_as("acme", "fields:inspect:*.*", items).await
    }

    pub(crate) async fn rewrap_as(&self, tenant: &str, scope: &str, items: Value) -> Answer {
        let body = json!({"items": items}).to_string();
        self.send(&self.maintain, self.event("/fields/rewrap", &self.token(tenant, scope), &body)).await
    }

    pub(crate) async fn rewrap(&self, items: Value) -> Answer {
        self.rewrap_as("acme", "fields:rewrap:*.*", items).await
    }

    pub(crate) async fn export_as(&self, tenant: &str, scope: &str, items: Value) -> Answer {
        let body = json!({"items": items}).to_string();
        self.send(&self.maintain, self.event("/fields/export", &self.token(tenant, scope), &body)).await
    }

    pub(crate) async fn export(&self, items: Value) -> Answer {
        self.export_as("acme", "fields:export:*.*", items).await
    }

    pub(crate) async fn import_as(&self, tenant: &str, scope: &str, items: Value) -> Answer {
        let body = json!({"items": items}).to_string();
        self.send(&self.maintain, self.event("/fields/import", &self.token(tenant, scope), &body)).await
    }

    pub(crate) async fn import(&self, items: Value) -> Answer {
        self.import_as("acme", "fields:import:*.*", items).await
    }

    /// One sealed field of `users.ssn`, row 42.
    pub(crate) async fn record(&self) -> String {
        let answer = self.encrypt(json!([field("ssn", "42", b"123-45-6789")])).await;
        assert_eq!(answer.status, 200);
        answer.text("record").remove(0)
    }

    pub(crate) fn clock_now_plus(&self, millis: i64) -> Timestamp {
        self.clock.now().plus_millis(millis)
    }

    pub(crate) fn operations(&self) -> Vec<&'static str> {
        self.kms.take_calls().iter().map(|call| call.operation).collect()
    }

    /// Forgets the calls so far.
    pub(crate) fn forget(&self) {
        self.kms.take_calls();
        self.database.take_calls();
    }
}

fn deploy(
    deployment: Deployment,
    kms: &Wrapping,
    database: &DataKeys,
    trust: &TrustObjects,
    clock: &ManualClock,
    entropy: &CountedEntropy,
    change: impl FnOnce(&mut Config),
) -> Deployed {
    let mut config = config(deployment);
    change(&mut config);
    let world = World {
        wrapping: kms.clone(),
        database: database.clone(),
        trust: trust.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
    };
    DataKey::new(config, world)
}

/// A deployment as configured.
pub(crate) fn config(deployment: Deployment) -> Config {
    Config {
        env: "test".to_owned(),
        accepts: Accepts { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned() },
        trust_bucket: "trust".to_owned(),
        data_key_arn: ARN.to_owned(),
        operations: Operations::parse(match deployment {
            Deployment::Encrypt => "encrypt,index,inspect",
            Deployment::Decrypt => "decrypt,inspect",
            Deployment::Maintain => "rewrap,export,import,inspect",
        })
        .unwrap(),
        import_keys: ImportKeys::parse(&format!("acme={FOREIGN_ARN}")).unwrap(),
        purposes: Purposes::default(),
        honey_keys: BTreeSet::new(),
        device_columns: DeviceColumns::default(),
    }
}

pub(crate) fn answer(event: Value) -> Answer {
    Answer {
        status: event["statusCode"].as_u64().unwrap(),
        headers: event["headers"].clone(),
        body: serde_json::from_str(event["body"].as_str().unwrap()).unwrap(),
    }
}

pub(crate) fn field(column: &str, row: &str, plaintext: &[u8]) -> Value {
    json!({"ref": row, "table": "users", "column": column, "row": row, "plaintext": base64url(plaintext)})
}

pub(crate) fn sealed(column: &str, row: &str, record: &str) -> Value {
    json!({"ref": row, "table": "users", "column": column, "row": row, "record": record})
}

pub(crate) fn searched(column: &str, value: &[u8]) -> Value {
    json!({"ref": column, "table": "users", "column": column, "value": base64url(value),
        "normalisation": "nfc_casefold", "bits": 12})
}

pub(crate) fn with(mut base: Value, member: &str, value: Value) -> Value {
    base[member] = value;
    base
}

pub(crate) fn bytes(text: &str) -> Vec<u8> {
    from_base64url(text).unwrap()
}
