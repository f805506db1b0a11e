//! Names that cannot be wrong: each is parsed once and valid ever after.

use std::fmt;

/// A value did not have the shape it must have. Carries which shape, never the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid {}", self.0)
    }
}

impl std::error::Error for Malformed {}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $valid:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $type(String);

        impl $type {
            /// Checks the grammar.
            pub fn parse(text: &str) -> Result<Self, Malformed> {
                if $valid(text) { Ok(Self(text.to_owned())) } else { Err(Malformed($what)) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A tenant: `[a-z0-9][a-z0-9-]{0,47}`. Opaque: it appears in CloudTrail.
    Tenant,
    "tenant",
    is_tenant
);
name!(
    /// A table or column name: `[A-Za-z_][A-Za-z0-9_]{0,62}`.
    Identifier,
    "identifier",
    is_identifier
);
name!(
    /// A registered client: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    ClientId,
    "client id",
    is_client_id
);
name!(
    /// A foreign issuer: `[a-z0-9][a-z0-9-]{0,47}`, part of an object's key; `own` is ourselves.
    IssuerId,
    "issuer id",
    is_issuer_id
);

impl IssuerId {
    /// The key of the issuer's mirrored keys in the trust bucket.
    pub fn object_key(&self) -> String {
        format!("trust/issuers/{self}.json")
    }
}

fn is_issuer_id(text: &str) -> bool {
    text != "own" && is_tenant(text)
}

fn is_tenant(text: &str) -> bool {
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 48 && text.bytes().next().is_some_and(lower) && text.bytes().all(|b| lower(b) || b == b'-')
}

fn is_identifier(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_client_id(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_keep_to_their_grammar() {
        for good in ["a", "acme", "0-9", &"a".repeat(48)] {
            assert!(Tenant::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "Acme", "a_b", "a/b", "a b", "é", &"a".repeat(49)] {
            assert_eq!(Tenant::parse(bad), Err(Malformed("tenant")), "{bad}");
        }
    }

    #[test]
    fn identifiers_hold_no_dot() {
        for good in ["users", "_x", "A9", &"a".repeat(63)] {
            assert!(Identifier::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "9a", "a.b", "a-b", "*", &"a".repeat(64)] {
            assert!(Identifier::parse(bad).is_err(), "{bad}");
        }
    }
}
