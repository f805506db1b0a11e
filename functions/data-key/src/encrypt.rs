//! Encrypting a batch.

use std::collections::{BTreeMap, BTreeSet};

use shared::clock::{Clock, Timestamp};
use shared::details::FieldAction;
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::pc1::{self, Context, MAX_PLAINTEXT, MessageIds, Unsealed};
use shared::port::{Database, Fault, KeyWrapping};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::batch::{Done, Item, Outcome, Place, Yield};
use crate::config::Operation;
use crate::decrypt::text;
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
    let judged_well = judged.iter().filter_map(|(judged, _)| judged.as_ref().ok());
    let scopes: Vec<&Scope> = judged_well.map(|(place, _)| &place.scope).collect();
    let mut sealings = Sealings::take(keys, entropy, caller, &scopes, deadline).await?;
    let outcomes = judged.into_iter().map(|(judged, reference)| {
        let result = judged
            .and_then(|(place, plaintext)| sealings.seal(caller, &place, &plaintext).map(|r| Yield::Record(text(&r))));
        Outcome { reference, result }
    });
    let outcomes = outcomes.collect();
    Ok(Done { outcomes, keys: sealings.used() })
}

/// The keys that a batch seals under, and a message id for each record that it may make.
pub(crate) struct Sealings {
    taken: BTreeMap<Scope, Result<Sealing, Refusal>>,
    refused: BTreeSet<Scope>,
    message_ids: MessageIds,
}

impl Sealings {
    /// Takes the active keys of these scopes, one of them for each record, the first of them where they are too many.
    pub(crate) async fn take<W: KeyWrapping, D: Database, C: Clock, E: Entropy>(
        keys: &WriterKeys<W, D, C, E>,
        entropy: &E,
        caller: &Caller,
        scopes: &[&Scope],
        deadline: Timestamp,
    ) -> Result<Self, Fault> {
        let mut wanted = BTreeMap::<Scope, u64>::new();
        let mut refused = BTreeSet::new();
        for scope in scopes {
            if let Some(count) = wanted.get_mut(*scope) {
                *count += 1;
            } else if wanted.len() < MAX_KEYS {
                wanted.insert((*scope).clone(), 1);
            } else {
                refused.insert((*scope).clone());
            }
        }
        let taken = keys.take(&caller.tenant, &wanted, deadline).await?;
        let records = wanted.values().fold(0, |sum: usize, n| sum.saturating_add(usize::try_from(*n).unwrap_or(0)));
        Ok(Self { taken, refused, message_ids: MessageIds::draw(records, entropy) })
    }

    /// Seals one of the values that a key was taken for.
    pub(crate) fn seal(&mut self, caller: &Caller, place: &Place, plaintext: &[u8]) -> Result<Vec<u8>, Refusal> {
        if self.refused.contains(&place.scope) {
            return Err(Refusal::TooManyKeys);
        }
        let sealing = self.taken.get(&place.scope).cloned().unwrap_or(Err(Refusal::KmsUnavailable))?;
        let Place { table, column, row, version, .. } = place;
        let context = Context { tenant: &caller.tenant, table, column, row, version: *version };
        let message_id = self.message_ids.next().ok_or(Refusal::KmsUnavailable)?;
        pc1::seal(&sealing.key, sealing.id, message_id, &context, plaintext).map_err(|fault| match fault {
            Unsealed::TooLarge => Refusal::TooLarge,
            Unsealed::Cryptography => Refusal::KeyRefused,
        })
    }

    /// The keys that were there.
    pub(crate) fn used(&self) -> BTreeSet<Uuid> {
        self.taken.values().flatten().map(|sealing| sealing.id).collect()
    }
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
