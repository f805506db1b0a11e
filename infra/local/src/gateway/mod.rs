//! The REST API in front of the functions, as the deployed OpenAPI document describes it.
//!
//! A request goes through size limits, routing, the authorizer and the integration; every refusal is one of the
//! document's gateway responses, and nothing a function says when it fails reaches the client. An authorizer's answers are
//! kept as the document says: by the values of the identity sources, policy and all, for as long as it says.

mod answer;
mod authorize;
mod connection;
mod document;
mod event;
mod extension;
mod proxy;
mod response;
mod route;
mod seen;
mod throttle;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::{net::TcpListener, time::timeout};

pub use self::connection::Serving;
pub use self::proxy::Link;
use self::{
    connection::Spelling,
    document::{Document, Integration, Mock, Operation},
    event::{Authorized, Incoming},
    response::Kind,
    seen::Way,
};
use crate::{
    account::Account,
    call::severed,
    faults::grammar::Kind as Fault,
    http::{Request, Response, answer as respond},
    lambda::{Invoke, InvokeError, Kind as Invocation},
    request_id,
    template::{Deployment, PermissionSpec},
    view::Span,
};

/// Largest request body, in bytes.
const BODY_LIMIT: usize = 10 * 1024 * 1024;
/// Bodies up to here are read, so that one that is too large can still be answered.
const READ_LIMIT: usize = 64 * 1024 * 1024;
/// Largest request line and headers together, and largest headers of an answer, in bytes.
const HEADER_LIMIT: usize = 10_240;

/// What the gateway cannot read from the document.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Id of the API in ARNs; the template's permissions name it.
    pub api_id: String,
    /// Name of the stage in ARNs and in `requestContext`; the local paths do without it.
    pub stage: String,
    /// Function by name, and by name and alias → deployment (`token`, `data-key-encrypt`, …), to compare with
    /// `x-portcullis-function`.
    pub deployments: BTreeMap<String, String>,
    /// Who may invoke which function.
    pub permissions: Vec<PermissionSpec>,
    /// Longest wait for an authorizer.
    pub authorizer_limit: Duration,
    /// `CF-Connecting-IP` for requests that come without one.
    pub connecting_ip: Option<String>,
    /// `CF-IPCountry` for requests that come without one.
    pub country: Option<String>,
    /// The VPC link to an application behind the gate.
    pub link: Option<Link>,
    /// The variables of the stage.
    pub variables: BTreeMap<String, String>,
    /// The stage's limits; the first that covers a call holds.
    pub throttles: Vec<Throttle>,
    /// Whether the document must carry the `x-portcullis-*` of this project's own.
    pub marked: bool,
}

/// How many calls a stage takes: a bucket of `burst` tokens, filled with `rate` a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Throttle {
    /// The template of the resource, or `/*`.
    pub resource: String,
    /// The method, or `*`.
    pub method: String,
    /// Tokens a second.
    pub rate: f64,
    /// Tokens at most.
    pub burst: f64,
}

impl Settings {
    /// The settings for one deployed template.
    #[must_use]
    pub fn new(api_id: &str, deployment: &Deployment) -> Self {
        let mut deployments = BTreeMap::new();
        for function in &deployment.functions {
            let aliases = function.aliases.iter().map(|alias| format!("{}:{alias}", function.function_name));
            for name in aliases.chain([function.function_name.clone()]) {
                deployments.insert(name, function.deployment.clone());
            }
        }
        Self {
            api_id: api_id.to_owned(),
            stage: "local".to_owned(),
            deployments,
            permissions: deployment.permissions.clone(),
            authorizer_limit: Duration::from_secs(29),
            connecting_ip: Some("127.0.0.1".to_owned()),
            country: None,
            link: None,
            variables: BTreeMap::new(),
            throttles: Vec::new(),
            marked: true,
        }
    }
}

/// The running API; cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    document: Document,
    settings: Settings,
    account: Arc<Account>,
    lambda: Arc<dyn Invoke>,
    buckets: throttle::Buckets,
}

impl Gateway {
    /// Reads the document, with its intrinsics resolved ([`crate::template::Template::document`]).
    ///
    /// # Errors
    /// Everything in the document that this gateway does not know or that contradicts itself.
    pub fn new(
        document: &Value,
        settings: Settings,
        account: Arc<Account>,
        lambda: Arc<dyn Invoke>,
    ) -> Result<Self, Vec<String>> {
        let document = Document::read(document, &settings, &account)?;
        Ok(Self(Arc::new(Inner { document, settings, account, lambda, buckets: throttle::Buckets::default() })))
    }

    /// Serves the API.
    ///
    /// # Errors
    /// When the listener is not on loopback.
    pub async fn serve(&self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) -> io::Result<Serving> {
        let gateway = self.clone();
        connection::serve(listener, tls, READ_LIMIT, move |request, spelling| {
            let gateway = gateway.clone();
            async move { gateway.answer(request, &spelling).await }
        })
    }

    /// Forgets what authorizers have answered, as `FlushStageAuthorizersCache` does.
    pub fn flush_authorizers(&self) {
        self.0.document.authorizers.iter().for_each(|authorizer| authorizer.answers.flush());
    }

    /// Answers one request, with header names in lower case.
    pub async fn handle(&self, request: Request) -> Response {
        self.answer(request, &BTreeMap::new()).await
    }

    async fn answer(&self, request: Request, spelling: &Spelling) -> Response {
        let inner = &self.0;
        let mut incoming = Incoming::new(&request, spelling, &inner.account, &inner.settings, request_id::fresh());
        let fate = inner.account.faults.meet("gateway", "", |_| true);
        let way = Way::begin(&incoming, &fate);
        if !fate.latency.is_zero() {
            tokio::time::sleep(fate.latency).await;
        }
        if fate.kind == Some(Fault::Reset) {
            way.end(&incoming, None, "reset");
            return severed();
        }
        let outcome = Span::scope(way.span(), inner.dispatch(&mut incoming)).await;
        let refused = outcome.as_ref().err().map(Refusal::name).unwrap_or_default();
        let mut response = match outcome {
            Ok(response) => response,
            Err(Refusal::Kind(kind, message)) => {
                inner.document.responses.render(kind, message.as_deref(), &incoming.variables())
            }
            Err(Refusal::Plain(status, message)) => plain(status, message),
        };
        for (name, value) in
            [("x-amzn-requestid", incoming.request_id.clone()), ("x-amz-apigw-id", incoming.extended_id())]
        {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        way.end(&incoming, Some(response.status()), &refused);
        if inner.account.sessions.on() {
            let said =
                response.body().clone().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            inner.account.sessions.note(&request, response.status().as_u16(), &said, way.decision());
        }
        if fate.kind == Some(Fault::Lost) { severed() } else { response }
    }
}

enum Refusal {
    /// A gateway response of the document.
    Kind(Kind, Option<String>),
    /// Refused before the API is looked at.
    Plain(StatusCode, &'static str),
}

impl Refusal {
    /// Its name, for whoever watches.
    fn name(&self) -> String {
        match self {
            Self::Kind(kind, _) => kind.name().to_ascii_lowercase(),
            Self::Plain(_, message) => message.to_ascii_lowercase().replace(' ', "_"),
        }
    }
}

impl From<Kind> for Refusal {
    fn from(kind: Kind) -> Self {
        Self::Kind(kind, None)
    }
}

impl Inner {
    async fn dispatch(&self, incoming: &mut Incoming<'_>) -> Result<Response, Refusal> {
        let request = incoming.request;
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let size: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size + target.len() > HEADER_LIMIT {
            return Err(Refusal::Plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large"));
        }
        if !event::well_formed(target) {
            return Err(Refusal::Plain(StatusCode::BAD_REQUEST, "Bad Request"));
        }
        if request.body.len() > BODY_LIMIT {
            return Err(Kind::REQUEST_TOO_LARGE.into());
        }
        let found = self.document.root.find(request.uri.path()).ok_or(Kind::MISSING_AUTHENTICATION_TOKEN)?;
        let named = found.operation(request.method.as_str()).ok_or(Kind::MISSING_AUTHENTICATION_TOKEN)?;
        let (method, operation) = (named.0.to_owned(), Arc::clone(named.1));
        incoming.resource = operation.resource.clone();
        incoming.parameters = found.parameters;
        if !self.buckets.take(&self.settings.throttles, incoming, &method) {
            return Err(Kind::THROTTLED.into());
        }
        let authorized = match &operation.authorizer {
            None => None,
            Some(authorizer) => {
                let verdict = authorize::authorize(authorizer, incoming, &*self.lambda).await;
                Some(verdict.map_err(|(kind, message)| Refusal::Kind(kind, message.map(str::to_owned)))?)
            }
        };
        check_parameters(&operation, incoming)?;
        match &operation.integration {
            Integration::Mock(mock) => mocked(mock, incoming),
            Integration::Http(proxy) => {
                seen::application(proxy.answer(incoming, authorized.as_ref())).await.map_err(Refusal::from)
            }
            Integration::Function { name, timeout } => {
                self.function(name, *timeout, incoming, authorized.as_ref()).await
            }
        }
    }

    async fn function(
        &self,
        name: &str,
        limit: Duration,
        incoming: &Incoming<'_>,
        authorized: Option<&Authorized>,
    ) -> Result<Response, Refusal> {
        let content_type = incoming.header("content-type");
        let event = incoming.proxy_event(authorized, self.binary(content_type.unwrap_or("application/json")));
        let seen = seen::function(&self.settings, name);
        let invoked = self.lambda.invoke(name, Bytes::from(event.to_string()), Invocation::RequestResponse);
        let invoked = timeout(limit, Span::scope(seen.clone(), invoked)).await;
        seen::close(seen, &invoked);
        let outcome = match invoked {
            Err(_) => return Err(Kind::INTEGRATION_TIMEOUT.into()),
            Ok(Err(InvokeError::TooLarge(_))) => return Err(Kind::REQUEST_TOO_LARGE.into()),
            Ok(Err(_)) => return Err(Kind::INTEGRATION_FAILURE.into()),
            Ok(Ok(outcome)) => outcome,
        };
        if outcome.function_error.is_some() {
            return Err(Kind::DEFAULT_5XX.into());
        }
        let accept = incoming.header("accept").and_then(|accept| accept.split(',').next()).unwrap_or("*/*");
        let response = answer::proxy(&outcome.payload, self.binary(accept)).ok_or(Kind::DEFAULT_5XX)?;
        let size: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > HEADER_LIMIT {
            return Err(Kind::DEFAULT_5XX.into());
        }
        Ok(response)
    }

    /// Whether the document calls this media type binary.
    fn binary(&self, media: &str) -> bool {
        let media = media.split(';').next().unwrap_or_default().trim().to_lowercase();
        self.document.binary.iter().any(|range| match range.strip_suffix("/*") {
            Some("*") => true,
            Some(family) => media.split('/').next() == Some(family),
            None => *range == media,
        })
    }
}

fn check_parameters(operation: &Operation, incoming: &Incoming<'_>) -> Result<(), Refusal> {
    let queries = operation.required_query.iter().filter(|name| incoming.query(name).is_none());
    let headers = operation.required_headers.iter().filter(|name| incoming.header(name).is_none());
    let missing: Vec<&str> = queries.chain(headers).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("Missing required request parameters: [{}]", missing.join(", "));
    Err(Refusal::Kind(Kind::BAD_REQUEST_PARAMETERS, Some(message)))
}

fn mocked(mock: &Mock, incoming: &Incoming<'_>) -> Result<Response, Refusal> {
    let media = incoming.header("content-type").unwrap_or("application/json");
    let media = media.split(';').next().unwrap_or_default().trim().to_lowercase();
    if !mock.accepted.contains(&media) {
        return Err(Kind::UNSUPPORTED_MEDIA_TYPE.into());
    }
    let body = mock.body.as_ref().map(|body| body.fill(&incoming.variables())).unwrap_or_default();
    let mut headers = vec![("content-type", mock.content_type.as_str())];
    headers.extend(mock.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    Ok(respond(StatusCode::from_u16(mock.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &headers, body))
}

fn plain(status: StatusCode, message: &str) -> Response {
    respond(status, &[("content-type", "application/json")], serde_json::json!({"message": message}).to_string())
}
