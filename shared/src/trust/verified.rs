//! Tokens that were verified, so that the same one need not be verified again.

use std::sync::Arc;

use super::Accepts;
use crate::clock::Timestamp;
use crate::digest::sha256;
use crate::jwks::KeySet;
use crate::jwt::{self, MAX_LENGTH, Reason, Signed};
use crate::recent::{Bounds, Recent};

/// Of each of the two generations: together 2 MB at the most.
const BOUNDS: Bounds = Bounds { entries: 512, bytes: 1024 * 1024 };
/// What an entry takes beside the token's claims, which are no longer than its text.
const BESIDE: usize = 768;

/// Tokens whose signature was found good, by the digest of all their bytes.
///
/// Only what verified comes in, so nobody fills it with what he makes up himself. An entry saves the signature, the reading and those of
/// the checks that come out alike each time; it admits nobody. Whoever asks gets the token only while the very key that signed it is in
/// the key set of now and the clock is within its time; revocation, proof, assertion, device, route and policy are not its business and
/// are asked about every request.
pub(super) struct Verified(Recent<[u8; 32], Arc<Signed>>);

impl Verified {
    pub(super) fn new() -> Self {
        Self(Recent::new(BOUNDS))
    }

    /// The token, verified now or before. Answers what [`jwt::access_token`] would.
    pub(super) fn token(
        &self,
        token: &str,
        accepts: &Accepts,
        keys: &KeySet,
        now: Timestamp,
    ) -> Result<Arc<Signed>, Reason> {
        // No digest is made of what is too long to be a token.
        if token.len() > MAX_LENGTH {
            return Err(Reason::Malformed);
        }
        let name = name(token, accepts);
        if let Some(known) = self.0.find(&name) {
            if known.is_of(keys) {
                let timely = known.timely(now);
                if timely == Err(Reason::Expired) {
                    self.0.forget(&name);
                }
                return timely.map(|()| known);
            }
            self.0.forget(&name);
        }
        let signed = Arc::new(jwt::signed(token, &accepts.issuer, &accepts.audience, keys, now)?);
        self.0.keep(name, Arc::clone(&signed), token.len() + BESIDE);
        Ok(signed)
    }
}

/// The digest of the token as it was sent, signature included, and of whom it was judged for: one who accepts another audience has to
/// judge it anew.
fn name(token: &str, accepts: &Accepts) -> [u8; 32] {
    let lengths = [accepts.issuer.len(), accepts.audience.len()].map(usize::to_be_bytes).concat();
    sha256(&[&lengths, accepts.issuer.as_bytes(), accepts.audience.as_bytes(), token.as_bytes()].concat())
}
