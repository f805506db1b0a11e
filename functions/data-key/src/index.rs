//! Indexing a batch: entries for equality search.

use std::collections::BTreeMap;
use std::sync::Arc;

use shared::blind_index::ColumnKey;
use shared::clock::{Clock, Timestamp};
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::name::Identifier;
use shared::pc1::{self, MAX_PLAINTEXT};
use shared::port::{Database, Fault, KeyWrapping};
use zeroize::Zeroizing;

use crate::batch::{Column, Definition, Done, Item, Outcome, Yield};
use crate::keys::{IndexKeys, Indexing};
use crate::refusal::Refusal;

/// Makes the entries of every item that may have some. No key is asked for where every item was refused.
pub(crate) async fn batch<'i, W: KeyWrapping, D: Database, C: Clock, E: Entropy>(
    keys: &IndexKeys<W, D, C, E>,
    caller: &Caller,
    items: &'i [Item<'_>],
    deadline: Timestamp,
) -> Result<Done<'i>, Fault> {
    let judged: Vec<_> = items.iter().map(judge).collect();
    let taken = if judged.iter().any(Result::is_ok) { Some(keys.take(&caller.tenant, deadline).await?) } else { None };
    let used = taken.iter().flatten().map(|indexing| indexing.id).collect();
    let mut columns = BTreeMap::new();
    let outcomes = items.iter().zip(judged).map(|(item, judged)| {
        let result = judged.and_then(|judged| {
            let indexing = taken.clone().unwrap_or(Err(Refusal::KmsUnavailable))?;
            entries(&mut columns, &indexing, caller, &judged)
        });
        Outcome { reference: &item.reference, result }
    });
    Ok(Done { outcomes: outcomes.collect(), keys: used })
}

struct Judged {
    column: Arc<Column>,
    definition: Definition,
    value: Zeroizing<Vec<u8>>,
}

fn judge(item: &Item<'_>) -> Result<Judged, Refusal> {
    let column = Arc::clone(item.anywhere_in()?);
    let definition = item.definition()?;
    let mut value = Zeroizing::new(Vec::new());
    pc1::decode_into(&item.content, &mut value).map_err(|_| Refusal::Malformed)?;
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
    let Column { table, column, .. } = &*judged.column;
    let place = (table.clone(), column.clone());
    if !columns.contains_key(&place) {
        let key = ColumnKey::derive(&indexing.key, indexing.id, &caller.tenant, table, column);
        columns.insert(place.clone(), key.map_err(|_| Refusal::KeyRefused)?);
    }
    let key = columns.get(&place).ok_or(Refusal::KeyRefused)?;
    let Definition { bits, partitions, .. } = judged.definition;
    Ok(Yield::Index(key.entries(&judged.value, bits, partitions)))
}
