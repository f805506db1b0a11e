use std::time::Duration;

use aws::Lazy;
use aws_runtime::auth::{HttpSignatureType, SigV4OperationSigningConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{Builder, ConfigBag, Credentials, IdentityCache, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption,
};
use aws_sigv4::http_request::SignableBody;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use shared::object::{Completion, ContentType, HeldPart, ObjectKey, PartStore, SignerSession, UploadId};
use shared::port::{Fault, FaultKind};

use crate::fault::{code, fault, status};

/// How long the signature of one call is good for: longer than a call takes with its retries.
const LIFE: Duration = Duration::from_secs(60);

/// How long making one object of many parts may take: S3 needs seconds for thousands of them, and asking again meanwhile would
/// only be told that it is being done. Less than what the function has.
const COMPLETION: Duration = Duration::from_secs(6);

/// Uploads in parts to one bucket, with a signer session's rights and with a signature in the query: the bucket takes no
/// other from a signer, whoever sends it.
#[derive(Clone, Debug)]
pub struct Parts {
    client: Lazy<Client>,
    bucket: String,
    bucket_key: String,
}

impl Parts {
    /// Takes the configuration of the service, the bucket's name and the key that its objects are encrypted under; opens
    /// nothing. Calls go the function's own way to S3, not the clients'.
    pub fn new(config: &SdkConfig, bucket: impl Into<String>, bucket_key: impl Into<String>) -> Parts {
        let config = config.clone();
        let client = Lazy::new(move || {
            let by_path = config.endpoint_url().is_some();
            // The default cache would keep every session ever used.
            let builder = Builder::from(&config).identity_cache(IdentityCache::no_cache());
            Client::from_conf(builder.force_path_style(by_path).build())
        });
        Parts { client, bucket: bucket.into(), bucket_key: bucket_key.into() }
    }
}

fn signed_by(session: &SignerSession) -> Builder {
    let token = Some(session.session_token.expose().to_owned()).filter(|token| !token.is_empty());
    let credentials =
        Credentials::new(&session.access_key_id, session.secret_access_key.expose(), token, None, "signer-session");
    Builder::new().credentials_provider(credentials)
}

/// Puts the signature into the query, as a URL that is handed out has it.
#[derive(Debug)]
struct InTheQuery;

impl Intercept for InTheQuery {
    fn name(&self) -> &'static str {
        "InTheQuery"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut signing = bag.load::<SigV4OperationSigningConfig>().cloned().ok_or("no signing configuration")?;
        signing.signing_options.expires_in = Some(LIFE);
        signing.signing_options.signature_type = HttpSignatureType::HttpRequestQueryParams;
        signing.signing_options.payload_override = Some(SignableBody::UnsignedPayload);
        bag.interceptor_state().store_put(signing);
        Ok(())
    }

    /// The one `x-amz-` header that the SDK sends and, in the query form, does not sign; S3 refuses what is not signed.
    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().remove("x-amz-user-agent");
        Ok(())
    }
}

impl PartStore for Parts {
    async fn begin(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        content_type: ContentType,
    ) -> Result<UploadId, Fault> {
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key.to_string())
            .content_type(content_type.declared())
            .server_side_encryption(ServerSideEncryption::AwsKms)
            .ssekms_key_id(&self.bucket_key)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_type(ChecksumType::Composite);
        let begun = request.customize().interceptor(InTheQuery).config_override(signed_by(session)).send().await;
        let begun = begun.map_err(|failure| fault("CreateMultipartUpload", &failure))?;
        // An answer that ended early is one that did not come.
        UploadId::parse(begun.upload_id.as_deref().unwrap_or_default())
            .map_err(|malformed| Fault::new(FaultKind::Unavailable, "s3", "CreateMultipartUpload").caused_by(malformed))
    }

    async fn parts(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
    ) -> Result<Option<Vec<HeldPart>>, Fault> {
        let (mut held, mut after) = (Vec::new(), None);
        loop {
            let request = self
                .client
                .list_parts()
                .bucket(&self.bucket)
                .key(key.to_string())
                .upload_id(upload.as_str())
                .set_part_number_marker(after);
            let page = request.customize().interceptor(InTheQuery).config_override(signed_by(session)).send().await;
            let page = match page {
                Ok(page) => page,
                Err(failure) if code(&failure) == Some("NoSuchUpload") => return Ok(None),
                Err(failure) => return Err(fault("ListParts", &failure)),
            };
            for part in page.parts() {
                held.push(HeldPart {
                    number: part.part_number().and_then(|number| u32::try_from(number).ok()).unwrap_or_default(),
                    size: part.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
                    sha256: part.checksum_sha256().map(str::to_owned),
                    etag: part.e_tag().unwrap_or_default().to_owned(),
                });
            }
            after = page.next_part_number_marker().map(str::to_owned);
            if page.is_truncated() != Some(true) || after.is_none() {
                return Ok(Some(held));
            }
        }
    }

    async fn complete(
        &self,
        session: &SignerSession,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[HeldPart],
    ) -> Result<Completion, Fault> {
        let invalid = || Fault::new(FaultKind::Invalid, "s3", "CompleteMultipartUpload");
        let mut list = CompletedMultipartUpload::builder();
        let mut size = 0_u64;
        for part in parts {
            size = size.saturating_add(part.size);
            let number = i32::try_from(part.number).map_err(|_| invalid())?;
            let completed = CompletedPart::builder().part_number(number).e_tag(&part.etag);
            list = list.parts(completed.set_checksum_sha256(part.sha256.clone()).build());
        }
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key.to_string())
            .upload_id(upload.as_str())
            .checksum_type(ChecksumType::Composite)
            .mpu_object_size(i64::try_from(size).map_err(|_| invalid())?)
            .if_none_match("*")
            .multipart_upload(list.build());
        let patient =
            TimeoutConfig::builder().operation_attempt_timeout(COMPLETION).operation_timeout(COMPLETION).build();
        let config = signed_by(session).timeout_config(patient);
        let done = request.customize().interceptor(InTheQuery).config_override(config).send().await;
        match done {
            Ok(_) => Ok(Completion::Done),
            Err(failure) if status(&failure) == Some(412) => Ok(Completion::There),
            Err(failure) if code(&failure) == Some("NoSuchUpload") => Ok(Completion::Gone),
            Err(failure) => Err(fault("CompleteMultipartUpload", &failure)),
        }
    }

    async fn abort(&self, session: &SignerSession, key: &ObjectKey, upload: &UploadId) -> Result<(), Fault> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(key.to_string());
        let request = request.upload_id(upload.as_str());
        let ended = request.customize().interceptor(InTheQuery).config_override(signed_by(session)).send().await;
        match ended {
            Ok(_) => Ok(()),
            Err(failure) if code(&failure) == Some("NoSuchUpload") => Ok(()),
            Err(failure) => Err(fault("AbortMultipartUpload", &failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_sdk_s3::config::retry::RetryConfig;
    use aws_sdk_s3::config::{BehaviorVersion, Region, SharedCredentialsProvider};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_types::body::SdkBody;
    use shared::clock::Timestamp;
    use shared::object::Sha256Digest;
    use shared::secret::SecretString;

    use super::*;

    const KEY: &str = "t/acme/01920000-0000-7000-8000-0000000000f1";
    const CANARY: &str = "canary-41d0";

    /// Method, URL, headers and body.
    type Asked = (String, String, Vec<(String, String)>, String);

    /// S3 as prepared answers, one after the other; keeps what it was asked.
    #[derive(Clone, Debug)]
    struct Wire {
        answers: Arc<Mutex<Vec<(u16, String)>>>,
        asked: Arc<Mutex<Vec<Asked>>>,
    }

    impl HttpConnector for Wire {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let headers = request.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned();
            self.asked.lock().unwrap().push((request.method().to_owned(), request.uri().to_owned(), headers, body));
            let (status, body) = self.answers.lock().unwrap().remove(0);
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body))))
        }
    }

    fn parts(answers: &[(u16, &str)]) -> (Parts, Wire) {
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let wire = Wire { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() };
        let client = wire.clone();
        let own = Credentials::new("AKIAFUNCTION", "own", Some("own-token".to_owned()), None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .retry_config(RetryConfig::disabled())
            .region(Region::new("us-east-1"))
            .endpoint_url("http://127.0.0.1:9")
            .credentials_provider(SharedCredentialsProvider::new(own))
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(client.clone())))
            .build();
        (Parts::new(&config, "objects", "arn:aws:kms:us-east-1:111122223333:key/k"), wire)
    }

    fn session() -> SignerSession {
        SignerSession {
            access_key_id: "ASIASIGNER".to_owned(),
            secret_access_key: SecretString::new(CANARY.to_owned()),
            session_token: SecretString::new("signer-token".to_owned()),
            issued_at: Timestamp::from_seconds(0),
            expires_at: Timestamp::from_seconds(900),
        }
    }

    fn key() -> ObjectKey {
        ObjectKey::parse(KEY).unwrap()
    }

    fn upload() -> UploadId {
        UploadId::parse("U").unwrap()
    }

    /// A call as the bucket demands of signers: signed in the query, by the session, every `x-amz-` header signed.
    fn is_a_signers(asked: &Asked) {
        let (_, url, headers, _) = asked;
        assert!(url.contains("X-Amz-Signature=") && url.contains("X-Amz-Credential=ASIASIGNER%2F"), "{url}");
        assert!(url.contains("X-Amz-Expires=60") && url.contains("X-Amz-Security-Token=signer-token"), "{url}");
        let signed = url.split(['?', '&']).find_map(|pair| pair.strip_prefix("X-Amz-SignedHeaders=")).unwrap();
        let signed = signed.replace("%3B", ";");
        for (name, _) in headers {
            assert_ne!(name, "authorization");
            assert!(!name.starts_with("x-amz-") || signed.split(';').any(|one| one == name), "{name} of {signed}");
        }
    }

    const BEGUN: &str = "<InitiateMultipartUploadResult><UploadId>U</UploadId></InitiateMultipartUploadResult>";
    const GONE: &str = "<Error><Code>NoSuchUpload</Code><Message>canary-text</Message></Error>";
    const SHUT: &str = "<Error><Code>PreconditionFailed</Code></Error>";

    #[tokio::test]
    async fn an_upload_begins_sealed_and_with_digests_in_the_signers_name() {
        let (store, wire) = parts(&[(200, BEGUN)]);
        let content_type = ContentType::parse("application/zip").unwrap();
        assert_eq!(store.begin(&session(), &key(), content_type).await.unwrap(), upload());
        let asked = wire.asked.lock().unwrap().remove(0);
        is_a_signers(&asked);
        assert!(
            asked.0 == "POST" && asked.1.starts_with(&format!("http://127.0.0.1:9/objects/{KEY}?uploads")),
            "{}",
            asked.1
        );
        for (name, value) in [
            ("content-type", "application/zip"),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption-aws-kms-key-id", "arn:aws:kms:us-east-1:111122223333:key/k"),
            ("x-amz-checksum-algorithm", "SHA256"),
            ("x-amz-checksum-type", "COMPOSITE"),
        ] {
            assert!(asked.2.iter().any(|(found, is)| found == name && is == value), "{name}");
        }
        assert!(!format!("{store:?}").contains(CANARY));
    }

    #[tokio::test]
    async fn an_answer_that_names_no_upload_has_not_come() {
        for answer in ["", "<InitiateMultipartUploadResult><Bucket>objects</Buck", "<InitiateMultipartUploadResult/>"] {
            let (store, _) = parts(&[(200, answer)]);
            let begun = store.begin(&session(), &key(), ContentType::parse("application/zip").unwrap()).await;
            assert_eq!(begun.unwrap_err().kind, FaultKind::Unavailable, "{answer}");
        }
    }

    #[tokio::test]
    async fn all_pages_of_parts_are_read() {
        let page = |number: u32, truncated: bool| {
            let next = format!("<NextPartNumberMarker>{number}</NextPartNumberMarker>");
            format!(
                "<ListPartsResult><IsTruncated>{truncated}</IsTruncated>{next}<Part><PartNumber>{number}</PartNumber><Size>7</Size><ETag>&quot;e{number}&quot;</ETag><ChecksumSHA256>digest</ChecksumSHA256></Part></ListPartsResult>"
            )
        };
        let (store, wire) = parts(&[(200, &page(1, true)), (200, &page(2, false))]);
        let held = store.parts(&session(), &key(), &upload()).await.unwrap().unwrap();
        assert_eq!(held.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(), [(1, 7), (2, 7)]);
        assert_eq!((held[0].etag.as_str(), held[0].sha256.as_deref()), ("\"e1\"", Some("digest")));
        {
            let asked = wire.asked.lock().unwrap();
            asked.iter().for_each(is_a_signers);
            assert!(asked[1].1.contains("part-number-marker=1"), "{}", asked[1].1);
        }
        assert_eq!(parts(&[(404, GONE)]).0.parts(&session(), &key(), &upload()).await.unwrap(), None);
        let denied = parts(&[(403, SHUT)]).0.parts(&session(), &key(), &upload()).await.unwrap_err();
        assert_eq!(denied.kind, FaultKind::Denied);
    }

    #[tokio::test]
    async fn an_object_is_made_once_of_the_parts_that_are_named() {
        let one = HeldPart {
            number: 1,
            size: 7,
            sha256: Some(Sha256Digest::of(b"the end").to_string()),
            etag: "\"e1\"".to_owned(),
        };
        let done = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
        for (answer, want) in [
            ((200, done), Ok(Completion::Done)),
            ((412, SHUT), Ok(Completion::There)),
            ((404, GONE), Ok(Completion::Gone)),
            ((409, "<Error><Code>ConditionalRequestConflict</Code></Error>"), Err(FaultKind::Conflict)),
            ((400, "<Error><Code>InvalidPart</Code></Error>"), Err(FaultKind::Invalid)),
            ((503, "<Error><Code>SlowDown</Code></Error>"), Err(FaultKind::Throttled)),
        ] {
            let (store, wire) = parts(&[answer]);
            let ended = store.complete(&session(), &key(), &upload(), std::slice::from_ref(&one)).await;
            assert_eq!(ended.map_err(|fault| fault.kind), want, "{answer:?}");
            let asked = wire.asked.lock().unwrap().remove(0);
            is_a_signers(&asked);
            assert!(asked.2.iter().any(|(name, value)| name == "if-none-match" && value == "*"));
            assert!(asked.2.iter().any(|(name, value)| name == "x-amz-mp-object-size" && value == "7"));
            assert!(asked.3.contains(&Sha256Digest::of(b"the end").to_string()), "{}", asked.3);
        }
    }

    #[tokio::test]
    async fn an_upload_that_is_gone_is_ended() {
        for answer in [(204, ""), (404, GONE)] {
            let (store, wire) = parts(&[answer]);
            store.abort(&session(), &key(), &upload()).await.unwrap();
            is_a_signers(&wire.asked.lock().unwrap()[0]);
        }
        let failed = parts(&[(403, SHUT)]).0.abort(&session(), &key(), &upload()).await.unwrap_err();
        assert!(failed.kind == FaultKind::Denied && !format!("{failed:?}").contains("canary-text"));
    }
}
