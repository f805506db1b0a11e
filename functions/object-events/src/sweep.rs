//! The end of bytes: versions of ended files, once no URL for their key can be alive.

use serde::Deserialize;
use serde_json::{Value, json};
use shared::audit::Line;
use shared::boot::{Failure, Invocation};
use shared::clock::Clock;
use shared::name::Tenant;
use shared::object::{FileId, ObjectKey, ObjectStore, UploadId, VersionId};
use shared::port::{Database, Fault, Parameter};
use uuid::Uuid;

use crate::{FUNCTION, ObjectEvents, unreadable};

const SWEPT: &str = "files:sweep";

/// How many files are taken in hand with one statement.
const BATCH: usize = 100;

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

impl<D: Database, O: ObjectStore, C: Clock> ObjectEvents<D, O, C> {
    /// Removes what may go until nothing is left or time is short; the next run goes on where this one ended. One file that
    /// cannot be purged holds up no other: it fails the invocation after all others had their turn.
    pub(crate) async fn sweep(&self, invocation: &Invocation) -> Result<Value, Failure> {
        let line = || Line::new(FUNCTION, SWEPT).request(&invocation.request_id);
        let (mut purged, mut failed) = (0_u64, 0_u64);
        'run: loop {
            let files = match self.due().await {
                Ok(files) => files,
                Err(fault) => {
                    line().decision("fault", "unavailable").fault(&fault).emit();
                    return Err(Failure::UNAVAILABLE);
                }
            };
            let full = files.len() >= BATCH;
            for file in files {
                if invocation.deadline.millis_since(self.clock.now()) < RESERVE_MS {
                    break 'run;
                }
                let line = line().text("file", &file.id.to_string()).text("status", &file.status);
                match self.purge(&file).await {
                    Ok(outcome) => {
                        purged += 1;
                        line.decision("allow", outcome).emit();
                    }
                    Err(fault) => {
                        failed += 1;
                        line.decision("fault", "unavailable").fault(&fault).emit();
                    }
                }
            }
            if !full {
                break;
            }
        }
        if failed > 0 { Err(Failure::UNAVAILABLE) } else { Ok(json!({ "purged": purged })) }
    }

    async fn due(&self) -> Result<Vec<Ended>, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            files: Vec<Ended>,
        }
        let limit = i64::try_from(BATCH).unwrap_or(i64::MAX);
        let parameters = vec![Parameter::Int(self.clock.now().millis()), Parameter::Int(limit)];
        let answer = self.database.call("api.files_to_sweep", parameters).await?;
        serde_json::from_value(answer).map(|Answer { files }| files).map_err(|_| unreadable())
    }

    /// Every version and what is left of parts is tried, and what is gone is recorded, also when another one would not go.
    async fn purge(&self, file: &Ended) -> Result<&'static str, Fault> {
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
            (None, Some("purged")) => Ok("purged"),
            // A version became known meanwhile, or another sweep was faster; the next run sees what is left.
            (None, Some("kept")) => Ok("kept"),
            (None, Some("unknown")) => Ok("unknown"),
            (None, _) => Err(unreadable()),
        }
    }
}
