//! An SSM that answers from a list and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{AsyncSleep, SharedAsyncSleep, Sleep};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use aws_types::region::Region;
use serde_json::{Value, json};
use shared::name::ParameterPath;
pub(crate) use testkit::VirtualTime;

pub(crate) fn path() -> ParameterPath {
    ParameterPath::parse("/portcullis/signing/dev").unwrap()
}

/// What SSM answers for a SecureString.
pub(crate) fn parameter(name: &str, value: &str) -> (u16, Value) {
    (200, json!({"Parameter": {"Name": name, "Type": "SecureString", "Value": value, "Version": 1}}))
}

pub(crate) fn refusal(code: &str) -> (u16, Value) {
    (400, json!({"__type": code, "message": "words of the service"}))
}

/// A client configuration whose calls go to `connector` and whose pauses are those of `time`.
pub(crate) fn config(connector: impl HttpConnector + 'static, time: &VirtualTime) -> SdkConfig {
    let connector = SharedHttpConnector::new(connector);
    let credentials = Credentials::new("AKID", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client_fn(move |_, _| connector.clone()))
        .sleep_impl(SharedAsyncSleep::new(Pauses(time.clone())))
        .retry_config(aws_sdk_ssm::config::retry::RetryConfig::disabled())
        .time_source(aws_smithy_async::time::StaticTimeSource::from_secs(1_700_000_000))
        .build()
}

#[derive(Clone, Debug)]
pub(crate) struct Answers(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    next: VecDeque<(u16, Value)>,
    calls: Vec<(String, Value)>,
}

impl Answers {
    pub(crate) fn new(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        Self(Arc::new(Mutex::new(State { next: answers.into_iter().collect(), calls: Vec::new() })))
    }

    /// Each call's target and body.
    pub(crate) fn calls(&self) -> Vec<(String, Value)> {
        self.0.lock().unwrap().calls.clone()
    }

    /// From now on it answers these.
    pub(crate) fn replace(&self, answers: impl IntoIterator<Item = (u16, Value)>) {
        self.0.lock().unwrap().next = answers.into_iter().collect();
    }

    pub(crate) fn config(&self) -> SdkConfig {
        config(self.clone(), &VirtualTime::default())
    }
}

impl HttpConnector for Answers {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let body = serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default();
        let mut state = self.0.lock().unwrap();
        state.calls.push((target, body));
        HttpConnectorFuture::ready(match state.next.pop_front() {
            Some((status, answer)) => {
                Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(answer.to_string())))
            }
            None => Err(ConnectorError::io("nobody answers".into())),
        })
    }
}

/// The pauses of a [`VirtualTime`].
#[derive(Clone, Debug)]
pub(crate) struct Pauses(pub(crate) VirtualTime);

impl AsyncSleep for Pauses {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(self.0.sleep(duration))
    }
}
