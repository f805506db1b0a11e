//! Stacks of CloudFormation: their state, what a change would do to them, and the change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;

use serde_json::{Value, json};

use crate::artifact::sha256;
use crate::aws::{Aws, AwsError};
use crate::layout;
use crate::render::Rendered;

/// CloudFormation takes no larger template in a request; a larger one lies in a bucket.
const IN_REQUEST: usize = 51_200;
/// Seconds between two questions.
const PAUSE: u64 = 5;
/// Seconds after which waiting ends; the stack goes on.
const PATIENCE: u64 = 2 * 3600;
/// Seconds between two lines of progress.
const PROGRESS: u64 = 30;

/// Why a stack is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, one thing a line.
    pub what: Vec<String>,
    /// What to do about it.
    pub remedy: String,
    /// Whether nothing was tried because of a rule of ours.
    pub refused: bool,
}

impl Failure {
    /// Something went wrong.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: vec![what.into()], remedy: remedy.into(), refused: false }
    }
}

impl From<AwsError> for Failure {
    fn from(error: AwsError) -> Self {
        let remedy = match &error {
            AwsError::Missing => "install the AWS CLI (version 1 or 2), then run the same command again",
            AwsError::NotAsked(_) => {
                "mend the credentials, the region or the connection, then run the same command again"
            }
            AwsError::Refused { .. } if error.is_denied() => "use a role that may, then run the same command again",
            AwsError::Refused { .. } | AwsError::Unreadable(_) => {
                "run the same command again: finished steps are not repeated"
            }
        };
        Self::new(error.to_string(), remedy)
    }
}

/// A stack as CloudFormation has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// E.g. `CREATE_COMPLETE`.
    pub status: String,
    /// Why.
    pub reason: String,
    /// Outputs by name.
    pub outputs: BTreeMap<String, String>,
    /// Parameters by name.
    pub parameters: BTreeMap<String, String>,
}

impl State {
    /// Whether an operation goes on.
    pub fn is_moving(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS") && self.status != "REVIEW_IN_PROGRESS"
    }

    /// Whether there is no more of it than a name: its creation failed, or was never made.
    pub fn is_husk(&self) -> bool {
        matches!(
            self.status.as_str(),
            "REVIEW_IN_PROGRESS" | "CREATE_FAILED" | "ROLLBACK_COMPLETE" | "ROLLBACK_FAILED" | "DELETE_COMPLETE"
        )
    }

    /// Whether there is a stack that can be updated.
    pub fn stands(&self) -> bool {
        matches!(
            self.status.as_str(),
            "CREATE_COMPLETE"
                | "UPDATE_COMPLETE"
                | "UPDATE_ROLLBACK_COMPLETE"
                | "IMPORT_COMPLETE"
                | "IMPORT_ROLLBACK_COMPLETE"
        )
    }
}

/// What a change would do to one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `Add`, `Modify`, `Remove`, …
    pub action: String,
    /// The template's name of the resource.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// `True`, `False`, `Conditional`, or empty.
    pub replacement: String,
    /// Whether the removed resource itself stays.
    pub kept: bool,
}

impl Change {
    /// Whether something stateful may be lost to the deployment.
    pub fn endangers(&self) -> bool {
        let goes = self.action == "Remove"
            || self.action == "Dynamic"
            || matches!(self.replacement.as_str(), "True" | "Conditional");
        goes && layout::is_stateful(&self.kind)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.action.as_str(), self.replacement.as_str()) {
            ("Modify", "True") => "replaces",
            ("Modify", "Conditional") => "may replace",
            ("Dynamic", _) => "may change",
            ("Remove", _) if self.kept => "lets go of",
            ("Remove", _) => "removes",
            _ => "changes",
        };
        write!(f, "{what} {} ({})", self.id, self.kind)
    }
}

/// A change that is ready to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Its name; empty where there is nothing to change.
    pub name: String,
    /// Whether the stack is new.
    pub creates: bool,
    /// What it does.
    pub changes: Vec<Change>,
}

impl ChangeSet {
    /// E.g. `3 added, 2 modified, 1 replaced`.
    pub fn summary(&self) -> String {
        if self.changes.is_empty() {
            return "nothing changes".to_owned();
        }
        let count = |test: &dyn Fn(&Change) -> bool| self.changes.iter().filter(|change| test(change)).count();
        let replaced = |change: &Change| matches!(change.replacement.as_str(), "True" | "Conditional");
        let counts = [
            (count(&|change| change.action == "Add"), "added"),
            (count(&|change| change.action == "Modify" && !replaced(change)), "modified"),
            (count(&|change| change.action == "Modify" && replaced(change)), "replaced"),
            (count(&|change| change.action == "Remove"), "removed"),
            (count(&|change| !matches!(change.action.as_str(), "Add" | "Modify" | "Remove")), "other"),
        ];
        let named = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        named.collect::<Vec<_>>().join(", ")
    }

    /// What is endangered and not named in `allowed`.
    pub fn refused(&self, allowed: &BTreeSet<&str>) -> Vec<&Change> {
        self.changes.iter().filter(|change| change.endangers() && !allowed.contains(change.id.as_str())).collect()
    }
}

/// Stacks of one deployment.
#[derive(Clone, Debug)]
pub struct Stacks<'w> {
    /// How AWS is asked.
    pub aws: Aws<'w>,
    /// The name of the deployment.
    pub env: String,
    /// Where templates go that are too large for a request.
    pub bucket: Option<String>,
    /// What CloudFormation acts as; the caller where there is none.
    pub role: Option<String>,
}

impl Stacks<'_> {
    /// The state of a stack, if there is one.
    ///
    /// # Errors
    /// What AWS answers instead.
    pub fn state(&self, part: &str) -> Result<Option<State>, AwsError> {
        let name = layout::name(&self.env, part);
        let Some(answer) = self.aws.find(&["cloudformation", "describe-stacks", "--stack-name", &name])? else {
            return Ok(None);
        };
        let stack = answer.pointer("/Stacks/0").ok_or_else(|| AwsError::Unreadable("describe-stacks".to_owned()))?;
        let pairs = |list: &str, name: &str, value: &str| {
            let items = stack.get(list).and_then(Value::as_array);
            items.into_iter().flatten().map(|item| (text(item, name), text(item, value))).collect()
        };
        let state = State {
            status: text(stack, "StackStatus"),
            reason: text(stack, "StackStatusReason"),
            outputs: pairs("Outputs", "OutputKey", "OutputValue"),
            parameters: pairs("Parameters", "ParameterKey", "ParameterValue"),
        };
        Ok(Some(state))
    }

    /// Resources of a stack: logical id, type, physical id, status.
    ///
    /// # Errors
    /// What AWS answers instead.
    pub fn resources(&self, part: &str) -> Result<Vec<[String; 4]>, AwsError> {
        let name = layout::name(&self.env, part);
        let answer = self.aws.ask(&["cloudformation", "list-stack-resources", "--stack-name", &name])?;
        let resources = answer.get("StackResourceSummaries").and_then(Value::as_array);
        let fields = ["LogicalResourceId", "ResourceType", "PhysicalResourceId", "ResourceStatus"];
        Ok(resources.into_iter().flatten().map(|resource| fields.map(|field| text(resource, field))).collect())
    }

    /// Waits until nothing moves in a stack, and answers what is there then.
    ///
    /// # Errors
    /// What AWS answers instead, or that it takes longer than anybody waits.
    pub fn settled(&self, part: &str) -> Result<Option<State>, Failure> {
        let world = self.aws.world();
        let started = world.clock.now();
        let mut said = started;
        loop {
            let state = self.state(part)?;
            if !state.as_ref().is_some_and(State::is_moving) {
                return Ok(state);
            }
            let now = world.clock.now();
            if now.saturating_sub(started) > PATIENCE {
                return Err(Failure::new(
                    format!("{part}: still {} after {} minutes", state.unwrap_or_default().status, PATIENCE / 60),
                    "nothing was stopped; run the same command again, it goes on waiting",
                ));
            }
            if now.saturating_sub(said) >= PROGRESS {
                said = now;
                let moving: Vec<String> = self
                    .resources(part)
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|[.., status]| status.ends_with("_IN_PROGRESS"))
                    .map(|[id, ..]| id)
                    .take(4)
                    .collect();
                world.say(format!("      {} s  {}", now - started, moving.join(" ")));
            }
            world.clock.wait(PAUSE);
        }
    }

    /// Prepares a change. The stack must have settled.
    ///
    /// # Errors
    /// A stack in a state from which nothing can be changed, or what AWS answers instead.
    pub fn prepare(&self, rendered: &Rendered, parameters: &BTreeMap<String, String>) -> Result<ChangeSet, Failure> {
        let part = rendered.stack.name;
        let name = layout::name(&self.env, part);
        let creates = match self.settled(part)? {
            None => true,
            Some(state) if state.stands() => false,
            Some(state) if state.status == "REVIEW_IN_PROGRESS" => true,
            Some(state) if state.status == "ROLLBACK_COMPLETE" => {
                self.clear(part)?;
                true
            }
            Some(state) => return Err(stuck(&name, part, &state)),
        };
        let body = rendered.compact().map_err(|faults| Failure::new(faults.join("; "), "mend the template"))?;
        let world = self.aws.world();
        let folder = world.path("target/infra");
        let template_file = folder.join(format!("{part}.yaml"));
        let parameter_file = folder.join(format!("{part}.parameters.json"));
        let listed: Vec<Value> =
            parameters.iter().map(|(name, value)| json!({"ParameterKey": name, "ParameterValue": value})).collect();
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&template_file, &body))
            .and_then(|()| fs::write(&parameter_file, format!("{:#}\n", Value::from(listed))))
            .map_err(|error| Failure::new(format!("{}: {error}", folder.display()), "make the folder writable"))?;

        let change = format!("portcullis-{}", world.clock.now());
        let kind = if creates { "CREATE" } else { "UPDATE" };
        let mut arguments: Vec<String> =
            ["cloudformation", "create-change-set", "--stack-name", &name, "--change-set-name", &change]
                .map(str::to_owned)
                .to_vec();
        arguments.extend(["--change-set-type".to_owned(), kind.to_owned()]);
        arguments.extend(self.source(&body, &template_file.display().to_string())?);
        if !parameters.is_empty() {
            arguments.extend(["--parameters".to_owned(), format!("file://{}", parameter_file.display())]);
        }
        arguments.extend(["--capabilities", "CAPABILITY_NAMED_IAM", "--tags"].map(str::to_owned));
        arguments.push(format!("Key=portcullis:env,Value={}", self.env));
        if let Some(role) = self.role.as_ref().filter(|_| part != layout::BOOTSTRAP.name) {
            arguments.extend(["--role-arn".to_owned(), role.clone()]);
        }
        self.aws.ask(&arguments)?;
        self.read(&name, &change, creates)
    }

    /// Reads a change as soon as CloudFormation has worked it out.
    fn read(&self, name: &str, change: &str, creates: bool) -> Result<ChangeSet, Failure> {
        let clock = self.aws.world().clock;
        let started = clock.now();
        loop {
            let set = self.aws.ask(&[
                "cloudformation",
                "describe-change-set",
                "--stack-name",
                name,
                "--change-set-name",
                change,
            ])?;
            let (status, reason) = (text(&set, "Status"), text(&set, "StatusReason"));
            match status.as_str() {
                "CREATE_COMPLETE" => {
                    let changes = set.get("Changes").and_then(Value::as_array);
                    return Ok(ChangeSet {
                        name: change.to_owned(),
                        creates,
                        changes: changes.into_iter().flatten().filter_map(read_change).collect(),
                    });
                }
                "FAILED" => {
                    let nothing =
                        reason.contains("didn't contain changes") || reason.contains("No updates are to be performed");
                    self.discard(name, change)?;
                    if nothing {
                        return Ok(ChangeSet { creates, ..ChangeSet::default() });
                    }
                    return Err(Failure::new(
                        format!("{name}: CloudFormation cannot work out the change: {reason}"),
                        "nothing was changed; mend what it names, then run the same command again",
                    ));
                }
                _ if clock.now().saturating_sub(started) > PATIENCE => {
                    return Err(Failure::new(
                        format!("{name}: the change is still {status}"),
                        "nothing was changed; run the same command again",
                    ));
                }
                _ => clock.wait(PAUSE),
            }
        }
    }

    /// Makes a prepared change, and answers the outputs. What is endangered and not in `allowed` is refused before.
    ///
    /// # Errors
    /// The refusal, or what failed and why.
    pub fn make(&self, part: &str, set: &ChangeSet, allowed: &BTreeSet<&str>) -> Result<State, Failure> {
        let name = layout::name(&self.env, part);
        let refused = set.refused(allowed);
        if !refused.is_empty() {
            self.discard(&name, &set.name)?;
            let ids: Vec<&str> = refused.iter().map(|change| change.id.as_str()).collect();
            return Err(Failure {
                what: refused.iter().map(|change| format!("{part}: the change {change}")).collect(),
                remedy: format!("nothing was changed. If that is meant: ALLOW_REPLACE=\"{}\"", ids.join(" ")),
                refused: true,
            });
        }
        if !set.name.is_empty() {
            self.aws.ask(&[
                "cloudformation",
                "execute-change-set",
                "--stack-name",
                &name,
                "--change-set-name",
                &set.name,
            ])?;
        }
        let state = self.settled(part)?.unwrap_or_default();
        if matches!(state.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE")
            || (set.name.is_empty() && state.stands())
        {
            return Ok(state);
        }
        let mut failure = stuck(&name, part, &state);
        failure.what.extend(self.causes(&name)?);
        Err(failure)
    }

    /// Removes a change that is not made; of a stack that is not there yet, the husk as well.
    ///
    /// # Errors
    /// What AWS answers instead.
    pub fn discard(&self, name: &str, change: &str) -> Result<(), AwsError> {
        if !change.is_empty() {
            self.aws.find(&[
                "cloudformation",
                "delete-change-set",
                "--stack-name",
                name,
                "--change-set-name",
                change,
            ])?;
        }
        Ok(())
    }

    /// Deletes a stack and waits for it.
    ///
    /// # Errors
    /// What stays, and why.
    pub fn delete(&self, part: &str) -> Result<(), Failure> {
        let name = layout::name(&self.env, part);
        let mut arguments = vec!["cloudformation", "delete-stack", "--stack-name", &name];
        if let Some(role) = self.role.as_deref().filter(|_| part != layout::BOOTSTRAP.name) {
            arguments.extend(["--role-arn", role]);
        }
        self.aws.ask(&arguments)?;
        match self.settled(part)? {
            None => Ok(()),
            Some(state) if state.status == "DELETE_COMPLETE" => Ok(()),
            Some(state) => {
                let mut failure = stuck(&name, part, &state);
                failure.what.extend(self.causes(&name)?);
                Err(failure)
            }
        }
    }

    /// Keeps a stack from being deleted by mistake.
    ///
    /// # Errors
    /// What AWS answers instead.
    pub fn protect(&self, part: &str) -> Result<(), AwsError> {
        let name = layout::name(&self.env, part);
        let wanted = ["cloudformation", "update-termination-protection", "--enable-termination-protection"];
        self.aws.ask(&[&wanted[..], &["--stack-name", &name]].concat()).map(|_| ())
    }

    /// Deletes what a failed creation left, if that is nothing but a name.
    fn clear(&self, part: &str) -> Result<(), Failure> {
        let left: Vec<String> = self
            .resources(part)?
            .into_iter()
            // A version that is kept goes with its function, which is listed itself where it stayed.
            .filter(|[_, kind, _, status]| status != "DELETE_COMPLETE" && kind != "AWS::Lambda::Version")
            .map(|[id, kind, physical, status]| format!("{part}: {id} ({kind} {physical}) is {status}"))
            .collect();
        let name = layout::name(&self.env, part);
        if !left.is_empty() {
            return Err(Failure {
                what: left,
                remedy: format!(
                    "an earlier creation failed and these stayed. Look at each, delete it by hand, then: aws cloudformation delete-stack --stack-name {name}"
                ),
                refused: true,
            });
        }
        self.aws.world().say(format!("      {part}: an earlier creation failed and left nothing; its name is cleared"));
        self.delete(part)
    }

    /// What failed in the last operation.
    fn causes(&self, name: &str) -> Result<Vec<String>, AwsError> {
        let events =
            self.aws.find(&["cloudformation", "describe-stack-events", "--stack-name", name, "--max-items", "300"])?;
        let events = events.as_ref().and_then(|events| events.get("StackEvents")).and_then(Value::as_array);
        let mut causes = Vec::new();
        for event in events.into_iter().flatten() {
            let (status, reason) = (text(event, "ResourceStatus"), text(event, "ResourceStatusReason"));
            let id = text(event, "LogicalResourceId");
            if id == name && reason == "User Initiated" {
                break;
            }
            // What was cancelled is not the cause.
            if status.ends_with("_FAILED") && !reason.contains("cancelled") && id != name {
                causes.push(format!("{id} ({}): {reason}", text(event, "ResourceType")));
            }
        }
        // The first failure is the cause of the others.
        causes.reverse();
        Ok(causes)
    }

    /// How CloudFormation gets a template.
    fn source(&self, body: &str, file: &str) -> Result<[String; 2], Failure> {
        if body.len() <= IN_REQUEST {
            return Ok(["--template-body".to_owned(), format!("file://{file}")]);
        }
        let Some(bucket) = &self.bucket else {
            return Err(Failure::new(
                format!("{file} is larger than {IN_REQUEST} bytes and there is no code bucket yet"),
                "deploy the bootstrap stack first",
            ));
        };
        let key = format!("templates/{}.yaml", sha256(body.as_bytes()));
        self.aws.ask(&["s3api", "put-object", "--bucket", bucket, "--key", &key, "--body", file])?;
        let region = self.aws.region().unwrap_or("us-east-1");
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        Ok(["--template-url".to_owned(), format!("https://{bucket}.s3.{region}.{suffix}/{key}")])
    }
}

fn read_change(change: &Value) -> Option<Change> {
    let resource = change.get("ResourceChange")?;
    Some(Change {
        action: text(resource, "Action"),
        id: text(resource, "LogicalResourceId"),
        kind: text(resource, "ResourceType"),
        replacement: text(resource, "Replacement"),
        kept: text(resource, "PolicyAction") == "Retain",
    })
}

fn stuck(name: &str, part: &str, state: &State) -> Failure {
    let remedy = match state.status.as_str() {
        "ROLLBACK_COMPLETE" | "UPDATE_ROLLBACK_COMPLETE" => {
            "AWS undid it; mend the cause, then run the same command again".to_owned()
        }
        "UPDATE_ROLLBACK_FAILED" => format!(
            "mend the cause, then: aws cloudformation continue-update-rollback --stack-name {name}; then run the same command again"
        ),
        "DELETE_FAILED" => "mend the cause, then run make destroy again".to_owned(),
        "ROLLBACK_FAILED" | "CREATE_FAILED" => format!(
            "look at what stayed (aws cloudformation list-stack-resources --stack-name {name}), delete it by hand, then: aws cloudformation delete-stack --stack-name {name}"
        ),
        _ => format!("look at it: aws cloudformation describe-stack-events --stack-name {name}"),
    };
    let because = if state.reason.is_empty() { String::new() } else { format!(": {}", state.reason) };
    Failure::new(format!("{part} is {}{because}", state.status), remedy)
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}
