//! REST proxy events and answers (API Gateway payload format 1.0), as types that a decision can read.

use std::collections::BTreeMap;
use std::fmt;

use aws_lambda_events::apigw::ApiGatewayProxyResponse;
use aws_lambda_events::encodings::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::name::Malformed;
use crate::problem::{Code, Problem};

/// Header fields; names compare without regard to case, repeats are kept. `Debug` shows no value: one is the credential.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Headers {
    /// From a JSON object of `multiValueHeaders` (name → array), or of `headers` where the first is absent.
    pub fn from_event(event: &Value) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        match (event.get("multiValueHeaders"), event.get("headers")) {
            (Some(Value::Object(multi)), _) => {
                for (name, values) in multi {
                    for value in values.as_array().ok_or(Malformed("event"))? {
                        fields.push((name.clone(), value.as_str().ok_or(Malformed("event"))?.to_owned()));
                    }
                }
            }
            // What cannot be read is no reason to believe the view that lost the repeats.
            (None | Some(Value::Null), Some(Value::Object(single))) => {
                for (name, value) in single {
                    fields.push((name.clone(), value.as_str().ok_or(Malformed("event"))?.to_owned()));
                }
            }
            (None | Some(Value::Null), None | Some(Value::Null)) => {}
            _ => return Err(Malformed("event")),
        }
        Ok(Self(fields))
    }

    /// All values of a field, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The value of a field that was sent exactly once.
    pub fn single<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The field names as sent.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

impl FromIterator<(String, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

/// What the authorizer handed on. It proves that the gate was passed, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthorizerContext {
    /// `jti` of the token it admitted.
    pub jti: String,
    /// `sub` of the token it admitted.
    pub subject: String,
}

/// A request as API Gateway passed it on. `Debug` shows nothing that a client chose but its method and header names: tokens,
/// plaintexts and tickets travel in the rest.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// `POST`, …
    pub method: String,
    /// The route's template, e.g. `/files/{id}`.
    pub resource: String,
    /// The path as sent, percent-encoded.
    pub path: String,
    /// The template's parameters, percent-encoded.
    pub path_parameters: BTreeMap<String, String>,
    /// Query parameters in no particular order, decoded.
    pub query: Vec<(String, String)>,
    /// Header fields.
    pub headers: Headers,
    /// The body's bytes.
    pub body: Vec<u8>,
    /// The authorizer's context; absent on open routes.
    pub authorizer: Option<AuthorizerContext>,
    /// API Gateway's request id.
    pub request_id: String,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("resource", &self.resource)
            .field("headers", &self.headers)
            .field("body", &self.body.len())
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// The members of a REST proxy event that are looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    resource: String,
    path: String,
    http_method: String,
    /// Read only where the view that keeps repeats is absent.
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    multi_value_headers: Option<Fields>,
    multi_value_query_string_parameters: Option<Fields>,
    path_parameters: Option<BTreeMap<String, String>>,
    #[serde(borrow)]
    request_context: &'a RawValue,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
}

/// The members of its request context.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    request_id: Option<String>,
    authorizer: Option<Value>,
}

/// Names with one or several values, repeats kept.
struct Fields(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names with lists of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::with_capacity(24);
        while let Some((name, values)) = map.next_entry::<String, Vec<String>>()? {
            fields.extend(values.into_iter().map(|value| (name.clone(), value)));
        }
        Ok(Fields(fields))
    }
}

/// An object as `T`: a structure is not read from an array of its members in order, as serde would.
fn members<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Malformed> {
    if !text.starts_with('{') {
        return Err(Malformed("event"));
    }
    serde_json::from_str(text).map_err(|_| Malformed("event"))
}

impl Request {
    /// Reads a REST proxy event from its text. The error says nothing of the event's content.
    pub fn parse(event: &str) -> Result<Self, Malformed> {
        let event: Event<'_> = members(event)?;
        let context: Context = members(event.request_context.get())?;
        // API Gateway hands numbers and booleans over as text, so only text counts.
        let authorizer = context.authorizer.and_then(|context| {
            let text = |name: &str| context.get(name).and_then(Value::as_str).map(str::to_owned);
            Some(AuthorizerContext { jti: text("jti")?, subject: text("sub")? })
        });
        let headers = match (event.multi_value_headers, event.headers) {
            (Some(Fields(fields)), _) => Headers(fields),
            (None, Some(single)) => members::<BTreeMap<String, String>>(single.get())?.into_iter().collect(),
            (None, None) => Headers::default(),
        };
        if !is_token(&event.http_method) || !headers.0.iter().all(|(name, value)| is_token(name) && is_value(value)) {
            return Err(Malformed("event"));
        }
        let body = match (event.body, event.is_base64_encoded) {
            (None, _) => Vec::new(),
            (Some(text), None | Some(false)) => text.into_bytes(),
            (Some(text), Some(true)) => STANDARD.decode(text).map_err(|_| Malformed("event"))?,
        };
        Ok(Self {
            method: event.http_method,
            resource: event.resource,
            path: event.path,
            path_parameters: event.path_parameters.unwrap_or_default(),
            query: event.multi_value_query_string_parameters.map(|Fields(query)| query).unwrap_or_default(),
            headers,
            body,
            authorizer,
            request_id: context.request_id.unwrap_or_default(),
        })
    }

    /// The body as `T`: at most `limit` bytes of `application/json`. Types derive `deny_unknown_fields`.
    pub fn json<T: DeserializeOwned>(&self, limit: usize) -> Result<T, Problem> {
        self.json_in_place(limit)
    }

    /// The same for a type that borrows from the body what stands there without escapes.
    pub fn json_in_place<'a, T: Deserialize<'a>>(&'a self, limit: usize) -> Result<T, Problem> {
        if self.body.len() > limit {
            return Err(Code::PayloadTooLarge.into());
        }
        if !self.is_of_type("application/json") {
            return Err(Code::UnsupportedType.into());
        }
        // Serde would also read a structure from an array of its members in order.
        if self.body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Code::MalformedRequest.into());
        }
        // Looked at once for all of its texts.
        let text = std::str::from_utf8(&self.body).map_err(|_| Problem::from(Code::MalformedRequest))?;
        serde_json::from_str(text).map_err(|_| Code::MalformedRequest.into())
    }

    /// Whether the body's media type is this one, whatever its parameters and its case (RFC 9110 §8.3.1).
    pub fn is_of_type(&self, media_type: &str) -> bool {
        let named = self.headers.single("content-type").and_then(|value| value.split(';').next());
        named.is_some_and(|named| named.trim().eq_ignore_ascii_case(media_type))
    }
}

/// An answer on its way to API Gateway. `Debug` shows neither body nor header values: they hold tokens, URLs and plaintexts.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).field("body", &self.body.len()).finish_non_exhaustive()
    }
}

impl Response {
    /// A JSON answer. `Cache-Control: no-store` unless another is set.
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        Self::of_json(status, serde_json::to_string(body).unwrap_or_default())
    }

    /// The same of a body that is JSON already.
    pub fn of_json(status: u16, body: String) -> Self {
        Self { status, headers: Vec::new(), body }
            .header("content-type", "application/json")
            .header("cache-control", "no-store")
    }

    /// An answer without a body that nobody may keep.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }.header("cache-control", "no-store")
    }

    /// A redirect that nobody may keep: 302 with `Cache-Control: no-store` and `Referrer-Policy: no-referrer`.
    pub fn redirect(location: String) -> Self {
        Self { status: 302, headers: Vec::new(), body: String::new() }
            .header("location", location)
            .header("cache-control", "no-store")
            .header("referrer-policy", "no-referrer")
    }

    /// A problem with the request id it belongs to.
    pub fn problem(problem: Problem, request_id: &str) -> Self {
        let mut answer = Self::json(problem.code.status(), &problem.body(request_id))
            .header("content-type", "application/problem+json");
        if let Some(seconds) = problem.retry_after {
            answer = answer.header("retry-after", seconds.to_string());
        }
        answer
    }

    /// Sets a header field, replacing one of the same name.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(held, _)| *held != name);
        self.headers.push((name, value.into()));
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body's text.
    pub fn body(&self) -> &str {
        &self.body
    }

    /// A header field's value.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| *held == name).map(|(_, value)| value.as_str())
    }

    /// The answer in the form that API Gateway reads.
    pub fn proxied(self) -> ApiGatewayProxyResponse {
        let mut answer = ApiGatewayProxyResponse::default();
        answer.status_code = i64::from(self.status);
        for (name, value) in &self.headers {
            if let Ok(value) = value.parse() {
                answer.headers.insert(*name, value);
            }
        }
        answer.body = Some(Body::Text(self.body));
        answer
    }
}

/// Whether a text is a token (RFC 9110 §5.6.2), as the names of methods and of fields are.
fn is_token(text: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_sign)
}

/// Whether a text can be the value of a field (RFC 9110 §5.5): nothing that would end it.
fn is_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({"resource":"/files/{id}","path":"/files/a%20b","httpMethod":"GET",
            "headers":{"Accept":"b"},"multiValueHeaders":{"Accept":["a","b"],"X-One":["1"]},
            "queryStringParameters":{"q":"2"},"multiValueQueryStringParameters":{"q":["1","2"]},
            "pathParameters":{"id":"a%20b"},"stageVariables":null,
            "requestContext":{"requestId":"r-1","httpMethod":"GET","authorizer":{"jti":"j","sub":"s","principalId":"s"},"identity":{}},
            "body":"aGk=","isBase64Encoded":true})
    }

    #[test]
    fn a_rest_event_is_read_whole() {
        let request = Request::parse(&event().to_string()).unwrap();
        assert_eq!((request.method.as_str(), request.resource.as_str()), ("GET", "/files/{id}"));
        assert_eq!(request.path_parameters["id"], "a%20b");
        assert_eq!(request.headers.all("accept").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((request.headers.single("accept"), request.headers.single("x-one")), (None, Some("1")));
        assert_eq!(request.body, b"hi");
        assert_eq!(request.query, [("q".to_owned(), "1".to_owned()), ("q".to_owned(), "2".to_owned())]);
        assert_eq!(request.authorizer, Some(AuthorizerContext { jti: "j".into(), subject: "s".into() }));
    }

    #[test]
    fn an_event_of_another_shape_is_refused_without_echo() {
        for (member, value) in [
            ("httpMethod", json!("canary method")),
            ("httpMethod", json!(7)),
            ("resource", json!(null)),
            ("multiValueHeaders", json!({"canary": "text"})),
            ("multiValueHeaders", json!("canary")),
            ("multiValueHeaders", json!({"Authorization": ["canary\n"]})),
            ("multiValueHeaders", json!({"X-One": ["a\u{0}canary"]})),
            ("multiValueHeaders", json!({"X canary": ["1"]})),
            ("multiValueHeaders", json!({"": ["canary"]})),
            ("body", json!("canary%%")),
            ("requestContext", json!("canary")),
        ] {
            let mut event = event();
            event[member] = value;
            let error = Request::parse(&event.to_string()).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{member}");
        }
        assert!(["[]", "{}", "", "7"].iter().all(|text| Request::parse(text).is_err()));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let good = event().to_string();
        assert!(Request::parse(&good).is_ok());
        let twice = |member: &str| good.replacen('{', &format!("{{{member},"), 1);
        for member in [r#""resource":"/x""#, r#""httpMethod":"GET""#, r#""body":"x""#, r#""requestContext":{}"#] {
            assert!(Request::parse(&twice(member)).is_err(), "{member}");
        }
        for array in [r#"["/files","/files","GET"]"#, "[]"] {
            let mut event = event();
            event["requestContext"] = serde_json::from_str(array).unwrap();
            assert!(Request::parse(&event.to_string()).is_err(), "a context from an array");
            assert!(Request::parse(array).is_err(), "an event from an array");
        }
        // A field that was sent twice stands there twice, however the list was written.
        let repeated = good.replacen(r#""Accept":["a","b"]"#, r#""Accept":["a"],"accept":["b"],"Accept":["c"]"#, 1);
        assert_eq!(Request::parse(&repeated).unwrap().headers.all("ACCEPT").count(), 3);
    }

    #[test]
    fn the_view_without_repeats_is_read_only_where_there_is_no_other() {
        let mut event = event();
        event["headers"] = json!({"Accept": "canary"});
        let read = |event: &Value| Request::parse(&event.to_string()).map(|request| request.headers);
        assert_eq!(read(&event).unwrap().all("accept").collect::<Vec<_>>(), ["a", "b"]);
        event["multiValueHeaders"] = Value::Null;
        assert_eq!(read(&event).unwrap().single("accept"), Some("canary"));
        event["headers"] = json!({"Accept": 7});
        assert!(read(&event).is_err());
        event["headers"] = Value::Null;
        assert_eq!(read(&event).unwrap(), Headers::default());
    }

    #[test]
    fn debug_of_a_request_and_of_an_answer_shows_no_value() {
        let mut event = event();
        let canary = "canary-51c0";
        event["multiValueHeaders"] = json!({"Authorization": [format!("Bearer {canary}")]});
        event["path"] = json!(format!("/tickets/{canary}"));
        event["pathParameters"] = json!({"ticket": canary});
        event["multiValueQueryStringParameters"] = json!({"code": [canary]});
        event["requestContext"]["authorizer"] = json!({"jti": canary, "sub": canary});
        event["body"] = json!(canary);
        event["isBase64Encoded"] = json!(false);
        let request = Request::parse(&event.to_string()).unwrap();
        let answers = [Response::json(200, &json!({"access_token": canary})), Response::redirect(canary.to_owned())];
        let shown = format!("{request:?} {:?} {answers:?}", request.headers);
        assert!(!shown.contains("canary") && shown.contains("Authorization") && shown.contains("302"), "{shown}");
    }

    #[test]
    fn a_media_type_is_known_in_any_case_and_nothing_else_is_taken_for_it() {
        for (types, is_json) in [
            (json!(["application/json"]), true),
            (json!(["Application/JSON; Charset=UTF-8"]), true),
            (json!([" application/json ;x=y"]), true),
            (json!(["application/jsonp"]), false),
            (json!(["x; application/json"]), false),
            (json!(["application/json", "application/json"]), false),
            (json!([""]), false),
            (json!([]), false),
        ] {
            let mut event = event();
            event["multiValueHeaders"] = json!({"Content-Type": types});
            assert_eq!(Request::parse(&event.to_string()).unwrap().is_of_type("application/json"), is_json, "{types}");
        }
    }

    #[test]
    fn an_authorizer_context_without_text_is_none() {
        for context in [json!(null), json!({}), json!({"jti":"j"}), json!({"jti":1,"sub":"s"})] {
            let mut event = event();
            event["requestContext"]["authorizer"] = context;
            assert_eq!(Request::parse(&event.to_string()).unwrap().authorizer, None);
        }
    }

    #[test]
    fn a_problem_becomes_an_answer_api_gateway_accepts() {
        let answer = Response::problem(Problem::new(Code::ServiceUnavailable), "r-1").proxied();
        let answer = serde_json::to_value(answer).unwrap();
        let members: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        for member in members {
            assert!(["statusCode", "headers", "multiValueHeaders", "body", "isBase64Encoded"].contains(&member));
        }
        assert_eq!(answer["headers"]["retry-after"], "1");
        assert_eq!(answer["headers"]["content-type"], "application/problem+json");
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        assert_eq!((body["code"].as_str(), body["request_id"].as_str()), (Some("service_unavailable"), Some("r-1")));
    }
}
