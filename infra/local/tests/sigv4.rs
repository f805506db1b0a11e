//! The verifier, judged by AWS's signing test suite and by published known answers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers beside the tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use local::account::{Account, Keys, Principal, PrincipalKind};
use local::clock::Clock;
use local::http::Request;
use local::policy::Iam;
use local::sigv4::{self, AuthType, Credential, Payload, Rejection, Scope};

struct Case {
    name: String,
    folder: PathBuf,
    context: serde_json::Value,
}

struct Raw {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Case {
    fn all() -> Vec<Case> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sigv4-suite/v4");
        let mut cases: Vec<Case> = fs::read_dir(root)
            .unwrap()
            .map(|entry| {
                let folder = entry.unwrap().path();
                let context = fs::read_to_string(folder.join("context.json"))
                    .map_or(serde_json::Value::Null, |text| serde_json::from_str(&text).unwrap());
                Case { name: folder.file_name().unwrap().to_str().unwrap().to_owned(), folder, context }
            })
            .collect();
        cases.sort_by(|left, right| left.name.cmp(&right.name));
        cases
    }

    fn text(&self, file: &str) -> Option<String> {
        Some(fs::read_to_string(self.folder.join(file)).ok()?.trim_end_matches('\n').to_owned())
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.context[name].as_bool()
    }

    fn token(&self) -> Option<&str> {
        self.context["credentials"]["token"].as_str()
    }

    fn canonical_path(&self, path: &str) -> String {
        sigv4::canonical_path(path, self.flag("normalize") == Some(false))
    }
}

/// Reads a request file: header lines that start with a space continue the line before.
fn raw(text: &str) -> Raw {
    let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end_matches('\n'), ""));
    let mut lines = head.lines();
    let first = lines.next().unwrap();
    let (method, rest) = first.split_once(' ').unwrap();
    let target = rest.strip_suffix(" HTTP/1.1").unwrap_or(rest);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in lines {
        if let Some(more) = line.strip_prefix(' ') {
            let last = headers.last_mut().unwrap();
            last.1 = format!("{} {}", last.1, more.trim());
        } else {
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    Raw {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: body.trim_end_matches('\n').as_bytes().to_vec(),
    }
}

fn header<'a>(raw: &'a Raw, name: &str) -> Option<&'a str> {
    raw.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.trim())
}

fn field(authorization: &str, name: &str) -> String {
    let (_, after) = authorization.split_once(&format!("{name}=")).unwrap();
    after.split(',').next().unwrap().trim().to_owned()
}

#[test]
fn all_cases_in_header_form_give_awss_canonical_request_string_to_sign_and_signature() {
    let mut counted = BTreeMap::from([("canonical", 0), ("to sign", 0), ("signature", 0)]);
    for case in Case::all() {
        let signed_request = raw(&case.text("header-signed-request.txt").unwrap());
        let authorization = header(&signed_request, "authorization").unwrap();
        let signed: Vec<String> = field(authorization, "SignedHeaders").split(';').map(str::to_owned).collect();
        // The two cases of the old suite have another date in their canonical request than in their request.
        let canonical_file = case.text("header-canonical-request.txt").unwrap();
        let mut headers = signed_request.headers.clone();
        if case.context.is_null() {
            let date = canonical_file.lines().find_map(|line| line.strip_prefix("x-amz-date:")).unwrap();
            headers.retain(|(name, _)| name != "x-amz-date");
            headers.push(("x-amz-date".to_owned(), date.to_owned()));
        }
        let canonical = sigv4::canonical_request(
            &signed_request.method,
            &case.canonical_path(&signed_request.path),
            &sigv4::canonical_query(&signed_request.query),
            &headers,
            &signed,
            &sigv4::sha256_hex(&signed_request.body),
        );
        assert_eq!(canonical, canonical_file, "{}: canonical request", case.name);
        *counted.get_mut("canonical").unwrap() += 1;

        let credential = Credential::parse(&field(authorization, "Credential")).unwrap();
        let Some(to_sign_file) = case.text("header-string-to-sign.txt") else { continue };
        let date = to_sign_file.lines().nth(1).unwrap();
        let to_sign = sigv4::string_to_sign(date, &credential.scope(), &canonical);
        assert_eq!(to_sign, to_sign_file, "{}: string to sign", case.name);
        *counted.get_mut("to sign").unwrap() += 1;
        let Some(signature) = case.text("header-signature.txt") else { continue };
        let secret = case.context["credentials"]["secret_access_key"].as_str().unwrap();
        let key = sigv4::signing_key(secret, &credential.date, &credential.region, &credential.service);
        assert_eq!(sigv4::signature(&key, &to_sign), signature, "{}: signature", case.name);
        assert_eq!(field(authorization, "Signature"), signature, "{}: the request's own", case.name);
        *counted.get_mut("signature").unwrap() += 1;
    }
    assert_eq!(counted, BTreeMap::from([("canonical", 40), ("to sign", 39), ("signature", 38)]));
}

#[test]
fn all_cases_in_query_form_give_awss_canonical_request_string_to_sign_and_signature() {
    let mut counted = 0;
    for case in Case::all() {
        let Some(signed_request) = case.text("query-signed-request.txt") else { continue };
        let signed_request = raw(&signed_request);
        let pairs: BTreeMap<String, String> = sigv4::query_pairs(&signed_request.query).into_iter().collect();
        let signed: Vec<String> = pairs["X-Amz-SignedHeaders"].split(';').map(str::to_owned).collect();
        // A session token that was left out of the signature is added to the query afterwards.
        let query: Vec<&str> = signed_request
            .query
            .split('&')
            .filter(|pair| case.flag("omit_session_token") != Some(true) || !pair.starts_with("X-Amz-Security-Token="))
            .collect();
        let canonical = sigv4::canonical_request(
            &signed_request.method,
            &case.canonical_path(&signed_request.path),
            &sigv4::canonical_query(&query.join("&")),
            &signed_request.headers,
            &signed,
            &sigv4::sha256_hex(&signed_request.body),
        );
        assert_eq!(canonical, case.text("query-canonical-request.txt").unwrap(), "{}: canonical request", case.name);
        let credential = Credential::parse(&pairs["X-Amz-Credential"]).unwrap();
        let to_sign = sigv4::string_to_sign(&pairs["X-Amz-Date"], &credential.scope(), &canonical);
        assert_eq!(to_sign, case.text("query-string-to-sign.txt").unwrap(), "{}: string to sign", case.name);
        let secret = case.context["credentials"]["secret_access_key"].as_str().unwrap();
        let key = sigv4::signing_key(secret, &credential.date, &credential.region, &credential.service);
        assert_eq!(sigv4::signature(&key, &to_sign), case.text("query-signature.txt").unwrap(), "{}", case.name);
        counted += 1;
    }
    assert_eq!(counted, 38);
}

/// The verifier itself, over every signed request of the suite that HTTP can carry.
#[test]
fn the_verifier_accepts_the_suites_signed_requests_and_refuses_unsigned_session_tokens() {
    let (mut accepted, mut refused, mut not_http) = (0, 0, 0);
    for case in Case::all().iter().filter(|case| !case.context.is_null()) {
        let account = suite_account(case);
        let scope = Scope {
            service: "service",
            region: "us-east-1",
            s3_path: case.flag("normalize") == Some(false),
            skew: Duration::from_secs(300),
        };
        for (file, auth_type) in
            [("header-signed-request.txt", AuthType::Header), ("query-signed-request.txt", AuthType::Query)]
        {
            let raw = raw(&case.text(file).unwrap());
            let Some(request) = http_request(&raw) else {
                not_http += 1;
                continue;
            };
            let payload = Payload::Bytes(&raw.body);
            let verdict = match auth_type {
                AuthType::Header => sigv4::verify_header(&request, payload, scope, &account),
                AuthType::Query | AuthType::Form => sigv4::verify_query(&request, payload, scope, &account),
            };
            if case.flag("omit_session_token") == Some(true) {
                let expected = match auth_type {
                    AuthType::Header => Rejection::UnsignedHeader(vec!["x-amz-security-token".to_owned()]),
                    AuthType::Query | AuthType::Form => Rejection::SignatureMismatch,
                };
                assert_eq!(verdict.unwrap_err(), expected, "{} {file}", case.name);
                refused += 1;
            } else {
                let authenticated = verdict.unwrap_or_else(|error| panic!("{} {file}: {error:?}", case.name));
                assert_eq!(authenticated.auth_type, auth_type);
                accepted += 1;
            }
        }
    }
    assert_eq!((accepted, refused, not_http), (70, 2, 4), "spaces in a target cannot be sent");
}

fn suite_account(case: &Case) -> Account {
    let at = case.context["timestamp"].as_str().unwrap().replace(['-', ':'], "");
    let account = account(&at);
    let credentials = &case.context["credentials"];
    let keys = Keys {
        access_key_id: credentials["access_key_id"].as_str().unwrap().to_owned(),
        secret_access_key: credentials["secret_access_key"].as_str().unwrap().to_owned(),
        session_token: case.token().map(str::to_owned),
        expires: None,
    };
    account.credentials.insert(&keys, account.operator());
    account
}

fn account(timestamp: &str) -> Account {
    let clock = Clock::at(sigv4::parse_timestamp(timestamp).unwrap());
    Account::new(Iam::new("111122223333", "us-east-1", clock, &[]).unwrap())
}

fn http_request(raw: &Raw) -> Option<Request> {
    let target = if raw.query.is_empty() { raw.path.clone() } else { format!("{}?{}", raw.path, raw.query) };
    let mut headers = http::HeaderMap::new();
    for (name, value) in &raw.headers {
        let value = http::HeaderValue::from_bytes(value.trim().as_bytes()).ok()?;
        headers.append(http::HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(Request {
        method: raw.method.parse().ok()?,
        uri: http::uri::PathAndQuery::try_from(target).ok()?.as_str().parse().ok()?,
        headers,
        body: Bytes::from(raw.body.clone()),
        peer: ([127, 0, 0, 1], 1).into(),
    })
}

// ---- known answers -----------------------------------------------------------------------------------------------

#[test]
fn the_s3_presigned_get_of_awss_documentation_is_accepted_until_its_end() {
    let account = account("20130524T000000Z");
    let keys = Keys {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        session_token: None,
        expires: None,
    };
    account.credentials.insert(&keys, account.operator());
    let request = get(
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        "examplebucket.s3.amazonaws.com",
    );
    let scope = Scope { service: "s3", region: "us-east-1", s3_path: true, skew: Duration::from_secs(900) };
    let verify = || sigv4::verify_query(&request, Payload::Declared, scope, &account);
    assert_eq!(verify().unwrap().expires, Some(Duration::from_secs(86_400)));
    account.clock.advance(Duration::from_secs(86_400));
    assert!(verify().is_ok());
    account.clock.advance(Duration::from_secs(1));
    assert_eq!(verify().unwrap_err(), Rejection::Expired);
}

#[test]
fn the_rds_token_of_the_sdk_is_accepted() {
    let account = account("20240826T220000Z");
    let keys = Keys {
        access_key_id: "akid".to_owned(),
        secret_access_key: "secret".to_owned(),
        session_token: None,
        expires: None,
    };
    account.credentials.insert(&keys, account.operator());
    let request = get(
        "/?Action=connect&DBUser=peccy&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=akid%2F20240826%2Fus-east-1%2Frds-db%2Faws4_request&X-Amz-Date=20240826T220000Z&X-Amz-Expires=900\
         &X-Amz-SignedHeaders=host&X-Amz-Signature=dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89",
        "prod-instance.us-east-1.rds.amazonaws.com:3306",
    );
    let scope = Scope { service: "rds-db", region: "us-east-1", s3_path: false, skew: Duration::from_secs(300) };
    assert!(sigv4::verify_query(&request, Payload::Bytes(b""), scope, &account).is_ok());
}

fn get(target: &str, host: &str) -> Request {
    let mut headers = http::HeaderMap::new();
    headers.insert("host", host.parse().unwrap());
    let peer = ([127, 0, 0, 1], 1).into();
    Request { method: http::Method::GET, uri: target.parse().unwrap(), headers, body: Bytes::new(), peer }
}

// ---- refusals ----------------------------------------------------------------------------------------------------

const NOW: &str = "20260102T030405Z";
const BODY: &[u8] = b"{}";

struct Signed {
    keys: Keys,
    timestamp: String,
    scope: String,
    signed: Vec<&'static str>,
    extra: Vec<(&'static str, String)>,
    token: Option<String>,
}

impl Signed {
    fn new(account: &Account) -> Signed {
        let end = account.clock.now() + Duration::from_secs(3_600);
        let keys = account.credentials.issue(account.session("portcullis-test-token", "f", None), Some(end));
        Signed {
            token: keys.session_token.clone(),
            keys,
            timestamp: NOW.to_owned(),
            scope: "20260102/us-east-1/kms/aws4_request".to_owned(),
            signed: vec!["host", "x-amz-date", "x-amz-security-token", "x-amz-target"],
            extra: vec![("x-amz-target", "TrentService.Decrypt".to_owned())],
        }
    }

    fn request(&self) -> Request {
        let mut request = get("/", "localhost:1");
        request.method = http::Method::POST;
        request.body = Bytes::from_static(BODY);
        let mut pairs = vec![("host", "localhost:1".to_owned()), ("x-amz-date", self.timestamp.clone())];
        pairs.extend(self.extra.clone());
        pairs.extend(self.token.clone().map(|token| ("x-amz-security-token", token)));
        request.headers.clear();
        for (name, value) in &pairs {
            request.headers.append(*name, value.parse().unwrap());
        }
        let owned: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let signed: Vec<String> = self.signed.iter().map(|name| (*name).to_owned()).collect();
        let canonical = sigv4::canonical_request("POST", "/", "", &owned, &signed, &sigv4::sha256_hex(BODY));
        let parts: Vec<&str> = self.scope.split('/').collect();
        let key = sigv4::signing_key(&self.keys.secret_access_key, parts[0], parts[1], parts[2]);
        let signature = sigv4::signature(&key, &sigv4::string_to_sign(&self.timestamp, &self.scope, &canonical));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.keys.access_key_id,
            self.scope,
            self.signed.join(";")
        );
        request.headers.insert("authorization", authorization.parse().unwrap());
        request
    }
}

fn verify(account: &Account, request: &Request) -> Result<(), Rejection> {
    let scope = Scope { service: "kms", region: "us-east-1", s3_path: false, skew: Duration::from_secs(300) };
    sigv4::verify_header(request, Payload::Bytes(&request.body), scope, account).map(|_| ())
}

#[test]
fn each_fault_of_a_signed_request_is_refused_with_its_own_reason() {
    type Change = fn(&mut Signed);
    let cases: [(&str, Change, Result<(), Rejection>); 12] = [
        ("nothing", |_| {}, Ok(())),
        (
            "an unsigned x-amz header",
            |s| s.extra.push(("x-amz-meta", "1".to_owned())),
            Err(Rejection::UnsignedHeader(vec!["x-amz-meta".to_owned()])),
        ),
        (
            "host unsigned",
            |s| s.signed.retain(|name| *name != "host"),
            Err(Rejection::UnsignedHeader(vec!["host".to_owned()])),
        ),
        ("a signed header that is absent", |s| s.signed.push("x-extra"), Err(Rejection::SignatureMismatch)),
        ("headers out of order", |s| s.signed.reverse(), Err(Rejection::Malformed)),
        ("another region", |s| s.scope = s.scope.replace("us-east-1", "us-east-2"), Err(Rejection::WrongScope)),
        ("another service", |s| s.scope = s.scope.replace("kms", "sts"), Err(Rejection::WrongScope)),
        ("another day in the scope", |s| s.scope = s.scope.replace("20260102", "20260103"), Err(Rejection::WrongScope)),
        ("no such key", |s| s.keys.access_key_id = "ASIANOBODY".to_owned(), Err(Rejection::UnknownKey)),
        ("another secret", |s| s.keys.secret_access_key.push('x'), Err(Rejection::SignatureMismatch)),
        ("an altered token", |s| s.token.as_mut().unwrap().push('x'), Err(Rejection::TokenInvalid)),
        ("a malformed date", |s| s.timestamp = "20260102T030405".to_owned(), Err(Rejection::Malformed)),
    ];
    for (name, change, expected) in cases {
        let account = account(NOW);
        let mut signed = Signed::new(&account);
        change(&mut signed);
        assert_eq!(verify(&account, &signed.request()), expected, "{name}");
    }
}

#[test]
fn a_missing_token_and_a_token_with_long_lived_keys_are_refused() {
    let account = account(NOW);
    let mut signed = Signed::new(&account);
    signed.token = None;
    signed.signed.retain(|name| *name != "x-amz-security-token");
    assert_eq!(verify(&account, &signed.request()), Err(Rejection::TokenInvalid));
    let mut signed = Signed::new(&account);
    signed.keys = account.credentials.issue(account.operator(), None);
    assert_eq!(verify(&account, &signed.request()), Err(Rejection::TokenInvalid));
}

#[test]
fn time_decides_at_its_boundaries() {
    for (name, ahead, expected) in [
        ("300 s late", 300, Ok(())),
        ("301 s late", 301, Err(Rejection::Skew)),
        ("session over", 3_600, Err(Rejection::TokenExpired)),
    ] {
        let account = account(NOW);
        let request = Signed::new(&account).request();
        account.clock.advance(Duration::from_secs(ahead));
        assert_eq!(verify(&account, &request), expected, "{name}");
    }
    let early = account("20260102T025904Z");
    assert_eq!(verify(&early, &Signed::new(&early).request()), Err(Rejection::Skew));
}

#[test]
fn any_change_after_signing_breaks_the_signature() {
    let account = account(NOW);
    let signed = Signed::new(&account).request();
    let changes: [fn(&mut Request); 6] = [
        |request| request.method = http::Method::PUT,
        |request| request.uri = "/x".parse().unwrap(),
        |request| request.uri = "/?x=1".parse().unwrap(),
        |request| request.body = Bytes::from_static(b"{ }"),
        |request| drop(request.headers.insert("x-amz-target", "TrentService.Encrypt".parse().unwrap())),
        |request| drop(request.headers.insert("host", "localhost:2".parse().unwrap())),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut request = signed.clone();
        change(&mut request);
        assert_eq!(verify(&account, &request), Err(Rejection::SignatureMismatch), "change {index}");
    }
    let mut request = signed.clone();
    request.headers.remove("authorization");
    assert_eq!(verify(&account, &request), Err(Rejection::Missing));
    for malformed in
        ["Bearer x", "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=x"]
    {
        request.headers.insert("authorization", malformed.parse().unwrap());
        assert_eq!(verify(&account, &request), Err(Rejection::Malformed), "{malformed}");
    }
}

#[test]
fn a_presigned_request_must_be_complete_and_short() {
    let account = account(NOW);
    let base = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/20260102/us-east-1/s3/aws4_request&X-Amz-Date=20260102T030405Z\
                &X-Amz-SignedHeaders=host&X-Amz-Signature=0";
    for (query, expected) in [
        (String::new(), Rejection::Missing),
        (base.to_owned(), Rejection::Malformed),
        (format!("{base}&X-Amz-Expires=604801"), Rejection::TooLongExpiry),
        (format!("{base}&X-Amz-Expires=99999999999999999999999"), Rejection::TooLongExpiry),
        (format!("{base}&X-Amz-Expires=-1"), Rejection::Malformed),
        (format!("{base}&X-Amz-Expires=60&X-Amz-Expires=60"), Rejection::Malformed),
        (format!("{base}&X-Amz-Expires=60"), Rejection::UnknownKey),
    ] {
        let request = get(&format!("/x?{query}"), "h");
        let scope = Scope { service: "s3", region: "us-east-1", s3_path: true, skew: Duration::from_secs(900) };
        let verdict = sigv4::verify_query(&request, Payload::Declared, scope, &account);
        assert_eq!(verdict.unwrap_err(), expected, "{query}");
    }
}

#[test]
fn a_principal_is_what_its_keys_were_issued_to() {
    let account = account(NOW);
    let request = Signed::new(&account).request();
    let scope = Scope { service: "kms", region: "us-east-1", s3_path: false, skew: Duration::from_secs(300) };
    let found = sigv4::verify_header(&request, Payload::Bytes(BODY), scope, &account).unwrap();
    let Principal { arn, kind } = found.principal;
    assert_eq!(arn, "arn:aws:sts::111122223333:assumed-role/portcullis-test-token/f");
    assert!(matches!(kind, PrincipalKind::Role { role_name, .. } if role_name == "portcullis-test-token"));
}
