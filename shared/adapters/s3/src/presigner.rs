use aws_types::SdkConfig;
use shared::clock::Timestamp;
use shared::name::Malformed;
use shared::object::{
    FormTerms, PartTerms, Presign, ReadTerms, SignedForm, SignedRequest, SignerSession, SigningSettings, UrlLife,
    WriteTerms,
};
use shared::port::{Fault, FaultKind};

use crate::form::{self, Place};
use crate::query::{self, Base, Unsigned};

/// Signs URLs of one bucket for the host that clients use. Holds no credentials: each URL is signed with the session it is
/// given, because the function's own credentials carry no expiry and must never sign one.
#[derive(Clone, Debug)]
pub struct Presigner {
    base: Base,
    region: String,
    /// Where forms go: the bucket itself.
    form_url: String,
    bucket: String,
    bucket_key: String,
}

impl Presigner {
    /// Of `config` only the region is taken: an endpoint that moves the function's own calls must not move what clients are
    /// given. `signing_host` is the base URL of the bucket; where its host begins with the bucket's name URLs are
    /// virtual-hosted, else (an IP address, a VPC endpoint) the bucket is the first segment of the path.
    pub fn new(
        config: &SdkConfig,
        signing_host: &str,
        bucket: impl Into<String>,
        bucket_key: impl Into<String>,
    ) -> Result<Presigner, Malformed> {
        let bucket = bucket.into();
        let region = config.region().ok_or(Malformed("region"))?.as_ref().to_owned();
        let (scheme, host) = signing_host.split_once("://").ok_or(Malformed("signing host"))?;
        // A port that the scheme implies is not sent, so it must not be signed.
        let (scheme, implied) = match scheme {
            "https" => ("https", ":443"),
            "http" => ("http", ":80"),
            _ => return Err(Malformed("signing host")),
        };
        let host = host.trim_end_matches('/');
        let host = host.strip_suffix(implied).unwrap_or(host);
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(Malformed("signing host"));
        }
        let by_path = host.strip_prefix(&bucket).and_then(|rest| rest.strip_prefix('.')).is_none();
        let path = if by_path { format!("/{bucket}") } else { String::new() };
        let form_url = if by_path { format!("{scheme}://{host}{path}") } else { format!("{scheme}://{host}/") };
        let base = Base { scheme, authority: host.to_owned(), path };
        Ok(Presigner { base, region, form_url, bucket, bucket_key: bucket_key.into() })
    }

    /// For the bucket and the host that a deployment's settings name.
    ///
    /// # Errors
    /// [`FaultKind::Invalid`] where no URL can be made of them.
    pub fn of(config: &SdkConfig, settings: &SigningSettings) -> Result<Presigner, Fault> {
        Presigner::new(config, &settings.signing_host, settings.object_bucket.as_str(), settings.bucket_key.as_str())
            .map_err(|malformed| Fault::new(FaultKind::Invalid, "s3", "Presign").caused_by(malformed))
    }

    fn sign(
        &self,
        operation: &'static str,
        session: &SignerSession,
        mut request: Unsigned<'_>,
        (now, life): (Timestamp, UrlLife),
    ) -> Result<SignedRequest, Fault> {
        // The SDKs' own mark of what a URL is for.
        request.query.push(("x-id", operation));
        query::sign(&self.base, &self.region, session, request, now, life)
            .map_err(|malformed| Fault::new(FaultKind::Invalid, "s3", operation).caused_by(malformed))
    }
}

impl Presign for Presigner {
    async fn put(
        &self,
        session: &SignerSession,
        terms: &WriteTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> Result<SignedRequest, Fault> {
        let headers = vec![
            ("content-length", terms.size.bytes().to_string()),
            ("content-type", terms.content_type.declared().to_owned()),
            ("if-none-match", "*".to_owned()),
            ("x-amz-checksum-sha256", terms.sha256.to_string()),
            ("x-amz-server-side-encryption", "aws:kms".to_owned()),
            ("x-amz-server-side-encryption-aws-kms-key-id", self.bucket_key.clone()),
        ];
        let request = Unsigned { method: "PUT", key: terms.key.to_string(), query: Vec::new(), headers };
        self.sign("PutObject", session, request, (now, life))
    }

    async fn part(
        &self,
        session: &SignerSession,
        terms: &PartTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> Result<SignedRequest, Fault> {
        let number = terms.part.number.to_string();
        let headers = vec![
            ("content-length", terms.part.size.to_string()),
            ("x-amz-checksum-sha256", terms.part.sha256.to_string()),
        ];
        let query = vec![("partNumber", number.as_str()), ("uploadId", terms.upload.as_str())];
        let request = Unsigned { method: "PUT", key: terms.key.to_string(), query, headers };
        self.sign("UploadPart", session, request, (now, life))
    }

    async fn form(
        &self,
        session: &SignerSession,
        terms: &FormTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> Result<SignedForm, Fault> {
        let place =
            Place { url: &self.form_url, region: &self.region, bucket: &self.bucket, bucket_key: &self.bucket_key };
        form::sign(&place, session, terms, now, life)
            .map_err(|malformed| Fault::new(FaultKind::Invalid, "s3", "PostObject").caused_by(malformed))
    }

    async fn get(
        &self,
        session: &SignerSession,
        terms: &ReadTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> Result<SignedRequest, Fault> {
        // All in the query: a browser that follows a redirect sends no header of ours.
        let query = vec![
            ("response-cache-control", "private, no-store"),
            ("response-content-disposition", terms.disposition.as_str()),
            ("response-content-type", terms.content_type),
            ("versionId", terms.version.as_str()),
        ];
        let request = Unsigned { method: "GET", key: terms.key.to_string(), query, headers: Vec::new() };
        self.sign("GetObject", session, request, (now, life))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    use aws_sdk_s3::Client;
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
    use aws_sdk_s3::presigning::PresigningConfig;
    use aws_sdk_s3::types::ServerSideEncryption;
    use shared::object::{ContentType, FileName, ObjectKey, Part, Sha256Digest, Size, UploadId, VersionId};
    use shared::secret::SecretString;

    use super::*;

    const KEY: &str = "t/acme/01920000-0000-7000-8000-0000000000f1";
    const KMS_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const TOKEN: &str = "TOKEN/EXAMPLE+1==";

    fn presigner(host: &str) -> Presigner {
        let config = SdkConfig::builder().region(Region::new("us-east-1")).endpoint_url("http://127.0.0.1:1").build();
        Presigner::new(&config, host, "examplebucket", KMS_KEY).unwrap()
    }

    fn deployed() -> Presigner {
        presigner("https://examplebucket.s3.us-east-1.amazonaws.com")
    }

    fn session(token: &str) -> SignerSession {
        SignerSession {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: SecretString::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()),
            session_token: SecretString::new(token.to_owned()),
            issued_at: start(),
            expires_at: start().plus_seconds(900),
        }
    }

    fn start() -> Timestamp {
        Timestamp::from_seconds(1_369_353_600)
    }

    fn life() -> UrlLife {
        UrlLife::within(300, start().plus_seconds(900), start()).unwrap()
    }

    fn write() -> WriteTerms {
        WriteTerms {
            key: ObjectKey::parse(KEY).unwrap(),
            size: Size::of_put(11).unwrap(),
            content_type: ContentType::parse("text/plain").unwrap(),
            sha256: Sha256Digest::of(b"hello world"),
        }
    }

    fn read() -> ReadTerms {
        ReadTerms {
            key: ObjectKey::parse(KEY).unwrap(),
            version: VersionId::parse("v1").unwrap(),
            content_type: ContentType::parse("application/pdf").unwrap().served(),
            disposition: FileName::clean("report.pdf").disposition(),
        }
    }

    fn parameters(request: &SignedRequest) -> BTreeMap<&str, &str> {
        let (_, query) = request.url.expose().split_once('?').unwrap();
        query.split('&').map(|pair| pair.split_once('=').unwrap()).collect()
    }

    #[tokio::test]
    async fn a_put_url_has_its_known_answers() {
        for (token, want) in [
            ("", "18b0e7e747c88fb0cb5feb1bc6a379da4ed70c4b4c277c2cb73b9c817380dd7f"),
            (TOKEN, "42004fddef793a46fdcf7a579311595f173dcb15e8ecba0f0a6020182f8a2d9b"),
        ] {
            let signed = deployed().put(&session(token), &write(), start(), life()).await.unwrap();
            let found = parameters(&signed);
            assert_eq!(found["X-Amz-Signature"], want);
            assert_eq!(found["X-Amz-Expires"], "300");
            assert_eq!(found["X-Amz-Date"], "20130524T000000Z");
            assert_eq!(
                found["X-Amz-SignedHeaders"].replace("%3B", ";"),
                "content-length;content-type;host;if-none-match;x-amz-checksum-sha256;x-amz-server-side-encryption;\
                 x-amz-server-side-encryption-aws-kms-key-id"
            );
            assert!(
                signed.url.expose().starts_with(&format!("https://examplebucket.s3.us-east-1.amazonaws.com/{KEY}?"))
            );
        }
    }

    /// The SDK's presigner of one bucket, as the judge.
    fn sdk(scheme: &str, host: &str, by_path: bool, session: &SignerSession) -> Client {
        let token = Some(session.session_token.expose().to_owned()).filter(|token| !token.is_empty());
        let credentials =
            Credentials::new(&session.access_key_id, session.secret_access_key.expose(), token, None, "test");
        let settings = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(credentials)
            .endpoint_url(format!("{scheme}://{host}"))
            .force_path_style(by_path);
        Client::from_conf(settings.build())
    }

    /// Both say the same of the URL (its address, its parameters in any order) and of the headers that it wants.
    fn alike(ours: &SignedRequest, theirs: &aws_sdk_s3::presigning::PresignedRequest) {
        let theirs_as = SignedRequest {
            method: "",
            url: shared::object::SignedUrl::new(theirs.uri().to_owned()),
            headers: Vec::new(),
        };
        let decoded = |request: &SignedRequest| -> BTreeMap<String, String> {
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.replace("%3B", ";"));
            parameters(request).into_iter().map(owned).collect()
        };
        assert_eq!(decoded(ours), decoded(&theirs_as));
        assert_eq!(ours.url.expose().split('?').next(), theirs.uri().split('?').next());
        for (name, value) in &ours.headers {
            let found = theirs.headers().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            assert_eq!(found, Some(value.as_str()), "{name}");
        }
    }

    #[tokio::test]
    async fn the_sdk_signs_the_same() {
        let names = ["report.pdf", "Überblick \"Q3\".pdf", "日本語.txt", "a+b=c&d~e'f(g)*.zip", "x%20y.csv"];
        let types = ["application/pdf", "text/plain", "text/csv", "image/png", "application/zip"];
        let hosts = [
            ("https://examplebucket.s3.us-east-1.amazonaws.com", "https", "s3.us-east-1.amazonaws.com", false),
            ("https://examplebucket.s3.us-east-1.amazonaws.com:443", "https", "s3.us-east-1.amazonaws.com", false),
            ("http://127.0.0.1:4566", "http", "127.0.0.1:4566", true),
            (
                "https://bucket.vpce-1a.s3.us-east-1.vpce.amazonaws.com",
                "https",
                "bucket.vpce-1a.s3.us-east-1.vpce.amazonaws.com",
                true,
            ),
        ];
        for (number, (host, scheme, service, by_path)) in hosts.into_iter().enumerate() {
            for (place, (name, declared)) in names.iter().zip(types).enumerate() {
                let token = if place % 2 == 0 { TOKEN } else { "" };
                let (session, key) =
                    (session(token), format!("t/acme/01920000-0000-7000-8000-00000000{number:02}f{place}"));
                let (client, ours) = (sdk(scheme, service, by_path, &session), presigner(host));
                let window = || {
                    let from = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
                    PresigningConfig::builder().start_time(from).expires_in(Duration::from_secs(300)).build().unwrap()
                };
                let key = ObjectKey::parse(&key).unwrap();
                let (content_type, sha256) = (ContentType::parse(declared).unwrap(), Sha256Digest::of(name.as_bytes()));
                let terms =
                    WriteTerms { key: key.clone(), size: Size::of_put(7 << place).unwrap(), content_type, sha256 };
                let put = client.put_object().bucket("examplebucket").key(key.to_string()).content_length(7 << place);
                let put =
                    put.content_type(content_type.declared()).checksum_sha256(sha256.to_string()).if_none_match("*");
                let put = put.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(KMS_KEY);
                let put = put.presigned(window()).await.unwrap();
                alike(&ours.put(&session, &terms, start(), life()).await.unwrap(), &put);

                let upload = UploadId::parse("2~VmVyeS1sb25nLWlk_U.x-1").unwrap();
                let part = Part { number: 10_000 - number as u32, size: 5_242_880, sha256 };
                let terms = PartTerms { key: key.clone(), upload: upload.clone(), part };
                let asked =
                    client.upload_part().bucket("examplebucket").key(key.to_string()).upload_id(upload.as_str());
                let asked = asked.part_number(part.number as i32).content_length(5_242_880);
                let asked = asked.checksum_sha256(sha256.to_string()).presigned(window()).await.unwrap();
                alike(&ours.part(&session, &terms, start(), life()).await.unwrap(), &asked);

                let version = VersionId::parse("3HL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY").unwrap();
                let (disposition, served) = (FileName::clean(name).disposition(), content_type.served());
                let terms = ReadTerms { key: key.clone(), version: version.clone(), content_type: served, disposition };
                let get = client.get_object().bucket("examplebucket").key(key.to_string()).version_id(version.as_str());
                let get = get.response_content_disposition(&terms.disposition).response_content_type(served);
                let get = get.response_cache_control("private, no-store").presigned(window()).await.unwrap();
                alike(&ours.get(&session, &terms, start(), life()).await.unwrap(), &get);
            }
        }
    }

    #[tokio::test]
    async fn a_put_names_the_headers_to_send_and_no_other() {
        let signed = deployed().put(&session(TOKEN), &write(), start(), life()).await.unwrap();
        let headers: BTreeMap<_, _> =
            signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let want = BTreeMap::from([
            ("content-type", "text/plain"),
            ("if-none-match", "*"),
            ("x-amz-checksum-sha256", "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption-aws-kms-key-id", KMS_KEY),
        ]);
        assert_eq!((signed.method, headers), ("PUT", want));
    }

    #[tokio::test]
    async fn a_part_url_has_its_known_answers() {
        let terms = PartTerms {
            key: ObjectKey::parse(KEY).unwrap(),
            upload: UploadId::parse("U").unwrap(),
            part: Part { number: 3, size: 5_242_880, sha256: Sha256Digest::of(b"hello world") },
        };
        for (token, want) in [
            ("", "ca601664881b9665ce0babe79a12388cea811db4f6fc84ee1cd2fa60d578636c"),
            (TOKEN, "f78926342d7f4e6a149cf686cc2aa1832f3612a0f64357e6bf3ed21f50112cb3"),
        ] {
            let signed = deployed().part(&session(token), &terms, start(), life()).await.unwrap();
            let found = parameters(&signed);
            assert_eq!(found["X-Amz-Signature"], want);
            assert_eq!((found["uploadId"], found["partNumber"]), ("U", "3"));
            assert_eq!(found["X-Amz-SignedHeaders"].replace("%3B", ";"), "content-length;host;x-amz-checksum-sha256");
            let digest = "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=".to_owned();
            assert_eq!(signed.headers, [("x-amz-checksum-sha256".to_owned(), digest)]);
        }
    }

    #[tokio::test]
    async fn a_get_url_has_its_known_answers() {
        for (token, want) in [
            ("", "1d6f8972402da9807090e275d8c068e11eb5b77f5c14624034583706138ff7b3"),
            (TOKEN, "1b8d22c021124c4f45bf0b2ec33d5b51a5b5726d982a38bcdadaa5cdba4ebe6b"),
        ] {
            let signed = deployed().get(&session(token), &read(), start(), life()).await.unwrap();
            let found = parameters(&signed);
            assert_eq!(found["X-Amz-Signature"], want);
            assert_eq!(found["versionId"], "v1");
            assert_eq!(found["X-Amz-SignedHeaders"], "host");
            for name in ["response-content-disposition", "response-content-type", "response-cache-control"] {
                assert!(found.contains_key(name), "{name}");
            }
            assert!(signed.headers.is_empty());
        }
    }

    #[tokio::test]
    async fn a_host_that_is_not_the_buckets_own_is_addressed_by_path() {
        for host in [
            "http://127.0.0.1:4566",
            "http://127.0.0.1:4566/",
            "https://bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com",
        ] {
            let signed = presigner(host).get(&session(TOKEN), &read(), start(), life()).await.unwrap();
            let want = format!("{}/examplebucket/{KEY}?", host.trim_end_matches('/'));
            assert!(signed.url.expose().starts_with(&want), "{host}");
        }
    }

    #[tokio::test]
    async fn a_form_goes_to_the_bucket_as_urls_do() {
        let terms = FormTerms {
            key: ObjectKey::parse(KEY).unwrap(),
            longest: Size::of_put(11).unwrap(),
            content_type: ContentType::parse("text/plain").unwrap(),
        };
        for (host, want) in [
            ("http://127.0.0.1:4566/", "http://127.0.0.1:4566/examplebucket"),
            ("https://examplebucket.s3.us-east-1.amazonaws.com", "https://examplebucket.s3.us-east-1.amazonaws.com/"),
        ] {
            let form = presigner(host).form(&session(TOKEN), &terms, start(), life()).await.unwrap();
            assert_eq!(form.url, want);
            assert!(!format!("{form:?}").contains(TOKEN));
        }
    }

    #[tokio::test]
    async fn the_life_of_a_url_starts_at_the_whole_second() {
        let signed = deployed().get(&session(TOKEN), &read(), start().plus_millis(999), life()).await.unwrap();
        assert_eq!(parameters(&signed)["X-Amz-Date"], "20130524T000000Z");
    }

    #[test]
    fn a_signing_host_that_is_no_base_url_is_refused() {
        let config = SdkConfig::builder().region(Region::new("us-east-1")).build();
        for host in [
            "",
            "examplebucket.s3.us-east-1.amazonaws.com",
            "ftp://h",
            "https://",
            "https://h/path",
            "https://u@h",
            "https://h?q",
        ] {
            assert!(Presigner::new(&config, host, "b", KMS_KEY).is_err(), "{host}");
        }
        assert!(Presigner::new(&SdkConfig::builder().build(), "https://h", "b", KMS_KEY).is_err());
    }

    #[tokio::test]
    async fn nothing_that_signs_prints_a_url_a_secret_or_a_token() {
        let presigner = deployed();
        let signed = presigner.put(&session(TOKEN), &write(), start(), life()).await.unwrap();
        let printed = format!("{presigner:?} {signed:?} {:?}", session(TOKEN));
        for secret in [TOKEN, "TOKEN%2FEXAMPLE", "wJalrXUtnFEMI", "X-Amz-Signature", "42004fddef79"] {
            assert!(!printed.contains(secret), "{secret}");
        }
    }
}
