//! The API's routes, and whether the edge lets each of them through with the stage before it.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::hosts::Unreadable;

/// `infra/cloudflare/routes.json`: what the edge's rules let through, which Terraform reads as well.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// With a closing slash what lies below, without one the path itself as well.
    pub roots: Vec<String>,
    /// Roots of parts that a deployment may go without, such as an existing application.
    pub optional: Vec<String>,
    /// Methods in capitals.
    pub methods: Vec<String>,
}

/// Where the edge and the OpenAPI document differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteFault {
    /// The document cannot be read as one with paths and operations.
    Document,
    /// A route the edge would refuse.
    Blocked(String),
    /// A method the edge would refuse.
    Method(String),
    /// A root nothing lies below: a hole for nobody.
    Unused(String),
    /// A route below Cloudflare's own paths, which are not rewritten.
    Reserved(String),
    /// Not of its form, such as `files` or `/Files`.
    Form(String),
}

impl fmt::Display for RouteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document => f.write_str("the document has no paths that can be read"),
            Self::Blocked(path) => write!(f, "{path} is in the document and in no root of routes.json"),
            Self::Method(method) => write!(f, "{method} is in the document and not in routes.json"),
            Self::Unused(root) => write!(f, "{root} is in routes.json and nothing in the document lies there"),
            Self::Reserved(path) => write!(f, "{path} lies below /cdn-cgi/, which the edge does not rewrite"),
            Self::Form(text) => write!(f, "{text} is neither a root nor a method of the form the edge's rules need"),
        }
    }
}

impl Edge {
    /// Reads `routes.json`.
    ///
    /// # Errors
    /// [`Unreadable`] with line and column.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(|error| Unreadable::of("routes", &error))
    }

    /// Holds the edge against the OpenAPI document, and whatever optional parts are put into it: it lets through what
    /// they have, and no root more.
    ///
    /// # Errors
    /// Every difference there is.
    pub fn agree(&self, documents: &[&str]) -> Result<(), Vec<RouteFault>> {
        let Some(routes) = documents.iter().map(|document| routes(document)).collect::<Option<Vec<_>>>() else {
            return Err(vec![RouteFault::Document]);
        };
        self.cover(&routes.into_iter().flatten().collect())
    }

    /// The same for routes that are read already, as [`routes`] gives them.
    ///
    /// # Errors
    /// Every difference there is.
    pub fn cover(&self, routes: &BTreeSet<(String, String)>) -> Result<(), Vec<RouteFault>> {
        let mut faults = BTreeSet::new();
        let roots = || self.roots.iter().chain(&self.optional);
        for root in roots().filter(|root| !is_root(root)) {
            faults.insert(RouteFault::Form(root.clone()));
        }
        for root in &self.roots {
            if !routes.iter().any(|(_, path)| covers(root, path)) {
                faults.insert(RouteFault::Unused(root.clone()));
            }
        }
        for method in &self.methods {
            if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
                faults.insert(RouteFault::Form(method.clone()));
            }
        }
        for (method, path) in routes {
            if path.starts_with("/cdn-cgi/") {
                faults.insert(RouteFault::Reserved(path.clone()));
            }
            if !roots().any(|root| covers(root, path)) {
                faults.insert(RouteFault::Blocked(path.clone()));
            }
            if method != "ANY" && !self.methods.contains(method) {
                faults.insert(RouteFault::Method(method.clone()));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.into_iter().collect()) }
    }
}

/// Methods (`ANY` for API Gateway's own) and path templates of an OpenAPI document. None where it has none.
#[must_use]
pub fn routes(document: &str) -> Option<BTreeSet<(String, String)>> {
    let document: Value = serde_yaml_ng::from_str(document).ok()?;
    let mut routes = BTreeSet::new();
    for (path, item) in document.get("paths")?.as_mapping()? {
        let item = item.as_mapping()?;
        // An optional route is there under a condition of the template.
        let item = match item.get("Fn::If") {
            Some(condition) => condition.as_sequence()?.get(1)?.as_mapping()?,
            None => item,
        };
        for key in item.keys() {
            let method = match key.as_str()? {
                "x-amazon-apigateway-any-method" => "ANY".to_owned(),
                method @ ("get" | "put" | "post" | "delete" | "options" | "head" | "patch" | "trace") => {
                    method.to_ascii_uppercase()
                }
                _ => continue,
            };
            routes.insert((method, path.as_str()?.to_owned()));
        }
    }
    (!routes.is_empty()).then_some(routes)
}

/// As the edge's rules compare: below a root, or the root itself where it has no closing slash.
fn covers(root: &str, path: &str) -> bool {
    match root.strip_suffix('/') {
        Some(_) => path.starts_with(root) && path.len() > root.len(),
        None => path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

fn is_root(root: &str) -> bool {
    root.len() > 1
        && root.starts_with('/')
        && !root.contains("//")
        && root.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/-._".contains(&byte))
}
