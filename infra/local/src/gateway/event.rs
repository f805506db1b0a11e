//! The REST API proxy event (version 1) and the authorizer's `REQUEST` event.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, macros::format_description};

use super::{Settings, connection::Spelling, response::Variables};
use crate::{account::Account, http::Request};

/// Headers that never reach a function.
const WITHHELD: &[&str] = &[
    "connection",
    "content-length",
    "content-md5",
    "expect",
    "max-forwards",
    "proxy-authenticate",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// One request as both events describe it.
pub(super) struct Incoming<'a> {
    pub(super) request: &'a Request,
    pub(super) account: &'a Account,
    pub(super) settings: &'a Settings,
    pub(super) request_id: String,
    pub(super) received: SystemTime,
    /// Names as the client wrote them, withheld ones left out, the gateway's own added.
    pub(super) headers: Vec<(String, String)>,
    /// Decoded.
    pub(super) query: Vec<(String, String)>,
    pub(super) resource: String,
    /// Percent-encoded.
    pub(super) parameters: BTreeMap<String, String>,
}

/// What the authorizer has added.
#[derive(Clone, Debug, Default)]
pub(super) struct Authorized {
    pub(super) principal_id: String,
    pub(super) context: BTreeMap<String, String>,
    pub(super) latency_ms: u128,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(
        request: &'a Request,
        spelling: &Spelling,
        account: &'a Account,
        settings: &'a Settings,
        request_id: String,
    ) -> Self {
        let source_ip = request.peer.ip().to_string();
        let mut headers: Vec<(String, String)> = request
            .headers
            .iter()
            .filter(|(name, _)| !WITHHELD.contains(&name.as_str()))
            .map(|(name, value)| {
                let name = spelling.get(name.as_str()).cloned().unwrap_or_else(|| name.to_string());
                (name, String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let injected = [("CF-Connecting-IP", &settings.connecting_ip), ("CF-IPCountry", &settings.country)];
        for (name, value) in injected {
            if let Some(value) = value.as_ref().filter(|_| !request.headers.contains_key(name)) {
                headers.push((name.to_owned(), value.clone()));
            }
        }
        let forwarded = request.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
        let forwarded = forwarded.map_or_else(|| source_ip.clone(), |before| format!("{before}, {source_ip}"));
        let port = request.headers.get("host").and_then(|host| host.to_str().ok()?.rsplit_once(':'));
        let port = port.map_or("443", |(_, port)| port).to_owned();
        let trace = format!("Root=1-00000000-{}", request_id.replace('-', "").get(..24).unwrap_or_default());
        headers.retain(|(name, _)| !name.to_ascii_lowercase().starts_with("x-forwarded-"));
        headers.extend([
            ("X-Amzn-Trace-Id".to_owned(), trace),
            ("X-Forwarded-For".to_owned(), forwarded),
            ("X-Forwarded-Port".to_owned(), port),
            ("X-Forwarded-Proto".to_owned(), "https".to_owned()),
        ]);
        let query = url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes());
        Self {
            request,
            account,
            settings,
            request_id,
            received: account.clock.now(),
            headers,
            query: query.into_owned().collect(),
            resource: String::new(),
            parameters: BTreeMap::new(),
        }
    }

    /// The path as sent, several leading slashes as one.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.request.uri.path().trim_start_matches('/'))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The ARN of this very call.
    pub(super) fn method_arn(&self) -> String {
        let (account, settings) = (self.account, self.settings);
        format!(
            "arn:aws:execute-api:{}:{}:{}/{}/{}/{}",
            account.region,
            account.id,
            settings.api_id,
            settings.stage,
            self.request.method,
            self.path().trim_start_matches('/')
        )
    }

    /// What templates of the document may name.
    pub(super) fn variables(&self) -> Variables {
        let pairs = [
            ("accountId", self.account.id.clone()),
            ("apiId", self.settings.api_id.clone()),
            ("extendedRequestId", self.extended_id()),
            ("httpMethod", self.request.method.to_string()),
            ("identity.sourceIp", self.request.peer.ip().to_string()),
            ("path", self.stage_path()),
            ("requestId", self.request_id.clone()),
            ("resourcePath", self.resource.clone()),
            ("stage", self.settings.stage.clone()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// `X-Amz-Apigw-Id` of the answer.
    pub(super) fn extended_id(&self) -> String {
        STANDARD.encode(self.request_id.as_bytes()).chars().take(15).chain(['=']).collect()
    }

    pub(super) fn authorizer_event(&self) -> Value {
        let mut event = self.common();
        event.insert("type".to_owned(), "REQUEST".into());
        event.insert("methodArn".to_owned(), self.method_arn().into());
        event.insert("requestContext".to_owned(), self.context(None));
        Value::Object(event)
    }

    pub(super) fn proxy_event(&self, authorized: Option<&Authorized>, binary: bool) -> Value {
        let mut event = self.common();
        event.insert("requestContext".to_owned(), self.context(authorized));
        let body = &self.request.body;
        let text = if binary { STANDARD.encode(body) } else { String::from_utf8_lossy(body).into_owned() };
        event.insert("body".to_owned(), if body.is_empty() { Value::Null } else { text.into() });
        event.insert("isBase64Encoded".to_owned(), (binary && !body.is_empty()).into());
        Value::Object(event)
    }

    fn common(&self) -> Map<String, Value> {
        let parameters = if self.parameters.is_empty() { Value::Null } else { json!(self.parameters) };
        let fields = [
            ("resource", json!(self.resource)),
            ("path", json!(self.path())),
            ("httpMethod", json!(self.request.method.as_str())),
            ("headers", last(&self.headers)),
            ("multiValueHeaders", all(&self.headers)),
            ("queryStringParameters", last(&self.query)),
            ("multiValueQueryStringParameters", all(&self.query)),
            ("pathParameters", parameters),
            (
                "stageVariables",
                if self.settings.variables.is_empty() { Value::Null } else { json!(self.settings.variables) },
            ),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn stage_path(&self) -> String {
        format!("/{}{}", self.settings.stage, self.request.uri.path())
    }

    fn context(&self, authorized: Option<&Authorized>) -> Value {
        let domain = self.header("host").unwrap_or("localhost");
        let domain = domain.rsplit_once(':').map_or(domain, |(name, _)| name);
        let received = OffsetDateTime::from(self.received);
        let format = format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
        let mut context = json!({
            "accountId": self.account.id,
            "apiId": self.settings.api_id,
            "deploymentId": "local1",
            "domainName": domain,
            "domainPrefix": domain.split('.').next().unwrap_or(domain),
            "extendedRequestId": self.extended_id(),
            "httpMethod": self.request.method.as_str(),
            "path": self.stage_path(),
            "protocol": "HTTP/1.1",
            "requestId": self.request_id,
            "requestTime": received.format(format).unwrap_or_default(),
            "requestTimeEpoch": i64::try_from(received.unix_timestamp_nanos() / 1_000_000).unwrap_or_default(),
            "resourceId": resource_id(&self.resource),
            "resourcePath": self.resource,
            "stage": self.settings.stage,
            "identity": {
                "accessKey": null,
                "accountId": null,
                "caller": null,
                "cognitoAuthenticationProvider": null,
                "cognitoAuthenticationType": null,
                "cognitoIdentityId": null,
                "cognitoIdentityPoolId": null,
                "principalOrgId": null,
                "sourceIp": self.request.peer.ip().to_string(),
                "user": null,
                "userAgent": self.header("user-agent"),
                "userArn": null,
            },
        });
        if let (Some(authorized), Some(context)) = (authorized, context.as_object_mut()) {
            let mut fields: Map<String, Value> =
                authorized.context.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            fields.insert("principalId".to_owned(), authorized.principal_id.clone().into());
            fields.insert("integrationLatency".to_owned(), u64::try_from(authorized.latency_ms).unwrap_or(0).into());
            context.insert("authorizer".to_owned(), Value::Object(fields));
        }
        context
    }
}

/// Characters API Gateway refuses unencoded, and escapes that are none.
pub(super) fn well_formed(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let escaped = target
        .split('%')
        .skip(1)
        .all(|rest| rest.get(..2).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit())));
    let plain = target.bytes().all(|byte| byte.is_ascii_graphic() && !b"|\"<>\\^`{}".contains(&byte));
    escaped && plain && percent_decode_str(path).decode_utf8().is_ok()
}

fn last(pairs: &[(String, String)]) -> Value {
    if pairs.is_empty() {
        return Value::Null;
    }
    Value::Object(pairs.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect())
}

fn all(pairs: &[(String, String)]) -> Value {
    if pairs.is_empty() {
        return Value::Null;
    }
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in pairs {
        fields.entry(name.clone()).or_default().push(value.clone());
    }
    json!(fields)
}

/// Six letters and digits that stay the same for a template.
fn resource_id(template: &str) -> String {
    let hash = template
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}").chars().take(6).collect()
}
