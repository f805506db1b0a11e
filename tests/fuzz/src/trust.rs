//! JSON, keys and trust objects: what is read prints as what was read, and two readers never see two things.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::details::Details;
use shared::encoding::from_base64url;
use shared::federation::Rule;
use shared::issuer::{Profile, Profiles};
use shared::jwk::PublicJwk;
use shared::jwks::{Algorithm, KeySet, Usage};
use shared::jwt::{AccessToken, Kind};
use shared::name::{Groups, Tenant};
use shared::port::Document;
use shared::scope::Scopes;
use shared::trust::{
    Envelope, IssuerKeys, KeyState, OwnKeys, Posture, Revocations, Revoked, SigningState, TrustObject, posture,
};

use crate::{choice, der, key_set as mirrored, pem};

const ALL: [Algorithm; 5] = [Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256, Algorithm::Ps256, Algorithm::EdDsa];

/// Any bytes where JSON is expected.
pub fn json(data: &[u8]) {
    let plain = serde_json::from_slice::<Value>(data);
    let Ok(read) = shared::json::value(data, 16) else { return };
    let plain = plain.expect("what is read strictly is JSON");
    assert_eq!(read, plain, "another reader sees something else");
    if let (Value::Number(number), Ok(text)) = (&read, std::str::from_utf8(data)) {
        assert_eq!(
            number.as_f64(),
            text.trim_matches([' ', '\t', '\r', '\n']).parse().ok(),
            "another number is nearer"
        );
    }
    assert_eq!(members(data), counted(&read), "a member is there twice");
    assert!(depth(&read) <= 16);
    let printed = serde_json::to_vec(&read).unwrap();
    assert_eq!(shared::json::value(&printed, 16).as_ref(), Ok(&read), "it does not read back");
    assert_eq!(shared::json::object(data, 16).is_ok(), read.is_object());
    assert!(depth(&read) == 0 || shared::json::value(data, depth(&read) - 1).is_err());
}

/// How many members a text has: its colons outside of strings.
fn members(text: &[u8]) -> usize {
    let (mut inside, mut escaped, mut found) = (false, false, 0);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b':' if !inside => found += 1,
            _ => {}
        }
    }
    found
}

fn counted(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(counted).sum(),
        Value::Object(members) => members.len() + members.values().map(counted).sum::<usize>(),
        _ => 0,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// A JWK Set as issuers publish it, as it is mirrored and as verifiers read it.
pub fn key_set(data: &[u8]) {
    let (choice, rest) = choice(data);
    let usage = if choice % 2 == 1 { Usage::JwtSvid } else { Usage::Signature };
    let accepted = if choice & 2 == 2 { &ALL[..1] } else { &ALL[..] };
    let document = Document { content_type: Some("application/json".to_owned()), body: rest.to_vec() };
    let mirrored = mirrored::read(&document, accepted, usage);
    let read = serde_json::from_slice::<Value>(rest).map(|set| KeySet::parse_for(&set, accepted, usage));
    let Ok(mirrored) = mirrored else { return };
    let read = read.unwrap().expect("what is mirrored can be read");
    let kids: BTreeSet<&str> = read.iter().map(|key| key.kid.as_str()).collect();
    assert!((1..=32).contains(&kids.len()) && kids.len() == read.iter().count());
    for key in read.iter() {
        assert!(accepted.contains(&key.algorithm) && posture::is_thumbprint(&key.thumbprint));
        assert_eq!(read.find(&key.kid).map(|found| &found.thumbprint), Some(&key.thumbprint));
    }
    let private = |key: &Value| ["d", "p", "q", "k"].iter().any(|member| key.get(member).is_some());
    assert!(!mirrored["keys"].as_array().unwrap().iter().any(private), "a private member is passed on");
    let verifiers = IssuerKeys::parse(&mirrored).expect("verifiers read what is mirrored");
    let found: Vec<_> = verifiers.of(usage).iter().map(|key| (&key.kid, &key.thumbprint)).collect();
    assert_eq!(found, read.iter().map(|key| (&key.kid, &key.thumbprint)).collect::<Vec<_>>());
}

/// Public keys and signatures in DER, private keys in PEM.
pub fn public_key(data: &[u8]) {
    let (choice, rest) = choice(data);
    if let Some(algorithm) = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa].get(usize::from(choice % 4)) {
        if let Ok(key) = PublicJwk::from_spki(rest, *algorithm) {
            assert_eq!(spki(&key.members.into()), rest, "two encodings of one key");
        }
        return;
    }
    if let Some(fixed) = der::to_fixed(rest) {
        let (r, s) = fixed.split_at(32);
        assert_eq!(element(0x30, &[integer(r), integer(s)].concat()), rest, "two encodings of one signature");
    }
    if let Some((_, key)) = std::str::from_utf8(rest).ok().and_then(pem::decode) {
        let written = pem::encode(&key);
        assert_eq!(pem::decode(&written), Some((pem::Label::Pkcs8, key)));
    }
}

/// The one DER of a public JWK, written anew.
fn spki(jwk: &Value) -> Vec<u8> {
    const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let bytes = |name: &str| from_base64url(jwk[name].as_str().unwrap()).unwrap();
    let (identifier, key) = match jwk["kty"].as_str().unwrap() {
        "RSA" => (RSA, element(0x30, &[integer(&bytes("n")), integer(&bytes("e"))].concat())),
        "EC" => (P256, [vec![4], bytes("x"), bytes("y")].concat()),
        _ => (&b"\x06\x03\x2b\x65\x70"[..], bytes("x")),
    };
    element(0x30, &[element(0x30, identifier), element(0x03, &[vec![0], key].concat())].concat())
}

fn integer(magnitude: &[u8]) -> Vec<u8> {
    let from = magnitude.iter().position(|byte| *byte != 0).unwrap_or(magnitude.len() - 1);
    let digits = &magnitude[from..];
    let sign: &[u8] = if digits[0] >= 0x80 { &[0] } else { &[] };
    element(0x02, &[sign, digits].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, length.to_be_bytes()[7]],
        0x80..=0xff => vec![tag, 0x81, length.to_be_bytes()[7]],
        _ => vec![tag, 0x82, length.to_be_bytes()[6], length.to_be_bytes()[7]],
    };
    [head, content.to_vec()].concat()
}

/// A trust object: its envelope and each kind of body.
pub fn trust_object(data: &[u8]) {
    let (choice, rest) = choice(data);
    if choice % 8 == 0 {
        if let Ok(envelope) = Envelope::open(rest) {
            assert_eq!(Envelope::open(&envelope.seal()).as_ref(), Ok(&envelope));
            assert_eq!(members(rest), 4 + counted(&envelope.body), "a member is there twice");
        }
        return;
    }
    let Ok(body) = shared::json::value(rest, 16) else { return };
    match choice % 8 {
        1 => own_keys(&body),
        2 => profiles(&body),
        3 => posture_list(&body),
        4 => signing_state(&body),
        5 => rule(&body),
        _ => profile(&body),
    }
}

fn own_keys(body: &Value) {
    let Ok(OwnKeys(keys)) = OwnKeys::parse(body) else { return };
    assert!(keys.iter().all(|key| OwnKeys::ALGORITHMS.contains(&key.algorithm)));
}

fn profiles(body: &Value) {
    let Ok(profiles) = Profiles::parse(body) else { return };
    let again: Vec<Value> = profiles.foreign().iter().map(Profile::to_value).collect();
    assert_eq!(Profiles::parse(&json!({ "profiles": again })).as_ref(), Ok(&profiles));
    let ids: BTreeSet<_> = profiles.foreign().iter().map(|profile| profile.id().as_str()).collect();
    assert!(ids.len() == profiles.foreign().len() && !ids.contains("own"));
    for profile in profiles.foreign() {
        if profile.kind().is_workload() {
            assert_eq!(profiles.of_workload(profile.issuer()), Some(profile));
        }
    }
}

fn profile(body: &Value) {
    let Ok(profile) = Profile::parse(body) else { return };
    assert_eq!(&profile.to_value(), body);
    assert!(!profile.algorithms().is_empty() && profile.jwks_url().as_str().starts_with("https://"));
}

fn posture_list(body: &Value) {
    let Ok(list) = Posture::parse(body) else { return };
    for (tenant, listed) in body["tenants"].as_object().unwrap() {
        let tenant = Tenant::parse(tenant).unwrap();
        for entry in listed.as_array().unwrap() {
            for key in entry["keys"].as_array().unwrap() {
                let device = list.of_key(&tenant, key.as_str().unwrap()).unwrap();
                assert_eq!(device.to_value(), entry["device"]);
            }
        }
        let elsewhere = Tenant::parse("another-tenant-than-any").unwrap();
        assert!(
            list.of_key(&elsewhere, &"a".repeat(43)).is_none() || body["tenants"].get(elsewhere.as_str()).is_some()
        );
    }
}

fn signing_state(body: &Value) {
    let Ok(state) = SigningState::parse(body) else { return };
    assert_eq!(SigningState::parse(&serde_json::to_value(&state).unwrap()).as_ref(), Ok(&state));
    for algorithm in ALL {
        let active = |key: &&shared::trust::SigningKey| key.state == KeyState::Active && key.alg == algorithm.as_str();
        let mut all = state.keys.iter().filter(active);
        assert_eq!(state.active(algorithm), all.next().filter(|_| all.next().is_none()));
    }
}

fn rule(body: &Value) {
    if let Ok(rule) = Rule::parse(body) {
        assert_eq!(&rule.to_value(), body, "a member was passed over");
    }
    if let Ok(rule) = Rule::stored(body) {
        assert_eq!(rule.to_value()["issuer"], body["issuer"]);
        assert_eq!(rule.to_value().as_object().unwrap().len() + 1, body.as_object().unwrap().len());
    }
}

/// Revocations, written by us and looked up, and bodies that somebody else wrote.
pub fn revocations(data: &[u8]) {
    let (choice, rest) = choice(data);
    if choice % 2 == 0 {
        let Ok(body) = shared::json::value(rest, 8) else { return };
        let Ok(list) = Revocations::parse(&body) else { return };
        let entries = body.get("entries").and_then(Value::as_str).map_or(Some(Vec::new()), from_base64url).unwrap();
        assert_eq!(list.len() * 12, entries.len());
        let marks: Vec<&[u8]> = entries.chunks(12).map(|entry| &entry[..8]).collect();
        assert!(marks.windows(2).all(|two| two[0] < two[1]), "out of order, so that a search would miss one");
        let kids = body.get("kid").and_then(Value::as_array).map(Vec::len).unwrap_or_default();
        assert_eq!(list.is_empty(), entries.is_empty() && kids == 0);
        return;
    }
    let lines: Vec<(Revoked, String, i64)> = rest.split(|byte| *byte == b'\n').filter_map(line).collect();
    let told = lines.iter().map(|(kind, value, until)| (*kind, value.as_str(), *until));
    let list = Revocations::parse(&Revocations::body(told, &["gone"])).expect("our own body is one");
    assert!(list.len() <= lines.len());
    for (at, (_, value, issued)) in lines.iter().enumerate().take(8) {
        let token = token(value, *issued, lines.get(at + 1).map(|(_, other, _)| other.as_str()));
        let said = |kind: Revoked, held: Option<&str>| {
            lines.iter().any(|(of, value, until)| {
                let until = if kind == Revoked::Token { i64::from(u32::MAX) } else { *until };
                let until = until.clamp(0, i64::from(u32::MAX));
                *of == kind && Some(value.as_str()) == held && token.issued_at.seconds() <= until
            })
        };
        let hit = said(Revoked::Token, Some(&token.jti))
            || said(Revoked::Subject, Some(&token.subject))
            || said(Revoked::Client, Some(&token.client_id))
            || said(Revoked::Tenant, Some(token.tenant.as_str()))
            || said(Revoked::Session, token.session.as_deref());
        assert_eq!(list.hits(&token), hit, "{token:?}");
        let gone = AccessToken { kid: "gone".to_owned(), ..token };
        assert!(list.hits(&gone));
    }
}

/// `kind value until`, the kind as one digit.
fn line(text: &[u8]) -> Option<(Revoked, String, i64)> {
    const KINDS: [Revoked; 5] = [Revoked::Token, Revoked::Subject, Revoked::Client, Revoked::Tenant, Revoked::Session];
    let (kind, rest) = text.split_first()?;
    let (value, until) = rest.split_at_checked(rest.len().checked_sub(4)?)?;
    let until = i64::from(u32::from_be_bytes(until.try_into().ok()?));
    Some((KINDS[usize::from(*kind) % KINDS.len()], String::from_utf8_lossy(value).into_owned(), until))
}

fn token(value: &str, issued: i64, session: Option<&str>) -> AccessToken {
    AccessToken {
        kid: "k".to_owned(),
        subject: value.to_owned(),
        client_id: "c".to_owned(),
        jti: value.to_owned(),
        issued_at: Timestamp::from_seconds(issued),
        expires_at: Timestamp::from_seconds(issued.saturating_add(300)),
        scopes: Scopes::default(),
        tenant: Tenant::parse(value).unwrap_or(Tenant::parse("acme").unwrap()),
        kind: Kind::Machine,
        session: session.map(str::to_owned),
        groups: Groups::default(),
        thumbprint: None,
        device: None,
        service: None,
        details: Details::default(),
    }
}
