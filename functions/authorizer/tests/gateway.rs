//! The authorizer behind the local gateway and the project's own document, with its answers kept and not.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use authorizer::Authorizer;
use bytes::Bytes;
use cedar::Cedar;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use local::account::Account;
use local::clock::Clock as LocalClock;
use local::gateway::{Gateway, Settings};
use local::http::Request;
use local::lambda::{Invoke, InvokeOutcome, Invoked, Kind};
use local::policy::Iam;
use local::template::Template;
use serde_json::{Value, json};
use shared::boot::{Handler as _, Invocation};
use shared::clock::{Clock as _, Timestamp};
use shared::digest::sha256;
use shared::encoding::base64url;
use shared::policy::caching::{self, Moves};
use shared::policy::{Bundle, Policies as _, Release};
use shared::trust::{Accepts, Revocations, Revoked};
use testkit::access::ADA;
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{FixedClock, Issuer, Team, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const API: &str = "api1234567";
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";
const OTHER_FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000b";
const AUTHORIZATION: &str = "method.request.header.Authorization";
const BOTH: &str = "method.request.header.Authorization, method.request.header.Cf-Access-Jwt-Assertion";
const EXACT: &str = "method.request.header.Authorization, context.httpMethod, context.path";

/// The real authorizer, and a function behind the gate that answers everybody.
struct Functions {
    authorizer: Authorizer<Cedar, TrustBucket, FixedClock>,
    asked: AtomicUsize,
}

impl Invoke for Functions {
    fn invoke<'a>(&'a self, function: &'a str, payload: Bytes, _: Kind) -> Invoked<'a> {
        Box::pin(async move {
            let mut outcome = InvokeOutcome {
                payload: Bytes::from_static(br#"{"statusCode": 200, "body": "{}"}"#),
                function_error: None,
                log: String::new(),
                request_id: String::new(),
            };
            if function.contains("authorizer") {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
                let event = serde_json::from_slice(&payload).unwrap();
                let answer = self.authorizer.handle(event, &invocation).await;
                outcome.function_error = answer.is_err().then(|| "Unhandled".to_owned());
                let failed = |failure: shared::boot::Failure| json!({"errorType": failure.as_str(), "errorMessage": failure.as_str()});
                outcome.payload = Bytes::from(answer.unwrap_or_else(failed).to_string());
            }
            Ok(outcome)
        })
    }

    fn idle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

/// The project's own templates, resolved once.
fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let parameters = [
            ("Env", "test"),
            ("Issuer", ISSUER),
            ("Audience", AUDIENCE),
            ("TrustBucket", "trust-bucket"),
            ("ObjectBucket", "object-bucket"),
            ("DataKeyArn", "arn:aws:kms:us-east-1:111122223333:key/data"),
            ("BucketKeyArn", "arn:aws:kms:us-east-1:111122223333:key/bucket"),
            ("ReceiptKeyArn", "arn:aws:kms:us-east-1:111122223333:key/receipts"),
            ("SigningHost", "http://127.0.0.1:2"),
            ("DbHost", "localhost"),
            ("DbProxyResourceId", "prx-1"),
            ("DbResourceId", "db-1"),
            ("DbDirectHost", "127.0.0.1"),
            ("Scan", "off"),
            ("CodeBucket", "code"),
            ("SigningKeyArn", "arn:aws:kms:us-east-1:111122223333:key/signing"),
            ("Stage", "local"),
        ];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Template::deployed(&parameters, "111122223333", "us-east-1", API).unwrap()
    })
}

/// The document as it is deployed, but for how an authorizer's answers are kept.
fn document(sources: &str, seconds: u64) -> (Value, Settings) {
    let mut document = template().document().clone();
    let kept = document.pointer_mut("/components/securitySchemes/gate/x-amazon-apigateway-authorizer").unwrap();
    kept["authorizerResultTtlInSeconds"] = json!(seconds);
    kept["identitySource"] = json!(sources);
    (document, Settings::new(API, template().deployment()))
}

struct World {
    issuer: Issuer,
    laptop: Issuer,
    team: Team,
    bucket: TrustBucket,
    clocks: (FixedClock, LocalClock),
    functions: Arc<Functions>,
    gateway: Gateway,
    proofs: AtomicUsize,
}

/// Headers of one request.
type Headers = Vec<(&'static str, String)>;

impl World {
    /// Where acme's own policies are these, and answers are kept by these sources for so many seconds.
    fn new(own: &[&str], sources: &str, seconds: u64) -> Self {
        let (issuer, bucket, clock, team) =
            (Issuer::new("k1"), TrustBucket::default(), FixedClock::at(NOW), Team::new());
        issuer.publish(&bucket, NOW);
        team.publish(&bucket, NOW);
        let bundle = bundle(own);
        let release = Release { version: 1, hash: bundle.hash(), bundle }.to_value();
        issuer.put(&bucket, "trust/policies.json", NOW, json!({"active": release, "candidate": null}));
        let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let authorizer = Authorizer::new(accepts, bucket.clone(), clock.clone());
        let functions = Arc::new(Functions { authorizer, asked: AtomicUsize::default() });
        let local = LocalClock::at(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let account = Arc::new(Account::new(Iam::new("111122223333", "us-east-1", local.clone(), &[]).unwrap()));
        let (document, mut settings) = document(sources, seconds);
        settings.connecting_ip = None;
        let lambda: Arc<dyn Invoke> = Arc::<Functions>::clone(&functions);
        let gateway = Gateway::new(&document, settings, account, lambda).unwrap_or_else(|faults| panic!("{faults:?}"));
        let (laptop, proofs) = (Issuer::new("h1"), AtomicUsize::default());
        Self { issuer, laptop, team, bucket, clocks: (clock, local), functions, gateway, proofs }
    }

    fn pass(&self, seconds: u64) {
        self.clocks.0.advance(i64::try_from(seconds).unwrap());
        self.clocks.1.advance(Duration::from_secs(seconds));
    }

    fn bearer(&self, changes: Value) -> Headers {
        let token = self.issuer.token(NOW, &changes);
        vec![("authorization", format!("Bearer {token}")), ("cf-connecting-ip", "198.51.100.7".to_owned())]
    }

    /// A token of the laptop's key, and a proof for one request.
    fn bound(&self, changes: Value) -> Headers {
        let mut claims = json!({"cnf": {"jkt": self.laptop.thumbprint()}, "exp": NOW.seconds() + 900});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = self.issuer.token(NOW, &claims);
        let proof = self.proof(&token);
        let ip = "198.51.100.7".to_owned();
        vec![("authorization", format!("DPoP {token}")), ("dpop", proof), ("cf-connecting-ip", ip)]
    }

    fn proof(&self, token: &str) -> String {
        let ath = json!({"ath": base64url(&sha256(token.as_bytes()))});
        let jti = format!("p{}", self.proofs.fetch_add(1, Ordering::SeqCst));
        self.laptop.proof("GET", FILE, &jti, self.clocks.0.now(), &ath)
    }

    /// The same request once more, with a proof of its own.
    fn proven_again(&self, headers: &Headers) -> Headers {
        let token = headers[0].1.strip_prefix("DPoP ").unwrap();
        with(headers, "dpop", &self.proof(token))
    }

    fn list(&self, encrypted: bool) {
        let claim = json!({"id": "laptop-7", "source": "operator", "checked_at": self.clocks.0.now().seconds(),
            "disk_encrypted": encrypted});
        let body = json!({"tenants": {"acme": [{"device": claim, "keys": [self.laptop.thumbprint()]}]}});
        self.issuer.put(&self.bucket, "trust/posture.json", self.clocks.0.now(), body);
    }

    async fn get(&self, path: &str, headers: &Headers) -> u16 {
        self.send("GET", path, headers).await
    }

    async fn send(&self, method: &str, target: &str, headers: &Headers) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let request = Request {
            method: method.parse::<Method>().unwrap(),
            uri: target.parse().unwrap(),
            headers: map,
            body: Bytes::new(),
            peer: ([127, 0, 0, 1], 50_000).into(),
        };
        self.gateway.handle(request).await.status().as_u16()
    }

    fn asked(&self) -> usize {
        self.functions.asked.load(Ordering::SeqCst)
    }
}

fn bundle(own: &[&str]) -> Bundle {
    let mut bundle = Bundle::shipped().unwrap().to_value();
    let own = own.iter().enumerate().map(|(at, text)| json!({"id": format!("own{at}"), "text": text}));
    bundle["tenants"] = json!({"acme": own.collect::<Vec<_>>()});
    for example in bundle["examples"].as_array_mut().unwrap() {
        example["ask"]["principal"]["tenant"] = json!("initech");
    }
    Bundle::parse(&bundle).unwrap()
}

fn with(headers: &Headers, name: &'static str, value: &str) -> Headers {
    let mut changed = without(headers, name);
    changed.push((name, value.to_owned()));
    changed
}

fn without(headers: &Headers, name: &str) -> Headers {
    headers.iter().filter(|(held, _)| *held != name).cloned().collect()
}

/// One request of each kind that there is, by itself: whether answers are kept makes no difference to the first.
#[tokio::test]
async fn a_first_request_is_answered_alike_whether_answers_are_kept_or_not() {
    type Asks = fn(&World) -> (&'static str, &'static str, Headers);
    let rows: [(&str, u16, Asks); 17] = [
        ("a good token", 200, |w| ("GET", FILE, w.bearer(json!({})))),
        ("no token", 401, |_| ("GET", FILE, vec![])),
        ("an empty header", 401, |_| ("GET", FILE, vec![("authorization", String::new())])),
        ("another scheme", 401, |_| ("GET", FILE, vec![("authorization", "Basic eDp5".to_owned())])),
        ("two tokens", 401, |w| ("GET", FILE, [w.bearer(json!({})), w.bearer(json!({"jti": "b"}))].concat())),
        ("a second token in the query", 401, |w| ("GET", "/files/a?access_token=x", w.bearer(json!({})))),
        ("a smuggled header", 401, |w| {
            ("GET", FILE, with(&w.bearer(json!({})), "x-amzn-remapped-authorization", "Bearer x"))
        }),
        ("expired", 401, |w| ("GET", FILE, w.bearer(json!({"iat": NOW.seconds() - 300, "exp": NOW.seconds()})))),
        ("another audience", 401, |w| ("GET", FILE, w.bearer(json!({"aud": "https://other.example"})))),
        ("a scope too few", 403, |w| ("GET", FILE, w.bearer(json!({"scope": "files:write"})))),
        ("another tenant's policy is not mine", 200, |w| ("GET", FILE, w.bearer(json!({"tenant": "globex"})))),
        ("a wildcard in the path", 403, |w| ("GET", "/files/*", w.bearer(json!({})))),
        ("no such route", 403, |w| ("GET", "/nowhere", w.bearer(json!({})))),
        ("no such method", 403, |w| ("PATCH", FILE, w.bearer(json!({})))),
        ("a bound token with its proof", 200, |w| ("GET", FILE, w.bound(json!({})))),
        ("a bound token without", 401, |w| ("GET", FILE, without(&w.bound(json!({})), "dpop"))),
        ("a person without an assertion", 401, |w| {
            ("GET", FILE, w.bound(json!({"kind": "human", "sub": format!("access|{ADA}"), "sid": "s1"})))
        }),
    ];
    for (sources, seconds) in [(AUTHORIZATION, 0), (AUTHORIZATION, 300), (EXACT, 300), (EXACT, 3_600)] {
        // No two tokens are alike, so each row is a first request.
        let world = World::new(&[], sources, seconds);
        for (what, status, asks) in &rows {
            let (method, target, headers) = asks(&world);
            assert_eq!(world.send(method, target, &headers).await, *status, "{what}, kept {seconds} s by {sources}");
        }
    }
}

/// What changes between two requests, and how the second looks.
type Then = fn(&World, &Headers) -> (&'static str, Headers);

struct Case {
    moves: Moves,
    own: &'static [&'static str],
    sources: &'static str,
    first: fn(&World) -> Headers,
    then: Then,
    /// The second answer, asked for and kept.
    asked: u16,
    kept: u16,
}

const OLD: &str =
    r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when { context.token.age > 10 };"#;
const INSIDE: &str = r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when { context.net.ip.isInRange(ip("10.0.0.0/8")) };"#;
const ENCRYPTED: &str = r#"forbid (principal, action in Portcullis::Action::"invoke", resource) unless { context has device && context.device has disk_encrypted && context.device.disk_encrypted };"#;

fn plain(world: &World) -> Headers {
    world.bearer(json!({}))
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            moves: Moves::Time,
            own: &[OLD],
            sources: EXACT,
            first: plain,
            then: |world, headers| {
                world.pass(11);
                (FILE, headers.clone())
            },
            asked: 403,
            kept: 200,
        },
        Case {
            moves: Moves::Network,
            own: &[INSIDE],
            sources: EXACT,
            first: plain,
            then: |_, headers| (FILE, with(headers, "cf-connecting-ip", "10.1.2.3")),
            asked: 403,
            kept: 200,
        },
        Case {
            moves: Moves::Device,
            own: &[ENCRYPTED],
            sources: EXACT,
            first: |world| {
                world.list(true);
                world.bound(json!({}))
            },
            then: |world, headers| {
                world.pass(60);
                world.list(false);
                (FILE, world.proven_again(headers))
            },
            asked: 403,
            kept: 200,
        },
        Case {
            moves: Moves::Proof,
            own: &[],
            sources: EXACT,
            first: |world| world.bound(json!({})),
            then: |_, headers| (FILE, without(headers, "dpop")),
            asked: 401,
            kept: 200,
        },
        Case {
            moves: Moves::Assertion,
            own: &[],
            sources: EXACT,
            first: |world| {
                let token =
                    json!({"kind": "human", "sub": format!("access|{ADA}"), "sid": "s1", "client_id": "acme-web"});
                let assertion = world.team.person(ADA, "ada@example.com", NOW, &json!({}));
                with(&world.bound(token), "cf-access-jwt-assertion", &assertion)
            },
            then: |world, headers| (FILE, without(&world.proven_again(headers), "cf-access-jwt-assertion")),
            asked: 401,
            kept: 200,
        },
        Case {
            moves: Moves::Route,
            own: &[],
            sources: AUTHORIZATION,
            first: plain,
            then: |_, headers| (OTHER_FILE, headers.clone()),
            asked: 200,
            kept: 403,
        },
        Case {
            moves: Moves::Revocation,
            own: &[],
            sources: EXACT,
            first: plain,
            then: |world, headers| {
                let revoked = Revocations::body([(Revoked::Subject, "acme-backend", NOW.seconds())], &[]);
                world.issuer.put(&world.bucket, "trust/revocations.json", NOW, revoked);
                world.pass(5);
                (FILE, headers.clone())
            },
            asked: 401,
            kept: 200,
        },
    ]
}

/// Each of the things that the derived rule calls moving is shown to give a wrong answer where it is kept after all, and a right one where
/// it is not. One that nothing here shows fails the test.
#[tokio::test]
async fn what_the_derived_rule_calls_moving_is_answered_wrongly_when_kept() {
    for Case { moves, own, sources, first, then, asked, kept } in cases() {
        let named: Vec<&str> = sources.split(',').map(str::trim).collect();
        let reads = Cedar::compile(&bundle(own)).unwrap().reads();
        assert!(caching::moving(reads, &named).contains(&moves), "{moves:?}");
        let derived = u64::from(caching::seconds(reads, &named));
        for (seconds, second) in [(derived, asked), (300, kept)] {
            let world = World::new(own, sources, seconds);
            let headers = first(&world);
            assert_eq!(world.get(FILE, &headers).await, 200, "{moves:?} kept {seconds} s");
            let (path, headers) = then(&world, &headers);
            assert_eq!(world.get(path, &headers).await, second, "{moves:?} kept {seconds} s");
            assert_eq!(world.asked(), if seconds == 0 { 2 } else { 1 }, "{moves:?} kept {seconds} s");
        }
    }
    let shown: Vec<Moves> = cases().iter().map(|case| case.moves).collect();
    let all = caching::moving(shared::policy::Reads::ALL, &[]);
    assert_eq!(shown, all);
}

#[tokio::test]
async fn a_source_that_every_request_must_have_keeps_out_who_has_none() {
    let world = World::new(&[], BOTH, 300);
    assert_eq!(world.get(FILE, &plain(&world)).await, 401, "a machine has no assertion");
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn the_project_keeps_nothing() {
    let world = World::new(&[], AUTHORIZATION, 0);
    let headers = plain(&world);
    for times in 1..=3 {
        assert_eq!(world.get(FILE, &headers).await, 200);
        assert_eq!(world.asked(), times);
    }
}
