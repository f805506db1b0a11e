use aws::Lazy;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use aws_types::SdkConfig;
use shared::object::{Head, ObjectHead, ObjectKey, ObjectStore, Sha256Digest, Sha256Hasher, UploadId, VersionId};
use shared::port::{Fault, FaultKind, ObjectReader, ObjectWriter, Precondition, Read, Written};

use crate::fault::{code, fault, status};

/// The largest object that is read whole, in bytes.
const LARGEST: i64 = 32 * 1024 * 1024;

/// One bucket, reached with the function's own role.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Lazy<Client>,
    name: String,
}

impl Bucket {
    /// Takes the configuration of the service and the bucket's name; opens nothing. An explicit endpoint is addressed by
    /// path, because a bucket is no host name of a machine.
    pub fn new(config: &SdkConfig, name: impl Into<String>) -> Bucket {
        let config = config.clone();
        let client = Lazy::new(move || {
            let by_path = config.endpoint_url().is_some();
            Client::from_conf(Builder::from(&config).force_path_style(by_path).build())
        });
        Bucket { client, name: name.into() }
    }
}

impl ObjectReader for Bucket {
    async fn read(&self, key: &str, known: Option<&str>) -> Result<Read, Fault> {
        let request = self.client.get_object().bucket(&self.name).key(key).set_if_none_match(known.map(str::to_owned));
        let found = match request.send().await {
            Ok(found) => found,
            // 304 is no success to the SDK, and no variant of its error either.
            Err(failure) if status(&failure) == Some(304) && known.is_some() => return Ok(Read::Unchanged),
            Err(failure) if failure.as_service_error().is_some_and(|error| error.is_no_such_key()) => {
                return Ok(Read::Missing);
            }
            Err(failure) => return Err(fault("GetObject", &failure)),
        };
        if found.content_length().is_some_and(|length| length > LARGEST) {
            return Err(Fault::new(FaultKind::Invalid, "s3", "GetObject").caused_by("object too large"));
        }
        let etag = found.e_tag().unwrap_or_default().to_owned();
        let body = found.body.collect().await;
        let body =
            body.map_err(|error| Fault::new(FaultKind::Unavailable, "s3", "GetObject").caused_by(error.to_string()))?;
        Ok(Read::Found { body: body.to_vec(), etag })
    }
}

impl ObjectWriter for Bucket {
    async fn write(&self, key: &str, body: Vec<u8>, when: Precondition) -> Result<Written, Fault> {
        let request = self.client.put_object().bucket(&self.name).key(key).body(ByteStream::from(body));
        let (request, update) = match when {
            Precondition::Always => (request, false),
            Precondition::Absent => (request.if_none_match("*"), false),
            Precondition::Matches(etag) => (request.if_match(etag), true),
        };
        match request.send().await {
            Ok(stored) => Ok(Written::Stored { etag: stored.e_tag().unwrap_or_default().to_owned() }),
            Err(failure) if status(&failure) == Some(412) => Ok(Written::PreconditionFailed),
            // S3's word for If-Match on a key that is gone.
            Err(failure)
                if update && failure.as_service_error().and_then(ProvideErrorMetadata::code) == Some("NoSuchKey") =>
            {
                Ok(Written::PreconditionFailed)
            }
            Err(failure) => Err(fault("PutObject", &failure)),
        }
    }
}

impl ObjectStore for Bucket {
    async fn head(&self, key: &ObjectKey, version: &VersionId) -> Result<Head, Fault> {
        let request = self.client.head_object().bucket(&self.name).key(key.to_string());
        let found = match request.version_id(version.as_str()).checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(found) => found,
            Err(failure) if status(&failure) == Some(404) => return Ok(Head::Missing),
            Err(failure) => return Err(fault("HeadObject", &failure)),
        };
        // Nothing is known of an object whose length nobody says: it is not one of no bytes, which would be held against its file for ever.
        let size = found.content_length().ok_or_else(|| {
            Fault::new(FaultKind::Unavailable, "s3", "HeadObject").caused_by("the answer says no length")
        })?;
        Ok(Head::Found(ObjectHead {
            version: found.version_id().unwrap_or_default().to_owned(),
            etag: found.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
            size,
            content_type: found.content_type().map(str::to_owned),
            sha256: found.checksum_sha256().map(str::to_owned),
            encryption: found.server_side_encryption().map(|algorithm| algorithm.as_str().to_owned()),
            encryption_key: found.ssekms_key_id().map(str::to_owned),
        }))
    }

    async fn newest(&self, key: &ObjectKey) -> Result<Option<VersionId>, Fault> {
        let found = match self.client.head_object().bucket(&self.name).key(key.to_string()).send().await {
            Ok(found) => found,
            // Whoever may not list the bucket is told 403 of what is not there.
            Err(failure) if matches!(status(&failure), Some(403 | 404)) => return Ok(None),
            Err(failure) => return Err(fault("HeadObject", &failure)),
        };
        let version = VersionId::parse(found.version_id().unwrap_or_default());
        version.map(Some).map_err(|malformed| Fault::new(FaultKind::Invalid, "s3", "HeadObject").caused_by(malformed))
    }

    async fn hash(&self, key: &ObjectKey, version: &VersionId) -> Result<Option<Sha256Digest>, Fault> {
        let request = self.client.get_object().bucket(&self.name).key(key.to_string());
        let mut found = match request.version_id(version.as_str()).send().await {
            Ok(found) => found,
            Err(failure) if status(&failure) == Some(404) => return Ok(None),
            Err(failure) => return Err(fault("GetObject", &failure)),
        };
        let broken = |cause: String| Fault::new(FaultKind::Unavailable, "s3", "GetObject").caused_by(cause);
        let announced = found.content_length().and_then(|length| u64::try_from(length).ok());
        let (mut hasher, mut taken) = (Sha256Hasher::default(), 0_u64);
        while let Some(piece) = found.body.next().await {
            let piece = piece.map_err(|error| broken(error.to_string()))?;
            taken = taken.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            hasher.update(&piece);
        }
        if announced != Some(taken) {
            return Err(broken("the body ended early".to_owned()));
        }
        Ok(Some(hasher.finish()))
    }

    async fn start(&self, key: &ObjectKey, version: &VersionId, longest: u32) -> Result<Option<Vec<u8>>, Fault> {
        let Some(last) = longest.checked_sub(1) else { return Ok(Some(Vec::new())) };
        let request = self.client.get_object().bucket(&self.name).key(key.to_string()).version_id(version.as_str());
        let found = match request.range(format!("bytes=0-{last}")).send().await {
            Ok(found) => found,
            Err(failure) if status(&failure) == Some(404) => return Ok(None),
            Err(failure) => return Err(fault("GetObject", &failure)),
        };
        // Whoever answers with the whole has not understood, and the whole may be anything in size.
        if found.content_length().is_none_or(|length| length > i64::from(longest)) {
            return Err(Fault::new(FaultKind::Invalid, "s3", "GetObject").caused_by("more than was asked for"));
        }
        let broken = |cause: String| Fault::new(FaultKind::Unavailable, "s3", "GetObject").caused_by(cause);
        let announced = found.content_range().and_then(bytes_of_start);
        let body = found.body.collect().await.map_err(|error| broken(error.to_string()))?.to_vec();
        // The first half of them would be other first bytes, and what they tell is held against the file for ever.
        if announced != Some(body.len()) {
            return Err(broken("the body is not as long as its range".to_owned()));
        }
        Ok(Some(body))
    }

    async fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), Fault> {
        let request = self.client.abort_multipart_upload().bucket(&self.name).key(key.to_string());
        match request.upload_id(upload.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(failure) if code(&failure) == Some("NoSuchUpload") => Ok(()),
            Err(failure) => Err(fault("AbortMultipartUpload", &failure)),
        }
    }

    async fn delete(&self, key: &ObjectKey, version: &VersionId) -> Result<(), Fault> {
        let request = self.client.delete_object().bucket(&self.name).key(key.to_string());
        match request.version_id(version.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(failure)
                if failure.as_service_error().and_then(ProvideErrorMetadata::code) == Some("NoSuchVersion") =>
            {
                Ok(())
            }
            Err(failure) => Err(fault("DeleteObject", &failure)),
        }
    }
}

/// How many bytes an answer about the beginning of an object holds: `Content-Range: bytes 0-1023/4096` (RFC 9110 §14.4).
fn bytes_of_start(range: &str) -> Option<usize> {
    let (last, whole) = range.strip_prefix("bytes 0-")?.split_once('/')?;
    let (last, whole) = (last.parse::<usize>().ok()?, whole.parse::<usize>().ok()?);
    (last < whole).then_some(last + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_sdk_s3::config::retry::RetryConfig;
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    const KEY: &str = "t/acme/01920000-0000-7000-8000-0000000000f1";

    /// Status, headers and body; `None` is no answer at all.
    type Answer = Option<(u16, Vec<(&'static str, &'static str)>, &'static str)>;
    /// Method, URL and headers.
    type Asked = (String, String, Vec<(String, String)>);

    /// S3 as a single prepared answer; keeps what it was asked.
    #[derive(Clone, Debug)]
    struct Wire {
        answer: Answer,
        asked: Arc<Mutex<Vec<Asked>>>,
    }

    impl HttpConnector for Wire {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let headers = request.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            self.asked.lock().unwrap().push((request.method().to_owned(), request.uri().to_owned(), headers));
            let Some((status, headers, body)) = &self.answer else {
                return HttpConnectorFuture::ready(Err(ConnectorError::io("connection refused".into())));
            };
            let mut response = HttpResponse::new((*status).try_into().unwrap(), SdkBody::from(*body));
            for (name, value) in headers {
                response.headers_mut().insert(*name, *value);
            }
            HttpConnectorFuture::ready(Ok(response))
        }
    }

    fn bucket(answer: Answer) -> (Bucket, Wire) {
        let wire = Wire { answer, asked: Arc::default() };
        let client = wire.clone();
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .retry_config(RetryConfig::disabled())
            .region(Region::new("us-east-1"))
            .endpoint_url("http://127.0.0.1:9")
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "AKIAEXAMPLE",
                "s",
                None,
                None,
                "test",
            )))
            .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(client.clone())))
            .build();
        (Bucket::new(&config, "trust-bucket"), wire)
    }

    fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
        headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    const NO_SUCH_KEY: &str = "<Error><Code>NoSuchKey</Code><Message>x</Message></Error>";
    const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>canary-77</Message></Error>";

    #[tokio::test]
    async fn a_conditional_read_tells_unchanged_found_and_missing_apart() {
        let (store, wire) = bucket(Some((304, vec![], "")));
        assert_eq!(store.read("trust/keys.json", Some("\"e1\"")).await.unwrap(), Read::Unchanged);
        let asked = wire.asked.lock().unwrap().remove(0);
        assert!(asked.1.starts_with("http://127.0.0.1:9/trust-bucket/trust/keys.json"), "{}", asked.1);
        assert_eq!(header(&asked.2, "if-none-match"), Some("\"e1\""));

        let (store, wire) = bucket(Some((200, vec![("etag", "\"e2\"")], "{}")));
        let want = Read::Found { body: b"{}".to_vec(), etag: "\"e2\"".to_owned() };
        assert_eq!(store.read("trust/keys.json", None).await.unwrap(), want);
        assert_eq!(header(&wire.asked.lock().unwrap()[0].2, "if-none-match"), None);

        assert_eq!(bucket(Some((404, vec![], NO_SUCH_KEY))).0.read("k", None).await.unwrap(), Read::Missing);
    }

    #[tokio::test]
    async fn a_read_that_failed_is_never_missing() {
        for (answer, want) in [
            (Some((403, vec![], DENIED)), FaultKind::Denied),
            (Some((404, vec![], "<Error><Code>NoSuchBucket</Code></Error>")), FaultKind::NotFound),
            (Some((304, vec![], "")), FaultKind::Unavailable),
            (None, FaultKind::Unavailable),
        ] {
            let failed = bucket(answer.clone()).0.read("k", None).await.unwrap_err();
            assert_eq!(failed.kind, want, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_fault_does_not_repeat_the_text_of_the_answer() {
        let failed = bucket(Some((403, vec![], DENIED))).0.read("k", None).await.unwrap_err();
        assert!(!format!("{failed} {failed:?}").contains("canary-77"), "{failed:?}");
    }

    #[tokio::test]
    async fn a_conditional_write_says_whether_it_happened() {
        let (store, wire) = bucket(Some((200, vec![("etag", "\"e1\"")], "")));
        let stored = store.write("k", b"x".to_vec(), Precondition::Absent).await.unwrap();
        assert_eq!(stored, Written::Stored { etag: "\"e1\"".to_owned() });
        assert_eq!(header(&wire.asked.lock().unwrap()[0].2, "if-none-match"), Some("*"));

        let (store, wire) = bucket(Some((412, vec![], "<Error><Code>PreconditionFailed</Code></Error>")));
        let refused = store.write("k", b"x".to_vec(), Precondition::Matches("\"e1\"".to_owned())).await.unwrap();
        assert_eq!(refused, Written::PreconditionFailed);
        assert_eq!(header(&wire.asked.lock().unwrap()[0].2, "if-match"), Some("\"e1\""));

        let gone = bucket(Some((404, vec![], NO_SUCH_KEY))).0;
        assert_eq!(
            gone.write("k", vec![], Precondition::Matches("\"e\"".to_owned())).await.unwrap(),
            Written::PreconditionFailed
        );
        let race = bucket(Some((409, vec![], "<Error><Code>ConditionalRequestConflict</Code></Error>"))).0;
        assert_eq!(race.write("k", vec![], Precondition::Absent).await.unwrap_err().kind, FaultKind::Conflict);
    }

    #[tokio::test]
    async fn a_head_asks_for_one_version_with_its_checksum() {
        let answer = vec![
            ("x-amz-version-id", "v1"),
            ("etag", "\"e1\""),
            ("content-length", "11"),
            ("content-type", "text/plain"),
            ("x-amz-checksum-sha256", "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption-aws-kms-key-id", "arn:aws:kms:us-east-1:111122223333:key/k"),
        ];
        let (store, wire) = bucket(Some((200, answer, "")));
        let key = ObjectKey::parse(KEY).unwrap();
        let Head::Found(found) = store.head(&key, &VersionId::parse("v1").unwrap()).await.unwrap() else {
            panic!("missing")
        };
        assert_eq!((found.version.as_str(), found.etag.as_str(), found.size), ("v1", "e1", 11));
        assert_eq!(found.encryption.as_deref(), Some("aws:kms"));
        let asked = wire.asked.lock().unwrap().remove(0);
        assert!(asked.0 == "HEAD" && asked.1.contains("versionId=v1"), "{asked:?}");
        assert_eq!(header(&asked.2, "x-amz-checksum-mode"), Some("ENABLED"));

        let missing = bucket(Some((404, vec![], ""))).0.head(&key, &VersionId::parse("v1").unwrap()).await.unwrap();
        assert_eq!(missing, Head::Missing);
        let denied = bucket(Some((403, vec![], ""))).0.head(&key, &VersionId::parse("v1").unwrap()).await.unwrap_err();
        assert_eq!(denied.kind, FaultKind::Denied);
    }

    #[tokio::test]
    async fn a_version_is_hashed_whole_or_not_at_all() {
        let key = ObjectKey::parse(KEY).unwrap();
        let version = VersionId::parse("v1").unwrap();
        let (store, wire) = bucket(Some((200, vec![("content-length", "11")], "hello world")));
        assert_eq!(store.hash(&key, &version).await.unwrap(), Some(Sha256Digest::of(b"hello world")));
        let asked = wire.asked.lock().unwrap().remove(0);
        assert!(asked.0 == "GET" && asked.1.contains("versionId=v1"), "{asked:?}");

        let gone = "<Error><Code>NoSuchVersion</Code></Error>";
        assert_eq!(bucket(Some((404, vec![], gone))).0.hash(&key, &version).await.unwrap(), None);
        for (answer, want) in [
            (Some((200, vec![("content-length", "12")], "hello world")), FaultKind::Unavailable),
            (Some((403, vec![], DENIED)), FaultKind::Denied),
            (None, FaultKind::Unavailable),
        ] {
            let failed = bucket(answer.clone()).0.hash(&key, &version).await.unwrap_err();
            assert_eq!(failed.kind, want, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_delete_names_its_version_and_what_is_gone_is_deleted() {
        let key = ObjectKey::parse(KEY).unwrap();
        let version = VersionId::parse("v1").unwrap();
        let (store, wire) = bucket(Some((204, vec![], "")));
        store.delete(&key, &version).await.unwrap();
        let asked = wire.asked.lock().unwrap().remove(0);
        assert!(asked.0 == "DELETE" && asked.1.contains("versionId=v1"), "{asked:?}");

        let gone = "<Error><Code>NoSuchVersion</Code></Error>";
        bucket(Some((404, vec![], gone))).0.delete(&key, &version).await.unwrap();
        for (answer, want) in [
            (Some((403, vec![], DENIED)), FaultKind::Denied),
            (Some((404, vec![], "<Error><Code>NoSuchBucket</Code></Error>")), FaultKind::NotFound),
            (Some((503, vec![], "<Error><Code>SlowDown</Code></Error>")), FaultKind::Throttled),
            (None, FaultKind::Unavailable),
        ] {
            let failed = bucket(answer.clone()).0.delete(&key, &version).await.unwrap_err();
            assert_eq!(failed.kind, want, "{answer:?}");
        }
    }

    #[test]
    fn a_range_says_how_many_bytes_there_are() {
        assert_eq!([bytes_of_start("bytes 0-1023/4096"), bytes_of_start("bytes 0-0/1")], [Some(1024), Some(1)]);
        for other in ["", "bytes */4096", "bytes 1-2/4", "bytes 0-4/4", "bytes 0-/4", "bytes 0-1/*", "bytes 0--1/4"] {
            assert_eq!(bytes_of_start(other), None, "{other}");
        }
    }
}
