//! What one data key encrypts.

use std::fmt;
use std::sync::Arc;

use shared::name::{Identifier, Malformed};

/// A column, or a subject whose fields are to be erased together.
///
/// Cheap to clone: every field of a batch has one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Scope(Arc<str>);

impl Scope {
    /// `column:{table}/{column}`, what a field gets unless the caller asks for a subject.
    pub(crate) fn column(table: &Identifier, column: &Identifier) -> Self {
        Self(["column:", table.as_str(), "/", column.as_str()].concat().into())
    }

    /// `subject:{opaque id}`, the id 1 to 128 of `A-Z a-z 0-9 . _ ~ -`.
    pub(crate) fn subject(text: &str) -> Result<Self, Malformed> {
        let opaque = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
        match text.strip_prefix("subject:") {
            Some(id) if matches!(id.len(), 1..=128) && id.bytes().all(opaque) => Ok(Self(text.into())),
            _ => Err(Malformed("scope")),
        }
    }

    /// A scope from a row of ours.
    pub(crate) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether the key's row is read for every batch, so that erasing it acts at once.
    pub(crate) fn is_subject(&self) -> bool {
        self.0.starts_with("subject:")
    }

    /// Whether a key of this scope may open a field of `column`.
    pub(crate) fn covers(&self, column: &Scope) -> bool {
        self.is_subject() || self == column
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_opaque_and_columns_cover_themselves_only() {
        for good in ["subject:a", "subject:0198e1a0-0000.x_y~z", &format!("subject:{}", "a".repeat(128))] {
            assert!(Scope::subject(good).is_ok(), "{good}");
        }
        for bad in ["", "subject:", "subject:a b", "subject:é", "index", "column:users/email", "Subject:a"] {
            assert!(Scope::subject(bad).is_err(), "{bad}");
        }
        assert!(Scope::subject(&format!("subject:{}", "a".repeat(129))).is_err());
        let name = |text| Identifier::parse(text).unwrap();
        let email = Scope::column(&name("users"), &name("email"));
        assert_eq!(email.as_str(), "column:users/email");
        assert!(email.covers(&email) && !email.covers(&Scope::column(&name("users"), &name("ssn"))));
        assert!(Scope::subject("subject:a").unwrap().covers(&email));
        assert!(!Scope::stored("index").covers(&email));
    }
}
