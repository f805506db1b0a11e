//! From a process to a Lambda function: configuration, runtime, one handler, and no way for a panic or an error to tell the
//! caller anything.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::audit::Line;
use crate::clock::Timestamp;
use crate::config::{Environment, Faults};
use crate::http::{Request, Response};
use crate::port::Fault;
use crate::problem::{Code, Problem};
use crate::secret::wipe;

/// The exit status for a configuration that cannot work (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIGURATION: u8 = 64;

/// What is known of an invocation besides its event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invocation {
    /// The id that CloudTrail and the log know.
    pub request_id: String,
    /// When Lambda will kill the sandbox.
    pub deadline: Timestamp,
    /// The ARN that was invoked.
    pub function_arn: String,
}

/// An invocation that failed. What Lambda tells the invoker is this name and nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Failure(&'static str);

impl Failure {
    /// The one message that makes API Gateway answer 401 after an authorizer.
    pub const UNAUTHORIZED: Self = Self("Unauthorized");
    /// A fault of the surroundings: asynchronous events are retried, an authorizer's caller gets 503.
    pub const UNAVAILABLE: Self = Self("ServiceUnavailable");
    /// Trust data never loaded or too old to decide.
    pub const TRUST_STALE: Self = Self("TrustStale");
    /// The event is not of a shape this function knows.
    pub const MALFORMED_EVENT: Self = Self("MalformedEvent");
    /// A bug of ours.
    pub const INTERNAL: Self = Self("InternalError");

    /// The name sent to the invoker.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl From<Failure> for Diagnostic {
    fn from(failure: Failure) -> Self {
        Diagnostic { error_type: failure.0.to_owned(), error_message: failure.0.to_owned() }
    }
}

/// A function: one event in, one answer out.
pub trait Handler: Send + Sync + 'static {
    /// Handles one event. A refusal is an answer; `Err` is an operational fault.
    fn handle(&self, event: Value, invocation: &Invocation) -> impl Future<Output = Result<Value, Failure>> + Send;

    /// The same from the event's text to the answer's: what runs on Lambda. A function whose events have a type of their own reads
    /// them here, once.
    fn handle_text(
        &self,
        event: &RawValue,
        invocation: &Invocation,
    ) -> impl Future<Output = Result<Box<RawValue>, Failure>> + Send {
        async move {
            let event = serde_json::from_str(event.get()).map_err(|_| Failure::MALFORMED_EVENT)?;
            self.handle(event, invocation).await.and_then(|answer| text(&answer))
        }
    }

    /// What is answered when [`Handler::handle`] panicked.
    fn panicked(&self, _invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        Err(Failure::INTERNAL)
    }
}

/// A function behind API Gateway: refusals and faults are problems.
pub trait Routes: Send + Sync + 'static {
    /// Its deployment's name, for the log.
    const FUNCTION: &'static str;

    /// Answers one request.
    fn answer(
        &self,
        request: &Request,
        invocation: &Invocation,
    ) -> impl Future<Output = Result<Response, Problem>> + Send;
}

/// Makes a [`Handler`] of [`Routes`]: parses the event, renders problems, and turns a panic into a plain 500.
pub struct Api<R>(pub R);

impl<R: Routes> Handler for Api<R> {
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        by_text(self, event, invocation).await
    }

    async fn handle_text(&self, event: &RawValue, invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        let Ok(request) = Request::parse(event.get()) else {
            return text(&malformed(R::FUNCTION, invocation).proxied());
        };
        let answer = self.0.answer(&request, invocation).await;
        text(&answer.unwrap_or_else(|problem| Response::problem(problem, &request.request_id)).proxied())
    }

    fn panicked(&self, invocation: &Invocation) -> Result<Box<RawValue>, Failure> {
        text(&Response::problem(Code::Internal.into(), &invocation.request_id).proxied())
    }
}

/// What a caller is told whose event is not API Gateway's, which is logged.
pub fn malformed(function: &'static str, invocation: &Invocation) -> Response {
    Line::new(function, "event").request(&invocation.request_id).decision("deny", "malformed_event").emit();
    Response::problem(Code::MalformedRequest.into(), &invocation.request_id)
}

/// Handles an event that is a value already as its text would be, for handlers whose work begins at the text.
pub async fn by_text<H: Handler>(handler: &H, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
    let event = to_raw_value(&event).map_err(|_| Failure::MALFORMED_EVENT)?;
    let answer = handler.handle_text(&event, invocation).await?;
    serde_json::from_str(answer.get()).map_err(|_| Failure::INTERNAL)
}

/// An answer as JSON text.
pub fn text(answer: &impl Serialize) -> Result<Box<RawValue>, Failure> {
    to_raw_value(answer).map_err(|_| Failure::INTERNAL)
}

/// Runs a function until Lambda ends it. Every configuration fault is logged and the process exits with 64 before it
/// opens a socket.
pub fn run<C, H: Handler>(
    read: impl FnOnce(&Environment) -> Result<C, Faults>,
    open: impl FnOnce(C) -> Result<H, Fault>,
) -> ExitCode {
    let environment = Environment::from_process();
    // A panic's message may hold what was being handled; its place in the source is enough to find it.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        Line::new("boot", "panic").text("level", "ERROR").text("at", &place).emit();
    }));
    let configuration = match read(&environment) {
        Ok(configuration) => configuration,
        Err(faults) => return refuse(&faults),
    };
    let lambda = crate::config::Reader::new(&environment);
    for name in [
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_VERSION",
    ] {
        if lambda.optional(name).is_none() {
            return refuse(&Faults::one(format!("{name} is missing: this program runs inside AWS Lambda")));
        }
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let handler = match open(configuration) {
        Ok(handler) => Arc::new(handler),
        Err(fault) => {
            Line::new("boot", "open").fault(&fault).emit();
            return ExitCode::FAILURE;
        }
    };
    // Boxed, so that the runtime's own future does not carry the type of everything a handler awaits.
    type Answered = BoxFuture<'static, Result<Box<RawValue>, Failure>>;
    let service = service_fn(move |event: LambdaEvent<Box<RawValue>>| -> Answered {
        let handler = Arc::clone(&handler);
        Box::pin(async move { invoke(handler.as_ref(), event).await })
    });
    match runtime.block_on(lambda_runtime::run(service)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn invoke<H: Handler>(handler: &H, event: LambdaEvent<Box<RawValue>>) -> Result<Box<RawValue>, Failure> {
    let (event, context) = event.into_parts();
    let invocation = Invocation {
        request_id: context.request_id,
        deadline: Timestamp::from_millis(i64::try_from(context.deadline).unwrap_or(i64::MAX)),
        function_arn: context.invoked_function_arn,
    };
    let answer = catch(handler, &event, &invocation).await;
    // Credentials are in it, and plaintexts may be.
    wipe(&mut Box::<str>::from(event).into_string().into_bytes());
    answer
}

/// Handles one event; a panic is answered and the process lives on.
pub async fn catch<H: Handler>(
    handler: &H,
    event: &RawValue,
    invocation: &Invocation,
) -> Result<Box<RawValue>, Failure> {
    match AssertUnwindSafe(handler.handle_text(event, invocation)).catch_unwind().await {
        Ok(answer) => answer,
        Err(panic) => {
            drop::<Box<dyn Any + Send>>(panic);
            handler.panicked(invocation)
        }
    }
}

fn refuse(faults: &Faults) -> ExitCode {
    for fault in faults.lines() {
        Line::new("boot", "configuration").text("level", "ERROR").text("fault", fault).emit();
    }
    ExitCode::from(EXIT_CONFIGURATION)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Panics;

    impl Routes for Panics {
        const FUNCTION: &'static str = "panics";

        async fn answer(&self, _: &Request, _: &Invocation) -> Result<Response, Problem> {
            panic!("canary-3b1f")
        }
    }

    fn invocation() -> Invocation {
        Invocation { request_id: "r-9".into(), deadline: Timestamp::from_millis(0), function_arn: String::new() }
    }

    async fn caught(event: Value) -> Value {
        let answer = catch(&Api(Panics), &to_raw_value(&event).unwrap(), &invocation()).await.unwrap();
        serde_json::from_str(answer.get()).unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_says_nothing() {
        let event = json!({"resource":"/","path":"/","httpMethod":"GET","requestContext":{"httpMethod":"GET"}});
        let answer = caught(event).await;
        assert_eq!(answer["statusCode"], 500);
        assert!(!answer.to_string().contains("canary") && answer.to_string().contains("r-9"));
    }

    #[tokio::test]
    async fn an_event_of_another_shape_is_refused_without_echo() {
        let answer = caught(json!({"canary-77": "canary-78"})).await;
        assert_eq!(answer["statusCode"], 400);
        assert!(!answer.to_string().contains("canary"));
    }

    #[test]
    fn the_invoker_is_told_a_name_and_nothing_else() {
        let diagnostic = Diagnostic::from(Failure::UNAUTHORIZED);
        assert_eq!(
            (diagnostic.error_type.as_str(), diagnostic.error_message.as_str()),
            ("Unauthorized", "Unauthorized")
        );
    }
}
