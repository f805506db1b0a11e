//! Scopes: what a token may do (CONTRACTS of the API, RFC 6749 §3.3).

use std::fmt;

use crate::name::Malformed;

/// The longest scope string a token carries, in bytes.
pub const MAX_LENGTH: usize = 512;

/// The field operations that a column scope can name.
const FIELD_OPERATIONS: [&str; 7] = ["encrypt", "decrypt", "index", "inspect", "rewrap", "export", "import"];

/// A set of scopes in the order they were given, without repeats.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scopes(Vec<String>);

impl Scopes {
    /// Parses a space-separated list of known scopes, at most [`MAX_LENGTH`] bytes.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_LENGTH {
            return Err(Malformed("scope"));
        }
        let mut scopes = Vec::new();
        for scope in text.split(' ').filter(|scope| !scope.is_empty()) {
            if !is_known(scope) {
                return Err(Malformed("scope"));
            }
            if !scopes.iter().any(|held| held == scope) {
                scopes.push(scope.to_owned());
            }
        }
        Ok(Self(scopes))
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes one by one.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether exactly this scope is held.
    pub fn allows(&self, scope: &str) -> bool {
        self.0.iter().any(|held| held == scope)
    }

    /// Whether any scope `fields:{operation}:…` is held, whatever its column.
    pub fn allows_operation(&self, operation: &str) -> bool {
        self.0.iter().any(|held| column_scope(held).is_some_and(|(held, ..)| held == operation))
    }

    /// Whether `operation` is granted on this column, by name or by `*`.
    pub fn allows_column(&self, operation: &str, table: &str, column: &str) -> bool {
        self.0.iter().any(|held| {
            column_scope(held)
                .is_some_and(|(o, t, c)| o == operation && (t == "*" || t == table) && (c == "*" || c == column))
        })
    }

    /// Whether every scope of `asked` is granted here; a column scope is also granted by one with `*` in its place.
    pub fn grants(&self, asked: &Scopes) -> bool {
        asked.iter().all(|scope| match column_scope(scope) {
            Some((operation, table, column)) => self.allows_column(operation, table, column),
            None => self.allows(scope),
        })
    }

    /// What both grant: no more than either, and nothing that another one of the result grants as well.
    ///
    /// Fails where it is longer than [`MAX_LENGTH`]: nobody may be granted half of what he is told.
    pub fn meet(&self, other: &Scopes) -> Result<Scopes, Malformed> {
        let mut met: Vec<String> = Vec::new();
        for mine in self.iter() {
            for theirs in other.iter() {
                met.extend(both(mine, theirs).filter(|scope| !met.contains(scope)));
            }
        }
        let granted_by_another = |scope: &String| {
            let one = Scopes(vec![scope.clone()]);
            met.iter().any(|wider| wider != scope && Scopes(vec![wider.clone()]).grants(&one))
        };
        let narrow: Vec<String> = met.iter().filter(|scope| !granted_by_another(scope)).cloned().collect();
        Self::parse(&narrow.join(" "))
    }
}

/// The scope that stands for what both grant; a `*` gives way to a name.
fn both(one: &str, other: &str) -> Option<String> {
    let part = |one: &str, other: &str| match (one, other) {
        ("*", named) | (named, "*") => Some(named.to_owned()),
        _ => (one == other).then(|| one.to_owned()),
    };
    match (column_scope(one), column_scope(other)) {
        (Some((o1, t1, c1)), Some((o2, t2, c2))) if o1 == o2 => {
            Some(format!("fields:{o1}:{}.{}", part(t1, t2)?, part(c1, c2)?))
        }
        _ => (one == other).then(|| one.to_owned()),
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// The scope, of a column scope only `fields:{operation}`.
pub(crate) fn operation_of(scope: &str) -> &str {
    match scope.strip_prefix("fields:").and_then(|rest| rest.find(':')) {
        Some(end) => scope.get(.."fields:".len() + end).unwrap_or(scope),
        None => scope,
    }
}

fn is_known(scope: &str) -> bool {
    matches!(scope, "files:read" | "files:write" | "files:read:tenant" | "app")
        || column_scope(scope).is_some_and(|(operation, table, column)| {
            FIELD_OPERATIONS.contains(&operation) && is_name_or_any(table) && is_name_or_any(column)
        })
}

fn is_name_or_any(text: &str) -> bool {
    text == "*" || crate::name::Identifier::parse(text).is_ok()
}

fn column_scope(scope: &str) -> Option<(&str, &str, &str)> {
    let (operation, column) = scope.strip_prefix("fields:")?.split_once(':')?;
    let (table, column) = column.split_once('.')?;
    Some((operation, table, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> Scopes {
        Scopes::parse(text).unwrap()
    }

    #[test]
    fn a_list_is_as_long_as_it_may_be_and_says_whether_it_grants_anything() {
        let list = |length: usize| format!("{:length$}", "files:read");
        assert!(Scopes::parse(&list(MAX_LENGTH)).is_ok() && Scopes::parse(&list(MAX_LENGTH + 1)).is_err());
        assert!(scopes("").is_empty() && !scopes("app").is_empty());
    }

    #[test]
    fn of_a_column_scope_the_operation_counts() {
        for (scope, operation) in [
            ("fields:encrypt:users.email", "fields:encrypt"),
            ("fields:decrypt:*.*", "fields:decrypt"),
            ("files:read:tenant", "files:read:tenant"),
            ("app", "app"),
        ] {
            assert_eq!(operation_of(scope), operation);
        }
    }

    #[test]
    fn unknown_scopes_are_refused() {
        for bad in [
            "admin",
            "files:delete",
            "fields:encrypt",
            "fields:encrypt:users",
            "fields:burn:users.email",
            "fields:encrypt:us-ers.email",
            "fields:encrypt:users.e.mail",
            "fields:encrypt:**.*",
            "files:read\tfiles:write",
            &"app ".repeat(200),
        ] {
            assert!(Scopes::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_column_scope_covers_its_column_and_no_other() {
        let held = scopes("fields:decrypt:users.email fields:encrypt:*.*  fields:index:users.*");
        assert!(held.allows_column("decrypt", "users", "email"));
        assert!(!held.allows_column("decrypt", "users", "ssn"));
        assert!(!held.allows_column("decrypt", "user", "email"));
        assert!(held.allows_column("encrypt", "anything", "at_all"));
        assert!(held.allows_column("index", "users", "ssn") && !held.allows_column("index", "cards", "ssn"));
        assert!(held.allows_operation("decrypt") && !held.allows_operation("export"));
    }

    #[test]
    fn what_two_grant_is_no_more_than_either_grants() {
        for (one, other, met) in [
            ("files:read app", "app files:write", "app"),
            ("files:read", "files:write", ""),
            ("", "app", ""),
            ("fields:encrypt:*.*", "fields:encrypt:users.email", "fields:encrypt:users.email"),
            ("fields:encrypt:users.*", "fields:encrypt:*.email", "fields:encrypt:users.email"),
            ("fields:encrypt:*.*", "fields:decrypt:*.*", ""),
            ("fields:encrypt:users.*", "fields:encrypt:cards.*", ""),
            (
                "fields:encrypt:*.* fields:encrypt:users.*",
                "fields:encrypt:users.email fields:encrypt:*.*",
                "fields:encrypt:*.*",
            ),
            ("files:read:tenant", "files:read", ""),
        ] {
            assert_eq!(scopes(one).meet(&scopes(other)).unwrap().to_string(), met, "{one} and {other}");
            let back = scopes(other).meet(&scopes(one)).unwrap();
            assert!(scopes(one).grants(&back) && scopes(other).grants(&back));
        }
        let many = |of: fn(u32) -> String| scopes(&(0..20).map(of).collect::<Vec<_>>().join(" "));
        let (rows, columns) =
            (many(|n| format!("fields:index:t{n:02}.*")), many(|n| format!("fields:index:*.c{n:02}")));
        assert!(rows.meet(&columns).is_err(), "four hundred scopes fit in no token");
    }

    #[test]
    fn nothing_wider_than_held_is_granted() {
        let held = scopes("files:read fields:encrypt:users.*");
        for (asked, granted) in [
            ("", true),
            ("files:read", true),
            ("files:read:tenant", false),
            ("fields:encrypt:users.email", true),
            ("fields:encrypt:users.*", true),
            ("fields:encrypt:*.*", false),
            ("files:read files:write", false),
        ] {
            assert_eq!(held.grants(&scopes(asked)), granted, "{asked}");
        }
    }
}
