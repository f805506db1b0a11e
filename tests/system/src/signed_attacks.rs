//! What `shared/adapters/s3` signs, bent in every way that is known, against whatever speaks S3: the local stand-in in the tests, and
//! a server that nobody here wrote in `make test-system`. `docs/attacks-on-files.md` is the table of both.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::Full;
use local::http::send;
use s3::Presigner;
use shared::clock::Timestamp;
use shared::name::Malformed;
use shared::object::{
    ContentType, FileName, FormTerms, ObjectKey, Part, PartTerms, Presign as _, ReadTerms, Sha256Digest, SignedForm,
    SignedRequest, SignerSession, Size, UploadId, UrlLife, VersionId, WriteTerms,
};

/// What is done to a request, what is answered where it is refused as documented, and how it is done.
type Bent<T> = (&'static str, &'static str, fn(T) -> T);
/// The same of a form, with the file that is sent in it.
type BentForm = (&'static str, &'static str, &'static [u8], fn(Fields) -> Fields);

const BODY: &[u8] = b"hello world";
const BOUNDARY: &str = "portcullis-4b3f0a";
/// As many as race for one object.
const RACERS: usize = 40;

/// The server, and whose sessions sign for it.
#[derive(Debug)]
pub struct Target {
    /// Base URL; the bucket is the first segment of the path.
    pub endpoint: String,
    /// A versioned bucket.
    pub bucket: String,
    /// ARN of the key that objects are encrypted under.
    pub bucket_key: String,
    /// Of which region the server is.
    pub region: String,
    /// Signs writing.
    pub upload: SignerSession,
    /// Signs reading.
    pub download: SignerSession,
    /// Another session of whoever signs writing.
    pub other: SignerSession,
    /// For `https`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The server's time.
    pub now: Timestamp,
}

/// One attack, and how it went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What was done.
    pub what: &'static str,
    /// What S3 answers by its documentation: status and code.
    pub wanted: &'static str,
    /// What came.
    pub got: String,
    /// The object that it was about.
    pub key: String,
    /// What must be stored there afterwards.
    pub keeps: Option<&'static [u8]>,
}

/// A request to bend.
#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What a server said.
struct Said {
    outcome: String,
    headers: http::HeaderMap,
    body: Bytes,
}

/// Makes every attack; answers one row for each, in order.
///
/// # Errors
/// When the server cannot be reached, or what is right does not pass so that what is wrong would prove nothing.
pub async fn attack(target: &Target) -> io::Result<Vec<Row>> {
    let mut attacker = Attacker { target, presigner: presigner(target)?, rows: Vec::new(), keys: 0 };
    attacker.puts().await?;
    attacker.sessions().await?;
    attacker.gets().await?;
    attacker.forms().await?;
    attacker.parts().await?;
    attacker.race().await?;
    Ok(attacker.rows)
}

struct Attacker<'a> {
    target: &'a Target,
    presigner: Presigner,
    rows: Vec<Row>,
    keys: u64,
}

impl Attacker<'_> {
    async fn puts(&mut self) -> io::Result<()> {
        let put = |asked: Asked| asked.with_body(BODY);
        let bent: [Bent<Asked>; 15] = [
            ("PUT with another type", MISMATCH, |put| put.header("content-type", "text/html")),
            ("PUT of one byte more", MISMATCH, |put| put.with_body(b"hello world!")),
            ("PUT of other bytes, as many", "400 BadDigest", |put| put.with_body(b"hello w0rld")),
            ("PUT without its digest", MISMATCH, |put| put.without("x-amz-checksum-sha256")),
            ("PUT without encryption", MISMATCH, |put| put.without("x-amz-server-side-encryption")),
            ("PUT without If-None-Match", MISMATCH, |put| put.without("if-none-match")),
            ("PUT made public by an ACL nobody signed", UNSIGNED, |put| put.header("x-amz-acl", "public-read")),
            ("PUT with tags nobody signed", UNSIGNED, |put| {
                put.header("x-amz-tagging", "GuardDutyMalwareScanStatus=NO_THREATS_FOUND")
            }),
            ("PUT with metadata nobody signed", UNSIGNED, |put| put.header("x-amz-meta-a", "b")),
            ("PUT to another key of the tenant", MISMATCH, |put| put.replace("-8000-0000000000", "-8000-ff00000000")),
            ("PUT to another tenant's key", MISMATCH, |put| put.replace("/t/acme/", "/t/globex/")),
            ("PUT URL sent as DELETE", MISMATCH, |put| Asked { method: "DELETE", ..put }.with_body(b"")),
            ("PUT URL sent as GET", MISMATCH, |put| Asked { method: "GET", ..put }.with_body(b"")),
            ("PUT URL with a longer life written into it", MISMATCH, |put| {
                put.replace("X-Amz-Expires=300", "X-Amz-Expires=3000")
            }),
            ("PUT with an Authorization header beside the URL", "400 InvalidArgument", |put| {
                put.header("authorization", "Bearer eyJhbGciOiJSUzI1NiJ9.e30.AA")
            }),
        ];
        for (what, wanted, bend) in bent {
            let (key, signed) = self.put(&self.target.upload, 0).await?;
            self.row(what, wanted, &key, bend(put(signed))).await?;
        }
        // Somebody's object, and a write that would read it in the signer's name.
        let (victim, stored) = self.put(&self.target.upload, 0).await?;
        self.kept("PUT of an object for others to copy", "200", &victim, put(stored)).await?;
        let (key, copy) = self.put(&self.target.upload, 0).await?;
        let copy = copy.header("x-amz-copy-source", &format!("/{}/{victim}", self.target.bucket));
        self.row("PUT turned into a copy of another object", UNSIGNED, &key, put(copy)).await?;
        let (key, late) = self.put(&self.target.upload, -301).await?;
        self.row("PUT after its end", EXPIRED, &key, put(late)).await?;
        let (key, right) = self.put(&self.target.upload, 0).await?;
        let right = put(right);
        self.kept("PUT as it was signed", "200", &key, right.clone()).await?;
        self.kept("PUT as it was signed, once more", "412 PreconditionFailed", &key, right).await?;
        Ok(())
    }

    async fn sessions(&mut self) -> io::Result<()> {
        let other = format!("X-Amz-Security-Token={}", encoded(self.target.other.session_token.expose()));
        let (key, put) = self.put(&self.target.upload, 0).await?;
        let put = put.with_body(BODY);
        self.row(
            "session token stripped",
            "403 InvalidAccessKeyId",
            &key,
            put.clone().parameter("X-Amz-Security-Token", ""),
        )
        .await?;
        self.row(
            "another session's token",
            "400 InvalidToken",
            &key,
            put.clone().parameter("X-Amz-Security-Token", &other),
        )
        .await?;
        let made_up = put.parameter("X-Amz-Security-Token", "X-Amz-Security-Token=forged");
        self.row("a token of one's own", "400 InvalidToken", &key, made_up).await?;
        let nobody = SignerSession { access_key_id: "ASIAQQQQQQQQQQQQQQQQ".to_owned(), ..self.target.upload.clone() };
        let (key, put) = self.put(&nobody, 0).await?;
        self.row("signed by a key nobody gave", "403 InvalidAccessKeyId", &key, put.with_body(BODY)).await
    }

    async fn gets(&mut self) -> io::Result<()> {
        let (key, put) = self.put(&self.target.upload, 0).await?;
        let stored = self.send(put.with_body(BODY)).await?;
        let version = stored.headers.get("x-amz-version-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let version = VersionId::parse(version).map_err(broken)?;
        let get = self.get(&key, &version, 0).await?;
        let said = self.send(get.clone()).await?;
        let header = |name: &str| said.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let as_signed = said.body == BODY
            && header("content-disposition").starts_with("attachment; filename=\"report.pdf\"")
            && header("content-type") == "application/pdf"
            && header("cache-control") == "private, no-store";
        let got = if as_signed { said.outcome } else { format!("{}, not as signed", said.outcome) };
        self.rows.push(row("GET as it was signed", "200", got, &key, Some(BODY)));
        let bent: [Bent<Asked>; 8] = [
            ("GET shown inline instead of saved", MISMATCH, |get| get.replace("=attachment", "=inline")),
            ("GET as HTML", MISMATCH, |get| get.replace("application%2Fpdf", "text%2Fhtml")),
            ("GET with one header of the answer more", MISMATCH, |get| get.add("response-content-encoding=gzip")),
            ("GET of whatever version is newest", MISMATCH, |get| get.parameter("versionId", "")),
            ("GET of another tenant's key", MISMATCH, |get| get.replace("/t/acme/", "/t/globex/")),
            ("GET URL sent as PUT", MISMATCH, |get| Asked { method: "PUT", ..get }.with_body(BODY)),
            ("GET URL sent as DELETE", MISMATCH, |get| Asked { method: "DELETE", ..get }),
            ("GET with a longer life written into it", MISMATCH, |get| {
                get.replace("X-Amz-Expires=300", "X-Amz-Expires=604800")
            }),
        ];
        for (what, wanted, bend) in bent {
            self.kept(what, wanted, &key, bend(get.clone())).await?;
        }
        let late = self.get(&key, &version, -301).await?;
        self.kept("GET after its end", EXPIRED, &key, late).await?;
        let range = get.header("range", "bytes=6-");
        let said = self.send(range).await?;
        let got = if said.body == b"world"[..] { said.outcome } else { format!("{}, another range", said.outcome) };
        self.rows.push(row("GET of a range, which nobody has to sign", "206", got, &key, Some(BODY)));
        Ok(())
    }

    async fn forms(&mut self) -> io::Result<()> {
        let bent: [BentForm; 13] = [
            ("form with one byte more than it may have", "400 EntityTooLarge", b"hello world!", |fields| fields),
            ("form with an empty file", "400 EntityTooSmall", b"", |fields| fields),
            ("form with another type", DENIED, BODY, |fields| changed(fields, "Content-Type", "text/html")),
            ("form for another key", DENIED, BODY, |fields| bent_key(fields, "-8000-0000000000", "-8000-ff00000000")),
            ("form for another tenant's key", DENIED, BODY, |fields| bent_key(fields, "t/acme/", "t/globex/")),
            ("form with metadata nobody signed", DENIED, BODY, |fields| changed(fields, "x-amz-meta-z", "1")),
            ("form made public by an ACL nobody signed", DENIED, BODY, |fields| changed(fields, "acl", "public-read")),
            ("form without encryption", DENIED, BODY, |fields| changed(fields, "x-amz-server-side-encryption", "")),
            ("form under another key of KMS", DENIED, BODY, |fields| {
                let other = "arn:aws:kms:us-east-1:111122223333:key/00000000-0000-4000-8000-000000000000";
                changed(fields, "x-amz-server-side-encryption-aws-kms-key-id", other)
            }),
            ("form with a policy of one's own", MISMATCH, BODY, |fields| changed(fields, "policy", "e30=")),
            ("form with another signature", MISMATCH, BODY, |fields| {
                changed(fields, "x-amz-signature", &"0".repeat(64))
            }),
            ("form without signature and policy", DENIED, BODY, |fields| {
                ["policy", "x-amz-signature", "x-amz-credential"]
                    .iter()
                    .fold(fields, |fields, name| changed(fields, name, ""))
            }),
            ("form with its session token stripped", "403 InvalidAccessKeyId", BODY, |fields| {
                changed(fields, "x-amz-security-token", "")
            }),
        ];
        for (what, wanted, file, bend) in bent {
            let (key, form) = self.form(0).await?;
            let asked = self.posted(bend(fields(&form)), file);
            self.row(what, wanted, &key, asked).await?;
        }
        let (key, late) = self.form(-301).await?;
        let late = self.posted(fields(&late), BODY);
        self.row("form after its end", DENIED, &key, late).await?;
        let (key, right) = self.form(0).await?;
        let right = self.posted(fields(&right), BODY);
        self.kept("form as it was signed", "204", &key, right).await
    }

    async fn parts(&mut self) -> io::Result<()> {
        let bent: [Bent<Asked>; 4] = [
            ("part under another number", MISMATCH, |part| part.replace("partNumber=3", "partNumber=4")),
            ("part of another upload", MISMATCH, |part| part.replace("uploadId=", "uploadId=x")),
            ("part of one byte more", MISMATCH, |part| part.with_body(b"hello world!")),
            ("part as it was signed, of an upload that nobody began", "404 NoSuchUpload", |part| part),
        ];
        for (what, wanted, bend) in bent {
            let key = self.key()?;
            let upload = UploadId::parse("VXBsb2FkSWRPZk5vYm9keQ").map_err(broken)?;
            let part = Part { number: 3, size: BODY.len() as u64, sha256: Sha256Digest::of(BODY) };
            let terms = PartTerms { key: key.clone(), upload, part };
            let (now, life) = self.window(0)?;
            let signed = self.presigner.part(&self.target.upload, &terms, now, life).await.map_err(io::Error::other)?;
            self.row(what, wanted, &key, bend(Asked::from(&signed).with_body(BODY))).await?;
        }
        Ok(())
    }

    async fn race(&mut self) -> io::Result<()> {
        let (key, put) = self.put(&self.target.upload, 0).await?;
        let put = put.with_body(BODY);
        let ends = join_all((0..RACERS).map(|_| self.send(put.clone()))).await;
        let ends = ends.into_iter().collect::<io::Result<Vec<_>>>()?;
        let won = ends.iter().filter(|said| said.outcome == "200").count();
        self.rows.push(row(
            "forty PUTs of one URL at once: who wins",
            "1 of 40",
            format!("{won} of {RACERS}"),
            &key,
            Some(BODY),
        ));
        Ok(())
    }

    /// An attack that must leave nothing.
    async fn row(&mut self, what: &'static str, wanted: &'static str, key: &ObjectKey, asked: Asked) -> io::Result<()> {
        let said = self.send(asked).await?;
        self.rows.push(row(what, wanted, said.outcome, key, None));
        Ok(())
    }

    /// One after which the object is there as it was signed.
    async fn kept(
        &mut self,
        what: &'static str,
        wanted: &'static str,
        key: &ObjectKey,
        asked: Asked,
    ) -> io::Result<()> {
        let said = self.send(asked).await?;
        self.rows.push(row(what, wanted, said.outcome, key, Some(BODY)));
        Ok(())
    }

    fn key(&mut self) -> io::Result<ObjectKey> {
        self.keys += 1;
        ObjectKey::parse(&format!("t/acme/01920000-0000-7000-8000-{:012x}", self.keys)).map_err(broken)
    }

    fn window(&self, seconds: i64) -> io::Result<(Timestamp, UrlLife)> {
        let now = self.target.now.plus_seconds(seconds);
        let life = UrlLife::within(UrlLife::LONGEST, now.plus_seconds(900), now);
        Ok((now, life.map_err(|_| io::Error::other("no life"))?))
    }

    async fn put(&mut self, session: &SignerSession, seconds: i64) -> io::Result<(ObjectKey, Asked)> {
        let (key, (now, life)) = (self.key()?, self.window(seconds)?);
        let terms = WriteTerms {
            key: key.clone(),
            size: Size::of_put(BODY.len() as u64).map_err(|_| io::Error::other("no size"))?,
            content_type: ContentType::parse("application/pdf").map_err(broken)?,
            sha256: Sha256Digest::of(BODY),
        };
        let signed = self.presigner.put(session, &terms, now, life).await.map_err(io::Error::other)?;
        Ok((key, Asked::from(&signed)))
    }

    async fn get(&self, key: &ObjectKey, version: &VersionId, seconds: i64) -> io::Result<Asked> {
        let (now, life) = self.window(seconds)?;
        let terms = ReadTerms {
            key: key.clone(),
            version: version.clone(),
            content_type: "application/pdf",
            disposition: FileName::clean("report.pdf").disposition(),
        };
        let signed = self.presigner.get(&self.target.download, &terms, now, life).await.map_err(io::Error::other)?;
        Ok(Asked::from(&signed))
    }

    async fn form(&mut self, seconds: i64) -> io::Result<(ObjectKey, SignedForm)> {
        let (key, (now, life)) = (self.key()?, self.window(seconds)?);
        let terms = FormTerms {
            key: key.clone(),
            longest: Size::of_put(BODY.len() as u64).map_err(|_| io::Error::other("no size"))?,
            content_type: ContentType::parse("application/pdf").map_err(broken)?,
        };
        let form = self.presigner.form(&self.target.upload, &terms, now, life).await.map_err(io::Error::other)?;
        Ok((key, form))
    }

    fn posted(&self, fields: Fields, file: &[u8]) -> Asked {
        let mut body = Vec::new();
        for (name, value) in fields {
            let part = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: application/pdf";
        body.extend_from_slice(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        let url = format!("{}/{}", self.target.endpoint, self.target.bucket);
        Asked { method: "POST", url, headers: vec![("content-type".to_owned(), kind)], body }
    }

    async fn send(&self, asked: Asked) -> io::Result<Said> {
        let mut request = http::Request::builder().method(asked.method).uri(&asked.url);
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(asked.body))).map_err(io::Error::other)?;
        let (parts, body) = send(request, self.target.tls.clone()).await?.into_parts();
        let text = String::from_utf8_lossy(&body);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
        let status = parts.status.as_u16();
        let outcome = code.map_or(status.to_string(), |code| format!("{status} {code}"));
        Ok(Said { outcome, headers: parts.headers, body })
    }
}

const MISMATCH: &str = "403 SignatureDoesNotMatch";
const UNSIGNED: &str = "403 AccessDenied";
const DENIED: &str = "403 AccessDenied";
const EXPIRED: &str = "403 AccessDenied";

type Fields = Vec<(String, String)>;

fn presigner(target: &Target) -> io::Result<Presigner> {
    let region = aws_types::region::Region::new(target.region.clone());
    let config = aws_types::SdkConfig::builder().region(region).build();
    Presigner::new(&config, &target.endpoint, &target.bucket, &target.bucket_key).map_err(broken)
}

fn row(what: &'static str, wanted: &'static str, got: String, key: &ObjectKey, keeps: Option<&'static [u8]>) -> Row {
    Row { what, wanted, got, key: key.to_string(), keeps }
}

fn fields(form: &SignedForm) -> Fields {
    form.expose().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// With this value under this name, instead of the one that was there; without the name where the value is empty.
fn changed(mut fields: Fields, name: &str, value: &str) -> Fields {
    fields.retain(|(found, _)| found != name);
    if !value.is_empty() {
        fields.push((name.to_owned(), value.to_owned()));
    }
    fields
}

fn bent_key(fields: Fields, from: &str, to: &str) -> Fields {
    let key = fields.iter().find(|(name, _)| name == "key").map(|(_, key)| key.replace(from, to)).unwrap_or_default();
    changed(fields, "key", &key)
}

/// RFC 3986 §2.1 for what a token is made of.
fn encoded(text: &str) -> String {
    text.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

fn broken(malformed: Malformed) -> io::Error {
    io::Error::other(malformed.to_string())
}

impl From<&SignedRequest> for Asked {
    fn from(signed: &SignedRequest) -> Asked {
        let (url, headers) = (signed.url.expose().to_owned(), signed.headers.clone());
        Asked { method: signed.method, url, headers, body: Vec::new() }
    }
}

impl Asked {
    fn with_body(mut self, body: &[u8]) -> Asked {
        self.body = body.to_vec();
        self
    }

    fn header(self, name: &str, value: &str) -> Asked {
        let mut changed = self.without(name);
        changed.headers.push((name.to_owned(), value.to_owned()));
        changed
    }

    fn without(mut self, name: &str) -> Asked {
        self.headers.retain(|(found, _)| found != name);
        self
    }

    fn replace(mut self, from: &str, to: &str) -> Asked {
        self.url = self.url.replacen(from, to, 1);
        self
    }

    fn add(mut self, pair: &str) -> Asked {
        self.url = format!("{}&{pair}", self.url);
        self
    }

    /// With another pair in place of the parameter of this name, or with none.
    fn parameter(mut self, name: &str, pair: &str) -> Asked {
        let (address, query) = self.url.split_once('?').unwrap_or((self.url.as_str(), ""));
        let is = |one: &&str| one.split('=').next() != Some(name);
        let mut pairs: Vec<&str> = query.split('&').filter(is).collect();
        pairs.extend(Some(pair).filter(|pair| !pair.is_empty()));
        self.url = format!("{address}?{}", pairs.join("&"));
        self
    }
}
