//! Opening a message.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::parse::Sealed;
use super::{IV, Message, PUBLIC_KEY, keys};
use crate::pc1::DataKey;

/// Why a message did not open. For the log only: a caller sees one and the same refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// It was made with another data key.
    Commitment,
    /// Its header is not what was written.
    Header,
    /// It is not what its writer signed, or the signer's key is none.
    Signature,
    /// Its body is not what was sealed.
    Body,
}

/// The bytes of a compressed point of P-384.
const POINT: usize = 49;

impl Message<'_> {
    /// Checks commitment, header and signature, in this order, and opens the body if they hold.
    pub fn open(&self, data_key: &DataKey) -> Result<Zeroizing<Vec<u8>>, Mismatch> {
        let commitment = keys::commitment(data_key, self.message_id).map_err(|_| Mismatch::Commitment)?;
        verify_slices_are_equal(commitment.as_slice(), self.commitment).map_err(|_| Mismatch::Commitment)?;
        let cipher = keys::cipher(data_key, self.message_id, self.suite).map_err(|_| Mismatch::Commitment)?;
        let mut tag = self.header_tag.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; IV]);
        cipher.open_in_place(nonce, Aad::from(self.header), &mut tag).map_err(|_| Mismatch::Header)?;
        self.verify_signature()?;
        let length = self.pieces.iter().map(|piece| piece.ciphertext.len()).sum();
        let mut plaintext = Zeroizing::new(Vec::with_capacity(length));
        for piece in &self.pieces {
            plaintext.extend_from_slice(&self.opened(&cipher, piece)?);
        }
        Ok(plaintext)
    }

    /// The IV is taken as it stands, whoever numbered it: key and additional data bind the piece already.
    fn opened(&self, cipher: &LessSafeKey, sealed: &Sealed<'_>) -> Result<Zeroizing<Vec<u8>>, Mismatch> {
        let aad = sealed.piece.aad(self.message_id, sealed.sequence, sealed.ciphertext.len());
        let mut buffer = Zeroizing::new([sealed.ciphertext, sealed.tag].concat());
        let nonce = Nonce::assume_unique_for_key(*sealed.iv);
        cipher.open_in_place(nonce, Aad::from(aad), &mut buffer).map_err(|_| Mismatch::Body)?;
        buffer.truncate(sealed.ciphertext.len());
        Ok(buffer)
    }

    /// A message without a signature has nothing to verify; the parser knows which is which.
    fn verify_signature(&self) -> Result<(), Mismatch> {
        let Some(signature) = self.signature else { return Ok(()) };
        let key = self.context().iter().find(|(name, _)| *name == PUBLIC_KEY).map(|(_, key)| *key);
        let point = key.and_then(|key| STANDARD.decode(key).ok()).filter(|point| point.len() == POINT);
        let point = point.ok_or(Mismatch::Signature)?;
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, point)
            .verify(self.signed, signature)
            .map_err(|_| Mismatch::Signature)
    }
}
