//! SSM Parameter Store, strict in its refusals, spoken to in awsJson1.1. A SecureString goes through this stack's own KMS,
//! with the caller's rights.
//!
//! Absent, and refused as such: parameter policies, tags, allowed patterns, data types other than `text`, filters, parameters
//! of other accounts, and every operation that is not in the list of [`Ssm::perform`].
//!
//! Stricter than AWS in one thing: no key has a policy of its own here, so the default key `alias/aws/ssm` serves only whose
//! role says so, while in AWS that key's policy admits everybody in the account who calls through SSM.

mod name;
mod operations;
mod sealing;
mod store;

use std::{
    collections::BTreeMap,
    fmt, io,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::UNIX_EPOCH,
};

use serde_json::Value;
use tokio::net::TcpListener;

use self::{operations::Call, store::Shelf};
use crate::{
    account::Account,
    aws_json::{self, Protocol, Refusal},
    call,
    faults::{FaultKnobs, Strike},
    http::{self, Request, Response, Server},
    kms::Kms,
    policy::{Caller, Context, Decision, denial},
};

/// The largest request the service reads, in bytes; its largest valid input is far smaller.
const LIMIT: usize = 256 * 1024;

/// The Parameter Store of one account in one region. Parameters live in memory.
pub struct Ssm {
    account: Arc<Account>,
    kms: Arc<Kms>,
    parameters: RwLock<Shelf>,
    protocol: Protocol,
    faults: FaultKnobs,
    calls: Mutex<BTreeMap<String, u64>>,
}

impl fmt::Debug for Ssm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ssm").field("account", &self.account.id).finish_non_exhaustive()
    }
}

impl Ssm {
    /// A store without parameters, which seals with the keys of `kms`.
    #[must_use]
    pub fn new(account: Arc<Account>, kms: Arc<Kms>) -> Arc<Self> {
        let (parameters, faults, calls) = Default::default();
        Arc::new(Self { account, kms, parameters, protocol: Protocol::new("ssm", "AmazonSSM."), faults, calls })
    }

    /// Answers on `listener` until the server is dropped.
    ///
    /// # Errors
    /// When the listener is not on loopback.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener) -> io::Result<Server> {
        let ssm = Arc::clone(self);
        http::serve(listener, None, LIMIT, move |request| {
            let ssm = Arc::clone(&ssm);
            async move {
                let account = Arc::clone(&ssm.account);
                call::through(&account, "ssm", request, |request| async move {
                    http::dated(Arc::clone(&ssm).answer(request).await, ssm.account.clock.now())
                })
                .await
            }
        })
        .await
    }

    /// The faults that calls over HTTP meet.
    #[must_use]
    pub fn faults(&self) -> &FaultKnobs {
        &self.faults
    }

    /// How often each operation was called over HTTP, refused calls included.
    #[must_use]
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One operation without HTTP, authorised like any other but neither counted nor touched by faults: `DeleteParameter`,
    /// `GetParameter`, `GetParameterHistory`, `GetParameters`, `GetParametersByPath`, `LabelParameterVersion`, `PutParameter`.
    ///
    /// # Errors
    /// What the operation refuses.
    pub fn perform(&self, caller: &impl Caller, operation: &str, input: &Value) -> Result<Value, Refusal> {
        let via = format!("ssm.{}.amazonaws.com", self.account.region);
        let now = self.account.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        operations::run(
            &Call {
                account: &self.account,
                shelf: &self.parameters,
                caller: &caller.principal().arn,
                now: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
                authorize: &|action, arn, context| self.authorize(caller, action, arn, context),
                kms: &|operation, input| {
                    if self.kms.faults().current().unavailable {
                        return Err(Refusal::failure("InternalServerError"));
                    }
                    self.kms.perform(caller, Some(&via), operation, input).map_err(sealing::refusal)
                },
            },
            operation,
            input,
        )
    }

    fn authorize(&self, caller: &impl Caller, action: &str, arn: &str, context: &Context) -> Result<(), Refusal> {
        match self.account.iam.authorize(caller, action, arn, context) {
            Decision::Allow => Ok(()),
            Decision::Deny { reason } => {
                let message = denial(caller.principal(), action, arn, &reason);
                Err(Refusal::new("AccessDeniedException", message))
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let outcome = self.respond(&request).await;
        self.protocol.answer(outcome)
    }

    async fn respond(&self, request: &Request) -> Result<Value, Refusal> {
        let operation = self.protocol.operation(request);
        if let Some(operation) = operation.as_deref().filter(|operation| operations::knows(operation)) {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            *calls.entry(operation.to_owned()).or_default() += 1;
        }
        match self.faults.strike().await {
            Some(Strike::Throttle) => return Err(Refusal::new("ThrottlingException", "Rate exceeded")),
            Some(Strike::Unavailable) => return Err(Refusal::failure("InternalServerError")),
            None => {}
        }
        let caller = self.protocol.authenticate(request, &self.account)?;
        let Some(operation) = operation else { return Err(Refusal::unknown_operation()) };
        let outcome = self.perform(&caller, &operation, &aws_json::input(request)?);
        if outcome.as_ref().is_err_and(|refusal| refusal.code == "UnknownOperationException") {
            // An operation that is missing here must be seen by whoever develops, even if the caller hides the error.
            let _ = writeln!(io::stderr(), "ssm: unknown operation {operation:?}");
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
