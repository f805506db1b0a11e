//! What must be in no log.

/// How every plaintext and every file of a run begins: twelve letters, so that base64 of it always begins alike.
pub const CANARY: &str = "canary-soak-";
/// The same in base64, plain and for URLs.
pub const CANARY64: &str = "Y2FuYXJ5LXNvYWst";

/// What none may hold: what it is, and how it begins.
const SECRETS: &[(&str, &str)] = &[
    ("a plaintext", CANARY),
    ("a plaintext in base64", CANARY64),
    ("a plaintext in hexadecimal", "63616e6172792d736f616b2d"),
    ("a signature of a URL", "X-Amz-Signature="),
    ("a session token of a URL", "X-Amz-Security-Token="),
    ("a session token of AWS", "IQoJb3JpZ2luX2Vj"),
    ("a private key", "PRIVATE KEY"),
    ("a panic", "panicked at"),
];

/// The first leak of a log, with some of what stands around it.
#[must_use]
pub fn find(log: &str) -> Option<String> {
    let known = SECRETS.iter().find_map(|(what, begins)| Some((*what, log.find(begins)?)));
    let (what, at) = known.or_else(|| Some(("a signed token", signed(log)?)))?;
    let from = (0..=at.saturating_sub(200)).rev().find(|from| log.is_char_boundary(*from)).unwrap_or_default();
    let around: String = log.get(from..).unwrap_or_default().chars().take(500).collect();
    Some(format!("{what}: {around}"))
}

/// Where a compact JWS begins, of whatever kind: access token, assertion, proof, receipt.
fn signed(log: &str) -> Option<usize> {
    log.match_indices("eyJ").map(|(at, _)| at).find(|at| {
        let word: &str = log.get(*at..).unwrap_or_default();
        let end = word.find(|sign: char| !sign.is_ascii_alphanumeric() && !"-_.".contains(sign)).unwrap_or(word.len());
        word.get(..end).unwrap_or_default().matches('.').count() >= 2
    })
}

/// The first of these that is in the log.
#[must_use]
pub fn exactly<'a>(log: &str, secrets: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    secrets.into_iter().find(|secret| !secret.is_empty() && log.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    #[test]
    fn every_kind_of_secret_is_found_and_a_usual_line_is_none() {
        assert_eq!(base64::engine::general_purpose::STANDARD.encode(CANARY), CANARY64);
        let line = r#"{"function":"token","subject":"acme-backend","jti":"0198e1a0-0000-7000-8000-000000000000","decision":"allow"}"#;
        assert_eq!(find(line), None);
        assert_eq!(find("eyJ is no token, and eyJhbGciOiJ9 alone neither."), None);
        for (_, begins) in SECRETS {
            assert!(find(&format!("{line}\n{begins}x\n{line}")).is_some(), "{begins}");
        }
        assert!(
            find(&format!("{line} eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln {line}"))
                .unwrap()
                .starts_with("a signed token")
        );
        assert_eq!(exactly(line, ["", "nothing", "acme-backend"]), Some("acme-backend"));
        assert_eq!(exactly(line, ["nothing"]), None);
    }
}
