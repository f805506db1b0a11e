use std::time::{Duration, UNIX_EPOCH};

use aws::Lazy;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, IdentityCache, Region};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::types::ServerSideEncryption;
use aws_types::SdkConfig;
use shared::clock::Timestamp;
use shared::name::Malformed;
use shared::object::{
    FormTerms, PartTerms, Presign, ReadTerms, SignedForm, SignedRequest, SignedUrl, SignerSession, UrlLife, WriteTerms,
};
use shared::port::{Fault, FaultKind};

use crate::fault::fault;
use crate::form::{self, Place};

/// What a browser sets by itself and lets no script set.
const SET_BY_CLIENT: [&str; 2] = ["host", "content-length"];

/// Signs URLs of one bucket for the host that clients use. Holds no credentials: each URL is signed with the session it is
/// given, because the function's own credentials carry no expiry and must never sign one.
#[derive(Clone, Debug)]
pub struct Presigner {
    client: Lazy<Client>,
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
        let region = config.region().ok_or(Malformed("region"))?;
        let (scheme, host) = signing_host.split_once("://").ok_or(Malformed("signing host"))?;
        let host = host.trim_end_matches('/');
        if !matches!(scheme, "http" | "https") || host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(Malformed("signing host"));
        }
        let service = host.strip_prefix(&bucket).and_then(|rest| rest.strip_prefix('.'));
        let (region, by_path) = (region.as_ref().to_owned(), service.is_none());
        let form_url = if by_path { format!("{scheme}://{host}/{bucket}") } else { format!("{scheme}://{host}/") };
        let endpoint = format!("{scheme}://{}", service.unwrap_or(host));
        let signing_region = Region::new(region.clone());
        let client = Lazy::new(move || {
            let settings = aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(signing_region)
                // The default cache would keep every session ever used.
                .identity_cache(IdentityCache::no_cache())
                .endpoint_url(endpoint)
                .force_path_style(by_path)
                .build();
            Client::from_conf(settings)
        });
        Ok(Presigner { client, region, form_url, bucket, bucket_key: bucket_key.into() })
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
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(terms.key.to_string())
            .content_length(terms.size.signed())
            .content_type(terms.content_type.declared())
            .checksum_sha256(terms.sha256.to_string())
            .server_side_encryption(ServerSideEncryption::AwsKms)
            .ssekms_key_id(&self.bucket_key)
            .if_none_match("*");
        let signed = request.customize().config_override(signed_by(session)).presigned(window(now, life)?).await;
        finished("PUT", &signed.map_err(|failure| fault("PutObject", &failure))?)
    }

    async fn part(
        &self,
        session: &SignerSession,
        terms: &PartTerms,
        now: Timestamp,
        life: UrlLife,
    ) -> Result<SignedRequest, Fault> {
        let invalid = || Fault::new(FaultKind::Invalid, "s3", "UploadPart");
        let request = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(terms.key.to_string())
            .upload_id(terms.upload.as_str())
            .part_number(i32::try_from(terms.part.number).map_err(|_| invalid())?)
            .content_length(i64::try_from(terms.part.size).map_err(|_| invalid())?)
            .checksum_sha256(terms.part.sha256.to_string());
        let signed = request.customize().config_override(signed_by(session)).presigned(window(now, life)?).await;
        finished("PUT", &signed.map_err(|failure| fault("UploadPart", &failure))?)
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
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(terms.key.to_string())
            .version_id(terms.version.as_str())
            .response_content_disposition(&terms.disposition)
            .response_content_type(terms.content_type)
            .response_cache_control("private, no-store");
        let signed = request.customize().config_override(signed_by(session)).presigned(window(now, life)?).await;
        let signed = finished("GET", &signed.map_err(|failure| fault("GetObject", &failure))?)?;
        // A browser that follows a redirect sends no header of ours.
        if signed.headers.is_empty() { Ok(signed) } else { Err(Fault::new(FaultKind::Invalid, "s3", "GetObject")) }
    }
}

pub(crate) fn signed_by(session: &SignerSession) -> aws_sdk_s3::config::Builder {
    let token = Some(session.session_token.expose().to_owned()).filter(|token| !token.is_empty());
    let credentials =
        Credentials::new(&session.access_key_id, session.secret_access_key.expose(), token, None, "signer-session");
    aws_sdk_s3::Config::builder().credentials_provider(credentials)
}

fn window(now: Timestamp, life: UrlLife) -> Result<PresigningConfig, Fault> {
    let invalid = || Fault::new(FaultKind::Invalid, "s3", "Presign");
    // Whole seconds, as the URL has them: its end must not lie before the one that is promised.
    let since_epoch = u64::try_from(now.seconds()).map_err(|_| invalid())?;
    PresigningConfig::builder()
        .start_time(UNIX_EPOCH + Duration::from_secs(since_epoch))
        .expires_in(Duration::from_secs(u64::from(life.seconds())))
        .build()
        .map_err(|_| invalid())
}

fn finished(method: &'static str, signed: &PresignedRequest) -> Result<SignedRequest, Fault> {
    let names = signed.uri().split(['?', '&']).find_map(|pair| pair.strip_prefix("X-Amz-SignedHeaders="));
    let names = names.ok_or(Fault::new(FaultKind::Invalid, "s3", "Presign"))?.replace("%3B", ";");
    let carried = |name: &str| {
        signed.headers().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let headers = names
        .split(';')
        .filter(|name| !SET_BY_CLIENT.contains(name))
        .map(|name| carried(name).map(|value| (name.to_owned(), value)))
        .collect::<Option<Vec<_>>>()
        .ok_or(Fault::new(FaultKind::Invalid, "s3", "Presign"))?;
    Ok(SignedRequest { method, url: SignedUrl::new(signed.uri().to_owned()), headers })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
