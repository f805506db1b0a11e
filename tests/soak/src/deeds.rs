//! What travellers do.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::leaks::CANARY;
use crate::ledger::{Entry, File, Record, Token, Wish};
use crate::oracle::{Item, Judged};
use crate::traveller::{NOWHERE, Plant, TENANTS, Traveller, Violation, since};
use crate::world::BRIEF;

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
];
const COLUMNS: [&str; 3] = ["email", "phone", "iban"];
/// How long a signed URL of ours is good for at least, less than what it says.
const URL: Duration = Duration::from_secs(25);
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
            _ => self.gate(tenant).await,
        }
    }

    async fn one_more(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let client = TENANTS.iter().find(|(name, _)| *name == tenant).map_or("", |(_, client)| *client);
        if let Some(token) = self.issue(client, tenant).await? {
            self.ledger.tokens.push(token);
        }
        // Ended tokens are kept for a while, to be shown once more.
        let long_ago = self.world.clock.seconds().saturating_sub(120);
        self.ledger.tokens.retain(|one| one.expires > long_ago);
        Ok(())
    }

    async fn brief(&mut self) -> Result<(), Violation> {
        let now = self.world.clock.seconds();
        let Some(token) = self.issue(BRIEF, "acme").await? else { return Ok(()) };
        if token.expires > now + 32 {
            return Err(self.violation("a token of thirty seconds", format!("ends in {} s", token.expires - now)));
        }
        self.ledger.tokens.push(token);
        Ok(())
    }

    async fn gate(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        self.ask("a token that holds", ("GET", NOWHERE), Some(&token.value), None, &[ADMITTED]).await.map(drop)
    }

    /// One letter of a token is another one.
    async fn forged(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let part = self.dice.below(3);
        let forged = forged(&token.value, part, &mut self.dice);
        let what = ["a token with another header", "a token with other claims", "a token with another signature"];
        let what = what.get(part).copied().unwrap_or_default();
        self.ask(what, ("GET", NOWHERE), Some(&forged), None, &[REFUSED]).await.map(drop)
    }

    /// A token whose time is over: one that ended of itself, else one that the issuer would have signed so.
    async fn expired(&mut self) -> Result<(), Violation> {
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

    async fn resigned(&self, token: &str, now: u64) -> std::io::Result<String> {
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
    async fn revoked(&mut self) -> Result<(), Violation> {
        let asked: Vec<&Token> = self.ledger.tokens.iter().filter(|one| one.revoked != Wish::No).collect();
        let Some(token) = self.dice.pick(&asked).map(|one| (*one).clone()) else { return Ok(()) };
        let weather = &self.phase.weather;
        let copies_age = weather.has(&["s3", "*"], &[]) || weather.has(&["function"], &["crash"]);
        let right: &[&str] = if token.refused && !copies_age { &[REFUSED] } else { &[REFUSED, ADMITTED] };
        self.ask("a revoked token", ("GET", NOWHERE), Some(&token.value), None, right).await.map(drop)
    }

    async fn revoke(&mut self, tenant: &'static str) -> Result<(), Violation> {
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
    async fn used_assertion(&mut self, tenant: &'static str) -> Result<(), Violation> {
        const BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let client = TENANTS.iter().find(|(name, _)| *name == tenant).map_or("", |(_, client)| *client);
        let assertion =
            self.world.assertion(client).map_err(|error| self.violation("an assertion", error.to_string()))?;
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", BEARER),
            ("client_assertion", assertion.as_str()),
        ];
        let (first, _) = self.form("an assertion", "/oauth2/token", &fields, &["200"]).await?;
        // Where no answer came it may have been used up, or not.
        let right: &[&str] =
            if first == Judged::Right { &["401 invalid_client"] } else { &["401 invalid_client", "200"] };
        self.form("the same assertion again", "/oauth2/token", &fields, right).await.map(drop)
    }

    async fn encrypt(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let count = 1 + self.dice.below(5);
        let made: Vec<Record> = (0..count).map(|_| self.field(tenant)).collect();
        let items = made.iter().map(|one| item(one, "plaintext", &one.plaintext)).collect();
        let answered =
            self.batch("encrypting", "/fields/encrypt", &token.value, items, &vec![Item::Has("record"); count]).await?;
        for (one, record) in made.into_iter().zip(answered.into_iter().flatten()) {
            if let Some(record) = record {
                self.tally.fields[0] += 1;
                self.ledger.records.push(Record { record, ..one });
            }
        }
        Ok(())
    }

    fn field(&mut self, tenant: &'static str) -> Record {
        let column = self.dice.pick(&COLUMNS).copied().unwrap_or("email");
        let length = self.dice.below(60);
        let plaintext = URL_SAFE_NO_PAD.encode(format!("{CANARY}{}", self.dice.word(length)));
        Record { tenant, column, row: self.dice.below(1_000_000).to_string(), plaintext, record: String::new() }
    }

    async fn decrypt(&mut self) -> Result<(), Violation> {
        let count = 1 + self.dice.below(5);
        let Some(first) = self.dice.pick(&self.ledger.records).cloned() else { return Ok(()) };
        let own: Vec<&Record> = self.ledger.records.iter().filter(|one| one.tenant == first.tenant).collect();
        let mut chosen = vec![first];
        chosen.extend((1..count).filter_map(|_| self.dice.pick(&own).map(|one| (*one).clone())));
        self.open("decrypting", &chosen).await.map(drop)
    }

    /// Opens records of one tenant; how many of them opened, the rest met faults.
    pub(crate) async fn open(&mut self, what: &str, records: &[Record]) -> Result<usize, Violation> {
        let Some(tenant) = records.first().map(|one| one.tenant) else { return Ok(0) };
        let Some(token) = self.token(tenant).await? else { return Ok(0) };
        let items = records.iter().map(|one| item(one, "record", &one.record)).collect();
        let wanted: Vec<Item> = records.iter().map(|one| Item::Is("plaintext", one.plaintext.clone())).collect();
        let answered = self.batch(what, "/fields/decrypt", &token.value, items, &wanted).await?;
        let opened = answered.into_iter().flatten().flatten().count();
        self.tally.fields[1] += u64::try_from(opened).unwrap_or_default();
        Ok(opened)
    }

    async fn wrong_context(&mut self) -> Result<(), Violation> {
        let Some(mut moved) = self.dice.pick(&self.ledger.records).cloned() else { return Ok(()) };
        let (what, never): (_, &'static [&'static str]) = match self.dice.below(3) {
            0 => {
                moved.row.push('1');
                ("a record moved to another row", &["decrypt_failed"])
            }
            1 => {
                moved.column = if moved.column == "email" { "phone" } else { "email" };
                ("a record moved to another column", &["decrypt_failed"])
            }
            _ => {
                moved.tenant = if moved.tenant == "acme" { "globex" } else { "acme" };
                ("a record of another tenant", &["key_unavailable"])
            }
        };
        let Some(token) = self.token(moved.tenant).await? else { return Ok(()) };
        let items = vec![item(&moved, "record", &moved.record)];
        self.batch(what, "/fields/decrypt", &token.value, items, &[Item::Never(never)]).await.map(drop)
    }

    async fn index(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let value = URL_SAFE_NO_PAD.encode(format!("{CANARY}index-{}", self.dice.below(12)));
        let known = self.ledger.entries.iter().find(|one| one.tenant == tenant && one.value == value).cloned();
        let wanted = known.as_ref().map_or(Item::Has("index"), |one| Item::Is("index", one.index.clone()));
        let asked = json!({"ref": "1", "table": "users", "column": "email", "value": value, "normalisation": "nfc_casefold", "bits": 16});
        let answered = self.batch("indexing", "/fields/index", &token.value, vec![asked], &[wanted]).await?;
        let index = answered.into_iter().flatten().flatten().next();
        if let (None, Some(index)) = (known, index) {
            self.ledger.entries.push(Entry { tenant, value, index });
        }
        Ok(())
    }

    async fn rewrap(&mut self) -> Result<(), Violation> {
        let Some(known) = self.dice.pick(&self.ledger.records).cloned() else { return Ok(()) };
        let Some(token) = self.token(known.tenant).await? else { return Ok(()) };
        let items = vec![item(&known, "record", &known.record)];
        let answered = self.batch("rewrapping", "/fields/rewrap", &token.value, items, &[Item::Has("record")]).await?;
        if let Some(record) = answered.into_iter().flatten().flatten().next() {
            self.ledger.records.push(Record { record, ..known });
        }
        Ok(())
    }

    pub(crate) async fn create(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let length = self.dice.below(400);
        let content = format!("{CANARY}{}\n", self.dice.word(length)).into_bytes();
        let body = json!({"name": "soak.txt", "content_type": "text/plain", "size": content.len(), "mode": "put",
            "sha256": STANDARD.encode(digest(&SHA256, &content))});
        let (judged, got) =
            self.ask("a new file", ("POST", "/files"), Some(&token.value), Some(&body), &["201"]).await?;
        let plan = got.answer().map(local::journey::Answer::json).unwrap_or_default();
        let id = plan["id"].as_str().unwrap_or_default().to_owned();
        if judged == Judged::Fault {
            return Ok(());
        }
        let (upload, signed) = (plan["upload"].clone(), Instant::now());
        let file =
            File { id: id.clone(), tenant, content, upload, signed, put: Wish::No, readable: false, audited: false };
        self.ledger.files.push(file);
        let early = format!("/files/{id}/content");
        self.ask("a file before its upload", ("GET", &early), Some(&token.value), None, &["409 file_not_ready"])
            .await
            .map(drop)
    }

    /// The file that was made last and was not uploaded.
    async fn put(&mut self) -> Result<(), Violation> {
        let waiting = |one: &File| one.put == Wish::No && one.signed.elapsed() < URL;
        let Some(at) = self.ledger.files.iter().rposition(waiting) else { return Ok(()) };
        self.upload(at).await
    }

    /// Uploads what was declared.
    pub(crate) async fn upload(&mut self, at: usize) -> Result<(), Violation> {
        let Some(file) = self.ledger.files.get_mut(at) else { return Ok(()) };
        file.put = Wish::Asked;
        let (url, headers, content) = (text(&file.upload["url"]), headers(&file.upload), file.content.clone());
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (judged, _) = self.signed("an upload", ("PUT", &url), &headers, &content, &["200"]).await?;
        if judged == Judged::Right
            && let Some(file) = self.ledger.files.get_mut(at)
        {
            file.put = Wish::Done(Instant::now());
        }
        Ok(())
    }

    /// Other bytes with the same URL.
    async fn put_again(&mut self) -> Result<(), Violation> {
        let uploaded: Vec<&File> =
            self.ledger.files.iter().filter(|one| one.put != Wish::No && one.signed.elapsed() < URL).collect();
        let Some(file) = self.dice.pick(&uploaded).map(|one| (*one).clone()) else { return Ok(()) };
        let (url, headers) = (text(&file.upload["url"]), headers(&file.upload));
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut other = file.content;
        other.reverse();
        let right = ["412 PreconditionFailed", "400 BadDigest", "409 ConditionalRequestConflict"];
        self.signed("other bytes to the same URL", ("PUT", &url), &headers, &other, &right).await.map(drop)
    }

    async fn download(&mut self) -> Result<(), Violation> {
        let count = self.ledger.files.len();
        let at = self.dice.below(count);
        self.read(at).await.map(drop)
    }

    /// Reads a file, as far as it can be read; whether it could.
    pub(crate) async fn read(&mut self, at: usize) -> Result<bool, Violation> {
        let Some(file) = self.ledger.files.get(at).cloned() else { return Ok(false) };
        let Some(token) = self.token(file.tenant).await? else { return Ok(false) };
        let right: &[&str] = match (file.put, file.readable) {
            (Wish::No, _) => &["409 file_not_ready"],
            (_, true) => &["302"],
            (_, false) => &["302", "409 file_not_ready"],
        };
        let path = format!("/files/{}/content", file.id);
        let (judged, got) = self.ask("a file's content", ("GET", &path), Some(&token.value), None, right).await?;
        let Some(answer) = got.answer().filter(|answer| judged == Judged::Right && answer.status == 302) else {
            return Ok(false);
        };
        let location = answer.header("location").to_owned();
        if let Some(file) = self.ledger.files.get_mut(at) {
            file.readable = true;
        }
        let (judged, got) = self.signed("a download", ("GET", &location), &[], &[], &["200"]).await?;
        let torn = self.phase.weather.has(&["s3", "*"], &["cut", "wrong"]);
        match got.answer() {
            Some(answer) if judged == Judged::Right && answer.body != file.content && !torn => {
                Err(self.violation("a download", format!("{} other bytes than were sent", answer.body.len())))
            }
            _ => Ok(judged == Judged::Right),
        }
    }

    async fn other_tenant(&mut self) -> Result<(), Violation> {
        let Some(file) = self.dice.pick(&self.ledger.files).cloned() else { return Ok(()) };
        let other = if file.tenant == "acme" { "globex" } else { "acme" };
        let Some(token) = self.token(other).await? else { return Ok(()) };
        let (method, path) = match self.dice.below(4) {
            0 => ("GET", format!("/files/{}", file.id)),
            1 => ("POST", format!("/files/{}/url", file.id)),
            2 => ("DELETE", format!("/files/{}", file.id)),
            _ => ("GET", format!("/files/{}/content", file.id)),
        };
        self.ask("another tenant's file", (method, &path), Some(&token.value), None, &[ADMITTED]).await.map(drop)
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

pub(crate) fn item(one: &Record, name: &str, value: &str) -> Value {
    json!({"ref": one.row, "table": "users", "column": one.column, "row": one.row, name: value})
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn headers(upload: &Value) -> Vec<(String, String)> {
    let headers = upload["headers"].as_object();
    headers.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
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
