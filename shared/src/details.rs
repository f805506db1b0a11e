//! `authorization_details` (RFC 9396): what a token is narrowed to, beneath its scopes.
//!
//! A token without details may do what its scopes say. One with details may do nothing but what they name, and that only within
//! its scopes: each entry opens what it names, nothing opens the rest.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::name::{Identifier, Malformed};

/// The types that are known, as metadata lists them.
pub const TYPES: [&str; 2] = ["portcullis_file", "portcullis_field"];
/// The most entries of one token.
pub const MOST: usize = 16;
/// The longest claim, in bytes of its JSON text: a token has to pass in one header.
pub const MAX_LENGTH: usize = 2_048;
/// The longest row of a field.
const LONGEST_ROW: usize = 128;

/// The details of a token; none in one that is not narrowed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Details(Vec<Detail>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Detail {
    File { actions: Actions<FileAction>, file_id: Uuid },
    Field { actions: Actions<FieldAction>, table: Identifier, column: Identifier, row: Option<String> },
}

/// What may be done with a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileAction {
    /// Metadata, content, tickets, receipt.
    Read,
    /// Upload and deletion.
    Write,
}

/// What may be done with a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldAction {
    /// From record to plaintext.
    Decrypt,
    /// From plaintext to record.
    Encrypt,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Actions<A>(Vec<A>);

const BAD: Malformed = Malformed("authorization details");
const FILE_ACTIONS: [(&str, FileAction); 2] = [("read", FileAction::Read), ("write", FileAction::Write)];
const FIELD_ACTIONS: [(&str, FieldAction); 2] = [("decrypt", FieldAction::Decrypt), ("encrypt", FieldAction::Encrypt)];

impl Details {
    /// Reads the parameter's or the claim's value: a non-empty array of objects of the known types. An unknown type, member or
    /// action, a member of another type than it must have and a repeat are refused (RFC 9396 §5): what nobody understands
    /// must not pass as no restriction.
    pub fn parse(value: &Value) -> Result<Self, Malformed> {
        let entries = value.as_array().filter(|entries| (1..=MOST).contains(&entries.len())).ok_or(BAD)?;
        let details: Vec<Detail> = entries.iter().map(detail).collect::<Result<_, _>>()?;
        let parsed = Self(details);
        if parsed.to_value().to_string().len() > MAX_LENGTH {
            return Err(BAD);
        }
        Ok(parsed)
    }

    /// Whether the token is not narrowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this may be done with this file, as far as the details go.
    pub fn admit_file(&self, action: FileAction, file: Uuid) -> bool {
        self.is_empty()
            || self.0.iter().any(|detail| match detail {
                Detail::File { actions, file_id } => *file_id == file && actions.0.contains(&action),
                Detail::Field { .. } => false,
            })
    }

    /// Whether this may be done with this field, as far as the details go.
    pub fn admit_field(&self, action: FieldAction, table: &str, column: &str, row: &str) -> bool {
        self.is_empty()
            || self.0.iter().any(|detail| match detail {
                Detail::Field { actions, table: t, column: c, row: r } => {
                    t.as_str() == table
                        && c.as_str() == column
                        && r.as_deref().is_none_or(|held| held == row)
                        && actions.0.contains(&action)
                }
                Detail::File { .. } => false,
            })
    }

    /// The claim.
    pub fn to_value(&self) -> Value {
        let entry = |detail: &Detail| match detail {
            Detail::File { actions, file_id } => {
                json!({"type": "portcullis_file", "actions": actions.names(&FILE_ACTIONS), "file_id": file_id})
            }
            Detail::Field { actions, table, column, row } => {
                let mut entry = json!({"type": "portcullis_field", "actions": actions.names(&FIELD_ACTIONS),
                    "table": table.as_str(), "column": column.as_str()});
                if let (Some(row), Some(members)) = (row, entry.as_object_mut()) {
                    members.insert("row".to_owned(), json!(row));
                }
                entry
            }
        };
        self.0.iter().map(entry).collect()
    }
}

fn detail(value: &Value) -> Result<Detail, Malformed> {
    let members = value.as_object().ok_or(BAD)?;
    let text = |name: &str| members.get(name).and_then(Value::as_str).ok_or(BAD);
    let only = |known: &[&str]| members.keys().all(|name| known.contains(&name.as_str())).then_some(()).ok_or(BAD);
    match text("type")? {
        "portcullis_file" => {
            only(&["type", "actions", "file_id"])?;
            let id = text("file_id")?;
            // One spelling only: whoever compares texts must not see two files.
            let file_id = Uuid::try_parse(id).ok().filter(|parsed| parsed.to_string() == id).ok_or(BAD)?;
            Ok(Detail::File { actions: actions(members, &FILE_ACTIONS)?, file_id })
        }
        "portcullis_field" => {
            only(&["type", "actions", "table", "column", "row"])?;
            let fits = |row: &&str| (1..=LONGEST_ROW).contains(&row.len()) && !row.chars().any(char::is_control);
            let row = match members.get("row") {
                None => None,
                Some(row) => Some(row.as_str().filter(fits).ok_or(BAD)?.to_owned()),
            };
            let name = |member: &str| Identifier::parse(text(member)?).map_err(|_| BAD);
            let (table, column) = (name("table")?, name("column")?);
            Ok(Detail::Field { actions: actions(members, &FIELD_ACTIONS)?, table, column, row })
        }
        _ => Err(BAD),
    }
}

fn actions<A: Copy + PartialEq>(members: &Map<String, Value>, known: &[(&str, A)]) -> Result<Actions<A>, Malformed> {
    let listed = members.get("actions").and_then(Value::as_array).filter(|listed| !listed.is_empty()).ok_or(BAD)?;
    let mut actions = Vec::new();
    for name in listed {
        let name = name.as_str().ok_or(BAD)?;
        let (_, action) = known.iter().find(|(known, _)| *known == name).ok_or(BAD)?;
        if actions.contains(action) {
            return Err(BAD);
        }
        actions.push(*action);
    }
    Ok(Actions(actions))
}

impl<A: PartialEq> Actions<A> {
    fn names(&self, known: &[(&'static str, A)]) -> Vec<&'static str> {
        let name = |action: &A| known.iter().find(|(_, known)| known == action).map(|(name, _)| *name);
        self.0.iter().filter_map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "0198e1a0-0000-7000-8000-000000000001";

    fn whole() -> Value {
        json!([
            {"type": "portcullis_file", "actions": ["read"], "file_id": FILE},
            {"type": "portcullis_field", "actions": ["decrypt", "encrypt"], "table": "users", "column": "email", "row": "7"},
            {"type": "portcullis_field", "actions": ["encrypt"], "table": "users", "column": "phone"},
        ])
    }

    #[test]
    fn details_print_as_they_were_read() {
        assert_eq!(Details::parse(&whole()).unwrap().to_value(), whole());
    }

    #[test]
    fn a_narrowed_token_may_do_what_is_named_and_nothing_else() {
        let details = Details::parse(&whole()).unwrap();
        let (file, other) = (Uuid::parse_str(FILE).unwrap(), Uuid::nil());
        assert!(details.admit_file(FileAction::Read, file));
        assert!(!details.admit_file(FileAction::Write, file));
        assert!(!details.admit_file(FileAction::Read, other));
        for (action, table, column, row, admitted) in [
            (FieldAction::Decrypt, "users", "email", "7", true),
            (FieldAction::Encrypt, "users", "email", "7", true),
            (FieldAction::Decrypt, "users", "email", "8", false),
            (FieldAction::Decrypt, "users", "phone", "7", false),
            (FieldAction::Encrypt, "users", "phone", "8", true),
            (FieldAction::Encrypt, "user", "phone", "8", false),
        ] {
            assert_eq!(details.admit_field(action, table, column, row), admitted, "{table}.{column} {row}");
        }
        let none = Details::default();
        assert!(none.admit_file(FileAction::Write, other) && none.admit_field(FieldAction::Decrypt, "a", "b", "c"));
        let field = Details::parse(&json!([whole()[2]])).unwrap();
        assert!(!field.admit_file(FileAction::Read, file), "a field opens no file");
    }

    #[test]
    fn details_are_no_longer_than_a_header_may_carry() {
        let row = "7".repeat(128);
        let of = |count: usize| -> Value {
            let entry = |at: usize| {
                json!({"type": "portcullis_field", "actions": ["decrypt"], "table": "users",
                "column": format!("c{at}"), "row": row})
            };
            (0..count).map(entry).collect()
        };
        let longest = (1..=MOST).filter(|count| of(*count).to_string().len() <= MAX_LENGTH).max().unwrap();
        assert!(longest < MOST && Details::parse(&of(longest)).is_ok());
        assert!(Details::parse(&of(longest + 1)).is_err());
        let to_the_byte = |length: usize| {
            let mut details = of(longest + 1);
            let over = details.to_string().len() - length;
            details[0]["row"] = json!("7".repeat(128 - over % 127));
            details[1]["row"] = json!("7".repeat(128 - over / 127 * 127));
            assert_eq!(details.to_string().len(), length);
            Details::parse(&details).is_ok()
        };
        assert!(to_the_byte(MAX_LENGTH) && !to_the_byte(MAX_LENGTH + 1));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let with = |at: usize, member: &str, value: Value| {
            let mut details = whole();
            details[at][member] = value;
            details
        };
        for (what, value) in [
            ("no array", json!({})),
            ("nothing", json!([])),
            ("null", json!(null)),
            ("a text", json!(["portcullis_file"])),
            ("an unknown type", with(0, "type", json!("portcullis_all"))),
            ("no type", json!([{"actions": ["read"], "file_id": FILE}])),
            ("an unknown member", with(0, "locations", json!(["https://api.example"]))),
            ("an unknown action", with(0, "actions", json!(["read", "share"]))),
            ("an action of the other type", with(0, "actions", json!(["decrypt"]))),
            ("no action", with(0, "actions", json!([]))),
            ("an action twice", with(0, "actions", json!(["read", "read"]))),
            ("an action as text", with(0, "actions", json!("read"))),
            ("capitals", with(0, "file_id", json!(FILE.to_uppercase()))),
            ("no id", with(0, "file_id", json!("*"))),
            ("any table", with(1, "table", json!("*"))),
            ("a dotted column", with(1, "column", json!("a.b"))),
            ("an empty row", with(1, "row", json!(""))),
            ("a row as number", with(1, "row", json!(7))),
            ("a row of null", with(1, "row", json!(null))),
            ("a row with a line", with(1, "row", json!("7\n8"))),
            ("a member of the other type", with(0, "row", json!("7"))),
            ("too many", Value::Array(vec![whole()[0].clone(); MOST + 1])),
        ] {
            assert_eq!(Details::parse(&value), Err(BAD), "{what}");
        }
    }
}
