//! One call of one SQL function, as one unnamed typed statement.

use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use crate::fault::SERVICE;
use shared::port::{Fault, FaultKind, Parameter};

/// `SELECT schema.function($1, …)` with its parameters.
pub(crate) struct Statement {
    name: &'static str,
    text: String,
    parameters: Vec<Parameter>,
}

impl Statement {
    /// `function` is `schema.name`, both plain identifiers.
    pub(crate) fn new(function: &'static str, parameters: Vec<Parameter>) -> Result<Self, Fault> {
        let plain = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if !function.split_once('.').is_some_and(|(schema, name)| plain(schema) && plain(name)) {
            return Err(Fault::new(FaultKind::Invalid, SERVICE, "call").caused_by("not a qualified function name"));
        }
        let places: Vec<String> = (1..=parameters.len()).map(|place| format!("${place}")).collect();
        Ok(Self { name: function, text: format!("SELECT {function}({})", places.join(", ")), parameters })
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// Sends it and waits for its one value; SQL's NULL is JSON's.
    pub(crate) async fn run(&self, client: &Client) -> Result<Value, Error> {
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> = self.parameters.iter().map(typed).collect();
        let row = client.query_typed_one(&self.text, &parameters).await?;
        Ok(row.try_get::<_, Option<Value>>(0)?.unwrap_or(Value::Null))
    }
}

fn typed(parameter: &Parameter) -> (&(dyn ToSql + Sync), Type) {
    match parameter {
        Parameter::Text(value) => (value, Type::TEXT),
        Parameter::OptionalText(value) => (value, Type::TEXT),
        Parameter::Uuid(value) => (value, Type::UUID),
        Parameter::OptionalUuid(value) => (value, Type::UUID),
        Parameter::Bytes(value) => (value, Type::BYTEA),
        Parameter::OptionalBytes(value) => (value, Type::BYTEA),
        Parameter::Int(value) => (value, Type::INT8),
        Parameter::OptionalInt(value) => (value, Type::INT8),
        Parameter::Bool(value) => (value, Type::BOOL),
        Parameter::Json(value) => (value, Type::JSONB),
        Parameter::Texts(value) => (value, Type::TEXT_ARRAY),
        Parameter::Uuids(value) => (value, Type::UUID_ARRAY),
        Parameter::OptionalUuids(value) => (value, Type::UUID_ARRAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_select_with_a_place_for_each_parameter() {
        let parameters = vec![Parameter::Text("acme".to_owned()), Parameter::OptionalInt(None)];
        let statement = Statement::new("api.create_file", parameters).expect("a plain name");
        assert_eq!(statement.text, "SELECT api.create_file($1, $2)");
        assert_eq!(Statement::new("api.now", Vec::new()).expect("a plain name").text, "SELECT api.now()");
    }

    #[test]
    fn a_name_that_is_not_two_plain_identifiers_is_refused() {
        for name in ["create_file", "api.", ".f", "api.f(); --", "api.F", "a.b.c", "api.f g", "", "api.1f"] {
            assert!(Statement::new(name, Vec::new()).is_err(), "{name:?}");
        }
    }
}
