//! Files: made, uploaded, read, and what must not happen to them.

use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ADMITTED;
use crate::leaks::CANARY;
use crate::ledger::{File, Token, Wish};
use crate::oracle::Judged;
use crate::traveller::{Traveller, Violation};

/// How long a signed URL of ours is good for at least, less than what it says.
const URL: Duration = Duration::from_secs(25);

impl Traveller {
    pub(crate) async fn create(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let length = self.dice.below(400);
        let content = format!("{CANARY}{}\n", self.dice.word(length)).into_bytes();
        let body = json!({"name": "soak.txt", "content_type": "text/plain", "size": content.len(), "mode": "put",
            "sha256": STANDARD.encode(digest(&SHA256, &content))});
        self.made(&token, content, &body).await.map(drop)
    }

    /// Makes a file and asks for it before anything was sent; where it stands in the ledger.
    async fn made(&mut self, token: &Token, content: Vec<u8>, body: &Value) -> Result<Option<usize>, Violation> {
        let (judged, got) =
            self.ask("a new file", ("POST", "/files"), Some(&token.value), Some(body), &["201"]).await?;
        let plan = got.answer().map(local::journey::Answer::json).unwrap_or_default();
        let id = plan["id"].as_str().unwrap_or_default().to_owned();
        if judged == Judged::Fault {
            return Ok(None);
        }
        let upload = if plan["upload"]["url"].is_string() { plan["upload"].clone() } else { Value::Null };
        let (tenant, signed) = (token.tenant, Instant::now());
        let file =
            File { id: id.clone(), tenant, content, upload, signed, put: Wish::No, readable: false, audited: false };
        self.ledger.files.push(file);
        let early = format!("/files/{id}/content");
        self.ask("a file before its upload", ("GET", &early), Some(&token.value), None, &["409 file_not_ready"])
            .await?;
        Ok(Some(self.ledger.files.len() - 1))
    }

    /// A file that goes up in parts (of which one of this size is all there is), and is one when its owner says so.
    pub(super) async fn in_parts(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let length = self.dice.below(400);
        let content = format!("{CANARY}{}\n", self.dice.word(length)).into_bytes();
        let body =
            json!({"name": "soak.txt", "content_type": "text/plain", "size": content.len(), "mode": "multipart"});
        let part = json!({"part": 1, "size": content.len(), "sha256": STANDARD.encode(digest(&SHA256, &content))});
        let Some(at) = self.made(&token, content.clone(), &body).await? else { return Ok(()) };
        let Some(id) = self.ledger.files.get(at).map(|file| file.id.clone()) else { return Ok(()) };
        let (parts, complete) = (format!("/files/{id}/parts"), format!("/files/{id}/complete"));
        let asked = json!({"parts": [part]});
        let (judged, got) =
            self.ask("a part's URL", ("POST", &parts), Some(&token.value), Some(&asked), &["200"]).await?;
        if judged == Judged::Fault {
            return Ok(());
        }
        self.ask("a file whose part is missing", ("POST", &complete), Some(&token.value), None, &["409 parts_missing"])
            .await?;
        let plan = got.answer().map(|answer| answer.json()["parts"][0].clone()).unwrap_or_default();
        if self.send_as_planned("a part", &plan, &content, &["200"]).await? == Judged::Fault {
            return Ok(());
        }
        if let Some(file) = self.ledger.files.get_mut(at) {
            file.put = Wish::Asked;
        }
        // Who is not answered asks again: it is one file or none. A listing that is old or was cut has not all parts in it.
        let partial = self.phase.weather.has(&["s3", "*"], &["stale", "cut"]);
        let right: &[&str] = if partial { &["200", "409 parts_missing"] } else { &["200"] };
        for _ in 0..3 {
            let (_, got) = self.ask("a whole file", ("POST", &complete), Some(&token.value), None, right).await?;
            if got.outcome() == "200" {
                if let Some(file) = self.ledger.files.get_mut(at) {
                    file.put = Wish::Done(Instant::now());
                }
                break;
            }
        }
        Ok(())
    }

    /// A ticket opens its file once, for whoever has it.
    pub(super) async fn ticket(&mut self) -> Result<(), Violation> {
        let readable: Vec<&File> = self.ledger.files.iter().filter(|one| one.readable).collect();
        let Some(file) = self.dice.pick(&readable).map(|one| (*one).clone()) else { return Ok(()) };
        let Some(token) = self.token(file.tenant).await? else { return Ok(()) };
        let path = format!("/files/{}/tickets", file.id);
        let (judged, got) = self.ask("a ticket", ("POST", &path), Some(&token.value), None, &["201"]).await?;
        let Some(answer) = got.answer().filter(|_| judged == Judged::Right) else { return Ok(()) };
        let ticket = format!("/tickets/{}", answer.json()["ticket"].as_str().unwrap_or_default());
        let (first, got) = self.ask("a ticket that is used", ("GET", &ticket), None, None, &["302"]).await?;
        // Where no answer came it may have been used up, or not.
        let right: &[&str] = if first == Judged::Right { &[ADMITTED] } else { &["302", ADMITTED] };
        self.ask("a ticket that is used again", ("GET", &ticket), None, None, right).await?;
        let Some(answer) = got.answer().filter(|_| first == Judged::Right) else { return Ok(()) };
        let location = answer.header("location").to_owned();
        self.compare("a download by ticket", &location, &file).await.map(drop)
    }

    /// The file that was made last and was not uploaded.
    pub(super) async fn put(&mut self) -> Result<(), Violation> {
        let waiting = |one: &File| one.put == Wish::No && one.upload.is_object() && one.signed.elapsed() < URL;
        let Some(at) = self.ledger.files.iter().rposition(waiting) else { return Ok(()) };
        self.upload(at).await
    }

    /// Uploads what was declared.
    pub(crate) async fn upload(&mut self, at: usize) -> Result<(), Violation> {
        let Some(file) = self.ledger.files.get_mut(at) else { return Ok(()) };
        file.put = Wish::Asked;
        let (plan, content) = (file.upload.clone(), file.content.clone());
        let judged = self.send_as_planned("an upload", &plan, &content, &["200"]).await?;
        if judged == Judged::Right
            && let Some(file) = self.ledger.files.get_mut(at)
        {
            file.put = Wish::Done(Instant::now());
        }
        Ok(())
    }

    /// Other bytes with the same URL.
    pub(super) async fn put_again(&mut self) -> Result<(), Violation> {
        let uploaded: Vec<&File> = self
            .ledger
            .files
            .iter()
            .filter(|one| one.put != Wish::No && one.upload.is_object() && one.signed.elapsed() < URL)
            .collect();
        let Some(file) = self.dice.pick(&uploaded).map(|one| (*one).clone()) else { return Ok(()) };
        let mut other = file.content;
        other.reverse();
        let right = ["412 PreconditionFailed", "400 BadDigest", "409 ConditionalRequestConflict"];
        self.send_as_planned("other bytes to the same URL", &file.upload, &other, &right).await.map(drop)
    }

    /// Sends bytes to the bucket as a plan says.
    async fn send_as_planned(
        &mut self,
        what: &str,
        plan: &Value,
        content: &[u8],
        right: &[&str],
    ) -> Result<Judged, Violation> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = plan["headers"].as_object();
        let headers: Vec<(String, String)> =
            named.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (judged, _) = self.signed(what, ("PUT", &text(&plan["url"])), &headers, content, right).await?;
        Ok(judged)
    }

    pub(super) async fn download(&mut self) -> Result<(), Violation> {
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
        self.compare("a download", &location, &file).await
    }

    /// Gets what a signed URL leads to; whether it could be had.
    async fn compare(&mut self, what: &str, location: &str, file: &File) -> Result<bool, Violation> {
        // A ticket's URL lives for 30 s, and a clock of S3 that is as much ahead has passed them.
        let late = self.phase.weather.has(&["clock"], &[]);
        let right: &[&str] = if late { &["200", "403 AccessDenied"] } else { &["200"] };
        let (judged, got) = self.signed(what, ("GET", location), &[], &[], right).await?;
        if got.outcome() != "200" {
            return Ok(false);
        }
        let torn = self.phase.weather.has(&["s3", "*"], &["cut", "wrong"]);
        match got.answer() {
            Some(answer) if judged == Judged::Right && answer.body != file.content && !torn => {
                Err(self.violation(what, format!("{} other bytes than were sent", answer.body.len())))
            }
            _ => Ok(judged == Judged::Right),
        }
    }

    pub(super) async fn other_tenant(&mut self) -> Result<(), Violation> {
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
}
