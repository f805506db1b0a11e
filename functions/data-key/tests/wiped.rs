//! That a data key is nowhere in the memory of a process any more once it is dropped, its time is over, it was pushed out or destroyed:
//! the process looks for the bytes in all of its own memory.
//!
//! Each test is a process of its own. The KMS here knows its keys by their masks only, so that whatever is found is ours.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop where it stands")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use data_key::{DataKey, Deployment, World};
use serde_json::{Value, json};
use shared::boot::Handler as _;
use shared::name::{Identifier, Tenant};
use shared::pc1::{self, Context, MessageIds, Record, Row};
use shared::port::{Fault, FaultKind, Generated, KeyContext, KeyWrapping, MessageKeys, Unwrapped};
use shared::secret::SecretBytes;
use support::{Lab, answer, config, field, sealed, with};
use testkit::memory::Canary;

/// A KMS whose memory holds no key in clear.
#[derive(Clone, Default)]
struct Masked(Arc<Mutex<Vec<Canary>>>);

impl Masked {
    /// The key that was made as the n-th.
    fn key(&self, number: usize) -> Canary {
        self.0.lock().unwrap()[number].clone()
    }

    fn blob(canary: &Canary, context: &KeyContext) -> Vec<u8> {
        let context = format!("{}|{}|{}", context.tenant, context.purpose, context.data_key_id);
        [canary.masked(), context.as_bytes()].concat()
    }
}

impl KeyWrapping for Masked {
    async fn generate(&self, context: &KeyContext) -> Result<Generated, Fault> {
        let canary = Canary::new();
        self.0.lock().unwrap().push(canary.clone());
        Ok(Generated { plaintext: canary.reveal(), wrapped: Self::blob(&canary, context), material: None })
    }

    async fn wrap(&self, context: &KeyContext, key: &SecretBytes) -> Result<Vec<u8>, Fault> {
        let known = self.0.lock().unwrap().iter().find(|canary| canary.is(key.expose())).cloned();
        known.map(|canary| Self::blob(&canary, context)).ok_or_else(|| Fault::new(FaultKind::Invalid, "kms", "Encrypt"))
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Unwrapped, Fault> {
        let canary = wrapped.get(..32).and_then(Canary::of_masked).filter(|one| Self::blob(one, context) == wrapped);
        let canary = canary.ok_or_else(|| Fault::new(FaultKind::Invalid, "kms", "Decrypt"))?;
        Ok(Unwrapped { plaintext: canary.reveal(), material: None })
    }
}

impl MessageKeys for Masked {
    async fn open(&self, _: &str, _: &BTreeMap<String, String>, _: &[u8]) -> Result<SecretBytes, Fault> {
        Err(Fault::new(FaultKind::Denied, "kms", "Decrypt"))
    }
}

type Deployed =
    DataKey<Masked, testkit::data_keys::DataKeys, support::TrustObjects, support::ManualClock, support::CountedEntropy>;

/// An environment of one deployment over the lab's world.
fn environment(lab: &Lab, kms: &Masked, deployment: Deployment) -> Deployed {
    let world = World {
        wrapping: kms.clone(),
        database: lab.database.clone(),
        trust: lab.trust.clone(),
        clock: lab.clock.clone(),
        entropy: lab.entropy.clone(),
    };
    DataKey::new(config(deployment), world)
}

async fn ask(lab: &Lab, environment: &Deployed, operation: &str, items: Value) -> support::Answer {
    let token = lab.token("acme", &format!("fields:{operation}:*.*"));
    let event = lab.event(&format!("/fields/{operation}"), &token, &json!({"items": items}).to_string());
    answer(environment.handle(event, &lab.invocation()).await.unwrap())
}

/// What somebody without a token asks for. Nobody is served, and whatever is over ends all the same.
async fn knock(lab: &Lab, environment: &Deployed) {
    let answer =
        answer(environment.handle(lab.event("/fields/encrypt", "none", "{}"), &lab.invocation()).await.unwrap());
    assert!(answer.status == 401 || answer.status == 404, "{}", answer.status);
}

/// One field of `users.ssn`, its record and the key that it was made under.
async fn one_record(lab: &Lab, kms: &Masked, scope: Option<&str>) -> (String, Canary) {
    let encrypt = environment(lab, kms, Deployment::Encrypt);
    let mut item = field("ssn", "42", b"123-45-6789");
    if let Some(scope) = scope {
        item = with(item, "scope", json!(scope));
    }
    let number = kms.0.lock().unwrap().len();
    let record = ask(lab, &encrypt, "encrypt", json!([item])).await.text("record").remove(0);
    (record, kms.key(number))
}

#[test]
fn a_data_key_is_gone_once_it_is_dropped() {
    let canary = Canary::new();
    let key = pc1::DataKey::parse(canary.reveal().expose()).unwrap();
    let name = |text| Identifier::parse(text).unwrap();
    let (tenant, table, column) = (Tenant::parse("acme").unwrap(), name("users"), name("ssn"));
    let row = Row::parse("42").unwrap();
    let context = Context { tenant: &tenant, table: &table, column: &column, row: &row, version: None };
    for message_id in MessageIds::draw(10, &shared::entropy::SystemEntropy) {
        let record = pc1::seal(&key, uuid::Uuid::nil(), message_id, &context, b"123-45-6789").unwrap();
        assert!(Record::parse(&record).unwrap().open(&key, &context).is_ok());
    }
    assert_eq!(canary.copies().unwrap(), 1, "one, wherever it was moved to and whatever was derived from it");
    let moved = Arc::new(key);
    assert_eq!(canary.copies().unwrap(), 1);
    drop(moved);
    assert_eq!(canary.copies().unwrap(), 0);
}

#[tokio::test]
async fn a_data_key_is_gone_when_its_environment_is() {
    let (lab, kms) = (Lab::new(), Masked::default());
    let (record, key) = one_record(&lab, &kms, None).await;
    assert_eq!(key.copies().unwrap(), 0, "the environment that made it is gone");
    let decrypt = environment(&lab, &kms, Deployment::Decrypt);
    assert_eq!(ask(&lab, &decrypt, "decrypt", json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
    assert_eq!(key.copies().unwrap(), 1, "held once");
    drop(decrypt);
    assert_eq!(key.copies().unwrap(), 0);
}

#[tokio::test]
async fn no_deployment_holds_a_data_key_past_its_time_whatever_it_is_asked_next() {
    let (lab, kms) = (Lab::new(), Masked::default());
    let (record, key) = one_record(&lab, &kms, None).await;
    for (deployment, operation, item) in [
        (Deployment::Encrypt, "encrypt", field("ssn", "43", b"other")),
        (Deployment::Decrypt, "decrypt", sealed("ssn", "42", &record)),
        (Deployment::Maintain, "rewrap", sealed("ssn", "42", &record)),
        (Deployment::Maintain, "export", sealed("ssn", "42", &record)),
    ] {
        let environment = environment(&lab, &kms, deployment);
        assert_eq!(ask(&lab, &environment, operation, json!([item])).await.codes(), ["ok"], "{operation}");
        assert!(key.copies().unwrap() >= 1, "{operation}");
        lab.clock.advance(299_999);
        knock(&lab, &environment).await;
        assert!(key.copies().unwrap() >= 1, "{operation}: it stays for its time");
        lab.clock.advance(1);
        knock(&lab, &environment).await;
        assert_eq!(key.copies().unwrap(), 0, "{operation}");
    }
    // The index key too, in an environment that is asked for something else.
    let encrypt = environment(&lab, &kms, Deployment::Encrypt);
    let number = kms.0.lock().unwrap().len();
    let indexed = ask(&lab, &encrypt, "index", json!([support::searched("email", b"ann@example.com")])).await;
    let index = kms.key(number);
    assert!(indexed.codes() == ["ok"] && index.copies().unwrap() >= 1);
    lab.clock.advance(300_000);
    assert_eq!(ask(&lab, &encrypt, "encrypt", json!([field("ssn", "44", b"x")])).await.codes(), ["ok"]);
    assert_eq!(index.copies().unwrap(), 0);
}

#[tokio::test]
async fn a_data_key_that_was_pushed_out_is_gone() {
    let (lab, kms) = (Lab::new(), Masked::default());
    let (record, key) = one_record(&lab, &kms, Some("subject:first")).await;
    let decrypt = environment(&lab, &kms, Deployment::Decrypt);
    assert_eq!(ask(&lab, &decrypt, "decrypt", json!([sealed("ssn", "42", &record)])).await.codes(), ["ok"]);
    assert!(key.copies().unwrap() >= 1);
    lab.clock.advance(1);
    let encrypt = environment(&lab, &kms, Deployment::Encrypt);
    for batch in 0..4 {
        let scoped = |at| with(field("ssn", "42", b"x"), "scope", json!(format!("subject:{batch}-{at}")));
        let items: Vec<Value> = (0..250).map(scoped).collect();
        let records = ask(&lab, &encrypt, "encrypt", json!(items)).await.text("record");
        let items: Vec<Value> = records.iter().map(|record| sealed("ssn", "42", record)).collect();
        assert!(ask(&lab, &decrypt, "decrypt", json!(items)).await.codes().iter().all(|code| *code == "ok"));
    }
    assert_eq!(key.copies().unwrap(), 0, "a thousand keys came after it");
}

#[tokio::test]
async fn a_data_key_that_was_destroyed_is_gone_from_whoever_learns_of_it() {
    let (lab, kms) = (Lab::new(), Masked::default());
    let (record, key) = one_record(&lab, &kms, Some("subject:s-1")).await;
    for (deployment, operation) in [(Deployment::Decrypt, "decrypt"), (Deployment::Maintain, "export")] {
        let environment = environment(&lab, &kms, deployment);
        let item = match operation {
            "export" => with(sealed("ssn", "42", &record), "allow_unshreddable", json!(true)),
            _ => sealed("ssn", "42", &record),
        };
        assert_eq!(ask(&lab, &environment, operation, json!([item])).await.codes(), ["ok"]);
        assert!(key.copies().unwrap() >= 1, "{operation}");
        let before = lab.database.rows(|rows| rows.clone());
        lab.database.rows(|rows| {
            rows[0].state = "shredded".to_owned();
            (rows[0].wrapped, rows[0].writer_wrapped) = (None, None);
        });
        assert_eq!(ask(&lab, &environment, operation, json!([item])).await.codes(), ["key_shredded"]);
        assert_eq!(key.copies().unwrap(), 0, "{operation}");
        lab.database.rows(|rows| *rows = before);
    }
}
