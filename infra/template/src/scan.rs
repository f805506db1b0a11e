//! What can be said of a template without any parameter: no intrinsic and no name in it is unknown, in no branch.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};

const FUNCTIONS: [&str; 14] = [
    "Fn::And",
    "Fn::Cidr",
    "Fn::Contains",
    "Fn::Equals",
    "Fn::FindInMap",
    "Fn::GetAZs",
    "Fn::GetAtt",
    "Fn::If",
    "Fn::Join",
    "Fn::Not",
    "Fn::Or",
    "Fn::Select",
    "Fn::Split",
    "Fn::Sub",
];

const PSEUDO: [&str; 7] = [
    "AWS::AccountId",
    "AWS::NoValue",
    "AWS::Partition",
    "AWS::Region",
    "AWS::StackId",
    "AWS::StackName",
    "AWS::URLSuffix",
];

/// A place in a document, spelled out only where there is a fault to tell.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    Top(&'a str),
    Key(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Top(name) => f.write_str(name),
            At::Key(parent, name) => write!(f, "{parent}/{name}"),
            At::Item(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// The names a template declares.
pub(crate) struct Names<'a> {
    pub(crate) parameters: &'a Map<String, Value>,
    pub(crate) conditions: &'a Map<String, Value>,
    pub(crate) resources: &'a Map<String, Value>,
}

/// Collects the faults of `value` and of all that is in it, whether or not any condition ever chooses it.
pub(crate) fn scan(value: &Value, names: &Names<'_>, at: At<'_>, faults: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| scan(item, names, At::Item(&at, i), faults));
        }
        Value::Object(fields) => {
            if let Some((function, argument)) = intrinsic(fields) {
                if fields.len() != 1 {
                    faults.push(format!("{at}: `{function}` beside other keys"));
                } else {
                    call(function, argument, names, at, faults);
                }
            }
            fields.iter().for_each(|(name, field)| scan(field, names, At::Key(&at, name), faults));
        }
        // What is fetched behind the reader's back cannot be judged.
        Value::String(text) if text.contains("{{resolve:") => {
            faults.push(format!("{at}: a dynamic reference, which this reader cannot see into"));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn call(function: &str, argument: &Value, names: &Names<'_>, at: At<'_>, faults: &mut Vec<String>) {
    let resource = |id: &str| names.resources.contains_key(id);
    let value = |name: &str| names.parameters.contains_key(name) || resource(name) || PSEUDO.contains(&name);
    match (function, argument) {
        ("Ref", Value::String(name)) if value(name) => {}
        ("Ref", name) => {
            faults.push(format!("{at}: Ref to {name}, which is no parameter, resource or pseudo parameter"))
        }
        ("Fn::GetAtt", argument) => {
            let id = match argument {
                Value::String(text) => text.split('.').next(),
                Value::Array(parts) => parts.first().and_then(Value::as_str),
                _ => None,
            };
            if !id.is_some_and(resource) {
                faults.push(format!("{at}: Fn::GetAtt of {argument}, which is no resource"));
            }
        }
        ("Fn::Sub", argument) => {
            let (text, own) = match argument {
                Value::Array(parts) => (parts.first().and_then(Value::as_str), parts.get(1).and_then(Value::as_object)),
                other => (other.as_str(), None),
            };
            for name in text.into_iter().flat_map(placeholders) {
                let id = name.split('.').next().unwrap_or_default();
                let known = own.is_some_and(|own| own.contains_key(name))
                    || if id == name { value(name) } else { resource(id) };
                if !known {
                    faults.push(format!("{at}: Fn::Sub of `{name}`, which is nothing here"));
                }
            }
        }
        ("Fn::If", Value::Array(parts)) => {
            let condition = parts.first().and_then(Value::as_str).unwrap_or_default();
            if !names.conditions.contains_key(condition) {
                faults.push(format!("{at}: unknown condition `{condition}`"));
            }
        }
        (other, _) if !FUNCTIONS.contains(&other) => faults.push(format!("{at}: unknown intrinsic `{other}`")),
        _ => {}
    }
}

/// The names in `${…}`, without literals (`${!…}`).
fn placeholders(text: &str) -> BTreeSet<&str> {
    text.split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with('!'))
        .collect()
}

/// The intrinsic among the keys of a map, with its argument.
pub(crate) fn intrinsic(fields: &Map<String, Value>) -> Option<(&str, &Value)> {
    fields
        .iter()
        .find(|(name, _)| name.starts_with("Fn::") || *name == "Ref")
        .map(|(name, argument)| (name.as_str(), argument))
}
