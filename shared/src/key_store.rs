//! Which of the two places the private signing keys live in.

use crate::config::Reader;
use crate::name::ParameterPath;

/// Where the private signing keys are: `PORTCULLIS_SIGNER` and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyStore {
    /// `kms`: in KMS, which signs and never gives them out.
    Kms,
    /// `ssm`: in SecureString parameters under `PORTCULLIS_SIGNING_PATH`, one per key.
    Ssm(ParameterPath),
}

impl KeyStore {
    /// Reads the variables; faults stay in the reader. With `kms` nobody asks for a path, so that one is a fault.
    pub fn read(reader: &Reader<'_>) -> Self {
        if !reader.choice("PORTCULLIS_SIGNER", &[("kms", false), ("ssm", true)], false) {
            return Self::Kms;
        }
        let parse = |value: &str| ParameterPath::parse(value).ok();
        let expected = "a path of SSM parameters, without a slash at its end";
        reader
            .parsed("PORTCULLIS_SIGNING_PATH", expected, |value| parse(value).map(Some), None)
            .map_or(Self::Kms, Self::Ssm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn read(pairs: &[(&str, &str)]) -> Result<KeyStore, Vec<String>> {
        let environment = Environment::from_pairs(pairs.iter().copied());
        let reader = Reader::new(&environment);
        let store = KeyStore::read(&reader);
        reader.finish().map(|()| store).map_err(|faults| faults.lines().to_vec())
    }

    #[test]
    fn each_store_takes_its_own_variables_and_no_other() {
        let path = ParameterPath::parse("/portcullis/signing/dev").unwrap();
        let (signer, at) = ("PORTCULLIS_SIGNER", "PORTCULLIS_SIGNING_PATH");
        assert_eq!(read(&[(signer, "kms")]), Ok(KeyStore::Kms));
        assert_eq!(read(&[(signer, "ssm"), (at, "/portcullis/signing/dev")]), Ok(KeyStore::Ssm(path)));
        for (pairs, fault) in [
            (&[][..], "PORTCULLIS_SIGNER is missing"),
            (&[(signer, "local")], "PORTCULLIS_SIGNER must be kms or ssm"),
            (&[(signer, "kms"), (at, "/x")], "PORTCULLIS_SIGNING_PATH is unknown here"),
            (&[(signer, "ssm")], "PORTCULLIS_SIGNING_PATH is missing"),
            (
                &[(signer, "ssm"), (at, "canary/")],
                "PORTCULLIS_SIGNING_PATH must be a path of SSM parameters, without a slash at its end",
            ),
        ] {
            assert_eq!(read(pairs), Err(vec![fault.to_owned()]));
        }
    }
}
