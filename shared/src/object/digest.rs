use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::name::Malformed;

/// A SHA-256 digest. Its text form is padded standard base64, as `x-amz-checksum-sha256` carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// Hashes bytes.
    pub fn of(bytes: &[u8]) -> Sha256Digest {
        let mut digest = [0; 32];
        let computed = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        digest.copy_from_slice(computed.as_ref());
        Sha256Digest(digest)
    }

    /// Hashes bytes that come one piece after the other.
    pub fn of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Sha256Digest {
        let mut hasher = Sha256Hasher::default();
        pieces.into_iter().for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    /// The digest that S3 gives an object of parts: that of the digests of its parts, one behind the other.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a Sha256Digest>) -> Sha256Digest {
        Self::of_pieces(parts.into_iter().map(|part| part.0.as_slice()))
    }

    /// Takes the digest itself.
    pub fn from_bytes(bytes: [u8; 32]) -> Sha256Digest {
        Sha256Digest(bytes)
    }

    /// Reads padded base64 of exactly 32 bytes, canonical in its last character.
    pub fn parse(text: &str) -> Result<Sha256Digest, Malformed> {
        let bytes = STANDARD.decode(text).map_err(|_| Malformed("sha256"))?;
        bytes.try_into().map(Sha256Digest).map_err(|_| Malformed("sha256"))
    }

    /// Reads hexadecimal, as the database answers it.
    pub fn from_hex(text: &str) -> Result<Sha256Digest, Malformed> {
        let bytes = crate::encoding::from_hex(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Sha256Digest).ok_or(Malformed("sha256"))
    }

    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Sha256Hasher(aws_lc_rs::digest::Context);

impl Default for Sha256Hasher {
    fn default() -> Self {
        Sha256Hasher(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

impl Sha256Hasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> Sha256Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Sha256Digest(digest)
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256Hasher")
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO_WORLD: &str = "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=";

    #[test]
    fn a_digest_prints_as_s3_wants_it() {
        assert_eq!(Sha256Digest::of(b"hello world").to_string(), HELLO_WORLD);
        assert_eq!(Sha256Digest::parse(HELLO_WORLD).unwrap(), Sha256Digest::of(b"hello world"));
    }

    #[test]
    fn pieces_hash_as_their_whole() {
        let pieces: [&[u8]; 4] = [b"hello", b" ", b"", b"world"];
        assert_eq!(Sha256Digest::of_pieces(pieces), Sha256Digest::of(b"hello world"));
        assert_eq!(Sha256Digest::of_pieces([]), Sha256Digest::of(b""));
    }

    #[test]
    fn an_object_of_parts_has_the_digest_of_their_digests() {
        let parts = [Sha256Digest::of(b"hello "), Sha256Digest::of(b"world")];
        assert_eq!(Sha256Digest::of_parts(&parts).to_string(), "Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=");
    }

    #[test]
    fn what_is_not_base64_of_32_bytes_is_refused() {
        for text in [
            "",
            "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek",
            "uU0nuZNNPgilLlLX2n2r-sSE7-N6U4DukIj3rOLvzek=",
            "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzel=",
            " uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=",
            "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=\n",
            "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
            "aGVsbG8=",
            "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzekA",
            "Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=-2",
        ] {
            assert!(Sha256Digest::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_digest_survives_a_round_trip(bytes in any::<[u8; 32]>()) {
            let digest = Sha256Digest::from_bytes(bytes);
            prop_assert_eq!(Sha256Digest::parse(&digest.to_string()).unwrap(), digest);
            prop_assert_eq!(digest.as_bytes(), &bytes);
            let hex = crate::encoding::hex(&bytes);
            prop_assert_eq!(Sha256Digest::from_hex(&hex).unwrap(), digest);
            for other in [&hex[2..], &[&hex, "00"].concat()] {
                prop_assert!(Sha256Digest::from_hex(other).is_err());
            }
        }

        #[test]
        fn no_two_texts_name_one_digest(text in "[A-Za-z0-9+/]{43}=") {
            if let Ok(digest) = Sha256Digest::parse(&text) {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
