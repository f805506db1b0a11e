//! STS behind the ports of shared: signer sessions, each able to sign for one tenant's prefix alone, or for one object.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};

use aws::Lazy;
use aws_sdk_sts::Client;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_types::SdkConfig;
use serde_json::json;
use shared::clock::{Clock, Timestamp};
use shared::name::Tenant;
use shared::object::{ObjectKey, SignerReach, SignerSession, SignerSessions, SigningSettings};
use shared::port::{Fault, FaultKind};
use shared::secret::SecretString;

/// How long a session is asked for, in seconds: the least that STS gives.
const LIFE: i32 = 900;
/// A session with less left, in seconds, is replaced: 300 for a URL, 60 that no URL may use, 60 to spare.
const REFRESH: i64 = 420;
/// Tenants whose sessions are kept at once.
const KEPT: usize = 256;

/// What the sessions may sign for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// Writing objects.
    Upload,
    /// Reading versions of objects.
    Download,
}

/// Which role the sessions are of, and what they are narrowed to.
#[derive(Clone, Debug)]
pub struct SignerRole {
    /// ARN of the signer role.
    pub role: String,
    /// What the role is for.
    pub permission: Permission,
    /// The object bucket.
    pub bucket: String,
    /// ARN of the key that the bucket's objects are encrypted under; S3 uses it with the signer's rights.
    pub bucket_key: String,
    /// How far each session reaches.
    pub reach: SignerReach,
}

/// Sessions of one signer role. Those that reach a tenant are kept until less than 420 s remain, and of concurrent callers one asks
/// STS; those that reach one object are asked for each time.
#[derive(Debug)]
pub struct Sessions<C> {
    client: Lazy<Client>,
    signer: SignerRole,
    region: String,
    clock: C,
    kept: std::sync::Mutex<HashMap<Tenant, Slot>>,
    revoked_before: AtomicI64,
}

type Slot = Arc<tokio::sync::Mutex<Option<SignerSession>>>;

impl<C: Clock> Sessions<C> {
    /// Takes the configuration of the service; opens nothing.
    pub fn new(config: &SdkConfig, signer: SignerRole, clock: C) -> Sessions<C> {
        let region = config.region().map(|region| region.as_ref().to_owned()).unwrap_or_default();
        let (revoked_before, config) = (AtomicI64::new(i64::MIN), config.clone());
        Sessions {
            client: Lazy::new(move || Client::new(&config)),
            signer,
            region,
            clock,
            kept: std::sync::Mutex::default(),
            revoked_before,
        }
    }

    /// Sessions of the role that a deployment's settings name, for its bucket.
    pub fn of(config: &SdkConfig, settings: &SigningSettings, permission: Permission, clock: C) -> Sessions<C> {
        let signer = SignerRole {
            role: settings.signer_role.clone(),
            permission,
            bucket: settings.object_bucket.clone(),
            bucket_key: settings.bucket_key.clone(),
            reach: settings.signer_reach,
        };
        let sessions = Sessions::new(config, signer, clock);
        if let Some(moment) = settings.revoked_before {
            sessions.revoke_before(moment);
        }
        sessions
    }

    /// From now on sessions issued before `moment` are not used: the role denies them (`aws:TokenIssueTime`), and signing with
    /// them would hand out dead URLs.
    pub fn revoke_before(&self, moment: Timestamp) {
        self.revoked_before.fetch_max(moment.millis(), Ordering::Relaxed);
    }

    fn slot(&self, tenant: &Tenant) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT && !kept.contains_key(tenant) {
            let now = self.clock.now();
            // A slot that is locked is being filled; one that is not and holds nothing usable is free to go.
            kept.retain(|_, slot| {
                slot.try_lock().map_or(true, |held| held.as_ref().is_some_and(|session| session.expires_at > now))
            });
            let soonest = kept.iter().filter_map(|(tenant, slot)| {
                let ends = slot.try_lock().ok()?.as_ref()?.expires_at;
                Some((ends, tenant.clone()))
            });
            if let Some((_, tenant)) = soonest.min().filter(|_| kept.len() >= KEPT) {
                kept.remove(&tenant);
            }
        }
        Arc::clone(kept.entry(tenant.clone()).or_default())
    }

    fn allowed(&self, session: &SignerSession) -> bool {
        session.issued_at.millis() > self.revoked_before.load(Ordering::Relaxed)
    }

    async fn assume(&self, key: &ObjectKey) -> Result<SignerSession, Fault> {
        let prefix = match self.signer.permission {
            Permission::Upload => 'u',
            Permission::Download => 'd',
        };
        let issued_at = self.clock.now();
        let answer = self
            .client
            .assume_role()
            .role_arn(&self.signer.role)
            .role_session_name(format!("{prefix}-{}", key.tenant()))
            .policy(session_policy(&self.signer, &self.region, key))
            .duration_seconds(LIFE)
            .send()
            .await
            .map_err(|failure| fault(&failure))?;
        let given = answer
            .credentials()
            .ok_or_else(|| Fault::new(FaultKind::Unavailable, "sts", "AssumeRole").caused_by("no credentials"))?;
        Ok(SignerSession {
            access_key_id: given.access_key_id().to_owned(),
            secret_access_key: SecretString::new(given.secret_access_key().to_owned()),
            session_token: SecretString::new(given.session_token().to_owned()),
            issued_at,
            expires_at: Timestamp::from_seconds(given.expiration().secs()),
        })
    }
}

impl<C: Clock> SignerSessions for Sessions<C> {
    async fn session(&self, key: &ObjectKey) -> Result<SignerSession, Fault> {
        if self.signer.reach == SignerReach::Object {
            return self.assume(key).await;
        }
        let slot = self.slot(key.tenant());
        let mut held = slot.lock().await;
        let usable = held.take().filter(|session| self.allowed(session));
        let left = usable.as_ref().map_or(0, |session| session.expires_at.millis_since(self.clock.now()));
        let session = match usable {
            Some(session) if left >= REFRESH * 1000 => session,
            Some(session) => match self.assume(key).await {
                Ok(fresh) => fresh,
                // What is left of it may still carry a URL; the URL's life decides.
                Err(_) if left > 0 => session,
                Err(failed) => return Err(failed),
            },
            None => self.assume(key).await?,
        };
        *held = Some(session.clone());
        Ok(session)
    }
}

/// The inline policy of a session. It can only take away from what the role may do, so it must name the KMS actions too that
/// S3 performs as the caller.
fn session_policy(signer: &SignerRole, region: &str, key: &ObjectKey) -> String {
    let partition = signer.role.split(':').nth(1).unwrap_or("aws");
    let (objects, keys) = match signer.permission {
        Permission::Upload => (
            json!(["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]),
            json!(["kms:GenerateDataKey", "kms:Decrypt"]),
        ),
        Permission::Download => (json!(["s3:GetObject", "s3:GetObjectVersion"]), json!(["kms:Decrypt"])),
    };
    let objects_reached = match signer.reach {
        SignerReach::Tenant => format!("arn:{partition}:s3:::{}/t/{}/*", signer.bucket, key.tenant()),
        SignerReach::Object => format!("arn:{partition}:s3:::{}/{key}", signer.bucket),
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": objects, "Resource": objects_reached },
            {
                "Effect": "Allow",
                "Action": keys,
                "Resource": signer.bucket_key,
                "Condition": { "StringEquals": { "kms:ViaService": format!("s3.{region}.amazonaws.com") } }
            }
        ]
    })
    .to_string()
}

/// Of a refusal only its code is kept: the text names principals and policies.
fn fault(failure: &SdkError<AssumeRoleError, HttpResponse>) -> Fault {
    let code = failure.as_service_error().and_then(ProvideErrorMetadata::code);
    let status = failure.raw_response().map(|answer| answer.status().as_u16());
    let kind = match (code, status) {
        (Some("Throttling" | "ThrottlingException" | "RequestLimitExceeded"), _) | (_, Some(429)) => {
            FaultKind::Throttled
        }
        (_, Some(401 | 403)) => FaultKind::Denied,
        (_, Some(400..=499)) => FaultKind::Invalid,
        _ if matches!(failure, SdkError::ConstructionFailure(_)) => FaultKind::Invalid,
        _ => FaultKind::Unavailable,
    };
    let cause = match (code, status) {
        (Some(code), Some(status)) => format!("{status} {code}"),
        (None, Some(status)) => format!("{status}"),
        _ => chain(failure),
    };
    Fault::new(kind, "sts", "AssumeRole").caused_by(cause)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
