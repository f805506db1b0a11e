//! What an operator is told when an act is refused.

use serde_json::{Value, json};
use shared::port::Fault;

use crate::refusal::Refusal;

/// Why an act was refused. The names are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// The body is no JSON object.
    MalformedBody,
    /// This build has no such operation.
    UnsupportedOperation,
    /// A field that must be there is not.
    MissingField,
    /// A field has another JSON type than it must have.
    WrongType,
    /// A field that the operation does not know, or not beside another one.
    UnknownField,
    /// `operator` is not 1–128 printable ASCII characters.
    InvalidOperator,
    /// `tenant` does not match `[a-z0-9][a-z0-9-]{0,47}`.
    InvalidTenant,
    /// `scope` is none that a data key can have.
    InvalidScope,
    /// `keys` is not 1–1,000 ids.
    InvalidKeys,
    /// `cursor` is no id of a data key.
    InvalidCursor,
    /// `limit` is out of its range.
    InvalidLimit,
    /// `confirm` does not repeat what is to be destroyed.
    NotConfirmed,
    /// A name is no plain identifier.
    InvalidName,
    /// `step` is none of `encrypt`, `verify` and `clear`.
    InvalidStep,
    /// The key is not the one column of a unique index over all rows, never null, of a type that has an order.
    InvalidKeyColumn,
    /// The column is of a type that is not encrypted in place.
    InvalidColumn,
    /// The column for records is none of `bytea` of its own.
    InvalidSealed,
    /// The column must be able to be null before it can be cleared.
    ColumnNotNullable,
    /// The target has no such table or columns, or they may not be seen.
    TableUnknown,
    /// The target refuses this login, or one of its statements.
    TargetDenied,
    /// This deployment has no target.
    NoTarget,
    /// There is no such tenant.
    TenantUnknown,
    /// The tenant has no such keys.
    KeysUnknown,
    /// KMS refuses this deployment, or the key is disabled or about to be deleted.
    KmsDenied,
    /// KMS asks us to slow down.
    KmsThrottled,
    /// KMS does not answer.
    KmsUnavailable,
    /// KMS answered what it never should.
    KmsRefused,
}

impl Code {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedBody => "malformed_body",
            Self::UnsupportedOperation => "unsupported_operation",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::UnknownField => "unknown_field",
            Self::InvalidOperator => "invalid_operator",
            Self::InvalidTenant => "invalid_tenant",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidKeys => "invalid_keys",
            Self::InvalidCursor => "invalid_cursor",
            Self::InvalidLimit => "invalid_limit",
            Self::NotConfirmed => "not_confirmed",
            Self::InvalidName => "invalid_name",
            Self::InvalidStep => "invalid_step",
            Self::InvalidKeyColumn => "invalid_key_column",
            Self::InvalidColumn => "invalid_column",
            Self::InvalidSealed => "invalid_sealed",
            Self::ColumnNotNullable => "column_not_nullable",
            Self::TableUnknown => "table_unknown",
            Self::TargetDenied => "target_denied",
            Self::NoTarget => "no_target",
            Self::TenantUnknown => "tenant_unknown",
            Self::KeysUnknown => "keys_unknown",
            Self::KmsDenied => "kms_denied",
            Self::KmsThrottled => "kms_throttled",
            Self::KmsUnavailable => "kms_unavailable",
            Self::KmsRefused => "kms_refused",
        }
    }
}

impl From<&Fault> for Code {
    /// What a failed call to KMS means.
    fn from(fault: &Fault) -> Self {
        match Refusal::from(fault) {
            Refusal::KmsDenied => Self::KmsDenied,
            Refusal::KmsThrottled => Self::KmsThrottled,
            Refusal::KmsUnavailable => Self::KmsUnavailable,
            _ => Self::KmsRefused,
        }
    }
}

/// A refused act: nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denied {
    /// Why.
    pub code: Code,
    /// The field it is about.
    pub field: Option<String>,
}

impl Denied {
    pub(crate) fn new(code: Code) -> Self {
        Self { code, field: None }
    }

    pub(crate) fn of(code: Code, field: &'static str) -> Self {
        Self::of_field(code, field.to_owned())
    }

    pub(crate) fn of_field(code: Code, field: String) -> Self {
        Self { code, field: Some(field) }
    }

    /// `{"error":{"code","field"?}}`
    pub fn into_value(self) -> Value {
        match self.field {
            Some(field) => json!({ "error": { "code": self.code.as_str(), "field": field } }),
            None => json!({ "error": { "code": self.code.as_str() } }),
        }
    }
}
