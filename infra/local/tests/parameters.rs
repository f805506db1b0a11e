//! SSM as AWS's own client sees it, over HTTP with real signatures and the roles' policies.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail it by panicking")]

use std::{sync::Arc, time::Duration};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_ssm::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
    types::{ParameterTier, ParameterType},
};
use aws_types::{SdkConfig, region::Region, sdk_config::RetryConfig};
use local::{
    account::{Account, Keys},
    clock::Clock,
    faults::Faults,
    http::{self, Server},
    kms::{KeySpec, KeyUsage, Kms},
    policy::Iam,
    ssm::Ssm,
    template::RoleSpec,
};
use serde_json::json;

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";

struct Stack {
    account: Arc<Account>,
    kms: Arc<Kms>,
    ssm: Arc<Ssm>,
    server: Server,
    key: String,
}

impl Stack {
    async fn start() -> Self {
        let arn = format!("arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/app/x");
        let policy = |statements| json!({ "Version": "2012-10-17", "Statement": statements });
        let reader = RoleSpec {
            boundary: None,
            name: "reader".to_owned(),
            arn: format!("arn:aws:iam::{ACCOUNT}:role/reader"),
            policies: vec![policy(json!([
                { "Effect": "Allow", "Action": "ssm:GetParameter", "Resource": arn },
                { "Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*", "Condition": {
                    "StringEquals": { "kms:EncryptionContext:PARAMETER_ARN": arn, "kms:ViaService": "ssm.us-east-1.amazonaws.com" },
                } },
            ]))],
            trust: policy(json!([{
                "Effect": "Allow", "Principal": { "Service": "lambda.amazonaws.com" }, "Action": "sts:AssumeRole",
            }])),
        };
        let account = Arc::new(Account::new(Iam::new(ACCOUNT, REGION, Clock::system(), &[reader]).unwrap()));
        let kms = Kms::new(Arc::clone(&account));
        let key = kms.create_key(KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, &[]).unwrap();
        kms.create_service_alias("ssm", &key).unwrap();
        let ssm = Ssm::new(Arc::clone(&account), Arc::clone(&kms));
        let server = ssm.serve(http::bind().await.unwrap()).await.unwrap();
        Self { account, kms, ssm, server, key }
    }

    fn client(&self, keys: &Keys) -> Client {
        self.client_in(keys, REGION)
    }

    fn client_in(&self, keys: &Keys, region: &'static str) -> Client {
        let Keys { access_key_id, secret_access_key, session_token, .. } = keys.clone();
        let credentials = Credentials::from_keys(access_key_id, secret_access_key, session_token);
        let config = SdkConfig::builder()
            .behavior_version(aws_sdk_ssm::config::BehaviorVersion::latest())
            .region(Region::from_static(region))
            .endpoint_url(format!("http://{}", self.server.addr))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(aws::http_client(aws::Trust::amazon()))
            .retry_config(RetryConfig::disabled())
            .build();
        Client::new(&config)
    }

    fn operator(&self) -> Client {
        self.client(&self.account.credentials.issue(self.account.operator(), None))
    }

    fn reader(&self) -> Client {
        let hour = self.account.clock.now() + Duration::from_secs(3600);
        self.client(&self.account.credentials.issue(self.account.session("reader", "test", None), Some(hour)))
    }
}

#[track_caller]
fn code<T, E: ProvideErrorMetadata>(outcome: Result<T, SdkError<E>>) -> (String, u16) {
    let Err(error) = outcome else { panic!("it was answered") };
    let status = error.raw_response().unwrap().status().as_u16();
    (error.into_service_error_code(), status)
}

trait Code {
    fn into_service_error_code(self) -> String;
}

impl<E: ProvideErrorMetadata> Code for SdkError<E> {
    fn into_service_error_code(self) -> String {
        self.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn the_sdk_puts_reads_labels_lists_and_deletes() {
    let stack = Stack::start().await;
    let ssm = stack.operator();
    let put = ssm.put_parameter().name("/app/x").value("one").r#type(ParameterType::SecureString).key_id(&stack.key);
    let answer = put.send().await.unwrap();
    assert!(answer.request_id().is_some());
    assert_eq!((answer.version, answer.tier), (1, Some(ParameterTier::Standard)));
    ssm.put_parameter().name("/app/x").value("two").overwrite(true).send().await.unwrap();
    ssm.label_parameter_version().name("/app/x").parameter_version(1).labels("old").send().await.unwrap();
    for (name, selector, value) in
        [("/app/x", None, "two"), ("/app/x:1", Some(":1"), "one"), ("/app/x:old", Some(":old"), "one")]
    {
        let found = ssm.get_parameter().name(name).with_decryption(true).send().await.unwrap().parameter.unwrap();
        assert_eq!((found.name.as_deref(), found.selector.as_deref()), (Some("/app/x"), selector));
        assert_eq!((found.value.as_deref(), found.r#type), (Some(value), Some(ParameterType::SecureString)));
        assert_eq!(found.arn, Some(format!("arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/app/x")));
        assert!(found.last_modified_date.is_some());
    }
    let several = ssm.get_parameters().names("/app/x").names("/app/none").send().await.unwrap();
    assert_eq!((several.parameters().len(), several.invalid_parameters()), (1, &["/app/none".to_owned()][..]));
    let history = ssm.get_parameter_history().name("/app/x").with_decryption(true).send().await.unwrap();
    let values: Vec<_> = history.parameters().iter().filter_map(|version| version.value()).collect();
    assert_eq!(values, ["one", "two"]);
    for number in 0..11 {
        let put = ssm.put_parameter().name(format!("/many/{number:02}")).value("v").r#type(ParameterType::String);
        put.send().await.unwrap();
    }
    let mut pages = ssm.get_parameters_by_path().path("/many").max_results(4).into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        names.extend(page.unwrap().parameters.unwrap_or_default().into_iter().filter_map(|found| found.name));
    }
    assert_eq!((names.len(), names.first().map(String::as_str)), (11, Some("/many/00")));
    ssm.delete_parameter().name("/app/x").send().await.unwrap();
    assert_eq!(code(ssm.get_parameter().name("/app/x").send().await), ("ParameterNotFound".to_owned(), 400));
    assert_eq!(stack.ssm.calls()["GetParameter"], 4);
}

#[tokio::test]
async fn a_role_opens_its_own_parameter_with_its_own_right_on_the_key() {
    let stack = Stack::start().await;
    for name in ["/app/x", "/app/y"] {
        let put = stack.operator().put_parameter().name(name).value("v").r#type(ParameterType::SecureString);
        put.send().await.unwrap();
    }
    let reader = stack.reader();
    let get = |name: &str| reader.get_parameter().name(name).with_decryption(true).send();
    assert_eq!(get("/app/x").await.unwrap().parameter.unwrap().value.as_deref(), Some("v"));
    assert_eq!(code(get("/app/y").await).0, "AccessDeniedException");
    assert_eq!(code(reader.get_parameters_by_path().path("/app").send().await).0, "AccessDeniedException");
    let input = json!({ "KeyId": stack.key });
    stack.kms.perform(&stack.account.operator(), None, "DisableKey", &input).unwrap();
    assert_eq!(code(get("/app/x").await).0, "InvalidKeyId");
    let decisions = stack.account.iam.trail();
    let decrypt = decisions.iter().find(|entry| entry.action == "kms:Decrypt").unwrap();
    assert!(decrypt.allowed && decrypt.principal.contains("assumed-role/reader") && decrypt.resource == stack.key);
}

#[tokio::test]
async fn strangers_and_wrong_signatures_are_refused() {
    let stack = Stack::start().await;
    let keys = stack.account.credentials.issue(stack.account.operator(), None);
    let other = Keys { secret_access_key: "x".repeat(40), ..keys.clone() };
    let unknown = Keys { access_key_id: "AKIAAAAAAAAAAAAAAAAA".to_owned(), ..keys.clone() };
    for (client, expected) in [
        (stack.client(&other), "InvalidSignatureException"),
        (stack.client(&unknown), "UnrecognizedClientException"),
        (stack.client_in(&keys, "eu-west-1"), "InvalidSignatureException"),
    ] {
        assert_eq!(code(client.get_parameter().name("/app/x").send().await).0, expected);
    }
    let missing = code(stack.operator().describe_parameters().send().await);
    assert_eq!(missing, ("UnknownOperationException".to_owned(), 400));
}

#[tokio::test]
async fn faults_are_throttling_an_outage_and_slowness() {
    let stack = Stack::start().await;
    let ssm = stack.operator();
    let get = || ssm.get_parameter().name("/app/x").send();
    stack.ssm.faults().set(Faults { throttle_next: 1, ..Faults::default() });
    assert_eq!(code(get().await), ("ThrottlingException".to_owned(), 400));
    assert_eq!(code(get().await).0, "ParameterNotFound");
    stack.ssm.faults().set(Faults { unavailable: true, ..Faults::default() });
    assert_eq!(code(get().await), ("InternalServerError".to_owned(), 500));
    let latency = Duration::from_millis(30);
    stack.ssm.faults().set(Faults { latency, ..Faults::default() });
    let since = std::time::Instant::now();
    assert_eq!(code(get().await).0, "ParameterNotFound");
    assert!(since.elapsed() >= latency);
    assert_eq!(stack.ssm.calls()["GetParameter"], 4);
}
