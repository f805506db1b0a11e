//! The file functions on a real Postgres: the same outcomes and the same states as the model that all other tests use, for
//! every order of facts, under the logins that the functions have.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;

use futures::future::join_all;
use local::postgres::Postgres;
use object_events::{Config, ObjectEvents};
use serde_json::{Value, json};
use shared::boot::{Handler, Invocation};
use shared::clock::Timestamp;
use shared::object::{Scan, Sha256Digest};
use shared::port::{Database, Fault, FaultKind, Parameter};
use testkit::files::{Fact, state_of};
use testkit::objects::BUCKET_KEY;
use testkit::{Files, FixedClock, Objects};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

const MIGRATIONS: [&str; 9] = [
    include_str!("../../migrate/sql/0001_foundation.sql"),
    include_str!("../../migrate/sql/0002_files.sql"),
    include_str!("../../migrate/sql/0007_file_lifecycle.sql"),
    include_str!("../../migrate/sql/0014_file_modes.sql"),
    include_str!("../../migrate/sql/0015_tickets.sql"),
    include_str!("../../migrate/sql/0021_receipts.sql"),
    include_str!("../../migrate/sql/0022_quotas_and_unheard_files.sql"),
    include_str!("../../migrate/sql/0025_completion_is_remembered.sql"),
    include_str!("../../migrate/sql/0026_completion_is_told_when_it_is_tried.sql"),
];
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// One login's connection as the port that functions call.
struct Login(Client);

impl Login {
    async fn open(socket: &Path, user: &str) -> Login {
        let mut config = tokio_postgres::Config::new();
        config.host_path(socket).user(user).dbname(local::postgres::DATABASE);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        Login(client)
    }

    async fn ask(&self, function: &'static str, parameters: Vec<Parameter>) -> Value {
        self.call(function, parameters).await.unwrap()
    }
}

impl Database for Login {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        let typed: Vec<(Box<dyn ToSql + Sync + Send>, Type)> = parameters
            .into_iter()
            .map(|parameter| -> (Box<dyn ToSql + Sync + Send>, Type) {
                match parameter {
                    Parameter::Text(value) => (Box::new(value), Type::TEXT),
                    Parameter::OptionalText(value) => (Box::new(value), Type::TEXT),
                    Parameter::Uuid(value) => (Box::new(value), Type::UUID),
                    Parameter::Bytes(value) => (Box::new(value), Type::BYTEA),
                    Parameter::OptionalBytes(value) => (Box::new(value), Type::BYTEA),
                    Parameter::Int(value) => (Box::new(value), Type::INT8),
                    Parameter::OptionalInt(value) => (Box::new(value), Type::INT8),
                    Parameter::Json(value) => (Box::new(value), Type::JSONB),
                    Parameter::Bool(value) => (Box::new(value), Type::BOOL),
                    Parameter::Texts(value) => (Box::new(value), Type::TEXT_ARRAY),
                    other => panic!("no file function takes {other:?}"),
                }
            })
            .collect();
        let places: Vec<String> = (1..=typed.len()).map(|place| format!("${place}")).collect();
        let statement = format!("SELECT {function}({})", places.join(","));
        let given: Vec<(&(dyn ToSql + Sync), Type)> =
            typed.iter().map(|(value, of)| (value.as_ref() as &(dyn ToSql + Sync), of.clone())).collect();
        let rows = self.0.query_typed(&statement, &given).await;
        let rows =
            rows.map_err(|error| Fault::new(FaultKind::Invalid, "postgres", function).caused_by(format!("{error:?}")))?;
        Ok(rows[0].get(0))
    }
}

struct Server {
    _directory: tempfile::TempDir,
    postgres: Postgres,
}

impl Server {
    /// A migrated database with the tenants `acme` and `globex`.
    async fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
        let postgres = Postgres::start_prepared(directory.path(), None, &cache, &MIGRATIONS).await.unwrap();
        let server = Server { _directory: directory, postgres };
        let admin = server.login("admin").await;
        for tenant in ["acme", "globex"] {
            let text = |value: &str| Parameter::Text(value.to_owned());
            let made = admin.call(
                "api.tenant_put",
                vec![text("op"), text("r"), Parameter::Int(1), text(tenant), text(tenant), Parameter::Bool(true)],
            );
            made.await.unwrap();
        }
        server
    }

    async fn login(&self, user: &str) -> Login {
        Login::open(self.postgres.socket_dir(), user).await
    }
}

fn id(number: u64) -> Uuid {
    Uuid::parse_str(&format!("01920000-0000-7000-8000-{number:012x}")).unwrap()
}

fn create(tenant: &str, subject: &str, id: Uuid, key: Option<&str>, body: &str, now: i64) -> Vec<Parameter> {
    vec![
        Parameter::Text(tenant.to_owned()),
        Parameter::Text(subject.to_owned()),
        Parameter::Uuid(id),
        Parameter::Text("report.txt".to_owned()),
        Parameter::Text("text/plain".to_owned()),
        Parameter::Text("put".to_owned()),
        Parameter::OptionalInt(Some(11)),
        Parameter::OptionalBytes(Some(Sha256Digest::of(b"hello world").as_bytes().to_vec())),
        Parameter::OptionalInt(None),
        Parameter::OptionalInt(None),
        Parameter::Int(now + 300_000),
        Parameter::OptionalText(key.map(str::to_owned)),
        Parameter::OptionalBytes(key.map(|_| Sha256Digest::of(body.as_bytes()).as_bytes().to_vec())),
        Parameter::Json(json!({ "client_id": subject, "jti": "j" })),
        Parameter::Int(now),
    ]
}

fn find(tenant: &str, subject: &str, id: Uuid, of_tenant: bool) -> Vec<Parameter> {
    vec![
        Parameter::Text(tenant.to_owned()),
        Parameter::Text(subject.to_owned()),
        Parameter::Uuid(id),
        Parameter::Bool(of_tenant),
    ]
}

#[tokio::test]
async fn real_sql_and_the_model_answer_alike() {
    let server = Server::start().await;
    let (upload, download) = (server.login("upload").await, server.login("download").await);
    let model = Files::default();

    let creations = [
        create("acme", "alice", id(1), None, "", 1000),
        create("acme", "alice", id(2), Some("k"), "a", 1000),
        create("acme", "alice", id(3), Some("k"), "a", 2000),
        create("acme", "alice", id(4), Some("k"), "b", 2000),
        create("acme", "bob", id(5), Some("k"), "b", 2000),
        create("globex", "alice", id(6), Some("k"), "b", 2000),
        create("acme", "alice", id(7), Some("k"), "a", 1000 + DAY_MS - 1),
        create("acme", "alice", id(8), Some("k"), "b", 1000 + DAY_MS),
        create("acme", "alice", id(9), Some("k"), "b", 1001 + DAY_MS),
    ];
    for parameters in creations {
        let real = upload.ask("api.create_file", parameters.clone()).await;
        assert_eq!(real, model.call("api.create_file", parameters.clone()).await.unwrap(), "{parameters:?}");
    }
    assert_eq!(model.row(id(2)).unwrap().url_expires_ms, 1000 + DAY_MS - 1 + 300_000);

    for (tenant, subject, number, of_tenant) in [
        ("acme", "alice", 1, false),
        ("acme", "bob", 1, false),
        ("acme", "bob", 1, true),
        ("globex", "alice", 1, true),
        ("globex", "alice", 6, false),
        ("acme", "alice", 99, true),
    ] {
        let parameters = find(tenant, subject, id(number), of_tenant);
        let real = download.ask("api.file_for_download", parameters.clone()).await;
        assert_eq!(real, model.call("api.file_for_download", parameters.clone()).await.unwrap(), "{parameters:?}");
    }
}

#[tokio::test]
async fn of_equal_requests_at_once_one_makes_the_file() {
    let server = Server::start().await;
    let logins = join_all((0..8).map(|_| server.login("upload"))).await;
    let asked = logins.iter().enumerate().map(|(number, login)| {
        login.ask("api.create_file", create("acme", "alice", id(number as u64), Some("k"), "a", 1000))
    });
    let answers = join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer["outcome"] == "created").count(), 1);
    assert!(answers.iter().all(|answer| answer["id"] == answers[0]["id"]), "{answers:?}");
}

#[tokio::test]
async fn a_login_can_do_its_own_work_and_nothing_else() {
    let server = Server::start().await;
    let owner = server.login(local::postgres::OWNER).await;
    server.login("upload").await.ask("api.create_file", create("acme", "alice", id(1), None, "", 1000)).await;
    for user in ["upload", "download", "object_events", "token", "trust"] {
        let login = server.login(user).await;
        for table in ["files", "file_facts", "file_parts", "quotas", "file_usage"] {
            assert!(
                login.0.batch_execute(&format!("SELECT * FROM public.{table}")).await.is_err(),
                "{user} reads {table}"
            );
        }
        let derived = format!("SELECT internal.derive_file_status('{}')", id(1));
        assert!(login.0.batch_execute(&derived).await.is_err(), "{user}");
        let may = |function: &str| match function {
            "api.create_file" | "api.renew_upload" | "api.delete_file" => user == "upload",
            "api.sign_parts" | "api.begin_parts" | "api.parts_to_complete" => user == "upload",
            "api.parts_completing" | "api.parts_completed" | "api.parts_ended" => user == "upload",
            "api.file_for_download" | "api.file_receipt" => user == "download",
            _ => user == "object_events",
        };
        for (function, parameters) in [
            ("api.create_file", create("acme", "alice", Uuid::from_u128(7), None, "", 1000)),
            ("api.file_for_download", find("acme", "alice", id(1), false)),
            ("api.file_receipt", find("acme", "alice", id(1), false)),
            (
                "api.file_for_event",
                find("acme", "alice", id(1), false)[..1].iter().chain(&[Parameter::Uuid(id(1))]).cloned().collect(),
            ),
            ("api.renew_upload", with(whose("acme", "alice", id(1)), [Parameter::Int(1), Parameter::Int(1)])),
            ("api.delete_file", with(whose("acme", "alice", id(9)), [Parameter::Int(1)])),
            ("api.files_to_sweep", vec![Parameter::Int(1), Parameter::Int(1)]),
            (
                "api.file_purged",
                vec![
                    Parameter::Text("acme".to_owned()),
                    Parameter::Uuid(id(1)),
                    Parameter::Text("objects".to_owned()),
                    Parameter::Texts(vec![]),
                    Parameter::OptionalText(None),
                    Parameter::Int(1),
                ],
            ),
            ("api.sign_parts", with(whose("acme", "alice", id(1)), [parts(&[]), Parameter::Int(1), Parameter::Int(1)])),
            ("api.begin_parts", with(whose("acme", "alice", id(1)), [Parameter::Text("u".to_owned())])),
            ("api.parts_to_complete", with(whose("acme", "alice", id(1)), [Parameter::Int(1)])),
            (
                "api.parts_completing",
                with(whose("acme", "alice", id(1)), [Parameter::Text("u".to_owned()), Parameter::Int(1)]),
            ),
            ("api.parts_completed", with(whose("acme", "alice", id(1)), [Parameter::Int(1)])),
            ("api.parts_ended", with(whose("acme", "alice", id(1)), [Parameter::Text("u".to_owned())])),
            ("api.record_verdict", verdict(id(9), "v1", "NO_THREATS_FOUND")),
        ] {
            assert_eq!(login.call(function, parameters).await.is_ok(), may(function), "{user} calls {function}");
        }
    }
    // Row-level security holds for the owner too.
    let seen: i64 = owner.0.query_typed("SELECT count(*) FROM public.files", &[]).await.unwrap()[0].get(0);
    assert_eq!(seen, 0);
}

#[tokio::test]
async fn rows_that_break_a_rule_are_refused_by_the_table_itself() {
    let server = Server::start().await;
    let upload = server.login("upload").await;
    let broken: [(usize, Parameter); 11] = [
        (0, Parameter::Text("unknown".to_owned())),
        (1, Parameter::Text(String::new())),
        (3, Parameter::Text("n".repeat(201))),
        (5, Parameter::Text("post".to_owned())),
        (5, Parameter::Text("multipart".to_owned())),
        (6, Parameter::OptionalInt(Some(0))),
        (6, Parameter::OptionalInt(None)),
        (7, Parameter::OptionalBytes(Some(vec![0; 31]))),
        (8, Parameter::OptionalInt(Some(5))),
        (11, Parameter::OptionalText(Some("k".to_owned()))),
        (12, Parameter::OptionalBytes(Some(vec![0; 32]))),
    ];
    for (place, value) in broken {
        let mut parameters = create("acme", "alice", id(1), None, "", 1000);
        parameters[place] = value;
        assert!(upload.call("api.create_file", parameters.clone()).await.is_err(), "{parameters:?}");
    }
    let answer = server.login("download").await.ask("api.file_for_download", find("acme", "alice", id(1), true)).await;
    assert_eq!(answer, json!({ "outcome": "unknown" }));
}

#[tokio::test]
async fn every_sequence_of_facts_gives_the_state_of_the_model() {
    let server = Server::start().await;
    let (upload, events) = (server.login("upload").await, server.login("object_events").await);
    let owner = server.login(local::postgres::OWNER).await;
    let created = |version: &str, finding: &str| Fact::Created {
        version: version.to_owned(),
        etag: format!("e-{version}"),
        size: 11,
        sha256: None,
        finding: finding.to_owned(),
        scan_off: false,
    };
    let verdict = |version: &str, value: &str| Fact::Verdict { version: version.to_owned(), value: value.to_owned() };
    let alphabet = [
        created("v1", "ok"),
        created("v1", "size"),
        created("v2", "ok"),
        verdict("v1", "NO_THREATS_FOUND"),
        verdict("v1", "THREATS_FOUND"),
        verdict("v1", "UNSUPPORTED"),
        verdict("v2", "NO_THREATS_FOUND"),
    ];
    let mut number = 1000;
    for scan_off in [false, true] {
        for sequence in sequences(&alphabet, 3) {
            number += 1;
            let file = id(number);
            upload.ask("api.create_file", create("acme", "alice", file, None, "", 1000)).await;
            let mut known = Vec::new();
            for fact in sequence {
                let fact = match fact {
                    Fact::Created { version, etag, size, sha256, finding, .. } => {
                        let text = Parameter::Text;
                        let parameters = vec![
                            text("acme".to_owned()),
                            Parameter::Uuid(file),
                            text("objects".to_owned()),
                            text(version.clone()),
                            text(etag.clone()),
                            Parameter::Int(size),
                            Parameter::OptionalText(sha256.clone()),
                            text(finding.clone()),
                            Parameter::Bool(scan_off),
                            Parameter::Int(2000),
                        ];
                        events.ask("api.record_created", parameters).await;
                        Fact::Created { version, etag, size, sha256, finding, scan_off }
                    }
                    Fact::Verdict { version, value } => {
                        let insert = format!(
                            "BEGIN; SELECT internal.enter_tenant('acme');
                             INSERT INTO public.file_facts (bucket, object_key, tenant, version_id, etag, kind, value, recorded_ms)
                             VALUES ('objects', 't/acme/{file}', 'acme', '{version}', 'e-{version}', 'verdict', '{value}', 1)
                             ON CONFLICT DO NOTHING;
                             SELECT internal.derive_file_status('{file}'); COMMIT"
                        );
                        owner.0.batch_execute(&insert).await.unwrap();
                        Fact::Verdict { version, value }
                    }
                };
                known.push(fact);
            }
            let found = "SELECT set_config('portcullis.tenant', 'acme', true)";
            owner.0.batch_execute(&format!("BEGIN; {found}")).await.unwrap();
            let row = format!("SELECT status, verdict FROM public.files WHERE id = '{file}'");
            let row = owner.0.query_typed(&row, &[]).await.unwrap().remove(0);
            owner.0.batch_execute("COMMIT").await.unwrap();
            let (status, said): (String, Option<String>) = (row.get(0), row.get(1));
            let (want, wanted) = state_of(&known);
            assert_eq!(status, want, "{known:?}");
            if matches!(want, "clean" | "infected" | "unscannable") {
                assert_eq!(said, wanted, "{known:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_function_completes_a_file_on_real_sql() {
    let server = Server::start().await;
    server.login("upload").await.ask("api.create_file", create("acme", "alice", id(1), None, "", 1000)).await;
    let objects = Objects::default();
    let key = format!("t/acme/{}", id(1));
    objects.put(&key, "v1", "text/plain", b"hello world");
    objects.put(&key, "v2", "text/plain", b"hello world");
    let function = ObjectEvents {
        database: server.login("object_events").await,
        objects,
        clock: FixedClock::at(Timestamp::from_seconds(1_800_000_000)),
        config: Config {
            env: "test".to_owned(),
            object_bucket: "objects".to_owned(),
            bucket_key: BUCKET_KEY.to_owned(),
            scan: Scan::Off,
        },
    };
    let invocation = Invocation {
        request_id: "i-1".to_owned(),
        deadline: Timestamp::from_seconds(1_800_000_010),
        function_arn: "arn".to_owned(),
    };
    let download = server.login("download").await;
    for (version, want) in [("v1", "clean"), ("v1", "clean"), ("v2", "rejected"), ("v1", "rejected")] {
        let event = json!({ "source": "aws.s3", "detail-type": "Object Created",
            "detail": { "bucket": { "name": "objects" }, "object": { "key": key, "version-id": version } } });
        function.handle(event, &invocation).await.unwrap();
        let file = download.ask("api.file_for_download", find("acme", "alice", id(1), false)).await;
        assert_eq!(file["file"]["status"], want);
    }
}

fn sequences(alphabet: &[Fact], longest: usize) -> Vec<Vec<Fact>> {
    let mut all = vec![Vec::new()];
    let mut latest = all.clone();
    for _ in 0..longest {
        latest = latest
            .iter()
            .flat_map(|sequence| {
                alphabet.iter().map(|fact| sequence.iter().cloned().chain([fact.clone()]).collect::<Vec<_>>())
            })
            .collect();
        all.extend(latest.iter().cloned());
    }
    all
}

fn whose(tenant: &str, subject: &str, id: Uuid) -> Vec<Parameter> {
    find(tenant, subject, id, false)[..3].to_vec()
}

fn with(mut parameters: Vec<Parameter>, more: impl IntoIterator<Item = Parameter>) -> Vec<Parameter> {
    parameters.extend(more);
    parameters
}

#[tokio::test]
async fn the_life_of_a_file_ends_in_sql_as_in_the_model() {
    let server = Server::start().await;
    let (upload, events) = (server.login("upload").await, server.login("object_events").await);
    let model = Files::default();
    let both = async |login: &Login, function: &'static str, parameters: Vec<Parameter>| {
        let real = login.ask(function, parameters.clone()).await;
        assert_eq!(real, model.call(function, parameters.clone()).await.unwrap(), "{function} {parameters:?}");
        real
    };
    let event = |number: u64, version: &str, finding: &str| {
        let text = |value: &str| Parameter::Text(value.to_owned());
        vec![
            text("acme"),
            Parameter::Uuid(id(number)),
            text("objects"),
            text(version),
            text("e"),
            Parameter::Int(11),
            Parameter::OptionalText(Some("digest".to_owned())),
            text(finding),
            Parameter::Bool(true),
            Parameter::Int(2000),
        ]
    };
    let renew = |tenant: &str, subject: &str, number: u64, expires: i64, now: i64| {
        with(whose(tenant, subject, id(number)), [Parameter::Int(expires), Parameter::Int(now)])
    };
    let delete = |subject: &str, number: u64| with(whose("acme", subject, id(number)), [Parameter::Int(3000)]);
    let sweep = |now: i64, limit: i64| vec![Parameter::Int(now), Parameter::Int(limit)];
    let purged = |tenant: &str, number: u64, versions: &[&str], now: i64| {
        vec![
            Parameter::Text(tenant.to_owned()),
            Parameter::Uuid(id(number)),
            Parameter::Text("objects".to_owned()),
            Parameter::Texts(versions.iter().map(|version| (*version).to_owned()).collect()),
            Parameter::OptionalText(None),
            Parameter::Int(now),
        ]
    };

    // 1 stays pending, 2 is clean, 3 rejected, 4 deleted while pending, 5 deleted when clean, 6 is globex' own.
    for number in 1..=5 {
        both(&upload, "api.create_file", create("acme", "alice", id(number), None, "", 1000)).await;
    }
    both(&upload, "api.create_file", create("globex", "alice", id(6), None, "", 1000)).await;
    for (number, finding) in [(2, "ok"), (3, "size"), (5, "ok")] {
        both(&events, "api.record_created", event(number, "v1", finding)).await;
    }
    for (subject, number) in [("bob", 4), ("alice", 4), ("alice", 4), ("alice", 5), ("alice", 6), ("alice", 99)] {
        both(&upload, "api.delete_file", delete(subject, number)).await;
    }
    for (tenant, subject, number, expires, now) in [
        ("acme", "alice", 1, 900_000, 2000),
        ("acme", "alice", 1, 400_000, 2000),
        ("acme", "alice", 2, 900_000, 2000),
        ("acme", "alice", 3, 900_000, 2000),
        ("acme", "alice", 4, 900_000, 2000),
        ("acme", "bob", 1, 900_000, 2000),
        ("globex", "alice", 1, 900_000, 2000),
        ("globex", "alice", 6, 900_000, 999 + DAY_MS),
        ("globex", "alice", 6, 900_000, 1000 + DAY_MS),
    ] {
        both(&upload, "api.renew_upload", renew(tenant, subject, number, expires, now)).await;
    }

    let names = |answer: &Value| -> Vec<String> {
        answer["files"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()[35..].to_owned()).collect()
    };
    assert!(names(&both(&events, "api.files_to_sweep", sweep(360_999, 10)).await).is_empty());
    assert_eq!(names(&both(&events, "api.files_to_sweep", sweep(361_000, 2)).await), ["3", "4"]);
    assert_eq!(names(&both(&events, "api.files_to_sweep", sweep(361_000, 2)).await), ["5"]);
    assert!(names(&both(&events, "api.files_to_sweep", sweep(960_999, 10)).await).is_empty());
    for parameters in [
        purged("acme", 3, &["v1"], 1),
        purged("acme", 4, &[], 1),
        purged("acme", 5, &["other"], 1),
        purged("acme", 2, &["v1"], 1),
        purged("globex", 5, &["v1"], 1),
    ] {
        both(&events, "api.file_purged", parameters).await;
    }
    // Only what is left comes again: 5, and 3 once a late version is known.
    both(&events, "api.record_created", event(3, "v2", "late")).await;
    both(&events, "api.record_created", event(3, "v1", "size")).await;
    let again = both(&events, "api.files_to_sweep", sweep(961_000, 10)).await;
    assert_eq!(names(&again), ["3", "5"]);
    assert_eq!(again["files"][0]["versions"], json!(["v2"]));
    both(&events, "api.file_purged", purged("acme", 3, &["v2"], 1)).await;
    both(&events, "api.file_purged", purged("acme", 5, &["v1"], 1)).await;

    // A day later what was never filled expires, in every tenant, and nothing brings it back.
    assert!(names(&both(&events, "api.files_to_sweep", sweep(999 + DAY_MS, 10)).await).is_empty());
    let expired = both(&events, "api.files_to_sweep", sweep(1000 + DAY_MS, 10)).await;
    assert_eq!(names(&expired), ["1", "6"]);
    assert_eq!(expired["files"][0]["status"], "expired");
    both(&events, "api.record_created", event(1, "v9", "ok")).await;
    let download = server.login("download").await;
    for number in 1..=5 {
        both(&download, "api.file_for_download", find("acme", "alice", id(number), false)).await;
    }
    both(&events, "api.files_to_sweep", sweep(i64::MAX / 2, 10)).await;
}

fn verdict(id: Uuid, version: &str, value: &str) -> Vec<Parameter> {
    let text = |value: &str| Parameter::Text(value.to_owned());
    vec![
        text("acme"),
        Parameter::Uuid(id),
        text("objects"),
        text(version),
        text("e"),
        text(value),
        Parameter::Int(2000),
    ]
}

/// Parts of 5 MiB, the third of 7 bytes, with a digest of one letter's.
fn parts(named: &[(i64, i64, &str)]) -> Parameter {
    let digest = |letter: &str| shared::encoding::hex(Sha256Digest::of(letter.as_bytes()).as_bytes());
    let one = |(part, size, letter): &(i64, i64, &str)| json!({ "part": part, "size": size, "sha256": digest(letter) });
    Parameter::Json(named.iter().map(one).collect())
}

#[tokio::test]
async fn parts_live_in_sql_as_in_the_model() {
    const EACH: i64 = 5 << 20;
    let server = Server::start().await;
    let (upload, events) = (server.login("upload").await, server.login("object_events").await);
    let download = server.login("download").await;
    let model = Files::default();
    let both = async |login: &Login, function: &'static str, parameters: Vec<Parameter>| {
        let real = login.ask(function, parameters.clone()).await;
        assert_eq!(real, model.call(function, parameters.clone()).await.unwrap(), "{function} {parameters:?}");
        real
    };
    let large = |number: u64| {
        let mut parameters = create("acme", "alice", id(number), None, "", 1000);
        parameters[5] = Parameter::Text("multipart".to_owned());
        parameters[6] = Parameter::OptionalInt(Some(2 * EACH + 7));
        parameters[7] = Parameter::OptionalBytes(None);
        parameters[9] = Parameter::OptionalInt(Some(EACH));
        parameters
    };
    let mut form = create("acme", "alice", id(4), None, "", 1000);
    form[5] = Parameter::Text("post".to_owned());
    (form[6], form[7], form[8]) =
        (Parameter::OptionalInt(None), Parameter::OptionalBytes(None), Parameter::OptionalInt(Some(99)));
    both(&upload, "api.create_file", form).await;
    for number in 1..=3 {
        both(&upload, "api.create_file", large(number)).await;
    }
    let sign = |subject: &str, number: u64, named: &[(i64, i64, &str)], now: i64| {
        with(whose("acme", subject, id(number)), [parts(named), Parameter::Int(400_000), Parameter::Int(now)])
    };
    let of = |number: u64, more: Parameter| with(whose("acme", "alice", id(number)), [more]);
    let told = |number: u64| vec![Parameter::Text("acme".to_owned()), Parameter::Uuid(id(number))];
    let text = |value: &str| Parameter::Text(value.to_owned());

    for parameters in [
        sign("alice", 1, &[(1, EACH, "a"), (3, 7, "c")], 2000),
        sign("alice", 1, &[(1, EACH, "z")], 2000),
        sign("alice", 1, &[(2, EACH, "b"), (2, EACH - 1, "b")], 2000),
        sign("alice", 1, &[(3, EACH, "c")], 2000),
        sign("alice", 1, &[(0, EACH, "a")], 2000),
        sign("alice", 1, &[(4, EACH, "a")], 2000),
        sign("bob", 1, &[(1, EACH, "a")], 2000),
        sign("alice", 9, &[(1, EACH, "a")], 2000),
        sign("alice", 4, &[(1, 7, "a")], 2000),
        sign("alice", 2, &[(1, EACH, "a")], 999 + DAY_MS),
        sign("alice", 2, &[(1, EACH, "a")], 1000 + DAY_MS),
    ] {
        both(&upload, "api.sign_parts", parameters).await;
    }
    for (number, name) in [(1, "u1"), (1, "u2"), (2, "u3"), (4, "u4"), (9, "u5")] {
        both(&upload, "api.begin_parts", of(number, text(name))).await;
    }
    for number in [1, 2, 4, 9] {
        both(&upload, "api.parts_to_complete", of(number, Parameter::Int(2000))).await;
        both(&events, "api.file_for_event", told(number)).await;
    }
    both(&upload, "api.sign_parts", sign("alice", 1, &[(2, EACH, "b")], 2000)).await;
    let whole = both(&events, "api.file_for_event", told(1)).await;
    assert!(whole["file"]["parts_sha256"].is_string(), "{whole}");
    let open = both(&upload, "api.parts_to_complete", of(1, Parameter::Int(2000))).await;
    assert_eq!((&open["count"], &open["upload_id"], &open["tried"]), (&json!(3), &json!("u1"), &json!(false)));
    let again = both(&upload, "api.parts_to_complete", of(1, Parameter::Int(2000))).await;
    assert_eq!(again["tried"], false, "a question tries nothing");
    let trying = |number: u64, name: &str| with(of(number, text(name)), [Parameter::Int(2500)]);
    for (number, name) in [(1, "u2"), (3, "u1"), (4, "u4"), (9, "u5"), (2, "u1")] {
        both(&upload, "api.parts_completing", trying(number, name)).await;
    }
    let again = both(&upload, "api.parts_to_complete", of(1, Parameter::Int(2000))).await;
    assert_eq!(again["tried"], false, "nor does who names another upload");
    assert_eq!(both(&upload, "api.parts_completing", trying(1, "u1")).await["outcome"], "trying");
    both(&upload, "api.parts_completing", trying(1, "u1")).await;
    let again = both(&upload, "api.parts_to_complete", of(1, Parameter::Int(2000))).await;
    assert_eq!(again["tried"], true);
    assert_eq!(both(&upload, "api.parts_completing", trying(2, "u3")).await["outcome"], "trying");

    for (number, name) in [(2, "other"), (2, "u3"), (2, "u3")] {
        both(&upload, "api.parts_ended", of(number, text(name))).await;
    }
    assert_eq!(both(&upload, "api.parts_completing", trying(2, "u3")).await["outcome"], "gone");
    assert_eq!(both(&upload, "api.parts_to_complete", of(2, Parameter::Int(2000))).await["tried"], false);
    both(&upload, "api.begin_parts", of(2, text("u6"))).await;
    for number in [1, 1, 4] {
        both(&upload, "api.parts_completed", of(number, Parameter::Int(3000))).await;
    }
    both(&upload, "api.parts_completing", trying(1, "u1")).await;
    both(&upload, "api.parts_to_complete", of(1, Parameter::Int(2000))).await;
    both(&upload, "api.sign_parts", sign("alice", 1, &[(1, EACH, "a")], 2000)).await;
    both(&upload, "api.begin_parts", of(1, text("u7"))).await;

    let created = |number: u64, version: &str, finding: &str| {
        vec![
            text("acme"),
            Parameter::Uuid(id(number)),
            text("objects"),
            text(version),
            text("e"),
            Parameter::Int(42),
            Parameter::OptionalText(Some("digest-3".to_owned())),
            text(finding),
            Parameter::Bool(false),
            Parameter::Int(2000),
        ]
    };
    for number in [1, 3, 4] {
        both(&events, "api.record_verdict", verdict(id(number), "v1", "NO_THREATS_FOUND")).await;
        both(&events, "api.record_created", created(number, "v1", if number == 3 { "size" } else { "ok" })).await;
        both(&events, "api.record_verdict", verdict(id(number), "v1", "NO_THREATS_FOUND")).await;
        both(&download, "api.file_for_download", find("acme", "alice", id(number), false)).await;
    }
    both(&events, "api.record_verdict", verdict(id(9), "v1", "NO_THREATS_FOUND")).await;
    both(&upload, "api.parts_to_complete", of(1, Parameter::Int(2000))).await;
    both(&events, "api.record_created", created(4, "v2", "ok")).await;
    both(&download, "api.file_for_download", find("acme", "alice", id(4), false)).await;

    // What is left of parts keeps a file from being purged.
    both(&upload, "api.delete_file", of(2, Parameter::Int(3000))).await;
    // What has ended is not completed. A file whose event was heard is, whoever wrote that down or did not.
    both(&upload, "api.parts_to_complete", of(2, Parameter::Int(2000))).await;
    both(&upload, "api.parts_to_complete", of(3, Parameter::Int(2000))).await;
    for (number, name) in [(1, "u1"), (2, "u6"), (3, "u1")] {
        both(&upload, "api.parts_completing", trying(number, name)).await;
    }
    both(&upload, "api.delete_file", of(2, Parameter::Int(3000))).await;
    let purged = |number: u64, upload: Option<&str>| {
        vec![
            text("acme"),
            Parameter::Uuid(id(number)),
            text("objects"),
            Parameter::Texts(vec!["v1".to_owned()]),
            Parameter::OptionalText(upload.map(str::to_owned)),
            Parameter::Int(4000),
        ]
    };
    both(&events, "api.files_to_sweep", vec![Parameter::Int(1000 + 2 * DAY_MS), Parameter::Int(10)]).await;
    assert_eq!(both(&events, "api.file_purged", purged(2, None)).await["outcome"], "kept");
    assert_eq!(both(&events, "api.file_purged", purged(2, Some("other"))).await["outcome"], "kept");
    assert_eq!(both(&events, "api.file_purged", purged(2, Some("u6"))).await["outcome"], "purged");
    both(&events, "api.file_purged", purged(1, None)).await;
}

#[tokio::test]
async fn a_ticket_is_used_once_and_dies_with_whoever_made_it() {
    let server = Server::start().await;
    let (upload, events) = (server.login("upload").await, server.login("object_events").await);
    let (download, admin) = (server.login("download").await, server.login("admin").await);
    let model = Files::default();
    let both = async |login: &Login, function: &'static str, parameters: Vec<Parameter>| {
        let real = login.ask(function, parameters.clone()).await;
        assert_eq!(real, model.call(function, parameters.clone()).await.unwrap(), "{function} {parameters:?}");
        real
    };
    let text = |value: &str| Parameter::Text(value.to_owned());
    for number in 1..=2 {
        both(&upload, "api.create_file", create("acme", "alice", id(number), None, "", 1000)).await;
    }
    let created = vec![
        text("acme"),
        Parameter::Uuid(id(1)),
        text("objects"),
        text("v1"),
        text("e"),
        Parameter::Int(11),
        Parameter::OptionalText(None),
        text("ok"),
        Parameter::Bool(true),
        Parameter::Int(2000),
    ];
    both(&events, "api.record_created", created).await;
    let hash = |letter: u8| Parameter::Bytes(vec![letter; 32]);
    let put = |subject: &str, number: u64, letter: u8, now: i64| {
        with(
            find("acme", subject, id(number), false),
            [
                hash(letter),
                text(subject),
                text(&format!("jti-{letter}")),
                Parameter::OptionalText(Some(format!("s-{letter}"))),
                Parameter::OptionalText(Some(format!("d-{letter}"))),
                Parameter::Int(now + 60_000),
                Parameter::Int(now),
            ],
        )
    };
    let look = |letter: u8, now: i64| vec![hash(letter), Parameter::Int(now)];
    let used = |tenant: &str, letter: u8, version: &str, now: i64| {
        vec![text(tenant), hash(letter), text(version), Parameter::Int(now)]
    };
    for parameters in
        [put("alice", 1, 1, 3000), put("bob", 1, 2, 3000), put("alice", 2, 3, 3000), put("alice", 9, 4, 3000)]
    {
        both(&download, "api.ticket_put", parameters).await;
    }
    let broken = with(
        find("acme", "alice", id(1), false),
        [
            hash(9),
            text("alice"),
            text("j"),
            Parameter::OptionalText(None),
            Parameter::OptionalText(None),
            Parameter::Int(3000 + 300_001),
            Parameter::Int(3000),
        ],
    );
    assert!(download.call("api.ticket_put", broken).await.is_err(), "no ticket lives longer than five minutes");
    for (letter, now) in [(1, 3000), (1, 62_999), (1, 63_000), (2, 3000)] {
        both(&download, "api.ticket_find", look(letter, now)).await;
    }
    for parameters in [
        used("globex", 1, "v1", 3000),
        used("acme", 1, "v2", 3000),
        used("acme", 1, "v1", 63_000),
        used("acme", 2, "v1", 3000),
        used("acme", 1, "v1", 3000),
        used("acme", 1, "v1", 3000),
    ] {
        both(&download, "api.ticket_use", parameters).await;
    }
    both(&download, "api.ticket_find", look(1, 3000)).await;

    // Of many uses at once one wins.
    both(&download, "api.ticket_put", put("alice", 1, 5, 3000)).await;
    let logins = join_all((0..8).map(|_| server.login("download"))).await;
    let uses = join_all(logins.iter().map(|login| login.ask("api.ticket_use", used("acme", 5, "v1", 3000)))).await;
    assert_eq!(uses.iter().filter(|answer| answer["outcome"] == "used").count(), 1);

    // Whoever is revoked after he made it, by any of his names, and no other.
    for (letter, kind, value) in [
        (6, "jti", "jti-6"),
        (7, "client_id", "alice"),
        (8, "tenant", "acme"),
        (9, "sid", "s-9"),
        (10, "device", "d-10"),
    ] {
        let now = 10_000 * i64::from(letter);
        download.ask("api.ticket_put", put("alice", 1, letter, now)).await;
        assert_eq!(download.ask("api.ticket_find", look(letter, now)).await["outcome"], "found");
        let revoked =
            vec![text("op"), text("r"), Parameter::Int(now), text(kind), text(value), Parameter::Int(now / 1000)];
        admin.ask("api.revoke", revoked).await;
        assert_eq!(download.ask("api.ticket_find", look(letter, now)).await["outcome"], "unknown", "{kind}");
        if kind != "jti" {
            download.ask("api.ticket_put", put("alice", 1, letter + 20, now + 1000)).await;
            let after = download.ask("api.ticket_find", look(letter + 20, now + 1000)).await;
            assert_eq!(after["outcome"], "found", "{kind}: what was made after it lives");
        }
    }
    let shut = vec![text("op"), text("r"), Parameter::Int(1), text("acme"), text("acme"), Parameter::Bool(false)];
    admin.ask("api.tenant_put", shut).await;
    assert_eq!(download.ask("api.ticket_find", look(28, 81_000)).await["outcome"], "unknown", "its tenant is disabled");
    for user in ["upload", "object_events", "token"] {
        let login = server.login(user).await;
        assert!(login.call("api.ticket_find", look(1, 1)).await.is_err(), "{user}");
    }
}

#[tokio::test]
async fn a_receipt_is_of_the_object_that_was_found_as_declared() {
    let server = Server::start().await;
    let (upload, events) = (server.login("upload").await, server.login("object_events").await);
    let download = server.login("download").await;
    let model = Files::default();
    let both = async |login: &Login, function: &'static str, parameters: Vec<Parameter>| {
        let real = login.ask(function, parameters.clone()).await;
        assert_eq!(real, model.call(function, parameters.clone()).await.unwrap(), "{function} {parameters:?}");
        real
    };
    let text = |value: &str| Parameter::Text(value.to_owned());
    let found = |number: u64, version: &str, finding: &str, now: i64| {
        vec![
            text("acme"),
            Parameter::Uuid(id(number)),
            text("objects"),
            text(version),
            text(&format!("e-{version}")),
            Parameter::Int(11),
            Parameter::OptionalText(Some("whole".to_owned())),
            text(finding),
            Parameter::Bool(false),
            Parameter::Int(now),
        ]
    };
    for number in 1..=4 {
        both(&upload, "api.create_file", create("acme", "alice", id(number), None, "", 1000)).await;
    }
    let mut form = create("acme", "alice", id(5), None, "", 1000);
    form[5] = text("post");
    (form[6], form[7], form[8]) =
        (Parameter::OptionalInt(None), Parameter::OptionalBytes(None), Parameter::OptionalInt(Some(99)));
    both(&upload, "api.create_file", form).await;
    for parameters in [
        found(1, "v1", "ok", 2000),
        found(1, "v1", "ok", 9000),
        found(2, "v1", "size", 2000),
        found(3, "v1", "ok", 2000),
        found(3, "v2", "ok", 3000),
        found(5, "v1", "ok", 2500),
    ] {
        both(&events, "api.record_created", parameters).await;
    }
    for (tenant, subject, of_tenant) in
        [("acme", "alice", false), ("acme", "bob", false), ("acme", "bob", true), ("globex", "alice", true)]
    {
        for number in 1..=6 {
            both(&download, "api.file_receipt", find(tenant, subject, id(number), of_tenant)).await;
        }
    }
    let one = download.ask("api.file_receipt", find("acme", "alice", id(1), false)).await;
    assert_eq!((&one["receipt"]["received_ms"], &one["receipt"]["made_by"]["jti"]), (&json!(2000), &json!("j")));
    assert_eq!(one["receipt"]["sha256"], Sha256Digest::of(b"hello world").to_string());
    let verdict = vec![
        text("acme"),
        Parameter::Uuid(id(1)),
        text("objects"),
        text("v1"),
        text("e-v1"),
        text("THREATS_FOUND"),
        Parameter::Int(3000),
    ];
    both(&events, "api.record_verdict", verdict).await;
    both(&download, "api.file_receipt", find("acme", "alice", id(1), false)).await;
}

#[tokio::test]
async fn nobody_holds_more_than_he_may_however_many_ask_at_once() {
    let server = Server::start().await;
    let (upload, events) = (server.login("upload").await, server.login("object_events").await);
    let admin = server.login("admin").await;
    let model = Files::default();
    let both = async |login: &Login, function: &'static str, parameters: Vec<Parameter>| {
        let real = login.ask(function, parameters.clone()).await;
        assert_eq!(real, model.call(function, parameters.clone()).await.unwrap(), "{function} {parameters:?}");
        real
    };
    let text = |value: &str| Parameter::Text(value.to_owned());
    let act = |parameters: Vec<Parameter>| [vec![text("op"), text("r"), Parameter::Int(1)], parameters].concat();
    let limit = async |subject: &str, files: Option<i64>, bytes: Option<i64>| {
        let most = [Parameter::OptionalInt(files), Parameter::OptionalInt(bytes)];
        admin.ask("api.quota_put", act([vec![text("acme"), text(subject)], most.to_vec()].concat())).await;
        model.set_quota("acme", subject, files, bytes);
    };
    let held = async || {
        let listed = act(vec![text("acme"), Parameter::OptionalText(None), Parameter::Int(100)]);
        let answer = admin.ask("api.quota_list", listed).await;
        (answer["held"]["files"].as_i64().unwrap(), answer["held"]["bytes"].as_i64().unwrap())
    };
    let make = |subject: &str, number: u64| create("acme", subject, id(number), None, "", 1000);
    // What there was before counts too.
    both(&upload, "api.create_file", make("alice", 1)).await;
    limit("*", Some(3), None).await;
    limit("bob", None, Some(22)).await;
    limit("", Some(7), None).await;
    for (number, subject) in [
        (2, "alice"),
        (3, "alice"),
        (4, "alice"),
        (5, "bob"),
        (6, "bob"),
        (7, "bob"),
        (8, "carol"),
        (9, "carol"),
        (10, "dave"),
    ] {
        both(&upload, "api.create_file", make(subject, number)).await;
    }
    assert_eq!(held().await, (7, 77));
    // Another tenant is not touched by any of it.
    both(&upload, "api.create_file", create("globex", "alice", id(20), None, "", 1000)).await;
    // A request that is repeated makes nothing, so it may be repeated.
    limit("", Some(8), None).await;
    let again = |number: u64| create("acme", "carol", id(number), Some("k"), "a", 1000);
    assert_eq!(both(&upload, "api.create_file", again(11)).await["outcome"], "created");
    assert_eq!(both(&upload, "api.create_file", again(14)).await["outcome"], "replayed");
    assert_eq!(
        both(&upload, "api.create_file", create("acme", "dave", id(12), Some("q"), "a", 1000)).await["outcome"],
        "quota"
    );

    // Deleting makes room once the bytes are gone, and not before.
    limit("", None, None).await;
    both(&upload, "api.delete_file", with(whose("acme", "alice", id(1)), [Parameter::Int(2000)])).await;
    assert_eq!(both(&upload, "api.create_file", make("alice", 13)).await["outcome"], "quota");
    let purged = vec![
        text("acme"),
        Parameter::Uuid(id(1)),
        text("objects"),
        Parameter::Texts(vec![]),
        Parameter::OptionalText(None),
        Parameter::Int(4000),
    ];
    both(&events, "api.file_purged", purged.clone()).await;
    assert_eq!(both(&upload, "api.create_file", make("alice", 13)).await["outcome"], "created");
    // A version that is heard of late takes its place again.
    let late = vec![
        text("acme"),
        Parameter::Uuid(id(1)),
        text("objects"),
        text("v9"),
        text(""),
        Parameter::Int(0),
        Parameter::OptionalText(None),
        text("late"),
        Parameter::Bool(false),
        Parameter::Int(5000),
    ];
    both(&events, "api.record_created", late).await;
    assert_eq!(held().await.0, 9);

    // A form counts with the most that it may bring, and then with what it brought.
    limit("frank", None, Some(100)).await;
    let form = |number: u64| {
        let mut form = make("frank", number);
        form[5] = text("post");
        (form[6], form[7], form[8]) =
            (Parameter::OptionalInt(None), Parameter::OptionalBytes(None), Parameter::OptionalInt(Some(99)));
        form
    };
    assert_eq!(both(&upload, "api.create_file", form(30)).await["outcome"], "created");
    assert_eq!(both(&upload, "api.create_file", make("frank", 31)).await["outcome"], "quota");
    let arrived = vec![
        text("acme"),
        Parameter::Uuid(id(30)),
        text("objects"),
        text("v1"),
        text("e"),
        Parameter::Int(5),
        Parameter::OptionalText(None),
        text("ok"),
        Parameter::Bool(true),
        Parameter::Int(2000),
    ];
    both(&events, "api.record_created", arrived).await;
    assert_eq!(both(&upload, "api.create_file", make("frank", 31)).await["outcome"], "created");

    // Of many at once as many as there is room for.
    limit("grace", Some(5), None).await;
    let logins = join_all((0..12).map(|_| server.login("upload"))).await;
    let asked = logins
        .iter()
        .enumerate()
        .map(|(number, login)| login.ask("api.create_file", make("grace", 100 + number as u64)));
    let answers = join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer["outcome"] == "created").count(), 5, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer["outcome"] == "quota").count(), 7);
    // And under one idempotency key one file, however often.
    limit("heidi", Some(1), None).await;
    let asked = logins.iter().enumerate().map(|(number, login)| {
        login.ask("api.create_file", create("acme", "heidi", id(200 + number as u64), Some("k"), "a", 1000))
    });
    let answers = join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer["outcome"] == "created").count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer["outcome"] == "replayed").count(), 11, "{answers:?}");
}

#[tokio::test]
async fn files_that_nobody_told_of_are_handed_out_once_an_hour() {
    let server = Server::start().await;
    let (upload, events) = (server.login("upload").await, server.login("object_events").await);
    let model = Files::default();
    let both = async |login: &Login, function: &'static str, parameters: Vec<Parameter>| {
        let real = login.ask(function, parameters.clone()).await;
        assert_eq!(real, model.call(function, parameters.clone()).await.unwrap(), "{function} {parameters:?}");
        real
    };
    for (number, tenant) in [(1, "acme"), (2, "globex"), (3, "acme"), (4, "acme")] {
        both(&upload, "api.create_file", create(tenant, "alice", id(number), None, "", 1000)).await;
    }
    both(&upload, "api.delete_file", with(whose("acme", "alice", id(4)), [Parameter::Int(2000)])).await;
    for (now, limit) in [
        (360_999, 10),
        (361_000, 2),
        (361_000, 10),
        (361_001, 10),
        (361_000 + 3_599_999, 10),
        (361_000 + 3_600_000, 1),
        (361_000 + 3_600_000, 10),
        (361_000 + 3_600_000, 0),
    ] {
        both(&events, "api.files_unheard", vec![Parameter::Int(now), Parameter::Int(limit)]).await;
    }
    assert!(upload.call("api.files_unheard", vec![Parameter::Int(1), Parameter::Int(1)]).await.is_err());
}

#[tokio::test]
async fn what_a_counter_says_is_what_the_rows_add_up_to() {
    let server = Server::start().await;
    let (upload, owner) = (server.login("upload").await, server.login(local::postgres::OWNER).await);
    let mut plan = create("acme", "alice", id(1), None, "", 1000);
    plan[5] = Parameter::Text("multipart".to_owned());
    (plan[6], plan[7]) = (Parameter::OptionalInt(Some(5 << 40)), Parameter::OptionalBytes(None));
    plan[9] = Parameter::OptionalInt(Some(5 << 30));
    upload.ask("api.create_file", plan).await;
    for number in 2..=5 {
        upload.ask("api.create_file", create("acme", "alice", id(number), None, "", 1000)).await;
        upload.ask("api.create_file", create("acme", "bob", id(number + 10), None, "", 1000)).await;
    }
    let wrong = "SELECT set_config('portcullis.tenant', 'acme', false);
         DO $$ BEGIN
             IF EXISTS (SELECT FROM (SELECT subject, count(*) AS files, sum(coalesce(actual_size, size, max_size)) AS bytes
                                       FROM public.files WHERE purged_ms IS NULL GROUP BY subject
                                      UNION ALL SELECT '', count(*), sum(coalesce(actual_size, size, max_size)) FROM public.files) f
                          FULL JOIN public.file_usage u USING (subject)
                         WHERE (f.files, f.bytes) IS DISTINCT FROM (u.files, u.bytes)) THEN
                 RAISE EXCEPTION 'the counters are wrong';
             END IF;
         END $$";
    owner.0.batch_execute(wrong).await.unwrap();
}

#[tokio::test]
async fn two_sweeps_at_once_share_the_work() {
    let server = Server::start().await;
    let upload = server.login("upload").await;
    for number in 1..=20 {
        upload.ask("api.create_file", create("acme", "alice", id(number), None, "", 1000)).await;
        upload.ask("api.delete_file", with(whose("acme", "alice", id(number)), [Parameter::Int(1)])).await;
    }
    let logins = join_all((0..4).map(|_| server.login("object_events"))).await;
    let sweeps =
        logins.iter().map(|login| login.ask("api.files_to_sweep", vec![Parameter::Int(DAY_MS), Parameter::Int(100)]));
    let answers = join_all(sweeps).await;
    let all: Vec<&Value> = answers.iter().flat_map(|answer| answer["files"].as_array().unwrap()).collect();
    let each: std::collections::BTreeSet<&str> = all.iter().map(|file| file["id"].as_str().unwrap()).collect();
    assert_eq!((all.len(), each.len()), (20, 20));
}
