//! What the assertions of each kind of issuer must be, as data.

use crate::issuer::IssuerKind;
use crate::jwks::{Algorithm, Usage};

/// The scheme of a SPIFFE ID.
pub(crate) const SPIFFE: &str = "spiffe://";
/// What the subject of a Kubernetes service account begins with.
pub(crate) const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The rules of one kind of issuer. Times are seconds.
pub(crate) struct Terms {
    /// What it signs with.
    pub(crate) algorithms: &'static [Algorithm],
    /// What its keys are for.
    pub(crate) usage: Usage,
    /// `typ`
    pub(crate) types: &'static [Option<&'static str>],
    /// Header parameters that are otherwise refused.
    pub(crate) tolerated: &'static [&'static str],
    /// The dates that must be there besides `exp`.
    pub(crate) dates: &'static [&'static str],
    /// The longest life, from `iat`, or from now where `iat` need not be there.
    pub(crate) longest: i64,
    /// How long after `iat` it is taken at most, whatever its `exp` says.
    pub(crate) oldest: i64,
    /// Whether it counts once; it then has a `jti`.
    pub(crate) single_use: bool,
    /// The claims that a rule must pin.
    pub(crate) required: &'static [Selector],
    /// The claims that a rule may pin.
    pub(crate) optional: &'static [Selector],
    /// Of these optional ones a rule must pin one.
    pub(crate) one_of: &'static [&'static str],
}

/// A claim by which a workload is told from others.
pub(crate) struct Selector {
    /// Its name in rules.
    pub(crate) name: &'static str,
    /// Whether a text can be its value.
    pub(crate) fits: fn(&str) -> bool,
}

const fn selector(name: &'static str, fits: fn(&str) -> bool) -> Selector {
    Selector { name, fits }
}

/// The kinds whose assertions authenticate a client.
pub(crate) const WORKLOADS: [IssuerKind; 4] =
    [IssuerKind::AwsSts, IssuerKind::GithubActions, IssuerKind::Kubernetes, IssuerKind::Spiffe];

impl IssuerKind {
    /// The rules of a workload's issuer; none for any other.
    pub(crate) fn terms(self) -> Option<&'static Terms> {
        match self {
            Self::AwsSts => Some(&AWS_STS),
            Self::GithubActions => Some(&GITHUB_ACTIONS),
            Self::Kubernetes => Some(&KUBERNETES),
            Self::Spiffe => Some(&SPIFFE_SVID),
            Self::CloudflareAccess | Self::CloudflareAccessManaged | Self::Generic => None,
        }
    }
}

/// IAM User Guide, "Understanding token claims". The service gives up to an hour; whoever calls it asks for 300 s.
static AWS_STS: Terms = Terms {
    algorithms: &[Algorithm::Es384, Algorithm::Rs256],
    usage: Usage::Signature,
    types: &[None, Some("JWT")],
    tolerated: &[],
    dates: &["iat"],
    longest: 300,
    oldest: 300,
    single_use: true,
    required: &[selector("role_arn", is_role_arn)],
    optional: &[
        selector("org_id", is_organization),
        selector("source_region", is_region),
        selector("lambda_source_function_arn", is_function_arn),
    ],
    one_of: &[],
};

/// GitHub documentation, "OpenID Connect reference". Tokens of five minutes and of six hours have both been seen, so that what
/// counts is how long ago it was issued. Their header has an `x5t`. Names can be given to somebody else, numbers cannot.
static GITHUB_ACTIONS: Terms = Terms {
    algorithms: &[Algorithm::Rs256],
    usage: Usage::Signature,
    types: &[Some("JWT")],
    tolerated: &["x5t"],
    dates: &["iat", "nbf"],
    longest: 6 * 3_600,
    oldest: 900,
    single_use: true,
    required: &[selector("repository_id", is_number), selector("repository_owner_id", is_number)],
    optional: &[
        selector("ref", is_reference),
        selector("environment", is_environment),
        selector("job_workflow_ref", is_workflow),
    ],
    one_of: &["ref", "environment"],
};

/// Kubernetes documentation, "Managing Service Accounts". The kubelet hands the same token out until it renews it, so that it
/// cannot count once; tokens that the API server extends to a year are refused by their life.
static KUBERNETES: Terms = Terms {
    algorithms: &crate::issuer::ALGORITHMS,
    usage: Usage::Signature,
    types: &[None],
    tolerated: &[],
    dates: &["iat", "nbf"],
    longest: 3_607,
    oldest: 3_607,
    single_use: false,
    required: &[selector("namespace", is_label), selector("service_account", is_subdomain)],
    optional: &[selector("service_account_uid", is_uid)],
    one_of: &[],
};

/// SPIFFE standards, "The JWT SPIFFE Verifiable Identity Document".
static SPIFFE_SVID: Terms = Terms {
    algorithms: &[Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::Es384],
    usage: Usage::JwtSvid,
    types: &[None, Some("JWT"), Some("JOSE")],
    tolerated: &[],
    dates: &[],
    longest: 3_600,
    oldest: i64::MAX,
    single_use: false,
    required: &[selector("spiffe_id", is_spiffe_id)],
    optional: &[],
    one_of: &[],
};

/// The account that a role's ARN names, and nothing for any other text: sessions, users and patterns are no roles.
pub(crate) fn account_of_role(arn: &str) -> Option<&str> {
    let (account, resource) = split_arn(arn, "iam")?;
    let name = resource.strip_prefix("role/")?;
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_/-".contains(&b);
    (arn.len() <= 640 && name.split('/').all(|part| !part.is_empty()) && name.bytes().all(letter)).then_some(account)
}

/// Account and resource of a global (`iam`) or regional (`lambda`) ARN.
fn split_arn<'a>(arn: &'a str, service: &str) -> Option<(&'a str, &'a str)> {
    let mut parts = arn.splitn(6, ':');
    let mut next = || parts.next();
    let (scheme, partition, named, region) = (next()?, next()?, next()?, next()?);
    let (account, resource) = (next()?, next()?);
    let partition = matches!(partition, "aws" | "aws-cn" | "aws-us-gov" | "aws-eusc");
    let region = if service == "iam" { region.is_empty() } else { is_region(region) };
    let twelve = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    (scheme == "arn" && partition && named == service && region && twelve).then_some((account, resource))
}

fn is_role_arn(text: &str) -> bool {
    account_of_role(text).is_some()
}

fn is_function_arn(text: &str) -> bool {
    let name = split_arn(text, "lambda").and_then(|(_, resource)| resource.strip_prefix("function:"));
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.is_some_and(|name| (1..=64).contains(&name.len()) && name.bytes().all(letter))
}

fn is_organization(text: &str) -> bool {
    let id = text.strip_prefix("o-").unwrap_or_default();
    (10..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn is_region(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(letter)
}

fn is_number(text: &str) -> bool {
    (1..=20).contains(&text.len()) && !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit())
}

/// A full git reference: what git itself refuses in one, wildcards among it, is refused.
fn is_reference(text: &str) -> bool {
    let letter = |b: u8| (0x21..=0x7e).contains(&b) && !b"*?[\\~^:".contains(&b);
    text.len() <= 255 && text.starts_with("refs/") && !text.ends_with('/') && text.bytes().all(letter)
}

fn is_environment(text: &str) -> bool {
    let letter = |c: char| !c.is_control() && !matches!(c, '*' | '?');
    (1..=255).contains(&text.len()) && text.trim() == text && text.chars().all(letter)
}

/// `owner/repository/.github/workflows/file@refs/…`, or a commit after the `@`.
fn is_workflow(text: &str) -> bool {
    let Some((path, version)) = text.split_once('@') else { return false };
    let letter = |b: u8| (0x21..=0x7e).contains(&b) && !b"*?".contains(&b);
    let commit = version.len() == 40 && version.bytes().all(|b| b.is_ascii_hexdigit());
    text.len() <= 512
        && path.contains("/.github/workflows/")
        && path.bytes().all(letter)
        && (commit || is_reference(version))
}

/// A label of RFC 1123 §2.1.
fn is_label(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(letter) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A SPIFFE trust domain: lower case, no port, no user.
pub(crate) fn is_spiffe_domain(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=246).contains(&text.len()) && text.bytes().all(letter)
}

/// The trust domain of a SPIFFE ID, with its scheme.
pub(crate) fn domain_of(id: &str) -> Option<&str> {
    let rest = id.strip_prefix(SPIFFE)?;
    let domain = rest.split_once('/').map_or(rest, |(domain, _)| domain);
    id.get(..SPIFFE.len() + domain.len()).filter(|_| is_spiffe_domain(domain))
}

/// The ID of a workload: a trust domain and a path without empty or dot segments.
pub(crate) fn is_spiffe_id(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let segment = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(letter);
    let path = domain_of(text).and_then(|domain| text.strip_prefix(domain)?.strip_prefix('/'));
    text.len() <= 2_048 && path.is_some_and(|path| path.split('/').all(segment))
}

#[cfg(test)]
mod tests;
