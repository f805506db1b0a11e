//! What this deployment is told by its environment.

use shared::config::Reader;
use shared::jwks::Algorithm;

use crate::Issues;
use crate::rotation::{DAY, Policy, Waits};

/// The signing settings and where to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `PORTCULLIS_ENV`: the deployment's name, in the tag of every signing key.
    pub env: String,
    /// `PORTCULLIS_TRUST_BUCKET`
    pub trust_bucket: String,
    /// `PORTCULLIS_ISSUER`, `PORTCULLIS_AUDIENCE`, `PORTCULLIS_SIGNING_ALG` (`RS256`, `ES256` or `EdDSA`).
    pub issues: Issues,
    /// `PORTCULLIS_SIGNING_DAYS` (1 to 365): how long a key signs; `PORTCULLIS_SIGNING_SPARES` (1 to 3): how many wait for their turn.
    pub policy: Policy,
}

impl Config {
    /// Reads the variables; meaningful only if the reader's `finish` succeeds. The place of
    /// the signing keys is read apart ([`KeyStore`](shared::key_store::KeyStore)).
    pub fn read(reader: &Reader<'_>) -> Self {
        let algorithms = [("RS256", Algorithm::Rs256), ("ES256", Algorithm::Es256), ("EdDSA", Algorithm::EdDsa)];
        let whole = |name: &str, expected: &str, most: i64| {
            let parse = |value: &str| value.parse().ok().filter(|number| (1..=most).contains(number));
            reader.parsed(name, expected, parse, 1)
        };
        let algorithm = reader.choice("PORTCULLIS_SIGNING_ALG", &algorithms, Algorithm::Rs256);
        Self {
            env: reader.text("PORTCULLIS_ENV"),
            trust_bucket: reader.text("PORTCULLIS_TRUST_BUCKET"),
            issues: Issues {
                issuer: reader.issuer("PORTCULLIS_ISSUER"),
                audience: reader.text("PORTCULLIS_AUDIENCE"),
                algorithm,
            },
            policy: Policy {
                algorithm,
                period: whole("PORTCULLIS_SIGNING_DAYS", "a number of days from 1 to 365", 365) * DAY,
                spares: usize::try_from(whole("PORTCULLIS_SIGNING_SPARES", "a number from 1 to 3", 3)).unwrap_or(1),
                waits: Waits::DEFAULT,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::config::Environment;

    use super::*;

    fn read(days: &str, spares: &str) -> Result<Policy, Vec<String>> {
        let environment = Environment::from_pairs([
            ("PORTCULLIS_ENV", "dev"),
            ("PORTCULLIS_TRUST_BUCKET", "b"),
            ("PORTCULLIS_ISSUER", "https://gate.example"),
            ("PORTCULLIS_AUDIENCE", "a"),
            ("PORTCULLIS_SIGNING_ALG", "ES256"),
            ("PORTCULLIS_SIGNING_DAYS", days),
            ("PORTCULLIS_SIGNING_SPARES", spares),
        ]);
        let reader = Reader::new(&environment);
        let config = Config::read(&reader);
        reader.finish().map(|()| config.policy).map_err(|faults| faults.lines().to_vec())
    }

    #[test]
    fn periods_and_spares_outside_of_their_limits_are_faults() {
        let policy = read("90", "2").unwrap();
        assert_eq!((policy.period, policy.spares, policy.algorithm), (90 * DAY, 2, Algorithm::Es256));
        assert_eq!(policy.waits, Waits::DEFAULT);
        for (days, spares) in [("0", "1"), ("366", "1"), ("-1", "1"), ("1.5", "1"), ("", "1"), ("9", "0"), ("9", "4")] {
            assert_eq!(read(days, spares).unwrap_err().len(), 1, "{days} {spares}");
        }
    }
}
