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
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../infra/aws");
    println!("cargo::rerun-if-changed=document.rs");
    let mut documents = Vec::new();
    // Where no application stands behind the gate, the API lacks its route and nobody asks about it.
    for name in ["openapi.yaml", "app.yaml"] {
        println!("cargo::rerun-if-changed={}", folder.join(name).display());
        documents.push(serde_yaml_ng::from_str(&std::fs::read_to_string(folder.join(name))?)?);
    }
    let table = document::table(&documents)?;
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("routes.rs"), table)?;
    Ok(())
}
