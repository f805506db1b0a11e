//! Everything that a deployment needs, asked before anything starts, and told at once.

use std::collections::BTreeSet;
use std::io;

use serde_json::Value;

use crate::artifact::{Artifact, Unusable};
use crate::aws::{self, Aws};
use crate::imports;
use crate::layout;
use crate::plan::{self, Step};
use crate::render::{self, Rendered};
use crate::settings::{NAMES, Settings};
use crate::stacks::Stacks;
use crate::world::{Call, World};

/// A zip larger than this is more than the house wants (Lambda takes 50 MB).
const LARGE: u64 = 6 * 1024 * 1024;
/// Concurrent executions below which nothing can be reserved and a burst is throttled.
const FEW: u64 = 100;
/// What the account's setting of API Gateway is called in the report.
const LOG_ROLE: &str = "API Gateway's log role";

/// What is known of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there.
    Here,
    /// It is not, and nothing can start.
    Missing,
    /// It could not be asked, because of something else that is missing.
    Unasked,
    /// It is there, with something to know.
    Note,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The thing.
    pub what: String,
    /// What is known of it.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// How to get it.
    pub remedy: String,
}

pub(crate) fn finding(what: &str, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { what: what.to_owned(), verdict, found: found.into(), remedy: remedy.into() }
}

pub(crate) fn here(what: &str, found: impl Into<String>) -> Finding {
    finding(what, Verdict::Here, found, "")
}

/// Looks at everything. Whether anything is missing says [`is_ready`].
pub fn look(world: World<'_>, settings: &Settings, region: Option<String>) -> Vec<Finding> {
    let mut findings = vec![aws_cli(world), cargo_lambda(world)];
    findings.extend(named(settings));
    let rendered = match render::all(&world.path("infra/aws")) {
        Ok(rendered) => {
            findings.push(here("templates", format!("{} stacks", rendered.len())));
            rendered
        }
        Err(faults) => {
            findings.push(finding(
                "templates",
                Verdict::Missing,
                faults.join("; "),
                "mend infra/aws, or take a checkout that is whole",
            ));
            Vec::new()
        }
    };
    findings.extend(parameters(settings, &rendered));
    findings.extend(programs(world, settings, &rendered));
    findings.extend(account(world, settings, region));
    findings
}

/// Whether a deployment can start.
pub fn is_ready(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| !matches!(finding.verdict, Verdict::Missing | Verdict::Unasked))
}

/// Prints the findings; what is there takes one word a thing, what is not says how to get it.
pub fn show(world: World<'_>, findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Here => "ok      ",
            Verdict::Missing => "MISSING ",
            Verdict::Unasked => "unasked ",
            Verdict::Note => "note    ",
        };
        let remedy =
            if finding.remedy.is_empty() { String::new() } else { format!("\n          -> {}", finding.remedy) };
        world.say(format!("{mark}  {:<22} {}{remedy}", finding.what, finding.found));
    }
    let missing = findings.iter().filter(|finding| finding.verdict == Verdict::Missing).count();
    let unasked = findings.iter().filter(|finding| finding.verdict == Verdict::Unasked).count();
    if missing + unasked == 0 {
        world.say("everything is there");
    } else {
        world.say(format!("{missing} missing, {unasked} could not be asked; nothing was started"));
    }
}

fn aws_cli(world: World<'_>) -> Finding {
    let remedy =
        "https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html, or: pip install awscli";
    match world.programs.run(&Call::new("aws", ["--version"])) {
        Ok(answer) => {
            let line = format!("{}{}", answer.stdout, answer.stderr);
            match aws::version(&line) {
                Some((major, minor)) if major == 2 || (major == 1 && minor >= 36) => {
                    here("aws", format!("{major}.{minor}"))
                }
                Some((major, minor)) => finding("aws", Verdict::Missing, format!("{major}.{minor} is too old"), remedy),
                None => finding("aws", Verdict::Missing, "it does not say its version", remedy),
            }
        }
        Err(error) => finding("aws", Verdict::Missing, not_started(&error), remedy),
    }
}

fn cargo_lambda(world: World<'_>) -> Finding {
    let remedy = "scripts/need-cargo-lambda installs it into .local (make build does so)";
    for program in [cargo_lambda_path(world), "cargo-lambda".to_owned()] {
        if let Ok(answer) = world.programs.run(&Call::new(program, ["lambda", "--version"]))
            && answer.status == 0
        {
            return here("cargo-lambda", answer.stdout.trim().to_owned());
        }
    }
    finding("cargo-lambda", Verdict::Missing, "not installed", remedy)
}

/// Where `scripts/need-cargo-lambda` puts it.
pub fn cargo_lambda_path(world: World<'_>) -> String {
    world.path(".local/venv-build/bin/cargo-lambda").display().to_string()
}

fn not_started(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound { "not installed".to_owned() } else { error.to_string() }
}

/// The settings that everything hangs on.
fn named(settings: &Settings) -> Vec<Finding> {
    let about = |name: &str| NAMES.iter().find(|(known, _)| *known == name).map_or("", |(_, about)| *about);
    let ask = |name: &str, test: &dyn Fn(&str) -> bool| match settings.value(name) {
        None => finding(name, Verdict::Missing, "not given", format!("{name}=…  {}", about(name))),
        Some(value) if test(value) => here(name, value),
        Some(value) => finding(
            name,
            Verdict::Missing,
            format!("`{value}` has the wrong form"),
            format!("{name}=…  {}", about(name)),
        ),
    };
    let mut findings = vec![
        ask("ENV", &is_name),
        ask("ISSUER", &is_issuer),
        ask("AUDIENCE", &|value| !value.contains(char::is_whitespace)),
    ];
    // The DNS firewall lets the team's own name through; everything else of Cloudflare's is in infra/cloudflare/hosts.json.
    let is_team =
        |team: &str| team.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if settings.value("TEAM").is_some() || settings.wanted().any(|stack| stack == "dns-firewall") {
        findings.push(ask("TEAM", &is_team));
    }
    match settings.decided("ImageUri") {
        None => findings.push(finding(
            "IMAGE",
            Verdict::Note,
            "not given: a tunnel that stands stays as it is, a new deployment has none yet",
            "after the first deployment build and push it: infra/cloudflare/README.md",
        )),
        Some(image) => findings.push(match is_pinned(image) {
            true => here("IMAGE", image),
            false => finding(
                "IMAGE",
                Verdict::Missing,
                format!("`{image}` is not named by digest"),
                "IMAGE=…@sha256:<64 hex>",
            ),
        }),
    }
    findings
}

fn is_name(name: &str) -> bool {
    name.len() <= 16
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// https, a host name, nothing else.
fn is_issuer(issuer: &str) -> bool {
    issuer.strip_prefix("https://").is_some_and(|host| {
        host.contains('.')
            && !host.starts_with(['.', '-'])
            && !host.ends_with(['.', '-'])
            && host
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-'))
    })
}

fn is_pinned(image: &str) -> bool {
    image
        .rsplit_once("@sha256:")
        .is_some_and(|(_, digest)| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Parameters that nobody will give.
fn parameters(settings: &Settings, rendered: &[Rendered]) -> Vec<Finding> {
    let mut coming: BTreeSet<String> = ["S3PrefixListId".to_owned()].into();
    let mut declared = BTreeSet::new();
    let mut findings = Vec::new();
    let tunnel = settings.decided("ImageUri").is_some();
    let (steps, _) = plan::steps(settings, tunnel);
    for step in steps {
        let Step::Stack(stack) = step else { continue };
        let Some(one) = rendered.iter().find(|one| one.stack == stack) else { continue };
        let all = plan::parameters(one, settings, &Default::default(), tunnel);
        for name in all.missing.into_iter().filter(|name| !coming.contains(name)) {
            // These have lines of their own.
            if !["Env", "Issuer", "Audience", "AccessTeam", "ImageUri"].contains(&name.as_str()) {
                let remedy = format!("PARAMETERS=\"{name}=…\"{}", described(one, &name));
                findings.push(finding(&name, Verdict::Missing, format!("stack {} needs it", stack.name), remedy));
            }
        }
        coming.extend(one.outputs());
    }
    for one in rendered {
        declared.extend(one.parameters().into_keys());
    }
    if settings.wanted().any(|stack| stack == "code-signing") && !declared.contains("CodeSigningConfigArn") {
        findings.push(finding(
            "code-signing",
            Verdict::Missing,
            "no function names the signing configuration, so nothing would be demanded of its code",
            "take it out of WITH: signing programs before they are deployed is not built yet",
        ));
    }
    for name in settings.parameters.keys() {
        let known = ["Env", "AccessTeam", "ImageUri"].contains(&name.as_str());
        if !rendered.is_empty() && !known && !declared.contains(name) {
            findings.push(finding(
                name,
                Verdict::Missing,
                "no template has this parameter",
                "take it away from PARAMETERS, or mend its name",
            ));
        }
    }
    findings
}

fn described(rendered: &Rendered, name: &str) -> String {
    let description = rendered.document.get("Parameters").and_then(|all| all.get(name)?.get("Description")?.as_str());
    description.map(|text| format!("  {text}")).unwrap_or_default()
}

/// The zips.
fn programs(world: World<'_>, settings: &Settings, rendered: &[Rendered]) -> Vec<Finding> {
    let wanted: BTreeSet<String> = rendered.iter().flat_map(Rendered::binaries).collect();
    let folder = world.path("target/lambda");
    let (mut absent, mut findings, mut built, mut size) = (Vec::new(), Vec::new(), 0, 0);
    let build = format!("make build ARCH={}", settings.architecture());
    for binary in &wanted {
        match Artifact::open(&folder, binary) {
            Ok(artifact) => {
                built += 1;
                size += artifact.size;
                if artifact.architecture != settings.architecture() {
                    let found = format!("built for {}", artifact.architecture);
                    findings.push(finding(&format!("program {binary}"), Verdict::Missing, found, build.clone()));
                }
                if artifact.size > LARGE {
                    let found =
                        format!("{:.1} MB, more than the 6 MB that were aimed at", artifact.size as f64 / 1_048_576.0);
                    findings.push(finding(&format!("program {binary}"), Verdict::Note, found, ""));
                }
            }
            Err(Unusable::Absent) => absent.push(binary.clone()),
            Err(error) => {
                findings.push(finding(&format!("program {binary}"), Verdict::Missing, error.to_string(), build.clone()))
            }
        }
    }
    if !absent.is_empty() {
        findings.push(finding("programs", Verdict::Missing, format!("not built: {}", absent.join(" ")), build));
    } else if !wanted.is_empty() {
        findings.push(here(
            "programs",
            format!("{built} zips, {:.1} MB, {}", size as f64 / 1_048_576.0, settings.architecture()),
        ));
    }
    findings
}

/// What only AWS knows.
fn account(world: World<'_>, settings: &Settings, region: Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &region {
        Some(region) => findings.push(here("region", region)),
        None => {
            findings.push(finding("region", Verdict::Missing, "not given", "REGION=…, AWS_REGION, or: aws configure"))
        }
    }
    let without_region = region.is_none();
    // The identity is the same everywhere.
    let aws = Aws::new(world, region.or_else(|| Some("us-east-1".to_owned())));
    let mut account = String::new();
    let why = match aws.ask(&["sts", "get-caller-identity"]) {
        Ok(identity) => {
            let part = |name| identity.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
            account = part("Account");
            findings.push(here("credentials", format!("account {} as {}", part("Account"), part("Arn"))));
            None
        }
        Err(error) => {
            let remedy = "aws configure, aws sso login, or a role by OIDC; see docs/deploy/README.md";
            findings.push(finding("credentials", Verdict::Missing, error.to_string(), remedy));
            Some("no credentials")
        }
    }
    .or(without_region.then_some("no region"));
    let asked: [(&str, &dyn Fn() -> Finding); 5] = [
        ("S3 prefix list", &|| prefix_list(&aws)),
        ("concurrent executions", &|| concurrency(&aws, settings)),
        (LOG_ROLE, &|| log_role(&aws, settings)),
        ("tunnel credential", &|| tunnel_credential(&aws, settings)),
        ("tunnel image", &|| image(&aws, settings)),
    ];
    for (what, ask) in asked {
        // Without an image there is no edge, which is what these two are for.
        if what.starts_with("tunnel") && settings.decided("ImageUri").is_none() {
            continue;
        }
        findings.push(match why {
            None => ask(),
            Some(why) => finding(what, Verdict::Unasked, why, ""),
        });
    }
    match why {
        None => findings.extend(imports::look(&aws, settings, &account)),
        Some(why) if imports::are_wanted(settings) => findings.push(finding("import keys", Verdict::Unasked, why, "")),
        Some(_) => {}
    }
    findings
}

fn prefix_list(aws: &Aws<'_>) -> Finding {
    match plan::prefix_list(aws) {
        Ok(Some(id)) => here("S3 prefix list", id),
        Ok(None) => {
            finding("S3 prefix list", Verdict::Missing, "the region has none", "PARAMETERS=\"S3PrefixListId=pl-…\"")
        }
        Err(error) => finding(
            "S3 prefix list",
            Verdict::Missing,
            error.to_string(),
            "the right ec2:DescribeManagedPrefixLists, or PARAMETERS=\"S3PrefixListId=pl-…\"",
        ),
    }
}

fn concurrency(aws: &Aws<'_>, settings: &Settings) -> Finding {
    const WHAT: &str = "concurrent executions";
    let raise = "ask for more: Service Quotas, AWS Lambda, Concurrent executions (L-B99A9384)";
    match aws.ask(&["lambda", "get-account-settings"]) {
        Ok(answer) => {
            let limit = answer.pointer("/AccountLimit/ConcurrentExecutions").and_then(Value::as_u64).unwrap_or(0);
            let reserves = settings.decided("Reserve") == Some("on");
            match (limit < FEW, reserves) {
                (true, true) => finding(
                    WHAT,
                    Verdict::Missing,
                    format!("{limit}: too few to reserve any"),
                    format!("PARAMETERS=\"Reserve=off\", or {raise}"),
                ),
                (true, false) => finding(
                    WHAT,
                    Verdict::Note,
                    format!("{limit}: new accounts have so few; bursts are throttled"),
                    raise,
                ),
                (false, _) => here(WHAT, limit.to_string()),
            }
        }
        Err(error) => finding(WHAT, Verdict::Missing, error.to_string(), "the right lambda:GetAccountSettings"),
    }
}

/// The role by which API Gateway writes logs is one for the account and region; without it no stage with logs can be made.
fn log_role(aws: &Aws<'_>, settings: &Settings) -> Finding {
    let remedy = "PARAMETERS=\"ApiGatewayAccountRole=on\" makes it, or set one by: aws apigateway update-account";
    let made = settings.decided("ApiGatewayAccountRole") == Some("on");
    match aws.ask(&["apigateway", "get-account"]) {
        Ok(answer) => match answer.get("cloudwatchRoleArn").and_then(Value::as_str).filter(|role| !role.is_empty()) {
            Some(role) => here(LOG_ROLE, role),
            None if made => here(LOG_ROLE, "the api stack makes it"),
            None => finding(LOG_ROLE, Verdict::Missing, "API Gateway may write no logs in this region", remedy),
        },
        Err(_) if made => here(LOG_ROLE, "the api stack makes it"),
        // The deploy role may not ask this, and need not: it updates what a person deployed first.
        Err(error) if error.is_denied() => finding(LOG_ROLE, Verdict::Note, format!("not asked: {error}"), remedy),
        Err(error) => finding(LOG_ROLE, Verdict::Missing, error.to_string(), "the right apigateway:GET on /account"),
    }
}

fn tunnel_credential(aws: &Aws<'_>, settings: &Settings) -> Finding {
    const WHAT: &str = "tunnel credential";
    // As the templates take it: an empty name is the usual one.
    let name = settings.decided("TunnelCredentialsParameter").filter(|name| !name.is_empty()).map(str::to_owned);
    let name = name.unwrap_or_else(|| format!("/portcullis/{}/tunnel", settings.env()));
    let put = format!(
        "cloudflared tunnel create …, then: aws ssm put-parameter --type SecureString --name {name} --value file://<tunnel id>.json"
    );
    // Only its name and kind: the value is a secret that nobody here needs.
    let filter = format!("Key=Name,Values={name}");
    match aws.ask(&["ssm", "describe-parameters", "--parameter-filters", &filter]) {
        Ok(answer) => match answer.pointer("/Parameters/0/Type").and_then(Value::as_str) {
            Some("SecureString") => here(WHAT, name),
            Some(kind) => finding(WHAT, Verdict::Missing, format!("{name} is a {kind}, not a SecureString"), put),
            None => finding(WHAT, Verdict::Missing, format!("no parameter {name}"), put),
        },
        Err(error) => finding(WHAT, Verdict::Missing, error.to_string(), "the right ssm:DescribeParameters"),
    }
}

fn image(aws: &Aws<'_>, settings: &Settings) -> Finding {
    const WHAT: &str = "tunnel image";
    let build = "build and push it: infra/cloudflare/README.md";
    let image = settings.decided("ImageUri").unwrap_or_default();
    let Some((repository, digest)) = image.rsplit_once("@") else {
        return finding(WHAT, Verdict::Missing, "not named by digest", build);
    };
    let name = repository.split_once('/').map_or(repository, |(_, name)| name);
    let id = format!("imageDigest={digest}");
    match aws.find(&["ecr", "describe-images", "--repository-name", name, "--image-ids", &id]) {
        Ok(Some(_)) => here(WHAT, digest),
        Ok(None) => finding(WHAT, Verdict::Missing, format!("{name} does not hold it"), build),
        Err(error) => finding(WHAT, Verdict::Missing, error.to_string(), "the right ecr:DescribeImages"),
    }
}

/// The bootstrap stack, for messages that need it.
pub fn stacks<'w>(world: World<'w>, settings: &Settings, region: Option<String>) -> Stacks<'w> {
    Stacks { aws: Aws::new(world, region), env: settings.env().to_owned(), bucket: None, role: None }
}

/// Names of the stacks that stand.
///
/// # Errors
/// What AWS answers instead.
pub fn standing(stacks: &Stacks<'_>) -> Result<Vec<layout::Stack>, aws::AwsError> {
    let mut standing = Vec::new();
    for stack in layout::all() {
        if stacks.state(stack.name)?.is_some() {
            standing.push(stack);
        }
    }
    Ok(standing)
}
