//! What KMS answers when it refuses: code, optional message, HTTP status.

use std::fmt;

/// A refusal as the awsJson1.1 protocol carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsError {
    /// The error's shape name, e.g. `DisabledException`.
    pub code: &'static str,
    /// Absent for the errors that KMS answers without text.
    pub message: Option<String>,
    /// 400 for a refusal, 500 and 503 for a failure of the service.
    pub status: u16,
}

impl KmsError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), status: 400 }
    }

    fn silent(code: &'static str) -> Self {
        Self { code, message: None, status: 400 }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// The validation text of the service's generated checks.
    pub(crate) fn constraint(member: &str, shown: &str, rule: &str) -> Self {
        let name = lower_first(member);
        Self::invalid(format!(
            "1 validation error detected: Value{shown} at '{name}' failed to satisfy constraint: Member must {rule}"
        ))
    }

    pub(crate) fn missing(member: &str) -> Self {
        Self::constraint(member, " null", "not be null")
    }

    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new("NotFoundException", message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new("UnsupportedOperationException", message)
    }

    pub(crate) fn invalid_ciphertext() -> Self {
        Self::silent("InvalidCiphertextException")
    }

    pub(crate) fn invalid_signature() -> Self {
        Self::silent("KMSInvalidSignatureException")
    }

    pub(crate) fn incorrect_key() -> Self {
        Self::new(
            "IncorrectKeyException",
            "The key ID in the request does not identify a CMK that can perform this operation.",
        )
    }

    pub(crate) fn disabled(arn: &str) -> Self {
        Self::new("DisabledException", format!("{arn} is disabled."))
    }

    pub(crate) fn invalid_state(message: impl Into<String>) -> Self {
        Self::new("KMSInvalidStateException", message)
    }

    pub(crate) fn wrong_usage(arn: &str, usage: &str, operation: &str) -> Self {
        Self::new("InvalidKeyUsageException", format!("{arn} key usage is {usage} which is not valid for {operation}."))
    }

    pub(crate) fn wrong_algorithm(algorithm: &str, spec: &str) -> Self {
        Self::new("InvalidKeyUsageException", format!("Algorithm {algorithm} is incompatible with key spec {spec}."))
    }

    pub(crate) fn dry_run() -> Self {
        Self::new("DryRunOperationException", "The request would have succeeded, but the DryRun option is set.")
    }

    pub(crate) fn unknown_operation() -> Self {
        Self::silent("UnknownOperationException")
    }

    pub(crate) fn internal() -> Self {
        Self { code: "KMSInternalException", message: None, status: 500 }
    }

    pub(crate) fn throttled() -> Self {
        Self::new(
            "ThrottlingException",
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        )
    }
}

impl fmt::Display for KmsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)?;
        self.message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
    }
}

impl std::error::Error for KmsError {}

fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
