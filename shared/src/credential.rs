//! The bearer credential of a request (RFC 6750 §2.1), taken from exactly one place.

use crate::http::Headers;
use crate::jwt::Reason;

/// The one token of the one `Authorization` header.
///
/// Refused: no header, two of them, a comma, a scheme other than `Bearer` (in any case), anything but one space after it,
/// and the header names through which gateways smuggle a second value.
pub fn bearer(headers: &Headers) -> Result<&str, Reason> {
    if headers.names().any(is_smuggled) {
        return Err(Reason::Ambiguous);
    }
    let mut values = headers.all("authorization");
    let value = values.next().ok_or(Reason::Missing)?;
    if values.next().is_some() || value.contains(',') {
        return Err(Reason::Ambiguous);
    }
    let (scheme, token) = value.split_once(' ').ok_or(Reason::Malformed)?;
    if scheme.eq_ignore_ascii_case("dpop") {
        return Err(Reason::UnsupportedBinding);
    }
    let is_token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.bytes().all(is_token) {
        return Err(Reason::Malformed);
    }
    Ok(token)
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
        bearer(&headers).map(str::to_owned)
    }

    #[test]
    fn exactly_one_bearer_token_is_taken() {
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
            (&[("authorization", "DPoP a.b.c")], Reason::UnsupportedBinding),
            (&[("cookie", "access_token=a.b.c")], Reason::Missing),
        ] {
            assert_eq!(of(headers), Err(reason), "{headers:?}");
        }
    }
}
