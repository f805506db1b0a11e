//! Where a request went, in one spelling (RFC 3986 §6.2).

use crate::name::Malformed;

/// The longest URL that is compared, in bytes.
const LONGEST: usize = 4096;

/// A URL without query and fragment, normalised: scheme and host in lower case, no default port, an empty path as `/`, percent
/// triplets in upper case and only where they are needed. A path with dot segments has no such form.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target(String);

impl Target {
    /// The URL of `path` under our own base URL.
    ///
    /// A path that does not begin with a slash would change the host, and one with a query or a fragment in it is no path.
    pub fn new(base: &str, path: &str) -> Result<Self, Malformed> {
        if !path.starts_with('/') || path.contains(['?', '#']) {
            return Err(Malformed("target"));
        }
        Self::parse(&format!("{}{path}", base.trim_end_matches('/'))).ok_or(Malformed("target"))
    }

    /// Normalises a URL; `None` where it has no normal form.
    pub fn parse(url: &str) -> Option<Self> {
        if url.len() > LONGEST || !url.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
            return None;
        }
        let url = url.split_once('#').map_or(url, |(before, _)| before);
        let url = url.split_once('?').map_or(url, |(before, _)| before);
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => "443",
            "http" => "80",
            _ => return None,
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, ""),
        };
        if !is_host(host) || !port.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut normal = format!("{scheme}://{}", host.to_ascii_lowercase());
        if !port.is_empty() && port != default_port {
            normal.push(':');
            normal.push_str(port);
        }
        push_path(&mut normal, path)?;
        Some(Self(normal))
    }

    /// The normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name without escapes, or an address of version 6 in brackets.
fn is_host(host: &str) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')),
        None => !host.is_empty() && host.bytes().all(name),
    }
}

/// What may stand in a path besides letters and digits (RFC 3986 §3.3, `pchar`).
const MARKS: &[u8] = b"-._~!$&'()*+,;=:@";

fn push_path(out: &mut String, path: &str) -> Option<()> {
    for segment in path.split('/').skip(1) {
        let start = out.len() + 1;
        out.push('/');
        let mut bytes = segment.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                // Others read a backslash as a slash, and some escape what RFC 3986 does not allow.
                if !byte.is_ascii_alphanumeric() && !MARKS.contains(&byte) {
                    return None;
                }
                out.push(char::from(byte));
                continue;
            }
            let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            let decoded = high * 16 + low;
            if decoded.is_ascii_alphanumeric() || matches!(decoded, b'-' | b'.' | b'_' | b'~') {
                out.push(char::from(decoded));
            } else {
                out.push_str(&format!("%{decoded:02X}"));
            }
        }
        if matches!(out.get(start..), Some("." | "..")) {
            return None;
        }
    }
    Some(())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_url_has_one_spelling() {
        let own = Target::new("https://gate.example", "/files/a-b").unwrap();
        for same in [
            "https://gate.example/files/a-b",
            "HTTPS://GATE.Example/files/a-b",
            "https://gate.example:443/files/a-b",
            "https://gate.example:/files/a-b",
            "https://gate.example/files/a-b?x=1#y",
            "https://gate.example/files/%61%2Db",
        ] {
            assert_eq!(Target::parse(same).as_ref(), Some(&own), "{same}");
        }
        assert_eq!(Target::parse("https://gate.example/%2f%e4"), Target::parse("https://gate.example/%2F%E4"));
        assert_eq!(Target::parse("https://gate.example"), Target::parse("https://gate.example/"));
        assert_eq!(Target::parse("http://[::1]:80/a").unwrap().as_str(), "http://[::1]/a");
        assert_eq!(Target::parse("http://[::1]/a").unwrap().as_str(), "http://[::1]/a");
        let long = |length: usize| format!("https://gate.example/{}", "a".repeat(length - 21));
        assert_eq!(Target::parse(&long(LONGEST)).unwrap().as_str(), long(LONGEST));
        assert_eq!(Target::parse(&long(LONGEST + 1)), None);
    }

    #[test]
    fn a_path_that_is_none_has_no_target() {
        for path in ["", "files", ".evil/x", "@evil/x", "/a?b", "/a#b", "/a/../b"] {
            assert!(Target::new("https://gate.example", path).is_err(), "{path}");
        }
    }

    #[test]
    fn another_url_is_another_one_and_a_doubtful_one_is_none() {
        let own = Target::new("https://gate.example/", "/files").unwrap();
        for other in [
            "http://gate.example/files",
            "https://gate.example:8443/files",
            "https://gate.example/Files",
            "https://gate.example/files/",
            "https://gate.example//files",
            "https://gate.example/%2Ffiles",
            "https://gate.example.evil/files",
        ] {
            assert_ne!(Target::parse(other).unwrap(), own, "{other}");
        }
        for none in [
            "",
            "/files",
            "gate.example/files",
            "ftp://gate.example/files",
            "https:///files",
            "https://a@gate.example/files",
            "https://gate.example:4x/files",
            "https://gate.example:443:/files",
            "https://gate.example:443https://gate.example/files",
            "https://[::1/files",
            "https://[]/files",
            "https://[::1]]/files",
            "https://a[b]:80/files",
            "https://gate.example\\/files",
            "https://gate.exam%70le/files",
            "https://gate.example|/files",
            "https://gate.example/a/../files",
            "https://gate.example/a/%2e%2E/files",
            "https://gate.example/./files",
            "https://gate.example/fi les",
            "https://gate.example/..\\files",
            "https://gate.example/files|",
            "https://gate.example/fi[les",
            "https://gate.example/{id}",
            "https://gate.example/fi%2",
            "https://gate.example/fi%zz",
            "https://gate.example/f\u{fc}",
        ] {
            assert_eq!(Target::parse(none), None, "{none}");
        }
    }
}
