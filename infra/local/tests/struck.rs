//! Each kind of fault that a plan knows, as AWS's own client sees it.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it by panicking")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_ssm::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::ParameterType,
};
use aws_types::{SdkConfig, region::Region, sdk_config::RetryConfig};
use local::{
    account::Account,
    clock::Clock,
    http::{self, Server},
    kms::Kms,
    policy::Iam,
    ssm::Ssm,
};

const REGION: &str = "us-east-1";

struct Stack {
    account: Arc<Account>,
    ssm: Arc<Ssm>,
    client: Client,
    _server: Server,
}

impl Stack {
    async fn start() -> Self {
        let account = Arc::new(Account::new(Iam::new("123456789012", REGION, Clock::system(), &[]).unwrap()));
        let ssm = Ssm::new(Arc::clone(&account), Kms::new(Arc::clone(&account)));
        let server = ssm.serve(http::bind().await.unwrap()).await.unwrap();
        let keys = account.credentials.issue(account.operator(), None);
        let config = SdkConfig::builder()
            .behavior_version(aws_sdk_ssm::config::BehaviorVersion::latest())
            .region(Region::from_static(REGION))
            .endpoint_url(format!("http://{}", server.addr))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::from_keys(
                keys.access_key_id,
                keys.secret_access_key,
                None,
            )))
            .http_client(aws::http_client(aws::Trust::amazon()))
            .retry_config(RetryConfig::disabled())
            .build();
        Self { account, ssm, client: Client::new(&config), _server: server }
    }

    fn faults(&self, text: &str) {
        self.account.faults.replace(text, Some(1)).unwrap();
    }

    async fn put(&self, value: &str) -> String {
        let put = self.client.put_parameter().name("/a/b").value(value).r#type(ParameterType::String).overwrite(true);
        told(put.send().await.map(|_| "done".to_owned()))
    }

    async fn get(&self) -> String {
        let got = self.client.get_parameter().name("/a/b").send().await;
        told(got.map(|got| got.parameter.and_then(|parameter| parameter.value).unwrap_or_default()))
    }
}

/// The value, the service's code, or how the call broke.
fn told<E: ProvideErrorMetadata, R>(outcome: Result<String, SdkError<E, R>>) -> String {
    match outcome {
        Ok(value) => value,
        Err(SdkError::ServiceError(error)) => error.err().code().unwrap_or("no code").to_owned(),
        Err(SdkError::DispatchFailure(_)) => "no answer".to_owned(),
        Err(SdkError::ResponseError(_)) => "no whole answer".to_owned(),
        Err(_) => "another error".to_owned(),
    }
}

#[tokio::test]
async fn each_kind_is_what_it_is_called_and_ends_with_its_rule() {
    let stack = Stack::start().await;
    assert_eq!(stack.put("one").await, "done");
    for (rule, wanted) in [
        ("ssm.GetParameter throttle first=1", "ThrottlingException"),
        ("ssm 5xx first=1", "InternalServerError"),
        ("* expired first=1", "ExpiredTokenException"),
        ("ssm reset first=1", "no answer"),
        ("ssm lost first=1", "no answer"),
    ] {
        stack.faults(rule);
        assert_eq!(stack.get().await, wanted, "{rule}");
        assert_eq!(stack.get().await, "one", "after {rule}");
        assert_eq!(stack.account.faults.told()["rules"][0]["struck"], 1, "{rule}");
    }
    for rule in ["ssm cut first=1", "ssm wrong first=1"] {
        stack.faults(rule);
        assert_ne!(stack.get().await, "one-", "{rule}");
        assert_eq!(stack.account.faults.told()["rules"][0]["struck"], 1, "{rule}");
        assert_eq!(stack.get().await, "one", "after {rule}");
    }
    stack.faults("ssm cut first=1");
    assert!(["no whole answer", "another error"].contains(&stack.get().await.as_str()));
    stack.faults("kms 5xx; s3 reset; ssm.PutParameter throttle; db refuse");
    assert_eq!(stack.get().await, "one", "what does not fit does not strike");
    stack.faults("ssm latency=80ms");
    let since = Instant::now();
    assert_eq!(stack.get().await, "one");
    assert!(since.elapsed() >= Duration::from_millis(80));
}

#[tokio::test]
async fn a_lost_answer_is_of_a_call_that_was_done_and_a_reset_of_one_that_was_not() {
    let stack = Stack::start().await;
    assert_eq!(stack.put("one").await, "done");
    stack.faults("ssm.PutParameter reset first=1");
    assert_eq!((stack.put("two").await.as_str(), stack.get().await.as_str()), ("no answer", "one"));
    stack.faults("ssm.PutParameter lost first=1");
    assert_eq!((stack.put("three").await.as_str(), stack.get().await.as_str()), ("no answer", "three"));
    assert_eq!(stack.ssm.calls().get("PutParameter"), Some(&2), "the one that was reset never arrived");
}

#[tokio::test]
async fn a_stale_read_answers_what_was_and_a_write_is_never_stale() {
    let stack = Stack::start().await;
    assert_eq!(stack.put("one").await, "done");
    stack.faults("ssm stale=1h");
    assert_eq!(stack.get().await, "one");
    assert_eq!(stack.put("two").await, "done");
    assert_eq!(stack.get().await, "one");
    stack.faults("ssm stale=1ms");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(stack.get().await, "two");
    stack.faults("ssm stale=1h");
    assert_eq!(stack.put("three").await, "done");
    stack.faults("");
    assert_eq!(stack.get().await, "three");
}

#[tokio::test]
async fn a_clock_that_goes_another_way_is_found_out_by_the_client_and_corrected() {
    let stack = Stack::start().await;
    assert_eq!(stack.put("one").await, "done");
    for rule in ["clock skew=+20m", "clock skew=-20m", ""] {
        stack.faults(rule);
        assert_eq!(stack.get().await, "InvalidSignatureException", "{rule}");
        // By the `Date` of the refusal.
        assert_eq!(stack.get().await, "one", "{rule}");
    }
}

#[tokio::test]
async fn one_seed_strikes_the_same_calls_again() {
    let stack = Stack::start().await;
    assert_eq!(stack.put("one").await, "done");
    let mut runs = Vec::new();
    for seed in [7, 7, 8] {
        stack.account.faults.replace("ssm.GetParameter throttle 30%", Some(seed)).unwrap();
        let mut answers = Vec::new();
        for _ in 0..60 {
            answers.push(stack.get().await);
        }
        runs.push(answers);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    assert!(runs[0].contains(&"ThrottlingException".to_owned()) && runs[0].contains(&"one".to_owned()));
}
