//! Messages of the AWS Encryption SDK: written for `export`, read for `import`.
//!
//! `docs/formats/esdk.md` says which of them, and where we differ from other writers and readers. Only the suites that commit
//! to their key are here, which is message version 2: without the commitment one message can hold two plaintexts.

mod keys;
mod parse;
mod read;
mod write;

pub use parse::{EncryptedDataKey, MAX_MESSAGE, Malformed, Message};
pub use read::Mismatch;
pub use write::{Envelope, Framing, write};

/// The provider id of keys that KMS wrapped.
pub const KMS_PROVIDER: &str = "aws-kms";

/// Where the public key of a signed message is, in its encryption context.
const PUBLIC_KEY: &str = "aws-crypto-public-key";

const VERSION: u8 = 0x02;
const UNFRAMED: u8 = 1;
const FRAMED: u8 = 2;
/// What stands where a regular frame has its number, before the last one.
const LAST: u32 = 0xffff_ffff;
const IV: usize = 12;
const TAG: usize = 16;

/// An algorithm suite that commits to its key: AES-256-GCM under a key that HKDF-SHA512 derives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// `0478`.
    Committing,
    /// `0578`: the same, and the whole message is signed with ECDSA P-384.
    Signed,
}

impl Suite {
    const fn id(self) -> [u8; 2] {
        match self {
            Self::Committing => [0x04, 0x78],
            Self::Signed => [0x05, 0x78],
        }
    }
}

/// What a piece of a body is, as its additional data say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    Whole,
    Regular,
    Last,
}

impl Piece {
    /// The additional data of a piece: no piece can stand in for another of any message.
    fn aad(self, message_id: &[u8], sequence: u32, length: usize) -> Vec<u8> {
        let name: &[u8] = match self {
            Self::Whole => b"AWSKMSEncryptionClient Single Block",
            Self::Regular => b"AWSKMSEncryptionClient Frame",
            Self::Last => b"AWSKMSEncryptionClient Final Frame",
        };
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        [message_id, name, &sequence.to_be_bytes(), &length.to_be_bytes()].concat()
    }
}

#[cfg(test)]
mod tests;
