//! Importing a batch: messages of the AWS Encryption SDK become records.
//!
//! A message opens with one of two keys: a data key of the caller's own tenant, found by its row as for any record, or one that a
//! KMS key wrapped which the operator named for this tenant. What a message says of itself decides nothing else.

use std::collections::{BTreeMap, BTreeSet};

use shared::clock::{Clock, Timestamp};
use shared::entropy::Entropy;
use shared::esdk::{KMS_PROVIDER, Malformed, Message, Mismatch};
use shared::gate::Caller;
use shared::pc1::{self, DataKey};
use shared::port::{Database, Fault, KeyWrapping, MessageKeys};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::batch::{Done, Item, Outcome, Place, Yield};
use crate::config::ImportKeys;
use crate::encrypt::Sealings;
use crate::keys::{MAX_KEYS, Mover, Opening, Wrapped};
use crate::refusal::Refusal;
use crate::scope::Scope;

/// Imports every message that may be imported.
pub(crate) async fn batch<'i, W: KeyWrapping + MessageKeys, D: Database, C: Clock, E: Entropy>(
    keys: &Mover<W, D, C, E>,
    allowed: &ImportKeys,
    entropy: &E,
    caller: &Caller,
    items: &'i [Item<'_>],
    deadline: Timestamp,
) -> Result<Done<'i>, Fault> {
    let judged: Vec<_> = items.iter().map(|item| judge(item, caller, allowed, &keys.kms.key_arn)).collect();
    let good: Vec<&Judged> = judged.iter().flatten().collect();
    let taken = Taken::take(keys, caller, &good, deadline).await?;
    // Opened before a key is made: a batch in which nothing opens makes none.
    let opened: Vec<_> = judged.into_iter().map(|judged| judged.and_then(|judged| taken.open(judged))).collect();
    let scopes: Vec<&Scope> = opened.iter().flatten().map(|(to, _)| to.scope()).collect();
    let mut sealings = Sealings::take(&keys.writer, entropy, caller, &scopes, deadline).await?;
    let outcomes = items.iter().zip(opened).map(|(item, opened)| {
        let result = opened.and_then(|(to, plaintext)| sealings.seal(caller, &to, &plaintext));
        Outcome { reference: &item.reference, result: result.map(Yield::Record) }
    });
    let outcomes = outcomes.collect();
    Ok(Done { outcomes, keys: sealings.used() })
}

/// A message, where its plaintext is to go, and what opens it.
struct Judged {
    place: Place,
    /// Whether the caller named the scope of the key to seal under.
    named: bool,
    message: Vec<u8>,
    source: Source,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A data key of the tenant's own.
    Own(Uuid),
    /// One that another KMS key wrapped.
    Foreign(Wrapped),
}

fn judge(item: &Item<'_>, caller: &Caller, allowed: &ImportKeys, own_arn: &str) -> Result<Judged, Refusal> {
    let place = item.place()?;
    let mut message = Vec::new();
    pc1::decode_into(&item.content, &mut message).map_err(|_| Refusal::Malformed)?;
    let parsed = parse(&message)?;
    let expected = item.expected_context();
    let said: BTreeMap<&str, &str> = parsed.context().iter().copied().collect();
    if expected.iter().any(|(key, value)| said.get(key.as_str()) != Some(&value.as_str())) {
        return Err(Refusal::OtherContext);
    }
    let source = source(&parsed, &said, caller, allowed, own_arn)?;
    Ok(Judged { place, named: item.names_scope(), source, message })
}

fn parse(message: &[u8]) -> Result<Message<'_>, Refusal> {
    Message::parse(message, 1).map_err(|fault| match fault {
        Malformed::Version | Malformed::Suite => Refusal::UnsupportedVersion,
        Malformed::TooLarge => Refusal::TooLarge,
        Malformed::Length | Malformed::Context | Malformed::DataKeys | Malformed::Body | Malformed::Frames => {
            Refusal::Malformed
        }
    })
}

/// A message under our own KMS key must name a key of the caller's tenant, in exactly the form that exports have: its data key comes
/// from the row, so that another tenant's message, a destroyed key and another column's stay what they are.
fn source(
    message: &Message<'_>,
    said: &BTreeMap<&str, &str>,
    caller: &Caller,
    allowed: &ImportKeys,
    own_arn: &str,
) -> Result<Source, Refusal> {
    let [key] = message.data_keys() else { return Err(Refusal::Malformed) };
    let arn =
        std::str::from_utf8(key.info).ok().filter(|_| key.provider == KMS_PROVIDER).ok_or(Refusal::ForeignKmsKey)?;
    if arn == own_arn {
        let ours = said.len() == 3
            && said.get("tenant") == Some(&caller.tenant.as_str())
            && said.get("purpose") == Some(&"field");
        let id = said.get("data_key_id").and_then(|text| {
            let id = Uuid::try_parse(text).ok()?;
            (id.to_string() == *text).then_some(id)
        });
        return id.filter(|_| ours).map(Source::Own).ok_or(Refusal::UnknownKey);
    }
    if !allowed.admits(&caller.tenant, arn) {
        return Err(Refusal::ForeignKmsKey);
    }
    let context = said.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Ok(Source::Foreign(Wrapped { key_arn: arn.to_owned(), context, blob: key.blob.to_vec() }))
}

/// The keys that a batch opens its messages with.
struct Taken {
    own: BTreeMap<Uuid, Result<Opening, Refusal>>,
    foreign: BTreeMap<Wrapped, Result<DataKey, Refusal>>,
}

impl Taken {
    async fn take<W: KeyWrapping + MessageKeys, D: Database, C: Clock, E: Entropy>(
        keys: &Mover<W, D, C, E>,
        caller: &Caller,
        judged: &[&Judged],
        deadline: Timestamp,
    ) -> Result<Self, Fault> {
        let mut own = BTreeMap::<Uuid, BTreeSet<Scope>>::new();
        let mut foreign = BTreeSet::new();
        for judged in judged {
            let room = own.len() + foreign.len() < MAX_KEYS;
            match &judged.source {
                Source::Own(id) if room || own.contains_key(id) => {
                    own.entry(*id).or_default().insert(judged.place.column.scope.clone());
                }
                Source::Foreign(wrapped) if room => {
                    foreign.insert(wrapped.clone());
                }
                Source::Own(_) | Source::Foreign(_) => {}
            }
        }
        let own =
            if own.is_empty() { BTreeMap::new() } else { keys.reader.take(&caller.tenant, &own, deadline).await? };
        let foreign = keys.kms.open_wrapped(&caller.tenant, foreign, &keys.clock, deadline).await;
        Ok(Self { own, foreign })
    }

    /// The plaintext and where it goes; a field that comes back under its subject's key stays with its subject.
    fn open(&self, judged: Judged) -> Result<(Place, Zeroizing<Vec<u8>>), Refusal> {
        let Judged { mut place, named, message, source } = judged;
        let message = parse(&message)?;
        let opened = match &source {
            Source::Own(id) => {
                let opening = self.own.get(id).ok_or(Refusal::TooManyKeys)?.as_ref().map_err(|refusal| *refusal)?;
                if !opening.scope.covers(&place.column.scope) {
                    return Err(Refusal::OtherScope);
                }
                if opening.scope.is_subject() {
                    if named && *place.scope() != opening.scope {
                        return Err(Refusal::LeavesSubject);
                    }
                    place.put_under(opening.scope.clone());
                }
                message.open(&opening.key)
            }
            Source::Foreign(wrapped) => {
                let key =
                    self.foreign.get(wrapped).ok_or(Refusal::TooManyKeys)?.as_ref().map_err(|refusal| *refusal)?;
                message.open(key)
            }
        };
        let plaintext = opened.map_err(|mismatch| match mismatch {
            Mismatch::Commitment => Refusal::OtherKey,
            Mismatch::Header | Mismatch::Signature | Mismatch::Body => Refusal::NotAuthentic,
        })?;
        Ok((place, plaintext))
    }
}
