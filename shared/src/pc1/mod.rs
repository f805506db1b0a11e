//! The record format `pc1`: one encrypted database field.
//!
//! `docs/formats/pc1.md` is the specification. Every record has its own AES-256-GCM key, derived with HKDF-SHA512 from a
//! data key and a message id that is never used twice; a commitment pins the data key, and the context pins the record to
//! one tenant, table, column and row.

mod base64url;
mod context;
mod key;
mod record;

pub(crate) use context::pair;

pub use base64url::{decode_into, encode_into};
pub use context::{Context, Row, Version};
pub use key::{DataKey, MessageId, MessageIds};
pub use record::{Malformed, Mismatch, Record, Unsealed, seal};

/// The most plaintext bytes a record may hold.
pub const MAX_PLAINTEXT: usize = 65_536;

/// The bytes a record is longer than its plaintext.
pub const OVERHEAD: usize = 97;

#[cfg(test)]
mod tests;
