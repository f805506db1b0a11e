//! Event patterns, as far as the templates use them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// An event pattern: every field must be there and match one of its alternatives.
#[derive(Debug)]
pub(super) enum Pattern {
    Fields(BTreeMap<String, Pattern>),
    Any(Vec<Test>),
}

#[derive(Debug)]
pub(super) enum Test {
    Equals(Value),
    EqualsIgnoringCase(String),
    Prefix(String),
    Suffix(String),
    Wildcard(Vec<String>),
    AnythingBut(Vec<Test>),
    Exists(bool),
}

impl Pattern {
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) if fields.is_empty() => Err("an empty pattern".to_owned()),
            Value::Object(fields) => {
                if let Some(operator) = fields.keys().find(|name| name.starts_with('$')) {
                    return Err(format!("unsupported pattern operator {operator}"));
                }
                let parsed = fields.iter().map(|(name, value)| Ok((name.clone(), Self::parse(value)?)));
                Ok(Self::Fields(parsed.collect::<Result<_, String>>()?))
            }
            Value::Array(tests) if !tests.is_empty() => {
                Ok(Self::Any(tests.iter().map(Test::parse).collect::<Result<_, _>>()?))
            }
            other => Err(format!("a pattern lists alternatives, not {other}")),
        }
    }

    pub(super) fn matches(&self, event: &Value) -> bool {
        self.holds(Some(event))
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Fields(fields) => fields.iter().all(|(name, pattern)| {
                pattern.holds(value.and_then(Value::as_object).and_then(|object| object.get(name)))
            }),
            Self::Any(tests) => match value {
                Some(Value::Array(items)) => tests.iter().any(|test| match test {
                    Test::Exists(wanted) => *wanted,
                    test => items.iter().any(|item| test.holds(Some(item))),
                }),
                value => tests.iter().any(|test| test.holds(value)),
            },
        }
    }
}

impl Test {
    fn parse(value: &Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) if fields.len() == 1 => Self::operator(fields),
            Value::Object(_) | Value::Array(_) => Err(format!("unsupported alternative {value}")),
            plain => Ok(Self::Equals(plain.clone())),
        }
    }

    fn operator(fields: &Map<String, Value>) -> Result<Self, String> {
        let unsupported = || format!("unsupported alternative {}", Value::Object(fields.clone()));
        let (name, value) = fields.iter().next().ok_or_else(unsupported)?;
        let text = || value.as_str().map(str::to_owned).ok_or_else(unsupported);
        Ok(match name.as_str() {
            "prefix" => Self::Prefix(text()?),
            "suffix" => Self::Suffix(text()?),
            "equals-ignore-case" => Self::EqualsIgnoringCase(text()?),
            "wildcard" => Self::Wildcard(text()?.split('*').map(str::to_owned).collect()),
            "exists" => Self::Exists(value.as_bool().ok_or_else(unsupported)?),
            "anything-but" => Self::AnythingBut(match value {
                Value::Array(items) => items.iter().map(Self::parse).collect::<Result<_, _>>()?,
                one => vec![Self::parse(one)?],
            }),
            _ => return Err(unsupported()),
        })
    }

    fn holds(&self, value: Option<&Value>) -> bool {
        let text = value.and_then(Value::as_str);
        match self {
            Self::Equals(wanted) => value == Some(wanted),
            Self::EqualsIgnoringCase(wanted) => text.is_some_and(|text| text.eq_ignore_ascii_case(wanted)),
            Self::Prefix(prefix) => text.is_some_and(|text| text.starts_with(prefix)),
            Self::Suffix(suffix) => text.is_some_and(|text| text.ends_with(suffix)),
            Self::Wildcard(parts) => text.is_some_and(|text| wildcard(parts, text)),
            Self::AnythingBut(tests) => value.is_some() && !tests.iter().any(|test| test.holds(value)),
            Self::Exists(wanted) => value.is_some() == *wanted,
        }
    }
}

/// `parts` are the texts between the stars.
fn wildcard(parts: &[String], text: &str) -> bool {
    let [first, middle @ .., last] = parts else {
        return parts.first().is_some_and(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
        rest = after;
    }
    rest.ends_with(last.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pattern_matches_what_eventbridge_would_match() {
        let event = json!({
            "source": "aws.s3",
            "resources": ["a", "b"],
            "detail": {"bucket": {"name": "objects"}, "object": {"key": "t/acme/1", "size": 5, "deleted": null}},
        });
        let cases = [
            (json!({"source": ["aws.s3"]}), true),
            (json!({"source": ["other", "aws.s3"]}), true),
            (json!({"source": ["AWS.S3"]}), false),
            (json!({"source": [{"equals-ignore-case": "AWS.S3"}]}), true),
            (json!({"source": ["aws.s3"], "detail": {"bucket": {"name": ["other"]}}}), false),
            (json!({"resources": ["b"]}), true),
            (json!({"resources": ["c"]}), false),
            (json!({"detail": {"object": {"size": [5]}}}), true),
            (json!({"detail": {"object": {"size": ["5"]}}}), false),
            (json!({"detail": {"object": {"deleted": [null]}}}), true),
            (json!({"detail": {"object": {"key": [{"prefix": "t/"}]}}}), true),
            (json!({"detail": {"object": {"key": [{"prefix": "x/"}, {"suffix": "/1"}]}}}), true),
            (json!({"detail": {"object": {"key": [{"wildcard": "t/*/1"}]}}}), true),
            (json!({"detail": {"object": {"key": [{"wildcard": "t/*/2"}]}}}), false),
            (json!({"detail": {"object": {"key": [{"anything-but": "t/acme/1"}]}}}), false),
            (json!({"detail": {"object": {"key": [{"anything-but": [{"prefix": "x/"}]}]}}}), true),
            (json!({"detail": {"object": {"missing": [{"anything-but": "x"}]}}}), false),
            (json!({"detail": {"object": {"missing": [{"exists": false}]}}}), true),
            (json!({"detail": {"object": {"key": [{"exists": false}]}}}), false),
            (json!({"missing": {"below": [{"exists": false}]}}), true),
            (json!({"missing": {"below": ["x"]}}), false),
        ];
        for (pattern, wanted) in cases {
            assert_eq!(Pattern::parse(&pattern).unwrap().matches(&event), wanted, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_is_not_understood_is_refused() {
        for pattern in [
            json!({}),
            json!([]),
            json!("aws.s3"),
            json!({"source": "aws.s3"}),
            json!({"source": []}),
            json!({"$or": [{"source": ["a"]}]}),
            json!({"source": [{"cidr": "10.0.0.0/8"}]}),
            json!({"source": [{"numeric": ["=", 1]}]}),
            json!({"source": [{"prefix": "a", "suffix": "b"}]}),
            json!({"source": [["a"]]}),
        ] {
            assert!(Pattern::parse(&pattern).is_err(), "{pattern}");
        }
    }
}
