//! The ciphertext blob: opaque to callers, every byte authenticated, its length varied so that nobody relies on it.
//!
//! `version(1) ‖ key id(16) ‖ material id(32) ‖ padding length(1) ‖ padding ‖ nonce(12) ‖ AES-256-GCM`; the associated
//! data is everything before the ciphertext followed by the encryption context, sorted by bytes and length-prefixed.

use std::collections::BTreeMap;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use uuid::Uuid;

use super::{
    error::KmsError,
    key::{Material, MaterialId},
};

const VERSION: u8 = 1;
const LONGEST_PADDING: u8 = 31;

/// The parts of a blob whose outer shape was right; nothing in it is trusted before [`Sealed::open`].
pub(crate) struct Sealed<'a> {
    pub(crate) key: Uuid,
    pub(crate) material: MaterialId,
    header: &'a [u8],
    nonce: [u8; NONCE_LEN],
    ciphertext: &'a [u8],
}

impl<'a> Sealed<'a> {
    pub(crate) fn parse(blob: &'a [u8]) -> Result<Self, KmsError> {
        Self::split(blob).ok_or_else(KmsError::invalid_ciphertext)
    }

    fn split(blob: &'a [u8]) -> Option<Self> {
        let (version, rest) = blob.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (key, rest) = rest.split_first_chunk::<16>()?;
        let (material, rest) = rest.split_first_chunk::<32>()?;
        let (padding, rest) = rest.split_first()?;
        let rest = rest.get(usize::from(*padding)..)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>()?;
        let header = blob.get(..blob.len() - ciphertext.len())?;
        Some(Self { key: Uuid::from_bytes(*key), material: MaterialId(*material), header, nonce: *nonce, ciphertext })
    }

    /// The plaintext, if blob and context are exactly what [`seal`] made.
    pub(crate) fn open(&self, material: &Material, context: &BTreeMap<String, String>) -> Result<Vec<u8>, KmsError> {
        let mut buffer = self.ciphertext.to_vec();
        let aad = Aad::from(associated_data(self.header, context));
        let opened = aead_key(material)?
            .open_in_place(Nonce::assume_unique_for_key(self.nonce), aad, &mut buffer)
            .map_err(|_| KmsError::invalid_ciphertext())?
            .len();
        buffer.truncate(opened);
        Ok(buffer)
    }
}

/// Encrypts under one key material, bound to the context.
pub(crate) fn seal(
    key: Uuid,
    material: &Material,
    context: &BTreeMap<String, String>,
    plaintext: &[u8],
) -> Result<Vec<u8>, KmsError> {
    let [wish] = random::<1>()?;
    let padding = wish & LONGEST_PADDING;
    let nonce = random::<NONCE_LEN>()?;
    let mut blob = vec![VERSION];
    blob.extend(key.as_bytes());
    blob.extend(material.id.0);
    blob.push(padding);
    blob.extend(random::<{ LONGEST_PADDING as usize }>()?.iter().take(usize::from(padding)));
    blob.extend(nonce);
    let mut buffer = plaintext.to_vec();
    aead_key(material)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated_data(&blob, context)),
            &mut buffer,
        )
        .map_err(|_| KmsError::internal())?;
    blob.extend(buffer);
    Ok(blob)
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], KmsError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| KmsError::internal())?;
    Ok(bytes)
}

fn aead_key(material: &Material) -> Result<LessSafeKey, KmsError> {
    UnboundKey::new(&AES_256_GCM, &material.secret).map(LessSafeKey::new).map_err(|_| KmsError::internal())
}

fn associated_data(header: &[u8], context: &BTreeMap<String, String>) -> Vec<u8> {
    let mut data = header.to_vec();
    let mut put = |bytes: &[u8]| {
        data.extend((bytes.len() as u64).to_be_bytes());
        data.extend(bytes);
    };
    for (key, value) in context {
        put(key.as_bytes());
        put(value.as_bytes());
    }
    data
}
