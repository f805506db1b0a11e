//! The access token of a request, taken from exactly one place (RFC 6750 §2.1, RFC 9449 §7.1).

use crate::http::Headers;
use crate::jwt::Reason;

/// How a token was presented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// `Bearer`
    Bearer,
    /// `DPoP`: a proof of possession comes with it.
    Dpop,
}

/// A token and how it was presented.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a> {
    /// The scheme of the `Authorization` header.
    pub scheme: Scheme,
    /// The token, not verified.
    pub token: &'a str,
}

/// The one token of the one `Authorization` header.
///
/// Refused: no header, two of them, a comma, a scheme other than `Bearer` and `DPoP` (in any case), anything but one space after
/// it, and the header names through which gateways smuggle a second value.
pub fn presented(headers: &Headers) -> Result<Presented<'_>, Reason> {
    if headers.names().any(is_smuggled) {
        return Err(Reason::Ambiguous);
    }
    let mut values = headers.all("authorization");
    let value = values.next().ok_or(Reason::Missing)?;
    if values.next().is_some() || value.contains(',') {
        return Err(Reason::Ambiguous);
    }
    read(value)
}

/// The token of the value of an `Authorization` header.
pub fn read(value: &str) -> Result<Presented<'_>, Reason> {
    let (scheme, token) = value.split_once(' ').ok_or(Reason::Malformed)?;
    let scheme = match scheme {
        bearer if bearer.eq_ignore_ascii_case("bearer") => Scheme::Bearer,
        dpop if dpop.eq_ignore_ascii_case("dpop") => Scheme::Dpop,
        _ => return Err(Reason::Malformed),
    };
    let is_token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if token.is_empty() || !token.bytes().all(is_token) {
        return Err(Reason::Malformed);
    }
    Ok(Presented { scheme, token })
}

fn is_smuggled(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.starts_with("x-amzn-remapped-") || lower == "x-http-method-override"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Result<String, Reason> {
        let headers: Headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        presented(&headers).map(|found| found.token.to_owned())
    }

    #[test]
    fn the_scheme_is_taken_in_any_case() {
        let scheme = |value| read(value).map(|found| found.scheme);
        assert_eq!(scheme("dpOp a.b.c"), Ok(Scheme::Dpop));
        assert_eq!(scheme("DPoP a.b.c"), Ok(Scheme::Dpop));
        assert_eq!(scheme("BEARER a.b.c"), Ok(Scheme::Bearer));
    }

    #[test]
    fn exactly_one_token_is_taken() {
        assert_eq!(of(&[("Authorization", "Bearer a.b.c")]).as_deref(), Ok("a.b.c"));
        assert_eq!(of(&[("AUTHORIZATION", "bEARER a.b.c")]).as_deref(), Ok("a.b.c"));
        for (headers, reason) in [
            (&[][..], Reason::Missing),
            (&[("authorization", "Bearer a"), ("Authorization", "Bearer b")], Reason::Ambiguous),
            (&[("authorization", "Bearer a, Bearer b")], Reason::Ambiguous),
            (&[("authorization", "Bearer a"), ("X-Amzn-Remapped-Authorization", "Bearer b")], Reason::Ambiguous),
            (&[("authorization", "Bearer a"), ("X-HTTP-Method-Override", "DELETE")], Reason::Ambiguous),
            (&[("authorization", "Bearer")], Reason::Malformed),
            (&[("authorization", "Bearer  a")], Reason::Malformed),
            (&[("authorization", "Bearer\ta")], Reason::Malformed),
            (&[("authorization", "Bearer a b")], Reason::Malformed),
            (&[("authorization", "Basic abc")], Reason::Malformed),
            (&[("authorization", "DPoP  a")], Reason::Malformed),
            (&[("cookie", "access_token=a.b.c")], Reason::Missing),
        ] {
            assert_eq!(of(headers), Err(reason), "{headers:?}");
        }
    }
}
