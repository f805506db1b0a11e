//! What a traveller knows: what was acknowledged, and what was only asked for.

use std::time::Instant;

use serde_json::Value;

/// How far a wish has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nobody asked.
    No,
    /// Asked, and no acknowledgement came: it may have happened or not, and may happen yet.
    Asked,
    /// Acknowledged, then.
    Done(Instant),
}

/// An access token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token.
    pub value: String,
    /// The client that it was issued to.
    pub client: &'static str,
    /// Its tenant.
    pub tenant: &'static str,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Its revocation.
    pub revoked: Wish,
    /// Whether it was refused once after that.
    pub refused: bool,
}

/// An encrypted field whose record was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub tenant: &'static str,
    /// The column.
    pub column: &'static str,
    /// The row.
    pub row: String,
    /// The plaintext, base64url.
    pub plaintext: String,
    /// The record, base64url.
    pub record: String,
}

/// A file whose creation was acknowledged.
#[derive(Clone, Debug)]
pub struct File {
    /// Its id.
    pub id: String,
    /// Who made it.
    pub tenant: &'static str,
    /// What it holds, once it does.
    pub content: Vec<u8>,
    /// The signed PUT.
    pub upload: Value,
    /// When its URL was signed.
    pub signed: Instant,
    /// Its upload.
    pub put: Wish,
    /// Whether it was readable once: then it stays so.
    pub readable: bool,
    /// Whether an audit has read it.
    pub audited: bool,
}

/// One entry of a blind index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of which tenant.
    pub tenant: &'static str,
    /// The value.
    pub value: String,
    /// What it was answered as.
    pub index: String,
}

/// A token that is bound to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The token.
    pub value: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Whether it is a person's, and so worth nothing without an assertion.
    pub person: bool,
}

/// A session of a person.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its newest access token.
    pub access: Bound,
    /// Refresh tokens that were used, the oldest first.
    pub used: Vec<String>,
    /// The newest one.
    pub last: String,
    /// Its end.
    pub over: Wish,
}

/// Everything one traveller knows.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Tokens that are neither ended nor forgotten.
    pub tokens: Vec<Token>,
    /// Records.
    pub records: Vec<Record>,
    /// How many of them an audit has opened.
    pub audited: usize,
    /// Files.
    pub files: Vec<File>,
    /// Index entries.
    pub entries: Vec<Entry>,
    /// Tokens of a machine that are bound to its key.
    pub bound: Vec<Bound>,
    /// Sessions of people of which is known how they stand.
    pub families: Vec<Family>,
}
