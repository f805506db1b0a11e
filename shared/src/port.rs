//! What the outside world must be able to do for a decision, and how it fails.
//!
//! Adapters implement these traits; tests implement them with small honest fakes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::jwks::Algorithm;
use crate::name::{Identifier, Tenant};
use crate::secret::SecretBytes;
use crate::url::HttpsUrl;

/// Why a call to the outside failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// The service asks us to slow down; try again later.
    Throttled,
    /// The service refused our identity or right.
    Denied,
    /// The thing does not exist.
    NotFound,
    /// The service found the request itself wrong.
    Invalid,
    /// Somebody else changed the thing meanwhile.
    Conflict,
    /// No usable answer in time; whether the call took effect is unknown.
    Unavailable,
}

/// A failed call. `Display` names the call and the kind; the cause is reached through `source` only.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// The service that was called, e.g. `kms`.
    pub service: &'static str,
    /// The operation, e.g. `Sign`.
    pub operation: &'static str,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault without a cause.
    pub fn new(kind: FaultKind, service: &'static str, operation: &'static str) -> Self {
        Self { kind, service, operation, source: None }
    }

    /// The same fault with its cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, FaultKind::Throttled | FaultKind::Unavailable | FaultKind::Conflict)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Throttled => "throttled",
            FaultKind::Denied => "denied",
            FaultKind::NotFound => "not found",
            FaultKind::Invalid => "invalid",
            FaultKind::Conflict => "conflict",
            FaultKind::Unavailable => "unavailable",
        };
        write!(f, "{} {}: {kind}", self.service, self.operation)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// What a conditional read of an object found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// The object is still the one whose entity tag the caller holds.
    Unchanged,
    /// Another object than the caller holds.
    Found {
        /// The object's bytes.
        body: Vec<u8>,
        /// Its entity tag, quotes included.
        etag: String,
    },
    /// There is no such object.
    Missing,
}

/// Reads whole small objects.
pub trait ObjectReader: Send + Sync + 'static {
    /// Reads `key`; `known` is the entity tag the caller holds already.
    fn read(&self, key: &str, known: Option<&str>) -> impl Future<Output = Result<Read, Fault>> + Send;
}

/// Under which condition a write may happen (RFC 9110 §13.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Precondition {
    /// No condition.
    Always,
    /// Only if there is no such object (`If-None-Match: *`).
    Absent,
    /// Only if the object's entity tag is this one (`If-Match`).
    Matches(String),
}

/// What a conditional write did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written {
    /// The object was stored.
    Stored {
        /// Its entity tag.
        etag: String,
    },
    /// The condition did not hold; nothing was written.
    PreconditionFailed,
}

/// Writes whole small objects.
pub trait ObjectWriter: Send + Sync + 'static {
    /// Writes `body` to `key` under `when`.
    fn write(
        &self,
        key: &str,
        body: Vec<u8>,
        when: Precondition,
    ) -> impl Future<Output = Result<Written, Fault>> + Send;
}

/// Signs with a private key: one that never leaves KMS, or one that SSM keeps and this process reads.
pub trait Signer: Send + Sync + 'static {
    /// Signs `input` (not its digest, at most 4,096 bytes) and answers the signature in JOSE form (RFC 7518 §3.4: r‖s).
    fn sign(
        &self,
        key: &str,
        algorithm: Algorithm,
        input: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, Fault>> + Send;
}

/// Tells the public half of a key that only signs.
pub trait PublicKeys: Send + Sync + 'static {
    /// The public half, DER `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
    fn public_der(&self, key: &str) -> impl Future<Output = Result<Vec<u8>, Fault>> + Send;
}

/// A signing key that was just made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedKey {
    /// How the signer addresses it (KMS: the key ARN, never an alias; SSM: the parameter's name).
    pub key: String,
    /// The public half, DER `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
    pub public_der: Vec<u8>,
}

/// Makes signing keys.
pub trait SigningKeys: Send + Sync + 'static {
    /// Makes one key pair for `algorithm`.
    fn create(&self, algorithm: Algorithm) -> impl Future<Output = Result<CreatedKey, Fault>> + Send;
}

/// What a wrapped data key is bound to: the KMS encryption context `{tenant, purpose, data_key_id}`.
///
/// Always recomputed from the request, never read from a row.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct KeyContext {
    /// The tenant of the verified token.
    pub tenant: Tenant,
    /// `field`, `writer` or `index`.
    pub purpose: &'static str,
    /// The data key's id.
    pub data_key_id: Uuid,
}

/// A fresh data key.
#[derive(Debug)]
pub struct Generated {
    /// The key itself, 32 bytes.
    pub plaintext: SecretBytes,
    /// The key wrapped by KMS.
    pub wrapped: Vec<u8>,
    /// The id of the KMS key material that wrapped it.
    pub material: Option<String>,
}

/// An unwrapped data key.
#[derive(Debug)]
pub struct Unwrapped {
    /// The key itself.
    pub plaintext: SecretBytes,
    /// The id of the KMS key material that had wrapped it.
    pub material: Option<String>,
}

/// Opens data keys of messages that somebody else wrote under a KMS key of theirs.
pub trait MessageKeys: Send + Sync + 'static {
    /// Unwraps a 32-byte data key (KMS `Decrypt` with exactly this key named) that was wrapped in this whole context.
    fn open(
        &self,
        key_arn: &str,
        context: &BTreeMap<String, String>,
        wrapped: &[u8],
    ) -> impl Future<Output = Result<SecretBytes, Fault>> + Send;
}

/// Wraps data keys under the one configured KMS key.
pub trait KeyWrapping: Send + Sync + 'static {
    /// Makes a 32-byte data key (KMS `GenerateDataKey`).
    fn generate(&self, context: &KeyContext) -> impl Future<Output = Result<Generated, Fault>> + Send;
    /// Wraps a data key we hold (KMS `Encrypt`).
    fn wrap(&self, context: &KeyContext, key: &SecretBytes) -> impl Future<Output = Result<Vec<u8>, Fault>> + Send;
    /// Unwraps (KMS `Decrypt` with the key named).
    fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> impl Future<Output = Result<Unwrapped, Fault>> + Send;
}

/// A data key that KMS wrapped anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewrapped {
    /// The same key, wrapped by the key material of today.
    pub wrapped: Vec<u8>,
    /// The id of that material.
    pub material: Option<String>,
}

/// Wraps data keys anew after the KMS key was rotated, without ever seeing one.
pub trait KeyRewrapping: Send + Sync + 'static {
    /// The id of the key material that wraps now (KMS `ListKeyRotations`).
    fn current_material(&self) -> impl Future<Output = Result<String, Fault>> + Send;
    /// Wraps anew under the same KMS key and the same context (KMS `ReEncrypt`).
    fn rewrap(&self, context: &KeyContext, wrapped: &[u8]) -> impl Future<Output = Result<Rewrapped, Fault>> + Send;
}

/// A typed argument of a database function.
#[derive(Clone, PartialEq, Debug)]
pub enum Parameter {
    /// `text`
    Text(String),
    /// `text`, may be null
    OptionalText(Option<String>),
    /// `uuid`
    Uuid(Uuid),
    /// `uuid`, may be null
    OptionalUuid(Option<Uuid>),
    /// `bytea`
    Bytes(Vec<u8>),
    /// `bytea`, may be null
    OptionalBytes(Option<Vec<u8>>),
    /// `bigint`
    Int(i64),
    /// `bigint`, may be null
    OptionalInt(Option<i64>),
    /// `boolean`
    Bool(bool),
    /// `jsonb`
    Json(Value),
    /// `text[]`
    Texts(Vec<String>),
    /// `uuid[]`
    Uuids(Vec<Uuid>),
    /// `uuid[]`, may be null
    OptionalUuids(Option<Vec<Uuid>>),
}

/// A document of somebody else's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// `Content-Type` as sent.
    pub content_type: Option<String>,
    /// The bytes.
    pub body: Vec<u8>,
}

/// Fetches documents from hosts that are not ours.
pub trait Fetch: Send + Sync + 'static {
    /// Fetches `url`. Anything but 200 with at most `longest` bytes is a fault, a redirect included: where a document lies is
    /// configuration, and whoever answers must not move it.
    fn get(&self, url: &HttpsUrl, longest: usize) -> impl Future<Output = Result<Document, Fault>> + Send;
}

/// The database: one SQL function a request.
pub trait Database: Send + Sync + 'static {
    /// Calls a function of the schema `api` (`"api.create_file"`) that returns `jsonb`.
    ///
    /// A domain outcome is a value in the answer; a [`Fault`] means that no answer came.
    fn call(
        &self,
        function: &'static str,
        parameters: Vec<Parameter>,
    ) -> impl Future<Output = Result<Value, Fault>> + Send;
}

/// A column of a table in somebody else's Postgres database, and where its records go. Every name is a plain identifier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnPlace {
    /// The schema.
    pub schema: Identifier,
    /// The table.
    pub table: Identifier,
    /// The column that names a row: unique, never null, of a type that has an order.
    pub key: Identifier,
    /// The column that holds what is to be encrypted.
    pub plain: Identifier,
    /// The `bytea` column of the same table that takes the records.
    pub sealed: Identifier,
    /// Where the table holds several tenants' rows: the column that says whose, and which of its values is meant.
    pub only: Option<(Identifier, String)>,
}

/// What the database says of the columns of a [`ColumnPlace`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnShape {
    /// The type of the key.
    pub key: String,
    /// Whether the key is one of a row: the one column of a unique index over all rows, never null.
    pub key_is_unique: bool,
    /// The type of what is to be encrypted.
    pub plain: String,
    /// Whether that may be null, which it must be before it can be cleared.
    pub plain_may_be_null: bool,
    /// The type of the column for records.
    pub sealed: String,
    /// About how many rows the table has; less than nothing when the database never counted.
    pub rows: i64,
}

/// One row of the column.
pub struct ColumnRow {
    /// The key as text.
    pub key: String,
    /// What stands in clear, unless it is null or too long.
    pub plain: Option<SecretBytes>,
    /// How many bytes stand in clear.
    pub length: Option<i64>,
    /// The record beside it.
    pub sealed: Option<Vec<u8>>,
}

/// One change of a row, made only where the row still is what it was read as.
pub struct ColumnChange {
    /// The key as text.
    pub key: String,
    /// What stands in clear.
    pub plain: SecretBytes,
    /// The record that stands beside it.
    pub before: Option<Vec<u8>>,
    /// The record that is to stand there.
    pub record: Vec<u8>,
}

/// A column in a database that is not ours.
pub trait Column: Send + Sync + 'static {
    /// What the columns are; `None` where the table or one of them does not exist, or may not be seen.
    fn shape(&self, place: &ColumnPlace) -> impl Future<Output = Result<Option<ColumnShape>, Fault>> + Send;
    /// At most `limit` rows after the key `after`, in the key's order, that hold anything. A value in clear of more than `longest`
    /// bytes is left where it is.
    fn page(
        &self,
        place: &ColumnPlace,
        shape: &ColumnShape,
        after: Option<&str>,
        limit: i64,
        longest: i64,
    ) -> impl Future<Output = Result<Vec<ColumnRow>, Fault>> + Send;
    /// Puts records beside what they were made of; answers how many rows were still that.
    fn seal(
        &self,
        place: &ColumnPlace,
        shape: &ColumnShape,
        changes: Vec<ColumnChange>,
    ) -> impl Future<Output = Result<u64, Fault>> + Send;
    /// Takes away what stands in clear beside the record that was made of it (`before` is that record); answers how many rows were
    /// still that.
    fn clear(
        &self,
        place: &ColumnPlace,
        shape: &ColumnShape,
        changes: Vec<ColumnChange>,
    ) -> impl Future<Output = Result<u64, Fault>> + Send;
}

macro_rules! through_arc {
    ($port:ident { $(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty;)+ }) => {
        impl<T: $port> $port for Arc<T> {
            $(fn $name(&self $(, $argument: $type)*) -> impl Future<Output = Result<$answer, Fault>> + Send {
                (**self).$name($($argument),*)
            })+
        }
    };
}

through_arc!(ObjectReader { fn read(&self, key: &str, known: Option<&str>) -> Read; });
through_arc!(ObjectWriter { fn write(&self, key: &str, body: Vec<u8>, when: Precondition) -> Written; });
through_arc!(Signer { fn sign(&self, key: &str, algorithm: Algorithm, input: &[u8]) -> Vec<u8>; });
through_arc!(PublicKeys { fn public_der(&self, key: &str) -> Vec<u8>; });
through_arc!(SigningKeys { fn create(&self, algorithm: Algorithm) -> CreatedKey; });
through_arc!(KeyWrapping {
    fn generate(&self, context: &KeyContext) -> Generated;
    fn wrap(&self, context: &KeyContext, key: &SecretBytes) -> Vec<u8>;
    fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Unwrapped;
});
through_arc!(MessageKeys {
    fn open(&self, key_arn: &str, context: &BTreeMap<String, String>, wrapped: &[u8]) -> SecretBytes;
});
through_arc!(KeyRewrapping {
    fn current_material(&self) -> String;
    fn rewrap(&self, context: &KeyContext, wrapped: &[u8]) -> Rewrapped;
});
through_arc!(Fetch { fn get(&self, url: &HttpsUrl, longest: usize) -> Document; });
through_arc!(Database { fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Value; });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_of_a_fault_never_includes_its_cause() {
        let fault = Fault::new(FaultKind::Unavailable, "kms", "Sign").caused_by("canary-91ab");
        assert_eq!(fault.to_string(), "kms Sign: unavailable");
        assert_eq!(fault.source().map(ToString::to_string).as_deref(), Some("canary-91ab"));
    }
}
