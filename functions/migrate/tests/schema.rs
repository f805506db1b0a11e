//! The schema on a real Postgres: applied once, closed to the logins, separate by tenant, and the same as the fake that other
//! tests stand on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::path::Path;

use local::postgres::{DATABASE, OWNER, Postgres};
use migrate::{Applied, MIGRATIONS, Migration, Refusal, Report, Schema, run, statements};
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::jwt::{AccessToken, Kind};
use shared::name::{Groups, Tenant};
use shared::port::{Database, Fault, FaultKind, Parameter};
use shared::scope::Scopes;
use shared::trust::{Revocations, Revoked, TrustObject as _};
use tempfile::TempDir;
use testkit::Registry;
use tokio_postgres::{Client, Config, NoTls};

const LOGINS: [&str; 10] = [
    "token",
    "upload",
    "download",
    "data_key_encrypt",
    "data_key_decrypt",
    "data_key_maintain",
    "data_key_shred",
    "object_events",
    "trust",
    "admin",
];

/// The functions of the foundation, of issuers, of signing keys, of proofs, of people, of policies and of devices, and the one login that may call each.
const FOUNDATION: [(&str, &str); 38] = [
    ("client_for_token", "token"),
    ("consume_assertion", "token"),
    ("consume_with_proof", "token"),
    ("nonce_keys", "token"),
    ("revoke_own", "token"),
    ("person_for_token", "token"),
    ("session_start", "token"),
    ("session_for_refresh", "token"),
    ("session_refresh", "token"),
    ("session_end", "token"),
    ("identity_put", "admin"),
    ("identity_remove", "admin"),
    ("identity_list", "admin"),
    ("tenant_put", "admin"),
    ("client_put", "admin"),
    ("client_disable", "admin"),
    ("client_list", "admin"),
    ("revoke", "admin"),
    ("trust_snapshot", "trust"),
    ("issuer_put", "admin"),
    ("issuer_remove", "admin"),
    ("trust_issuers", "trust"),
    ("trust_signing", "trust"),
    ("signing_list", "admin"),
    ("signing_rotate", "admin"),
    ("signing_drop", "admin"),
    ("client_audiences", "admin"),
    ("quota_put", "admin"),
    ("quota_list", "admin"),
    ("policy_put", "admin"),
    ("policy_promote", "admin"),
    ("policy_list", "admin"),
    ("trust_policies", "trust"),
    ("client_service", "admin"),
    ("device_put", "admin"),
    ("device_remove", "admin"),
    ("device_list", "admin"),
    ("trust_devices", "trust"),
];

const NOW: i64 = 1_800_000_000_000;

struct Server {
    postgres: Postgres,
    _directory: TempDir,
}

impl Server {
    async fn start() -> Self {
        Self::prepared(&[]).await
    }

    /// With what a run of `migrate` leaves, and another run, which has nothing to do.
    async fn migrated() -> Self {
        let batches = MIGRATIONS.iter().map(|one| statements::batch(one, &statements::hash(one.sql)));
        let schema: Vec<String> = [statements::record()].into_iter().chain(batches).collect();
        let schema: Vec<&str> = schema.iter().map(String::as_str).collect();
        let server = Self::prepared(&schema).await;
        let report = run(&server.schema().await, MIGRATIONS).await.unwrap().unwrap();
        assert!(report.applied.is_empty(), "{:?}", report.applied);
        server
    }

    async fn prepared(schema: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
        let postgres = Postgres::start_prepared(directory.path(), None, &cache, schema).await.unwrap();
        Self { postgres, _directory: directory }
    }

    async fn connect(&self, user: &str) -> Client {
        connect(self.postgres.socket_dir(), user).await
    }

    async fn schema(&self) -> Direct {
        Direct(self.connect(OWNER).await)
    }

    async fn login(&self, user: &str) -> Login {
        Login(self.connect(user).await)
    }
}

async fn connect(socket: &Path, user: &str) -> Client {
    let (client, connection) =
        Config::new().host_path(socket).user(user).dbname(DATABASE).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The owner's connection as `Owned` uses it, without TLS and IAM.
struct Direct(Client);

fn fault(error: tokio_postgres::Error) -> Fault {
    Fault::new(FaultKind::Invalid, "postgres", "test").caused_by(error)
}

impl Direct {
    async fn transaction(&self, statements: &str) -> Result<(), Fault> {
        let done = self.0.batch_execute(&format!("BEGIN; {statements}; COMMIT")).await;
        if done.is_err() {
            self.0.batch_execute("ROLLBACK").await.map_err(fault)?;
        }
        done.map_err(fault)
    }
}

impl Schema for Direct {
    async fn applied(&self) -> Result<Vec<Applied>, Fault> {
        self.transaction(&statements::record()).await?;
        let rows = self.0.query_typed(statements::APPLIED, &[]).await.map_err(fault)?;
        Ok(rows.iter().map(|row| Applied { name: row.get(0), hash: row.get(1) }).collect())
    }

    async fn apply(&self, migration: &Migration, hash: &str) -> Result<(), Fault> {
        self.transaction(&statements::batch(migration, hash)).await
    }
}

/// A function's login, calling as the adapter does.
struct Login(Client);

impl Login {
    async fn refused(&self, statement: &str) -> bool {
        let refused = self.0.batch_execute(statement).await;
        refused.is_err_and(|error| error.code().is_some_and(|code| code.code() == "42501"))
    }
}

impl Database for Login {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        let arguments: Vec<String> = parameters.iter().map(literal).collect();
        let statement = format!("SELECT {function}({})", arguments.join(", "));
        self.0.query_typed(&statement, &[]).await.map_err(fault).map(|rows| rows[0].get(0))
    }
}

fn literal(parameter: &Parameter) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match parameter {
        Parameter::Text(text) => format!("{}::text", quoted(text)),
        Parameter::OptionalText(None) => "NULL::text".into(),
        Parameter::OptionalText(Some(text)) => format!("{}::text", quoted(text)),
        Parameter::Bytes(bytes) => format!("'\\x{}'::bytea", shared::encoding::hex(bytes)),
        Parameter::OptionalBytes(None) => "NULL::bytea".into(),
        Parameter::OptionalBytes(Some(bytes)) => literal(&Parameter::Bytes(bytes.clone())),
        Parameter::Int(int) => format!("{int}::bigint"),
        Parameter::OptionalInt(None) => "NULL::bigint".into(),
        Parameter::OptionalInt(Some(int)) => literal(&Parameter::Int(*int)),
        Parameter::Bool(bool) => bool.to_string(),
        Parameter::Json(json) => format!("{}::jsonb", quoted(&json.to_string())),
        Parameter::Texts(texts) => {
            format!("ARRAY[{}]::text[]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
        }
        other => panic!("no test sends {other:?}"),
    }
}

fn text(text: &str) -> Parameter {
    Parameter::Text(text.to_owned())
}

fn act(parameters: Vec<Parameter>) -> Vec<Parameter> {
    [vec![text("alice"), text("req-1"), Parameter::Int(NOW)], parameters].concat()
}

fn tenant(name: &str, enabled: bool) -> (&'static str, Vec<Parameter>) {
    ("api.tenant_put", act(vec![text(name), text("A name"), Parameter::Bool(enabled)]))
}

fn client(tenant: &str, client_id: &str, scopes: &[&str], enabled: bool) -> (&'static str, Vec<Parameter>) {
    let parameters = vec![
        text(tenant),
        text(client_id),
        text("it's a client"),
        Parameter::Json(json!({ "keys": [{ "kid": "k" }] })),
        Parameter::Texts(vec!["ES256".into()]),
        Parameter::Texts(scopes.iter().map(|scope| (*scope).to_owned()).collect()),
        Parameter::Bool(false),
        Parameter::Int(300),
        Parameter::Bool(enabled),
        Parameter::Json(json!([])),
    ];
    ("api.client_put", act(parameters))
}

/// A client without a key, which these workloads are.
fn workloads(tenant: &str, client_id: &str, rules: Value) -> (&'static str, Vec<Parameter>) {
    let (function, mut parameters) = client(tenant, client_id, &["app"], true);
    parameters[6] = Parameter::Json(json!({ "keys": [] }));
    parameters[12] = Parameter::Json(rules);
    (function, parameters)
}

/// A job of a repository, on this reference or in this environment.
fn job(repository: &str, more: &[(&str, &str)]) -> Value {
    let mut rule = json!({ "issuer": "github", "kind": "github-actions", "repository_id": repository, "repository_owner_id": "1" });
    for (name, value) in more {
        rule[name] = json!(value);
    }
    rule
}

/// An issuer of workloads, which has no audience.
fn platform(id: &str, kind: &str, iss: &str) -> (&'static str, Vec<Parameter>) {
    let (function, mut parameters) = issuer(id, iss, "");
    parameters[4] = text(kind);
    parameters[6] = Parameter::OptionalText(None);
    (function, parameters)
}

/// The use of an assertion that may be used again.
fn consume_again(client_id: &str, version: i64) -> (&'static str, Vec<Parameter>) {
    let (function, mut parameters) = consume("acme", client_id, version, 1);
    parameters[3] = Parameter::OptionalBytes(None);
    (function, parameters)
}

fn consume(tenant: &str, client_id: &str, version: i64, id: u8) -> (&'static str, Vec<Parameter>) {
    let parameters = vec![
        text(tenant),
        text(client_id),
        Parameter::Int(version),
        Parameter::OptionalBytes(Some(vec![id; 32])),
        Parameter::Int(NOW + 60_000),
        Parameter::Int(NOW),
    ];
    ("api.consume_assertion", parameters)
}

fn prove(tenant: &str, client_id: &str, version: i64, id: u8, proof: u8) -> (&'static str, Vec<Parameter>) {
    let (_, mut parameters) = consume(tenant, client_id, version, id);
    parameters.extend([text(&"k".repeat(43)), Parameter::Bytes(vec![proof; 32]), Parameter::Int(NOW + 310_000)]);
    ("api.consume_with_proof", parameters)
}

fn nonce_keys(candidate: u8, now: i64) -> (&'static str, Vec<Parameter>) {
    ("api.nonce_keys", vec![Parameter::Bytes(vec![candidate; 32]), Parameter::Int(now)])
}

fn revoke_own(tenant: &str, client_id: &str, version: i64, id: u8, exp: i64) -> (&'static str, Vec<Parameter>) {
    let (_, mut parameters) = consume(tenant, client_id, version, id);
    parameters.extend([text("0190a2b4-0000-7000-8000-00000000000b"), Parameter::Int(exp)]);
    ("api.revoke_own", parameters)
}

fn list(tenant: &str, after: Option<&str>, limit: i64) -> (&'static str, Vec<Parameter>) {
    (
        "api.client_list",
        act(vec![text(tenant), Parameter::OptionalText(after.map(str::to_owned)), Parameter::Int(limit)]),
    )
}

fn disable(tenant: &str, client_id: &str) -> (&'static str, Vec<Parameter>) {
    ("api.client_disable", act(vec![text(tenant), text(client_id)]))
}

fn revoke(kind: &str, value: &str, epoch: i64) -> (&'static str, Vec<Parameter>) {
    ("api.revoke", act(vec![text(kind), text(value), Parameter::Int(epoch)]))
}

fn snapshot(now: i64) -> (&'static str, Vec<Parameter>) {
    ("api.trust_snapshot", vec![Parameter::Int(now)])
}

fn issuer(id: &str, issuer: &str, audience: &str) -> (&'static str, Vec<Parameter>) {
    let parameters = vec![
        text(id),
        text("generic"),
        text(issuer),
        Parameter::OptionalText(Some(audience.to_owned())),
        Parameter::Texts(vec!["RS256".into(), "ES384".into()]),
        text("https://issuer.example/keys"),
    ];
    ("api.issuer_put", act(parameters))
}

fn without_issuer(id: &str) -> (&'static str, Vec<Parameter>) {
    ("api.issuer_remove", act(vec![text(id)]))
}

fn quota(tenant: &str, subject: &str, files: Option<i64>, bytes: Option<i64>) -> (&'static str, Vec<Parameter>) {
    let most = [Parameter::OptionalInt(files), Parameter::OptionalInt(bytes)];
    ("api.quota_put", act([vec![text(tenant), text(subject)], most.to_vec()].concat()))
}

fn quotas(tenant: &str, after: Option<&str>, limit: i64) -> (&'static str, Vec<Parameter>) {
    let (_, parameters) = list(tenant, after, limit);
    ("api.quota_list", parameters)
}

fn audiences(tenant: &str, client_id: &str, audiences: &[&str]) -> (&'static str, Vec<Parameter>) {
    let audiences = Parameter::Texts(audiences.iter().map(|audience| (*audience).to_owned()).collect());
    ("api.client_audiences", act(vec![text(tenant), text(client_id), audiences]))
}

/// A bundle is told by its hash; what is in it is not the database's business.
fn put_policy(hash: char) -> (&'static str, Vec<Parameter>) {
    let (hash, bundle) = (hash.to_string().repeat(64), json!({"policies": [hash.to_string()]}));
    ("api.policy_put", act(vec![Parameter::Text(hash), Parameter::Json(bundle)]))
}

fn promote(hash: char) -> (&'static str, Vec<Parameter>) {
    ("api.policy_promote", act(vec![Parameter::Text(hash.to_string().repeat(64))]))
}

fn list_policies() -> (&'static str, Vec<Parameter>) {
    ("api.policy_list", act(vec![]))
}

fn policies() -> (&'static str, Vec<Parameter>) {
    ("api.trust_policies", vec![])
}

fn service(tenant: &str, client_id: &str, digit: Option<char>) -> (&'static str, Vec<Parameter>) {
    let service = digit.map(|digit| format!("{}.access", digit.to_string().repeat(32)));
    ("api.client_service", act(vec![text(tenant), text(client_id), Parameter::OptionalText(service)]))
}

/// A device looked at so many seconds ago, with its keys by their letters where they are named.
fn device(id: &str, ago: i64, keys: Option<&str>) -> Value {
    let keys = keys.map(|keys| keys.chars().map(|key| key.to_string().repeat(43)).collect::<Vec<_>>());
    json!({ "device": { "id": id, "disk_encrypted": true, "source": "operator", "checked_at": NOW / 1000 - ago }, "keys": keys })
}

fn put_devices(tenant: &str, devices: &[Value]) -> (&'static str, Vec<Parameter>) {
    ("api.device_put", act(vec![text(tenant), Parameter::Json(json!(devices))]))
}

fn remove_device(tenant: &str, id: &str) -> (&'static str, Vec<Parameter>) {
    ("api.device_remove", act(vec![text(tenant), text(id)]))
}

fn list_devices(tenant: &str, after: Option<&str>, limit: i64) -> (&'static str, Vec<Parameter>) {
    let (_, parameters) = list(tenant, after, limit);
    ("api.device_list", parameters)
}

fn devices() -> (&'static str, Vec<Parameter>) {
    ("api.trust_devices", vec![])
}

fn issuers() -> (&'static str, Vec<Parameter>) {
    ("api.trust_issuers", vec![])
}

/// A report of `trust`: each key's letter, state, and for a published one how long ago its turn came if nobody else signs.
fn keys(now: i64, keys: &[(char, &str, Option<i64>)]) -> (&'static str, Vec<Parameter>) {
    let key = |(letter, state, urgent): &(char, &str, Option<i64>)| {
        let at = |states: &[&str]| states.contains(state).then_some(NOW);
        json!({ "kid": kid(*letter), "alg": "ES256", "key": format!("arn:{letter}"), "state": state, "created_ms": NOW - 1,
            "activated_ms": at(&["active", "retiring"]), "retired_ms": at(&["retiring"]), "removed_ms": at(&["removed"]),
            "ripe_ms": urgent.map(|ago| now - ago + 1_000), "urgent_ms": urgent.map(|ago| now - ago) })
    };
    ("api.trust_signing", vec![Parameter::Int(now), Parameter::Json(keys.iter().map(key).collect())])
}

fn kid(letter: char) -> String {
    letter.to_string().repeat(43)
}

fn list_keys() -> (&'static str, Vec<Parameter>) {
    ("api.signing_list", act(vec![]))
}

fn rotate(letter: Option<char>) -> (&'static str, Vec<Parameter>) {
    ("api.signing_rotate", act(vec![Parameter::OptionalText(letter.map(kid))]))
}

fn drop_key(letter: char, confirm: bool) -> (&'static str, Vec<Parameter>) {
    ("api.signing_drop", act(vec![text(&kid(letter)), Parameter::Bool(confirm)]))
}

fn found(client_id: &str) -> (&'static str, Vec<Parameter>) {
    ("api.client_for_token", vec![text(client_id)])
}

fn login_of(function: &str) -> &'static str {
    let name = function.strip_prefix("api.").unwrap();
    FOUNDATION.iter().find(|(function, _)| *function == name).unwrap().1
}

#[tokio::test]
async fn migrations_are_applied_once_in_order_and_never_edited() {
    let server = Server::start().await;
    let (one, two) = (server.schema().await, server.schema().await);
    let names: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.name).collect();

    // Two deployments at once: what one applies the other finds.
    let (first, second) = tokio::join!(run(&one, MIGRATIONS), run(&two, MIGRATIONS));
    let (first, second) = (first.unwrap().unwrap(), second.unwrap().unwrap());
    assert_eq!(first.applied.len() + second.applied.len(), names.len());
    assert_eq!(first.already + second.already, names.len());

    let again = run(&one, MIGRATIONS).await.unwrap();
    assert_eq!(again, Ok(Report { applied: vec![], already: names.len() }));

    let mut edited = MIGRATIONS.to_vec();
    edited[0].sql = "SELECT 1";
    let later = Migration { name: "9999_later", sql: "CREATE TABLE public.later (a int)" };
    edited.push(later);
    assert_eq!(run(&one, &edited).await.unwrap(), Err(Refusal::Changed(names[0])));

    let mut broken = MIGRATIONS.to_vec();
    broken.extend([later, Migration { name: "9999_wrong", sql: "CREATE TABLE public.half (a int); SELECT nonsense" }]);
    assert!(run(&one, &broken).await.is_err());
    let left =
        one.0.query_typed("SELECT to_regclass('public.later')::text, to_regclass('public.half')::text", &[]).await;
    let left = &left.unwrap()[0];
    assert_eq!((left.get::<_, Option<&str>>(0), left.get::<_, Option<&str>>(1)), (Some("later"), None));
    assert_eq!(one.applied().await.unwrap().len(), names.len() + 1, "the failed one is not on record");

    let before = Migration { name: "0000_before", sql: "SELECT 1" };
    let shuffled = [&[before], MIGRATIONS].concat();
    assert_eq!(run(&one, &shuffled).await.unwrap(), Err(Refusal::OutOfOrder("0000_before")));
}

#[tokio::test]
async fn a_login_touches_no_table_and_calls_no_function_but_its_own() {
    let server = Server::migrated().await;
    let owner = server.connect(OWNER).await;
    let names = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get(0)).collect::<Vec<String>>();
    let tables = owner.query_typed("SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'S') AND nspname IN ('public', 'api', 'internal')", &[]);
    let tables = names(tables.await.unwrap());
    assert!(tables.len() >= 6, "{tables:?}");

    for user in LOGINS {
        let login = server.login(user).await;
        for table in &tables {
            for statement in [
                format!("SELECT FROM public.{table}"),
                format!("INSERT INTO public.{table} DEFAULT VALUES"),
                format!("DELETE FROM public.{table}"),
                format!("TRUNCATE public.{table}"),
            ] {
                assert!(login.refused(&statement).await, "{user}: {statement}");
            }
        }
        for statement in [
            "CREATE TABLE public.mine (a int)",
            "CREATE TABLE api.mine (a int)",
            "CREATE TEMP TABLE mine (a int)",
            "CREATE SCHEMA mine",
            "CREATE FUNCTION api.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT internal.across_tenants(true)",
            "SELECT internal.enter_tenant('acme')",
            "SET ROLE portcullis_owner",
            "ALTER ROLE portcullis_owner SET statement_timeout = 0",
            "COPY public.clients TO STDOUT",
        ] {
            let refused = login.0.batch_execute(statement).await;
            assert!(refused.is_err(), "{user}: {statement}");
        }
        for (function, holder) in FOUNDATION {
            let call = format!(
                "SELECT has_function_privilege(p.oid, 'EXECUTE') FROM pg_proc p WHERE p.oid = (SELECT q.oid FROM pg_proc q JOIN pg_namespace n ON n.oid = q.pronamespace WHERE n.nspname = 'api' AND q.proname = '{function}')"
            );
            let may: bool = login.0.query_typed(&call, &[]).await.unwrap()[0].get(0);
            assert_eq!(may, user == holder, "{user}: {function}");
        }
    }
}

#[tokio::test]
async fn every_function_and_table_keeps_the_house_rules() {
    let server = Server::migrated().await;
    let owner = server.connect(OWNER).await;
    for (rule, statement) in [
        (
            "every function of api is a security definer",
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'api' AND NOT prosecdef",
        ),
        (
            "every function pins its search_path",
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname IN ('api', 'internal') AND NOT coalesce(array_to_string(proconfig, ',') LIKE 'search_path=pg_catalog,%pg_temp', false)",
        ),
        (
            "every function of api answers jsonb",
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'api' AND prorettype <> 'jsonb'::regtype",
        ),
        (
            "the public may call nothing",
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname IN ('api', 'internal') AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)",
        ),
        (
            "nobody but the owner calls internal",
            "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'internal' AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee <> proowner)",
        ),
        (
            "nobody but the owner has a right on a table",
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public' AND relkind = 'r' AND EXISTS (SELECT FROM aclexplode(coalesce(relacl, acldefault('r', relowner))) WHERE grantee <> relowner)",
        ),
        (
            "row-level security is forced on every table that holds a tenant's data",
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'public' AND relkind = 'r' AND relname <> 'schema_migrations' AND NOT (relrowsecurity AND relforcerowsecurity)",
        ),
        (
            "no login inherits, creates or passes row-level security",
            "SELECT rolname FROM pg_roles WHERE rolname = ANY (ARRAY['token', 'upload', 'download', 'data_key_encrypt', 'data_key_decrypt', 'data_key_maintain', 'data_key_shred', 'object_events', 'trust', 'admin']) AND (rolinherit OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR NOT rolcanlogin OR NOT pg_has_role(rolname, 'rds_iam', 'MEMBER') OR rolconfig IS NULL)",
        ),
    ] {
        let broken = owner.query_typed(statement, &[]).await.unwrap();
        let broken: Vec<String> = broken.iter().map(|row| row.get(0)).collect();
        assert!(broken.is_empty(), "{rule}: {broken:?}");
    }
}

#[tokio::test]
async fn a_tenant_sees_and_moves_only_its_own() {
    let server = Server::migrated().await;
    let (owner, admin, token) = (server.connect(OWNER).await, server.login("admin").await, server.login("token").await);
    for (function, parameters) in [
        tenant("acme", true),
        tenant("globex", true),
        client("acme", "acme-one", &["app"], true),
        client("globex", "globex-one", &["app"], true),
    ] {
        admin.call(function, parameters).await.unwrap();
    }

    // Even the owner is blind without a tenant, and sees one tenant with it.
    for (setting, seen) in [("", 0_i64), ("acme", 1), ("nobody", 0)] {
        let statement = format!("SELECT set_config('portcullis.tenant', '{setting}', false)");
        owner.batch_execute(&statement).await.unwrap();
        for table in ["clients", "tenants"] {
            let rows = owner.query_typed(&format!("SELECT count(*) FROM public.{table}"), &[]).await.unwrap();
            assert_eq!(rows[0].get::<_, i64>(0), seen, "{table} as {setting:?}");
        }
        assert!(owner.query_typed("SELECT FROM public.revocations", &[]).await.unwrap().is_empty());
    }
    let erased = owner.batch_execute("SET portcullis.all_tenants = 'on'; DELETE FROM public.admin_audit").await;
    erased.unwrap();
    let superuser = server.connect(local::postgres::BOOT_USER).await;
    let kept = superuser.query_typed("SELECT count(*) FROM public.admin_audit", &[]).await.unwrap();
    assert_eq!(kept[0].get::<_, i64>(0), 4, "what was done stays written");

    // A login's own settings widen nothing: the functions set theirs.
    admin.0.batch_execute("SET portcullis.all_tenants = 'on'; SET portcullis.tenant = 'globex'").await.unwrap();
    token.0.batch_execute("SET portcullis.all_tenants = 'on'; SET portcullis.tenant = 'globex'").await.unwrap();
    let (function, parameters) = list("acme", None, 10);
    let listed = admin.call(function, parameters).await.unwrap();
    assert_eq!(listed["clients"].as_array().unwrap().len(), 1);
    for (function, parameters, outcome) in [
        {
            let (f, p) = disable("acme", "globex-one");
            (f, p, "client_unknown")
        },
        {
            let (f, p) = client("acme", "globex-one", &["app"], true);
            (f, p, "client_id_taken")
        },
    ] {
        assert_eq!(admin.call(function, parameters).await.unwrap()["outcome"], outcome);
    }
    let (function, parameters) = consume("acme", "globex-one", 1, 1);
    assert_eq!(token.call(function, parameters).await.unwrap()["outcome"], "client_changed");
    let settings = token.0.query_typed("SELECT current_setting('portcullis.all_tenants')", &[]).await.unwrap();
    assert_eq!(settings[0].get::<_, &str>(0), "on", "transaction-local settings left the session as it was");
}

#[tokio::test]
async fn what_was_signed_while_its_client_was_being_disabled_dies_with_it() {
    let server = Server::migrated().await;
    let (admin, trust) = (server.login("admin").await, server.login("trust").await);
    for (function, parameters) in [tenant("acme", true), client("acme", "acme-one", &["app"], true)] {
        admin.call(function, parameters).await.unwrap();
    }
    // The operator's clock was read before the connection stood and the row was locked, and may be slow on top of it.
    for (function, parameters) in [disable("acme", "acme-one"), tenant("acme", false)] {
        admin.call(function, parameters).await.unwrap();
    }
    let snapshot = trust.call("api.trust_snapshot", vec![Parameter::Int(NOW)]).await.unwrap();
    let published = Revocations::parse(&snapshot["revocations"]).unwrap();
    assert_eq!(published.len(), 2);
    let issued = |after: i64, client: &str, tenant: &str| AccessToken {
        kid: "k".into(),
        subject: "s".into(),
        client_id: client.into(),
        jti: "j".into(),
        issued_at: Timestamp::from_seconds(NOW / 1000 + after),
        expires_at: Timestamp::from_seconds(NOW / 1000 + after + 300),
        scopes: Scopes::default(),
        tenant: Tenant::parse(tenant).unwrap(),
        kind: Kind::Machine,
        session: None,
        groups: Groups::default(),
        thumbprint: None,
        service: None,
        device: None,
        details: shared::details::Details::default(),
    };
    // Connect 2 s, statement 4 s, skew 10 s.
    for (client, tenant) in [("acme-one", "globex"), ("acme-two", "acme")] {
        assert!(published.hits(&issued(16, client, tenant)), "{client} of {tenant}");
        assert!(!published.hits(&issued(60, client, tenant)), "{client} of {tenant}");
    }
}

/// By Python's hashlib and base64; the published format is in docs/formats/trust-objects.md.
#[tokio::test]
async fn revocations_are_published_as_the_format_says() {
    let server = Server::migrated().await;
    let (admin, trust) = (server.login("admin").await, server.login("trust").await);
    let revoke = |kind: &str, value: &str, epoch: i64| {
        let text = |text: &str| Parameter::Text(text.to_owned());
        let at = Parameter::Int(NOW);
        vec![text("op"), text("r"), at, text(kind), text(value), Parameter::Int(epoch)]
    };
    let snapshot =
        async || trust.call("api.trust_snapshot", vec![Parameter::Int(NOW)]).await.unwrap()["revocations"].clone();
    assert_eq!(snapshot().await, Revocations::body([], &[]));
    let epoch = NOW / 1000;
    for (kind, value) in [("sub", "s"), ("jti", "j"), ("kid", "k")] {
        admin.call("api.revoke", revoke(kind, value, epoch)).await.unwrap();
    }
    assert_eq!(snapshot().await, json!({"entries": "hDdrBnDP_nNrSdIA9u1ynnC621L_____", "kid": ["k"]}));
    let mut entries = vec![(Revoked::Subject, "s".to_owned()), (Revoked::Token, "j".to_owned())];
    for number in 0..300 {
        let value = format!("öffentlich/{number}");
        admin.call("api.revoke", revoke("device", &value, epoch)).await.unwrap();
        entries.push((Revoked::Device, value));
    }
    let want = Revocations::body(entries.iter().map(|(kind, value)| (*kind, value.as_str(), epoch)), &["k"]);
    assert_eq!(snapshot().await, want);
}

#[tokio::test]
async fn of_many_uses_of_one_assertion_exactly_one_wins() {
    let server = Server::migrated().await;
    let admin = server.login("admin").await;
    for (function, parameters) in [tenant("acme", true), client("acme", "acme-one", &["app"], true)] {
        admin.call(function, parameters).await.unwrap();
    }
    let logins = futures::future::join_all((0..20).map(|_| server.login("token"))).await;
    let uses = logins.iter().map(|login| {
        let (function, parameters) = consume("acme", "acme-one", 1, 7);
        login.call(function, parameters)
    });
    let mut outcomes = BTreeMap::new();
    for answer in futures::future::join_all(uses).await {
        *outcomes.entry(answer.unwrap()["outcome"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(outcomes, BTreeMap::from([("ok".into(), 1), ("replayed".into(), 19)]));
}

#[tokio::test]
async fn of_many_uses_of_one_proof_exactly_one_wins_and_the_others_keep_their_assertions() {
    let server = Server::migrated().await;
    let admin = server.login("admin").await;
    for (function, parameters) in [
        tenant("acme", true),
        client("acme", "acme-one", &["app"], true),
        tenant("globex", true),
        client("globex", "globex-one", &["app"], true),
    ] {
        admin.call(function, parameters).await.unwrap();
    }
    let logins = futures::future::join_all((0..20).map(|_| server.login("token"))).await;
    let uses = logins.iter().zip(1..).map(|(login, id)| {
        let (function, parameters) = prove("acme", "acme-one", 1, id, 7);
        login.call(function, parameters)
    });
    let answers = futures::future::join_all(uses).await;
    let outcomes: Vec<&str> =
        answers.iter().map(|answer| answer.as_ref().unwrap()["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "ok").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "proof_replayed").count(), 19, "{outcomes:?}");
    // Whoever lost has its assertion still, and a proof of its own takes it.
    let says = async |(function, parameters): (&'static str, Vec<Parameter>)| {
        logins[0].call(function, parameters).await.unwrap()["outcome"].as_str().unwrap().to_owned()
    };
    for (id, outcome) in (1..).zip(&outcomes) {
        let expected = if *outcome == "ok" { "replayed" } else { "ok" };
        assert_eq!(says(prove("acme", "acme-one", 1, id, 100 + id)).await, expected);
    }
    assert_eq!(says(prove("globex", "globex-one", 1, 1, 7)).await, "proof_replayed", "whoever uses it");
    assert_eq!(says(consume("globex", "globex-one", 1, 1)).await, "ok");
    assert_eq!(says(prove("acme", "acme-one", 2, 60, 60)).await, "client_changed");
}

#[tokio::test]
async fn environments_that_ask_at_once_get_the_same_nonce_key_and_tomorrow_a_second_one() {
    let server = Server::migrated().await;
    let logins = futures::future::join_all((0..20).map(|_| server.login("token"))).await;
    let asked = logins.iter().zip(1..).map(|(login, candidate)| {
        let (function, parameters) = nonce_keys(candidate, NOW);
        login.call(function, parameters)
    });
    let answers: Vec<Value> = futures::future::join_all(asked).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let keys = |answer: &Value| answer["keys"].as_array().unwrap().clone();
    let day = 86_400_000;
    assert_eq!((keys(&answers[0]).len(), answers[0]["until_ms"].as_i64()), (1, Some(NOW + day)));
    let ask = async |candidate, now| {
        let (function, parameters) = nonce_keys(candidate, now);
        logins[0].call(function, parameters).await.unwrap()
    };
    assert_eq!(ask(90, NOW + day - 1).await, answers[0]);
    let tomorrow = ask(91, NOW + day).await;
    assert_eq!(keys(&tomorrow), [vec![json!("5b".repeat(32))], keys(&answers[0])].concat());
    let late = ask(92, NOW + 5 * day).await;
    assert_eq!(keys(&late), [json!("5c".repeat(32))], "what no living nonce was made with is gone");
}

#[tokio::test]
async fn the_fake_registry_answers_as_postgres_does() {
    let server = Server::migrated().await;
    let mut logins = BTreeMap::new();
    for user in ["token", "admin", "trust"] {
        logins.insert(user, server.login(user).await);
    }
    let registry = Registry::default();
    let second = NOW / 1000;
    let expired = {
        let (function, mut parameters) = consume("acme", "acme-one", 2, 9);
        parameters[4] = Parameter::Int(NOW - 1);
        (function, parameters)
    };
    for (function, parameters) in [
        client("acme", "acme-one", &["app"], true),
        tenant("acme", true),
        tenant("acme", true),
        tenant("globex", true),
        found("acme-one"),
        client("acme", "acme-one", &["app"], true),
        client("acme", "acme-one", &["app"], true),
        client("globex", "acme-one", &["app"], true),
        found("acme-one"),
        consume("acme", "acme-one", 1, 1),
        consume("acme", "acme-one", 1, 1),
        consume("globex", "acme-one", 1, 2),
        consume("acme", "nobody", 1, 2),
        prove("acme", "acme-one", 1, 20, 1),
        prove("acme", "acme-one", 1, 20, 2),
        prove("acme", "acme-one", 1, 21, 1),
        prove("acme", "acme-one", 1, 21, 2),
        prove("globex", "acme-one", 1, 22, 3),
        nonce_keys(1, NOW),
        nonce_keys(2, NOW + 1),
        nonce_keys(3, NOW + 86_400_001),
        client("acme", "acme-one", &["app", "files:read"], true),
        consume("acme", "acme-one", 1, 3),
        consume("acme", "acme-one", 2, 3),
        expired.clone(),
        expired,
        client("acme", "acme-two", &["app"], true),
        client("acme", "Zeta", &["app"], false),
        list("acme", None, 10),
        list("acme", None, 2),
        list("acme", Some("acme-one"), 2),
        list("acme", Some("zz"), 2),
        list("initech", None, 10),
        disable("globex", "acme-two"),
        disable("acme", "acme-two"),
        disable("acme", "acme-two"),
        found("acme-two"),
        consume("acme", "acme-two", 2, 4),
        revoke("sub", "access|1", second),
        revoke("sub", "access|1", second - 100),
        revoke("jti", "0190a2b4-0000-7000-8000-00000000000a", second + 910),
        revoke("device", "d", second),
        revoke_own("acme", "acme-one", 2, 3, second + 300),
        revoke_own("acme", "acme-one", 1, 20, second + 300),
        revoke_own("globex", "acme-one", 2, 20, second + 300),
        snapshot(NOW),
        revoke_own("acme", "acme-one", 2, 20, second + 300),
        revoke_own("acme", "acme-one", 2, 20, second + 300),
        revoke_own("acme", "acme-one", 2, 21, second + 200),
        revoke_own("acme", "acme-one", 2, 22, second - 11),
        snapshot(NOW),
        tenant("acme", false),
        found("acme-one"),
        consume("acme", "acme-one", 2, 5),
        snapshot(NOW),
        snapshot(NOW + 910_000),
        snapshot(NOW + 910_001),
        snapshot(NOW + 930_000),
        issuers(),
        issuer("sts", "https://sts.example", "https://gate.example"),
        issuer("access", "https://team.example", "a"),
        issuer("access", "https://team.example", "a"),
        issuer("tier", "https://team.example", "a"),
        issuer("tier", "https://team.example", "b"),
        issuer("access", "https://team.example", "b"),
        issuer("access", "https://team.example", "c"),
        issuers(),
        without_issuer("sts"),
        without_issuer("sts"),
        issuers(),
        tenant("acme", true),
        workloads("acme", "ci", json!([job("74", &[("ref", "refs/heads/main")])])),
        platform("github", "github-actions", "https://token.actions.githubusercontent.com"),
        platform("github", "github-actions", "https://token.actions.githubusercontent.com"),
        platform("github-2", "github-actions", "https://token.actions.githubusercontent.com"),
        issuer("github-3", "https://token.actions.githubusercontent.com", "a"),
        platform("mesh", "spiffe", "spiffe://prod.example"),
        workloads("acme", "ci", json!([job("74", &[("ref", "refs/heads/main")])])),
        workloads("acme", "ci", json!([job("74", &[("ref", "refs/heads/main")])])),
        workloads("acme", "ci", json!([job("74", &[("ref", "refs/heads/main"), ("environment", "prod")])])),
        workloads("acme", "other", json!([job("74", &[("ref", "refs/heads/main")])])),
        workloads("acme", "other", json!([job("74", &[("environment", "prod")])])),
        workloads("globex", "other", json!([job("74", &[("environment", "prod")])])),
        workloads(
            "acme",
            "other",
            json!([job("74", &[("environment", "test")]), job("75", &[("environment", "prod")])]),
        ),
        workloads("acme", "third", json!([job("75", &[("ref", "refs/heads/main")])])),
        workloads(
            "acme",
            "svid",
            json!([{ "issuer": "mesh", "kind": "kubernetes", "spiffe_id": "spiffe://prod.example/a" }]),
        ),
        workloads(
            "acme",
            "svid",
            json!([{ "issuer": "mesh", "kind": "spiffe", "spiffe_id": "spiffe://prod.example/a" }]),
        ),
        found("ci"),
        found("svid"),
        consume_again("svid", 1),
        consume_again("svid", 1),
        consume_again("svid", 2),
        disable("acme", "svid"),
        consume_again("svid", 1),
        consume_again("svid", 2),
        list("acme", None, 10),
        platform("mesh", "spiffe", "spiffe://test.example"),
        workloads(
            "acme",
            "svid",
            json!([{ "issuer": "mesh", "kind": "spiffe", "spiffe_id": "spiffe://prod.example/a" }]),
        ),
        without_issuer("mesh"),
        workloads(
            "acme",
            "svid",
            json!([{ "issuer": "mesh", "kind": "spiffe", "spiffe_id": "spiffe://prod.example/a" }]),
        ),
        client("acme", "ci", &["app"], true),
        workloads("acme", "other", json!([job("74", &[("ref", "refs/heads/main")])])),
        issuers(),
        rotate(None),
        drop_key('a', true),
        list_keys(),
        keys(NOW, &[]),
        keys(NOW, &[('a', "active", None), ('b', "published", None)]),
        rotate(None),
        rotate(None),
        rotate(Some('a')),
        rotate(Some('b')),
        rotate(Some('z')),
        drop_key('a', false),
        keys(NOW, &[('a', "active", None), ('b', "published", Some(-5))]),
        rotate(Some('a')),
        drop_key('a', false),
        keys(NOW, &[('a', "active", None), ('b', "published", Some(0)), ('c', "published", Some(-9))]),
        keys(NOW - 1, &[('a', "removed", None)]),
        list_keys(),
        drop_key('c', false),
        drop_key('c', false),
        drop_key('a', false),
        drop_key('a', true),
        keys(NOW, &[('a', "removed", None), ('b', "active", None), ('c', "removed", None)]),
        rotate(None),
        drop_key('b', false),
        drop_key('b', true),
        keys(NOW, &[('b', "removed", None), ('d', "published", Some(-300))]),
        rotate(None),
        drop_key('d', true),
        keys(NOW - 200_000, &[('e', "active", None)]),
        drop_key('e', false),
        list_keys(),
        snapshot(NOW),
        snapshot(NOW + 1_000_000_000_000),
        quotas("acme", None, 10),
        quota("acme", "", None, Some(5)),
        quota("acme", "*", Some(0), None),
        quota("acme", "*", Some(0), None),
        quota("acme", "bob", Some(1), Some(1 << 50)),
        quota("acme", "bob", Some(2), Some(1 << 50)),
        quota("globex", "bob", Some(2), None),
        quota("nowhere", "bob", Some(2), None),
        quotas("acme", None, 10),
        quotas("acme", None, 2),
        quotas("acme", Some("*"), 2),
        quotas("nowhere", None, 2),
        quota("acme", "bob", None, None),
        quota("acme", "bob", None, None),
        quotas("acme", None, 10),
        audiences("acme", "acme-one", &["https://billing.example"]),
        audiences("acme", "acme-one", &["https://billing.example"]),
        audiences("globex", "acme-one", &["https://other.example"]),
        audiences("acme", "nobody", &[]),
        found("acme-one"),
        audiences("acme", "acme-one", &[]),
        found("acme-one"),
        policies(),
        promote('a'),
        put_policy('a'),
        put_policy('a'),
        policies(),
        put_policy('b'),
        promote('a'),
        promote('b'),
        promote('b'),
        policies(),
        put_policy('b'),
        put_policy('c'),
        policies(),
        promote('c'),
        promote('b'),
        promote('a'),
        policies(),
        put_policy('a'),
        list_policies(),
        service("acme", "acme-one", Some('a')),
        service("acme", "acme-one", Some('a')),
        service("globex", "acme-one", Some('b')),
        service("acme", "nobody", None),
        found("acme-one"),
        service("acme", "acme-one", None),
        found("acme-one"),
        devices(),
        put_devices("initech", &[device("d1", 0, None)]),
        put_devices("acme", &[device("d1", 10, Some("ab")), device("D2", 10, None)]),
        put_devices("acme", &[device("d1", 10, Some("ab")), device("D2", 10, None)]),
        devices(),
        put_devices("acme", &[device("d1", 11, None)]),
        put_devices("acme", &[device("d1", 9, None)]),
        put_devices("acme", &[device("D2", 9, Some("a")), device("d3", 9, Some("c"))]),
        devices(),
        put_devices("acme", &[device("D2", 9, Some("a")), device("d1", 9, Some("b"))]),
        put_devices("globex", &[device("d1", 0, Some("a"))]),
        devices(),
        list_devices("acme", None, 10),
        list_devices("acme", None, 1),
        list_devices("acme", Some("D2"), 1),
        list_devices("initech", None, 10),
        remove_device("globex", "D2"),
        remove_device("acme", "D2"),
        remove_device("acme", "D2"),
        remove_device("initech", "D2"),
        devices(),
        put_devices("acme", &[device("d1", 8, Some(""))]),
        devices(),
    ] {
        let called = format!("{function}{parameters:?}");
        let real = logins[login_of(function)].call(function, parameters.clone()).await;
        let real = real.unwrap_or_else(|fault| panic!("{called}: {:?}", std::error::Error::source(&fault)));
        assert_eq!(registry.call(function, parameters).await.unwrap(), real, "{called}");
    }
    let superuser = server.connect(local::postgres::BOOT_USER).await;
    let acts = superuser.query_typed("SELECT jsonb_build_object('at_ms', at_ms, 'operator', operator, 'request_id', request_id, 'operation', operation, 'target', target, 'outcome', outcome) FROM public.admin_audit ORDER BY ctid", &[]);
    let acts: Vec<Value> = acts.await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(registry.acts(), acts);
}

#[tokio::test]
async fn of_clients_that_want_one_workload_at_the_same_time_one_gets_it() {
    let server = Server::migrated().await;
    let logins = futures::future::join_all((0..10).map(|_| server.login("admin"))).await;
    let github = platform("github", "github-actions", "https://token.actions.githubusercontent.com");
    for (function, parameters) in [tenant("acme", true), tenant("globex", true), github] {
        logins[0].call(function, parameters).await.unwrap();
    }
    let puts = logins.iter().enumerate().map(|(number, login)| {
        let (tenant, pin) = if number % 2 == 0 { ("acme", "ref") } else { ("globex", "environment") };
        let rule = job("74", &[(pin, if pin == "ref" { "refs/heads/main" } else { "prod" })]);
        let (function, parameters) = workloads(tenant, &format!("c-{number}"), json!([rule]));
        login.call(function, parameters)
    });
    let mut outcomes = BTreeMap::new();
    for answer in futures::future::join_all(puts).await {
        *outcomes.entry(answer.unwrap()["outcome"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(outcomes, BTreeMap::from([("created".into(), 1), ("federation_taken".into(), 9)]));
}

#[tokio::test]
async fn there_are_no_more_issuers_than_one_run_can_ask() {
    let server = Server::migrated().await;
    let admin = server.login("admin").await;
    for number in 0..64 {
        let (function, parameters) = issuer(&format!("i-{number}"), &format!("https://{number}.example"), "a");
        assert_eq!(admin.call(function, parameters).await.unwrap()["outcome"], "created");
    }
    for (id, outcome) in [("i-64", "issuer_limit"), ("i-0", "updated")] {
        let (function, parameters) = issuer(id, "https://other.example", "a");
        assert_eq!(admin.call(function, parameters).await.unwrap()["outcome"], outcome);
    }
}

#[tokio::test]
async fn values_that_the_functions_of_this_house_never_send_are_faults() {
    let server = Server::migrated().await;
    let admin = server.login("admin").await;
    let (function, parameters) = tenant("acme", true);
    admin.call(function, parameters).await.unwrap();
    let (function, parameters) = revoke_own("acme", "acme-one", 1, 1, NOW / 1000 + 911);
    assert!(server.login("token").await.call(function, parameters).await.is_err(), "no token lives so long");
    for (function, parameters) in [
        tenant("Acme", true),
        tenant("", true),
        revoke("everything", "x", NOW / 1000),
        revoke("sub", "", NOW / 1000),
        issuer("own", "https://a.example", "a"),
        issuer("a/b", "https://a.example", "a"),
        issuer("a", "http://a.example", "a"),
        issuer("a", "https://a.example", ""),
        platform("a", "generic", "https://a.example"),
        platform("a", "spiffe", "https://a.example"),
        platform("a", "github-actions", "spiffe://a.example"),
        platform("a", "okta", "https://a.example"),
        {
            let (f, mut p) = platform("a", "kubernetes", "https://a.example");
            p[6] = Parameter::OptionalText(Some("a".into()));
            (f, p)
        },
        workloads("acme", "nobody", json!([])),
        put_devices("acme", &[device("-", 0, None)]),
        put_devices("acme", &[device("d", 0, Some("abcdefghi"))]),
        put_devices("acme", &[json!({"device": {"id": "d"}})]),
        put_devices("acme", &[json!({"device": [], "keys": []})]),
        {
            let (f, mut p) = tenant("acme", true);
            p[0] = text("");
            (f, p)
        },
    ] {
        assert!(admin.call(function, parameters).await.is_err());
    }
}
