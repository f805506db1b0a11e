//! Resources as a tree: literal before `{parameter}` before `{proxy+}`.

use std::{collections::BTreeMap, sync::Arc};

use super::document::Operation;

/// One resource of the API.
#[derive(Debug, Default)]
pub(super) struct Resource {
    literals: BTreeMap<String, Resource>,
    parameter: Option<(String, Box<Resource>)>,
    greedy: Option<(String, Box<Resource>)>,
    operations: BTreeMap<String, Arc<Operation>>,
}

/// A resource found for a path.
#[derive(Debug)]
pub(super) struct Match<'a> {
    operations: &'a BTreeMap<String, Arc<Operation>>,
    /// Still percent-encoded.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Resource {
    /// Adds an operation under its template (`/files/{id}`) and method (`GET` or `ANY`).
    pub(super) fn add(&mut self, template: &str, method: String, operation: Arc<Operation>) -> Result<(), String> {
        let mut node = self;
        let mut ended = false;
        for segment in template.split('/').filter(|segment| !segment.is_empty()) {
            if ended {
                return Err(format!("{template}: nothing can follow a greedy parameter"));
            }
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            node = match name {
                None if segment.contains(['{', '}']) => {
                    return Err(format!("{template}: a parameter must be a whole segment"));
                }
                None => node.literals.entry(segment.to_owned()).or_default(),
                Some(name) => {
                    let (name, slot) = match name.strip_suffix('+') {
                        Some(name) => {
                            ended = true;
                            (name, &mut node.greedy)
                        }
                        None => (name, &mut node.parameter),
                    };
                    let (known, child) = slot.get_or_insert_with(|| (name.to_owned(), Box::default()));
                    if known != name {
                        return Err(format!("{template}: a sibling resource calls this parameter {known}"));
                    }
                    child
                }
            };
        }
        match node.operations.insert(method.clone(), operation) {
            None => Ok(()),
            Some(_) => Err(format!("{template}: {method} twice")),
        }
    }

    /// The most specific resource for a raw path.
    pub(super) fn find(&self, path: &str) -> Option<Match<'_>> {
        let path = path.trim_start_matches('/');
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
        let mut parameters = Vec::new();
        let operations = self.descend(&segments, &mut parameters)?;
        Some(Match { operations, parameters: parameters.into_iter().collect() })
    }

    fn descend(
        &self,
        segments: &[&str],
        parameters: &mut Vec<(String, String)>,
    ) -> Option<&BTreeMap<String, Arc<Operation>>> {
        let Some((first, rest)) = segments.split_first() else {
            return Some(&self.operations);
        };
        if let Some(found) = self.literals.get(*first).and_then(|child| child.descend(rest, parameters)) {
            return Some(found);
        }
        if let Some((name, child)) = self.parameter.as_ref().filter(|_| !first.is_empty()) {
            parameters.push((name.clone(), (*first).to_owned()));
            if let Some(found) = child.descend(rest, parameters) {
                return Some(found);
            }
            parameters.pop();
        }
        let (name, child) = self.greedy.as_ref()?;
        parameters.push((name.clone(), segments.join("/")));
        Some(&child.operations)
    }
}

impl Match<'_> {
    /// The operation for a method, under the name that the document has for it: the exact one, then `ANY`. `HEAD` is not `GET`.
    pub(super) fn operation(&self, method: &str) -> Option<(&str, &Arc<Operation>)> {
        let found = self.operations.get_key_value(method).or_else(|| self.operations.get_key_value("ANY"));
        found.map(|(name, operation)| (name.as_str(), operation))
    }
}
