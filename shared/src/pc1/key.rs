//! Data keys, message ids and what is derived from the two.

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA512, KeyType, Salt};
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::name::Malformed;

/// A data key: 32 bytes, wiped on drop. It has no `Debug` on purpose.
///
/// The bytes stay where they are on the heap: an array that is moved would leave copies behind that nobody wipes.
pub struct DataKey(Zeroizing<Vec<u8>>);

const LENGTH: usize = 32;

impl DataKey {
    /// Takes exactly 32 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() == LENGTH { Ok(Self(Zeroizing::new(bytes.to_vec()))) } else { Err(Malformed("data key")) }
    }

    /// HKDF-SHA512 (RFC 5869) with this key as input keying material, into a buffer of the caller's.
    ///
    /// `UnboundKey::from(Okm)` would leave a copy of the key on the stack: the bytes go to a buffer of ours instead.
    pub(crate) fn derive(&self, salt: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), Unspecified> {
        let length = Length(out.len());
        Salt::new(HKDF_SHA512, salt).extract(self.0.as_slice()).expand(info, length)?.fill(out)
    }
}

/// A message id: 32 bytes that no other record has ever had. Sealing consumes it.
pub struct MessageId([u8; 32]);

impl MessageId {
    /// For known answers; records get theirs from [`MessageIds`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Message ids for a batch, drawn in one call: 32 random bytes cost fifty times as much alone.
pub struct MessageIds {
    drawn: Vec<u8>,
    at: usize,
}

impl MessageIds {
    /// Draws `count` ids.
    pub fn draw(count: usize, entropy: &impl Entropy) -> Self {
        let mut drawn = vec![0; count.saturating_mul(32)];
        entropy.fill(&mut drawn);
        Self { drawn, at: 0 }
    }
}

impl Iterator for MessageIds {
    type Item = MessageId;

    fn next(&mut self) -> Option<MessageId> {
        let id = self.drawn.get(self.at..)?.first_chunk::<32>()?;
        self.at += id.len();
        Some(MessageId(*id))
    }
}

/// The 64 bytes that HKDF-SHA512 yields for one record: its key and its commitment.
pub(super) struct RecordKeys(Zeroizing<[u8; 64]>);

const INFO: &[u8] = b"pc1\x01KEYCOMMIT";
// One key seals one record, so the nonce may be constant.
const NONCE: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

impl RecordKeys {
    /// RFC 5869 with the message id as salt and the data key as input keying material.
    pub(super) fn derive(data_key: &DataKey, message_id: &[u8; 32]) -> Result<Self, Unspecified> {
        let mut keys = Zeroizing::new([0; 64]);
        data_key.derive(message_id, &[INFO], keys.as_mut_slice())?;
        Ok(Self(keys))
    }

    pub(super) fn commitment(&self) -> &[u8] {
        self.0.split_at(32).1
    }

    pub(super) fn commits_to(&self, commitment: &[u8]) -> Result<(), Unspecified> {
        verify_slices_are_equal(self.commitment(), commitment)
    }

    #[cfg(test)]
    pub(super) fn okm(&self) -> &[u8] {
        self.0.as_slice()
    }

    pub(super) fn cipher(&self) -> Result<LessSafeKey, Unspecified> {
        UnboundKey::new(&AES_256_GCM, self.0.split_at(32).0).map(LessSafeKey::new)
    }
}

pub(super) fn nonce() -> Nonce {
    Nonce::assume_unique_for_key(NONCE)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}
