//! Lambda as its callers see it: functions by name, synchronous and asynchronous invocation, and the `Invoke` API.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch, time::sleep};

pub use crate::runtime_api::{Outcome as InvokeOutcome, REQUEST_LIMIT, RESPONSE_LIMIT};
use crate::{
    account::Account,
    http::{Request, Response, Server, answer, bind, serve},
    policy::{Context, Decision, denial},
    request_id,
    runtime_api::{
        Event,
        environment::{Surroundings, reserved},
        pool::{Plan, Pool, Refused},
    },
    sigv4::{self, Payload, Rejection, Scope},
    template::FunctionSpec,
    view::{
        Span,
        record::{Door, Kind as Part, Seen, Verdict, member},
    },
};

/// Largest payload of an asynchronous invocation, in bytes.
pub const EVENT_LIMIT: usize = 1024 * 1024;
/// Throttled asynchronous events are tried again this often before they count as lost.
const THROTTLE_TRIES: u32 = 100;
const SKEW: Duration = Duration::from_secs(300);
/// The folder of dead letters below that of the instance.
pub const DEAD_LETTERS: &str = "dead-letters";
/// Largest log tail in `X-Amz-Log-Result`, in bytes.
const LOG_TAIL: usize = 4096;

/// How the caller wants the function to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wait for the answer.
    RequestResponse,
    /// Queue it; two retries when the function fails.
    Event,
    /// Check permission and arguments only.
    DryRun,
}

/// Why an invocation was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvokeError {
    /// No function of that name.
    NotFound,
    /// Too many at once; the reason as Lambda names it.
    Throttled(&'static str),
    /// The payload is larger than that many bytes.
    TooLarge(usize),
    /// The payload is not JSON.
    NotJson,
    /// The process could not be started.
    Service(String),
}

/// The future of one invocation.
pub type Invoked<'a> = Pin<Box<dyn Future<Output = Result<InvokeOutcome, InvokeError>> + Send + 'a>>;

/// Whoever runs functions: [`Lambda`], or a scripted stand-in in tests of the gateway and of event delivery.
pub trait Invoke: Send + Sync + 'static {
    /// Runs `function` (`NAME` or `NAME:ALIAS`) with `payload`.
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes, kind: Kind) -> Invoked<'a>;
    /// Waits until no asynchronous event is queued or running.
    fn idle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// What [`Lambda::start`] needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The functions, from the template.
    pub functions: Vec<FunctionSpec>,
    /// Folder with the built binaries.
    pub binaries: PathBuf,
    /// Service name in lower case (`kms`, `s3`, `sts`) → URL, for `AWS_ENDPOINT_URL_<SERVICE>`.
    pub endpoints: BTreeMap<String, String>,
    /// Further variables for every process, such as the CA file.
    pub extra: BTreeMap<String, String>,
    /// Folder of this instance; logs go to `logs/FUNCTION/NNNN.log` below it.
    pub directory: PathBuf,
    /// Processes per function without reserved concurrency; further calls wait their turn.
    pub processes: usize,
    /// Longest time from spawn to the first poll.
    pub init_limit: Duration,
    /// Life of a process's credentials.
    pub credential_life: Duration,
    /// Pauses before the two retries of a failed asynchronous event (a minute and two minutes at AWS).
    pub retries: [Duration; 2],
}

impl Settings {
    /// Lambda's own values, except for shorter pauses between retries.
    #[must_use]
    pub fn new(functions: Vec<FunctionSpec>, binaries: PathBuf, directory: PathBuf) -> Self {
        Self {
            functions,
            binaries,
            endpoints: BTreeMap::new(),
            extra: BTreeMap::new(),
            directory,
            processes: 10,
            init_limit: Duration::from_secs(10),
            credential_life: Duration::from_secs(3600),
            retries: [Duration::from_millis(500), Duration::from_secs(1)],
        }
    }
}

/// An asynchronous event that failed three times.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// The function it was meant for.
    pub function: String,
    /// The event.
    pub payload: Bytes,
    /// The last answer or refusal.
    pub reason: String,
}

/// The functions of one deployment, their processes and their asynchronous queue.
pub struct Lambda {
    account: Arc<Account>,
    pools: BTreeMap<String, Arc<Pool>>,
    surroundings: Arc<RwLock<Surroundings>>,
    queue: Arc<Queue>,
    stray: Arc<Mutex<Vec<String>>>,
    _sink: Server,
}

struct Queue {
    in_flight: watch::Sender<usize>,
    undelivered: Mutex<Vec<Undelivered>>,
    retries: [Duration; 2],
    /// Where what was given up lies, for whoever replays it: a file for each event, in a folder of its function.
    dead_letters: PathBuf,
}

impl Lambda {
    /// Prepares every function; no process starts before its first event.
    ///
    /// # Errors
    /// Everything that is wrong: binaries that are not there, variables Lambda would refuse.
    pub async fn start(account: Arc<Account>, settings: Settings) -> Result<Arc<Self>, Vec<String>> {
        let mut faults = Vec::new();
        let stray = Arc::new(Mutex::new(Vec::new()));
        let listener = bind().await.map_err(|error| vec![format!("sink: {error}")])?;
        let calls = Arc::clone(&stray);
        let server = serve(listener, None, REQUEST_LIMIT, move |request: Request| {
            let target = request.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let call = format!("{} {} {target}", request.method, request.uri.path());
            calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.trim_end().to_owned());
            async { answer(StatusCode::NOT_IMPLEMENTED, &[], "no call leaves the local stack") }
        })
        .await
        .map_err(|error| vec![format!("sink: {error}")])?;
        let surroundings = Arc::new(RwLock::new(Surroundings {
            region: account.region.clone(),
            endpoints: settings.endpoints.clone(),
            sink: format!("http://{}", server.addr),
            extra: settings.extra.clone(),
        }));
        let mut pools = BTreeMap::new();
        for spec in settings.functions {
            faults.extend(reserved(&spec));
            let binary = settings.binaries.join(&spec.binary);
            let binary = std::path::absolute(&binary).unwrap_or(binary);
            if !binary.is_file() {
                faults.push(format!("{}: no binary at {}", spec.logical_id, binary.display()));
            }
            let plan = Plan {
                arn: account.function_arn(&spec.function_name),
                binary,
                logs: settings.directory.join("logs"),
                processes: settings.processes,
                init_limit: settings.init_limit,
                credential_life: settings.credential_life,
                spec,
            };
            let name = plan.spec.function_name.clone();
            let pool = Pool::new(plan, Arc::clone(&account), Arc::clone(&surroundings));
            if pools.insert(name.clone(), Arc::new(pool)).is_some() {
                faults.push(format!("two functions are named {name}"));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let queue = Arc::new(Queue {
            in_flight: watch::Sender::new(0),
            undelivered: Mutex::default(),
            retries: settings.retries,
            dead_letters: settings.directory.join(DEAD_LETTERS),
        });
        Ok(Arc::new(Self { account, pools, surroundings, queue, stray, _sink: server }))
    }

    /// Names a service endpoint that was not known at the start; holds for processes started from now on.
    pub fn set_endpoint(&self, service: &str, url: &str) {
        let mut surroundings = self.surroundings.write().unwrap_or_else(PoisonError::into_inner);
        surroundings.endpoints.insert(service.to_owned(), url.to_owned());
    }

    /// Adds a variable for processes started from now on.
    pub fn set_variable(&self, name: &str, value: &str) {
        let mut surroundings = self.surroundings.write().unwrap_or_else(PoisonError::into_inner);
        surroundings.extra.insert(name.to_owned(), value.to_owned());
    }

    /// Runs `function` (`NAME` or `NAME:ALIAS`) with `payload`; an `Event` is only queued.
    ///
    /// # Errors
    /// [`InvokeError`] when no process saw the event.
    pub async fn invoke(&self, function: &str, payload: Bytes, kind: Kind) -> Result<InvokeOutcome, InvokeError> {
        self.invoke_with(function, payload, kind, None).await
    }

    async fn invoke_with(
        &self,
        function: &str,
        payload: Bytes,
        kind: Kind,
        client_context: Option<String>,
    ) -> Result<InvokeOutcome, InvokeError> {
        let (name, qualifier) = function.split_once(':').map_or((function, None), |(name, rest)| (name, Some(rest)));
        let pool = self.pools.get(name).filter(|pool| pool.plan().spec.answers_to(qualifier));
        let pool = Arc::clone(pool.ok_or(InvokeError::NotFound)?);
        let limit = if kind == Kind::Event { EVENT_LIMIT } else { REQUEST_LIMIT };
        if payload.len() > limit {
            return Err(InvokeError::TooLarge(limit));
        }
        if serde_json::from_slice::<serde::de::IgnoredAny>(&payload).is_err() {
            return Err(InvokeError::NotJson);
        }
        let qualifier = qualifier.map(str::to_owned);
        let request_id = request_id::fresh();
        let of_another = Span::current();
        let own =
            if of_another.is_none() && kind != Kind::DryRun { self.begin(&pool, kind, &request_id) } else { None };
        let seen = own.as_ref().map(|own| own.open(Part::Function, &pool.plan().spec.deployment)).or(of_another);
        let event = Event { request_id, payload, client_context, qualifier, seen };
        let accepted = InvokeOutcome {
            payload: Bytes::new(),
            function_error: None,
            log: String::new(),
            request_id: event.request_id.clone(),
        };
        match kind {
            Kind::DryRun => Ok(accepted),
            Kind::Event => {
                self.queue.in_flight.send_modify(|count| *count += 1);
                let queue = Arc::clone(&self.queue);
                tokio::spawn(async move { queue.deliver(&pool, event, own).await });
                Ok(accepted)
            }
            Kind::RequestResponse => match tokio::spawn(async move { run(&pool, &event, own).await }).await {
                Ok(Ok(outcome)) => Ok(outcome),
                Ok(Err(Refused::Throttled(reason))) => Err(InvokeError::Throttled(reason)),
                Ok(Err(Refused::NotStarted(error))) => Err(InvokeError::Service(error.to_string())),
                Err(error) => Err(InvokeError::Service(error.to_string())),
            },
        }
    }

    /// An invocation that is on behalf of no request is one itself.
    fn begin(&self, pool: &Pool, kind: Kind, request_id: &str) -> Option<Span> {
        self.account.view.begin(Door::Invoke, self.account.clock.now(), |seen| {
            seen.id = request_id.to_owned();
            seen.method = if kind == Kind::Event { "EVENT" } else { "INVOKE" }.to_owned();
            seen.path = pool.plan().spec.function_name.clone();
            seen.function = Some(pool.plan().spec.deployment.clone());
        })
    }

    /// Waits until no asynchronous event is queued or running.
    pub async fn idle(&self) {
        let mut in_flight = self.queue.in_flight.subscribe();
        drop(in_flight.wait_for(|count| *count == 0).await);
    }

    /// Asynchronous events that failed three times.
    #[must_use]
    pub fn undelivered(&self) -> Vec<Undelivered> {
        self.queue.undelivered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls that reached the sink, which means: that were meant for AWS itself. Must stay empty.
    #[must_use]
    pub fn stray_calls(&self) -> Vec<String> {
        self.stray.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything the processes of `function` have written to stdout and stderr.
    #[must_use]
    pub fn log(&self, function: &str) -> String {
        self.pools.get(function).map(|pool| pool.log()).unwrap_or_default()
    }

    /// Number of processes `function` has needed so far.
    #[must_use]
    pub fn cold_starts(&self, function: &str) -> u64 {
        self.pools.get(function).map(|pool| pool.started()).unwrap_or_default()
    }

    /// Ends the waiting processes of `function`, so that the next call starts a fresh one.
    pub async fn recycle(&self, function: &str) {
        if let Some(pool) = self.pools.get(function) {
            pool.recycle().await;
        }
    }

    /// What a process of `function` would see, with a session of its role of its own, for somebody else's Runtime API at
    /// `runtime_api`; `None` for an unknown function.
    #[must_use]
    pub fn environment(&self, function: &str, runtime_api: &str, life: Duration) -> Option<BTreeMap<String, String>> {
        self.pools.get(function).map(|pool| pool.environment(runtime_api, 0, life).0)
    }

    /// The program that `function` runs.
    #[must_use]
    pub fn binary(&self, function: &str) -> Option<PathBuf> {
        self.pools.get(function).map(|pool| pool.plan().binary.clone())
    }

    /// Names of all functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.pools.keys().map(String::as_str)
    }

    /// The ARN of `function`, whether or not it exists.
    #[must_use]
    pub fn arn(&self, function: &str) -> String {
        self.account.function_arn(function)
    }

    /// Another program has been put at the place of the function's: events that come from now on are its own. An event that a process of the
    /// old one holds ends there.
    pub async fn renew(&self, function: &str) {
        if let Some(pool) = self.pools.get(function) {
            pool.renew().await;
        }
    }

    /// Knob: throttles the next `count` invocations of `function`.
    pub fn throttle(&self, function: &str, count: u32) {
        if let Some(pool) = self.pools.get(function) {
            pool.knobs.throttle.store(count, Ordering::Relaxed);
        }
    }

    /// Knob: every event of `function` waits this long before it reaches a process.
    pub fn delay(&self, function: &str, delay: Duration) {
        if let Some(pool) = self.pools.get(function) {
            pool.knobs.delay.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Ends every process and waits until they are gone.
    pub async fn shutdown(&self) {
        for pool in self.pools.values() {
            pool.close().await;
        }
    }

    /// Serves the `Invoke` API as the AWS CLI and the SDKs call it.
    ///
    /// # Errors
    /// When the listener is not on loopback.
    pub async fn serve(self: &Arc<Self>, listener: TcpListener) -> io::Result<Server> {
        let lambda = Arc::clone(self);
        serve(listener, None, REQUEST_LIMIT + 1024 * 1024, move |request| {
            let lambda = Arc::clone(&lambda);
            async move { lambda.respond(request).await }
        })
        .await
    }

    async fn respond(&self, request: Request) -> Response {
        let mut response = match self.call(&request).await {
            Ok(response) => response,
            Err(fault) => fault.into_response(),
        };
        if !response.headers().contains_key("x-amzn-requestid") {
            header(&mut response, "x-amzn-requestid", &request_id::fresh());
        }
        response
    }

    async fn call(&self, request: &Request) -> Result<Response, ApiFault> {
        let region = self.account.region.clone();
        let scope = Scope { service: "lambda", region: &region, s3_path: false, skew: SKEW };
        let caller = sigv4::verify_header(request, Payload::Bytes(&request.body), scope, &self.account)?;
        let path = request.uri.path();
        let name = path.strip_prefix("/2015-03-31/functions/").and_then(|rest| rest.strip_suffix("/invocations"));
        let Some(name) = name.filter(|name| !name.contains('/') && request.method == Method::POST) else {
            let text = format!("unknown operation {} {path}", request.method);
            return Err(ApiFault::new(StatusCode::NOT_FOUND, "UnknownOperationException", &text));
        };
        let name = percent_decode_str(name).decode_utf8_lossy();
        let (function, qualifier) = self.function_name(&name)?;
        let arn = self.arn(&function);
        let decision = self.account.iam.authorize(&caller, "lambda:InvokeFunction", &arn, &Context::default());
        if let Decision::Deny { reason } = decision {
            let text = denial(&caller.principal, "lambda:InvokeFunction", &arn, &reason);
            return Err(ApiFault::new(StatusCode::FORBIDDEN, "AccessDeniedException", &text));
        }
        let query = request.uri.query().unwrap_or_default();
        let asked = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "Qualifier");
        let qualifier = asked.map(|(_, value)| value.into_owned()).or(qualifier);
        let function = match qualifier {
            Some(qualifier) => format!("{function}:{qualifier}"),
            None => function,
        };
        let kind = match field(request, "x-amz-invocation-type")? {
            None | Some("RequestResponse") => Kind::RequestResponse,
            Some("Event") => Kind::Event,
            Some("DryRun") => Kind::DryRun,
            Some(_) => return Err(ApiFault::invalid("invocationType must be Event, RequestResponse or DryRun")),
        };
        let tail = match field(request, "x-amz-log-type")? {
            None | Some("None") => false,
            Some("Tail") => true,
            Some(_) => return Err(ApiFault::invalid("logType must be None or Tail")),
        };
        let context = field(request, "x-amz-client-context")?.map(client_context).transpose()?;
        let payload = if request.body.is_empty() { Bytes::from_static(b"{}") } else { request.body.clone() };
        let outcome = self.invoke_with(&function, payload, kind, context).await.map_err(|error| match error {
            InvokeError::NotFound => not_found(&arn),
            other => ApiFault::from(other),
        })?;
        Ok(success(kind, &outcome, tail))
    }

    /// Accepts `NAME`, `NAME:QUALIFIER`, `ACCOUNT:function:NAME` and the full ARN.
    fn function_name(&self, text: &str) -> Result<(String, Option<String>), ApiFault> {
        let own = [
            format!("arn:aws:lambda:{}:{}:function:", self.account.region, self.account.id),
            format!("{}:function:", self.account.id),
        ];
        let rest = own.iter().find_map(|prefix| text.strip_prefix(prefix.as_str())).unwrap_or(text);
        let (name, qualifier) = rest.split_once(':').map_or((rest, None), |(name, rest)| (name, Some(rest)));
        let valid = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !valid || qualifier.is_some_and(|qualifier| qualifier.contains(':')) {
            return Err(not_found(text));
        }
        Ok((name.to_owned(), qualifier.map(str::to_owned)))
    }
}

impl Invoke for Lambda {
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes, kind: Kind) -> Invoked<'a> {
        Box::pin(Lambda::invoke(self, function, payload, kind))
    }

    fn idle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(Lambda::idle(self))
    }
}

/// Runs one event and tells whoever watches how it ended.
async fn run(pool: &Pool, event: &Event, own: Option<Span>) -> Result<InvokeOutcome, Refused> {
    let outcome = pool.run(event).await;
    if let Some(own) = own {
        let told = match &outcome {
            Ok(outcome) if outcome.function_error.is_none() => "answered",
            Ok(_) => "failed",
            Err(Refused::Throttled(_)) => "throttled",
            Err(Refused::NotStarted(_)) => "not started",
        };
        ended(&own, event, told);
    }
    outcome
}

/// Ends what is seen of an invocation that was a request itself.
fn ended(own: &Span, event: &Event, told: &str) {
    if let Some(part) = &event.seen {
        part.close(told);
    }
    let status = if told == "answered" { 200 } else { 500 };
    own.finish(status, |seen| verdict(seen, told));
}

/// What the function said of its decision, or else how it ended.
fn verdict(seen: &Seen, told: &str) -> Option<Verdict> {
    let line = seen.line_of(Part::Function).unwrap_or_default();
    let said = |name: &str| member(line, name).map(str::to_owned);
    let outcome = if told == "answered" { "allow" } else { "fault" }.to_owned();
    let by = seen.function.clone().unwrap_or_default();
    let (outcome, reason) = (said("decision").unwrap_or(outcome), said("reason").unwrap_or_else(|| told.to_owned()));
    Some(Verdict { outcome, reason, policies: Vec::new(), by })
}

impl Queue {
    async fn deliver(&self, pool: &Pool, event: Event, own: Option<Span>) {
        let mut pauses = VecDeque::from(self.retries);
        let mut throttled = 0;
        let lost = loop {
            let (reason, pause) = match pool.run(&event).await {
                Ok(outcome) if outcome.function_error.is_none() => break None,
                Ok(outcome) => (String::from_utf8_lossy(&outcome.payload).into_owned(), pauses.pop_front()),
                Err(Refused::Throttled(reason)) => {
                    throttled += 1;
                    let pause = Duration::from_millis(u64::from(throttled).saturating_mul(20).min(1000));
                    (reason.to_owned(), (throttled <= THROTTLE_TRIES).then_some(pause))
                }
                Err(Refused::NotStarted(error)) => (error.to_string(), pauses.pop_front()),
            };
            match pause {
                Some(pause) => sleep(pause).await,
                None => break Some(reason),
            }
        };
        if let Some(own) = &own {
            ended(own, &event, if lost.is_some() { "given up" } else { "answered" });
        }
        if let Some(reason) = lost {
            let function = pool.plan().spec.function_name.clone();
            if pool.plan().spec.keeps_failures {
                self.keep(&function, &event, &reason);
            }
            let undelivered = Undelivered { function, payload: event.payload, reason };
            self.undelivered.lock().unwrap_or_else(PoisonError::into_inner).push(undelivered);
        }
        self.in_flight.send_modify(|count| *count = count.saturating_sub(1));
    }

    /// As the dead-letter queue would: the event as it was, and why. A disk that is full has nobody to be told of it here.
    fn keep(&self, function: &str, event: &Event, reason: &str) {
        let folder = self.dead_letters.join(function);
        let payload: serde_json::Value = serde_json::from_slice(&event.payload).unwrap_or_default();
        let letter = json!({"function": function, "event": payload, "reason": reason});
        // Under its name from the moment that it is whole.
        let (whole, partial) = (format!("{}.json", event.request_id), format!("{}.partial", event.request_id));
        let _ = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(&partial), letter.to_string()))
            .and_then(|()| std::fs::rename(folder.join(&partial), folder.join(&whole)));
    }
}

/// A refusal of the `Invoke` API.
struct ApiFault {
    status: StatusCode,
    code: &'static str,
    reason: Option<&'static str>,
    message: String,
}

impl ApiFault {
    fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, reason: None, message: message.to_owned() }
    }

    fn invalid(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidParameterValueException", message)
    }

    fn into_response(self) -> Response {
        let kind = if self.status.is_server_error() { "Service" } else { "User" };
        // Lambda writes the member both ways; the SDKs read either.
        let mut body = json!({"Type": kind, "Message": self.message, "message": self.message});
        if let (Some(reason), Some(object)) = (self.reason, body.as_object_mut()) {
            object.insert("Reason".to_owned(), reason.into());
        }
        let headers = [("content-type", "application/json"), ("x-amzn-errortype", self.code)];
        answer(self.status, &headers, body.to_string())
    }
}

impl From<InvokeError> for ApiFault {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", "Function not found")
            }
            InvokeError::Throttled(reason) => Self {
                reason: Some(reason),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.")
            },
            InvokeError::TooLarge(limit) => {
                let text = format!("Request must be smaller than {limit} bytes for the InvokeFunction operation");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", &text)
            }
            InvokeError::NotJson => {
                let text = "Could not parse request body into json";
                Self::new(StatusCode::BAD_REQUEST, "InvalidRequestContentException", text)
            }
            InvokeError::Service(text) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "ServiceException", &text),
        }
    }
}

impl From<Rejection> for ApiFault {
    fn from(rejection: Rejection) -> Self {
        let (code, text) = match rejection {
            Rejection::Missing => ("MissingAuthenticationTokenException", "Missing Authentication Token"),
            Rejection::Malformed => ("IncompleteSignatureException", "the Authorization header is malformed"),
            Rejection::UnknownKey | Rejection::TokenInvalid => {
                ("UnrecognizedClientException", "The security token included in the request is invalid.")
            }
            Rejection::TokenExpired => {
                ("ExpiredTokenException", "The security token included in the request is expired")
            }
            _ => (
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.",
            ),
        };
        Self::new(StatusCode::FORBIDDEN, code, text)
    }
}

fn success(kind: Kind, outcome: &InvokeOutcome, tail: bool) -> Response {
    let status = match kind {
        Kind::RequestResponse => StatusCode::OK,
        Kind::Event => StatusCode::ACCEPTED,
        Kind::DryRun => StatusCode::NO_CONTENT,
    };
    let mut response = answer(status, &[], outcome.payload.clone());
    header(&mut response, "x-amzn-requestid", &outcome.request_id);
    if kind == Kind::RequestResponse {
        header(&mut response, "content-type", "application/json");
        header(&mut response, "x-amz-executed-version", "$LATEST");
        if let Some(error) = &outcome.function_error {
            header(&mut response, "x-amz-function-error", error);
        }
        if tail {
            let log = outcome.log.as_bytes();
            let last = log.get(log.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
            header(&mut response, "x-amz-log-result", &STANDARD.encode(last));
        }
    }
    response
}

fn client_context(text: &str) -> Result<String, ApiFault> {
    let fault =
        || ApiFault::new(StatusCode::BAD_REQUEST, "InvalidRequestContentException", "Could not parse client context");
    let bytes = STANDARD.decode(text).map_err(|_| fault())?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| fault())?;
    Ok(value.to_string())
}

fn field<'a>(request: &'a Request, name: &str) -> Result<Option<&'a str>, ApiFault> {
    let unreadable = |_| ApiFault::invalid("a header is not text");
    request.headers.get(name).map(|value| value.to_str().map_err(unreadable)).transpose()
}

fn not_found(arn: &str) -> ApiFault {
    ApiFault::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", &format!("Function not found: {arn}"))
}

fn header(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
