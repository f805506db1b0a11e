//! awsJson1.1 over HTTP: signature, dispatch, answers.

use std::{
    io::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Kms, error::KmsError, keyring::Keyring};
use crate::{
    faults::Strike,
    http::{Request, Response, answer},
    request_id,
    sigv4::{self, Authenticated, Payload, Rejection, Scope},
};

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const TARGET: &str = "TrentService.";
const SKEW: Duration = Duration::from_secs(300);

impl Kms {
    /// Answers one request; every answer carries a request id.
    pub(super) async fn answer(self: Arc<Self>, request: Request) -> Response {
        let (status, body) = match self.respond(&request).await {
            Ok(output) => (StatusCode::OK, output),
            Err(error) => self.refusal(&error),
        };
        let id = request_id::fresh();
        let headers = [("content-type", CONTENT_TYPE), ("x-amzn-requestid", id.as_str())];
        answer(status, &headers, body.to_string())
    }

    async fn respond(self: &Arc<Self>, request: &Request) -> Result<Value, KmsError> {
        let operation = operation(request);
        if let Some(operation) = operation.as_deref().filter(|operation| Keyring::knows(operation)) {
            self.count(operation);
        }
        match self.faults.strike().await {
            Some(Strike::Throttle) => return Err(KmsError::throttled()),
            Some(Strike::Unavailable) => return Err(KmsError::internal()),
            None => {}
        }
        let caller = self.authenticate(request)?;
        let Some(operation) = operation else { return Err(KmsError::unknown_operation()) };
        let input = input(request)?;
        // RSA keys take their time to make, and signatures some: not on a thread that others wait for.
        let kms = Arc::clone(self);
        let name = operation.clone();
        let outcome = tokio::task::spawn_blocking(move || kms.perform(&caller, None, &name, &input))
            .await
            .unwrap_or_else(|_| Err(KmsError::internal()));
        if outcome.as_ref().is_err_and(|error| error.code == "UnknownOperationException") {
            // An operation that is missing here must be seen by whoever develops, even if the caller hides the error.
            let _ = writeln!(std::io::stderr(), "kms: unknown operation {operation:?}");
        }
        outcome
    }

    fn authenticate(&self, request: &Request) -> Result<Authenticated, KmsError> {
        let scope = Scope { service: "kms", region: &self.account.region, s3_path: false, skew: SKEW };
        sigv4::verify_header(request, Payload::Bytes(&request.body), scope, &self.account).map_err(|rejection| {
            let (code, message) = wording(&rejection);
            KmsError::new(code, message)
        })
    }

    fn refusal(&self, error: &KmsError) -> (StatusCode, Value) {
        // Both spellings are seen in the wild: no caller may depend on one.
        let prefix = if self.refusals.fetch_add(1, Ordering::Relaxed) % 2 == 1 { "com.amazonaws.kms#" } else { "" };
        let mut body = json!({ "__type": format!("{prefix}{}", error.code) });
        if let (Some(message), Some(members)) = (&error.message, body.as_object_mut()) {
            members.insert("message".to_owned(), json!(message));
        }
        (StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
    }
}

fn operation(request: &Request) -> Option<String> {
    let target = request.headers.get("x-amz-target")?.to_str().ok()?;
    let right_place = request.method == Method::POST && request.uri.path() == "/" && request.uri.query().is_none();
    target.strip_prefix(TARGET).filter(|_| right_place).map(str::to_owned)
}

fn input(request: &Request) -> Result<Value, KmsError> {
    let kind = request.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind != CONTENT_TYPE {
        return Err(KmsError::serialization("The content type is not application/x-amz-json-1.1"));
    }
    serde_json::from_slice(&request.body).map_err(|_| KmsError::serialization("The request is not JSON"))
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
