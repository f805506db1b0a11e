//! Schema, database roles and grants.
//!
//! Migrations are the files of `sql/`, built in, applied once each in their order, every one in a transaction of its own that also
//! records its name and hash. An applied file must never change: if one did, nothing is applied and the run fails.

pub mod config;
pub mod statements;

use std::future::Future;

use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Handler, Invocation};
use shared::port::{Fault, FaultKind};

/// One migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migration {
    /// The file's name without `.sql`; its number is its place.
    pub name: &'static str,
    /// The file's text.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($name:literal,)+) => {
        /// All migrations, in order.
        pub const MIGRATIONS: &[Migration] =
            &[$(Migration { name: $name, sql: include_str!(concat!("../sql/", $name, ".sql")) },)+];
    };
}

migrations! {
    "0001_foundation",
    "0002_files",
    "0003_data_keys",
    "0004_issuers",
    "0005_client_revocation",
    "0006_index_keys",
    "0007_file_lifecycle",
    "0008_signing_keys",
    "0009_proofs",
    "0010_federation",
    "0011_people",
    "0012_sessions",
    "0013_policies",
    "0014_file_modes",
    "0015_tickets",
    "0016_compact_revocations",
    "0017_moving_fields",
    "0018_key_maintenance",
    "0019_column_migration",
    "0020_devices",
    "0021_receipts",
    "0022_quotas_and_unheard_files",
    "0023_client_service_in_view",
    "0024_shredding",
    "0025_completion_is_remembered",
    "0026_completion_is_told_when_it_is_tried",
}

/// A migration as the database remembers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text, hexadecimal.
    pub hash: String,
}

/// The owner's hand on the schema.
pub trait Schema: Send + Sync + 'static {
    /// What was applied, in order of name. Makes the record's table where there is none.
    fn applied(&self) -> impl Future<Output = Result<Vec<Applied>, Fault>> + Send;

    /// Applies and records one migration, all or nothing, while nobody else does. Fails when it is recorded already.
    fn apply(&self, migration: &Migration, hash: &str) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What a run did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Applied now, in order.
    pub applied: Vec<&'static str>,
    /// How many had been applied before.
    pub already: usize,
}

/// Why a run stopped before it changed anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The text of an applied migration is another one now.
    Changed(&'static str),
    /// A migration that comes before an applied one is missing from the database.
    OutOfOrder(&'static str),
}

impl Refusal {
    const fn parts(&self) -> (&'static str, &'static str) {
        match self {
            Self::Changed(name) => ("migration_changed", name),
            Self::OutOfOrder(name) => ("migration_out_of_order", name),
        }
    }
}

/// Brings the schema up to `migrations`. Names that only the database knows are left alone: they are a newer build's.
pub async fn run<S: Schema>(schema: &S, migrations: &[Migration]) -> Result<Result<Report, Refusal>, Fault> {
    let hashed: Vec<(&Migration, String)> = migrations.iter().map(|m| (m, statements::hash(m.sql))).collect();
    let mut report = Report::default();
    let mut applied = schema.applied().await?;
    if let Err(refusal) = agree(&hashed, &applied) {
        return Ok(Err(refusal));
    }
    for (migration, hash) in &hashed {
        if is_recorded(&applied, migration) {
            report.already += 1;
            continue;
        }
        match schema.apply(migration, hash).await {
            Ok(()) => report.applied.push(migration.name),
            Err(fault) => {
                // Another run may have been faster; what it did must be what we would have done.
                applied = schema.applied().await?;
                if !is_recorded(&applied, migration) {
                    return Err(fault);
                }
                if let Err(refusal) = agree(&hashed, &applied) {
                    return Ok(Err(refusal));
                }
                report.already += 1;
            }
        }
    }
    Ok(Ok(report))
}

fn is_recorded(applied: &[Applied], migration: &Migration) -> bool {
    applied.iter().any(|applied| applied.name == migration.name)
}

fn agree(hashed: &[(&Migration, String)], applied: &[Applied]) -> Result<(), Refusal> {
    let mut missing = None;
    for (migration, hash) in hashed {
        match applied.iter().find(|applied| applied.name == migration.name) {
            Some(applied) if applied.hash != *hash => return Err(Refusal::Changed(migration.name)),
            Some(_) => {
                if let Some(name) = missing {
                    return Err(Refusal::OutOfOrder(name));
                }
            }
            None => missing = missing.or(Some(migration.name)),
        }
    }
    Ok(())
}

/// The deployment's step: takes no argument, answers `{"applied":[…],"already":n}`, may run any number of times.
pub struct Migrate<S>(pub S);

impl<S: Schema> Handler for Migrate<S> {
    async fn handle(&self, event: Value, invocation: &Invocation) -> Result<Value, Failure> {
        let line = Line::new("migrate", "migrate").request(&invocation.request_id);
        if event.as_object().is_none_or(|fields| !fields.is_empty()) {
            line.decision("deny", "malformed_event").emit();
            return Err(Failure::MALFORMED_EVENT);
        }
        match run(&self.0, MIGRATIONS).await {
            Ok(Ok(report)) => {
                line.decision("allow", "done").text("applied", &report.applied.join(" ")).emit();
                Ok(json!({ "applied": report.applied, "already": report.already }))
            }
            Ok(Err(refusal)) => {
                let (reason, name) = refusal.parts();
                line.decision("deny", reason).text("level", "ERROR").text("migration", name).emit();
                Err(Failure::INTERNAL)
            }
            Err(fault) => {
                line.decision("fault", "not_applied").fault(&fault).emit();
                // A statement that the database refuses is a bug of ours and no retry mends it.
                Err(if fault.kind == FaultKind::Invalid { Failure::INTERNAL } else { Failure::UNAVAILABLE })
            }
        }
    }
}
