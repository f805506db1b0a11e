//! `http_proxy` over a VPC link: the existing application behind the gate. The load balancer's TLS is not stood in for: the link leads to a socket
//! in the file system, which nobody reaches but the owner of the stack.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::Full;
use serde_json::{Map, Value};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::answer::passed_on;
use super::event::{Authorized, Incoming};
use super::response::Kind;
use crate::http::{Response, exchange};

/// Where a VPC link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The link's id.
    pub id: String,
    /// The ARN of the load balancer behind it.
    pub target: String,
    /// The socket on which the application listens.
    pub socket: PathBuf,
}

/// The integration of one operation.
#[derive(Debug)]
pub(super) struct HttpProxy {
    socket: PathBuf,
    host: String,
    /// The greedy parameter that is all of the path at the application.
    parameter: String,
    headers: Vec<(HeaderName, Origin)>,
    timeout: Duration,
}

/// What a header is set to, whatever the client sent under its name.
#[derive(Debug)]
enum Origin {
    Constant(String),
    Authorizer(String),
    RequestId,
}

const KNOWN: [&str; 10] = [
    "type",
    "httpMethod",
    "uri",
    "connectionType",
    "connectionId",
    "integrationTarget",
    "passthroughBehavior",
    "timeoutInMillis",
    "requestParameters",
    "requestTemplates",
];

impl HttpProxy {
    /// Reads the integration of an operation at `template`; what it does not understand is a fault.
    pub(super) fn read(fields: &Map<String, Value>, template: &str, link: Option<&Link>) -> Result<Self, Vec<String>> {
        let mut faults: Vec<String> = fields
            .keys()
            .filter(|name| !KNOWN.contains(&name.as_str()))
            .map(|name| format!("{name}: not supported"))
            .collect();
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let must = |faults: &mut Vec<String>, holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        must(&mut faults, text("httpMethod") == "ANY", "httpMethod must be ANY: the client's own is passed on");
        must(&mut faults, text("connectionType") == "VPC_LINK", "connectionType must be VPC_LINK");
        must(&mut faults, text("passthroughBehavior") == "when_no_match", "passthroughBehavior must be when_no_match");
        let link = link.filter(|link| link.id == text("connectionId") && link.target == text("integrationTarget"));
        must(&mut faults, link.is_some(), "no such VPC link with this load balancer behind it");
        let parameter = template.rsplit('/').next().and_then(|last| last.strip_prefix('{')?.strip_suffix("+}"));
        must(&mut faults, parameter.is_some(), "only a greedy path can be handed on");
        let parameter = parameter.unwrap_or_default();
        let host =
            text("uri").strip_prefix("https://").and_then(|rest| rest.strip_suffix(&format!(":443/{{{parameter}}}")));
        must(&mut faults, host.is_some(), "uri must be https, the default port, and the greedy parameter");
        let limit = fields.get("timeoutInMillis").and_then(Value::as_u64).filter(|ms| (50..=29_000).contains(ms));
        must(&mut faults, limit.is_some(), "timeoutInMillis must be 50 to 29000");
        must(
            &mut faults,
            overrides(fields, parameter),
            "requestTemplates must set the path to the parameter and keep the body",
        );
        let mut headers = Vec::new();
        let mut mapped = false;
        for (name, value) in fields.get("requestParameters").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            if name == &format!("integration.request.path.{parameter}") {
                mapped = value == format!("method.request.path.{parameter}");
                continue;
            }
            let header = name.strip_prefix("integration.request.header.").and_then(|name| name.parse().ok());
            match header.zip(Origin::parse(value)) {
                Some(header) => headers.push(header),
                None => faults.push(format!("requestParameters {name}: {value} is not supported")),
            }
        }
        must(&mut faults, mapped, "requestParameters must map the path's parameter");
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            socket: link.map(|link| link.socket.clone()).unwrap_or_default(),
            host: host.unwrap_or_default().to_owned(),
            parameter: parameter.to_owned(),
            headers,
            timeout: Duration::from_millis(limit.unwrap_or_default()),
        })
    }

    /// Passes one request on and its answer back.
    pub(super) async fn answer(
        &self,
        incoming: &Incoming<'_>,
        authorized: Option<&Authorized>,
    ) -> Result<Response, Kind> {
        let request = self.request(incoming, authorized).ok_or(Kind::DEFAULT_5XX)?;
        let sent = async {
            let stream = UnixStream::connect(&self.socket).await?;
            exchange(stream, request).await
        };
        match timeout(self.timeout, sent).await {
            Err(_) => Err(Kind::INTEGRATION_TIMEOUT),
            Ok(Err(_)) => Err(Kind::INTEGRATION_FAILURE),
            Ok(Ok(answer)) => passed_on(answer).ok_or(Kind::DEFAULT_5XX),
        }
    }

    /// `None` where a mapping has nothing to map: what API Gateway does then is not known, so here it is a fault.
    fn request(&self, incoming: &Incoming<'_>, authorized: Option<&Authorized>) -> Option<http::Request<Full<Bytes>>> {
        let mut headers = HeaderMap::new();
        for (name, value) in &incoming.headers {
            headers.append(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
        }
        headers.insert(http::header::HOST, HeaderValue::from_str(&self.host).ok()?);
        let nothing = BTreeMap::new();
        let context = authorized.map_or(&nothing, |authorized| &authorized.context);
        for (name, from) in &self.headers {
            let value = match from {
                Origin::Constant(text) => text,
                Origin::Authorizer(key) => context.get(key).filter(|value| !value.is_empty())?,
                Origin::RequestId => &incoming.request_id,
            };
            headers.insert(name, HeaderValue::from_str(value).ok()?);
        }
        let path = incoming.parameters.get(&self.parameter)?;
        let query = incoming.request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut request =
            http::Request::builder().method(incoming.request.method.clone()).uri(format!("/{path}{query}"));
        *request.headers_mut()? = headers;
        request.body(Full::new(incoming.request.body.clone())).ok()
    }
}

impl Origin {
    fn parse(value: &str) -> Option<Self> {
        if let Some(text) = value.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
            return Some(Self::Constant(text.to_owned()));
        }
        match value.strip_prefix("context.")? {
            "requestId" => Some(Self::RequestId),
            other => other.strip_prefix("authorizer.").map(|key| Self::Authorizer(key.to_owned())),
        }
    }
}

/// Whether the one template says that the parameter is the path and the body stays. No other template language is known here.
fn overrides(fields: &Map<String, Value>, parameter: &str) -> bool {
    let expected = format!("#set($context.requestOverride.path = \"/$input.params('{parameter}')\")\n$input.body");
    let templates = fields.get("requestTemplates").and_then(Value::as_object);
    templates.is_some_and(|templates| {
        templates.len() == 1 && templates.get("*/*").and_then(Value::as_str) == Some(expected.as_str())
    })
}
