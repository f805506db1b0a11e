//! A KMS that answers from a list and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use base64::Engine as _;
use serde_json::Value;

pub(crate) const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
pub(crate) const OTHER_ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/00000000-12ab-34cd-56ef-1234567890ab";

pub(crate) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
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

    pub(crate) fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "AKID", "secret", None, None, "test",
            )))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .retry_config(RetryConfig::disabled())
            .time_source(aws_smithy_async::time::StaticTimeSource::from_secs(1_700_000_000))
            .build()
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
