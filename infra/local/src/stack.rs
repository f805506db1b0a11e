//! The whole stack: every stand-in on its own free port of 127.0.0.1, wired as the templates say.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::access::{self, Access};
use crate::account::{Account, Keys};
use crate::ca::Ca;
use crate::clock::Clock;
use crate::events::Events;
use crate::gateway::{self, Gateway, Link};
use crate::http::{Server, bind};
use crate::kms::{KeySpec, KeyUsage, Kms};
use crate::lambda::{self, Kind, Lambda};
use crate::own::{Own, Running};
use crate::policy::Iam;
use crate::postgres::Postgres;
use crate::rds::{RdsEndpoint, RdsServer};
use crate::s3::{Cors, Lifecycle, S3};
use crate::ssm::Ssm;
use crate::sts::Sts;
use crate::template::{self, Template};

/// The name of the local deployment.
pub const ENV: &str = "local";
/// The API's identifier in access tokens.
pub const AUDIENCE: &str = "https://api.portcullis.local";
/// The account's id.
pub const ACCOUNT: &str = "111122223333";
/// The region.
pub const REGION: &str = "us-east-1";
/// The database's name.
pub const DATABASE: &str = "portcullis";
const PROXY_ID: &str = "prx-0a1b2c3d4e5f60718";
const INSTANCE_ID: &str = "db-LOCALSTACKINSTANCE0000000";
const API: &str = "local";
const APP_LINK: &str = "local";
const APP_TARGET: &str = "arn:aws:elasticloadbalancing:us-east-1:111122223333:loadbalancer/app/local/0123456789abcdef";
/// The name of the application behind the gate, which is the `Host` that it gets.
pub const APP_HOST: &str = "app.portcullis.local";
const TRUST_BUCKET: &str = "portcullis-local-trust";
const OBJECT_BUCKET: &str = "portcullis-local-objects";

/// Parameters of a stage that is asked as often as an account may be by default (API Gateway quotas), for what is not about the stage's
/// own limits: a fast machine asks more often in a row than those take.
pub const UNTHROTTLED: &[(&str, &str)] = &[("ThrottleRate", "10000"), ("ThrottleBurst", "5000")];

/// What a stack is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that holds the function binaries.
    pub binaries: PathBuf,
    /// A folder of Postgres binaries to use when the machine has none of its own.
    pub postgres: Option<PathBuf>,
    /// The folder in which this stack makes its own.
    pub root: PathBuf,
    /// A folder where a seeded data directory is kept between starts.
    pub cache: Option<PathBuf>,
    /// The clock of all stand-ins.
    pub clock: Clock,
    /// Parameters of the template by name (`Signer` → `ssm`), in place of the stack's own.
    pub parameters: BTreeMap<String, String>,
    /// A template of somebody's own, whose roles, keys, buckets, functions and API stand beside the project's.
    pub own: Option<PathBuf>,
}

/// A running stack. Everything it started stops with it.
pub struct Stack {
    /// The account that all stand-ins share.
    pub account: Arc<Account>,
    /// The stack's own certificate authority.
    pub ca: Ca,
    /// KMS.
    pub kms: Arc<Kms>,
    /// SSM Parameter Store.
    pub ssm: Arc<Ssm>,
    /// STS.
    pub sts: Arc<Sts>,
    /// S3.
    pub s3: Arc<S3>,
    /// The functions.
    pub lambda: Arc<Lambda>,
    /// Rules and schedules.
    pub events: Arc<Events>,
    /// The proxy in front of Postgres.
    pub proxy: Arc<RdsEndpoint>,
    /// Postgres itself.
    pub postgres: Postgres,
    /// The team domain of Cloudflare Access.
    pub access: Arc<Access>,
    /// What of a template of somebody's own runs.
    pub own: Option<Running>,
    /// The operator's keys.
    pub operator: Keys,
    /// Where everything listens and lies.
    pub places: Places,
    _servers: Vec<Server>,
    _gateway: gateway::Serving,
    _databases: Vec<RdsServer>,
    _pump: Pump,
    _directory: tempfile::TempDir,
}

/// Where everything listens and lies.
#[derive(Clone, Debug)]
pub struct Places {
    /// This stack's folder.
    pub directory: PathBuf,
    /// The authority's certificate.
    pub ca_file: PathBuf,
    /// `https://localhost:PORT`, the issuer as well.
    pub gateway: String,
    /// `kms`, `s3`, `ssm`, `sts`, `lambda` → URL.
    pub endpoints: BTreeMap<&'static str, String>,
    /// The proxy's port on localhost.
    pub proxy_port: u16,
    /// The KMS key that wraps data keys.
    pub data_key: String,
    /// The KMS key of the object bucket.
    pub bucket_key: String,
    /// The KMS key that signs receipts.
    pub receipt_key: String,
    /// The KMS key that seals signing keys in parameters.
    pub signing_key: String,
    /// KMS key whose messages `acme` may import.
    pub import_key: String,
    /// The object bucket.
    pub object_bucket: &'static str,
    /// The trust bucket.
    pub trust_bucket: &'static str,
    /// The socket to which the VPC link leads: an application that listens there stands behind the gate.
    pub application: PathBuf,
}

/// Carries created objects from S3 to the rules; ends with the stack.
struct Pump(tokio::task::JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Listeners {
    kms: TcpListener,
    ssm: TcpListener,
    sts: TcpListener,
    s3: TcpListener,
    lambda: TcpListener,
    gateway: TcpListener,
    access: TcpListener,
    proxy: TcpListener,
    instance: TcpListener,
}

impl Listeners {
    async fn open() -> io::Result<Self> {
        Ok(Self {
            kms: bind().await?,
            ssm: bind().await?,
            sts: bind().await?,
            s3: bind().await?,
            lambda: bind().await?,
            gateway: bind().await?,
            access: bind().await?,
            proxy: bind().await?,
            instance: bind().await?,
        })
    }
}

impl Stack {
    /// Starts everything, migrates the database, runs genesis and waits until the trust objects are there.
    ///
    /// # Errors
    /// What could not be started, by name. Nothing is left running.
    pub async fn start(options: Options) -> io::Result<Stack> {
        std::fs::create_dir_all(&options.root)?;
        let directory = tempfile::Builder::new().prefix("stack-").tempdir_in(&options.root)?;
        let root = directory.path().to_path_buf();
        let access_keys = tokio::task::spawn_blocking(|| Ok([access::Key::generate()?, access::Key::generate()?]));
        let ca = Ca::generate()?;
        let ca_file = root.join("ca.pem");
        std::fs::write(&ca_file, ca.pem())?;
        let listeners = Listeners::open().await?;
        let url = |scheme: &str, host: &str, listener: &TcpListener| {
            listener.local_addr().map(|address| format!("{scheme}://{host}:{}", address.port()))
        };
        let gateway = url("https", "localhost", &listeners.gateway)?;
        let s3_url = url("http", "127.0.0.1", &listeners.s3)?;
        let endpoints = BTreeMap::from([
            ("kms", url("http", "127.0.0.1", &listeners.kms)?),
            ("ssm", url("http", "127.0.0.1", &listeners.ssm)?),
            ("sts", url("http", "127.0.0.1", &listeners.sts)?),
            ("s3", s3_url.clone()),
            ("lambda", url("http", "127.0.0.1", &listeners.lambda)?),
        ]);
        let (proxy_port, instance_port) =
            (listeners.proxy.local_addr()?.port(), listeners.instance.local_addr()?.port());

        // The template names the keys and the keys' account enforces the template: so the keys come first, in a draft.
        let draft = Account::new(Iam::new(ACCOUNT, REGION, options.clock.clone(), &[]).map_err(all)?);
        let draft = Kms::new(Arc::new(draft));
        let symmetric = || draft.create_key(KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, &[]).map_err(shown);
        let (data_key, bucket_key, signing_key, import_key) = (symmetric()?, symmetric()?, symmetric()?, symmetric()?);
        let receipt_key = draft.create_key(KeySpec::EccNistP256, KeyUsage::SignVerify, &[]).map_err(shown)?;
        draft.create_service_alias("ssm", &symmetric()?).map_err(shown)?;
        let mut parameters: BTreeMap<String, String> = [
            ("Env", ENV),
            ("Issuer", &gateway),
            ("Audience", AUDIENCE),
            ("TrustBucket", TRUST_BUCKET),
            ("ObjectBucket", OBJECT_BUCKET),
            ("DataKeyArn", &data_key),
            ("BucketKeyArn", &bucket_key),
            ("ReceiptKeyArn", &receipt_key),
            ("SigningHost", &s3_url),
            ("DbHost", "localhost"),
            ("DbPort", &proxy_port.to_string()),
            ("DbName", DATABASE),
            ("DbProxyResourceId", PROXY_ID),
            ("DbResourceId", INSTANCE_ID),
            ("DbDirectHost", "localhost"),
            ("DbDirectPort", &instance_port.to_string()),
            ("Scan", "off"),
            ("SigningAlg", "RS256"),
            ("SigningKeyArn", &signing_key),
            ("ImportKeys", &format!("acme={import_key}")),
            ("ImportKeyArns", &import_key),
            ("Architecture", if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }),
            ("CodeBucket", "local"),
            ("Stage", ENV),
            ("AppLinkId", APP_LINK),
            ("AppLoadBalancerArn", APP_TARGET),
            ("AppHost", APP_HOST),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        parameters.extend(options.parameters.clone());
        let origins = parameters.remove("AllowedOrigins").unwrap_or_default();
        let template = Template::deployed(&parameters, ACCOUNT, REGION, API).map_err(all)?;
        let deployment = template.deployment();
        let own = options.own.as_ref().map(|file| Own::read(file, ACCOUNT, REGION)).transpose()?;
        let mut roles = deployment.roles.clone();
        roles.extend(own.iter().flat_map(|own| own.roles().to_vec()));
        let iam = Iam::new(ACCOUNT, REGION, options.clock.clone(), &roles).map_err(all)?;
        let account = Arc::new(Account::new(iam.in_network(deployment.network.clone())));
        let operator = account.credentials.issue(account.operator(), None);

        let kms = Kms::load(Arc::clone(&account), &draft.save());
        let kms = kms.ok_or_else(|| io::Error::other("the keys of the draft do not load"))?;
        let keys = [
            ("DataKey", &data_key),
            ("BucketKey", &bucket_key),
            ("ReceiptKey", &receipt_key),
            ("SigningKey", &signing_key),
        ];
        let data = hold_policies(&account, &parameters, &keys)?;
        for (alias, whose) in &data.aliases {
            let key = keys.iter().find(|(logical, _)| logical == whose).map(|(_, arn)| arn.as_str());
            kms.create_alias(alias, key.unwrap_or_default()).map_err(shown)?;
        }
        // A key whose messages come in belongs to somebody else, and lies under a name of this deployment's (docs/deploy/functions.md).
        kms.create_alias(&format!("alias/portcullis-{ENV}-import-acme"), &import_key).map_err(shown)?;
        let ssm = Ssm::new(Arc::clone(&account), Arc::clone(&kms));
        let sts = Sts::new(Arc::clone(&account));
        let (created, mut creations) = mpsc::unbounded_channel();
        let mut buckets = vec![TRUST_BUCKET.to_owned(), OBJECT_BUCKET.to_owned()];
        buckets.extend(own.iter().flat_map(|own| own.buckets().to_vec()));
        let s3 = S3::new(Arc::clone(&account), buckets, root.join("s3"), created);
        let rules = template::object_bucket_cors(&origins).and_then(|rules| Cors::read(&rules)).map_err(all)?;
        s3.set_cors(OBJECT_BUCKET, rules);
        s3.set_kms(Arc::clone(&kms));
        let own_lifecycles = own.iter().flat_map(|own| own.lifecycles().to_vec());
        for (bucket, rules) in data.lifecycles.iter().cloned().chain(own_lifecycles) {
            let named = [TRUST_BUCKET, OBJECT_BUCKET].into_iter().find(|name| bucket.starts_with(name));
            s3.set_lifecycle(named.unwrap_or(&bucket), Lifecycle::of_template(&rules).map_err(all)?);
        }

        let (postgres_dir, binaries) = (root.join("postgres"), options.postgres.clone());
        // What `migrate` leaves is kept for the next stack that has the same program of it, which finds nothing to do.
        let migration = migration(&options.binaries);
        let (postgres, migrated) = match &options.cache {
            Some(cache) => Postgres::start_after(&migration, &postgres_dir, binaries, cache).await?,
            None => (Postgres::start(&postgres_dir, binaries).await?, false),
        };
        let proxy = RdsEndpoint::new(Arc::clone(&account), &ca, PROXY_ID, postgres.socket_dir())?;
        let instance = RdsEndpoint::new(Arc::clone(&account), &ca, INSTANCE_ID, postgres.socket_dir())?;

        let mut settings = lambda::Settings::new(deployment.functions.clone(), options.binaries.clone(), root.clone());
        let reached = endpoints.iter().filter(|(service, _)| **service != "lambda");
        settings.endpoints = reached.map(|(service, url)| ((*service).to_owned(), url.clone())).collect();
        settings.extra.insert("PORTCULLIS_CA_FILE".to_owned(), ca_file.display().to_string());
        settings.extra.extend(options.clock.environment());
        let tls = ca.server_config(&["localhost", "127.0.0.1"])?;
        let own = match own {
            Some(own) => Some(own.start(&account, &kms, settings.clone(), Arc::clone(&tls)).await?),
            None => None,
        };
        let lambda = Lambda::start(Arc::clone(&account), settings).await.map_err(all)?;
        let runner: Arc<dyn lambda::Invoke> = lambda.clone();
        let events = Arc::new(Events::new(Arc::clone(&account), deployment, runner.clone()).map_err(all)?);
        let mut settings = gateway::Settings::new(API, deployment);
        let application = root.join("application.sock");
        let (id, target, socket) = (APP_LINK.to_owned(), APP_TARGET.to_owned(), application.clone());
        settings.link = Some(Link { id, target, socket });
        settings.throttles = template.throttles().to_vec();
        let api = Gateway::new(template.document(), settings, Arc::clone(&account), runner).map_err(all)?;

        let dispatcher = Arc::clone(&events);
        let pump = Pump(tokio::spawn(async move {
            while let Some(object) = creations.recv().await {
                dispatcher.object_created(object).await;
            }
        }));
        let access_keys: io::Result<[access::Key; 2]> = access_keys.await.map_err(io::Error::other)?;
        let access = Access::new(options.clock.clone(), url("https", "localhost", &listeners.access)?, access_keys?);
        let servers = vec![
            kms.serve(listeners.kms).await?,
            ssm.serve(listeners.ssm).await?,
            sts.serve(listeners.sts).await?,
            s3.serve(listeners.s3).await?,
            lambda.serve(listeners.lambda).await?,
            access.serve(listeners.access, Arc::clone(&tls)).await?,
        ];
        let gateway_server = api.serve(listeners.gateway, Some(tls)).await?;
        let databases = vec![proxy.serve(listeners.proxy).await?, instance.serve(listeners.instance).await?];
        let places = Places {
            directory: root,
            ca_file,
            gateway,
            endpoints,
            proxy_port,
            data_key,
            bucket_key,
            receipt_key,
            signing_key,
            import_key,
            object_bucket: OBJECT_BUCKET,
            trust_bucket: TRUST_BUCKET,
            application,
        };
        let mut stack = Stack {
            account,
            ca,
            kms,
            ssm,
            sts,
            s3,
            lambda,
            events,
            proxy,
            postgres,
            access,
            own,
            operator,
            places,
            _servers: servers,
            _gateway: gateway_server,
            _databases: databases,
            _pump: pump,
            _directory: directory,
        };
        stack.invoke("migrate", &json!({})).await?;
        if let Some(cache) = options.cache.as_ref().filter(|_| !migrated) {
            // Its connection ends with the server.
            stack.lambda.recycle(&format!("portcullis-{ENV}-migrate")).await;
            stack.postgres.keep(cache, &migration).await?;
        }
        stack.invoke("trust", &json!({})).await?;
        stack.events.start_schedules();
        Ok(stack)
    }

    /// Invokes a deployment directly, as an operator would, and answers what it answered.
    ///
    /// # Errors
    /// When the function could not run or failed.
    pub async fn invoke(&self, deployment: &str, payload: &Value) -> io::Result<Value> {
        let name = format!("portcullis-{ENV}-{deployment}");
        let outcome = self
            .lambda
            .invoke(&name, Bytes::from(payload.to_string()), Kind::RequestResponse)
            .await
            .map_err(|error| io::Error::other(format!("{name}: {error:?}")))?;
        if let Some(error) = outcome.function_error {
            let log = self.lambda.log(&name);
            let answer = String::from_utf8_lossy(&outcome.payload).into_owned();
            return Err(io::Error::other(format!("{name}: {error}: {answer}\n{log}")));
        }
        serde_json::from_slice(&outcome.payload).map_err(io::Error::other)
    }

    /// The ARN of the KMS key, or the name of the parameter, that signs tokens now, as the trust bucket says.
    ///
    /// # Errors
    /// When there is no signing state, or no active key in it.
    pub async fn signing_key(&self) -> io::Result<String> {
        let bytes = self.s3.look(TRUST_BUCKET, "trust/signing-state.json").await.unwrap_or_default();
        let state: Value = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
        let keys = state.pointer("/body/keys").and_then(Value::as_array).into_iter().flatten();
        let mut active = keys.filter(|key| key["state"] == "active").filter_map(|key| key["key"].as_str());
        active.next().map(str::to_owned).ok_or_else(|| io::Error::other("no active signing key"))
    }

    /// Signs as the issuer would (RS256), which only the operator of the account can: to show what a signature alone is not
    /// enough for.
    ///
    /// # Errors
    /// When there is no active key, or it cannot be used.
    pub async fn sign_as_issuer(&self, input: &[u8]) -> io::Result<Vec<u8>> {
        let (key, operator) = (self.signing_key().await?, self.account.operator());
        if key.starts_with("arn:") {
            let message = STANDARD.encode(digest(&SHA256, input));
            let request = json!({"KeyId": key, "Message": message, "MessageType": "DIGEST",
                "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"});
            let answer = self.kms.perform(&operator, None, "Sign", &request).map_err(shown)?;
            return STANDARD.decode(text(&answer, "/Signature")).map_err(io::Error::other);
        }
        let request = json!({"Name": key, "WithDecryption": true});
        let answer = self.ssm.perform(&operator, "GetParameter", &request).map_err(shown)?;
        let pem = text(&answer, "/Parameter/Value");
        let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let pair = RsaKeyPair::from_pkcs8(&STANDARD.decode(der).map_err(io::Error::other)?).map_err(shown)?;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input, &mut signature).map_err(shown)?;
        Ok(signature)
    }

    /// The URL of a service: `kms`, `s3`, `ssm`, `sts` or `lambda`.
    pub fn endpoint(&self, service: &str) -> &str {
        self.places.endpoints.get(service).map_or("", String::as_str)
    }

    /// Ends all processes in good order.
    pub async fn stop(&self) {
        if let Some(own) = &self.own {
            own.lambda.shutdown().await;
        }
        self.lambda.shutdown().await;
    }
}

/// Puts the policies that the templates give to keys, buckets and endpoints in force, under the names that these have here.
fn hold_policies(
    account: &Account,
    parameters: &BTreeMap<String, String>,
    keys: &[(&str, &String)],
) -> io::Result<template::Data> {
    let ids = keys.iter().map(|(logical, arn)| (*logical, arn.rsplit('/').next().unwrap_or_default().to_owned()));
    let data = template::data(parameters, &ids.collect(), ACCOUNT, REGION).map_err(all)?;
    let told = |whose: &str, faults: Vec<String>| io::Error::other(format!("{whose}: {}", faults.join("; ")));
    for (whose, policy) in &data.policies {
        let policy = under_names_of_here(policy)?;
        let key = keys.iter().find(|(logical, _)| logical == whose).map(|(_, arn)| (*arn).clone());
        let bucket = [TRUST_BUCKET, OBJECT_BUCKET].into_iter().find(|bucket| whose.starts_with(*bucket));
        let Some(arn) = key.or_else(|| bucket.map(|bucket| format!("arn:aws:s3:::{bucket}"))) else { continue };
        account.iam.set_resource_policy(&arn, &policy).map_err(|faults| told(whose, faults))?;
    }
    for (service, policy) in template::endpoint_policies(parameters, ACCOUNT, REGION).map_err(all)? {
        let policy = under_names_of_here(&policy)?;
        account.iam.set_endpoint_policy(&service, &policy).map_err(|faults| told(&service, faults))?;
    }
    Ok(data)
}

/// A deployed bucket's name ends with account and region; here it does not.
fn under_names_of_here(policy: &Value) -> io::Result<Value> {
    let text = [TRUST_BUCKET, OBJECT_BUCKET]
        .iter()
        .fold(policy.to_string(), |text, bucket| text.replace(&format!("{bucket}-{ACCOUNT}-{REGION}"), bucket));
    serde_json::from_str(&text).map_err(io::Error::other)
}

/// What tells one build of `migrate` from another.
fn migration(binaries: &Path) -> String {
    let built = std::fs::metadata(binaries.join("migrate"));
    built.map(|built| format!("migrate {} {:?}", built.len(), built.modified())).unwrap_or_default()
}

/// The folder of the binaries built beside this program.
///
/// # Errors
/// When the program's own place cannot be told.
pub fn sibling_binaries() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().ok_or_else(|| io::Error::other("the program has no folder"))?;
    // Test programs lie one folder deeper.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_path_buf())
}

/// `.local/postgres/bin` below the checkout, if it is there.
pub fn unpacked_postgres(checkout: &Path) -> Option<PathBuf> {
    Some(checkout.join(".local/postgres/bin")).filter(|folder| folder.is_dir())
}

fn all(faults: Vec<String>) -> io::Error {
    io::Error::other(faults.join("\n"))
}

fn text<'a>(answer: &'a Value, pointer: &str) -> &'a str {
    answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn shown(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}
