//! Versions of operating systems as numbers that policies can compare.

const BASE: i64 = 100_000;
const LARGEST_MAJOR: i64 = 9_000;

/// `((major·10⁵ + minor)·10⁵ + patch)·10⁵ + build` of one to four decimal components, what is absent being 0. `None` for anything
/// else: a version that cannot be read is absent for policies, never 0.
///
/// Five digits because of Windows (10.0.26100.4061); the result can lie above 2⁵³, so the token keeps the text.
pub fn os_version(text: &str) -> Option<i64> {
    let mut components = text.split('.').map(component);
    let major = components.next()?.filter(|major| *major <= LARGEST_MAJOR)?;
    let mut number = major;
    for _ in 0..3 {
        number = number * BASE + components.next().unwrap_or(Some(0))?;
    }
    components.next().is_none().then_some(number)
}

fn component(text: &str) -> Option<i64> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_have_the_numbers_they_are_documented_with() {
        for (text, number) in [
            ("15.6.1", 15_000_060_000_100_000),
            ("10.0.26100.4061", 10_000_002_610_004_061),
            ("14", 14_000_000_000_000_000),
            ("9000.99999.99999.99999", 9_000_999_999_999_999_999),
            ("0", 0),
        ] {
            assert_eq!(os_version(text), Some(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_absent() {
        for text in [
            "",
            ".",
            "15.",
            ".6",
            "15..1",
            "9001",
            "1.100000",
            "1.2.3.4.5",
            "15.6b",
            "-1",
            "+1",
            " 1",
            "1 ",
            "١",
            "v15",
        ] {
            assert_eq!(os_version(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_keep_the_order_of_the_versions(a in parts(), b in parts()) {
            let of = |parts: &[u32; 4]| os_version(&parts.map(|part| part.to_string()).join(".")).unwrap();
            prop_assert_eq!(of(&a).cmp(&of(&b)), a.cmp(&b));
        }
    }

    fn parts() -> impl Strategy<Value = [u32; 4]> {
        (0..=9_000_u32, 0..=99_999_u32, 0..=99_999_u32, 0..=99_999_u32).prop_map(|(a, b, c, d)| [a, b, c, d])
    }
}
