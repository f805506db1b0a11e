//! `column.migrate`: encrypts a column of somebody else's Postgres table in place, in three steps that may be repeated.
//!
//! *encrypt* puts the record of each value into a column beside it, *verify* opens every record and compares, *clear* takes the value away
//! where the record opens to exactly it. Each change holds only while its row still is what was read, so whoever writes meanwhile
//! wins, two runs at once make one record, and a run that is torn away leaves each row as it was or as it should be. A run keeps
//! one page in memory; its cursor is the last key that it was through with, and starting anew costs reading alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shared::clock::{Clock, Timestamp};
use shared::entropy::Entropy;
use shared::pc1::{self, Context, MAX_PLAINTEXT, MessageIds, Row};
use shared::port::{
    Column, ColumnChange, ColumnRow, ColumnShape, Database, Fault, FaultKind, KeyRewrapping, KeyWrapping, Parameter,
};
use uuid::Uuid;

use super::act::{Migrate, Step};
use super::refusal::{Code, Denied};
use super::{Maintenance, Outcome, Who};
use crate::decrypt::parse;
use crate::keys::{Opening, Sealing};
use crate::refusal::Refusal;
use crate::scope::Scope;

const AUDIT: &str = "api.column_migrated";
/// Rows of one page.
const AT_ONCE: usize = 200;
/// Milliseconds that a page may take, every call of it as slow as it can be: no page begins with less left.
const RESERVE: i64 = 9_000;
/// The most rows of each kind that an answer names.
const NAMED: usize = 20;

/// Why a run goes no further.
enum Halt {
    Refused(Refusal),
    Fault(Fault),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What became of the rows that a run went through.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, u64>,
    named: BTreeMap<&'static str, Vec<String>>,
}

impl Tally {
    fn add(&mut self, kind: &'static str, count: u64) {
        let held = self.counts.entry(kind).or_default();
        *held = held.saturating_add(count);
    }

    /// Counts a row that somebody has to look at, and names the first of its kind.
    fn name(&mut self, kind: &'static str, key: &str) {
        self.add(kind, 1);
        self.keep(kind, key);
    }

    fn keep(&mut self, kind: &'static str, key: &str) {
        let named = self.named.entry(kind).or_default();
        if named.len() < NAMED {
            named.push(key.chars().take(256).collect());
        }
    }

    fn merge(&mut self, other: Self) {
        other.counts.into_iter().for_each(|(kind, count)| self.add(kind, count));
        for (kind, keys) in other.named {
            keys.iter().for_each(|key| self.keep(kind, key));
        }
    }
}

/// A page as it was judged.
#[derive(Default)]
struct Judged {
    tally: Tally,
    seal: Vec<ColumnChange>,
    clear: Vec<ColumnChange>,
}

/// One page's part of a run.
struct Page {
    rows: usize,
    last: Option<String>,
}

type Openings = BTreeMap<Uuid, Result<Opening, Refusal>>;

impl<W, D, C, E, T> Maintenance<W, D, C, E, T>
where
    W: KeyRewrapping + KeyWrapping,
    D: Database,
    C: Clock + Clone,
    E: Entropy + Clone,
    T: Column,
{
    pub(crate) async fn migrate(&self, act: &Migrate, who: &Who<'_>, deadline: Timestamp) -> Result<Outcome, Fault> {
        let Some(target) = &self.target else { return Ok(Err(Denied::new(Code::NoTarget))) };
        let shape = match target.shape(&act.place).await {
            Ok(Some(shape)) => shape,
            Ok(None) => return Ok(Err(Denied::of(Code::TableUnknown, "table"))),
            Err(fault) => return refused(fault),
        };
        if let Some(denied) = unfit(act, &shape) {
            return Ok(Err(denied));
        }
        let text = |text: &str| Parameter::Text(text.to_owned());
        let noted = [text(act.tenant.as_str()), text(&act.column()), text(act.step.as_str())];
        let noted = self.database.call(AUDIT, who.parameters(self.clock.now().millis(), noted)).await?;
        if noted.get("outcome").and_then(Value::as_str) == Some("tenant_unknown") {
            return Ok(Err(Denied::of(Code::TenantUnknown, "tenant")));
        }
        let run = Run { target, act, shape: &shape, deadline };
        let (mut after, mut tally, mut seen) = (act.after.clone(), Tally::default(), 0_usize);
        let stop = loop {
            let left = act.limit.saturating_sub(seen).min(AT_ONCE);
            if left == 0 {
                break Some("limit");
            }
            if deadline.millis_since(self.clock.now()) < RESERVE {
                break Some("time");
            }
            let page = match self.column_page(&run, after.as_deref(), left, &mut tally).await {
                Ok(page) => page,
                Err(Halt::Refused(refusal)) => break Some(refusal.code()),
                Err(Halt::Fault(fault)) => return refused(fault),
            };
            let Some(last) = page.last else { break None };
            seen = seen.saturating_add(page.rows);
            after = Some(last);
        };
        Ok(Ok(answer(act, &shape, seen, &tally, stop, after)))
    }

    /// One page: read, changed as the step says, and after records were made read again and opened, so that what is told to be there was
    /// seen there.
    async fn column_page(
        &self,
        run: &Run<'_, T>,
        after: Option<&str>,
        limit: usize,
        tally: &mut Tally,
    ) -> Result<Page, Halt> {
        let rows = run.read(after, limit).await?;
        let page = Page { rows: rows.len(), last: rows.last().map(|row| row.key.clone()) };
        let mut judged = self.judge(run, rows, run.act.step).await?;
        if !judged.clear.is_empty() {
            let sent = count(judged.clear.len());
            let cleared = run.target.clear(&run.act.place, run.shape, judged.clear).await?;
            tally.add("cleared", cleared);
            tally.add("changed_meanwhile", sent.saturating_sub(cleared));
        }
        if !judged.seal.is_empty() {
            let sent = count(judged.seal.len());
            self.seal(run, &mut judged.seal).await?;
            let sealed = run.target.seal(&run.act.place, run.shape, judged.seal).await?;
            tally.add("sealed", sealed);
            tally.add("changed_meanwhile", sent.saturating_sub(sealed));
            let again = run.read(after, limit).await?;
            judged.tally = self.judge(run, again, Step::Verify).await?.tally;
        }
        tally.merge(judged.tally);
        Ok(page)
    }

    async fn judge(&self, run: &Run<'_, T>, rows: Vec<ColumnRow>, step: Step) -> Result<Judged, Halt> {
        let scope = Scope::column(&run.act.place.table, &run.act.place.plain);
        let mut wanted = BTreeMap::<Uuid, BTreeSet<Scope>>::new();
        for record in rows.iter().filter_map(|row| parse(row.sealed.as_deref()?).ok()) {
            wanted.entry(record.data_key_id()).or_default().insert(scope.clone());
        }
        let openings = match wanted.is_empty() {
            true => Openings::new(),
            false => self.mover.reader.take(&run.act.tenant, &wanted, run.deadline).await?,
        };
        // Whatever KMS may serve later says nothing about a record.
        if let Some(refusal) = openings.values().filter_map(|one| one.as_ref().err()).find(|one| of_kms(**one)) {
            return Err((*refusal).into());
        }
        let mut judged = Judged::default();
        for row in rows {
            run.judge(row, step, &openings, &mut judged);
        }
        Ok(judged)
    }

    /// Makes the records of a page under the column's key of the day.
    async fn seal(&self, run: &Run<'_, T>, changes: &mut [ColumnChange]) -> Result<(), Halt> {
        let scope = Scope::column(&run.act.place.table, &run.act.place.plain);
        let wanted = BTreeMap::from([(scope.clone(), count(changes.len()))]);
        let mut taken = self.mover.writer.take(&run.act.tenant, &wanted, run.deadline).await?;
        let sealing = taken.remove(&scope).unwrap_or(Err(Refusal::KmsUnavailable))?;
        let mut message_ids = MessageIds::draw(changes.len(), &self.entropy);
        for change in changes {
            let message_id = message_ids.next().ok_or(Refusal::KmsUnavailable)?;
            change.record = run.seal(&sealing, message_id, change)?;
        }
        Ok(())
    }
}

/// What stays the same for all pages.
struct Run<'a, T> {
    target: &'a T,
    act: &'a Migrate,
    shape: &'a ColumnShape,
    deadline: Timestamp,
}

impl<T: Column> Run<'_, T> {
    async fn read(&self, after: Option<&str>, limit: usize) -> Result<Vec<ColumnRow>, Fault> {
        let (limit, longest) = (i64::try_from(limit).unwrap_or(1), i64::try_from(MAX_PLAINTEXT).unwrap_or(i64::MAX));
        self.target.page(&self.act.place, self.shape, after, limit, longest).await
    }

    fn context<'a>(&'a self, row: &'a Row) -> Context<'a> {
        let Migrate { tenant, place, .. } = self.act;
        Context { tenant, table: &place.table, column: &place.plain, row, version: None }
    }

    fn judge(&self, row: ColumnRow, step: Step, openings: &Openings, judged: &mut Judged) {
        let ColumnRow { key, plain, length, sealed } = row;
        let tally = &mut judged.tally;
        let Ok(place) = Row::parse(&key) else { return tally.name("unfit_keys", &key) };
        let opened = match &sealed {
            None => None,
            Some(record) => match self.open(record, &place, openings) {
                Ok(opened) => Some(opened),
                // A record of somebody else, or a damaged one: nobody writes over it.
                Err(_) => return tally.name("unreadable", &key),
            },
        };
        let plain = match (length, plain) {
            (Some(_), Some(plain)) => plain,
            (Some(_), None) => return tally.name("too_large", &key),
            (None, _) => return tally.add("sealed_alone", 1),
        };
        let same = opened.as_ref().map(|opened| opened.as_slice() == plain.expose());
        let change = |plain| ColumnChange { key: key.clone(), plain, before: sealed.clone(), record: Vec::new() };
        match (step, same) {
            (Step::Encrypt, None | Some(false)) => judged.seal.push(change(plain)),
            (Step::Clear, Some(true)) => judged.clear.push(change(plain)),
            (_, Some(true)) => tally.add("verified", 1),
            (_, Some(false)) => tally.name("differ", &key),
            (_, None) => tally.add("unsealed", 1),
        }
    }

    fn open(&self, record: &[u8], row: &Row, openings: &Openings) -> Result<zeroize::Zeroizing<Vec<u8>>, Refusal> {
        let record = parse(record)?;
        let opening = openings.get(&record.data_key_id()).cloned().unwrap_or(Err(Refusal::UnknownKey))?;
        record.open(&opening.key, &self.context(row)).map_err(|_| Refusal::NotAuthentic)
    }

    fn seal(&self, sealing: &Sealing, message_id: pc1::MessageId, change: &ColumnChange) -> Result<Vec<u8>, Refusal> {
        let row = Row::parse(&change.key).map_err(|_| Refusal::Malformed)?;
        pc1::seal(&sealing.key, sealing.id, message_id, &self.context(&row), change.plain.expose())
            .map_err(|_| Refusal::KeyRefused)
    }
}

/// Whether a key did not come for a reason of KMS, and not of the record.
fn of_kms(refusal: Refusal) -> bool {
    refusal.is_retryable() || refusal == Refusal::KmsDenied
}

/// What speaks against the columns as the database has them.
fn unfit(act: &Migrate, shape: &ColumnShape) -> Option<Denied> {
    const KEYS: [&str; 6] = ["smallint", "integer", "bigint", "uuid", "text", "character varying"];
    const PLAIN: [&str; 3] = ["bytea", "text", "character varying"];
    if !KEYS.contains(&shape.key.as_str()) || !shape.key_is_unique {
        Some(Denied::of(Code::InvalidKeyColumn, "key"))
    } else if !PLAIN.contains(&shape.plain.as_str()) {
        Some(Denied::of(Code::InvalidColumn, "column"))
    } else if shape.sealed != "bytea" {
        Some(Denied::of(Code::InvalidSealed, "sealed"))
    } else if act.step == Step::Clear && !shape.plain_may_be_null {
        Some(Denied::of(Code::ColumnNotNullable, "column"))
    } else {
        None
    }
}

/// A fault of the target that only its owner can mend is an answer; any other may pass.
fn refused(fault: Fault) -> Result<Outcome, Fault> {
    if fault.kind == FaultKind::Denied && fault.service == "postgres" {
        shared::audit::Line::new("data-key-maintain", "target").fault(&fault).emit();
        return Ok(Err(Denied::new(Code::TargetDenied)));
    }
    Err(fault)
}

fn answer(
    act: &Migrate,
    shape: &ColumnShape,
    seen: usize,
    tally: &Tally,
    stop: Option<&'static str>,
    after: Option<String>,
) -> Value {
    let mut answer = json!({"outcome": if stop.is_some() { "stopped" } else { "finished" }, "step": act.step.as_str(),
        "rows_estimated": shape.rows.max(0), "seen": seen, "counts": tally.counts, "look_at": tally.named});
    if let (Some(reason), Some(members)) = (stop, answer.as_object_mut()) {
        members.insert("reason".to_owned(), json!(reason));
        members.insert("next".to_owned(), json!(after));
    }
    answer
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
