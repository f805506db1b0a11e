use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use crate::encoding::base64url;

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

fn with(mut base: Value, member: &str, value: Value) -> Value {
    base[member] = value;
    base
}

fn without(mut base: Value, member: &str) -> Value {
    base.as_object_mut().unwrap().remove(member);
    base
}

fn check(issuer: &Issuer, token: &str) -> Result<AccessToken, Reason> {
    access_token(token, ISSUER, AUDIENCE, &issuer.keys, NOW)
}

#[test]
fn a_good_token_is_read_whole() {
    let issuer = Issuer::new("k1");
    let claims = with(with(claims(), "cnf", json!({"jkt":"thumb"})), "device", json!({"id":"d1"}));
    let token = check(&issuer, &issuer.sign(&header(), &with(claims, "sid", json!("s1")))).unwrap();
    assert_eq!((token.subject.as_str(), token.tenant.as_str(), token.kid.as_str()), ("acme-backend", "acme", "k1"));
    assert_eq!((token.thumbprint.as_deref(), token.device.as_deref()), (Some("thumb"), Some("d1")));
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
        (with(claims(), "device", json!("d1")), bad),
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
