//! What the authorizer is configured with.

use shared::config::Reader;
use shared::trust::Accepts;

use crate::event::HttpAnswer;

/// Reads `PORTCULLIS_ENV`, `PORTCULLIS_ISSUER` and `PORTCULLIS_AUDIENCE`; faults stay in the reader.
pub fn read(reader: &Reader<'_>) -> Accepts {
    reader.text("PORTCULLIS_ENV");
    Accepts { issuer: reader.issuer("PORTCULLIS_ISSUER"), audience: reader.text("PORTCULLIS_AUDIENCE") }
}

/// Reads `PORTCULLIS_HTTP_ANSWER`: `simple`, which it is where it is not set, or `policy`.
pub fn http_answer(reader: &Reader<'_>) -> HttpAnswer {
    const NAME: &str = "PORTCULLIS_HTTP_ANSWER";
    let words = [("simple", HttpAnswer::Simple), ("policy", HttpAnswer::Policy)];
    reader.optional(NAME).map_or(HttpAnswer::Simple, |_| reader.choice(NAME, &words, HttpAnswer::Simple))
}

#[cfg(test)]
mod tests {
    use shared::config::Environment;

    use super::*;

    #[test]
    fn an_http_api_is_answered_one_word_unless_a_policy_is_asked_for() {
        for (value, answer) in [
            (None, Some(HttpAnswer::Simple)),
            (Some(""), Some(HttpAnswer::Simple)),
            (Some("simple"), Some(HttpAnswer::Simple)),
            (Some("policy"), Some(HttpAnswer::Policy)),
            (Some("Policy"), None),
            (Some("iam"), None),
        ] {
            let environment = Environment::from_pairs(value.map(|value| ("PORTCULLIS_HTTP_ANSWER", value)));
            let reader = Reader::new(&environment);
            let read = http_answer(&reader);
            assert_eq!(reader.finish().ok().map(|()| read), answer, "{value:?}");
        }
    }
}
