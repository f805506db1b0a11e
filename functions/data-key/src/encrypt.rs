//! Encrypting a batch.

use std::collections::{BTreeMap, BTreeSet};

use shared::clock::{Clock, Timestamp};
use shared::details::FieldAction;
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::pc1::{self, Context, MAX_PLAINTEXT, MessageIds, Unsealed};
use shared::port::{Database, Fault, KeyWrapping};
use shared::secret::SecretString;
use zeroize::Zeroizing;

use crate::batch::{Done, Item, Outcome, Place, Yield};
use crate::config::Operation;
use crate::keys::{MAX_KEYS, Sealing, WriterKeys};
use crate::refusal::Refusal;
use crate::scope::Scope;

/// Seals every item that may be sealed. No key is asked for on behalf of an item that was refused before.
pub(crate) async fn batch<W: KeyWrapping, D: Database, C: Clock, E: Entropy>(
    keys: &WriterKeys<W, D, C, E>,
    entropy: &E,
    caller: &Caller,
    items: Vec<Item>,
    deadline: Timestamp,
) -> Result<Done, Fault> {
    let judged: Vec<_> = items.into_iter().map(|item| (judge(&item, caller), item.reference)).collect();
    let mut wanted = BTreeMap::<Scope, u64>::new();
    let mut refused = BTreeSet::new();
    for (place, _) in judged.iter().filter_map(|(judged, _)| judged.as_ref().ok()) {
        let scope = &place.scope;
        if let Some(count) = wanted.get_mut(scope) {
            *count += 1;
        } else if wanted.len() < MAX_KEYS {
            wanted.insert(scope.clone(), 1);
        } else {
            refused.insert(scope.clone());
        }
    }
    let taken = keys.take(&caller.tenant, &wanted, deadline).await?;
    let sealable = wanted.values().fold(0_usize, |sum, count| sum.saturating_add(usize::try_from(*count).unwrap_or(0)));
    let mut message_ids = MessageIds::draw(sealable, entropy);
    let outcomes = judged.into_iter().map(|(judged, reference)| {
        let result = judged.and_then(|(place, plaintext)| {
            if refused.contains(&place.scope) {
                return Err(Refusal::TooManyKeys);
            }
            let sealing = taken.get(&place.scope).cloned().unwrap_or(Err(Refusal::KmsUnavailable))?;
            seal(&sealing, &mut message_ids, caller, &place, &plaintext).map(Yield::Record)
        });
        Outcome { reference, result }
    });
    let outcomes = outcomes.collect();
    Ok(Done { outcomes, keys: taken.into_values().flatten().map(|sealing| sealing.id).collect() })
}

fn judge(item: &Item, caller: &Caller) -> Result<(Place, Zeroizing<Vec<u8>>), Refusal> {
    let may = |table: &str, column: &str| caller.scopes.allows_column(Operation::Encrypt.as_str(), table, column);
    let place = item.place(may)?;
    if !caller.details.admit_field(
        FieldAction::Encrypt,
        place.table.as_str(),
        place.column.as_str(),
        place.row.as_str(),
    ) {
        return Err(Refusal::Forbidden);
    }
    let mut plaintext = Zeroizing::new(Vec::new());
    pc1::decode_into(item.content.expose(), &mut plaintext).map_err(|_| Refusal::Malformed)?;
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(Refusal::TooLarge);
    }
    Ok((place, plaintext))
}

fn seal(
    sealing: &Sealing,
    message_ids: &mut MessageIds,
    caller: &Caller,
    place: &Place,
    plaintext: &[u8],
) -> Result<SecretString, Refusal> {
    let Place { table, column, row, version, .. } = place;
    let context = Context { tenant: &caller.tenant, table, column, row, version: *version };
    let message_id = message_ids.next().ok_or(Refusal::KmsUnavailable)?;
    let record = pc1::seal(&sealing.key, sealing.id, message_id, &context, plaintext).map_err(|fault| match fault {
        Unsealed::TooLarge => Refusal::TooLarge,
        Unsealed::Cryptography => Refusal::KeyRefused,
    })?;
    let mut text = String::with_capacity(record.len() / 3 * 4 + 4);
    pc1::encode_into(&record, &mut text);
    Ok(SecretString::new(text))
}
