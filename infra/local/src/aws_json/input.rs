//! Reading an operation's input: types, lengths and ranges as the service's model states them, unknown members refused.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::Refusal;

/// The members of one request. A `null` member counts as absent.
pub(crate) struct Input<'a> {
    members: &'a Map<String, Value>,
}

impl<'a> Input<'a> {
    /// Takes a request apart; a member that the stand-in does not implement is refused, never skipped.
    pub(crate) fn parse(value: &'a Value, accepted: &[&str]) -> Result<Self, Refusal> {
        let members = value.as_object().ok_or_else(|| Refusal::serialization("Start of structure expected"))?;
        match members.keys().find(|name| !accepted.contains(&name.as_str())) {
            Some(name) => Err(Refusal::invalid(format!("Member '{name}' is not implemented by this stand-in."))),
            None => Ok(Self { members }),
        }
    }

    fn member(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.member(name).is_some()
    }

    pub(crate) fn text(&self, name: &str, shortest: usize, longest: usize) -> Result<Option<&'a str>, Refusal> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong_type(name, "a string"))?;
        check_length(name, &format!(" '{text}'"), text.chars().count(), shortest, longest)?;
        Ok(Some(text))
    }

    /// Text that may be secret: no refusal shows it, and its length is the caller's to judge.
    pub(crate) fn hidden_text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.member(name).map(|value| value.as_str().ok_or_else(|| wrong_type(name, "a string"))).transpose()
    }

    pub(crate) fn required_text(&self, name: &str, shortest: usize, longest: usize) -> Result<&'a str, Refusal> {
        self.text(name, shortest, longest)?.ok_or_else(|| Refusal::missing(name))
    }

    /// One of the values that the model's enumeration lists.
    pub(crate) fn choice(&self, name: &str, values: &[&str]) -> Result<Option<&'a str>, Refusal> {
        let Some(text) = self.text(name, 0, usize::MAX)? else { return Ok(None) };
        if values.contains(&text) {
            return Ok(Some(text));
        }
        let rule = format!("satisfy enum value set: [{}]", values.join(", "));
        Err(Refusal::constraint(name, &format!(" '{text}'"), &rule))
    }

    /// Base64 bytes. They may be secret, so a refusal does not show them.
    pub(crate) fn blob(&self, name: &str, shortest: usize, longest: usize) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong_type(name, "a base64 string"))?;
        let bytes = STANDARD.decode(text).map_err(|_| wrong_type(name, "a base64 string"))?;
        check_length(name, "", bytes.len(), shortest, longest)?;
        Ok(Some(bytes))
    }

    pub(crate) fn required_blob(&self, name: &str, shortest: usize, longest: usize) -> Result<Vec<u8>, Refusal> {
        self.blob(name, shortest, longest)?.ok_or_else(|| Refusal::missing(name))
    }

    pub(crate) fn integer(&self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let number = value.as_i64().ok_or_else(|| wrong_type(name, "an integer"))?;
        let shown = format!(" '{number}'");
        if number < least {
            return Err(Refusal::constraint(name, &shown, &format!("have value greater than or equal to {least}")));
        }
        if number > most {
            return Err(Refusal::constraint(name, &shown, &format!("have value less than or equal to {most}")));
        }
        Ok(Some(number))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        self.member(name).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong_type(name, "a boolean")))
    }

    /// An encryption context; absent and empty are the same.
    pub(crate) fn context(&self, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
        let Some(value) = self.member(name) else { return Ok(BTreeMap::new()) };
        let pairs = value.as_object().ok_or_else(|| wrong_type(name, "a map of strings"))?;
        pairs
            .iter()
            .map(|(key, value)| match value.as_str() {
                Some(value) => Ok((key.clone(), value.to_owned())),
                None => Err(wrong_type(name, "a map of strings")),
            })
            .collect()
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let items = self.list(name)?;
        items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong_type(name, "strings"))).collect()
    }

    /// `[{"TagKey","TagValue"}]` under the tagging rules: lengths, no duplicate key, nothing under `aws:`.
    pub(crate) fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, Refusal> {
        let mut seen = BTreeSet::new();
        let mut tags = BTreeMap::new();
        for item in self.list(name)? {
            let tag = Input::parse(item, &["TagKey", "TagValue"])?;
            let key = tag.required_text("TagKey", 1, 128)?;
            let value = tag.required_text("TagValue", 0, 256)?;
            if key.to_ascii_lowercase().starts_with("aws:") {
                return Err(Refusal::new(
                    "TagException",
                    "aws: prefixed tag key names are not allowed for external use.",
                ));
            }
            if !seen.insert(key) {
                return Err(Refusal::new("TagException", "Duplicate tag keys"));
            }
            tags.insert(key.to_owned(), value.to_owned());
        }
        if tags.len() > 50 {
            return Err(Refusal::new("TagException", "Too many tags"));
        }
        Ok(tags)
    }

    fn list(&self, name: &str) -> Result<&'a [Value], Refusal> {
        let Some(value) = self.member(name) else { return Ok(&[]) };
        value.as_array().map(Vec::as_slice).ok_or_else(|| wrong_type(name, "a list"))
    }
}

fn check_length(name: &str, shown: &str, length: usize, shortest: usize, longest: usize) -> Result<(), Refusal> {
    if length < shortest {
        return Err(Refusal::constraint(name, shown, &format!("have length greater than or equal to {shortest}")));
    }
    if length > longest {
        return Err(Refusal::constraint(name, shown, &format!("have length less than or equal to {longest}")));
    }
    Ok(())
}

fn wrong_type(name: &str, wanted: &str) -> Refusal {
    Refusal::serialization(format!("{name} must be {wanted}"))
}
