//! What is looked for once the weather is fine: everything that was ever acknowledged.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::deeds::{ADMITTED, REFUSED};
use crate::ledger::{Bound, Record, Wish};
use crate::traveller::{NOWHERE, Phase, Traveller, Violation};

/// How long an uploaded file may take to be readable in a calm, once nobody gives its event up any more.
const READABLE: Duration = Duration::from_secs(15);
/// Records that are opened with one request.
const BATCH: usize = 200;
/// How many of the records that were opened before are opened again.
const AGAIN: usize = 40;
/// How long a revocation may take to reach the gate in a calm: the copies live for five seconds, and it has to be published.
const PATIENCE: Duration = Duration::from_secs(20);
/// How old a copy of the revocations gets, and a little.
pub const COPIES: Duration = Duration::from_millis(5_800);

/// How long after that a process may still go by an older copy, because its re-read was slow.
const LATE: Duration = Duration::from_secs(10);

/// On a busy machine a batch may have to be sent again.
const AGAIN_AND_AGAIN: usize = 5;

/// How a token is shown that must be refused by now.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'t> {
    /// By itself.
    Bearer(&'t str),
    /// With a proof, beside its person's assertion; what was revoked is its session.
    Bound(&'t Bound),
}

/// What an audit looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Audited {
    /// Files that were read and compared.
    pub files: usize,
    /// Revoked tokens that were refused.
    pub tokens: usize,
    /// Records that opened.
    pub records: usize,
}

impl std::ops::AddAssign for Audited {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.tokens += other.tokens;
        self.records += other.records;
    }
}

impl Traveller {
    /// A small journey, each answer of which must be right: a token, the gate, a field there and back, a file up and down, and a revocation.
    /// Answers when the revocation was acknowledged.
    ///
    /// # Errors
    /// The first answer that is not.
    pub async fn journey(&mut self, phase: &Phase) -> Result<Instant, Violation> {
        self.phase = phase.clone();
        self.operation += 1;
        self.ledger.tokens.clear();
        let Some(token) = self.token("acme").await? else { return Err(self.violation("a journey", "no token")) };
        self.ask("a token that holds", ("GET", NOWHERE), Some(&token.value), None, &[ADMITTED]).await?;
        let row = self.operation.to_string();
        let known = Record {
            tenant: "acme",
            column: "email",
            row,
            plaintext: "Y2FuYXJ5LXNvYWst".to_owned(),
            record: String::new(),
        };
        let items = vec![crate::deeds::item(&known, "plaintext", &known.plaintext)];
        let made = self
            .batch("encrypting", "/fields/encrypt", &token.value, items, &[crate::oracle::Item::Has("record")])
            .await?;
        if let Some(record) = made.into_iter().flatten().flatten().next() {
            self.open("decrypting", &[Record { record, ..known }]).await?;
        }
        self.create("acme").await?;
        let at = self.ledger.files.len().saturating_sub(1);
        self.upload(at).await?;
        self.readable(at).await?;
        self.end(&token).await?;
        Ok(Instant::now())
    }

    /// Waits until the gate refuses the token that the journey revoked; how long it took.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn refused(&mut self, phase: &Phase, since: Instant) -> Result<Duration, Violation> {
        self.phase = phase.clone();
        let revoked = self.ledger.tokens.iter().find(|one| matches!(one.revoked, Wish::Done(_))).cloned();
        let Some(token) = revoked else { return Err(self.violation("a journey", "revoked nothing")) };
        loop {
            let (_, got) =
                self.ask("a revoked token", ("GET", NOWHERE), Some(&token.value), None, &[REFUSED, ADMITTED]).await?;
            if got.outcome() == REFUSED {
                return Ok(since.elapsed());
            }
            if since.elapsed() > PATIENCE {
                return Err(self.violation("a revoked token", format!("still admitted after {} s", PATIENCE.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Looks for everything that was acknowledged: files, revocations that were before `published`, records. With `all` also for what was
    /// found before.
    ///
    /// # Errors
    /// What is lost, or is good again.
    pub async fn audit(&mut self, phase: &Phase, published: Instant, all: bool) -> Result<Audited, Violation> {
        self.phase = phase.clone();
        let tokens = self.audit_tokens(published).await? + self.audit_sessions(published).await?;
        let files = self.audit_files(all).await?;
        let records = self.audit_records(all).await?;
        Ok(Audited { files, tokens, records })
    }

    async fn audit_tokens(&mut self, published: Instant) -> Result<usize, Violation> {
        let mut count = 0;
        for at in 0..self.ledger.tokens.len() {
            let Some(token) = self.ledger.tokens.get(at).cloned() else { break };
            if !Self::over(&token, published) {
                continue;
            }
            self.refused_by_now(Shown::Bearer(&token.value)).await?;
            count += 1;
            if let Some(token) = self.ledger.tokens.get_mut(at) {
                token.refused = true;
            }
        }
        Ok(count)
    }

    /// A process whose re-read of the revocations takes longer than its window decides once more by what it holds, and tries again after a
    /// second (shared/src/trust/cached.rs): that is late, is counted, and ends.
    pub(crate) async fn refused_by_now(&mut self, shown: Shown<'_>) -> Result<(), Violation> {
        const WHAT: &str = "a token whose revocation was acknowledged";
        let since = Instant::now();
        loop {
            let either = [REFUSED, ADMITTED];
            let (_, got) = match shown {
                Shown::Bearer(token) => self.ask(WHAT, ("GET", NOWHERE), Some(token), None, &either).await?,
                Shown::Bound(token) => self.beside(WHAT, token, &either).await?,
            };
            if got.outcome() == REFUSED {
                return Ok(());
            }
            self.tally.late += u64::from(got.outcome() == ADMITTED);
            if since.elapsed() > LATE {
                let published = if self.is_published(shown).await { "is" } else { "is not" };
                let got =
                    format!("{} for {} s more; it {published} among those published", got.outcome(), LATE.as_secs());
                return Err(self.violation(WHAT, got));
            }
            tokio::time::sleep(Duration::from_millis(1_100)).await;
        }
    }

    /// Whether the revocation of a token is among those that verifiers read (docs/formats/trust-objects.md).
    async fn is_published(&self, shown: Shown<'_>) -> bool {
        let (token, kind) = match shown {
            Shown::Bearer(token) => (token, "jti"),
            Shown::Bound(token) => (token.value.as_str(), "sid"),
        };
        let said = local::journey::claims(token);
        let value = format!("{kind}:{}", said[kind].as_str().unwrap_or_default());
        let mark = digest(&SHA256, value.as_bytes());
        let stack = &self.world.stack;
        let object = stack.s3.look(stack.places.trust_bucket, "trust/revocations.json").await.unwrap_or_default();
        let object: Value = serde_json::from_slice(&object).unwrap_or_default();
        let entries = object["body"]["entries"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let entries = entries.unwrap_or_default();
        entries.chunks(12).any(|entry| entry.get(..8) == mark.as_ref().get(..8))
    }

    async fn audit_files(&mut self, all: bool) -> Result<usize, Violation> {
        let mut count = 0;
        for at in 0..self.ledger.files.len() {
            let due =
                self.ledger.files.get(at).is_some_and(|one| matches!(one.put, Wish::Done(_)) && (all || !one.audited));
            if !due {
                continue;
            }
            self.readable(at).await?;
            count += 1;
            if let Some(file) = self.ledger.files.get_mut(at) {
                file.audited = true;
            }
        }
        Ok(count)
    }

    /// Waits until a file is handed out, and compares it and its receipt.
    async fn readable(&mut self, at: usize) -> Result<(), Violation> {
        let since = Instant::now();
        while !self.read(at).await? {
            if since.elapsed() > READABLE {
                let id = self.ledger.files.get(at).map(|one| one.id.clone()).unwrap_or_default();
                return Err(self.violation("a file whose upload was acknowledged", format!("{id} is not readable")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let Some(file) = self.ledger.files.get(at).cloned() else { return Ok(()) };
        if file.audited {
            return Ok(());
        }
        let Some(token) = self.token(file.tenant).await? else { return Ok(()) };
        let path = format!("/files/{}/receipt", file.id);
        self.ask("a file's receipt", ("GET", &path), Some(&token.value), None, &["200"]).await.map(drop)
    }

    async fn audit_records(&mut self, all: bool) -> Result<usize, Violation> {
        let known = self.ledger.records.len();
        let from = if all { 0 } else { self.ledger.audited };
        let mut chosen: Vec<Record> = self.ledger.records.get(from..).unwrap_or_default().to_vec();
        if !all {
            let before = self.ledger.records.get(..from).unwrap_or_default();
            chosen.extend((0..AGAIN).filter_map(|_| self.dice.pick(before).cloned()));
        }
        let mut count = 0;
        for tenant in ["acme", "globex"] {
            let own: Vec<Record> = chosen.iter().filter(|one| one.tenant == tenant).cloned().collect();
            for batch in own.chunks(BATCH) {
                let mut opened = 0;
                for _ in 0..AGAIN_AND_AGAIN {
                    opened = self.open("a record that was acknowledged", batch).await?;
                    if opened == batch.len() {
                        break;
                    }
                }
                if opened != batch.len() {
                    let got = format!("{opened} of {} open", batch.len());
                    return Err(self.violation("records that were acknowledged", got));
                }
                count += opened;
            }
        }
        self.ledger.audited = known;
        Ok(count)
    }

    /// The ids of all files whose creation was acknowledged.
    pub(crate) fn known_files(&self) -> impl Iterator<Item = &str> {
        self.ledger.files.iter().map(|one| one.id.as_str())
    }
}
