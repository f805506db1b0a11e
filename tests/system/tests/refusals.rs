//! Every route × every way to be refused: `refusals.txt`, held against the API document and against the running stack.
//!
//! The document says which routes there are and which ways apply to each; a row that is missing fails, and so does one too
//! many. Each row changes one thing about a request that is known to pass, so that nothing else can be what was refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use local::application::Application;
use local::faults::Faults;
use local::journey::{Answer, claims, seconds};
use local::seed::act;
use serde_json::{Value, json};
use shared::digest::sha256;
use support::files::{CONTENT, in_parts, new_file, part, put};
use support::{Running, root};

/// Stands in what is sent and must stand in no answer and no log.
const CANARY: &str = "canary-3e1f";
/// How long a revocation may take to arrive; the gate's copy lives for five seconds.
const PATIENCE: Duration = Duration::from_secs(10);
const NOWHERE: &str = "0198e1a0-0000-7000-8000-000000000000";

/// What everybody behind the gate is refused for.
const CREDENTIALS: [&str; 18] = [
    "no token",
    "another scheme",
    "not a token",
    "two tokens",
    "token in the query",
    "tampered token",
    "no signature",
    "another type of token",
    "unknown key",
    "expired token",
    "a life of 100 hours",
    "issued tomorrow",
    "another audience",
    "another issuer",
    "revoked token",
    "a person's token alone",
    "a person's token beside another's assertion",
    "missing scope",
];
const GATE: [&str; 2] = ["around the gate", "stale trust"];
const OWNED: [&str; 4] = ["another tenant's", "another subject's", "unknown id", "malformed id"];
const JSON_BODY: [&str; 8] = [
    "no body",
    "malformed body",
    "an array",
    "unknown member",
    "repeated member",
    "too large body",
    "wrong content type",
    "no content type",
];
const FORM_BODY: [&str; 6] =
    ["no body", "malformed body", "repeated member", "too large body", "wrong content type", "no content type"];
const CLIENT: [&str; 8] = [
    "no client",
    "unknown client",
    "forged assertion",
    "used assertion",
    "expired assertion",
    "another audience",
    "a client secret",
    "two credentials",
];

/// Ways that the document cannot tell of.
const OWN: [(&str, &[&str]); 19] = [
    (
        "ANY /app/{proxy+}",
        &[
            "a pattern in the path",
            "an encoded slash",
            "an encoded way out",
            "a path out of itself",
            "an empty segment",
            "nothing after it",
            "a header of the gate's own",
            "a header in another spelling",
            "a token for one file",
        ],
    ),
    (
        "POST /files",
        &[
            "a type off the list",
            "an empty file",
            "a file over the limit",
            "a digest of 31 bytes",
            "another mode",
            "a form over the limit",
            "a form with a digest",
            "an idempotency key for two bodies",
            "two idempotency keys",
        ],
    ),
    ("POST /files/{id}/url", &["a file that is there", "a deleted file"]),
    ("POST /files/{id}/parts", &["a file of another mode", "a part of another size", "a part twice", "501 parts"]),
    ("POST /files/{id}/complete", &["a file of another mode", "parts that are not there"]),
    ("POST /files/{id}/tickets", &["a life of no seconds", "a file that is not there", "a deleted file"]),
    ("GET /tickets/{ticket}", &["a used ticket", "an unknown ticket", "no ticket", "a second credential"]),
    ("GET /files/{id}/content", &["a file that is not there", "a deleted file"]),
    ("GET /files/{id}/receipt", &["a file that is not there", "a deleted file"]),
    ("POST /fields/encrypt", &["a column without a scope", "1,001 items", "no items", "a plaintext over 64 KiB"]),
    (
        "POST /fields/decrypt",
        &["a column without a scope", "1,001 items", "no items", "another row", "a flipped bit", "another tenant's"],
    ),
    (
        "POST /fields/index",
        &[
            "a column without a scope",
            "1,001 items",
            "no items",
            "a value over 64 KiB",
            "64 bits",
            "no partition",
            "digits without any",
        ],
    ),
    (
        "POST /fields/inspect",
        &["a column without a scope", "1,001 items", "no items", "another column's", "another tenant's"],
    ),
    (
        "POST /fields/rewrap",
        &[
            "a column without a scope",
            "1,001 items",
            "no items",
            "another row",
            "a flipped bit",
            "another tenant's",
            "to a column without a scope",
            "to half a place",
        ],
    ),
    (
        "POST /fields/export",
        &[
            "a column without a scope",
            "1,001 items",
            "no items",
            "another row",
            "a flipped bit",
            "another tenant's",
            "frames of one byte",
        ],
    ),
    (
        "POST /fields/import",
        &[
            "a column without a scope",
            "1,001 items",
            "no items",
            "a record",
            "a flipped bit of a message",
            "another tenant's message",
            "another context",
        ],
    ),
    ("POST /oauth2/revoke", &["no token to end"]),
    ("POST /oauth2/introspect", &["no token to describe"]),
    (
        "POST /oauth2/token",
        &["another grant", "no grant", "a scope not held", "another resource", "a proof of possession"],
    ),
];

/// What makes a machine's token a person's.
fn person() -> Value {
    json!({"kind": "human", "sub": "access|7335d417-61da-459d-899c-0a01c76a2f94", "sid": NOWHERE})
}

/// `POST /files` and what the document says of it.
struct Route {
    name: String,
    method: String,
    path: String,
    function: Option<String>,
    guarded: bool,
    has_id: bool,
    media_type: Option<String>,
}

/// The operations of both documents: of the API, and of the application that may stand behind it.
fn routes() -> Vec<Route> {
    let mut all = Vec::new();
    for document in ["infra/aws/openapi.yaml", "infra/aws/app.yaml"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        let document: Value = serde_yaml_ng::from_str(&text).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            // Deployed on a condition, or not at all.
            let item = item.get("Fn::If").map_or(item, |chosen| &chosen[1]);
            of_path(path, item, &mut all);
        }
    }
    all
}

fn of_path(path: &str, item: &Value, all: &mut Vec<Route>) {
    for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
        let method = match method.as_str() {
            "x-amazon-apigateway-any-method" => "ANY".to_owned(),
            method => method.to_uppercase(),
        };
        let media_type = operation.pointer("/requestBody/content").and_then(Value::as_object);
        all.push(Route {
            name: format!("{method} {path}"),
            path: path.to_owned(),
            function: operation["x-portcullis-function"].as_str().map(str::to_owned),
            guarded: operation.get("x-portcullis-open").is_none(),
            has_id: path.contains("{id}"),
            media_type: media_type.map(|content| content.keys().next().unwrap().clone()),
            method,
        });
    }
}

impl Route {
    /// The application behind the gate, which is no function of the house.
    fn is_application(&self) -> bool {
        self.function.as_deref() == Some("vpc-link")
    }

    /// Which ways must have a row.
    fn ways(&self) -> BTreeSet<&'static str> {
        let mut ways = BTreeSet::from(["nothing wrong", "wrong method"]);
        if self.guarded {
            ways.extend(CREDENTIALS);
            ways.extend(GATE);
        }
        if self.has_id {
            ways.extend(OWNED);
        }
        match self.media_type.as_deref() {
            Some("application/json") => ways.extend(JSON_BODY),
            Some("application/x-www-form-urlencoded") => {
                ways.extend(FORM_BODY);
                ways.extend(CLIENT);
            }
            Some(other) => panic!("{}: no list of ways for {other}", self.name),
            None if self.guarded && !matches!(self.method.as_str(), "GET" | "ANY") => {
                ways.insert("a body");
            }
            None => {}
        }
        ways.extend(OWN.iter().filter(|(route, _)| *route == self.name).flat_map(|(_, ways)| ways.iter().copied()));
        ways
    }
}

/// Route → way → outcome. `-` and a reason stand where a way cannot be.
fn list() -> BTreeMap<String, BTreeMap<String, String>> {
    let text = std::fs::read_to_string(root().join("tests/system/refusals.txt")).unwrap();
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut route = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("    ") {
            None => {
                route = line.to_owned();
                assert!(all.insert(route.clone(), BTreeMap::new()).is_none(), "{route} is listed twice");
            }
            Some(row) => {
                let (way, outcome) = row.split_once("  ").unwrap_or_else(|| panic!("{row:?}: no outcome"));
                let ways = all.get_mut(&route).unwrap_or_else(|| panic!("{row:?} stands before any route"));
                let again = ways.insert(way.to_owned(), outcome.trim().to_owned());
                assert!(again.is_none(), "{route}: {way} is listed twice");
            }
        }
    }
    all
}

#[test]
fn the_list_has_every_route_and_every_way_that_applies() {
    let (routes, list) = (routes(), list());
    let mut faults = Vec::new();
    for route in &routes {
        let rows = list.get(&route.name).cloned().unwrap_or_default();
        let ways = route.ways();
        faults.extend(
            ways.iter().filter(|way| !rows.contains_key(**way)).map(|way| format!("{}: no row for {way}", route.name)),
        );
        faults.extend(
            rows.keys()
                .filter(|way| !ways.contains(way.as_str()))
                .map(|way| format!("{}: {way} does not apply", route.name)),
        );
        for (way, outcome) in rows {
            let passes = way == "nothing wrong";
            let fits = match outcome.split_once(' ') {
                Some(("-", reason)) => !reason.trim().is_empty() && !passes,
                Some((status, _)) => !passes && (status == "207" || status >= "400"),
                None => passes && outcome.starts_with(['2', '3']),
            };
            if !fits {
                faults.push(format!("{}: {way}: {outcome:?} is no outcome of its kind", route.name));
            }
        }
    }
    let known: BTreeSet<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    faults.extend(list.keys().filter(|name| !known.contains(name.as_str())).map(|name| format!("{name} is no route")));
    assert!(faults.is_empty(), "tests/system/refusals.txt:\n{}", faults.join("\n"));
}

/// One request, as a client would send it.
#[derive(Clone)]
struct Call {
    method: String,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Call {
    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.headers.retain(|(held, _)| *held != name);
        self.headers.push((name, value.into()));
    }

    fn bear(&mut self, token: &str) {
        self.set("authorization", format!("Bearer {token}"));
    }

    fn member(&mut self, name: &str, value: Value) {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap();
        body[name] = value;
        self.body = body.to_string().into();
    }

    fn of_item(&mut self, name: &str, value: Value) {
        let mut body: Value = serde_json::from_slice(&self.body).unwrap();
        body["items"][0][name] = value;
        self.body = body.to_string().into();
    }

    fn items(&mut self, count: usize) {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        self.body = json!({"items": vec![body["items"][0].clone(); count]}).to_string().into();
    }

    /// A form with this parameter, or without it.
    fn parameter(&mut self, name: &str, value: Option<&str>) {
        let text = String::from_utf8(self.body.clone()).unwrap();
        let mut kept: Vec<String> = text.split('&').map(str::to_owned).collect();
        kept.retain(|pair| pair.split('=').next() != Some(name));
        kept.extend(
            value.map(|value| format!("{name}={}", value.replace(':', "%3A").replace('/', "%2F").replace(' ', "+"))),
        );
        self.body = kept.join("&").into();
    }
}

/// The stack, and one of each thing that rows need.
struct World {
    running: Running,
    _application: Application,
    token: String,
    /// For the application.
    app: String,
    narrow: String,
    files_only: String,
    revoked: String,
    pending: String,
    large: String,
    whole: String,
    ticket: String,
    used_ticket: String,
    clean: String,
    deleted: String,
    doomed: String,
    of_colleague: String,
    of_globex: String,
    record: String,
    record_of_globex: String,
    message: String,
    message_of_globex: String,
}

fn form(max_size: u64) -> Value {
    json!({"name": "a.txt", "content_type": "text/plain", "max_size": max_size, "mode": "post"})
}

fn field(name: &str, value: &str) -> Value {
    json!({"items": [{"ref": "1", "table": "users", "column": "email", "row": "42", name: value}]})
}

impl World {
    /// Everything that rows need. The rows that need a gate without trust data go first, while it has none.
    async fn open(stale: impl AsyncFnOnce(&Running, &str)) -> World {
        let running = Running::start_ahead(&[]).await;
        let token = running.token("acme-backend").await;
        running.stack.s3.faults().set(Faults { unavailable: true, ..Faults::default() });
        stale(&running, &token).await;
        running.stack.s3.faults().set(Faults::default());

        let backend = running.client("acme-backend");
        let scoped = async |scope: &str| running.api.token(backend, Some(scope)).await.unwrap();
        let narrow = scoped(
            "fields:encrypt:users.email fields:decrypt:users.email fields:index:users.email fields:inspect:users.email \
             fields:rewrap:users.email fields:export:users.email fields:import:users.email",
        )
        .await;
        let (files_only, revoked) = (scoped("files:read").await, running.token("acme-backend").await);
        let globex = running.token("globex-backend").await;
        let file = async |token: &str| {
            let plan = running.api.call("POST", "/files", Some(token), Some(&new_file())).await.unwrap().json();
            (plan["id"].as_str().unwrap().to_owned(), plan["upload"].clone())
        };
        let (pending, doomed, deleted) = (file(&token).await.0, file(&token).await.0, file(&token).await.0);
        let (of_globex, of_colleague) = (file(&globex).await.0, file(&token).await.0);
        let (clean, upload) = file(&token).await;
        let put = put(&running, &upload).await;
        assert_eq!(put.status, 200);
        let (large, whole) = (in_parts(&running, &token, false).await, in_parts(&running, &token, true).await);
        running.api.call("DELETE", &format!("/files/{deleted}"), Some(&token), None).await.unwrap();
        let moved = format!("UPDATE public.files SET subject = 'acme-other' WHERE id = '{of_colleague}'");
        running.owner().await.batch_execute(&moved).await.unwrap();

        let record = |answer: &Answer| answer.json()["items"][0]["record"].as_str().unwrap().to_owned();
        let plaintext = URL_SAFE_NO_PAD.encode("ada@example.com");
        let encrypt = async |token: &str| {
            let body = field("plaintext", &plaintext);
            record(&running.api.call("POST", "/fields/encrypt", Some(token), Some(&body)).await.unwrap())
        };
        let (of_acme, record_of_globex) = (encrypt(&token).await, encrypt(&globex).await);
        let export = async |token: &str, record: &str| {
            let body = field("record", record);
            let answer = running.api.call("POST", "/fields/export", Some(token), Some(&body)).await.unwrap().json();
            answer["items"][0]["message"].as_str().unwrap().to_owned()
        };
        let (message, message_of_globex) = (export(&token, &of_acme).await, export(&globex, &record_of_globex).await);

        let jti = claims(&revoked)["jti"].clone();
        act(&running.stack, json!({"operation": "revoke", "operator": "test", "kind": "jti", "value": jti}))
            .await
            .unwrap();
        let since = running.stack.account.clock.now();
        while running.api.call("GET", &format!("/files/{clean}"), Some(&revoked), None).await.unwrap().status != 401 {
            assert!(passed(&running, since) < PATIENCE, "the revocation does not arrive");
            moment(&running).await;
        }
        running.stack.events.idle().await;
        let ready = running.api.call("GET", &format!("/files/{clean}"), Some(&token), None).await.unwrap().json();
        assert_eq!(ready["status"], "clean");
        let tickets = format!("/files/{clean}/tickets");
        let ticket = async || {
            let made = running.api.call("POST", &tickets, Some(&token), None).await.unwrap().json();
            made["ticket"].as_str().unwrap().to_owned()
        };
        let (ticket, used_ticket) = (ticket().await, ticket().await);
        let used = running.api.call("GET", &format!("/tickets/{used_ticket}"), None, None).await.unwrap();
        assert_eq!(used.status, 302);
        let app = running.token("acme-legacy").await;
        let application = Application::start(&running.stack, None).await.unwrap();
        World {
            running,
            _application: application,
            token,
            app,
            narrow,
            files_only,
            revoked,
            pending,
            large,
            whole,
            ticket,
            used_ticket,
            clean,
            deleted,
            doomed,
            of_colleague,
            of_globex,
            record: of_acme,
            record_of_globex,
            message,
            message_of_globex,
        }
    }

    /// A request of this route that passes.
    fn documented(&self, route: &Route) -> Call {
        let mut call =
            Call { method: route.method.clone(), path: route.path.clone(), headers: Vec::new(), body: Vec::new() };
        if route.guarded {
            call.bear(self.credential(route));
        }
        if route.is_application() {
            (call.method, call.path) = ("GET".to_owned(), "/app/echo".to_owned());
            return call;
        }
        if let Some(media_type) = &route.media_type {
            call.set("content-type", media_type.clone());
        }
        let id = match route.name.as_str() {
            "POST /files/{id}/url" => &self.pending,
            "POST /files/{id}/parts" => &self.large,
            "POST /files/{id}/complete" => &self.whole,
            "DELETE /files/{id}" => &self.doomed,
            _ => &self.clean,
        };
        call.path = call.path.replace("{id}", id).replace("{ticket}", &self.ticket);
        call.body = match route.name.as_str() {
            "POST /files" => new_file().to_string().into(),
            "POST /files/{id}/tickets" => json!({"expires_in": 60}).to_string().into(),
            "POST /files/{id}/parts" => json!({"parts": [part()]}).to_string().into(),
            "POST /fields/encrypt" => field("plaintext", &URL_SAFE_NO_PAD.encode("ada@example.com")).to_string().into(),
            "POST /fields/decrypt" => field("record", &self.record).to_string().into(),
            "POST /fields/inspect" | "POST /fields/rewrap" | "POST /fields/export" => {
                field("record", &self.record).to_string().into()
            }
            "POST /fields/import" => field("message", &self.message).to_string().into(),
            "POST /fields/index" => {
                let mut body = field("value", &URL_SAFE_NO_PAD.encode("ada@example.com"));
                body["items"][0]["normalisation"] = json!("nfc_casefold");
                body["items"][0]["bits"] = json!(16);
                body.to_string().into()
            }
            "POST /oauth2/token" | "POST /oauth2/revoke" | "POST /oauth2/introspect" => {
                self.form(&self.own(route), &json!({}))
            }
            name if route.media_type.is_some() => panic!("{name} has a body, and nobody said here which one passes"),
            _ => Vec::new(),
        };
        call
    }

    /// The token that passes there.
    fn credential(&self, route: &Route) -> &str {
        if route.is_application() { &self.app } else { &self.token }
    }

    /// What an OAuth route is asked beside the client's proof. What passes must not end a token that other rows need.
    fn own(&self, route: &Route) -> String {
        match route.name.as_str() {
            "POST /oauth2/revoke" => format!("token={}", self.revoked),
            "POST /oauth2/introspect" => format!("token={}", self.token),
            _ => "grant_type=client_credentials".to_owned(),
        }
    }

    /// A form with a fresh client assertion, whose claims may be changed.
    fn form(&self, own: &str, changes: &Value) -> Vec<u8> {
        let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
        format!("{own}&client_assertion_type={kind}&client_assertion={}", self.assertion(changes)).into()
    }

    fn assertion(&self, changes: &Value) -> String {
        let backend = self.running.client("acme-backend");
        let mut claims = claims(&self.running.api.assertion(backend).unwrap());
        for (name, value) in changes.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        backend.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": backend.kid}), &claims).unwrap()
    }

    /// The route's token with other members, signed by the stack's own key: what only the account's owner can make.
    async fn forged(&self, route: &Route, header: &Value, changes: &Value) -> String {
        let parts: Vec<&str> = self.credential(route).split('.').collect();
        let changed = |part: &str, changes: &Value| {
            let mut members: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
            for (name, value) in changes.as_object().into_iter().flatten() {
                members[name] = value.clone();
            }
            URL_SAFE_NO_PAD.encode(members.to_string())
        };
        let input = format!("{}.{}", changed(parts[0], header), changed(parts[1], changes));
        let stack = &self.running.stack;
        let request = json!({"KeyId": stack.signing_key().await.unwrap(), "MessageType": "DIGEST",
            "Message": STANDARD.encode(sha256(input.as_bytes())), "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"});
        let signed = stack.kms.perform(&stack.account.operator(), None, "Sign", &request).unwrap();
        let signature = STANDARD.decode(signed["Signature"].as_str().unwrap()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The documented request with one thing wrong.
    async fn spoilt(&self, route: &Route, way: &str) -> Call {
        let mut call = self.documented(route);
        let token = self.credential(route);
        let (head, rest) = token.split_once('.').unwrap();
        let (claims, signature) = rest.split_once('.').unwrap();
        let now = seconds(&self.running.stack.account.clock);
        let forged = async |header: Value, changes: Value| self.forged(route, &header, &changes).await;
        match way {
            "nothing wrong" => {}
            "wrong method" => call.method = "PATCH".to_owned(),
            "no token" => call.headers.retain(|(name, _)| *name != "authorization"),
            "another scheme" => call.set("authorization", format!("Basic {token}")),
            "not a token" => call.bear(CANARY),
            "two tokens" => call.headers.push(("authorization", format!("Bearer {token}"))),
            "token in the query" => call.path = format!("{}?access_token={token}", call.path),
            "tampered token" => {
                let other = URL_SAFE_NO_PAD.decode(claims).unwrap();
                let other = String::from_utf8(other).unwrap().replace("\"acme\"", "\"globex\"");
                call.bear(&format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(other)));
            }
            "no signature" => {
                let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
                call.bear(&format!("{none}.{claims}."));
            }
            "another type of token" => call.bear(&forged(json!({"typ": "JWT"}), json!({})).await),
            "unknown key" => call.bear(&forged(json!({"kid": CANARY}), json!({})).await),
            "expired token" => call.bear(&forged(json!({}), json!({"iat": now - 400, "exp": now - 100})).await),
            "a life of 100 hours" => call.bear(&forged(json!({}), json!({"iat": now, "exp": now + 360_000})).await),
            "issued tomorrow" => {
                call.bear(&forged(json!({}), json!({"iat": now + 86_400, "exp": now + 86_700})).await);
            }
            "another audience" if route.guarded => {
                call.bear(&forged(json!({}), json!({"aud": "https://other.example"})).await);
            }
            "another issuer" => call.bear(&forged(json!({}), json!({"iss": "https://other.example"})).await),
            "revoked token" => call.bear(&self.revoked),
            "a token for one file" => {
                let details = json!([{"type": "portcullis_file", "actions": ["read"], "file_id": NOWHERE}]);
                call.bear(&forged(json!({}), json!({"authorization_details": details})).await);
            }
            "a person's token alone" => call.bear(&forged(json!({}), person()).await),
            "a person's token beside another's assertion" => {
                call.bear(&forged(json!({}), person()).await);
                let access = &self.running.stack.access;
                let other = access.user_assertion("0c8a5a38-7b6a-4f0e-9d1e-5a2f1f8f3b11", "ben@example.com").unwrap();
                call.set("cf-access-jwt-assertion", other);
            }
            "missing scope" if route.function.as_deref() == Some("download") => call.bear(&self.narrow),
            "missing scope" => call.bear(&self.files_only),
            "another tenant's" if route.has_id => self.instead(&mut call, route, &self.of_globex),
            "another subject's" => self.instead(&mut call, route, &self.of_colleague),
            "unknown id" => self.instead(&mut call, route, NOWHERE),
            "malformed id" => self.instead(&mut call, route, "0198e1a0"),
            "a body" => {
                call.set("content-type", "application/json");
                call.body = json!({"key": CANARY}).to_string().into();
            }
            "no body" => call.body.clear(),
            "malformed body" if !route.guarded => call.body.extend(b"&scope=%ff"),
            "malformed body" => call.body = format!("{{\"{CANARY}\"").into(),
            "an array" => call.body = format!("[\"{CANARY}\"]").into(),
            "unknown member" => call.member(CANARY, json!(1)),
            "repeated member" if !route.guarded => {
                let first = String::from_utf8(call.body.clone()).unwrap().split('&').next().unwrap().to_owned();
                call.body.extend(format!("&{first}").into_bytes());
            }
            "repeated member" => {
                let body: Value = serde_json::from_slice(&call.body).unwrap();
                let (name, value) = body.as_object().unwrap().iter().next().unwrap();
                call.body = body.to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1).into();
            }
            "too large body" if !route.guarded => call.body.extend(format!("&x={}", "x".repeat(20_000)).into_bytes()),
            "too large body" => call.body.extend(vec![b' '; 4 * 1024 * 1024 + 1]),
            "wrong content type" => call.set("content-type", "text/plain"),
            "no content type" => call.headers.retain(|(name, _)| *name != "content-type"),
            _ => self.spoilt_itself(route, way, &mut call),
        }
        call
    }

    fn instead(&self, call: &mut Call, route: &Route, id: &str) {
        call.path = route.path.replace("{id}", id);
    }

    /// Ways of one route.
    fn spoilt_itself(&self, route: &Route, way: &str, call: &mut Call) {
        let now = seconds(&self.running.stack.account.clock);
        let own = &self.own(route);
        match way {
            "a type off the list" => call.member("content_type", json!("application/x-msdownload")),
            "a pattern in the path" => call.path = "/app/*".to_owned(),
            "an encoded slash" => call.path = "/app/a%2Fb".to_owned(),
            "an encoded way out" => call.path = "/app/%2e%2e/files".to_owned(),
            "a path out of itself" => call.path = "/app/../files".to_owned(),
            "an empty segment" => call.path = "/app/a//b".to_owned(),
            "nothing after it" => call.path = "/app/".to_owned(),
            "a header of the gate's own" => call.set("x-portcullis-role", CANARY),
            "a header in another spelling" => call.set("x_forwarded_user", CANARY),
            "an empty file" => call.member("size", json!(0)),
            "a file over the limit" => call.member("size", json!(shared::object::MAX_PUT + 1)),
            "a digest of 31 bytes" => call.member("sha256", json!(STANDARD.encode([0; 31]))),
            "another mode" => call.member("mode", json!(CANARY)),
            "a form over the limit" => call.body = form(shared::object::MAX_PUT + 1).to_string().into(),
            "a form with a digest" => {
                call.body = form(5).to_string().into();
                call.member("sha256", json!(STANDARD.encode([0; 32])));
            }
            // `World::before` made a file with this key.
            "an idempotency key for two bodies" => {
                call.set("idempotency-key", "refusals");
                call.member("size", json!(6));
            }
            "two idempotency keys" => {
                call.set("idempotency-key", "a");
                call.headers.push(("idempotency-key", "b".to_owned()));
            }
            "a file of another mode" => self.instead(call, route, &self.pending),
            "parts that are not there" => self.instead(call, route, &self.large),
            "a part of another size" => {
                let mut other = part();
                other["size"] = json!(CONTENT.len() + 1);
                call.member("parts", json!([other]));
            }
            "a life of no seconds" => call.member("expires_in", json!(0)),
            "a used ticket" => call.path = format!("/tickets/{}", self.used_ticket),
            "an unknown ticket" => call.path = format!("/tickets/{}", URL_SAFE_NO_PAD.encode([7; 32])),
            "no ticket" => call.path = format!("/tickets/{CANARY}"),
            "a second credential" => call.bear(&self.token),
            "a part twice" => call.member("parts", json!([part(), part()])),
            "501 parts" => call.member("parts", json!(vec![part(); 501])),
            "a file that is there" => self.instead(call, route, &self.clean),
            "a file that is not there" => self.instead(call, route, &self.pending),
            "a deleted file" => self.instead(call, route, &self.deleted),
            "a column without a scope" => {
                call.bear(&self.narrow);
                call.of_item("column", json!("phone"));
            }
            "1,001 items" => call.items(1001),
            "no items" => call.items(0),
            "a plaintext over 64 KiB" => call.of_item("plaintext", json!(URL_SAFE_NO_PAD.encode(vec![0; 65_537]))),
            "to a column without a scope" => {
                call.bear(&self.narrow);
                call.of_item("to", json!({"table": "users", "column": "phone", "row": "42"}));
            }
            "frames of one byte" => call.of_item("frame_length", json!(1)),
            "a record" => call.of_item("message", json!(self.record)),
            "a flipped bit of a message" => {
                let mut bytes = URL_SAFE_NO_PAD.decode(&self.message).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                call.of_item("message", json!(URL_SAFE_NO_PAD.encode(bytes)));
            }
            "another tenant's message" => call.of_item("message", json!(self.message_of_globex)),
            "another context" => call.of_item("context", json!({"tenant": "globex"})),
            "to half a place" => call.of_item("to", json!({"table": "users", "column": "email"})),
            "another row" => call.of_item("row", json!("43")),
            "a flipped bit" => {
                let mut bytes = URL_SAFE_NO_PAD.decode(&self.record).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                call.of_item("record", json!(URL_SAFE_NO_PAD.encode(bytes)));
            }
            "another tenant's" => call.of_item("record", json!(self.record_of_globex)),
            "another column's" => call.of_item("column", json!("phone")),
            "a value over 64 KiB" => call.of_item("value", json!(URL_SAFE_NO_PAD.encode(vec![b'x'; 65_537]))),
            "64 bits" => call.of_item("bits", json!(64)),
            "no partition" => call.of_item("partitions", json!(0)),
            "digits without any" => call.of_item("normalisation", json!("digits")),
            "no token to end" | "no token to describe" => call.parameter("token", None),
            "another grant" => call.parameter("grant_type", Some("password")),
            "no grant" => call.parameter("grant_type", None),
            "a scope not held" => call.parameter("scope", Some("files:read:tenant")),
            "another resource" => call.parameter("resource", Some("https://other.example")),
            "a proof of possession" => call.set("dpop", CANARY),
            "no client" => call.parameter("client_assertion", None),
            "unknown client" => call.body = self.form(own, &json!({"iss": CANARY, "sub": CANARY})),
            "forged assertion" => {
                let assertion = self.assertion(&json!({}));
                let (input, _) = assertion.rsplit_once('.').unwrap();
                call.parameter("client_assertion", Some(&format!("{input}.{}", URL_SAFE_NO_PAD.encode([7; 64]))));
            }
            // `World::before` used this one.
            "used assertion" => call.body = self.form(own, &json!({"jti": used_once(route)})),
            "expired assertion" => call.body = self.form(own, &json!({"iat": now - 400, "exp": now - 300})),
            "another audience" => call.body = self.form(own, &json!({"aud": "https://other.example"})),
            "a client secret" => {
                call.parameter("client_assertion", None);
                call.parameter("client_secret", Some(CANARY));
            }
            "two credentials" => call.set("authorization", "Basic YTpi"),
            other => panic!("{}: nobody said here what {other:?} means", route.name),
        }
    }

    /// What must have happened before a row means what it says.
    async fn before(&self, route: &Route, way: &str) {
        let call = match way {
            "an idempotency key for two bodies" => {
                let mut call = self.documented(route);
                call.set("idempotency-key", "refusals");
                call
            }
            "used assertion" => {
                let mut call = self.documented(route);
                call.body = self.form(&self.own(route), &json!({"jti": used_once(route)}));
                call
            }
            _ => return,
        };
        assert!(send(&self.running, &call).await.status < 300, "{}: {way}", route.name);
    }

    /// The function invoked without the gate: no authorizer's context.
    async fn around(&self, route: &Route) -> String {
        let call = self.documented(route);
        let id = call.path.split('/').nth(2).unwrap_or_default().to_owned();
        let headers: BTreeMap<&str, Vec<String>> =
            call.headers.iter().map(|(name, value)| (*name, vec![value.clone()])).collect();
        let event = json!({"resource": route.path, "path": call.path, "httpMethod": route.method,
            "body": String::from_utf8(call.body).unwrap(), "isBase64Encoded": false, "multiValueHeaders": headers,
            "pathParameters": {"id": id}, "requestContext": {"requestId": "r", "httpMethod": route.method}});
        let answer = self.running.stack.invoke(route.function.as_deref().unwrap(), &event).await.unwrap();
        let body: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
        format!("{} {}", answer["statusCode"], body["code"].as_str().unwrap_or_default())
    }
}

/// The id of an assertion that each route has seen already.
fn used_once(route: &Route) -> String {
    format!("refusals-used-once-{}", route.path)
}

async fn send(running: &Running, call: &Call) -> Answer {
    let url = format!("{}{}", running.stack.places.gateway, call.path);
    let headers: Vec<(&str, &str)> = call.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    running.api.send(&call.method, &url, &headers, call.body.clone().into()).await.unwrap()
}

/// Status and code; an item's code where the batch as a whole passed.
fn outcome(answer: &Answer) -> String {
    match answer.json().pointer("/items/0/error/code").and_then(Value::as_str) {
        Some(code) => format!("{} {code}", answer.status),
        None => answer.outcome(),
    }
}

/// What holds for every refusal, whatever it is: the form, the headers, and nothing of what was sent.
fn form_of(answer: &Answer) -> Result<(), String> {
    let text = String::from_utf8_lossy(&answer.body);
    if text.contains(CANARY) || text.contains("eyJ") {
        return Err(format!("repeats what was sent: {text}"));
    }
    if answer.status < 400 {
        return Ok(());
    }
    if answer.header("cache-control") != "no-store" {
        return Err(format!("may be kept: {:?}", answer.header("cache-control")));
    }
    let body = answer.json();
    let names: BTreeSet<&str> = body.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if body.get("error").is_some() {
        let known = BTreeSet::from(["error", "error_description"]);
        return if names.is_subset(&known) { Ok(()) } else { Err(format!("says more than an OAuth error: {text}")) };
    }
    if names != BTreeSet::from(["type", "title", "status", "code", "request_id"]) || body["status"] != answer.status {
        return Err(format!("is no problem: {text}"));
    }
    if answer.header("content-type") != "application/problem+json" {
        return Err(format!("is of type {:?}", answer.header("content-type")));
    }
    if body["request_id"].as_str().is_none_or(str::is_empty) {
        return Err("names no request".to_owned());
    }
    if matches!(answer.status, 429 | 503) && answer.header("retry-after").is_empty() {
        return Err("does not say when to come back".to_owned());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_list_is_refused_as_it_says() {
    let (routes, list) = (routes(), list());
    let mut seen: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut faults = Vec::new();
    let world = World::open(async |running: &Running, token: &str| {
        for route in routes.iter().filter(|route| route.guarded) {
            let path = route.path.replace("{id}", NOWHERE).replace("{proxy+}", "echo");
            let method = if route.is_application() { "GET" } else { &route.method };
            let answer = running.api.call(method, &path, Some(token), Some(&json!({}))).await.unwrap();
            faults.extend(form_of(&answer).err().map(|fault| format!("{} · stale trust: {fault}", route.name)));
            seen.insert((route.name.clone(), "stale trust".to_owned()), outcome(&answer));
        }
    })
    .await;

    let owner = world.running.owner().await;
    for route in &routes {
        // What passes goes last: it may change what the other rows are about.
        let rows = list.get(&route.name).into_iter().flatten().filter(|(_, outcome)| !outcome.starts_with('-'));
        let (passing, refused): (Vec<_>, Vec<_>) = rows.partition(|(way, _)| *way == "nothing wrong");
        for (way, _) in refused.into_iter().chain(passing) {
            if way == "stale trust" {
                continue;
            }
            if way == "around the gate" {
                seen.insert((route.name.clone(), way.clone()), world.around(route).await);
                continue;
            }
            world.before(route, way).await;
            // Every sandbox has its own copy of the revocations, and each gets it when it can: the promise is seconds.
            let since = world.running.stack.account.clock.now();
            let (mut before, mut answer);
            loop {
                before = counts(&owner).await;
                answer = send(&world.running, &world.spoilt(route, way).await).await;
                let waits = passed(&world.running, since) < PATIENCE;
                if way != "revoked token" || answer.status >= 400 || !waits {
                    break;
                }
                moment(&world.running).await;
            }
            let passes = way == "nothing wrong";
            if !passes {
                faults.extend(form_of(&answer).err().map(|fault| format!("{} · {way}: {fault}", route.name)));
                if counts(&owner).await != before {
                    faults.push(format!("{} · {way}: something was written", route.name));
                }
            }
            let said = if passes { answer.status.to_string() } else { outcome(&answer) };
            seen.insert((route.name.clone(), way.clone()), said);
        }
    }
    for function in world.running.stack.lambda.functions() {
        let log = world.running.stack.lambda.log(function);
        assert!(!log.contains(CANARY), "{function} logs what was sent: {log}");
    }
    for ((route, way), outcome) in &seen {
        let wanted = list.get(route).and_then(|ways| ways.get(way)).map_or("no row", String::as_str);
        if wanted != outcome {
            faults.push(format!("{route} · {way}: the list says {wanted}, the stack {outcome}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    world.running.stack.stop().await;
}

/// How long ago that is on the stack's clock.
fn passed(running: &Running, since: SystemTime) -> Duration {
    running.stack.account.clock.now().duration_since(since).unwrap_or_default()
}

/// A moment of a second, most of which the clock is put ahead by.
async fn moment(running: &Running) {
    running.stack.account.clock.advance(Duration::from_millis(950));
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// What a refusal must leave alone.
async fn counts(owner: &tokio_postgres::Client) -> Vec<i64> {
    let tables = ["files", "files WHERE status = 'deleted'", "data_keys", "assertion_ids"];
    let counts = tables.map(|what| format!("(SELECT count(*) FROM public.{what})"));
    let row = owner.query_typed(&format!("SELECT {}", counts.join(", ")), &[]).await.unwrap().remove(0);
    (0..tables.len()).map(|place| row.get(place)).collect()
}
