//! Nonces (RFC 9449 §8): what ties a proof to the moment without trusting the client's clock.
//!
//! A nonce is the time in seconds (8 bytes), 8 random bytes and the first 16 bytes of their HMAC-SHA-256, in base64url. Every
//! environment that has the key can check it; nothing is stored per nonce.

use aws_lc_rs::hmac;

use crate::clock::Timestamp;
use crate::encoding::{base64url, from_base64url};
use crate::entropy::Entropy;

/// How long a nonce is good, in seconds.
pub const LIFE: i64 = 300;
/// How far the clocks of two environments may differ, in seconds.
const SKEW: i64 = 10;
const TIME: usize = 8;
const BODY: usize = 16;
const TAG: usize = 16;

/// A key that nonces are made with. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct NonceKey(hmac::Key);

impl NonceKey {
    /// Takes 32 random bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Makes a nonce of now.
    pub fn issue(&self, now: Timestamp, entropy: &impl Entropy) -> String {
        let mut body = [0; BODY];
        entropy.fill(&mut body);
        if let Some(time) = body.first_chunk_mut::<TIME>() {
            *time = now.seconds().to_be_bytes();
        }
        let tag = hmac::sign(&self.0, &body);
        let tag = tag.as_ref().get(..TAG).unwrap_or_default();
        base64url(&[&body, tag].concat())
    }

    fn made(&self, nonce: &[u8]) -> Option<i64> {
        let (body, tag) = nonce.split_at_checked(BODY)?;
        let expected = hmac::sign(&self.0, body);
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_ref().get(..TAG)?, tag).is_ok();
        let time = body.first_chunk::<TIME>().filter(|_| same)?;
        Some(i64::from_be_bytes(*time))
    }
}

impl std::fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NonceKey([redacted])")
    }
}

/// Whether a nonce was made with one of `keys` within the last [`LIFE`] seconds.
pub fn is_good(nonce: &str, keys: &[NonceKey], now: Timestamp) -> bool {
    let Some(nonce) = from_base64url(nonce).filter(|nonce| nonce.len() == BODY + TAG) else { return false };
    let fresh = |made: i64| made <= now.seconds() + SKEW && made > now.seconds() - LIFE;
    keys.iter().any(|key| key.made(&nonce).is_some_and(fresh))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    #[test]
    fn a_nonce_is_good_for_its_time_under_its_key() {
        let (key, other) = (NonceKey::new(&[1; 32]), NonceKey::new(&[2; 32]));
        let nonce = key.issue(NOW, &SystemEntropy);
        assert!(nonce.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)), "RFC 9449 §8.1");
        let keys = [other.clone(), key.clone()];
        for (after, good) in [(-11, false), (-10, true), (0, true), (299, true), (300, false)] {
            assert_eq!(is_good(&nonce, &keys, NOW.plus_seconds(after)), good, "{after}");
        }
        assert!(!is_good(&nonce, &[other], NOW));
        assert!(!is_good(&nonce, &[], NOW));
        assert_ne!(nonce, key.issue(NOW, &SystemEntropy));
    }

    #[test]
    fn no_other_text_is_a_nonce() {
        let key = NonceKey::new(&[1; 32]);
        let nonce = key.issue(NOW, &SystemEntropy);
        let bytes = from_base64url(&nonce).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_good(&base64url(&other), std::slice::from_ref(&key), NOW), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(!is_good(&base64url(&bytes[..cut]), std::slice::from_ref(&key), NOW));
        }
        for text in ["", "canary", "=", "\u{e4}"] {
            assert!(!is_good(text, std::slice::from_ref(&key), NOW));
        }
        assert!(!format!("{key:?}").contains('1'));
    }
}
