//! Tokens of machines: issued, shown, forged, revoked.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{ADMITTED, REFUSED};
use crate::dice::Dice;
use crate::ledger::{Token, Wish};
use crate::oracle::Judged;
use crate::traveller::{NOWHERE, Plant, TENANTS, Traveller, Violation, asking, since};
use crate::world::BRIEF;

impl Traveller {
    pub(super) async fn one_more(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let client = TENANTS.iter().find(|(name, _)| *name == tenant).map_or("", |(_, client)| *client);
        if let Some(token) = self.issue(client, tenant).await? {
            self.ledger.tokens.push(token);
        }
        // Ended tokens are kept for a while, to be shown once more.
        let long_ago = self.world.clock.seconds().saturating_sub(120);
        self.ledger.tokens.retain(|one| one.expires > long_ago);
        Ok(())
    }

    pub(super) async fn brief(&mut self) -> Result<(), Violation> {
        let now = self.world.clock.seconds();
        let Some(token) = self.issue(BRIEF, "acme").await? else { return Ok(()) };
        if token.expires > now + 32 {
            return Err(self.violation("a token of thirty seconds", format!("ends in {} s", token.expires - now)));
        }
        self.ledger.tokens.push(token);
        Ok(())
    }

    pub(super) async fn gate(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        self.ask("a token that holds", ("GET", NOWHERE), Some(&token.value), None, &[ADMITTED]).await.map(drop)
    }

    /// One letter of a token is another one.
    pub(super) async fn forged(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let part = self.dice.below(3);
        let forged = forged(&token.value, part, &mut self.dice);
        let what = ["a token with another header", "a token with other claims", "a token with another signature"];
        let what = what.get(part).copied().unwrap_or_default();
        self.ask(what, ("GET", NOWHERE), Some(&forged), None, &[REFUSED]).await.map(drop)
    }

    /// A token whose time is over: one that ended of itself, else one that the issuer would have signed so.
    pub(super) async fn expired(&mut self) -> Result<(), Violation> {
        let now = self.world.clock.seconds();
        let over: Vec<&Token> = self.ledger.tokens.iter().filter(|one| one.expires < now).collect();
        let token = match self.dice.pick(&over) {
            Some(token) => token.value.clone(),
            None => {
                let Some(token) = self.token("acme").await? else { return Ok(()) };
                self.resigned(&token.value, now)
                    .await
                    .map_err(|why| self.violation("signing as the issuer", why.to_string()))?
            }
        };
        self.ask("an expired token", ("GET", NOWHERE), Some(&token), None, &[REFUSED]).await.map(drop)
    }

    pub(super) async fn resigned(&self, token: &str, now: u64) -> std::io::Result<String> {
        let mut said = local::journey::claims(token);
        said["exp"] = (now - 1).into();
        said["iat"] = (now - 200).into();
        let head = token.split('.').next().unwrap_or_default();
        let input = format!("{head}.{}", URL_SAFE_NO_PAD.encode(said.to_string()));
        // The stack's owner signs straight at the stand-in: no rule meets that call.
        let signature = self.world.stack.sign_as_issuer(input.as_bytes()).await?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// A token whose revocation was asked for. Its answer is free where the revocation was not acknowledged, or not seen yet, and where copies of
    /// the revocations cannot be read anew (CONTRACTS: they serve for 300 s). Once it was refused in a calm by every process it stays so.
    pub(super) async fn revoked(&mut self) -> Result<(), Violation> {
        let asked: Vec<&Token> = self.ledger.tokens.iter().filter(|one| one.revoked != Wish::No).collect();
        let Some(token) = self.dice.pick(&asked).map(|one| (*one).clone()) else { return Ok(()) };
        let weather = &self.phase.weather;
        let copies_age = weather.has(&["s3", "*"], &[]) || weather.has(&["function"], &["crash"]);
        let right: &[&str] = if token.refused && !copies_age { &[REFUSED] } else { &[REFUSED, ADMITTED] };
        self.ask("a revoked token", ("GET", NOWHERE), Some(&token.value), None, right).await.map(drop)
    }

    pub(super) async fn revoke(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        self.end(&token).await
    }

    /// Revokes a token and writes down what came of it.
    pub(crate) async fn end(&mut self, token: &Token) -> Result<(), Violation> {
        self.wish(&token.value, Wish::Asked);
        if self.plant == Some(Plant::Unrevoked) {
            self.plant = None;
            self.wish(&token.value, Wish::Done(Instant::now()));
            return Ok(());
        }
        let (judged, _) = self.about("/oauth2/revoke", token.client, &token.value, &["200"]).await?;
        if judged == Judged::Right {
            self.wish(&token.value, Wish::Done(Instant::now()));
        }
        Ok(())
    }

    fn wish(&mut self, value: &str, wish: Wish) {
        self.ledger.tokens.iter_mut().filter(|one| one.value == value).for_each(|one| one.revoked = wish);
    }

    /// An assertion that was taken once is never taken again.
    pub(super) async fn used_assertion(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let client = TENANTS.iter().find(|(name, _)| *name == tenant).map_or("", |(_, client)| *client);
        let assertion =
            self.world.assertion(client).map_err(|error| self.violation("an assertion", error.to_string()))?;
        let fields = asking(&assertion);
        let (first, _) = self.form("an assertion", "/oauth2/token", &fields, &["200"]).await?;
        // Where no answer came it may have been used up, or not.
        let right: &[&str] =
            if first == Judged::Right { &["401 invalid_client"] } else { &["401 invalid_client", "200"] };
        self.form("the same assertion again", "/oauth2/token", &fields, right).await.map(drop)
    }

    /// Whether every process of the gate must refuse this token by now: its revocation was acknowledged before `before`.
    pub(crate) fn over(token: &Token, before: Instant) -> bool {
        since(token.revoked, before).is_some_and(|age| !age.is_zero())
    }
}

/// A token in which one letter of this part is another one that the part's encoding knows.
pub(crate) fn forged(token: &str, part: usize, dice: &mut Dice) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    if let Some(part) = parts.get_mut(part) {
        let at = dice.below(part.len());
        let other = |sign: char| if sign == 'A' { 'B' } else { 'A' };
        *part = part.chars().enumerate().map(|(n, sign)| if n == at { other(sign) } else { sign }).collect();
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_differs_in_one_letter_of_one_part() {
        let token = "AbcAAA.defBBB.ghiCCC";
        for part in 0..3 {
            for draw in 0..50 {
                let forged = forged(token, part, &mut Dice::new(draw, "x"));
                let differ = token.chars().zip(forged.chars()).filter(|(a, b)| a != b).count();
                assert_eq!((differ, forged.len()), (1, token.len()));
                let (one, other) = (token.split('.').nth(part), forged.split('.').nth(part));
                assert_ne!(one, other);
            }
        }
    }
}
