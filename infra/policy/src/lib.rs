#![doc = include_str!("../README.md")]

mod replay;

use cedar::Cedar;
use serde_json::{Value, json};
use shared::policy::{Bundle, Loaded, Release, SCHEMA, Unfit};

pub use replay::{Change, Replay};

/// Reads a bundle as an operator writes it, without the schema, compiles it and runs its examples.
pub fn load(text: &str) -> Result<Loaded<Cedar>, String> {
    let bundle = parse(text)?;
    let release = Release { version: 0, hash: bundle.hash(), bundle };
    Loaded::load(release).map_err(|unfit| describe(&unfit))
}

/// The event that puts the bundle.
pub fn event(text: &str, operator: &str) -> Result<Value, String> {
    load(text)?;
    let mut bundle = parse(text)?.to_value();
    if let Some(members) = bundle.as_object_mut() {
        members.remove("schema");
    }
    Ok(json!({ "operation": "policy.put", "operator": operator, "bundle": bundle }))
}

fn parse(text: &str) -> Result<Bundle, String> {
    let mut value = shared::json::value(text.as_bytes(), 16).map_err(|error| error.to_string())?;
    if let Some(members) = value.as_object_mut() {
        members.entry("schema").or_insert_with(|| SCHEMA.into());
    }
    Bundle::parse(&value).map_err(|unfit| describe(&unfit))
}

fn describe(unfit: &Unfit) -> String {
    let place = unfit.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    format!("{}{place}: {}", unfit.why.as_str(), unfit.detail)
}
