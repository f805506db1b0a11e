//! Randomness as a parameter.

use std::sync::Arc;

use uuid::Uuid;

use crate::clock::Timestamp;

/// Where random bytes come from.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out` with bytes nobody can predict.
    fn fill(&self, out: &mut [u8]);
}

/// The operating system's generator by way of AWS-LC.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::panic, reason = "without randomness nothing may go on; boot answers the panic with a 500")]
    fn fill(&self, out: &mut [u8]) {
        if aws_lc_rs::rand::fill(out).is_err() {
            panic!("the system has no randomness");
        }
    }
}

impl<E: Entropy> Entropy for Arc<E> {
    fn fill(&self, out: &mut [u8]) {
        (**self).fill(out);
    }
}

/// A UUID version 7 (RFC 9562 §5.7): 48 bits of `now` in milliseconds, the rest random.
pub fn uuid_v7(now: Timestamp, entropy: &impl Entropy) -> Uuid {
    let mut random = [0_u8; 10];
    entropy.fill(&mut random);
    let millis = u64::try_from(now.millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_v7_carries_the_given_time_and_is_fresh_each_time() {
        let now = Timestamp::from_millis(1_700_000_000_123);
        let (one, two) = (uuid_v7(now, &SystemEntropy), uuid_v7(now, &SystemEntropy));
        assert_ne!(one, two);
        assert_eq!(one.get_version_num(), 7);
        assert_eq!(one.as_u128() >> 80, 1_700_000_000_123);
    }
}
