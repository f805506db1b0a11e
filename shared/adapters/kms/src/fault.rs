//! What KMS refuses, in the words of the ports.

use std::error::Error;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use shared::port::{Fault, FaultKind};

const SERVICE: &str = "kms";

/// Translates a failed call. Access denials and throttling are not modelled by the SDK, so all errors go by their code.
pub(crate) fn of<E>(operation: &'static str, error: SdkError<E>) -> Fault
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let kind = match &error {
        SdkError::ServiceError(service) => {
            let answered = service.raw().status();
            match kind_of(service.err().code().unwrap_or_default()) {
                Some(kind) => kind,
                // Success that cannot be read is an answer of which a part is missing: whether the call took effect is unknown.
                None if answered.is_server_error() || answered.is_success() => FaultKind::Unavailable,
                None => FaultKind::Invalid,
            }
        }
        SdkError::ConstructionFailure(_) => FaultKind::Invalid,
        _ => FaultKind::Unavailable,
    };
    let cause = match &error {
        SdkError::ServiceError(service) => {
            format!("{} {}", service.raw().status().as_u16(), service.err().code().unwrap_or_default())
        }
        other => chain(other),
    };
    Fault::new(kind, SERVICE, operation).caused_by(cause)
}

/// What the error and its causes display. Of an answer only the code is kept: its text names principals, keys and policies.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// An answer that breaks the contract: a member missing, or another key than the one that was asked for.
pub(crate) fn broken(operation: &'static str, what: &'static str) -> Fault {
    Fault::new(FaultKind::Invalid, SERVICE, operation).caused_by(what)
}

fn kind_of(code: &str) -> Option<FaultKind> {
    Some(match code {
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => FaultKind::Throttled,
        "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "KMSInternalException"
        | "ServiceUnavailableException"
        | "InternalFailure"
        // The session of this process has ended, which says nothing of what was asked for: nobody may remember it as a denial.
        | "ExpiredTokenException" => FaultKind::Unavailable,
        "NotFoundException" => FaultKind::NotFound,
        // A key that somebody disabled or scheduled for deletion refuses like a policy does: only people can change it.
        "AccessDeniedException"
        | "DisabledException"
        | "KMSInvalidStateException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException" => FaultKind::Denied,
        "InvalidCiphertextException" | "IncorrectKeyException" | "InvalidKeyUsageException" | "ValidationException" => {
            FaultKind::Invalid
        }
        _ => return None,
    })
}
