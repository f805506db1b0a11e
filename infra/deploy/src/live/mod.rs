//! A deployed account as the graph of the templates, for the same invariants. Reads only.
//!
//! The templates as CloudFormation holds them give the names; what AWS answers about each resource replaces what the template
//! says of it, and what AWS has besides (a route, a permission, a function URL, a gateway) joins the graph as a resource of its
//! own. Ids of the account become the names of the graph again, so that an invariant sees no difference.

mod beside;
mod read;
mod shape;

pub use read::CALLS;

use std::collections::{BTreeMap, BTreeSet};

use invariants::INVARIANTS;
use serde_json::Value;
use template::{Graph, Place, Resource, Template};

use crate::aws::{Aws, AwsError};
use crate::layout;
use crate::preflight;
use crate::settings::Settings;
use crate::stacks::{Failure, Stacks, State};
use crate::world::World;

/// Seconds between two questions about drift.
const PAUSE: u64 = 5;
/// Seconds after which drift is not waited for.
const PATIENCE: u64 = 600;

/// What was learnt of an account.
#[derive(Debug)]
pub struct Live<'w> {
    aws: Aws<'w>,
    /// The resources, as the account has them.
    pub graph: Graph,
    /// What is wrong and belongs to no invariant.
    pub faults: Vec<String>,
    /// What could not be asked, and why.
    pub unasked: Vec<String>,
    /// Resources about which the account itself was asked.
    pub asked: BTreeSet<String>,
    /// Ids of the account and what the graph calls them, the longest first.
    names: Vec<(String, String)>,
    /// Ids of the account by stack and logical id.
    physical: BTreeMap<(String, String), String>,
}

/// How an inspection ended in which nothing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Everything was asked, and holds.
    Everything,
    /// Something could not be asked; that is no pass.
    NotEverything,
}

/// Asks a deployed account whether the invariants hold there, and reports.
///
/// # Errors
/// What does not hold, or why nothing could be asked.
pub fn run(world: World<'_>, settings: &Settings, region: Option<String>) -> Result<Verified, Failure> {
    let stacks = preflight::stacks(world, settings, region);
    let identity = stacks.aws.ask(&["sts", "get-caller-identity"])?;
    let account = identity.get("Account").and_then(Value::as_str).unwrap_or_default().to_owned();
    let caller = identity.get("Arn").and_then(Value::as_str).unwrap_or_default();
    world.say(format!("deployment {}, account {account}, as {caller}; reading only", stacks.env));
    let mut live = Live::open(&stacks, &account)?;
    live.overlay();
    let mut broken = live.faults.len();
    for invariant in INVARIANTS {
        if !invariant.needs_only_the_graph() {
            continue;
        }
        let violations = invariant.check_graph(&live.graph);
        let mark = if violations.is_empty() { "holds" } else { "FAILS" };
        world.say(format!("{mark}  {:>2} {:<22} {}", invariant.number, invariant.name, invariant.promise));
        violations.iter().for_each(|violation| world.say(format!("          {violation}")));
        broken += violations.len();
    }
    live.faults.iter().for_each(|fault| world.say(format!("FAULT  {fault}")));
    let (drifted, undetected) = drift(&stacks, &live);
    drifted.iter().for_each(|one| world.say(format!("DRIFT  {one}")));
    live.unasked.iter().chain(&undetected).for_each(|one| world.say(format!("not asked  {one}")));
    let total = live.graph.resources.len();
    world.say(format!(
        "{} of {total} resources were asked of the account itself, the others are judged by their deployed template and its drift",
        live.asked.len()
    ));
    let repository: Vec<String> =
        INVARIANTS.iter().filter(|one| !one.needs_only_the_graph()).map(|one| one.number.to_string()).collect();
    world.say(format!("invariants {} need the repository and are checked by make test", repository.join(", ")));
    if broken + drifted.len() == 0 {
        let unasked = live.unasked.len() + undetected.len();
        if unasked == 0 {
            world.say("everything holds");
            return Ok(Verified::Everything);
        }
        world.say(format!("what was asked holds, but {unasked} things could not be asked: that is no pass"));
        Ok(Verified::NotEverything)
    } else {
        let remedy = "make deploy puts back what a template says; look at CloudTrail for who changed it".to_owned();
        Err(Failure {
            what: vec![format!("{broken} things do not hold, {} drifted", drifted.len())],
            remedy,
            refused: false,
        })
    }
}

impl<'w> Live<'w> {
    /// Reads the deployed templates into a graph, and learns what the account calls its resources.
    ///
    /// # Errors
    /// No deployment, or a template that is not understood.
    pub fn open(stacks: &Stacks<'w>, account: &str) -> Result<Self, Failure> {
        let region = stacks.aws.region().unwrap_or("us-east-1").to_owned();
        let mut place = Place::new(account, &region);
        for (start, partition) in [("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")] {
            if region.starts_with(start) {
                place.partition = partition.to_owned();
            }
        }
        let mut standing: Vec<(&'static str, State, Value)> = Vec::new();
        let mut physical = BTreeMap::new();
        let (mut fallen, mut moving) = (Vec::new(), Vec::new());
        for stack in layout::all() {
            let Some(state) = stacks.state(stack.name)? else { continue };
            if !state.stands() {
                // Of what was only ever planned there is nothing. What is between two states is neither, and may be asked later.
                if state.is_moving() {
                    moving.push((stack.name, format!("the stack {} is {}", stack.name, state.status)));
                } else if state.status != "REVIEW_IN_PROGRESS" {
                    fallen.push((stack.name, format!("the stack {} is {} {}", stack.name, state.status, state.reason)));
                }
                continue;
            }
            let name = layout::name(&stacks.env, stack.name);
            let answer = stacks.aws.ask(&["cloudformation", "get-template", "--stack-name", &name])?;
            let document = match answer.get("TemplateBody") {
                Some(Value::String(text)) => template::yaml(text)
                    .map_err(|faults| Failure::new(faults.join("; "), "deploy it again with make deploy"))?,
                Some(document) => document.clone(),
                None => Value::Null,
            };
            for [id, _, own, _] in stacks.resources(stack.name)? {
                physical.insert((stack.name.to_owned(), id), own);
            }
            standing.push((stack.name, state, document));
        }
        if standing.is_empty() && !fallen.is_empty() {
            let what = fallen.into_iter().map(|(_, what)| what).collect();
            return Err(Failure { what, remedy: "make deploy says what to do".to_owned(), refused: false });
        }
        if standing.is_empty() {
            return Err(Failure::new(format!("there is no deployment {}", stacks.env), "make deploy"));
        }
        let (graph, faults) = assemble(&standing, place, &stacks.env).map_err(|faults| Failure {
            what: faults,
            remedy: "deploy it again with make deploy".to_owned(),
            refused: false,
        })?;
        let mut live = Self {
            aws: stacks.aws.clone(),
            names: Vec::new(),
            graph,
            faults,
            unasked: Vec::new(),
            asked: BTreeSet::new(),
            physical,
        };
        let tunnel = standing.iter().find(|(name, ..)| *name == layout::WATCH.name);
        let no_tunnel =
            tunnel.is_some_and(|(_, state, _)| state.parameters.get("Tunnel").is_some_and(|on| on == "off"));
        for name in layout::all().map(|stack| stack.name).filter(|name| !standing.iter().any(|(one, ..)| one == name)) {
            let is_here = |list: &[(&str, String)]| list.iter().any(|(one, _)| *one == name);
            // A deployment without a tunnel was made without one; the alarms know.
            let meant = layout::optional(name).is_some() || (name == layout::EDGE.name && no_tunnel);
            if !is_here(&fallen) && !is_here(&moving) && !meant {
                live.unasked.push(format!("the stack {name} is not there"));
            }
        }
        live.faults.extend(fallen.into_iter().map(|(_, what)| what.trim_end().to_owned()));
        live.unasked.extend(moving.into_iter().map(|(_, what)| what));
        live.learn_names(&standing);
        Ok(live)
    }

    fn learn_names(&mut self, standing: &[(&'static str, State, Value)]) {
        let mut names = BTreeMap::new();
        let mut learn = |real: &str, symbol: &str| {
            // A name of our choosing is the same in both; anything short could stand inside other words.
            if real != symbol && real.len() >= 8 && !symbol.is_empty() {
                names.insert(real.to_owned(), symbol.to_owned());
            }
        };
        for resource in &self.graph.resources {
            if let Some(real) = self.physical.get(&(resource.stack.clone(), resource.id.clone())) {
                learn(real, &resource.reference);
            }
        }
        for (stack, state, _) in standing {
            for (output, symbol) in self.graph.outputs.get(*stack).into_iter().flatten() {
                let Some(real) = state.outputs.get(output) else { continue };
                let (reals, symbols): (Vec<_>, Vec<_>) = (real.split(',').collect(), symbol.split(',').collect());
                if reals.len() == symbols.len() && symbol.contains('<') {
                    reals.iter().zip(&symbols).for_each(|(real, symbol)| learn(real, symbol));
                }
            }
        }
        self.names = names.into_iter().collect();
        self.names.sort_by_key(|(real, _)| std::cmp::Reverse(real.len()));
    }

    /// A value of the account in the words of the graph.
    fn named(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.names.iter().fold(text.clone(), |text, (real, symbol)| {
                if text.contains(real.as_str()) { text.replace(real.as_str(), symbol) } else { text }
            })),
            Value::Array(items) => items.iter().map(|item| self.named(item)).collect(),
            Value::Object(fields) => {
                let named = |(name, field): (&String, &Value)| {
                    let name = self.named(&Value::String(name.clone()));
                    (name.as_str().unwrap_or_default().to_owned(), self.named(field))
                };
                Value::Object(fields.iter().map(named).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Asks; what is denied is noted, what is absent is `None`.
    fn ask(&mut self, about: &str, arguments: &[&str]) -> Option<Value> {
        match self.aws.find(arguments) {
            Ok(answer) => answer,
            Err(error) => {
                let asked = arguments.iter().take(2).copied().collect::<Vec<_>>().join(" ");
                self.unasked.push(format!("{about} ({asked}): {error}"));
                None
            }
        }
    }

    /// The resources of a type: where they stand in the graph, and their ids in the account.
    fn known(&self, kind: &str) -> Vec<(usize, String)> {
        let resources = self.graph.resources.iter().enumerate().filter(|(_, one)| one.kind == kind);
        resources
            .filter_map(|(at, one)| Some((at, self.physical.get(&(one.stack.clone(), one.id.clone()))?.clone())))
            .collect()
    }

    /// Puts what the account says in the place of what the template says.
    fn put(&mut self, at: usize, fields: Vec<(&str, Value)>) {
        let fields: Vec<(&str, Value)> = fields.iter().map(|(name, value)| (*name, self.named(value))).collect();
        let Some(resource) = self.graph.resources.get_mut(at) else { return };
        self.asked.insert(resource.path());
        if let Some(properties) = resource.properties.as_object_mut() {
            for (name, value) in fields {
                if value.is_null() {
                    properties.remove(name);
                } else {
                    properties.insert(name.to_owned(), value);
                }
            }
        }
    }

    /// Adds something that the account has.
    fn add(&mut self, stack: &str, id: &str, kind: &str, properties: &Value) {
        let resource = Resource {
            stack: stack.to_owned(),
            id: format!("live:{id}"),
            kind: kind.to_owned(),
            reference: self.named(&Value::String(id.to_owned())).as_str().unwrap_or_default().to_owned(),
            attributes: BTreeMap::new(),
            properties: self.named(properties),
            depends_on: Vec::new(),
            condition: None,
            deletion_policy: None,
            update_replace_policy: None,
        };
        self.asked.insert(resource.path());
        self.graph.resources.push(resource);
    }

    /// Takes away what the template says, because the account was asked for all of its kind.
    fn forget(&mut self, test: impl Fn(&Resource) -> bool) {
        self.graph.resources.retain(|resource| !test(resource));
    }
}

/// One graph of the deployed templates: parameters that are outputs of other stacks by their names in the graph, the others
/// as they were given. A parameter that should be an output and is another value is told.
fn assemble(
    standing: &[(&'static str, State, Value)],
    place: Place,
    environment: &str,
) -> Result<(Graph, Vec<String>), Vec<String>> {
    let real: BTreeMap<&String, (&str, &String)> = standing
        .iter()
        .flat_map(|(stack, state, _)| state.outputs.iter().map(move |(name, value)| (name, (*stack, value))))
        .collect();
    let mut symbols: BTreeMap<String, String> = BTreeMap::new();
    let mut open: Vec<Template> = Vec::new();
    let mut notes = BTreeSet::new();
    // The network takes an output of the API, which comes after it: the second pass knows all of them.
    for _ in 0..2 {
        open.clear();
        notes.clear();
        let mut faults = Vec::new();
        for (stack, state, document) in standing {
            let mut given = BTreeMap::new();
            for (name, value) in &state.parameters {
                let mut value = value;
                if let Some((from, output)) = real.get(name).filter(|(from, _)| from != stack) {
                    if *output != value {
                        notes.insert(format!(
                            "{stack}: the parameter {name} is `{value}`, the output of {from} is `{output}`"
                        ));
                    } else if let Some(symbol) = symbols.get(name) {
                        value = symbol;
                    }
                }
                given.insert(name.clone(), value.clone());
            }
            match Template::open(stack, document, &given, &place) {
                Ok(template) => open.push(template),
                Err(found) => faults.extend(found.into_iter().map(|fault| format!("{stack}: {fault}"))),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        symbols = open.iter().flat_map(|one| one.outputs().clone()).collect();
    }
    let graph = Graph {
        place,
        environment: environment.to_owned(),
        resources: open.iter().flat_map(|one| one.resources().values().cloned()).collect(),
        parameters: open.iter().map(|one| (one.stack().to_owned(), one.parameters())).collect(),
        outputs: open.iter().map(|one| (one.stack().to_owned(), one.outputs().clone())).collect(),
    };
    Ok((graph, notes.into_iter().collect()))
}

/// What CloudFormation itself finds changed. Detection is asked for and waited for; it changes nothing.
fn drift(stacks: &Stacks<'_>, live: &Live<'_>) -> (Vec<String>, Vec<String>) {
    let (mut drifted, mut undetected) = (Vec::new(), Vec::new());
    let present: BTreeSet<&String> = live.physical.keys().map(|(stack, _)| stack).collect();
    for stack in present {
        match drift_of(stacks, stack) {
            Ok(found) => drifted.extend(found),
            Err(error) => undetected.push(format!("drift of {stack}: {error}")),
        }
    }
    (drifted, undetected)
}

fn drift_of(stacks: &Stacks<'_>, stack: &str) -> Result<Vec<String>, AwsError> {
    let name = layout::name(&stacks.env, stack);
    let clock = stacks.aws.world().clock;
    let started = clock.now();
    let detection = stacks.aws.ask(&["cloudformation", "detect-stack-drift", "--stack-name", &name])?;
    let id = detection.get("StackDriftDetectionId").and_then(Value::as_str).unwrap_or_default();
    loop {
        let status = stacks.aws.ask(&[
            "cloudformation",
            "describe-stack-drift-detection-status",
            "--stack-drift-detection-id",
            id,
        ])?;
        match status.get("DetectionStatus").and_then(Value::as_str) {
            Some("DETECTION_IN_PROGRESS") if clock.now().saturating_sub(started) < PATIENCE => clock.wait(PAUSE),
            Some("DETECTION_COMPLETE") => break,
            other => return Err(AwsError::Unreadable(format!("drift detection, which is {other:?}"))),
        }
    }
    // The CLI does not turn the pages of this one by itself.
    let mut drifts: Vec<Value> = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let statuses = ["--stack-resource-drift-status-filters", "MODIFIED", "DELETED"];
        let mut asked =
            [&["cloudformation", "describe-stack-resource-drifts", "--stack-name", &name][..], &statuses].concat();
        if let Some(token) = &next {
            asked.extend(["--next-token", token]);
        }
        let found = stacks.aws.ask(&asked)?;
        drifts.extend(found.get("StackResourceDrifts").and_then(Value::as_array).cloned().unwrap_or_default());
        next = found.get("NextToken").and_then(Value::as_str).map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    let told = |drift: &Value| {
        let text = |name: &str| drift.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let differences = drift.get("PropertyDifferences").and_then(Value::as_array);
        let paths: Vec<&str> = differences
            .into_iter()
            .flatten()
            .filter_map(|one| one.get("PropertyPath").and_then(Value::as_str))
            .collect();
        let kind = text("ResourceType");
        // Code-only updates and roll backs move aliases on purpose; make deploy puts them back.
        let meant = kind == "AWS::Lambda::Alias" && paths == ["/FunctionVersion"];
        (!meant).then(|| {
            format!(
                "{stack}/{} ({kind}) {} {}",
                text("LogicalResourceId"),
                text("StackResourceDriftStatus"),
                paths.join(" ")
            )
        })
    };
    Ok(drifts.iter().filter_map(told).collect())
}
