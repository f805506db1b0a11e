//! `keys.rewrap`: wraps data keys anew that an older material of the KMS key had wrapped.
//!
//! Rotating a KMS key leaves every data key under the material that it was made with. A run takes the stale ones page by page in the
//! order of their ids, lets KMS open and seal each in itself, and stores what came back only where the row still holds what went
//! in. It keeps one page in memory, and what it has not stored is stale still: it may end anywhere, and the next one goes on.

use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::Line;
use shared::clock::{Clock, Timestamp};
use shared::digest::sha256;
use shared::encoding::{from_hex, hex};
use shared::entropy::Entropy;
use shared::name::Tenant;
use shared::port::{Column, Database, Fault, KeyContext, KeyRewrapping, KeyWrapping, Parameter, Rewrapped};
use uuid::Uuid;

use super::act::Rewrap;
use super::refusal::{Code, Denied};
use super::{Maintenance, Outcome, Who, broken, number};
use crate::keys::PARALLEL;

const COUNT: &str = "api.count_stale_data_keys";
const PAGE: &str = "api.stale_data_keys";
const STORE: &str = "api.store_rewrapped_keys";
/// Keys of one page: two rounds of calls.
const AT_ONCE: usize = 64;
/// Milliseconds that a page may take, every call of it as slow as it can be: no page begins with less left.
const RESERVE: i64 = 9_000;
/// The most refused keys that an answer names.
const NAMED: usize = 20;
/// What KMS asks for a request, in millionths of a US dollar; `infra/aws/prices.yaml` has the same figure.
const PRICE: i64 = 3;

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Stale>,
}

#[derive(Deserialize)]
struct Stale {
    id: Uuid,
    tenant: String,
    purpose: String,
    wrapped: String,
}

#[derive(Deserialize)]
struct Stored {
    stored: Vec<Uuid>,
}

/// What a run has come to so far.
#[derive(Default)]
struct Run {
    after: Option<Uuid>,
    calls: i64,
    rewrapped: usize,
    changed: usize,
    refused: usize,
    named: Vec<Value>,
}

/// Why a run ends before the last stale key.
enum Stop {
    Limit,
    Time,
    Kms(Code),
}

impl<W, D, C, E, T> Maintenance<W, D, C, E, T>
where
    W: KeyRewrapping + KeyWrapping,
    D: Database,
    C: Clock + Clone,
    E: Entropy + Clone,
    T: Column,
{
    pub(crate) async fn rewrap(&self, act: &Rewrap, who: &Who<'_>, deadline: Timestamp) -> Result<Outcome, Fault> {
        let material = match self.wrapping.current_material().await {
            Ok(material) => material,
            Err(fault) => {
                Line::new("data-key-maintain", "kms").fault(&fault).emit();
                return Ok(Err(Denied::new(Code::from(&fault))));
            }
        };
        if act.dry_run {
            return self.count(act, &material).await.map(Ok);
        }
        let mut run = Run { after: act.cursor, ..Run::default() };
        let stop = loop {
            let left = act.limit.saturating_sub(run.rewrapped).min(AT_ONCE);
            if left == 0 {
                break Some(Stop::Limit);
            }
            if deadline.millis_since(self.clock.now()) < RESERVE {
                break Some(Stop::Time);
            }
            let page = self.page(&material, run.after, left).await?;
            let Some(last) = page.last().map(|stale| stale.id) else { break None };
            if let Some(code) = self.wrap_page(page, who, &mut run).await? {
                break Some(Stop::Kms(code));
            }
            run.after = Some(last);
        };
        Ok(Ok(run.answer(&material, stop.as_ref())))
    }

    /// What a run would do, and what KMS would ask for it.
    async fn count(&self, act: &Rewrap, material: &str) -> Result<Value, Fault> {
        let parameters = vec![
            Parameter::Text(self.key_arn.clone()),
            Parameter::Text(material.to_owned()),
            Parameter::OptionalUuid(act.cursor),
        ];
        let answer = self.database.call(COUNT, parameters).await?;
        let stale = number(COUNT, &answer, "stale")?;
        Ok(
            json!({"outcome": "counted", "material": material, "stale": stale, "foreign": number(COUNT, &answer, "foreign")?,
            "keys": number(COUNT, &answer, "keys")?, "calls": stale, "cost_usd": dollars(stale), "calls_at_once": PARALLEL}),
        )
    }

    async fn page(&self, material: &str, after: Option<Uuid>, limit: usize) -> Result<Vec<Stale>, Fault> {
        let parameters = vec![
            Parameter::Text(self.key_arn.clone()),
            Parameter::Text(material.to_owned()),
            Parameter::OptionalUuid(after),
            Parameter::Int(i64::try_from(limit).unwrap_or(i64::MAX)),
        ];
        let answer = self.database.call(PAGE, parameters).await?;
        let keys: Keys = serde_json::from_value(answer).map_err(|_| broken(PAGE))?;
        Ok(keys.keys)
    }

    /// Wraps a page and stores what was wrapped. Answers why KMS serves no more, if so; what it had served is stored all the same.
    async fn wrap_page(&self, page: Vec<Stale>, who: &Who<'_>, run: &mut Run) -> Result<Option<Code>, Fault> {
        run.calls = run.calls.saturating_add(i64::try_from(page.len()).unwrap_or(i64::MAX));
        let calls: Vec<_> = page.iter().map(|stale| self.wrap(stale)).collect();
        let wrapped: Vec<_> = stream::iter(calls).buffered(PARALLEL).collect().await;
        let (mut rows, mut stop) = (Vec::new(), None);
        for (stale, outcome) in page.iter().zip(wrapped) {
            match outcome? {
                Ok((from, rewrapped)) => rows.push(json!({"id": stale.id, "tenant": stale.tenant, "from": from,
                    "wrapped": hex(&rewrapped.wrapped), "material": rewrapped.material})),
                Err(Code::KmsRefused) => run.refuse(stale.id),
                Err(code) => stop = Some(code),
            }
        }
        if !rows.is_empty() {
            let sent = rows.len();
            let parameters = who.parameters(self.clock.now().millis(), [Parameter::Json(Value::Array(rows))]);
            let answer = self.database.call(STORE, parameters).await?;
            let stored: Stored = serde_json::from_value(answer).map_err(|_| broken(STORE))?;
            run.rewrapped = run.rewrapped.saturating_add(stored.stored.len());
            run.changed = run.changed.saturating_add(sent.saturating_sub(stored.stored.len()));
        }
        Ok(stop)
    }

    /// One key, with the SHA-256 of the wrapping that it was made of. The context is that of the row's own tenant, purpose and id: a
    /// wrapping that was put into another row does not open.
    async fn wrap(&self, stale: &Stale) -> Result<Result<(String, Rewrapped), Code>, Fault> {
        let wrapped = from_hex(&stale.wrapped).ok_or_else(|| broken(PAGE))?;
        let tenant = Tenant::parse(&stale.tenant).map_err(|_| broken(PAGE))?;
        let purpose = match stale.purpose.as_str() {
            "field" => "field",
            "index" => "index",
            _ => return Err(broken(PAGE)),
        };
        let context = KeyContext { tenant, purpose, data_key_id: stale.id };
        match self.wrapping.rewrap(&context, &wrapped).await {
            Ok(rewrapped) => Ok(Ok((hex(&sha256(&wrapped)), rewrapped))),
            Err(fault) => {
                let key = stale.id.to_string();
                Line::new("data-key-maintain", "kms")
                    .text("tenant", &stale.tenant)
                    .text("key", &key)
                    .fault(&fault)
                    .emit();
                Ok(Err(Code::from(&fault)))
            }
        }
    }
}

impl Run {
    fn refuse(&mut self, id: Uuid) {
        self.refused = self.refused.saturating_add(1);
        if self.named.len() < NAMED {
            self.named.push(json!(id));
        }
    }

    fn answer(self, material: &str, stop: Option<&Stop>) -> Value {
        let mut answer = json!({"outcome": if stop.is_some() { "stopped" } else { "rewrapped" }, "material": material,
            "rewrapped": self.rewrapped, "changed_meanwhile": self.changed, "refused": self.refused, "refused_keys": self.named,
            "calls": self.calls, "cost_usd": dollars(self.calls)});
        let reason = match stop {
            None => return answer,
            Some(Stop::Limit) => "limit",
            Some(Stop::Time) => "time",
            Some(Stop::Kms(code)) => code.as_str(),
        };
        if let Some(members) = answer.as_object_mut() {
            members.insert("reason".to_owned(), json!(reason));
            members.insert("next".to_owned(), json!(self.after));
        }
        answer
    }
}

/// What so many requests cost, in US dollars.
fn dollars(calls: i64) -> String {
    let millionths = calls.saturating_mul(PRICE);
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_exact() {
        for (calls, price) in [(0, "0.000000"), (1, "0.000003"), (333_333, "0.999999"), (1_000_000, "3.000000")] {
            assert_eq!(dollars(calls), price);
        }
        let prices = include_str!("../../../../infra/aws/prices.yaml");
        assert!(prices.contains("kms-request: {price: 0.000003, unit: request"), "KMS has another price by now");
    }
}
