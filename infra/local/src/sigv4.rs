//! Verification of AWS Signature Version 4, header and query form.
//!
//! Written from the specification ("Signature Version 4 for API requests", IAM User Guide) and judged by AWS's own
//! signing test suite. Nothing of the client's signing code is used, so agreement means something.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{constant_time, digest, hmac};
use percent_encoding::percent_decode_str;
use time::{Date, Month, PrimitiveDateTime, Time};

use crate::account::{Account, Principal};
use crate::http::Request;

/// The only algorithm there is.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The longest life of a presigned request, in seconds (seven days).
pub const LONGEST_EXPIRY: u64 = 604_800;
const SIGNATURE: &str = "X-Amz-Signature";

/// What stands for the body in the canonical request.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// The body itself: its hash is signed, and `x-amz-content-sha256`, if sent, must be that hash.
    Bytes(&'a [u8]),
    /// The value of `x-amz-content-sha256` as sent, for S3, whose caller compares the body with it. Required in the
    /// header form; in the query form its absence means `UNSIGNED-PAYLOAD`.
    Declared,
}

/// What a listener accepts.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Service name of the credential scope, e.g. `kms`.
    pub service: &'a str,
    /// Region of the credential scope.
    pub region: &'a str,
    /// S3's canonical path: encoded once and never normalised.
    pub s3_path: bool,
    /// How far the clocks may differ.
    pub skew: Duration,
}

/// Which form carried the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthType {
    /// The `Authorization` header.
    Header,
    /// The query string (presigned).
    Query,
    /// The fields of a form (a signed policy).
    Form,
}

/// A caller whose signature holds.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// Who signed.
    pub principal: Principal,
    /// With which keys.
    pub access_key_id: String,
    /// When these keys were issued.
    pub issued_at: SystemTime,
    /// The signed headers, lower case, sorted.
    pub signed_headers: Vec<String>,
    /// Header or query form.
    pub auth_type: AuthType,
    /// `X-Amz-Date`.
    pub date: SystemTime,
    /// `X-Amz-Expires`, query form only.
    pub expires: Option<Duration>,
}

/// Why a request is not believed. Each service words it in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// No signature at all.
    Missing,
    /// A signature that is not written as the specification says.
    Malformed,
    /// No such access key.
    UnknownKey,
    /// Session token missing, foreign, altered, or present where there is none.
    TokenInvalid,
    /// The session is over.
    TokenExpired,
    /// The signature is not the one of this request.
    SignatureMismatch,
    /// Another date, region or service.
    WrongScope,
    /// Signed too far from now.
    Skew,
    /// The presigned request's life is over.
    Expired,
    /// Headers that had to be signed and are not.
    UnsignedHeader(Vec<String>),
    /// `X-Amz-Expires` above seven days.
    TooLongExpiry,
}

/// Verifies the header form.
///
/// # Errors
/// The first [`Rejection`] that applies.
pub fn verify_header(
    request: &Request,
    payload: Payload<'_>,
    scope: Scope<'_>,
    account: &Account,
) -> Result<Authenticated, Rejection> {
    let target = Target::of(request);
    let authorization = only(request, "authorization")?.ok_or(Rejection::Missing)?;
    let rest = authorization.strip_prefix(ALGORITHM).ok_or(Rejection::Malformed)?;
    let rest = rest.strip_prefix(' ').ok_or(Rejection::Malformed)?;
    let (mut credential, mut signed, mut signature) = (None, None, None);
    for part in rest.split(',') {
        let (name, value) = part.trim().split_once('=').ok_or(Rejection::Malformed)?;
        let slot = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed,
            "Signature" => &mut signature,
            _ => return Err(Rejection::Malformed),
        };
        if slot.replace(value).is_some() {
            return Err(Rejection::Malformed);
        }
    }
    let claim = Claim {
        credential: Credential::parse(credential.ok_or(Rejection::Malformed)?)?,
        signed_headers: signed_headers(signed.ok_or(Rejection::Malformed)?)?,
        signature: signature.ok_or(Rejection::Malformed)?.to_owned(),
        timestamp: only(request, "x-amz-date")?.ok_or(Rejection::Malformed)?.to_owned(),
        token: only(request, "x-amz-security-token")?.map(str::to_owned),
        expires: None,
    };
    claim.verify(request, target, payload, scope, account)
}

/// Verifies the query form.
///
/// # Errors
/// The first [`Rejection`] that applies.
pub fn verify_query(
    request: &Request,
    payload: Payload<'_>,
    scope: Scope<'_>,
    account: &Account,
) -> Result<Authenticated, Rejection> {
    let target = Target::of(request);
    let pairs = query_pairs(target.query);
    let field = |wanted: &str| {
        let mut found = pairs.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(Some(value.as_str())),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(Rejection::Malformed),
        }
    };
    let (algorithm, signature) = (field("X-Amz-Algorithm")?, field(SIGNATURE)?);
    if algorithm.is_none() && signature.is_none() {
        return Err(Rejection::Missing);
    }
    if algorithm != Some(ALGORITHM) {
        return Err(Rejection::Malformed);
    }
    let expires = field("X-Amz-Expires")?.ok_or(Rejection::Malformed)?;
    if expires.is_empty() || !expires.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Rejection::Malformed);
    }
    let expires = expires.parse::<u64>().map_err(|_| Rejection::TooLongExpiry)?;
    if expires > LONGEST_EXPIRY {
        return Err(Rejection::TooLongExpiry);
    }
    let claim = Claim {
        credential: Credential::parse(field("X-Amz-Credential")?.ok_or(Rejection::Malformed)?)?,
        signed_headers: signed_headers(field("X-Amz-SignedHeaders")?.ok_or(Rejection::Malformed)?)?,
        signature: signature.ok_or(Rejection::Malformed)?.to_owned(),
        timestamp: field("X-Amz-Date")?.ok_or(Rejection::Malformed)?.to_owned(),
        token: field("X-Amz-Security-Token")?.map(str::to_owned),
        expires: Some(Duration::from_secs(expires)),
    };
    claim.verify(request, target, payload, scope, account)
}

/// The signature of a form: over its policy in base64, and over nothing else.
#[derive(Clone, Copy, Debug)]
pub struct FormClaim<'a> {
    /// `x-amz-algorithm`
    pub algorithm: &'a str,
    /// `x-amz-credential`
    pub credential: &'a str,
    /// `x-amz-date`
    pub date: &'a str,
    /// `x-amz-security-token`
    pub token: Option<&'a str>,
    /// The policy as sent.
    pub policy: &'a str,
    /// `x-amz-signature`
    pub signature: &'a str,
}

/// Verifies the form's signature. How long it is good for is the policy's to say.
///
/// # Errors
/// The first [`Rejection`] that applies.
pub fn verify_form(claim: &FormClaim<'_>, scope: Scope<'_>, account: &Account) -> Result<Authenticated, Rejection> {
    if claim.algorithm != ALGORITHM {
        return Err(Rejection::Malformed);
    }
    let credential = Credential::parse(claim.credential)?;
    let date = parse_timestamp(claim.date).ok_or(Rejection::Malformed)?;
    let entry = account.credentials.find(&credential.access_key_id).ok_or(Rejection::UnknownKey)?;
    let token_holds = match (&entry.token, claim.token) {
        (None, None) => true,
        (Some(issued), Some(sent)) => equal(issued.as_bytes(), sent.as_bytes()),
        _ => false,
    };
    if !token_holds {
        return Err(Rejection::TokenInvalid);
    }
    let now = account.clock.now();
    if entry.expires.is_some_and(|end| now >= end) {
        return Err(Rejection::TokenExpired);
    }
    let day = claim.date.get(..8) == Some(credential.date.as_str());
    if !day || credential.region != scope.region || credential.service != scope.service {
        return Err(Rejection::WrongScope);
    }
    let key = signing_key(&entry.secret, &credential.date, scope.region, scope.service);
    if !equal(signature(&key, claim.policy).as_bytes(), claim.signature.as_bytes()) {
        return Err(Rejection::SignatureMismatch);
    }
    if date > now.checked_add(scope.skew).unwrap_or(now) {
        return Err(Rejection::Skew);
    }
    Ok(Authenticated {
        principal: entry.principal,
        access_key_id: credential.access_key_id,
        issued_at: entry.issued_at,
        signed_headers: Vec::new(),
        auth_type: AuthType::Form,
        date,
        expires: None,
    })
}

/// A credential scope: `key/date/region/service/aws4_request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The access key id.
    pub access_key_id: String,
    /// `YYYYMMDD`.
    pub date: String,
    /// Region.
    pub region: String,
    /// Service.
    pub service: String,
}

impl Credential {
    /// Parses the five parts.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] for anything but exactly five non-empty parts ending in `aws4_request`.
    pub fn parse(text: &str) -> Result<Credential, Rejection> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [key, date, region, service, "aws4_request"]
                if [key, date, region, service].iter().all(|part| !part.is_empty()) =>
            {
                Ok(Credential {
                    access_key_id: (*key).to_owned(),
                    date: (*date).to_owned(),
                    region: (*region).to_owned(),
                    service: (*service).to_owned(),
                })
            }
            _ => Err(Rejection::Malformed),
        }
    }

    /// The scope without the key, as it stands in the string to sign.
    pub fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }
}

struct Claim {
    credential: Credential,
    signed_headers: Vec<String>,
    signature: String,
    timestamp: String,
    token: Option<String>,
    expires: Option<Duration>,
}

impl Claim {
    fn verify(
        self,
        request: &Request,
        target: Target<'_>,
        payload: Payload<'_>,
        scope: Scope<'_>,
        account: &Account,
    ) -> Result<Authenticated, Rejection> {
        let date = parse_timestamp(&self.timestamp).ok_or(Rejection::Malformed)?;
        let entry = account.credentials.find(&self.credential.access_key_id).ok_or(Rejection::UnknownKey)?;
        let token_holds = match (&entry.token, &self.token) {
            (None, None) => true,
            (Some(issued), Some(sent)) => equal(issued.as_bytes(), sent.as_bytes()),
            _ => false,
        };
        if !token_holds {
            return Err(Rejection::TokenInvalid);
        }
        let now = account.clock.now();
        if entry.expires.is_some_and(|end| now >= end) {
            return Err(Rejection::TokenExpired);
        }
        if self.credential.region != scope.region
            || self.credential.service != scope.service
            || self.timestamp.get(..8) != Some(self.credential.date.as_str())
        {
            return Err(Rejection::WrongScope);
        }
        self.check_headers(request)?;
        let payload_hash = self.payload_hash(request, payload)?;
        let headers = header_pairs(request)?;
        let canonical = canonical_request(
            request.method.as_str(),
            &canonical_path(target.path, scope.s3_path),
            &canonical_query(target.query),
            &headers,
            &self.signed_headers,
            &payload_hash,
        );
        let to_sign = string_to_sign(&self.timestamp, &self.credential.scope(), &canonical);
        let key = signing_key(&entry.secret, &self.credential.date, scope.region, scope.service);
        if !equal(signature(&key, &to_sign).as_bytes(), self.signature.as_bytes()) {
            return Err(Rejection::SignatureMismatch);
        }
        // Time comes last: only who really signed learns that it was too early or too late.
        let ahead = date > now.checked_add(scope.skew).unwrap_or(now);
        let life = self.expires.unwrap_or(scope.skew);
        let over = date.checked_add(life).is_none_or(|end| end < now);
        match self.expires {
            _ if ahead => return Err(Rejection::Skew),
            Some(_) if over => return Err(Rejection::Expired),
            None if over => return Err(Rejection::Skew),
            _ => {}
        }
        Ok(Authenticated {
            principal: entry.principal,
            access_key_id: self.credential.access_key_id,
            issued_at: entry.issued_at,
            signed_headers: self.signed_headers,
            auth_type: if self.expires.is_some() { AuthType::Query } else { AuthType::Header },
            date,
            expires: self.expires,
        })
    }

    fn check_headers(&self, request: &Request) -> Result<(), Rejection> {
        let signed = |name: &str| self.signed_headers.iter().any(|signed| signed == name);
        if !signed("host") {
            return Err(Rejection::UnsignedHeader(vec!["host".to_owned()]));
        }
        if self.signed_headers.iter().any(|name| !request.headers.contains_key(name.as_str())) {
            return Err(Rejection::SignatureMismatch);
        }
        let unsigned: Vec<String> = request
            .headers
            .keys()
            .map(http::HeaderName::as_str)
            .filter(|name| name.starts_with("x-amz-") && !signed(name))
            .map(str::to_owned)
            .collect();
        if unsigned.is_empty() { Ok(()) } else { Err(Rejection::UnsignedHeader(unsigned)) }
    }

    fn payload_hash(&self, request: &Request, payload: Payload<'_>) -> Result<String, Rejection> {
        let declared = only(request, "x-amz-content-sha256")?;
        match payload {
            Payload::Bytes(body) => {
                let hash = sha256_hex(body);
                match declared {
                    Some(declared) if declared != hash => Err(Rejection::SignatureMismatch),
                    _ => Ok(hash),
                }
            }
            Payload::Declared => match (declared, self.expires) {
                (Some(declared), _) => Ok(declared.to_owned()),
                (None, Some(_)) => Ok("UNSIGNED-PAYLOAD".to_owned()),
                (None, None) => Err(Rejection::Malformed),
            },
        }
    }
}

#[derive(Clone, Copy)]
struct Target<'a> {
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    fn of(request: &'a Request) -> Target<'a> {
        let path = request.uri.path();
        Target { path: if path.is_empty() { "/" } else { path }, query: request.uri.query().unwrap_or_default() }
    }
}

/// Whether the request carries a query-form signature at all.
pub fn is_presigned(request: &Request) -> bool {
    query_pairs(request.uri.query().unwrap_or_default())
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case(SIGNATURE) || name.eq_ignore_ascii_case("X-Amz-Algorithm"))
}

/// The canonical request: method, path, query, the signed headers, their names, the payload's hash.
///
/// `headers` are all headers in order with lower-case names; only those in `signed` are taken.
pub fn canonical_request(
    method: &str,
    canonical_path: &str,
    canonical_query: &str,
    headers: &[(String, String)],
    signed: &[String],
    payload_hash: &str,
) -> String {
    let mut text = format!("{method}\n{canonical_path}\n{canonical_query}\n");
    for name in signed {
        let values: Vec<String> =
            headers.iter().filter(|(other, _)| other == name).map(|(_, value)| canonical_value(value)).collect();
        let _ = writeln!(text, "{name}:{}", values.join(","));
    }
    let _ = write!(text, "\n{}\n{payload_hash}", signed.join(";"));
    text
}

/// The string to sign over a canonical request.
pub fn string_to_sign(timestamp: &str, scope: &str, canonical_request: &str) -> String {
    format!("{ALGORITHM}\n{timestamp}\n{scope}\n{}", sha256_hex(canonical_request.as_bytes()))
}

/// The derived key of one day, region and service.
pub fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> [u8; 32] {
    let mut key = mac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
    for part in [region, service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    key
}

/// The signature, lower-case hex; also over a base64 POST policy.
pub fn signature(key: &[u8; 32], string_to_sign: &str) -> String {
    hex(&mac(key, string_to_sign.as_bytes()))
}

/// The canonical path from the path as sent. S3 keeps it; all others normalise and encode once more.
pub fn canonical_path(path: &str, s3_path: bool) -> String {
    if s3_path {
        // S3 signs the name of the object: decode what a client spelt, encode it the one right way.
        return encode(&percent_decode_str(path).collect::<Vec<u8>>(), true);
    }
    encode(normalise(path).as_bytes(), true)
}

/// Removes `.`, `..` and empty segments (RFC 3986 §6 as AWS reads it), keeping a slash at the end.
fn normalise(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut normal = String::from("/");
    normal.push_str(&segments.join("/"));
    let directory = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    if directory && !segments.is_empty() {
        normal.push('/');
    }
    normal
}

/// The canonical query from the query as sent: decoded, encoded the one right way, sorted, without the signature.
pub fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query_pairs(query)
        .into_iter()
        .filter(|(name, _)| name != SIGNATURE)
        .map(|(name, value)| (encode(name.as_bytes(), false), encode(value.as_bytes(), false)))
        .collect();
    pairs.sort();
    let joined: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    joined.join("&")
}

/// The decoded pairs of a query string in order. A name without `=` has an empty value.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// `YYYYMMDDTHHMMSSZ`, exactly.
pub fn parse_timestamp(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.split_at_checked(8)?;
    let time = rest.strip_prefix('T')?.strip_suffix('Z')?;
    if time.len() != 6 || !date.bytes().chain(time.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |text: &str, from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok();
    let small = |text: &str, from: usize| u8::try_from(number(text, from, from + 2)?).ok();
    let month = Month::try_from(small(date, 4)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(date, 0, 4)?), month, small(date, 6)?).ok()?;
    let time = Time::from_hms(small(time, 0)?, small(time, 2)?, small(time, 4)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// SHA-256, lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares in constant time; lengths may show.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(left, right).is_ok()
}

fn mac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

fn encode(bytes: &[u8], keep_slash: bool) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(*byte)),
            b'/' if keep_slash => text.push('/'),
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
        text
    })
}

fn canonical_value(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn signed_headers(text: &str) -> Result<Vec<String>, Rejection> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    let lower = names.iter().all(|name| !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
    let ascending = names.iter().zip(names.iter().skip(1)).all(|(left, right)| left < right);
    if lower && ascending { Ok(names) } else { Err(Rejection::Malformed) }
}

fn header_pairs(request: &Request) -> Result<Vec<(String, String)>, Rejection> {
    request
        .headers
        .iter()
        .map(|(name, value)| {
            let value = std::str::from_utf8(value.as_bytes()).map_err(|_| Rejection::Malformed)?;
            Ok((name.as_str().to_owned(), value.to_owned()))
        })
        .collect()
}

fn only<'a>(request: &'a Request, name: &str) -> Result<Option<&'a str>, Rejection> {
    let mut values = request.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Rejection::Malformed),
        (Some(_), Some(_)) => Err(Rejection::Malformed),
    }
}
