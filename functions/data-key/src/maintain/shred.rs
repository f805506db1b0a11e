//! `shred`: destroys data keys, and says on a receipt what that means.
//!
//! A deployment of its own does this and nothing else: it answers no caller, opens no key and speaks to the database alone. Whoever may
//! invoke the maintaining deployment, and whoever takes it over, cannot destroy by it.

use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::Clock;
use shared::port::{Database, Fault, Parameter};

use super::act::{Doomed, Shred};
use super::refusal::{Code, Denied};
use super::{Outcome, Who, answered, broken, outcome};
use crate::keys::KEY_LIFE;

const SHRED: &str = "api.shred_data_keys";
/// Milliseconds that a batch under way may still take: no deployment's time is longer.
const UNDER_WAY: i64 = 30_000;
/// Milliseconds after which no environment can encrypt under a key that was closed.
const GRACE: i64 = KEY_LIFE * 1_000 + UNDER_WAY;

/// The deployment in the log.
const NAME: &str = "data-key-shred";

/// What destroys data keys.
pub struct Shredder<D, C> {
    /// Holds wrapped keys, receipts and the audit.
    pub database: D,
    /// The time.
    pub clock: C,
}

impl<D: Database, C: Clock> Handler for Shredder<D, C> {
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        let (shred, operator) = match Shred::parse(event) {
            Ok(parsed) => parsed,
            Err(denied) => {
                Line::new(NAME, "refused")
                    .request(&invocation.request_id)
                    .decision("deny", denied.code.as_str())
                    .emit();
                return Ok(denied.into_value());
            }
        };
        let line = Line::new(NAME, "shred").request(&invocation.request_id);
        let line = line.text("operator", &operator).text("target", &shred.target());
        let who = Who { operator, request_id: &invocation.request_id };
        let outcome = self.shred(&shred, &who).await;
        answered(line, outcome)
    }
}

impl<D: Database, C: Clock> Shredder<D, C> {
    async fn shred(&self, shred: &Shred, who: &Who<'_>) -> Result<Outcome, Fault> {
        let (scope, keys) = match &shred.what {
            Doomed::Scope(scope) => (Some(scope.clone()), None),
            Doomed::Keys(keys) => (None, Some(keys.clone())),
        };
        let more = [
            Parameter::Text(shred.tenant.as_str().to_owned()),
            Parameter::OptionalText(scope),
            Parameter::OptionalUuids(keys),
            Parameter::Int(GRACE),
        ];
        let mut answer = self.database.call(SHRED, who.parameters(self.clock.now().millis(), more)).await?;
        match outcome(SHRED, &answer)? {
            "tenant_unknown" => return Ok(Err(Denied::of(Code::TenantUnknown, "tenant"))),
            "keys_unknown" => {
                let field = if matches!(shred.what, Doomed::Scope(_)) { "scope" } else { "keys" };
                return Ok(Err(Denied::of(Code::KeysUnknown, field)));
            }
            _ => {}
        }
        let receipts = answer.get_mut("receipts").and_then(Value::as_array_mut).ok_or_else(|| broken(SHRED))?;
        for receipt in receipts {
            complete(receipt).ok_or_else(|| broken(SHRED))?;
        }
        Ok(Ok(answer))
    }
}

/// Adds from when on nothing opens any more, and what is left of the keys elsewhere.
fn complete(receipt: &mut Value) -> Option<()> {
    let shredded = receipt.get("shredded_ms")?.as_i64()?;
    let keys = receipt.get("keys")?.as_array()?;
    let of_subjects = keys
        .iter()
        .all(|key| key.get("scope").and_then(Value::as_str).is_some_and(|scope| scope.starts_with("subject:")));
    let exported = keys.iter().filter(|key| key.get("exported_ms").is_some()).count();
    // A subject's row is read for every batch; any other key stays in the memory of whoever opened it for its time.
    let last = if of_subjects { UNDER_WAY } else { GRACE };
    let mut survives = vec!["backups_until_they_expire", "row_versions_until_vacuum"];
    if exported > 0 {
        survives.push("exported_messages");
    }
    let members = receipt.as_object_mut()?;
    members.insert("opens_nothing_after_ms".to_owned(), json!(shredded.saturating_add(last)));
    members.insert("survives".to_owned(), json!(survives));
    Some(())
}
