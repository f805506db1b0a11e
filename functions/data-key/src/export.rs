//! Exporting a batch: records as messages of the AWS Encryption SDK, which need nothing of ours but the KMS key.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use shared::clock::{Clock, Timestamp};
use shared::entropy::Entropy;
use shared::esdk::{Envelope, Framing, write};
use shared::gate::Caller;
use shared::pc1::{MessageIds, Unsealed};
use shared::port::{Database, Fault, KeyWrapping, Parameter};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::batch::{Done, Export, Item, Outcome, Yield};
use crate::decrypt::{Openings, Sealed, judge, open};
use crate::keys::{Opening, ReaderKeys, broken, bytes};
use crate::refusal::Refusal;

const EXPORT: &str = "api.export_data_keys";

#[derive(Deserialize)]
struct Rows {
    keys: Vec<Row>,
}

/// A key that is marked as exported.
#[derive(Deserialize)]
struct Row {
    id: Uuid,
    kms_key_arn: String,
    wrapped: String,
}

/// Exports every record that may be exported. A key is marked before anything sealed for its bearer leaves.
pub(crate) async fn batch<'i, W: KeyWrapping, D: Database, C: Clock, E: Entropy>(
    keys: &ReaderKeys<W, D, C>,
    database: &D,
    entropy: &E,
    caller: &Caller,
    items: &'i [Item<'_>],
    times: (Timestamp, Timestamp),
) -> Result<Done<'i>, Fault> {
    let (now, deadline) = times;
    let judged: Vec<_> =
        items.iter().map(|item| judge(item, caller).and_then(|sealed| Ok((sealed, item.export()?)))).collect();
    let sealed: Vec<&Sealed> = judged.iter().flatten().map(|(sealed, _)| sealed).collect();
    let openings = Openings::take(keys, caller, &sealed, deadline).await?;
    let opened: Vec<_> = judged
        .into_iter()
        .map(|judged| judged.and_then(|(sealed, how)| Opened::open(&openings, caller, &sealed, how)))
        .collect();
    let wanted: BTreeSet<Uuid> = opened.iter().flatten().map(|opened| opened.id).collect();
    let rows = if wanted.is_empty() { BTreeMap::new() } else { marked(database, caller, &wanted, now).await? };
    let mut message_ids = MessageIds::draw(opened.len(), entropy);
    let mut outcomes = Vec::with_capacity(opened.len());
    for (item, opened) in items.iter().zip(opened) {
        let result = opened.and_then(|opened| opened.exported(&rows, caller, &mut message_ids));
        outcomes.push(Outcome { reference: &item.reference, result: result.map(Yield::Message) });
    }
    Ok(Done { outcomes, keys: rows.into_keys().collect() })
}

/// A record that opened, and how it is to leave.
struct Opened {
    id: Uuid,
    opening: Opening,
    framing: Framing,
    plaintext: Zeroizing<Vec<u8>>,
}

impl Opened {
    /// A message carries the key of its whole scope. What a subject's erasure must reach leaves only if the caller says that he knows.
    fn open(openings: &Openings, caller: &Caller, sealed: &Sealed, how: Export) -> Result<Self, Refusal> {
        let opening = openings.of(sealed)?.clone();
        if opening.scope.is_subject() && !how.allow_unshreddable {
            return Err(Refusal::Unshreddable);
        }
        let plaintext = open(&opening.key, caller, sealed)?;
        Ok(Self { id: sealed.key_id(), opening, framing: how.framing, plaintext })
    }

    /// Under the same data key and a message id of its own: a second tag under one key and nonce would give the key away.
    fn exported(
        &self,
        rows: &BTreeMap<Uuid, Row>,
        caller: &Caller,
        message_ids: &mut MessageIds,
    ) -> Result<Vec<u8>, Refusal> {
        // A key that was shredded between the two statements is not among them.
        let row = rows.get(&self.id).ok_or(Refusal::KeyShredded)?;
        let wrapped = bytes(EXPORT, &row.wrapped).map_err(|_| Refusal::UnknownKey)?;
        let id = self.id.to_string();
        let context = [("data_key_id", id.as_str()), ("purpose", "field"), ("tenant", caller.tenant.as_str())];
        let envelope = Envelope { key_arn: &row.kms_key_arn, context: &context, wrapped: &wrapped };
        let message_id = message_ids.next().ok_or(Refusal::KmsUnavailable)?;
        write(&self.opening.key, message_id, &envelope, self.framing, &self.plaintext).map_err(|fault| match fault {
            Unsealed::TooLarge => Refusal::TooLarge,
            Unsealed::Cryptography => Refusal::KeyRefused,
        })
    }
}

/// Marks the keys as exported and answers how they are wrapped, in one statement.
async fn marked<D: Database>(
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
    let rows: Rows = serde_json::from_value(database.call(EXPORT, parameters).await?).map_err(|_| broken(EXPORT))?;
    Ok(rows.keys.into_iter().map(|row| (row.id, row)).collect())
}
