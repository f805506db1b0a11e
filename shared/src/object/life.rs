use crate::clock::Timestamp;

/// How long a signed URL lives, in whole seconds: 1 to 300, and never past the life of the session that signs it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UrlLife(u32);

/// The session ends too soon for a URL of use; the caller signs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooShort;

impl UrlLife {
    /// The longest life of any URL, in seconds.
    pub const LONGEST: u32 = 300;
    /// What a URL must at least live, unless less was asked for.
    const SHORTEST: u32 = 60;
    /// A URL dies with its session's credentials, so it is never promised their last minute.
    const MARGIN: i64 = 60;

    /// The life of a URL signed `now`: the smallest of what is asked, 300 s, and what the session has left less 60 s. Refused when
    /// that is less than 60 s, or than what was asked where that is shorter still.
    pub fn within(asked: u32, session_expires: Timestamp, now: Timestamp) -> Result<UrlLife, TooShort> {
        let left = session_expires.millis_since(now).div_euclid(1000).saturating_sub(Self::MARGIN);
        let left = u32::try_from(left).map_err(|_| TooShort)?;
        let life = asked.min(Self::LONGEST).min(left);
        if life == 0 || life < asked.min(Self::SHORTEST) { Err(TooShort) } else { Ok(UrlLife(life)) }
    }

    /// The life in seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// The moment at which a URL signed at `now` dies. URLs carry whole seconds, so it counts from the one that has begun.
    pub fn ends(self, now: Timestamp) -> Timestamp {
        Timestamp::from_seconds(now.seconds()).plus_seconds(i64::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_lives_as_long_as_asked_allowed_and_backed_by_its_session() {
        let now = Timestamp::from_seconds(1_369_353_600);
        let cases = [
            (300, 900, Ok(300)),
            (301, 900, Ok(300)),
            (u32::MAX, 900, Ok(300)),
            (300, 360, Ok(300)),
            (300, 359, Ok(299)),
            (300, 120, Ok(60)),
            (300, 119, Err(TooShort)),
            (300, 65, Err(TooShort)),
            (60, 120, Ok(60)),
            (30, 90, Ok(30)),
            (30, 89, Err(TooShort)),
            (10, 70, Ok(10)),
            (10, 69, Err(TooShort)),
            (1, 61, Ok(1)),
            (0, 900, Err(TooShort)),
            (300, 60, Err(TooShort)),
            (300, 0, Err(TooShort)),
            (300, -10, Err(TooShort)),
        ];
        for (asked, left, want) in cases {
            let life = UrlLife::within(asked, now.plus_seconds(left), now).map(UrlLife::seconds);
            assert_eq!(life, want, "asked {asked} s, session has {left} s");
        }
    }

    #[test]
    fn a_started_second_of_the_session_does_not_count() {
        let now = Timestamp::from_millis(1_000_001);
        assert_eq!(UrlLife::within(60, Timestamp::from_millis(1_120_000), now), Err(TooShort));
        let life = UrlLife::within(60, Timestamp::from_millis(1_121_000), now).unwrap();
        assert_eq!(life.ends(now), Timestamp::from_seconds(1_060));
    }

    proptest! {
        #[test]
        fn no_url_outlives_its_session_the_limit_or_the_wish(asked: u32, session in 0i64..4_102_444_800_000, now in 0i64..4_102_444_800_000) {
            let (session, now) = (Timestamp::from_millis(session), Timestamp::from_millis(now));
            if let Ok(life) = UrlLife::within(asked, session, now) {
                prop_assert!(life.seconds() >= 1 && life.seconds() <= asked && life.seconds() <= 300);
                prop_assert!(life.seconds() >= asked.min(60));
                prop_assert!(life.ends(now).plus_seconds(60) <= session);
            }
        }
    }
}
