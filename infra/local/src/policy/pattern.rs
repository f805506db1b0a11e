//! Strings of a policy with wildcards and variables.

use super::context::Context;

/// A policy string: text whose wildcards count, and variables whose values are literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

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
        Ok(Template(parts))
    }

    /// The pattern in this context, `None` when a variable has no single value. Without `wildcards`, `*` and `?` of the
    /// text are literal too.
    pub(super) fn resolve(&self, context: &Context, wildcards: bool) -> Option<Vec<Token>> {
        let mut tokens = Vec::new();
        for part in &self.0 {
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
        self.0.iter().filter_map(|part| match part {
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
    wildcard_matches(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase())
}

/// Wildcard match, case counting.
pub(super) fn wildcard_matches(pattern: &str, text: &str) -> bool {
    let tokens: Vec<Token> = pattern.chars().map(token).collect();
    matches(&tokens, text)
}

fn token(letter: char) -> Token {
    match letter {
        '*' => Token::Any,
        '?' => Token::One,
        other => Token::Literal(other),
    }
}

/// Whether the whole text fits the pattern. Linear in practice: only the last `*` is ever retried.
pub(super) fn matches(pattern: &[Token], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen, mut retry) = (0, 0, None);
    while seen < text.len() {
        match (pattern.get(at), text.get(seen)) {
            (Some(Token::Any), _) => {
                retry = Some((at, seen));
                at += 1;
            }
            (Some(Token::One), Some(_)) => {
                at += 1;
                seen += 1;
            }
            (Some(Token::Literal(wanted)), Some(letter)) if wanted == letter => {
                at += 1;
                seen += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    at = star + 1;
                    seen = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|token| *token == Token::Any)
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
        ] {
            let tokens = Template::parse(pattern).unwrap().resolve(&Context::new(), true).unwrap();
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
        let tokens = Template::parse("arn:aws:iam::*:role/x").unwrap().resolve(&Context::new(), true).unwrap();
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
