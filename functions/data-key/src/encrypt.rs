//! Encrypting a batch.

use std::collections::{BTreeMap, BTreeSet};

use shared::clock::{Clock, Timestamp};
use shared::details::FieldAction;
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::pc1::{self, MAX_PLAINTEXT, MessageIds, Unsealed};
use shared::port::{Database, Fault, KeyWrapping};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::batch::{Done, Item, Outcome, Place, Yield};
use crate::keys::{MAX_KEYS, Sealing, WriterKeys};
use crate::refusal::Refusal;
use crate::scope::Scope;

/// Seals every item that may be sealed. No key is asked for on behalf of an item that was refused before.
pub(crate) async fn batch<'i, W: KeyWrapping, D: Database, C: Clock, E: Entropy>(
    keys: &WriterKeys<W, D, C, E>,
    entropy: &E,
    caller: &Caller,
    items: &'i [Item<'_>],
    deadline: Timestamp,
) -> Result<Done<'i>, Fault> {
    let judged: Vec<_> = items.iter().map(|item| judge(item, caller)).collect();
    let scopes: Vec<&Scope> = judged.iter().flatten().map(|(place, _)| place.scope()).collect();
    let mut sealings = Sealings::take(keys, entropy, caller, &scopes, deadline).await?;
    let outcomes = items.iter().zip(judged).map(|(item, judged)| {
        let result = judged.and_then(|(place, plaintext)| sealings.seal(caller, &place, &plaintext));
        Outcome { reference: &item.reference, result: result.map(Yield::Record) }
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
        if self.refused.contains(place.scope()) {
            return Err(Refusal::TooManyKeys);
        }
        let taken = self.taken.get(place.scope()).map(Result::as_ref);
        let sealing = taken.unwrap_or(Err(&Refusal::KmsUnavailable)).map_err(|refusal| *refusal)?;
        let context = place.context(&caller.tenant);
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

fn judge(item: &Item<'_>, caller: &Caller) -> Result<(Place, Zeroizing<Vec<u8>>), Refusal> {
    let place = item.place()?;
    if !place.admitted(caller, FieldAction::Encrypt) {
        return Err(Refusal::Forbidden);
    }
    let mut plaintext = Zeroizing::new(Vec::new());
    pc1::decode_into(&item.content, &mut plaintext).map_err(|_| Refusal::Malformed)?;
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(Refusal::TooLarge);
    }
    Ok((place, plaintext))
}
