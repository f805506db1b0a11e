//! The adapter against a real Postgres behind the stand-in for RDS Proxy.

#![allow(clippy::expect_used, reason = "a test whose world cannot be made has failed")]

mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use local::rds::RdsEndpoint;
use rds::{Mode, Owner, Rds, RdsSettings};
use serde_json::{Value, json};
use shared::port::{Database, FaultKind, Parameter};
use tokio::net::TcpListener;
use uuid::Uuid;

use self::world::{PROXY, World, settle};

fn text(value: &str) -> Vec<Parameter> {
    vec![Parameter::Text(value.to_owned())]
}

async fn kind(database: &impl Database) -> Option<FaultKind> {
    database.call("api.who", vec![]).await.err().map(|fault| fault.kind)
}

#[tokio::test]
async fn every_parameter_arrives_with_its_type_and_null_is_null() {
    let world = World::start().await;
    let database = world.database("token");
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let parameters = vec![
        Parameter::Text("ä'\"; --".to_owned()),
        Parameter::OptionalText(None),
        Parameter::Uuid(one),
        Parameter::OptionalUuid(None),
        Parameter::Bytes(vec![0, 255]),
        Parameter::OptionalBytes(None),
        Parameter::Int(i64::MIN),
        Parameter::OptionalInt(Some(7)),
        Parameter::Bool(true),
        Parameter::Json(json!({"a": [1, null]})),
        Parameter::Texts(vec!["x".to_owned(), String::new()]),
        Parameter::Uuids(vec![one, two]),
    ];
    let answer = database.call("api.types", parameters).await.expect("answers");
    let expected = json!([
        "ä'\"; --", null, one, null, "00ff", null, i64::MIN, 7, true, {"a": [1, null]}, ["x", ""], [one, two]
    ]);
    assert_eq!(answer, expected);
    assert_eq!(database.call("api.nothing", vec![]).await.expect("answers"), Value::Null);
    assert_eq!(database.call("api.who", vec![]).await.expect("answers"), json!("token"));
}

#[tokio::test]
async fn a_call_is_one_round_trip_on_one_connection_and_pins_nothing() {
    let world = World::start().await;
    let database = world.database("token");
    database.call("api.mark", text("a")).await.expect("answers");
    for expected in 2..=4 {
        let before = world.proxy.round_trips("token");
        let answer = database.call("api.mark", text("a")).await.expect("answers");
        assert_eq!(answer, json!({"count": expected}));
        assert_eq!(world.proxy.round_trips("token") - before, 1);
    }
    assert_eq!(world.proxy.connections("token"), 1);
    assert_eq!(world.proxy.pins(), Vec::<String>::new());
}

#[tokio::test]
async fn concurrent_first_calls_share_one_connection() {
    let world = World::start().await;
    let database = world.database("token");
    let calls = (0..20).map(|_| database.call("api.backend", vec![]));
    let answers = futures::future::join_all(calls).await;
    let first = answers.first().and_then(|answer| answer.as_ref().ok().cloned()).expect("answers");
    assert!(answers.iter().all(|answer| answer.as_ref().ok() == Some(&first)));
    assert_eq!(world.proxy.connections("token"), 1);
}

#[tokio::test]
async fn a_connection_that_died_is_replaced_with_a_token_minted_then() {
    let world = World::start().await;
    let database = world.database("token");
    database.call("api.mark", text("a")).await.expect("answers");
    world.account.clock.advance(Duration::from_secs(1_000));
    world.proxy.drop_connections();
    settle(&world).await;
    assert_eq!(database.call("api.mark", text("a")).await.expect("reconnects"), json!({"count": 2}));
    assert_eq!(world.proxy.connections("token"), 2);
}

#[tokio::test]
async fn a_connection_that_idled_is_probed_before_it_gets_a_statement() {
    let world = World::start().await;
    let database = world.database("token");
    database.call("api.mark", text("a")).await.expect("answers");
    let before = world.proxy.round_trips("token");
    world.account.clock.advance(Duration::from_secs(6));
    database.call("api.mark", text("a")).await.expect("answers");
    assert_eq!(world.proxy.round_trips("token") - before, 2, "one for the probe");

    world.account.clock.advance(Duration::from_secs(6));
    world.proxy.lose_answers(1);
    assert_eq!(database.call("api.mark", text("a")).await.expect("reconnects"), json!({"count": 3}));
    assert_eq!(world.proxy.connections("token"), 2);
    assert_eq!(world.proxy.pins(), Vec::<String>::new());
}

#[tokio::test]
async fn a_statement_whose_answer_is_lost_is_unavailable_and_not_sent_again() {
    let world = World::start().await;
    let database = world.database("token");
    database.call("api.who", vec![]).await.expect("answers");
    world.proxy.lose_answers(1);
    let fault = database.call("api.mark", text("lost")).await.expect_err("the answer is lost");
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert_eq!(database.call("api.count_marks", text("lost")).await.expect("reconnects"), json!(1));
}

#[tokio::test]
async fn a_statement_that_may_run_twice_is_sent_again_once() {
    let world = World::start().await;
    let database = Arc::new(world.database("token"));
    let twice = database.idempotent();
    world.proxy.lose_answers(1);
    assert_eq!(twice.call("api.mark", text("lost")).await.expect("asks again"), json!({"count": 2}));
    world.proxy.lose_answers(2);
    let fault = twice.call("api.mark", text("lost")).await.expect_err("both answers are lost");
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert_eq!(twice.call("api.count_marks", text("lost")).await.expect("answers"), json!(4));
}

#[tokio::test]
async fn a_backend_that_the_server_ended_is_replaced() {
    let world = World::start().await;
    let database = world.database("token");
    let pid = database.call("api.backend", vec![]).await.expect("answers");
    let socket = world.postgres.socket_dir().display().to_string();
    let end = format!("SELECT pg_terminate_backend({pid})");
    let (client, connection) =
        tokio_postgres::connect(&format!("host={socket} user=postgres dbname=postgres"), tokio_postgres::NoTls)
            .await
            .expect("superuser");
    tokio::spawn(connection);
    client.batch_execute(&end).await.expect("ends it");
    settle(&world).await;
    assert_ne!(database.call("api.backend", vec![]).await.expect("reconnects"), pid);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_before_the_token_leaves() {
    let world = World::start().await;
    let keys = world.keys("token");
    let foreign = local::ca::Ca::generate().expect("authority");
    let path = world.dir.path().join("foreign.pem");
    std::fs::write(&path, foreign.pem()).expect("CA file");
    for ca in [path.to_str(), None] {
        let database = Rds::new(world.settings("token"), &world.aws_with(&keys, ca));
        assert_eq!(kind(&database).await, Some(FaultKind::Unavailable), "{ca:?}");
    }
    assert!(world.proxy.trail().is_empty(), "nobody saw a token");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_before_the_token_leaves() {
    let world = World::start().await;
    let (account, socket) = (Arc::clone(&world.account), world.postgres.socket_dir());
    let endpoint = RdsEndpoint::named(account, &world.ca, &["elsewhere.example"], PROXY, socket).expect("endpoint");
    let server = endpoint.serve(TcpListener::bind("127.0.0.1:0").await.expect("port")).await.expect("serves");
    let settings = RdsSettings { port: server.addr.port(), ..world.settings("token") };
    assert_eq!(kind(&Rds::new(settings, &world.aws("token"))).await, Some(FaultKind::Unavailable));
    assert!(endpoint.trail().is_empty(), "nobody saw a token");
}

#[tokio::test]
async fn a_refused_identity_is_denied() {
    let world = World::start().await;
    for (role, user) in [("nothing", "token"), ("upload", "token"), ("everybody", "stranger"), ("elsewhere", "token")] {
        let database = Rds::new(world.settings(user), &world.aws(role));
        assert_eq!(kind(&database).await, Some(FaultKind::Denied), "{role} as {user}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_unavailable_in_time() {
    let world = World::start().await;
    let aws = world.aws("token");
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("port").local_addr().expect("address").port();
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let silent_port = silent.local_addr().expect("address").port();
    for port in [closed, silent_port] {
        let settings = RdsSettings { port, connect_timeout: Duration::from_millis(300), ..world.settings("token") };
        let started = Instant::now();
        assert_eq!(kind(&Rds::new(settings, &aws)).await, Some(FaultKind::Unavailable));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    world.proxy.refuse_new(true);
    assert_eq!(kind(&world.database("token")).await, Some(FaultKind::Unavailable));
    world.proxy.refuse_new(false);
    world.proxy.set_limit(0);
    assert_eq!(kind(&world.database("token")).await, Some(FaultKind::Throttled));
}

#[tokio::test]
async fn a_statement_for_which_the_proxy_has_no_connection_in_time_is_unavailable_and_was_never_sent() {
    let world = World::start().await;
    let database = Arc::new(world.database("token"));
    database.call("api.mark", text("before")).await.expect("answers");
    world.proxy.lend(Some(0), Duration::from_millis(50));
    let before = world.proxy.round_trips("token");
    let fault = database.call("api.mark", text("a")).await.expect_err("there is none");
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert_eq!(world.proxy.round_trips("token") - before, 1, "it is not tried again by itself");
    world.proxy.lend(None, Duration::ZERO);
    // The same by a rule, for one user; whoever may ask twice does.
    world.account.faults.replace("db.token borrow first=1", Some(1)).expect("rules");
    let fault = database.call("api.mark", text("b")).await.expect_err("struck");
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert_eq!(database.call("api.count_marks", text("a")).await.expect("answers"), json!(0), "never sent");
    world.account.faults.replace("db.token borrow first=1", Some(1)).expect("rules");
    let twice = database.idempotent();
    assert_eq!(twice.call("api.mark", text("b")).await.expect("asks again"), json!({"count": 1}));
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_unavailable_and_its_connection_is_not_used_again() {
    let world = World::start().await;
    let settings = RdsSettings { statement_timeout: Duration::from_millis(300), ..world.settings("token") };
    let database = Rds::new(settings, &world.aws("token"));
    let first = database.call("api.backend", vec![]).await.expect("answers");
    let fault = database.call("api.slow", vec![]).await.expect_err("30 seconds are too long");
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert_ne!(database.call("api.backend", vec![]).await.expect("another connection"), first);
}

#[tokio::test]
async fn the_servers_errors_keep_their_meaning_and_lose_their_text() {
    let world = World::start().await;
    let database = world.database("token");
    for (state, kind) in [
        ("P0001", FaultKind::Invalid),
        ("22023", FaultKind::Invalid),
        ("40001", FaultKind::Conflict),
        ("40P01", FaultKind::Conflict),
        ("53300", FaultKind::Throttled),
        ("28000", FaultKind::Denied),
    ] {
        let parameters = vec![Parameter::Text(state.to_owned()), Parameter::Text("canary-7c1e".to_owned())];
        let fault = database.call("api.fail", parameters).await.expect_err("raised");
        assert_eq!(fault.kind, kind, "{state}");
        let shown = format!("{fault} {fault:?} {fault:#?}");
        assert!(shown.contains(state) && !shown.contains("canary"), "{shown}");
    }
    database.call("api.put_once", text("a")).await.expect("first");
    let fault = database.call("api.put_once", text("a")).await.expect_err("second");
    assert_eq!(fault.kind, FaultKind::Conflict);
    for (function, kind) in [("api.secret", FaultKind::Denied), ("api.unknown", FaultKind::Invalid)] {
        assert_eq!(database.call(function, vec![]).await.expect_err("refused").kind, kind, "{function}");
    }
    assert_eq!(world.proxy.connections("token"), 1, "an error does not cost the connection");
}

#[tokio::test]
async fn the_owner_applies_a_batch_wholly_or_not_at_all() {
    let world = World::start().await;
    let mut owner = world.owner().await;
    owner.apply("CREATE TABLE a (n int); INSERT INTO a VALUES (1)").await.expect("applies");
    let fault = owner.apply("INSERT INTO a VALUES (2); INSERT INTO missing VALUES (1)").await.expect_err("half wrong");
    assert_eq!(fault.kind, FaultKind::Invalid);
    let rows = owner.rows("SELECT n, NULL FROM a").await.expect("rows");
    assert_eq!(rows, [vec![Some("1".to_owned()), None]]);
}

#[tokio::test]
async fn the_owner_never_goes_through_the_proxy() {
    let world = World::start().await;
    let settings = RdsSettings::new("localhost", world.proxy_port, "portcullis", "portcullis_owner", Mode::Proxy);
    let fault = Owner::connect(settings, &world.aws("everybody")).await.expect_err("proxy");
    assert_eq!(fault.kind, FaultKind::Invalid);
}
