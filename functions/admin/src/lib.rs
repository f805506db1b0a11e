//! Operators' acts: tenants, clients, people, devices, issuers, policies, revocations, signing keys.
//!
//! Invoked directly, under IAM, with `{"operation", "operator", …}`. Each act is one SQL function that changes the rows and writes
//! the audit in the same statement; who the operator is stays a claim, beside the request id that CloudTrail knows. Where
//! verifiers must learn of an act, an empty nudge object starts `trust` at once; without it the schedule publishes within a minute.

mod act;
pub mod config;
mod device;
mod fields;
mod identity;
mod refusal;

use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::Clock;
use shared::entropy::{Entropy, uuid_v7};
use shared::policy::Check;
use shared::port::{Database, Fault, FaultKind, ObjectWriter, Parameter, Precondition};

use self::act::Act;
use self::fields::Fields;
pub use self::refusal::{Code, Refusal};

/// The operators' function over its ports.
pub struct Admin<D, O, C, E> {
    /// Holds tenants, clients, issuers and revocations.
    pub database: D,
    /// The trust bucket, of which only `trust-inbox/admin/` is written.
    pub inbox: O,
    /// The time.
    pub clock: C,
    /// Randomness, for the names of nudges.
    pub entropy: E,
    /// Judges policies, with the engine that will use them.
    pub check: Check,
}

impl<D: Database, O: ObjectWriter, C: Clock, E: Entropy> Admin<D, O, C, E> {
    /// Does one act. A refusal changed nothing; after a fault the same act may be sent again.
    ///
    /// The answer is the SQL function's, with `nudge`: `delivered`, `failed` (the schedule will publish) or `not_needed`.
    pub async fn act(&self, event: Value, request_id: &str) -> Result<Result<Value, Refusal>, Fault> {
        let now = self.clock.now();
        let parsed = Fields::of(event).and_then(|mut fields| {
            let (operation, operator) = (fields.text("operation")?, act::operator(&mut fields)?);
            Ok((Act::parse(&operation, fields, now, self.check)?, operator))
        });
        let (act, operator) = match parsed {
            Ok(parsed) => parsed,
            Err(refusal) => {
                Line::new("admin", "refused").request(request_id).decision("deny", refusal.code.as_str()).emit();
                return Ok(Err(refusal));
            }
        };
        let line = Line::new("admin", act.operation).request(request_id).text("operator", &operator);
        let line = line.text("target", &act.target);
        let mut parameters =
            vec![Parameter::Text(operator), Parameter::Text(request_id.to_owned()), Parameter::Int(now.millis())];
        parameters.extend(act.parameters);
        let mut answer = self.database.call(act.function, parameters).await?;
        let refused = match answer.get("outcome").and_then(Value::as_str) {
            Some("tenant_unknown") => Some(Refusal::of(Code::TenantUnknown, "tenant")),
            Some("client_id_taken") => Some(Refusal::of(Code::ClientIdTaken, "client_id")),
            Some("client_unknown") => Some(Refusal::of(Code::ClientUnknown, "client_id")),
            Some("federation_issuer_unknown") => Some(Refusal::of(Code::FederationIssuerUnknown, "federation")),
            Some("federation_taken") => Some(Refusal::of(Code::FederationTaken, "federation")),
            Some("issuer_taken") => Some(Refusal::of(Code::IssuerTaken, "issuer")),
            Some("issuer_limit") => Some(Refusal::of(Code::IssuerLimit, "id")),
            Some("issuer_unknown") if act.operation == "identity.put" => {
                Some(Refusal::of(Code::IssuerUnknown, "issuer"))
            }
            Some("issuer_unknown") => Some(Refusal::of(Code::IssuerUnknown, "id")),
            Some("identity_taken") => Some(Refusal::of(Code::IdentityTaken, "value")),
            Some("identity_unknown") => Some(Refusal::of(Code::IdentityUnknown, "value")),
            Some("signing_key_unknown") => Some(Refusal::of(Code::SigningKeyUnknown, "kid")),
            Some("nobody_signs") => Some(Refusal::of(Code::NobodySigns, "confirm")),
            Some("device_key_taken") => Some(Refusal::of(Code::DeviceKeyTaken, "devices")),
            Some("device_limit") => Some(Refusal::of(Code::DeviceLimit, "devices")),
            Some("device_unknown") => Some(Refusal::of(Code::DeviceUnknown, "id")),
            Some("policy_unknown") => Some(Refusal::of(Code::PolicyUnknown, "hash")),
            Some(_) => None,
            None => return Err(Fault::new(FaultKind::Invalid, "postgres", act.function)),
        };
        if let Some(refusal) = refused {
            line.decision("deny", refusal.code.as_str()).emit();
            return Ok(Err(refusal));
        }
        let nudge = if act.moves_trust { self.nudge().await } else { "not_needed" };
        line.decision("allow", "done").text("nudge", nudge).emit();
        if let Some(members) = answer.as_object_mut() {
            members.insert("nudge".to_owned(), json!(nudge));
        }
        Ok(Ok(answer))
    }

    /// What was done is committed: a nudge that cannot be written costs at most the schedule's minute.
    async fn nudge(&self) -> &'static str {
        let key = format!("trust-inbox/admin/{}", uuid_v7(self.clock.now(), &self.entropy));
        match self.inbox.write(&key, Vec::new(), Precondition::Always).await {
            Ok(_) => "delivered",
            Err(fault) => {
                Line::new("admin", "nudge").fault(&fault).emit();
                "failed"
            }
        }
    }
}

impl<D: Database, O: ObjectWriter, C: Clock, E: Entropy> Handler for Admin<D, O, C, E> {
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        match self.act(event, &invocation.request_id).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => Ok(refusal.into_value()),
            Err(fault) => {
                Line::new("admin", "act")
                    .request(&invocation.request_id)
                    .decision("fault", "unavailable")
                    .fault(&fault)
                    .emit();
                Err(Failure::UNAVAILABLE)
            }
        }
    }
}
