//! What is known about a call when its conditions are tested.

use std::collections::BTreeMap;

/// Condition keys and their values. Key names are case-insensitive, values are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// Nothing is known.
    pub fn new() -> Context {
        Context::default()
    }

    /// Adds one value; a second value under the same name joins the first.
    ///
    /// So `kms:EncryptionContext:Tenant` and `kms:EncryptionContext:tenant` are one key with two values, as in AWS,
    /// where the key part of that name is matched without regard to case.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Context {
        self.0.entry(key.to_ascii_lowercase()).or_default().push(value.into());
        self
    }

    /// Sets all values of a key. None at all means the key is absent.
    #[must_use]
    pub fn with_all(mut self, key: &str, values: impl IntoIterator<Item = impl Into<String>>) -> Context {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if values.is_empty() {
            self.0.remove(&key.to_ascii_lowercase());
        } else {
            self.0.insert(key.to_ascii_lowercase(), values);
        }
        self
    }

    /// The values of a key; `None` when it is absent.
    pub fn values(&self, key: &str) -> Option<&[String]> {
        // What a policy has read is in lower case already.
        let found = match key.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => self.0.get(&key.to_ascii_lowercase()),
            false => self.0.get(key),
        };
        found.map(Vec::as_slice)
    }

    /// All keys, in lower case, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// This context with the keys of `other`, which win.
    #[must_use]
    pub fn overlaid(mut self, other: &Context) -> Context {
        self.0.extend(other.0.clone());
        self
    }
}
