//! The file functions of the database as a model in memory: the same outcomes, the same states from the same facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use shared::encoding::hex;
use shared::object::Sha256Digest;
use shared::port::{Database, Fault, FaultKind, Parameter};
use uuid::Uuid;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const WAIT_MS: i64 = 60 * 1000;
const LEASE_MS: i64 = 10 * 60 * 1000;
const LOOK_MS: i64 = 60 * 60 * 1000;

/// The tables `files` and `file_facts` behind their functions.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: BTreeMap<Uuid, Row>,
    tickets: BTreeMap<Vec<u8>, Ticket>,
    revoked: BTreeSet<(String, String)>,
    quotas: BTreeMap<(String, String), (Option<i64>, Option<i64>)>,
    calls: Vec<&'static str>,
    down: bool,
}

/// A ticket as it is held.
#[derive(Clone, Debug)]
struct Ticket {
    tenant: String,
    file: Uuid,
    subject: String,
    client_id: String,
    jti: String,
    sid: Option<String>,
    device: Option<String>,
    expires_ms: i64,
    used: bool,
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
    /// How its bytes come.
    pub mode: String,
    /// Declared size, where the mode declares one.
    pub size: Option<i64>,
    /// Declared digest, where the mode declares one.
    pub sha256: Option<Vec<u8>>,
    /// Declared largest size of a form.
    pub max_size: Option<i64>,
    /// Size of every part but the last.
    pub part_size: Option<i64>,
    /// What was signed for each part: size and digest.
    pub parts: BTreeMap<i64, (i64, String)>,
    /// S3's upload that the parts belong to.
    pub upload_id: Option<String>,
    /// A completion of all parts was tried.
    pub completing: bool,
    /// S3 said that the parts are one object.
    pub completed: bool,
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
    /// Who made it, as its receipt says it.
    pub made_by: Value,
    /// When its object was found as declared.
    pub received_ms: Option<i64>,
    sweep_ms: Option<i64>,
    looked_ms: Option<i64>,
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
        /// Its size.
        size: i64,
        /// Its digest.
        sha256: Option<String>,
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

impl Fact {
    /// 11 bytes in a version, compared.
    pub fn created(version: &str, finding: &str, scan_off: bool) -> Fact {
        Fact::Created {
            version: version.to_owned(),
            etag: format!("e-{version}"),
            size: 11,
            sha256: None,
            finding: finding.to_owned(),
            scan_off,
        }
    }

    /// What a scanner said of a version.
    pub fn verdict(version: &str, value: &str) -> Fact {
        Fact::Verdict { version: version.to_owned(), value: value.to_owned() }
    }
}

/// The state and verdict that a set of facts amounts to.
pub fn state_of<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> (&'static str, Option<String>) {
    let facts: Vec<&Fact> = facts.into_iter().collect();
    let mut created = BTreeMap::new();
    let mut failed = false;
    for fact in &facts {
        if let Fact::Created { version, etag, finding, scan_off, .. } = fact {
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
    if more.is_some() {
        return ("rejected", None);
    }
    let said = verdicts(Some(version));
    if failed {
        let worst = said.iter().find(|value| **value != "NO_THREATS_FOUND").or_else(|| said.iter().next());
        return ("rejected", worst.map(|value| (*value).to_owned()));
    }
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

    /// Size and digest of the one version that is as declared.
    pub fn actual(&self) -> (Option<i64>, Option<String>) {
        let mut created = self.facts.iter().filter_map(|fact| match fact {
            Fact::Created { size, sha256, finding, .. } => Some((*size, sha256.clone(), finding == "ok")),
            Fact::Verdict { .. } => None,
        });
        match (created.next(), created.next()) {
            (Some((size, sha256, true)), None) => (Some(size), sha256),
            _ => (None, None),
        }
    }

    fn part_count(&self) -> Option<i64> {
        let (size, each) = (self.size?, self.part_size?);
        Some((size + each - 1) / each)
    }

    /// The size that a part of this number has.
    fn part_of(&self, number: i64) -> Option<i64> {
        let (count, size, each) = (self.part_count()?, self.size?, self.part_size?);
        match number {
            number if number == count => Some(size - (count - 1) * each),
            number if (1..count).contains(&number) => Some(each),
            _ => None,
        }
    }

    fn parts_sha256(&self) -> Option<String> {
        let count = usize::try_from(self.part_count()?).ok()?;
        if self.parts.len() != count {
            return None;
        }
        let digests: Vec<Sha256Digest> =
            self.parts.values().filter_map(|(_, digest)| Sha256Digest::from_hex(digest).ok()).collect();
        Some(hex(Sha256Digest::of_parts(&digests).as_bytes()))
    }

    /// Why parts are not taken any more, if so.
    fn closed(&self, now: i64) -> Option<Value> {
        let status = match self.status() {
            "pending" if self.completed => "scanning",
            "pending" if self.created_ms <= now - DAY_MS => "expired",
            "pending" => return None,
            other => other,
        };
        Some(json!({ "outcome": "closed", "status": status }))
    }

    fn declared(&self) -> Value {
        json!({
            "mode": self.mode, "content_type": self.content_type, "size": self.size,
            "sha256": self.sha256.as_deref().map(hex), "max_size": self.max_size, "part_size": self.part_size,
            "created_ms": self.created_ms,
        })
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

    /// Which rows there are.
    pub fn ids(&self) -> Vec<Uuid> {
        self.state().rows.keys().copied().collect()
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
            mode: "put".to_owned(),
            size: Some(11),
            sha256: Some(Sha256Digest::of(b"hello world").as_bytes().to_vec()),
            max_size: None,
            part_size: None,
            parts: BTreeMap::new(),
            completing: false,
            upload_id: None,
            completed: false,
            url_expires_ms: 0,
            created_ms: 0,
            deleted: false,
            expired: false,
            purged_ms: None,
            made_by: json!({}),
            received_ms: None,
            sweep_ms: None,
            looked_ms: None,
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

    /// Shuts out a `sub`, `client_id`, `tenant`, `jti`, `sid` or `device`, as an operator would, now.
    pub fn revoke(&self, kind: &str, value: &str) {
        self.state().revoked.insert((kind.to_owned(), value.to_owned()));
    }

    /// Sets how many files and bytes `tenant` may hold, or a subject of it; `*` is each that has no quota of its own, and an empty
    /// one the tenant as a whole.
    pub fn set_quota(&self, tenant: &str, subject: &str, files: Option<i64>, bytes: Option<i64>) {
        self.state().quotas.insert((tenant.to_owned(), subject.to_owned()), (files, bytes));
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
            "api.file_receipt" => state.receipt(parameters),
            "api.file_for_event" => state.for_event(parameters),
            "api.record_created" => state.record_created(parameters),
            "api.ticket_put" => state.ticket_put(parameters),
            "api.ticket_find" => state.ticket_find(parameters),
            "api.ticket_use" => state.ticket_use(parameters),
            "api.record_verdict" => state.record_verdict(parameters),
            "api.sign_parts" => state.sign_parts(parameters),
            "api.begin_parts" => state.begin_parts(parameters),
            "api.parts_to_complete" => state.parts_to_complete(parameters),
            "api.parts_completing" => state.parts_completing(parameters),
            "api.parts_completed" => state.parts_completed(parameters),
            "api.parts_ended" => state.parts_ended(parameters),
            "api.renew_upload" => state.renew(parameters),
            "api.delete_file" => state.delete(parameters),
            "api.files_unheard" => state.unheard(parameters),
            "api.files_to_sweep" => state.sweep(parameters),
            "api.file_purged" => state.purged(parameters),
            _ => None,
        };
        answer.ok_or(Fault::new(FaultKind::Invalid, "postgres", function))
    }
}

impl State {
    fn create(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Json, OptionalBytes, OptionalInt, OptionalText, Text, Uuid};
        let [
            Text(tenant),
            Text(subject),
            Uuid(id),
            Text(name),
            Text(content_type),
            Text(mode),
            OptionalInt(size),
            OptionalBytes(sha256),
            OptionalInt(max_size),
            OptionalInt(part_size),
            Int(url_expires_ms),
            OptionalText(key),
            OptionalBytes(hash),
            Json(made_by),
            Int(now),
        ]: [Parameter; 15] = parameters.try_into().ok()?
        else {
            return None;
        };
        let declared = match mode.as_str() {
            "put" => size.is_some() && sha256.is_some() && max_size.is_none() && part_size.is_none(),
            "post" => size.is_none() && sha256.is_none() && max_size.is_some() && part_size.is_none(),
            "multipart" => size.is_some() && sha256.is_none() && max_size.is_none() && part_size.is_some(),
            _ => false,
        };
        let positive = [size, max_size, part_size].iter().all(|given| given.is_none_or(|bytes| bytes > 0));
        let lengths = (1..=200).contains(&name.len()) && sha256.as_ref().is_none_or(|digest| digest.len() == 32);
        if !declared || !positive || !lengths || key.is_some() != hash.is_some() || self.rows.contains_key(&id) {
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
                return Some(json!({
                    "outcome": "replayed", "id": id, "status": row.status(), "created_ms": row.created_ms
                }));
            }
        }
        let bytes = size.or(max_size).unwrap_or_default();
        if self.is_over_quota(&tenant, &subject, bytes) {
            return Some(json!({ "outcome": "quota" }));
        }
        let facts = BTreeSet::new();
        let row = Row {
            tenant,
            subject,
            name,
            content_type,
            mode,
            size,
            sha256,
            max_size,
            part_size,
            parts: BTreeMap::new(),
            completing: false,
            upload_id: None,
            completed: false,
            url_expires_ms,
            created_ms: now,
            deleted: false,
            expired: false,
            purged_ms: None,
            made_by,
            received_ms: None,
            sweep_ms: None,
            looked_ms: None,
            gone: BTreeSet::new(),
            repeat,
            facts,
        };
        self.rows.insert(id, row);
        Some(json!({ "outcome": "created", "id": id, "status": "pending", "created_ms": now }))
    }

    /// Whether tenant or subject would hold more than they may with one more file of `bytes`.
    fn is_over_quota(&self, tenant: &str, subject: &str, bytes: i64) -> bool {
        let held = |whose: &dyn Fn(&Row) -> bool| {
            let rows = self.rows.values().filter(|row| row.tenant == tenant && row.purged_ms.is_none() && whose(row));
            let sizes: Vec<i64> =
                rows.map(|row| row.actual().0.or(row.size).or(row.max_size).unwrap_or_default()).collect();
            (i64::try_from(sizes.len()).unwrap_or(i64::MAX) + 1, sizes.iter().sum::<i64>() + bytes)
        };
        let quota = |of: &str| self.quotas.get(&(tenant.to_owned(), of.to_owned()));
        let over = |quota: Option<&(Option<i64>, Option<i64>)>, (files, bytes): (i64, i64)| {
            quota.is_some_and(|(most, room)| {
                most.is_some_and(|most| files > most) || room.is_some_and(|room| bytes > room)
            })
        };
        over(quota(""), held(&|_| true)) || over(quota(subject).or(quota("*")), held(&|row| row.subject == subject))
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
                "id": id, "name": row.name, "content_type": row.content_type, "mode": row.mode, "part_size": row.part_size,
                "size": row.size.or(row.actual().0), "sha256": row.sha256.as_deref().map(hex),
                "actual_sha256": row.actual().1, "status": row.status(), "version_id": row.version(), "verdict": row.verdict(),
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
            Some(row) => {
                let mut file = row.declared();
                file["status"] = json!(row.status());
                file["parts"] = json!(row.part_count());
                file["parts_sha256"] = json!(row.parts_sha256());
                json!({ "outcome": "found", "file": file })
            }
        })
    }

    fn receipt(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Bool, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Bool(of_tenant)]: [Parameter; 4] = parameters.try_into().ok()?
        else {
            return None;
        };
        let row = self.rows.get(&id).filter(|row| row.tenant == tenant && (of_tenant || row.subject == subject));
        let Some(row) = row else { return Some(json!({ "outcome": "unknown" })) };
        if !["scanning", "clean", "unscannable"].contains(&row.status()) {
            return Some(json!({ "outcome": "closed", "status": row.status() }));
        }
        let (size, sha256) = row.actual();
        let declared = row
            .sha256
            .clone()
            .and_then(|digest| digest.try_into().ok())
            .map(|digest| Sha256Digest::from_bytes(digest).to_string());
        Some(json!({ "outcome": "found", "receipt": {
            "subject": row.subject, "made_by": row.made_by, "name": row.name, "content_type": row.content_type,
            "mode": row.mode, "part_size": row.part_size, "size": size.or(row.size), "sha256": declared.or(sha256),
            "created_ms": row.created_ms, "received_ms": row.received_ms, "version_id": row.version(),
        } }))
    }

    fn record_created(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Bool, Int, OptionalText, Text, Uuid};
        let [
            Text(tenant),
            Uuid(id),
            Text(_bucket),
            Text(version),
            Text(etag),
            Int(size),
            OptionalText(sha256),
            Text(finding),
            Bool(scan_off),
            Int(now),
        ]: [Parameter; 10] = parameters.try_into().ok()?
        else {
            return None;
        };
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.tenant == tenant) else {
            return Some(json!({ "outcome": "unknown" }));
        };
        if finding == "ok" {
            row.received_ms.get_or_insert(now);
        }
        let new = row.learn(Fact::Created { version, etag, size, sha256, finding, scan_off });
        Some(json!({ "outcome": if new { "recorded" } else { "known" }, "status": row.status() }))
    }

    fn ticket_put(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Bool, Bytes, Int, OptionalText, Text, Uuid};
        let [
            Text(tenant),
            Text(subject),
            Uuid(id),
            Bool(of_tenant),
            Bytes(hash),
            Text(client_id),
            Text(jti),
            OptionalText(sid),
            OptionalText(device),
            Int(expires_ms),
            Int(now),
        ]: [Parameter; 11] = parameters.try_into().ok()?
        else {
            return None;
        };
        let row = self.rows.get(&id).filter(|row| row.tenant == tenant && (of_tenant || row.subject == subject));
        let Some(row) = row else { return Some(json!({ "outcome": "unknown" })) };
        if row.status() != "clean" {
            return Some(json!({ "outcome": "closed", "status": row.status() }));
        }
        if hash.len() != 32 || expires_ms <= now || expires_ms > now + 300_000 || self.tickets.contains_key(&hash) {
            return None;
        }
        let open =
            self.tickets.values().filter(|ticket| ticket.file == id && !ticket.used && ticket.expires_ms > now).count();
        if open >= 100 {
            return Some(json!({ "outcome": "many" }));
        }
        self.tickets
            .insert(hash, Ticket { tenant, file: id, subject, client_id, jti, sid, device, expires_ms, used: false });
        Some(json!({ "outcome": "made" }))
    }

    fn ticket_find(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Bool, Bytes, Int, Text};
        let [Bytes(hash), Int(now)]: [Parameter; 2] = parameters.try_into().ok()? else {
            return None;
        };
        let found = self.tickets.get(&hash).filter(|ticket| !ticket.used && ticket.expires_ms > now).cloned();
        let found = found.filter(|ticket| {
            let whose = [
                ("sub", Some(&ticket.subject)),
                ("client_id", Some(&ticket.client_id)),
                ("tenant", Some(&ticket.tenant)),
                ("jti", Some(&ticket.jti)),
                ("sid", ticket.sid.as_ref()),
                ("device", ticket.device.as_ref()),
            ];
            let shut = |(kind, value): (&str, Option<&String>)| {
                value.is_some_and(|value| self.revoked.contains(&(kind.to_owned(), value.clone())))
            };
            !whose.into_iter().any(shut)
        });
        let Some(ticket) = found else { return Some(json!({ "outcome": "unknown" })) };
        let parameters =
            vec![Text(ticket.tenant.clone()), Text(ticket.subject.clone()), Parameter::Uuid(ticket.file), Bool(true)];
        let mut answer = self.for_download(parameters)?;
        answer["tenant"] = json!(ticket.tenant);
        answer["subject"] = json!(ticket.subject);
        answer["id"] = json!(ticket.file);
        Some(answer)
    }

    fn ticket_use(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Bytes, Int, Text};
        let [Text(tenant), Bytes(hash), Text(version), Int(now)]: [Parameter; 4] = parameters.try_into().ok()? else {
            return None;
        };
        let rows = &self.rows;
        let ticket = self.tickets.get_mut(&hash).filter(|ticket| {
            let file = rows.get(&ticket.file).filter(|row| row.status() == "clean");
            let same = file.and_then(Row::version) == Some(version.as_str());
            ticket.tenant == tenant && !ticket.used && ticket.expires_ms > now && same
        });
        let used = ticket.map(|ticket| ticket.used = true).is_some();
        Some(json!({ "outcome": if used { "used" } else { "unknown" } }))
    }

    fn record_verdict(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Text, Uuid};
        let [Text(tenant), Uuid(id), Text(_bucket), Text(version), Text(_etag), Text(value), Int(_now)]: [Parameter;
            7] = parameters.try_into().ok()?
        else {
            return None;
        };
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.tenant == tenant) else {
            return Some(json!({ "outcome": "unknown" }));
        };
        let new = row.learn(Fact::Verdict { version, value });
        Some(json!({ "outcome": if new { "recorded" } else { "known" }, "status": row.status() }))
    }

    fn owned(&mut self, tenant: &str, subject: &str, id: Uuid) -> Option<&mut Row> {
        self.rows.get_mut(&id).filter(|row| row.tenant == tenant && row.subject == subject)
    }

    fn sign_parts(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Json, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Json(parts), Int(url_expires_ms), Int(now)]: [Parameter; 6] =
            parameters.try_into().ok()?
        else {
            return None;
        };
        let Some(row) = self.owned(&tenant, &subject, id) else {
            return Some(json!({ "outcome": "unknown" }));
        };
        if row.mode != "multipart" {
            return Some(json!({ "outcome": "mode" }));
        }
        if let Some(closed) = row.closed(now) {
            return Some(closed);
        }
        let mut named = Vec::new();
        for part in parts.as_array()? {
            let (number, size) = (part.get("part")?.as_i64()?, part.get("size")?.as_i64()?);
            if row.part_of(number) != Some(size) {
                return Some(json!({ "outcome": "wrong" }));
            }
            named.push((number, (size, part.get("sha256")?.as_str()?.to_owned())));
        }
        row.parts.extend(named);
        row.url_expires_ms = row.url_expires_ms.max(url_expires_ms);
        Some(json!({ "outcome": "signed", "content_type": row.content_type, "upload_id": row.upload_id }))
    }

    fn begin_parts(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Text(upload_id)]: [Parameter; 4] = parameters.try_into().ok()?
        else {
            return None;
        };
        let Some(row) = self.owned(&tenant, &subject, id).filter(|row| row.mode == "multipart") else {
            return Some(json!({ "outcome": "unknown" }));
        };
        // Whoever is allowed to begin was within the day a moment ago.
        if let Some(closed) = row.closed(i64::MIN + DAY_MS) {
            return Some(closed);
        }
        let kept = row.upload_id.get_or_insert(upload_id);
        Some(json!({ "outcome": "begun", "upload_id": kept }))
    }

    fn parts_to_complete(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Int(now)]: [Parameter; 4] = parameters.try_into().ok()? else {
            return None;
        };
        let Some(row) = self.owned(&tenant, &subject, id) else {
            return Some(json!({ "outcome": "unknown" }));
        };
        if row.mode != "multipart" {
            return Some(json!({ "outcome": "mode" }));
        }
        let heard = ["scanning", "clean", "unscannable"].contains(&row.status());
        if (row.completed && !row.has_ended()) || heard {
            return Some(json!({ "outcome": "completed", "status": row.status() }));
        }
        if let Some(closed) = row.closed(now) {
            return Some(closed);
        }
        let parts: Vec<Value> = row
            .parts
            .iter()
            .map(|(number, (size, digest))| json!({ "part": number, "size": size, "sha256": digest }))
            .collect();
        Some(json!({
            "outcome": "open", "upload_id": row.upload_id, "count": row.part_count(), "size": row.size, "tried": row.completing,
            "parts": parts
        }))
    }

    fn parts_completing(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Text(upload_id), Int(_now)]: [Parameter; 5] =
            parameters.try_into().ok()?
        else {
            return None;
        };
        let Some(row) = self.owned(&tenant, &subject, id).filter(|row| row.mode == "multipart") else {
            return Some(json!({ "outcome": "unknown" }));
        };
        let heard = ["scanning", "clean", "unscannable"].contains(&row.status());
        if (row.completed && !row.has_ended()) || heard {
            return Some(json!({ "outcome": "completed", "status": row.status() }));
        }
        if let Some(closed) = row.closed(i64::MIN + DAY_MS) {
            return Some(closed);
        }
        let ours = row.upload_id.as_ref() == Some(&upload_id);
        row.completing |= ours;
        Some(json!({ "outcome": if ours { "trying" } else { "gone" } }))
    }

    fn parts_completed(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Int(_now)]: [Parameter; 4] = parameters.try_into().ok()? else {
            return None;
        };
        Some(match self.owned(&tenant, &subject, id).filter(|row| row.mode == "multipart") {
            None => json!({ "outcome": "unknown" }),
            Some(row) => {
                (row.completed, row.upload_id) = (true, None);
                let outcome = if row.has_ended() { "closed" } else { "completed" };
                json!({ "outcome": outcome, "status": row.status() })
            }
        })
    }

    fn parts_ended(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Text(upload_id)]: [Parameter; 4] = parameters.try_into().ok()?
        else {
            return None;
        };
        let row = self.owned(&tenant, &subject, id).filter(|row| row.upload_id.as_ref() == Some(&upload_id));
        let ended = row.map(|row| (row.upload_id, row.completing) = (None, false));
        Some(json!({ "outcome": if ended.is_some() { "forgotten" } else { "known" } }))
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
        Some(json!({ "outcome": "renewed", "file": row.declared() }))
    }

    fn delete(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, Text, Uuid};
        let [Text(tenant), Text(subject), Uuid(id), Int(_now)]: [Parameter; 4] = parameters.try_into().ok()? else {
            return None;
        };
        let row = self.rows.get_mut(&id).filter(|row| row.tenant == tenant && row.subject == subject);
        Some(match row {
            None => json!({ "outcome": "unknown" }),
            Some(row) if row.deleted => json!({ "outcome": "known", "upload_id": row.upload_id }),
            Some(row) => {
                row.deleted = true;
                json!({ "outcome": "deleted", "upload_id": row.upload_id })
            }
        })
    }

    fn unheard(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::Int;
        let [Int(now), Int(limit)]: [Parameter; 2] = parameters.try_into().ok()? else {
            return None;
        };
        let is_due = |row: &Row| {
            row.status() == "pending"
                && row.url_expires_ms <= now - WAIT_MS
                && (row.mode != "multipart" || row.url_expires_ms > row.created_ms)
                && row.looked_ms.is_none_or(|looked| looked <= now - LOOK_MS)
        };
        let mut due: Vec<(Option<i64>, uuid::Uuid)> =
            self.rows.iter().filter(|(_, row)| is_due(row)).map(|(id, row)| (row.looked_ms, *id)).collect();
        due.sort();
        due.truncate(usize::try_from(limit).unwrap_or_default());
        let mut files = Vec::new();
        for (_, id) in due {
            let row = self.rows.get_mut(&id)?;
            row.looked_ms = Some(now);
            files.push(json!({ "tenant": row.tenant, "id": id }));
        }
        Some(json!({ "files": files }))
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
            files.push(json!({ "tenant": row.tenant, "id": id, "status": row.status(), "upload_id": row.upload_id,
                    "versions": row.versions_left() }));
        }
        Some(json!({ "files": files }))
    }

    fn purged(&mut self, parameters: Vec<Parameter>) -> Option<Value> {
        use Parameter::{Int, OptionalText, Text, Texts, Uuid};
        let [Text(tenant), Uuid(id), Text(_bucket), Texts(versions), OptionalText(upload_id), Int(now)]: [Parameter;
            6] = parameters.try_into().ok()?
        else {
            return None;
        };
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.tenant == tenant && row.has_ended()) else {
            return Some(json!({ "outcome": "unknown" }));
        };
        if upload_id.is_some() && row.upload_id == upload_id {
            row.upload_id = None;
        }
        let known = row.versions_left();
        row.gone.extend(versions.into_iter().filter(|version| known.contains(version)));
        if row.upload_id.is_some() || !row.versions_left().is_empty() {
            return Some(json!({ "outcome": "kept" }));
        }
        row.parts.clear();
        row.purged_ms = row.purged_ms.or(Some(now));
        Some(json!({ "outcome": "purged" }))
    }
}
