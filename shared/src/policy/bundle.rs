//! Bundles: a schema, policies common and by tenant, and examples with the decisions they must come to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Ask;
use crate::digest::sha256;
use crate::encoding::hex;
use crate::name::Tenant;

/// The schema that this build fills.
pub const SCHEMA: &str = include_str!("../../policies/schema.cedarschema");
const DEFAULT: &str = include_str!("../../policies/default.json");

/// The most policies of a bundle, all tenants together.
const MOST_POLICIES: usize = 5_000;
/// The most examples of a bundle.
const MOST_EXAMPLES: usize = 2_000;
/// The longest text of one policy, in bytes.
const LONGEST_POLICY: usize = 16 * 1024;
/// The largest bundle in canonical form, in bytes.
const LARGEST: usize = 2 * 1024 * 1024;
const LONGEST_NAME: usize = 200;

/// What is judged with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The schema's text.
    pub schema: String,
    /// Policies for everybody.
    pub policies: Vec<Policy>,
    /// Policies that are only ever asked about this tenant's own. They may permit more to it, but nothing that a common policy forbids.
    #[serde(default)]
    pub tenants: BTreeMap<String, Vec<Policy>>,
    /// What the bundle itself must decide, or it is not used.
    pub examples: Vec<Example>,
}

/// One policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name: `[a-z0-9][a-z0-9._-]{0,63}`, once in the common ones and once in each tenant's.
    pub id: String,
    /// One policy in the engine's language.
    pub text: String,
}

/// A question and its answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What it shows.
    pub name: String,
    /// The question.
    pub ask: Ask,
    /// The answer.
    pub expect: Expected,
    /// The policies that must determine it, where named; exactly these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Vec<String>>,
}

/// The answer an example expects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// Allowed.
    Allow,
    /// Denied by a policy or for lack of one. A policy that fails is no answer.
    Deny,
}

/// Why a bundle is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfit {
    /// What kind of fault.
    pub why: Why,
    /// The policy or example, where it is one's.
    pub at: Option<String>,
    /// What its author needs to know; made of the bundle alone.
    pub detail: String,
}

/// What is wrong with a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Not of the documented form.
    Malformed,
    /// More or longer than may be.
    TooLarge,
    /// The schema is not this build's.
    Schema,
    /// A policy is not one policy of the language.
    Syntax,
    /// A policy does not hold under the schema.
    Invalid,
    /// An example came to another decision, or there are none for each answer.
    Example,
    /// The hash is not the bundle's.
    Hash,
}

impl Why {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Schema => "schema",
            Self::Syntax => "syntax",
            Self::Invalid => "invalid",
            Self::Example => "example",
            Self::Hash => "hash",
        }
    }
}

impl Unfit {
    /// A fault without a place.
    pub fn new(why: Why, detail: impl Into<String>) -> Self {
        Self { why, at: None, detail: detail.into() }
    }

    /// The same fault at a policy or example.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        self.at = Some(place.to_owned());
        self
    }
}

impl Bundle {
    /// Reads a bundle: names, numbers and lengths are judged here, the policies themselves by an engine.
    pub fn parse(value: &Value) -> Result<Self, Unfit> {
        // Serde reads a structure from an array of its members too.
        if !value.is_object() {
            return Err(Unfit::new(Why::Malformed, "a bundle is an object"));
        }
        let bundle = Self::deserialize(value).map_err(|error| Unfit::new(Why::Malformed, error.to_string()))?;
        let canonical = canonical(value);
        // Postgres keeps no NUL in a document.
        if canonical.contains("\\u0000") {
            return Err(Unfit::new(Why::Malformed, "a bundle holds no NUL"));
        }
        let lists = std::iter::once(&bundle.policies).chain(bundle.tenants.values());
        let count = lists.clone().map(Vec::len).sum::<usize>();
        if count > MOST_POLICIES || bundle.examples.len() > MOST_EXAMPLES || canonical.len() > LARGEST {
            return Err(Unfit::new(Why::TooLarge, "more policies, examples or bytes than a bundle may have"));
        }
        for policies in lists {
            named_once(policies)?;
        }
        if let Some(tenant) = bundle.tenants.keys().find(|tenant| Tenant::parse(tenant).is_err()) {
            return Err(Unfit::new(Why::Malformed, "no name of a tenant").at(tenant));
        }
        if let Some(example) = bundle.examples.iter().find(|example| example.name.len() > LONGEST_NAME) {
            return Err(Unfit::new(Why::TooLarge, "the name of an example is too long").at(&example.name));
        }
        if bundle.schema != SCHEMA {
            return Err(Unfit::new(Why::Schema, "the schema is not the one that this build fills"));
        }
        Ok(bundle)
    }

    /// The bundle as JSON.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// SHA-256 over the canonical bytes, in hexadecimal.
    pub fn hash(&self) -> String {
        hex(&sha256(canonical(&self.to_value()).as_bytes()))
    }

    /// The bundle that is shipped: whoever is registered has what is registered, and scopes open their routes.
    pub fn shipped() -> Result<Self, Unfit> {
        let mut value: Value = serde_json::from_str(DEFAULT).map_err(|e| Unfit::new(Why::Malformed, e.to_string()))?;
        if let Some(members) = value.as_object_mut() {
            members.insert("schema".to_owned(), SCHEMA.into());
        }
        Self::parse(&value)
    }

    /// How many policies could ever be asked about one tenant's own.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.tenants.values().all(Vec::is_empty)
    }
}

fn named_once(policies: &[Policy]) -> Result<(), Unfit> {
    let mut names = BTreeSet::new();
    for policy in policies {
        let bytes = policy.id.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let named = (1..=64).contains(&bytes.len())
            && bytes.first().is_some_and(plain)
            && bytes.iter().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
        if !named || !names.insert(&policy.id) {
            return Err(Unfit::new(Why::Malformed, "no name of a policy, or one that is taken").at(&policy.id));
        }
        if policy.text.len() > LONGEST_POLICY {
            return Err(Unfit::new(Why::TooLarge, "the policy is too long").at(&policy.id));
        }
    }
    Ok(())
}

/// A bundle with its place in the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// Which publication it was; 0 for the one that is shipped.
    pub version: i64,
    /// [`Bundle::hash`]
    pub hash: String,
    /// The bundle.
    pub bundle: Bundle,
}

impl Release {
    /// Reads `{"version","hash","bundle"}`; the hash must be the bundle's.
    pub fn parse(value: &Value) -> Result<Self, Unfit> {
        let malformed = || Unfit::new(Why::Malformed, "a release has a version, a hash and a bundle");
        let members = value.as_object().filter(|members| members.len() == 3).ok_or_else(malformed)?;
        let version = members.get("version").and_then(Value::as_i64).ok_or_else(malformed)?;
        let hash = members.get("hash").and_then(Value::as_str).ok_or_else(malformed)?;
        let bundle = members.get("bundle").ok_or_else(malformed)?;
        if hex(&sha256(canonical(bundle).as_bytes())) != hash {
            return Err(Unfit::new(Why::Hash, "the hash is another bundle's"));
        }
        Ok(Self { version, hash: hash.to_owned(), bundle: Bundle::parse(bundle)? })
    }

    /// As it is published.
    pub fn to_value(&self) -> Value {
        serde_json::json!({"version": self.version, "hash": self.hash, "bundle": self.bundle.to_value()})
    }
}

/// JSON with members in the order of their names and no white space: the same bytes whoever stored it between.
fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            out.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{}:", Value::from(name.as_str()));
                write(value, out);
            }
            out.push('}');
        }
        plain => {
            let _ = write!(out, "{plain}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shipped() -> Value {
        Bundle::shipped().unwrap().to_value()
    }

    #[test]
    fn the_hash_is_of_the_content_and_not_of_its_spelling() {
        let bundle = Bundle::shipped().unwrap();
        let spelled = serde_json::to_string_pretty(&bundle.to_value()).unwrap();
        let again = Bundle::parse(&serde_json::from_str(&spelled).unwrap()).unwrap();
        assert_eq!(again.hash(), bundle.hash());
        assert_eq!(
            canonical(&json!({"b": [1, {"d": null, "c": "\u{e9}\n"}], "a": true})),
            "{\"a\":true,\"b\":[1,{\"c\":\"é\\n\",\"d\":null}]}"
        );
        let release = Release { version: 3, hash: bundle.hash(), bundle };
        assert_eq!(Release::parse(&release.to_value()).unwrap(), release);
    }

    #[test]
    fn a_release_with_one_changed_letter_is_no_release() {
        let bundle = Bundle::shipped().unwrap();
        let value = Release { version: 1, hash: bundle.hash(), bundle }.to_value();
        let mut changed = value.clone();
        changed["bundle"]["policies"][0]["text"] = json!("permit (principal, action, resource);");
        assert_eq!(Release::parse(&changed).unwrap_err().why, Why::Hash);
        for broken in [json!([1, "", {}]), json!({}), json!({"version": 1, "hash": "", "bundle": {}}), json!(null)] {
            assert!(Release::parse(&broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_is_not_of_the_form_is_no_bundle() {
        let with = |pointer: &str, value: Value| {
            let mut bundle = shipped();
            *bundle.pointer_mut(pointer).unwrap() = value;
            bundle
        };
        let unknown = {
            let mut bundle = shipped();
            bundle["extra"] = json!(1);
            bundle
        };
        for (what, value, why) in [
            ("an array", json!([]), Why::Malformed),
            ("an unknown member", unknown, Why::Malformed),
            ("another schema", with("/schema", json!("namespace Portcullis {}")), Why::Schema),
            ("a name twice", with("/policies/1/id", json!("mint-registered")), Why::Malformed),
            ("a name of capitals", with("/policies/1/id", json!("Mint")), Why::Malformed),
            ("a name like a tenant's", with("/policies/1/id", json!("acme:mint")), Why::Malformed),
            ("no tenant", with("/tenants", json!({"Acme": []})), Why::Malformed),
            ("no answer", with("/examples/0/expect", json!("maybe")), Why::Malformed),
            ("no address", with("/examples/0/ask/net/ip", json!("here")), Why::Malformed),
            ("a long policy", with("/policies/0/text", json!(" ".repeat(LONGEST_POLICY + 1))), Why::TooLarge),
        ] {
            assert_eq!(Bundle::parse(&value).unwrap_err().why, why, "{what}");
        }
    }
}
