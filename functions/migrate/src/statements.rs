//! The record of what was applied, in SQL.

use shared::digest::sha256;
use shared::encoding::hex;

use crate::Migration;

/// Makes the record's table where there is none; safe to run at any time.
pub const RECORD: &str = "CREATE TABLE IF NOT EXISTS public.schema_migrations (
    name       text        PRIMARY KEY,
    hash       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)";

/// Name and hash of what was applied, in order.
pub const APPLIED: &str = r#"SELECT name, hash FROM public.schema_migrations ORDER BY name COLLATE "C""#;

/// Serialises runs; any number will do as long as nobody else in this database uses it.
const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(7025180341218049)";

/// SHA-256 of a migration's text, hexadecimal.
pub fn hash(sql: &str) -> String {
    hex(&sha256(sql.as_bytes()))
}

/// The record's table, made by one run at a time: two `CREATE … IF NOT EXISTS` at once can collide.
pub fn record() -> String {
    format!("{LOCK};\n{RECORD};")
}

/// One migration as one batch, to be run in one transaction. Its record comes first, so that a second run fails before it
/// touches anything.
pub fn batch(migration: &Migration, hash: &str) -> String {
    let Migration { name, sql } = migration;
    format!("{LOCK};\nINSERT INTO public.schema_migrations (name, hash) VALUES ('{name}', '{hash}');\n{sql}")
}
