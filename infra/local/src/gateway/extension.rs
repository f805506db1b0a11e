//! A walk over the document that refuses every vendor extension this gateway does not know at that place.

use serde_json::Value;

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
