//! People and their sessions on a real Postgres: one holder a family, one winner a race, the tenant's own, and the same as the fake
//! that the token endpoint's tests stand on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::path::Path;

use local::postgres::{BOOT_USER, DATABASE, OWNER, Postgres};
use migrate::MIGRATIONS;
use serde_json::{Value, json};
use shared::digest::sha256;
use shared::port::{Database, Fault, FaultKind, Parameter};
use tempfile::TempDir;
use testkit::Registry;
use tokio_postgres::{Client, Config, NoTls};

const NOW: i64 = 1_800_000_000_000;
const ADA: &str = "7335d417-61da-459d-899c-0a01c76a2f94";
const SUBJECT: &str = "access|7335d417-61da-459d-899c-0a01c76a2f94";

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
        Self { postgres, _directory: directory }
    }

    /// With two tenants, a client of each, and an issuer.
    async fn peopled() -> Self {
        let server = Self::migrated().await;
        let admin = server.login("admin").await;
        for (function, parameters) in world() {
            admin.call(function, parameters).await.unwrap();
        }
        server
    }

    async fn connect(&self, user: &str) -> Client {
        let socket = self.postgres.socket_dir();
        let (client, connection) =
            Config::new().host_path(socket).user(user).dbname(DATABASE).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn login(&self, user: &str) -> Login {
        Login(self.connect(user).await)
    }

    async fn count(&self, from: &str) -> i64 {
        let superuser = self.connect(BOOT_USER).await;
        superuser.query_typed(&format!("SELECT count(*) FROM public.{from}"), &[]).await.unwrap()[0].get(0)
    }
}

/// A function's login, calling as the adapter does.
struct Login(Client);

impl Database for Login {
    async fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> Result<Value, Fault> {
        let arguments: Vec<String> = parameters.iter().map(literal).collect();
        let statement = format!("SELECT {function}({})", arguments.join(", "));
        let rows = self.0.query_typed(&statement, &[]).await;
        let rows = rows.map_err(|error| Fault::new(FaultKind::Invalid, "postgres", "test").caused_by(error))?;
        Ok(rows[0].get(0))
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
        Parameter::Bool(bool) => bool.to_string(),
        Parameter::Json(json) => format!("{}::jsonb", quoted(&json.to_string())),
        Parameter::Texts(texts) => {
            format!("ARRAY[{}]::text[]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
        }
        other => panic!("no test sends {other:?}"),
    }
}

type Call = (&'static str, Vec<Parameter>);

fn text(text: &str) -> Parameter {
    Parameter::Text(text.to_owned())
}

fn texts(texts: &[&str]) -> Parameter {
    Parameter::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn act(function: &'static str, parameters: Vec<Parameter>) -> Call {
    (function, [vec![text("alice"), text("req-1"), Parameter::Int(NOW)], parameters].concat())
}

fn tenant(name: &str, enabled: bool) -> Call {
    act("api.tenant_put", vec![text(name), text(name), Parameter::Bool(enabled)])
}

/// A public client.
fn client(tenant: &str, client_id: &str) -> Call {
    let keys = Parameter::Json(json!({ "keys": [] }));
    let parameters = vec![text(tenant), text(client_id), text("a page"), keys, texts(&["none"]), texts(&["app"])];
    act(
        "api.client_put",
        [
            parameters,
            vec![Parameter::Bool(true), Parameter::Int(300), Parameter::Bool(true), Parameter::Json(json!([]))],
        ]
        .concat(),
    )
}

fn url(id: &str) -> String {
    format!("https://{id}.cloudflareaccess.com")
}

fn issuer(id: &str) -> Call {
    issuer_at(id, &url(id))
}

fn issuer_at(id: &str, url: &str) -> Call {
    let audience = Parameter::OptionalText(Some("a".to_owned()));
    let parameters = vec![text(id), text("cloudflare-access"), text(url), audience, texts(&["RS256"]), text(url)];
    act("api.issuer_put", parameters)
}

fn world() -> Vec<Call> {
    vec![
        tenant("acme", true),
        tenant("globex", true),
        client("acme", "acme-web"),
        client("globex", "globex-web"),
        issuer("access"),
        issuer("other"),
    ]
}

fn put(tenant: &str, issuer: &str, by: &str, value: &str, groups: &[&str], enabled: bool) -> Call {
    let selector = vec![text(tenant), text(issuer), text(by), text(value)];
    let grants = vec![texts(groups), texts(&["app"]), Parameter::Bool(enabled)];
    act("api.identity_put", [selector, grants].concat())
}

fn remove(tenant: &str, by: &str, value: &str) -> Call {
    act("api.identity_remove", vec![text(tenant), text("access"), text(by), text(value)])
}

fn list(tenant: &str, after: Value, limit: i64) -> Call {
    act("api.identity_list", vec![text(tenant), Parameter::Json(after), Parameter::Int(limit)])
}

fn person(issuer: &str, subject: &str, email: Option<(&str, &str)>, groups: &[&str]) -> Call {
    ("api.person_for_token", of_person(issuer, subject, email, groups))
}

fn person_of((issuer, iss): (&str, &str), subject: &str, email: Option<(&str, &str)>, groups: &[&str]) -> Call {
    let mut parameters = of_person(issuer, subject, email, groups);
    parameters[1] = text(iss);
    ("api.person_for_token", parameters)
}

fn of_person(issuer: &str, subject: &str, email: Option<(&str, &str)>, groups: &[&str]) -> Vec<Parameter> {
    let optional = Parameter::OptionalText;
    let address = email.map(|(local, domain)| format!("{local}@{domain}"));
    let domain = email.map(|(_, domain)| domain.to_owned());
    vec![text(issuer), text(&url(issuer)), text(subject), optional(address), optional(domain), texts(groups)]
}

fn hash(name: &str) -> Vec<u8> {
    sha256(name.as_bytes()).to_vec()
}

fn key(letter: char) -> String {
    letter.to_string().repeat(43)
}

fn sid(number: u64) -> String {
    format!("0198e1a0-0000-7000-8000-{number:012}")
}

const HOUR: i64 = 3_600_000;

/// A session of `client_id` whose first token is `token`.
fn start(tenant: &str, client_id: &str, number: u64, token: &str, proof: &str, now: i64) -> Call {
    let of_client = vec![text(tenant), text(client_id), Parameter::Int(1), Parameter::Int(now)];
    let of_proof = vec![text(&key('a')), Parameter::Bytes(hash(proof)), Parameter::Int(now + 310_000)];
    let of_session =
        vec![text(&sid(number)), text(SUBJECT), text(&url("access")), texts(&["app"]), Parameter::Int(now / 1000)];
    let token = vec![Parameter::Bytes(hash(token)), Parameter::Int(now + HOUR), Parameter::Int(now + 12 * HOUR)];
    ("api.session_start", [of_client, of_proof, of_session, token].concat())
}

struct Refresh<'a> {
    tenant: &'a str,
    client_id: &'a str,
    key: char,
    proof: String,
    token: &'a str,
    next: Option<&'a str>,
    now: i64,
}

impl Refresh<'_> {
    fn call(&self) -> Call {
        let of_client = vec![text(self.tenant), text(self.client_id), Parameter::Int(1), Parameter::Int(self.now)];
        let of_proof =
            vec![text(&key(self.key)), Parameter::Bytes(hash(&self.proof)), Parameter::Int(self.now + 310_000)];
        let tokens = vec![
            Parameter::Bytes(hash(self.token)),
            Parameter::OptionalBytes(self.next.map(hash)),
            Parameter::Int(self.now / 1000),
            Parameter::Int(self.now + HOUR),
        ];
        ("api.session_refresh", [of_client, of_proof, tokens].concat())
    }

    fn look(&self) -> Call {
        let own = vec![
            text(self.tenant),
            text(self.client_id),
            Parameter::Bytes(hash(self.token)),
            text(&key(self.key)),
            Parameter::Int(self.now),
        ];
        ("api.session_for_refresh", [own, of_person("access", ADA, None, &[])].concat())
    }
}

fn refresh<'a>(token: &'a str, next: &'a str, now: i64) -> Refresh<'a> {
    let proof = format!("{token}>{next}@{now}");
    Refresh { tenant: "acme", client_id: "acme-web", key: 'a', proof, token, next: Some(next), now }
}

fn end(tenant: &str, client_id: &str, token: Option<&str>, sid: Option<String>, now: i64) -> Call {
    let of = vec![Parameter::OptionalBytes(token.map(hash)), Parameter::OptionalText(sid), Parameter::Int(now)];
    ("api.session_end", [vec![text(tenant), text(client_id)], of].concat())
}

fn revoke(kind: &str, value: &str, at: i64) -> Call {
    act("api.revoke", vec![text(kind), text(value), Parameter::Int(at)])
}

fn login_of(function: &str) -> &'static str {
    match function {
        "api.person_for_token"
        | "api.session_start"
        | "api.session_for_refresh"
        | "api.session_refresh"
        | "api.session_end" => "token",
        "api.trust_snapshot" => "trust",
        _ => "admin",
    }
}

fn outcome(answer: &Value) -> &str {
    answer["outcome"].as_str().unwrap()
}

/// The real functions and the fake, asked the same.
struct Both {
    logins: BTreeMap<&'static str, Login>,
    registry: Registry,
}

impl Both {
    async fn of(server: &Server) -> Self {
        let mut logins = BTreeMap::new();
        for user in ["token", "admin", "trust"] {
            logins.insert(user, server.login(user).await);
        }
        Self { logins, registry: Registry::default() }
    }

    async fn ask(&self, (function, parameters): Call) -> Value {
        let called = format!("{function}{parameters:?}");
        let real = self.logins[login_of(function)].call(function, parameters.clone()).await;
        let real = real.unwrap_or_else(|fault| panic!("{called}: {:?}", std::error::Error::source(&fault)));
        assert_eq!(self.registry.call(function, parameters).await.unwrap(), real, "{called}");
        real
    }
}

#[tokio::test]
async fn what_an_operator_is_shown_of_a_client_names_its_service_token() {
    let server = Server::peopled().await;
    let admin = server.login("admin").await;
    let registry = Registry::default();
    for (function, parameters) in world() {
        registry.call(function, parameters).await.unwrap();
    }
    let own = "e367826f93b8d71185e03fe518aff3b4.access";
    for service in [None, Some(own), None] {
        let named = Parameter::OptionalText(service.map(str::to_owned));
        let (function, parameters) = act("api.client_service", vec![text("acme"), text("acme-web"), named]);
        let (list, whole) =
            act("api.client_list", vec![text("acme"), Parameter::OptionalText(None), Parameter::Int(10)]);
        admin.call(function, parameters.clone()).await.unwrap();
        registry.call(function, parameters).await.unwrap();
        let shown = [admin.call(list, whole.clone()).await.unwrap(), registry.call(list, whole).await.unwrap()];
        for shown in shown {
            assert_eq!(shown["clients"][0]["service"], json!(service), "{shown}");
        }
    }
}

#[tokio::test]
async fn the_fake_knows_people_as_postgres_does() {
    let server = Server::migrated().await;
    let both = Both::of(&server).await;
    let who = |groups: &[&'static str]| person("access", ADA, Some(("ada", "example.com")), groups);
    both.ask(put("acme", "access", "subject", ADA, &[], true)).await;
    for call in world() {
        both.ask(call).await;
    }
    let mut outcomes = Vec::new();
    for call in [
        who(&["staff"]),
        put("acme", "nobody", "subject", ADA, &[], true),
        put("acme", "access", "group", "staff", &["b", "a"], true),
        put("acme", "access", "group", "staff", &["b", "a"], true),
        put("globex", "access", "group", "staff", &[], true),
        put("globex", "access", "group", "guests", &["g"], true),
        put("acme", "other", "subject", ADA, &["elsewhere"], true),
        who(&["staff"]),
        who(&["staff", "staff", "nothing"]),
        who(&["staff", "guests"]),
        person("other", ADA, None, &[]),
        person("access", "0c8a5a38-7b6a-4f0e-9d1e-5a2f1f8f3b11", None, &["Staff"]),
        put("acme", "access", "domain", "example.com", &["d"], true),
        who(&["guests"]),
        put("globex", "access", "email", "ada@example.com", &["e"], true),
        who(&["staff"]),
        put("acme", "access", "subject", ADA, &["s"], false),
        who(&["staff"]),
        put("acme", "access", "subject", ADA, &["s"], true),
        who(&[]),
        list("acme", json!({}), 100),
        list("acme", json!({}), 2),
        list("acme", json!({"issuer": "access", "match": "group", "value": "staff"}), 2),
        list("globex", json!({}), 100),
        list("initech", json!({}), 100),
        remove("globex", "subject", ADA),
        remove("acme", "subject", ADA),
        remove("acme", "subject", ADA),
        who(&["staff"]),
        issuer_at("access", "https://evil.cloudflareaccess.com"),
        person_of(("access", "https://evil.cloudflareaccess.com"), ADA, None, &["staff"]),
        put("acme", "access", "group", "staff", &["b", "a"], true),
        person_of(("access", "https://evil.cloudflareaccess.com"), ADA, None, &["staff"]),
        person("access", ADA, None, &["staff"]),
        act("api.issuer_remove", vec![text("access")]),
        issuer("access"),
        who(&["staff", "guests"]),
        list("acme", json!({}), 100),
    ] {
        outcomes.push(outcome(&both.ask(call).await).to_owned());
    }
    let expected = "unknown issuer_unknown created unchanged identity_taken created created found found ambiguous found unknown created \
        found created found created disabled updated found listed listed listed listed tenant_unknown identity_unknown removed \
        identity_unknown found updated unknown updated found unknown removed created unknown listed";
    assert_eq!(outcomes, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(server.count("identities").await, 1, "with its issuer a row is gone; the other issuer's stays");
}

#[tokio::test]
async fn a_public_client_has_no_key_and_is_always_bound() {
    let server = Server::peopled().await;
    let admin = server.login("admin").await;
    let changed = |at: usize, parameter: Parameter| {
        let (function, mut parameters) = client("acme", "acme-new");
        parameters[at] = parameter;
        (function, parameters)
    };
    for (what, (function, parameters)) in [
        ("not bound", changed(9, Parameter::Bool(false))),
        ("with a key", changed(6, Parameter::Json(json!({ "keys": [{ "kid": "k" }] })))),
        ("none among others", changed(7, texts(&["none", "ES256"]))),
        ("no algorithm", changed(7, texts(&[]))),
    ] {
        assert!(admin.call(function, parameters).await.is_err(), "{what}");
    }
}

#[tokio::test]
async fn of_twenty_refreshes_at_once_one_rotates_two_retry_and_the_next_ends_the_session() {
    let server = Server::peopled().await;
    let token = server.login("token").await;
    let (function, parameters) = start("acme", "acme-web", 1, "t0", "p", NOW);
    assert_eq!(outcome(&token.call(function, parameters).await.unwrap()), "ok");
    let logins = futures::future::join_all((0..20).map(|_| server.login("token"))).await;
    let names: Vec<String> = (0..20).map(|number| format!("t1-{number}")).collect();
    let calls = logins.iter().zip(&names).map(|(login, next)| {
        let (function, parameters) = refresh("t0", next, NOW).call();
        login.call(function, parameters)
    });
    let mut outcomes = BTreeMap::new();
    for answer in futures::future::join_all(calls).await {
        *outcomes.entry(outcome(&answer.unwrap()).to_owned()).or_insert(0) += 1;
    }
    let expected = [("ended", 16), ("retried", 2), ("reused", 1), ("rotated", 1)];
    assert_eq!(outcomes, expected.map(|(outcome, count)| (outcome.to_owned(), count)).into());
    assert_eq!(server.count("refresh_tokens WHERE used_ms IS NULL").await, 3);
    assert_eq!(server.count("sessions WHERE ended = 'reused'").await, 1);
    assert_eq!(server.count("revocations WHERE kind = 'sid'").await, 1);
}

#[tokio::test]
async fn of_two_siblings_used_at_once_one_goes_on_or_none() {
    let server = Server::peopled().await;
    let logins = futures::future::join_all((0..2).map(|_| server.login("token"))).await;
    for round in 0..20 {
        let name = |what: &str| format!("{what}-{round}");
        let (first, one, other) = (name("t0"), name("t1"), name("t2"));
        let (function, parameters) = start("acme", "acme-web", round, &first, &name("p"), NOW);
        logins[0].call(function, parameters).await.unwrap();
        for next in [&one, &other] {
            let (function, parameters) = refresh(&first, next, NOW).call();
            logins[0].call(function, parameters).await.unwrap();
        }
        let (left, right) = (name("l"), name("r"));
        let calls = [(&one, &left), (&other, &right)].into_iter().zip(&logins).map(|((token, next), login)| {
            let (function, parameters) = refresh(token, next, NOW).call();
            login.call(function, parameters)
        });
        let answers = futures::future::join_all(calls).await;
        let mut outcomes: Vec<&str> = answers.iter().map(|answer| outcome(answer.as_ref().unwrap())).collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["reused", "rotated"], "the one that was second shows that two hold the family");
        let live = format!("sessions WHERE sid = '{}' AND ended IS NULL", sid(round));
        assert_eq!(server.count(&live).await, 0);
    }
}

#[tokio::test]
async fn no_session_begins_unseen_by_a_revocation() {
    let server = Server::peopled().await;
    let (token, admin) = (server.login("token").await, server.login("admin").await);
    for round in 0..30 {
        let now = NOW + i64::try_from(round).unwrap() * 10_000;
        let (function, parameters) = start("acme", "acme-web", round, &format!("t{round}"), &format!("p{round}"), now);
        let begun = token.call(function, parameters);
        let (function, parameters) = revoke("sub", SUBJECT, now / 1000);
        let (begun, revoked) = tokio::join!(begun, admin.call(function, parameters));
        revoked.unwrap();
        let live = server.count(&format!("sessions WHERE sid = '{}' AND ended IS NULL", sid(round))).await;
        assert_eq!(live, 0, "{}", outcome(&begun.unwrap()));
    }
}

#[tokio::test]
async fn a_session_is_its_tenants_and_its_clients_own() {
    let server = Server::migrated().await;
    let both = Both::of(&server).await;
    for call in world() {
        both.ask(call).await;
    }
    both.ask(put("acme", "access", "subject", ADA, &[], true)).await;
    both.ask(start("acme", "acme-web", 1, "t0", "p0", NOW)).await;
    both.ask(client("acme", "acme-two")).await;
    for (tenant, client_id) in [("globex", "globex-web"), ("acme", "acme-two"), ("globex", "acme-web")] {
        let foreign = Refresh { tenant, client_id, ..refresh("t0", "t1", NOW) };
        assert_eq!(outcome(&both.ask(foreign.look()).await), "unknown");
        assert!(matches!(outcome(&both.ask(foreign.call()).await), "unknown" | "client_changed"));
        assert_eq!(outcome(&both.ask(end(tenant, client_id, Some("t0"), None, NOW)).await), "unknown");
        assert_eq!(outcome(&both.ask(end(tenant, client_id, None, Some(sid(1)), NOW)).await), "unknown");
    }
    assert_eq!(outcome(&both.ask(refresh("t0", "t1", NOW).call()).await), "rotated");
    // Even the owner sees nothing without a tenant.
    let owner = server.connect(OWNER).await;
    for table in ["sessions", "refresh_tokens", "identities"] {
        for (tenant, seen) in [("globex", 0_i64), ("acme", if table == "refresh_tokens" { 2 } else { 1 })] {
            owner.batch_execute(&format!("SELECT set_config('portcullis.tenant', '{tenant}', false)")).await.unwrap();
            let rows = owner.query_typed(&format!("SELECT count(*) FROM public.{table}"), &[]).await.unwrap();
            assert_eq!(rows[0].get::<_, i64>(0), seen, "{table} as {tenant}");
        }
    }
    let hijack = "SET portcullis.tenant = ''; SET portcullis.all_tenants = 'on'; UPDATE public.sessions SET jkt = repeat('x', 43)";
    assert!(owner.batch_execute(hijack).await.is_err(), "across tenants a session can be ended and nothing else");
}

#[tokio::test]
async fn nothing_is_used_up_for_which_nothing_was_signed() {
    let server = Server::peopled().await;
    let token = server.login("token").await;
    let (function, parameters) = start("acme", "acme-web", 1, "t0", "p", NOW);
    token.call(function, parameters).await.unwrap();
    let (function, parameters) = Refresh { next: None, ..refresh("t0", "t1", NOW) }.call();
    assert!(token.call(function, parameters).await.is_err());
    assert_eq!(server.count("proof_ids").await, 1, "the session's own");
    let (function, parameters) = refresh("t0", "t1", NOW).call();
    assert_eq!(outcome(&token.call(function, parameters).await.unwrap()), "rotated");
}

#[tokio::test]
async fn sessions_are_swept_a_day_after_their_end() {
    let server = Server::peopled().await;
    let token = server.login("token").await;
    for (number, now) in [(1, NOW), (2, NOW + 35 * HOUR), (3, NOW + 36 * HOUR + 1)] {
        let (function, parameters) =
            start("acme", "acme-web", number, &format!("t{number}"), &format!("p{number}"), now);
        token.call(function, parameters).await.unwrap();
        let left = server.count("sessions").await;
        assert_eq!(left, if number == 3 { 2 } else { i64::try_from(number).unwrap() });
        assert_eq!(server.count("refresh_tokens").await, left);
    }
}

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// The fake is the model: its rules are a page of plain conditions. Whatever a page, a thief and an operator do in whatever order, the
/// functions answer as it does, and what it promises holds.
#[tokio::test]
async fn whatever_happens_to_a_session_happens_as_in_the_model() {
    let server = Server::migrated().await;
    let both = Both::of(&server).await;
    for call in world() {
        both.ask(call).await;
    }
    let mut seen = BTreeMap::new();
    for seed in 0..120_u64 {
        let mut dice = Dice(seed);
        let mut now = NOW + i64::try_from(seed).unwrap() * 100 * HOUR;
        let name = |number: usize| format!("s{seed}-t{number}");
        let mut tokens = vec![name(0)];
        both.ask(start("acme", "acme-web", seed, &tokens[0], &format!("s{seed}"), now)).await;
        let (mut over, remembered) = (false, now + 310_000);
        for step in 0..30 {
            now += [0, 0, 1, 1_000, 19_000, 20_000, 21_000, 300_000, 3_599_999][dice.below(9)];
            // Mostly the newest token, sometimes any.
            let of = if dice.below(3) == 0 { dice.below(tokens.len()) } else { tokens.len() - 1 };
            let (next, stale) = (name(tokens.len()), dice.below(12) == 0 && now <= remembered);
            let proof = if stale { format!("s{seed}") } else { format!("s{seed}-{step}") };
            let key = if dice.below(10) == 0 { 'b' } else { 'a' };
            let attempt = Refresh { key, proof, ..refresh(&tokens[of], &next, now) };
            let did = match dice.below(40) {
                0 => both.ask(end("acme", "acme-web", Some(&tokens[of]), None, now)).await,
                1 => both.ask(end("acme", "acme-web", None, Some(sid(seed)), now)).await,
                2 => both.ask(revoke("sid", &sid(seed), now / 1000)).await,
                _ => {
                    both.ask(attempt.look()).await;
                    both.ask(attempt.call()).await
                }
            };
            let did = outcome(&did).to_owned();
            if matches!(did.as_str(), "rotated" | "retried") {
                assert!(!over, "seed {seed}: a session that has ended goes on");
                assert_eq!(key, 'a', "seed {seed}: with another key");
                assert!(!stale, "seed {seed}: with a used proof");
                tokens.push(next);
            }
            over |= matches!(did.as_str(), "reused" | "revoked" | "expired" | "ended" | "unchanged");
            *seen.entry(did).or_insert(0) += 1;
        }
    }
    let all =
        ["ended", "expired", "proof_replayed", "retried", "reused", "revoked", "rotated", "unchanged", "wrong_key"];
    for expected in all {
        assert!(seen.contains_key(expected), "never seen: {expected} in {seen:?}");
    }
}
