//! Errors as S3 words them: XML with a code, a message and the elements some errors add.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use s3s::{Body, S3Error, S3ErrorCode};

/// Carries an extra element of the error document through s3s, which has no place for one; never leaves the guard.
const ELEMENT: &str = "x-local-error-element";

/// The header with the id of a version.
pub(crate) const VERSION_ID: &str = "x-amz-version-id";

/// A request that never reaches s3s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) elements: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, code, message: message.into(), elements: Vec::new() }
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(crate) fn not_implemented() -> Refusal {
        Refusal::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", NOT_IMPLEMENTED)
    }

    pub(crate) fn with(mut self, element: &'static str, value: impl Into<String>) -> Refusal {
        self.elements.push((element, value.into()));
        self
    }

    /// The answer, without the headers every answer of S3 carries.
    pub(crate) fn respond(&self) -> Response<Body> {
        let mut body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{}</Code><Message>{}</Message>",
            self.code,
            escape(&self.message)
        );
        for (element, value) in &self.elements {
            body.push_str(&format!("<{element}>{}</{element}>", escape(value)));
        }
        body.push_str("</Error>");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        response
    }
}

const NOT_IMPLEMENTED: &str = "A header you provided implies functionality that is not implemented";

/// An error of an operation.
pub(crate) fn error(code: S3ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(code, message)
}

/// What the stand-in does not do, it refuses: nothing is silently ignored.
pub(crate) fn not_implemented() -> S3Error {
    error(S3ErrorCode::NotImplemented, NOT_IMPLEMENTED)
}

/// Adds an element to the error document, such as `Condition`.
pub(crate) fn with_element(mut error: S3Error, element: &str, value: &str) -> S3Error {
    let mut headers = error.headers().cloned().unwrap_or_default();
    if let Ok(value) = HeaderValue::from_str(&format!("{element}={value}")) {
        headers.append(ELEMENT, value);
    }
    error.set_headers(headers);
    error
}

/// Adds headers to an error, such as `x-amz-delete-marker`.
pub(crate) fn with_header(mut error: S3Error, name: &'static str, value: &str) -> S3Error {
    let mut headers = error.headers().cloned().unwrap_or_default();
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
    error.set_headers(headers);
    error
}

/// Gives an error the status that its code alone does not say.
pub(crate) fn with_status(mut error: S3Error, status: http::StatusCode) -> S3Error {
    error.set_status_code(status);
    error
}

/// Completes an error document with the elements of [`with_element`] and the ids of the request.
pub(crate) fn complete(headers: &mut HeaderMap, body: Bytes, request_id: &str, host_id: &str) -> Bytes {
    let elements: Vec<HeaderValue> = headers.get_all(ELEMENT).iter().cloned().collect();
    headers.remove(ELEMENT);
    let Some(document) = std::str::from_utf8(&body).ok().and_then(|text| text.strip_suffix("</Error>")) else {
        return body;
    };
    let mut document = document.to_owned();
    for pair in elements {
        if let Some((element, value)) = pair.to_str().ok().and_then(|pair| pair.split_once('=')) {
            document.push_str(&format!("<{element}>{}</{element}>", escape(value)));
        }
    }
    document.push_str(&format!("<RequestId>{request_id}</RequestId><HostId>{host_id}</HostId></Error>"));
    Bytes::from(document)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
