//! The table `data_keys` and its functions in memory, with the outcomes that the SQL functions promise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use shared::encoding::hex;
use shared::port::{Database, Fault, FaultKind, Parameter};
use uuid::Uuid;

const DAY: i64 = 86_400_000;
const CAP: i64 = 1 << 32;

/// A row. Tests may change any column, as whoever writes to the table could.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the columns of the table")]
pub struct Row {
    pub id: Uuid,
    pub tenant: String,
    pub scope: String,
    pub purpose: String,
    pub kms_key_arn: String,
    pub key_material_id: Option<String>,
    pub wrapped: Option<Vec<u8>>,
    pub writer_wrapped: Option<Vec<u8>>,
    pub context: Value,
    pub created_at: i64,
    pub encrypt_until: i64,
    pub reserved: i64,
    pub state: String,
    pub exported_at: Option<i64>,
}

type Hook = Box<dyn FnOnce(&mut Vec<Row>) + Send>;

/// A database with nothing in it but data keys. Clones share it.
#[derive(Clone, Default)]
pub struct DataKeys(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    rows: Vec<Row>,
    calls: Vec<&'static str>,
    down: bool,
    before_insert: Option<Hook>,
}

impl DataKeys {
    /// The functions called so far, forgotten by asking.
    pub fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.state().calls)
    }

    /// Makes every call fail as unavailable, or work again.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Looks at the rows, or changes them behind everybody's back.
    pub fn rows<T>(&self, act: impl FnOnce(&mut Vec<Row>) -> T) -> T {
        act(&mut self.state().rows)
    }

    /// Runs `hook` once, just before the next insert is judged: what a faster environment does in that gap.
    pub fn before_next_insert(&self, hook: impl FnOnce(&mut Vec<Row>) + Send + 'static) {
        self.state().before_insert = Some(Box::new(hook));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database for DataKeys {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        // Whoever else is ready runs meanwhile, as it would while a call is on its way.
        tokio::task::yield_now().await;
        let mut state = self.state();
        state.calls.push(function);
        if state.down {
            return Err(Fault::new(FaultKind::Unavailable, "rds", function));
        }
        let answer = match function {
            "api.current_data_keys" => current(&mut state.rows, &parameters),
            "api.insert_data_key" => {
                if let Some(hook) = state.before_insert.take() {
                    hook(&mut state.rows);
                }
                insert(&mut state.rows, parameters)
            }
            "api.current_data_keys_to_move" => {
                current(&mut state.rows, &parameters).map(|answer| to_move(&state.rows, answer))
            }
            "api.insert_data_key_to_move" => {
                if let Some(hook) = state.before_insert.take() {
                    hook(&mut state.rows);
                }
                insert(&mut state.rows, parameters).map(|answer| to_move(&state.rows, answer))
            }
            "api.export_data_keys" => export(&mut state.rows, &parameters),
            "api.data_keys_for_decrypt" => for_decrypt(&state.rows, &parameters),
            "api.current_index_key" => current_index(&state.rows, &parameters),
            "api.insert_index_key" => {
                if let Some(hook) = state.before_insert.take() {
                    hook(&mut state.rows);
                }
                insert_index(&mut state.rows, parameters)
            }
            "api.data_keys_for_inspect" => for_inspect(&state.rows, &parameters),
            _ => None,
        };
        answer.ok_or_else(|| Fault::new(FaultKind::Invalid, "rds", function))
    }
}

fn current(rows: &mut [Row], parameters: &[Parameter]) -> Option<Value> {
    let [Parameter::Text(tenant), Parameter::Json(Value::Array(wanted)), Parameter::Int(now)] = parameters else {
        return None;
    };
    if wanted.len() > 256 {
        return None;
    }
    let mut keys = Vec::new();
    for wanted in wanted {
        let (scope, messages) = (wanted.get("scope")?.as_str()?, wanted.get("messages")?.as_i64()?);
        keys.extend(take(rows, tenant, scope, messages, *now)?);
    }
    Some(json!({"keys": keys}))
}

fn insert(rows: &mut Vec<Row>, parameters: Vec<Parameter>) -> Option<Value> {
    let [
        Parameter::Text(tenant),
        Parameter::Uuid(id),
        Parameter::Text(scope),
        Parameter::Text(kms_key_arn),
        Parameter::OptionalText(key_material_id),
        Parameter::Bytes(wrapped),
        Parameter::Bytes(writer_wrapped),
        Parameter::Int(messages),
        Parameter::Int(now),
    ] = <[Parameter; 9]>::try_from(parameters).ok()?
    else {
        return None;
    };
    if let Some(key) = take(rows, &tenant, &scope, messages, now)? {
        return Some(json!({"outcome": "lost", "key": key}));
    }
    rows.push(Row {
        id,
        context: json!({"tenant": tenant, "purpose": "field", "data_key_id": id}),
        tenant: tenant.clone(),
        scope: scope.clone(),
        purpose: "field".to_owned(),
        kms_key_arn,
        key_material_id,
        wrapped: Some(wrapped),
        writer_wrapped: Some(writer_wrapped),
        created_at: now,
        encrypt_until: now + DAY,
        reserved: 0,
        state: "active".to_owned(),
        exported_at: None,
    });
    Some(json!({"outcome": "inserted", "key": take(rows, &tenant, &scope, messages, now)??}))
}

/// The keys of an answer to writers, with the readers' wrapping in place of theirs.
fn to_move(rows: &[Row], mut answer: Value) -> Value {
    let turn = |key: &mut Value| {
        let row = rows.iter().find(|row| key.get("id") == Some(&json!(row.id)));
        let wrapped = json!(row.and_then(|row| row.wrapped.as_deref()).map(hex));
        if let Some(key) = key.as_object_mut() {
            key.remove("writer_wrapped");
            key.insert("wrapped".to_owned(), wrapped);
        }
    };
    answer.get_mut("keys").and_then(Value::as_array_mut).into_iter().flatten().for_each(turn);
    answer.get_mut("key").into_iter().for_each(turn);
    answer
}

fn for_decrypt(rows: &[Row], parameters: &[Parameter]) -> Option<Value> {
    let [Parameter::Text(tenant), Parameter::Uuids(ids)] = parameters else { return None };
    if ids.len() > 256 {
        return None;
    }
    let own = |row: &&Row| row.tenant == *tenant && ids.contains(&row.id) && row.purpose == "field";
    let keys: Vec<Value> = rows
        .iter()
        .filter(own)
        .map(|row| {
            json!({"id": row.id, "scope": row.scope, "state": row.state, "kms_key_arn": row.kms_key_arn,
                "wrapped": row.wrapped.as_deref().map(hex)})
        })
        .collect();
    Some(json!({"keys": keys}))
}

fn export(rows: &mut [Row], parameters: &[Parameter]) -> Option<Value> {
    let [Parameter::Text(tenant), Parameter::Uuids(ids), Parameter::Int(now)] = parameters else { return None };
    if ids.len() > 256 {
        return None;
    }
    let own = |row: &&mut Row| {
        row.tenant == *tenant && ids.contains(&row.id) && row.purpose == "field" && row.state != "shredded"
    };
    let keys: Vec<Value> = rows
        .iter_mut()
        .filter(own)
        .map(|row| {
            row.exported_at.get_or_insert(*now);
            json!({"id": row.id, "kms_key_arn": row.kms_key_arn, "wrapped": row.wrapped.as_deref().map(hex)})
        })
        .collect();
    Some(json!({"keys": keys}))
}

fn current_index(rows: &[Row], parameters: &[Parameter]) -> Option<Value> {
    let [Parameter::Text(tenant)] = parameters else { return None };
    Some(match index_key(rows, tenant) {
        None => json!({"outcome": "none"}),
        Some(key) => json!({"outcome": "found", "key": key}),
    })
}

fn insert_index(rows: &mut Vec<Row>, parameters: Vec<Parameter>) -> Option<Value> {
    let [
        Parameter::Text(tenant),
        Parameter::Uuid(id),
        Parameter::Text(kms_key_arn),
        Parameter::OptionalText(key_material_id),
        Parameter::Bytes(wrapped),
        Parameter::Int(now),
    ] = <[Parameter; 6]>::try_from(parameters).ok()?
    else {
        return None;
    };
    if let Some(key) = index_key(rows, &tenant) {
        return Some(json!({"outcome": "lost", "key": key}));
    }
    rows.push(Row {
        id,
        context: json!({"tenant": tenant, "purpose": "index", "data_key_id": id}),
        tenant: tenant.clone(),
        scope: "index".to_owned(),
        purpose: "index".to_owned(),
        kms_key_arn,
        key_material_id,
        wrapped: Some(wrapped),
        writer_wrapped: None,
        created_at: now,
        encrypt_until: i64::MAX,
        reserved: 0,
        state: "active".to_owned(),
        exported_at: None,
    });
    Some(json!({"outcome": "inserted", "key": index_key(rows, &tenant)?}))
}

fn index_key(rows: &[Row], tenant: &str) -> Option<Value> {
    let active = |row: &&Row| row.tenant == tenant && row.purpose == "index" && row.state == "active";
    let row = rows.iter().find(active)?;
    Some(json!({"id": row.id, "kms_key_arn": row.kms_key_arn, "wrapped": row.wrapped.as_deref().map(hex)}))
}

fn for_inspect(rows: &[Row], parameters: &[Parameter]) -> Option<Value> {
    let [Parameter::Text(tenant), Parameter::Uuids(ids), Parameter::Int(now)] = parameters else { return None };
    if ids.len() > 256 {
        return None;
    }
    let own = |row: &&Row| row.tenant == *tenant && ids.contains(&row.id) && row.purpose == "field";
    let state = |row: &Row| match row.state.as_str() {
        "active" if row.encrypt_until <= *now => "decrypt_only".to_owned(),
        state => state.to_owned(),
    };
    let keys: Vec<Value> = rows
        .iter()
        .filter(own)
        .map(|row| {
            json!({"id": row.id, "scope": row.scope, "state": state(row),
                "created_at": row.created_at.div_euclid(1000)})
        })
        .collect();
    Some(json!({"keys": keys}))
}

/// `Some(None)` where the scope has no usable key.
#[expect(clippy::option_option, reason = "absent is an answer, malformed is none")]
fn take(rows: &mut [Row], tenant: &str, scope: &str, messages: i64, now: i64) -> Option<Option<Value>> {
    if !(0..=100_000).contains(&messages) {
        return None;
    }
    let active =
        |row: &&mut Row| row.tenant == tenant && row.scope == scope && row.purpose == "field" && row.state == "active";
    let Some(row) = rows.iter_mut().find(active) else { return Some(None) };
    if row.encrypt_until <= now || row.reserved + messages > CAP {
        "decrypt_only".clone_into(&mut row.state);
        row.writer_wrapped = None;
        return Some(None);
    }
    row.reserved += messages;
    Some(Some(json!({"scope": row.scope, "id": row.id, "kms_key_arn": row.kms_key_arn,
        "writer_wrapped": row.writer_wrapped.as_deref().map(hex), "encrypt_until": row.encrypt_until,
        "messages": messages})))
}
