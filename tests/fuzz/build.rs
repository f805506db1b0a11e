//! The authorizer's route table, made by its own build script's code: [`fuzz`](src/lib.rs) includes the parsers that need it.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "cargo speaks with a build script by environment and output"
)]

#[path = "../../functions/authorizer/document.rs"]
mod document;

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../..");
    println!("cargo::rerun-if-changed={}", root.join("functions/authorizer/document.rs").display());
    let mut documents = Vec::new();
    for name in ["openapi.yaml", "app.yaml"] {
        let file = root.join("infra/aws").join(name);
        println!("cargo::rerun-if-changed={}", file.display());
        documents.push(serde_yaml_ng::from_str(&std::fs::read_to_string(file)?)?);
    }
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("routes.rs"), document::table(&documents)?)?;
    Ok(())
}
