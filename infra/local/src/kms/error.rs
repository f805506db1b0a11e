//! What KMS refuses, and how it words it.

pub use crate::aws_json::Refusal as KmsError;

impl KmsError {
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

    pub(crate) fn invalid_mac() -> Self {
        Self::silent("KMSInvalidMacException")
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

    pub(crate) fn internal() -> Self {
        Self::failure("KMSInternalException")
    }

    pub(crate) fn throttled() -> Self {
        Self::new(
            "ThrottlingException",
            "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.",
        )
    }
}
