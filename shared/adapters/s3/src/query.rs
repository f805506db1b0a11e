//! Signature Version 4 in the query of a URL ("Authenticating Requests: Using Query Parameters").
//!
//! The SDK signs the same URLs, and takes its whole way of a request for each: some 200 us of a processor, where these few
//! hashes take ten. It stays the judge in the tests, where both must sign alike.

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use shared::clock::Timestamp;
use shared::digest::sha256;
use shared::encoding::hex;
use shared::name::Malformed;
use shared::object::{SignedRequest, SignedUrl, SignerSession, UrlLife};

use crate::stamp::{at, compact};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What a browser sets by itself and lets no script set.
const SET_BY_CLIENT: [&str; 2] = ["host", "content-length"];

/// Where a bucket is reached: scheme and authority as the client will send them, and the path before the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    pub(crate) scheme: &'static str,
    pub(crate) authority: String,
    pub(crate) path: String,
}

/// A request before it is signed. Everything in it will be inside the signature.
pub(crate) struct Unsigned<'a> {
    pub(crate) method: &'static str,
    /// The object's key, of characters that a path carries as they are.
    pub(crate) key: String,
    /// Parameters in any order, not encoded.
    pub(crate) query: Vec<(&'static str, &'a str)>,
    /// Headers but `host`, with names in lower case.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Signs for the whole second that has begun: the URL's end must not lie before the one that is promised.
pub(crate) fn sign(
    base: &Base,
    region: &str,
    session: &SignerSession,
    request: Unsigned<'_>,
    now: Timestamp,
    life: UrlLife,
) -> Result<SignedRequest, Malformed> {
    let date = compact(now)?;
    let day = date.get(..8).ok_or(Malformed("date"))?;
    let scope = format!("{day}/{region}/s3/aws4_request");
    let path = format!("{}/{}", base.path, request.key);
    if !path.bytes().all(|byte| unreserved(byte) || byte == b'/') {
        return Err(Malformed("path"));
    }
    let Unsigned { method, mut headers, mut query, .. } = request;
    if !headers.iter().all(|(_, value)| plain(value)) {
        return Err(Malformed("header"));
    }
    headers.push(("host", base.authority.clone()));
    headers.sort_unstable_by_key(|(name, _)| *name);
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");

    let credential = format!("{}/{scope}", session.access_key_id);
    let expires = life.seconds().to_string();
    let token = session.session_token.expose();
    query.extend([
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", credential.as_str()),
        ("X-Amz-Date", date.as_str()),
        ("X-Amz-Expires", expires.as_str()),
        ("X-Amz-SignedHeaders", names.as_str()),
    ]);
    if !token.is_empty() {
        query.push(("X-Amz-Security-Token", token));
    }
    // No two have one name, and no name needs encoding: their order is that of the encoded ones.
    query.sort_unstable_by_key(|(name, _)| *name);
    let query = encoded(&query);

    let mut canonical = format!("{method}\n{path}\n{query}\n");
    for (name, value) in &headers {
        canonical.extend([name, ":", value, "\n"]);
    }
    canonical.extend(["\n", &names, "\nUNSIGNED-PAYLOAD"]);
    let text = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&sha256(canonical.as_bytes())));
    let key = generate_signing_key(session.secret_access_key.expose(), at(now)?, region, "s3");
    let signature = calculate_signature(key, text.as_bytes());

    let url = format!("{}://{}{path}?{query}&X-Amz-Signature={signature}", base.scheme, base.authority);
    headers.retain(|(name, _)| !SET_BY_CLIENT.contains(name));
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(SignedRequest { method, url: SignedUrl::new(url), headers })
}

fn encoded(query: &[(&str, &str)]) -> String {
    let length = query.iter().map(|(name, value)| name.len() + value.len() * 2).sum();
    let mut out = String::with_capacity(length);
    for (name, value) in query {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        encode(value, &mut out);
    }
    out
}

/// RFC 3986 §2.1: all but the unreserved characters, in upper case.
fn encode(text: &str, out: &mut String) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    for byte in text.bytes() {
        if unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// A value that everybody on the way leaves as it is: spaces at its ends or side by side would be taken out of it.
fn plain(value: &str) -> bool {
    let visible = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    visible && value.trim() == value && !value.contains("  ")
}

#[cfg(test)]
mod tests {
    use shared::secret::SecretString;

    use super::*;

    /// 2013-05-24T00:00:00Z
    const START: Timestamp = Timestamp::from_seconds(1_369_353_600);

    fn session() -> SignerSession {
        SignerSession {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: SecretString::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: SecretString::new(String::new()),
            issued_at: START,
            expires_at: START.plus_seconds(900),
        }
    }

    fn signed(path: &str, request: Unsigned<'_>, now: Timestamp) -> Result<SignedRequest, Malformed> {
        let authority = "examplebucket.s3.amazonaws.com".to_owned();
        let base = Base { scheme: "https", authority, path: path.to_owned() };
        let life = UrlLife::within(300, START.plus_seconds(900), START).unwrap();
        sign(&base, "us-east-1", &session(), request, now, life)
    }

    fn get(key: &str) -> Unsigned<'_> {
        Unsigned { method: "GET", key: key.to_owned(), query: Vec::new(), headers: Vec::new() }
    }

    /// "Authenticating Requests: Using Query Parameters", the example, but for the day that its URL lives: computed apart,
    /// with the HMAC of Python's standard library, which gives AWS's own signature for 86,400 s.
    #[test]
    fn a_url_without_parameters_of_its_own_has_its_known_answer() {
        let url = signed("", get("test.txt"), START).unwrap().url;
        let want = "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
                    &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
                    &X-Amz-Date=20130524T000000Z&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature=740e3aa1082c13c8e98692e947b7a2d0a320789d55eb29bf12f9fbff9dd393a2";
        assert_eq!(url.expose(), want);
    }

    #[test]
    fn what_would_be_read_in_another_way_is_not_signed() {
        for key in ["a b", "a%20b", "a?b", "a#b", "ä", "a+b", "a\nb"] {
            assert_eq!(signed("", get(key), START).map(|_| ()), Err(Malformed("path")), "{key:?}");
        }
        for value in [" a", "a ", "a  b", "a\tb", "a\r\nx-evil: 1", "ä", "\u{7f}"] {
            let request = Unsigned { headers: vec![("content-type", value.to_owned())], ..get("k") };
            assert_eq!(signed("", request, START).map(|_| ()), Err(Malformed("header")), "{value:?}");
        }
        assert!(signed("", get("k"), Timestamp::from_seconds(-1)).is_err());
    }

    #[test]
    fn a_value_is_encoded_byte_by_byte() {
        let mut out = String::new();
        encode("aZ09-._~ /+=&%ä\0", &mut out);
        assert_eq!(out, "aZ09-._~%20%2F%2B%3D%26%25%C3%A4%00");
    }
}
