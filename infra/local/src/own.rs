//! An application of somebody's own beside the project's: a CloudFormation template with its roles, keys, buckets and functions and
//! perhaps an API, served by the same stand-ins under the same rules.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::account::Account;
use crate::gateway::{self, Gateway};
use crate::http::{Server, bind};
use crate::kms::{KeySpec, Kms};
use crate::lambda::{self, Lambda};
use crate::template::{self, OWN_API};

/// A template of somebody's own, read.
#[derive(Clone, Debug)]
pub struct Own {
    template: template::Own,
    /// Where the programs of its functions lie: beside it.
    folder: PathBuf,
}

/// What of it runs; ends with it.
pub struct Running {
    /// The functions.
    pub lambda: Arc<Lambda>,
    /// `https://localhost:PORT`, where the API is.
    pub gateway: Option<String>,
    keys: BTreeMap<String, String>,
    invoke: Server,
    _gateway: Option<gateway::Serving>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

impl Own {
    /// Reads the template in this file.
    ///
    /// # Errors
    /// When there is none, or one that is not understood: all its faults.
    pub fn read(file: &Path, account: &str, region: &str) -> io::Result<Self> {
        let text = std::fs::read_to_string(file)?;
        let template = template::own(&text, account, region);
        let template = template.map_err(|faults| io::Error::other(faults.join("\n")))?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        Ok(Self { template, folder: folder.unwrap_or(Path::new(".")).to_path_buf() })
    }

    /// Its roles, which the account's IAM must know from its start.
    #[must_use]
    pub fn roles(&self) -> &[template::RoleSpec] {
        &self.template.deployment.roles
    }

    /// Its buckets, which S3 must have from its start.
    #[must_use]
    pub fn buckets(&self) -> &[String] {
        &self.template.buckets
    }

    /// The lifecycle rules of its buckets.
    #[must_use]
    pub fn lifecycles(&self) -> &[(String, Value)] {
        &self.template.lifecycles
    }

    /// Makes its keys, puts its policies in force and serves its API.
    ///
    /// # Errors
    /// Everything of it that the stand-ins refuse.
    pub async fn start(
        self,
        account: &Arc<Account>,
        kms: &Arc<Kms>,
        mut settings: lambda::Settings,
        tls: Arc<rustls::ServerConfig>,
    ) -> io::Result<Running> {
        let mut keys = BTreeMap::new();
        for key in &self.template.keys {
            let spec = KeySpec::ALL.into_iter().find(|spec| spec.as_str() == key.spec);
            let spec = spec.ok_or_else(|| io::Error::other(format!("{}: unknown KeySpec", key.logical_id)))?;
            let arn = kms.create_key_under(key.id, spec, &key.policy).map_err(io::Error::other)?;
            keys.insert(key.logical_id.clone(), arn);
        }
        for (name, key) in &self.template.aliases {
            kms.create_alias(name, &key.to_string()).map_err(io::Error::other)?;
        }
        for (bucket, policy) in &self.template.policies {
            account.iam.set_resource_policy(&format!("arn:aws:s3:::{bucket}"), policy).map_err(all)?;
        }
        settings.functions.clone_from(&self.template.deployment.functions);
        settings.binaries = self.folder;
        let lambda = Lambda::start(Arc::clone(account), settings).await.map_err(all)?;
        let invoke = lambda.serve(bind().await?).await?;
        let Some(api) = self.template.api else {
            return Ok(Running { lambda, gateway: None, keys, invoke, _gateway: None });
        };
        let mut settings = gateway::Settings::new(OWN_API, &self.template.deployment);
        settings.stage = api.stage;
        settings.variables = api.variables;
        settings.throttles = api.throttles;
        settings.marked = false;
        settings.connecting_ip = None;
        let runner: Arc<dyn lambda::Invoke> = lambda.clone();
        let gateway = Gateway::new(&api.document, settings, Arc::clone(account), runner).map_err(all)?;
        let serving = gateway.serve(bind().await?, Some(tls)).await?;
        let url = format!("https://localhost:{}", serving.addr.port());
        Ok(Running { lambda, gateway: Some(url), keys, invoke, _gateway: Some(serving) })
    }
}

impl Running {
    /// What outside clients must know of it.
    #[must_use]
    pub fn manifest(&self) -> Value {
        json!({ "gateway": self.gateway, "keys": self.keys, "lambda": format!("http://{}", self.invoke.addr) })
    }
}

fn all(faults: Vec<String>) -> io::Error {
    io::Error::other(faults.join("\n"))
}
