//! Configuration from the environment: read once, every fault reported at once, by name and without its value.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The process's environment, or a test's.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the process's environment")]
    pub fn from_process() -> Self {
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// An environment made of pairs.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What is wrong with the configuration: one line a variable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults(Vec<String>);

impl Faults {
    /// One fault that does not come from a variable.
    pub fn one(text: impl Into<String>) -> Self {
        Self(vec![text.into()])
    }

    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// Reads variables and gathers what is wrong. A value read is meaningful only if [`Reader::finish`] succeeds.
///
/// ```
/// use shared::config::{Environment, Reader};
/// let environment = Environment::from_pairs([("PORTCULLIS_ENV", "dev")]);
/// let reader = Reader::new(&environment);
/// let env = reader.text("PORTCULLIS_ENV");
/// assert!(reader.finish().is_ok());
/// assert_eq!(env, "dev");
/// ```
pub struct Reader<'a> {
    environment: &'a Environment,
    asked: RefCell<BTreeSet<String>>,
    faults: RefCell<Vec<String>>,
    finished: Cell<bool>,
}

impl<'a> Reader<'a> {
    /// A reader over `environment`.
    pub fn new(environment: &'a Environment) -> Self {
        Self { environment, asked: RefCell::default(), faults: RefCell::default(), finished: Cell::new(false) }
    }

    /// A variable that may be absent; empty counts as absent.
    pub fn optional(&self, name: &str) -> Option<String> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.environment.find(name).map(str::to_owned)
    }

    /// A variable that must be there.
    pub fn text(&self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.fault(name, "is missing");
            String::new()
        })
    }

    /// A variable that `parse` must accept; `expected` says what would have been right.
    pub fn parsed<T>(&self, name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>, otherwise: T) -> T {
        let Some(value) = self.optional(name) else {
            self.fault(name, "is missing");
            return otherwise;
        };
        parse(&value).unwrap_or_else(|| {
            self.fault(name, &format!("must be {expected}"));
            otherwise
        })
    }

    /// One of a closed set of words.
    pub fn choice<T: Clone>(&self, name: &str, words: &[(&str, T)], otherwise: T) -> T {
        let expected = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        let find = |value: &str| words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| meaning.clone());
        self.parsed(name, &expected, find, otherwise)
    }

    /// A TCP port.
    pub fn port(&self, name: &str) -> u16 {
        self.parsed(name, "a port from 1 to 65535", |value| value.parse().ok().filter(|port| *port > 0), 0)
    }

    /// An ARN; which partition, service and account it names is for whoever uses it.
    pub fn arn(&self, name: &str) -> String {
        self.parsed(name, "an ARN", |value| value.starts_with("arn:").then(|| value.to_owned()), String::new())
    }

    /// An origin: `https://host[:port]`, no path, query, fragment or user (RFC 8414 §2 for issuers).
    pub fn issuer(&self, name: &str) -> String {
        let is_origin = |value: &str| {
            let host = value.strip_prefix("https://")?;
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b':');
            (!host.is_empty() && host.bytes().all(plain)).then(|| value.to_owned())
        };
        self.parsed(name, "https://host without path, in lower case", is_origin, String::new())
    }

    /// The content of the file a variable names, if it is set.
    pub fn optional_file(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.optional(name)?;
        std::fs::read(path).map_err(|_| self.fault(name, "must name a readable file")).ok()
    }

    /// Records a fault about `name` that only the caller could see.
    pub fn fault(&self, name: &str, what: &str) {
        self.faults.borrow_mut().push(format!("{name} {what}"));
    }

    /// All faults, a `PORTCULLIS_*` that nobody asked for among them.
    pub fn finish(&self) -> Result<(), Faults> {
        let asked = self.asked.borrow();
        let mut faults = self.faults.borrow_mut();
        if !self.finished.replace(true) {
            let unknown = |name: &&String| name.starts_with("PORTCULLIS_") && !asked.contains(*name);
            faults.extend(self.environment.0.keys().filter(unknown).map(|name| format!("{name} is unknown here")));
        }
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported_at_once_and_no_value_with_it() {
        let environment = Environment::from_pairs([
            ("PORTCULLIS_ISSUER", "http://canary-1"),
            ("PORTCULLIS_DB_PORT", "canary-2"),
            ("PORTCULLIS_SIGNER", "canary-3"),
            ("PORTCULLIS_TYPO", "canary-4"),
            ("OTHER", "x"),
        ]);
        let reader = Reader::new(&environment);
        reader.issuer("PORTCULLIS_ISSUER");
        reader.port("PORTCULLIS_DB_PORT");
        reader.choice("PORTCULLIS_SIGNER", &[("kms", 1), ("ssm", 2)], 1);
        reader.text("PORTCULLIS_ENV");
        let faults = reader.finish().unwrap_err();
        assert_eq!(
            faults.lines(),
            [
                "PORTCULLIS_ISSUER must be https://host without path, in lower case",
                "PORTCULLIS_DB_PORT must be a port from 1 to 65535",
                "PORTCULLIS_SIGNER must be kms or ssm",
                "PORTCULLIS_ENV is missing",
                "PORTCULLIS_TYPO is unknown here",
            ]
        );
        assert!(!format!("{faults} {environment:?}").contains("canary"));
    }

    #[test]
    fn an_issuer_has_no_path() {
        for (value, good) in [
            ("https://gate.example", true),
            ("https://localhost:8443", true),
            ("https://gate.example/", false),
            ("https://gate.example/v1", false),
            ("https://Gate.example", false),
            ("https://u@gate.example", false),
            ("https://", false),
            ("http://gate.example", false),
        ] {
            let environment = Environment::from_pairs([("PORTCULLIS_ISSUER", value)]);
            let reader = Reader::new(&environment);
            reader.issuer("PORTCULLIS_ISSUER");
            assert_eq!(reader.finish().is_ok(), good, "{value}");
        }
    }
}
