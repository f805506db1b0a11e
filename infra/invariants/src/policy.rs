//! Policy documents, read as far as the invariants look into them.

use serde_json::{Map, Value};
use template::{Graph, Resource, scalar};

/// One statement.
#[derive(Debug)]
pub(crate) struct Statement<'a> {
    pub(crate) raw: &'a Map<String, Value>,
    pub(crate) allow: bool,
    pub(crate) actions: Vec<String>,
    pub(crate) resources: Vec<String>,
    pub(crate) conditions: Vec<Condition>,
}

/// One key of a condition block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) operator: String,
    pub(crate) key: String,
    pub(crate) values: Vec<String>,
}

impl Statement<'_> {
    /// Its name, for findings.
    pub(crate) fn sid(&self) -> &str {
        self.raw.get("Sid").and_then(Value::as_str).unwrap_or("(no Sid)")
    }

    /// The condition on a key with an operator.
    pub(crate) fn condition(&self, operator: &str, key: &str) -> Option<&Condition> {
        self.conditions.iter().find(|one| one.operator == operator && one.key.eq_ignore_ascii_case(key))
    }

    /// Whether a condition demands that the key has one of exactly these values.
    pub(crate) fn demands(&self, operator: &str, key: &str, values: &[&str]) -> bool {
        self.condition(operator, key).is_some_and(|one| one.values == values)
    }

    /// Whether a positive condition binds a key that starts so: one that an absent key or any value would not satisfy.
    pub(crate) fn binds(&self, key: &str) -> bool {
        self.conditions.iter().any(|one| {
            ["StringEquals", "StringLike", "ArnEquals", "ArnLike"].contains(&one.operator.as_str())
                && one.key.to_ascii_lowercase().starts_with(&key.to_ascii_lowercase())
                && !one.values.is_empty()
                && one.values.iter().all(|value| !value.trim_matches('*').is_empty())
        })
    }

    /// The principals by their kind; `*` alone is of the kind `*`.
    pub(crate) fn principals(&self) -> Vec<(String, String)> {
        match self.raw.get("Principal") {
            None => Vec::new(),
            Some(Value::Object(kinds)) => kinds
                .iter()
                .flat_map(|(kind, names)| texts(names).into_iter().map(move |name| (kind.clone(), name)))
                .collect(),
            Some(other) => texts(other).into_iter().map(|name| ("*".to_owned(), name)).collect(),
        }
    }

    /// Whether everybody is meant.
    pub(crate) fn is_for_everybody(&self) -> bool {
        self.principals().iter().any(|(_, name)| name == "*")
    }

    /// Whether an action of it covers the given one.
    pub(crate) fn covers(&self, action: &str) -> bool {
        let wide = |pattern: &String| pattern.contains(['*', '?']);
        self.actions.iter().any(|pattern| {
            pattern.eq_ignore_ascii_case(action)
                || (wide(pattern) && wildcard(&pattern.to_ascii_lowercase(), &action.to_ascii_lowercase()))
        })
    }
}

/// The statements of a document, whether it holds one or a list.
pub(crate) fn statements(document: &Value) -> Vec<Statement<'_>> {
    let list: Vec<&Value> = match document.get("Statement") {
        None => Vec::new(),
        Some(Value::Array(items)) => items.iter().collect(),
        Some(one) => vec![one],
    };
    list.into_iter().filter_map(Value::as_object).map(statement).collect()
}

fn statement(raw: &Map<String, Value>) -> Statement<'_> {
    let list = |name: &str| raw.get(name).map(texts).unwrap_or_default();
    let mut conditions = Vec::new();
    for (operator, keys) in raw.get("Condition").and_then(Value::as_object).into_iter().flatten() {
        for (key, values) in keys.as_object().into_iter().flatten() {
            conditions.push(Condition { operator: operator.clone(), key: key.clone(), values: texts(values) });
        }
    }
    Statement {
        raw,
        // Whatever does not say Deny is judged as what it may be.
        allow: raw.get("Effect").and_then(Value::as_str) != Some("Deny"),
        actions: list("Action"),
        resources: list("Resource"),
        conditions,
    }
}

/// A scalar or a list of scalars as texts.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(scalar).collect(),
        one => scalar(one).into_iter().collect(),
    }
}

/// Every policy document in a resource's properties, with the pointer to it. The API's document is looked at elsewhere.
pub(crate) fn documents(resource: &Resource) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in resource.properties.as_object().into_iter().flatten() {
        if name != "Body" {
            search(value, &format!("/{name}"), &mut found);
        }
    }
    found
}

fn search<'a>(value: &'a Value, at: &str, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(fields) if fields.contains_key("Statement") => found.push((at.to_owned(), value)),
        Value::Object(fields) => fields.iter().for_each(|(name, field)| search(field, &format!("{at}/{name}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| search(item, &format!("{at}/{i}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The identity statements of a role, with the pointer to their document: what it may do, not who may take it on.
pub(crate) fn identity<'a>(role: &'a Resource) -> Vec<(String, Statement<'a>)> {
    documents(role)
        .into_iter()
        .filter(|(at, _)| at.starts_with("/Policies"))
        .flat_map(|(at, document)| statements(document).into_iter().map(move |one| (at.clone(), one)))
        .collect()
}

/// A role by its deterministic name without the prefix, e.g. `token`.
pub(crate) fn role<'a>(graph: &'a Graph, deployment: &str) -> Option<&'a Resource> {
    let name = format!("portcullis-{}-{deployment}", graph.environment);
    graph.of_kind("AWS::IAM::Role").find(|role| role.text("/RoleName").as_deref() == Some(&name))
}

/// Whether a pattern with `*` and `?` covers the whole text.
pub(crate) fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut from, mut star) = (0, 0, None);
    while let Some(letter) = text.get(from) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(one) if one == letter || *one == '?' => {
                at += 1;
                from += 1;
            }
            _ => match star {
                Some((star_at, star_from)) => {
                    at = star_at + 1;
                    from = star_from + 1;
                    star = Some((star_at, star_from + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|letter| *letter == '*')
}

/// Whether two patterns can cover one and the same text, for patterns whose only wildcard is a `*` at the end.
pub(crate) fn overlap(left: &str, right: &str) -> bool {
    match (left.strip_suffix('*'), right.strip_suffix('*')) {
        (Some(left), Some(right)) => left.starts_with(right) || right.starts_with(left),
        _ => wildcard(left, right) || wildcard(right, left),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_cover_what_aws_says_they_cover() {
        for (pattern, text, covers) in [
            ("s3:Get*", "s3:GetObject", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a*c", "abcd", false),
            ("a*b*c", "aXbYbc", true),
        ] {
            assert_eq!(wildcard(pattern, text), covers, "{pattern} on {text}");
        }
        assert!(overlap("a/b*", "a/*") && overlap("a/b", "a/*") && !overlap("a/b*", "a/c*") && !overlap("a", "b"));
    }

    #[test]
    fn a_statement_without_deny_is_an_allow() {
        let document =
            json!({"Statement": {"Action": "s3:GetObject", "Condition": {"StringEquals": {"k": ["a", "b"]}}}});
        let statements = statements(&document);
        assert!(statements[0].allow && statements[0].demands("StringEquals", "K", &["a", "b"]));
        assert!(!statements[0].binds("other"));
    }
}
