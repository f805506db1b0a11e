//! What a deployment does, in order, and with which parameters.

use std::collections::{BTreeMap, BTreeSet};

use crate::artifact::Artifact;
use crate::aws::{Aws, AwsError};
use crate::layout::{self, Stack};
use crate::render::{Rendered, Snapshot};
use crate::settings::{self, Settings};
use crate::stacks::{Failure, Stacks, State};
use crate::world::World;

/// The API's id before there is an API: the endpoint lets any of our account through, for minutes.
pub const ANY_API: &str = "*";
/// Width of a page of the plan.
const WIDTH: usize = 110;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create or update a stack.
    Stack(Stack),
    /// Upload the programs.
    Upload,
    /// Give the network the API's real id.
    Narrow,
    /// Invoke a function once, and why.
    Invoke(&'static str, &'static str),
}

/// The steps of a deployment, in order, and the stacks that are left out with the reason. `edge` says whether there is an
/// image for the tunnel.
pub fn steps(settings: &Settings, edge: bool) -> (Vec<Step>, Vec<(Stack, &'static str)>) {
    let wanted: BTreeSet<&str> = settings.wanted().collect();
    let mut steps =
        vec![Step::Stack(layout::BOOTSTRAP), Step::Upload, Step::Stack(layout::NETWORK), Step::Stack(layout::DATA)];
    let optional = layout::OPTIONAL.iter().filter(|stack| wanted.contains(stack.name));
    steps.extend(optional.map(|stack| Step::Stack(*stack)));
    steps.push(Step::Stack(layout::FUNCTIONS));
    steps.extend(layout::INVOKED.iter().map(|(function, why)| Step::Invoke(function, why)));
    steps.extend([Step::Stack(layout::API), Step::Narrow]);
    let mut left_out = Vec::new();
    if edge {
        steps.push(Step::Stack(layout::EDGE));
    } else {
        left_out.push((layout::EDGE, "no IMAGE: without the tunnel nothing reaches the API"));
    }
    steps.push(Step::Stack(layout::WATCH));
    (steps, left_out)
}

/// Parameters of one stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// What is handed over; where it has no value here, the template's default stands.
    pub values: BTreeMap<String, String>,
    /// What nobody gave: neither an earlier stack, nor the person, nor the profile, nor the template.
    pub missing: Vec<String>,
    /// What a person set although an earlier stack says it.
    pub contradicted: Vec<String>,
}

/// Puts together the parameters of a stack: outputs of earlier stacks by name, then what the person set, the profile, what
/// follows from other settings, the template's default.
pub fn parameters(
    rendered: &Rendered,
    settings: &Settings,
    known: &BTreeMap<String, String>,
    tunnel: bool,
) -> Parameters {
    let mut all = Parameters::default();
    for (name, default) in rendered.parameters() {
        let set = settings.parameters.get(&name);
        if let Some(value) = known.get(&name) {
            if set.is_some_and(|set| set != value) {
                all.contradicted.push(name.clone());
            }
            all.values.insert(name, value.clone());
        } else if let Some(value) = settings.decided(&name) {
            all.values.insert(name, value.to_owned());
        } else if let Some(value) = implied(&name, tunnel) {
            all.values.insert(name, value);
        } else if default.is_none() {
            all.missing.push(name);
        }
    }
    all
}

/// What follows from other settings.
fn implied(parameter: &str, tunnel: bool) -> Option<String> {
    match parameter {
        "CodePrefix" => Some("code/".to_owned()),
        "ApiId" => Some(ANY_API.to_owned()),
        "Tunnel" => Some(if tunnel { "on" } else { "off" }.to_owned()),
        _ => None,
    }
}

/// A parameter that will have another value than the stack that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The stack.
    pub stack: &'static str,
    /// The parameter.
    pub name: String,
    /// What stands.
    pub old: String,
    /// What comes.
    pub new: String,
    /// Whether nobody named it: it falls back to a default or moves with the profile.
    pub unnamed: bool,
}

/// What would change without anybody having said so, and what somebody did say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Parameters.
    pub parameters: Vec<Moved>,
    /// Optional stacks that stand and are not wanted this time.
    pub left_out: Vec<&'static str>,
}

impl Moves {
    /// One line each.
    pub fn lines(&self) -> Vec<String> {
        let parameters = self.parameters.iter().map(|moved| {
            let unnamed = if moved.unnamed { "  (nobody named it)" } else { "" };
            format!("{}: {}: {} -> {}{unnamed}", moved.stack, moved.name, shown(&moved.old), shown(&moved.new))
        });
        let left_out = self.left_out.iter().map(|stack| format!("the stack {stack} stands and WITH does not name it"));
        parameters.chain(left_out).collect()
    }

    /// The refusal of what nobody said, unless `ALLOW_DEFAULTS` says that it is meant.
    pub fn refusal(&self, settings: &Settings) -> Option<Failure> {
        let unnamed: Vec<&Moved> = self.parameters.iter().filter(|moved| moved.unnamed).collect();
        if settings.on("ALLOW_DEFAULTS") || (unnamed.is_empty() && self.left_out.is_empty()) {
            return None;
        }
        let refused = Self { parameters: unnamed.iter().copied().cloned().collect(), left_out: self.left_out.clone() };
        let (mut keep, mut parameters) = (Vec::new(), BTreeSet::new());
        for moved in unnamed {
            match settings::said(&moved.name, &moved.old).strip_prefix("PARAMETERS=") {
                Some(_) => parameters.extend([format!("{}={}", moved.name, moved.old)]),
                None => keep.extend([settings::said(&moved.name, &moved.old)]),
            }
        }
        if !self.left_out.is_empty() {
            let all: Vec<&str> = settings.wanted().chain(self.left_out.iter().copied()).collect();
            keep.push(format!("WITH=\"{}\"", all.join(" ")));
        }
        if !parameters.is_empty() {
            keep.push(format!("PARAMETERS=\"{}\"", parameters.into_iter().collect::<Vec<_>>().join(" ")));
        }
        Some(Failure {
            what: refused.lines(),
            remedy: format!(
                "nothing was changed. To keep what stands, say it on the command line or in infra/aws/deploy.env: {}. If the new values are meant, name those, or: ALLOW_DEFAULTS=1",
                keep.join(" ")
            ),
            refused: true,
        })
    }
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "(empty)" } else { value }
}

/// A deployment that is about to be planned or made.
#[derive(Debug)]
pub struct Deployment<'w> {
    /// The outside.
    pub world: World<'w>,
    /// What was decided.
    pub settings: &'w Settings,
    /// Every template.
    pub rendered: BTreeMap<&'static str, Rendered>,
    /// The programs that are built.
    pub artifacts: Vec<Artifact>,
    /// The stacks.
    pub stacks: Stacks<'w>,
    /// Outputs so far.
    pub known: BTreeMap<String, String>,
}

impl<'w> Deployment<'w> {
    /// Puts together what is needed, without asking AWS.
    ///
    /// # Errors
    /// Faults of the templates.
    pub fn new(world: World<'w>, settings: &'w Settings, region: Option<String>) -> Result<Self, Vec<String>> {
        let rendered = crate::render::all(&world.path("infra/aws"))?;
        let binaries: BTreeSet<String> = rendered.iter().flat_map(Rendered::binaries).collect();
        let folder = world.path("target/lambda");
        let artifacts = binaries.iter().filter_map(|binary| Artifact::open(&folder, binary).ok()).collect();
        let aws = Aws::new(world, region);
        Ok(Self {
            world,
            settings,
            rendered: rendered.into_iter().map(|one| (one.stack.name, one)).collect(),
            artifacts,
            stacks: Stacks { aws, env: settings.env().to_owned(), bucket: None, role: None },
            known: BTreeMap::new(),
        })
    }

    /// A template, with its snapshots named by what they will hold.
    ///
    /// # Errors
    /// Faults of the template.
    pub fn template(&self, stack: Stack, parameters: &BTreeMap<String, String>) -> Result<Rendered, Failure> {
        let rendered = self.rendered.get(stack.name).ok_or_else(|| {
            Failure::new(format!("there is no template {}.yaml", stack.name), "take a checkout that has it")
        })?;
        let programs = crate::render::programs(&self.artifacts);
        rendered.snapshot(&Snapshot { programs, parameters: Some(parameters) }).map_err(|faults| Failure {
            what: faults,
            remedy: "mend the template".to_owned(),
            refused: false,
        })
    }

    /// The parameters of a stack at this point.
    ///
    /// # Errors
    /// What is missing or contradicted, by name.
    pub fn parameters(&self, stack: Stack) -> Result<Parameters, Failure> {
        let Some(rendered) = self.rendered.get(stack.name) else { return Ok(Parameters::default()) };
        let all = parameters(rendered, self.settings, &self.known, self.has_tunnel());
        let mut what: Vec<String> =
            all.missing.iter().map(|name| format!("{}: nobody says {name}", stack.name)).collect();
        what.extend(
            all.contradicted.iter().map(|name| format!("{}: {name} is the output of an earlier stack", stack.name)),
        );
        if what.is_empty() {
            Ok(all)
        } else {
            let remedy = "give it as PARAMETERS=\"Name=value …\", or take it away there".to_owned();
            Err(Failure { what, remedy, refused: true })
        }
    }

    /// Compares what the stacks that stand were given with what they would be given now.
    ///
    /// # Errors
    /// What AWS answers instead.
    pub fn moves(&self) -> Result<Moves, AwsError> {
        let wanted: BTreeSet<&str> = self.settings.wanted().collect();
        // What an earlier stack answers is nobody's to say, nor is the id of the API, which the second pass knows.
        let mut piped = BTreeSet::from(["ApiId".to_owned()]);
        let mut moves = Moves::default();
        for stack in layout::all() {
            let comes = layout::optional(stack.name).is_none() || wanted.contains(stack.name);
            let outputs = self.rendered.get(stack.name).filter(|_| comes).map(Rendered::outputs).unwrap_or_default();
            let before = piped.clone();
            piped.extend(outputs);
            let Some(state) = self.stacks.state(stack.name)?.filter(|state| !state.is_husk()) else { continue };
            if !comes {
                moves.left_out.push(stack.name);
                continue;
            }
            let Some(rendered) = self.rendered.get(stack.name) else { continue };
            if stack == layout::BOOTSTRAP && self.kept_by_role()?.is_some() {
                continue;
            }
            let given = parameters(rendered, self.settings, &self.known, self.has_tunnel());
            for (name, default) in rendered.parameters().into_iter().filter(|(name, _)| !before.contains(name)) {
                // A parameter that the template did not have when it was deployed falls back to nothing.
                let Some(old) = state.parameters.get(&name) else { continue };
                let Some(new) = given.values.get(&name).cloned().or(default) else { continue };
                if *old != new {
                    let said = self.settings.parameters.contains_key(&name)
                        || self.settings.followed.contains(&name)
                        || self.known.contains_key(&name)
                        || (self.settings.decided(&name).is_none() && implied(&name, self.has_tunnel()).is_some());
                    moves.parameters.push(Moved { stack: stack.name, name, old: old.clone(), new, unnamed: !said });
                }
            }
        }
        Ok(moves)
    }

    /// The bootstrap stack, if the caller is the deploy role: that cannot change what it was made by.
    ///
    /// # Errors
    /// What AWS answers instead.
    pub fn kept_by_role(&self) -> Result<Option<State>, AwsError> {
        let identity = self.stacks.aws.ask(&["sts", "get-caller-identity"])?;
        let caller = identity.get("Arn").and_then(serde_json::Value::as_str).unwrap_or_default();
        let state = self.stacks.state(layout::BOOTSTRAP.name)?;
        Ok(state.filter(|state| {
            let role = state.outputs.get("DeployRoleArn").and_then(|role| role.rsplit_once('/'));
            role.is_some_and(|(_, role)| caller.contains(&format!(":assumed-role/{role}/")))
        }))
    }

    /// Learns the outputs of a stack.
    pub fn learn(&mut self, outputs: BTreeMap<String, String>) {
        if let Some(bucket) = outputs.get("CodeBucket") {
            self.stacks.bucket = Some(bucket.clone());
        }
        if let Some(role) = outputs.get("ExecutionRoleArn").filter(|role| !role.is_empty()) {
            self.stacks.role = Some(role.clone());
        }
        self.known.extend(outputs);
    }

    /// Learns whether there is a tunnel, or will be one: a deployment without `IMAGE` leaves a tunnel that stands as it is.
    ///
    /// # Errors
    /// What AWS answers instead.
    pub fn learn_tunnel(&mut self) -> Result<(), AwsError> {
        if self.settings.decided("ImageUri").is_none()
            && let Some(mut edge) = self.stacks.state(layout::EDGE.name)?.filter(State::stands)
            && let Some(image) = edge.parameters.remove("ImageUri")
        {
            self.known.insert("ImageUri".to_owned(), image);
        }
        Ok(())
    }

    /// Whether there is an image for the tunnel.
    pub fn has_tunnel(&self) -> bool {
        self.settings.decided("ImageUri").is_some() || self.known.contains_key("ImageUri")
    }

    /// Asks for the id of S3's addresses, which no template can find out.
    ///
    /// # Errors
    /// What AWS answers instead.
    pub fn learn_prefix_list(&mut self) -> Result<(), AwsError> {
        if self.settings.parameters.contains_key("S3PrefixListId") || self.known.contains_key("S3PrefixListId") {
            return Ok(());
        }
        if let Some(id) = prefix_list(&self.stacks.aws)? {
            self.known.insert("S3PrefixListId".to_owned(), id);
        }
        Ok(())
    }
}

/// The id of the prefix list that holds S3's addresses in the region.
///
/// # Errors
/// What AWS answers instead.
pub fn prefix_list(aws: &Aws<'_>) -> Result<Option<String>, AwsError> {
    let name = format!("Name=prefix-list-name,Values=com.amazonaws.{}.s3", aws.region().unwrap_or("us-east-1"));
    let answer = aws.ask(&["ec2", "describe-managed-prefix-lists", "--filters", &name])?;
    Ok(answer.pointer("/PrefixLists/0/PrefixListId").and_then(serde_json::Value::as_str).map(str::to_owned))
}

/// How a plan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It can be made.
    Ready,
    /// A step would be refused, or something is missing.
    Refused,
}

/// Prints the plan. With credentials, what each stack's change would do is asked of CloudFormation; nothing is made.
///
/// # Errors
/// Faults of the templates.
pub fn show(world: World<'_>, settings: &Settings, region: Option<String>) -> Result<Outcome, Vec<String>> {
    let mut deployment = Deployment::new(world, settings, region)?;
    let mut outcome = Outcome::Ready;
    let account = deployment.stacks.aws.ask(&["sts", "get-caller-identity"]);
    let asked = match &account {
        Ok(identity) => format!("account {}", identity.get("Account").and_then(|a| a.as_str()).unwrap_or("?")),
        Err(error) => format!("AWS was not asked: {error}"),
    };
    let mut online = account.is_ok();
    world.say(clipped(&format!(
        "deployment {}, profile {}, region {}; {asked}",
        settings.env(),
        settings.profile_name(),
        deployment.stacks.aws.region().unwrap_or("unknown"),
    )));
    if online {
        match existing(&mut deployment) {
            Ok(()) => {}
            Err(error) => {
                online = false;
                world.say(clipped(&format!("AWS was not asked further: {error}")));
            }
        }
    }
    if online {
        match deployment.moves() {
            Ok(moves) => {
                moves.lines().iter().for_each(|line| world.say(clipped(line)));
                if let Some(refusal) = moves.refusal(settings) {
                    outcome = Outcome::Refused;
                    world.say(format!("REFUSED: {}", refusal.remedy));
                }
            }
            Err(error) => {
                online = false;
                world.say(clipped(&format!("AWS was not asked further: {error}")));
            }
        }
    }
    let (steps, left_out) = steps(settings, deployment.has_tunnel());
    let mut coming = BTreeSet::new();
    for (number, step) in steps.iter().enumerate() {
        let line = match step {
            Step::Upload => upload_line(&deployment),
            Step::Invoke(function, why) => format!("invoke {:<13} {why}", layout::name(settings.env(), function)),
            Step::Narrow => {
                format!("stack  {:<13} second pass: ApiId={}", "network", id_or(&deployment, "ApiId", "the API's own"))
            }
            Step::Stack(stack) => stack_line(&deployment, *stack, &coming, online, &mut outcome),
        };
        for (row, line) in wrapped(&line).iter().enumerate() {
            let number = if row == 0 { format!("{:>2}", number + 1) } else { "  ".to_owned() };
            world.say(format!("{number}  {line}"));
        }
        if let Step::Stack(stack) = step
            && let Some(rendered) = deployment.rendered.get(stack.name)
        {
            coming.extend(rendered.outputs());
        }
    }
    for (stack, why) in left_out {
        world.say(format!("not  {:<15} {why}", stack.name));
    }
    if !online {
        world.say(
            "What CloudFormation would change was not asked: that takes credentials and a region. Nothing was done.",
        );
    } else {
        world.say(
            "Nothing was done. make deploy does it, step by step; a step that is done changes nothing when repeated.",
        );
    }
    Ok(outcome)
}

/// Learns what stands already, and no more than a deployment would: not from an optional stack that is not wanted.
fn existing(deployment: &mut Deployment<'_>) -> Result<(), AwsError> {
    let wanted: BTreeSet<&str> = deployment.settings.wanted().collect();
    for stack in layout::all().filter(|one| layout::optional(one.name).is_none() || wanted.contains(one.name)) {
        if let Some(state) = deployment.stacks.state(stack.name)?.filter(|state| !state.outputs.is_empty()) {
            deployment.learn(state.outputs);
        }
    }
    deployment.learn_tunnel()?;
    deployment.learn_prefix_list()
}

fn upload_line(deployment: &Deployment<'_>) -> String {
    let wanted: BTreeSet<String> = deployment.rendered.values().flat_map(Rendered::binaries).collect();
    let built: BTreeSet<String> = deployment.artifacts.iter().map(|artifact| artifact.binary.clone()).collect();
    let missing: Vec<&str> = wanted.difference(&built).map(String::as_str).collect();
    let size: u64 = deployment.artifacts.iter().map(|artifact| artifact.size).sum();
    let rest = if missing.is_empty() { String::new() } else { format!("; not built: {}", missing.join(" ")) };
    format!("upload {} of {} programs, {:.1} MB{rest}", built.len(), wanted.len(), size as f64 / 1_048_576.0)
}

fn id_or(deployment: &Deployment<'_>, name: &str, otherwise: &str) -> String {
    deployment.known.get(name).cloned().unwrap_or_else(|| otherwise.to_owned())
}

fn stack_line(
    deployment: &Deployment<'_>,
    stack: Stack,
    coming: &BTreeSet<String>,
    online: bool,
    outcome: &mut Outcome,
) -> String {
    let Some(rendered) = deployment.rendered.get(stack.name) else {
        *outcome = Outcome::Refused;
        return format!("stack  {:<13} there is no template", stack.name);
    };
    let all = parameters(rendered, deployment.settings, &deployment.known, deployment.has_tunnel());
    let missing: Vec<&str> = all.missing.iter().map(String::as_str).filter(|name| !coming.contains(*name)).collect();
    let declared = rendered.parameters();
    let piped = declared.keys().filter(|name| coming.contains(*name) || deployment.known.contains_key(*name)).count();
    let told: Vec<String> = all
        .values
        .iter()
        .filter(|(name, _)| !deployment.known.contains_key(*name) && !coming.contains(*name) && *name != "Env")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut line = format!("stack  {:<13} {} resources", stack.name, rendered.resources().len());
    if piped > 0 {
        line.push_str(&format!(", {piped} parameters from earlier stacks"));
    }
    if !told.is_empty() {
        line.push_str(&format!(": {}", told.join(" ")));
    }
    // Offline nobody can tell the id of S3's addresses, and preflight has it on its list.
    let only_the_prefix_list = missing == ["S3PrefixListId"] && !online;
    if !missing.is_empty() && !only_the_prefix_list {
        *outcome = Outcome::Refused;
        line.push_str(&format!("; MISSING {}", missing.join(" ")));
    }
    if online {
        line.push_str(&format!("; {}", change_of(deployment, stack, &all, outcome)));
    }
    line
}

/// What CloudFormation says about the change of a stack that stands.
fn change_of(deployment: &Deployment<'_>, stack: Stack, all: &Parameters, outcome: &mut Outcome) -> String {
    let stands = match deployment.stacks.state(stack.name) {
        Ok(Some(state)) if state.stands() => true,
        Ok(Some(state)) if state.status != "REVIEW_IN_PROGRESS" => return format!("it is {}", state.status),
        Ok(_) => false,
        Err(error) => return format!("not asked: {error}"),
    };
    // A change of a stack that is not there would leave an empty one behind.
    if !stands {
        return "new".to_owned();
    }
    if !all.missing.is_empty() {
        return "asked when the missing is there".to_owned();
    }
    let set =
        deployment.template(stack, &all.values).and_then(|template| deployment.stacks.prepare(&template, &all.values));
    match set {
        Ok(set) => {
            let name = layout::name(&deployment.stacks.env, stack.name);
            let _ = deployment.stacks.discard(&name, &set.name);
            let refused = set.refused(&deployment.settings.replaceable());
            let named: Vec<String> =
                set.changes.iter().filter(|change| change.endangers()).map(ToString::to_string).collect();
            if !refused.is_empty() {
                *outcome = Outcome::Refused;
            }
            match named.is_empty() {
                true => set.summary(),
                false => format!(
                    "{}; {}{}",
                    set.summary(),
                    named.join(", "),
                    if refused.is_empty() { ", allowed" } else { ": REFUSED without ALLOW_REPLACE" }
                ),
            }
        }
        Err(failure) => format!("not asked: {}", failure.what.join("; ")),
    }
}

fn clipped(line: &str) -> String {
    line.chars().take(WIDTH + 60).collect()
}

/// Lines of at most the page's width, cut at blanks.
fn wrapped(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let full = lines.last().is_some_and(|last| !last.is_empty() && last.len() + word.len() >= WIDTH);
        if full {
            lines.push(format!("{:21}{word}", ""));
        } else if let Some(last) = lines.last_mut() {
            if !last.is_empty() || word.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}
