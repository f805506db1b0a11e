//! Takes a deployment away, but never what keeps data.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::layout::{self, Stack};
use crate::preflight;
use crate::settings::Settings;
use crate::stacks::{Failure, Stacks};
use crate::world::World;

/// Stacks that stay: they hold data, or what the data's addresses depend on.
const STAYS: &[Stack] = &[layout::DATA, layout::NETWORK, layout::BOOTSTRAP];

/// Deletes the stacks that hold no data, after its name was typed.
///
/// # Errors
/// What is refused or failed.
pub fn run(world: World<'_>, settings: &Settings, region: Option<String>) -> Result<(), Failure> {
    let env = settings.env().to_owned();
    let stacks = preflight::stacks(world, settings, region);
    let standing = preflight::standing(&stacks)?;
    if standing.is_empty() {
        world.say(format!("there is no deployment {env}"));
        return Ok(());
    }
    // The tunnel first: from then on nobody comes in.
    let order = [layout::EDGE, layout::WATCH, layout::API, layout::FUNCTIONS];
    let optional = layout::OPTIONAL.iter().rev().copied();
    let going: Vec<Stack> = order.into_iter().chain(optional).filter(|stack| standing.contains(stack)).collect();

    let mut refused = Vec::new();
    world.say(format!("of the deployment {env} go:"));
    for stack in &going {
        let resources = stacks.resources(stack.name)?;
        world.say(format!("  {:<42} {} resources", layout::name(&env, stack.name), resources.len()));
        let logs = resources.iter().filter(|[_, kind, ..]| kind == "AWS::Logs::LogGroup").count();
        if logs > 0 {
            world.say(format!("    with them {logs} logs: export what has to be kept"));
        }
        let policies = policies(&stacks, *stack)?;
        for [id, kind, physical, _] in &resources {
            let kept = policies.get(id).is_some_and(|policy| policy.starts_with("Retain") || policy == "Snapshot");
            if kept {
                world.say(format!("    stays: {id} ({kind} {physical})"));
            } else if layout::is_stateful(kind) && !is_rebuilt(kind) {
                refused.push(format!("{}: {id} ({kind} {physical}) would be deleted with what it holds", stack.name));
            }
        }
    }
    world.say("these stay, with all that they hold:");
    for stack in STAYS.iter().filter(|stack| standing.contains(stack)) {
        world.say(format!("  {:<42} {}", layout::name(&env, stack.name), stack.holds));
        for [id, kind, physical, _] in
            stacks.resources(stack.name)?.iter().filter(|[_, kind, ..]| layout::is_stateful(kind))
        {
            world.say(format!("    {id} ({kind} {physical})"));
        }
    }
    world.say("the database, the keys and the endpoints of the network go on costing money; docs/deploy/README.md says how a person deletes them");
    if !refused.is_empty() {
        return Err(Failure {
            what: refused,
            remedy: "nothing was deleted. Give these a DeletionPolicy of Retain in the template and deploy once, or delete them by hand".to_owned(),
            refused: true,
        });
    }
    if going.is_empty() {
        world.say("nothing to delete");
        return Ok(());
    }
    let typed = world.console.ask(&format!("type the name of the deployment to delete these stacks ({env}): "));
    if typed.as_deref().map(str::trim) != Some(env.as_str()) {
        return Err(Failure {
            what: vec!["not confirmed; nothing was deleted".to_owned()],
            remedy: "run it in a terminal and type the name".to_owned(),
            refused: true,
        });
    }
    for stack in going {
        world
            .say(format!("deleting {} (functions in a network take up to 20 minutes)", layout::name(&env, stack.name)));
        stacks.delete(stack.name)?;
    }
    world.say("done");
    Ok(())
}

/// What is stateful while the deployment lives and holds nothing that anybody needs once it goes. Logs go with their
/// functions, and are named before.
fn is_rebuilt(kind: &str) -> bool {
    matches!(kind, "AWS::ApiGateway::RestApi" | "AWS::Logs::LogGroup" | "AWS::SQS::Queue")
}

/// What happens to each resource with the stack, as deployed.
fn policies(stacks: &Stacks<'_>, stack: Stack) -> Result<BTreeMap<String, String>, Failure> {
    let name = layout::name(&stacks.env, stack.name);
    let answer = stacks.aws.ask(&["cloudformation", "get-template", "--stack-name", &name])?;
    let resources = match answer.get("TemplateBody") {
        Some(Value::String(text)) => template::yaml(text).unwrap_or_default(),
        Some(document) => document.clone(),
        None => Value::Null,
    };
    let resources = resources.get("Resources").and_then(Value::as_object).cloned().unwrap_or_default();
    let policy = |resource: &Value| Some(resource.get("DeletionPolicy")?.as_str()?.to_owned());
    Ok(resources.iter().filter_map(|(id, resource)| Some((id.clone(), policy(resource)?))).collect())
}
