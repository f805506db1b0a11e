//! Which faults a storm has.

use crate::dice::Dice;

/// What a storm may be made of. `{p}` is a chance between 2 and 15 %.
///
/// Not on it: an answer of KMS, STS or S3 with another letter in it (`wrong`). Nothing stands between these services and a function but TLS,
/// which lets no such answer through, and a function that believed nothing of them could do nothing; docs/soak.md says what would come of it.
const MENU: &[&str] = &[
    "kms throttle {p}",
    "kms.Sign throttle {p}",
    "kms 5xx {p}",
    "kms reset {p}",
    "kms lost {p}",
    "kms cut {p}",
    "kms.GenerateDataKey lost {p}",
    "kms.Decrypt 5xx {p}",
    "kms latency=5ms..400ms {p}",
    "kms.Sign hang 1% first=1",
    "s3 throttle {p}",
    "s3 5xx {p}",
    "s3 reset {p}",
    "s3 lost {p}",
    "s3 cut {p}",
    "s3.PutObject lost {p}",
    "s3.GetObject 5xx {p}",
    "s3 latency=5ms..400ms {p}",
    "s3 stale=20s",
    "s3.GetObject hang 1% first=1",
    "sts throttle {p}",
    "sts 5xx {p}",
    "sts reset {p}",
    "sts cut {p}",
    "sts lost {p}",
    "kms expired {p}",
    "s3.GetObject expired {p}",
    "sts expired {p}",
    "db lost {p}",
    "db.upload lost {p}",
    "db.token lost {p}",
    "db failover 1%",
    "db failover 1% first=5",
    "db refuse {p}",
    "db expired {p}",
    "db latency=2ms..300ms {p}",
    "db.token latency=2ms..500ms {p}",
    "db.download hang 1% first=1",
    "function crash 1%",
    "function.token crash {p}",
    "function.object-events crash {p}",
    "function.trust crash {p}",
    "function.authorizer crash 1%",
    "function.upload crash {p}",
    "function throttle {p}",
    "function.object-events throttle {p}",
    "function latency=5ms..300ms {p}",
    "gateway reset {p}",
    "gateway lost {p}",
    "gateway latency=2ms..200ms {p}",
    "clock skew=+30s",
    "clock skew=-30s",
];

/// The rules of a storm: three to eight of the menu, none twice, one clock at most, and none that begins with one of `without`.
#[must_use]
pub fn rules(seed: u64, storm: u64, without: &[String]) -> String {
    let left_out = |rule: &&str| without.iter().any(|head| rule.starts_with(head.as_str()));
    let menu: Vec<&str> = MENU.iter().copied().filter(|rule| !left_out(rule)).collect();
    let mut dice = Dice::new(seed, format!("storm {storm}"));
    let count = (3 + dice.below(6)).min(menu.len() / 2);
    let mut taken: Vec<&str> = Vec::new();
    while taken.len() < count {
        let Some(rule) = dice.pick(&menu).copied() else { break };
        let clock = rule.starts_with("clock") && taken.iter().any(|one| one.starts_with("clock"));
        if !clock && !taken.contains(&rule) {
            taken.push(rule);
        }
    }
    let chance = |rule: &&str| rule.replace("{p}", &format!("{}%", 2 + dice.below(14)));
    taken.iter().map(chance).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_one_and_a_storm_is_the_same_again() {
        for rule in MENU {
            local::faults::grammar::read(&rule.replace("{p}", "5%")).unwrap();
        }
        for storm in 0..200 {
            let drawn = rules(7, storm, &[]);
            assert_eq!(drawn, rules(7, storm, &[]));
            assert!((3..=8).contains(&local::faults::grammar::read(&drawn).unwrap().len()), "{drawn}");
        }
        assert_ne!(rules(7, 1, &[]), rules(8, 1, &[]));
        let all: Vec<String> = (0..200).map(|storm| rules(1, storm, &[])).collect();
        let without = ["kms".to_owned(), "s3 cut".to_owned()];
        assert!(
            (0..200).all(
                |storm| !rules(1, storm, &without).contains("kms") && !rules(1, storm, &without).contains("s3 cut")
            )
        );
        for rule in MENU {
            let head = rule.split('{').next().unwrap();
            assert!(all.iter().any(|drawn| drawn.contains(head)), "{rule} never comes");
        }
    }
}
