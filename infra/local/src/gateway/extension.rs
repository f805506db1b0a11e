//! Reading of the document before it means anything: YAML, CloudFormation intrinsics, and a walk that refuses every
//! vendor extension this gateway does not know at that place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Reads YAML; tags (`!Sub`) become the long form (`Fn::Sub`).
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    convert(value)
}

fn convert(value: serde_yaml_ng::Value) -> Result<Value, String> {
    use serde_yaml_ng::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(value),
        Yaml::Number(number) => serde_json::to_value(number).map_err(|error| error.to_string())?,
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(convert).collect::<Result<_, _>>()?),
        Yaml::Mapping(fields) => {
            let mut object = Map::new();
            for (key, value) in fields {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Bool(value) => value.to_string(),
                    other => return Err(format!("a key is not text: {other:?}")),
                };
                object.insert(key, convert(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = tag.trim_start_matches('!');
            let name = if name == "Ref" { name.to_owned() } else { format!("Fn::{name}") };
            Value::Object(Map::from_iter([(name, convert(tagged.value)?)]))
        }
    })
}

/// Replaces `Ref`, `Fn::Sub`, `Fn::GetAtt` and `Fn::Join` everywhere by what `variables` says.
pub(super) fn resolve(value: Value, variables: &BTreeMap<String, String>, faults: &mut Vec<String>) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| resolve(item, variables, faults)).collect(),
        Value::Object(fields) => {
            let intrinsic = fields
                .iter()
                .next()
                .filter(|(name, _)| fields.len() == 1 && (name.as_str() == "Ref" || name.starts_with("Fn::")));
            if let Some((name, argument)) = intrinsic {
                let text = substitute(name, argument, variables).unwrap_or_else(|fault| {
                    faults.push(fault);
                    String::new()
                });
                return Value::String(text);
            }
            fields.into_iter().map(|(name, value)| (name, resolve(value, variables, faults))).collect()
        }
        other => other,
    }
}

fn substitute(name: &str, argument: &Value, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let variable = |name: &str| variables.get(name).cloned().ok_or_else(|| format!("unknown reference {name}"));
    match (name, argument) {
        ("Ref", Value::String(name)) => variable(name),
        ("Fn::GetAtt", Value::String(name)) => variable(name),
        ("Fn::GetAtt", Value::Array(parts)) => {
            let parts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
            variable(&parts.ok_or("Fn::GetAtt takes names")?.join("."))
        }
        ("Fn::Sub", Value::String(text)) => expand(text, &variable),
        ("Fn::Join", Value::Array(parts)) => {
            let [Value::String(separator), Value::Array(items)] = parts.as_slice() else {
                return Err("Fn::Join takes a separator and a list".to_owned());
            };
            let mut texts = Vec::new();
            for item in items {
                texts.push(match item {
                    Value::String(text) => text.clone(),
                    Value::Object(fields) if fields.len() == 1 => {
                        let (name, argument) = fields.iter().next().ok_or("empty intrinsic")?;
                        substitute(name, argument, variables)?
                    }
                    other => return Err(format!("Fn::Join: {other} is no text")),
                });
            }
            Ok(texts.join(separator))
        }
        _ => Err(format!("unsupported intrinsic {name} {argument}")),
    }
}

fn expand(text: &str, variable: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut output = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| format!("Fn::Sub: no end of ${{ in {text}"))?;
        output.push_str(before);
        match name.strip_prefix('!') {
            Some(literal) => output.push_str(&format!("${{{literal}}}")),
            None => output.push_str(&variable(name)?),
        }
        rest = after;
    }
    Ok(output + rest)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Paths,
    PathItem,
    Operation,
    Components,
    Schemes,
    Scheme,
    Elsewhere,
}

impl Place {
    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Root => &[
                "x-amazon-apigateway-binary-media-types",
                "x-amazon-apigateway-gateway-responses",
                "x-amazon-apigateway-request-validator",
                "x-amazon-apigateway-request-validators",
            ],
            Self::PathItem => &["x-amazon-apigateway-any-method"],
            Self::Operation => &[
                "x-amazon-apigateway-integration",
                "x-amazon-apigateway-request-validator",
                "x-portcullis-access",
                "x-portcullis-action",
                "x-portcullis-function",
                "x-portcullis-open",
                "x-portcullis-scopes",
            ],
            Self::Scheme => &["x-amazon-apigateway-authorizer", "x-amazon-apigateway-authtype"],
            Self::Paths | Self::Components | Self::Schemes | Self::Elsewhere => &[],
        }
    }

    fn below(self, name: &str) -> Self {
        match (self, name) {
            (Self::Root, "paths") => Self::Paths,
            (Self::Root, "components") => Self::Components,
            (Self::Components, "securitySchemes") => Self::Schemes,
            (Self::Schemes, _) => Self::Scheme,
            (Self::Paths, _) => Self::PathItem,
            (Self::PathItem, name) if method(name).is_some() => Self::Operation,
            _ => Self::Elsewhere,
        }
    }
}

/// The HTTP method of a path item's key, `ANY` included.
pub(super) fn method(key: &str) -> Option<String> {
    match key {
        "x-amazon-apigateway-any-method" => Some("ANY".to_owned()),
        "get" | "put" | "post" | "delete" | "options" | "head" | "patch" => Some(key.to_uppercase()),
        _ => None,
    }
}

/// Names every `x-amazon-*` and `x-portcullis-*` that is unknown, or known but at another place.
pub(super) fn unknown(document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    walk(document, Place::Root, "", &mut faults);
    faults
}

fn walk(value: &Value, place: Place, location: &str, faults: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let location = format!("{location}/{name}");
                let vendor = name.starts_with("x-amazon-") || name.starts_with("x-portcullis-");
                if vendor && !place.extensions().contains(&name.as_str()) {
                    faults.push(format!("{location}: unknown extension"));
                }
                walk(value, place.below(name), &location, faults);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, Place::Elsewhere, &format!("{location}/{index}"), faults);
            }
        }
        _ => {}
    }
}
