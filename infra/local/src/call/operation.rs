//! Which operation a request names, and under which key.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::http::Request;

/// The access key id under which a request is signed.
pub(super) fn key_id(request: &Request) -> Option<String> {
    let header = request.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match header {
        Some(header) => header.split("Credential=").nth(1)?.split('/').next().map(str::to_owned),
        None => key_in_query(request.uri.query()?),
    }
}

/// The access key id of a signature in a query.
pub(crate) fn key_in_query(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Credential="))?;
    let credential = percent_decode_str(value).decode_utf8().ok()?;
    credential.split('/').next().map(str::to_owned)
}

/// The operation that a request names, as AWS calls it.
pub(super) fn operation(service: &str, request: &Request) -> String {
    match service {
        "s3" => s3_operation(request).to_owned(),
        "sts" => {
            let form = url::form_urlencoded::parse(&request.body);
            let action = form.into_iter().find(|(name, _)| name == "Action");
            action.map(|(_, action)| plain(&action)).unwrap_or_default()
        }
        _ => {
            let target = request.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
            plain(target.rsplit('.').next().unwrap_or_default())
        }
    }
}

/// A name of an operation, or nothing that could be taken for one.
fn plain(name: &str) -> String {
    let fits = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits && !name.is_empty() { name.to_owned() } else { "?".to_owned() }
}

fn s3_operation(request: &Request) -> &'static str {
    let path = request.uri.path().trim_start_matches('/');
    let object = path.split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let query = request.uri.query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    match (request.method.clone(), object) {
        (Method::GET, true) if has("uploadId") => "ListParts",
        (Method::GET, true) => "GetObject",
        (Method::HEAD, true) => "HeadObject",
        (Method::PUT, true) if has("uploadId") => "UploadPart",
        (Method::PUT, true) if request.headers.contains_key("x-amz-copy-source") => "CopyObject",
        (Method::PUT, true) => "PutObject",
        (Method::POST, true) if has("uploads") => "CreateMultipartUpload",
        (Method::POST, true) => "CompleteMultipartUpload",
        (Method::DELETE, true) if has("uploadId") => "AbortMultipartUpload",
        (Method::DELETE, true) => "DeleteObject",
        (Method::GET, false) if has("versions") => "ListObjectVersions",
        (Method::GET, false) if has("uploads") => "ListMultipartUploads",
        (Method::GET, false) if path.is_empty() => "ListBuckets",
        (Method::GET, false) => "ListObjectsV2",
        (Method::HEAD, false) => "HeadBucket",
        (Method::POST, false) if has("delete") => "DeleteObjects",
        (Method::POST, false) => "PostObject",
        (Method::OPTIONS, _) => "Preflight",
        _ => "?",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn operations_of_s3_are_told_apart() {
        for (method, target, wanted) in [
            ("GET", "/b/k", "GetObject"),
            ("GET", "/b/k/?versionId=1", "GetObject"),
            ("GET", "/b/?list-type=2", "ListObjectsV2"),
            ("GET", "/b?versions", "ListObjectVersions"),
            ("GET", "/", "ListBuckets"),
            ("PUT", "/b/k?partNumber=1&uploadId=x", "UploadPart"),
            ("PUT", "/b/k", "PutObject"),
            ("POST", "/b/k?uploads", "CreateMultipartUpload"),
            ("POST", "/b/k?uploadId=x", "CompleteMultipartUpload"),
            ("POST", "/b", "PostObject"),
            ("DELETE", "/b/k", "DeleteObject"),
        ] {
            let request = Request {
                method: method.parse().unwrap(),
                uri: target.parse().unwrap(),
                headers: http::HeaderMap::new(),
                body: Bytes::new(),
                peer: ([127, 0, 0, 1], 1).into(),
            };
            assert_eq!(s3_operation(&request), wanted, "{method} {target}");
        }
    }
}
