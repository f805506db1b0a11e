use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use serde_json::json;

use super::*;
use crate::encoding::base64url;
use crate::jwks::Algorithm;
use crate::trust::TrustObject as _;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const TEAM: &str = "https://team.cloudflareaccess.com";
const TAG: &str = "32eafc7626e974616deaf0dc3ce63d7bcbed58a2731e84d06bc3cdf1b53c4228";
const ADA: &str = "7335d417-61da-459d-899c-0a01c76a2f94";

struct Team {
    pair: &'static RsaKeyPair,
    keys: KeySet,
    profiles: Profiles,
}

fn profile(id: &str, issuer: &str, tag: &str) -> Value {
    json!({"id": id, "kind": "cloudflare-access", "issuer": issuer, "audience": tag, "algorithms": ["RS256"],
        "jwks_url": format!("{issuer}/cdn-cgi/access/certs")})
}

impl Team {
    fn new() -> Self {
        Self::with_key(0)
    }

    fn with_key(rsa: usize) -> Self {
        let pair = crate::rsa::pair(rsa);
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let jwk = json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "c1", "n": base64url(&public.n),
            "e": base64url(&public.e)});
        let keys = KeySet::parse(&json!({"keys": [jwk]}), &[Algorithm::Rs256]).unwrap();
        let generic = json!({"id": "other", "kind": "generic", "issuer": TEAM, "audience": "x", "algorithms": ["RS256"],
            "jwks_url": "https://other.example/keys"});
        let profiles =
            json!({"profiles": [generic, profile("tier", TEAM, &"0".repeat(64)), profile("access", TEAM, TAG)]});
        Self { pair, keys, profiles: Profiles::parse(&profiles).unwrap() }
    }

    fn sign_with(&self, encoding: &'static dyn RsaEncoding, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.as_bytes()));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", base64url(&signature))
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_with(&RSA_PKCS1_SHA256, &header(), &claims.to_string())
    }

    fn judge(&self, assertion: &str) -> Result<Assertion, Flaw> {
        verify(assertion, profile_of(assertion, &self.profiles)?, &self.keys, NOW)
    }
}

fn header() -> Value {
    json!({"alg": "RS256", "kid": "c1", "typ": "JWT"})
}

/// The claims of the documentation's example of a person.
fn person() -> Value {
    json!({"aud": [TAG], "email": "user@example.com", "exp": NOW.seconds() + 3600, "iat": NOW.seconds() - 60,
        "nbf": NOW.seconds() - 60, "iss": TEAM, "type": "app", "identity_nonce": "6ei69kawdKzMIAPF", "sub": ADA,
        "country": "US"})
}

/// The claims of the documentation's example of a service token.
fn service() -> Value {
    json!({"type": "app", "aud": [TAG], "exp": NOW.seconds() + 3600, "iss": TEAM,
        "common_name": "e367826f93b8d71185e03fe518aff3b4.access", "iat": NOW.seconds() - 60, "sub": ""})
}

fn with(mut base: Value, member: &str, value: Value) -> Value {
    if value.is_null() {
        base.as_object_mut().unwrap().remove(member);
    } else {
        base[member] = value;
    }
    base
}

#[test]
fn both_forms_of_the_documentation_are_read_and_told_apart() {
    let team = Team::new();
    let read = team.judge(&team.sign(&person())).unwrap().person().unwrap();
    assert_eq!((read.issuer.as_str(), read.subject.as_str(), read.email.as_str()), ("access", ADA, "user@example.com"));
    assert_eq!((read.issued_at, read.expires_at), (NOW.plus_seconds(-60), NOW.plus_seconds(3600)));
    assert_eq!((read.groups.len(), read.token_subject()), (0, format!("access|{ADA}")));
    let read = team.judge(&team.sign(&service())).unwrap();
    let Assertion::Service(of) = &read else { panic!("{read:?}") };
    assert_eq!(of.common_name, "e367826f93b8d71185e03fe518aff3b4.access");
    assert_eq!(read.person(), Err(Flaw::OfService));
}

#[test]
fn an_application_for_managed_devices_vouches_for_one_and_another_does_not() {
    let mut team = Team::new();
    assert_eq!(team.judge(&team.sign(&person())).unwrap().person().unwrap().device(), None);
    let mut managed = profile("managed", TEAM, TAG);
    managed["kind"] = json!("cloudflare-access-managed");
    team.profiles = Profiles::parse(&json!({"profiles": [managed, profile("any", TEAM, &"0".repeat(64))]})).unwrap();
    let device = team.judge(&team.sign(&person())).unwrap().person().unwrap().device().unwrap();
    assert_eq!((device.id.as_str(), device.managed, device.source.as_str()), ("managed", Some(true), TIER));
    assert_eq!((device.checked_at, device.disk_encrypted), (NOW.plus_seconds(-60), None));
    let through_any = team.sign(&with(person(), "aud", json!(["0".repeat(64)])));
    assert_eq!(team.judge(&through_any).unwrap().person().unwrap().device(), None);
    assert_eq!(Device::parse(&device.to_value()), Ok(device), "it fits into a token");
}

#[test]
fn groups_are_read_where_the_provider_hands_them_on_and_another_shape_grants_nothing() {
    let team = Team::new();
    for (custom, groups) in [
        (json!({"groups": ["staff", "Ops Team"]}), vec!["staff", "Ops Team"]),
        (json!({"groups": "staff"}), vec!["staff"]),
        (json!({"groups": ["staff", 7, "", "a\nb", null]}), vec!["staff"]),
        (json!({"groups": {"staff": true}}), vec![]),
        (json!("groups"), vec![]),
        (json!(["groups"]), vec![]),
    ] {
        let read = team.judge(&team.sign(&with(person(), "custom", custom.clone()))).unwrap().person().unwrap();
        assert_eq!(read.groups, groups, "{custom}");
    }
    let top = team.judge(&team.sign(&with(person(), "groups", json!(["staff"])))).unwrap().person().unwrap();
    assert!(top.groups.is_empty(), "a member of another place is none of ours");
}

#[test]
fn what_is_neither_form_or_both_is_refused() {
    let team = Team::new();
    let name = json!("e367826f93b8d71185e03fe518aff3b4.access");
    let now = NOW.seconds();
    for (what, claims, flaw) in [
        ("a person with a service's name", with(person(), "common_name", name), Flaw::BadClaims),
        ("a service with an address", with(service(), "email", json!("a@b.example")), Flaw::BadClaims),
        ("a service with a person's nonce", with(service(), "identity_nonce", json!("x")), Flaw::BadClaims),
        ("a service with a subject", with(service(), "sub", json!(ADA)), Flaw::BadClaims),
        ("a person without a subject", with(person(), "sub", json!("")), Flaw::BadClaims),
        ("no subject at all", with(person(), "sub", json!(null)), Flaw::BadClaims),
        ("a service without sub", with(service(), "sub", json!(null)), Flaw::BadClaims),
        ("a subject in capitals", with(person(), "sub", json!(ADA.to_uppercase())), Flaw::BadClaims),
        ("a subject without hyphens", with(person(), "sub", json!(ADA.replace('-', ""))), Flaw::BadClaims),
        ("a subject of another kind", with(person(), "sub", json!("ada")), Flaw::BadClaims),
        ("a number for a subject", with(person(), "sub", json!(7)), Flaw::BadClaims),
        ("no address", with(person(), "email", json!(null)), Flaw::BadClaims),
        ("an empty address", with(person(), "email", json!("")), Flaw::BadClaims),
        ("an address with a line break", with(person(), "email", json!("a@b\n.example")), Flaw::BadClaims),
        ("a long address", with(person(), "email", json!("a".repeat(255))), Flaw::BadClaims),
        ("no nbf of a person", with(person(), "nbf", json!(null)), Flaw::BadClaims),
        (
            "a name without its end",
            with(service(), "common_name", json!("e367826f93b8d71185e03fe518aff3b4")),
            Flaw::BadClaims,
        ),
        (
            "a name in capitals",
            with(service(), "common_name", json!(format!("{}.access", "A".repeat(32)))),
            Flaw::BadClaims,
        ),
        ("an empty name", with(service(), "common_name", json!("")), Flaw::BadClaims),
        ("a name that is no text", with(service(), "common_name", json!([1])), Flaw::BadClaims),
        ("the global session's token", with(person(), "type", json!("org")), Flaw::BadClaims),
        ("no type", with(person(), "type", json!(null)), Flaw::BadClaims),
        ("another team", with(person(), "iss", json!("https://evil.cloudflareaccess.com")), Flaw::UnknownIssuer),
        ("the team with a slash", with(person(), "iss", json!(format!("{TEAM}/"))), Flaw::UnknownIssuer),
        ("two issuers", with(person(), "iss", json!([TEAM])), Flaw::BadClaims),
        ("another application", with(person(), "aud", json!(["1".repeat(64)])), Flaw::UnknownIssuer),
        ("two applications", with(person(), "aud", json!([TAG, "1".repeat(64)])), Flaw::WrongAudience),
        ("the application as text", with(person(), "aud", json!(TAG)), Flaw::WrongAudience),
        ("no application", with(person(), "aud", json!([])), Flaw::WrongAudience),
        ("expired this second", with(person(), "exp", json!(now)), Flaw::Expired),
        ("no end", with(person(), "exp", json!(null)), Flaw::BadClaims),
        ("an end as text", with(person(), "exp", json!("9999999999")), Flaw::BadClaims),
        (
            "an end before its start",
            with(with(person(), "iat", json!(now + 5)), "exp", json!(now + 5)),
            Flaw::BadClaims,
        ),
        ("no beginning", with(person(), "iat", json!(null)), Flaw::BadClaims),
        ("of in eleven seconds", with(person(), "iat", json!(now + 11)), Flaw::NotYetValid),
        ("not before in eleven seconds", with(person(), "nbf", json!(now + 11)), Flaw::NotYetValid),
    ] {
        assert_eq!(team.judge(&team.sign(&claims)), Err(flaw), "{what}");
    }
    for claims in [
        with(person(), "iat", json!(now + 10)),
        with(person(), "exp", json!(now + 1)),
        with(person(), "country", json!(null)),
    ] {
        assert!(team.judge(&team.sign(&claims)).is_ok());
    }
}

#[test]
fn only_the_teams_key_under_its_one_algorithm_speaks_for_it() {
    let (team, other) = (Team::new(), Team::with_key(1));
    let claims = person().to_string();
    let signed = |header: Value| team.sign_with(&RSA_PKCS1_SHA256, &header, &claims);
    let twice = claims.replacen('{', r#"{"email":"root@example.com","#, 1);
    let unsigned = {
        let token = signed(json!({"alg": "none", "typ": "JWT"}));
        token.rsplit_once('.').map(|(start, _)| format!("{start}.")).unwrap()
    };
    for (what, assertion, flaw) in [
        ("another's key under the same name", other.sign(&person()), Flaw::BadSignature),
        ("an unknown key", signed(with(header(), "kid", json!("c2"))), Flaw::UnknownKey),
        ("no key named", signed(with(header(), "kid", json!(null))), Flaw::UnknownKey),
        ("no type", signed(with(header(), "typ", json!(null))), Flaw::WrongType),
        ("an access token's type", signed(with(header(), "typ", json!("at+jwt"))), Flaw::WrongType),
        ("none", signed(with(header(), "alg", json!("none"))), Flaw::WrongAlgorithm),
        ("a MAC", signed(with(header(), "alg", json!("HS256"))), Flaw::WrongAlgorithm),
        ("PSS", team.sign_with(&RSA_PSS_SHA256, &with(header(), "alg", json!("PS256")), &claims), Flaw::WrongAlgorithm),
        ("PSS called PKCS #1", team.sign_with(&RSA_PSS_SHA256, &header(), &claims), Flaw::BadSignature),
        ("a key of its own", signed(with(header(), "jwk", json!({"kty": "RSA"}))), Flaw::ForbiddenHeader),
        ("keys elsewhere", signed(with(header(), "jku", json!("https://evil.example"))), Flaw::ForbiddenHeader),
        ("critical", signed(with(header(), "crit", json!(["x"]))), Flaw::ForbiddenHeader),
        ("a claim twice", team.sign_with(&RSA_PKCS1_SHA256, &header(), &twice), Flaw::Malformed),
        ("no signature", unsigned, Flaw::Malformed),
        ("nothing", String::new(), Flaw::Malformed),
        ("two parts", "a.b".to_owned(), Flaw::Malformed),
        ("a space behind", format!("{} ", team.sign(&person())), Flaw::Malformed),
        ("too long", team.sign(&with(person(), "custom", json!("x".repeat(7000)))), Flaw::Malformed),
    ] {
        assert_eq!(team.judge(&assertion), Err(flaw), "{what}");
    }
    // The same signature under the profile of another application, or of another kind.
    let good = team.sign(&person());
    let of = |id: &str| team.profiles.foreign().iter().find(|profile| profile.id().as_str() == id).unwrap();
    assert_eq!(verify(&good, of("tier"), &team.keys, NOW), Err(Flaw::WrongAudience));
    assert_eq!(verify(&good, of("other"), &team.keys, NOW), Err(Flaw::UnknownIssuer));
    assert!(verify(&good, of("access"), &team.keys, NOW).is_ok());
}

#[test]
fn one_assertion_is_taken_from_the_header_and_none_from_anywhere_else() {
    let headers = |fields: &[(&str, &str)]| -> Headers {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(header_of(&headers(&[("Cf-Access-Jwt-Assertion", "a")])), Ok(Some("a".into())));
    assert_eq!(header_of(&headers(&[("Cookie", "CF_Authorization=a")])), Ok(None));
    assert_eq!(header_of(&headers(&[(HEADER, "a"), ("Cf-Access-Jwt-Assertion", "a")])), Err(Flaw::Ambiguous));
    assert_eq!(header_of(&headers(&[(HEADER, "a, b")])), Err(Flaw::Ambiguous));
}

fn header_of(headers: &Headers) -> Result<Option<String>, Flaw> {
    super::header(headers).map(|found| found.map(str::to_owned))
}

#[test]
fn addresses_match_whatever_their_case_and_only_in_their_one_form() {
    let whole = |email: &str| normal_email(email).map(|(local, domain)| format!("{local}@{domain}"));
    for (email, normal) in [
        ("ada@example.com", "ada@example.com"),
        ("Ada.Lovelace+x@Example.COM", "ada.lovelace+x@example.com"),
        ("o'brien@a-b.example", "o'brien@a-b.example"),
    ] {
        assert_eq!(whole(email).as_deref(), Some(normal));
    }
    for email in [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@localhost",
        "ada@example.com.",
        "ada@.example.com",
        "ada@-example.com",
        "ada@example_com.x",
        "ada@evil.example@example.com",
        "\"ada@evil.example\"@example.com",
        "*@example.com",
        "ada @example.com",
        "ada@example.com ",
        "ada@exam\u{440}le.com",
        "\u{e4}da@example.com",
        "ada@\u{212a}elvin.example",
        "ada@[127.0.0.1]",
    ] {
        assert_eq!(whole(email), None, "{email}");
    }
    assert_eq!(whole(&format!("{}@example.com", "a".repeat(65))), None);
    assert_eq!(normal_domain("Example.COM").as_deref(), Some("example.com"));
    assert_eq!(normal_domain("*.example.com"), None);
}

/// Runbooks and alarms look for them.
#[test]
fn every_flaw_has_its_name_in_the_log() {
    for (flaw, name) in [
        (Flaw::Missing, "assertion_required"),
        (Flaw::Ambiguous, "assertion_ambiguous"),
        (Flaw::Malformed, "assertion_malformed"),
        (Flaw::WrongType, "assertion_wrong_type"),
        (Flaw::WrongAlgorithm, "assertion_wrong_algorithm"),
        (Flaw::ForbiddenHeader, "assertion_forbidden_header"),
        (Flaw::UnknownIssuer, "assertion_unknown_issuer"),
        (Flaw::UnknownKey, "assertion_unknown_key"),
        (Flaw::BadSignature, "assertion_bad_signature"),
        (Flaw::WrongAudience, "assertion_wrong_audience"),
        (Flaw::BadClaims, "assertion_bad_claims"),
        (Flaw::Expired, "assertion_expired"),
        (Flaw::NotYetValid, "assertion_not_yet_valid"),
        (Flaw::OfService, "assertion_of_service"),
        (Flaw::OfAnother, "assertion_of_another"),
    ] {
        assert_eq!(flaw.as_str(), name);
    }
}

#[test]
fn two_assertions_are_of_the_same_one_where_issuer_and_subject_agree() {
    let team = Team::new();
    let of = |claims: Value| team.judge(&team.sign(&claims)).unwrap();
    let (ada, backend) = (of(person()), of(service()));
    let ada_again = of(with(with(person(), "email", json!("other@example.com")), "aud", json!(["0".repeat(64)])));
    assert!(ada.is_of_whom(&ada_again), "one person through two applications of the team");
    let ben = of(with(person(), "sub", json!("0c8a5a38-7b6a-4f0e-9d1e-5a2f1f8f3b11")));
    let mut elsewhere = of(person()).person().unwrap();
    elsewhere.iss = "https://other.cloudflareaccess.com".to_owned();
    assert!(backend.is_of_whom(&of(service())));
    let other = of(with(service(), "common_name", json!(format!("{}.access", "0".repeat(32)))));
    let through_another = of(with(service(), "aud", json!(["0".repeat(64)])));
    for (one, other) in [
        (&ada, &ben),
        (&ada, &Assertion::Person(elsewhere)),
        (&ada, &backend),
        (&backend, &ada),
        (&backend, &other),
        (&backend, &through_another),
    ] {
        assert!(!one.is_of_whom(other), "{one:?} {other:?}");
    }
}

/// Whoever looks for a profile finds one of Access by issuer and application together, and nobody else's.
#[test]
fn a_profile_is_found_by_issuer_and_application_together() {
    let team = Team::new();
    let found =
        |claims: Value| profile_of(&team.sign(&claims), &team.profiles).map(|profile| profile.id().as_str().to_owned());
    assert_eq!(found(person()).as_deref(), Ok("access"));
    assert_eq!(found(with(person(), "aud", json!(["0".repeat(64)]))).as_deref(), Ok("tier"));
    for claims in [
        with(person(), "aud", json!(["x"])),
        with(person(), "aud", json!(["1".repeat(64)])),
        with(person(), "iss", json!("https://other.cloudflareaccess.com")),
    ] {
        assert_eq!(found(claims.clone()), Err(Flaw::UnknownIssuer), "{claims}");
    }
}
