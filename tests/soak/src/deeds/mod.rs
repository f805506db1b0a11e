//! What travellers do.

mod fields;
mod files;
mod operators;
mod people;
mod tokens;

pub(crate) use fields::item;

use crate::dice::Dice;
use crate::traveller::{NOWHERE, Traveller, Violation};

/// How often each deed is done, in parts of all.
const DEEDS: &[(&str, usize)] = &[
    ("token", 5),
    ("brief token", 2),
    ("gate", 12),
    ("forged", 8),
    ("expired", 4),
    ("no token", 2),
    ("revoked", 5),
    ("encrypt", 11),
    ("decrypt", 14),
    ("wrong context", 8),
    ("index", 3),
    ("rewrap", 3),
    ("create", 6),
    ("put", 7),
    ("put again", 3),
    ("download", 9),
    ("other tenant", 4),
    ("revoke", 3),
    ("used assertion", 2),
    ("parts", 3),
    ("ticket", 4),
    ("bound token", 3),
    ("session", 3),
    ("refresh", 5),
    ("person", 5),
    ("stolen", 4),
    ("reuse", 2),
    ("ended session", 2),
    ("form", 3),
    ("keys", 2),
    ("erase", 2),
];
/// What a token that is not taken is answered.
pub(crate) const REFUSED: &str = "401 unauthorized";
pub(crate) const ADMITTED: &str = "404 not_found";

/// The deed that the dice say.
pub(crate) fn drawn(dice: &mut Dice) -> &'static str {
    let mut left = dice.below(DEEDS.iter().map(|(_, weight)| weight).sum());
    for (deed, weight) in DEEDS {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return deed,
        }
    }
    "gate"
}

impl Traveller {
    /// Does what the dice say.
    pub(crate) async fn deed(&mut self) -> Result<(), Violation> {
        let deed = drawn(&mut self.dice);
        *self.tally.deeds.entry(deed).or_default() += 1;
        let tenant = if self.dice.percent(65) { "acme" } else { "globex" };
        match deed {
            "token" => self.one_more(tenant).await,
            "brief token" => self.brief().await,
            "forged" => self.forged(tenant).await,
            "expired" => self.expired().await,
            "no token" => self.ask("no token", ("GET", NOWHERE), None, None, &[REFUSED]).await.map(drop),
            "revoked" => self.revoked().await,
            "encrypt" => self.encrypt(tenant).await,
            "decrypt" => self.decrypt().await,
            "wrong context" => self.wrong_context().await,
            "index" => self.index(tenant).await,
            "rewrap" => self.rewrap().await,
            "create" => self.create(tenant).await,
            "put" => self.put().await,
            "put again" => self.put_again().await,
            "download" => self.download().await,
            "other tenant" => self.other_tenant().await,
            "revoke" => self.revoke(tenant).await,
            "used assertion" => self.used_assertion(tenant).await,
            "parts" => self.in_parts(tenant).await,
            "ticket" => self.ticket().await,
            "bound token" => self.bound().await,
            "session" => self.session().await,
            "refresh" => self.refresh().await,
            "person" => self.person().await,
            "stolen" => self.stolen().await,
            "reuse" => self.reuse().await,
            "ended session" => self.ended_session().await,
            "form" => self.in_a_form(tenant).await,
            "keys" => self.keys(tenant).await,
            "erase" => self.erase(tenant).await,
            _ => self.gate(tenant).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_deed_is_done() {
        let mut dice = Dice::new(1, "x");
        let drawn: Vec<&str> = (0..5_000).map(|_| drawn(&mut dice)).collect();
        for (deed, weight) in DEEDS {
            let often = drawn.iter().filter(|one| *one == deed).count();
            assert!(often > weight * 20, "{deed}: {often}");
        }
    }
}
