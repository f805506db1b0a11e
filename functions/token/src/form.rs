//! The token request's form (RFC 6749 §3.2, Appendix B).

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::oauth::Error;

/// The largest request body, in bytes.
pub(crate) const MAX_BODY: usize = 16 * 1024;

/// Parameters of `application/x-www-form-urlencoded`, each at most once; an empty value counts as absent.
#[derive(Default)]
pub(crate) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a body. A repeated parameter, bytes that are not UTF-8 and a body over [`MAX_BODY`] are `invalid_request`.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Error> {
        if body.len() > MAX_BODY {
            return Err(Error::INVALID_REQUEST.because("the body is too large"));
        }
        let text = std::str::from_utf8(body).map_err(|_| malformed())?;
        let mut parameters = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.contains_key(&name) {
                return Err(Error::INVALID_REQUEST.because("a parameter is repeated"));
            }
            parameters.insert(name, value);
        }
        parameters.retain(|_, value| !value.is_empty());
        Ok(Self(parameters))
    }

    /// A parameter's value.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn decode(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| malformed())
}

fn malformed() -> Error {
    Error::INVALID_REQUEST.because("the body is not a form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_the_standard_says() {
        let form = Form::parse(b"grant_type=client_credentials&scope=files%3Aread+app&empty=&&x").unwrap();
        assert_eq!(form.find("grant_type"), Some("client_credentials"));
        assert_eq!(form.find("scope"), Some("files:read app"));
        assert_eq!((form.find("empty"), form.find("x"), form.find("absent")), (None, None, None));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for body in [&b"a=1&a=2"[..], b"a=1&%61=2", b"a=&a=1", b"a=%ff", b"\xff=1", &[b'a'; MAX_BODY + 1]] {
            assert!(Form::parse(body).is_err(), "{body:?}");
        }
    }
}
