use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding,
};
use serde_json::json;

use super::*;
use crate::jwt::Kind;
use crate::name::{Groups, Tenant};
use crate::scope::Scopes;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const BASE: &str = "https://gate.example";
const PATH: &str = "/files/a";
const TOKEN: &str = "h.p.s";

/// A key that proves possession.
struct Holder {
    pair: EcdsaKeyPair,
}

impl Holder {
    fn new() -> Self {
        Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty":"EC","crv":"P-256","x":base64url(&point[1..33]),"y":base64url(&point[33..])})
    }

    fn thumbprint(&self) -> String {
        own_key(Some(&self.jwk()), Algorithm::Es256).unwrap().thumbprint
    }

    fn header(&self) -> Value {
        json!({"typ":"dpop+jwt","alg":"ES256","jwk":self.jwk()})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        sign(header, claims, |input| self.pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec())
    }

    fn proof(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }
}

fn sign(header: &Value, claims: &Value, signature: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let signature = base64url(&signature(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn claims() -> Value {
    json!({"jti":"p-1","htm":"GET","htu":format!("{BASE}{PATH}"),"iat":NOW.seconds(),"ath":base64url(&sha256(TOKEN.as_bytes()))})
}

fn with(mut base: Value, member: &str, value: Value) -> Value {
    base[member] = value;
    base
}

fn without(mut base: Value, member: &str) -> Value {
    base.as_object_mut().unwrap().remove(member);
    base
}

fn judge_at(proof: &str, window: Window, now: Timestamp) -> Result<Proof, Flaw> {
    let target = Target::new(BASE, PATH).unwrap();
    verify(proof, &Expected { method: "GET", target: &target, token: Some(TOKEN), window }, now)
}

fn judge(proof: &str) -> Result<Proof, Flaw> {
    judge_at(proof, Window::Narrow, NOW)
}

fn bound_to(thumbprint: Option<String>) -> AccessToken {
    AccessToken {
        kid: "k".into(),
        subject: "acme-bound".into(),
        client_id: "acme-bound".into(),
        jti: "j".into(),
        issued_at: NOW,
        expires_at: NOW.plus_seconds(300),
        scopes: Scopes::parse("files:read").unwrap(),
        tenant: Tenant::parse("acme").unwrap(),
        kind: Kind::Machine,
        session: None,
        groups: Groups::default(),
        thumbprint,
        service: None,
        device: None,
        details: crate::details::Details::default(),
    }
}

#[test]
fn the_hash_of_a_token_is_the_one_of_the_rfc() {
    let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
    assert_eq!(base64url(&sha256(token.as_bytes())), "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo");
}

/// RFC 9449 §4.1 and §7.1: the proofs printed there, signed by the key whose thumbprint §6.1 names.
#[test]
fn the_proofs_of_the_rfc_hold() {
    let at_token_endpoint = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
    let target = Target::parse("https://server.example.com/token").unwrap();
    let expected = Expected { method: "POST", target: &target, token: None, window: Window::Narrow };
    let proof = verify(at_token_endpoint, &expected, Timestamp::from_seconds(1_562_262_616)).unwrap();
    assert_eq!(proof.thumbprint, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    assert_eq!((proof.jti.as_str(), proof.nonce), ("-BwC3ESc6acc2lTc", None));
    let at_resource = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    let target = Target::parse("https://resource.example.org/protectedresource").unwrap();
    let token = Some("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
    let expected = Expected { method: "GET", target: &target, token, window: Window::Narrow };
    assert!(verify(at_resource, &expected, Timestamp::from_seconds(1_562_262_618)).is_ok());
}

#[test]
fn a_proof_over_this_request_holds() {
    let holder = Holder::new();
    let proof = judge(&holder.proof(&claims())).unwrap();
    assert_eq!(proof.thumbprint, holder.thumbprint());
    assert_eq!((proof.jti.as_str(), proof.issued_at, proof.nonce), ("p-1", NOW, None));
    for (what, header, claims) in [
        (
            "query and fragment in htu",
            holder.header(),
            with(claims(), "htu", json!("https://gate.example/files/a?x=1#y")),
        ),
        (
            "scheme and host in upper case",
            holder.header(),
            with(claims(), "htu", json!("HTTPS://GATE.EXAMPLE/files/a")),
        ),
        ("the default port", holder.header(), with(claims(), "htu", json!("https://gate.example:443/files/a"))),
        ("unknown members", with(holder.header(), "foo", json!({"a": 1})), with(claims(), "bar", json!([1]))),
        (
            "nbf now and exp in five minutes",
            holder.header(),
            with(with(claims(), "nbf", json!(NOW.seconds())), "exp", json!(NOW.seconds() + 300)),
        ),
        ("nbf in ten seconds", holder.header(), with(claims(), "nbf", json!(NOW.seconds() + 10))),
        (
            "public members of the key",
            with(
                holder.header(),
                "jwk",
                with(with(with(holder.jwk(), "kid", json!("1")), "use", json!("sig")), "alg", json!("ES256")),
            ),
            claims(),
        ),
    ] {
        assert!(judge(&holder.sign(&header, &claims)).is_ok(), "{what}");
    }
}

#[test]
fn every_other_proof_is_refused() {
    let (holder, other) = (Holder::new(), Holder::new());
    let (header, claims) = (holder.header(), claims());
    let private = with(holder.jwk(), "d", json!("AAAA"));
    let spoilt = {
        let proof = holder.proof(&claims);
        let (signed, signature) = proof.rsplit_once('.').unwrap();
        let mut bytes = crate::encoding::from_base64url(signature).unwrap();
        bytes[40] ^= 1;
        format!("{signed}.{}", base64url(&bytes))
    };
    let cases = [
        ("two parts", "a.b".to_owned(), Flaw::Malformed),
        ("no typ", holder.sign(&without(header.clone(), "typ"), &claims), Flaw::WrongType),
        (
            "a longer typ",
            holder.sign(&with(header.clone(), "typ", json!("dpop+jwt+wrongyousee")), &claims),
            Flaw::WrongType,
        ),
        ("typ in upper case", holder.sign(&with(header.clone(), "typ", json!("DPOP+JWT")), &claims), Flaw::WrongType),
        ("an access token", holder.sign(&with(header.clone(), "typ", json!("at+jwt")), &claims), Flaw::WrongType),
        ("no alg", holder.sign(&without(header.clone(), "alg"), &claims), Flaw::WrongAlgorithm),
        ("alg none", holder.sign(&with(header.clone(), "alg", json!("none")), &claims), Flaw::WrongAlgorithm),
        ("alg HS256", holder.sign(&with(header.clone(), "alg", json!("HS256")), &claims), Flaw::WrongAlgorithm),
        ("alg ES384", holder.sign(&with(header.clone(), "alg", json!("ES384")), &claims), Flaw::WrongAlgorithm),
        (
            "alg of another kind of key",
            holder.sign(&with(header.clone(), "alg", json!("EdDSA")), &claims),
            Flaw::BadKey,
        ),
        ("no jwk", holder.sign(&without(header.clone(), "jwk"), &claims), Flaw::BadKey),
        (
            "jwk as text",
            holder.sign(&with(header.clone(), "jwk", json!(holder.jwk().to_string())), &claims),
            Flaw::BadKey,
        ),
        ("a private key", holder.sign(&with(header.clone(), "jwk", private), &claims), Flaw::BadKey),
        (
            "a key that says another alg",
            holder.sign(&with(header.clone(), "jwk", with(holder.jwk(), "alg", json!("PS256"))), &claims),
            Flaw::BadKey,
        ),
        (
            "a symmetric key",
            holder.sign(&with(header.clone(), "jwk", json!({"kty":"oct","k":"AAAA"})), &claims),
            Flaw::BadKey,
        ),
        ("another's key", holder.sign(&other.header(), &claims), Flaw::BadSignature),
        ("a bad signature", spoilt, Flaw::BadSignature),
        ("crit", holder.sign(&with(header.clone(), "crit", json!(["foo"])), &claims), Flaw::ForbiddenHeader),
        (
            "jku",
            holder.sign(&with(header.clone(), "jku", json!("https://evil.example")), &claims),
            Flaw::ForbiddenHeader,
        ),
        ("no jti", holder.proof(&without(claims.clone(), "jti")), Flaw::BadClaims),
        ("an empty jti", holder.proof(&with(claims.clone(), "jti", json!(""))), Flaw::BadClaims),
        ("a long jti", holder.proof(&with(claims.clone(), "jti", json!("x".repeat(129)))), Flaw::BadClaims),
        ("no htm", holder.proof(&without(claims.clone(), "htm")), Flaw::BadClaims),
        ("another method", holder.proof(&with(claims.clone(), "htm", json!("PUT"))), Flaw::WrongMethod),
        ("the method in lower case", holder.proof(&with(claims.clone(), "htm", json!("get"))), Flaw::WrongMethod),
        ("no htu", holder.proof(&without(claims.clone(), "htu")), Flaw::BadClaims),
        (
            "another path",
            holder.proof(&with(claims.clone(), "htu", json!("https://gate.example/files/b"))),
            Flaw::WrongTarget,
        ),
        (
            "another host",
            holder.proof(&with(claims.clone(), "htu", json!("https://gate.example.evil/files/a"))),
            Flaw::WrongTarget,
        ),
        ("a path alone", holder.proof(&with(claims.clone(), "htu", json!("/files/a"))), Flaw::WrongTarget),
        ("no iat", holder.proof(&without(claims.clone(), "iat")), Flaw::BadClaims),
        ("iat as text", holder.proof(&with(claims.clone(), "iat", json!("1800000000"))), Flaw::BadClaims),
        ("iat with a fraction", holder.proof(&with(claims.clone(), "iat", json!(1_800_000_000.5))), Flaw::BadClaims),
        ("exp now", holder.proof(&with(claims.clone(), "exp", json!(NOW.seconds()))), Flaw::WrongTime),
        (
            "nbf in eleven seconds",
            holder.proof(&with(claims.clone(), "nbf", json!(NOW.seconds() + 11))),
            Flaw::WrongTime,
        ),
        ("nbf in an hour", holder.proof(&with(claims.clone(), "nbf", json!(NOW.seconds() + 3600))), Flaw::WrongTime),
        ("no ath", holder.proof(&without(claims.clone(), "ath")), Flaw::BadClaims),
        (
            "another ath",
            holder.proof(&with(claims.clone(), "ath", json!(base64url(&sha256(b"other"))))),
            Flaw::WrongToken,
        ),
    ];
    for (what, proof, flaw) in cases {
        assert_eq!(judge(&proof), Err(flaw), "{what}");
    }
    let duplicate = format!(r#"{{"jti":"p-1","jti":"p-2",{}"#, claims.to_string().trim_start_matches('{'));
    let signed = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(duplicate.as_bytes()));
    let signature = holder.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    assert_eq!(judge(&format!("{signed}.{}", base64url(signature.as_ref()))), Err(Flaw::Malformed), "a member twice");
}

#[test]
fn the_time_of_a_proof_lies_in_its_window() {
    let holder = Holder::new();
    for (window, past, future) in [(Window::Narrow, 60, 10), (Window::Wide, 300, 300)] {
        for (offset, passes) in [(-past - 1, false), (-past, true), (0, true), (future, true), (future + 1, false)] {
            let proof = holder.proof(&with(claims(), "iat", json!(NOW.seconds() + offset)));
            assert_eq!(judge_at(&proof, window, NOW).is_ok(), passes, "{window:?} {offset}");
        }
        for offset in [-3600, 3600] {
            let proof = holder.proof(&with(claims(), "iat", json!(NOW.seconds() + offset)));
            assert_eq!(judge_at(&proof, window, NOW), Err(Flaw::WrongTime));
        }
    }
}

#[test]
fn whoever_has_a_nonce_may_have_a_slow_clock_in_all_of_its_dates() {
    let holder = Holder::new();
    let slow = with(with(claims(), "iat", json!(NOW.seconds() - 100)), "exp", json!(NOW.seconds() - 40));
    assert!(judge_at(&holder.proof(&slow), Window::Wide, NOW).is_ok());
    let ended = with(claims(), "exp", json!(NOW.seconds() - 300));
    assert_eq!(judge_at(&holder.proof(&ended), Window::Wide, NOW), Err(Flaw::WrongTime));
    for nonce in [json!(null), json!(1), json!("x".repeat(129))] {
        assert_eq!(judge(&holder.proof(&with(claims(), "nonce", nonce))).unwrap().nonce, None);
    }
}

#[test]
fn ed25519_and_ps256_prove_under_both_of_their_names_and_rs256_never() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let jwk = json!({"kty":"OKP","crv":"Ed25519","x":base64url(pair.public_key().as_ref())});
    for name in ["EdDSA", "Ed25519"] {
        let header = json!({"typ":"dpop+jwt","alg":name,"jwk":jwk});
        assert!(judge(&sign(&header, &claims(), |input| pair.sign(input).as_ref().to_vec())).is_ok(), "{name}");
    }
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let (n, e) =
        (public.modulus().big_endian_without_leading_zero(), public.exponent().big_endian_without_leading_zero());
    let jwk = json!({"kty":"RSA","n":base64url(n),"e":base64url(e)});
    let rsa = |algorithm: &str, padding: &'static dyn RsaEncoding| {
        let header = json!({"typ":"dpop+jwt","alg":algorithm,"jwk":jwk});
        sign(&header, &claims(), |input| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &SystemRandom::new(), input, &mut signature).unwrap();
            signature
        })
    };
    assert!(judge(&rsa("PS256", &RSA_PSS_SHA256)).is_ok());
    assert_eq!(judge(&rsa("RS256", &RSA_PKCS1_SHA256)), Err(Flaw::WrongAlgorithm));
    assert_eq!(judge(&rsa("PS256", &RSA_PKCS1_SHA256)), Err(Flaw::BadSignature));
}

#[test]
fn a_bound_token_passes_with_a_proof_of_its_key_and_once() {
    let (holder, other) = (Holder::new(), Holder::new());
    let possession = Possession::new(BASE);
    let token = bound_to(Some(holder.thumbprint()));
    let ask = |token: &AccessToken, scheme, proofs: &[&str], now: Timestamp| {
        let headers: Headers = proofs.iter().map(|proof| ("DPOP".to_owned(), (*proof).to_owned())).collect();
        possession.check(token, &Presented { scheme, token: TOKEN }, &headers, ("GET", PATH), now)
    };
    let proof = holder.proof(&claims());
    assert_eq!(ask(&token, Scheme::Dpop, &[], NOW), Err(Flaw::Missing));
    assert_eq!(ask(&token, Scheme::Bearer, &[], NOW), Err(Flaw::Missing));
    assert_eq!(ask(&token, Scheme::Bearer, &[&proof], NOW), Err(Flaw::Missing), "RFC 9449 §7.2: no downgrade");
    assert_eq!(ask(&token, Scheme::Dpop, &[&proof, &proof], NOW), Err(Flaw::Ambiguous));
    assert_eq!(ask(&token, Scheme::Dpop, &[&format!("{proof},{proof}")], NOW), Err(Flaw::Ambiguous));
    assert_eq!(ask(&token, Scheme::Dpop, &[&other.proof(&claims())], NOW), Err(Flaw::WrongKey));
    assert_eq!(ask(&token, Scheme::Dpop, &[&proof], NOW), Ok(()));
    for after in [0, 1, 60] {
        assert_eq!(ask(&token, Scheme::Dpop, &[&proof], NOW.plus_seconds(after)), Err(Flaw::Replayed));
    }
    assert_eq!(ask(&token, Scheme::Dpop, &[&proof], NOW.plus_seconds(61)), Err(Flaw::WrongTime));
    assert_eq!(ask(&token, Scheme::Dpop, &[&holder.proof(&with(claims(), "jti", json!("p-2")))], NOW), Ok(()));
}

#[test]
fn an_unbound_token_is_a_bearer_token_and_nothing_else() {
    let holder = Holder::new();
    let possession = Possession::new(BASE);
    let ask = |scheme, proofs: &[&str]| {
        let headers: Headers = proofs.iter().map(|proof| ("dpop".to_owned(), (*proof).to_owned())).collect();
        possession.check(&bound_to(None), &Presented { scheme, token: TOKEN }, &headers, ("GET", PATH), NOW)
    };
    assert_eq!(ask(Scheme::Bearer, &[]), Ok(()));
    assert_eq!(ask(Scheme::Dpop, &[]), Err(Flaw::Unbound));
    assert_eq!(ask(Scheme::Dpop, &[&holder.proof(&claims())]), Err(Flaw::Unbound));
    assert_eq!(ask(Scheme::Bearer, &["x"]), Err(Flaw::Unbound));
}

/// Runbooks and alarms look for them.
#[test]
fn every_flaw_has_its_name_in_the_log() {
    for (flaw, name) in [
        (Flaw::Missing, "proof_missing"),
        (Flaw::Ambiguous, "proof_ambiguous"),
        (Flaw::Malformed, "proof_malformed"),
        (Flaw::WrongType, "proof_wrong_type"),
        (Flaw::WrongAlgorithm, "proof_wrong_algorithm"),
        (Flaw::ForbiddenHeader, "proof_forbidden_header"),
        (Flaw::BadKey, "proof_bad_key"),
        (Flaw::BadSignature, "proof_bad_signature"),
        (Flaw::BadClaims, "proof_bad_claims"),
        (Flaw::WrongMethod, "proof_wrong_method"),
        (Flaw::WrongTarget, "proof_wrong_target"),
        (Flaw::WrongTime, "proof_wrong_time"),
        (Flaw::WrongToken, "proof_wrong_token"),
        (Flaw::WrongKey, "proof_wrong_key"),
        (Flaw::Replayed, "proof_replayed"),
        (Flaw::Unbound, "proof_for_unbound_token"),
    ] {
        assert_eq!(flaw.as_str(), name);
    }
}
