//! Rewrapping a batch: every record to the newest key of its scope, and to another place where the caller names one.

use shared::clock::{Clock, Timestamp};
use shared::entropy::Entropy;
use shared::gate::Caller;
use shared::port::{Database, Fault, KeyWrapping};
use zeroize::Zeroizing;

use crate::batch::{Done, Item, Outcome, Place, Yield};
use crate::decrypt::{Openings, Sealed, judge, open};
use crate::encrypt::Sealings;
use crate::keys::{Mover, Opening};
use crate::refusal::Refusal;
use crate::scope::Scope;

/// Moves every record that may be moved. The plaintext is in memory between the two records and nowhere else.
pub(crate) async fn batch<'i, W: KeyWrapping, D: Database, C: Clock, E: Entropy>(
    keys: &Mover<W, D, C, E>,
    entropy: &E,
    caller: &Caller,
    items: &'i [Item<'_>],
    deadline: Timestamp,
) -> Result<Done<'i>, Fault> {
    let judged: Vec<_> = items.iter().map(|item| judge_move(item, caller)).collect();
    let sealed: Vec<&Sealed> = judged.iter().flatten().map(|(from, _)| from).collect();
    let openings = Openings::take(&keys.reader, caller, &sealed, deadline).await?;
    // Opened before a key is made: a batch in which nothing opens makes none.
    let opened: Vec<_> =
        judged.into_iter().map(|judged| judged.and_then(|(from, to)| opened(&openings, caller, &from, to))).collect();
    let scopes: Vec<&Scope> = opened.iter().flatten().map(|(to, _)| to.scope()).collect();
    let mut sealings = Sealings::take(&keys.writer, entropy, caller, &scopes, deadline).await?;
    let outcomes = items.iter().zip(opened).map(|(item, opened)| {
        let result = opened.and_then(|(to, plaintext)| sealings.seal(caller, &to, &plaintext));
        Outcome { reference: &item.reference, result: result.map(Yield::Record) }
    });
    let outcomes = outcomes.collect();
    Ok(Done { outcomes, keys: openings.used().union(&sealings.used()).copied().collect() })
}

/// Where a record goes: nothing where it stays, else the place and whether its scope was named.
type To = Option<(Place, bool)>;

/// The caller needs the right at both ends: whoever moves a field decides who may read it.
fn judge_move(item: &Item<'_>, caller: &Caller) -> Result<(Sealed, To), Refusal> {
    let to = item.destination();
    // Rights first, at either end; then whatever else is wrong.
    if matches!(to, Err(Refusal::Forbidden)) {
        return Err(Refusal::Forbidden);
    }
    Ok((judge(item, caller)?, to?))
}

fn opened(openings: &Openings, caller: &Caller, from: &Sealed, to: To) -> Result<(Place, Zeroizing<Vec<u8>>), Refusal> {
    let opening = openings.of(from)?;
    let place = destination(opening, from, to)?;
    Ok((place, open(&opening.key, caller, from)?))
}

/// A field keeps its subject, so that erasing the subject keeps its meaning; one without a subject may get one.
fn destination(opening: &Opening, from: &Sealed, to: To) -> Result<Place, Refusal> {
    let (mut place, named) = to.unwrap_or_else(|| (from.place.clone(), false));
    if opening.scope.is_subject() {
        if named && *place.scope() != opening.scope {
            return Err(Refusal::LeavesSubject);
        }
        place.put_under(opening.scope.clone());
    }
    Ok(place)
}
