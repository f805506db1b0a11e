//! What the services that speak awsJson1.1 have in common: signature, dispatch, input checks, answers.

mod input;
mod refusal;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::{Method, StatusCode};
use serde_json::{Value, json};

pub(crate) use self::input::Input;
pub use self::refusal::Refusal;
use crate::{
    account::Account,
    http::{Request, Response, answer},
    request_id,
    sigv4::{self, Authenticated, Payload, Rejection, Scope},
};

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const SKEW: Duration = Duration::from_secs(300);

/// One service's own names, and how often it has refused.
#[derive(Debug)]
pub(crate) struct Protocol {
    /// As in the scope of signatures, e.g. `kms`.
    pub(crate) service: &'static str,
    /// What stands before the operation in `X-Amz-Target`, e.g. `TrentService.`.
    pub(crate) target: &'static str,
    refusals: AtomicU64,
}

impl Protocol {
    pub(crate) fn new(service: &'static str, target: &'static str) -> Self {
        Self { service, target, refusals: AtomicU64::new(0) }
    }

    /// The operation that a request names.
    pub(crate) fn operation(&self, request: &Request) -> Option<String> {
        let target = request.headers.get("x-amz-target")?.to_str().ok()?;
        let right_place = request.method == Method::POST && request.uri.path() == "/" && request.uri.query().is_none();
        target.strip_prefix(self.target).filter(|_| right_place).map(str::to_owned)
    }

    pub(crate) fn authenticate(&self, request: &Request, account: &Account) -> Result<Authenticated, Refusal> {
        let scope = Scope { service: self.service, region: &account.region, s3_path: false, skew: SKEW };
        sigv4::verify_header(request, Payload::Bytes(&request.body), scope, account).map_err(|rejection| {
            let (code, message) = wording(&rejection);
            Refusal::new(code, message)
        })
    }

    /// The answer to a call; every answer carries a request id.
    pub(crate) fn answer(&self, outcome: Result<Value, Refusal>) -> Response {
        let (status, body) = match outcome {
            Ok(output) => (StatusCode::OK, output),
            Err(refusal) => self.refusal(&refusal),
        };
        let id = request_id::fresh();
        let headers = [("content-type", CONTENT_TYPE), ("x-amzn-requestid", id.as_str())];
        answer(status, &headers, body.to_string())
    }

    fn refusal(&self, refusal: &Refusal) -> (StatusCode, Value) {
        // Both spellings are seen in the wild: no caller may depend on one.
        let odd = self.refusals.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        let prefix = if odd { format!("com.amazonaws.{}#", self.service) } else { String::new() };
        let mut body = json!({ "__type": format!("{prefix}{}", refusal.code) });
        if let (Some(message), Some(members)) = (&refusal.message, body.as_object_mut()) {
            members.insert("message".to_owned(), json!(message));
        }
        (StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
    }
}

/// The JSON of a request.
pub(crate) fn input(request: &Request) -> Result<Value, Refusal> {
    let kind = request.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind != CONTENT_TYPE {
        return Err(Refusal::serialization("The content type is not application/x-amz-json-1.1"));
    }
    serde_json::from_slice(&request.body).map_err(|_| Refusal::serialization("The request is not JSON"))
}

/// How awsJson services word a refused signature.
fn wording(rejection: &Rejection) -> (&'static str, String) {
    match rejection {
        Rejection::Missing => ("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned()),
        Rejection::Malformed => {
            ("IncompleteSignatureException", "The request signature does not conform to AWS standards.".to_owned())
        }
        Rejection::UnknownKey | Rejection::TokenInvalid => {
            ("UnrecognizedClientException", "The security token included in the request is invalid.".to_owned())
        }
        Rejection::TokenExpired => {
            ("ExpiredTokenException", "The security token included in the request is expired".to_owned())
        }
        Rejection::UnsignedHeader(names) => {
            ("InvalidSignatureException", format!("Headers that must be signed are not: {}", names.join(", ")))
        }
        Rejection::SignatureMismatch => (
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.".to_owned(),
        ),
        Rejection::WrongScope => {
            ("InvalidSignatureException", "Credential should be scoped to a valid region and service.".to_owned())
        }
        Rejection::Skew | Rejection::Expired | Rejection::TooLongExpiry => {
            ("InvalidSignatureException", "Signature expired or not yet current".to_owned())
        }
    }
}
