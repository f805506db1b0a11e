//! What encrypting a column in place promises: somebody else's table on a real Postgres, reached through TLS and an IAM token.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may stop where it stands"
)]

mod maintained;

use maintained::{BLOWS, Lab, act};
use serde_json::{Value, json};
use shared::port::FaultKind;

const USERS: &str = "
    CREATE TABLE public.users (id bigint PRIMARY KEY, tenant text NOT NULL DEFAULT 'acme', ssn text, ssn_pc1 bytea, other text);
    GRANT SELECT (id, tenant, ssn, ssn_pc1), UPDATE (ssn, ssn_pc1) ON public.users TO portcullis;
";

fn migrate(step: &str, more: Value) -> Value {
    let mut event =
        act("column.migrate", json!({"tenant": "acme", "table": "users", "key": "id", "column": "ssn", "step": step}));
    if step == "clear" {
        event["confirm"] = json!("users.ssn");
    }
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

async fn filled(rows: i64) -> Lab {
    let lab = Lab::with_target(USERS).await;
    lab.shop(&format!("INSERT INTO public.users (id, ssn) SELECT n, 'value ' || n FROM generate_series(1, {rows}) n"))
        .await;
    lab
}

#[tokio::test]
async fn a_column_is_encrypted_in_place_seen_to_open_and_cleared() {
    let lab = filled(450).await;
    lab.shop(
        "INSERT INTO public.users (id, ssn) VALUES (1000, NULL), (1001, ''), (-5, 'negative'), (1002, 'ü\u{1f600}')",
    )
    .await;
    let done = lab.act(migrate("encrypt", json!({}))).await.unwrap();
    assert_eq!((&done["outcome"], &done["seen"]), (&json!("finished"), &json!(453)));
    assert_eq!(done["counts"], json!({"changed_meanwhile": 0, "sealed": 453, "verified": 453}));
    let keys = lab.rows().await;
    assert_eq!(
        (keys.len(), keys[0].scope.as_str(), keys[0].state.as_str()),
        (1, "column:users/ssn", "active"),
        "one key of the day"
    );
    for (id, plain, record) in lab.users().await {
        let (Some(plain), Some(record)) = (plain, record) else {
            assert_eq!(id, "1000");
            continue;
        };
        assert_eq!(lab.value("acme", &id, &record).await, Some(plain.clone().into_bytes()), "{id}");
        assert_eq!(lab.value("acme", "1", &record).await.is_some(), id == "1", "a record is bound to its row");
        assert_eq!(record.len(), plain.len() + 97);
    }
    // Again: nothing is encrypted a second time.
    let before = lab.users().await;
    let again = lab.act(migrate("encrypt", json!({}))).await.unwrap();
    assert_eq!(again["counts"], json!({"verified": 453}));
    assert_eq!(lab.users().await, before);
    let verified = lab.act(migrate("verify", json!({}))).await.unwrap();
    assert_eq!(verified["counts"], json!({"verified": 453}));
    let cleared = lab.act(migrate("clear", json!({}))).await.unwrap();
    assert_eq!(cleared["counts"], json!({"changed_meanwhile": 0, "cleared": 453}));
    for ((id, plain, record), (_, old, kept)) in lab.users().await.into_iter().zip(before) {
        assert_eq!((plain, &record), (None, &kept), "{id}");
        if let Some(record) = record {
            assert_eq!(lab.value("acme", &id, &record).await, old.map(String::into_bytes), "{id}");
        }
    }
    let verified = lab.act(migrate("verify", json!({}))).await.unwrap();
    assert_eq!(verified["counts"], json!({"sealed_alone": 453}));
    let audit = lab.texts("SELECT target || ' ' || (detail ->> 'step') FROM public.admin_audit WHERE operation = 'column.migrate' ORDER BY at_ms").await;
    assert_eq!(audit.len(), 5);
    assert!(audit.iter().all(|line| line.starts_with("users.ssn ")));
}

#[tokio::test]
async fn a_run_goes_on_where_the_last_one_was_through() {
    let lab = filled(5).await;
    let (mut cursor, mut seen) = (Value::Null, 0);
    loop {
        let mut more = json!({"limit": 2});
        if cursor != Value::Null {
            more["cursor"] = cursor;
        }
        let answer = lab.act(migrate("encrypt", more)).await.unwrap();
        seen += answer["seen"].as_u64().unwrap();
        if answer["outcome"] == "finished" {
            break;
        }
        assert_eq!(answer["reason"], "limit");
        cursor = answer["next"].clone();
    }
    assert_eq!(seen, 5);
    assert!(lab.users().await.iter().all(|(_, _, record)| record.is_some()));
}

#[tokio::test]
async fn a_run_that_was_torn_away_at_any_step_leaves_each_value_once() {
    for step in ["encrypt", "clear"] {
        let lab = filled(3).await;
        if step == "clear" {
            lab.act(migrate("encrypt", json!({}))).await.unwrap();
        }
        lab.steps.disarm();
        lab.act(migrate(step, json!({}))).await.unwrap();
        let steps = lab.steps.count();
        assert!(steps >= 5, "{step}: {steps}");
        for at in 0..steps {
            for blow in BLOWS {
                let undo = if step == "encrypt" { "ssn_pc1 = NULL" } else { "ssn = 'value ' || id" };
                lab.shop(
                    &format!("UPDATE public.users SET ssn = 'value ' || id, {undo}")
                        .replace("ssn = 'value ' || id, ssn = 'value ' || id", "ssn = 'value ' || id"),
                )
                .await;
                lab.steps.arm(at, blow);
                lab.act(migrate(step, json!({}))).await;
                lab.steps.disarm();
                for (id, plain, record) in lab.users().await {
                    let value = format!("value {id}");
                    assert!(plain.is_some() || record.is_some(), "{step} {blow:?} at {at}: {id} is lost");
                    assert!(plain.is_none_or(|plain| plain == value), "{step} {blow:?} at {at}");
                    if let Some(record) = record {
                        assert_eq!(
                            lab.value("acme", &id, &record).await,
                            Some(value.into_bytes()),
                            "{step} {blow:?} at {at}"
                        );
                    }
                }
                let done = lab.act(migrate(step, json!({}))).await.unwrap();
                assert_eq!(done["outcome"], "finished", "{step} {blow:?} at {at}: {done}");
                assert_eq!(done["look_at"], json!({}), "{step} {blow:?} at {at}");
                for (id, plain, record) in lab.users().await {
                    assert_eq!(plain.is_none(), step == "clear", "{step} {blow:?} at {at}: {id}");
                    let opened = lab.value("acme", &id, &record.unwrap()).await;
                    assert_eq!(
                        opened,
                        Some(format!("value {id}").into_bytes()),
                        "{step} {blow:?} at {at}: once, and whole"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn whoever_writes_meanwhile_wins() {
    let lab = filled(3).await;
    lab.act(migrate("encrypt", json!({}))).await.unwrap();
    lab.shop("UPDATE public.users SET ssn = 'changed' WHERE id = 2").await;
    let verified = lab.act(migrate("verify", json!({}))).await.unwrap();
    assert_eq!(
        (&verified["counts"], &verified["look_at"]),
        (&json!({"differ": 1, "verified": 2}), &json!({"differ": ["2"]}))
    );
    let cleared = lab.act(migrate("clear", json!({}))).await.unwrap();
    assert_eq!(cleared["counts"], json!({"changed_meanwhile": 0, "cleared": 2, "differ": 1}));
    assert_eq!(lab.users().await[1].1.as_deref(), Some("changed"), "what no record holds is not taken away");
    let again = lab.act(migrate("encrypt", json!({}))).await.unwrap();
    assert_eq!(again["counts"], json!({"changed_meanwhile": 0, "sealed": 1, "sealed_alone": 2, "verified": 1}));
    let record = lab.users().await[1].2.clone().unwrap();
    assert_eq!(lab.value("acme", "2", &record).await.as_deref(), Some(&b"changed"[..]));
}

#[tokio::test]
async fn a_record_that_does_not_open_is_never_written_over() {
    let lab = filled(4).await;
    lab.act(migrate("encrypt", json!({}))).await.unwrap();
    // Another row's record, a damaged one, and what is none.
    lab.shop(
        "UPDATE public.users a SET ssn_pc1 = b.ssn_pc1 FROM public.users b WHERE a.id = 1 AND b.id = 2;
         UPDATE public.users SET ssn_pc1 = set_byte(ssn_pc1, 100, get_byte(ssn_pc1, 100) # 1) WHERE id = 3;
         UPDATE public.users SET ssn_pc1 = '\\x41' WHERE id = 4",
    )
    .await;
    let before = lab.users().await;
    for step in ["encrypt", "verify", "clear"] {
        let answer = lab.act(migrate(step, json!({}))).await.unwrap();
        assert_eq!(answer["look_at"], json!({"unreadable": ["1", "3", "4"]}), "{step}");
        if step != "clear" {
            assert_eq!(lab.users().await, before, "{step}");
        }
    }
    let after = lab.users().await;
    assert!([0, 2, 3].iter().all(|at| after[*at] == before[*at]), "nor is its value taken away");
}

#[tokio::test]
async fn of_a_table_of_many_tenants_only_one_is_touched() {
    let lab = filled(4).await;
    lab.shop("UPDATE public.users SET tenant = 'globex' WHERE id > 2").await;
    let answer = lab.act(migrate("encrypt", json!({"tenant_column": "tenant"}))).await.unwrap();
    assert_eq!((&answer["seen"], &answer["counts"]["sealed"]), (&json!(2), &json!(2)));
    let rows = lab.users().await;
    assert!(rows[..2].iter().all(|row| row.2.is_some()) && rows[2..].iter().all(|row| row.2.is_none()));
    let mut globex = migrate("encrypt", json!({"tenant_column": "tenant"}));
    globex["tenant"] = json!("globex");
    lab.act(globex).await.unwrap();
    let rows = lab.users().await;
    let record = rows[3].2.clone().unwrap();
    assert_eq!(lab.value("globex", "4", &record).await.as_deref(), Some(&b"value 4"[..]));
    assert_eq!(lab.value("acme", "4", &record).await, None);
}

#[tokio::test]
async fn a_value_that_is_too_long_or_a_key_that_names_no_row_is_named_and_left() {
    let table = "
        CREATE TABLE public.users (id text PRIMARY KEY, ssn text, ssn_pc1 bytea);
        GRANT SELECT, UPDATE ON public.users TO portcullis;
        INSERT INTO public.users (id, ssn) VALUES ('a', repeat('x', 65536)), ('b', repeat('x', 65537)), (repeat('k', 257), 'v'), (E'c\\nd', 'v'), ('', 'v');
    ";
    let lab = Lab::with_target(table).await;
    let answer = lab.act(migrate("encrypt", json!({}))).await.unwrap();
    assert_eq!(answer["counts"]["sealed"], 1, "{answer}");
    assert_eq!(answer["look_at"]["too_large"], json!(["b"]));
    assert_eq!(answer["counts"]["unfit_keys"], 3);
    assert_eq!(answer["look_at"]["unfit_keys"].as_array().unwrap().len(), 3);
    assert!(lab.users().await.iter().all(|(id, plain, record)| plain.is_some() && record.is_some() == (id == "a")));
}

#[tokio::test]
async fn what_kms_does_not_serve_stops_a_run_and_costs_nothing() {
    let lab = filled(3).await;
    for (fault, code) in [
        (FaultKind::Throttled, "kms_throttled"),
        (FaultKind::Unavailable, "kms_unavailable"),
        (FaultKind::Denied, "kms_denied"),
    ] {
        lab.kms.wrapping.set_fault(Some(fault));
        let answer = lab.act(migrate("encrypt", json!({}))).await.unwrap();
        assert_eq!(
            (&answer["outcome"], &answer["reason"], &answer["next"]),
            (&json!("stopped"), &json!(code), &json!(null))
        );
        assert!(lab.users().await.iter().all(|(_, plain, record)| plain.is_some() && record.is_none()));
    }
    lab.kms.wrapping.set_fault(None);
    assert_eq!(lab.act(migrate("encrypt", json!({}))).await.unwrap()["counts"]["sealed"], 3);
    // With records there, a KMS that is away is no verdict about them.
    lab.kms.wrapping.set_fault(Some(FaultKind::Unavailable));
    let answer = lab.act(migrate("clear", json!({}))).await.unwrap();
    assert_eq!((&answer["reason"], &answer["counts"]), (&json!("kms_unavailable"), &json!({})));
    assert!(lab.users().await.iter().all(|(_, plain, _)| plain.is_some()));
}

#[tokio::test]
async fn columns_that_cannot_be_encrypted_in_place_are_refused_before_anything_is_read() {
    let table = "
        CREATE TABLE public.users (id bigint PRIMARY KEY, n numeric UNIQUE NOT NULL, twice bigint, maybe bigint UNIQUE, half bigint NOT NULL,
            ssn text NOT NULL, born date, ssn_pc1 bytea, wrong text, made text GENERATED ALWAYS AS (ssn) STORED);
        CREATE UNIQUE INDEX half_unique ON public.users (half) WHERE half > 0;
        GRANT SELECT, UPDATE ON public.users TO portcullis;
        CREATE TABLE public.closed (id bigint PRIMARY KEY, ssn text, ssn_pc1 bytea);
        INSERT INTO public.closed VALUES (1, 'v');
        CREATE TABLE public.half (id bigint PRIMARY KEY, ssn text, ssn_pc1 bytea);
        INSERT INTO public.half VALUES (1, 'v');
        GRANT SELECT ON public.half TO portcullis;
    ";
    let lab = Lab::with_target(table).await;
    for (more, error) in [
        (json!({"table": "nobody"}), json!({"code": "table_unknown", "field": "table"})),
        (json!({"column": "nothing"}), json!({"code": "table_unknown", "field": "table"})),
        (json!({"key": "n"}), json!({"code": "invalid_key_column", "field": "key"})),
        (json!({"key": "twice"}), json!({"code": "invalid_key_column", "field": "key"})),
        (json!({"key": "maybe"}), json!({"code": "invalid_key_column", "field": "key"})),
        (json!({"key": "half"}), json!({"code": "invalid_key_column", "field": "key"})),
        (json!({"column": "born", "sealed": "ssn_pc1"}), json!({"code": "invalid_column", "field": "column"})),
        (json!({"column": "made", "sealed": "ssn_pc1"}), json!({"code": "table_unknown", "field": "table"})),
        (json!({"sealed": "wrong"}), json!({"code": "invalid_sealed", "field": "sealed"})),
        (json!({"step": "clear", "confirm": "users.ssn"}), json!({"code": "column_not_nullable", "field": "column"})),
        (json!({"step": "clear", "confirm": "users"}), json!({"code": "not_confirmed", "field": "confirm"})),
        (json!({"tenant": "initech"}), json!({"code": "tenant_unknown", "field": "tenant"})),
        (json!({"table": "closed"}), json!({"code": "target_denied"})),
        (json!({"table": "half"}), json!({"code": "target_denied"})),
    ] {
        let answer = lab.act(migrate("encrypt", more.clone())).await;
        assert_eq!(answer, Some(json!({"error": error})), "{more}");
    }
    let without = Lab::new().await;
    assert_eq!(without.act(migrate("encrypt", json!({}))).await.unwrap(), json!({"error": {"code": "no_target"}}));
}

/// Megabytes that this process has had at most.
fn peak() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() / 1024
}

/// Seconds that this process has been on a processor.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = [11, 12].iter().map(|at| fields[*at].parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// One step over all rows, ten thousand an act. Every seventh act is torn away somewhere in its middle, and the next one goes on from the
/// cursor that was held before it. Prints the time of each tenth of the rows, which are to be alike.
async fn through(lab: &Lab, step: &str, counted: &str, rows: i64) {
    let (before, started, worked) = (peak(), std::time::Instant::now(), processor());
    let (mut cursor, mut seen, mut done, mut acts, mut torn, mut faults) = (Value::Null, 0, 0, 0_usize, 0, 0);
    let (mut tenths, mut since) = (Vec::new(), std::time::Instant::now());
    loop {
        let mut more = json!({"limit": 10_000});
        if cursor != Value::Null {
            more["cursor"] = cursor.clone();
        }
        acts += 1;
        if acts.is_multiple_of(7) {
            lab.steps.arm(20 + acts % 11, BLOWS[2 + acts % 2]);
            torn += usize::from(lab.act(migrate(step, more.clone())).await.is_none());
            lab.steps.disarm();
        }
        // A machine that does something else as well may let a statement wait too long: sent again, as the operator's command does.
        let mut answer = None;
        for _ in 0..20 {
            answer = lab.act(migrate(step, more.clone())).await;
            if answer.is_some() {
                break;
            }
            faults += 1;
        }
        let answer = answer.unwrap();
        seen += answer["seen"].as_i64().unwrap();
        done += answer["counts"][counted].as_i64().unwrap_or(0);
        if step == "clear" {
            done += answer["counts"]["sealed_alone"].as_i64().unwrap_or(0);
        }
        if seen * 10 / rows > i64::try_from(tenths.len()).unwrap() {
            tenths.push(since.elapsed().as_secs_f64());
            since = std::time::Instant::now();
        }
        if answer["outcome"] == "finished" {
            break;
        }
        cursor = answer["next"].clone();
        assert_ne!(cursor, Value::Null, "{answer}");
    }
    let seconds = started.elapsed().as_secs_f64();
    let tenths: Vec<String> = tenths.iter().map(|tenth| format!("{tenth:.1}")).collect();
    println!(
        "{step}: {rows} rows in {seconds:.0} s ({:.0} s of this process), {:.0} a second, {torn} acts torn away, {faults} faults; each tenth {} s; peak memory {before} -> {} MiB",
        processor() - worked,
        rows as f64 / seconds,
        tenths.join(" "),
        peak()
    );
    // A row that a torn act had taken away and whose value is gone by now is only counted by the act after it.
    assert_eq!((seen, done), (rows, rows), "{step}");
    assert!(peak() - before <= 32, "{step}: memory grows with the rows");
}

/// How many rows it takes: a figure for the page, not a promise. Run by name, with `--run-ignored all`; `ROWS` says how many.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn many_rows_take_their_time_and_no_memory() {
    #[expect(clippy::disallowed_methods, reason = "a test parameter")]
    let rows: i64 = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let lab = filled(rows).await;
    lab.shop("ANALYZE public.users").await;
    through(&lab, "encrypt", "verified", rows).await;
    // Every row has one record, and no two rows share a message id. A run that is sent again makes none anew.
    let digest = "SELECT count(ssn_pc1)::text || ' ' || count(DISTINCT substr(ssn_pc1, 18, 32))::text || ' ' || md5(string_agg(md5(ssn_pc1), '' ORDER BY id)) FROM public.users";
    let records = lab.shop_text(digest).await;
    assert!(records.starts_with(&format!("{rows} {rows} ")), "{records}");
    through(&lab, "encrypt", "verified", rows).await;
    assert_eq!(lab.shop_text(digest).await, records, "nothing is encrypted twice");
    through(&lab, "verify", "verified", rows).await;
    through(&lab, "clear", "cleared", rows).await;
    assert_eq!(lab.shop_text(digest).await, records);
    assert_eq!(lab.shop_text("SELECT count(ssn)::text FROM public.users").await, "0");
}
