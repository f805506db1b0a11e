//! Parameters and their versions, in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::aws_json::Refusal;

/// How many versions of a parameter are kept.
const VERSIONS: usize = 100;
/// How many labels a version has at most.
const LABELS: usize = 10;

/// All parameters by name.
pub(super) type Shelf = BTreeMap<String, Parameter>;

/// One parameter; it always has a version.
#[derive(Default)]
pub(super) struct Parameter {
    versions: VecDeque<Version>,
}

/// One version of a parameter. Without `Debug`: the value may be a secret.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) number: i64,
    pub(super) kind: String,
    pub(super) advanced: bool,
    /// A SecureString's is base64 of what KMS sealed.
    pub(super) value: String,
    /// The key as the caller named it, of a SecureString.
    pub(super) key: Option<String>,
    pub(super) description: Option<String>,
    /// Milliseconds since 1970.
    pub(super) modified: u64,
    pub(super) by: String,
    pub(super) labels: BTreeSet<String>,
}

impl Parameter {
    pub(super) fn newest(&self) -> Option<&Version> {
        self.versions.back()
    }

    pub(super) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.versions.iter()
    }

    /// The version that a selector names, by number or label; the newest without one.
    pub(super) fn select(&self, selector: Option<&str>) -> Option<&Version> {
        let Some(selector) = selector else { return self.newest() };
        match selector.parse::<i64>() {
            Ok(number) => self.versions.iter().find(|version| version.number == number),
            Err(_) => self.versions.iter().find(|version| version.labels.contains(selector)),
        }
    }

    /// Adds a version and lets the oldest go when there are too many, unless a label holds it.
    pub(super) fn add(&mut self, version: Version) -> Result<(), Refusal> {
        if self.versions.len() >= VERSIONS {
            if let Some(oldest) = self.versions.front().filter(|oldest| !oldest.labels.is_empty()) {
                let message = format!(
                    "You attempted to create a new version of the parameter by calling the PutParameter API with the \
                     overwrite flag. Version {}, the oldest version, can't be deleted because it has a label associated \
                     with it. Move the label to another version of the parameter, and try again.",
                    oldest.number
                );
                return Err(Refusal::new("ParameterMaxVersionLimitExceeded", message));
            }
            self.versions.pop_front();
        }
        self.versions.push_back(version);
        Ok(())
    }

    /// Puts labels on a version, taking them from any other.
    pub(super) fn label(&mut self, number: i64, labels: &[&str]) -> Result<(), Refusal> {
        let target = self.versions.iter().find(|version| version.number == number);
        let mut held = target.map(|version| version.labels.clone()).unwrap_or_default();
        held.extend(labels.iter().map(|label| (*label).to_owned()));
        if held.len() > LABELS {
            let message = "A parameter version can have maximum 10 labels.";
            return Err(Refusal::new("ParameterVersionLabelLimitExceeded", message));
        }
        for version in &mut self.versions {
            if version.number == number {
                version.labels.clone_from(&held);
            } else {
                labels.iter().for_each(|label| {
                    version.labels.remove(*label);
                });
            }
        }
        Ok(())
    }
}
