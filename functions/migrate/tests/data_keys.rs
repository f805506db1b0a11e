//! Data keys on a real Postgres: the same answers as the fake that the functions are tested on, and what the table itself
//! refuses whoever asks.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop where it stands")]

use std::path::Path;

use local::postgres::{DATABASE, OWNER, Postgres};
use migrate::MIGRATIONS;
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::encoding::hex;
use shared::entropy::{SystemEntropy, uuid_v7};
use shared::port::{Database, Fault, FaultKind, Parameter};
use tempfile::TempDir;
use testkit::data_keys::DataKeys;
use tokio_postgres::{Client, Config, NoTls};

const NOW: i64 = 1_800_000_000_000;
const DAY: i64 = 86_400_000;
const EMAIL: &str = "column:users/email";
const SSN: &str = "column:users/ssn";
const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

struct Server {
    postgres: Postgres,
    _directory: TempDir,
}

impl Server {
    async fn migrated() -> Self {
        let directory = TempDir::new().unwrap();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
        let schema: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.sql).collect();
        let postgres = Postgres::start_prepared(directory.path(), None, &cache, &schema).await.unwrap();
        let server = Self { postgres, _directory: directory };
        let owner = server.connect(OWNER).await;
        for tenant in ["acme", "globex"] {
            let insert = format!(
                "BEGIN; SELECT internal.enter_tenant('{tenant}');
                 INSERT INTO public.tenants VALUES ('{tenant}', 'A name', true, 1, 0, 0); COMMIT"
            );
            owner.0.batch_execute(&insert).await.unwrap();
        }
        server
    }

    async fn connect(&self, user: &str) -> Login {
        let (client, connection) = Config::new()
            .host_path(self.postgres.socket_dir())
            .user(user)
            .dbname(DATABASE)
            .connect(NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        Login(client)
    }
}

struct Login(Client);

impl Database for Login {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        let arguments: Vec<String> = parameters.iter().map(literal).collect();
        let statement = format!("SELECT {function}({})", arguments.join(", "));
        let fault = |error: tokio_postgres::Error| Fault::new(FaultKind::Invalid, "rds", function).caused_by(error);
        self.0.query_typed(&statement, &[]).await.map_err(fault).map(|rows| rows[0].get(0))
    }
}

impl Login {
    /// The SQLSTATE that the statement ends with.
    async fn state(&self, statement: &str) -> Option<String> {
        let error = self.0.batch_execute(statement).await.err()?;
        error.code().map(|state| state.code().to_owned())
    }
}

fn literal(parameter: &Parameter) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match parameter {
        Parameter::Text(text) | Parameter::OptionalText(Some(text)) => format!("{}::text", quoted(text)),
        Parameter::OptionalText(None) => "NULL::text".to_owned(),
        Parameter::Uuid(id) => format!("'{id}'::uuid"),
        Parameter::Bytes(bytes) => format!("'\\x{}'::bytea", hex(bytes)),
        Parameter::Int(int) => format!("{int}::bigint"),
        Parameter::Json(json) => format!("{}::jsonb", quoted(&json.to_string())),
        Parameter::Uuids(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
            format!("ARRAY[{}]::uuid[]", ids.join(", "))
        }
        other => panic!("no test sends {other:?}"),
    }
}

type Call = (&'static str, Vec<Parameter>);

fn text(text: &str) -> Parameter {
    Parameter::Text(text.to_owned())
}

fn current(tenant: &str, wanted: &[(&str, i64)], now: i64) -> Call {
    let wanted = wanted.iter().map(|(scope, messages)| json!({"scope": scope, "messages": messages})).collect();
    ("api.current_data_keys", vec![text(tenant), Parameter::Json(wanted), Parameter::Int(now)])
}

fn insert(tenant: &str, id: Parameter, scope: &str, messages: i64, now: i64) -> Call {
    let material = Parameter::OptionalText((messages > 0).then(|| "m1".to_owned()));
    let parameters = vec![
        text(tenant),
        id,
        text(scope),
        text(ARN),
        material,
        Parameter::Bytes(vec![1, 2]),
        Parameter::Bytes(vec![3]),
        Parameter::Int(messages),
        Parameter::Int(now),
    ];
    ("api.insert_data_key", parameters)
}

fn current_index(tenant: &str) -> Call {
    ("api.current_index_key", vec![text(tenant)])
}

fn insert_index(tenant: &str, id: Parameter, now: i64) -> Call {
    let material = Parameter::OptionalText(None);
    let parameters = vec![text(tenant), id, text(ARN), material, Parameter::Bytes(vec![7, 8]), Parameter::Int(now)];
    ("api.insert_index_key", parameters)
}

/// Rows of one answer have no order of their own.
fn sorted(mut answer: Value) -> Value {
    if let Some(keys) = answer.get_mut("keys").and_then(Value::as_array_mut) {
        keys.sort_by_key(|key| key["id"].to_string());
    }
    answer
}

#[tokio::test]
async fn the_fake_data_keys_answer_as_postgres_does() {
    let server = Server::migrated().await;
    let (encrypt, decrypt) = (server.connect("data_key_encrypt").await, server.connect("data_key_decrypt").await);
    let maintain = server.connect("data_key_maintain").await;
    let login = |function: &str| match function {
        "api.data_keys_for_decrypt" => &decrypt,
        "api.export_data_keys" => &maintain,
        moving if moving.ends_with("_to_move") => &maintain,
        _ => &encrypt,
    };
    let to_move = |(function, parameters): Call| match function {
        "api.current_data_keys" => ("api.current_data_keys_to_move", parameters),
        _ => ("api.insert_data_key_to_move", parameters),
    };
    let fake = DataKeys::default();
    let ids: Vec<_> = (0..7).map(|at| uuid_v7(Timestamp::from_millis(NOW + at), &SystemEntropy)).collect();
    let index_ids: Vec<_> = (10..13).map(|at| uuid_v7(Timestamp::from_millis(NOW + at), &SystemEntropy)).collect();
    let id = |at: usize| Parameter::Uuid(ids[at]);
    let opening = |tenant: &str| ("api.data_keys_for_decrypt", vec![text(tenant), Parameter::Uuids(ids.clone())]);
    let inspecting = |tenant: &str, now: i64| {
        ("api.data_keys_for_inspect", vec![text(tenant), Parameter::Uuids(ids.clone()), Parameter::Int(now)])
    };
    let exporting = |tenant: &str, now: i64| {
        ("api.export_data_keys", vec![text(tenant), Parameter::Uuids(ids.clone()), Parameter::Int(now)])
    };
    for (function, parameters) in [
        current("acme", &[], NOW),
        current("acme", &[(EMAIL, 10_000)], NOW),
        insert("acme", id(0), EMAIL, 10_000, NOW),
        insert("acme", id(1), EMAIL, 10_000, NOW + 1),
        current("acme", &[(EMAIL, 10_000), (SSN, 0)], NOW + 2),
        current("globex", &[(EMAIL, 10_000)], NOW + 2),
        insert("globex", id(2), EMAIL, 0, NOW + 2),
        insert("acme", id(3), "subject:s-1", 1, NOW + 3),
        current("acme", &[(EMAIL, 0), ("subject:s-1", 10_000)], NOW + 4),
        opening("acme"),
        opening("globex"),
        opening("initech"),
        current("acme", &[(EMAIL, 0)], NOW + DAY - 1),
        current("acme", &[(EMAIL, 0)], NOW + DAY),
        current("acme", &[(EMAIL, 0)], NOW),
        opening("acme"),
        insert("acme", id(4), EMAIL, 10_000, NOW + DAY),
        insert("acme", id(5), "subject:s-1", 10_000, NOW + DAY + 3),
        opening("acme"),
        to_move(current("acme", &[(EMAIL, 10_000), (SSN, 0)], NOW + DAY + 4)),
        to_move(current("globex", &[], NOW + DAY + 4)),
        to_move(insert("acme", id(6), EMAIL, 10_000, NOW + DAY + 4)),
        to_move(insert("acme", id(6), SSN, 10_000, NOW + DAY + 4)),
        to_move(current("acme", &[(SSN, 1)], NOW + DAY + 5)),
        current("acme", &[(SSN, 1)], NOW + DAY + 5),
        exporting("acme", NOW + DAY + 6),
        exporting("acme", NOW + DAY + 7),
        exporting("initech", NOW),
        inspecting("acme", NOW + DAY + 3),
        inspecting("globex", NOW + DAY + 1),
        inspecting("globex", NOW + DAY + 2),
        inspecting("initech", NOW),
        current_index("acme"),
        insert_index("acme", Parameter::Uuid(index_ids[0]), NOW + 5),
        insert_index("acme", Parameter::Uuid(index_ids[1]), NOW + 6),
        insert_index("acme", Parameter::Uuid(index_ids[0]), NOW + 6),
        current_index("acme"),
        current_index("globex"),
        insert_index("globex", Parameter::Uuid(index_ids[2]), NOW + DAY),
        current_index("acme"),
        ("api.data_keys_for_decrypt", vec![text("acme"), Parameter::Uuids(index_ids.clone())]),
        ("api.data_keys_for_inspect", vec![text("acme"), Parameter::Uuids(index_ids.clone()), Parameter::Int(NOW)]),
    ] {
        let called = format!("{function}{parameters:?}");
        let real = login(function).call(function, parameters.clone()).await;
        let real = real.unwrap_or_else(|fault| panic!("{called}: {:?}", std::error::Error::source(&fault)));
        assert_eq!(sorted(fake.call(function, parameters).await.unwrap()), sorted(real), "{called}");
    }
    for (function, parameters) in [
        current("acme", &[(EMAIL, -1)], NOW),
        current("acme", &[(EMAIL, 100_001)], NOW),
        current("acme", &vec![(EMAIL, 0); 257], NOW),
        to_move(current("acme", &[(EMAIL, -1)], NOW)),
        to_move(current("acme", &vec![(EMAIL, 0); 257], NOW)),
        ("api.data_keys_for_decrypt", vec![text("acme"), Parameter::Uuids(vec![ids[0]; 257])]),
        ("api.export_data_keys", vec![text("acme"), Parameter::Uuids(vec![ids[0]; 257]), Parameter::Int(NOW)]),
        ("api.data_keys_for_inspect", vec![text("acme"), Parameter::Uuids(vec![ids[0]; 257]), Parameter::Int(NOW)]),
    ] {
        assert!(login(function).call(function, parameters.clone()).await.is_err(), "{function}");
        assert!(fake.call(function, parameters).await.is_err(), "{function}");
    }
}

#[tokio::test]
async fn of_many_environments_exactly_one_makes_the_key_of_the_day() {
    let server = Server::migrated().await;
    let mut races = Vec::new();
    for at in 0..8 {
        let login = server.connect("data_key_encrypt").await;
        let id = Parameter::Uuid(uuid_v7(Timestamp::from_millis(NOW + at), &SystemEntropy));
        races.push(async move {
            let (function, parameters) = insert("acme", id, EMAIL, 10_000, NOW);
            login.call(function, parameters).await.unwrap()
        });
    }
    let answers = futures::future::join_all(races).await;
    let inserted: Vec<_> = answers.iter().filter(|answer| answer["outcome"] == "inserted").collect();
    assert_eq!(inserted.len(), 1);
    assert!(answers.iter().all(|answer| answer["key"]["id"] == inserted[0]["key"]["id"]));
    let decrypt = server.connect("data_key_decrypt").await;
    assert!(decrypt.state("SELECT 1 FROM public.data_keys").await.is_some());
    let superuser = server.connect(local::postgres::BOOT_USER).await;
    let reserved = superuser.0.query_typed("SELECT sum(reserved)::bigint FROM public.data_keys", &[]).await.unwrap();
    assert_eq!(reserved[0].get::<_, i64>(0), 80_000);
}

#[tokio::test]
async fn of_many_environments_exactly_one_makes_the_index_key() {
    let server = Server::migrated().await;
    let mut races = Vec::new();
    for at in 0..8 {
        let login = server.connect("data_key_encrypt").await;
        let id = Parameter::Uuid(uuid_v7(Timestamp::from_millis(NOW + at), &SystemEntropy));
        races.push(async move {
            let (function, parameters) = insert_index("acme", id, NOW);
            login.call(function, parameters).await.unwrap()
        });
    }
    let answers = futures::future::join_all(races).await;
    let inserted: Vec<_> = answers.iter().filter(|answer| answer["outcome"] == "inserted").collect();
    assert_eq!(inserted.len(), 1);
    assert!(answers.iter().all(|answer| answer["key"]["id"] == inserted[0]["key"]["id"]));
}

#[tokio::test]
async fn neither_login_has_the_others_functions_and_nobody_else_has_any() {
    let server = Server::migrated().await;
    let calls = [
        ("data_key_encrypt", "SELECT api.current_data_keys('acme', '[]', 0)"),
        ("data_key_encrypt", "SELECT api.insert_data_key('acme', gen_random_uuid(), '', '', '', '', '', 0, 0)"),
        ("data_key_encrypt", "SELECT api.current_index_key('acme')"),
        ("data_key_encrypt", "SELECT api.insert_index_key('acme', gen_random_uuid(), '', '', '', 0)"),
        ("data_key_maintain", "SELECT api.current_data_keys_to_move('acme', '[]', 0)"),
        ("data_key_maintain", "SELECT api.export_data_keys('acme', '{}', 0)"),
        (
            "data_key_maintain",
            "SELECT api.insert_data_key_to_move('acme', gen_random_uuid(), '', '', '', '', '', 0, 0)",
        ),
        ("data_key_maintain", "SELECT api.rotate_data_keys('ann', 'r', 0, 'acme', NULL)"),
        ("data_key_maintain", "SELECT api.close_ended_data_keys('ann', 'r', 0, 1)"),
        ("data_key_maintain", "SELECT api.count_stale_data_keys('', '', NULL)"),
        ("data_key_maintain", "SELECT api.stale_data_keys('', '', NULL, 1)"),
        ("data_key_maintain", "SELECT api.store_rewrapped_keys('ann', 'r', 0, '[]')"),
        ("data_key_shred", "SELECT api.shred_data_keys('ann', 'r', 0, 'acme', 'index', NULL, 0)"),
        ("data_key_maintain", "SELECT api.column_migrated('ann', 'r', 0, 'acme', 'users.ssn', 'encrypt')"),
    ];
    let inspect = "SELECT api.data_keys_for_inspect('acme', '{}', 0)";
    let open = "SELECT api.data_keys_for_decrypt('acme', '{}')";
    for user in [
        "data_key_encrypt",
        "data_key_decrypt",
        "data_key_maintain",
        "data_key_shred",
        "token",
        "upload",
        "download",
        "object_events",
        "trust",
        "admin",
    ] {
        let login = server.connect(user).await;
        for (owner, statement) in calls.iter().filter(|(owner, _)| *owner != user) {
            assert_eq!(login.state(statement).await.as_deref(), Some("42501"), "{user} as {owner}: {statement}");
        }
        for statement in [
            "SELECT 1 FROM public.data_keys",
            "UPDATE public.data_keys SET reserved = 0",
            "SELECT internal.take_data_key('acme', 'x', 0, 0)",
            "SELECT internal.index_key('acme')",
            "SELECT internal.data_key_to_move('acme', '{}')",
            "SELECT internal.ended_data_keys(0, 1)",
            "SELECT 1 FROM public.shred_receipts",
        ] {
            assert_eq!(login.state(statement).await.as_deref(), Some("42501"), "{user}: {statement}");
        }
        let refused = login.state(inspect).await.as_deref() == Some("42501");
        assert_eq!(refused, !user.starts_with("data_key_") || user == "data_key_shred", "{user}: {inspect}");
        let refused = login.state(open).await.as_deref() == Some("42501");
        assert_eq!(refused, !["data_key_decrypt", "data_key_maintain"].contains(&user), "{user}: {open}");
    }
}

#[tokio::test]
async fn a_row_never_moves_backwards_and_never_becomes_another_key() {
    let server = Server::migrated().await;
    let encrypt = server.connect("data_key_encrypt").await;
    let id = uuid_v7(Timestamp::from_millis(NOW), &SystemEntropy);
    let (function, parameters) = insert("acme", Parameter::Uuid(id), EMAIL, 10_000, NOW);
    encrypt.call(function, parameters).await.unwrap();
    let owner = server.connect(OWNER).await;
    let update =
        |set: &str| format!("SELECT set_config('portcullis.tenant', 'acme', false); UPDATE data_keys SET {set}");
    for refused in [
        "reserved = 0",
        "reserved = 4294967297",
        "tenant = 'globex'",
        "scope = 'column:users/ssn'",
        "encrypt_until = encrypt_until + interval '1 day'",
        "id = gen_random_uuid()",
        "state = 'decrypt_only'",
        "state = 'shredded'",
        "state = 'gone'",
        "wrapped = NULL",
        "kms_key_arn = 'alias/portcullis'",
    ] {
        let state = owner.state(&update(refused)).await;
        assert!(matches!(state.as_deref(), Some("23514" | "42501")), "{refused}: {state:?}");
    }
    for accepted in [
        "state = 'decrypt_only', writer_wrapped = NULL",
        "state = 'shredded', wrapped = NULL, shredded_at = to_timestamp(1800000000)",
    ] {
        assert_eq!(owner.state(&update(accepted)).await, None, "{accepted}");
    }
    for refused in ["state = 'active'", "state = 'decrypt_only', wrapped = '\\x01', shredded_at = NULL"] {
        assert_eq!(owner.state(&update(refused)).await.as_deref(), Some("23514"), "{refused}");
    }
}
