//! Which proofs this environment has seen.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

use super::Proof;
use crate::clock::Timestamp;
use crate::digest::sha256;

/// How many proofs a generation holds.
const KEPT: usize = 65_536;
/// How long a generation is filled, in seconds: longer than a proof can pass, from 10 s before its `iat` to 60 s after it.
const GENERATION: i64 = 71;

/// The proofs that one environment has seen within their time. Environments do not share it: a proof that is caught in the air can
/// be used once more in each of them, for the same request and within its minute (RFC 9449 §11.1 says what that is worth).
///
/// Bounded: beyond 65,536 proofs in 71 s the oldest are forgotten first, because to refuse good requests in a flood would help
/// whoever makes one.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    current: HashSet<[u8; 16]>,
    previous: HashSet<[u8; 16]>,
    since: i64,
}

impl Seen {
    /// Whether this is the first use of a proof here.
    pub(super) fn first(&self, proof: &Proof, now: Timestamp) -> bool {
        let name = format!("{}\n{}", proof.thumbprint, proof.jti);
        let digest = sha256(name.as_bytes());
        let short = digest.first_chunk::<16>().copied().unwrap_or_default();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.seconds();
        if now - seen.since >= GENERATION || seen.current.len() >= KEPT {
            // Both are too old after a long sleep.
            let stale = now - seen.since >= 2 * GENERATION;
            seen.previous = if stale { HashSet::new() } else { mem::take(&mut seen.current) };
            seen.current.clear();
            seen.since = now;
        }
        !seen.previous.contains(&short) && seen.current.insert(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn proof(thumbprint: &str, jti: &str) -> Proof {
        Proof { thumbprint: thumbprint.to_owned(), jti: jti.to_owned(), issued_at: NOW, nonce: None }
    }

    #[test]
    fn a_proof_counts_once_for_as_long_as_it_could_pass() {
        for offset in 0..GENERATION {
            let seen = Seen::default();
            assert!(seen.first(&proof("a", "0"), NOW.plus_seconds(-offset)));
            assert!(seen.first(&proof("a", "1"), NOW));
            for after in 0..=70 {
                assert!(!seen.first(&proof("a", "1"), NOW.plus_seconds(after)), "{offset} {after}");
            }
            // And where nothing came between.
            for after in 0..=70 {
                let seen = Seen::default();
                assert!(seen.first(&proof("a", "0"), NOW.plus_seconds(-offset)) && seen.first(&proof("a", "1"), NOW));
                assert!(!seen.first(&proof("a", "1"), NOW.plus_seconds(after)), "{offset}, then {after}");
            }
        }
    }

    #[test]
    fn what_can_pass_no_more_is_forgotten() {
        for (slept, held) in [(70, true), (71, true), (141, true), (142, false), (1_000, false)] {
            let seen = Seen::default();
            assert!(seen.first(&proof("a", "1"), NOW));
            assert_eq!(seen.first(&proof("a", "1"), NOW.plus_seconds(slept)), !held, "{slept}");
        }
    }

    #[test]
    fn another_key_or_another_id_is_another_proof() {
        let seen = Seen::default();
        assert!(
            seen.first(&proof("a", "1"), NOW) && seen.first(&proof("b", "1"), NOW) && seen.first(&proof("a", "2"), NOW)
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let seen = Seen::default();
        for number in 0..3 * KEPT {
            assert!(seen.first(&proof("a", &number.to_string()), NOW));
        }
        {
            let held = seen.0.lock().unwrap();
            assert!(held.current.len() <= KEPT && held.previous.len() <= KEPT);
        }
        for seconds in [0, 0, 1, 70] {
            let last = proof("a", &(3 * KEPT - 1).to_string());
            assert!(!seen.first(&last, NOW.plus_seconds(seconds)), "what came last in a flood counts once as well");
        }
    }
}
