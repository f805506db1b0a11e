//! Tokens that nobody may take, each by the name it has in `docs/attacks.md`: what jwt_tool, PortSwigger's laboratories and
//! RFC 8725 know, made anew for whoever verifies a JWT.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};
use shared::clock::Timestamp;
use shared::encoding::{base64url, from_base64url};

use crate::Issuer;
use crate::issuer::{AUDIENCE, ISSUER};

/// What a verifier takes: the header and the claims of a token that is good.
pub struct Good {
    /// The members of its header.
    pub header: Map<String, Value>,
    /// Its claims.
    pub claims: Map<String, Value>,
}

/// One attack: its name, and the text that is presented as a token.
pub type Attack = (String, String);

/// An access token of `issuer`, as the gate and the functions take it.
pub fn access(issuer: &Issuer, now: Timestamp) -> Good {
    let header = json!({"alg":"ES256","typ":"at+jwt","kid":issuer.kid()});
    let claims = json!({"iss":ISSUER,"sub":"acme-backend","aud":AUDIENCE,"client_id":"acme-backend","iat":now.seconds(),
        "exp":now.seconds() + 300,"jti":"0198e1a0-0000-7000-8000-000000000001","scope":"files:read files:write",
        "tenant":"acme","kind":"machine"});
    Good { header: object(header), claims: object(claims) }
}

/// An assertion of the client `acme-backend`, as the token endpoint takes it.
pub fn assertion(client: &Issuer, now: Timestamp) -> Good {
    let header = json!({"alg":"ES256","kid":client.kid()});
    let claims = json!({"iss":"acme-backend","sub":"acme-backend","aud":ISSUER,"jti":"attack","iat":now.seconds(),
        "exp":now.seconds() + 60});
    Good { header: object(header), claims: object(claims) }
}

/// All attacks that are built around a good token of `issuer`; `other` is an issuer of the attacker's.
pub fn all(issuer: &Issuer, other: &Issuer, good: &Good, now: Timestamp) -> Vec<Attack> {
    let forge = Forge { issuer, other, good };
    let groups = [
        forge.unsigned(),
        forge.symmetric(),
        forge.key_ids(),
        forge.foreign_keys(),
        forge.signatures(),
        forge.headers(),
        forge.odd_members(),
        forge.times(now),
        forge.names(),
        forge.texts(),
        forge.other_formats(),
    ];
    groups.into_iter().flatten().collect()
}

struct Forge<'a> {
    issuer: &'a Issuer,
    other: &'a Issuer,
    good: &'a Good,
}

impl Forge<'_> {
    fn header(&self, changes: Value) -> String {
        changed(&self.good.header, changes)
    }

    fn claims(&self, changes: Value) -> String {
        changed(&self.good.claims, changes)
    }

    fn with_header(&self, changes: Value) -> String {
        self.issuer.sign_texts(&self.header(changes), &self.claims(json!({})))
    }

    fn with_claims(&self, changes: Value) -> String {
        self.issuer.sign_texts(&self.header(json!({})), &self.claims(changes))
    }

    fn genuine(&self) -> String {
        self.with_claims(json!({}))
    }

    /// jwt_tool `-X a` and `-X n`, PortSwigger "flawed signature verification".
    fn unsigned(&self) -> Vec<Attack> {
        let genuine = self.genuine();
        let signature = genuine.rsplit('.').next().unwrap();
        let mut attacks = vec![("empty signature".to_owned(), genuine.trim_end_matches(signature).to_owned())];
        for spelling in ["none", "None", "NONE", "nOnE", ""] {
            let input = joined(&self.header(json!({"alg": spelling})), &self.claims(json!({})));
            attacks.push((format!("alg {spelling:?} without signature"), format!("{input}.")));
            attacks.push((format!("alg {spelling:?} with the old signature"), format!("{input}.{signature}")));
        }
        attacks.push(("no alg".to_owned(), self.with_header(json!({"alg": null}))));
        attacks
    }

    /// jwt_tool `-X b`, `-X k` and its list of common secrets; PortSwigger "algorithm confusion", "weak signing key".
    fn symmetric(&self) -> Vec<Attack> {
        let (der, jwk) = (self.issuer.public_der(), self.issuer.jwk().to_string());
        let pem = pem(&der);
        let common = ["secret", "password", "changeme", "jwt", "123456", "your-256-bit-secret", "HS256", "s3cr3t"];
        let secrets = [
            ("an empty key", Vec::new()),
            ("our public key in PEM", pem.clone().into_bytes()),
            ("our public key in PEM without its last newline", pem.trim_end().as_bytes().to_vec()),
            ("our public key in DER", der),
            ("our public key as JWK", jwk.into_bytes()),
        ];
        let secrets = secrets.into_iter().map(|(what, secret)| (what.to_owned(), secret));
        let common = common.map(|secret| (format!("the common secret {secret:?}"), secret.as_bytes().to_vec()));
        let hs256 = |(what, secret): (String, Vec<u8>)| {
            let input = joined(&self.header(json!({"alg": "HS256"})), &self.claims(json!({})));
            let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), input.as_bytes());
            (format!("HS256 with {what}"), format!("{input}.{}", base64url(mac.as_ref())))
        };
        secrets.chain(common).map(hs256).collect()
    }

    /// jwt_tool's `kid` list, PortSwigger "kid header path traversal".
    fn key_ids(&self) -> Vec<Attack> {
        let kids = [
            ("kid missing", json!(null)),
            ("kid empty", json!("")),
            ("kid of a path", json!("../../../../../../dev/null")),
            ("kid of a device", json!("/dev/null")),
            ("kid of no file", json!("/invalid_path")),
            ("kid with a command", json!("|sleep 10")),
            ("kid with SQL", json!("x' UNION SELECT '1';--")),
            ("kid of ten kilobytes", json!("k".repeat(10_000))),
            ("kid as a number", json!(1)),
            ("kid as a list", json!([self.issuer.kid()])),
            ("kid as an object", json!({"kid": self.issuer.kid()})),
            ("kid with a zero byte", json!(format!("{}\0", self.issuer.kid()))),
            ("kid with a space", json!(format!("{} ", self.issuer.kid()))),
            ("kid in another case", json!(self.issuer.kid().to_uppercase())),
            ("kid of nobody", json!("nobody")),
        ];
        kids.into_iter().map(|(what, kid)| (what.to_owned(), self.with_header(json!({"kid": kid})))).collect()
    }

    /// jwt_tool `-X i` and `-X s`, PortSwigger "jwk injection", "jku injection"; RFC 8725 §3.8.
    fn foreign_keys(&self) -> Vec<Attack> {
        let (header, claims) = (self.header(json!({})), self.claims(json!({})));
        let theirs = |changes: Value| self.other.sign_texts(&self.header(changes), &claims);
        vec![
            ("a stranger's key under our kid".to_owned(), self.other.sign_texts(&header, &claims)),
            ("a stranger's key under his kid".to_owned(), theirs(json!({"kid": self.other.kid()}))),
            ("a stranger's key in jwk".to_owned(), theirs(json!({"jwk": self.other.jwk()}))),
            ("a stranger's key in jwk, without kid".to_owned(), theirs(json!({"jwk": self.other.jwk(), "kid": null}))),
            ("a stranger's key at jku".to_owned(), theirs(json!({"jku": "https://attacker.example/jwks.json"}))),
            ("a stranger's key at x5u".to_owned(), theirs(json!({"x5u": "https://attacker.example/x5u"}))),
            ("a stranger's key in x5c".to_owned(), theirs(json!({"x5c": [base64url(&self.other.public_der())]}))),
            ("our own key in jwk".to_owned(), self.with_header(json!({"jwk": self.issuer.jwk()}))),
            (
                "our own kid with a jku".to_owned(),
                self.with_header(json!({"jku": format!("{ISSUER}/.well-known/jwks.json")})),
            ),
        ]
    }

    /// PortSwigger "unverified signature"; "psychic signatures" (CVE-2022-21449) and their kin.
    fn signatures(&self) -> Vec<Attack> {
        const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
        let genuine = self.genuine();
        let (input, signature) = genuine.rsplit_once('.').unwrap();
        let bytes = from_base64url(signature).unwrap();
        let (r, s) = bytes.split_at(32);
        let (zero, order) = ([0; 32], shared::encoding::from_hex(ORDER).unwrap());
        let altered = joined(&self.header(json!({})), &self.claims(json!({"jti": "other"})));
        let mut attacks = vec![
            ("claims altered under the old signature".to_owned(), format!("{altered}.{signature}")),
            ("signature cut by four characters".to_owned(), genuine[..genuine.len() - 4].to_owned()),
        ];
        for (what, signature) in [
            ("signature of zeros", [zero, zero].concat()),
            ("signature with r = 0", [&zero, s].concat()),
            ("signature with s = 0", [r, &zero].concat()),
            ("signature with r = s = n", [&order[..], &order].concat()),
            ("signature of 63 bytes", bytes[..63].to_vec()),
            ("signature of 65 bytes", [&bytes[..], &[0]].concat()),
            ("signature in DER", der_signature(r, s)),
            ("signature of one byte", vec![0]),
            ("signature twice", [&bytes[..], &bytes].concat()),
        ] {
            attacks.push((what.to_owned(), format!("{input}.{}", base64url(&signature))));
        }
        attacks
    }

    /// RFC 8725 §3.1, 3.2, 3.6; RFC 7515 §4.1.11.
    fn headers(&self) -> Vec<Attack> {
        let headers = [
            ("alg of another curve", json!({"alg": "ES384"})),
            ("alg of another key", json!({"alg": "RS256"})),
            ("alg nobody should use", json!({"alg": "RS1"})),
            ("alg in lower case", json!({"alg": "es256"})),
            ("alg with a space", json!({"alg": "ES256 "})),
            ("alg as a list", json!({"alg": ["ES256"]})),
            ("crit with an unknown name", json!({"crit": ["x"], "x": 1})),
            ("crit with a known name", json!({"crit": ["exp"]})),
            ("crit empty", json!({"crit": []})),
            ("b64 false", json!({"crit": ["b64"], "b64": false})),
            ("zip", json!({"zip": "DEF"})),
            ("cty of a nested token", json!({"cty": "JWT"})),
            ("enc", json!({"enc": "A256GCM"})),
            ("typ of a proof", json!({"typ": "dpop+jwt"})),
            ("typ of a logout token", json!({"typ": "logout+jwt"})),
            ("typ as a list", json!({"typ": ["at+jwt"]})),
        ];
        headers.into_iter().map(|(what, changes)| (what.to_owned(), self.with_header(changes))).collect()
    }

    /// jwt_tool's fuzzing: each member of header and claims set to something that is none.
    fn odd_members(&self) -> Vec<Attack> {
        let odd = [
            ("true", json!(true)),
            ("null", json!(null)),
            ("a list", json!([])),
            ("an object", json!({})),
            ("a huge number", json!(1e300)),
            ("the largest integer", json!(u64::MAX)),
            ("minus one", json!(-1)),
            ("3,000 characters", json!("a".repeat(3000))),
        ];
        let mut attacks = Vec::new();
        for (value, odd) in &odd {
            for (part, members) in [("header", &self.good.header), ("claim", &self.good.claims)] {
                for name in members.keys() {
                    let mut changed = members.clone();
                    changed.insert(name.clone(), odd.clone());
                    let changed = Value::Object(changed).to_string();
                    let token = match part {
                        "header" => self.issuer.sign_texts(&changed, &self.claims(json!({}))),
                        _ => self.issuer.sign_texts(&self.header(json!({})), &changed),
                    };
                    attacks.push((format!("{part} {name} set to {value}"), token));
                }
            }
        }
        attacks
    }

    /// RFC 7519 §4.1.4 to 4.1.6, and lives that no token has.
    fn times(&self, now: Timestamp) -> Vec<Attack> {
        let now = now.seconds();
        let fraction: Value = serde_json::from_str(&format!("{}.5", now + 60)).unwrap();
        let times = [
            ("expired this second", json!({"iat": now - 60, "exp": now})),
            ("expired an hour ago", json!({"iat": now - 3660, "exp": now - 3600})),
            ("no exp", json!({"exp": null})),
            ("exp as text", json!({"exp": format!("{}", now + 60)})),
            ("exp with a fraction", json!({"exp": fraction})),
            ("exp of 1e18", json!({"exp": 1e18})),
            ("exp before iat", json!({"iat": now + 9, "exp": now + 5})),
            ("a life of a hundred hours", json!({"exp": now + 360_000})),
            ("iat of tomorrow", json!({"iat": now + 86_400, "exp": now + 86_460})),
            ("nbf of tomorrow", json!({"nbf": now + 86_400})),
            ("nbf as text", json!({"nbf": "0"})),
        ];
        times.into_iter().map(|(what, changes)| (what.to_owned(), self.with_claims(changes))).collect()
    }

    /// RFC 8725 §3.8 and 3.9: issuers and audiences that are nearly the right ones.
    fn names(&self) -> Vec<Attack> {
        let audience = self.good.claims["aud"].as_str().unwrap();
        let issuer = self.good.claims["iss"].as_str().unwrap();
        let names = [
            ("iss of another", json!({"iss": "https://issuer.example"})),
            ("iss with a slash", json!({"iss": format!("{issuer}/")})),
            ("iss in upper case", json!({"iss": issuer.to_uppercase()})),
            ("iss as a list with ours", json!({"iss": ["https://issuer.example", issuer]})),
            ("aud of another", json!({"aud": "https://other.example"})),
            ("aud with a slash", json!({"aud": format!("{audience}/")})),
            ("aud as a list with ours", json!({"aud": [audience, "https://other.example"]})),
            ("aud as a list of ours", json!({"aud": [audience]})),
            ("aud as an object", json!({"aud": {audience: true}})),
            ("aud of a prefix", json!({"aud": audience[..audience.len() - 1]})),
            ("no aud", json!({"aud": null})),
            ("no sub", json!({"sub": null})),
            ("no jti", json!({"jti": null})),
        ];
        names.into_iter().map(|(what, changes)| (what.to_owned(), self.with_claims(changes))).collect()
    }

    /// Texts that one parser reads and another does not.
    fn texts(&self) -> Vec<Attack> {
        let (header, claims) = (self.header(json!({})), self.claims(json!({})));
        let sign = |header: &str, claims: &str| self.issuer.sign_texts(header, claims);
        let genuine = self.genuine();
        let parts: Vec<&str> = genuine.split('.').collect();
        let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
        let first = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
        let utf16: Vec<u8> = claims.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let latin = claims
            .replacen("acme-backend", "acme\u{e9}", 1)
            .chars()
            .map(|c| u8::try_from(c).unwrap())
            .collect::<Vec<_>>();
        let named = |what: &str, token: String| (what.to_owned(), token);
        vec![
            named("a claim twice", sign(&header, &first(&claims, r#""sub":"somebody""#))),
            named("a claim twice, spelt with an escape", sign(&header, &first(&claims, r#""s\u0075b":"somebody""#))),
            named("a claim twice, within another", sign(&header, &first(&claims, r#""x":{"a":1,"a":2}"#))),
            named("alg twice", sign(&first(&header, r#""alg":"none""#), &claims)),
            named("kid twice", sign(&first(&header, r#""kid":"nobody""#), &claims)),
            named("a byte-order mark", sign(&header, &format!("\u{feff}{claims}"))),
            named("claims in UTF-16", self.issuer.sign_bytes(header.as_bytes(), &utf16)),
            named("claims that are no UTF-8", self.issuer.sign_bytes(header.as_bytes(), &latin)),
            named("claims with a tail", sign(&header, &format!("{claims} {{}}"))),
            named("claims that are a list", sign(&header, &format!("[{claims}]"))),
            named("claims that are a text", sign(&header, &json!(claims).to_string())),
            named("claims that are empty", sign(&header, "")),
            named("claims of fifty levels", sign(&header, &first(&claims, &format!(r#""x":{}"#, &deep[1950..2050])))),
            named("a depth bomb in the claims", sign(&header, &first(&claims, &format!(r#""x":{deep}"#)))),
            named("a depth bomb in the header", sign(&first(&header, &format!(r#""x":{deep}"#)), &claims)),
            named(
                "a token of one megabyte",
                sign(&header, &first(&claims, &format!(r#""x":"{}""#, "a".repeat(1 << 20)))),
            ),
            named("a text of one megabyte", "a".repeat(1 << 20)),
            named("a megabyte of dots", ".".repeat(1 << 20)),
            named("a space before it", format!(" {genuine}")),
            named("a newline after it", format!("{genuine}\n")),
            named("a newline within it", format!("{}.\n{}.{}", parts[0], parts[1], parts[2])),
            named("padding", format!("{genuine}=")),
            named("the alphabet of base64", format!("{}.{}.{}", parts[0], parts[1], respelt(parts[2]))),
            named("two parts", format!("{}.{}", parts[0], parts[1])),
            named("four parts", format!("{genuine}.{}", parts[2])),
            named("an empty part before it", format!(".{genuine}")),
            named("three empty parts", "..".to_owned()),
            named("a comma and itself", format!("{genuine},{genuine}")),
            named("a letter that is no ASCII", format!("{}.{}é.{}", parts[0], parts[1], parts[2])),
        ]
    }

    /// RFC 8725 §3.3 and 3.12: other serialisations, nested and encrypted tokens.
    fn other_formats(&self) -> Vec<Attack> {
        let genuine = self.genuine();
        let parts: Vec<&str> = genuine.split('.').collect();
        let (header, payload, signature) = (parts[0], parts[1], parts[2]);
        let named = |what: &str, token: String| (what.to_owned(), token);
        vec![
            named("flattened JSON", json!({"protected":header,"payload":payload,"signature":signature}).to_string()),
            named("general JSON", json!({"payload":payload,"signatures":[{"protected":header,"signature":signature}]}).to_string()),
            named(
                "general JSON with a second signature",
                json!({"payload":payload,"signatures":[{"protected":header,"signature":"AA"},{"protected":header,"signature":signature}]})
                    .to_string(),
            ),
            named("a token within a token", self.issuer.sign_texts(&self.header(json!({"cty": "JWT"})), &genuine)),
            named("a token within a token that does not say so", self.issuer.sign_texts(&self.header(json!({})), &genuine)),
            named(
                "an encrypted token",
                format!("{}.AA.AA.{payload}.AA", base64url(json!({"alg":"RSA-OAEP","enc":"A256GCM","kid":self.issuer.kid()}).to_string().as_bytes())),
            ),
            named("a directly encrypted token", format!("{}..AA.{payload}.AA", base64url(br#"{"alg":"dir","enc":"A256GCM"}"#))),
        ]
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// The members with changes; a change to `null` removes one.
fn changed(members: &Map<String, Value>, changes: Value) -> String {
    let mut members = members.clone();
    for (name, value) in object(changes) {
        if value.is_null() {
            members.remove(&name);
        } else {
            members.insert(name, value);
        }
    }
    Value::Object(members).to_string()
}

fn joined(header: &str, claims: &str) -> String {
    format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()))
}

fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    let encoded = base64url(der).replace('-', "+").replace('_', "/");
    let padded = format!("{encoded}{}", "=".repeat((4 - encoded.len() % 4) % 4));
    for line in padded.as_bytes().chunks(64) {
        let _ = writeln!(text, "{}", std::str::from_utf8(line).unwrap());
    }
    text + "-----END PUBLIC KEY-----\n"
}

/// The first byte of a signature in the alphabet of base64, where it has one of its own.
fn respelt(signature: &str) -> String {
    format!("+/{}", &signature[2..])
}

/// An ECDSA signature as X.509 writes it.
fn der_signature(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(31)..];
        let sign: &[u8] = if bytes[0] >= 0x80 { &[0] } else { &[] };
        let length = u8::try_from(sign.len() + bytes.len()).unwrap();
        [&[2, length], sign, bytes].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}
