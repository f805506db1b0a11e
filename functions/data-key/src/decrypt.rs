//! Decrypting a batch, in the order that the format prescribes.

use std::collections::{BTreeMap, BTreeSet};

use shared::clock::{Clock, Timestamp};
use shared::details::FieldAction;
use shared::gate::Caller;
use shared::pc1::{self, Malformed, Mismatch, Record};
use shared::port::{Database, Fault, KeyWrapping};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::batch::{Done, Item, Outcome, Place, Yield};
use crate::keys::{MAX_KEYS, Opening, ReaderKeys};
use crate::refusal::Refusal;
use crate::scope::Scope;

/// Opens every item that may be opened. No key is asked for on behalf of an item that was refused before.
pub(crate) async fn batch<'i, W: KeyWrapping, D: Database, C: Clock>(
    keys: &ReaderKeys<W, D, C>,
    caller: &Caller,
    items: &'i [Item<'_>],
    deadline: Timestamp,
) -> Result<Done<'i>, Fault> {
    let judged: Vec<_> = items.iter().map(|item| judge(item, caller)).collect();
    let sealed: Vec<&Sealed> = judged.iter().flatten().collect();
    let openings = Openings::take(keys, caller, &sealed, deadline).await?;
    let outcomes = items.iter().zip(judged).map(|(item, judged)| {
        let result = judged.and_then(|sealed| open(&openings.of(&sealed)?.key, caller, &sealed));
        Outcome { reference: &item.reference, result: result.map(Yield::Plaintext) }
    });
    Ok(Done { outcomes: outcomes.collect(), keys: openings.used() })
}

/// A record, where it says it is, and the key that it names.
pub(crate) struct Sealed {
    pub(crate) place: Place,
    record: Vec<u8>,
    key_id: Uuid,
}

impl Sealed {
    /// The data key that the record names.
    pub(crate) fn key_id(&self) -> Uuid {
        self.key_id
    }
}

/// Judges an item that holds a record, the caller's right to its column before anything else.
pub(crate) fn judge(item: &Item<'_>, caller: &Caller) -> Result<Sealed, Refusal> {
    let place = item.place()?;
    if !place.admitted(caller, FieldAction::Decrypt) {
        return Err(Refusal::Forbidden);
    }
    let mut record = Vec::new();
    pc1::decode_into(&item.content, &mut record).map_err(|_| Refusal::Malformed)?;
    let key_id = parse(&record)?.data_key_id();
    Ok(Sealed { place, record, key_id })
}

/// The keys that a batch opens with.
pub(crate) struct Openings {
    taken: BTreeMap<Uuid, Result<Opening, Refusal>>,
    refused: BTreeSet<Uuid>,
}

impl Openings {
    /// Takes the keys that these records name, the first of them where they are too many.
    pub(crate) async fn take<W: KeyWrapping, D: Database, C: Clock>(
        keys: &ReaderKeys<W, D, C>,
        caller: &Caller,
        sealed: &[&Sealed],
        deadline: Timestamp,
    ) -> Result<Self, Fault> {
        let mut wanted = BTreeMap::<Uuid, BTreeSet<Scope>>::new();
        let mut refused = BTreeSet::new();
        for sealed in sealed {
            if wanted.len() == MAX_KEYS && !wanted.contains_key(&sealed.key_id) {
                refused.insert(sealed.key_id);
                continue;
            }
            let (columns, scope) = (wanted.entry(sealed.key_id).or_default(), &sealed.place.column.scope);
            if !columns.contains(scope) {
                columns.insert(scope.clone());
            }
        }
        let taken = keys.take(&caller.tenant, &wanted, deadline).await?;
        Ok(Self { taken, refused })
    }

    /// The key of this record, if it may open a field of this column.
    pub(crate) fn of(&self, sealed: &Sealed) -> Result<&Opening, Refusal> {
        if self.refused.contains(&sealed.key_id) {
            return Err(Refusal::TooManyKeys);
        }
        let taken = self.taken.get(&sealed.key_id).map(Result::as_ref);
        let opening = taken.unwrap_or(Err(&Refusal::UnknownKey)).map_err(|refusal| *refusal)?;
        if opening.scope.covers(&sealed.place.column.scope) { Ok(opening) } else { Err(Refusal::OtherScope) }
    }

    /// The keys that were there.
    pub(crate) fn used(&self) -> BTreeSet<Uuid> {
        self.taken.iter().filter(|(_, result)| result.is_ok()).map(|(id, _)| *id).collect()
    }
}

/// Reads a record's header.
pub(crate) fn parse(record: &[u8]) -> Result<Record<'_>, Refusal> {
    Record::parse(record).map_err(|fault| match fault {
        Malformed::Length => Refusal::Malformed,
        Malformed::EsdkMessage => Refusal::UseImport,
        Malformed::Version => Refusal::UnsupportedVersion,
    })
}

/// Opens a record in its place.
pub(crate) fn open(key: &pc1::DataKey, caller: &Caller, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    parse(&sealed.record)?.open(key, &sealed.place.context(&caller.tenant)).map_err(|mismatch| match mismatch {
        Mismatch::Commitment => Refusal::OtherKey,
        Mismatch::Authentication => Refusal::NotAuthentic,
    })
}
