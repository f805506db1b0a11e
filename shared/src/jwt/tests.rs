use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RsaEncoding,
};
use serde_json::json;

use super::*;
use crate::encoding::base64url;
use crate::jwks::Algorithm;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const ISSUER: &str = "https://gate.example";
const AUDIENCE: &str = "https://api.example";

struct Issuer {
    pair: EcdsaKeyPair,
    keys: KeySet,
    jwk: Value,
}

impl Issuer {
    fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let jwk = json!({"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":kid,
            "x":base64url(&point[1..33]),"y":base64url(&point[33..])});
        let keys = KeySet::parse(&json!({"keys":[jwk]}), &[Algorithm::Es256]).unwrap();
        Self { pair, keys, jwk }
    }

    fn sign_raw(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", base64url(signature.as_ref()))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_raw(&header.to_string(), &claims.to_string())
    }
}

fn header() -> Value {
    json!({"alg":"ES256","typ":"at+jwt","kid":"k1"})
}

fn claims() -> Value {
    json!({"iss":ISSUER,"sub":"acme-backend","aud":AUDIENCE,"client_id":"acme-backend",
        "jti":"0198e1a0-0000-7000-8000-000000000001","iat":NOW.seconds(),"exp":NOW.seconds() + 300,
        "scope":"files:read files:write","tenant":"acme","kind":"machine"})
}

fn human() -> Value {
    with(claims(), "kind", json!("human"))
}

fn device() -> Value {
    json!({"id":"d1","source":"cloudflare","checked_at":NOW.seconds()})
}

fn with(mut base: Value, member: &str, value: Value) -> Value {
    base[member] = value;
    base
}

fn without(mut base: Value, member: &str) -> Value {
    base.as_object_mut().unwrap().remove(member);
    base
}

fn client_assertion(
    token: &str,
    client_id: &str,
    issuer: &str,
    keys: &KeySet,
    now: Timestamp,
) -> Result<ClientAssertion, Reason> {
    Assertion::read(Compact::tolerating(token, &["x5t"])?).verify(client_id, issuer, keys, now)
}

fn check(issuer: &Issuer, token: &str) -> Result<AccessToken, Reason> {
    access_token(token, ISSUER, AUDIENCE, &issuer.keys, NOW)
}

#[test]
fn a_persons_token_says_its_groups() {
    let issuer = Issuer::new("k1");
    let claims = with(with(human(), "groups", json!(["staff", "ops.eu"])), "sid", json!("s1"));
    let token = check(&issuer, &issuer.sign(&header(), &claims)).unwrap();
    assert_eq!((token.kind, token.session.as_deref()), (Kind::Human, Some("s1")));
    assert_eq!(token.groups.iter().collect::<Vec<_>>(), ["staff", "ops.eu"]);
    assert!(token.groups.holds("staff") && !token.groups.holds("Staff"));
    assert_eq!(check(&issuer, &issuer.sign(&header(), &human())).unwrap().groups, Groups::default());
}

#[test]
fn a_machines_token_says_with_which_service_token_it_comes() {
    let issuer = Issuer::new("k1");
    let service = "e367826f93b8d71185e03fe518aff3b4.access";
    let token = check(&issuer, &issuer.sign(&header(), &with(claims(), "service", json!(service)))).unwrap();
    assert_eq!(token.service.as_deref(), Some(service));
    assert_eq!(check(&issuer, &issuer.sign(&header(), &claims())).unwrap().service, None);
}

#[test]
fn a_good_token_is_read_whole() {
    let issuer = Issuer::new("k1");
    let claims = with(with(claims(), "cnf", json!({"jkt":"thumb"})), "device", device());
    let token = check(&issuer, &issuer.sign(&header(), &with(claims, "sid", json!("s1")))).unwrap();
    assert_eq!((token.subject.as_str(), token.tenant.as_str(), token.kid.as_str()), ("acme-backend", "acme", "k1"));
    assert_eq!(
        (token.thumbprint.as_deref(), token.device.map(|device| device.to_value())),
        (Some("thumb"), Some(device()))
    );
    assert_eq!((token.session.as_deref(), token.kind), (Some("s1"), Kind::Machine));
    assert_eq!(token.expires_at, NOW.plus_seconds(300));
    assert!(token.scopes.allows("files:write"));
}

#[test]
fn every_header_that_is_not_ours_is_refused() {
    let issuer = Issuer::new("k1");
    for (header, reason) in [
        (with(header(), "alg", json!("none")), Reason::WrongAlgorithm),
        (with(header(), "alg", json!("None")), Reason::WrongAlgorithm),
        (with(header(), "alg", json!("nOnE")), Reason::WrongAlgorithm),
        (with(header(), "alg", json!("HS256")), Reason::WrongAlgorithm),
        (with(header(), "alg", json!("es256")), Reason::WrongAlgorithm),
        (with(header(), "alg", json!("RS256")), Reason::WrongAlgorithm),
        (with(header(), "alg", json!(["ES256"])), Reason::Malformed),
        (without(header(), "alg"), Reason::WrongAlgorithm),
        (with(header(), "typ", json!("JWT")), Reason::WrongType),
        (with(header(), "typ", json!("AT+JWT")), Reason::WrongType),
        (with(header(), "typ", json!("dpop+jwt")), Reason::WrongType),
        (without(header(), "typ"), Reason::WrongType),
        (with(header(), "kid", json!("")), Reason::UnknownKey),
        (with(header(), "kid", json!("../../../../../../dev/null")), Reason::UnknownKey),
        (with(header(), "kid", json!("|sleep 10")), Reason::UnknownKey),
        (with(header(), "kid", json!("x' UNION SELECT '1';--")), Reason::UnknownKey),
        (with(header(), "kid", json!("k".repeat(5000))), Reason::UnknownKey),
        (with(header(), "kid", json!(1)), Reason::Malformed),
        (with(header(), "kid", json!(["k1"])), Reason::Malformed),
        (without(header(), "kid"), Reason::UnknownKey),
        (with(header(), "crit", json!(["exp"])), Reason::ForbiddenHeader),
        (with(header(), "b64", json!(false)), Reason::ForbiddenHeader),
        (with(header(), "jwk", issuer.jwk.clone()), Reason::ForbiddenHeader),
        (with(header(), "jku", json!("https://evil.example/jwks.json")), Reason::ForbiddenHeader),
        (with(header(), "x5u", json!("https://evil.example/x5u")), Reason::ForbiddenHeader),
        (with(header(), "x5c", json!(["AA"])), Reason::ForbiddenHeader),
        (with(header(), "zip", json!("DEF")), Reason::ForbiddenHeader),
        (with(header(), "unknown", json!(1)), Reason::ForbiddenHeader),
    ] {
        assert_eq!(check(&issuer, &issuer.sign(&header, &claims())), Err(reason), "{header}");
    }
}

#[test]
fn every_claim_that_is_not_exact_is_refused() {
    let issuer = Issuer::new("k1");
    let (now, bad) = (NOW.seconds(), Reason::BadClaims);
    for (claims, reason) in [
        (with(claims(), "iss", json!("https://gate.example/")), Reason::WrongIssuer),
        (with(claims(), "iss", json!(["https://evil.example", ISSUER])), Reason::WrongIssuer),
        (without(claims(), "iss"), Reason::WrongIssuer),
        (with(claims(), "aud", json!("https://other.example")), Reason::WrongAudience),
        (with(claims(), "aud", json!([AUDIENCE])), bad),
        (with(claims(), "aud", json!([])), bad),
        (with(claims(), "aud", json!(7)), bad),
        (without(claims(), "aud"), bad),
        (with(with(claims(), "iat", json!(now - 60)), "exp", json!(now)), Reason::Expired),
        (with(claims(), "exp", json!(now)), bad),
        (with(with(claims(), "exp", json!(now - 50)), "iat", json!(now - 100)), Reason::Expired),
        (with(claims(), "exp", json!(format!("{}", now + 100))), bad),
        (with(claims(), "exp", json!(now as f64 + 100.5)), bad),
        (with(claims(), "exp", json!(-1)), bad),
        (with(claims(), "exp", json!(1e18)), bad),
        (with(claims(), "exp", json!(now + 901)), Reason::TooLongLived),
        (with(claims(), "exp", Value::Null), bad),
        (without(claims(), "exp"), bad),
        (without(claims(), "iat"), bad),
        (with(with(claims(), "iat", json!(now + 11)), "exp", json!(now + 100)), Reason::NotYetValid),
        (with(claims(), "nbf", json!(now + 11)), Reason::NotYetValid),
        (with(claims(), "nbf", json!("now")), bad),
        (without(claims(), "sub"), bad),
        (with(claims(), "sub", json!("")), bad),
        (with(claims(), "sub", json!("s".repeat(300))), bad),
        (with(claims(), "sub", json!(["a"])), bad),
        (without(claims(), "jti"), bad),
        (with(claims(), "client_id", json!("../x")), bad),
        (with(claims(), "tenant", json!("Acme")), bad),
        (with(claims(), "tenant", json!("acme/../globex")), bad),
        (without(claims(), "tenant"), bad),
        (with(claims(), "scope", json!("admin")), bad),
        (with(claims(), "scope", json!(["files:read"])), bad),
        (without(claims(), "scope"), bad),
        (with(claims(), "kind", json!("root")), bad),
        (without(claims(), "kind"), bad),
        (with(claims(), "cnf", json!({"x5t#S256":"a"})), Reason::UnsupportedBinding),
        (with(claims(), "cnf", json!({"jkt":"a","x5t#S256":"b"})), Reason::UnsupportedBinding),
        (with(claims(), "cnf", json!("jkt")), bad),
        (with(claims(), "authorization_details", json!([])), Reason::UnsupportedRestriction),
        (
            with(
                claims(),
                "authorization_details",
                json!([{"type":"portcullis_file","actions":["read"],"file_id":"f"}]),
            ),
            Reason::UnsupportedRestriction,
        ),
        (with(claims(), "service", json!(null)), bad),
        (with(claims(), "service", json!("e367826f93b8d71185e03fe518aff3b4")), bad),
        (with(claims(), "service", json!("E367826f93b8d71185e03fe518aff3b4.access")), bad),
        (with(human(), "service", json!("e367826f93b8d71185e03fe518aff3b4.access")), bad),
        (with(claims(), "device", json!("d1")), bad),
        (with(claims(), "device", json!({"id":"d1"})), bad),
        (with(claims(), "device", with(device(), "risk", json!(1))), bad),
        (with(claims(), "groups", json!(["staff"])), bad),
        (with(human(), "groups", json!("staff")), bad),
        (with(human(), "groups", json!([1])), bad),
        (with(human(), "groups", json!(["a b"])), bad),
        (with(human(), "groups", json!(["staff", "staff"])), bad),
        (with(human(), "groups", json!((0..33).map(|n| format!("g{n}")).collect::<Vec<_>>())), bad),
        (with(claims(), "sid", json!(1)), bad),
    ] {
        assert_eq!(check(&issuer, &issuer.sign(&header(), &claims)), Err(reason), "{claims}");
    }
    for accepted in [with(claims(), "nbf", json!(now + 10)), with(claims(), "exp", json!(now + 1))] {
        assert!(check(&issuer, &issuer.sign(&header(), &accepted)).is_ok(), "{accepted}");
    }
}

#[test]
fn text_that_is_not_one_canonical_compact_jws_is_refused() {
    let issuer = Issuer::new("k1");
    let good = issuer.sign(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (h, c, s) = (parts[0], parts[1], parts[2]);
    let duplicate = claims().to_string().replacen('{', r#"{"scope":"app","#, 1);
    let duplicate_header = r#"{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"k1"}"#;
    let deep = claims().to_string().replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(50), "]".repeat(50)), 1);
    for (what, token) in [
        ("empty", String::new()),
        ("two parts", format!("{h}.{c}")),
        ("empty signature", format!("{h}.{c}.")),
        ("no header", format!(".{c}.{s}")),
        ("four parts", format!("{good}.{s}")),
        ("five parts", format!("{good}.{s}.{s}")),
        ("padding", format!("{good}=")),
        ("newline", format!("{good}\n")),
        ("leading space", format!(" {good}")),
        ("one megabyte", "a".repeat(1 << 20)),
        ("not ASCII", format!("{h}.{c}.é")),
        ("JSON serialisation", json!({"payload":c,"signatures":[{"protected":h,"signature":s}]}).to_string()),
        ("duplicate claim", issuer.sign_raw(&header().to_string(), &duplicate)),
        ("duplicate header", issuer.sign_raw(duplicate_header, &claims().to_string())),
        ("byte-order mark", issuer.sign_raw(&header().to_string(), &format!("\u{feff}{}", claims()))),
        ("depth bomb", issuer.sign_raw(&header().to_string(), &deep)),
        ("claims not an object", issuer.sign_raw(&header().to_string(), "[]")),
    ] {
        assert_eq!(check(&issuer, &token), Err(Reason::Malformed), "{what}");
    }
    assert!(check(&issuer, &good).is_ok(), "and the good one still passes");
}

#[test]
fn a_signature_that_does_not_hold_is_refused() {
    let (issuer, other) = (Issuer::new("k1"), Issuer::new("k1"));
    let good = issuer.sign(&header(), &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bytes = crate::encoding::from_base64url(signature).unwrap();
    let foreign = other.sign(&header(), &with(claims(), "tenant", json!("globex")));
    let der = [0x30, 6, 2, 1, 1, 2, 1, 1];
    for (what, token, reason) in [
        ("another key", foreign, Reason::BadSignature),
        ("r = s = 0", format!("{signed}.{}", base64url(&[0; 64])), Reason::BadSignature),
        ("63 bytes", format!("{signed}.{}", base64url(&[1; 63])), Reason::BadSignature),
        ("65 bytes", format!("{signed}.{}", base64url(&[1; 65])), Reason::BadSignature),
        ("DER", format!("{signed}.{}", base64url(&der)), Reason::BadSignature),
        ("the last three bytes cut", format!("{signed}.{}", base64url(&bytes[..61])), Reason::BadSignature),
    ] {
        assert_eq!(check(&issuer, &token), Err(reason), "{what}");
    }
    // Every claim byte is covered by the signature.
    let claims_at = good.find('.').unwrap() + 1;
    for at in [claims_at + 10, claims_at + 60, claims_at + 120] {
        let mut tampered = good.clone().into_bytes();
        tampered[at] = if tampered[at] == b'A' { b'B' } else { b'A' };
        assert!(check(&issuer, std::str::from_utf8(&tampered).unwrap()).is_err(), "byte {at}");
    }
}

#[test]
fn a_token_of_one_use_is_no_token_of_another() {
    let issuer = Issuer::new("k1");
    let assertion = json!({"iss":"acme-backend","sub":"acme-backend","aud":ISSUER,"jti":"a1",
        "iat":NOW.seconds(),"exp":NOW.seconds() + 60});
    let untyped = issuer.sign(&json!({"alg":"ES256","kid":"k1"}), &assertion);
    assert_eq!(check(&issuer, &untyped), Err(Reason::WrongType));
    let access = issuer.sign(&header(), &claims());
    assert_eq!(client_assertion(&access, "acme-backend", ISSUER, &issuer.keys, NOW), Err(Reason::WrongType));
}

#[test]
fn client_assertions_keep_to_rfc_7523() {
    let issuer = Issuer::new("c1");
    let (now, id) = (NOW.seconds(), "acme-backend");
    let head = json!({"alg":"ES256","kid":"c1"});
    let good = json!({"iss":id,"sub":id,"aud":ISSUER,"jti":"a1","iat":now,"exp":now + 60});
    let verify = |head: &Value, claims: &Value| {
        client_assertion(&issuer.sign(head, claims), id, ISSUER, &issuer.keys, NOW).map(|a| a.jti)
    };
    for typ in [None, Some("JWT"), Some("client-authentication+jwt")] {
        let head = typ.map_or(head.clone(), |typ| with(head.clone(), "typ", json!(typ)));
        assert_eq!(verify(&head, &good).as_deref(), Ok("a1"));
    }
    assert!(verify(&head, &without(good.clone(), "iat")).is_ok());
    for (claims, reason) in [
        (with(good.clone(), "aud", json!([ISSUER])), Reason::BadClaims),
        (with(good.clone(), "aud", json!("https://gate.example/oauth2/token")), Reason::WrongAudience),
        (with(good.clone(), "aud", json!("https://gate.example/")), Reason::WrongAudience),
        (with(good.clone(), "sub", json!("acme-reader")), Reason::WrongIssuer),
        (with(good.clone(), "iss", json!("acme-reader")), Reason::WrongIssuer),
        (without(good.clone(), "sub"), Reason::BadClaims),
        (without(good.clone(), "jti"), Reason::BadClaims),
        (with(good.clone(), "jti", json!("")), Reason::BadClaims),
        (without(good.clone(), "exp"), Reason::BadClaims),
        (with(with(good.clone(), "iat", json!(now - 400)), "exp", json!(now - 300)), Reason::Expired),
        (with(good.clone(), "exp", json!(now + 301)), Reason::TooLongLived),
        (with(without(good.clone(), "iat"), "exp", json!(now + 301)), Reason::TooLongLived),
        (with(good.clone(), "iat", json!(now + 11)), Reason::NotYetValid),
    ] {
        assert_eq!(verify(&head, &claims), Err(reason), "{claims}");
    }
}

#[test]
fn one_key_verifies_one_algorithm_of_its_family() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
    let jwk = |alg: &str| json!({"kty":"RSA","kid":"k1","use":"sig","alg":alg,"n":base64url(&modulus),"e":"AQAB"});
    let keys = |alg: &str| KeySet::parse(&json!({"keys":[jwk(alg)]}), &[Algorithm::Rs256, Algorithm::Ps256]).unwrap();
    let signed = |named: &str, padding: &'static dyn RsaEncoding| {
        let head = with(header(), "alg", json!(named)).to_string();
        let input = format!("{}.{}", base64url(head.as_bytes()), base64url(claims().to_string().as_bytes()));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
        format!("{input}.{}", base64url(&signature))
    };
    for (what, token, keys, outcome) in [
        ("RS256 as named", signed("RS256", &RSA_PKCS1_SHA256), keys("RS256"), Ok(())),
        ("PS256 as named", signed("PS256", &RSA_PSS_SHA256), keys("PS256"), Ok(())),
        ("a PSS signature named RS256", signed("RS256", &RSA_PSS_SHA256), keys("RS256"), Err(Reason::BadSignature)),
        ("PS256 under an RS256 key", signed("PS256", &RSA_PSS_SHA256), keys("RS256"), Err(Reason::WrongAlgorithm)),
        ("RS256 under a PS256 key", signed("RS256", &RSA_PKCS1_SHA256), keys("PS256"), Err(Reason::WrongAlgorithm)),
        ("SHA-512 named RS256", signed("RS256", &RSA_PKCS1_SHA512), keys("RS256"), Err(Reason::BadSignature)),
    ] {
        assert_eq!(access_token(&token, ISSUER, AUDIENCE, &keys, NOW).map(|_| ()), outcome, "{what}");
    }
}

#[test]
fn a_mac_keyed_with_the_public_key_is_no_signature() {
    let issuer = Issuer::new("k1");
    let point = [&[4][..], &crate::encoding::from_base64url(issuer.jwk["x"].as_str().unwrap()).unwrap()].concat();
    let jwk = issuer.jwk.to_string();
    for secret in [&b""[..], b"secret", b"password", &point, jwk.as_bytes()] {
        for alg in ["HS256", "HS384", "HS512", "ES256"] {
            let head = with(header(), "alg", json!(alg)).to_string();
            let input = format!("{}.{}", base64url(head.as_bytes()), base64url(claims().to_string().as_bytes()));
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, secret), input.as_bytes());
            for length in [32, 64] {
                let token = format!("{input}.{}", base64url(&mac.as_ref()[..length]));
                let reason = if alg == "ES256" { Reason::BadSignature } else { Reason::WrongAlgorithm };
                assert_eq!(check(&issuer, &token), Err(reason), "{alg}");
            }
        }
    }
}

#[test]
fn a_signature_has_the_freedom_of_its_algorithm_and_no_more() {
    // ECDSA: JOSE knows no low-s rule, so that the other root is as good, and the token is still the same token.
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let issuer = Issuer::new("k1");
    let good = issuer.sign(&header(), &claims());
    let (input, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = crate::encoding::from_base64url(signature).unwrap();
    let order = crate::encoding::from_hex(ORDER).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let digit = i16::from(order[at]) - i16::from(bytes[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        bytes[32 + at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    assert_eq!(check(&issuer, &format!("{input}.{}", base64url(&bytes))), check(&issuer, &good));
    bytes[32..].copy_from_slice(&order);
    assert_eq!(check(&issuer, &format!("{input}.{}", base64url(&bytes))), Err(Reason::BadSignature), "s = n");

    // EdDSA: S must be below the group's order (RFC 8032 §5.1.7).
    const GROUP: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let pair = Ed25519KeyPair::generate().unwrap();
    let jwk = json!({"kty":"OKP","crv":"Ed25519","kid":"k1","x":base64url(pair.public_key().as_ref())});
    let keys = KeySet::parse(&json!({"keys":[jwk]}), &[Algorithm::EdDsa]).unwrap();
    for name in ["EdDSA", "Ed25519"] {
        let head = with(header(), "alg", json!(name)).to_string();
        let input = format!("{}.{}", base64url(head.as_bytes()), base64url(claims().to_string().as_bytes()));
        let mut bytes = pair.sign(input.as_bytes()).as_ref().to_vec();
        let verify = |bytes: &[u8]| {
            let token = format!("{input}.{}", base64url(bytes));
            access_token(&token, ISSUER, AUDIENCE, &keys, NOW).map(|_| ())
        };
        assert_eq!(verify(&bytes), Ok(()), "{name}");
        let mut carry = 0;
        for (at, digit) in crate::encoding::from_hex(GROUP).unwrap().into_iter().enumerate() {
            let sum = u16::from(bytes[32 + at]) + u16::from(digit) + carry;
            (bytes[32 + at], carry) = (u8::try_from(sum & 0xff).unwrap(), sum >> 8);
        }
        assert_eq!(verify(&bytes), Err(Reason::BadSignature), "{name} with S + L");
    }
}

#[test]
fn no_other_spelling_of_base64url_is_read() {
    let issuer = Issuer::new("k1");
    let good = issuer.sign(&header(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    for at in 0..3 {
        let spelt = |part: String| {
            let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
            parts[at] = part;
            check(&issuer, &parts.join("."))
        };
        for tail in ["=", "==", "+", "/", " ", "\t", "\r\n", "%3D", "\0"] {
            assert_eq!(spelt(format!("{}{tail}", parts[at])), Err(Reason::Malformed), "part {at} with {tail:?}");
        }
        // The last character of a part that is no multiple of four carries bits that must be zero.
        if !parts[at].len().is_multiple_of(4) {
            let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let (stem, last) = parts[at].split_at(parts[at].len() - 1);
            let next = alphabet.as_bytes()[alphabet.find(last).unwrap() ^ 1];
            assert_eq!(spelt(format!("{stem}{}", char::from(next))), Err(Reason::Malformed), "trailing bits of {at}");
        }
    }
}

#[test]
fn every_member_set_to_every_odd_value_is_refused() {
    let issuer = Issuer::new("k1");
    let odd = [
        json!(true),
        json!(null),
        json!([]),
        json!({}),
        json!(0),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}"),
        json!("a".repeat(3000)),
    ];
    for value in &odd {
        for member in ["alg", "typ", "kid"] {
            let head = with(header(), member, value.clone());
            assert!(check(&issuer, &issuer.sign(&head, &claims())).is_err(), "header {member} = {value}");
        }
        for member in ["iss", "sub", "aud", "client_id", "jti", "iat", "exp", "tenant", "kind", "nbf", "sid", "cnf"] {
            let accepted = matches!((member, value.as_i64()), ("nbf", Some(0)));
            let token = issuer.sign(&header(), &with(claims(), member, value.clone()));
            assert_eq!(check(&issuer, &token).is_ok(), accepted, "{member} = {value}");
        }
    }
    assert!(check(&issuer, &issuer.sign(&header(), &claims())).is_ok(), "and the good one still passes");
}

#[test]
fn times_at_the_edges_of_their_type_neither_pass_nor_panic() {
    let issuer = Issuer::new("k1");
    for edge in [0, 1, 253_402_300_799, 253_402_300_800, i64::MAX - 1, i64::MAX, i64::MIN, -1] {
        for (iat, exp) in
            [(edge, NOW.seconds() + 1), (NOW.seconds(), edge), (edge, edge), (edge, edge.saturating_add(300))]
        {
            let claims = with(with(claims(), "iat", json!(iat)), "exp", json!(exp));
            assert!(check(&issuer, &issuer.sign(&header(), &claims)).is_err(), "{iat} {exp}");
        }
    }
    for now in [0, i64::MIN, i64::MAX] {
        let token = issuer.sign(&header(), &claims());
        let verified = access_token(&token, ISSUER, AUDIENCE, &issuer.keys, Timestamp::from_millis(now));
        assert!(verified.is_err(), "a clock that stands at {now}");
    }
}

#[test]
fn a_client_assertion_is_held_to_the_same_forms() {
    let issuer = Issuer::new("c1");
    let (now, id) = (NOW.seconds(), "acme-backend");
    let head = json!({"alg":"ES256","kid":"c1"});
    let good = json!({"iss":id,"sub":id,"aud":ISSUER,"jti":"a1","iat":now,"exp":now + 60});
    for (head, reason) in [
        (with(head.clone(), "alg", json!("none")), Reason::WrongAlgorithm),
        (with(head.clone(), "alg", json!("HS256")), Reason::WrongAlgorithm),
        (with(head.clone(), "alg", json!("RS256")), Reason::WrongAlgorithm),
        (with(head.clone(), "alg", json!(null)), Reason::Malformed),
        (with(head.clone(), "kid", json!("../../../../dev/null")), Reason::UnknownKey),
        (with(head.clone(), "kid", json!(["c1"])), Reason::Malformed),
        (without(head.clone(), "kid"), Reason::UnknownKey),
        (with(head.clone(), "typ", json!("at+jwt")), Reason::WrongType),
        (with(head.clone(), "typ", json!("dpop+jwt")), Reason::WrongType),
        (with(head.clone(), "crit", json!(["exp"])), Reason::ForbiddenHeader),
        (with(head.clone(), "jwk", issuer.jwk.clone()), Reason::ForbiddenHeader),
        (with(head.clone(), "jku", json!("https://evil.example/jwks.json")), Reason::ForbiddenHeader),
        (with(head.clone(), "x5c", json!(["AA"])), Reason::ForbiddenHeader),
        // Read past while the issuer is looked for, and refused of a client.
        (with(head.clone(), "x5t", json!("AA")), Reason::ForbiddenHeader),
        (with(head.clone(), "cty", json!("JWT")), Reason::ForbiddenHeader),
        (with(head.clone(), "zip", json!("DEF")), Reason::ForbiddenHeader),
    ] {
        let assertion = issuer.sign(&head, &good);
        assert_eq!(client_assertion(&assertion, id, ISSUER, &issuer.keys, NOW).map(|_| ()), Err(reason), "{head}");
    }
    let (other, token) = (Issuer::new("c1"), issuer.sign(&head, &good));
    assert_eq!(client_assertion(&other.sign(&head, &good), id, ISSUER, &issuer.keys, NOW), Err(Reason::BadSignature));
    for cut in [token.rfind('.').unwrap(), token.rfind('.').unwrap() + 1, token.len() - 4] {
        assert!(client_assertion(&token[..cut], id, ISSUER, &issuer.keys, NOW).is_err(), "cut at {cut}");
    }
    assert!(client_assertion(&token, id, ISSUER, &issuer.keys, NOW).is_ok());
}

/// Runbooks and alarms look for them.
#[test]
fn every_reason_has_its_name_in_the_log() {
    for (reason, name) in [
        (Reason::Missing, "credential_missing"),
        (Reason::Ambiguous, "credential_ambiguous"),
        (Reason::Malformed, "token_malformed"),
        (Reason::WrongType, "token_wrong_type"),
        (Reason::WrongAlgorithm, "token_wrong_algorithm"),
        (Reason::ForbiddenHeader, "token_forbidden_header"),
        (Reason::UnknownKey, "token_unknown_key"),
        (Reason::BadSignature, "token_bad_signature"),
        (Reason::WrongIssuer, "token_wrong_issuer"),
        (Reason::WrongAudience, "token_wrong_audience"),
        (Reason::BadClaims, "token_bad_claims"),
        (Reason::Expired, "token_expired"),
        (Reason::NotYetValid, "token_not_yet_valid"),
        (Reason::TooLongLived, "token_too_long_lived"),
        (Reason::Revoked, "token_revoked"),
        (Reason::UnsupportedBinding, "token_unsupported_binding"),
        (Reason::UnsupportedRestriction, "token_unsupported_restriction"),
        (Reason::AssertionRequired, "assertion_required"),
        (Reason::Proof(Flaw::Replayed), "proof_replayed"),
        (Reason::Assertion(access::Flaw::OfAnother), "assertion_of_another"),
    ] {
        assert_eq!(reason.as_str(), name);
    }
    assert_eq!([Kind::Machine, Kind::Human].map(Kind::as_str), ["machine", "human"]);
}

#[test]
fn what_is_as_long_as_it_may_be_is_taken_and_one_more_is_not() {
    let issuer = Issuer::new("k1");
    for (member, most, more) in [
        ("exp", json!(NOW.seconds() + MAX_ACCESS_LIFE), json!(NOW.seconds() + MAX_ACCESS_LIFE + 1)),
        ("sub", json!("s".repeat(256)), json!("s".repeat(257))),
        ("jti", json!("j".repeat(128)), json!("j".repeat(129))),
        ("sid", json!("i".repeat(128)), json!("i".repeat(129))),
    ] {
        assert!(check(&issuer, &issuer.sign(&header(), &with(claims(), member, most))).is_ok(), "{member}");
        assert!(check(&issuer, &issuer.sign(&header(), &with(claims(), member, more))).is_err(), "{member}");
    }
}

/// Whoever remembers a verified token asks this before believing it again.
#[test]
fn a_verified_token_is_of_its_very_key_and_of_its_time() {
    let issuer = Issuer::new("k1");
    let claims = with(claims(), "nbf", json!(NOW.seconds() + 5));
    let kept = signed(&issuer.sign(&header(), &claims), ISSUER, AUDIENCE, &issuer.keys, NOW).unwrap();
    assert!(kept.is_of(&issuer.keys));
    let (other, renamed) = (Issuer::new("k1"), with(issuer.jwk.clone(), "kid", json!("k2")));
    let renamed = KeySet::parse(&json!({"keys": [renamed]}), &[Algorithm::Es256]).unwrap();
    assert!(!kept.is_of(&other.keys) && !kept.is_of(&renamed) && !kept.is_of(&KeySet::none()));
    for (seconds, timely) in
        [(-6, Err(Reason::NotYetValid)), (-5, Ok(())), (0, Ok(())), (299, Ok(())), (300, Err(Reason::Expired))]
    {
        assert_eq!(kept.timely(NOW.plus_seconds(seconds)), timely, "{seconds}");
    }
}

#[test]
fn a_token_is_as_long_as_a_header_may_carry_and_no_longer() {
    let of = |length: usize| {
        // Text of one part has no length that is one more than a multiple of four, so the other part has to give way.
        let tried = ["k", "k1", "k12"].into_iter().flat_map(|kid| (5_500..6_100).map(move |more| (kid, more)));
        let (kid, more) = tried
            .into_iter()
            .find(|(kid, more)| {
                let parts = [with(header(), "kid", json!(kid)), with(claims(), "more", json!("x".repeat(*more)))];
                let lengths = parts.map(|part| (part.to_string().len() * 4).div_ceil(3));
                lengths.iter().sum::<usize>() + 2 + 86 == length
            })
            .unwrap();
        let issuer = Issuer::new(kid);
        let claims = with(claims(), "more", json!("x".repeat(more)));
        let token = issuer.sign(&with(header(), "kid", json!(kid)), &claims);
        assert_eq!(token.len(), length);
        check(&issuer, &token)
    };
    assert!(of(MAX_LENGTH).is_ok());
    assert_eq!(of(MAX_LENGTH + 1), Err(Reason::Malformed));
}
