//! KMS and STS as AWS's own clients see them, over HTTP with real signatures and the roles' policies.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it by panicking")]

use std::{sync::Arc, time::Duration};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_kms::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    primitives::Blob,
    types::{DataKeySpec, KeySpec as SdkKeySpec, KeyUsageType, MessageType, SigningAlgorithmSpec, Tag},
};
use aws_smithy_runtime_api::client::result::CreateUnhandledError;
use aws_types::{SdkConfig, region::Region, sdk_config::RetryConfig};
use local::{
    account::{Account, Keys},
    clock::Clock,
    faults::Faults,
    http::{self, Server},
    kms::{KeySpec, KeyUsage, Kms},
    policy::Iam,
    sigv4,
    sts::Sts,
    template::RoleSpec,
};
use serde_json::{Value, json};

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";

struct Stack {
    account: Arc<Account>,
    kms: Arc<Kms>,
    sts: Arc<Sts>,
    kms_server: Server,
    sts_server: Server,
}

fn role(name: &str, statements: Value, trust: Value) -> RoleSpec {
    let policy = |statements| json!({ "Version": "2012-10-17", "Statement": statements });
    RoleSpec {
        boundary: None,
        name: name.to_owned(),
        arn: format!("arn:aws:iam::{ACCOUNT}:role/{name}"),
        policies: vec![policy(statements)],
        trust: policy(trust),
    }
}

fn trusts_lambda() -> Value {
    json!([{ "Effect": "Allow", "Principal": { "Service": "lambda.amazonaws.com" }, "Action": "sts:AssumeRole" }])
}

impl Stack {
    async fn start() -> Self {
        let signer = format!("arn:aws:iam::{ACCOUNT}:role/signer");
        let roles = [
            role(
                "data-key",
                json!([{
                    "Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": "*",
                    "Condition": {
                        "StringEquals": { "kms:EncryptionContext:purpose": "field" },
                        "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": ["tenant", "purpose", "data_key_id"] },
                        "Null": { "kms:EncryptionContextKeys": "false" },
                    },
                }]),
                trusts_lambda(),
            ),
            role(
                "loose",
                json!([{
                    "Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": "*",
                    "Condition": { "StringEquals": { "kms:EncryptionContext:tenant": "acme" } },
                }]),
                trusts_lambda(),
            ),
            role(
                "trust",
                json!([
                    {
                        "Effect": "Allow", "Action": "kms:CreateKey", "Resource": "*",
                        "Condition": { "StringEquals": {
                            "kms:KeySpec": "ECC_NIST_P256", "kms:KeyUsage": "SIGN_VERIFY",
                            "aws:RequestTag/portcullis:signing": "dev",
                        } },
                    },
                    {
                        "Effect": "Allow", "Action": ["kms:TagResource", "kms:Sign", "kms:GetPublicKey"],
                        "Resource": format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/*"),
                    },
                ]),
                trusts_lambda(),
            ),
            role(
                "caller",
                json!([{ "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": [signer] }]),
                trusts_lambda(),
            ),
            role(
                "signer",
                json!([{ "Effect": "Allow", "Action": ["kms:GenerateRandom", "kms:ListKeys"], "Resource": "*" }]),
                json!([{
                    "Effect": "Allow", "Action": "sts:AssumeRole",
                    "Principal": { "AWS": format!("arn:aws:iam::{ACCOUNT}:role/caller") },
                }]),
            ),
            role(
                "outsider",
                json!([{ "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": [signer] }]),
                trusts_lambda(),
            ),
        ];
        let account = Arc::new(Account::new(Iam::new(ACCOUNT, REGION, Clock::system(), &roles).unwrap()));
        let (kms, sts) = (Kms::new(Arc::clone(&account)), Sts::new(Arc::clone(&account)));
        let kms_server = kms.serve(http::bind().await.unwrap()).await.unwrap();
        let sts_server = sts.serve(http::bind().await.unwrap()).await.unwrap();
        Self { account, kms, sts, kms_server, sts_server }
    }

    fn operator(&self) -> Keys {
        self.account.credentials.issue(self.account.operator(), None)
    }

    fn session(&self, role: &str) -> Keys {
        let hour = self.account.clock.now() + Duration::from_secs(3600);
        self.account.credentials.issue(self.account.session(role, "test", None), Some(hour))
    }

    fn config(&self, server: &Server, keys: &Keys) -> SdkConfig {
        let Keys { access_key_id, secret_access_key, session_token, .. } = keys.clone();
        let credentials = Credentials::from_keys(access_key_id, secret_access_key, session_token);
        SdkConfig::builder()
            .behavior_version(aws_sdk_kms::config::BehaviorVersion::latest())
            .region(Region::from_static(REGION))
            .endpoint_url(format!("http://{}", server.addr))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(aws::http_client(aws::Trust::amazon()))
            .retry_config(RetryConfig::disabled())
            .build()
    }

    fn kms(&self, keys: &Keys) -> aws_sdk_kms::Client {
        aws_sdk_kms::Client::new(&self.config(&self.kms_server, keys))
    }

    fn sts(&self, keys: &Keys) -> aws_sdk_sts::Client {
        aws_sdk_sts::Client::new(&self.config(&self.sts_server, keys))
    }
}

#[track_caller]
fn code<O: std::fmt::Debug, E>(result: Result<O, SdkError<E>>) -> String
where
    E: std::error::Error + ProvideErrorMetadata + CreateUnhandledError + Send + Sync + 'static,
    SdkError<E>: RequestId,
{
    let error = result.unwrap_err();
    assert!(error.request_id().is_some());
    error.into_service_error().code().unwrap().to_owned()
}

#[tokio::test]
async fn aws_own_client_makes_opens_and_moves_data_keys() {
    let stack = Stack::start().await;
    let client = stack.kms(&stack.operator());
    let created = client.create_key().send().await.unwrap();
    assert!(created.request_id().is_some());
    let key = created.key_metadata.unwrap().arn.unwrap();
    let made = client
        .generate_data_key()
        .key_id(&key)
        .key_spec(DataKeySpec::Aes256)
        .encryption_context("tenant", "acme")
        .send()
        .await
        .unwrap();
    assert_eq!(made.key_id(), Some(key.as_str()));
    assert_eq!(made.key_material_id().map(str::len), Some(64));
    let blob = made.ciphertext_blob.unwrap();
    let opened =
        client.decrypt().ciphertext_blob(blob.clone()).encryption_context("tenant", "acme").send().await.unwrap();
    assert_eq!(opened.plaintext, made.plaintext);
    let refused =
        client.decrypt().ciphertext_blob(blob).encryption_context("tenant", "globex").send().await.unwrap_err();
    let refused = refused.into_service_error();
    assert!(refused.is_invalid_ciphertext_exception() && refused.message().is_none());

    client.disable_key().key_id(&key).send().await.unwrap();
    for _ in 0..2 {
        let refused = client.encrypt().key_id(&key).plaintext(Blob::new("x")).send().await.unwrap_err();
        let refused = refused.into_service_error();
        assert!(refused.is_disabled_exception());
        assert_eq!(refused.message(), Some(format!("{key} is disabled.").as_str()));
    }
    let unknown = client.list_grants().key_id(&key).send().await;
    assert_eq!(code(unknown), "UnknownOperationException");

    let calls = stack.kms.calls();
    assert_eq!((calls["GenerateDataKey"], calls["Decrypt"], calls["Encrypt"]), (1, 2, 2));
    assert!(!calls.contains_key("ListGrants"));
}

#[tokio::test]
async fn aws_own_client_signs_and_its_signature_verifies() {
    let stack = Stack::start().await;
    let client = stack.kms(&stack.session("trust"));
    let create = |spec, tag: &str| {
        let tag = Tag::builder().tag_key("portcullis:signing").tag_value(tag).build().unwrap();
        client.create_key().key_spec(spec).key_usage(KeyUsageType::SignVerify).tags(tag).send()
    };
    assert_eq!(code(create(SdkKeySpec::EccNistP256, "prod").await), "AccessDeniedException");
    assert_eq!(code(create(SdkKeySpec::Rsa2048, "dev").await), "AccessDeniedException");
    let untagged = client.create_key().key_spec(SdkKeySpec::EccNistP256).key_usage(KeyUsageType::SignVerify);
    assert_eq!(code(untagged.send().await), "AccessDeniedException");
    let key = create(SdkKeySpec::EccNistP256, "dev").await.unwrap().key_metadata.unwrap().arn.unwrap();

    let public = client.get_public_key().key_id(&key).send().await.unwrap().public_key.unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"header.payload");
    let signed = client
        .sign()
        .key_id(&key)
        .message(Blob::new(digest.as_ref()))
        .message_type(MessageType::Digest)
        .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256)
        .send()
        .await
        .unwrap();
    let verifier = &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1;
    let public = aws_lc_rs::signature::UnparsedPublicKey::new(verifier, public.as_ref());
    assert!(public.verify(b"header.payload", signed.signature.unwrap().as_ref()).is_ok());
}

#[tokio::test]
async fn a_role_limited_by_context_gets_that_context_and_nothing_else() {
    let stack = Stack::start().await;
    let key = stack.kms.create_key(KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, &[]).unwrap();
    let client = stack.kms(&stack.session("data-key"));
    let generate = |context: &[(&str, &str)]| {
        let call = client.generate_data_key().key_id(&key).key_spec(DataKeySpec::Aes256);
        context.iter().fold(call, |call, (name, value)| call.encryption_context(*name, *value)).send()
    };
    let right = [("tenant", "acme"), ("purpose", "field"), ("data_key_id", "1")];
    let made = generate(&right).await.unwrap();
    let decrypt = client.decrypt().ciphertext_blob(made.ciphertext_blob.unwrap());
    let decrypt = right.iter().fold(decrypt, |call, (name, value)| call.encryption_context(*name, *value));
    assert!(decrypt.clone().key_id(&key).send().await.is_ok());
    assert!(decrypt.send().await.is_ok());
    for wrong in [
        vec![],
        vec![("tenant", "acme")],
        vec![("tenant", "acme"), ("purpose", "writer"), ("data_key_id", "1")],
        vec![("tenant", "acme"), ("purpose", "field"), ("more", "1")],
        vec![("Tenant", "acme"), ("purpose", "field")],
    ] {
        let error = generate(&wrong).await.unwrap_err().into_service_error();
        assert_eq!(error.code(), Some("AccessDeniedException"), "{wrong:?}");
        assert_eq!(
            error.message(),
            Some(
                format!(
                    "User: arn:aws:sts::{ACCOUNT}:assumed-role/data-key/test is not authorized to perform: \
                     kms:GenerateDataKey on resource: {key} because no identity-based policy allows the \
                     kms:GenerateDataKey action"
                )
                .as_str()
            )
        );
    }
    // The key part of the condition's name is matched without regard to case, as AWS documents it.
    let client = stack.kms(&stack.session("loose"));
    for (name, value, allowed) in [("tenant", "acme", true), ("Tenant", "acme", true), ("tenant", "Acme", false)] {
        let call = client.generate_data_key().key_id(&key).key_spec(DataKeySpec::Aes256);
        let result = call.encryption_context(name, value).send().await;
        assert_eq!(result.is_ok(), allowed, "{name}={value}");
    }
}

#[tokio::test]
async fn a_caller_that_is_not_who_it_says_is_refused_in_kms_and_sts() {
    let stack = Stack::start().await;
    let session = stack.session("signer");
    let other = stack.session("signer");
    let removed = stack.session("signer");
    stack.account.credentials.remove(&removed.access_key_id);
    let invented = Keys { access_key_id: "ASIAINVENTED12345678".to_owned(), ..session.clone() };
    let without_token = Keys { session_token: None, ..session.clone() };
    let foreign_token = Keys { session_token: other.session_token, ..session.clone() };
    let wrong_secret = Keys { secret_access_key: "wrong".to_owned(), ..session.clone() };
    for (keys, kms, sts) in [
        (&invented, "UnrecognizedClientException", "InvalidClientTokenId"),
        (&removed, "UnrecognizedClientException", "InvalidClientTokenId"),
        (&without_token, "UnrecognizedClientException", "InvalidClientTokenId"),
        (&foreign_token, "UnrecognizedClientException", "InvalidClientTokenId"),
        (&wrong_secret, "InvalidSignatureException", "SignatureDoesNotMatch"),
    ] {
        assert_eq!(code(stack.kms(keys).generate_random().number_of_bytes(8).send().await), kms);
        assert_eq!(code(stack.sts(keys).get_caller_identity().send().await), sts);
    }
    assert!(stack.kms(&session).generate_random().number_of_bytes(8).send().await.is_ok());
    stack.account.clock.advance(Duration::from_secs(200));
    assert!(stack.kms(&session).generate_random().number_of_bytes(8).send().await.is_ok());
    stack.account.clock.advance(Duration::from_secs(200));
    let skewed = stack.kms(&session).generate_random().number_of_bytes(8).send().await;
    assert_eq!(code(skewed), "InvalidSignatureException");

    let short = stack.account.session("signer", "short", None);
    let stack = Stack::start().await;
    let ends = stack.account.clock.now() + Duration::from_secs(60);
    let expired = stack.account.credentials.issue(short, Some(ends));
    stack.account.clock.advance(Duration::from_secs(60));
    assert_eq!(code(stack.kms(&expired).generate_random().number_of_bytes(8).send().await), "ExpiredTokenException");
    assert_eq!(code(stack.sts(&expired).get_caller_identity().send().await), "ExpiredToken");
}

#[tokio::test]
async fn a_request_without_signature_is_refused_before_anything_is_looked_at() {
    let stack = Stack::start().await;
    for (server, kind, body) in [
        (&stack.kms_server, "application/x-amz-json-1.1", r#"{"NumberOfBytes":8}"#),
        (&stack.sts_server, "application/x-www-form-urlencoded", "Action=GetCallerIdentity&Version=2011-06-15"),
    ] {
        let request = ::http::Request::post(format!("http://{}/", server.addr))
            .header("content-type", kind)
            .header("x-amz-target", "TrentService.GenerateRandom")
            .body(http_body_util::Full::from(body))
            .unwrap();
        let answer = http::send(request, None).await.unwrap();
        assert!(answer.status().is_client_error());
        assert_eq!(answer.headers()["x-amzn-requestid"].len(), 36);
        assert!(String::from_utf8_lossy(answer.body()).contains("MissingAuthenticationToken"));
    }
}

/// Sends a body that no SDK would build, with a right signature.
async fn send_signed(
    server: &Server,
    keys: &Keys,
    service: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String) {
    let now = time::OffsetDateTime::from(Clock::system().now());
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let timestamp = now.format(&format).unwrap();
    let date = timestamp.split('T').next().unwrap();
    let scope = format!("{date}/{REGION}/{service}/aws4_request");
    let mut sent: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    sent.extend([("host".to_owned(), server.addr.to_string()), ("x-amz-date".to_owned(), timestamp.clone())]);
    sent.sort();
    let signed: Vec<_> = sent.iter().map(|(name, _)| name.clone()).collect();
    let canonical = sigv4::canonical_request("POST", "/", "", &sent, &signed, &sigv4::sha256_hex(body));
    let key = sigv4::signing_key(&keys.secret_access_key, date, REGION, service);
    let signature = sigv4::signature(&key, &sigv4::string_to_sign(&timestamp, &scope, &canonical));
    let names = signed.join(";");
    let authorization = format!(
        "{} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        sigv4::ALGORITHM,
        keys.access_key_id
    );
    let mut request = ::http::Request::post(format!("http://{}/", server.addr)).header("authorization", authorization);
    for (name, value) in &sent {
        request = request.header(name, value);
    }
    let body = http_body_util::Full::from(body.to_vec());
    let answer = http::send(request.body(body).unwrap(), None).await.unwrap();
    assert!(answer.headers().contains_key("x-amzn-requestid"));
    (answer.status().as_u16(), String::from_utf8(answer.body().to_vec()).unwrap())
}

#[tokio::test]
async fn a_signed_body_that_is_no_request_is_refused_in_kms() {
    let stack = Stack::start().await;
    let keys = stack.operator();
    let json = ("content-type", "application/x-amz-json-1.1");
    let target = ("x-amz-target", "TrentService.GenerateRandom");
    let good: &[u8] = b"{\"NumberOfBytes\":8}";
    for (headers, body, wanted) in [
        (vec![json, target], good, None),
        (vec![json, target], b"" as &[u8], Some("SerializationException")),
        (vec![json, target], b"{", Some("SerializationException")),
        (vec![json, target], b"\xff\xfe", Some("SerializationException")),
        (vec![json, target], b"[8]", Some("SerializationException")),
        (vec![json, target], b"{\"NumberOfBytes\":\"8\"}", Some("SerializationException")),
        (vec![json, target], b"{\"NumberOfBytes\":8.5}", Some("SerializationException")),
        (vec![json, target], b"{\"NumberOfBytes\":8,\"Other\":1}", Some("ValidationException")),
        (vec![("content-type", "application/json"), target], good, Some("SerializationException")),
        (vec![json], good, Some("UnknownOperationException")),
        (vec![json, ("x-amz-target", "AmazonSSM.GenerateRandom")], good, Some("UnknownOperationException")),
        (vec![json, ("x-amz-target", "TrentService.generaterandom")], good, Some("UnknownOperationException")),
    ] {
        let (status, answer) = send_signed(&stack.kms_server, &keys, "kms", &headers, body).await;
        let shown = String::from_utf8_lossy(body);
        match wanted {
            None => assert_eq!(status, 200, "{shown}: {answer}"),
            Some(code) => assert!(status == 400 && answer.contains(code), "{shown}: {answer}"),
        }
    }
    let other = send_signed(&stack.kms_server, &keys, "s3", &[json, target], good).await;
    assert!(other.0 == 400 && other.1.contains("InvalidSignatureException"), "{other:?}");
}

#[tokio::test]
async fn a_signed_body_that_is_no_request_is_refused_in_sts() {
    let stack = Stack::start().await;
    let keys = stack.operator();
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (kind, body, wanted) in [
        (form, "Action=GetCallerIdentity&Version=2011-06-15", None),
        (form, "", Some("InvalidAction")),
        (form, "Action=GetCallerIdentity", Some("InvalidAction")),
        (form, "Action=GetCallerIdentity&Version=2010-05-08", Some("InvalidAction")),
        (form, "Version=2011-06-15", Some("InvalidAction")),
        (form, "Action=A%26B%3C%01&Version=2011-06-15", Some("A&amp;B&lt;\u{fffd}")),
        (form, "Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15", Some("MalformedInput")),
        (form, "Action=GetCallerIdentity&Version=2011-06-15&Other=1", Some("ValidationError")),
        (form, "Action=AssumeRole&Version=2011-06-15", Some("ValidationError")),
        (("content-type", "application/json"), "Action=GetCallerIdentity&Version=2011-06-15", Some("MalformedInput")),
    ] {
        let (status, answer) = send_signed(&stack.sts_server, &keys, "sts", &[kind], body.as_bytes()).await;
        match wanted {
            None => assert_eq!(status, 200, "{body}: {answer}"),
            Some(code) => assert!(status == 400 && answer.contains(code), "{body}: {answer}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_made_ahead_are_used_and_differ() {
    let stack = Stack::start().await;
    stack.kms.stock_up(KeySpec::EccNistP256, 2);
    let client = stack.kms(&stack.operator());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let create = client.create_key().key_spec(SdkKeySpec::EccNistP256).key_usage(KeyUsageType::SignVerify);
        let key = create.send().await.unwrap().key_metadata.unwrap().arn.unwrap();
        let public = client.get_public_key().key_id(key).send().await.unwrap().public_key.unwrap();
        assert!(seen.insert(public.into_inner()));
    }
}

#[tokio::test]
async fn faults_are_shown_when_asked_for() {
    let stack = Stack::start().await;
    let (kms, sts) = (stack.kms(&stack.operator()), stack.sts(&stack.operator()));
    stack.kms.faults().set(Faults { throttle_next: 1, ..Faults::default() });
    stack.sts.faults().set(Faults { unavailable: true, ..Faults::default() });
    assert_eq!(code(kms.generate_random().number_of_bytes(8).send().await), "ThrottlingException");
    assert!(kms.generate_random().number_of_bytes(8).send().await.is_ok());
    assert_eq!(code(sts.get_caller_identity().send().await), "ServiceUnavailable");
    stack.kms.faults().set(Faults { unavailable: true, ..Faults::default() });
    let error = kms.generate_random().number_of_bytes(8).send().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 500);
    assert_eq!(stack.kms.calls()["GenerateRandom"], 3);
    assert_eq!(stack.sts.calls()["GetCallerIdentity"], 1);
}

#[expect(deprecated, reason = "what older clients read is still answered")]
fn packed(answer: &aws_sdk_sts::operation::assume_role::AssumeRoleOutput) -> Option<i32> {
    answer.packed_policy_size()
}

#[tokio::test]
async fn a_trusted_role_gets_a_session_that_works_and_ends() {
    let stack = Stack::start().await;
    let signer = format!("arn:aws:iam::{ACCOUNT}:role/signer");
    let keys = stack.session("caller");
    let assume = |name: &str| stack.sts(&keys).assume_role().role_arn(&signer).role_session_name(name);
    let answer = assume("upload-1").duration_seconds(900).send().await.unwrap();
    assert_eq!(packed(&answer), None);
    let user = answer.assumed_role_user.unwrap();
    assert_eq!(user.arn(), format!("arn:aws:sts::{ACCOUNT}:assumed-role/signer/upload-1"));
    assert!(user.assumed_role_id().starts_with("AROA") && user.assumed_role_id().ends_with(":upload-1"));
    let issued = answer.credentials.unwrap();
    let keys_of = |issued: &aws_sdk_sts::types::Credentials| Keys {
        access_key_id: issued.access_key_id().to_owned(),
        secret_access_key: issued.secret_access_key().to_owned(),
        session_token: Some(issued.session_token().to_owned()),
        expires: None,
    };
    let session = keys_of(&issued);
    let told = stack.sts(&session).get_caller_identity().send().await.unwrap();
    assert_eq!((told.arn(), told.account()), (Some(user.arn()), Some(ACCOUNT)));
    assert_eq!(told.user_id(), Some(user.assumed_role_id()));
    assert!(stack.kms(&session).list_keys().send().await.is_ok());

    let policy = json!({
        "Version": "2012-10-17",
        "Statement": [{ "Effect": "Allow", "Action": ["kms:GenerateRandom", "kms:CreateKey"], "Resource": "*" }],
    });
    let answer = assume("narrow").policy(policy.to_string()).send().await.unwrap();
    assert!(packed(&answer).is_some_and(|size| (1..=100).contains(&size)));
    let narrow = stack.kms(&keys_of(&answer.credentials.unwrap()));
    assert!(narrow.generate_random().number_of_bytes(8).send().await.is_ok());
    assert_eq!(code(narrow.list_keys().send().await), "AccessDeniedException");
    assert_eq!(code(narrow.create_key().send().await), "AccessDeniedException");
}

#[tokio::test]
async fn a_session_that_may_not_be_is_refused() {
    let stack = Stack::start().await;
    let signer = format!("arn:aws:iam::{ACCOUNT}:role/signer");
    let absent = format!("arn:aws:iam::{ACCOUNT}:role/absent");
    let long = "x".repeat(65);
    let too_long_policy = format!("{{\"Version\":\"2012-10-17\",\"Statement\":[],\"Id\":\"{}\"}}", "x".repeat(2048));
    for (caller, role, name, seconds, policy, wanted) in [
        ("outsider", signer.as_str(), "ok", None, None, "AccessDenied"),
        ("signer", &signer, "ok", None, None, "AccessDenied"),
        ("data-key", &signer, "ok", None, None, "AccessDenied"),
        ("caller", &absent, "ok", None, None, "AccessDenied"),
        ("operator", &absent, "ok", None, None, "AccessDenied"),
        ("caller", "nonsense", "ok", None, None, "ValidationError"),
        ("caller", "arn:aws:iam::123456789012:user/signer", "ok", None, None, "ValidationError"),
        ("caller", &signer, "x", None, None, "ValidationError"),
        ("caller", &signer, &long, None, None, "ValidationError"),
        ("caller", &signer, "a b", None, None, "ValidationError"),
        ("caller", &signer, "a/b", None, None, "ValidationError"),
        ("caller", &signer, "ok", Some(899), None, "ValidationError"),
        ("caller", &signer, "ok", Some(3601), None, "ValidationError"),
        ("caller", &signer, "ok", Some(43_201), None, "ValidationError"),
        ("caller", &signer, "ok", Some(-1), None, "ValidationError"),
        ("caller", &signer, "ok", None, Some("{"), "MalformedPolicyDocument"),
        ("caller", &signer, "ok", None, Some("{\"Statement\":[{}]}"), "MalformedPolicyDocument"),
        ("caller", &signer, "ok", None, Some(too_long_policy.as_str()), "ValidationError"),
    ] {
        let keys = if caller == "operator" { stack.operator() } else { stack.session(caller) };
        let call = stack.sts(&keys).assume_role().role_arn(role).role_session_name(name);
        let call = call.set_duration_seconds(seconds).set_policy(policy.map(str::to_owned));
        assert_eq!(code(call.send().await), wanted, "{caller} {role} {name} {seconds:?} {policy:?}");
    }
    let tag = aws_sdk_sts::types::Tag::builder().key("a").value("b").build().unwrap();
    let keys = stack.session("caller");
    let tagged = stack.sts(&keys).assume_role().role_arn(&signer).role_session_name("ok").tags(tag).send().await;
    assert_eq!(code(tagged), "ValidationError");
    let unknown = stack.sts(&keys).get_session_token().send().await;
    assert_eq!(code(unknown), "InvalidAction");
}

#[tokio::test]
async fn saved_keys_serve_a_new_stack_of_the_same_account() {
    let first = Stack::start().await;
    let key = first.kms.create_key(KeySpec::Rsa2048, KeyUsage::SignVerify, &[("portcullis:signing", "dev")]).unwrap();
    first.kms.create_alias("alias/signing", &key).unwrap();
    let public = |stack: &Stack| {
        let client = stack.kms(&stack.operator());
        let key = key.clone();
        async move { client.get_public_key().key_id(key).send().await.unwrap().public_key.unwrap() }
    };
    let mut second = Stack::start().await;
    second.kms = Kms::load(Arc::clone(&second.account), &first.kms.save()).unwrap();
    second.kms_server = second.kms.serve(http::bind().await.unwrap()).await.unwrap();
    assert_eq!(public(&first).await, public(&second).await);
}
