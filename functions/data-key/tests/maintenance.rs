//! What the acts of maintenance promise, on a real Postgres, whole and torn away at every step.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop where it stands")]

mod maintained;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use data_key::{Maintenance, MaintenanceWorld};
use maintained::{ARN, BLOWS, Blow, DAY, Lab, NOW, act};
use serde_json::{Value, json};
use shared::boot::Handler as _;
use shared::clock::Clock as _;
use shared::digest::sha256;
use shared::encoding::hex;
use shared::entropy::SystemEntropy;
use shared::port::{
    Database as _, Fault, FaultKind, Generated, KeyContext, KeyRewrapping, KeyWrapping, Parameter, Rewrapped, Unwrapped,
};
use shared::secret::SecretBytes;
use uuid::Uuid;

const EMAIL: &str = "column:users/email";
const SUBJECT: &str = "subject:s-1";
/// Milliseconds after which no environment can encrypt under a closed key, nor open a destroyed one.
const GRACE: i64 = 330_000;

fn shred(scope: &str) -> Value {
    act("shred", json!({"tenant": "acme", "scope": scope, "confirm": scope}))
}

// ---- rotation ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_rotated_key_seals_no_more_and_opens_as_before() {
    let lab = Lab::new().await;
    let (email, plaintext) = lab.key("acme", EMAIL).await;
    let (subject, _) = lab.key("acme", SUBJECT).await;
    let (index, _) = lab.key("acme", "index").await;
    let (foreign, _) = lab.key("globex", EMAIL).await;
    let rotate = act("keys.rotate", json!({"tenant": "acme", "scope": EMAIL}));
    let answer = lab.act(rotate.clone()).await.unwrap();
    assert_eq!(answer, json!({"outcome": "rotated", "closed": 1, "in_use_until_ms": NOW + 300_000}));
    let row = lab.row(email).await;
    assert_eq!((row.state.as_str(), row.for_writers), ("decrypt_only", false));
    assert_eq!(lab.open(&row).await, Some(plaintext));
    for other in [subject, index, foreign] {
        assert_eq!(lab.row(other).await.state, "active");
    }
    // Sent again it finds the work done, and the scope has room for a new key.
    assert_eq!(lab.act(rotate).await.unwrap()["outcome"], "unchanged");
    let (again, _) = lab.key("acme", EMAIL).await;
    assert_ne!(again, email);
    // All scopes of the tenant, and nobody else's.
    let all = lab.act(act("keys.rotate", json!({"tenant": "acme"}))).await.unwrap();
    assert_eq!(all["closed"], 2);
    assert_eq!(lab.row(index).await.state, "active", "an index key has no day");
    assert_eq!(lab.row(foreign).await.state, "active");
    let unknown = lab.act(act("keys.rotate", json!({"tenant": "initech"}))).await.unwrap();
    assert_eq!(unknown, json!({"error": {"code": "tenant_unknown", "field": "tenant"}}));
}

#[tokio::test]
async fn no_wrapping_for_writers_outlives_its_day_once_the_ended_keys_were_closed() {
    let lab = Lab::new().await;
    let mut ended = Vec::new();
    for (tenant, scope) in [("acme", EMAIL), ("acme", SUBJECT), ("globex", EMAIL)] {
        ended.push(lab.key(tenant, scope).await.0);
    }
    let (index, _) = lab.key("acme", "index").await;
    let close = act("keys.rotate", json!({"ended": true}));
    assert_eq!(lab.act(close.clone()).await.unwrap(), json!({"outcome": "unchanged", "closed": 0}));
    lab.clock.advance(DAY - 1);
    assert_eq!(lab.act(close.clone()).await.unwrap()["closed"], 0);
    lab.clock.advance(1);
    let (fresh, _) = lab.key("globex", SUBJECT).await;
    assert_eq!(lab.act(close.clone()).await.unwrap(), json!({"outcome": "rotated", "closed": 3}));
    for id in ended {
        let row = lab.row(id).await;
        assert_eq!((row.state.as_str(), row.for_writers), ("decrypt_only", false));
        assert!(lab.open(&row).await.is_some());
    }
    for id in [index, fresh] {
        assert_eq!(lab.row(id).await.state, "active");
    }
    assert_eq!(lab.act(close).await.unwrap()["closed"], 0);
}

// ---- rewrap ------------------------------------------------------------------------------------------------------

/// Keys of two tenants under the first material, and the KMS key rotated since.
async fn stale(lab: &Lab) -> BTreeMap<Uuid, Vec<u8>> {
    let mut keys = BTreeMap::new();
    for (tenant, scope) in [("acme", EMAIL), ("acme", SUBJECT), ("acme", "index"), ("globex", EMAIL)] {
        let (id, plaintext) = lab.key(tenant, scope).await;
        keys.insert(id, plaintext);
    }
    lab.kms.wrapping.rotate();
    lab.kms.wrapping.take_calls();
    keys
}

#[tokio::test]
async fn stale_keys_are_wrapped_anew_and_are_the_same_keys() {
    let lab = Lab::new().await;
    let keys = stale(&lab).await;
    let (fresh, _) = lab.key("globex", SUBJECT).await;
    let before = lab.rows().await;
    let dry = lab.act(act("keys.rewrap", json!({"dry_run": true}))).await.unwrap();
    assert_eq!(
        dry,
        json!({"outcome": "counted", "material": "material-2", "stale": 4, "foreign": 0, "keys": 5, "calls": 4,
            "cost_usd": "0.000012", "calls_at_once": 32})
    );
    assert_eq!(lab.rows().await, before, "counting changes nothing");
    lab.kms.wrapping.take_calls();
    let done = lab.act(act("keys.rewrap", json!({}))).await.unwrap();
    assert_eq!((&done["outcome"], &done["rewrapped"], &done["calls"]), (&json!("rewrapped"), &json!(4), &json!(4)));
    let calls = lab.kms.wrapping.take_calls();
    assert!(calls.iter().all(|call| call.operation == "ReEncrypt"), "no key leaves KMS: {calls:?}");
    for row in lab.rows().await {
        assert_eq!(row.material.as_deref(), Some("material-2"));
        if row.id != fresh {
            assert_eq!(lab.open(&row).await.as_ref(), Some(&keys[&row.id]));
            let old = before.iter().find(|old| old.id == row.id).unwrap();
            assert_ne!(old.wrapped, row.wrapped);
            assert_eq!((&old.state, old.for_writers), (&row.state, row.for_writers));
        }
    }
    let again = lab.act(act("keys.rewrap", json!({}))).await.unwrap();
    assert_eq!((&again["outcome"], &again["calls"]), (&json!("rewrapped"), &json!(0)));
}

#[tokio::test]
async fn a_run_that_ends_early_says_where_the_next_one_goes_on() {
    let lab = Lab::new().await;
    stale(&lab).await;
    let mut cursor = Value::Null;
    for round in 0..4 {
        let mut more = json!({"limit": 1});
        if round > 0 {
            more["cursor"] = cursor;
        }
        let answer = lab.act(act("keys.rewrap", more)).await.unwrap();
        assert_eq!(
            (&answer["outcome"], &answer["reason"], &answer["rewrapped"]),
            (&json!("stopped"), &json!("limit"), &json!(1))
        );
        cursor = answer["next"].clone();
    }
    let done = lab.act(act("keys.rewrap", json!({"limit": 1, "cursor": cursor}))).await.unwrap();
    assert_eq!((&done["outcome"], &done["rewrapped"]), (&json!("rewrapped"), &json!(0)));
    assert!(lab.rows().await.iter().all(|row| row.material.as_deref() == Some("material-2")));
    // Nothing begins that could not end in time.
    lab.kms.wrapping.rotate();
    let (maintenance, mut invocation) = (lab.maintenance(), lab.invocation());
    invocation.deadline = lab.clock.now().plus_millis(8_999);
    let late = shared::boot::Handler::handle(&maintenance, act("keys.rewrap", json!({})), &invocation).await.unwrap();
    assert_eq!((&late["reason"], &late["calls"], &late["next"]), (&json!("time"), &json!(0), &json!(null)));
}

#[tokio::test]
async fn a_wrapping_of_another_row_is_refused_and_the_others_go_on() {
    let lab = Lab::new().await;
    let keys = stale(&lab).await;
    let rows = lab.rows().await;
    let (one, two) = (&rows[0], &rows[3]);
    lab.execute(&format!(
        "ALTER TABLE public.data_keys DISABLE TRIGGER ALL;
         UPDATE public.data_keys SET wrapped = '\\x{}' WHERE id = '{}'",
        hex(two.wrapped.as_ref().unwrap()),
        one.id
    ))
    .await;
    let done = lab.act(act("keys.rewrap", json!({}))).await.unwrap();
    assert_eq!((&done["rewrapped"], &done["refused"], &done["refused_keys"]), (&json!(3), &json!(1), &json!([one.id])));
    let after = lab.rows().await;
    assert_eq!(after[0].wrapped, two.wrapped, "what does not open stays as it is, to be looked at");
    assert_eq!(after[0].material.as_deref(), Some("material-1"));
    for row in &after[1..] {
        assert_eq!(lab.open(row).await.as_ref(), Some(&keys[&row.id]));
    }
}

#[tokio::test]
async fn a_key_of_another_kms_key_is_counted_and_left_alone() {
    let lab = Lab::new().await;
    stale(&lab).await;
    let foreign = lab.rows().await[0].id;
    lab.execute(&format!(
        "UPDATE public.data_keys SET kms_key_arn = 'arn:aws:kms:us-east-1:111122223333:key/other' WHERE id = '{foreign}'"
    ))
    .await;
    let dry = lab.act(act("keys.rewrap", json!({"dry_run": true}))).await.unwrap();
    assert_eq!((&dry["stale"], &dry["foreign"]), (&json!(3), &json!(1)));
    let done = lab.act(act("keys.rewrap", json!({}))).await.unwrap();
    assert_eq!((&done["rewrapped"], &done["calls"]), (&json!(3), &json!(3)));
    assert_eq!(lab.row(foreign).await.material.as_deref(), Some("material-1"));
}

#[tokio::test]
async fn what_kms_does_not_serve_is_said_and_nothing_is_changed() {
    let lab = Lab::new().await;
    stale(&lab).await;
    let before = lab.rows().await;
    for (fault, code) in [
        (FaultKind::Throttled, "kms_throttled"),
        (FaultKind::Denied, "kms_denied"),
        (FaultKind::Unavailable, "kms_unavailable"),
        (FaultKind::NotFound, "kms_denied"),
        (FaultKind::Invalid, "kms_refused"),
    ] {
        lab.kms.wrapping.set_fault(Some(fault));
        for more in [json!({}), json!({"dry_run": true})] {
            let answer = lab.act(act("keys.rewrap", more)).await.unwrap();
            assert_eq!(answer, json!({"error": {"code": code}}), "{fault:?}");
        }
        assert_eq!(lab.rows().await, before, "{fault:?}");
    }
    lab.kms.wrapping.set_fault(None);
    assert_eq!(lab.act(act("keys.rewrap", json!({}))).await.unwrap()["rewrapped"], 4);
}

#[tokio::test]
async fn a_run_that_was_torn_away_at_any_step_loses_no_key() {
    let lab = Lab::new().await;
    let mut keys = stale(&lab).await;
    lab.steps.disarm();
    lab.act(act("keys.rewrap", json!({}))).await.unwrap();
    let steps = lab.steps.count();
    assert!(steps >= 7, "material, page, four keys, store: {steps}");
    for step in 0..steps {
        for blow in BLOWS {
            lab.kms.wrapping.rotate();
            lab.clock.advance(1);
            lab.steps.arm(step, blow);
            lab.act(act("keys.rewrap", json!({}))).await;
            for row in lab.rows().await {
                assert_eq!(lab.open(&row).await.as_ref(), Some(&keys[&row.id]), "{blow:?} at {step}");
            }
            lab.steps.disarm();
            let done = lab.act(act("keys.rewrap", json!({}))).await.unwrap();
            assert_eq!((&done["outcome"], &done["refused"]), (&json!("rewrapped"), &json!(0)), "{blow:?} at {step}");
            let current = format!("material-{}", {
                let material = lab.act(act("keys.rewrap", json!({"dry_run": true}))).await.unwrap();
                assert_eq!(material["stale"], 0, "{blow:?} at {step}");
                material["material"].as_str().unwrap().trim_start_matches("material-").to_owned()
            });
            for row in lab.rows().await {
                assert_eq!(row.material.as_ref(), Some(&current));
                assert_eq!(lab.open(&row).await.as_ref(), Some(&keys[&row.id]), "{blow:?} at {step}");
            }
        }
    }
    keys.clear();
}

#[tokio::test]
async fn a_key_that_is_shredded_while_it_is_wrapped_anew_stays_shredded() {
    let lab = Lab::new().await;
    let (id, _) = lab.key("acme", SUBJECT).await;
    lab.kms.wrapping.rotate();
    let stale = lab.row(id).await;
    assert_eq!(lab.act(shred(SUBJECT)).await.unwrap()["outcome"], "shredded");
    // What the run that had read the row before would store now.
    let row = json!([{"id": id, "tenant": "acme", "from": hex(&sha256(stale.wrapped.as_ref().unwrap())), "wrapped": "aa",
        "material": "material-2"}]);
    let text = |text: &str| Parameter::Text(text.to_owned());
    let parameters = vec![text("ann"), text("r"), Parameter::Int(NOW), Parameter::Json(row)];
    let stored = lab.login("data_key_maintain").call("api.store_rewrapped_keys", parameters).await.unwrap();
    assert_eq!(stored, json!({"stored": []}));
    assert_eq!((lab.row(id).await.state.as_str(), lab.row(id).await.wrapped), ("shredded", None));
}

/// Megabytes that this process has had at most.
fn peak() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() / 1024
}

/// A KMS that remembers nothing and costs nothing: a wrapping is the name of its material and of its context.
#[derive(Clone)]
struct Lean(&'static str);

impl Lean {
    fn blob(material: &str, context: &KeyContext) -> Vec<u8> {
        format!("{material} {} {} {}", context.tenant, context.purpose, context.data_key_id).into_bytes()
    }
}

impl KeyRewrapping for Lean {
    async fn current_material(&self) -> Result<String, Fault> {
        Ok(self.0.to_owned())
    }

    async fn rewrap(&self, context: &KeyContext, wrapped: &[u8]) -> Result<Rewrapped, Fault> {
        let whole = ["material-1", self.0].iter().any(|material| Self::blob(material, context) == wrapped);
        let wrapped = Self::blob(self.0, context);
        tokio::task::yield_now().await;
        if whole {
            Ok(Rewrapped { wrapped, material: Some(self.0.to_owned()) })
        } else {
            Err(Fault::new(FaultKind::Invalid, "kms", "ReEncrypt"))
        }
    }
}

impl KeyWrapping for Lean {
    async fn generate(&self, _: &KeyContext) -> Result<Generated, Fault> {
        Err(Fault::new(FaultKind::Denied, "kms", "GenerateDataKey"))
    }

    async fn wrap(&self, _: &KeyContext, _: &SecretBytes) -> Result<Vec<u8>, Fault> {
        Err(Fault::new(FaultKind::Denied, "kms", "Encrypt"))
    }

    async fn unwrap(&self, _: &KeyContext, _: &[u8]) -> Result<Unwrapped, Fault> {
        Err(Fault::new(FaultKind::Denied, "kms", "Decrypt"))
    }
}

/// So many keys of two tenants, each of a subject of its own, wrapped by the first material.
async fn fill(lab: &Lab, keys: usize) {
    let statement = format!(
        "INSERT INTO public.data_keys (id, tenant, scope, purpose, kms_key_arn, key_material_id, wrapped, context, created_at, encrypt_until, reserved, state)
         SELECT k.id, k.tenant, 'subject:k-' || n, 'field', '{ARN}', 'material-1', convert_to('material-1 ' || k.tenant || ' field ' || k.id, 'UTF8'),
                '{{}}', to_timestamp(1), to_timestamp(2), 0, 'decrypt_only'
           FROM generate_series(1, {keys}) n,
                LATERAL (SELECT gen_random_uuid() AS id, CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'globex' END AS tenant) k"
    );
    lab.execute(&statement).await;
    lab.execute("ANALYZE public.data_keys").await;
}

/// How long so many keys take: a figure for the page, not a promise. Run by name, with `--run-ignored all`; `ROWS` says how many.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn many_keys_take_their_time_and_no_memory() {
    #[expect(clippy::disallowed_methods, reason = "a test parameter")]
    let keys: usize = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let lab = Lab::new().await;
    fill(&lab, keys).await;
    // Each act is an environment of its own. One that is dropped in the middle is one that was killed.
    let run = async |more: Value, life: Duration| {
        let maintenance = Maintenance::new(MaintenanceWorld {
            wrapping: Lean("material-2"),
            key_arn: ARN.to_owned(),
            database: lab.login("data_key_maintain"),
            clock: lab.clock.clone(),
            entropy: SystemEntropy,
            target: None::<maintained::target::Target>,
        });
        let (invocation, event) = (lab.invocation(), act("keys.rewrap", more));
        tokio::time::timeout(life, maintenance.handle(event, &invocation)).await.ok().map(Result::unwrap)
    };
    let whole = Duration::from_secs(600);
    let started = Instant::now();
    let counted = run(json!({"dry_run": true}), whole).await.unwrap();
    println!("{} counted in {:.2} s", counted["stale"], started.elapsed().as_secs_f64());
    assert_eq!(counted["stale"], keys);
    let (before, started) = (peak(), Instant::now());
    let (mut cursor, mut acts, mut torn) = (Value::Null, 0_usize, 0);
    let (mut parts, mut since) = (Vec::new(), Instant::now());
    loop {
        let mut more = json!({"limit": 10_000});
        if cursor != Value::Null {
            more["cursor"] = cursor;
        }
        acts += 1;
        if acts.is_multiple_of(7) {
            let life = Duration::from_millis(u64::try_from(20 + acts * 37 % 400).unwrap());
            torn += usize::from(run(more.clone(), life).await.is_none());
        }
        let answer = run(more, whole).await.unwrap();
        assert_eq!(answer["refused"], 0, "{answer}");
        if acts.is_multiple_of((keys / 100_000).max(1)) {
            parts.push(format!("{:.1}", since.elapsed().as_secs_f64()));
            since = Instant::now();
        }
        if answer["outcome"] == "rewrapped" {
            break;
        }
        cursor = answer["next"].clone();
        assert_ne!(cursor, Value::Null, "{answer}");
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{keys} keys in {seconds:.0} s, {:.0} a second, {torn} acts torn away; each part {} s; peak memory {before} -> {} MiB",
        keys as f64 / seconds,
        parts.join(" "),
        peak()
    );
    let left = "SELECT count(*)::text FROM public.data_keys WHERE key_material_id <> 'material-2'
        OR convert_from(wrapped, 'UTF8') IS DISTINCT FROM 'material-2 ' || tenant || ' field ' || id";
    assert_eq!(lab.texts(left).await, ["0"]);
    assert!(peak() - before <= 32, "memory grows with the keys");
}

// ---- shred -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_subject_is_erased_at_once_and_the_receipt_says_what_and_what_not() {
    let lab = Lab::new().await;
    let (first, _) = lab.key("acme", SUBJECT).await;
    lab.act(act("keys.rotate", json!({"tenant": "acme", "scope": SUBJECT}))).await.unwrap();
    lab.clock.advance(1);
    let (second, _) = lab.key("acme", SUBJECT).await;
    let (other, _) = lab.key("acme", "subject:s-2").await;
    let (foreign, _) = lab.key("globex", SUBJECT).await;
    lab.execute(&format!(
        "UPDATE public.data_keys SET exported_at = to_timestamp({}) WHERE id = '{first}'",
        NOW / 1000
    ))
    .await;
    let mut hashes = BTreeMap::new();
    for id in [first, second] {
        hashes.insert(id.to_string(), hex(&sha256(lab.row(id).await.wrapped.as_ref().unwrap())));
    }
    let answer = lab.act(shred(SUBJECT)).await.unwrap();
    assert_eq!(
        (&answer["outcome"], &answer["shredded"], &answer["more"]),
        (&json!("shredded"), &json!(2), &json!(false))
    );
    let [receipt] = answer["receipts"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    assert_eq!(
        (&receipt["tenant"], &receipt["operator"], &receipt["request_id"]),
        (&json!("acme"), &json!("ann"), &json!("req-1"))
    );
    assert_eq!(receipt["shredded_ms"], NOW + 1);
    assert_eq!(receipt["opens_nothing_after_ms"], NOW + 1 + 30_000, "no batch under way takes longer");
    assert_eq!(
        receipt["survives"],
        json!(["backups_until_they_expire", "row_versions_until_vacuum", "exported_messages"])
    );
    let told: BTreeMap<String, String> = receipt["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| (key["id"].as_str().unwrap().to_owned(), key["wrapped_sha256"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(told, hashes);
    let lines: Vec<String> = hashes.iter().map(|(id, hash)| format!("{id} {hash}")).collect();
    assert_eq!(receipt["digest"], hex(&sha256(lines.join("\n").as_bytes())), "anybody can compute the digest");
    for id in [first, second] {
        let row = lab.row(id).await;
        assert_eq!((row.state.as_str(), row.wrapped, row.for_writers), ("shredded", None, false));
    }
    for id in [other, foreign] {
        assert_eq!(lab.row(id).await.state, "active");
    }
    // Sent again after a lost answer: the same receipt, and nothing more.
    let again = lab.act(shred(SUBJECT)).await.unwrap();
    assert_eq!((&again["outcome"], &again["receipts"]), (&json!("unchanged"), &answer["receipts"]));
    assert_eq!(
        lab.texts("SELECT outcome FROM public.admin_audit WHERE operation = 'shred' ORDER BY outcome").await,
        ["shredded", "unchanged"]
    );
}

#[tokio::test]
async fn a_columns_key_is_destroyed_when_nobody_can_still_encrypt_under_it() {
    let lab = Lab::new().await;
    let (id, plaintext) = lab.key("acme", EMAIL).await;
    let first = lab.act(shred(EMAIL)).await.unwrap();
    assert_eq!(
        first,
        json!({"outcome": "waiting", "shredded": 0, "waiting": 1, "not_before_ms": NOW + GRACE, "more": false, "receipts": []})
    );
    let row = lab.row(id).await;
    assert_eq!((row.state.as_str(), row.for_writers), ("decrypt_only", false));
    assert_eq!(lab.open(&row).await, Some(plaintext), "what was acknowledged meanwhile still opens");
    lab.clock.advance(GRACE - 1);
    assert_eq!(lab.act(shred(EMAIL)).await.unwrap()["not_before_ms"], NOW + GRACE, "asking again does not begin anew");
    assert!(lab.row(id).await.wrapped.is_some());
    lab.clock.advance(1);
    let done = lab.act(shred(EMAIL)).await.unwrap();
    assert_eq!((&done["outcome"], &done["shredded"]), (&json!("shredded"), &json!(1)));
    assert_eq!(done["receipts"][0]["opens_nothing_after_ms"], NOW + 2 * GRACE);
    assert_eq!(lab.row(id).await.wrapped, None);
    // A key whose day ended long ago is in nobody's memory: there is nothing to wait for.
    let (old, _) = lab.key("acme", EMAIL).await;
    lab.clock.advance(DAY + GRACE);
    let done = lab.act(act("shred", json!({"tenant": "acme", "keys": [old], "confirm": "acme"}))).await.unwrap();
    assert_eq!((&done["outcome"], &done["shredded"]), (&json!("shredded"), &json!(1)));
}

#[tokio::test]
async fn nobody_shreds_what_is_not_the_tenants_own() {
    let lab = Lab::new().await;
    let (own, _) = lab.key("acme", SUBJECT).await;
    let (foreign, _) = lab.key("globex", SUBJECT).await;
    let before = lab.rows().await;
    for (event, error) in [
        (
            act("shred", json!({"tenant": "acme", "keys": [foreign], "confirm": "acme"})),
            json!({"code": "keys_unknown", "field": "keys"}),
        ),
        (
            act("shred", json!({"tenant": "acme", "keys": [own, foreign], "confirm": "acme"})),
            json!({"code": "keys_unknown", "field": "keys"}),
        ),
        (
            act("shred", json!({"tenant": "acme", "scope": "subject:s-9", "confirm": "subject:s-9"})),
            json!({"code": "keys_unknown", "field": "scope"}),
        ),
        (
            act("shred", json!({"tenant": "initech", "scope": SUBJECT, "confirm": SUBJECT})),
            json!({"code": "tenant_unknown", "field": "tenant"}),
        ),
        (
            act("shred", json!({"tenant": "acme", "scope": SUBJECT, "confirm": "subject:S-1"})),
            json!({"code": "not_confirmed", "field": "confirm"}),
        ),
    ] {
        assert_eq!(lab.act(event.clone()).await.unwrap(), json!({"error": error}), "{event}");
    }
    assert_eq!(lab.rows().await, before);
}

#[tokio::test]
async fn a_receipt_is_never_changed_and_never_taken_back() {
    let lab = Lab::new().await;
    lab.key("acme", SUBJECT).await;
    lab.act(shred(SUBJECT)).await.unwrap();
    let owner = lab.server.connect(local::postgres::OWNER).await;
    owner
        .batch_execute(
            "SELECT set_config('portcullis.tenant', 'acme', false), set_config('portcullis.all_tenants', 'on', false)",
        )
        .await
        .unwrap();
    for statement in ["UPDATE public.shred_receipts SET at_ms = 0", "DELETE FROM public.shred_receipts"] {
        let _ = owner.batch_execute(statement).await;
    }
    assert_eq!(lab.texts("SELECT at_ms::text FROM public.shred_receipts").await, [NOW.to_string()]);
}

#[tokio::test]
async fn an_erasure_that_was_torn_away_at_any_step_is_whole_or_has_not_begun() {
    let lab = Lab::new().await;
    for blow in BLOWS {
        let (subject, plaintext) = lab.key("acme", SUBJECT).await;
        let wrapped = lab.row(subject).await.wrapped.unwrap();
        lab.clock.advance(1);
        lab.steps.arm(0, blow);
        lab.act(shred(SUBJECT)).await;
        lab.steps.disarm();
        let row = lab.row(subject).await;
        let counted =
            format!("SELECT count(*)::text FROM public.shred_receipts WHERE keys @> '[{{\"id\": \"{subject}\"}}]'");
        let receipts = lab.texts(&counted).await;
        match row.state.as_str() {
            "active" => {
                assert_eq!(receipts, ["0"], "{blow:?}");
                assert_eq!(lab.open(&row).await, Some(plaintext), "{blow:?}");
            }
            "shredded" => assert_eq!((receipts, row.wrapped), (vec!["1".to_owned()], None), "{blow:?}"),
            other => panic!("{blow:?}: {other}"),
        }
        let answer = lab.act(shred(SUBJECT)).await.unwrap();
        assert_eq!(lab.row(subject).await.wrapped, None, "{blow:?}");
        assert_eq!(lab.texts(&counted).await, ["1"], "{blow:?}: one receipt, however often it was asked for");
        let told = answer["receipts"].to_string();
        assert!(told.contains(&subject.to_string()) && told.contains(&hex(&sha256(&wrapped))), "{blow:?}: {answer}");
    }
}

#[tokio::test]
async fn a_columns_erasure_that_was_torn_away_in_either_phase_waits_and_then_is_whole() {
    let lab = Lab::new().await;
    for blow in BLOWS {
        let (id, plaintext) = lab.key("acme", EMAIL).await;
        let event = act("shred", json!({"tenant": "acme", "keys": [id], "confirm": "acme"}));
        // The first phase closes.
        lab.steps.arm(0, blow);
        lab.act(event.clone()).await;
        lab.steps.disarm();
        let row = lab.row(id).await;
        assert_eq!(row.state == "active", row.for_writers, "{blow:?}: closed as a whole or not at all");
        assert_eq!(lab.open(&row).await, Some(plaintext.clone()), "{blow:?}: nothing is lost before its time");
        let waiting = lab.act(event.clone()).await.unwrap();
        assert_eq!(waiting["outcome"], "waiting", "{blow:?}: {waiting}");
        assert_eq!(lab.open(&lab.row(id).await).await, Some(plaintext), "{blow:?}");
        // The second destroys.
        lab.clock.advance(GRACE);
        lab.steps.arm(0, blow);
        lab.act(event.clone()).await;
        lab.steps.disarm();
        let receipts =
            format!("SELECT count(*)::text FROM public.shred_receipts WHERE keys @> '[{{\"id\": \"{id}\"}}]'");
        let row = lab.row(id).await;
        assert_eq!(
            row.wrapped.is_none(),
            lab.texts(&receipts).await == ["1"],
            "{blow:?}: destroyed with its receipt, or neither"
        );
        lab.act(event).await.unwrap();
        let row = lab.row(id).await;
        assert_eq!((row.state.as_str(), row.wrapped), ("shredded", None), "{blow:?}");
        assert_eq!(lab.texts(&receipts).await, ["1"], "{blow:?}");
        lab.clock.advance(1);
    }
}

#[tokio::test]
async fn a_rotation_that_was_torn_away_at_any_step_leaves_at_most_one_key_to_write_under() {
    let lab = Lab::new().await;
    let rotate = act("keys.rotate", json!({"tenant": "acme"}));
    for blow in BLOWS {
        let (id, plaintext) = lab.key("acme", EMAIL).await;
        lab.clock.advance(1);
        lab.steps.arm(0, blow);
        lab.act(rotate.clone()).await;
        lab.steps.disarm();
        let row = lab.row(id).await;
        assert_eq!(row.state == "active", row.for_writers, "{blow:?}: closed as a whole or not at all");
        assert_eq!(lab.open(&row).await, Some(plaintext.clone()), "{blow:?}");
        lab.act(rotate.clone()).await.unwrap();
        let row = lab.row(id).await;
        assert_eq!((row.state.as_str(), row.for_writers), ("decrypt_only", false), "{blow:?}");
        assert_eq!(lab.open(&row).await, Some(plaintext), "{blow:?}");
        assert!(!lab.rows().await.iter().any(|row| row.state == "active"), "{blow:?}");
    }
    assert_eq!(Blow::Fails, BLOWS[0]);
}
