//! Tokens, assertions and proofs: what is accepted says so of itself to another reader too, and nothing else is.

use std::sync::LazyLock;

use jsonwebtoken::errors::ErrorKind;
use serde_json::{Map, Value, json};
use shared::access::{self, Assertion};
use shared::dpop::{self, Expected, Target, Window};
use shared::federation::{self, Claimed, Rule};
use shared::issuer::{Profile, Profiles};
use shared::jwt::{self, ClientAssertion, MAX_LENGTH, Reason};
use shared::scope::Scopes;
use shared::trust::{IssuerKeys, TrustObject as _};

use crate::choice;
use crate::keys::{ED25519, NOW, P384, RSA, Signing, altered, judged, parts};

const ISSUER: &str = "https://gate.example";
const AUDIENCE: &str = "https://api.example";
const CLIENT: &str = "acme-backend";
const TEAM: &str = "https://team.cloudflareaccess.com";
const TAG: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What anybody's JSON reader says that the claims are.
fn plain(claims: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(claims).expect("another reader cannot read what was accepted")
}

/// An access token of ours with this header and these claims.
pub fn access_token(data: &[u8]) {
    let judge = |token: &str| jwt::access_token(token, ISSUER, AUDIENCE, &ED25519.set, NOW);
    let of_signature = |reason: &Reason| *reason == Reason::BadSignature;
    let Some((text, token)) = judged(&ED25519, parts(data), judge, of_signature) else { return };
    let (header, claims) = parts(data);
    let (header, claims) = (plain(header), plain(claims));
    let number = |name: &str| claims[name].as_i64().unwrap();
    assert_eq!((&header["typ"], header.len()), (&json!("at+jwt"), 3));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(ISSUER), &json!(AUDIENCE)));
    assert_eq!((&claims["sub"], &claims["jti"]), (&json!(token.subject), &json!(token.jti)));
    assert_eq!((&claims["client_id"], &claims["tenant"]), (&json!(token.client_id), &json!(token.tenant.as_str())));
    assert_eq!(claims["kind"], token.kind.as_str());
    assert!(!token.subject.is_empty() && !token.jti.is_empty());
    let (issued, expires) = (number("iat"), number("exp"));
    assert!(expires > NOW.seconds() && issued < expires && expires - issued <= 900 && issued <= NOW.seconds() + 10);
    assert!(claims.get("nbf").is_none_or(|from| from.as_i64().unwrap() <= NOW.seconds() + 10));
    assert_eq!(Scopes::parse(&token.scopes.to_string()).as_ref(), Ok(&token.scopes));
    let said: Vec<&str> = claims["scope"].as_str().unwrap().split(' ').filter(|one| !one.is_empty()).collect();
    assert!(token.scopes.iter().all(|scope| said.contains(&scope)) && said.iter().all(|one| token.scopes.allows(one)));
    // What narrows a token or ties it to somebody is never passed over.
    assert_eq!(claims.contains_key("cnf"), token.thumbprint.is_some());
    assert_eq!(claims.contains_key("device"), token.device.is_some());
    assert_eq!(claims.contains_key("service"), token.service.is_some());
    assert_eq!(claims.contains_key("authorization_details"), !token.details.is_empty());
    assert_eq!(claims.contains_key("sid"), token.session.is_some());
    let human = token.kind == jwt::Kind::Human;
    assert!(human && token.service.is_none() || !human && token.groups.is_empty());
    oracle(&text, &claims);
    assert!(judge(&altered(&text, data.len().wrapping_mul(7_919))).is_err(), "a letter of it may be another one");
    let late = |seconds| jwt::access_token(&text, ISSUER, AUDIENCE, &ED25519.set, NOW.plus_seconds(seconds));
    assert!(late(900).is_err() && late(expires - NOW.seconds()) == Err(Reason::Expired));
    assert!(jwt::access_token(&text, "https://gate.example.", AUDIENCE, &ED25519.set, NOW).is_err());
    assert!(jwt::access_token(&text, ISSUER, "https://api.example/", &ED25519.set, NOW).is_err());
}

/// A library that others verify with reads the same.
#[expect(clippy::disallowed_methods, reason = "it is the other reader; its clock is not asked")]
fn oracle(token: &str, claims: &Map<String, Value>) {
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    rules.set_audience(&[AUDIENCE]);
    rules.set_issuer(&[ISSUER]);
    rules.validate_exp = false;
    let x = ED25519.jwk["x"].as_str().unwrap();
    let key = jsonwebtoken::DecodingKey::from_ed_components(x).unwrap();
    match jsonwebtoken::decode::<Map<String, Value>>(token, &key, &rules) {
        Ok(decoded) => assert_eq!(&decoded.claims, claims),
        // It knows the algorithm by one of its two names.
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Json(_)), "another reader refuses it: {error}"),
    }
}

/// Tokens whose signature holds: of all texts that there are, only these may be accepted.
static KNOWN: LazyLock<[String; 3]> = LazyLock::new(|| {
    let access = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "client_id": CLIENT, "jti": "j", "tenant": "acme",
        "kind": "machine", "scope": "app", "iat": NOW.seconds(), "exp": NOW.seconds() + 300});
    let client = json!({"iss": CLIENT, "sub": CLIENT, "aud": ISSUER, "jti": "j", "exp": NOW.seconds() + 60});
    let proof = json!({"htm": "POST", "htu": "https://gate.example/oauth2/token", "jti": "j", "iat": NOW.seconds()});
    let header = |typ: &str| json!({"alg": "EdDSA", "typ": typ, "kid": "k"});
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519.jwk["x"]});
    let own = json!({"alg": "EdDSA", "typ": "dpop+jwt", "jwk": jwk});
    let signed =
        |header: Value, claims: Value| ED25519.token((header.to_string().as_bytes(), claims.to_string().as_bytes()));
    [signed(header("at+jwt"), access), signed(header("JWT"), client), signed(own, proof)]
});

/// Any text where a token is expected: every reader of one looks at it.
pub fn any_token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let [access, client, proof] = &*KNOWN;
    if jwt::access_token(text, ISSUER, AUDIENCE, &ED25519.set, NOW).is_ok() {
        assert_eq!(text, access);
    }
    if of_client(text, CLIENT, ISSUER).is_ok() {
        assert_eq!(text, client);
    }
    let target = Target::parse("https://gate.example/oauth2/token").unwrap();
    let expected = Expected { method: "POST", target: &target, token: None, window: Window::Narrow };
    if let Ok(good) = dpop::verify(text, &expected, NOW) {
        // Whoever brings a key can sign with it; the fuzzer has none.
        assert_eq!(text, proof);
        assert_eq!(good.thumbprint, ED25519.set.iter().next().unwrap().thumbprint);
    }
    assert!(access::verify(text, &ACCESS.0, &RSA.set, NOW).is_err());
    let _ = access::profile_of(text, &PROFILES);
    if federation::claimed(text).is_ok() {
        let parts: Vec<&str> = text.split('.').collect();
        assert!(parts.len() == 3 && text.len() <= MAX_LENGTH && text.is_ascii());
        for part in parts {
            let bytes = shared::encoding::from_base64url(part).expect("not canonical");
            assert_eq!(shared::encoding::base64url(&bytes), part);
        }
    }
}

/// As the token endpoint does it: whose it claims to be, and then under that client's keys.
fn of_client(token: &str, client: &str, issuer: &str) -> Result<ClientAssertion, Reason> {
    match federation::claimed(token)? {
        Claimed::Client(_, assertion) => assertion.verify(client, issuer, &ED25519.set, NOW),
        Claimed::Issuer(_) => Err(Reason::WrongIssuer),
    }
}

/// The assertion of a registered client with this header and these claims.
pub fn client_assertion(data: &[u8]) {
    let judge = |token: &str| of_client(token, CLIENT, ISSUER);
    let of_signature = |reason: &Reason| *reason == Reason::BadSignature;
    let Some((text, good)) = judged(&ED25519, parts(data), judge, of_signature) else { return };
    let claims = plain(parts(data).1);
    assert_eq!((&claims["iss"], &claims["sub"], &claims["aud"]), (&json!(CLIENT), &json!(CLIENT), &json!(ISSUER)));
    assert_eq!((claims["jti"].as_str(), good.kid.as_str()), (Some(good.jti.as_str()), "k"));
    let life = good.expires_at.seconds() - NOW.seconds();
    assert!(0 < life && life <= 310 && !good.jti.is_empty() && good.jti.len() <= 128);
    assert!(of_client(&text, "acme-backend2", ISSUER).is_err() && of_client(&text, CLIENT, AUDIENCE).is_err());
    assert!(jwt::access_token(&text, CLIENT, ISSUER, &ED25519.set, NOW).is_err(), "it is no access token");
    assert!(judge(&altered(&text, data.len().wrapping_mul(7_919))).is_err());
}

/// The profile of an Access application, and of one that lets people in on managed devices alone.
static ACCESS: LazyLock<(Profile, Profile)> = LazyLock::new(|| {
    let profile = |kind: &str| {
        let entry = json!({"id": "access", "kind": kind, "issuer": TEAM, "audience": TAG, "algorithms": ["RS256"],
            "jwks_url": "https://team.cloudflareaccess.com/cdn-cgi/access/certs"});
        Profile::parse(&entry).unwrap()
    };
    (profile("cloudflare-access"), profile("cloudflare-access-managed"))
});

static PROFILES: LazyLock<Profiles> =
    LazyLock::new(|| Profiles::parse(&json!({ "profiles": [ACCESS.0.to_value()] })).unwrap());

/// An assertion of Cloudflare Access with this header and these claims.
pub fn access_assertion(data: &[u8]) {
    let (choice, rest) = choice(data);
    let managed = choice % 2 == 1;
    let profile = if managed { &ACCESS.1 } else { &ACCESS.0 };
    let judge = |token: &str| access::verify(token, profile, &RSA.set, NOW);
    let of_signature = |flaw: &access::Flaw| *flaw == access::Flaw::BadSignature;
    let Some((text, good)) = judged(&RSA, parts(rest), judge, of_signature) else { return };
    let claims = plain(parts(rest).1);
    assert_eq!((&claims["iss"], &claims["aud"], &claims["type"]), (&json!(TEAM), &json!([TAG]), &json!("app")));
    assert!(claims["exp"].as_i64().unwrap() > NOW.seconds() && claims["iat"].as_i64().unwrap() <= NOW.seconds() + 10);
    assert!(good.is_of_whom(&good));
    match &good {
        Assertion::Person(person) => {
            assert_eq!((&claims["sub"], &claims["email"]), (&json!(person.subject), &json!(person.email)));
            assert!(!claims.contains_key("common_name"), "it is a service's as well");
            assert_eq!(person.device().is_some(), managed);
            assert!(person.groups.iter().all(|group| access::is_group(group)));
            if let Some((local, domain)) = access::normal_email(&person.email) {
                let normal = format!("{local}@{domain}");
                assert_eq!(access::normal_email(&normal), Some((local, domain)));
                assert!(normal.eq_ignore_ascii_case(&person.email));
            }
        }
        Assertion::Service(service) => {
            assert_eq!((&claims["sub"], &claims["common_name"]), (&json!(""), &json!(service.common_name)));
            assert!(!claims.contains_key("email"), "it is a person's as well");
        }
    }
    let profiles = Profiles::parse(&json!({ "profiles": [profile.to_value()] })).unwrap();
    assert_eq!(access::profile_of(&text, &profiles), Ok(&profiles.foreign()[0]));
    assert!(judge(&altered(&text, data.len().wrapping_mul(7_919))).is_err());
}

/// A platform's issuer, its keys, and the key that signs for it.
struct Platform {
    profile: Profile,
    keys: IssuerKeys,
    signs: &'static Signing,
}

static PLATFORMS: LazyLock<[Platform; 4]> = LazyLock::new(|| {
    let platform = |kind: &str, issuer: &str, signs: &'static Signing| {
        let entry = json!({"id": kind, "kind": kind, "issuer": issuer, "algorithms": [signs.jwk["alg"]],
            "jwks_url": "https://keys.example/jwks"});
        let mut jwk = signs.jwk.clone();
        jwk["use"] = json!(if kind == "spiffe" { "jwt-svid" } else { "sig" });
        let keys = IssuerKeys::parse(&json!({ "keys": [jwk] })).unwrap();
        Platform { profile: Profile::parse(&entry).unwrap(), keys, signs }
    };
    [
        platform("kubernetes", "https://cluster.example", &ED25519),
        platform("github-actions", "https://token.actions.githubusercontent.com", &RSA),
        platform("aws-sts", "https://sts.example", &P384),
        platform("spiffe", "spiffe://acme.example", &P384),
    ]
});

/// A workload's assertion with this header and these claims.
pub fn workload_assertion(data: &[u8]) {
    let (choice, rest) = choice(data);
    let Platform { profile, keys, signs } = &PLATFORMS[usize::from(choice) % PLATFORMS.len()];
    let judge = |token: &str| federation::verify(token, profile, keys, ISSUER, NOW);
    let of_signature = |reason: &Reason| *reason == Reason::BadSignature;
    let Some((text, good)) = judged(signs, parts(rest), judge, of_signature) else { return };
    let claims = plain(parts(rest).1);
    assert!(claims["aud"] == json!(ISSUER) || claims["aud"] == json!([ISSUER]));
    assert!(claims["exp"].as_i64().unwrap() > NOW.seconds() && good.until() > NOW);
    assert_eq!(good.issuer(), profile.id());
    assert!(federation::claimed(&text).is_ok(), "it cannot be looked up by what it says");
    let _ = (good.describe(), good.once());
    // A rule that names another issuer names nobody of this one.
    let elsewhere = json!({"issuer": "elsewhere", "namespace": "n", "service_account": "s", "iss": profile.issuer()});
    assert!(Rule::stored(&elsewhere).is_ok_and(|rule| !rule.names(&good)));
    assert!(federation::verify(&text, profile, keys, "https://gate.example/", NOW).is_err());
    assert!(judge(&altered(&text, data.len().wrapping_mul(7_919))).is_err());
}

/// A proof of possession with this header and these claims.
pub fn proof(data: &[u8]) {
    let (choice, rest) = choice(data);
    let target = Target::parse("https://gate.example/files/a").unwrap();
    let token = (choice & 1 == 1).then_some("a.b.c");
    let window = if choice & 2 == 2 { Window::Wide } else { Window::Narrow };
    let expected = Expected { method: "POST", target: &target, token, window };
    let judge = |text: &str| dpop::verify(text, &expected, NOW);
    let of_signature = |flaw: &dpop::Flaw| *flaw == dpop::Flaw::BadSignature;
    let Some((text, good)) = judged(&ED25519, parts(rest), judge, of_signature) else { return };
    let (header, claims) = (plain(parts(rest).0), plain(parts(rest).1));
    assert_eq!((&header["typ"], &claims["htm"]), (&json!("dpop+jwt"), &json!("POST")));
    assert_eq!(Target::parse(claims["htu"].as_str().unwrap()), Some(target.clone()));
    let age = NOW.seconds() - good.issued_at.seconds();
    let (oldest, soonest) = if window == Window::Wide { (300, -300) } else { (60, -10) };
    assert!(age <= oldest && age >= soonest, "{age}");
    if let Some(token) = token {
        assert_eq!(claims["ath"], shared::encoding::base64url(&shared::digest::sha256(token.as_bytes())));
    }
    assert_eq!(good.thumbprint, ED25519.set.iter().next().unwrap().thumbprint, "another key than it was signed with");
    assert!(["d", "p", "q", "k"].iter().all(|private| header["jwk"].get(private).is_none()));
    assert!((1..=128).contains(&good.jti.len()));
    let other = Expected { method: "GET", ..expected };
    assert!(dpop::verify(&text, &other, NOW).is_err());
    assert!(judge(&altered(&text, data.len().wrapping_mul(7_919))).is_err());
}

/// A URL as proofs name it.
pub fn proof_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(target) = Target::parse(text) {
        assert_eq!(Target::parse(target.as_str()).as_ref(), Some(&target), "its normal form is another one");
        assert!(!target.as_str().contains(['?', '#', '\\', ' ', '"', '<', '|', '{']));
        same_place(text, &target);
    }
    if let Ok(target) = Target::new(ISSUER, text) {
        assert!(target.as_str().starts_with("https://gate.example/"), "{target:?} is not ours");
        assert_eq!(Target::parse(target.as_str()).as_ref(), Some(&target));
        for dots in ["/./", "/../"] {
            assert!(!target.as_str().contains(dots) && !target.as_str().ends_with(dots.trim_end_matches('/')));
        }
    }
}

/// Whoever goes where the text says by the WHATWG's rules comes to the host and port that the normal form names.
fn same_place(text: &str, target: &Target) {
    let (Ok(said), Ok(normal)) = (url::Url::parse(text), url::Url::parse(target.as_str())) else { return };
    assert_eq!(
        (said.scheme(), said.host_str(), said.port_or_known_default()),
        (normal.scheme(), normal.host_str(), normal.port_or_known_default())
    );
}
