//! Strict reading of an operator's body: every field is taken by name and type, and one that nobody took is refused.

use serde_json::{Map, Value};

use super::refusal::{Code, Denied};

/// The fields of one invocation that were not taken yet.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) fn of(event: Value) -> Result<Self, Denied> {
        match event {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(Denied::new(Code::MalformedBody)),
        }
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<String, Denied> {
        self.optional_text(name)?.ok_or(Denied::of(Code::MissingField, name))
    }

    pub(crate) fn optional_text(&mut self, name: &'static str) -> Result<Option<String>, Denied> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Denied::of(Code::WrongType, name)),
        }
    }

    pub(crate) fn bool(&mut self, name: &'static str, default: bool) -> Result<bool, Denied> {
        match self.0.remove(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(Denied::of(Code::WrongType, name)),
        }
    }

    pub(crate) fn int(&mut self, name: &'static str, default: i64) -> Result<i64, Denied> {
        match self.0.remove(name) {
            None => Ok(default),
            Some(value) => value.as_i64().ok_or(Denied::of(Code::WrongType, name)),
        }
    }

    pub(crate) fn optional_texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, Denied> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        let texts =
            value.as_array().and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        texts.map(Some).ok_or(Denied::of(Code::WrongType, name))
    }

    /// Refuses what is left over, naming the first of it.
    pub(crate) fn finish(self) -> Result<(), Denied> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Denied::of_field(Code::UnknownField, name.chars().take(64).collect())),
        }
    }
}
