//! Why one item of a batch failed.

use shared::port::{Fault, FaultKind};

/// A refused item. The caller sees [`Refusal::code`]; the log keeps [`Refusal::reason`], which says more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// A member is not of its documented form.
    Malformed,
    /// The record's first byte is that of no version, or the message is of no suite that commits to its key.
    UnsupportedVersion,
    /// The record is a message of the AWS Encryption SDK.
    UseImport,
    /// The plaintext is longer than 64 KiB.
    TooLarge,
    /// The token holds no scope for the column.
    Forbidden,
    /// The column's plaintext leaves for managed devices only, and the token was issued on none.
    DeviceDemanded,
    /// The move would take a field away from the subject with whose key it is to be erased.
    LeavesSubject,
    /// The record is a subject's, whose erasure does not reach what was exported.
    Unshreddable,
    /// The message does not say of itself what the caller demands.
    OtherContext,
    /// No key of the tenant has this id.
    UnknownKey,
    /// The key that a record's header names is that of another column.
    OtherColumn,
    /// The key's row names another KMS key than the configured one.
    ForeignKmsKey,
    /// KMS found the wrapped key altered, or answered what is not a data key.
    KeyRefused,
    /// The key was destroyed.
    KeyShredded,
    /// The key belongs to another column.
    OtherScope,
    /// The record was made with another key.
    OtherKey,
    /// The record or its place is not what was sealed.
    NotAuthentic,
    /// KMS refuses our role or has the key disabled.
    KmsDenied,
    /// KMS asks us to slow down.
    KmsThrottled,
    /// KMS does not answer.
    KmsUnavailable,
    /// The batch needs more than 256 data keys.
    TooManyKeys,
    /// Too little time was left to call KMS.
    Deadline,
}

impl Refusal {
    /// The stable code in the answer. What would tell an attacker why a record does not open is one and the same.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnsupportedVersion => "unsupported_version",
            Self::UseImport => "use_import",
            Self::TooLarge => "too_large",
            Self::Forbidden | Self::DeviceDemanded | Self::LeavesSubject => "forbidden",
            Self::Unshreddable => "unshreddable",
            Self::UnknownKey | Self::OtherColumn | Self::ForeignKmsKey | Self::KeyRefused => "key_unavailable",
            Self::KeyShredded => "key_shredded",
            Self::OtherScope | Self::OtherKey | Self::OtherContext | Self::NotAuthentic => "decrypt_failed",
            Self::KmsDenied => "kms_denied",
            Self::KmsThrottled => "kms_throttled",
            Self::KmsUnavailable => "kms_unavailable",
            Self::TooManyKeys => "too_many_keys",
            Self::Deadline => "deadline",
        }
    }

    /// The reason in the log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::DeviceDemanded => "device_demanded",
            Self::LeavesSubject => "leaves_subject",
            Self::UnknownKey => "unknown_key",
            Self::OtherColumn => "other_column",
            Self::ForeignKmsKey => "foreign_kms_key",
            Self::KeyRefused => "key_refused",
            Self::OtherScope => "other_scope",
            Self::OtherKey => "other_key",
            Self::OtherContext => "other_context",
            Self::NotAuthentic => "not_authentic",
            other => other.code(),
        }
    }

    /// Whether the same item may succeed later without anybody changing anything.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::KmsThrottled | Self::KmsUnavailable | Self::TooManyKeys | Self::Deadline)
    }
}

impl From<&Fault> for Refusal {
    /// What a failed call to KMS means for the items that wait for its key.
    fn from(fault: &Fault) -> Self {
        match fault.kind {
            FaultKind::Throttled => Self::KmsThrottled,
            FaultKind::Denied | FaultKind::NotFound => Self::KmsDenied,
            FaultKind::Invalid => Self::KeyRefused,
            FaultKind::Unavailable | FaultKind::Conflict => Self::KmsUnavailable,
        }
    }
}
