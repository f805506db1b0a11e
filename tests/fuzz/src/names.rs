//! Names, scopes, URLs and dates: each has one spelling, and prints as it was read.

use std::collections::BTreeSet;

use serde_json::Value;
use shared::access;
use shared::clock::Timestamp;
use shared::credential;
use shared::details::{Details, FieldAction, FileAction};
use shared::device::{self, Device};
use shared::dpop::nonce::{self, NonceKey};
use shared::encoding::{base64url, from_base64url, from_hex, hex};
use shared::name::{ClientId, Group, Groups, Identifier, IssuerId, ParameterPath, Tenant};
use shared::object::{ContentType, FileId, FileName, FileStatus, ObjectKey, Sha256Digest, UploadId, VersionId};
use shared::pc1::{self, Row, Version};
use shared::policy::os_version;
use shared::scope::Scopes;
use shared::url::{HttpsUrl, is_resource};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::choice;
use crate::keys::NOW;

const OPERATIONS: [&str; 7] = ["encrypt", "decrypt", "index", "inspect", "rewrap", "export", "import"];

/// Two lists of scopes, one to a line.
pub fn scopes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (one, other) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(one) = Scopes::parse(one) else { return };
    assert_eq!(Scopes::parse(&one.to_string()).as_ref(), Ok(&one));
    let unique: BTreeSet<&str> = one.iter().collect();
    assert!(unique.len() == one.iter().count() && one.grants(&one) && one.grants(&Scopes::default()));
    let Ok(other) = Scopes::parse(other) else { return };
    let Ok(met) = one.meet(&other) else { return };
    assert!(one.grants(&met) && other.grants(&met), "{met} is more than {one} or {other}");
    let back = other.meet(&one).expect("it is as long the other way round");
    assert!(back.grants(&met) && met.grants(&back));
    assert!(one.meet(&one).is_ok_and(|same| same.grants(&one) && one.grants(&same)));
    for scope in ["files:read", "files:write", "files:read:tenant", "app"] {
        assert_eq!(met.allows(scope), one.allows(scope) && other.allows(scope), "{scope}");
    }
    // Whatever both allow on a column the meeting allows, and nothing else.
    let mut names: BTreeSet<&str> = ["zz"].into();
    for scope in one.iter().chain(other.iter()).filter_map(|scope| scope.splitn(3, ':').nth(2)) {
        names.extend(scope.split('.').filter(|name| *name != "*"));
    }
    let names: Vec<&str> = names.into_iter().take(6).collect();
    for operation in OPERATIONS {
        for table in &names {
            for column in &names {
                let both = one.allows_column(operation, table, column) && other.allows_column(operation, table, column);
                assert_eq!(met.allows_column(operation, table, column), both, "{operation}:{table}.{column}");
                assert!(!both || met.allows_operation(operation));
            }
        }
    }
}

/// Authorization details and the claims `device` and `groups`.
pub fn details(data: &[u8]) {
    let Ok(value) = shared::json::value(data, 8) else { return };
    if let Ok(details) = Details::parse(&value) {
        assert_eq!(Details::parse(&details.to_value()).as_ref(), Ok(&details));
        assert!(!details.is_empty() && details.to_value().to_string().len() <= 2_048);
        let entries = value.as_array().unwrap();
        let said = |text: &str| entries.iter().any(|entry| entry["file_id"] == text);
        for action in [FileAction::Read, FileAction::Write] {
            assert!(!details.admit_file(action, Uuid::nil()) || said("00000000-0000-0000-0000-000000000000"));
            for entry in entries.iter().filter(|entry| entry["type"] == "portcullis_file") {
                let id = Uuid::try_parse(entry["file_id"].as_str().unwrap()).unwrap();
                let named = if action == FileAction::Read { "read" } else { "write" };
                let listed = |entry: &&Value| {
                    entry["file_id"] == id.to_string().as_str()
                        && entry["actions"].as_array().unwrap().iter().any(|one| one == named)
                };
                assert_eq!(details.admit_file(action, id), entries.iter().any(|entry| listed(&entry)));
            }
        }
        assert!(!details.admit_field(FieldAction::Decrypt, "no_such_table", "c", "1") || said_table(entries));
    }
    if let Ok(device) = Device::parse(&value) {
        assert_eq!(device.to_value(), value, "a member was passed over");
        assert!(device::is_id(&device.id));
    }
    let texts = value.as_array().and_then(|all| all.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(names) = texts else { return };
    if let Ok(groups) = Groups::of(names.iter().copied()) {
        assert_eq!(groups.iter().collect::<Vec<_>>(), names);
        assert!(names.len() <= 32 && names.iter().all(|name| groups.holds(name) && Group::parse(name).is_ok()));
    }
}

fn said_table(entries: &[Value]) -> bool {
    entries.iter().any(|entry| entry["table"] == "no_such_table")
}

/// A URL that we go to, and one that a token is for.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(url) = HttpsUrl::parse(text) {
        assert_eq!((url.as_str(), url.to_string().as_str()), (text, text));
        let whole = format!("https://{}{}", url.authority(), url.target());
        assert!(whole == text || whole == format!("{text}/"));
        assert_eq!(HttpsUrl::parse(&whole).map(|again| again.port()), Ok(url.port()));
        assert!(is_resource(text) || text.len() > 255);
        // Whoever follows the WHATWG's rules goes to the same host. Labels of other scripts it may refuse.
        match url::Url::parse(text) {
            Ok(other) => {
                assert_eq!(other.host_str(), Some(url.host()));
                assert_eq!(other.port_or_known_default(), Some(url.port()));
                assert!(other.username().is_empty() && other.password().is_none() && other.fragment().is_none());
                assert!(matches!(other.host(), Some(url::Host::Domain(_))), "it is an address");
            }
            Err(error) => assert!(url.host().contains("xn--") || url.host().contains("--"), "{error}"),
        }
    }
    if is_resource(text) {
        assert!(text.is_ascii() && !text.contains('#') && text.contains(':') && text.len() <= 255);
    }
}

/// A file's name, the first bytes of a file, and what it is said to be.
pub fn file_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let name = FileName::clean(text);
    let kept = name.as_str();
    assert!(!kept.is_empty() && kept.len() <= FileName::LIMIT);
    assert!(!kept.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | '"' | ':' | '<' | '>' | '|')));
    assert!(!kept.starts_with('.') && !kept.ends_with(['.', ' ']));
    assert_eq!(FileName::clean(kept), name, "cleaned twice it is another name");
    let value = name.disposition();
    assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.matches('"').count() == 2);
    let encoded = value.rsplit_once("UTF-8''").unwrap().1;
    assert_eq!(percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap(), kept);
}

/// Everything else that is a text with a grammar.
pub fn name(data: &[u8]) {
    let (choice, rest) = choice(data);
    first_bytes(rest);
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match choice % 16 {
        0 => grammar(text, Tenant::parse(text).map(|name| name.to_string()).ok(), 48, b"-"),
        1 => grammar(text, ClientId::parse(text).map(|name| name.to_string()).ok(), 64, b"-._"),
        2 => grammar(text, IssuerId::parse(text).map(|name| name.to_string()).ok(), 48, b"-"),
        3 => grammar(text, Identifier::parse(text).map(|name| name.to_string()).ok(), 63, b"_"),
        4 => parameter_path(text),
        5 => moment(text),
        6 => email(text),
        7 => os(text),
        8 => {
            grammar(text, ObjectKey::parse(text).map(|key| key.to_string()).ok(), 87, b"-/");
            grammar(text, FileId::parse(text).map(|id| id.to_string()).ok(), 36, b"-");
        }
        9 => {
            let visible: Vec<u8> = (0x21..=0x7e).collect();
            grammar(text, VersionId::parse(text).map(|id| id.as_str().to_owned()).ok(), 1_024, &visible);
            grammar(text, UploadId::parse(text).map(|id| id.as_str().to_owned()).ok(), 1_024, &visible);
            assert!(VersionId::parse(text).is_err() || text != "null");
        }
        10 => digest(text),
        11 => encodings(text, rest),
        12 => {
            if let Ok(row) = Row::parse(text) {
                assert!(row.as_str() == text && (1..=256).contains(&text.len()) && !text.contains(char::is_control));
            }
            let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
            assert_eq!(Version::parse(text).ok(), number.map(Version::from));
        }
        13 => {
            let keys = [NonceKey::new(&[1; 32])];
            assert!(!nonce::is_good(text, &keys, NOW), "nobody made it");
        }
        14 => {
            assert!(ContentType::parse(text).ok().is_none_or(|found| found.declared() == text));
            assert!(FileStatus::parse(text).ok().is_none_or(|found| found.as_str() == text));
        }
        _ => {
            if let Ok(presented) = credential::read(text) {
                assert!(text.ends_with(presented.token) && !presented.token.contains([' ', ',']));
            }
            assert!(!access::is_service(text) || text.len() == 39);
        }
    }
}

/// What is read has the letters and digits of ASCII and these, is no longer than that, and prints as it was read.
fn grammar(text: &str, printed: Option<String>, longest: usize, others: &[u8]) {
    if let Some(printed) = printed {
        assert_eq!(printed, text);
        assert!((1..=longest).contains(&text.len()));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte)), "{text:?}");
    }
}

fn parameter_path(text: &str) {
    let Ok(path) = ParameterPath::parse(text) else { return };
    grammar(text, Some(path.to_string()), 256, b"/-._");
    let kid = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    assert_eq!(path.kid_of(&path.of_key(kid)), Some(kid));
    assert_eq!(path.kid_of(text), None);
}

/// A date of ours is RFC 3339's, and the other way round where it is of whole seconds in UTC.
fn moment(text: &str) {
    if let Some(moment) = Timestamp::parse_utc(text) {
        let other = OffsetDateTime::parse(text, &Rfc3339).expect("no such date");
        assert_eq!(other.unix_timestamp(), moment.seconds());
        assert_eq!(other.format(&Rfc3339).ok().as_deref(), Some(text));
    } else if let Ok(other) = OffsetDateTime::parse(text, &Rfc3339) {
        assert!(other.format(&Rfc3339).ok().as_deref() != Some(text) || !text.ends_with('Z') || text.len() != 20);
    }
}

fn email(text: &str) {
    if let Some((local, domain)) = access::normal_email(text) {
        let normal = format!("{local}@{domain}");
        assert!(normal.eq_ignore_ascii_case(text) && normal.matches('@').count() == 1 && text.is_ascii());
        assert_eq!(access::normal_email(&normal), Some((local, domain.clone())));
        assert_eq!(access::normal_domain(&domain), Some(domain));
    }
}

fn os(text: &str) {
    let Some(number) = os_version(text) else { return };
    let mut parts = text.split('.').map(|part| part.parse::<i64>().unwrap()).chain([0; 3]);
    let mut part = || parts.next().unwrap();
    assert_eq!(number, ((part() * 100_000 + part()) * 100_000 + part()) * 100_000 + part());
}

fn digest(text: &str) {
    if let Ok(digest) = Sha256Digest::parse(text) {
        assert_eq!(digest.to_string(), text);
        assert_eq!(Sha256Digest::from_hex(&hex(digest.as_bytes())), Ok(digest));
    }
    if let Ok(digest) = Sha256Digest::from_hex(text) {
        assert!(hex(digest.as_bytes()).eq_ignore_ascii_case(text));
    }
}

fn encodings(text: &str, bytes: &[u8]) {
    assert_eq!(from_base64url(&base64url(bytes)).as_deref(), Some(bytes));
    assert_eq!(from_hex(&hex(bytes)).as_deref(), Some(bytes));
    let decoded = from_base64url(text);
    assert!(decoded.as_ref().is_none_or(|decoded| base64url(decoded) == text), "two spellings of the same bytes");
    let mut buffer = Vec::new();
    assert_eq!(pc1::decode_into(text, &mut buffer).is_ok(), decoded.is_some());
    assert!(decoded.is_none_or(|decoded| decoded == buffer));
    assert!(from_hex(text).is_none_or(|decoded| hex(&decoded).eq_ignore_ascii_case(text)));
}

/// A type that is told by its start takes no beginning that another such type takes, unless they are of one container.
fn first_bytes(start: &[u8]) {
    for (name, beginning) in [("image/png", &b"\x89PNG"[..]), ("image/jpeg", b"\xff\xd8\xff"), ("image/gif", b"GIF8")] {
        let kind = ContentType::parse(name).unwrap();
        assert!(!kind.fits(start) || start.starts_with(beginning));
    }
    let text = ContentType::parse("text/plain").unwrap();
    let wide = start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") || start.starts_with(b"\0\0\xfe\xff");
    assert!(!text.fits(start) || wide || !start.contains(&0));
}
