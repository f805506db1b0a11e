//! Strings of a policy with wildcards and variables.

use std::borrow::Cow;

use super::context::Context;

/// A policy string: text whose wildcards count, and variables whose values are literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
    /// Of one without variables, what it is in every context: with wildcards and without.
    fixed: Option<[Vec<Token>; 2]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Literal(char),
    Variable { key: String, default: Option<String> },
}

/// One character of a resolved pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    One,
    Any,
    Literal(char),
}

impl Template {
    /// Splits `${…}` out of `text`.
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (name, tail) = after.split_once('}').ok_or_else(|| format!("`{text}`: variable without end"))?;
            parts.push(variable(name).ok_or_else(|| format!("`{text}`: not a policy variable"))?);
            rest = tail;
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let varies = parts.iter().any(|part| matches!(part, Part::Variable { .. }));
        let mut template = Template { parts, fixed: None };
        if !varies {
            let nothing = Context::new();
            template.fixed = template.tokens(&nothing, true).zip(template.tokens(&nothing, false)).map(<[_; 2]>::from);
        }
        Ok(template)
    }

    /// The pattern in this context, `None` when a variable has no single value. Without `wildcards`, `*` and `?` of the
    /// text are literal too.
    pub(super) fn resolve(&self, context: &Context, wildcards: bool) -> Option<Cow<'_, [Token]>> {
        match &self.fixed {
            Some([wild, _]) if wildcards => Some(Cow::Borrowed(wild)),
            Some([_, literal]) => Some(Cow::Borrowed(literal)),
            None => self.tokens(context, wildcards).map(Cow::Owned),
        }
    }

    fn tokens(&self, context: &Context, wildcards: bool) -> Option<Vec<Token>> {
        let mut tokens = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) if wildcards => tokens.extend(text.chars().map(token)),
                Part::Text(text) => tokens.extend(text.chars().map(Token::Literal)),
                Part::Literal(letter) => tokens.push(Token::Literal(*letter)),
                Part::Variable { key, default } => {
                    let value = match (context.values(key), default) {
                        (Some([value]), _) => value,
                        (None, Some(default)) => default,
                        _ => return None,
                    };
                    tokens.extend(value.chars().map(Token::Literal));
                }
            }
        }
        Some(tokens)
    }

    /// The variables' keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable { key, .. } => Some(key.as_str()),
            _ => None,
        })
    }
}

fn variable(name: &str) -> Option<Part> {
    match name {
        "*" | "?" | "$" => return name.chars().next().map(Part::Literal),
        _ => {}
    }
    let (key, default) = match name.split_once(',') {
        None => (name.trim(), None),
        Some((key, default)) => {
            let default = default.trim().strip_prefix('\'')?.strip_suffix('\'')?;
            (key.trim(), Some(default.to_owned()))
        }
    };
    key.contains(':').then(|| Part::Variable { key: key.to_owned(), default })
}

/// Wildcard match without regard to case, for actions.
pub(super) fn action_matches(pattern: &str, action: &str) -> bool {
    let lower = |letter: char| letter.to_ascii_lowercase();
    fits(pattern.chars().map(lower).map(token), action.chars().map(lower))
}

/// Wildcard match, case counting.
pub(super) fn wildcard_matches(pattern: &str, text: &str) -> bool {
    fits(pattern.chars().map(token), text.chars())
}

fn token(letter: char) -> Token {
    match letter {
        '*' => Token::Any,
        '?' => Token::One,
        other => Token::Literal(other),
    }
}

/// Whether the whole text fits the pattern.
pub(super) fn matches(pattern: &[Token], text: &str) -> bool {
    fits(pattern.iter().copied(), text.chars())
}

/// Linear in practice: only the last `*` is ever retried.
fn fits<P, T>(mut pattern: P, mut text: T) -> bool
where
    P: Iterator<Item = Token> + Clone,
    T: Iterator<Item = char> + Clone,
{
    // What follows the last `*`, and where in the text it was tried last.
    let mut retry: Option<(P, T)> = None;
    loop {
        let (mut next, mut rest) = (pattern.clone(), text.clone());
        let Some(letter) = rest.next() else { break };
        match next.next() {
            Some(Token::Any) => {
                retry = Some((next.clone(), text.clone()));
                pattern = next;
            }
            Some(token) if token == Token::One || token == Token::Literal(letter) => {
                pattern = next;
                text = rest;
            }
            _ => match &mut retry {
                Some((after, from)) => {
                    from.next();
                    pattern = after.clone();
                    text = from.clone();
                }
                None => return false,
            },
        }
    }
    pattern.all(|token| token == Token::Any)
}

/// Whether an ARN fits a pattern part by part: a `*` of the first five parts does not cross a colon.
pub(super) fn arn_matches(pattern: &[Token], arn: &str) -> bool {
    let wanted: Vec<&[Token]> = pattern.splitn(6, |token| *token == Token::Literal(':')).collect();
    let given: Vec<&str> = arn.splitn(6, ':').collect();
    wanted.len() == 6 && given.len() == 6 && wanted.iter().zip(given).all(|(wanted, given)| matches(wanted, given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_iam_says() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*/t/*", "bucket/t/acme/1", true),
            ("a*b*c", "aXbYbZc", true),
            ("abc", "ABC", false),
            ("*abc", "ababc", true),
            ("a*?c", "ac", false),
            ("a**", "a", true),
            ("", "", true),
            ("", "a", false),
        ] {
            let (template, nothing) = (Template::parse(pattern).unwrap(), Context::new());
            let tokens = template.resolve(&nothing, true).unwrap();
            assert_eq!(matches(&tokens, text), expected, "{pattern} on {text}");
        }
        assert!(action_matches("KMS:decr*", "kms:Decrypt"));
    }

    #[test]
    fn a_variables_value_is_never_a_wildcard() {
        let template = Template::parse("t/${aws:PrincipalTag/tenant}/*").unwrap();
        let tokens = |tenant: &str| template.resolve(&Context::new().with("aws:PrincipalTag/tenant", tenant), true);
        assert!(matches(&tokens("acme").unwrap(), "t/acme/1"));
        assert!(!matches(&tokens("*").unwrap(), "t/acme/1"));
        assert!(template.resolve(&Context::new(), true).is_none());
    }

    #[test]
    fn a_wildcard_in_an_arn_does_not_cross_a_colon() {
        let template = Template::parse("arn:aws:iam::*:role/x").unwrap();
        let tokens = template.resolve(&Context::new(), true).unwrap();
        assert!(arn_matches(&tokens, "arn:aws:iam::111122223333:role/x"));
        assert!(!arn_matches(&tokens, "arn:aws:iam::1:2:role/x"));
    }

    #[test]
    fn malformed_variables_are_faults() {
        for text in ["${aws:x", "${nothing}", "${aws:x, y}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
