//! Gateway responses: what the gateway itself answers, in the words of the document where it has some.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::http::{Response, answer};

/// A gateway response type with AWS's own defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    name: &'static str,
    status: u16,
    message: Option<&'static str>,
    error_type: &'static str,
}

macro_rules! kinds {
    ($($constant:ident = $status:literal, $message:expr, $error:literal;)*) => {
        impl Kind {
            $(pub(super) const $constant: Kind =
                Kind { name: stringify!($constant), status: $status, message: $message, error_type: $error };)*
        }
    };
}

kinds! {
    ACCESS_DENIED = 403, Some("User is not authorized to access this resource"), "AccessDeniedException";
    AUTHORIZER_CONFIGURATION_ERROR = 500, None, "AuthorizerConfigurationException";
    BAD_REQUEST_PARAMETERS = 400, None, "BadRequestException";
    DEFAULT_5XX = 502, Some("Internal server error"), "InternalServerErrorException";
    INTEGRATION_FAILURE = 500, Some("Internal server error"), "InternalServerErrorException";
    INTEGRATION_TIMEOUT = 504, Some("Endpoint request timed out"), "InternalServerErrorException";
    MISSING_AUTHENTICATION_TOKEN = 403, Some("Missing Authentication Token"), "MissingAuthenticationTokenException";
    REQUEST_TOO_LARGE = 413, Some("Request Too Long"), "RequestTooLargeException";
    THROTTLED = 429, Some("Too Many Requests"), "TooManyRequestsException";
    UNAUTHORIZED = 401, Some("Unauthorized"), "UnauthorizedException";
    UNSUPPORTED_MEDIA_TYPE = 415, Some("Unsupported Media Type"), "BadRequestException";
}

/// Every type the document may configure.
const NAMES: &[&str] = &[
    "ACCESS_DENIED",
    "API_CONFIGURATION_ERROR",
    "AUTHORIZER_CONFIGURATION_ERROR",
    "AUTHORIZER_FAILURE",
    "BAD_REQUEST_BODY",
    "BAD_REQUEST_PARAMETERS",
    "DEFAULT_4XX",
    "DEFAULT_5XX",
    "EXPIRED_TOKEN",
    "INTEGRATION_FAILURE",
    "INTEGRATION_TIMEOUT",
    "INVALID_API_KEY",
    "INVALID_SIGNATURE",
    "MISSING_AUTHENTICATION_TOKEN",
    "QUOTA_EXCEEDED",
    "REQUEST_TOO_LARGE",
    "RESOURCE_NOT_FOUND",
    "THROTTLED",
    "UNAUTHORIZED",
    "UNSUPPORTED_MEDIA_TYPE",
    "WAF_FILTERED",
];

/// `$context.…` of one request.
pub(super) type Variables = BTreeMap<String, String>;

/// A body template with `$context.…` variables and no other template language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

impl Kind {
    /// As AWS names it.
    pub(super) fn name(self) -> &'static str {
        self.name
    }
}

impl Template {
    /// Refuses what this gateway could not fill in.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.lines().any(|line| line.trim_start().starts_with('#')) {
            return Err("template directives are not supported".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, found) = rest.split_at(at);
            parts.push(Part::Text(before.to_owned()));
            let Some(found) = found.strip_prefix("$context.") else {
                return Err(format!("unknown template variable {}", found.chars().take(30).collect::<String>()));
            };
            let end = found.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_')).unwrap_or(found.len());
            let (name, after) = found.split_at(end);
            let trimmed = name.trim_end_matches('.');
            if !known(trimmed) {
                return Err(format!("unknown template variable $context.{trimmed}"));
            }
            parts.push(Part::Variable(trimmed.to_owned()));
            let skipped = name.len() - trimmed.len();
            rest = found.get(end - skipped..).unwrap_or(after);
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    pub(super) fn fill(&self, variables: &Variables) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable(name) => variables.get(name).cloned().unwrap_or_default(),
        };
        self.0.iter().map(part).collect()
    }
}

fn known(variable: &str) -> bool {
    const KNOWN: &[&str] = &[
        "accountId",
        "apiId",
        "error.message",
        "error.messageString",
        "error.responseType",
        "extendedRequestId",
        "httpMethod",
        "identity.sourceIp",
        "path",
        "requestId",
        "resourcePath",
        "stage",
    ];
    KNOWN.contains(&variable) || variable.strip_prefix("authorizer.").is_some_and(|name| !name.is_empty())
}

#[derive(Clone, Debug, Default)]
struct Configured {
    status: Option<u16>,
    headers: Vec<(HeaderName, Source)>,
    templates: BTreeMap<String, Template>,
}

#[derive(Clone, Debug)]
enum Source {
    Constant(String),
    Context(String),
}

/// The gateway responses of a document.
#[derive(Clone, Debug, Default)]
pub(super) struct Responses(BTreeMap<String, Configured>);

impl Responses {
    pub(super) fn read(value: &Value, faults: &mut Vec<String>) -> Self {
        let mut responses = BTreeMap::new();
        for (name, value) in value.as_object().into_iter().flatten() {
            let location = format!("/x-amazon-apigateway-gateway-responses/{name}");
            if !NAMES.contains(&name.as_str()) {
                faults.push(format!("{location}: unknown response type"));
            }
            let mut found = Vec::new();
            responses.insert(name.clone(), configured(value, &mut found));
            faults.extend(found.into_iter().map(|fault| format!("{location}: {fault}")));
        }
        let responses = Self(responses);
        responses.agree(faults);
        responses
    }

    /// Which of the two a failing authorizer gets is not documented, so a document must answer both alike.
    fn agree(&self, faults: &mut Vec<String>) {
        let shown = |name: &str| self.0.get(name).map(|one| format!("{one:?}"));
        if shown("AUTHORIZER_FAILURE") != shown("AUTHORIZER_CONFIGURATION_ERROR") {
            let text = "AUTHORIZER_FAILURE and AUTHORIZER_CONFIGURATION_ERROR must be configured alike";
            faults.push(format!("/x-amazon-apigateway-gateway-responses: {text}"));
        }
    }

    /// The gateway's answer of this kind; `message` replaces the kind's own.
    pub(super) fn render(&self, kind: Kind, message: Option<&str>, variables: &Variables) -> Response {
        let message = message.or(kind.message);
        let mut variables = variables.clone();
        variables.insert("error.message".to_owned(), message.unwrap_or_default().to_owned());
        variables.insert("error.messageString".to_owned(), json!(message).to_string());
        variables.insert("error.responseType".to_owned(), kind.name.to_owned());
        let family = if kind.status < 500 { "DEFAULT_4XX" } else { "DEFAULT_5XX" };
        let configured = self.0.get(kind.name).or_else(|| self.0.get(family)).cloned().unwrap_or_default();
        let status = configured.status.unwrap_or(kind.status);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let template = configured.templates.get_key_value("application/json").or(configured.templates.iter().next());
        let (media, body) = match template {
            Some((media, template)) => (media.as_str(), template.fill(&variables)),
            None => {
                let name = if kind == Kind::ACCESS_DENIED { "Message" } else { "message" };
                ("application/json", json!({name: message}).to_string())
            }
        };
        let mut response = answer(status, &[("content-type", media), ("x-amzn-errortype", kind.error_type)], body);
        for (name, source) in &configured.headers {
            let text = match source {
                Source::Constant(text) => text.clone(),
                Source::Context(name) => variables.get(name).cloned().unwrap_or_default(),
            };
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

fn configured(value: &Value, faults: &mut Vec<String>) -> Configured {
    let mut configured = Configured::default();
    let Some(fields) = value.as_object() else {
        faults.push("not an object".to_owned());
        return configured;
    };
    for (field, value) in fields {
        match field.as_str() {
            "statusCode" => match value.to_string().trim_matches('"').parse::<u16>() {
                Ok(status) if (100..600).contains(&status) => configured.status = Some(status),
                _ => faults.push("statusCode is no status".to_owned()),
            },
            "responseParameters" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match header(name, value) {
                        Ok(header) => configured.headers.push(header),
                        Err(fault) => faults.push(fault),
                    }
                }
            }
            "responseTemplates" => {
                for (media, value) in value.as_object().into_iter().flatten() {
                    match Template::parse(value.as_str().unwrap_or_default()) {
                        Ok(template) => drop(configured.templates.insert(media.clone(), template)),
                        Err(fault) => faults.push(fault),
                    }
                }
            }
            other => faults.push(format!("{other} is not supported")),
        }
    }
    configured
}

fn header(name: &str, value: &Value) -> Result<(HeaderName, Source), String> {
    let header = name.strip_prefix("gatewayresponse.header.").and_then(|name| name.parse().ok());
    let text = value.as_str().unwrap_or_default();
    let constant = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    let source = match (constant, text.strip_prefix("context.")) {
        (Some(text), _) => Some(Source::Constant(text.to_owned())),
        (None, Some(name)) if known(name) => Some(Source::Context(name.to_owned())),
        _ => None,
    };
    header.zip(source).ok_or_else(|| format!("response parameter {name}: {value} is not supported"))
}
