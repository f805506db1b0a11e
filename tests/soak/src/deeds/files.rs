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
/// What a form takes at most, in bytes.
const LONGEST: usize = 4_096;
/// What all parts but the last have, in bytes: as little as S3 takes.
const PART: usize = 5 << 20;
/// How many files of more than one part one traveller makes: all of them are compared again and again.
const LARGE: usize = 2;

/// A file that was just made.
struct Made {
    /// Where it stands in the ledger.
    at: usize,
    id: String,
    /// What its bytes are sent with.
    upload: Value,
}

impl Traveller {
    pub(crate) async fn create(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let content = self.content(400);
        let body = json!({"name": "soak.txt", "content_type": "text/plain", "size": content.len(), "mode": "put",
            "sha256": STANDARD.encode(digest(&SHA256, &content))});
        self.made(&token, content, &body).await.map(drop)
    }

    /// What a file holds, of this length and a little more at most.
    fn content(&mut self, most: usize) -> Vec<u8> {
        let length = self.dice.below(most);
        format!("{CANARY}{}\n", self.dice.word(length)).into_bytes()
    }

    /// Makes a file and asks for it before anything was sent.
    async fn made(&mut self, token: &Token, content: Vec<u8>, body: &Value) -> Result<Option<Made>, Violation> {
        let (judged, got) =
            self.ask("a new file", ("POST", "/files"), Some(&token.value), Some(body), &["201"]).await?;
        let mut plan = got.answer().map(local::journey::Answer::json).unwrap_or_default();
        let id = plan["id"].as_str().unwrap_or_default().to_owned();
        if judged == Judged::Fault {
            return Ok(None);
        }
        let upload = plan["upload"].take();
        // Only a signed PUT may be sent again later, and takes its bytes once.
        let put = if upload["headers"].is_object() { upload.clone() } else { Value::Null };
        let (tenant, signed) = (token.tenant, Instant::now());
        let file = File {
            id: id.clone(),
            tenant,
            content,
            upload: put,
            signed,
            put: Wish::No,
            readable: false,
            audited: false,
        };
        self.ledger.files.push(file);
        let early = format!("/files/{id}/content");
        self.ask("a file before its upload", ("GET", &early), Some(&token.value), None, &["409 file_not_ready"])
            .await?;
        Ok(Some(Made { at: self.ledger.files.len() - 1, id, upload }))
    }

    /// A file of a size that nobody said, sent as a page's form does.
    pub(super) async fn in_a_form(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let content = self.content(400);
        let body = json!({"name": "soak.txt", "content_type": "text/plain", "max_size": LONGEST, "mode": "post"});
        let Some(Made { at, upload, .. }) = self.made(&token, content.clone(), &body).await? else { return Ok(()) };
        if self.dice.percent(30) {
            let long = vec![b'x'; LONGEST + 1];
            self.send_form("a form with more than may be", &upload, &long, &["400 EntityTooLarge"]).await?;
        }
        if let Some(file) = self.ledger.files.get_mut(at) {
            file.put = Wish::Asked;
        }
        if self.send_form("a form", &upload, &content, &["204"]).await? == Judged::Right
            && let Some(file) = self.ledger.files.get_mut(at)
        {
            file.put = Wish::Done(Instant::now());
        }
        Ok(())
    }

    /// Sends bytes to the bucket as the fields of a form say.
    async fn send_form(
        &mut self,
        what: &str,
        upload: &Value,
        content: &[u8],
        right: &[&str],
    ) -> Result<Judged, Violation> {
        const HEADERS: &[(&str, &str)] = &[("content-type", "multipart/form-data; boundary=soak")];
        let mut body = Vec::new();
        for (name, value) in upload["fields"].as_object().into_iter().flatten() {
            let (name, value) = (name.as_str(), value.as_str().unwrap_or_default());
            let part = format!("--soak\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        body.extend_from_slice(b"--soak\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--soak--\r\n");
        let url = upload["url"].as_str().unwrap_or_default();
        let (judged, _) = self.signed(what, ("POST", url), HEADERS, &body, right).await?;
        Ok(judged)
    }

    /// A file that goes up in parts, most of one part and a few of two, and is one when its owner says so.
    pub(super) async fn in_parts(&mut self, tenant: &'static str) -> Result<(), Violation> {
        let Some(token) = self.token(tenant).await? else { return Ok(()) };
        let mut content = self.content(400);
        let large = self.ledger.files.iter().filter(|one| one.content.len() > PART).count();
        if large < LARGE && self.dice.percent(8) {
            content = content.iter().copied().cycle().take(PART + content.len()).collect();
        }
        let body = json!({"name": "soak.txt", "content_type": "text/plain", "size": content.len(), "mode": "multipart",
                "part_size": PART});
        let Some(Made { at, id, .. }) = self.made(&token, content.clone(), &body).await? else { return Ok(()) };
        let pieces: Vec<&[u8]> = content.chunks(PART).collect();
        let list = (1u32..).zip(&pieces).map(|(part, piece)| {
            json!({"part": part, "size": piece.len(), "sha256": STANDARD.encode(digest(&SHA256, piece))})
        });
        let asked = json!({"parts": list.collect::<Vec<_>>()});
        let (parts, complete) = (format!("/files/{id}/parts"), format!("/files/{id}/complete"));
        let (judged, got) =
            self.ask("URLs of parts", ("POST", &parts), Some(&token.value), Some(&asked), &["200"]).await?;
        if judged == Judged::Fault {
            return Ok(());
        }
        self.ask(
            "a file whose parts are missing",
            ("POST", &complete),
            Some(&token.value),
            None,
            &["409 parts_missing"],
        )
        .await?;
        let plan = got.answer().map(local::journey::Answer::json).unwrap_or_default();
        let mut sent = self.send_parts(&plan, &pieces).await?;
        if sent.len() < pieces.len() {
            // Who goes on is told what is there, and sends the rest.
            let mut more = asked;
            more["resume"] = json!(true);
            let (judged, got) = self
                .ask("the parts that are left", ("POST", &parts), Some(&token.value), Some(&more), &["200"])
                .await?;
            if judged == Judged::Fault {
                return Ok(());
            }
            let plan = got.answer().map(local::journey::Answer::json).unwrap_or_default();
            let there: Vec<u64> = plan["uploaded"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
            let old = self.phase.weather.has(&["s3", "*"], &["stale", "cut"]);
            if let Some(lost) = sent.iter().find(|part| !there.contains(part) && !old) {
                return Err(self.violation("a part that was acknowledged", format!("part {lost} is not there: {plan}")));
            }
            sent.extend(there.iter().filter(|part| !sent.contains(part)).copied().collect::<Vec<_>>());
            sent.extend(self.send_parts(&plan, &pieces).await?);
            sent.sort_unstable();
            sent.dedup();
            if sent.len() < pieces.len() {
                return Ok(());
            }
        }
        self.complete(at, &complete, &token).await
    }

    /// Sends the parts that a plan has URLs for; those that were taken.
    async fn send_parts(&mut self, plan: &Value, pieces: &[&[u8]]) -> Result<Vec<u64>, Violation> {
        let mut sent = Vec::new();
        for one in plan["parts"].as_array().into_iter().flatten() {
            let part = one["part"].as_u64().unwrap_or_default();
            let piece = part.checked_sub(1).and_then(|at| pieces.get(usize::try_from(at).ok()?));
            let Some(piece) = piece else { return Err(self.violation("URLs of parts", format!("part {part}"))) };
            if self.send_as_planned("a part", one, piece, &["200"]).await? == Judged::Right {
                sent.push(part);
            }
        }
        Ok(sent)
    }

    /// Says that all parts of a file were sent.
    async fn complete(&mut self, at: usize, path: &str, token: &Token) -> Result<(), Violation> {
        if let Some(file) = self.ledger.files.get_mut(at) {
            file.put = Wish::Asked;
        }
        // Who is not answered asks again: it is one file or none. A listing that is old or was cut has not all parts in it.
        let partial = self.phase.weather.has(&["s3", "*"], &["stale", "cut"]);
        let right: &[&str] = if partial { &["200", "409 parts_missing"] } else { &["200"] };
        for _ in 0..3 {
            let (_, got) = self.ask("a whole file", ("POST", path), Some(&token.value), None, right).await?;
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
