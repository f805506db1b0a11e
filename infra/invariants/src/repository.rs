//! The files of the repository that some invariants look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// What invariants need beside the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repository {
    /// The tunnel's configuration, as it is baked into the image.
    pub tunnel: String,
    /// `hosts.json`: the hosts and the tunnel's id.
    pub hosts: String,
    /// What `terraform output -json` printed.
    pub access: String,
    /// The Terraform files, by path.
    pub terraform: BTreeMap<String, Terraform>,
    /// `routes.json`: what the edge lets through.
    pub routes: String,
    /// The routes of `infra/aws/openapi.yaml`, by verb and path.
    pub openapi: BTreeSet<(String, String)>,
    /// The route of an existing application behind the gate, of `infra/aws/app.yaml`.
    pub app: BTreeSet<(String, String)>,
    /// The list of routes and refusals that the system test runs.
    pub refusals: String,
    /// The packages in `functions/`.
    pub packages: BTreeSet<String>,
    /// All `Cargo.toml` and `CargoLambda.toml`, by path; the root's is `Cargo.toml`.
    pub manifests: BTreeMap<String, String>,
    /// The operations of AWS that each source of the adapters sends, by path.
    pub adapters: BTreeMap<String, BTreeSet<String>>,
    /// The list of all roles' grants.
    pub grants: String,
}

/// A Terraform file, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terraform {
    text: String,
    document: Option<Value>,
}

impl Terraform {
    /// Reads a file; one that is no HCL is found by the invariant.
    #[must_use]
    pub fn new(text: String) -> Terraform {
        Terraform { document: hcl::from_str(&text).ok(), text }
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it says; `None` where it is no HCL.
    #[must_use]
    pub fn document(&self) -> Option<&Value> {
        self.document.as_ref()
    }
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
            terraform: files(root, "infra/cloudflare/terraform", &|name| name.ends_with(".tf"))
                .into_iter()
                .map(|(path, text)| (path, Terraform::new(text)))
                .collect(),
            routes: text("infra/cloudflare/routes.json"),
            openapi: tunnel::routes(&text("infra/aws/openapi.yaml")).unwrap_or_default(),
            app: tunnel::routes(&text("infra/aws/app.yaml")).unwrap_or_default(),
            refusals: text("tests/system/refusals.txt"),
            packages: folders(&root.join("functions")),
            manifests: manifests(root),
            adapters: files(root, "shared/adapters", &|name| name.ends_with(".rs") && !name.starts_with("test"))
                .into_iter()
                .filter(|(path, _)| path.contains("/src/"))
                .map(|(path, source)| (path, operations(&source)))
                .collect(),
            grants: text("infra/invariants/grants.txt"),
        };
        if faults.is_empty() { Ok(repository) } else { Err(faults) }
    }
}

/// The SDK operations that a source sends: `.get_object()` and its like, `connect` for a login's token, `?` for a call
/// whose operation cannot be told.
fn operations(source: &str) -> BTreeSet<String> {
    const VERBS: &[&str] = &[
        "abort", "assume", "cancel", "complete", "copy", "create", "delete", "describe", "disable", "enable",
        "generate", "get", "head", "import", "list", "put", "re", "restore", "schedule", "start", "stop", "tag",
        "untag", "update", "upload",
    ];
    let code: String = source.split("#[cfg(test)]").next().unwrap_or_default().split_whitespace().collect();
    let mut found = BTreeSet::new();
    for (end, _) in code.match_indices("()") {
        let name = code.get(..end).and_then(|before| {
            before
                .rsplit(|letter: char| !letter.is_ascii_lowercase() && !letter.is_ascii_digit() && letter != '_')
                .next()
        });
        let Some(name) = name.filter(|name| code.get(..end - name.len()).is_some_and(|before| before.ends_with('.')))
        else {
            continue;
        };
        let verb = name.split_once('_').is_some_and(|(verb, _)| VERBS.contains(&verb));
        if verb || ["encrypt", "decrypt", "sign", "verify"].contains(&name) {
            found.insert(name.to_owned());
        }
    }
    if found.is_empty() && (code.contains(".send()") || code.contains(".presigned(")) {
        found.insert("?".to_owned());
    }
    if code.contains("AuthTokenGenerator") {
        found.insert("connect".to_owned());
    }
    found
}

fn folders(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter(|one| one.path().join("Cargo.toml").is_file())
        .map(|one| one.file_name().to_string_lossy().into_owned())
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_from_the_calls() {
        let source = "client.get()\n.list_objects_v2()\n.bucket(b)\n.send()\n#[cfg(test)] x.put_object()";
        assert_eq!(operations(source), BTreeSet::from(["list_objects_v2".to_owned()]));
        assert_eq!(operations("request.send()"), BTreeSet::from(["?".to_owned()]));
        assert_eq!(operations("value.get(0).len()"), BTreeSet::new());
    }
}
