//! From bytes to a message whose layout holds. Nothing of it is authenticated before it is opened.

use std::collections::BTreeSet;
use std::fmt;

use super::{FRAMED, IV, LAST, PUBLIC_KEY, Piece, Suite, TAG, UNFRAMED, VERSION};
use crate::pc1::MAX_PLAINTEXT;

/// The most bytes of a message: 64 KiB of plaintext in frames that are not absurdly small.
pub const MAX_MESSAGE: usize = 262_144;

/// The most bytes of an encryption context.
const MAX_CONTEXT: usize = 8_192;

/// Why bytes are no message for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Another message version than 2, which is that of the suites that commit to their key.
    Version,
    /// A suite that is not one of the two.
    Suite,
    /// The message, its context or its plaintext is longer than the limits.
    TooLarge,
    /// Cut off, or something stands after the end.
    Length,
    /// The context is not of its one form, names a key twice, or has a signature's key where there is no signature.
    Context,
    /// None or too many encrypted data keys, or one whose provider is no text.
    DataKeys,
    /// The content type or the frame length is none.
    Body,
    /// Frames out of order, none that is the last, or one that is longer than it may be.
    Frames,
}

/// A data key as a provider wrapped it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EncryptedDataKey<'a> {
    /// Who wrapped it, `aws-kms` for KMS.
    pub provider: &'a str,
    /// With which key; for KMS its ARN.
    pub info: &'a [u8],
    /// What only that key opens.
    pub blob: &'a [u8],
}

/// A message.
pub struct Message<'a> {
    pub(super) suite: Suite,
    pub(super) message_id: &'a [u8; 32],
    context: Vec<(&'a str, &'a str)>,
    data_keys: Vec<EncryptedDataKey<'a>>,
    pub(super) commitment: &'a [u8],
    /// Everything before the header's tag.
    pub(super) header: &'a [u8],
    pub(super) header_tag: &'a [u8],
    /// What a signature covers.
    pub(super) signed: &'a [u8],
    pub(super) pieces: Vec<Sealed<'a>>,
    pub(super) signature: Option<&'a [u8]>,
}

/// A frame, or the one block of a body without frames.
pub(super) struct Sealed<'a> {
    pub(super) piece: Piece,
    pub(super) sequence: u32,
    pub(super) iv: &'a [u8; IV],
    pub(super) ciphertext: &'a [u8],
    pub(super) tag: &'a [u8],
}

impl<'a> Message<'a> {
    /// Checks the layout to the last byte. `most_keys` bounds the encrypted data keys.
    pub fn parse(bytes: &'a [u8], most_keys: usize) -> Result<Self, Malformed> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Malformed::TooLarge);
        }
        let mut rest = Rest(bytes);
        if rest.array::<1>()? != &[VERSION] {
            return Err(Malformed::Version);
        }
        let suite = match rest.array::<2>()? {
            [0x04, 0x78] => Suite::Committing,
            [0x05, 0x78] => Suite::Signed,
            _ => return Err(Malformed::Suite),
        };
        let message_id = rest.array()?;
        let context = context(&mut rest)?;
        if context.iter().any(|(key, _)| *key == PUBLIC_KEY) != (suite == Suite::Signed) {
            return Err(Malformed::Context);
        }
        let data_keys = data_keys(&mut rest, most_keys)?;
        let content_type = u8::from_be_bytes(*rest.array()?);
        let frame_length = rest.u32()?;
        let commitment = rest.take(32)?;
        let header = before(bytes, &rest);
        let header_tag = rest.take(TAG)?;
        let pieces = match (content_type, frame_length) {
            (UNFRAMED, 0) => vec![whole(&mut rest)?],
            (FRAMED, 1..) => frames(&mut rest, frame_length)?,
            _ => return Err(Malformed::Body),
        };
        let signed = before(bytes, &rest);
        let signature = match suite {
            Suite::Committing => None,
            Suite::Signed => {
                let length = rest.u16()?;
                Some(rest.take(length)?)
            }
        };
        if !rest.0.is_empty() {
            return Err(Malformed::Length);
        }
        Ok(Self { suite, message_id, context, data_keys, commitment, header, header_tag, signed, pieces, signature })
    }

    /// The encryption context, in the order of the message.
    pub fn context(&self) -> &[(&'a str, &'a str)] {
        &self.context
    }

    /// The encrypted data keys.
    pub fn data_keys(&self) -> &[EncryptedDataKey<'a>] {
        &self.data_keys
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// The bytes that have not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<usize, Malformed> {
        self.array().map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Two bytes of length and as many bytes.
    fn prefixed(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(length)
    }
}

fn before<'a>(whole: &'a [u8], rest: &Rest<'a>) -> &'a [u8] {
    whole.get(..whole.len() - rest.0.len()).unwrap_or_default()
}

/// Any order is read: not every writer sorts. An empty context has no count.
fn context<'a>(rest: &mut Rest<'a>) -> Result<Vec<(&'a str, &'a str)>, Malformed> {
    let mut inside = Rest(rest.prefixed()?);
    if inside.0.is_empty() {
        return Ok(Vec::new());
    }
    if inside.0.len() > MAX_CONTEXT {
        return Err(Malformed::TooLarge);
    }
    let broken = |_: Malformed| Malformed::Context;
    let count = inside.u16().map_err(broken)?;
    let mut pairs = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..count {
        let mut text = || {
            let bytes = inside.prefixed().map_err(broken)?;
            std::str::from_utf8(bytes).map_err(|_| Malformed::Context)
        };
        let pair = (text()?, text()?);
        if !names.insert(pair.0) {
            return Err(Malformed::Context);
        }
        pairs.push(pair);
    }
    if pairs.is_empty() || !inside.0.is_empty() { Err(Malformed::Context) } else { Ok(pairs) }
}

fn data_keys<'a>(rest: &mut Rest<'a>, most: usize) -> Result<Vec<EncryptedDataKey<'a>>, Malformed> {
    let count = rest.u16()?;
    if count == 0 || count > most {
        return Err(Malformed::DataKeys);
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        let provider = std::str::from_utf8(rest.prefixed()?).map_err(|_| Malformed::DataKeys)?;
        keys.push(EncryptedDataKey { provider, info: rest.prefixed()?, blob: rest.prefixed()? });
    }
    Ok(keys)
}

fn whole<'a>(rest: &mut Rest<'a>) -> Result<Sealed<'a>, Malformed> {
    let iv = rest.array()?;
    let length = usize::try_from(u64::from_be_bytes(*rest.array()?)).map_err(|_| Malformed::TooLarge)?;
    if length > MAX_PLAINTEXT {
        return Err(Malformed::TooLarge);
    }
    Ok(Sealed { piece: Piece::Whole, sequence: 1, iv, ciphertext: rest.take(length)?, tag: rest.take(TAG)? })
}

/// Frames count from 1 without a gap; exactly one is the last, and it is no longer than the others.
fn frames<'a>(rest: &mut Rest<'a>, frame_length: u32) -> Result<Vec<Sealed<'a>>, Malformed> {
    let whole = |length: u32| usize::try_from(length).map_err(|_| Malformed::TooLarge);
    let mut pieces = Vec::new();
    let mut total = 0_usize;
    for expected in 1_u32.. {
        let number = rest.u32()?;
        let last = number == LAST;
        let sequence = if last { rest.u32()? } else { number };
        if sequence != expected {
            return Err(Malformed::Frames);
        }
        let iv = rest.array()?;
        let length = if last { rest.u32()? } else { frame_length };
        if length > frame_length {
            return Err(Malformed::Frames);
        }
        let length = whole(length)?;
        total = total.saturating_add(length);
        if total > MAX_PLAINTEXT {
            return Err(Malformed::TooLarge);
        }
        let piece = if last { Piece::Last } else { Piece::Regular };
        pieces.push(Sealed { piece, sequence, iv, ciphertext: rest.take(length)?, tag: rest.take(TAG)? });
        if last {
            return Ok(pieces);
        }
    }
    Err(Malformed::Frames)
}
