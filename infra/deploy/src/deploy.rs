//! Makes a deployment: each step can be repeated, and a failed one says what to do.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::layout::{self, Stack};
use crate::plan::{self, Deployment, Step};
use crate::render::code_key;
use crate::settings::Settings;
use crate::stacks::Failure;
use crate::world::World;

/// Makes a deployment.
///
/// # Errors
/// The step that failed, why, and what to do.
pub fn run(world: World<'_>, settings: &Settings, region: Option<String>) -> Result<(), Failure> {
    let templates = |faults| Failure { what: faults, remedy: "mend the templates".to_owned(), refused: true };
    let mut deployment = Deployment::new(world, settings, region).map_err(templates)?;
    deployment.learn_prefix_list()?;
    deployment.learn_tunnel()?;
    let moves = deployment.moves()?;
    if let Some(refusal) = moves.refusal(settings) {
        return Err(refusal);
    }
    moves.lines().iter().for_each(|line| world.say(line));
    let (steps, left_out) = plan::steps(settings, deployment.has_tunnel());
    let mut warnings = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let name = title(*step, settings.env());
        world.say(format!("{:>2}/{}  {name}", index + 1, steps.len()));
        let done = match step {
            Step::Stack(stack) => make(&mut deployment, *stack),
            Step::Narrow => make(&mut deployment, layout::NETWORK),
            Step::Upload => upload(&deployment),
            Step::Invoke(function, _) => match invoke(&deployment, function) {
                // A foreign issuer that is down is no reason to stop: its last keys serve on, and the schedule asks again.
                Err(failure) if *function == "issuer-keys" => {
                    warnings.push(failure.what.join("; "));
                    Ok("failed; the schedule tries again every five minutes".to_owned())
                }
                done => done,
            },
        };
        match done {
            Ok(what) => world.say(format!("      {what}")),
            Err(mut failure) => {
                failure.what.insert(0, format!("step {} of {}, {name}, did not finish", index + 1, steps.len()));
                return Err(failure);
            }
        }
    }
    for (stack, why) in left_out {
        world.say(format!("  not  {}: {why}", stack.name));
    }
    for warning in &warnings {
        world.say(format!("WARNING  {warning}"));
    }
    next(world, settings, &deployment.known, deployment.has_tunnel());
    Ok(())
}

fn title(step: Step, env: &str) -> String {
    match step {
        Step::Stack(stack) => format!("stack {}: {}", layout::name(env, stack.name), stack.holds),
        Step::Narrow => format!("stack {}: only our API", layout::name(env, "network")),
        Step::Upload => "programs".to_owned(),
        Step::Invoke(function, why) => format!("invoke {}: {why}", layout::name(env, function)),
    }
}

/// Creates or updates a stack and learns its outputs.
fn make(deployment: &mut Deployment<'_>, stack: Stack) -> Result<String, Failure> {
    if stack == layout::BOOTSTRAP
        && let Some(state) = deployment.kept_by_role()?
    {
        deployment.learn(state.outputs);
        return Ok("as it was: the deploy role does not change it".to_owned());
    }
    if stack == layout::NETWORK && !deployment.known.contains_key("ApiId") {
        // Once there is an API, the endpoint never opens again to all of them.
        let api = deployment.stacks.state(layout::API.name)?;
        let id = api.and_then(|state| state.outputs.get("ApiId").cloned());
        deployment.known.extend(id.map(|id| ("ApiId".to_owned(), id)));
    }
    let parameters = deployment.parameters(stack)?;
    let template = deployment.template(stack, &parameters.values)?;
    let set = deployment.stacks.prepare(&template, &parameters.values)?;
    let summary = set.summary();
    if !set.name.is_empty() {
        deployment.world.say(format!("      {summary}"));
    }
    let state = deployment.stacks.make(stack.name, &set, &deployment.settings.replaceable())?;
    if set.creates && [layout::BOOTSTRAP, layout::DATA].contains(&stack) {
        deployment.stacks.protect(stack.name)?;
    }
    let outputs = state.outputs.len();
    deployment.learn(state.outputs);
    if stack == layout::FUNCTIONS {
        settle_aliases(deployment)?;
    }
    Ok(match set.name.is_empty() {
        true => format!("as it was, {outputs} outputs"),
        false => format!("{}, {outputs} outputs", state.status),
    })
}

/// Uploads what is not there yet. Keys are digests of programs, so nothing is ever overwritten.
fn upload(deployment: &Deployment<'_>) -> Result<String, Failure> {
    let bucket = deployment
        .known
        .get("CodeBucket")
        .ok_or_else(|| Failure::new("the bootstrap stack has no output CodeBucket", "mend infra/aws/bootstrap.yaml"))?;
    let missing: Vec<String> = deployment
        .rendered
        .values()
        .flat_map(crate::render::Rendered::binaries)
        .filter(|binary| !deployment.artifacts.iter().any(|artifact| artifact.binary == *binary))
        .collect();
    if !missing.is_empty() {
        return Err(Failure::new(
            format!("not built: {}", missing.join(" ")),
            "make build, with the ARCH of this deployment",
        ));
    }
    let mut uploaded = 0;
    for artifact in &deployment.artifacts {
        let key = format!("{}{}", prefix(deployment), code_key(&artifact.binary, &artifact.digest));
        let aws = &deployment.stacks.aws;
        if aws.find(&["s3api", "head-object", "--bucket", bucket, "--key", &key])?.is_none() {
            let path = artifact.path.display().to_string();
            // The bucket refuses what could write over a program.
            let sum = ["--checksum-algorithm", "SHA256", "--if-none-match", "*"];
            aws.ask(
                &[&["s3api", "put-object", "--bucket", bucket, "--key", &key, "--body", &path][..], &sum].concat(),
            )?;
            uploaded += 1;
        }
    }
    Ok(format!("{uploaded} uploaded, {} were there", deployment.artifacts.len() - uploaded))
}

fn prefix<'d>(deployment: &'d Deployment<'_>) -> &'d str {
    deployment.settings.decided("CodePrefix").unwrap_or("code/")
}

/// Invokes a function once with `{}` and reads its answer.
fn invoke(deployment: &Deployment<'_>, function: &str) -> Result<String, Failure> {
    let name = layout::name(&deployment.stacks.env, function);
    let folder = deployment.world.path("target/infra");
    let (asks, answers) = (folder.join("empty.json"), folder.join(format!("{function}.answer.json")));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&asks, "{}"))
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display()), "make the folder writable"))?;
    // The alias is there with either Qualifier.
    let mut arguments: Vec<String> =
        ["lambda", "invoke", "--function-name", &name, "--qualifier", "live"].map(str::to_owned).to_vec();
    // Version 1 and 2 of the CLI read a payload differently, except from a file of bytes. A migration may take minutes.
    arguments.extend(["--payload".to_owned(), format!("fileb://{}", asks.display())]);
    arguments.extend(["--cli-read-timeout", "900"].map(str::to_owned));
    arguments.push(answers.display().to_string());
    let outcome = deployment.stacks.aws.ask(&arguments)?;
    let answer = fs::read_to_string(&answers).unwrap_or_default();
    let shown: String = answer.chars().take(200).collect();
    match outcome.get("FunctionError").and_then(Value::as_str) {
        None => Ok(shown),
        Some(kind) => Err(Failure::new(
            format!("{name} answered {kind}: {shown}"),
            format!(
                "read its log (make logs ENV={} FUNCTION={function}), then run the same command again",
                deployment.stacks.env
            ),
        )),
    }
}

/// A code-only update or a roll back moved an alias behind CloudFormation's back: what the templates say counts again.
fn settle_aliases(deployment: &Deployment<'_>) -> Result<(), Failure> {
    let aws = &deployment.stacks.aws;
    let world = deployment.world;
    let Some(rendered) = deployment.rendered.get(layout::FUNCTIONS.name) else { return Ok(()) };
    let binaries = rendered.deployments();
    let published = deployment.stacks.resources(layout::FUNCTIONS.name)?;
    for [_, _, physical, _] in published.iter().filter(|[_, kind, ..]| kind == "AWS::Lambda::Version") {
        // arn:aws:lambda:region:account:function:name:version
        let mut parts = physical.rsplit(':');
        let (Some(version), Some(function)) = (parts.next(), parts.next()) else { continue };
        let of_alias = ["--function-name", function, "--name", "live"];
        let alias = aws.ask(&[&["lambda", "get-alias"][..], &of_alias].concat())?;
        let stands = alias.get("FunctionVersion").and_then(Value::as_str).unwrap_or_default();
        let mut wanted = version.to_owned();
        if let Some(code) = other_code(deployment, function, version, &binaries)? {
            let [bucket, key] = &code;
            world.say(format!(
                "      {function}: version {version} holds code that came past the stack; published anew"
            ));
            let from = ["--function-name", function, "--s3-bucket", bucket, "--s3-key", key, "--publish"];
            let answer = aws.ask(&[&["lambda", "update-function-code"][..], &from].concat())?;
            wanted = answer.get("Version").and_then(Value::as_str).unwrap_or(version).to_owned();
        }
        if stands != wanted {
            world.say(format!("      {function}: live was at version {stands} and is at {wanted} now"));
            let to = ["--function-version", &wanted];
            aws.ask(&[&["lambda", "update-alias"][..], &of_alias, &to].concat())?;
        }
    }
    Ok(())
}

/// Where the right code lies, if the published version holds another: CloudFormation publishes whatever the function
/// holds, and a code-only update may have put something else there.
fn other_code(
    deployment: &Deployment<'_>,
    function: &str,
    version: &str,
    binaries: &BTreeMap<String, String>,
) -> Result<Option<[String; 2]>, Failure> {
    let aws = &deployment.stacks.aws;
    let deployed = function.strip_prefix(&layout::name(&deployment.stacks.env, ""));
    let binary = deployed.and_then(|deployed| binaries.get(deployed));
    let artifact = binary.and_then(|binary| deployment.artifacts.iter().find(|artifact| artifact.binary == *binary));
    let (Some(artifact), Some(bucket)) = (artifact, deployment.known.get("CodeBucket")) else { return Ok(None) };
    let key = format!("{}{}", prefix(deployment), code_key(&artifact.binary, &artifact.digest));
    let held =
        aws.ask(&["lambda", "get-function-configuration", "--function-name", function, "--qualifier", version])?;
    let kept = aws.ask(&["s3api", "head-object", "--bucket", bucket, "--key", &key, "--checksum-mode", "ENABLED"])?;
    // Both are the SHA-256 of the zip, base64. An object without one cannot be compared.
    let sums = [held.get("CodeSha256"), kept.get("ChecksumSHA256")].map(|sum| sum.and_then(Value::as_str));
    Ok(match sums {
        [Some(held), Some(kept)] if held != kept => Some([bucket.clone(), key]),
        _ => None,
    })
}

/// What a person does next.
fn next(world: World<'_>, settings: &Settings, known: &BTreeMap<String, String>, tunnel: bool) {
    let env = settings.env();
    let known = |name: &str| known.get(name).map_or("?", String::as_str);
    world.say("");
    world.say(format!("deployed. The API is {} (private), id {}", known("ApiHost"), known("ApiId")));
    let mut lines = Vec::new();
    if !tunnel {
        lines.push(format!(
            "the tunnel: infra/cloudflare/README.md builds an image for {}; then make deploy … IMAGE=…@sha256:…",
            known("ImageRepositoryUri")
        ));
    }
    lines.push(
        "the first tenant, client and policy, by the function admin (docs/deploy/README.md has the bodies):".to_owned(),
    );
    for line in lines {
        world.say(format!("  {line}"));
    }
    for body in [
        r#"{"operation":"tenant.put","operator":"YOU","tenant":"acme"}"#,
        r#"{"operation":"client.put","operator":"YOU","tenant":"acme","client_id":"acme-backend","jwks":{"keys":[…]},"scopes":["files:read"],"dpop":false}"#,
    ] {
        world.say(format!(
            "    aws lambda invoke --function-name portcullis-{env}-admin:live --payload fileb://body.json answer.json"
        ));
        world.say(format!("      {body}"));
    }
    world.say(format!("  then: make verify-live ENV={env}"));
}
