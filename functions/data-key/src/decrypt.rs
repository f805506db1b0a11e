//! Decrypting a batch, in the order that the format prescribes.

use std::collections::{BTreeMap, BTreeSet};

use shared::clock::{Clock, Timestamp};
use shared::details::FieldAction;
use shared::gate::Caller;
use shared::pc1::{self, Context, Malformed, Mismatch, Record};
use shared::port::{Database, Fault, KeyWrapping};
use shared::secret::SecretString;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::batch::{Done, Item, Outcome, Place, Yield};
use crate::config::Operation;
use crate::keys::{MAX_KEYS, Opening, ReaderKeys};
use crate::refusal::Refusal;
use crate::scope::Scope;

/// Opens every item that may be opened. No key is asked for on behalf of an item that was refused before.
pub(crate) async fn batch<W: KeyWrapping, D: Database, C: Clock>(
    keys: &ReaderKeys<W, D, C>,
    caller: &Caller,
    items: Vec<Item>,
    deadline: Timestamp,
) -> Result<Done, Fault> {
    let judged: Vec<_> =
        items.into_iter().map(|item| (judge(&item, caller, Operation::Decrypt), item.reference)).collect();
    let sealed: Vec<&Sealed> = judged.iter().filter_map(|(judged, _)| judged.as_ref().ok()).collect();
    let openings = Openings::take(keys, caller, &sealed, deadline).await?;
    let outcomes = judged.into_iter().map(|(judged, reference)| {
        let result = judged.and_then(|sealed| {
            let opening = openings.of(&sealed)?;
            open(&opening.key, caller, &sealed).map(|plaintext| Yield::Plaintext(text(&plaintext)))
        });
        Outcome { reference, result }
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

/// Judges an item that holds a record, the caller's right to `operation` on its column before anything else.
pub(crate) fn judge(item: &Item, caller: &Caller, operation: Operation) -> Result<Sealed, Refusal> {
    let may = |table: &str, column: &str| caller.scopes.allows_column(operation.as_str(), table, column);
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
            } else {
                wanted.entry(sealed.key_id).or_default().insert(sealed.place.of_column.clone());
            }
        }
        let taken = keys.take(&caller.tenant, &wanted, deadline).await?;
        Ok(Self { taken, refused })
    }

    /// The key of this record, if it may open a field of this column.
    pub(crate) fn of(&self, sealed: &Sealed) -> Result<Opening, Refusal> {
        if self.refused.contains(&sealed.key_id) {
            return Err(Refusal::TooManyKeys);
        }
        let opening = self.taken.get(&sealed.key_id).cloned().unwrap_or(Err(Refusal::UnknownKey))?;
        if opening.scope.covers(&sealed.place.of_column) { Ok(opening) } else { Err(Refusal::OtherScope) }
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
    let Place { table, column, row, version, .. } = &sealed.place;
    let context = Context { tenant: &caller.tenant, table, column, row, version: *version };
    parse(&sealed.record)?.open(key, &context).map_err(|mismatch| match mismatch {
        Mismatch::Commitment => Refusal::OtherKey,
        Mismatch::Authentication => Refusal::NotAuthentic,
    })
}

/// Bytes as they go out.
pub(crate) fn text(bytes: &[u8]) -> SecretString {
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + 4);
    pc1::encode_into(bytes, &mut text);
    SecretString::new(text)
}
