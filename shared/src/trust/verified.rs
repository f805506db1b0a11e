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

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;
    use crate::encoding::base64url;
    use crate::jwks::Algorithm;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    struct World {
        key: Ed25519KeyPair,
        keys: KeySet,
        accepts: Accepts,
        verified: Verified,
    }

    impl World {
        fn new() -> Self {
            let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_key().as_ref()), "kid": "k"});
            let keys = KeySet::parse(&json!({ "keys": [jwk] }), &[Algorithm::EdDsa]).unwrap();
            let accepts =
                Accepts { issuer: "https://gate.example".to_owned(), audience: "https://api.example".to_owned() };
            Self { key, keys, accepts, verified: Verified::new() }
        }

        /// A token with this id, which is longer by so many bytes of a claim that nobody reads.
        fn token(&self, jti: &str, longer: usize) -> String {
            let (header, now) = (json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k"}), NOW.seconds());
            let claims = json!({"iss": self.accepts.issuer, "aud": self.accepts.audience, "sub": "s", "client_id": "c", "jti": jti,
                "iat": now, "exp": now + 300, "scope": "app", "tenant": "acme", "kind": "machine", "more": "x".repeat(longer)});
            let message = [header, claims].map(|part| base64url(part.to_string().as_bytes())).join(".");
            format!("{message}.{}", base64url(self.key.sign(message.as_bytes()).as_ref()))
        }

        fn judge(&self, token: &str, now: Timestamp) -> Result<Arc<Signed>, Reason> {
            self.verified.token(token, &self.accepts, &self.keys, now)
        }

        fn kept(&self) -> (usize, usize) {
            self.verified.0.size()
        }
    }

    #[test]
    fn a_token_is_verified_once_and_forgotten_when_it_ends_or_its_key_goes() {
        let world = World::new();
        let token = world.token("j", 0);
        let first = world.judge(&token, NOW).unwrap();
        assert_eq!(world.kept(), (1, token.len() + 768));
        assert!(Arc::ptr_eq(&first, &world.judge(&token, NOW.plus_seconds(299)).unwrap()), "remembered");
        assert_eq!(world.judge(&token, NOW.plus_seconds(-11)), Err(Reason::NotYetValid));
        assert_eq!(world.kept().0, 1, "its time is to come");
        assert_eq!(world.judge(&token, NOW.plus_seconds(300)), Err(Reason::Expired));
        assert_eq!(world.kept().0, 0);
        assert!(!Arc::ptr_eq(&first, &world.judge(&token, NOW).unwrap()), "verified anew");
        let none = world.verified.token(&token, &world.accepts, &KeySet::none(), NOW);
        assert_eq!((none, world.kept().0), (Err(Reason::UnknownKey), 0));
    }

    #[test]
    fn what_does_not_verify_is_not_kept_and_what_does_stays_within_bounds() {
        let world = World::new();
        assert!(world.judge(&format!("{}x", world.token("j", 0)), NOW).is_err() && world.kept() == (0, 0));
        for number in 0..1_500 {
            world.judge(&world.token(&number.to_string(), 0), NOW).unwrap();
            assert!(world.kept().0 <= 1_024);
        }
        assert!(world.kept().0 > 512);
        for number in 0..400 {
            world.judge(&world.token(&number.to_string(), 5_500), NOW).unwrap();
        }
        let (entries, bytes) = world.kept();
        assert!((150..400).contains(&entries) && bytes <= 2 * 1024 * 1024, "{entries} {bytes}");
    }
}
