//! Strict reading of an operator's body: every field is taken by name and type, and one that nobody took is refused.

use serde_json::{Map, Value};

use crate::refusal::{Code, Refusal};

/// The fields of one invocation that were not taken yet.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) fn of(event: Value) -> Result<Self, Refusal> {
        match event {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(Refusal::new(Code::MalformedBody)),
        }
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<String, Refusal> {
        self.optional_text(name)?.ok_or(Refusal::of(Code::MissingField, name))
    }

    pub(crate) fn optional_text(&mut self, name: &'static str) -> Result<Option<String>, Refusal> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::of(Code::WrongType, name)),
        }
    }

    pub(crate) fn bool(&mut self, name: &'static str, default: bool) -> Result<bool, Refusal> {
        match self.0.remove(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(Refusal::of(Code::WrongType, name)),
        }
    }

    pub(crate) fn optional_int(&mut self, name: &'static str) -> Result<Option<i64>, Refusal> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or(Refusal::of(Code::WrongType, name)),
        }
    }

    pub(crate) fn optional_texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, Refusal> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        let texts =
            value.as_array().and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        texts.map(Some).ok_or(Refusal::of(Code::WrongType, name))
    }

    pub(crate) fn optional_value(&mut self, name: &'static str) -> Option<Value> {
        self.0.remove(name)
    }

    pub(crate) fn value(&mut self, name: &'static str) -> Result<Value, Refusal> {
        self.0.remove(name).ok_or(Refusal::of(Code::MissingField, name))
    }

    /// Refuses what is left over, naming the first of it.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Refusal::of_field(Code::UnknownField, name.chars().take(64).collect())),
        }
    }
}
