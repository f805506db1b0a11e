//! Whether a gateway may keep an authorizer's answers: derived from what a decision looks at, and never somebody's guess.
//!
//! API Gateway keeps an answer by the values of its identity sources and by nothing else. Whatever a decision looks at besides could be
//! another thing the next time, and the answer would be the old one.

use super::Reads;

/// Why an answer must be asked for again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Moves {
    /// A policy looks at the time, or at a token's age.
    Time,
    /// A policy looks at the address or the country.
    Network,
    /// A policy looks at the device.
    Device,
    /// A bound token comes with a proof, and a proof counts once.
    Proof,
    /// A person's token counts only beside the assertion of this request.
    Assertion,
    /// An answer names one method on one path.
    Route,
    /// A revocation is known within seconds.
    Revocation,
}

impl Moves {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Network => "network",
            Self::Device => "device",
            Self::Proof => "proof",
            Self::Assertion => "assertion",
            Self::Route => "route",
            Self::Revocation => "revocation",
        }
    }
}

/// What of a decision is not among the `sources` by which a gateway keeps answers, as API Gateway spells them. Anything at all: nothing
/// may be kept, and the time to live is 0.
///
/// A proof is never among them: a source that is absent is refused before anybody is asked, so it would have to come with unbound tokens
/// too, and no two requests have the same one. Nor is a revocation, which no request carries.
pub fn moving(reads: Reads, sources: &[&str]) -> Vec<Moves> {
    let listed = |source: &str| sources.iter().any(|one| one.eq_ignore_ascii_case(source));
    let route = listed("context.httpMethod") && listed("context.path");
    let mut moving = vec![Moves::Proof, Moves::Revocation];
    moving.extend(
        [
            reads.time.then_some(Moves::Time),
            reads.net.then_some(Moves::Network),
            reads.device.then_some(Moves::Device),
            (!listed("method.request.header.Cf-Access-Jwt-Assertion")).then_some(Moves::Assertion),
            (!route).then_some(Moves::Route),
        ]
        .into_iter()
        .flatten(),
    );
    moving.sort_unstable();
    moving
}

/// For how many seconds an answer may be kept.
pub fn seconds(reads: Reads, sources: &[&str]) -> u32 {
    kept(&moving(reads, sources))
}

/// The most that API Gateway knows, were there ever a decision in which nothing moves.
fn kept(moving: &[Moves]) -> u32 {
    if moving.is_empty() { 3_600 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_policy_looks_at_is_named_and_nothing_is_kept() {
        use Moves::{Assertion, Device, Network, Proof, Revocation, Route, Time};
        let all = [
            "method.request.header.Authorization",
            "method.request.header.cf-access-jwt-assertion",
            "context.path",
            "context.httpMethod",
        ];
        let nothing = Reads::default();
        for (reads, sources, expected) in [
            (nothing, &all[..], vec![Proof, Revocation]),
            (nothing, &all[..1], vec![Proof, Assertion, Route, Revocation]),
            (nothing, &all[..3], vec![Proof, Route, Revocation]),
            (Reads { device: true, ..nothing }, &all[..], vec![Device, Proof, Revocation]),
            (Reads::ALL, &all[..1], vec![Time, Network, Device, Proof, Assertion, Route, Revocation]),
        ] {
            assert_eq!(moving(reads, sources), expected, "{reads:?} {sources:?}");
            assert_eq!(seconds(reads, sources), 0);
        }
        for (one, word) in [
            (Time, "time"),
            (Network, "network"),
            (Device, "device"),
            (Proof, "proof"),
            (Assertion, "assertion"),
            (Route, "route"),
            (Revocation, "revocation"),
        ] {
            assert_eq!((kept(&[one]), one.as_str()), (0, word));
        }
        assert_eq!(kept(&[]), 3_600);
    }
}
