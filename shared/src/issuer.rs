//! Issuers whose assertions may be believed, as `trust/profiles.json` lists them. Who they are is an operator's decision; their
//! keys are mirrored under `trust/issuers/`.

use serde_json::{Value, json};

use crate::jwks::Algorithm;
use crate::name::{IssuerId, Malformed};
use crate::trust::TrustObject;
use crate::url::HttpsUrl;

/// What a foreign issuer may sign with.
pub const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];

/// Whose claims an issuer's assertions carry, and so how a verifier reads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IssuerKind {
    /// Cloudflare Access: user or service assertions of one application.
    CloudflareAccess,
    /// Any other issuer of JWTs.
    Generic,
}

impl IssuerKind {
    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "cloudflare-access" => Some(Self::CloudflareAccess),
            "generic" => Some(Self::Generic),
            _ => None,
        }
    }

    /// The name in rows, objects and operations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloudflareAccess => "cloudflare-access",
            Self::Generic => "generic",
        }
    }
}

/// One foreign issuer. There is no way to hold one that breaks its kind's rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    id: IssuerId,
    kind: IssuerKind,
    issuer: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    jwks_url: HttpsUrl,
}

/// Which member of a profile is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `issuer` is no https URL without query.
    Issuer,
    /// `audience` is not printable, or not 64 hexadecimal digits for Cloudflare Access.
    Audience,
    /// `algorithms` is empty, unknown, repeated, or not `RS256` alone for Cloudflare Access.
    Algorithms,
    /// `jwks_url` is no https URL.
    JwksUrl,
}

impl Profile {
    /// Checks the members against each other. An Access application's audience is its 64-digit tag, and Access signs with RS256.
    pub fn new(
        id: IssuerId,
        kind: IssuerKind,
        issuer: &str,
        audience: &str,
        algorithms: &[String],
        jwks_url: &str,
    ) -> Result<Self, Fault> {
        HttpsUrl::parse(issuer).ok().filter(|url| !url.has_query() && issuer.len() <= 255).ok_or(Fault::Issuer)?;
        let printable = (1..=255).contains(&audience.len()) && audience.bytes().all(|b| (0x21..=0x7e).contains(&b));
        let tag = audience.len() == 64 && audience.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !printable || kind == IssuerKind::CloudflareAccess && !tag {
            return Err(Fault::Audience);
        }
        let mut known: Vec<Algorithm> = Vec::new();
        for name in algorithms {
            match Algorithm::parse(name) {
                Some(algorithm) if !known.contains(&algorithm) && ALGORITHMS.contains(&algorithm) => {
                    known.push(algorithm);
                }
                _ => return Err(Fault::Algorithms),
            }
        }
        if known.is_empty() || kind == IssuerKind::CloudflareAccess && known != [Algorithm::Rs256] {
            return Err(Fault::Algorithms);
        }
        let jwks_url = HttpsUrl::parse(jwks_url).map_err(|_| Fault::JwksUrl)?;
        Ok(Self { id, kind, issuer: issuer.to_owned(), audience: audience.to_owned(), algorithms: known, jwks_url })
    }

    /// Its short name.
    pub fn id(&self) -> &IssuerId {
        &self.id
    }

    /// How its claims are read.
    pub fn kind(&self) -> IssuerKind {
        self.kind
    }

    /// `iss`, compared byte by byte.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The one audience its assertions must be for.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// What it may sign with.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// Where its keys are published.
    pub fn jwks_url(&self) -> &HttpsUrl {
        &self.jwks_url
    }

    /// As it stands in `trust/profiles.json`.
    pub fn to_value(&self) -> Value {
        let algorithms: Vec<&str> = self.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        json!({ "id": self.id.as_str(), "kind": self.kind.as_str(), "issuer": self.issuer, "audience": self.audience,
            "algorithms": algorithms, "jwks_url": self.jwks_url.as_str() })
    }

    /// Reads one entry; a member that nobody knows is refused, because it may narrow what the others allow.
    pub fn parse(entry: &Value) -> Result<Self, Malformed> {
        const MEMBERS: [&str; 6] = ["id", "kind", "issuer", "audience", "algorithms", "jwks_url"];
        let members = entry.as_object().ok_or(BAD)?;
        if members.keys().any(|name| !MEMBERS.contains(&name.as_str())) {
            return Err(BAD);
        }
        let text = |name: &str| entry.get(name).and_then(Value::as_str).ok_or(BAD);
        let listed = entry.get("algorithms").and_then(Value::as_array).ok_or(BAD)?;
        let algorithms: Option<Vec<String>> = listed.iter().map(|name| name.as_str().map(str::to_owned)).collect();
        let id = IssuerId::parse(text("id")?)?;
        let kind = IssuerKind::parse(text("kind")?).ok_or(BAD)?;
        let algorithms = algorithms.ok_or(BAD)?;
        Self::new(id, kind, text("issuer")?, text("audience")?, &algorithms, text("jwks_url")?).map_err(|_| BAD)
    }
}

const BAD: Malformed = Malformed("issuer profile");

/// `trust/profiles.json`: our own profile, under the id `own`, and the foreign issuers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profiles {
    foreign: Vec<Profile>,
}

impl Profiles {
    /// The foreign issuers, in the order of the object.
    pub fn foreign(&self) -> &[Profile] {
        &self.foreign
    }
}

impl TrustObject for Profiles {
    const KEY: &'static str = "trust/profiles.json";
    const FRESH: i64 = 60_000;
    const LAST_GOOD: i64 = 24 * 3_600 * 1_000;

    fn parse(body: &Value) -> Result<Self, Malformed> {
        let listed = body.get("profiles").and_then(Value::as_array).ok_or(BAD)?;
        let is_own = |entry: &&Value| entry.get("id").and_then(Value::as_str) == Some("own");
        let foreign: Vec<Profile> =
            listed.iter().filter(|entry| !is_own(entry)).map(Profile::parse).collect::<Result<_, _>>()?;
        let mut ids: Vec<&str> = foreign.iter().map(|profile| profile.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        // Two entries of one name would take turns writing one object.
        if ids.len() == foreign.len() { Ok(Self { foreign }) } else { Err(BAD) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Value {
        json!({ "id": "access", "kind": "cloudflare-access", "issuer": "https://team.cloudflareaccess.com",
            "audience": "0123456789abcdef".repeat(4), "algorithms": ["RS256"],
            "jwks_url": "https://team.cloudflareaccess.com/cdn-cgi/access/certs" })
    }

    fn with(mut entry: Value, member: &str, value: Value) -> Value {
        entry[member] = value;
        entry
    }

    #[test]
    fn a_profile_prints_as_it_was_read() {
        let generic = json!({ "id": "sts", "kind": "generic", "issuer": "https://x.tokens.sts.global.api.aws",
            "audience": "https://gate.example", "algorithms": ["ES384", "RS256"], "jwks_url": "https://x.example/keys?p=1" });
        for entry in [access(), generic] {
            assert_eq!(Profile::parse(&entry).unwrap().to_value(), entry);
        }
    }

    #[test]
    fn one_wrong_profile_refuses_the_object() {
        let own = json!({ "id": "own", "issuer": "https://gate.example", "audience": "a", "algorithms": ["RS256"] });
        let good = json!({ "profiles": [own, access()] });
        assert_eq!(Profiles::parse(&good).unwrap().foreign().len(), 1);
        for (what, entry) in [
            ("not an object", json!("x")),
            ("an unknown member", with(access(), "ca", json!("x"))),
            ("an id with a slash", with(access(), "id", json!("a/../keys"))),
            ("no id", with(access(), "id", json!(null))),
            ("an unknown kind", with(access(), "kind", json!("any"))),
            ("an issuer over http", with(access(), "issuer", json!("http://team.cloudflareaccess.com"))),
            ("an issuer with a query", with(access(), "issuer", json!("https://team.cloudflareaccess.com/?x"))),
            ("a short tag", with(access(), "audience", json!("abc"))),
            ("a tag in capitals", with(access(), "audience", json!("A".repeat(64)))),
            ("audiences", with(access(), "audience", json!(["0".repeat(64)]))),
            ("no algorithm", with(access(), "algorithms", json!([]))),
            ("an algorithm Access does not use", with(access(), "algorithms", json!(["RS256", "ES256"]))),
            ("none", with(with(access(), "kind", json!("generic")), "algorithms", json!(["none"]))),
            ("HS256", with(with(access(), "kind", json!("generic")), "algorithms", json!(["HS256"]))),
            ("twice", with(with(access(), "kind", json!("generic")), "algorithms", json!(["EdDSA", "Ed25519"]))),
            ("keys over http", with(access(), "jwks_url", json!("http://team.cloudflareaccess.com/certs"))),
            ("keys at an address", with(access(), "jwks_url", json!("https://169.254.169.254/certs"))),
            ("the same id again", access()),
        ] {
            assert!(Profiles::parse(&json!({ "profiles": [access(), entry] })).is_err(), "{what}");
        }
        for body in [json!([]), json!({}), json!({ "profiles": {} })] {
            assert!(Profiles::parse(&body).is_err(), "{body}");
        }
    }
}
