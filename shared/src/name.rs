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

name!(
    /// A group of people as tokens say it: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    Group,
    "group",
    is_client_id
);

/// The groups of one person: at most [`Groups::MOST`], and [`Groups::MAX_LENGTH`] bytes of names, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Groups(Vec<Group>);

impl Groups {
    /// The most groups of one person.
    pub const MOST: usize = 32;
    /// The longest list, in bytes of the names: a token has to pass in one header.
    pub const MAX_LENGTH: usize = 1024;

    /// Checks the names and their number.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Malformed> {
        let mut groups: Vec<Group> = Vec::new();
        for name in names {
            let group = Group::parse(name)?;
            if groups.contains(&group) || groups.len() == Self::MOST {
                return Err(Malformed("groups"));
            }
            groups.push(group);
        }
        let length: usize = groups.iter().map(|group| group.as_str().len()).sum();
        if length > Self::MAX_LENGTH { Err(Malformed("groups")) } else { Ok(Self(groups)) }
    }

    /// The names, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Group::as_str)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one is among them.
    pub fn holds(&self, name: &str) -> bool {
        self.iter().any(|held| held == name)
    }
}

name!(
    /// A path of SSM parameters: `/portcullis/signing/prod`. At most ten levels of `[A-Za-z0-9_.-]+` and 256 characters, no
    /// slash at the end, and nothing under the prefixes `aws` and `ssm`, which AWS keeps for itself.
    ParameterPath,
    "parameter path",
    is_parameter_path
);

impl ParameterPath {
    /// The parameter of the signing key `kid` (RFC 7638 thumbprint): one parameter per key.
    pub fn of_key(&self, kid: &str) -> String {
        format!("{self}/{kid}")
    }

    /// The key id in the name of a parameter right under this path: 43 characters of base64url.
    pub fn kid_of<'a>(&self, parameter: &'a str) -> Option<&'a str> {
        let kid = parameter.strip_prefix(self.as_str())?.strip_prefix('/')?;
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (kid.len() == 43 && kid.bytes().all(letter)).then_some(kid)
    }
}

fn is_parameter_path(text: &str) -> bool {
    let Some(levels) = text.strip_prefix('/') else { return false };
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let low = levels.to_ascii_lowercase();
    text.len() <= 256
        && !low.starts_with("aws")
        && !low.starts_with("ssm")
        && levels.split('/').count() <= 10
        && levels.split('/').all(|level| !level.is_empty() && level.bytes().all(letter))
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
    fn a_person_is_in_a_bounded_number_of_groups_each_once() {
        let named = |count: usize, length: usize| (0..count).map(|n| format!("{n:0length$}")).collect::<Vec<_>>();
        let groups = |names: &[String]| Groups::of(names.iter().map(String::as_str));
        assert!(groups(&named(32, 32)).is_ok() && groups(&[]).is_ok_and(|none| none.is_empty()));
        for bad in [named(33, 4), named(17, 64), vec!["a".into(), "a".into()], vec![String::new()], vec!["a b".into()]]
        {
            assert!(groups(&bad).is_err(), "{bad:?}");
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

    #[test]
    fn parameter_paths_keep_to_their_grammar_and_name_one_parameter_a_key() {
        let path = ParameterPath::parse("/portcullis/signing/prod").unwrap();
        let kid = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(path.of_key(kid), format!("/portcullis/signing/prod/{kid}"));
        assert_eq!(path.kid_of(&path.of_key(kid)), Some(kid));
        for other in [
            format!("/portcullis/signing/dev/{kid}"),
            format!("/portcullis/signing/prod/deeper/{kid}"),
            format!("/portcullis/signing/prod/../{kid}"),
            format!("/portcullis/signing/prod/{kid}:1"),
            format!("/portcullis/signing/prod{kid}"),
            format!("/portcullis/signing/prod/{kid}x"),
            "/portcullis/signing/prod/".to_owned(),
            "/portcullis/signing/prod".to_owned(),
            "arn:aws:kms:us-east-1:111122223333:key/1".to_owned(),
        ] {
            assert_eq!(path.kid_of(&other), None, "{other}");
        }
        for good in ["/a", "/A.b_c-d/0", &"/a".repeat(10), &format!("/{}", "a".repeat(255))] {
            assert!(ParameterPath::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "a",
            "a/b",
            "/a/",
            "//a",
            "/a//b",
            "/a b",
            "/a:1",
            "/a*",
            "/aws/x",
            "/SSM-keys",
            &"/a".repeat(11),
            &format!("/{}", "a".repeat(256)),
        ] {
            assert_eq!(ParameterPath::parse(bad), Err(Malformed("parameter path")), "{bad}");
        }
    }
}
