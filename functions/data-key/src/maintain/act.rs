//! An operator's act, parsed until it cannot be wrong.

use std::collections::BTreeSet;

use serde_json::Value;
use shared::name::{Identifier, Tenant};
use shared::port::ColumnPlace;
use uuid::Uuid;

use super::fields::Fields;
use super::refusal::{Code, Denied};
use crate::scope::Scope;

/// The operations of the maintaining deployment.
pub(crate) const NAMES: &[&str] = &["keys.rotate", "keys.rewrap", "column.migrate"];
/// The one operation of the deployment that destroys.
const SHRED: &str = "shred";
/// The most keys that one act of shredding names.
const MOST_KEYS: usize = 1_000;

/// One act of the maintaining deployment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Rotate(Rotate),
    Rewrap(Rewrap),
    Migrate(Migrate),
}

/// Which active keys to close.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Rotate {
    /// A tenant's, of one scope or of all.
    Of { tenant: Tenant, scope: Option<String> },
    /// Everybody's whose day has ended.
    Ended,
}

/// From where on, how many, and whether they are only counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rewrap {
    pub(crate) cursor: Option<Uuid>,
    pub(crate) limit: usize,
    pub(crate) dry_run: bool,
}

/// Whose keys to destroy: those of a scope, or those named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shred {
    pub(crate) tenant: Tenant,
    pub(crate) what: Doomed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Doomed {
    Scope(String),
    Keys(Vec<Uuid>),
}

/// Which column to encrypt in place, and what of it to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Migrate {
    pub(crate) tenant: Tenant,
    pub(crate) place: ColumnPlace,
    pub(crate) step: Step,
    pub(crate) after: Option<String>,
    pub(crate) limit: usize,
}

/// The steps of encrypting a column, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Puts a record beside each value.
    Encrypt,
    /// Opens every record and compares.
    Verify,
    /// Takes the values away whose records open to them.
    Clear,
}

impl Step {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Verify => "verify",
            Self::Clear => "clear",
        }
    }
}

impl Migrate {
    /// `table.column`, as scopes name it.
    pub(crate) fn column(&self) -> String {
        [self.place.table.as_str(), ".", self.place.plain.as_str()].concat()
    }
}

impl Act {
    /// Reads an event; with it comes who the operator claims to be.
    pub(crate) fn parse(event: Value) -> Result<(Self, String), Denied> {
        let mut fields = Fields::of(event)?;
        let operation = fields.text("operation")?;
        let operator = operator(&mut fields)?;
        let act = match operation.as_str() {
            "keys.rotate" => Self::Rotate(rotate(&mut fields)?),
            "keys.rewrap" => Self::Rewrap(rewrap(&mut fields)?),
            "column.migrate" => Self::Migrate(migrate(&mut fields)?),
            _ => return Err(Denied::of(Code::UnsupportedOperation, "operation")),
        };
        fields.finish()?;
        Ok((act, operator))
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Rotate(_) => "keys.rotate",
            Self::Rewrap(_) => "keys.rewrap",
            Self::Migrate(_) => "column.migrate",
        }
    }

    /// Whom it is done to, for the log.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Rotate(Rotate::Of { tenant, scope }) => {
                [tenant.as_str(), " ", scope.as_deref().unwrap_or("*")].concat()
            }
            Self::Rotate(Rotate::Ended) => "ended keys".to_owned(),
            Self::Rewrap(_) => "stale keys".to_owned(),
            Self::Migrate(migrate) => format!("{} {} {}", migrate.tenant, migrate.column(), migrate.step.as_str()),
        }
    }
}

impl Shred {
    /// Reads an event; with it comes who the operator claims to be.
    pub(crate) fn parse(event: Value) -> Result<(Self, String), Denied> {
        let mut fields = Fields::of(event)?;
        let operation = fields.text("operation")?;
        let operator = operator(&mut fields)?;
        if operation != SHRED {
            return Err(Denied::of(Code::UnsupportedOperation, "operation"));
        }
        let shred = shred(&mut fields)?;
        fields.finish()?;
        Ok((shred, operator))
    }

    /// Whom it is done to, for the log.
    pub(crate) fn target(&self) -> String {
        match &self.what {
            Doomed::Scope(scope) => [self.tenant.as_str(), " ", scope].concat(),
            Doomed::Keys(keys) => format!("{} {} keys", self.tenant, keys.len()),
        }
    }
}

fn rotate(fields: &mut Fields) -> Result<Rotate, Denied> {
    if fields.bool("ended", false)? {
        return Ok(Rotate::Ended);
    }
    let tenant = tenant(fields)?;
    let scope = fields.optional_text("scope")?;
    match &scope {
        // An index key has no day: whoever rotated it would search in vain.
        Some(scope) if scope == "index" || !is_scope(scope) => Err(Denied::of(Code::InvalidScope, "scope")),
        _ => Ok(Rotate::Of { tenant, scope }),
    }
}

fn rewrap(fields: &mut Fields) -> Result<Rewrap, Denied> {
    let cursor = match fields.optional_text("cursor")? {
        None => None,
        Some(text) => Some(Uuid::try_parse(&text).map_err(|_| Denied::of(Code::InvalidCursor, "cursor"))?),
    };
    let limit = fields.int("limit", 10_000)?;
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=100_000).contains(limit));
    let limit = limit.ok_or(Denied::of(Code::InvalidLimit, "limit"))?;
    Ok(Rewrap { cursor, limit, dry_run: fields.bool("dry_run", false)? })
}

fn shred(fields: &mut Fields) -> Result<Shred, Denied> {
    let tenant = tenant(fields)?;
    let what = match (fields.optional_text("scope")?, fields.optional_texts("keys")?) {
        (Some(scope), None) if is_scope(&scope) => Doomed::Scope(scope),
        (Some(_), None) => return Err(Denied::of(Code::InvalidScope, "scope")),
        (None, Some(keys)) => Doomed::Keys(ids(&keys)?),
        (Some(_), Some(_)) => return Err(Denied::of(Code::UnknownField, "keys")),
        (None, None) => return Err(Denied::of(Code::MissingField, "scope")),
    };
    let confirm = fields.text("confirm")?;
    let expected = match &what {
        Doomed::Scope(scope) => scope.as_str(),
        Doomed::Keys(_) => tenant.as_str(),
    };
    if confirm == expected { Ok(Shred { tenant, what }) } else { Err(Denied::of(Code::NotConfirmed, "confirm")) }
}

fn migrate(fields: &mut Fields) -> Result<Migrate, Denied> {
    let tenant = tenant(fields)?;
    let step = match fields.text("step")?.as_str() {
        "encrypt" => Step::Encrypt,
        "verify" => Step::Verify,
        "clear" => Step::Clear,
        _ => return Err(Denied::of(Code::InvalidStep, "step")),
    };
    let schema = identifier("schema", fields.optional_text("schema")?.unwrap_or_else(|| "public".to_owned()))?;
    let (table, key) = (identifier("table", fields.text("table")?)?, identifier("key", fields.text("key")?)?);
    let plain = identifier("column", fields.text("column")?)?;
    let sealed = fields.optional_text("sealed")?.unwrap_or_else(|| [plain.as_str(), "_pc1"].concat());
    let sealed = identifier("sealed", sealed)?;
    if sealed == plain || sealed == key || plain == key {
        return Err(Denied::of(Code::InvalidSealed, "sealed"));
    }
    let only = match fields.optional_text("tenant_column")? {
        None => None,
        Some(column) => Some((identifier("tenant_column", column)?, tenant.as_str().to_owned())),
    };
    let after = fields.optional_text("cursor")?;
    if after.as_ref().is_some_and(|after| after.len() > 1_024 || after.contains('\0')) {
        return Err(Denied::of(Code::InvalidCursor, "cursor"));
    }
    let limit = fields.int("limit", 100_000)?;
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=10_000_000).contains(limit));
    let limit = limit.ok_or(Denied::of(Code::InvalidLimit, "limit"))?;
    let act = Migrate { tenant, place: ColumnPlace { schema, table, key, plain, sealed, only }, step, after, limit };
    if step == Step::Clear && fields.text("confirm")? != act.column() {
        return Err(Denied::of(Code::NotConfirmed, "confirm"));
    }
    Ok(act)
}

fn identifier(field: &'static str, text: String) -> Result<Identifier, Denied> {
    Identifier::parse(&text).map_err(|_| Denied::of(Code::InvalidName, field))
}

/// Each id once, however often it is named.
fn ids(texts: &[String]) -> Result<Vec<Uuid>, Denied> {
    let invalid = || Denied::of(Code::InvalidKeys, "keys");
    if texts.is_empty() || texts.len() > MOST_KEYS {
        return Err(invalid());
    }
    let ids: Result<BTreeSet<Uuid>, _> = texts.iter().map(|text| Uuid::try_parse(text)).collect();
    ids.map(|ids| ids.into_iter().collect()).map_err(|_| invalid())
}

/// `column:{table}/{column}`, `subject:{opaque id}` or `index`: what the table of keys holds.
fn is_scope(text: &str) -> bool {
    let column = || {
        let (table, column) = text.strip_prefix("column:")?.split_once('/')?;
        Identifier::parse(table).and(Identifier::parse(column)).ok()
    };
    text == "index" || Scope::subject(text).is_ok() || column().is_some()
}

fn operator(fields: &mut Fields) -> Result<String, Denied> {
    let operator = fields.text("operator")?;
    let printable = matches!(operator.len(), 1..=128) && operator.bytes().all(|b| b.is_ascii_graphic());
    if printable { Ok(operator) } else { Err(Denied::of(Code::InvalidOperator, "operator")) }
}

fn tenant(fields: &mut Fields) -> Result<Tenant, Denied> {
    Tenant::parse(&fields.text("tenant")?).map_err(|_| Denied::of(Code::InvalidTenant, "tenant"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "01920000-0000-7000-8000-0000000000a1";

    fn refused(event: Value) -> (Code, Option<String>) {
        let denied = if event["operation"] == "shred" {
            Shred::parse(event).unwrap_err()
        } else {
            Act::parse(event).unwrap_err()
        };
        (denied.code, denied.field)
    }

    #[test]
    fn every_act_is_read_with_its_defaults() {
        let read = |event: Value| Act::parse(event).unwrap();
        let tenant = Tenant::parse("acme").unwrap();
        let (act, operator) = read(json!({"operation": "keys.rotate", "operator": "ann", "tenant": "acme"}));
        assert_eq!(operator, "ann");
        assert_eq!(act, Act::Rotate(Rotate::Of { tenant: tenant.clone(), scope: None }));
        assert_eq!(
            read(json!({"operation": "keys.rotate", "operator": "ann", "ended": true})).0,
            Act::Rotate(Rotate::Ended)
        );
        let (act, _) = read(json!({"operation": "keys.rewrap", "operator": "ann"}));
        assert_eq!(act, Act::Rewrap(Rewrap { cursor: None, limit: 10_000, dry_run: false }));
        let event =
            json!({"operation": "shred", "operator": "ann", "tenant": "acme", "keys": [ID, ID], "confirm": "acme"});
        let (act, operator) = Shred::parse(event).unwrap();
        assert_eq!((act.target().as_str(), operator.as_str()), ("acme 1 keys", "ann"));
        assert_eq!(act, Shred { tenant, what: Doomed::Keys(vec![Uuid::try_parse(ID).unwrap()]) });
    }

    #[test]
    fn neither_deployment_has_the_others_acts() {
        let shred =
            json!({"operation": "shred", "operator": "ann", "tenant": "acme", "scope": "index", "confirm": "index"});
        let unsupported = Denied::of(Code::UnsupportedOperation, "operation");
        assert_eq!(Act::parse(shred), Err(unsupported.clone()));
        for operation in NAMES {
            let event = json!({"operation": operation, "operator": "ann", "tenant": "acme"});
            assert_eq!(Shred::parse(event), Err(unsupported.clone()), "{operation}");
        }
    }

    #[test]
    fn whatever_is_not_of_its_form_is_refused_by_name() {
        let rotate = |name: &str, value: Value| {
            let mut event = json!({"operation": "keys.rotate", "operator": "ann", "tenant": "acme"});
            event[name] = value;
            event
        };
        let column = |name: &str, value: Value| {
            let mut event = json!({"operation": "column.migrate", "operator": "ann", "tenant": "acme", "table": "users", "key": "id",
                "column": "ssn", "step": "encrypt"});
            event[name] = value;
            event
        };
        let shred = |more: Value| {
            let mut event = json!({"operation": "shred", "operator": "ann", "tenant": "acme"});
            for (name, value) in more.as_object().unwrap() {
                event[name] = value.clone();
            }
            event
        };
        for (event, code, field) in [
            (json!([]), Code::MalformedBody, None),
            (json!({}), Code::MissingField, Some("operation")),
            (rotate("operation", json!(1)), Code::WrongType, Some("operation")),
            (rotate("operation", json!("keys.forget")), Code::UnsupportedOperation, Some("operation")),
            (json!({"operation": "keys.rotate"}), Code::MissingField, Some("operator")),
            (rotate("operator", json!("")), Code::InvalidOperator, Some("operator")),
            (rotate("operator", json!("ann smith")), Code::InvalidOperator, Some("operator")),
            (rotate("operator", json!("é")), Code::InvalidOperator, Some("operator")),
            (rotate("operator", json!("a".repeat(129))), Code::InvalidOperator, Some("operator")),
            (rotate("tenant", json!("Acme")), Code::InvalidTenant, Some("tenant")),
            (rotate("tenant", json!(null)), Code::WrongType, Some("tenant")),
            (rotate("scope", json!("index")), Code::InvalidScope, Some("scope")),
            (rotate("scope", json!("column:users")), Code::InvalidScope, Some("scope")),
            (rotate("scope", json!("column:us.ers/email")), Code::InvalidScope, Some("scope")),
            (rotate("scope", json!("subject:")), Code::InvalidScope, Some("scope")),
            (rotate("scope", json!("%")), Code::InvalidScope, Some("scope")),
            (rotate("ended", json!("yes")), Code::WrongType, Some("ended")),
            // Everybody's ended keys are nobody's in particular.
            (rotate("ended", json!(true)), Code::UnknownField, Some("tenant")),
            (rotate("requestContext", json!({})), Code::UnknownField, Some("requestContext")),
            (json!({"operation": "keys.rewrap", "operator": "a", "cursor": "x"}), Code::InvalidCursor, Some("cursor")),
            (json!({"operation": "keys.rewrap", "operator": "a", "limit": 0}), Code::InvalidLimit, Some("limit")),
            (json!({"operation": "keys.rewrap", "operator": "a", "limit": 100_001}), Code::InvalidLimit, Some("limit")),
            (json!({"operation": "keys.rewrap", "operator": "a", "limit": 1.5}), Code::WrongType, Some("limit")),
            (
                json!({"operation": "keys.rewrap", "operator": "a", "tenant": "acme"}),
                Code::UnknownField,
                Some("tenant"),
            ),
            (column("step", json!("undo")), Code::InvalidStep, Some("step")),
            (column("table", json!("public.users")), Code::InvalidName, Some("table")),
            (column("key", json!("id\"; --")), Code::InvalidName, Some("key")),
            (column("column", json!("")), Code::InvalidName, Some("column")),
            (column("sealed", json!("ssn")), Code::InvalidSealed, Some("sealed")),
            (column("sealed", json!("id")), Code::InvalidSealed, Some("sealed")),
            (column("schema", json!("p-1")), Code::InvalidName, Some("schema")),
            (column("tenant_column", json!("t t")), Code::InvalidName, Some("tenant_column")),
            (column("cursor", json!("a\0b")), Code::InvalidCursor, Some("cursor")),
            (column("limit", json!(0)), Code::InvalidLimit, Some("limit")),
            (column("step", json!("clear")), Code::MissingField, Some("confirm")),
            (column("confirm", json!("users.ssn")), Code::UnknownField, Some("confirm")),
            (column("host", json!("elsewhere")), Code::UnknownField, Some("host")),
            (shred(json!({})), Code::MissingField, Some("scope")),
            (shred(json!({"scope": "subject:s"})), Code::MissingField, Some("confirm")),
            (shred(json!({"scope": "subject:s", "confirm": "subject:t"})), Code::NotConfirmed, Some("confirm")),
            (shred(json!({"scope": "subject:s", "confirm": "acme"})), Code::NotConfirmed, Some("confirm")),
            (shred(json!({"scope": "everything", "confirm": "everything"})), Code::InvalidScope, Some("scope")),
            (shred(json!({"scope": "subject:s", "keys": [ID], "confirm": "acme"})), Code::UnknownField, Some("keys")),
            (shred(json!({"keys": [], "confirm": "acme"})), Code::InvalidKeys, Some("keys")),
            (shred(json!({"keys": ["x"], "confirm": "acme"})), Code::InvalidKeys, Some("keys")),
            (shred(json!({"keys": [1], "confirm": "acme"})), Code::WrongType, Some("keys")),
            (shred(json!({"keys": vec![ID; 1_001], "confirm": "acme"})), Code::InvalidKeys, Some("keys")),
            (shred(json!({"keys": [ID], "confirm": "subject:s"})), Code::NotConfirmed, Some("confirm")),
        ] {
            assert_eq!(refused(event.clone()), (code, field.map(str::to_owned)), "{event}");
        }
    }
}
