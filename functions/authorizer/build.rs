//! Turns the OpenAPI document into the route table, so that what is deployed and what is decided cannot differ.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "cargo speaks with a build script by environment and output"
)]

mod document;

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let source = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../infra/aws/openapi.yaml");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed=document.rs");
    let text = std::fs::read_to_string(&source)?;
    let table = document::table(&serde_yaml_ng::from_str(&text)?)?;
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("routes.rs"), table)?;
    Ok(())
}
