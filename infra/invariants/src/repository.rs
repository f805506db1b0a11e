//! The files of the repository that some invariants look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What invariants need beside the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repository {
    /// The tunnel's configuration, as it is baked into the image.
    pub tunnel: String,
    /// `hosts.json`: the hosts and the tunnel's id.
    pub hosts: String,
    /// What `terraform output -json` printed.
    pub access: String,
    /// The Terraform files, by name.
    pub terraform: BTreeMap<String, String>,
    /// `routes.json`: what the edge lets through.
    pub routes: String,
    /// `infra/aws/openapi.yaml`.
    pub openapi: String,
    /// `infra/aws/app.yaml`: the route of an existing application behind the gate.
    pub app: String,
    /// The list of routes and refusals that the system test runs.
    pub refusals: String,
    /// The packages in `functions/`.
    pub packages: BTreeSet<String>,
    /// All `Cargo.toml` and `CargoLambda.toml`, by path; the root's is `Cargo.toml`.
    pub manifests: BTreeMap<String, String>,
    /// The adapters' sources, by path.
    pub adapters: BTreeMap<String, String>,
    /// The list of all roles' grants.
    pub grants: String,
}

impl Repository {
    /// Reads a repository. Hosts and tunnel configuration are the examples, which are rendered and checked like real
    /// ones; `access` is what Terraform would answer for them.
    ///
    /// # Errors
    /// Every file that cannot be read.
    pub fn read(root: &Path, access: &str) -> Result<Repository, Vec<String>> {
        let mut faults = Vec::new();
        let mut text = |path: &str| match fs::read_to_string(root.join(path)) {
            Ok(text) => text,
            Err(error) => {
                faults.push(format!("{path}: {error}"));
                String::new()
            }
        };
        let repository = Repository {
            tunnel: text("infra/cloudflare/tunnel/config.example.yaml"),
            hosts: text("infra/cloudflare/hosts.example.json"),
            access: access.to_owned(),
            terraform: files(root, "infra/cloudflare/terraform", &|name| name.ends_with(".tf")),
            routes: text("infra/cloudflare/routes.json"),
            openapi: text("infra/aws/openapi.yaml"),
            app: text("infra/aws/app.yaml"),
            refusals: text("tests/system/refusals.txt"),
            packages: folders(&root.join("functions")),
            manifests: manifests(root),
            adapters: files(root, "shared/adapters", &|name| name.ends_with(".rs") && !name.starts_with("test"))
                .into_iter()
                .filter(|(path, _)| path.contains("/src/"))
                .collect(),
            grants: text("infra/invariants/grants.txt"),
        };
        if faults.is_empty() { Ok(repository) } else { Err(faults) }
    }
}

fn folders(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|one| one.path().join("Cargo.toml").is_file()).map(|one| one.file_name().to_string_lossy().into_owned()).collect()
}

fn manifests(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let manifest: &dyn Fn(&str) -> bool = &|name| ["Cargo.toml", "CargoLambda.toml"].contains(&name);
    for folder in ["functions", "shared", "infra", "tests"] {
        found.extend(files(root, folder, manifest));
    }
    for name in ["Cargo.toml", "CargoLambda.toml"] {
        if let Ok(text) = fs::read_to_string(root.join(name)) {
            found.insert(name.to_owned(), text);
        }
    }
    found
}

/// All files below a folder whose name fits, by their path from the root.
fn files(root: &Path, folder: &str, fits: &dyn Fn(&str) -> bool) -> BTreeMap<String, String> {
    let (mut found, mut open): (BTreeMap<String, String>, Vec<PathBuf>) = (BTreeMap::new(), vec![root.join(folder)]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if !["target", "node_modules", ".terraform"].contains(&name.as_str()) {
                    open.push(path);
                }
            } else if fits(&name)
                && let Ok(text) = fs::read_to_string(&path)
            {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                found.insert(name, text);
            }
        }
    }
    found
}
