//! A column of somebody else's table, for encrypting it in place.
//!
//! The one place that makes SQL of names: the table is not ours, so it has no function of ours. Every name is a plain identifier and is
//! quoted, every value is a parameter, the key's type comes from a list, and what the login may touch is what its owner granted
//! column by column. Each statement is typed and unnamed, as all of ours.

use std::fmt;
use std::time::Duration;

use shared::name::Identifier;
use shared::port::{Column, ColumnChange, ColumnPlace, ColumnRow, ColumnShape, Fault, FaultKind};
use shared::secret::{SecretBytes, wipe};
use tokio::sync::Mutex;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::connect::{Dialer, RdsSettings};
use crate::fault::{SERVICE, fault};

/// The types that a key may have: each has an order, and a text that is one to one.
const KEYS: &[&str] = &["smallint", "integer", "bigint", "uuid", "text", "character varying"];
/// The types that can be encrypted; all but `bytea` are read as the bytes of their UTF-8.
const PLAIN: &[&str] = &["bytea", "text", "character varying"];

/// The database of somebody else, under the login that its owner granted.
pub struct Target {
    dialer: Dialer,
    patience: Duration,
    held: Mutex<Option<Client>>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}

impl Target {
    /// Takes the settings; nothing is opened.
    #[must_use]
    pub fn new(settings: RdsSettings, aws: &aws::Connector) -> Self {
        let patience = settings.statement_timeout;
        Self { dialer: Dialer::new(settings, aws), patience, held: Mutex::new(None) }
    }

    /// One statement and its rows. A connection that failed is not used again; whether to send anything again is the caller's.
    async fn rows(
        &self,
        operation: &'static str,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Fault> {
        let mut held = self.held.lock().await;
        let client = match held.take() {
            Some(client) if !client.is_closed() => client,
            _ => self.dialer.connect().await?,
        };
        let answer = tokio::time::timeout(self.patience, client.query_typed(statement, parameters)).await;
        match answer {
            Ok(Ok(rows)) => {
                *held = Some(client);
                Ok(rows)
            }
            Ok(Err(error)) => Err(fault(operation, error)),
            Err(_) => Err(Fault::new(FaultKind::Unavailable, SERVICE, operation).caused_by("statement timeout")),
        }
    }

    async fn change(
        &self,
        operation: &'static str,
        place: &ColumnPlace,
        statement: &str,
        changes: Vec<ColumnChange>,
    ) -> Result<u64, Fault> {
        let (mut keys, mut plains) = (Vec::new(), Vec::new());
        let (mut befores, mut records) = (Vec::new(), Vec::new());
        for change in changes {
            keys.push(change.key);
            plains.push(change.plain.expose().to_vec());
            befores.push(change.before);
            records.push(change.record);
        }
        let only = place.only.as_ref().map(|(_, value)| value.as_str());
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            vec![(&keys, Type::TEXT_ARRAY), (&plains, Type::BYTEA_ARRAY), (&befores, Type::BYTEA_ARRAY)];
        if operation == SEAL {
            parameters.push((&records, Type::BYTEA_ARRAY));
        }
        if let Some(only) = &only {
            parameters.push((only, Type::TEXT));
        }
        let answer = self.rows(operation, statement, &parameters).await;
        plains.iter_mut().for_each(|plain| wipe(plain));
        answer.map(|rows| u64::try_from(rows.len()).unwrap_or(u64::MAX))
    }
}

const SEAL: &str = "column.seal";
const CLEAR: &str = "column.clear";

impl Column for Target {
    async fn shape(&self, place: &ColumnPlace) -> Result<Option<ColumnShape>, Fault> {
        let table = table(place);
        let names = [&place.key, &place.plain, &place.sealed].map(|name| name.as_str().to_owned()).to_vec();
        let statement = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, NULL), NOT a.attnotnull, c.reltuples::bigint,
                    EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
                               AND i.indimmediate AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
              WHERE c.oid = pg_catalog.to_regclass($1) AND a.attname = ANY ($2) AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = ''";
        let rows = self.rows("column.shape", statement, &[(&table, Type::TEXT), (&names, Type::TEXT_ARRAY)]).await?;
        let of = |name: &Identifier| rows.iter().find(|row| row.try_get::<_, &str>(0).ok() == Some(name.as_str()));
        let (Some(key), Some(plain), Some(sealed)) = (of(&place.key), of(&place.plain), of(&place.sealed)) else {
            return Ok(None);
        };
        Ok(Some(ColumnShape {
            key: read(key, 1)?,
            key_is_unique: read::<bool>(key, 4)? && !read::<bool>(key, 2)?,
            plain: read(plain, 1)?,
            plain_may_be_null: read(plain, 2)?,
            sealed: read(sealed, 1)?,
            rows: read(key, 3)?,
        }))
    }

    async fn page(
        &self,
        place: &ColumnPlace,
        shape: &ColumnShape,
        after: Option<&str>,
        limit: i64,
        longest: i64,
    ) -> Result<Vec<ColumnRow>, Fault> {
        let statement = page_statement(place, Types::of(shape)?, after.is_some());
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&limit, Type::INT8), (&longest, Type::INT8)];
        if let Some(after) = &after {
            parameters.push((after, Type::TEXT));
        }
        let only = place.only.as_ref().map(|(_, value)| value.as_str());
        if let Some(only) = &only {
            parameters.push((only, Type::TEXT));
        }
        let rows = self.rows("column.page", &statement, &parameters).await?;
        rows.iter()
            .map(|row| {
                Ok(ColumnRow {
                    key: read(row, 0)?,
                    plain: read::<Option<Vec<u8>>>(row, 1)?.map(SecretBytes::new),
                    length: read(row, 2)?,
                    sealed: read(row, 3)?,
                })
            })
            .collect()
    }

    async fn seal(&self, place: &ColumnPlace, shape: &ColumnShape, changes: Vec<ColumnChange>) -> Result<u64, Fault> {
        let statement = change_statement(place, Types::of(shape)?, true);
        self.change(SEAL, place, &statement, changes).await
    }

    async fn clear(&self, place: &ColumnPlace, shape: &ColumnShape, changes: Vec<ColumnChange>) -> Result<u64, Fault> {
        let statement = change_statement(place, Types::of(shape)?, false);
        self.change(CLEAR, place, &statement, changes).await
    }
}

fn read<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Fault> {
    row.try_get(column).map_err(|error| fault("column", error))
}

/// Types by the names that the database gave them, if they are on our lists: nothing else becomes part of a statement.
#[derive(Clone, Copy)]
struct Types {
    key: &'static str,
    plain: &'static str,
}

impl Types {
    fn of(shape: &ColumnShape) -> Result<Self, Fault> {
        let known = |name: &str, list: &[&'static str]| list.iter().copied().find(|one| *one == name);
        match (known(&shape.key, KEYS), known(&shape.plain, PLAIN)) {
            (Some(key), Some(plain)) => Ok(Self { key, plain }),
            _ => Err(Fault::new(FaultKind::Invalid, SERVICE, "column").caused_by("a type that is not known here")),
        }
    }

    /// The bytes of a column that stands in clear.
    fn bytes(self, column: &str) -> String {
        if self.plain == "bytea" { column.to_owned() } else { format!("convert_to({column}, 'UTF8')") }
    }
}

/// A plain identifier has no quotation mark in it: quoting keeps capitals and reserved words what they are.
fn quoted(name: &Identifier) -> String {
    format!("\"{}\"", name.as_str())
}

fn table(place: &ColumnPlace) -> String {
    format!("{}.{}", quoted(&place.schema), quoted(&place.table))
}

fn page_statement(place: &ColumnPlace, types: Types, after: bool) -> String {
    // Of the table by name: an output column of the same name is text, and would be sorted as text.
    let [key, plain, sealed] = [&place.key, &place.plain, &place.sealed].map(|name| format!("t.{}", quoted(name)));
    let (bytes, key_type) = (types.bytes(&plain), types.key);
    let mut next = 3;
    let mut conditions = format!("({plain} IS NOT NULL OR {sealed} IS NOT NULL)");
    if after {
        conditions.push_str(&format!(" AND {key} > ${next}::text::{key_type}"));
        next += 1;
    }
    if let Some((column, _)) = &place.only {
        conditions.push_str(&format!(" AND t.{}::text = ${next}", quoted(column)));
    }
    format!(
        "SELECT {key}::text, CASE WHEN octet_length({plain}) <= $2 THEN {bytes} END, octet_length({plain})::bigint, {sealed}
           FROM {} AS t WHERE {conditions} ORDER BY {key} LIMIT $1",
        table(place)
    )
}

fn change_statement(place: &ColumnPlace, types: Types, seals: bool) -> String {
    let (key, plain, sealed) = (quoted(&place.key), quoted(&place.plain), quoted(&place.sealed));
    let (bytes, key_type) = (types.bytes(&format!("t.{plain}")), types.key);
    let (set, arrays, names, next) = if seals {
        (format!("{sealed} = r.record"), "$1, $2, $3, $4", "key, plain, before, record", 5)
    } else {
        (format!("{plain} = NULL"), "$1, $2, $3", "key, plain, before", 4)
    };
    let only = match &place.only {
        Some((column, _)) => format!(" AND t.{}::text = ${next}", quoted(column)),
        None => String::new(),
    };
    format!(
        "UPDATE {} AS t SET {set} FROM unnest({arrays}) AS r({names})
          WHERE t.{key} = r.key::{key_type} AND {bytes} = r.plain AND t.{sealed} IS NOT DISTINCT FROM r.before{only}
         RETURNING 1",
        table(place)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(only: bool) -> ColumnPlace {
        let name = |text| Identifier::parse(text).expect("an identifier");
        ColumnPlace {
            schema: name("public"),
            table: name("Users"),
            key: name("id"),
            plain: name("ssn"),
            sealed: name("ssn_pc1"),
            only: only.then(|| (name("tenant"), "acme'; --".to_owned())),
        }
    }

    fn shape(key: &str, plain: &str) -> ColumnShape {
        let (key, plain, sealed) = (key.to_owned(), plain.to_owned(), "bytea".to_owned());
        ColumnShape { key, key_is_unique: true, plain, plain_may_be_null: true, sealed, rows: 0 }
    }

    #[test]
    fn names_are_quoted_and_values_are_parameters() {
        let types = Types::of(&shape("bigint", "text")).expect("known types");
        for statement in [
            page_statement(&place(true), types, true),
            change_statement(&place(true), types, true),
            change_statement(&place(true), types, false),
        ] {
            assert!(statement.contains(r#""public"."Users""#) && !statement.contains("acme"), "{statement}");
            assert!(statement.contains(r#""tenant"::text = $"#), "{statement}");
        }
        assert!(page_statement(&place(false), types, false).contains(r#"ORDER BY t."id" LIMIT"#));
        assert!(page_statement(&place(false), types, false).contains("convert_to"));
        let bytes = Types::of(&shape("uuid", "bytea")).expect("known types");
        assert!(!page_statement(&place(false), bytes, false).contains("convert_to"));
    }

    #[test]
    fn a_type_that_is_not_on_the_lists_is_no_part_of_a_statement() {
        for (key, plain) in
            [("numeric", "text"), ("bigint); DROP TABLE x; --", "text"), ("bigint", "json"), ("", "text")]
        {
            assert!(Types::of(&shape(key, plain)).is_err(), "{key} {plain}");
        }
    }
}
