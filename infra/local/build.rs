//! Compiles the deployed templates in, so that a stack cannot run with others than it was built with.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "cargo speaks with a build script by environment and output"
)]

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../aws").canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.join("functions").display());
    let mut names = ["api.yaml", "app.yaml", "bootstrap.yaml", "data.yaml", "network.yaml", "openapi.yaml"]
        .map(str::to_owned)
        .to_vec();
    for entry in std::fs::read_dir(folder.join("functions"))? {
        names.push(format!("functions/{}", entry?.file_name().to_string_lossy()));
    }
    names.sort();
    let mut list = String::from("&[\n");
    for name in names.iter().filter(|name| name.ends_with(".yaml")) {
        let path = folder.join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        list.push_str(&format!("    ({name:?}, include_str!({:?})),\n", path.display().to_string()));
    }
    list.push(']');
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("templates.rs"), list)?;
    Ok(())
}
