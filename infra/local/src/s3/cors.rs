//! Cross-origin requests, by a bucket's CORS rules: preflights are answered before anybody is asked who they are, and what a page
//! may read of an answer is written on it. A request that no rule knows is carried out all the same: CORS binds browsers alone.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use s3s::Body;
use serde_json::{Map, Value};

use super::refusal::Refusal;
use crate::http::Request;

/// The rules of one bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    origins: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    exposed: Vec<String>,
    max_age: Option<u64>,
}

impl Cors {
    /// Reads the rules as a template has them.
    ///
    /// # Errors
    /// What is not understood: a wildcard (which nobody here wants), another property, no list.
    pub fn read(rules: &[Value]) -> Result<Cors, Vec<String>> {
        let rules = rules.iter().map(|rule| rule.as_object().and_then(Rule::read));
        let rules =
            rules.collect::<Option<_>>().ok_or_else(|| vec!["a CORS rule that is not understood".to_owned()])?;
        Ok(Cors { rules })
    }

    /// The answer to a preflight; `None` for every other request.
    pub(crate) fn preflight(&self, request: &Request) -> Option<Response<Body>> {
        (request.method == Method::OPTIONS)
            .then(|| self.judge(&request.headers).unwrap_or_else(|refusal| refusal.respond()))
    }

    fn judge(&self, asked: &HeaderMap) -> Result<Response<Body>, Refusal> {
        let text = |name: &HeaderName| asked.get(name).and_then(|value| value.to_str().ok());
        let origin = text(&ORIGIN).ok_or_else(|| {
            Refusal::bad_request("BadRequest", "Insufficient information. Origin request header needed.")
        })?;
        let method = text(&ACCESS_CONTROL_REQUEST_METHOD)
            .ok_or_else(|| Refusal::bad_request("BadRequest", "Invalid Access-Control-Request-Method: null"))?;
        if self.rules.is_empty() {
            return Err(Refusal::forbidden("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket."));
        }
        let named = text(&ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default().to_ascii_lowercase();
        let named: Vec<&str> = named.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let takes = |rule: &&Rule| {
            rule.fits(origin, method) && named.iter().all(|name| rule.headers.iter().any(|header| header == name))
        };
        let Some(rule) = self.rules.iter().find(takes) else {
            let message = "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.";
            return Err(Refusal::forbidden("AccessForbidden", message));
        };
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::OK;
        rule.write(origin, answer.headers_mut());
        put(answer.headers_mut(), ACCESS_CONTROL_ALLOW_METHODS, &rule.methods.join(", "));
        if !named.is_empty() {
            put(answer.headers_mut(), ACCESS_CONTROL_ALLOW_HEADERS, &named.join(", "));
        }
        if let Some(seconds) = rule.max_age {
            put(answer.headers_mut(), ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
        }
        Ok(answer)
    }

    /// Writes on an answer what a page of this origin may read of it.
    pub(crate) fn open(&self, origin: Option<&str>, method: &Method, answer: &mut HeaderMap) {
        let Some(origin) = origin else { return };
        if let Some(rule) = self.rules.iter().find(|rule| rule.fits(origin, method.as_str())) {
            rule.write(origin, answer);
            put(answer, ACCESS_CONTROL_ALLOW_METHODS, &rule.methods.join(", "));
        }
    }
}

impl Rule {
    fn read(rule: &Map<String, Value>) -> Option<Rule> {
        const KNOWN: [&str; 5] = ["AllowedOrigins", "AllowedMethods", "AllowedHeaders", "ExposedHeaders", "MaxAge"];
        let list = |name: &str| -> Option<Vec<String>> {
            let texts = rule.get(name)?.as_array()?.iter().map(|one| one.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().filter(|texts| texts.iter().all(|text| !text.contains('*')))
        };
        let known = rule.keys().all(|name| KNOWN.contains(&name.as_str()));
        let lower = |names: Vec<String>| names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Some(Rule {
            origins: list("AllowedOrigins").filter(|_| known)?,
            methods: list("AllowedMethods")?,
            headers: lower(list("AllowedHeaders")?),
            exposed: list("ExposedHeaders")?,
            max_age: rule
                .get("MaxAge")
                .map(|seconds| seconds.as_u64())
                .unwrap_or(Some(0))
                .filter(|seconds| *seconds > 0),
        })
    }

    fn fits(&self, origin: &str, method: &str) -> bool {
        self.origins.iter().any(|one| one == origin) && self.methods.iter().any(|one| one == method)
    }

    fn write(&self, origin: &str, headers: &mut HeaderMap) {
        put(headers, ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        put(headers, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        put(headers, VARY, "Origin, Access-Control-Request-Headers, Access-Control-Request-Method");
        if !self.exposed.is_empty() {
            put(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.exposed.join(", "));
        }
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::template::object_bucket_cors;

    const PAGE: &str = "https://app.example.com";

    fn cors(origins: &str) -> Cors {
        Cors::read(&object_bucket_cors(origins).unwrap()).unwrap()
    }

    fn asked(method: Method, headers: &[(&'static str, &str)]) -> Request {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        Request {
            method,
            uri: "/bucket/t/acme/x".parse().unwrap(),
            headers: headers.collect(),
            body: Bytes::new(),
            peer: ([127, 0, 0, 1], 1).into(),
        }
    }

    #[test]
    fn a_preflight_of_a_named_page_for_what_a_signed_url_wants_is_answered_and_no_other() {
        let cors = cors("https://other.example.com,https://app.example.com");
        let wanted = "content-type,if-none-match,x-amz-checksum-sha256,x-amz-server-side-encryption,\
                      x-amz-server-side-encryption-aws-kms-key-id";
        let status = |origin: &str, method: &str, headers: &str| {
            let all = [
                ("origin", origin),
                ("access-control-request-method", method),
                ("access-control-request-headers", headers),
            ];
            cors.preflight(&asked(Method::OPTIONS, &all)).unwrap()
        };
        let answer = status(PAGE, "PUT", wanted);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["access-control-allow-origin"], PAGE);
        assert_eq!(answer.headers()["access-control-max-age"], "600");
        assert!(answer.headers()["vary"].to_str().unwrap().contains("Origin"));
        for (origin, method, headers) in [
            ("https://evil.example.com", "PUT", wanted),
            ("https://app.example.com.evil.com", "PUT", wanted),
            ("http://app.example.com", "PUT", wanted),
            ("null", "PUT", wanted),
            (PAGE, "DELETE", ""),
            (PAGE, "PUT", "x-amz-acl"),
            (PAGE, "PUT", "content-type, authorization"),
            (PAGE, "PUT", "x-amz-tagging"),
            (PAGE, "PUT", "x-amz-copy-source"),
        ] {
            let answer = status(origin, method, headers);
            assert_eq!(answer.status(), 403, "{origin} {method} {headers}");
            assert!(!answer.headers().contains_key("access-control-allow-origin"));
        }
        assert_eq!(cors.preflight(&asked(Method::OPTIONS, &[])).unwrap().status(), 400);
        assert_eq!(cors.preflight(&asked(Method::OPTIONS, &[("origin", PAGE)])).unwrap().status(), 400);
        assert!(cors.preflight(&asked(Method::PUT, &[("origin", PAGE)])).is_none());
    }

    #[test]
    fn without_pages_nothing_is_opened() {
        let cors = cors("");
        let preflight = [("origin", PAGE), ("access-control-request-method", "PUT")];
        assert_eq!(cors.preflight(&asked(Method::OPTIONS, &preflight)).unwrap().status(), 403);
        let mut headers = HeaderMap::new();
        cors.open(Some(PAGE), &Method::GET, &mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn an_answer_is_open_to_the_page_that_asked_and_says_so() {
        let cors = cors(PAGE);
        let mut headers = HeaderMap::new();
        cors.open(Some(PAGE), &Method::GET, &mut headers);
        assert_eq!(headers["access-control-allow-origin"], PAGE);
        assert_eq!(headers["access-control-expose-headers"], "ETag, x-amz-checksum-sha256, x-amz-version-id");
        for (origin, method) in
            [(None, Method::GET), (Some("https://evil.example.com"), Method::GET), (Some(PAGE), Method::DELETE)]
        {
            let mut headers = HeaderMap::new();
            cors.open(origin, &method, &mut headers);
            assert!(headers.is_empty(), "{origin:?} {method}");
        }
    }

    #[test]
    fn a_rule_with_a_wildcard_is_no_rule_of_ours() {
        let rule = |origin: &str, header: &str| {
            serde_json::json!({"AllowedOrigins": [origin], "AllowedMethods": ["GET"], "AllowedHeaders": [header],
                "ExposedHeaders": []})
        };
        assert!(Cors::read(&[rule(PAGE, "content-type")]).is_ok());
        for broken in [rule("*", "content-type"), rule("https://*.example.com", "content-type"), rule(PAGE, "x-amz-*")]
        {
            assert!(Cors::read(&[broken]).is_err());
        }
        let mut unknown = rule(PAGE, "content-type");
        unknown["AllowCredentials"] = true.into();
        assert!(Cors::read(&[unknown]).is_err());
    }
}
