//! A real Postgres with the whole schema, a KMS that really wraps, and a way to be torn away at any step.
#![allow(dead_code, reason = "each test file uses what it needs of it")]

pub(crate) mod target;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use data_key::{Maintenance, MaintenanceWorld, Shredder};
use local::postgres::{BOOT_USER, DATABASE, OWNER, Postgres};
use migrate::MIGRATIONS;
use serde_json::{Value, json};
use shared::boot::{Handler as _, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::encoding::hex;
use shared::entropy::{SystemEntropy, uuid_v7};
use shared::name::Tenant;
use shared::port::{
    Database, Fault, FaultKind, Generated, KeyContext, KeyRewrapping, KeyWrapping, Parameter, Rewrapped, Unwrapped,
};
use shared::secret::SecretBytes;
use tempfile::TempDir;
use testkit::wrapping::Wrapping;
use tokio::sync::Notify;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

pub(crate) const NOW: i64 = 1_800_000_000_000;
pub(crate) const DAY: i64 = 86_400_000;
pub(crate) const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// What happens at one step of an act: an outside call that it makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blow {
    /// The call fails before it has any effect.
    Fails,
    /// The call has its effect, and its answer is lost.
    AnswerLost,
    /// The process is gone before the call.
    KilledBefore,
    /// The process is gone after the call had its effect.
    KilledAfter,
    /// Postgres is gone before the call, and comes back.
    CrashBefore,
    /// Postgres is gone after the call, and comes back.
    CrashAfter,
}

pub(crate) const BLOWS: [Blow; 6] =
    [Blow::Fails, Blow::AnswerLost, Blow::KilledBefore, Blow::KilledAfter, Blow::CrashBefore, Blow::CrashAfter];

/// Counts the steps of an act and strikes at one of them.
#[derive(Clone, Default)]
pub(crate) struct Steps(Arc<Mutex<Struck>>, Arc<Notify>);

/// How many steps were taken, and at which one which blow falls.
type Struck = (usize, Option<(usize, Blow)>);

impl Steps {
    pub(crate) fn arm(&self, step: usize, blow: Blow) {
        *self.0.lock().unwrap() = (0, Some((step, blow)));
    }

    pub(crate) fn disarm(&self) {
        *self.0.lock().unwrap() = (0, None);
    }

    /// How many steps there were since it was armed or disarmed.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().0
    }

    fn next(&self) -> Option<Blow> {
        let mut state = self.0.lock().unwrap();
        let at = state.0;
        state.0 += 1;
        state.1.filter(|(step, _)| *step == at).map(|(_, blow)| blow)
    }

    /// What kills the process ends here: nobody goes on.
    async fn die(&self) -> ! {
        self.1.notify_one();
        std::future::pending().await
    }

    /// One call of `act`, struck or not.
    async fn take<T>(&self, lab: &Server, act: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let lost = || Fault::new(FaultKind::Unavailable, "test", "blow");
        match self.next() {
            None => act.await,
            Some(Blow::Fails) => Err(lost()),
            Some(Blow::AnswerLost) => act.await.and(Err(lost())),
            Some(Blow::KilledBefore) => self.die().await,
            Some(Blow::KilledAfter) => {
                act.await?;
                self.die().await
            }
            Some(Blow::CrashBefore) => {
                lab.crash().await;
                act.await
            }
            Some(Blow::CrashAfter) => {
                let answer = act.await;
                lab.crash().await;
                answer
            }
        }
    }
}

/// The server and where it is.
#[derive(Clone)]
pub(crate) struct Server {
    postgres: Arc<tokio::sync::Mutex<Postgres>>,
    pub(crate) socket: PathBuf,
    _directory: Arc<TempDir>,
}

impl Server {
    pub(crate) async fn migrated() -> Self {
        let directory = TempDir::new().unwrap();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
        let schema: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.sql).collect();
        let postgres = Postgres::start_prepared(directory.path(), None, &cache, &schema).await.unwrap();
        let socket = postgres.socket_dir().to_owned();
        let server =
            Self { postgres: Arc::new(tokio::sync::Mutex::new(postgres)), socket, _directory: Arc::new(directory) };
        // What is acknowledged must outlive a crash, as it does on RDS.
        let superuser = server.connect(BOOT_USER).await;
        superuser.batch_execute("ALTER SYSTEM SET synchronous_commit = on").await.unwrap();
        superuser.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let owner = server.connect(OWNER).await;
        for tenant in ["acme", "globex"] {
            let insert = format!(
                "BEGIN; SELECT internal.enter_tenant('{tenant}');
                 INSERT INTO public.tenants VALUES ('{tenant}', 'A name', true, 1, 0, 0); COMMIT"
            );
            owner.batch_execute(&insert).await.unwrap();
        }
        server
    }

    pub(crate) async fn connect(&self, user: &str) -> Client {
        self.connect_to(user, DATABASE).await
    }

    pub(crate) async fn connect_to(&self, user: &str, database: &str) -> Client {
        let (client, connection) =
            Config::new().host_path(&self.socket).user(user).dbname(database).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn crash(&self) {
        self.postgres.lock().await.crash().await.unwrap();
    }
}

/// A login that connects anew when its connection is gone, as the adapter does.
#[derive(Clone)]
pub(crate) struct Login {
    server: Server,
    user: &'static str,
    held: Arc<tokio::sync::Mutex<Option<Client>>>,
    steps: Steps,
}

impl Login {
    async fn run(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        let mut held = self.held.lock().await;
        if held.as_ref().is_none_or(Client::is_closed) {
            *held = Some(self.server.connect(self.user).await);
        }
        let arguments: Vec<String> = parameters.iter().map(literal).collect();
        let statement = format!("SELECT {function}({})", arguments.join(", "));
        let fault = |error: tokio_postgres::Error| {
            let kind = if error.as_db_error().is_some() { FaultKind::Invalid } else { FaultKind::Unavailable };
            Fault::new(kind, "rds", function).caused_by(error)
        };
        let answer = held.as_ref().unwrap().query_typed(&statement, &[]).await;
        if answer.is_err() {
            *held = None;
        }
        answer.map_err(fault).map(|rows| rows[0].get(0))
    }
}

impl Database for Login {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        self.steps.take(&self.server, self.run(function, parameters)).await
    }
}

fn literal(parameter: &Parameter) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match parameter {
        Parameter::Text(text) | Parameter::OptionalText(Some(text)) => format!("{}::text", quoted(text)),
        Parameter::OptionalText(None) => "NULL::text".to_owned(),
        Parameter::Uuid(id) | Parameter::OptionalUuid(Some(id)) => format!("'{id}'::uuid"),
        Parameter::OptionalUuid(None) => "NULL::uuid".to_owned(),
        Parameter::Bytes(bytes) => format!("'\\x{}'::bytea", hex(bytes)),
        Parameter::Int(int) => format!("{int}::bigint"),
        Parameter::Json(json) => format!("{}::jsonb", quoted(&json.to_string())),
        Parameter::Uuids(ids) | Parameter::OptionalUuids(Some(ids)) => {
            let ids: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
            format!("ARRAY[{}]::uuid[]", ids.join(", "))
        }
        Parameter::OptionalUuids(None) => "NULL::uuid[]".to_owned(),
        other => panic!("no test sends {other:?}"),
    }
}

/// KMS, struck at the same steps as the database.
#[derive(Clone)]
pub(crate) struct Kms {
    pub(crate) wrapping: Wrapping,
    server: Server,
    steps: Steps,
}

impl KeyRewrapping for Kms {
    async fn current_material(&self) -> Result<String, Fault> {
        self.steps.take(&self.server, self.wrapping.current_material()).await
    }

    async fn rewrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Rewrapped, Fault> {
        self.steps.take(&self.server, self.wrapping.rewrap(context, wrapped)).await
    }
}

impl KeyWrapping for Kms {
    async fn generate(&self, context: &KeyContext) -> Result<Generated, Fault> {
        self.steps.take(&self.server, self.wrapping.generate(context)).await
    }

    async fn wrap(&self, context: &KeyContext, key: &SecretBytes) -> Result<Vec<u8>, Fault> {
        self.steps.take(&self.server, self.wrapping.wrap(context, key)).await
    }

    async fn unwrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Unwrapped, Fault> {
        self.steps.take(&self.server, self.wrapping.unwrap(context, wrapped)).await
    }
}

#[derive(Clone)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A row of the table of keys as a test wants to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) tenant: String,
    pub(crate) scope: String,
    pub(crate) purpose: String,
    pub(crate) state: String,
    pub(crate) material: Option<String>,
    pub(crate) wrapped: Option<Vec<u8>>,
    pub(crate) for_writers: bool,
}

pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) kms: Kms,
    pub(crate) clock: ManualClock,
    pub(crate) steps: Steps,
    pub(crate) target: Option<target::Target>,
    superusers: [Seat; 2],
}

/// A superuser's connection that is opened anew after a crash.
#[derive(Default)]
struct Seat(tokio::sync::Mutex<Option<Arc<Client>>>);

impl Seat {
    async fn take(&self, server: &Server, database: &str) -> Arc<Client> {
        let mut held = self.0.lock().await;
        if let Some(client) = held.as_ref().filter(|client| !client.is_closed())
            && client.check_connection().await.is_ok()
        {
            return Arc::clone(client);
        }
        let client = Arc::new(server.connect_to(BOOT_USER, database).await);
        *held = Some(Arc::clone(&client));
        client
    }
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let server = Server::migrated().await;
        let steps = Steps::default();
        let kms = Kms { wrapping: Wrapping::default(), server: server.clone(), steps: steps.clone() };
        let clock = ManualClock(Arc::new(AtomicI64::new(NOW)));
        Self { server, kms, clock, steps, target: None, superusers: Default::default() }
    }

    /// The same with a target: `shop`, a table of somebody else, and what its owner granted.
    pub(crate) async fn with_target(table: &str) -> Self {
        let mut lab = Self::new().await;
        lab.execute("CREATE DATABASE shop").await;
        lab.execute("CREATE ROLE portcullis LOGIN NOINHERIT; GRANT rds_iam TO portcullis").await;
        lab.shop(table).await;
        lab.target = Some(target::Target::start(&lab.server, &lab.steps).await);
        lab
    }

    async fn superuser(&self) -> Arc<Client> {
        self.superusers[0].take(&self.server, DATABASE).await
    }

    async fn shopkeeper(&self) -> Arc<Client> {
        self.superusers[1].take(&self.server, "shop").await
    }

    /// Statements of the target's owner.
    pub(crate) async fn shop(&self, statement: &str) {
        self.shopkeeper().await.batch_execute(statement).await.unwrap();
    }

    /// One text that the target's owner asks for.
    pub(crate) async fn shop_text(&self, statement: &str) -> String {
        self.shopkeeper().await.query_typed(statement, &[]).await.unwrap()[0].get(0)
    }

    /// Every row of `public.users`: key, value in clear, record.
    pub(crate) async fn users(&self) -> Vec<(String, Option<String>, Option<Vec<u8>>)> {
        let owner = self.shopkeeper().await;
        let rows =
            owner.query_typed("SELECT id::text, ssn::text, ssn_pc1 FROM public.users ORDER BY id", &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    /// What a record of `users.ssn` opens to in its row, for whoever may open it.
    pub(crate) async fn value(&self, tenant: &str, row: &str, record: &[u8]) -> Option<Vec<u8>> {
        let record = shared::pc1::Record::parse(record).ok()?;
        let key = self.open(&self.row(record.data_key_id()).await).await?;
        let name = |text| shared::name::Identifier::parse(text).unwrap();
        let (tenant, table, column) = (Tenant::parse(tenant).unwrap(), name("users"), name("ssn"));
        let row = shared::pc1::Row::parse(row).unwrap();
        let context =
            shared::pc1::Context { tenant: &tenant, table: &table, column: &column, row: &row, version: None };
        let opened = record.open(&shared::pc1::DataKey::parse(&key).unwrap(), &context).ok()?;
        Some(opened.to_vec())
    }

    pub(crate) fn login(&self, user: &'static str) -> Login {
        Login { server: self.server.clone(), user, held: Arc::default(), steps: self.steps.clone() }
    }

    /// A fresh environment of the maintaining deployment.
    pub(crate) fn maintenance(&self) -> Maintenance<Kms, Login, ManualClock, SystemEntropy, target::Target> {
        Maintenance::new(MaintenanceWorld {
            wrapping: self.kms.clone(),
            key_arn: ARN.to_owned(),
            database: self.login("data_key_maintain"),
            clock: self.clock.clone(),
            entropy: SystemEntropy,
            target: self.target.clone(),
        })
    }

    /// A fresh environment of the deployment that destroys.
    pub(crate) fn shredder(&self) -> Shredder<Login, ManualClock> {
        Shredder { database: self.login("data_key_shred"), clock: self.clock.clone() }
    }

    pub(crate) fn invocation(&self) -> Invocation {
        Invocation {
            request_id: "req-1".to_owned(),
            deadline: self.clock.now().plus_seconds(15),
            function_arn: String::new(),
        }
    }

    /// One act in a fresh environment; `None` when the environment was killed or the act failed.
    pub(crate) async fn act(&self, event: Value) -> Option<Value> {
        let (maintenance, shredder, invocation) = (self.maintenance(), self.shredder(), self.invocation());
        let shreds = event["operation"] == "shred";
        let act = async {
            if shreds {
                shredder.handle(event, &invocation).await
            } else {
                maintenance.handle(event, &invocation).await
            }
        };
        tokio::select! {
            answer = act => answer.ok(),
            () = self.steps.1.notified() => None,
        }
    }

    /// A key of the encrypt deployment's making, with its plaintext.
    pub(crate) async fn key(&self, tenant: &str, scope: &str) -> (Uuid, Vec<u8>) {
        let now = self.clock.now();
        let id = uuid_v7(now, &SystemEntropy);
        let purpose = if scope == "index" { "index" } else { "field" };
        let context = |purpose| KeyContext { tenant: Tenant::parse(tenant).unwrap(), purpose, data_key_id: id };
        let made = self.kms.wrapping.generate(&context(purpose)).await.unwrap();
        let text = |text: &str| Parameter::Text(text.to_owned());
        let (function, parameters) = if purpose == "index" {
            let parameters = vec![
                text(tenant),
                Parameter::Uuid(id),
                text(ARN),
                Parameter::OptionalText(made.material),
                Parameter::Bytes(made.wrapped),
                Parameter::Int(now.millis()),
            ];
            ("api.insert_index_key", parameters)
        } else {
            let writer = self.kms.wrapping.wrap(&context("writer"), &made.plaintext).await.unwrap();
            let parameters = vec![
                text(tenant),
                Parameter::Uuid(id),
                text(scope),
                text(ARN),
                Parameter::OptionalText(made.material),
                Parameter::Bytes(made.wrapped),
                Parameter::Bytes(writer),
                Parameter::Int(10_000),
                Parameter::Int(now.millis()),
            ];
            ("api.insert_data_key", parameters)
        };
        let answer = self.login("data_key_encrypt").run(function, parameters).await.unwrap();
        assert_eq!(answer["outcome"], "inserted", "{answer}");
        (id, made.plaintext.expose().to_vec())
    }

    pub(crate) async fn rows(&self) -> Vec<Row> {
        let superuser = self.server.connect(BOOT_USER).await;
        let statement =
            "SELECT id::text, tenant, scope, purpose, state, key_material_id, wrapped, writer_wrapped IS NOT NULL
                           FROM public.data_keys ORDER BY id";
        let rows = superuser.query_typed(statement, &[]).await.unwrap();
        rows.iter()
            .map(|row| Row {
                id: Uuid::try_parse(row.get(0)).unwrap(),
                tenant: row.get(1),
                scope: row.get(2),
                purpose: row.get(3),
                state: row.get(4),
                material: row.get(5),
                wrapped: row.get(6),
                for_writers: row.get(7),
            })
            .collect()
    }

    pub(crate) async fn row(&self, id: Uuid) -> Row {
        self.rows().await.into_iter().find(|row| row.id == id).unwrap()
    }

    /// The key of a row as a reader opens it; `None` when nothing opens.
    pub(crate) async fn open(&self, row: &Row) -> Option<Vec<u8>> {
        let purpose = if row.purpose == "index" { "index" } else { "field" };
        let context = KeyContext { tenant: Tenant::parse(&row.tenant).unwrap(), purpose, data_key_id: row.id };
        let unwrapped = self.kms.wrapping.unwrap(&context, row.wrapped.as_deref()?).await.ok()?;
        Some(unwrapped.plaintext.expose().to_vec())
    }

    pub(crate) async fn execute(&self, statement: &str) {
        self.superuser().await.batch_execute(statement).await.unwrap();
    }

    pub(crate) async fn texts(&self, statement: &str) -> Vec<String> {
        let rows = self.superuser().await.query_typed(statement, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

pub(crate) fn act(operation: &str, more: Value) -> Value {
    let mut event = json!({"operation": operation, "operator": "ann"});
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}
