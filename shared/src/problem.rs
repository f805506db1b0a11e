//! Refusals and faults as the caller sees them: `application/problem+json` with a stable code (RFC 9457).

use std::fmt;

use serde_json::{Value, json};

use crate::port::{Fault, FaultKind};

macro_rules! codes {
    ($($variant:ident $status:literal $code:literal $title:literal,)+) => {
        /// A stable code. `docs/errors.md` says what each means and what a caller does about it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code {
            $(#[doc = $title] $variant,)+
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The HTTP status it is sent with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The code as sent.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The title: one sentence that is the same for every occurrence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    MalformedRequest 400 "malformed_request" "The request is not of the documented form",
    UnsupportedMode 400 "unsupported_mode" "This upload mode does not exist here",
    Unauthorized 401 "unauthorized" "The credential was not accepted",
    Forbidden 403 "forbidden" "The policy does not allow this",
    InsufficientScope 403 "insufficient_scope" "The token does not hold the scope for this",
    QuotaExceeded 403 "quota_exceeded" "There is no room for this under the quota",
    AuthorizerMissing 403 "authorizer_missing" "The request did not pass the gate",
    NotFound 404 "not_found" "There is no such thing, or it is not yours",
    MethodNotAllowed 405 "method_not_allowed" "The method is not allowed here",
    FileNotReady 409 "file_not_ready" "The file is not ready to be read",
    FileUnscannable 409 "file_unscannable" "The file could not be scanned",
    FileAlreadyUploaded 409 "file_already_uploaded" "The file was uploaded already",
    PartsMissing 409 "parts_missing" "Not all parts are there as they were signed",
    IdempotencyConflict 409 "idempotency_conflict" "The idempotency key was used with another request",
    FileUnavailable 410 "file_unavailable" "The file is no longer available",
    PayloadTooLarge 413 "payload_too_large" "The request or the file is too large",
    UnsupportedType 415 "unsupported_type" "This content type is not accepted",
    TooManyRequests 429 "too_many_requests" "Too many requests",
    Internal 500 "internal_error" "Something went wrong on our side",
    ServiceUnavailable 503 "service_unavailable" "A service we depend on does not answer; try again",
    SignerUnavailable 503 "signer_unavailable" "No signing session with enough life left; try again",
    TrustStale 503 "trust_stale" "The trust data is too old to decide; try again",
}

/// A refusal or fault on its way to the caller. It carries nothing of the cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// Seconds after which a retry makes sense; sent as `Retry-After`.
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem; 429 and 503 carry `Retry-After: 1`.
    pub const fn new(code: Code) -> Self {
        let retry_after = if matches!(code.status(), 429 | 503) { Some(1) } else { None };
        Self { code, retry_after }
    }

    /// The body (RFC 9457 §3).
    pub fn body(self, request_id: &str) -> Value {
        json!({"type": "about:blank", "title": self.code.title(), "status": self.code.status(),
            "code": self.code.as_str(), "request_id": request_id})
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.as_str())
    }
}

impl std::error::Error for Problem {}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

impl From<&Fault> for Problem {
    /// A fault of the surroundings is 503; a fault that only we can have caused is 500.
    fn from(fault: &Fault) -> Self {
        Self::new(match fault.kind {
            FaultKind::Throttled | FaultKind::Unavailable | FaultKind::Conflict | FaultKind::Denied => {
                Code::ServiceUnavailable
            }
            FaultKind::NotFound | FaultKind::Invalid => Code::Internal,
        })
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::from(&fault)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_every_unavailability_says_when_to_retry() {
        let codes: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Problem::new(*code).retry_after.is_some(), matches!(code.status(), 429 | 503), "{code:?}");
        }
    }

    #[test]
    fn a_fault_leaves_nothing_of_its_cause_in_the_body() {
        let fault = Fault::new(FaultKind::Unavailable, "rds", "call").caused_by("canary-77aa");
        let body = Problem::from(fault).body("r-1").to_string();
        assert!(!body.contains("canary") && !body.contains("rds"), "{body}");
    }
}
