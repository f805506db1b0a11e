//! Issuers whose assertions may be believed, as `trust/profiles.json` lists them. Who they are is an operator's decision; their
//! keys are mirrored under `trust/issuers/`.

use serde_json::{Value, json};

use crate::federation::{is_spiffe_domain, terms::SPIFFE};
use crate::jwks::{Algorithm, Usage};
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
    /// The same, of an application that lets people in on managed devices alone.
    CloudflareAccessManaged,
    /// AWS STS `GetWebIdentityToken`: a role of one AWS account.
    AwsSts,
    /// GitHub Actions: a job of a workflow.
    GithubActions,
    /// A Kubernetes cluster: a service account, by its projected token.
    Kubernetes,
    /// A SPIFFE trust domain: a workload, by its JWT-SVID.
    Spiffe,
    /// Any other issuer of JWTs. Its keys are mirrored; nothing here believes what it says.
    Generic,
}

const KINDS: [(&str, IssuerKind); 7] = [
    ("cloudflare-access", IssuerKind::CloudflareAccess),
    ("cloudflare-access-managed", IssuerKind::CloudflareAccessManaged),
    ("aws-sts", IssuerKind::AwsSts),
    ("github-actions", IssuerKind::GithubActions),
    ("kubernetes", IssuerKind::Kubernetes),
    ("spiffe", IssuerKind::Spiffe),
    ("generic", IssuerKind::Generic),
];

impl IssuerKind {
    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// The name in rows, objects and operations.
    pub fn as_str(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| *name)
    }

    /// Whether it is an application of Cloudflare Access.
    pub fn is_access(self) -> bool {
        matches!(self, Self::CloudflareAccess | Self::CloudflareAccessManaged)
    }

    /// Whether its assertions are a workload's, which are for us and for nobody else.
    pub fn is_workload(self) -> bool {
        self.terms().is_some()
    }

    /// What its keys must say that they are for.
    pub fn usage(self) -> Usage {
        self.terms().map_or(Usage::Signature, |terms| terms.usage)
    }

    /// What a profile of this kind may let it sign with.
    fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::CloudflareAccess | Self::CloudflareAccessManaged => &[Algorithm::Rs256],
            _ => self.terms().map_or(&ALGORITHMS, |terms| terms.algorithms),
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
    /// `issuer` is no https URL without query; for SPIFFE, not `spiffe://` and a trust domain.
    Issuer,
    /// `audience` is not printable, not 64 hexadecimal digits for Cloudflare Access, or given for a workload's issuer.
    Audience,
    /// `algorithms` is empty, unknown, repeated, or holds one that the kind does not have.
    Algorithms,
    /// `jwks_url` is no https URL.
    JwksUrl,
}

impl Profile {
    /// Checks the members against each other. An Access application's audience is its 64-digit tag. A workload's assertions are
    /// for our own issuer URL and nobody can say otherwise: its `audience` is empty.
    pub fn new(
        id: IssuerId,
        kind: IssuerKind,
        issuer: &str,
        audience: &str,
        algorithms: &[String],
        jwks_url: &str,
    ) -> Result<Self, Fault> {
        let names_issuer = match kind {
            IssuerKind::Spiffe => issuer.strip_prefix(SPIFFE).is_some_and(is_spiffe_domain),
            _ => HttpsUrl::parse(issuer).is_ok_and(|url| !url.has_query()),
        };
        if !names_issuer || issuer.len() > 255 {
            return Err(Fault::Issuer);
        }
        let printable = (1..=255).contains(&audience.len()) && audience.bytes().all(|b| (0x21..=0x7e).contains(&b));
        let tag = audience.len() == 64 && audience.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let names_audience = match kind {
            IssuerKind::CloudflareAccess | IssuerKind::CloudflareAccessManaged => tag,
            IssuerKind::Generic => printable,
            _ => audience.is_empty(),
        };
        if !names_audience {
            return Err(Fault::Audience);
        }
        let mut known: Vec<Algorithm> = Vec::new();
        for name in algorithms {
            match Algorithm::parse(name) {
                Some(algorithm) if !known.contains(&algorithm) && kind.algorithms().contains(&algorithm) => {
                    known.push(algorithm);
                }
                _ => return Err(Fault::Algorithms),
            }
        }
        if known.is_empty() {
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

    /// `iss`, compared byte by byte; for SPIFFE the trust domain with its scheme, which every subject begins with.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The one audience its assertions must be for; empty for a workload's issuer, whose assertions are for our own issuer URL.
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
        let mut entry = json!({ "id": self.id.as_str(), "kind": self.kind.as_str(), "issuer": self.issuer,
            "algorithms": algorithms, "jwks_url": self.jwks_url.as_str() });
        if let (false, Some(members)) = (self.audience.is_empty(), entry.as_object_mut()) {
            members.insert("audience".to_owned(), json!(self.audience));
        }
        entry
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
        let audience = if members.contains_key("audience") { text("audience")? } else { "" };
        if audience.is_empty() && members.contains_key("audience") {
            return Err(BAD);
        }
        Self::new(id, kind, text("issuer")?, audience, &algorithms, text("jwks_url")?).map_err(|_| BAD)
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

    /// The issuer of workloads with this `iss` or SPIFFE trust domain, byte by byte.
    pub fn of_workload(&self, issuer: &str) -> Option<&Profile> {
        self.foreign.iter().find(|profile| profile.kind.is_workload() && profile.issuer == issuer)
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
        let mut workloads: Vec<&str> =
            foreign.iter().filter(|profile| profile.kind.is_workload()).map(Profile::issuer).collect();
        let of_workloads = workloads.len();
        workloads.sort_unstable();
        workloads.dedup();
        // Two entries of one name would take turns writing one object; two of one workloads' issuer would take turns reading it.
        let unique = ids.len() == foreign.len() && workloads.len() == of_workloads;
        if unique { Ok(Self { foreign }) } else { Err(BAD) }
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

    fn generic() -> Value {
        with(access(), "kind", json!("generic"))
    }

    fn sts() -> Value {
        json!({ "id": "sts", "kind": "aws-sts", "issuer": "https://x.tokens.sts.global.api.aws",
            "algorithms": ["ES384", "RS256"], "jwks_url": "https://x.tokens.sts.global.api.aws/.well-known/jwks.json" })
    }

    fn spiffe() -> Value {
        json!({ "id": "mesh", "kind": "spiffe", "issuer": "spiffe://prod.example", "algorithms": ["ES256"],
            "jwks_url": "https://bundle.prod.example/" })
    }

    fn with(mut entry: Value, member: &str, value: Value) -> Value {
        entry[member] = value;
        entry
    }

    #[test]
    fn a_profile_prints_as_it_was_read() {
        let generic = json!({ "id": "sts", "kind": "generic", "issuer": "https://x.tokens.sts.global.api.aws",
            "audience": "https://gate.example", "algorithms": ["ES384", "RS256"], "jwks_url": "https://x.example/keys?p=1" });
        for entry in [access(), generic, sts(), spiffe()] {
            assert_eq!(Profile::parse(&entry).unwrap().to_value(), entry);
        }
    }

    #[test]
    fn a_workload_is_found_by_the_issuer_of_a_workloads_profile() {
        let issuer = "https://x.tokens.sts.global.api.aws";
        let generic = with(with(sts(), "id", json!("other")), "kind", json!("generic"));
        let profiles = json!({ "profiles": [with(generic, "audience", json!("a")), access(), sts(), spiffe()] });
        let profiles = Profiles::parse(&profiles).unwrap();
        assert_eq!(profiles.of_workload(issuer).map(|profile| profile.id().as_str()), Some("sts"));
        assert_eq!(profiles.of_workload("spiffe://prod.example").map(Profile::kind), Some(IssuerKind::Spiffe));
        for other in ["https://team.cloudflareaccess.com", &format!("{issuer}/"), "spiffe://prod.example.evil", ""] {
            assert!(profiles.of_workload(other).is_none(), "{other}");
        }
    }

    #[test]
    fn one_wrong_profile_refuses_the_object() {
        let own = json!({ "id": "own", "issuer": "https://gate.example", "audience": "a", "algorithms": ["RS256"] });
        let together = json!({ "profiles": [with(access(), "id", json!("first")), access(), with(generic(), "id", json!("other")), sts(), spiffe()] });
        assert_eq!(Profiles::parse(&together).unwrap().foreign().len(), 5, "what is changed below");
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
            ("none", with(generic(), "algorithms", json!(["none"]))),
            ("HS256", with(generic(), "algorithms", json!(["HS256"]))),
            ("twice", with(generic(), "algorithms", json!(["EdDSA", "Ed25519"]))),
            ("keys over http", with(access(), "jwks_url", json!("http://team.cloudflareaccess.com/certs"))),
            ("keys at an address", with(access(), "jwks_url", json!("https://169.254.169.254/certs"))),
            ("the same id again", with(generic(), "id", json!("first"))),
            ("an audience that is empty", with(generic(), "audience", json!(""))),
            (
                "another algorithm than GitHub's",
                with(with(sts(), "kind", json!("github-actions")), "algorithms", json!(["ES384"])),
            ),
            ("an algorithm STS does not have", with(sts(), "algorithms", json!(["ES256"]))),
            ("a workload for somebody else", with(sts(), "audience", json!("https://other.example"))),
            ("a workload for nobody", with(sts(), "audience", json!(""))),
            ("a trust domain by its issuer", with(spiffe(), "issuer", json!("https://prod.example"))),
            ("a trust domain with a path", with(spiffe(), "issuer", json!("spiffe://prod.example/ns"))),
            ("a trust domain in capitals", with(spiffe(), "issuer", json!("spiffe://Prod.example"))),
            ("no trust domain", with(spiffe(), "issuer", json!("spiffe://"))),
            ("an algorithm SPIFFE does not have", with(spiffe(), "algorithms", json!(["EdDSA"]))),
        ] {
            assert!(
                Profiles::parse(&json!({ "profiles": [with(access(), "id", json!("first")), entry] })).is_err(),
                "{what}"
            );
        }
        let twice =
            json!({ "profiles": [sts(), with(with(sts(), "id", json!("sts-2")), "kind", json!("kubernetes"))] });
        for body in [json!([]), json!({}), json!({ "profiles": {} }), twice] {
            assert!(Profiles::parse(&body).is_err(), "{body}");
        }
    }
}
