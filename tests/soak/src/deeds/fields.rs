//! Fields: encrypted, opened, moved, indexed, rewrapped.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::leaks::CANARY;
use crate::ledger::{Entry, Record};
use crate::oracle::Item;
use crate::traveller::{Traveller, Violation};

const COLUMNS: [&str; 3] = ["email", "phone", "iban"];

impl Traveller {
    pub(super) async fn encrypt(&mut self, tenant: &'static str) -> Result<(), Violation> {
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

    pub(super) async fn decrypt(&mut self) -> Result<(), Violation> {
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

    pub(super) async fn wrong_context(&mut self) -> Result<(), Violation> {
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

    pub(super) async fn index(&mut self, tenant: &'static str) -> Result<(), Violation> {
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

    pub(super) async fn rewrap(&mut self) -> Result<(), Violation> {
        let Some(known) = self.dice.pick(&self.ledger.records).cloned() else { return Ok(()) };
        let Some(token) = self.token(known.tenant).await? else { return Ok(()) };
        let items = vec![item(&known, "record", &known.record)];
        let answered = self.batch("rewrapping", "/fields/rewrap", &token.value, items, &[Item::Has("record")]).await?;
        if let Some(record) = answered.into_iter().flatten().flatten().next() {
            self.ledger.records.push(Record { record, ..known });
        }
        Ok(())
    }
}

pub(crate) fn item(one: &Record, name: &str, value: &str) -> Value {
    json!({"ref": one.row, "table": "users", "column": one.column, "row": one.row, name: value})
}
