//! The file functions of the database as a model in memory: the same outcomes, the same states from the same facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use shared::encoding::hex;
use shared::port::{Database, Fault, FaultKind, Parameter};
use uuid::Uuid;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const WAIT_MS: i64 = 60 * 1000;
const LEASE_MS: i64 = 10 * 60 * 1000;

/// The tables `files` and `file_facts` behind their functions.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: BTreeMap<Uuid, Row>,
    calls: Vec<&'static str>,
    down: bool,
}

/// A file as it is held.
#[derive(Clone, Debug)]
pub struct Row {
    /// The verified token's tenant.
    pub tenant: String,
    /// The verified token's subject.
    pub subject: String,
    /// The cleaned name.
    pub name: String,
    /// Declared type.
    pub content_type: String,
    /// Declared size.
    pub size: i64,
    /// Declared digest.
    pub sha256: Vec<u8>,
    /// When the last URL dies.
    pub url_expires_ms: i64,
    /// When it was made.
    pub created_ms: i64,
    /// Deleted by its owner.
    pub deleted: bool,
    /// Never filled, and too old now.
    pub expired: bool,
    /// When the last known version was gone.
    pub purged_ms: Option<i64>,
    sweep_ms: Option<i64>,
    gone: BTreeSet<String>,
    repeat: Option<(String, Vec<u8>)>,
    facts: BTreeSet<Fact>,
}

/// Something that is known about an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fact {
    /// The bucket held this version, and this is how it compared with what was declared.
    Created {
        /// The version.
        version: String,
        /// Its entity tag.
        etag: String,
        /// `ok`, or the first difference.
        finding: String,
        /// Whether scanning was switched off.
        scan_off: bool,
    },
    /// The scanner said this of a version.
    Verdict {
        /// The version.
        version: String,
        /// What it said.
        value: String,
    },
}

/// The state and verdict that a set of facts amounts to.
pub fn state_of<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> (&'static str, Option<String>) {
    let facts: Vec<&Fact> = facts.into_iter().collect();
    let mut created = BTreeMap::new();
    let mut failed = false;
    for fact in &facts {
        if let Fact::Created { version, etag, finding, scan_off } = fact {
            created.insert((version.as_str(), etag.as_str()), *scan_off);
            failed |= finding != "ok";
        }
    }
    let verdicts = |of: Option<&str>| -> BTreeSet<&str> {
        facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::Verdict { version, value } if of.is_none_or(|of| of == version) => Some(value.as_str()),
                _ => None,
            })
            .collect()
    };
    if verdicts(None).contains("THREATS_FOUND") {
        return ("infected", Some("THREATS_FOUND".to_owned()));
    }
    let mut seen = created.iter();
    let (only, more) = (seen.next(), seen.next());
    let Some(((version, _), scan_off)) = only else {
        return ("pending", None);
    };
    if failed || more.is_some() {
        return ("rejected", None);
    }
    let said = verdicts(Some(version));
    match said.iter().find(|value| **value != "NO_THREATS_FOUND").or_else(|| said.iter().next()) {
        Some(&"NO_THREATS_FOUND") => ("clean", Some("NO_THREATS_FOUND".to_owned())),
        Some(other) => ("unscannable", Some((*other).to_owned())),
        None if *scan_off => ("clean", Some("unscanned".to_owned())),
        None => ("scanning", None),
    }
}

impl Row {
    /// The state that the facts amount to.
    pub fn status(&self) -> &'static str {
        match (self.deleted, self.expired) {
            (true, _) => "deleted",
            (false, true) => "expired",
            (false, false) => state_of(&self.facts).0,
        }
    }

    /// What the scanner said; that nobody asked it is said of clean files alone.
    fn verdict(&self) -> Option<String> {
        state_of(&self.facts).1.filter(|verdict| verdict != "unscanned" || self.status() == "clean")
    }

    /// Known versions that are not gone yet.
    pub fn versions_left(&self) -> BTreeSet<String> {
        let known = self.facts.iter().map(|fact| match fact {
            Fact::Created { version, .. } | Fact::Verdict { version, .. } => version.clone(),
        });
        known.filter(|version| !self.gone.contains(version)).collect()
    }

    fn has_ended(&self) -> bool {
        matches!(self.status(), "rejected" | "infected" | "expired" | "deleted")
    }

    fn learn(&mut self, fact: Fact) -> bool {
        let new = self.facts.insert(fact);
        if new {
            self.purged_ms = None;
        }
        new
    }

    /// The facts, each once.
    pub fn facts(&self) -> &BTreeSet<Fact> {
        &self.facts
    }

    fn version(&self) -> Option<&str> {
        let versions: BTreeSet<&str> = self
            .facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::Created { version, .. } => Some(version.as_str()),
                Fact::Verdict { .. } => None,
            })
            .collect();
        if versions.len() == 1 { versions.into_iter().next() } else { None }
    }
}

impl Files {
    /// A row, if there is one.
    pub fn row(&self, id: Uuid) -> Option<Row> {
        self.state().rows.get(&id).cloned()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.state().rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a pending file of `tenant` and `subject` there: 11 bytes of `text/plain`, `hello world`.
    pub fn seed(&self, id: Uuid, tenant: &str, subject: &str) {
        let row = Row {
            tenant: tenant.to_owned(),
            subject: subject.to_owned(),
            name: "report.txt".to_owned(),
            content_type: "text/plain".to_owned(),
            size: 11,
            sha256: shared::object::Sha256Digest::of(b"hello world").as_bytes().to_vec(),
            url_expires_ms: 0,
            created_ms: 0,
            deleted: false,
            expired: false,
            purged_ms: None,
            sweep_ms: None,
            gone: BTreeSet::new(),
            repeat: None,
            facts: BTreeSet::new(),
        };
        self.state().rows.insert(id, row);
    }

    /// Changes a row as another function would.
    pub fn change(&self, id: Uuid, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.state().rows.get_mut(&id) {
            change(row);
        }
    }

    /// Records a fact as another function would.
    pub fn record(&self, id: Uuid, fact: Fact) {
        self.change(id, |row| {
            row.learn(fact);
        });
    }

    /// The functions called so far.
    pub fn calls(&self) -> Vec<&'static str> {
        self.state().calls.clone()
    }

    /// Makes every call fail as unavailable, or work again.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database for Files {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        let mut state = self.state();
        state.calls.push(function);
        if state.down {
            return Err(Fault::new(FaultKind::Unavailable, "postgres", function));
        }
        let answer = match function {
            "api.create_file" => state.create(parameters),
            "api.file_for_download" => state.for_download(parameters),
            "api.file_for_event" => state.for_event(parameters),
            "api.record_created" => state.record_created(parameters),
            "api.renew_upload" => state.renew(parameters),
            "api.delete_file" => state.delete(parameters),
            "api.files_to_sweep" => state.sweep(parameters),
            "api.file_purged" => state.purged(parameters),
            _ => None,
        };
        answer.ok_or(Fault::new(FaultKind::Invalid, "postgres", function))
    }
}

impl State {
    fn create(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Bytes, Int, OptionalBytes, OptionalText, Text, Uuid};
        let [
            Text(tenant),
            Text(subject),
            Uuid(id),
            Text(name),
            Text(content_type),
            Int(size),
            Bytes(sha256),
            Text(mode),
            Int(url_expires_ms),
            OptionalText(key),
            OptionalBytes(hash),
            Int(now),
        ]: [Parameter; 12] = parameters.try_into().ok()?
        else {
            return None;
        };
        let lengths = (1..=200).contains(&name.len()) && sha256.len() == 32 && size > 0 && mode == "put";
        if !lengths || key.is_some() != hash.is_some() || self.rows.contains_key(&id) {
            return None;
        }
        let repeat = key.zip(hash);
        if let Some((key, hash)) = &repeat {
            let holder = self.rows.iter_mut().find(|(_, row)| {
                let same = row.repeat.as_ref().is_some_and(|(held, _)| held == key);
                same && row.tenant == tenant && row.subject == subject && row.created_ms > now - DAY_MS
            });
            if let Some((id, row)) = holder {
                if row.repeat.as_ref().is_none_or(|(_, held)| held != hash) {
                    return Some(json!({ "outcome": "conflict" }));
                }
                if row.status() == "pending" {
                    row.url_expires_ms = row.url_expires_ms.max(url_expires_ms);
                }
                return Some(json!({ "outcome": "replayed", "id": id, "status": row.status() }));
            }
        }
        let facts = BTreeSet::new();
        let row = Row {
            tenant,
            subject,
            name,
            content_type,
            size,
            sha256,
            url_expires_ms,
            created_ms: now,
            deleted: false,
            expired: false,
            purged_ms: None,
            sweep_ms: None,
            gone: BTreeSet::new(),
            repeat,
            facts,
        };
        self.rows.insert(id, row);
        Some(json!({ "outcome": "created", "id": id, "status": "pending" }))
    }

    fn for_download(&self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Bool, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Bool(of_tenant)]: [Parameter; 4] = parameters.try_into().ok()?
        else {
            return None;
        };
        let row = self.rows.get(&id).filter(|row| row.tenant == tenant && (of_tenant || row.subject == subject));
        Some(match row {
            None => json!({ "outcome": "unknown" }),
            Some(row) => json!({ "outcome": "found", "file": {
                "id": id, "name": row.name, "content_type": row.content_type, "size": row.size, "sha256": hex(&row.sha256),
                "status": row.status(), "version_id": row.version(), "verdict": row.verdict(),
                "created_ms": row.created_ms,
            }}),
        })
    }

    fn for_event(&self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Text, Uuid};
        let [Text(tenant), Uuid(id)]: [Parameter; 2] = parameters.try_into().ok()? else {
            return None;
        };
        Some(match self.rows.get(&id).filter(|row| row.tenant == tenant) {
            None => json!({ "outcome": "unknown" }),
            Some(row) => json!({ "outcome": "found", "file": {
                "content_type": row.content_type, "size": row.size, "sha256": hex(&row.sha256), "status": row.status(),
            }}),
        })
    }

    fn record_created(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Bool, Int, Text, Uuid};
        let [
            Text(tenant),
            Uuid(id),
            Text(_bucket),
            Text(version),
            Text(etag),
            Int(_size),
            Text(finding),
            Bool(scan_off),
            Int(_now),
        ]: [Parameter; 9] = parameters.try_into().ok()?
        else {
            return None;
        };
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.tenant == tenant) else {
            return Some(json!({ "outcome": "unknown" }));
        };
        let new = row.learn(Fact::Created { version, etag, finding, scan_off });
        Some(json!({ "outcome": if new { "recorded" } else { "known" }, "status": row.status() }))
    }

    fn renew(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Int(url_expires_ms), Int(now)]: [Parameter; 5] =
            parameters.try_into().ok()?
        else {
            return None;
        };
        let row = self.rows.get_mut(&id).filter(|row| row.tenant == tenant && row.subject == subject);
        let Some(row) = row else {
            return Some(json!({ "outcome": "unknown" }));
        };
        if row.status() != "pending" {
            return Some(json!({ "outcome": "closed", "status": row.status() }));
        }
        if row.created_ms <= now - DAY_MS {
            return Some(json!({ "outcome": "closed", "status": "expired" }));
        }
        row.url_expires_ms = row.url_expires_ms.max(url_expires_ms);
        Some(json!({ "outcome": "renewed", "file": {
            "content_type": row.content_type, "size": row.size, "sha256": hex(&row.sha256),
        }}))
    }

    fn delete(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Int(_now)]: [Parameter; 4] = parameters.try_into().ok()? else {
            return None;
        };
        let row = self.rows.get_mut(&id).filter(|row| row.tenant == tenant && row.subject == subject);
        Some(match row {
            None => json!({ "outcome": "unknown" }),
            Some(row) if row.deleted => json!({ "outcome": "known" }),
            Some(row) => {
                row.deleted = true;
                json!({ "outcome": "deleted" })
            }
        })
    }

    fn sweep(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::Int;
        let [Int(now), Int(limit)]: [Parameter; 2] = parameters.try_into().ok()? else {
            return None;
        };
        let is_due = |row: &Row| {
            let ended = row.has_ended() && row.purged_ms.is_none();
            let orphan = row.status() == "pending" && row.created_ms <= now - DAY_MS;
            (ended || orphan)
                && row.url_expires_ms <= now - WAIT_MS
                && row.sweep_ms.is_none_or(|swept| swept <= now - LEASE_MS)
        };
        let mut due: Vec<(Option<i64>, uuid::Uuid)> =
            self.rows.iter().filter(|(_, row)| is_due(row)).map(|(id, row)| (row.sweep_ms, *id)).collect();
        due.sort();
        due.truncate(usize::try_from(limit).unwrap_or_default());
        let mut files = Vec::new();
        for (_, id) in due {
            let row = self.rows.get_mut(&id)?;
            row.sweep_ms = Some(now);
            row.expired |= row.status() == "pending";
            files.push(
                json!({ "tenant": row.tenant, "id": id, "status": row.status(), "versions": row.versions_left() }),
            );
        }
        Some(json!({ "files": files }))
    }

    fn purged(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Text, Texts, Uuid};
        let [Text(tenant), Uuid(id), Text(_bucket), Texts(versions), Int(now)]: [Parameter; 5] =
            parameters.try_into().ok()?
        else {
            return None;
        };
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.tenant == tenant && row.has_ended()) else {
            return Some(json!({ "outcome": "unknown" }));
        };
        let known = row.versions_left();
        row.gone.extend(versions.into_iter().filter(|version| known.contains(version)));
        if !row.versions_left().is_empty() {
            return Some(json!({ "outcome": "kept" }));
        }
        row.purged_ms = row.purged_ms.or(Some(now));
        Some(json!({ "outcome": "purged" }))
    }
}
