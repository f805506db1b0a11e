use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

use super::*;
use crate::clock::Timestamp;
use crate::encoding::base64url;
use crate::issuer::Profile;
use crate::jwt::Reason;
use crate::trust::{IssuerKeys, TrustObject as _};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const GATE: &str = "https://gate.example";
const STS: &str = "https://0f9c.tokens.sts.global.api.aws";
const GITHUB: &str = "https://token.actions.githubusercontent.com";
const CLUSTER: &str = "https://oidc.eks.eu-west-1.amazonaws.com/id/0A1B";
const ROLE: &str = "arn:aws:iam::111122223333:role/service/payments";

enum Pair {
    Ec(EcdsaKeyPair, &'static str, usize),
    Rsa(&'static RsaKeyPair),
}

/// One platform: a key, how it is published, and the profile that names it.
struct Platform {
    pair: Pair,
    kid: &'static str,
    usage: &'static str,
    profile: Profile,
}

impl Platform {
    fn new(kind: &str, issuer: &str, algorithm: &'static str, kid: &'static str) -> Self {
        Self::with_key(kind, issuer, (algorithm, kid), usize::from(kid == "cluster-1"))
    }

    /// The same with another key: a fresh one, or this one of RSA.
    fn with_key(kind: &str, issuer: &str, (algorithm, kid): (&'static str, &'static str), rsa: usize) -> Self {
        let pair = match algorithm {
            "ES256" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), "P-256", 32),
            "ES384" => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(), "P-384", 48),
            _ => Pair::Rsa(crate::rsa::pair(rsa)),
        };
        let profile = json!({"id": kind, "kind": kind, "issuer": issuer, "algorithms": [algorithm],
            "jwks_url": "https://keys.example/"});
        let usage = if kind == "spiffe" { "jwt-svid" } else { "sig" };
        Self { pair, kid, usage, profile: Profile::parse(&profile).unwrap() }
    }

    fn sts() -> Self {
        Self::new("aws-sts", STS, "ES384", "EC384_0")
    }

    fn github() -> Self {
        Self::new("github-actions", GITHUB, "RS256", "cc413527")
    }

    fn kubernetes() -> Self {
        Self::new("kubernetes", CLUSTER, "RS256", "cluster-1")
    }

    fn spiffe() -> Self {
        Self::new("spiffe", "spiffe://prod.example", "ES256", "svid-1")
    }

    /// As an issuer publishes it: without `alg`.
    fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Ec(pair, curve, size) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": curve, "kid": self.kid, "use": self.usage,
                    "x": base64url(&point[1..=*size]), "y": base64url(&point[size + 1..])})
            }
            Pair::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "kid": self.kid, "use": self.usage, "n": base64url(&public.n), "e": base64url(&public.e)})
            }
        }
    }

    /// As the mirror writes it.
    fn keys(&self) -> IssuerKeys {
        let mut jwk = self.jwk();
        jwk["alg"] = json!(self.profile.algorithms()[0].as_str());
        IssuerKeys::parse(&json!({"keys": [jwk]})).unwrap()
    }

    fn header(&self) -> Value {
        let algorithm = self.profile.algorithms()[0].as_str();
        match self.profile.kind().as_str() {
            "kubernetes" => json!({"alg": algorithm, "kid": self.kid}),
            "github-actions" => {
                json!({"alg": algorithm, "kid": self.kid, "typ": "JWT", "x5t": "ykNaY4qM_ta4k2TgZOCEYLkcYlA"})
            }
            _ => json!({"alg": algorithm, "kid": self.kid, "typ": "JWT"}),
        }
    }

    /// What the platform's documentation shows.
    fn claims(&self) -> Value {
        let now = NOW.seconds();
        match self.profile.kind().as_str() {
            "aws-sts" => json!({"iss": STS, "aud": GATE, "sub": ROLE, "iat": now, "exp": now + 300, "jti": "j-1",
                "https://sts.amazonaws.com/": {"aws_account": "111122223333", "source_region": "eu-west-1",
                    "org_id": "o-abc1234567", "principal_tags": {"team": "x"},
                    "lambda_source_function_arn": "arn:aws:lambda:eu-west-1:111122223333:function:pay"}}),
            "github-actions" => json!({"iss": GITHUB, "aud": GATE, "sub": "repo:octo-org/octo-repo:environment:prod",
                "iat": now, "nbf": now - 600, "exp": now + 300, "jti": "j-1", "ref": "refs/heads/main", "environment": "prod",
                "repository": "octo-org/octo-repo", "repository_id": "74", "repository_owner_id": "65", "run_attempt": "2",
                "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main"}),
            "kubernetes" => json!({"iss": CLUSTER, "aud": [GATE], "sub": "system:serviceaccount:payments:api",
                "iat": now, "nbf": now, "exp": now + 3_607, "jti": "j-1",
                "kubernetes.io": {"namespace": "payments", "pod": {"name": "api-1", "uid": "u"},
                    "serviceaccount": {"name": "api", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"}}}),
            _ => json!({"aud": [GATE], "sub": "spiffe://prod.example/ns/payments/api", "exp": now + 300, "iat": now}),
        }
    }

    fn sign_raw(&self, header: &Value, claims: &str) -> String {
        let input = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.as_bytes()));
        let signature = match &self.pair {
            Pair::Ec(pair, ..) => pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{input}.{}", base64url(&signature))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_raw(header, &claims.to_string())
    }

    fn check(&self, token: &str) -> Result<Workload, Reason> {
        verify(token, &self.profile, &self.keys(), GATE, NOW)
    }

    /// What becomes of its good assertion with these claims changed; `null` removes one.
    fn with(&self, changes: &Value) -> Result<Workload, Reason> {
        self.check(&self.sign(&self.header(), &changed(self.claims(), changes)))
    }

    fn with_header(&self, changes: &Value) -> Result<Workload, Reason> {
        self.check(&self.sign(&changed(self.header(), changes), &self.claims()))
    }

    fn rule(&self, pins: &Value) -> Rule {
        let mut rule = changed(pins.clone(), &json!({"issuer": self.profile.id().as_str()}));
        assert!(Rule::parse(&rule).is_ok(), "{rule}");
        rule["iss"] = json!(self.profile.issuer());
        Rule::stored(&rule).unwrap()
    }
}

fn changed(mut base: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(name);
        } else {
            base[name] = value.clone();
        }
    }
    base
}

fn all() -> [Platform; 4] {
    [Platform::sts(), Platform::github(), Platform::kubernetes(), Platform::spiffe()]
}

#[test]
fn what_each_platform_documents_is_verified_and_told_by_its_values() {
    let now = NOW.seconds();
    for (platform, described, once, until) in [
        (
            Platform::sts(),
            "lambda_source_function_arn=arn:aws:lambda:eu-west-1:111122223333:function:pay org_id=o-abc1234567 \
             role_arn=arn:aws:iam::111122223333:role/service/payments source_region=eu-west-1",
            Some(format!("{STS}\nj-1")),
            now + 300,
        ),
        (
            Platform::github(),
            "environment=prod job_workflow_ref=octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main \
             ref=refs/heads/main repository_id=74 repository_owner_id=65",
            Some(format!("{GITHUB}\nj-1")),
            now + 300,
        ),
        (
            Platform::kubernetes(),
            "namespace=payments service_account=api service_account_uid=14ee3fa4-a7e2-420f-9f9a-dbc4507c3798",
            None,
            now + 3_607,
        ),
        (Platform::spiffe(), "spiffe_id=spiffe://prod.example/ns/payments/api", None, now + 300),
    ] {
        let workload = platform.with(&json!({})).unwrap();
        assert_eq!((workload.describe().as_str(), workload.once()), (described, once));
        assert_eq!((workload.until().seconds(), workload.issuer()), (until, platform.profile.id()));
        // One string or an array of it alone, whatever the platform writes.
        for aud in [json!(GATE), json!([GATE])] {
            assert!(platform.with(&json!({"aud": aud})).is_ok());
        }
    }
}

#[test]
fn every_other_audience_is_refused_on_every_platform() {
    for platform in all() {
        for aud in [
            json!(null),
            json!(format!("{GATE}/")),
            json!(format!("{GATE}/oauth2/token")),
            json!("https://api.example"),
            json!([GATE, "https://other.example"]),
            json!([GATE, GATE]),
            json!([]),
            json!([[GATE]]),
            json!({"0": GATE}),
            json!(1),
            json!(""),
        ] {
            let refused = platform.with(&json!({"aud": aud})).unwrap_err();
            assert_eq!(refused, Reason::WrongAudience, "{aud}");
        }
    }
}

#[test]
fn times_out_of_bounds_are_refused_on_every_platform() {
    let now = NOW.seconds();
    for (platform, longest) in all().into_iter().zip([300, 6 * 3_600, 3_607, 3_600]) {
        let dated = platform.profile.kind().as_str() != "spiffe";
        for (what, changes, reason) in [
            ("no exp", json!({"exp": null}), Reason::BadClaims),
            ("exp as text", json!({"exp": (now + 60).to_string()}), Reason::BadClaims),
            ("a broken exp", json!({"exp": 1_800_000_060.5}), Reason::BadClaims),
            ("a negative exp", json!({"exp": -1}), Reason::BadClaims),
            ("exp beyond time", json!({"exp": 1_000_000_000_000_000_000_i64}), Reason::BadClaims),
            ("expired now", json!({"exp": now, "iat": now - 60}), Reason::Expired),
            ("expired", json!({"exp": now - 60, "iat": now - 120}), Reason::Expired),
            ("issued after its end", json!({"exp": now + 60, "iat": now + 60}), Reason::BadClaims),
            ("issued ahead of time", json!({"iat": now + 11, "exp": now + 60}), Reason::NotYetValid),
            ("not valid yet", json!({"nbf": now + 11}), Reason::NotYetValid),
            ("nbf as text", json!({"nbf": "now"}), Reason::BadClaims),
            ("too long-lived", json!({"exp": now + longest + 1, "iat": now}), Reason::TooLongLived),
        ] {
            assert_eq!(platform.with(&changes).unwrap_err(), reason, "{what}: {}", platform.profile.id());
        }
        assert!(platform.with(&json!({"iat": now + 10, "exp": now + 60})).is_ok());
        assert_eq!(platform.with(&json!({"iat": null})).is_err(), dated);
    }
    for (platform, missing) in [(Platform::github(), "nbf"), (Platform::kubernetes(), "nbf")] {
        assert_eq!(platform.with(&json!({missing: null})).unwrap_err(), Reason::BadClaims);
    }
}

#[test]
fn what_counts_for_github_is_when_the_token_was_issued() {
    let (platform, now) = (Platform::github(), NOW.seconds());
    // GitHub has been seen to give six hours; a log that leaks them is worth a quarter of an hour.
    let six_hours = |issued: i64| json!({"iat": issued, "nbf": issued - 300, "exp": issued + 6 * 3_600});
    let fresh = platform.with(&six_hours(now)).unwrap();
    assert_eq!(fresh.until(), NOW.plus_seconds(900));
    assert!(platform.with(&six_hours(now - 899)).is_ok());
    assert_eq!(platform.with(&six_hours(now - 900)).unwrap_err(), Reason::Expired);
    // And the one-year tokens that an API server extends are refused by their life.
    let year = json!({"iat": now, "nbf": now, "exp": now + 365 * 86_400});
    assert_eq!(Platform::kubernetes().with(&year).unwrap_err(), Reason::TooLongLived);
    // STS gives an hour to whoever does not ask for less.
    assert_eq!(Platform::sts().with(&json!({"exp": now + 900})).unwrap_err(), Reason::TooLongLived);
}

#[test]
fn a_header_that_the_platform_does_not_write_is_refused() {
    for platform in all() {
        let kind = platform.profile.kind().as_str();
        for (what, changes, reason) in [
            ("another key", json!({"kid": "other"}), Reason::UnknownKey),
            ("no key", json!({"kid": null}), Reason::UnknownKey),
            ("a path", json!({"kid": "../../../dev/null"}), Reason::UnknownKey),
            ("a number", json!({"kid": 1}), Reason::Malformed),
            ("none", json!({"alg": "none"}), Reason::WrongAlgorithm),
            ("HS256", json!({"alg": "HS256"}), Reason::WrongAlgorithm),
            ("another algorithm", json!({"alg": "EdDSA"}), Reason::WrongAlgorithm),
            ("another padding", json!({"alg": "PS256"}), Reason::WrongAlgorithm),
            ("a key of its own", json!({"jwk": platform.jwk()}), Reason::ForbiddenHeader),
            ("a place for keys", json!({"jku": "https://evil.example/"}), Reason::ForbiddenHeader),
            ("a certificate's place", json!({"x5u": "https://evil.example/"}), Reason::ForbiddenHeader),
            ("a chain", json!({"x5c": ["AA"]}), Reason::ForbiddenHeader),
            ("something to understand", json!({"crit": ["exp"]}), Reason::ForbiddenHeader),
            ("compressed", json!({"zip": "DEF"}), Reason::ForbiddenHeader),
            ("an access token", json!({"typ": "at+jwt"}), Reason::WrongType),
            ("a proof", json!({"typ": "dpop+jwt"}), Reason::WrongType),
            ("a client's own", json!({"typ": "client-authentication+jwt"}), Reason::WrongType),
            ("an empty type", json!({"typ": ""}), Reason::WrongType),
            ("a type that is none", json!({"typ": 1}), Reason::Malformed),
        ] {
            assert_eq!(platform.with_header(&changes).unwrap_err(), reason, "{what}: {kind}");
        }
        assert_eq!(platform.with_header(&json!({"x5t": "t"})).is_ok(), kind == "github-actions", "{kind}");
        for (typ, kinds) in [
            (json!(null), &["aws-sts", "kubernetes", "spiffe"][..]),
            (json!("JWT"), &["aws-sts", "github-actions", "spiffe"]),
            (json!("JOSE"), &["spiffe"]),
        ] {
            assert_eq!(platform.with_header(&json!({"typ": typ})).is_ok(), kinds.contains(&kind), "{typ}: {kind}");
        }
    }
}

#[test]
fn no_signature_but_the_platforms_own_holds() {
    for platform in all() {
        let good = platform.sign(&platform.header(), &platform.claims());
        let (kind, algorithm) = (platform.profile.kind().as_str(), platform.profile.algorithms()[0].as_str());
        let other = Platform::with_key(kind, platform.profile.issuer(), (algorithm, platform.kid), 2);
        let forged = other.sign(&platform.header(), &platform.claims());
        assert_eq!(platform.check(&forged).unwrap_err(), Reason::BadSignature);
        let (input, signature) = good.rsplit_once('.').unwrap();
        let cut = format!("{input}.{}", &signature[..signature.len() - 4]);
        assert!(platform.check(&cut).is_err());
        assert_eq!(platform.check(&format!("{input}.")).unwrap_err(), Reason::Malformed);
        // Keyed with the public key in the text that everybody has.
        let header = changed(platform.header(), &json!({"alg": "HS256"}));
        let input = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(platform.claims().to_string().as_bytes())
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, platform.jwk().to_string().as_bytes());
        let confused = format!("{input}.{}", base64url(hmac::sign(&key, input.as_bytes()).as_ref()));
        assert_eq!(platform.check(&confused).unwrap_err(), Reason::WrongAlgorithm);
        let twice = platform.claims().to_string().replacen('{', &format!(r#"{{"aud":"{GATE}","#), 1);
        let twice = platform.sign_raw(&platform.header(), &twice);
        assert_eq!(platform.check(&twice).unwrap_err(), Reason::Malformed, "a claim twice");
        assert!(platform.check(&good).is_ok());
    }
}

#[test]
fn the_assertion_of_one_platform_is_none_of_anothers() {
    let platforms = all();
    for (at, platform) in platforms.iter().enumerate() {
        let good = platform.sign(&platform.header(), &platform.claims());
        for (other_at, other) in platforms.iter().enumerate() {
            assert_eq!(
                other.check(&good).is_ok(),
                at == other_at,
                "{} at {}",
                platform.profile.id(),
                other.profile.id()
            );
            // Even with the other's keys out of the mirror mixed in: the issuer is whose claims these are.
            let mixed = verify(&good, &other.profile, &platform.keys(), GATE, NOW);
            assert_eq!(mixed.is_ok(), at == other_at);
        }
    }
    // Another cluster, another account, another trust domain of the same kind, with a key of the same name.
    for (platform, issuer) in [
        (Platform::kubernetes(), "https://oidc.eks.eu-west-1.amazonaws.com/id/FFFF"),
        (Platform::sts(), "https://ffff.tokens.sts.global.api.aws"),
        (Platform::spiffe(), "spiffe://test.example"),
    ] {
        let other = Profile::parse(&changed(platform.profile.to_value(), &json!({"issuer": issuer}))).unwrap();
        let good = platform.sign(&platform.header(), &platform.claims());
        assert_eq!(verify(&good, &other, &platform.keys(), GATE, NOW).unwrap_err(), Reason::WrongIssuer);
    }
    // What says that it is a SPIFFE workload's is looked up as one, and another platform's signature makes it nobody's.
    for (sub, reason) in
        [("spiffe://prod.example/a", Reason::WrongIssuer), ("spiffe://repo:a/b:ref:refs/heads/main", Reason::BadClaims)]
    {
        for platform in [Platform::sts(), Platform::github(), Platform::kubernetes()] {
            assert_eq!(platform.with(&json!({"sub": sub})).unwrap_err(), reason, "{sub}");
        }
    }
    let access = json!({"id": "a", "kind": "cloudflare-access", "issuer": STS, "audience": "0".repeat(64),
        "algorithms": ["RS256"], "jwks_url": "https://keys.example/"});
    let generic = json!({"id": "g", "kind": "generic", "issuer": STS, "audience": GATE, "algorithms": ["ES384"],
        "jwks_url": "https://keys.example/"});
    let sts = Platform::sts();
    let good = sts.sign(&sts.header(), &sts.claims());
    for believed_by_nobody in [access, generic] {
        let profile = Profile::parse(&believed_by_nobody).unwrap();
        assert_eq!(verify(&good, &profile, &sts.keys(), GATE, NOW).unwrap_err(), Reason::WrongIssuer);
    }
}

#[test]
fn keys_for_another_use_serve_no_svid_and_svid_keys_nothing_else() {
    let svid = Platform { usage: "sig", ..Platform::spiffe() };
    assert_eq!(svid.with(&json!({})).unwrap_err(), Reason::UnknownKey);
    let github = Platform { usage: "jwt-svid", ..Platform::github() };
    assert_eq!(github.with(&json!({})).unwrap_err(), Reason::UnknownKey);
    let both = Platform::spiffe();
    let sig = changed(both.jwk(), &json!({"use": "sig", "alg": "ES256", "kid": "other"}));
    let keys = IssuerKeys::parse(&json!({"keys": [sig, changed(both.jwk(), &json!({"alg": "ES256"}))]})).unwrap();
    let good = both.sign(&both.header(), &both.claims());
    assert_eq!(verify(&good, &both.profile, &keys, GATE, NOW).unwrap_err(), Reason::UnknownKey, "a mixed mirror");
}

#[test]
fn claims_that_do_not_name_one_workload_are_refused() {
    let long = format!("spiffe://prod.example/{}", "a".repeat(2_048));
    let sts = |changes: Value| {
        let held = &Platform::sts().claims()["https://sts.amazonaws.com/"];
        json!({"https://sts.amazonaws.com/": changed(held.clone(), &changes)})
    };
    let bound = |changes: Value| json!({"kubernetes.io": changed(Platform::kubernetes().claims()["kubernetes.io"].clone(), &changes)});
    let account = |name: Value| bound(json!({"serviceaccount": name}));
    for (platform, cases) in [
        (
            Platform::sts(),
            vec![
                json!({"sub": null}),
                json!({"sub": "arn:aws:sts::111122223333:assumed-role/payments/session"}),
                json!({"sub": "arn:aws:iam::111122223333:user/ann"}),
                json!({"sub": "arn:aws:iam::111122223333:root"}),
                json!({"sub": "arn:aws:iam::999999999999:role/service/payments"}),
                json!({"sub": "arn:aws:iam::111122223333:role/"}),
                json!({"sub": "arn:aws:iam::111122223333:role/*"}),
                json!({"sub": [ROLE]}),
                json!({"https://sts.amazonaws.com/": null}),
                json!({"https://sts.amazonaws.com/": "111122223333"}),
                sts(json!({"aws_account": null})),
                sts(json!({"aws_account": 111_122_223_333_i64})),
                sts(json!({"org_id": 1})),
                json!({"jti": null}),
                json!({"jti": ""}),
                json!({"jti": 7}),
                json!({"jti": "a\nb"}),
            ],
        ),
        (
            Platform::github(),
            vec![
                json!({"repository_id": null}),
                json!({"repository_id": 74}),
                json!({"repository_id": ""}),
                json!({"repository_owner_id": null}),
                json!({"ref": ["refs/heads/main"]}),
                json!({"environment": true}),
                json!({"environment": "a\u{7}"}),
                json!({"jti": null}),
            ],
        ),
        (
            Platform::kubernetes(),
            vec![
                json!({"sub": null}),
                json!({"sub": "system:node:n1"}),
                json!({"sub": "system:serviceaccount:payments"}),
                json!({"sub": "system:serviceaccount:payments:admin"}),
                json!({"sub": "system:serviceaccount:kube-system:api"}),
                json!({"sub": "system:serviceaccount:payments:api:more"}),
                json!({"kubernetes.io": null}),
                json!({"kubernetes.io": [], "kubernetes.io/serviceaccount/namespace": "payments"}),
                bound(json!({"namespace": "other"})),
                bound(json!({"namespace": null})),
                account(json!({"uid": "u"})),
                account(json!({"name": "admin"})),
                account(json!({"name": "api", "uid": 1})),
            ],
        ),
        (
            Platform::spiffe(),
            vec![
                json!({"sub": "spiffe://prod.example"}),
                json!({"sub": "spiffe://prod.example/"}),
                json!({"sub": "spiffe://prod.example/a/"}),
                json!({"sub": "spiffe://prod.example/a//b"}),
                json!({"sub": "spiffe://prod.example/a/../b"}),
                json!({"sub": "spiffe://prod.example/a/./b"}),
                json!({"sub": "spiffe://prod.example/a%2fb"}),
                json!({"sub": "spiffe://prod.example/a?b"}),
                json!({"sub": "spiffe://prod.example/a#b"}),
                json!({ "sub": long }),
                json!({"sub": null}),
                json!({"sub": ["spiffe://prod.example/a"]}),
            ],
        ),
    ] {
        for case in cases {
            assert_eq!(platform.with(&case).unwrap_err(), Reason::BadClaims, "{case}");
        }
    }
    for sub in ["spiffe://test.example/a", "spiffe://prod.example.evil/a", "spiffe://prod.exampl/a"] {
        assert_eq!(Platform::spiffe().with(&json!({"sub": sub})).unwrap_err(), Reason::WrongIssuer, "{sub}");
    }
    let legacy = json!({"iss": "kubernetes/serviceaccount", "exp": null, "iat": null, "nbf": null, "aud": null});
    assert_eq!(Platform::kubernetes().with(&legacy).unwrap_err(), Reason::WrongIssuer, "a legacy token");
    for platform in [Platform::sts(), Platform::github(), Platform::kubernetes()] {
        let other = format!("{}/", platform.profile.issuer());
        for iss in [json!(other), json!([platform.profile.issuer()]), json!(null)] {
            assert!(platform.with(&json!({"iss": iss})).is_err(), "{iss}");
        }
    }
    // Where SPIFFE says nothing about an issuer, it may say anything.
    assert!(Platform::spiffe().with(&json!({"iss": GITHUB})).is_ok());
}

#[test]
fn a_rule_names_the_workload_with_exactly_its_values_and_no_other() {
    let (sts, github, cluster, spiffe) =
        (Platform::sts(), Platform::github(), Platform::kubernetes(), Platform::spiffe());
    let uid = "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798";
    let workflow = "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main";
    let repository = json!({"repository_id": "74", "repository_owner_id": "65"});
    let repository = |more: Value| changed(repository.clone(), &more);
    let function = "arn:aws:lambda:eu-west-1:111122223333:function:pay";
    for (platform, pins, named) in [
        (&sts, json!({"role_arn": ROLE}), true),
        (&sts, json!({"role_arn": ROLE, "org_id": "o-abc1234567", "source_region": "eu-west-1"}), true),
        (&sts, json!({"role_arn": ROLE, "lambda_source_function_arn": function}), true),
        (&sts, json!({"role_arn": "arn:aws:iam::111122223333:role/payments"}), false),
        (&sts, json!({"role_arn": "arn:aws:iam::111122223333:role/service/Payments"}), false),
        (&sts, json!({"role_arn": ROLE, "org_id": "o-zzz1234567"}), false),
        (&sts, json!({"role_arn": ROLE, "source_region": "us-east-1"}), false),
        (&github, repository(json!({"ref": "refs/heads/main"})), true),
        (&github, repository(json!({"environment": "prod", "job_workflow_ref": workflow})), true),
        (&github, repository(json!({"repository_id": "75", "ref": "refs/heads/main"})), false),
        (&github, repository(json!({"repository_owner_id": "66", "ref": "refs/heads/main"})), false),
        (&github, repository(json!({"ref": "refs/heads/main2"})), false),
        (&github, repository(json!({"ref": "refs/tags/main"})), false),
        (&github, repository(json!({"environment": "Prod"})), false),
        (&github, repository(json!({"ref": "refs/heads/main", "environment": "test"})), false),
        (&cluster, json!({"namespace": "payments", "service_account": "api"}), true),
        (&cluster, json!({"namespace": "payments", "service_account": "api", "service_account_uid": uid}), true),
        (&cluster, json!({"namespace": "payment", "service_account": "api"}), false),
        (&cluster, json!({"namespace": "payments", "service_account": "admin"}), false),
        (&cluster, json!({"namespace": "payments", "service_account": "api", "service_account_uid": "u"}), false),
        (&spiffe, json!({"spiffe_id": "spiffe://prod.example/ns/payments/api"}), true),
        (&spiffe, json!({"spiffe_id": "spiffe://prod.example/ns/payments"}), false),
        (&spiffe, json!({"spiffe_id": "spiffe://test.example/ns/payments/api"}), false),
    ] {
        let workload = platform.with(&json!({})).unwrap();
        assert_eq!(platform.rule(&pins).names(&workload), named, "{pins}");
    }
    let workload = github.with(&json!({"environment": null})).unwrap();
    assert!(!github.rule(&repository(json!({"environment": "prod"}))).names(&workload), "a claim that is not there");
    // The same values of another issuer, or of what had its id before.
    let stored = |issuer: &str, iss: &str| {
        Rule::stored(&json!({"issuer": issuer, "iss": iss, "namespace": "payments", "service_account": "api"})).unwrap()
    };
    let workload = cluster.with(&json!({})).unwrap();
    assert!(stored("kubernetes", CLUSTER).names(&workload));
    assert!(!stored("cluster-b", CLUSTER).names(&workload));
    assert!(!stored("kubernetes", "https://oidc.eks.eu-west-1.amazonaws.com/id/0000").names(&workload));
    let unbound = Rule::parse(&json!({"issuer": "kubernetes", "namespace": "payments", "service_account": "api"}));
    assert!(!unbound.unwrap().names(&workload), "a rule that was not stored names nobody");
}

#[test]
fn a_rule_that_is_not_exact_is_refused() {
    let github = |more: Value| {
        changed(json!({"issuer": "g", "repository_id": "1", "repository_owner_id": "2", "ref": "refs/heads/x"}), &more)
    };
    let role = |arn: &str| json!({"issuer": "a", "role_arn": arn});
    let account = |namespace: &str, name: &str| json!({"issuer": "k", "namespace": namespace, "service_account": name});
    let svid = |id: &str| json!({"issuer": "s", "spiffe_id": id});
    for rule in [
        json!(null),
        json!([]),
        json!({}),
        json!({"issuer": "a"}),
        json!({"role_arn": ROLE}),
        json!({"issuer": "a/b", "role_arn": ROLE}),
        json!({"issuer": "own", "role_arn": ROLE}),
        json!({"issuer": "a", "role_arn": ROLE, "spiffe_id": "spiffe://a/b"}),
        json!({"issuer": "a", "role_arn": ROLE, "sub": "x"}),
        json!({"issuer": "a", "role_arn": ROLE, "iss": STS}),
        json!({"issuer": "a", "role_arn": ROLE, "source_region": "*"}),
        json!({"issuer": "a", "role_arn": ROLE, "org_id": "*"}),
        json!({"issuer": "a", "role_arn": [ROLE]}),
        role("arn:aws:iam::111122223333:role/*"),
        role("arn:aws:iam::*:role/payments"),
        role("arn:aws:iam::111122223333:user/ann"),
        role("arn:aws:sts::111122223333:assumed-role/payments/s"),
        role("arn:*:iam::111122223333:role/payments"),
        role("*"),
        role(""),
        github(json!({"ref": null})),
        github(json!({"repository_id": null})),
        github(json!({"repository_owner_id": null})),
        github(json!({"repository_id": 1})),
        github(json!({"repository_id": "01"})),
        github(json!({"repository_id": "octo/repo"})),
        github(json!({"ref": "main"})),
        github(json!({"ref": "refs/heads/*"})),
        github(json!({"ref": "refs/heads/release-?"})),
        github(json!({"environment": "*"})),
        github(json!({"environment": ""})),
        github(json!({"environment": " prod"})),
        github(json!({"job_workflow_ref": "octo/repo/.github/workflows/x.yml@*"})),
        github(json!({"job_workflow_ref": "octo/*/.github/workflows/x.yml@refs/heads/main"})),
        github(json!({"sub": "repo:octo/repo:ref:refs/heads/main"})),
        account("payments", "*"),
        account("*", "api"),
        account("payments", "api:other"),
        account("Payments", "api"),
        account("", ""),
        json!({"issuer": "k", "namespace": "payments"}),
        json!({"issuer": "k", "service_account": "api"}),
        svid("spiffe://prod.example"),
        svid("spiffe://prod.example/*"),
        svid("spiffe://*/ns/a"),
        svid("spiffe://Prod.example/ns/a"),
        svid("https://prod.example/ns/a"),
    ] {
        assert!(Rule::parse(&rule).is_err(), "{rule}");
    }
    for rule in [
        role("arn:aws-us-gov:iam::111122223333:role/a/b/c+=,.@_-"),
        github(json!({"environment": "prod (eu)", "ref": null})),
        github(json!({"job_workflow_ref": "octo/r/.github/workflows/x.yml@0f661a4a011d77cb21fa4dc70013d9b6f928666e"})),
        account("a-1", "api.v2"),
    ] {
        assert_eq!(Rule::parse(&rule).unwrap().to_value(), rule);
    }
}

#[test]
fn whose_an_assertion_is_can_be_told_in_one_way_only() {
    let platform = Platform::sts();
    let of = |claims: Value| {
        let token = platform.sign(&json!({"alg": "ES384", "kid": "k"}), &claims);
        claimed(&token).map(|claimed| match claimed {
            Claimed::Client(client, _) => format!("client {}", client.as_str()),
            Claimed::Issuer(issuer) => format!("issuer {issuer}"),
        })
    };
    let issuer = |text: &str| Ok(format!("issuer {text}"));
    for (claims, expected) in [
        (json!({"iss": "acme-backend", "sub": "acme-backend"}), Ok("client acme-backend".to_owned())),
        (json!({"iss": STS, "sub": ROLE}), issuer(STS)),
        (json!({"iss": STS}), issuer(STS)),
        (json!({"sub": "spiffe://prod.example/a"}), issuer("spiffe://prod.example")),
        // A client's name beside a SPIFFE ID chooses the trust domain, whose keys it then needs.
        (json!({"iss": "acme-backend", "sub": "spiffe://prod.example/a"}), issuer("spiffe://prod.example")),
        (json!({"iss": "spiffe://prod.example", "sub": "x"}), issuer("spiffe://prod.example")),
        (json!({"sub": "spiffe:///a"}), Err(Reason::BadClaims)),
        (json!({"sub": "spiffe://A/a"}), Err(Reason::BadClaims)),
        (json!({"sub": "acme-backend"}), Err(Reason::BadClaims)),
        (json!({"iss": [STS], "sub": ROLE}), Err(Reason::BadClaims)),
        (json!({}), Err(Reason::BadClaims)),
    ] {
        assert_eq!(of(claims.clone()), expected, "{claims}");
    }
    assert!(matches!(claimed("a.b.c"), Err(Reason::Malformed)));
}
