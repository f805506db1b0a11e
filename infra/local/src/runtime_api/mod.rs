//! The Lambda Runtime API around the real function binaries.
//!
//! [`pool::Pool`] keeps the processes of one function, [`sandbox::Sandbox`] is one of them, and [`endpoint::Endpoint`] is
//! the HTTP interface that this one process polls. A process starts from an empty environment ([`environment`]) and
//! dies with the stack.

mod endpoint;
pub(crate) mod environment;
pub(crate) mod pool;
mod sandbox;

use bytes::Bytes;

use crate::view::Span;

/// Largest payload of a synchronous invocation, in bytes.
pub const REQUEST_LIMIT: usize = 6 * 1024 * 1024;
/// Largest answer of a function, in bytes.
pub const RESPONSE_LIMIT: usize = 6_291_556;

/// What a function made of one event.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The function's answer, or the error object.
    pub payload: Bytes,
    /// `Unhandled` when the function failed, as in `X-Amz-Function-Error`.
    pub function_error: Option<String>,
    /// What the process wrote to stdout and stderr during this event.
    pub log: String,
    /// The request id under which the process saw the event.
    pub request_id: String,
}

/// What arrives at the process with the event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) request_id: String,
    pub(crate) payload: Bytes,
    pub(crate) client_context: Option<String>,
    /// The alias or version it was sent to.
    pub(crate) qualifier: Option<String>,
    /// What is seen of it.
    pub(crate) seen: Option<Span>,
}
