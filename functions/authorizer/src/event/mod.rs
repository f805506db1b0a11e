//! The authorizer events of API Gateway and the answers to them, as types of our own.
//!
//! The published event crate's policy effect defaults to `Allow`, in Rust and where the member is missing.

mod answer;
mod arn;

use serde_json::Value;
use shared::http::Headers;
use shared::name::Malformed;

pub use answer::{Effect, HttpAnswer, policy, simple};
pub use arn::MethodArn;

use crate::routes::{CONNECT, Route};

/// Who asks in which form, and so in which form the answer goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// HTTP API, payload format 2.0, with simple responses or without ([`HttpAnswer`]).
    Http,
    /// REST API, `REQUEST`, or HTTP API with payload format 1.0, which is the same.
    Request,
    /// REST API, `TOKEN`: one header's value and an ARN, nothing else.
    Token,
    /// WebSocket API, `$connect`: a `REQUEST` without method and path.
    Socket,
}

/// What is asked: may this request pass?
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The form of event and answer.
    pub shape: Shape,
    /// The method's ARN, taken apart.
    pub arn: MethodArn,
    /// The route's template, where the event names it.
    pub resource: Option<String>,
    /// The path as sent, without the stage.
    pub path: String,
    /// The method.
    pub method: String,
    /// Header fields; of a `TOKEN` event the one it carries.
    pub headers: Headers,
    /// Whether a token was put into the query, where none may be.
    pub token_in_query: bool,
    /// API Gateway's request id; a `TOKEN` event has none.
    pub request_id: String,
}

/// The key of the one route of a WebSocket API that an authorizer is asked about.
const CONNECT_KEY: &str = "$connect";
const BAD: Malformed = Malformed("event");

impl Request {
    /// Reads the event. The shapes are told apart in this order; whatever is none of them, or incomplete, is malformed.
    pub fn parse(event: &Value) -> Result<Self, Malformed> {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        match (text("version"), text("type")) {
            (Some("2.0"), _) if event.get("routeArn").is_some() => Self::http(event),
            (Some("2.0"), _) => Err(BAD),
            (_, Some("TOKEN")) => Self::token(event),
            // Its `version` is no payload format: a recorded event says `$LATEST` there.
            (_, Some("REQUEST")) if at(event, "/requestContext/eventType").is_some() => Self::socket(event),
            (_, Some("REQUEST")) => Self::rest_request(event),
            _ => Err(BAD),
        }
    }

    /// The route, from the template that the gateway matched, or for a `TOKEN` event from the ARN's method and path.
    pub fn route(&self) -> Option<&'static Route> {
        match &self.resource {
            _ if self.shape == Shape::Socket => Some(&CONNECT),
            Some(resource) => Route::find(&self.method, resource),
            None => Route::of_path(&self.method, &self.path),
        }
    }

    /// The one resource that an answer about this request may name. `path` is checked.
    pub fn place(&self, path: &str) -> String {
        match self.shape {
            Shape::Socket => self.arn.with(CONNECT_KEY, ""),
            _ => self.arn.with(&self.method, path),
        }
    }

    /// The route as the log names it.
    pub fn route_name(&self) -> &str {
        match &self.resource {
            Some(resource) => resource,
            None => self.route().map_or("", |route| route.template),
        }
    }

    fn rest_request(event: &Value) -> Result<Self, Malformed> {
        Ok(Self {
            shape: Shape::Request,
            arn: MethodArn::parse(text(event, "/methodArn")?)?,
            resource: Some(text(event, "/resource")?.to_owned()),
            path: text(event, "/path")?.to_owned(),
            method: text(event, "/httpMethod")?.to_owned(),
            headers: Headers::from_event(event)?,
            token_in_query: token_in_query(event),
            request_id: text(event, "/requestContext/requestId").unwrap_or_default().to_owned(),
        })
    }

    /// A WebSocket's handshake. Only `$connect` is ever asked about; its ARN ends with it and names no method.
    fn socket(event: &Value) -> Result<Self, Malformed> {
        let arn = MethodArn::parse(text(event, "/methodArn")?)?;
        let connects = text(event, "/requestContext/eventType")? == "CONNECT"
            && text(event, "/requestContext/routeKey")? == CONNECT_KEY
            && (arn.method(), arn.path()) == (CONNECT_KEY, "/");
        if !connects {
            return Err(BAD);
        }
        Ok(Self {
            shape: Shape::Socket,
            resource: Some(CONNECT.template.to_owned()),
            path: CONNECT.template.to_owned(),
            method: CONNECT.method.to_owned(),
            arn,
            headers: Headers::from_event(event)?,
            token_in_query: token_in_query(event),
            request_id: text(event, "/requestContext/requestId").unwrap_or_default().to_owned(),
        })
    }

    /// Everything but the header's value comes from the ARN.
    fn token(event: &Value) -> Result<Self, Malformed> {
        let arn = MethodArn::parse(text(event, "/methodArn")?)?;
        let credential = ("authorization".to_owned(), text(event, "/authorizationToken")?.to_owned());
        Ok(Self {
            shape: Shape::Token,
            resource: None,
            path: arn.path().to_owned(),
            method: arn.method().to_owned(),
            arn,
            headers: [credential].into_iter().collect(),
            token_in_query: false,
            request_id: String::new(),
        })
    }

    /// Names of fields come in lower case, repeats joined by commas; the path of a named stage begins with it.
    fn http(event: &Value) -> Result<Self, Malformed> {
        let arn = MethodArn::parse(text(event, "/routeArn")?)?;
        let method = text(event, "/requestContext/http/method")?;
        // `$default` and `ANY …` name no operation of ours, so they find no route.
        let resource = match text(event, "/routeKey")?.split_once(' ') {
            Some((named, template)) if named == method => template,
            Some(("ANY", template)) => template,
            Some(_) => return Err(BAD),
            None => "",
        };
        let raw = text(event, "/rawPath")?;
        let within = raw.strip_prefix('/').and_then(|raw| raw.strip_prefix(arn.stage()));
        let path = within.filter(|path| path.starts_with('/')).unwrap_or(raw);
        let fields = match event.get("headers") {
            Some(Value::Object(fields)) => {
                let field = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
                fields.iter().map(field).collect::<Option<Headers>>().ok_or(BAD)?
            }
            None | Some(Value::Null) => Headers::default(),
            Some(_) => return Err(BAD),
        };
        Ok(Self {
            shape: Shape::Http,
            resource: Some(resource.to_owned()),
            path: path.to_owned(),
            method: method.to_owned(),
            headers: fields,
            token_in_query: at(event, "/queryStringParameters/access_token").is_some(),
            request_id: text(event, "/requestContext/requestId").unwrap_or_default().to_owned(),
            arn,
        })
    }
}

fn token_in_query(event: &Value) -> bool {
    let query = ["queryStringParameters", "multiValueQueryStringParameters"];
    query.iter().any(|query| event.get(query).is_some_and(|query| query.get("access_token").is_some()))
}

fn text<'a>(event: &'a Value, pointer: &str) -> Result<&'a str, Malformed> {
    at(event, pointer).and_then(Value::as_str).ok_or(BAD)
}

/// As [`Value::pointer`] of plain names, without making texts of them.
fn at<'a>(event: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(event, |value, name| value.get(name))
}
