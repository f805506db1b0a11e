//! Uploads by HTML form: `POST /bucket` with `multipart/form-data` and a signed policy.
//!
//! s3s reads such forms by the machine's clock and lets fields through that no condition names; AWS does neither. So the form is
//! read and judged here, and what passes goes on as the PUT that it amounts to. Where AWS's documentation leaves a choice,
//! the stand-in refuses: a field twice, `${filename}`, a redirect.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::Body;

use super::policy_form::{self, Form};
use super::refusal::Refusal;
use crate::account::Account;
use crate::http::Request;
use crate::sigv4::{Authenticated, FormClaim, Rejection, Scope, verify_form};

/// What stands before the file, at most (S3 documentation, "POST Object").
const LONGEST_FIELDS: usize = 20 * 1024;
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
/// Fields that are headers of the PUT, besides those that begin with `x-amz-`.
const HEADERS: [&str; 6] =
    ["content-type", "cache-control", "content-disposition", "content-encoding", "expires", "content-md5"];
/// Fields that are the signature and no property of the object.
const CREDENTIAL: [&str; 5] =
    ["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-security-token", "x-amz-signature"];

/// How a form that was taken is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    status: StatusCode,
    bucket: String,
    key: String,
}

/// Whether this is an upload by form at all.
pub(crate) fn is_form(request: &Request) -> bool {
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    request.method == Method::POST && content_type.is_some_and(|value| value.starts_with("multipart/form-data"))
}

/// Lets a form pass as the PUT that it amounts to.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn admit(
    request: Request,
    scope: Scope<'_>,
    account: &Account,
) -> Result<(Authenticated, Request, Taken), Refusal> {
    let bucket = request.uri.path().trim_matches('/').to_owned();
    if bucket.is_empty() || bucket.contains('/') || request.uri.query().is_some() {
        let message = "The specified method is not allowed against this resource.";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
    }
    let (fields, file) = read(&request)?;
    let authenticated = authenticate(&fields, scope, account)?;
    let form = Form { bucket: &bucket, fields: &fields, size: file.len() };
    policy_form::judge(fields.get("policy").map_or("", String::as_str), &form, account.clock.now())?;

    let key = fields.get("key").cloned().ok_or_else(|| missing("key"))?;
    if key.contains("${filename}") || fields.contains_key("success_action_redirect") || fields.contains_key("redirect")
    {
        return Err(Refusal::not_implemented());
    }
    let status = match fields.get("success_action_status").map(String::as_str) {
        Some("200") => StatusCode::OK,
        Some("201") => StatusCode::CREATED,
        _ => StatusCode::NO_CONTENT,
    };
    let target = format!("/{bucket}/{}", utf8_percent_encode(&key, PATH));
    let uri: Uri =
        target.parse().map_err(|_| Refusal::bad_request("InvalidURI", "Couldn't parse the specified URI."))?;
    let put = Request { method: Method::PUT, uri, headers: headers(&fields, file.len())?, body: file, ..request };
    Ok((authenticated, put, Taken { status, bucket, key }))
}

/// The answer to a form whose PUT was answered like this.
pub(crate) fn answer(taken: &Taken, put: Response<Body>) -> Response<Body> {
    if !put.status().is_success() {
        return put;
    }
    let (mut parts, _) = put.into_parts();
    parts.status = taken.status;
    let location = format!("/{}/{}", taken.bucket, utf8_percent_encode(&taken.key, PATH));
    if let Ok(value) = HeaderValue::from_str(&location) {
        parts.headers.insert(http::header::LOCATION, value);
    }
    parts.headers.remove(http::header::CONTENT_LENGTH);
    let etag = parts.headers.get(http::header::ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = if taken.status == StatusCode::CREATED {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><PostResponse><Location>{location}</Location><Bucket>{}</Bucket><Key>{}</Key><ETag>{etag}</ETag></PostResponse>",
            taken.bucket, taken.key
        )
    } else {
        String::new()
    };
    Response::from_parts(parts, Body::from(body))
}

type Fields = BTreeMap<String, String>;

fn missing(field: &str) -> Refusal {
    let message = format!(
        "Bucket POST must contain a field named '{field}'.  If it is specified, please check the order of the fields."
    );
    Refusal::bad_request("InvalidArgument", message).with("ArgumentName", field)
}

fn malformed() -> Refusal {
    let message = "The body of your POST request is not well-formed multipart/form-data.";
    Refusal::bad_request("MalformedPOSTRequest", message)
}

fn authenticate(fields: &Fields, scope: Scope<'_>, account: &Account) -> Result<Authenticated, Refusal> {
    let field = |name: &str| fields.get(name).map(String::as_str);
    if ["policy", "x-amz-signature", "x-amz-credential"].iter().all(|name| field(name).is_none()) {
        return Err(Refusal::forbidden("AccessDenied", "Access Denied"));
    }
    let claim = FormClaim {
        algorithm: field("x-amz-algorithm").ok_or_else(|| missing("X-Amz-Algorithm"))?,
        credential: field("x-amz-credential").ok_or_else(|| missing("X-Amz-Credential"))?,
        date: field("x-amz-date").ok_or_else(|| missing("X-Amz-Date"))?,
        token: field("x-amz-security-token"),
        policy: field("policy").ok_or_else(|| missing("policy"))?,
        signature: field("x-amz-signature").ok_or_else(|| missing("X-Amz-Signature"))?,
    };
    verify_form(&claim, scope, account).map_err(|rejection| refusal(&rejection, claim.token.is_some()))
}

fn refusal(rejection: &Rejection, token_sent: bool) -> Refusal {
    match rejection {
        Rejection::UnknownKey => unknown_key(),
        Rejection::TokenInvalid if !token_sent => unknown_key(),
        Rejection::TokenInvalid => {
            Refusal::bad_request("InvalidToken", "The provided token is malformed or otherwise invalid.")
        }
        Rejection::TokenExpired => Refusal::bad_request("ExpiredToken", "The provided token has expired."),
        Rejection::SignatureMismatch => Refusal::forbidden(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
        ),
        Rejection::Skew => Refusal::forbidden("AccessDenied", "Request is not yet valid"),
        _ => Refusal::bad_request("InvalidArgument", "The authorization you provided is malformed"),
    }
}

fn unknown_key() -> Refusal {
    let message = "The AWS Access Key Id you provided does not exist in our records.";
    Refusal::forbidden("InvalidAccessKeyId", message)
}

/// The headers of the PUT. What is neither a header nor the form's own business has no place in a PUT, and was named by the
/// policy all the same: `acl` and `tagging` go on under their headers' names, so that the operation refuses them.
fn headers(fields: &Fields, length: usize) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    for (name, value) in fields {
        let header = match name.as_str() {
            "acl" => "x-amz-acl",
            "tagging" => "x-amz-tagging",
            // The algorithm says what the form's own checksum is of; without one there is nothing to compare.
            "x-amz-checksum-algorithm" => continue,
            name if CREDENTIAL.contains(&name) || name.starts_with("x-ignore-") => continue,
            name if HEADERS.contains(&name) || name.starts_with("x-amz-") => name,
            _ => continue,
        };
        let invalid = || Refusal::bad_request("InvalidArgument", "Invalid form field").with("ArgumentName", name);
        let value = HeaderValue::from_str(value).map_err(|_| invalid())?;
        headers.insert(HeaderName::from_bytes(header.as_bytes()).map_err(|_| invalid())?, value);
    }
    Ok(headers)
}

/// The fields under their names in lower case, and the file. What stands behind the file is ignored, as AWS does.
fn read(request: &Request) -> Result<(Fields, Bytes), Refusal> {
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = content_type.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("boundary="));
    let boundary = boundary.map(|value| value.trim_matches('"')).unwrap_or_default();
    if !(1..=70).contains(&boundary.len()) {
        return Err(malformed());
    }
    let body = request.body.as_ref();
    let (opening, between) = (format!("--{boundary}"), format!("\r\n--{boundary}"));
    let mut at = find(body, opening.as_bytes()).ok_or_else(malformed)? + opening.len();
    let mut fields = Fields::new();
    loop {
        let rest = body.get(at..).unwrap_or_default();
        if rest.starts_with(b"--") {
            let message = "POST requires exactly one file upload per request.";
            return Err(Refusal::bad_request("InvalidArgument", message).with("ArgumentName", "file"));
        }
        let rest = rest.strip_prefix(b"\r\n").ok_or_else(malformed)?;
        let head = find(rest, b"\r\n\r\n").ok_or_else(malformed)?;
        let name = name_of(rest.get(..head).unwrap_or_default())?;
        let start = body.len() - rest.len() + head + 4;
        let length = find(body.get(start..).unwrap_or_default(), between.as_bytes()).ok_or_else(malformed)?;
        if name == "file" {
            if start > LONGEST_FIELDS {
                let message = "Your POST request fields preceding the upload file were too large.";
                return Err(Refusal::bad_request("MaxPostPreDataLengthExceeded", message));
            }
            return Ok((fields, request.body.slice(start..start + length)));
        }
        let value =
            std::str::from_utf8(body.get(start..start + length).unwrap_or_default()).map_err(|_| malformed())?;
        if fields.insert(name.clone(), value.to_owned()).is_some() {
            let message = "A form field was sent more than once";
            return Err(Refusal::bad_request("InvalidArgument", message).with("ArgumentName", name));
        }
        at = start + length + between.len();
    }
}

/// The name in a part's `Content-Disposition: form-data; name="…"`.
fn name_of(head: &[u8]) -> Result<String, Refusal> {
    let head = std::str::from_utf8(head).map_err(|_| malformed())?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-disposition").then_some(value.trim())
    });
    let mut parts = disposition.ok_or_else(malformed)?.split(';').map(str::trim);
    if parts.next() != Some("form-data") {
        return Err(malformed());
    }
    let name = parts.find_map(|part| part.strip_prefix("name=")).map(|value| value.trim_matches('"'));
    name.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase).ok_or_else(malformed)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
