//! What a service answers when it refuses: code, optional message, HTTP status.

use std::fmt;

/// A refusal as the awsJson1.1 protocol carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error's shape name, e.g. `DisabledException`.
    pub code: &'static str,
    /// Absent for the errors that services answer without text.
    pub message: Option<String>,
    /// 400 for a refusal, 500 and 503 for a failure of the service.
    pub status: u16,
}

impl Refusal {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), status: 400 }
    }

    pub(crate) fn silent(code: &'static str) -> Self {
        Self { code, message: None, status: 400 }
    }

    pub(crate) fn failure(code: &'static str) -> Self {
        Self { code, message: None, status: 500 }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// The validation text of the service's generated checks.
    pub(crate) fn constraint(member: &str, shown: &str, rule: &str) -> Self {
        let name = lower_first(member);
        Self::invalid(format!(
            "1 validation error detected: Value{shown} at '{name}' failed to satisfy constraint: Member must {rule}"
        ))
    }

    pub(crate) fn missing(member: &str) -> Self {
        Self::constraint(member, " null", "not be null")
    }

    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }

    pub(crate) fn unknown_operation() -> Self {
        Self::silent("UnknownOperationException")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)?;
        self.message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
    }
}

impl std::error::Error for Refusal {}

fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
