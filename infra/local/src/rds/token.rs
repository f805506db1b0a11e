//! An IAM authentication token: a presigned `GET https://host:port/?Action=connect&DBUser=…` without its scheme.
//!
//! Written from the documentation, not from a generator, so that agreeing with one means something.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{constant_time, digest, hmac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use time::macros::format_description;

/// Longest life that a token may claim.
pub const LONGEST_LIFE: Duration = Duration::from_secs(900);
/// How far the signer's clock may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(300);
const SERVICE: &str = "rds-db";

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const REQUIRED: [&str; 8] = [
    "Action",
    "DBUser",
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
];
const SESSION_TOKEN: &str = "X-Amz-Security-Token";

/// What this listener accepts.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// `host:port` exactly as clients dial it.
    pub endpoint: &'a str,
    /// The user of the startup message.
    pub user: &'a str,
    /// The region of this listener.
    pub region: &'a str,
    /// Now.
    pub now: SystemTime,
}

/// A key that exists.
#[derive(Clone)]
pub struct Key {
    /// Its secret.
    pub secret: String,
    /// The session token issued with it.
    pub session_token: Option<String>,
    /// When it stops being one.
    pub expires: Option<SystemTime>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key([redacted])")
    }
}

/// Why a password is not a token for this listener. Never told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it, and `Display` says it again")]
pub enum Refusal {
    NotAToken,
    Duplicate,
    UnexpectedParameter,
    MissingParameter,
    Action,
    User,
    Algorithm,
    SignedHeaders,
    Scope,
    UnknownKey,
    SessionToken,
    ExpiredKey,
    Life,
    Date,
    Future,
    Expired,
    Signature,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAToken => "password is not a token for this endpoint",
            Self::Duplicate => "duplicate parameter",
            Self::UnexpectedParameter => "unexpected parameter",
            Self::MissingParameter => "missing parameter",
            Self::Action => "action is not connect",
            Self::User => "token is for another user",
            Self::Algorithm => "algorithm is not AWS4-HMAC-SHA256",
            Self::SignedHeaders => "signed headers are not host",
            Self::Scope => "credential scope is of another date, region or service",
            Self::UnknownKey => "access key is unknown",
            Self::SessionToken => "session token is not the one issued with the key",
            Self::ExpiredKey => "session of the key has expired",
            Self::Life => "life is not within 1 to 900 seconds",
            Self::Date => "malformed date",
            Self::Future => "token is from the future",
            Self::Expired => "token has expired",
            Self::Signature => "signature does not match",
        })
    }
}

/// Checks every rule of the token and returns the access key id that signed it.
///
/// # Errors
/// The first rule that does not hold.
pub fn verify(token: &str, expected: &Expected<'_>, find: impl FnOnce(&str) -> Option<Key>) -> Result<String, Refusal> {
    let query = token
        .strip_prefix(expected.endpoint)
        .and_then(|rest| rest.strip_prefix("/?"))
        .filter(|query| query.is_ascii())
        .ok_or(Refusal::NotAToken)?;
    let parameters = parse(query)?;
    let parameter = |name: &str| parameters.get(name).map(String::as_str).ok_or(Refusal::MissingParameter);
    for name in REQUIRED {
        parameter(name)?;
    }
    let known = |name: &String| REQUIRED.contains(&name.as_str()) || name == SESSION_TOKEN;
    require(parameters.keys().all(known), Refusal::UnexpectedParameter)?;
    require(parameter("Action")? == "connect", Refusal::Action)?;
    require(parameter("DBUser")? == expected.user, Refusal::User)?;
    require(parameter("X-Amz-Algorithm")? == "AWS4-HMAC-SHA256", Refusal::Algorithm)?;
    require(parameter("X-Amz-SignedHeaders")? == "host", Refusal::SignedHeaders)?;

    let stamp = parameter("X-Amz-Date")?;
    let signed_at = moment(stamp).ok_or(Refusal::Date)?;
    let day = stamp.get(..8).ok_or(Refusal::Date)?;
    let scope = format!("{day}/{}/{SERVICE}/aws4_request", expected.region);
    let (access_key_id, claimed) = parameter("X-Amz-Credential")?.split_once('/').ok_or(Refusal::Scope)?;
    require(claimed == scope, Refusal::Scope)?;

    let life = parameter("X-Amz-Expires")?;
    require(!life.is_empty() && life.len() <= 4 && life.bytes().all(|b| b.is_ascii_digit()), Refusal::Life)?;
    let life = Duration::from_secs(life.parse().map_err(|_| Refusal::Life)?);
    require(!life.is_zero() && life <= LONGEST_LIFE, Refusal::Life)?;

    let key = find(access_key_id).ok_or(Refusal::UnknownKey)?;
    let presented = parameters.get(SESSION_TOKEN).map(String::as_bytes);
    let issued = key.session_token.as_deref().map(str::as_bytes);
    let same_session = match (presented, issued) {
        (None, None) => true,
        (Some(presented), Some(issued)) => constant_time::verify_slices_are_equal(presented, issued).is_ok(),
        _ => false,
    };
    require(same_session, Refusal::SessionToken)?;
    require(key.expires.is_none_or(|end| expected.now < end), Refusal::ExpiredKey)?;

    let signature = signature(&parameters, expected.endpoint, stamp, &scope, &key.secret, expected.region, day);
    let given = parameter("X-Amz-Signature")?;
    require(
        constant_time::verify_slices_are_equal(given.as_bytes(), signature.as_bytes()).is_ok(),
        Refusal::Signature,
    )?;
    match expected.now.duration_since(signed_at) {
        Ok(age) => require(age <= life, Refusal::Expired)?,
        Err(ahead) => require(ahead.duration() <= AHEAD, Refusal::Future)?,
    }
    Ok(access_key_id.to_owned())
}

fn require(holds: bool, refusal: Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal) }
}

fn parse(query: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut parameters = BTreeMap::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').ok_or(Refusal::NotAToken)?;
        let decode = |text: &str| {
            percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| Refusal::NotAToken)
        };
        if parameters.insert(decode(name)?, decode(value)?).is_some() {
            return Err(Refusal::Duplicate);
        }
    }
    Ok(parameters)
}

fn moment(stamp: &str) -> Option<SystemTime> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let parsed = time::PrimitiveDateTime::parse(stamp, &format).ok()?;
    Some(SystemTime::from(parsed.assume_utc()))
}

fn signature(
    parameters: &BTreeMap<String, String>,
    endpoint: &str,
    stamp: &str,
    scope: &str,
    secret: &str,
    region: &str,
    day: &str,
) -> String {
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let mut pairs: Vec<(String, String)> = parameters
        .iter()
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    let query: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let canonical = format!("GET\n/\n{}\nhost:{endpoint}\n\nhost\n{}", query.join("&"), sha256(b""));
    let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [day, region, SERVICE, "aws4_request"] {
        key = mac(&key, part);
    }
    hexadecimal(&mac(&key, &text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: &str = "prod-instance.us-east-1.rds.amazonaws.com:3306";
    /// From the test of `aws-sdk-rds` 1.159.0, `auth_token.rs`.
    const KNOWN: &str = "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy\
        &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=akid%2F20240826%2Fus-east-1%2Frds-db%2Faws4_request\
        &X-Amz-Date=20240826T220000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
        &X-Amz-Signature=dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89";
    const SIGNED_AT: u64 = 1_724_709_600;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn expected(now: u64) -> Expected<'static> {
        Expected { endpoint: ENDPOINT, user: "peccy", region: "us-east-1", now: at(now) }
    }

    fn key(id: &str) -> Option<Key> {
        (id == "akid").then(|| Key { secret: "secret".to_owned(), session_token: None, expires: None })
    }

    /// Signs whatever it is given, as an attacker with a key of his own would.
    fn signed(change: impl FnOnce(&mut BTreeMap<String, String>), session_token: Option<&str>) -> String {
        let query = KNOWN.split_once("/?").expect("query").1;
        let mut parameters = parse(query).expect("known token");
        parameters.remove("X-Amz-Signature");
        if let Some(token) = session_token {
            parameters.insert(SESSION_TOKEN.to_owned(), token.to_owned());
        }
        change(&mut parameters);
        let stamp = parameters.get("X-Amz-Date").cloned().unwrap_or_default();
        let scope = parameters
            .get("X-Amz-Credential")
            .and_then(|credential| credential.split_once('/'))
            .map(|(_, scope)| scope.to_owned())
            .unwrap_or_default();
        let mut parts = scope.split('/');
        let (day, region) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let signature = signature(&parameters, ENDPOINT, &stamp, &scope, "secret", region, day);
        parameters.insert("X-Amz-Signature".to_owned(), signature);
        let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
        let query: Vec<String> = parameters.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
        format!("{ENDPOINT}/?{}", query.join("&"))
    }

    #[test]
    fn the_token_that_aws_publishes_is_accepted() {
        assert_eq!(verify(KNOWN, &expected(SIGNED_AT), key).as_deref(), Ok("akid"));
        assert!(verify(&signed(|_| (), None), &expected(SIGNED_AT), key).is_ok());
    }

    #[test]
    fn a_token_lives_as_long_as_it_says_and_no_second_longer() {
        for (now, outcome) in [
            (SIGNED_AT + 900, Ok(())),
            (SIGNED_AT + 901, Err(Refusal::Expired)),
            (SIGNED_AT - 300, Ok(())),
            (SIGNED_AT - 301, Err(Refusal::Future)),
        ] {
            assert_eq!(verify(KNOWN, &expected(now), key).map(|_| ()), outcome, "{now}");
        }
        let short = signed(|p| drop(p.insert("X-Amz-Expires".to_owned(), "60".to_owned())), None);
        assert_eq!(verify(&short, &expected(SIGNED_AT + 61), key), Err(Refusal::Expired));
    }

    #[test]
    fn a_correctly_signed_token_is_still_held_to_every_rule() {
        let cases: [(&str, &str, Refusal); 20] = [
            ("Action", "Connect", Refusal::Action),
            ("Action", "", Refusal::Action),
            ("DBUser", "other", Refusal::User),
            ("DBUser", "Peccy", Refusal::User),
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA512", Refusal::Algorithm),
            ("X-Amz-SignedHeaders", "host;x-amz-date", Refusal::SignedHeaders),
            ("X-Amz-Credential", "akid/20240826/eu-west-1/rds-db/aws4_request", Refusal::Scope),
            ("X-Amz-Credential", "akid/20240826/us-east-1/rds/aws4_request", Refusal::Scope),
            ("X-Amz-Credential", "akid/20240825/us-east-1/rds-db/aws4_request", Refusal::Scope),
            ("X-Amz-Credential", "akid/20240826/us-east-1/rds-db/aws4_request/x", Refusal::Scope),
            ("X-Amz-Credential", "akid", Refusal::Scope),
            ("X-Amz-Credential", "nobody/20240826/us-east-1/rds-db/aws4_request", Refusal::UnknownKey),
            ("X-Amz-Expires", "901", Refusal::Life),
            ("X-Amz-Expires", "9000", Refusal::Life),
            ("X-Amz-Expires", "0", Refusal::Life),
            ("X-Amz-Expires", "-1", Refusal::Life),
            ("X-Amz-Expires", "+900", Refusal::Life),
            ("X-Amz-Date", "2024-08-26T22:00:00Z", Refusal::Date),
            ("X-Amz-Date", "20240826", Refusal::Date),
            ("X-Amz-Extra", "1", Refusal::UnexpectedParameter),
        ];
        for (name, value, refusal) in cases {
            let token = signed(|p| drop(p.insert(name.to_owned(), value.to_owned())), None);
            assert_eq!(verify(&token, &expected(SIGNED_AT), key), Err(refusal), "{name}={value}");
        }
        for name in REQUIRED.into_iter().filter(|name| *name != "X-Amz-Signature") {
            let token = signed(|p| drop(p.remove(name)), None);
            assert_eq!(verify(&token, &expected(SIGNED_AT), key), Err(Refusal::MissingParameter), "{name}");
        }
    }

    #[test]
    fn an_altered_token_is_refused() {
        let cases = [
            ("hunter2".to_owned(), Refusal::NotAToken),
            (String::new(), Refusal::NotAToken),
            (format!("https://{KNOWN}"), Refusal::NotAToken),
            (KNOWN.replace(":3306", ":3307"), Refusal::NotAToken),
            (KNOWN.replace("prod-instance", "prod-instancf"), Refusal::NotAToken),
            (KNOWN.replace("/?", "/x?"), Refusal::NotAToken),
            (KNOWN.replace("Action=", "action="), Refusal::MissingParameter),
            (format!("{KNOWN}&DBUser=peccy"), Refusal::Duplicate),
            (format!("{KNOWN}&X-Amz-Expires=900"), Refusal::Duplicate),
            (format!("{KNOWN}&"), Refusal::NotAToken),
            (KNOWN.replace("Expires=900", "Expires=9000"), Refusal::Life),
            (KNOWN.replace("Expires=900", "Expires=899"), Refusal::Signature),
            (KNOWN.replace("ad89", "ad88"), Refusal::Signature),
            (KNOWN.replace("ad89", ""), Refusal::Signature),
            (KNOWN.replace("DBUser=peccy", "DBUser=other"), Refusal::User),
            (format!("{KNOWN}&X-Amz-Security-Token=x"), Refusal::SessionToken),
        ];
        for (token, refusal) in cases {
            assert_eq!(verify(&token, &expected(SIGNED_AT), key), Err(refusal), "{token}");
        }
    }

    #[test]
    fn another_secret_does_not_sign_for_this_key() {
        let stranger = |id: &str| key(id).map(|key| Key { secret: "another".to_owned(), ..key });
        assert_eq!(verify(KNOWN, &expected(SIGNED_AT), stranger), Err(Refusal::Signature));
    }

    #[test]
    fn the_session_token_must_be_the_one_issued_with_the_key() {
        let session = |id: &str| key(id).map(|key| Key { session_token: Some("issued+/=".to_owned()), ..key });
        assert!(verify(&signed(|_| (), Some("issued+/=")), &expected(SIGNED_AT), session).is_ok());
        for token in [KNOWN.to_owned(), signed(|_| (), Some("foreign")), signed(|_| (), Some(""))] {
            assert_eq!(verify(&token, &expected(SIGNED_AT), session), Err(Refusal::SessionToken), "{token}");
        }
    }

    #[test]
    fn a_session_that_has_ended_signs_nothing() {
        let ended = |id: &str| key(id).map(|key| Key { expires: Some(at(SIGNED_AT)), ..key });
        assert_eq!(verify(KNOWN, &expected(SIGNED_AT), ended), Err(Refusal::ExpiredKey));
    }
}
