//! Addresses of hosts that are not ours: https, by name, in one spelling.

use std::fmt;

use crate::name::Malformed;

/// The longest URL that is taken, in bytes.
const LONGEST: usize = 512;

/// The longest resource indicator, in bytes.
const LONGEST_RESOURCE: usize = 255;

/// Whether this is an absolute URI without fragment (RFC 3986 §4.3), as a resource indicator must be (RFC 8707 §2), in printable
/// characters that RFC 3986 allows unescaped.
pub fn is_resource(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let allowed = |b: u8| {
        (0x21..=0x7e).contains(&b) && !matches!(b, b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{'..=b'}')
    };
    scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'.' | b'-'))
        && !matches!(rest, "" | "/" | "//")
        && text.len() <= LONGEST_RESOURCE
        && rest.bytes().all(allowed)
}

/// An `https` URL (RFC 3986) with a host name in lower case, an optional port, path and query.
///
/// Refused: other schemes, users, fragments, IP addresses (their certificates name nobody), and every byte that RFC 3986 does not
/// allow unescaped.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HttpsUrl {
    text: String,
    host: usize,
    authority: usize,
    port: u16,
}

const SCHEME: &str = "https://";
const BAD: Malformed = Malformed("https URL");

impl HttpsUrl {
    /// Checks the grammar.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let allowed =
            |b: u8| (0x21..=0x7e).contains(&b) && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{'..=b'}');
        let rest = text.strip_prefix(SCHEME).ok_or(BAD)?;
        if text.len() > LONGEST || !text.bytes().all(|b| allowed(b) && b != b'#') {
            return Err(BAD);
        }
        let authority = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(authority).ok_or(BAD)?;
        if target.starts_with('?') {
            return Err(BAD);
        }
        let (host, port) = match authority.split_once(':') {
            None => (authority, 443),
            Some((host, port)) => (host, read_port(port).ok_or(BAD)?),
        };
        if !is_host(host) {
            return Err(BAD);
        }
        let (host, authority) = (SCHEME.len() + host.len(), SCHEME.len() + authority.len());
        Ok(Self { text: text.to_owned(), host, authority, port })
    }

    /// The URL as given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host's name.
    pub fn host(&self) -> &str {
        self.text.get(SCHEME.len()..self.host).unwrap_or_default()
    }

    /// The host's name, with the port where one was given.
    pub fn authority(&self) -> &str {
        self.text.get(SCHEME.len()..self.authority).unwrap_or_default()
    }

    /// The port, 443 where none was given.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, at least `/`.
    pub fn target(&self) -> &str {
        self.text.get(self.authority..).filter(|target| !target.is_empty()).unwrap_or("/")
    }

    /// Whether there is a query.
    pub fn has_query(&self) -> bool {
        self.text.contains('?')
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

fn read_port(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// A name of letters, digits and hyphens; the last label holds a letter, so that it is no IPv4 address in any spelling.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(is_label) && last.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_an_absolute_uri_without_fragment() {
        for good in ["https://billing.example", "https://billing.example/v1?x=1", "urn:example:billing", "api://b"] {
            assert!(is_resource(good), "{good}");
        }
        for bad in [
            "",
            "billing",
            "/billing",
            "//billing.example",
            "https:",
            "https://",
            "https://billing.example#top",
            "https://billing.example/a b",
            "https://billing.example/\u{e9}",
            "1https://billing.example",
            "https\n://billing.example",
            &format!("https://{}", "a".repeat(255)),
        ] {
            assert!(!is_resource(bad), "{bad}");
        }
    }

    #[test]
    fn an_https_url_is_taken_apart() {
        for (text, host, authority, port, target) in [
            ("https://a.example", "a.example", "a.example", 443, "/"),
            ("https://localhost:8443/x", "localhost", "localhost:8443", 8443, "/x"),
            ("https://a.example/keys?p=1", "a.example", "a.example", 443, "/keys?p=1"),
            ("https://a-1.xn--p1ai/%20/~", "a-1.xn--p1ai", "a-1.xn--p1ai", 443, "/%20/~"),
        ] {
            let url = HttpsUrl::parse(text).unwrap();
            assert_eq!((url.host(), url.authority(), url.port(), url.target()), (host, authority, port, target));
            assert_eq!(url.as_str(), text);
        }
    }

    #[test]
    fn what_is_no_plain_https_url_is_refused() {
        for text in [
            "",
            "a.example",
            "http://a.example/",
            "HTTPS://a.example/",
            "https://",
            "https:///keys",
            "https://A.example/",
            "https://u@a.example/",
            "https://u:p@a.example/",
            "https://a.example:0/",
            "https://a.example:/",
            "https://a.example:08/",
            "https://a.example:65536/",
            "https://a.example:+1/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://a..example/",
            "https://.example/",
            "https://a.example./",
            "https://-a.example/",
            "https://a_b.example/",
            "https://a.example#f",
            "https://a.example/#f",
            "https://a.example?p=1",
            "https://a.example\\@evil.example/",
            "https://a.example/ x",
            "https://a.example/\r\nx: y",
            "https://a.example/{x}",
            "https://é.example/",
            &format!("https://a.example/{}", "a".repeat(500)),
        ] {
            assert!(HttpsUrl::parse(text).is_err(), "{text}");
        }
    }
}
