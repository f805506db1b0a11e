//! Writing a message, always without a signature: whoever could read the key could sign anything with it.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::error::Unspecified;

use super::{FRAMED, IV, KMS_PROVIDER, LAST, Piece, Suite, UNFRAMED, VERSION, keys};
use crate::pc1::{DataKey, MAX_PLAINTEXT, MessageId, Unsealed, pair};

/// How the body is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// In one block, as messages were written long ago and every reader still reads them.
    Unframed,
    /// In frames of this many bytes, at least 1.
    Frames(u32),
}

impl Framing {
    /// What the SDKs write unless they are told otherwise.
    pub const USUAL: Self = Self::Frames(4_096);
}

/// Who can open a message: the KMS key that wrapped its data key, and under which context.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    /// The ARN of the KMS key.
    pub key_arn: &'a str,
    /// The encryption context that the data key was wrapped under, sorted by its keys; keys and values at most 256 bytes.
    pub context: &'a [(&'a str, &'a str)],
    /// The wrapped data key.
    pub wrapped: &'a [u8],
}

/// Writes `plaintext` as a message of suite `0478`.
pub fn write(
    data_key: &DataKey,
    message_id: MessageId,
    envelope: &Envelope<'_>,
    framing: Framing,
    plaintext: &[u8],
) -> Result<Vec<u8>, Unsealed> {
    if plaintext.len() > MAX_PLAINTEXT || envelope.wrapped.len() > usize::from(u16::MAX) {
        return Err(Unsealed::TooLarge);
    }
    let broken = |_: Unspecified| Unsealed::Cryptography;
    let id = message_id.as_bytes();
    let cipher = keys::cipher(data_key, id, Suite::Committing).map_err(broken)?;
    let commitment = keys::commitment(data_key, id).map_err(broken)?;
    let mut out = header(id, envelope, framing);
    out.extend_from_slice(commitment.as_slice());
    let tag = seal(&cipher, [0; IV], &out.clone(), &mut []).map_err(broken)?;
    out.extend_from_slice(&tag);
    let mut body = Body { cipher: &cipher, message_id: id, out };
    match framing {
        Framing::Unframed => body.block(plaintext),
        Framing::Frames(length) => body.frames(plaintext, usize::try_from(length).unwrap_or(usize::MAX).max(1)),
    }
    .map_err(broken)?;
    Ok(body.out)
}

/// Everything before the commitment.
fn header(message_id: &[u8; 32], envelope: &Envelope<'_>, framing: Framing) -> Vec<u8> {
    let short = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut context = Vec::new();
    if !envelope.context.is_empty() {
        context.extend_from_slice(&short(envelope.context.len()));
        for (key, value) in envelope.context {
            pair(&mut context, key, value);
        }
    }
    let mut out = vec![VERSION];
    out.extend_from_slice(&Suite::Committing.id());
    out.extend_from_slice(message_id);
    out.extend_from_slice(&short(context.len()));
    out.extend_from_slice(&context);
    out.extend_from_slice(&[0, 1]);
    pair(&mut out, KMS_PROVIDER, envelope.key_arn);
    out.extend_from_slice(&short(envelope.wrapped.len()));
    out.extend_from_slice(envelope.wrapped);
    let (content_type, frame_length) = match framing {
        Framing::Unframed => (UNFRAMED, 0),
        Framing::Frames(length) => (FRAMED, length.max(1)),
    };
    out.push(content_type);
    out.extend_from_slice(&frame_length.to_be_bytes());
    out
}

struct Body<'a> {
    cipher: &'a LessSafeKey,
    message_id: &'a [u8; 32],
    out: Vec<u8>,
}

impl Body<'_> {
    fn block(&mut self, plaintext: &[u8]) -> Result<(), Unspecified> {
        self.out.extend_from_slice(&iv(1));
        self.out.extend_from_slice(&u64::try_from(plaintext.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.sealed(Piece::Whole, 1, plaintext)
    }

    /// The last frame is the only one that may be short; it is empty only where everything is.
    fn frames(&mut self, plaintext: &[u8], length: usize) -> Result<(), Unspecified> {
        let mut rest = plaintext;
        let mut sequence = 1_u32;
        while let Some((frame, after)) = rest.split_at_checked(length).filter(|(_, after)| !after.is_empty()) {
            self.out.extend_from_slice(&sequence.to_be_bytes());
            self.out.extend_from_slice(&iv(sequence));
            self.sealed(Piece::Regular, sequence, frame)?;
            rest = after;
            sequence = sequence.saturating_add(1);
        }
        self.out.extend_from_slice(&LAST.to_be_bytes());
        self.out.extend_from_slice(&sequence.to_be_bytes());
        self.out.extend_from_slice(&iv(sequence));
        self.out.extend_from_slice(&u32::try_from(rest.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.sealed(Piece::Last, sequence, rest)
    }

    fn sealed(&mut self, piece: Piece, sequence: u32, plaintext: &[u8]) -> Result<(), Unspecified> {
        let aad = piece.aad(self.message_id, sequence, plaintext.len());
        let start = self.out.len();
        // Room for everything first: a buffer that grew in the middle would leave a copy of the plaintext behind.
        self.out.reserve_exact(plaintext.len() + super::TAG);
        self.out.extend_from_slice(plaintext);
        let (_, sealed) = self.out.split_at_mut(start);
        let tag = seal(self.cipher, iv(sequence), &aad, sealed)?;
        self.out.extend_from_slice(&tag);
        Ok(())
    }
}

/// A sequence number as an IV. The header's is 0, and no piece is numbered so.
fn iv(sequence: u32) -> [u8; IV] {
    let [a, b, c, d] = sequence.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

fn seal(cipher: &LessSafeKey, iv: [u8; IV], aad: &[u8], bytes: &mut [u8]) -> Result<Vec<u8>, Unspecified> {
    let tag = cipher.seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(aad), bytes)?;
    Ok(tag.as_ref().to_vec())
}
