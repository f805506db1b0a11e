//! One function at a time: its code, its alias, its log.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::artifact::Artifact;
use crate::aws::Aws;
use crate::layout;
use crate::preflight::cargo_lambda_path;
use crate::render;
use crate::settings::Settings;
use crate::stacks::Failure;
use crate::world::{Call, World};

/// What a code-only update may change of a function's configuration. Everything else must stay as it was.
const MOVES: &[&str] = &[
    "CodeSha256",
    "CodeSize",
    "FunctionArn",
    "LastModified",
    "LastUpdateStatus",
    "LastUpdateStatusReason",
    "LastUpdateStatusReasonCode",
    "ResponseMetadata",
    "RevisionId",
    "RuntimeVersionConfig",
    "State",
    "StateReason",
    "StateReasonCode",
    "Version",
];

/// Replaces a function's code by `cargo lambda deploy` and moves its alias, and nothing else.
///
/// # Errors
/// A function that does not exist, a program that does not fit it, a configuration that changed.
pub fn update(world: World<'_>, settings: &Settings, region: Option<String>) -> Result<(), Failure> {
    let (deployed, name) = function(settings)?;
    let aws = Aws::new(world, region);
    let rendered = render::functions(&world.path("infra/aws")).map_err(|faults| Failure {
        what: faults,
        remedy: "mend infra/aws/functions".to_owned(),
        refused: true,
    })?;
    let binaries = rendered.deployments();
    let binary = binaries.get(&deployed).ok_or_else(|| {
        let known: Vec<&str> = binaries.keys().map(String::as_str).collect();
        Failure::new(format!("no function {deployed}"), format!("FUNCTION= one of {}", known.join(" ")))
    })?;
    let artifact = Artifact::open(&world.path("target/lambda"), binary).map_err(|error| {
        Failure::new(
            format!("target/lambda/{binary}/bootstrap.zip {error}"),
            "make build, with the ARCH of this deployment",
        )
    })?;
    let configuration = ["lambda", "get-function-configuration", "--function-name", &name];
    // On a name that does not exist cargo-lambda would make a function, and a role for it.
    let Some(before) = aws.find(&configuration)? else {
        return Err(refusal(
            format!("there is no function {name}"),
            "make deploy makes it; this only replaces its code",
        ));
    };
    let runs_on = before.pointer("/Architectures/0").and_then(Value::as_str).unwrap_or("x86_64");
    if runs_on != artifact.architecture {
        return Err(refusal(
            format!("{name} runs on {runs_on}, and the program is built for {}", artifact.architecture),
            &format!("make build ARCH={runs_on}"),
        ));
    }
    // No option that sets anything: what is not said stays (environment, role, network, memory, tracing).
    // By name, not --binary-path: of a path it wants the bare program, and finds the zip only by itself.
    let folder = world.path("target/lambda").display().to_string();
    let mut arguments: Vec<String> =
        ["lambda", "deploy", "--lambda-dir", &folder, "--binary-name", binary].map(str::to_owned).to_vec();
    if let Some(region) = aws.region() {
        arguments.extend(["--region".to_owned(), region.to_owned()]);
    }
    arguments.push(name.clone());
    let call = Call { shown: true, ..Call::new(cargo_lambda_path(world), arguments) };
    let answer = world.programs.run(&call).map_err(|error| {
        Failure::new(format!("cargo-lambda cannot be started: {error}"), "scripts/need-cargo-lambda")
    })?;
    if answer.status != 0 {
        return Err(Failure::new(
            "cargo lambda deploy did not finish",
            "nothing moved: the alias is where it was; read what it said",
        ));
    }
    aws.ask(&["lambda", "wait", "function-updated-v2", "--function-name", &name])?;
    let after = aws.ask(&configuration)?;
    let changed = differences(&before, &after);
    if !changed.is_empty() {
        return Err(refusal(
            format!("the configuration of {name} changed as well: {}", changed.join(" ")),
            "the alias was not moved; make deploy puts the configuration back",
        ));
    }
    let version = published(&aws, &name)?.into_iter().max();
    let version =
        version.ok_or_else(|| refusal(format!("{name} has no published version"), "make deploy publishes one"))?;
    move_alias(&aws, &name, version)
}

/// Moves a function's alias to the version before, or to `VERSION`.
///
/// # Errors
/// No such version.
pub fn roll_back(world: World<'_>, settings: &Settings, region: Option<String>) -> Result<(), Failure> {
    let (_, name) = function(settings)?;
    let aws = Aws::new(world, region);
    let versions = published(&aws, &name)?;
    let now = alias(&aws, &name)?;
    let wanted = match settings.value("VERSION") {
        Some(version) => version.parse().ok().filter(|version| versions.contains(version)),
        None => versions.iter().copied().filter(|version| Some(*version) < now).max(),
    };
    let Some(wanted) = wanted else {
        let kept: Vec<String> = versions.iter().map(u64::to_string).collect();
        return Err(refusal(
            format!("{name} has no such version to go back to"),
            &format!("VERSION= one of {}", kept.join(" ")),
        ));
    };
    move_alias(&aws, &name, wanted)?;
    world.say("make deploy moves it to what the templates say again");
    Ok(())
}

/// Shows a function's log.
///
/// # Errors
/// What AWS answers instead.
pub fn logs(world: World<'_>, settings: &Settings, region: Option<String>) -> Result<(), Failure> {
    let (_, name) = function(settings)?;
    let aws = Aws::new(world, region);
    let minutes: u64 = settings.value("SINCE").and_then(|minutes| minutes.parse().ok()).unwrap_or(10);
    let mut since = world.clock.now().saturating_sub(minutes * 60) * 1000;
    let mut shown: Vec<String> = Vec::new();
    loop {
        let start = since.to_string();
        let page = aws.ask(&["logs", "filter-log-events", "--log-group-name", &name, "--start-time", &start])?;
        let events = page.get("events").and_then(Value::as_array);
        for event in events.into_iter().flatten() {
            let id = event.get("eventId").and_then(Value::as_str).unwrap_or_default();
            if shown.iter().any(|one| one == id) {
                continue;
            }
            world.say(event.get("message").and_then(Value::as_str).unwrap_or_default().trim_end());
            since = since.max(event.get("timestamp").and_then(Value::as_u64).unwrap_or(since));
            shown.push(id.to_owned());
        }
        if !settings.on("FOLLOW") {
            return Ok(());
        }
        // Enough to know those of the last millisecond again.
        shown.drain(..shown.len().saturating_sub(2_000));
        world.clock.wait(2);
    }
}

fn function(settings: &Settings) -> Result<(String, String), Failure> {
    match (settings.env(), settings.value("FUNCTION")) {
        ("", _) => Err(refusal("ENV is not given".to_owned(), "ENV=…")),
        (_, None) => {
            Err(refusal("FUNCTION is not given".to_owned(), "FUNCTION=token, or another deployment of a function"))
        }
        (env, Some(function)) => Ok((function.to_owned(), layout::name(env, function))),
    }
}

fn refusal(what: String, remedy: &str) -> Failure {
    Failure { what: vec![what], remedy: remedy.to_owned(), refused: true }
}

/// Names of what differs and should not.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let fields = |value: &Value| -> BTreeMap<String, Value> {
        let object = value.as_object().cloned().unwrap_or_default();
        object.into_iter().filter(|(name, _)| !MOVES.contains(&name.as_str())).collect()
    };
    let (before, after) = (fields(before), fields(after));
    let names = before.keys().chain(after.keys());
    let mut changed: Vec<String> = names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
    changed.dedup();
    changed.sort();
    changed.dedup();
    changed
}

fn published(aws: &Aws<'_>, name: &str) -> Result<Vec<u64>, Failure> {
    let answer = aws.ask(&["lambda", "list-versions-by-function", "--function-name", name])?;
    let versions = answer.get("Versions").and_then(Value::as_array);
    let numbers = versions.into_iter().flatten().filter_map(|version| version.get("Version")?.as_str()?.parse().ok());
    Ok(numbers.collect())
}

fn alias(aws: &Aws<'_>, name: &str) -> Result<Option<u64>, Failure> {
    let answer = aws.find(&["lambda", "get-alias", "--function-name", name, "--name", "live"])?;
    Ok(answer.and_then(|alias| alias.get("FunctionVersion")?.as_str()?.parse().ok()))
}

fn move_alias(aws: &Aws<'_>, name: &str, version: u64) -> Result<(), Failure> {
    let world = aws.world();
    let Some(now) = alias(aws, name)? else {
        world.say(format!("{name} has no alias live on a version: callers use $LATEST"));
        return Ok(());
    };
    let number = version.to_string();
    aws.ask(&["lambda", "update-alias", "--function-name", name, "--name", "live", "--function-version", &number])?;
    world.say(format!("{name}: live was at version {now} and is at {version} now"));
    Ok(())
}
