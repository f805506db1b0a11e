//! Decrypting a batch, in the order that the format prescribes.

use std::collections::{BTreeMap, BTreeSet};

use shared::clock::{Clock, Timestamp};
use shared::details::FieldAction;
use shared::gate::Caller;
use shared::pc1::{self, Context, Malformed, Mismatch, Record};
use shared::port::{Database, Fault, KeyWrapping};
use shared::secret::SecretString;
use uuid::Uuid;

use crate::batch::{Done, Item, Outcome, Place, Yield};
use crate::config::Operation;
use crate::keys::{MAX_KEYS, ReaderKeys};
use crate::refusal::Refusal;
use crate::scope::Scope;

/// Opens every item that may be opened. No key is asked for on behalf of an item that was refused before.
pub(crate) async fn batch<W: KeyWrapping, D: Database, C: Clock>(
    keys: &ReaderKeys<W, D, C>,
    caller: &Caller,
    items: Vec<Item>,
    deadline: Timestamp,
) -> Result<Done, Fault> {
    let judged: Vec<_> = items.into_iter().map(|item| (judge(&item, caller), item.reference)).collect();
    let mut wanted = BTreeMap::<Uuid, BTreeSet<Scope>>::new();
    let mut refused = BTreeSet::new();
    for judged in judged.iter().filter_map(|(judged, _)| judged.as_ref().ok()) {
        if wanted.len() == MAX_KEYS && !wanted.contains_key(&judged.key_id) {
            refused.insert(judged.key_id);
        } else {
            wanted.entry(judged.key_id).or_default().insert(judged.place.of_column.clone());
        }
    }
    let taken = keys.take(&caller.tenant, &wanted, deadline).await?;
    let outcomes = judged.into_iter().map(|(judged, reference)| {
        let result = judged.and_then(|judged| {
            if refused.contains(&judged.key_id) {
                return Err(Refusal::TooManyKeys);
            }
            let opening = taken.get(&judged.key_id).cloned().unwrap_or(Err(Refusal::UnknownKey))?;
            if !opening.scope.covers(&judged.place.of_column) {
                return Err(Refusal::OtherScope);
            }
            open(&opening.key, caller, &judged).map(Yield::Plaintext)
        });
        Outcome { reference, result }
    });
    let outcomes = outcomes.collect();
    let keys = taken.into_iter().filter(|(_, result)| result.is_ok()).map(|(id, _)| id).collect();
    Ok(Done { outcomes, keys })
}

struct Judged {
    place: Place,
    record: Vec<u8>,
    key_id: Uuid,
}

fn judge(item: &Item, caller: &Caller) -> Result<Judged, Refusal> {
    let may = |table: &str, column: &str| caller.scopes.allows_column(Operation::Decrypt.as_str(), table, column);
    let place = item.place(may)?;
    if !caller.details.admit_field(
        FieldAction::Decrypt,
        place.table.as_str(),
        place.column.as_str(),
        place.row.as_str(),
    ) {
        return Err(Refusal::Forbidden);
    }
    let mut record = Vec::new();
    pc1::decode_into(item.content.expose(), &mut record).map_err(|_| Refusal::Malformed)?;
    let key_id = parse(&record)?.data_key_id();
    Ok(Judged { place, record, key_id })
}

/// Reads a record's header.
pub(crate) fn parse(record: &[u8]) -> Result<Record<'_>, Refusal> {
    Record::parse(record).map_err(|fault| match fault {
        Malformed::Length => Refusal::Malformed,
        Malformed::EsdkMessage => Refusal::UseImport,
        Malformed::Version => Refusal::UnsupportedVersion,
    })
}

fn open(key: &pc1::DataKey, caller: &Caller, judged: &Judged) -> Result<SecretString, Refusal> {
    let Place { table, column, row, version, .. } = &judged.place;
    let context = Context { tenant: &caller.tenant, table, column, row, version: *version };
    let plaintext = parse(&judged.record)?.open(key, &context).map_err(|mismatch| match mismatch {
        Mismatch::Commitment => Refusal::OtherKey,
        Mismatch::Authentication => Refusal::NotAuthentic,
    })?;
    let mut text = String::with_capacity(plaintext.len() / 3 * 4 + 4);
    pc1::encode_into(&plaintext, &mut text);
    Ok(SecretString::new(text))
}
