//! The OpenAPI document as the gateway understands it. Whatever it does not understand is a fault, and all faults are
//! reported at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    Settings,
    authorize::Answers,
    extension,
    proxy::HttpProxy,
    response::{Responses, Template},
    route::Resource,
};
use crate::account::Account;

const LONGEST_TIMEOUT: u64 = 29_000;
/// Seconds for which an authorizer's answer is kept where the document does not say.
const KEPT_FOR: u64 = 300;
const LONGEST_KEPT: u64 = 3_600;
/// Members of `$context` that can be identity sources here.
const CONTEXT: [&str; 5] = ["httpMethod", "path", "resourcePath", "stage", "identity.sourceIp"];

/// Everything the gateway needs from the document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Resource,
    pub(super) responses: Responses,
    pub(super) binary: Vec<String>,
    pub(super) authorizers: Vec<Arc<Authorizer>>,
}

/// One method of one resource.
#[derive(Debug)]
pub(super) struct Operation {
    /// The template, as in `resource` and `resourcePath`.
    pub(super) resource: String,
    pub(super) authorizer: Option<Arc<Authorizer>>,
    pub(super) integration: Integration,
    /// Names of required query parameters and headers, where the operation has a request validator.
    pub(super) required_query: Vec<String>,
    pub(super) required_headers: Vec<String>,
}

/// What answers.
#[derive(Debug)]
pub(super) enum Integration {
    Function { name: String, timeout: Duration },
    Http(HttpProxy),
    Mock(Mock),
}

/// An answer made by the gateway itself.
#[derive(Debug)]
pub(super) struct Mock {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content_type: String,
    pub(super) body: Option<Template>,
    pub(super) accepted: BTreeSet<String>,
}

/// A Lambda authorizer of type `request`.
#[derive(Debug)]
pub(super) struct Authorizer {
    pub(super) function: String,
    pub(super) sources: Vec<Source>,
    /// For how long an answer is kept; zero: not at all.
    pub(super) kept_for: Duration,
    pub(super) answers: Answers,
}

/// Where an identity source is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Header(String),
    Query(String),
    Stage(String),
    /// A member of `$context`.
    Context(String),
}

impl Document {
    /// Reads a document whose intrinsics are resolved.
    pub(super) fn read(document: &Value, settings: &Settings, account: &Account) -> Result<Self, Vec<String>> {
        let mut reader = Reader { faults: Vec::new(), settings, account, authorizers: BTreeMap::new() };
        reader.faults.extend(extension::unknown(document));
        if document.get("security").is_some() {
            reader.fault("/security", "API Gateway ignores it here and leaves the operation open: say it at each one");
        }
        if !document.get("openapi").and_then(Value::as_str).is_some_and(|version| version.starts_with("3.0")) {
            reader.fault("/openapi", "API Gateway imports OpenAPI 3.0");
        }
        let responses = match document.get("x-amazon-apigateway-gateway-responses") {
            None => Responses::default(),
            Some(value) => Responses::read(value, &mut reader.faults),
        };
        let binary = reader.binary(document.get("x-amazon-apigateway-binary-media-types"));
        reader.schemes(document.pointer("/components/securitySchemes"));
        let root = reader.paths(document);
        if !reader.faults.is_empty() {
            return Err(reader.faults);
        }
        Ok(Self { root, responses, binary, authorizers: reader.authorizers.into_values().collect() })
    }
}

struct Reader<'a> {
    faults: Vec<String>,
    settings: &'a Settings,
    account: &'a Account,
    authorizers: BTreeMap<String, Arc<Authorizer>>,
}

impl Reader<'_> {
    fn fault(&mut self, location: &str, text: &str) {
        self.faults.push(format!("{location}: {text}"));
    }

    fn only(&mut self, location: &str, fields: &Map<String, Value>, known: &[&str]) {
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            self.faults.push(format!("{location}/{name}: not supported"));
        }
    }

    fn binary(&mut self, value: Option<&Value>) -> Vec<String> {
        let Some(value) = value else { return Vec::new() };
        let list: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|item| item.as_str().map(str::to_lowercase)).collect());
        list.unwrap_or_else(|| {
            self.fault("/x-amazon-apigateway-binary-media-types", "not a list of media types");
            Vec::new()
        })
    }

    fn schemes(&mut self, schemes: Option<&Value>) {
        for (name, scheme) in schemes.and_then(Value::as_object).into_iter().flatten() {
            let location = format!("/components/securitySchemes/{name}");
            if scheme.get("x-amazon-apigateway-authtype").and_then(Value::as_str) != Some("custom") {
                self.fault(&location, "x-amazon-apigateway-authtype must be custom");
            }
            match scheme.get("x-amazon-apigateway-authorizer").and_then(Value::as_object) {
                None => self.fault(&location, "no x-amazon-apigateway-authorizer"),
                Some(fields) => {
                    let authorizer = self.authorizer(&location, fields);
                    self.permitted(&location, &authorizer.function, &format!("authorizers/{name}"));
                    self.authorizers.insert(name.clone(), Arc::new(authorizer));
                }
            }
        }
    }

    fn authorizer(&mut self, location: &str, fields: &Map<String, Value>) -> Authorizer {
        let location = format!("{location}/x-amazon-apigateway-authorizer");
        let known =
            ["type", "authorizerUri", "authorizerResultTtlInSeconds", "identitySource", "authorizerCredentials"];
        self.only(&location, fields, &known);
        if fields.get("type").and_then(Value::as_str) != Some("request") {
            self.fault(&location, "type must be request");
        }
        let kept_for = match fields.get("authorizerResultTtlInSeconds").map(Value::as_u64) {
            None => KEPT_FOR,
            Some(Some(seconds)) if seconds <= LONGEST_KEPT => seconds,
            Some(_) => {
                self.fault(&location, "authorizerResultTtlInSeconds is 0 to 3600");
                0
            }
        };
        let mut sources = Vec::new();
        for text in fields.get("identitySource").and_then(Value::as_str).into_iter().flat_map(|text| text.split(',')) {
            let text = text.trim();
            let source = if let Some(name) = text.strip_prefix("method.request.header.") {
                Some(Source::Header(name.to_owned()))
            } else if let Some(name) = text.strip_prefix("method.request.querystring.") {
                Some(Source::Query(name.to_owned()))
            } else if let Some(name) = text.strip_prefix("context.") {
                CONTEXT.contains(&name).then(|| Source::Context(name.to_owned()))
            } else {
                text.strip_prefix("stageVariables.").map(|name| Source::Stage(name.to_owned()))
            };
            match source {
                Some(source) => sources.push(source),
                None => self.fault(&location, &format!("identity source {text} is not supported")),
            }
        }
        if sources.is_empty() && kept_for > 0 {
            self.fault(&location, "what is kept for a while needs an identity source to keep it by");
        }
        let function = self.function(&location, fields.get("authorizerUri"));
        Authorizer { function, sources, kept_for: Duration::from_secs(kept_for), answers: Answers::default() }
    }

    /// The function's name in `arn:…:lambda:path/2015-03-31/functions/FUNCTION_ARN/invocations`.
    fn function(&mut self, location: &str, uri: Option<&Value>) -> String {
        let uri = uri.and_then(Value::as_str).unwrap_or_default();
        let name = uri
            .split_once(":lambda:path/2015-03-31/functions/")
            .and_then(|(_, rest)| rest.strip_suffix("/invocations"))
            .and_then(|arn| arn.split_once(":function:"))
            .map(|(_, name)| name);
        let Some(name) = name else {
            self.fault(location, &format!("uri {uri:?} names no function"));
            return String::new();
        };
        if !self.settings.deployments.contains_key(name) {
            self.fault(location, &format!("function {name} does not exist"));
        }
        name.to_owned()
    }

    /// Whether the function's resource policy lets this API call it; at AWS every such call would be a 500.
    fn permitted(&mut self, location: &str, function: &str, source: &str) {
        let (account, settings) = (self.account, self.settings);
        let source = format!("arn:aws:execute-api:{}:{}:{}/{source}", account.region, account.id, settings.api_id);
        let service = "apigateway.amazonaws.com";
        if !settings.permissions.iter().any(|permission| permission.covers(function, service, &source)) {
            self.fault(location, &format!("no permission lets {service} invoke {function} for {source}"));
        }
    }

    fn paths(&mut self, document: &Value) -> Resource {
        let mut root = Resource::default();
        let Some(paths) = document.get("paths").and_then(Value::as_object) else {
            self.fault("/paths", "missing");
            return root;
        };
        for (template, item) in paths {
            let location = format!("/paths{template}");
            if !template.starts_with('/') || (template.len() > 1 && template.ends_with('/')) {
                self.fault(&location, "a path starts and does not end with a slash");
            }
            if ["/ping", "/sping"].contains(&template.as_str()) {
                self.fault(&location, "reserved by API Gateway");
            }
            let Some(fields) = item.as_object() else {
                self.fault(&location, "not an object");
                continue;
            };
            for (key, value) in fields {
                match (extension::method(key), value.as_object()) {
                    (Some(method), Some(fields)) => {
                        let location = format!("{location}/{key}");
                        let operation = self.operation(&location, template, fields, item, document);
                        if let Integration::Function { name, .. } = &operation.integration {
                            let verb = if method == "ANY" { "*" } else { method.as_str() };
                            let source = format!("{}/{verb}{}", self.settings.stage, starred(template));
                            self.permitted(&location, name, &source);
                        }
                        if let Err(fault) = root.add(template, method, Arc::new(operation)) {
                            self.faults.push(fault);
                        }
                    }
                    (Some(_), None) => self.fault(&location, &format!("{key} is not an object")),
                    (None, _) if ["parameters", "summary", "description"].contains(&key.as_str()) => {}
                    (None, _) if key.starts_with("x-") => {}
                    (None, _) => self.fault(&location, &format!("{key} is no method")),
                }
            }
        }
        root
    }

    fn operation(
        &mut self,
        location: &str,
        template: &str,
        fields: &Map<String, Value>,
        item: &Value,
        document: &Value,
    ) -> Operation {
        let authorizer = self.security(location, fields);
        let integration = match fields.get("x-amazon-apigateway-integration").and_then(Value::as_object) {
            Some(fields) => self.integration(&format!("{location}/x-amazon-apigateway-integration"), template, fields),
            None => {
                self.fault(location, "no x-amazon-apigateway-integration");
                Integration::Mock(Mock::empty())
            }
        };
        if self.settings.marked {
            self.markers(location, fields, authorizer.is_some(), &integration);
        }
        let mut operation = Operation {
            resource: template.to_owned(),
            authorizer,
            integration,
            required_query: Vec::new(),
            required_headers: Vec::new(),
        };
        if self.validates(location, fields, document) {
            let shared = item.get("parameters").and_then(Value::as_array).into_iter().flatten();
            for parameter in fields.get("parameters").and_then(Value::as_array).into_iter().flatten().chain(shared) {
                let reference = parameter.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
                let parameter = reference.and_then(|path| document.pointer(path)).unwrap_or(parameter);
                let required = parameter.get("required").and_then(Value::as_bool) == Some(true);
                let name = parameter.get("name").and_then(Value::as_str).filter(|_| required);
                match (name, parameter.get("in").and_then(Value::as_str)) {
                    (Some(name), Some("query")) => operation.required_query.push(name.to_owned()),
                    (Some(name), Some("header")) => operation.required_headers.push(name.to_owned()),
                    _ => {}
                }
            }
        }
        operation
    }

    /// Whether required parameters are checked; bodies never are.
    fn validates(&mut self, location: &str, fields: &Map<String, Value>, document: &Value) -> bool {
        let name = "x-amazon-apigateway-request-validator";
        let Some(chosen) = fields.get(name).or_else(|| document.get(name)) else { return false };
        let validators = document.get("x-amazon-apigateway-request-validators");
        let validator = chosen.as_str().and_then(|chosen| validators?.get(chosen));
        let Some(validator) = validator else {
            self.fault(location, "unknown request validator");
            return false;
        };
        if validator.get("validateRequestBody").and_then(Value::as_bool) == Some(true) {
            self.fault(location, "validation of bodies is not supported");
        }
        validator.get("validateRequestParameters").and_then(Value::as_bool) == Some(true)
    }

    fn security(&mut self, location: &str, fields: &Map<String, Value>) -> Option<Arc<Authorizer>> {
        let Some(security) = fields.get("security").and_then(Value::as_array) else {
            self.fault(location, "no security; an open route says `security: []`");
            return None;
        };
        let requirement = match security.as_slice() {
            [] => return None,
            [Value::Object(requirement)] if requirement.len() == 1 => requirement.keys().next(),
            _ => None,
        };
        let authorizer = requirement.and_then(|name| self.authorizers.get(name)).cloned();
        if authorizer.is_none() {
            self.fault(location, "security must name exactly one known authorizer");
        }
        authorizer
    }

    fn integration(&mut self, location: &str, template: &str, fields: &Map<String, Value>) -> Integration {
        match fields.get("type").and_then(Value::as_str).map(str::to_lowercase).as_deref() {
            Some("aws_proxy") => {
                let known =
                    ["type", "httpMethod", "uri", "timeoutInMillis", "passthroughBehavior", "payloadFormatVersion"];
                self.only(location, fields, &known);
                if fields.get("httpMethod").and_then(Value::as_str) != Some("POST") {
                    self.fault(location, "Lambda is invoked with httpMethod POST");
                }
                if fields.get("payloadFormatVersion").is_some_and(|version| version != "1.0") {
                    self.fault(location, "REST APIs know payloadFormatVersion 1.0 only");
                }
                let timeout = match fields.get("timeoutInMillis") {
                    None => LONGEST_TIMEOUT,
                    Some(value) => {
                        value.as_u64().filter(|ms| (50..=LONGEST_TIMEOUT).contains(ms)).unwrap_or_else(|| {
                            self.fault(location, "timeoutInMillis must be 50 to 29000");
                            LONGEST_TIMEOUT
                        })
                    }
                };
                let name = self.function(location, fields.get("uri"));
                Integration::Function { name, timeout: Duration::from_millis(timeout) }
            }
            Some("http_proxy") => match HttpProxy::read(fields, template, self.settings.link.as_ref()) {
                Ok(proxy) => Integration::Http(proxy),
                Err(faults) => {
                    faults.iter().for_each(|fault| self.fault(location, fault));
                    Integration::Mock(Mock::empty())
                }
            },
            Some("mock") => Integration::Mock(self.mock(location, fields)),
            other => {
                self.fault(location, &format!("integration type {other:?} is not supported"));
                Integration::Mock(Mock::empty())
            }
        }
    }

    fn mock(&mut self, location: &str, fields: &Map<String, Value>) -> Mock {
        self.only(location, fields, &["type", "requestTemplates", "responses", "passthroughBehavior"]);
        let mut mock = Mock::empty();
        let templates = fields.get("requestTemplates").and_then(Value::as_object);
        mock.accepted = templates.into_iter().flat_map(|map| map.keys().cloned()).collect();
        let chosen = templates
            .and_then(|map| map.get("application/json"))
            .and_then(Value::as_str)
            .and_then(|text| serde_json::from_str::<Value>(text).ok())
            .and_then(|value| value.get("statusCode").and_then(Value::as_u64));
        let Some(chosen) = chosen else {
            self.fault(location, "requestTemplates/application~1json must be JSON with a statusCode");
            return mock;
        };
        let responses = fields.get("responses").and_then(Value::as_object);
        let response = responses.and_then(|map| map.get(&chosen.to_string()).or_else(|| map.get("default")));
        let Some(response) = response.and_then(Value::as_object) else {
            self.fault(location, "no response for the statusCode of the request template");
            return mock;
        };
        self.only(location, response, &["statusCode", "responseParameters", "responseTemplates"]);
        let status = response.get("statusCode").map(|status| status.to_string().trim_matches('"').parse::<u16>());
        match status {
            Some(Ok(status)) if (100..600).contains(&status) => mock.status = status,
            _ => self.fault(location, "the response has no statusCode"),
        }
        for (name, value) in response.get("responseParameters").and_then(Value::as_object).into_iter().flatten() {
            let header = name.strip_prefix("method.response.header.");
            let text = value.as_str().and_then(|text| text.strip_prefix('\'')).and_then(|text| text.strip_suffix('\''));
            match (header, text) {
                (Some(header), Some(text)) => mock.headers.push((header.to_owned(), text.to_owned())),
                _ => self.fault(location, &format!("response parameter {name} is not a constant header")),
            }
        }
        let templates = response.get("responseTemplates").and_then(Value::as_object);
        if let Some((media, text)) =
            templates.and_then(|map| map.get_key_value("application/json").or(map.iter().next()))
        {
            mock.content_type = media.clone();
            match Template::parse(text.as_str().unwrap_or_default()) {
                Ok(template) => mock.body = Some(template),
                Err(fault) => self.fault(location, &fault),
            }
        }
        mock
    }

    /// The `x-portcullis-*` of one operation, and that they say what the rest of it says.
    fn markers(&mut self, location: &str, fields: &Map<String, Value>, guarded: bool, integration: &Integration) {
        let text = |name: &str| fields.get(name).map(|value| value.as_str().filter(|text| !text.is_empty()));
        let open = text("x-portcullis-open");
        if open.is_some_and(|reason| reason.is_none()) {
            self.fault(location, "x-portcullis-open needs a reason");
        }
        if open.is_some() == guarded {
            self.fault(location, "either x-portcullis-open and `security: []`, or an authorizer");
        }
        if open.is_some() {
            for name in ["x-portcullis-action", "x-portcullis-scopes", "x-portcullis-access"] {
                if fields.contains_key(name) {
                    self.fault(location, &format!("{name} on an open route"));
                }
            }
        } else {
            if text("x-portcullis-action").flatten().is_none() {
                self.fault(location, "no x-portcullis-action");
            }
            let scopes = fields.get("x-portcullis-scopes").and_then(Value::as_array);
            if !scopes.is_some_and(|scopes| scopes.iter().all(Value::is_string)) {
                self.fault(location, "no x-portcullis-scopes");
            }
            if !matches!(text("x-portcullis-access"), None | Some(Some("required" | "by-token"))) {
                self.fault(location, "x-portcullis-access is required or by-token");
            }
        }
        match (integration, text("x-portcullis-function").flatten()) {
            (Integration::Function { name, .. }, Some(function)) => {
                let actual = self.settings.deployments.get(name).cloned();
                if actual.is_some_and(|actual| actual != function) {
                    self.fault(location, &format!("x-portcullis-function {function} is not what {name} is"));
                }
            }
            (Integration::Function { .. }, None) if open.is_none() => self.fault(location, "no x-portcullis-function"),
            (Integration::Http(_), function) if function != Some("vpc-link") => {
                self.fault(location, "x-portcullis-function of an application is vpc-link");
            }
            (Integration::Mock(_), Some(function)) if function != "mock" => {
                self.fault(location, "x-portcullis-function on a mock");
            }
            _ => {}
        }
    }
}

/// A template as API Gateway names it in ARNs: each parameter is a star.
fn starred(template: &str) -> String {
    let star = |segment| if str::starts_with(segment, '{') { "*" } else { segment };
    template.split('/').map(star).collect::<Vec<_>>().join("/")
}

impl Mock {
    fn empty() -> Self {
        Self {
            status: 500,
            headers: Vec::new(),
            content_type: "application/json".to_owned(),
            body: None,
            accepted: BTreeSet::new(),
        }
    }
}
