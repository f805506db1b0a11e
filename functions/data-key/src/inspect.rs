//! Inspecting a batch: what a record's header says, and in what state its key is. Nothing is unwrapped or opened.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use shared::clock::Timestamp;
use shared::gate::Caller;
use shared::pc1;
use shared::port::{Database, Fault, FaultKind, Parameter};
use uuid::Uuid;

use crate::batch::{Column, Done, Header, Item, KeyState, Outcome, Yield};
use crate::decrypt;
use crate::keys::MAX_KEYS;
use crate::refusal::Refusal;
use crate::scope::Scope;

const KEYS: &str = "api.data_keys_for_inspect";

#[derive(Deserialize)]
struct Rows {
    keys: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    id: Uuid,
    scope: String,
    state: KeyState,
    created_at: i64,
}

/// Tells about every record that the caller may ask about. No row is read where every item was refused.
pub(crate) async fn batch<'i, D: Database>(
    database: &D,
    caller: &Caller,
    items: &'i [Item<'_>],
    now: Timestamp,
) -> Result<Done<'i>, Fault> {
    let judged: Vec<_> = items.iter().map(judge).collect();
    let mut wanted = BTreeSet::new();
    for (_, id) in judged.iter().flatten() {
        if wanted.len() < MAX_KEYS {
            wanted.insert(*id);
        }
    }
    let rows = if wanted.is_empty() { BTreeMap::new() } else { rows(database, caller, &wanted, now).await? };
    let outcomes = items.iter().zip(judged).map(|(item, judged)| {
        let result = judged.and_then(|(column, id)| {
            if !wanted.contains(&id) {
                return Err(Refusal::TooManyKeys);
            }
            let row = rows.get(&id).ok_or(Refusal::UnknownKey)?;
            if !Scope::stored(&row.scope).covers(&column.scope) {
                return Err(Refusal::OtherColumn);
            }
            Ok(Yield::Header(Header { data_key_id: id, state: row.state, created_at: row.created_at }))
        });
        Outcome { reference: &item.reference, result }
    });
    Ok(Done { outcomes: outcomes.collect(), keys: rows.keys().copied().collect() })
}

fn judge<'i>(item: &'i Item<'_>) -> Result<(&'i Column, Uuid), Refusal> {
    let column = item.anywhere_in()?;
    let mut record = Vec::new();
    pc1::decode_into(&item.content, &mut record).map_err(|_| Refusal::Malformed)?;
    let id = decrypt::parse(&record)?.data_key_id();
    Ok((column, id))
}

async fn rows<D: Database>(
    database: &D,
    caller: &Caller,
    wanted: &BTreeSet<Uuid>,
    now: Timestamp,
) -> Result<BTreeMap<Uuid, Row>, Fault> {
    let parameters = vec![
        Parameter::Text(caller.tenant.as_str().to_owned()),
        Parameter::Uuids(wanted.iter().copied().collect()),
        Parameter::Int(now.millis()),
    ];
    let rows: Rows = serde_json::from_value(database.call(KEYS, parameters).await?).map_err(|_| {
        Fault::new(FaultKind::Invalid, "rds", KEYS).caused_by("the answer is not of its documented form")
    })?;
    Ok(rows.keys.into_iter().map(|row| (row.id, row)).collect())
}
