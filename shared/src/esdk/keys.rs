//! The key of a message and its commitment.

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::error::Unspecified;
use zeroize::Zeroizing;

use super::Suite;
use crate::pc1::DataKey;

/// What HKDF-SHA512 yields for a commitment: it binds the data key, whatever the suite.
pub(super) fn commitment(data_key: &DataKey, message_id: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
    let mut commitment = Zeroizing::new([0; 32]);
    data_key.derive(message_id, &[b"COMMITKEY"], commitment.as_mut_slice())?;
    Ok(commitment)
}

/// The cipher of the one message with this id.
pub(super) fn cipher(data_key: &DataKey, message_id: &[u8; 32], suite: Suite) -> Result<LessSafeKey, Unspecified> {
    let mut key = Zeroizing::new([0; 32]);
    data_key.derive(message_id, &[&suite.id(), b"DERIVEKEY"], key.as_mut_slice())?;
    UnboundKey::new(&AES_256_GCM, key.as_slice()).map(LessSafeKey::new)
}
