//! The guard before s3s: whoever passes is a known caller whose signature covers everything S3 would act upon.
//!
//! s3s accepts what AWS refuses (Signature Version 2, unsigned `x-amz-*` headers, any region, foreign session tokens, two
//! credentials at once) and judges expiry by the machine's clock. So our own verifier decides, on the account's clock. The
//! header form then goes through s3s's verifier as well: a second, independent judge, which also unwraps chunked uploads
//! with their signatures. The query form is stripped of its credential, and its other parameters stand for headers, as in S3.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Uri};

use super::digest;
use super::form::{self, Taken};
use super::refusal::Refusal;
use crate::account::Account;
use crate::http::Request;
use crate::sigv4::{self, Authenticated, Payload, Rejection, Scope};

/// The parameters that every request of the query form has exactly once.
const QUERY_FIELDS: [&str; 6] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"];
const SECURITY_TOKEN: &str = "X-Amz-Security-Token";
/// S3 tolerates a quarter of an hour between the clocks.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// A request that may pass.
pub(crate) struct Admitted {
    pub(crate) authenticated: Authenticated,
    pub(crate) request: Request,
    /// How it is answered, where it came as a form.
    pub(crate) form: Option<Taken>,
}

/// Lets a request pass to s3s, changed as the module says.
///
/// # Errors
/// The refusal to answer with.
pub(crate) fn admit(mut request: Request, account: &Account) -> Result<Admitted, Refusal> {
    let query = sigv4::query_pairs(request.uri.query().unwrap_or_default());
    let authorization = request.headers.contains_key(http::header::AUTHORIZATION);
    let presigned = query.iter().any(|(name, _)| QUERY_FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name)));
    refuse_repetition(&query)?;
    if presigned && authorization {
        let message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified";
        return Err(Refusal::bad_request("InvalidArgument", message).with("ArgumentName", "Authorization"));
    }
    refuse_version_2(&request, &query)?;
    let scope = Scope { service: "s3", region: &account.region, s3_path: true, skew: SKEW };
    if !presigned && !authorization {
        if !form::is_form(&request) {
            return Err(Refusal::forbidden("AccessDenied", "Access Denied"));
        }
        let (authenticated, request, taken) = form::admit(request, scope, account)?;
        return Ok(Admitted { authenticated, request, form: Some(taken) });
    }

    let authenticated = if presigned {
        require_query_fields(&query)?;
        sigv4::verify_query(&request, Payload::Declared, scope, account)
    } else {
        if !request.headers.contains_key("x-amz-content-sha256") {
            let message = "Missing required header for this request: x-amz-content-sha256";
            return Err(Refusal::bad_request("InvalidRequest", message));
        }
        sigv4::verify_header(&request, Payload::Declared, scope, account)
    };
    let authenticated = authenticated.map_err(|rejection| refusal(rejection, &request, &query, presigned, account))?;

    check_payload(&request, presigned)?;
    if request.method == Method::PUT && !request.headers.contains_key(http::header::CONTENT_LENGTH) {
        let message = "You must provide the Content-Length HTTP header.";
        return Err(Refusal::new(http::StatusCode::LENGTH_REQUIRED, "MissingContentLength", message));
    }
    if presigned {
        unwrap_query(&mut request, &query)?;
    }
    Ok(Admitted { authenticated, request, form: None })
}

fn refuse_version_2(request: &Request, query: &[(String, String)]) -> Result<(), Refusal> {
    let in_header = request
        .headers
        .get_all(http::header::AUTHORIZATION)
        .iter()
        .any(|value| !value.as_bytes().starts_with(sigv4::ALGORITHM.as_bytes()));
    let in_query = query.iter().any(|(name, _)| name == "Signature" || name == "AWSAccessKeyId");
    if in_header || in_query {
        let message = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
        return Err(Refusal::bad_request("InvalidRequest", message));
    }
    Ok(())
}

/// Two values under one name would be read differently by two readers: the one that decides and the one that acts.
fn refuse_repetition(query: &[(String, String)]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    match query.iter().find(|(name, _)| !seen.insert(name.to_ascii_lowercase())) {
        None => Ok(()),
        Some((name, _)) if name.to_ascii_lowercase().starts_with("x-amz-") => Err(incomplete()),
        Some((name, _)) => {
            let message = "A query parameter was sent more than once";
            Err(Refusal::bad_request("InvalidArgument", message).with("ArgumentName", name))
        }
    }
}

fn require_query_fields(query: &[(String, String)]) -> Result<(), Refusal> {
    let invalid = |message: &str| Refusal::bad_request("AuthorizationQueryParametersError", message);
    if QUERY_FIELDS.iter().any(|field| !query.iter().any(|(name, _)| name == field)) {
        return Err(incomplete());
    }
    let expires = query.iter().find(|(name, _)| name == "X-Amz-Expires").map(|(_, value)| value.as_str());
    match expires.unwrap_or_default().parse::<i64>() {
        Err(_) => Err(invalid("X-Amz-Expires should be a number")),
        Ok(seconds) if seconds < 0 => Err(invalid("X-Amz-Expires must be non-negative")),
        Ok(seconds) if seconds.unsigned_abs() > sigv4::LONGEST_EXPIRY => Err(invalid(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds",
        )),
        Ok(_) => Ok(()),
    }
}

fn incomplete() -> Refusal {
    let message = "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.";
    Refusal::bad_request("AuthorizationQueryParametersError", message)
}

/// What `x-amz-content-sha256` promises about the body must be so: a hash here, a signed stream in s3s.
fn check_payload(request: &Request, presigned: bool) -> Result<(), Refusal> {
    let Some(declared) = request.headers.get("x-amz-content-sha256") else { return Ok(()) };
    match declared.to_str().unwrap_or_default() {
        "UNSIGNED-PAYLOAD" => Ok(()),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
        | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
        | "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => {
            if presigned {
                Err(Refusal::not_implemented())
            } else {
                Ok(())
            }
        }
        hash if hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            if digest::is_sha256_of(hash, &request.body) {
                return Ok(());
            }
            let message = "The provided 'x-amz-content-sha256' header does not match what was computed.";
            Err(Refusal::bad_request("XAmzContentSHA256Mismatch", message))
        }
        _ => {
            let message = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, or a valid sha256 value.";
            Err(Refusal::bad_request("InvalidArgument", message).with("ArgumentName", "x-amz-content-sha256"))
        }
    }
}

/// Removes the credential from the query and turns the remaining (signed) `x-amz-*` parameters into the headers they
/// stand for.
fn unwrap_query(request: &mut Request, query: &[(String, String)]) -> Result<(), Refusal> {
    for (name, value) in query {
        let lower = name.to_ascii_lowercase();
        if !lower.starts_with("x-amz-") || is_credential(name) {
            continue;
        }
        let (Ok(header), Ok(value)) = (HeaderName::from_bytes(lower.as_bytes()), HeaderValue::from_str(value)) else {
            return Err(Refusal::bad_request("InvalidArgument", "Invalid query parameter").with("ArgumentName", name));
        };
        if request.headers.insert(header, value).is_some() {
            let message = "A parameter was sent both as a header and in the query";
            return Err(Refusal::bad_request("InvalidArgument", message).with("ArgumentName", name));
        }
    }
    // Raw pairs are kept as sent, so that s3s decodes them itself.
    let raw: Vec<&str> = request
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .filter(|pair| {
            let name = sigv4::query_pairs(pair).into_iter().next().map(|(name, _)| name).unwrap_or_default();
            !name.to_ascii_lowercase().starts_with("x-amz-")
        })
        .collect();
    let path = request.uri.path();
    let target = if raw.is_empty() { path.to_owned() } else { format!("{path}?{}", raw.join("&")) };
    request.uri =
        target.parse::<Uri>().map_err(|_| Refusal::bad_request("InvalidURI", "Couldn't parse the specified URI."))?;
    Ok(())
}

fn is_credential(name: &str) -> bool {
    name == SECURITY_TOKEN || QUERY_FIELDS.contains(&name)
}

/// How S3 words a rejection of the verifier.
fn refusal(
    rejection: Rejection,
    request: &Request,
    query: &[(String, String)],
    presigned: bool,
    account: &Account,
) -> Refusal {
    let malformed = if presigned { "AuthorizationQueryParametersError" } else { "AuthorizationHeaderMalformed" };
    match rejection {
        Rejection::Missing => Refusal::forbidden("AccessDenied", "Access Denied"),
        Rejection::Malformed => {
            Refusal::bad_request(malformed, "The authorization you provided is malformed; the parameters are invalid")
        }
        Rejection::UnknownKey => unknown_key(),
        Rejection::TokenInvalid => {
            let sent = request.headers.contains_key("x-amz-security-token")
                || query.iter().any(|(name, _)| name == SECURITY_TOKEN);
            // Without its token the key of a session is a key nobody knows.
            if sent {
                Refusal::bad_request("InvalidToken", "The provided token is malformed or otherwise invalid.")
            } else {
                unknown_key()
            }
        }
        Rejection::TokenExpired => Refusal::bad_request("ExpiredToken", "The provided token has expired."),
        Rejection::SignatureMismatch => Refusal::forbidden(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
        ),
        Rejection::WrongScope => {
            let message = format!(
                "The authorization {} is malformed; the date, region or service of the credential is wrong; expecting '{}' and 's3'",
                if presigned { "query" } else { "header" },
                account.region
            );
            Refusal::bad_request(malformed, message).with("Region", account.region.clone())
        }
        Rejection::Skew if presigned => Refusal::forbidden("AccessDenied", "Request is not yet valid"),
        Rejection::Skew => Refusal::forbidden(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        ),
        Rejection::Expired => Refusal::forbidden("AccessDenied", "Request has expired"),
        Rejection::UnsignedHeader(headers) => {
            Refusal::forbidden("AccessDenied", "There were headers present in the request which were not signed")
                .with("HeadersNotSigned", headers.join(", "))
        }
        Rejection::TooLongExpiry => {
            Refusal::bad_request(malformed, "X-Amz-Expires must be less than a week (in seconds)")
        }
    }
}

fn unknown_key() -> Refusal {
    let message = "The AWS Access Key Id you provided does not exist in our records.";
    Refusal::forbidden("InvalidAccessKeyId", message)
}
