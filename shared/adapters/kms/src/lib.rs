//! KMS behind the ports of shared: wrapping of data keys, signatures, and the making of signing keys.
//!
//! A key is addressed by its ARN and never by an alias, and the ARN in the answer must be the one that was asked for.

mod der;
mod fault;
mod messages;
mod rewrapping;
mod signing;
mod wrapping;

pub use signing::{KmsSigner, KmsSigningKeys};
pub use wrapping::KmsWrapping;

#[cfg(test)]
mod testing;
