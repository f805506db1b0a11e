use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use shared::port::{Fault, FaultKind};

pub(crate) type Failure<E> = SdkError<E, HttpResponse>;

/// What a failed call means to its caller. Of the answer only the error code is kept: its text may repeat the request.
pub(crate) fn fault<E>(operation: &'static str, failure: &Failure<E>) -> Fault
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = status(failure);
    let code = failure.as_service_error().and_then(ProvideErrorMetadata::code);
    let kind = match (code, status) {
        (Some("SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded"), _) | (_, Some(429)) => {
            FaultKind::Throttled
        }
        (Some("ConditionalRequestConflict"), _) | (_, Some(409)) => FaultKind::Conflict,
        (Some("RequestTimeout"), _) => FaultKind::Unavailable,
        (_, Some(401 | 403)) => FaultKind::Denied,
        (_, Some(404)) => FaultKind::NotFound,
        (_, Some(400..=499)) => FaultKind::Invalid,
        _ if matches!(failure, SdkError::ConstructionFailure(_)) => FaultKind::Invalid,
        _ => FaultKind::Unavailable,
    };
    let cause = match (code, status) {
        (Some(code), Some(status)) => format!("{status} {code}"),
        (None, Some(status)) => format!("{status}"),
        _ => chain(failure),
    };
    Fault::new(kind, "s3", operation).caused_by(cause)
}

pub(crate) fn code<E: ProvideErrorMetadata>(failure: &Failure<E>) -> Option<&str> {
    failure.as_service_error().and_then(ProvideErrorMetadata::code)
}

pub(crate) fn status<E>(failure: &Failure<E>) -> Option<u16> {
    failure.raw_response().map(|answer| answer.status().as_u16())
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
