//! Indexing a batch: entries for equality search.

use std::collections::BTreeMap;

use shared::blind_index::ColumnKey;
use shared::clock::{Clock, Timestamp};
use shared::encoding::base64url;
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::name::Identifier;
use shared::pc1::{self, MAX_PLAINTEXT};
use shared::port::{Database, Fault, KeyWrapping};
use zeroize::Zeroizing;

use crate::batch::{Column, Definition, Done, Item, Outcome, Yield};
use crate::config::Operation;
use crate::keys::{IndexKeys, Indexing};
use crate::refusal::Refusal;

/// Makes the entries of every item that may have some. No key is asked for where every item was refused.
pub(crate) async fn batch<W: KeyWrapping, D: Database, C: Clock, E: Entropy>(
    keys: &IndexKeys<W, D, C, E>,
    caller: &Caller,
    items: Vec<Item>,
    deadline: Timestamp,
) -> Result<Done, Fault> {
    let judged: Vec<_> = items.into_iter().map(|item| (judge(&item, caller), item.reference)).collect();
    let taken = if judged.iter().any(|(judged, _)| judged.is_ok()) {
        Some(keys.take(&caller.tenant, deadline).await?)
    } else {
        None
    };
    let used = taken.iter().flatten().map(|indexing| indexing.id).collect();
    let mut columns = BTreeMap::new();
    let outcomes = judged.into_iter().map(|(judged, reference)| {
        let result = judged.and_then(|judged| {
            let indexing = taken.clone().unwrap_or(Err(Refusal::KmsUnavailable))?;
            entries(&mut columns, &indexing, caller, &judged)
        });
        Outcome { reference, result }
    });
    Ok(Done { outcomes: outcomes.collect(), keys: used })
}

struct Judged {
    column: Column,
    definition: Definition,
    value: Zeroizing<Vec<u8>>,
}

fn judge(item: &Item, caller: &Caller) -> Result<Judged, Refusal> {
    let may = |table: &str, column: &str| caller.scopes.allows_column(Operation::Index.as_str(), table, column);
    let column = item.anywhere_in(may)?;
    let definition = item.definition()?;
    let mut value = Zeroizing::new(Vec::new());
    pc1::decode_into(item.content.expose(), &mut value).map_err(|_| Refusal::Malformed)?;
    if value.len() > MAX_PLAINTEXT {
        return Err(Refusal::TooLarge);
    }
    let value = definition.normalisation.apply(&value).map_err(|_| Refusal::Malformed)?;
    Ok(Judged { column, definition, value })
}

fn entries(
    columns: &mut BTreeMap<(Identifier, Identifier), ColumnKey>,
    indexing: &Indexing,
    caller: &Caller,
    judged: &Judged,
) -> Result<Yield, Refusal> {
    let Column { table, column, .. } = &judged.column;
    let place = (table.clone(), column.clone());
    if !columns.contains_key(&place) {
        let key = ColumnKey::derive(&indexing.key, indexing.id, &caller.tenant, table, column);
        columns.insert(place.clone(), key.map_err(|_| Refusal::KeyRefused)?);
    }
    let key = columns.get(&place).ok_or(Refusal::KeyRefused)?;
    let Definition { bits, partitions, .. } = judged.definition;
    Ok(Yield::Index(key.entries(&judged.value, bits, partitions).iter().map(|entry| base64url(entry)).collect()))
}
