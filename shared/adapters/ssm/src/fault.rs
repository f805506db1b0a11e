//! What SSM refuses, in the words of the ports.

use std::error::Error;

use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use shared::port::{Fault, FaultKind};

const SERVICE: &str = "ssm";

/// Translates a failed call. The cause is the error's code and, where `told` says so, its message: the message of a refused
/// write could repeat what was to be written.
pub(crate) fn of<E>(operation: &'static str, told: bool, error: &SdkError<E>) -> Fault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let (code, message) = (service.err().code(), service.err().message().filter(|_| told));
            let answered = service.raw().status();
            let kind = match kind_of(code.unwrap_or_default()) {
                Some(kind) => kind,
                // Success that cannot be read is an answer of which a part is missing: whether the call took effect is unknown.
                None if answered.is_server_error() || answered.is_success() => FaultKind::Unavailable,
                None => FaultKind::Invalid,
            };
            let cause = [code, message].into_iter().flatten().collect::<Vec<_>>().join(": ");
            Fault::new(kind, SERVICE, operation).caused_by(cause)
        }
        SdkError::ConstructionFailure(_) => broken(operation, "the request could not be built"),
        SdkError::ResponseError(_) => {
            Fault::new(FaultKind::Unavailable, SERVICE, operation).caused_by("no usable answer")
        }
        SdkError::TimeoutError(_) => {
            Fault::new(FaultKind::Unavailable, SERVICE, operation).caused_by("no answer in time")
        }
        _ => Fault::new(FaultKind::Unavailable, SERVICE, operation).caused_by("no connection"),
    }
}

/// What is stored is not what its name says: nobody called wrongly, and people have to mend it.
pub(crate) fn unusable(operation: &'static str, what: &'static str) -> Fault {
    Fault::new(FaultKind::Unavailable, SERVICE, operation).caused_by(what)
}

/// Something that breaks the contract of the call.
pub(crate) fn broken(operation: &'static str, what: &'static str) -> Fault {
    Fault::new(FaultKind::Invalid, SERVICE, operation).caused_by(what)
}

/// No answer in time.
pub(crate) fn late(operation: &'static str) -> Fault {
    Fault::new(FaultKind::Unavailable, SERVICE, operation).caused_by("no answer in time")
}

fn kind_of(code: &str) -> Option<FaultKind> {
    Some(match code {
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "TooManyUpdates"
        | "ParameterLimitExceeded" => FaultKind::Throttled,
        "InternalServerError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        // The session of this process has ended, which says nothing of what was asked for.
        | "ExpiredTokenException" => FaultKind::Unavailable,
        "ParameterNotFound" | "ParameterVersionNotFound" => FaultKind::NotFound,
        "ParameterAlreadyExists" => FaultKind::Conflict,
        // A KMS key that is disabled or gone refuses like a policy does: only people can change it.
        "AccessDeniedException"
        | "InvalidKeyId"
        | "UnrecognizedClientException"
        | "InvalidSignatureException" => FaultKind::Denied,
        _ => return None,
    })
}
