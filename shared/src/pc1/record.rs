//! Sealing, parsing and opening.

use std::fmt;

use aws_lc_rs::aead::Aad;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::key::{RecordKeys, nonce};
use super::{Context, DataKey, MAX_PLAINTEXT, MessageId, OVERHEAD};

const VERSION: u8 = 0x01;
const ESDK_VERSION: u8 = 0x02;
const HEADER: usize = 81;
const AUTHENTICATED: usize = 49;
const TAG: usize = 16;

/// Why a plaintext was not sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsealed {
    /// It is longer than [`MAX_PLAINTEXT`].
    TooLarge,
    /// AWS-LC answered an error, which it has no reason to.
    Cryptography,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Shorter than 97 or longer than 65,633 bytes.
    Length,
    /// The first byte is that of an AWS Encryption SDK message: `import` may read it.
    EsdkMessage,
    /// A version this code does not know.
    Version,
}

/// Why a record did not open. For the log only: a caller sees one and the same refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The record was made with another data key.
    Commitment,
    /// The ciphertext, its header or its context is not what was sealed.
    Authentication,
}

/// Seals `plaintext` into a record.
pub fn seal(
    data_key: &DataKey,
    data_key_id: Uuid,
    message_id: MessageId,
    context: &Context<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, Unsealed> {
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(Unsealed::TooLarge);
    }
    let keys = RecordKeys::derive(data_key, message_id.as_bytes()).map_err(|_| Unsealed::Cryptography)?;
    let mut record = Vec::with_capacity(OVERHEAD + plaintext.len());
    record.push(VERSION);
    record.extend_from_slice(data_key_id.as_bytes());
    record.extend_from_slice(message_id.as_bytes());
    let aad = authenticated(&record, context);
    record.extend_from_slice(keys.commitment());
    record.extend_from_slice(plaintext);
    let (_, sealed) = record.split_at_mut(HEADER);
    let tag = keys
        .cipher()
        .and_then(|cipher| cipher.seal_in_place_separate_tag(nonce(), Aad::from(aad), sealed))
        .map_err(|_| Unsealed::Cryptography)?;
    record.extend_from_slice(tag.as_ref());
    Ok(record)
}

/// A record whose layout holds. Nothing of it is authenticated before [`Record::open`].
#[derive(Clone, Copy)]
pub struct Record<'a> {
    authenticated: &'a [u8],
    data_key_id: Uuid,
    message_id: &'a [u8; 32],
    commitment: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> Record<'a> {
    /// Checks version and length.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.first() {
            None => return Err(Malformed::Length),
            Some(&VERSION) => {}
            Some(&ESDK_VERSION) => return Err(Malformed::EsdkMessage),
            Some(_) => return Err(Malformed::Version),
        }
        if bytes.len() > OVERHEAD + MAX_PLAINTEXT {
            return Err(Malformed::Length);
        }
        Self::split(bytes).ok_or(Malformed::Length)
    }

    /// The data key that the record names.
    pub fn data_key_id(&self) -> Uuid {
        self.data_key_id
    }

    /// Checks the commitment in constant time, then opens the ciphertext.
    pub fn open(&self, data_key: &DataKey, context: &Context<'_>) -> Result<Zeroizing<Vec<u8>>, Mismatch> {
        let keys = RecordKeys::derive(data_key, self.message_id).map_err(|_| Mismatch::Commitment)?;
        keys.commits_to(self.commitment).map_err(|_| Mismatch::Commitment)?;
        let aad = authenticated(self.authenticated, context);
        let mut buffer = Zeroizing::new(self.sealed.to_vec());
        let length = keys
            .cipher()
            .and_then(|cipher| cipher.open_in_place(nonce(), Aad::from(aad), &mut buffer).map(|plain| plain.len()))
            .map_err(|_| Mismatch::Authentication)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (header, sealed) = bytes.split_at_checked(HEADER)?;
        let (authenticated, commitment) = header.split_at_checked(AUTHENTICATED)?;
        let (id, message_id) = authenticated.get(1..)?.split_at_checked(16)?;
        if sealed.len() < TAG {
            return None;
        }
        Some(Self {
            authenticated,
            data_key_id: Uuid::from_slice(id).ok()?,
            message_id: message_id.first_chunk()?,
            commitment,
            sealed,
        })
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("data_key_id", &self.data_key_id).finish_non_exhaustive()
    }
}

fn authenticated(header: &[u8], context: &Context<'_>) -> Vec<u8> {
    let mut aad = Vec::with_capacity(AUTHENTICATED + 192);
    aad.extend_from_slice(header);
    context.encode_into(&mut aad);
    aad
}
