//! KMS: symmetric and signing keys, strict in its refusals, spoken to in awsJson1.1.
//!
//! Absent, and refused as such: grants, multi-Region and imported keys, asymmetric encryption, key agreement, prehashed
//! Ed25519.

mod blob;
mod crypto;
mod error;
mod key;
mod keyring;
mod mac;
mod manage;
mod pair;
mod sign;
mod wire;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

pub use self::{
    error::KmsError,
    key::{KeySpec, KeyUsage},
};
use self::{
    key::Millis,
    keyring::{Conditions, Keyring},
};
use crate::{
    account::Account,
    aws_json::Protocol,
    call,
    faults::FaultKnobs,
    http::{self, Server},
    policy::{Caller, Context, Decision, denial},
};

/// The largest request the service reads, in bytes; its largest valid input is far smaller.
const LIMIT: usize = 256 * 1024;

/// The KMS of one account in one region. Keys live in memory; see [`Kms::save`].
pub struct Kms {
    account: Arc<Account>,
    ring: Keyring,
    faults: FaultKnobs,
    calls: Mutex<BTreeMap<String, u64>>,
    protocol: Protocol,
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kms").field("account", &self.account.id).finish_non_exhaustive()
    }
}

impl Kms {
    /// A KMS without keys.
    #[must_use]
    pub fn new(account: Arc<Account>) -> Arc<Self> {
        let ring = Keyring::new(&account.id, &account.region);
        Self::with(account, ring)
    }

    /// A KMS with the keys and aliases of [`Kms::save`]. `None` when the bytes are damaged, or were saved in another
    /// account or region, whose ARNs the keys would carry.
    #[must_use]
    pub fn load(account: Arc<Account>, saved: &[u8]) -> Option<Arc<Self>> {
        let ring = Keyring::load(&account.id, &account.region, saved)?;
        Some(Self::with(account, ring))
    }

    fn with(account: Arc<Account>, ring: Keyring) -> Arc<Self> {
        let (faults, calls) = Default::default();
        let protocol = Protocol::new("kms", "TrentService.");
        let kms = Self { account, ring, faults, calls, protocol };
        kms.hold_policies();
        Arc::new(kms)
    }

    /// All keys and aliases. Holds the private keys in clear: whoever stores it keeps it readable to itself only.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.ring.save()
    }

    /// Answers on `listener` until the server is dropped.
    ///
    /// # Errors
    /// When the listener is not on loopback.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener) -> io::Result<Server> {
        let kms = Arc::clone(self);
        http::serve(listener, None, LIMIT, move |request| {
            let kms = Arc::clone(&kms);
            async move {
                let account = Arc::clone(&kms.account);
                call::through(&account, "kms", request, |request| async move {
                    http::dated(Arc::clone(&kms).answer(request).await, kms.account.clock.now())
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

    /// How long a rotation on demand takes from now on; at first no time at all.
    pub fn set_rotation_delay(&self, delay: Duration) {
        self.ring.write().rotation_delay = delay;
    }

    /// Makes a key on behalf of the stack and answers its ARN. RSA takes from 50 ms to seconds.
    ///
    /// # Errors
    /// What `CreateKey` refuses, e.g. a usage that the specification does not have.
    pub fn create_key(&self, spec: KeySpec, usage: KeyUsage, tags: &[(&str, &str)]) -> Result<String, KmsError> {
        let tags: Vec<_> = tags.iter().map(|(key, value)| json!({ "TagKey": key, "TagValue": value })).collect();
        let input = json!({ "KeySpec": spec.as_str(), "KeyUsage": usage.as_str(), "Tags": tags });
        let answer = self.perform(&self.account.operator(), None, "CreateKey", &input)?;
        let arn = answer.pointer("/KeyMetadata/Arn").and_then(Value::as_str);
        arn.map(str::to_owned).ok_or_else(KmsError::internal)
    }

    /// The ARN of a key, which follows from its id: templates name keys that are made after them.
    #[must_use]
    pub fn key_arn(account: &str, region: &str, id: Uuid) -> String {
        Keyring::new(account, region).arn(&format!("key/{id}"))
    }

    /// Makes a key with an id chosen beforehand, on behalf of the stack, and answers its ARN. See [`Kms::key_arn`].
    ///
    /// # Errors
    /// `AlreadyExistsException` when the id is taken.
    pub fn create_key_with_id(&self, id: Uuid, spec: KeySpec, tags: &[(&str, &str)]) -> Result<String, KmsError> {
        let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.ring.place(id, spec, tags, None, self.now())
    }

    /// The same under a policy of the key's own.
    ///
    /// # Errors
    /// `AlreadyExistsException` when the id is taken, `MalformedPolicyDocumentException` when the policy is not understood.
    pub fn create_key_under(&self, id: Uuid, spec: KeySpec, policy: &Value) -> Result<String, KmsError> {
        let arn = Self::key_arn(&self.account.id, &self.account.region, id);
        self.account
            .iam
            .set_resource_policy(&arn, policy)
            .map_err(|faults| KmsError::new("MalformedPolicyDocumentException", faults.join("; ")))?;
        self.ring.place(id, spec, BTreeMap::new(), Some(policy.to_string()), self.now())
    }

    /// Tells IAM the policies that keys were made with; the others have the default one, which leaves all to identity policies.
    fn hold_policies(&self) {
        for (arn, policy) in self.ring.policies() {
            // Read when the key was made.
            let _ = self.account.iam.set_resource_policy(&arn, &policy);
        }
    }

    /// Begins to make `count` future keys of a specification on other threads, so that `CreateKey` finds them ready: RSA
    /// would cost a starting stack a quarter of a second each. Must be called within a runtime.
    pub fn stock_up(self: &Arc<Self>, spec: KeySpec, count: usize) {
        for _ in 0..count {
            let kms = Arc::clone(self);
            // Without stock a key is made when it is asked for, and a failure shows there.
            tokio::task::spawn_blocking(move || kms.ring.stock_up(spec, kms.now()));
        }
    }

    /// Gives a key an alias (`alias/…`) on behalf of the stack.
    ///
    /// # Errors
    /// What `CreateAlias` refuses.
    pub fn create_alias(&self, name: &str, key: &str) -> Result<(), KmsError> {
        let input = json!({ "AliasName": name, "TargetKeyId": key });
        self.perform(&self.account.operator(), None, "CreateAlias", &input).map(|_| ())
    }

    /// Gives a key an alias that AWS keeps for itself (`alias/aws/ssm`), which no caller may do.
    ///
    /// # Errors
    /// `NotFoundException` when there is no such key.
    pub fn create_service_alias(&self, service: &str, key: &str) -> Result<(), KmsError> {
        self.ring.reserve_alias(&format!("alias/aws/{service}"), key, self.now())
    }

    /// The condition keys that KMS adds about the key of this ARN to a call that another service makes with it.
    pub(crate) fn said_of(&self, arn: &str) -> Vec<(String, String)> {
        let aliases = self.ring.aliases_of(arn).into_iter();
        aliases.map(|alias| ("kms:ResourceAliases".to_owned(), alias)).collect()
    }

    /// Whether something may be sealed under or opened with the key of this ARN now, whoever asks.
    ///
    /// # Errors
    /// What KMS says of a key that is not there, disabled, waiting for its deletion, or not for encryption.
    pub fn sealing(&self, arn: &str) -> Result<(), KmsError> {
        self.ring.sealing(arn, self.now())
    }

    /// One operation without HTTP, authorised like any other but neither counted nor touched by faults. `via` is the
    /// service that calls on behalf of its caller (`s3.us-east-1.amazonaws.com`), which becomes `kms:ViaService`.
    ///
    /// # Errors
    /// What the operation refuses.
    pub fn perform(
        &self,
        caller: &impl Caller,
        via: Option<&str>,
        operation: &str,
        input: &Value,
    ) -> Result<Value, KmsError> {
        let answer = self.ring.call(operation, input, self.now(), &|action, resource, conditions| {
            self.authorize(caller, via, action, resource, conditions)
        });
        if operation == "CreateKey" && answer.is_ok() && input.get("Policy").is_some() {
            self.hold_policies();
        }
        answer
    }

    fn authorize(
        &self,
        caller: &impl Caller,
        via: Option<&str>,
        action: &str,
        resource: &str,
        conditions: &Conditions,
    ) -> Result<(), KmsError> {
        let mut context = Context::new();
        for (name, values) in conditions {
            // Names that differ in case only are one condition key, so their values join.
            context = values.iter().fold(context, |context, value| context.with(name, value));
        }
        if let Some(via) = via {
            context = context.with("kms:ViaService", via);
        }
        match self.account.iam.authorize(caller, action, resource, &context) {
            Decision::Allow => Ok(()),
            Decision::Deny { reason } => {
                let message = denial(caller.principal(), action, resource, &reason);
                Err(KmsError::new("AccessDeniedException", message))
            }
        }
    }

    fn now(&self) -> Millis {
        let passed = self.account.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis::try_from(passed.as_millis()).unwrap_or(Millis::MAX)
    }

    fn count(&self, operation: &str) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry(operation.to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests;
