//! What no event does: files whose object is there though nobody told of it, and the end of bytes, versions of ended files, once no
//! URL for their key can be alive.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Invocation};
use shared::clock::Clock;
use shared::name::Tenant;
use shared::object::{FileId, ObjectKey, ObjectStore, UploadId, VersionId};
use shared::port::{Database, Fault, Parameter};
use uuid::Uuid;

use crate::{FUNCTION, Happening, Judged, ObjectEvents, said, unreadable};

const SWEPT: &str = "files:sweep";
const FOUND: &str = "files:found";

/// How many files are taken in hand with one statement.
const BATCH: usize = 100;

/// Versions of one ended file that nobody told of, at most this many in one run.
const ORPHANS: usize = 10;

/// What is left of an invocation when no further file is begun, in milliseconds.
const RESERVE_MS: i64 = 8_000;

/// An ended file whose bytes may go.
#[derive(Deserialize)]
struct Ended {
    tenant: String,
    id: Uuid,
    status: String,
    versions: Vec<String>,
    /// Parts that no object came of.
    upload_id: Option<String>,
}

/// A file of whose object no event told.
#[derive(Deserialize)]
struct Unheard {
    tenant: String,
    id: Uuid,
}

/// What one run did.
#[derive(Default)]
struct Swept {
    found: i64,
    purged: i64,
    orphans: i64,
    unseen: i64,
    failed: i64,
}

impl Swept {
    fn metrics(&self) -> [(&'static str, &'static str, i64); 4] {
        [
            ("FilesFound", "Count", self.found),
            ("FilesPurged", "Count", self.purged),
            ("VersionsOrphaned", "Count", self.orphans),
            ("FilesStuck", "Count", self.unseen + self.failed),
        ]
    }
}

impl<D: Database, O: ObjectStore, C: Clock> ObjectEvents<D, O, C> {
    /// Looks for what was not heard of, and then removes what may go, until nothing is left or time is short; the next run goes on where
    /// this one ended. One file that cannot be purged holds up no other: it fails the invocation after all others had
    /// their turn. The answer says what was done.
    pub(crate) async fn sweep(&self, invocation: &Invocation) -> Result<Value, Failure> {
        let mut done = Swept::default();
        // In this order: what is found now must not expire for want of an event.
        let run = match self.listen(invocation, &mut done).await {
            Ok(()) => self.purge_all(invocation, &mut done).await,
            Err(fault) => Err(fault),
        };
        let line = Line::new(FUNCTION, SWEPT).request(&invocation.request_id);
        if let Err(fault) = run {
            line.decision("fault", "unavailable").fault(&fault).emit();
            return Err(Failure::UNAVAILABLE);
        }
        line.decision("allow", "done").metrics(self.clock.now(), &done.metrics()).emit();
        if done.failed > 0 {
            Err(Failure::UNAVAILABLE)
        } else {
            Ok(json!({ "found": done.found, "purged": done.purged }))
        }
    }

    fn is_late(&self, invocation: &Invocation) -> bool {
        invocation.deadline.millis_since(self.clock.now()) < RESERVE_MS
    }

    /// Judges the objects of files that no URL can fill any more, as their events would have made us.
    async fn listen(&self, invocation: &Invocation, done: &mut Swept) -> Result<(), Fault> {
        loop {
            let files = self.unheard().await?;
            let full = files.len() >= BATCH;
            for file in files {
                if self.is_late(invocation) {
                    return Ok(());
                }
                let line =
                    Line::new(FUNCTION, FOUND).request(&invocation.request_id).text("file", &file.id.to_string());
                match self.look(&file).await {
                    Ok(None) => {}
                    Ok(Some(judged)) => {
                        done.found += 1;
                        let _ = said(line, Ok(judged));
                    }
                    // It is asked for again within the hour; what is due to go does not wait for it.
                    Err(fault) => {
                        done.unseen += 1;
                        line.decision("fault", "unavailable").fault(&fault).emit();
                    }
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// What became of a file's object, where there is one.
    async fn look(&self, file: &Unheard) -> Result<Option<Judged>, Fault> {
        let tenant = Tenant::parse(&file.tenant).map_err(|_| unreadable())?;
        let key = ObjectKey::new(tenant, FileId::from_uuid(file.id).map_err(|_| unreadable())?);
        let Some(version) = self.objects.newest(&key).await? else { return Ok(None) };
        let happening = Happening {
            bucket: self.config.object_bucket.clone(),
            key: key.to_string(),
            version: Some(version.as_str().to_owned()),
        };
        self.judge(&happening).await.map(Some)
    }

    async fn unheard(&self) -> Result<Vec<Unheard>, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            files: Vec<Unheard>,
        }
        let answer = self.database.call("api.files_unheard", self.batch()).await?;
        serde_json::from_value(answer).map(|Answer { files }| files).map_err(|_| unreadable())
    }

    fn batch(&self) -> Vec<Parameter> {
        vec![Parameter::Int(self.clock.now().millis()), Parameter::Int(i64::try_from(BATCH).unwrap_or(i64::MAX))]
    }

    async fn purge_all(&self, invocation: &Invocation, done: &mut Swept) -> Result<(), Fault> {
        let line = || Line::new(FUNCTION, SWEPT).request(&invocation.request_id);
        loop {
            let files = self.due().await?;
            let full = files.len() >= BATCH;
            for file in files {
                if self.is_late(invocation) {
                    return Ok(());
                }
                let line = line().text("file", &file.id.to_string()).text("status", &file.status);
                match self.purge(&file).await {
                    Ok((outcome, orphans)) => {
                        done.purged += 1;
                        done.orphans += orphans;
                        line.decision("allow", outcome).emit();
                    }
                    Err(fault) => {
                        done.failed += 1;
                        line.decision("fault", "unavailable").fault(&fault).emit();
                    }
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    async fn due(&self) -> Result<Vec<Ended>, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            files: Vec<Ended>,
        }
        let answer = self.database.call("api.files_to_sweep", self.batch()).await?;
        serde_json::from_value(answer).map(|Answer { files }| files).map_err(|_| unreadable())
    }

    /// Every version and what is left of parts is tried, and what is gone is recorded, also when another one would not go.
    async fn purge(&self, file: &Ended) -> Result<(&'static str, i64), Fault> {
        let tenant = Tenant::parse(&file.tenant).map_err(|_| unreadable())?;
        let key = ObjectKey::new(tenant, FileId::from_uuid(file.id).map_err(|_| unreadable())?);
        let (mut gone, mut failed) = (Vec::new(), None);
        for version in &file.versions {
            let deleted = match VersionId::parse(version) {
                Ok(parsed) => self.objects.delete(&key, &parsed).await,
                Err(_) => Err(unreadable()),
            };
            match deleted {
                Ok(()) => gone.push(version.clone()),
                Err(fault) => failed = Some(fault),
            }
        }
        let mut ended = None;
        if let Some(upload) = &file.upload_id {
            let aborted = match UploadId::parse(upload) {
                Ok(parsed) => self.objects.abort(&key, &parsed).await,
                Err(_) => Err(unreadable()),
            };
            match aborted {
                Ok(()) => ended = Some(upload.clone()),
                Err(fault) => failed = Some(fault),
            }
        }
        // Only when all that is known is gone can what nobody told of be seen. Where that fails the file stays to be purged. Under an
        // expired file's key there may be what somebody believes to have sent, so that is left alone.
        let over = failed.is_none() && file.status != "expired";
        let orphans = if over { self.end_orphans(&key).await? } else { 0 };
        let answer = self
            .database
            .call(
                "api.file_purged",
                vec![
                    Parameter::Text(file.tenant.clone()),
                    Parameter::Uuid(file.id),
                    Parameter::Text(self.config.object_bucket.clone()),
                    Parameter::Texts(gone),
                    Parameter::OptionalText(ended),
                    Parameter::Int(self.clock.now().millis()),
                ],
            )
            .await?;
        match (failed, answer.get("outcome").and_then(Value::as_str)) {
            (Some(fault), _) => Err(fault),
            (None, Some("purged")) => Ok(("purged", orphans)),
            // A version became known meanwhile, or another sweep was faster; the next run sees what is left.
            (None, Some("kept")) => Ok(("kept", orphans)),
            (None, Some("unknown")) => Ok(("unknown", orphans)),
            (None, _) => Err(unreadable()),
        }
    }

    /// Ends versions of which no event told, under the key of a file that was deleted, rejected or infected. It is over and so is every
    /// URL for its key, so whatever lies there is nobody's.
    async fn end_orphans(&self, key: &ObjectKey) -> Result<i64, Fault> {
        let mut ended = 0;
        for _ in 0..ORPHANS {
            let Some(version) = self.objects.newest(key).await? else { break };
            self.objects.delete(key, &version).await?;
            ended += 1;
        }
        Ok(ended)
    }
}
