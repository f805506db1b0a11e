#![doc = include_str!("../README.md")]

mod cidr;
mod deployment;
mod document;
mod graph;
mod kind;
mod parameter;
mod resolve;
mod scan;
mod template;

pub use self::{
    deployment::{Documents, OWN, Opened, Profile, STACKS, Stack, allowed_types},
    document::{INLINE, inline, merge, yaml},
    graph::{Graph, Resource},
    kind::supported_types,
    template::{Place, Template},
};

/// The text of a scalar, as CloudFormation compares and joins it; `None` for lists, maps and null.
#[must_use]
pub fn scalar(value: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
