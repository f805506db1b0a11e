//! `/2018-06-01/runtime/…` for exactly one process.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use tokio::sync::{mpsc, oneshot, watch};

use super::RESPONSE_LIMIT;
use crate::http::{Request, Response, Server, bind, serve};

/// Bodies up to here are read, so that one that is too large can still be answered.
const BODY_LIMIT: usize = 64 * 1024 * 1024;
const PREFIX: &str = "/2018-06-01/runtime/";

/// One event on its way to the process.
pub(super) struct Delivery {
    pub(super) request_id: String,
    /// Milliseconds since the epoch.
    pub(super) deadline: u128,
    pub(super) function_arn: String,
    pub(super) trace_id: String,
    pub(super) client_context: Option<String>,
    pub(super) payload: Bytes,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What the process posted for an event.
#[derive(Debug)]
pub(super) enum Answer {
    Response(Bytes),
    Error(Bytes),
    TooLarge,
}

/// How far the process has come.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Starting,
    Polled,
    InitFailed(Bytes),
}

struct Inner {
    deliveries: tokio::sync::Mutex<mpsc::Receiver<Delivery>>,
    current: Mutex<Option<(String, oneshot::Sender<Answer>)>>,
    stage: watch::Sender<Stage>,
}

/// The Runtime API as one process sees it; closes when dropped.
pub(super) struct Endpoint {
    address: SocketAddr,
    deliveries: mpsc::Sender<Delivery>,
    stage: watch::Receiver<Stage>,
    inner: Arc<Inner>,
    _server: Server,
}

impl Endpoint {
    pub(super) async fn open() -> io::Result<Self> {
        let (deliveries, receiver) = mpsc::channel(1);
        let (sender, stage) = watch::channel(Stage::Starting);
        let inner =
            Arc::new(Inner { deliveries: tokio::sync::Mutex::new(receiver), current: Mutex::new(None), stage: sender });
        let listener = bind().await?;
        let address = listener.local_addr()?;
        let served = Arc::clone(&inner);
        let server = serve(listener, None, BODY_LIMIT, move |request| {
            let inner = Arc::clone(&served);
            async move { inner.answer(request).await }
        })
        .await?;
        Ok(Self { address, deliveries, stage, inner, _server: server })
    }

    /// Value for `AWS_LAMBDA_RUNTIME_API`.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Waits for the first poll or the initialisation error, whichever the process sends first.
    pub(super) async fn initialised(&self) -> Stage {
        let mut stage = self.stage.clone();
        match stage.wait_for(|stage| !matches!(stage, Stage::Starting)).await {
            Ok(stage) => stage.clone(),
            Err(_) => Stage::Starting,
        }
    }

    /// Whether the process has taken this event and not answered it.
    pub(super) fn holds(&self, request_id: &str) -> bool {
        let current = self.inner.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().is_some_and(|(held, _)| held == request_id)
    }

    /// Queues one event; at most one is ever in flight.
    pub(super) async fn deliver(&self, delivery: Delivery) -> bool {
        self.deliveries.send(delivery).await.is_ok()
    }
}

impl Inner {
    async fn answer(&self, request: Request) -> Response {
        let path = request.uri.path();
        let Some(operation) = path.strip_prefix(PREFIX) else {
            return failure(StatusCode::NOT_FOUND, "InvalidPath", "no such path");
        };
        let parts: Vec<&str> = operation.split('/').collect();
        match (&request.method, parts.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, "response"]) => self.finish(id, request.body.clone(), false),
            (&Method::POST, ["invocation", id, "error"]) => self.finish(id, request.body.clone(), true),
            (&Method::POST, ["init", "error"]) => {
                self.stage.send_replace(Stage::InitFailed(request.body.clone()));
                accepted()
            }
            _ => failure(StatusCode::NOT_FOUND, "InvalidPath", "no such operation"),
        }
    }

    async fn next(&self) -> Response {
        self.stage.send_if_modified(|stage| {
            let first = matches!(stage, Stage::Starting);
            if first {
                *stage = Stage::Polled;
            }
            first
        });
        let Some(delivery) = self.deliveries.lock().await.recv().await else {
            return failure(StatusCode::GONE, "Shutdown", "the sandbox is closing");
        };
        let mut response = http::Response::builder()
            .status(StatusCode::OK)
            .header(CONTENT_TYPE, "application/json")
            .header("Lambda-Runtime-Aws-Request-Id", &delivery.request_id)
            .header("Lambda-Runtime-Deadline-Ms", delivery.deadline.to_string())
            .header("Lambda-Runtime-Invoked-Function-Arn", &delivery.function_arn)
            .header("Lambda-Runtime-Trace-Id", &delivery.trace_id);
        if let Some(context) = &delivery.client_context {
            response = response.header("Lambda-Runtime-Client-Context", context);
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((delivery.request_id, delivery.answer));
        response
            .body(Full::new(delivery.payload))
            .unwrap_or_else(|_| failure(StatusCode::INTERNAL_SERVER_ERROR, "InvalidHeader", "event not deliverable"))
    }

    fn finish(&self, id: &str, body: Bytes, failed: bool) -> Response {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, sender)) = current.take_if(|(expected, _)| expected == id) else {
            return failure(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID");
        };
        if body.len() > RESPONSE_LIMIT {
            drop(sender.send(Answer::TooLarge));
            let message = format!("Exceeded maximum allowed payload size ({RESPONSE_LIMIT} bytes).");
            return failure(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message);
        }
        drop(sender.send(if failed { Answer::Error(body) } else { Answer::Response(body) }));
        accepted()
    }
}

fn accepted() -> Response {
    json(StatusCode::ACCEPTED, &serde_json::json!({"status": "OK"}))
}

fn failure(status: StatusCode, kind: &str, message: &str) -> Response {
    json(status, &serde_json::json!({"errorType": kind, "errorMessage": message}))
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = http::Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
