//! What a record is bound to.

use crate::name::{Identifier, Malformed, Tenant};

/// A row's primary key as text: 1 to 256 bytes of UTF-8 without control characters, used byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Row(String);

impl Row {
    /// Checks length and characters.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if matches!(text.len(), 1..=256) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed("row"))
        }
    }

    /// The row as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A caller's version of a field. With it, an older record of the same cell no longer opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version(u64);

impl Version {
    /// Parses a decimal `u64` without sign or leading zeros.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
        let value = if canonical { text.parse().ok() } else { None };
        value.map(Self).ok_or(Malformed("version"))
    }
}

impl From<u64> for Version {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

/// The place of a field. It comes from the request, never from the record.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The tenant of the verified token.
    pub tenant: &'a Tenant,
    /// The table.
    pub table: &'a Identifier,
    /// The column.
    pub column: &'a Identifier,
    /// The row.
    pub row: &'a Row,
    /// Absent and 0 are different contexts.
    pub version: Option<Version>,
}

impl Context<'_> {
    /// Appends the context's bytes: a count and the pairs in ascending order of their keys, each length-prefixed.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let version = self.version.map(|version| version.0.to_string());
        let count: u8 = if version.is_some() { 5 } else { 4 };
        out.extend_from_slice(&[0, count]);
        pair(out, "column", self.column.as_str());
        pair(out, "row", &self.row.0);
        pair(out, "table", self.table.as_str());
        pair(out, "tenant", self.tenant.as_str());
        if let Some(version) = version {
            pair(out, "version", &version);
        }
    }
}

/// Appends one length-prefixed pair.
pub(crate) fn pair(out: &mut Vec<u8>, key: &str, value: &str) {
    for part in [key, value] {
        // Every part was parsed and is at most 256 bytes long.
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
}
