//! OAuth answers: the errors of RFC 6749 §5.2 and the headers every answer carries.

use serde::Serialize;
use serde_json::json;
use shared::http::Response;
use shared::port::{Fault, FaultKind};

/// An error of the token endpoint. Its description is a constant of ours and holds nothing of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Error {
    /// The status code.
    pub(crate) status: u16,
    /// The error code of the RFC.
    pub(crate) code: &'static str,
    /// What the client's developer may know.
    pub(crate) description: &'static str,
}

impl Error {
    /// The request is malformed.
    pub(crate) const INVALID_REQUEST: Self = Self { status: 400, code: "invalid_request", description: "" };
    /// Client authentication failed, whatever the reason.
    pub(crate) const INVALID_CLIENT: Self =
        Self { status: 401, code: "invalid_client", description: "client authentication failed" };
    /// The grant type does not exist here.
    pub(crate) const UNSUPPORTED_GRANT_TYPE: Self =
        Self { status: 400, code: "unsupported_grant_type", description: "" };
    /// The grant exists, and is not for this client.
    pub(crate) const UNAUTHORIZED_CLIENT: Self =
        Self { status: 400, code: "unauthorized_client", description: "the grant is not for this client" };
    /// The refresh token, or what must come with it, does not hold, whatever the reason.
    pub(crate) const INVALID_GRANT: Self =
        Self { status: 400, code: "invalid_grant", description: "the session does not go on with this request" };
    /// The scope is unknown or wider than the client's.
    pub(crate) const INVALID_SCOPE: Self = Self { status: 400, code: "invalid_scope", description: "" };
    /// The resource is not one the client may ask for (RFC 8707 §2).
    pub(crate) const INVALID_TARGET: Self = Self { status: 400, code: "invalid_target", description: "" };
    /// The details are of no known type, or not of its form (RFC 9396 §5).
    pub(crate) const INVALID_AUTHORIZATION_DETAILS: Self =
        Self { status: 400, code: "invalid_authorization_details", description: "" };
    /// Policy does not permit this token. RFC 6749 has no code for it at this endpoint; this is RFC 8628's.
    pub(crate) const ACCESS_DENIED: Self =
        Self { status: 400, code: "access_denied", description: "policy does not permit this token" };
    /// A proof of possession is demanded and missing, or is not what it must be (RFC 9449 §5).
    pub(crate) const INVALID_DPOP_PROOF: Self = Self { status: 400, code: "invalid_dpop_proof", description: "" };
    /// The proof must carry the nonce that comes with this answer (RFC 9449 §8).
    pub(crate) const USE_DPOP_NONCE: Self =
        Self { status: 400, code: "use_dpop_nonce", description: "the proof must carry the nonce of this answer" };
    /// A service we depend on does not answer.
    pub(crate) const TEMPORARILY_UNAVAILABLE: Self =
        Self { status: 503, code: "temporarily_unavailable", description: "try again" };
    /// A bug of ours.
    pub(crate) const SERVER_ERROR: Self = Self { status: 500, code: "server_error", description: "" };

    /// The same error with a description.
    #[must_use]
    pub(crate) const fn because(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// The answer.
    pub(crate) fn answer(self) -> Response {
        let body = match self.description {
            "" => json!({"error": self.code}),
            description => json!({"error": self.code, "error_description": description}),
        };
        let answer = uncached(self.status, &body);
        match self.status {
            503 => answer.header("retry-after", "1"),
            _ => answer,
        }
    }
}

impl From<&Fault> for Error {
    fn from(fault: &Fault) -> Self {
        match fault.kind {
            FaultKind::NotFound | FaultKind::Invalid => Self::SERVER_ERROR,
            FaultKind::Throttled | FaultKind::Denied | FaultKind::Conflict | FaultKind::Unavailable => {
                Self::TEMPORARILY_UNAVAILABLE
            }
        }
    }
}

/// A JSON answer that nobody may keep (RFC 6749 §5.1).
pub(crate) fn uncached(status: u16, body: &impl Serialize) -> Response {
    Response::json(status, body).header("pragma", "no-cache")
}
