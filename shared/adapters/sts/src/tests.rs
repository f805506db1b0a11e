use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse as RawResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

use super::*;

const CANARY: &str = "canary-3f9a";
const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

#[derive(Debug)]
struct Manual(AtomicI64);

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// STS as far as it matters here: sessions of 900 s by the test's clock, or no answer at all.
#[derive(Clone)]
struct Service {
    clock: Arc<Manual>,
    down: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

impl HttpConnector for Service {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = String::from_utf8(request.body().bytes().unwrap().to_vec()).unwrap();
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(body);
            asked.len()
        };
        let down = self.down.load(Ordering::Relaxed);
        let ends = aws_smithy_types::DateTime::from_secs(self.clock.now().seconds() + 900);
        let ends = ends.fmt(aws_smithy_types::date_time::Format::DateTime).unwrap();
        HttpConnectorFuture::new(async move {
            tokio::task::yield_now().await;
            if down {
                return Err(ConnectorError::io("connection refused".into()));
            }
            let answer = format!(
                "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
                 <AccessKeyId>ASIA{number}</AccessKeyId><SecretAccessKey>{CANARY}</SecretAccessKey><SessionToken>{CANARY}</SessionToken>\
                 <Expiration>{ends}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
            );
            Ok(RawResponse::new(200.try_into().unwrap(), SdkBody::from(answer)))
        })
    }
}

fn start() -> Timestamp {
    Timestamp::from_seconds(1_700_000_000)
}

fn sessions(permission: Permission) -> (Sessions<Arc<Manual>>, Service) {
    sessions_for(permission, SignerReach::Tenant)
}

fn sessions_for(permission: Permission, reach: SignerReach) -> (Sessions<Arc<Manual>>, Service) {
    let clock = Arc::new(Manual(AtomicI64::new(start().millis())));
    let service = Service { clock: clock.clone(), down: Arc::default(), asked: Arc::default() };
    let wire = service.clone();
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .retry_config(RetryConfig::disabled())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("AKIAEXAMPLE", "s", None, None, "test")))
        .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(wire.clone())))
        .build();
    let signer = SignerRole {
        role: "arn:aws:iam::111122223333:role/portcullis-test-upload-signer".to_owned(),
        permission,
        bucket: "objects".to_owned(),
        bucket_key: KEY.to_owned(),
        reach,
    };
    (Sessions::new(&config, signer, clock), service)
}

fn object(tenant: &str) -> ObjectKey {
    ObjectKey::parse(&format!("t/{tenant}/01920000-0000-7000-8000-0000000000f1")).unwrap()
}

fn advance(service: &Service, seconds: i64) {
    service.clock.0.fetch_add(seconds * 1000, Ordering::Relaxed);
}

fn asked(service: &Service) -> usize {
    service.asked.lock().unwrap().len()
}

#[tokio::test]
async fn a_session_is_kept_per_tenant_until_420_seconds_remain() {
    let (sessions, service) = sessions(Permission::Upload);
    assert_eq!(sessions.session(&object("acme")).await.unwrap().access_key_id, "ASIA1");
    assert_eq!(sessions.session(&object("globex")).await.unwrap().access_key_id, "ASIA2");
    advance(&service, 480);
    let kept = sessions.session(&object("acme")).await.unwrap();
    assert_eq!((kept.access_key_id.as_str(), kept.expires_at), ("ASIA1", start().plus_seconds(900)));
    advance(&service, 1);
    assert_eq!(sessions.session(&object("acme")).await.unwrap().access_key_id, "ASIA3");
}

#[tokio::test]
async fn of_six_hours_of_calls_sts_hears_of_a_tenant_once_in_eight_minutes() {
    let (sessions, service) = sessions(Permission::Upload);
    let mut heard: HashMap<&str, Vec<i64>> = HashMap::new();
    for second in 0..6 * 3600 {
        for tenant in ["acme", "globex", "initech"] {
            let before = asked(&service);
            let session = sessions.session(&object(tenant)).await.unwrap();
            // Whatever is asked for, a session always carries a whole URL: 300 s, and 60 that none may use.
            assert!(session.expires_at.millis_since(service.clock.now()) >= 360_000, "{second}");
            if asked(&service) > before {
                heard.entry(tenant).or_default().push(second);
            }
        }
        advance(&service, 1);
    }
    for (tenant, at) in &heard {
        assert!(at.iter().zip(at.iter().skip(1)).all(|(earlier, later)| later - earlier > 8 * 60), "{tenant}: {at:?}");
    }
    let all: usize = heard.values().map(Vec::len).sum();
    assert_eq!((heard.len(), all), (3, asked(&service)));
}

#[tokio::test]
async fn of_many_callers_at_once_one_asks() {
    let (sessions, service) = sessions(Permission::Upload);
    let acme = object("acme");
    let (a, b, c, d) = tokio::join!(
        sessions.session(&acme),
        sessions.session(&acme),
        sessions.session(&acme),
        sessions.session(&acme)
    );
    for session in [a, b, c, d] {
        assert_eq!(session.unwrap().access_key_id, "ASIA1");
    }
    assert_eq!(asked(&service), 1);
}

#[tokio::test]
async fn a_session_issued_before_a_revocation_is_replaced() {
    let (sessions, service) = sessions(Permission::Download);
    sessions.session(&object("acme")).await.unwrap();
    sessions.revoke_before(start());
    advance(&service, 1);
    assert_eq!(sessions.session(&object("acme")).await.unwrap().access_key_id, "ASIA2");
    assert_eq!(sessions.session(&object("acme")).await.unwrap().access_key_id, "ASIA2");
}

#[tokio::test]
async fn without_sts_what_is_left_is_used_and_after_that_nothing() {
    let (sessions, service) = sessions(Permission::Upload);
    sessions.session(&object("acme")).await.unwrap();
    service.down.store(true, Ordering::Relaxed);
    advance(&service, 800);
    assert_eq!(sessions.session(&object("acme")).await.unwrap().access_key_id, "ASIA1");
    assert_eq!(sessions.session(&object("globex")).await.unwrap_err().kind, FaultKind::Unavailable);
    advance(&service, 100);
    assert_eq!(sessions.session(&object("acme")).await.unwrap_err().kind, FaultKind::Unavailable);
    service.down.store(false, Ordering::Relaxed);
    assert!(sessions.session(&object("acme")).await.is_ok());
}

#[tokio::test]
async fn a_revoked_session_is_not_used_because_sts_is_down() {
    let (sessions, service) = sessions(Permission::Upload);
    sessions.session(&object("acme")).await.unwrap();
    sessions.revoke_before(start());
    service.down.store(true, Ordering::Relaxed);
    assert!(sessions.session(&object("acme")).await.is_err());
}

#[tokio::test]
async fn a_session_is_asked_for_900_seconds_and_the_tenants_prefix() {
    let (sessions, service) = sessions(Permission::Upload);
    sessions.session(&object("acme")).await.unwrap();
    let body = service.asked.lock().unwrap().remove(0);
    for part in ["Action=AssumeRole", "RoleSessionName=u-acme", "DurationSeconds=900", "t%2Facme%2F%2A"] {
        assert!(body.contains(part), "{part} in {body}");
    }
}

#[test]
fn a_session_policy_names_one_prefix_one_key_and_only_what_the_mode_needs() {
    let cases = [
        (
            Permission::Upload,
            json!(["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]),
            json!(["kms:GenerateDataKey", "kms:Decrypt"]),
        ),
        (Permission::Download, json!(["s3:GetObject", "s3:GetObjectVersion"]), json!(["kms:Decrypt"])),
    ];
    for (permission, objects, keys) in cases {
        let (sessions, _) = sessions(permission);
        let policy = session_policy(&sessions.signer, &sessions.region, &object(&"a".repeat(48)));
        assert!(policy.len() < 700, "{}", policy.len());
        let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
        assert_eq!(policy["Statement"][0]["Action"], objects);
        assert_eq!(policy["Statement"][0]["Resource"], format!("arn:aws:s3:::objects/t/{}/*", "a".repeat(48)));
        assert_eq!(policy["Statement"][1]["Action"], keys);
        assert_eq!(policy["Statement"][1]["Resource"], KEY);
        assert_eq!(policy["Statement"][1]["Condition"]["StringEquals"]["kms:ViaService"], "s3.us-east-1.amazonaws.com");
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn no_more_sessions_are_kept_than_the_limit() {
    let (sessions, _) = sessions(Permission::Upload);
    for number in 0..KEPT + 20 {
        sessions.session(&object(&format!("t{number}"))).await.unwrap();
    }
    assert!(sessions.kept.lock().unwrap().len() <= KEPT);
}

#[tokio::test]
async fn sessions_print_neither_secret_nor_token() {
    let (sessions, _) = sessions(Permission::Upload);
    let session = sessions.session(&object("acme")).await.unwrap();
    assert!(!format!("{session:?} {sessions:?}").contains(CANARY));
}

#[tokio::test]
async fn a_session_for_one_object_is_asked_for_each_time_and_names_that_object() {
    for (permission, name) in [(Permission::Upload, "u-acme"), (Permission::Download, "d-acme")] {
        let (sessions, service) = sessions_for(permission, SignerReach::Object);
        for number in 1..=3 {
            assert_eq!(sessions.session(&object("acme")).await.unwrap().access_key_id, format!("ASIA{number}"));
        }
        let body = service.asked.lock().unwrap().remove(0);
        assert!(body.contains("t%2Facme%2F01920000-0000-7000-8000-0000000000f1%22") && body.contains(name), "{body}");
        assert!(!body.contains("%2A"), "nothing but the object: {body}");
        service.down.store(true, Ordering::Relaxed);
        assert!(sessions.session(&object("acme")).await.is_err(), "none is kept");
    }
}
