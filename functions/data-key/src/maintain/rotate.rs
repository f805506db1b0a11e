//! `keys.rotate`: closes active keys, so that the next record is made under a new one.

use serde_json::{Value, json};
use shared::clock::Clock;
use shared::entropy::Entropy;
use shared::port::{Column, Database, Fault, KeyRewrapping, KeyWrapping, Parameter};

use super::act::Rotate;
use super::refusal::{Code, Denied};
use super::{Maintenance, Outcome, Who, broken, number, outcome};
use crate::keys::KEY_LIFE;

const ROTATE: &str = "api.rotate_data_keys";
const CLOSE_ENDED: &str = "api.close_ended_data_keys";
/// Keys of one statement, and how often it is sent: whatever is left waits for the next run.
const AT_ONCE: i64 = 1_000;
const ROUNDS: usize = 50;

impl<W, D, C, E, T> Maintenance<W, D, C, E, T>
where
    W: KeyRewrapping + KeyWrapping,
    D: Database,
    C: Clock + Clone,
    E: Entropy + Clone,
    T: Column,
{
    pub(crate) async fn rotate(&self, rotate: &Rotate, who: &Who<'_>) -> Result<Outcome, Fault> {
        match rotate {
            Rotate::Of { tenant, scope } => {
                let now = self.clock.now();
                let more = [Parameter::Text(tenant.as_str().to_owned()), Parameter::OptionalText(scope.clone())];
                let mut answer = self.database.call(ROTATE, who.parameters(now.millis(), more)).await?;
                if outcome(ROTATE, &answer)? == "tenant_unknown" {
                    return Ok(Err(Denied::of(Code::TenantUnknown, "tenant")));
                }
                // A column's closed key can be in memory for this long, and records are made under it meanwhile.
                let last = now.plus_seconds(KEY_LIFE).millis();
                let members = answer.as_object_mut().ok_or_else(|| broken(ROTATE))?;
                members.insert("in_use_until_ms".to_owned(), json!(last));
                Ok(Ok(answer))
            }
            Rotate::Ended => self.close_ended(who).await.map(Ok),
        }
    }

    async fn close_ended(&self, who: &Who<'_>) -> Result<Value, Fault> {
        let mut closed = 0_i64;
        for _ in 0..ROUNDS {
            let parameters = who.parameters(self.clock.now().millis(), [Parameter::Int(AT_ONCE)]);
            let answer = self.database.call(CLOSE_ENDED, parameters).await?;
            let count = number(CLOSE_ENDED, &answer, "closed")?;
            closed = closed.saturating_add(count);
            if count < AT_ONCE {
                break;
            }
        }
        Ok(json!({"outcome": if closed > 0 { "rotated" } else { "unchanged" }, "closed": closed}))
    }
}
