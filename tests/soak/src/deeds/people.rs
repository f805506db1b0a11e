//! Tokens that are bound to a key, and people's sessions.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use local::access::{AUDIENCE, SESSION};
use local::journey::{Answer, claims};
use local::seed::PAGE;
use serde_json::{Value, json};

use super::{ADMITTED, REFUSED};
use crate::audit::Shown;
use crate::connection::Got;
use crate::ledger::{Bound, Family, Wish};
use crate::oracle::Judged;
use crate::traveller::{FORM, NOWHERE, Traveller, Violation, asking};
use crate::world::unique;

const TOKEN: &str = "/oauth2/token";
/// The client whose tokens are bound, and whose key serves the page as well; and somebody else's key.
const KEY: &str = "acme-bound";
const THIEF: &str = "acme-reader";
/// Who asks, and somebody else whom Access knows too.
const ADA: (&str, &str) = ("7335d417-61da-459d-899c-0a01c76a2f94", "ada@example.com");
const BOB: (&str, &str) = ("5d0c6a2e-24b1-4d0a-8d6f-0c7a52b4e1aa", "bob@example.com");
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const HEADER: &str = "urn:portcullis:token-type:access-header";
/// What is left of the 20 s in which a refresh token may be shown again because its answer was lost.
const GRACE: Duration = Duration::from_secs(10);
/// How many sessions a traveller keeps in mind.
const FAMILIES: usize = 12;
const OVER: &[&str] = &["400 invalid_grant"];

impl Traveller {
    /// A machine's token that is bound to its key.
    pub(super) async fn bound(&mut self) -> Result<(), Violation> {
        let assertion = self.world.assertion(KEY).map_err(|error| self.violation("an assertion", error.to_string()))?;
        let fields = asking(&assertion);
        let Some(answer) = self.proven_form("a bound token", &fields, None, &["200"]).await? else { return Ok(()) };
        let token = bound(&answer, false);
        if claims(&token.value)["cnf"]["jkt"].as_str().is_none() {
            return Err(self.violation("a bound token", "one that is bound to nothing"));
        }
        self.ledger.bound.push(token);
        let from = self.ledger.bound.len().saturating_sub(FAMILIES);
        self.ledger.bound.drain(..from);
        Ok(())
    }

    /// A session begins.
    pub(super) async fn session(&mut self) -> Result<(), Violation> {
        let own = self.vouched(ADA)?;
        let fields = [
            ("grant_type", EXCHANGE),
            ("client_id", PAGE),
            ("subject_token_type", HEADER),
            ("subject_token", "header"),
        ];
        let answered = self.proven_form("a person's exchange", &fields, Some(&own), &["200"]).await?;
        let Some(answer) = answered else { return Ok(()) };
        let family =
            Family { access: bound(&answer, true), used: Vec::new(), last: refresh_token(&answer), over: Wish::No };
        self.ledger.families.push(family);
        let from = self.ledger.families.len().saturating_sub(FAMILIES);
        self.ledger.families.drain(..from);
        Ok(())
    }

    /// A session goes on. Who is not answered shows the same token again, within the grace; a session never ends by that.
    pub(super) async fn refresh(&mut self) -> Result<(), Violation> {
        let Some(at) = self.living() else { return Ok(()) };
        let Some(mut family) = self.ledger.families.get(at).cloned() else { return Ok(()) };
        let since = Instant::now();
        for _ in 0..3 {
            if since.elapsed() > GRACE {
                break;
            }
            let answered = self.refreshed("a session that goes on", &family.last, &["200"]).await?;
            if let Some(answer) = answered {
                let next = refresh_token(&answer);
                family.used.push(std::mem::replace(&mut family.last, next));
                family.access = bound(&answer, true);
                if let Some(known) = self.ledger.families.get_mut(at) {
                    *known = family;
                }
                return Ok(());
            }
        }
        // How it stands nobody knows.
        self.ledger.families.remove(at);
        Ok(())
    }

    /// A bound token passes with a proof of its key, a person's beside the person's assertion.
    pub(super) async fn person(&mut self) -> Result<(), Violation> {
        let Some(token) = self.some_bound() else { return Ok(()) };
        let own = if token.person { Some(self.vouched(ADA)?) } else { None };
        self.shown("a bound token with its proof", &token, Some(KEY), own.as_deref(), &[ADMITTED]).await.map(drop)
    }

    /// And is worth nothing to whoever has it alone.
    pub(super) async fn stolen(&mut self) -> Result<(), Violation> {
        let Some(token) = self.some_bound() else { return Ok(()) };
        let own = if token.person { Some(self.vouched(ADA)?) } else { None };
        match self.dice.below(if token.person { 4 } else { 2 }) {
            0 => self.shown("a bound token without a proof", &token, None, own.as_deref(), &[REFUSED]).await,
            1 => {
                self.shown("a bound token with another's proof", &token, Some(THIEF), own.as_deref(), &[REFUSED]).await
            }
            2 => self.shown("a person's token without the assertion", &token, Some(KEY), None, &[REFUSED]).await,
            _ => {
                let other = self.vouched(BOB)?;
                let what = "a person's token beside another's assertion";
                self.shown(what, &token, Some(KEY), Some(&other), &[REFUSED]).await
            }
        }
        .map(drop)
    }

    /// A refresh token whose successor was used is shown: somebody stole one, and the session is over.
    pub(super) async fn reuse(&mut self) -> Result<(), Violation> {
        let twice = |one: &Family| one.over == Wish::No && one.used.len() > 1;
        let Some(at) = self.ledger.families.iter().position(twice) else { return Ok(()) };
        let Some(shown) = self.ledger.families.get(at).and_then(|one| one.used.first().cloned()) else { return Ok(()) };
        let ended = self.refreshed("a refresh token that was used long ago", &shown, OVER).await?;
        match (ended, self.ledger.families.get_mut(at)) {
            (Some(_), Some(family)) => family.over = Wish::Done(Instant::now()),
            _ => drop(self.ledger.families.remove(at)),
        }
        Ok(())
    }

    /// What is over stays over, in any weather.
    pub(super) async fn ended_session(&mut self) -> Result<(), Violation> {
        let over: Vec<&Family> = self.ledger.families.iter().filter(|one| one.over != Wish::No).collect();
        let Some(last) = self.dice.pick(&over).map(|one| one.last.clone()) else { return Ok(()) };
        self.refreshed("a session that is over", &last, OVER).await.map(drop)
    }

    /// Shows a refresh token, as the page does; the answer, if it is the right one.
    pub(crate) async fn refreshed(
        &mut self,
        what: &str,
        token: &str,
        right: &[&str],
    ) -> Result<Option<Answer>, Violation> {
        let own = self.vouched(ADA)?;
        let fields = [("grant_type", "refresh_token"), ("client_id", PAGE), ("refresh_token", token)];
        self.proven_form(what, &fields, Some(&own), right).await
    }

    /// Shows a bound token at the gate, with a proof of this client's key or none, and what Access adds.
    pub(crate) async fn shown(
        &mut self,
        what: &str,
        token: &Bound,
        key: Option<&str>,
        own: Option<&str>,
        right: &[&str],
    ) -> Result<(Judged, Got), Violation> {
        let ath = json!({"ath": URL_SAFE_NO_PAD.encode(digest(&SHA256, token.value.as_bytes()))});
        let proof = key.map(|key| self.proof(key, ("GET", NOWHERE), &ath)).transpose()?;
        let authorization = format!("{} {}", if key.is_some() { "DPoP" } else { "Bearer" }, token.value);
        let mut headers = vec![("authorization", authorization.as_str())];
        headers.extend(proof.as_deref().map(|proof| ("dpop", proof)));
        headers.extend(own.map(|own| ("cf-access-jwt-assertion", own)));
        let got = self.with(("GET", NOWHERE), &headers, bytes::Bytes::new()).await;
        self.judge(what, got, right)
    }

    /// The session of a person that goes on, if there is one: the dice say which.
    fn living(&mut self) -> Option<usize> {
        let families = self.ledger.families.iter().enumerate();
        let living: Vec<usize> = families.filter(|(_, one)| one.over == Wish::No).map(|(at, _)| at).collect();
        self.dice.pick(&living).copied()
    }

    fn some_bound(&mut self) -> Option<Bound> {
        let soon = self.world.clock.seconds() + 45;
        let people = self.ledger.families.iter().filter(|one| one.over == Wish::No).map(|one| &one.access);
        let all = people.chain(&self.ledger.bound).filter(|one| one.expires > soon);
        let all: Vec<Bound> = all.cloned().collect();
        self.dice.pick(&all).cloned()
    }

    /// A form with a proof of the page's key, and once more with the nonce that it is told; the answer, if it is the right one.
    async fn proven_form(
        &mut self,
        what: &str,
        fields: &[(&str, &str)],
        own: Option<&str>,
        right: &[&str],
    ) -> Result<Option<Answer>, Violation> {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut more = json!({});
        loop {
            let proof = self.proof(KEY, ("POST", TOKEN), &more)?;
            let mut headers = vec![("content-type", FORM), ("dpop", proof.as_str())];
            headers.extend(own.map(|own| ("cf-access-jwt-assertion", own)));
            let got = self.with(("POST", TOKEN), &headers, form.clone().into()).await;
            let nonce = got.answer().map(|answer| answer.header("dpop-nonce").to_owned()).unwrap_or_default();
            if got.outcome() == "400 use_dpop_nonce" && more.get("nonce").is_none() && !nonce.is_empty() {
                more = json!({ "nonce": nonce });
                continue;
            }
            let (judged, got) = self.judge(what, got, right)?;
            return Ok(got.answer().filter(|_| judged == Judged::Right).cloned());
        }
    }

    fn proof(&self, key: &str, (method, path): (&str, &str), more: &Value) -> Result<String, Violation> {
        let url = format!("{}{path}", self.world.stack.places.gateway);
        let mut said = json!({"jti": unique(), "htm": method, "htu": url, "iat": self.world.clock.seconds()});
        if let (Some(said), Some(more)) = (said.as_object_mut(), more.as_object()) {
            said.extend(more.clone());
        }
        let made = self.world.client(key).and_then(|client| client.proof(&said));
        made.map_err(|error| self.violation("a proof", error.to_string()))
    }

    /// What Access says of a person, by the clock that the functions go by.
    pub(crate) fn vouched(&self, (subject, email): (&str, &str)) -> Result<String, Violation> {
        let (access, now) = (&self.world.stack.access, self.world.clock.seconds());
        let signed = access.sign(&json!({"aud": [AUDIENCE], "email": email, "exp": now + SESSION, "iat": now, "nbf": now,
            "iss": access.team_domain(), "type": "app", "identity_nonce": "6ei69kawdKzMIAPF", "sub": subject, "country": "US"}));
        signed.map_err(|error| self.violation("an assertion of Access", error.to_string()))
    }

    /// Sessions whose end was acknowledged before `published`: their refresh tokens are dead, and what is left of their access tokens is refused.
    pub(crate) async fn audit_sessions(&mut self, published: Instant) -> Result<usize, Violation> {
        let mut count = 0;
        for family in self.ledger.families.clone() {
            let Wish::Done(at) = family.over else { continue };
            self.refreshed("a session that is over", &family.last, OVER).await?;
            if at < published && family.access.expires > self.world.clock.seconds() {
                self.refused_by_now(Shown::Bound(&family.access)).await?;
            }
            count += 1;
        }
        Ok(count)
    }

    /// Shows a person's token beside the assertion, and says what came.
    pub(crate) async fn beside(
        &mut self,
        what: &str,
        token: &Bound,
        right: &[&str],
    ) -> Result<(Judged, Got), Violation> {
        let own = self.vouched(ADA)?;
        self.shown(what, token, Some(KEY), Some(&own), right).await
    }
}

fn bound(answer: &Answer, person: bool) -> Bound {
    let value = answer.json()["access_token"].as_str().unwrap_or_default().to_owned();
    let expires = claims(&value)["exp"].as_u64().unwrap_or_default();
    Bound { value, expires, person }
}

fn refresh_token(answer: &Answer) -> String {
    answer.json()["refresh_token"].as_str().unwrap_or_default().to_owned()
}
