//! The commands.

use crate::artifact::Artifact;
use crate::settings::{NAMES, Settings};
use crate::stacks::Failure;
use crate::world::{Call, World};
use crate::{code, cost, deploy, destroy, live, plan, policies, preflight, render};

/// How a command ended, as the process's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: a step failed, and said what to do.
    Failed,
    /// 2: something is missing and nothing was started, or something could not be asked.
    Missing,
    /// 3: refused by a rule; nothing was changed.
    Refused,
    /// 64: not understood.
    Usage,
}

impl Exit {
    /// The exit status.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Missing => 2,
            Self::Refused => 3,
            Self::Usage => 64,
        }
    }
}

/// What the commands are, and what they do.
const COMMANDS: &[(&str, &str)] = &[
    ("render", "write the templates as they are deployed to target/infra"),
    ("preflight", "name everything that a deployment lacks, at once"),
    ("plan", "the ordered steps, and what CloudFormation would change"),
    ("deploy", "preflight, then the steps"),
    ("code", "replace the code of one function and move its alias"),
    ("rollback", "move the alias of one function to the version before"),
    ("logs", "show the log of one function"),
    ("verify-live", "ask a deployed account whether the invariants hold there"),
    ("destroy", "delete the stacks that hold no data"),
    ("cost", "write docs/cost.md, or with CHECK compare it"),
];

/// Runs one command: its name, then `NAME=value`.
pub fn run(world: World<'_>, arguments: &[String]) -> Exit {
    let Some((command, rest)) =
        arguments.split_first().filter(|(command, _)| COMMANDS.iter().any(|(name, _)| name == *command))
    else {
        world.say("usage: deploy COMMAND [NAME=value …]");
        COMMANDS.iter().for_each(|(name, about)| world.say(format!("  {name:<12} {about}")));
        NAMES.iter().for_each(|(name, about)| world.say(format!("  {name:<14} {about}")));
        return Exit::Usage;
    };
    match command.as_str() {
        "render" => return rendered(world),
        "cost" => return costed(world, rest),
        _ => {}
    }
    let settings = match Settings::read(world, rest) {
        Ok(settings) => settings,
        Err(faults) => {
            faults.iter().for_each(|fault| world.say(fault));
            return Exit::Usage;
        }
    };
    let region = region(world, &settings);
    let ended = match command.as_str() {
        "preflight" => return checked(world, &settings, region).1,
        "plan" => return planned(world, &settings, region),
        "deploy" if settings.on("DRY_RUN") => return planned(world, &settings, region),
        "deploy" => {
            let (ready, exit) = checked(world, &settings, region.clone());
            if !ready {
                return exit;
            }
            world.say("");
            deploy::run(world, &settings, region)
        }
        "code" => code::update(world, &settings, region),
        "rollback" => code::roll_back(world, &settings, region),
        "logs" => code::logs(world, &settings, region),
        _ if settings.env().is_empty() => {
            world.say("ENV is not given");
            return Exit::Usage;
        }
        "verify-live" => match live::run(world, &settings, region) {
            Ok(live::Verified::Everything) => Ok(()),
            Ok(live::Verified::NotEverything) => return Exit::Missing,
            Err(failure) => Err(failure),
        },
        _ => destroy::run(world, &settings, region),
    };
    match ended {
        Ok(()) => Exit::Done,
        Err(failure) => told(world, &failure),
    }
}

fn told(world: World<'_>, failure: &Failure) -> Exit {
    for (line, what) in failure.what.iter().enumerate() {
        world.say(format!("{}{what}", if line == 0 { "FAILED  " } else { "        " }));
    }
    world.say(format!("     -> {}", failure.remedy));
    if failure.refused { Exit::Refused } else { Exit::Failed }
}

/// The region of the settings, of the environment, or of the CLI's own configuration.
fn region(world: World<'_>, settings: &Settings) -> Option<String> {
    let set = settings
        .value("REGION")
        .or_else(|| world.variable("AWS_REGION"))
        .or_else(|| world.variable("AWS_DEFAULT_REGION"));
    set.map(str::to_owned).or_else(|| {
        let answer = world.programs.run(&Call::new("aws", ["configure", "get", "region"])).ok()?;
        let region = answer.stdout.trim().to_owned();
        (answer.status == 0 && !region.is_empty()).then_some(region)
    })
}

fn checked(world: World<'_>, settings: &Settings, region: Option<String>) -> (bool, Exit) {
    let findings = preflight::look(world, settings, region);
    preflight::show(world, &findings);
    let ready = preflight::is_ready(&findings);
    (ready, if ready { Exit::Done } else { Exit::Missing })
}

fn planned(world: World<'_>, settings: &Settings, region: Option<String>) -> Exit {
    match plan::show(world, settings, region) {
        Ok(plan::Outcome::Ready) => Exit::Done,
        Ok(plan::Outcome::Refused) => Exit::Refused,
        Err(faults) => {
            faults.iter().for_each(|fault| world.say(fault));
            Exit::Failed
        }
    }
}

fn rendered(world: World<'_>) -> Exit {
    let all = render::all(&world.path("infra/aws")).and_then(|all| {
        let folder = world.path("target/lambda");
        let binaries: std::collections::BTreeSet<String> = all.iter().flat_map(render::Rendered::binaries).collect();
        let built: Vec<Artifact> = binaries.iter().filter_map(|binary| Artifact::open(&folder, binary).ok()).collect();
        render::write(&all, &render::programs(&built), &world.path("target/infra"))?;
        Ok((all.len(), built.len(), binaries.len(), policies::write(world)?))
    });
    match all {
        Ok((stacks, built, binaries, policies)) => {
            world.say(format!(
                "{stacks} templates and {policies} policies in target/infra, with the digests of {built} of {binaries} programs"
            ));
            Exit::Done
        }
        Err(faults) => {
            faults.iter().for_each(|fault| world.say(fault));
            Exit::Failed
        }
    }
}

fn costed(world: World<'_>, rest: &[String]) -> Exit {
    let written = cost::page(world).and_then(|(page, warnings)| {
        warnings.iter().for_each(|warning| world.say(format!("WARNING  {warning}")));
        let path = world.path("docs/cost.md");
        if rest.iter().any(|argument| argument == "CHECK=1") {
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            return if there == page {
                Ok("docs/cost.md is up to date")
            } else {
                Err(vec!["docs/cost.md is not what the templates say: make cost".to_owned()])
            };
        }
        std::fs::write(&path, page).map_err(|error| vec![format!("{}: {error}", path.display())])?;
        Ok("written to docs/cost.md")
    });
    match written {
        Ok(done) => {
            world.say(done);
            Exit::Done
        }
        Err(faults) => {
            faults.iter().for_each(|fault| world.say(fault));
            Exit::Failed
        }
    }
}
