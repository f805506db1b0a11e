//! A thousand cold environments at once, each with the real endpoint and the real signer, against an SSM of forty calls a second
//! and a KMS of a thousand signatures a second. Time is simulated; calls, retries and pauses are those of the SDK and ours.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and a figure is told"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws::{AwsSettings, Connector, SdkConfig, Service, StaticTimeSource};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use aws_smithy_async::rt::sleep::{AsyncSleep, SharedAsyncSleep, Sleep};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cedar::Cedar;
use futures::future::join_all;
use serde_json::{Value, json};
use shared::boot::{Invocation, Routes as _};
use shared::clock::Timestamp;
use shared::config::{Environment, Reader};
use shared::encoding::base64url;
use shared::entropy::SystemEntropy;
use shared::http::{Request, Response};
use shared::jwks::{Algorithm, KeySet};
use shared::name::ParameterPath;
use shared::policy::Policing;
use shared::port::Signer;
use shared::trust::Envelope;
use testkit::issuer::{AUDIENCE, ISSUER, KEY, shipped_policies};
use testkit::{FixedClock, Issuer, Registry, TrustBucket, VirtualTime};
use token::{Token, config::Settings};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const STARTS: usize = 1_000;
/// How long one call takes on its way.
const LATENCY: Duration = Duration::from_millis(5);

/// What an account grants: so many calls a second, and as many saved up as are given.
struct Limit {
    per_second: f64,
    saved: f64,
    seen: Duration,
    granted: usize,
    refused: usize,
}

/// SSM or KMS behind its limit.
#[derive(Clone)]
struct Behind {
    time: VirtualTime,
    limit: Arc<Mutex<Limit>>,
    pair: Arc<Ed25519KeyPair>,
}

impl std::fmt::Debug for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Behind")
    }
}

impl Behind {
    fn new(per_second: f64, saved: f64) -> Self {
        let limit = Limit { per_second, saved, seen: Duration::ZERO, granted: 0, refused: 0 };
        let pair = Ed25519KeyPair::generate().unwrap();
        Self { time: VirtualTime::default(), limit: Arc::new(Mutex::new(limit)), pair: Arc::new(pair) }
    }

    fn jwk(&self) -> Value {
        let x = base64url(self.pair.public_key().as_ref());
        let jwk = json!({"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"unnamed","x":x});
        let read = KeySet::parse(&json!({ "keys": [jwk] }), &[Algorithm::EdDsa]).unwrap();
        let kid = read.iter().next().unwrap().thumbprint.clone();
        json!({"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":kid,"x":x})
    }

    fn passes(&self) -> bool {
        let mut limit = self.limit.lock().unwrap();
        let now = self.time.now();
        limit.saved = (limit.saved + (now - limit.seen).as_secs_f64() * limit.per_second).min(limit.per_second);
        limit.seen = now;
        let passes = limit.saved >= 1.0;
        limit.saved -= f64::from(u8::from(passes));
        *if passes { &mut limit.granted } else { &mut limit.refused } += 1;
        passes
    }

    fn answer(&self, target: &str, sent: &Value) -> (u16, Value) {
        if !self.passes() {
            return (400, json!({"__type": "ThrottlingException", "message": "Rate exceeded"}));
        }
        match target {
            "AmazonSSM.GetParameter" => {
                let pem = STANDARD.encode(self.pair.to_pkcs8v1().unwrap().as_ref());
                let value = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
                let parameter = json!({"Name": sent["Name"], "Type": "SecureString", "Value": value, "Version": 1});
                (200, json!({ "Parameter": parameter }))
            }
            "TrentService.Sign" => {
                let message = STANDARD.decode(sent["Message"].as_str().unwrap()).unwrap();
                let signature = STANDARD.encode(self.pair.sign(&message).as_ref());
                (200, json!({"KeyId": sent["KeyId"], "Signature": signature, "SigningAlgorithm": "ED25519_SHA_512"}))
            }
            other => panic!("nobody should call {other}"),
        }
    }

    /// The configuration that a deployed function has, with this service for the network and this time for the pauses.
    ///
    /// The SDK's budget of retries is one for each process and region, and here all environments are one process: each gets a
    /// region of its own.
    fn config(&self, service: Service, environment: usize) -> SdkConfig {
        let region = format!("us-east-{environment}");
        let pairs =
            [("AWS_REGION", region.as_str()), ("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let environment = Environment::from_pairs(pairs);
        let reader = Reader::new(&environment);
        let settings = AwsSettings::read(&reader);
        reader.finish().unwrap();
        let connector = Connector::with_time_source(settings, StaticTimeSource::from_secs(1_800_000_000));
        let network = SharedHttpConnector::new(self.clone());
        let builder = connector.service(service).into_builder();
        builder
            .http_client(http_client_fn(move |_, _| network.clone()))
            .sleep_impl(SharedAsyncSleep::new(Pauses(self.time.clone())))
            .build()
    }
}

impl HttpConnector for Behind {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let sent = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default();
        let (service, arrival) = (self.clone(), self.time.sleep(LATENCY));
        HttpConnectorFuture::new(async move {
            arrival.await;
            let (status, answer) = service.answer(&target, &sent);
            Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(answer.to_string())))
        })
    }
}

#[derive(Clone, Debug)]
struct Pauses(VirtualTime);

impl AsyncSleep for Pauses {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(self.0.sleep(duration))
    }
}

/// What came of a burst.
struct Outcome {
    passed: Vec<Duration>,
    told: usize,
    granted: usize,
    refused: usize,
    last: Duration,
}

impl Outcome {
    fn print(&self, what: &str) {
        let first = self.passed.iter().min().copied().unwrap_or_default();
        println!(
            "{what}: {} of {STARTS} get a token, the first after {:.2} s, the last after {:.2} s; {} are told to come back; \
             {} calls granted, {} throttled; all is over after {:.2} s",
            self.passed.len(),
            first.as_secs_f64(),
            self.passed.iter().max().copied().unwrap_or_default().as_secs_f64(),
            self.told,
            self.granted,
            self.refused,
            self.last.as_secs_f64(),
        );
    }
}

/// One request to each of a thousand fresh environments, all in the same moment.
fn burst<S: Signer>(service: &Behind, key: &str, signer: impl Fn(usize) -> S) -> Outcome {
    let (client, registry, bucket) = (Issuer::new("c1"), Registry::with_tenant("acme"), TrustBucket::default());
    registry.add_client(json!({"client_id":"acme-backend","tenant":"acme","name":"","jwks":{"keys":[client.jwk()]},
        "algorithms":["ES256"],"scopes":["files:read"],"dpop":false,"ttl_seconds":300,"enabled":true,"version":1}));
    let jwk = service.jwk();
    let state = json!({"kid":jwk["kid"],"alg":"EdDSA","key":key,"state":"active","created_at":NOW.millis()});
    let at = NOW.millis();
    for (name, body) in [
        ("trust/keys.json", json!({ "keys": [jwk] })),
        ("trust/revocations.json", json!({})),
        ("trust/signing-state.json", json!({ "keys": [state] })),
        ("trust/policies.json", shipped_policies()),
    ] {
        bucket.put(name, Envelope { version: at, issued_at: at, not_after: at + 86_400_000, body }.seal());
    }
    let settings = Settings { issuer: ISSUER.into(), audience: AUDIENCE.into(), algorithm: Algorithm::EdDsa };
    // Reading them is no call of a signer, and a thousand copies of the engine would be all that the test does.
    let policies = Arc::new(Policing::<Cedar, _, _>::new(bucket.clone(), FixedClock::at(NOW)));
    let environments: Vec<_> = (0..STARTS)
        .map(|number| {
            let (registry, bucket, policies) = (registry.clone(), bucket.clone(), policies.clone());
            let clock = FixedClock::at(NOW);
            Token::new(settings.clone(), registry, signer(number), bucket, policies, clock, SystemEntropy)
        })
        .collect();
    let calls = |service: &Behind| {
        let limit = service.limit.lock().unwrap();
        (limit.granted, limit.refused)
    };
    assert_eq!(calls(service), (0, 0), "a start calls nobody");
    let (client, time) = (&client, &service.time);
    let answers = time.run(join_all(environments.iter().enumerate().map(|(number, environment)| async move {
        let assertion = client.assertion("acme-backend", &format!("a-{number}"), NOW, &json!({}));
        let answer = ask(environment, &assertion).await;
        (answer, time.now())
    })));
    let mut passed = Vec::new();
    for (answer, at) in &answers {
        match answer.status() {
            200 => passed.push(*at),
            503 => {
                assert!(answer.find("retry-after").is_some(), "503 without Retry-After");
                assert!(answer.body().contains("temporarily_unavailable"), "{}", answer.body());
            }
            status => panic!("{status}: {}", answer.body()),
        }
    }
    assert_eq!(registry.assertions(), passed.len(), "who was told to come back still has his assertion");
    let (granted, refused) = calls(service);
    Outcome { told: answers.len() - passed.len(), passed, granted, refused, last: time.now() }
}

async fn ask<S: Signer>(
    environment: &Token<Registry, S, TrustBucket, FixedClock, SystemEntropy>,
    assertion: &str,
) -> Response {
    let jwt_bearer = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
    let body = format!("grant_type=client_credentials&client_assertion_type={jwt_bearer}&client_assertion={assertion}");
    let event = json!({"resource":"/oauth2/token","path":"/oauth2/token","httpMethod":"POST","body":body,
        "isBase64Encoded":false,"multiValueHeaders":{"Content-Type":["application/x-www-form-urlencoded"]},
        "requestContext":{"requestId":"g-1","httpMethod":"POST"}});
    let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
    match environment.answer(&Request::parse(&event.to_string()).unwrap(), &invocation).await {
        Ok(answer) => answer,
        Err(problem) => Response::problem(problem, "g-1"),
    }
}

/// Reading a trust object has a limit of its own in real time, which never comes here.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn of_a_thousand_cold_environments_ssm_signs_for_as_many_as_its_limit_allows() {
    let runtime = runtime();
    let _inside = runtime.enter();
    let path = ParameterPath::parse("/portcullis/signing/test").unwrap();
    let ssm = Behind::new(40.0, 40.0);
    let key = path.of_key(ssm.jwk()["kid"].as_str().unwrap());
    let outcome = burst(&ssm, &key, |number| ssm::SsmSigner::new(&ssm.config(Service::Ssm, number), path.clone()));
    outcome.print("SSM, 40 calls a second");
    assert_eq!(outcome.passed.len(), outcome.granted, "nothing that the limit let through is lost");
    // Forty saved up, and forty a second for as long as the last is patient.
    let allowed = 40.0 * (1.0 + 4.5);
    assert!(outcome.granted as f64 >= 0.95 * allowed, "{} of {allowed}", outcome.granted);
    assert!(outcome.last < Duration::from_secs(5), "{:?}", outcome.last);
    assert!(outcome.refused <= 20 * STARTS, "nobody knocks more than twenty times: {}", outcome.refused);
}

#[test]
fn a_thousand_cold_environments_at_once_are_no_matter_for_kms() {
    let runtime = runtime();
    let _inside = runtime.enter();
    for (what, saved) in [("KMS, 1,000 signatures a second", 1_000.0), ("KMS, when others had used its second up", 0.0)]
    {
        let kms = Behind::new(1_000.0, saved);
        let outcome = burst(&kms, KEY, |number| kms::KmsSigner::new(&kms.config(Service::Kms, number)));
        outcome.print(what);
        assert_eq!(outcome.passed.len(), outcome.granted, "nothing that the limit let through is lost");
        // Within its four seconds the limit would have allowed all of them.
        assert!(outcome.passed.len() >= STARTS * 99 / 100, "{} of {STARTS}", outcome.passed.len());
        assert!(outcome.last < Duration::from_secs(5), "{:?}", outcome.last);
    }
}
