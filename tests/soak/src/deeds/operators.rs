//! Operators' acts on data keys, while everybody else goes on.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::leaks::CANARY;
use crate::oracle::Item;
use crate::traveller::{Traveller, Violation};

const MAINTAIN: &str = "data-key-maintain";
const SHRED: &str = "data-key-shred";
/// What an act may say in a storm besides its outcome, in place of what KMS did not do.
const KMS: [&str; 2] = ["kms_throttled", "kms_unavailable"];

impl Traveller {
    /// A tenant's keys are closed, or the key of KMS is rotated and the data keys are wrapped anew under it: every record that there is
    /// opens as before, which the others hold it to.
    pub(super) async fn keys(&mut self, tenant: &'static str) -> Result<(), Violation> {
        match self.dice.below(3) {
            0 => {
                let act = json!({"operation": "keys.rotate", "tenant": tenant});
                self.act("closing keys", MAINTAIN, act, &["rotated", "unchanged"]).await.map(drop)
            }
            1 => {
                let act = json!({"operation": "keys.rewrap", "limit": 20});
                self.act("wrapping keys anew", MAINTAIN, act, &["rewrapped", "stopped"]).await.map(drop)
            }
            _ => {
                let stack = &self.world.stack;
                let key = json!({"KeyId": stack.places.data_key});
                // KMS takes ten of these for each key and no more: then it is one act on data keys fewer.
                let _ = stack.kms.perform(&stack.account.operator(), None, "RotateKeyOnDemand", &key);
                Ok(())
            }
        }
    }

    /// A subject's field, and its end: what was erased opens nowhere, and once it was acknowledged that holds.
    pub(super) async fn erase(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let scope = format!("subject:{}-{}", self.number, self.operation);
        let plaintext = URL_SAFE_NO_PAD.encode(format!("{CANARY}{}", self.dice.word(12)));
        let field = |name: &str, value: &str| json!({"ref": "1", "table": "users", "column": "note", "row": "1", "scope": scope, name: value});
        let items = vec![field("plaintext", &plaintext)];
        let made =
            self.batch("a subject's field", "/fields/encrypt", &token.value, items, &[Item::Has("record")]).await?;
        let Some(record) = made.into_iter().flatten().flatten().next() else { return Ok(()) };
        let items = || vec![json!({"ref": "1", "table": "users", "column": "note", "row": "1", "record": record})];
        let opens = [Item::Is("plaintext", plaintext.clone())];
        self.batch("a subject's field", "/fields/decrypt", &token.value, items(), &opens).await?;
        let act = json!({"operation": "shred", "tenant": tenant, "scope": scope, "confirm": scope});
        // Who was not told that it is done sends it again, and may hear that nothing is left to do.
        for _ in 0..3 {
            if self.act("erasing a subject", SHRED, act.clone(), &["shredded", "unchanged"]).await?.is_some() {
                let never = [Item::Never(&["key_shredded"])];
                for _ in 0..2 {
                    self.batch("an erased field", "/fields/decrypt", &token.value, items(), &never).await?;
                }
                break;
            }
        }
        Ok(())
    }

    /// Invokes a deployment as an operator does; `None` is a fault that may be.
    async fn act(
        &mut self,
        what: &str,
        deployment: &str,
        mut act: Value,
        right: &[&str],
    ) -> Result<Option<Value>, Violation> {
        if let Some(members) = act.as_object_mut() {
            members.insert("operator".to_owned(), json!("soak"));
        }
        self.tally.asked += 1;
        let may_fail = self.phase.weather.may_fail();
        let (told, fault) = match self.world.stack.invoke(deployment, &act).await {
            Ok(answer) => {
                let outcome = answer["outcome"].as_str().unwrap_or_default();
                if right.contains(&outcome) && !(outcome == "stopped" && answer["reason"] != "limit" && !may_fail) {
                    self.tally.right += 1;
                    return Ok(Some(answer));
                }
                let code = answer.pointer("/error/code").and_then(Value::as_str).unwrap_or_default().to_owned();
                (format!("{answer}"), KMS.contains(&code.as_str()).then(|| format!("act {code}")))
            }
            // No answer came from the database, or in a storm the process was killed or throttled: the act may be sent again
            // (docs/operations/data-keys.md). A fault of our own is none of these.
            Err(error) => {
                let told = error.to_string();
                let first = told.lines().next().unwrap_or_default();
                let again = first.contains("ServiceUnavailable") || self.phase.weather.storms();
                let may_be = again && !first.contains("InternalError");
                (told, may_be.then(|| "act failed".to_owned()))
            }
        };
        match fault {
            Some(fault) if may_fail => {
                self.tally.calm += u64::from(!self.phase.weather.storms());
                *self.tally.faults.entry(fault).or_default() += 1;
                Ok(None)
            }
            _ => Err(self.violation(what, told.lines().next().unwrap_or_default())),
        }
    }
}
