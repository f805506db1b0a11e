//! What a call costs when there is more of everything, by the same driver.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use shared::policy::Unfit;
use tokio::task::JoinSet;

use crate::laden::{Laden, REVOKED, bundle};
use crate::measure::{Case, Right, SIGNING, Tally, Worlds, allow, block};
use crate::report::{quantile, rounded};
use crate::runtime_api::Sandbox;
use crate::world::World;

/// A first answer is asked for so often.
const TRIES: u32 = 10;

/// How far each axis goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    clients: &'static [usize],
    revocations: &'static [usize],
    policies: &'static [usize],
    items: &'static [usize],
    environments: &'static [usize],
    block: usize,
    rounds: usize,
}

impl Reach {
    /// For figures.
    pub(crate) const FULL: Self = Self {
        clients: &[4, 100, 1_000, 10_000, 100_000],
        revocations: &[0, 1_000, 10_000, 100_000, 1_000_000],
        policies: &[10, 30, 100, 300, 1_000],
        items: &[1, 10, 100, 300, 1_000],
        environments: &[1, 2, 4, 8, 16, 32],
        block: 200,
        rounds: 5,
    };
    /// To see that it works.
    pub(crate) const TRY: Self = Self {
        clients: &[4, 1_000],
        revocations: &[0, 1_000],
        policies: &[10, 30],
        items: &[1, 100],
        environments: &[1, 2],
        block: 3,
        rounds: 1,
    };
}

/// What is measured of one point.
struct Asked<'a> {
    program: &'static str,
    started: (PathBuf, BTreeMap<String, String>),
    world: &'a World,
    laden: Option<&'a Laden>,
    event: Box<dyn Fn() -> io::Result<Vec<u8>> + 'a>,
    right: Right,
}

/// Everything, point by point.
pub(crate) async fn run(worlds: &Worlds, logs: &Path, reach: Reach, say: fn(&str)) -> io::Result<Value> {
    std::fs::create_dir_all(logs)?;
    let axes = [
        json!({"axis": "revocations", "asked": "a decision about a new token", "points": revocations(worlds, logs, reach, say).await?}),
        json!({"axis": "policies that can apply", "asked": "a decision about a new client", "points": policies(worlds, logs, reach, say).await?}),
        json!({"axis": "clients in the database", "asked": "a token", "points": clients(worlds, logs, reach, say).await?}),
        json!({"axis": "fields in a call", "asked": "their encryption", "points": items(worlds, logs, reach, say).await?}),
        json!({"axis": "environments at once", "asked": "a decision about a token seen before", "points": environments(worlds, logs, reach, say).await?}),
    ];
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    Ok(json!({"machine": format!("{cores} cores, {}", std::env::consts::ARCH), "axes": axes}))
}

async fn revocations(worlds: &Worlds, logs: &Path, reach: Reach, say: fn(&str)) -> io::Result<Vec<Value>> {
    let mut points = Vec::new();
    for &at in reach.revocations {
        let laden = Laden::open("authorizer", &worlds.world.stack, bundle(10, 0).map_err(unfit)?, at).await?;
        let asked = laden_asked(&worlds.world, &laden, || worlds.world.token())?;
        points.push(point(&asked, at, logs, reach, say).await?);
    }
    Ok(points)
}

async fn policies(worlds: &Worlds, logs: &Path, reach: Reach, say: fn(&str)) -> io::Result<Vec<Value>> {
    let mut points = Vec::new();
    for &at in reach.policies {
        let laden =
            Laden::open("authorizer", &worlds.world.stack, bundle(at, 0).map_err(unfit)?, REVOKED.min(1_000)).await?;
        let asked = laden_asked(&worlds.world, &laden, || worlds.world.newcomer())?;
        points.push(point(&asked, at, logs, reach, say).await?);
    }
    Ok(points)
}

fn laden_asked<'a>(
    world: &'a World,
    laden: &'a Laden,
    token: impl Fn() -> io::Result<String> + 'a,
) -> io::Result<Asked<'a>> {
    let (binary, mut environment) = world.environment("authorizer")?;
    environment.insert("AWS_ENDPOINT_URL_S3".to_owned(), laden.url.clone());
    let event = Box::new(move || Ok(world.authorizer_event(&token()?)));
    Ok(Asked { program: "authorizer", started: (binary, environment), world, laden: Some(laden), event, right: allow })
}

async fn clients(worlds: &Worlds, logs: &Path, reach: Reach, say: fn(&str)) -> io::Result<Vec<Value>> {
    let (mut points, mut there) = (Vec::new(), 4);
    for &at in reach.clients {
        if at > there && !register(&worlds.local, there, at)? {
            say("  there is no psql on this machine, by which clients are added: this axis ends here\n");
            break;
        }
        there = there.max(at);
        let started = worlds.local.environment("token")?;
        let (world, event) = (&worlds.local, Box::new(|| worlds.local.token_event()));
        let right: Right = |answer| answer["statusCode"] == 200;
        points.push(
            point(&Asked { program: SIGNING, started, world, laden: None, event, right }, at, logs, reach, say).await?,
        );
    }
    Ok(points)
}

/// Adds copies of a client to the database until there are `to`, by the one program that is everywhere where a Postgres is.
fn register(world: &World, from: usize, to: usize) -> io::Result<bool> {
    let copies = format!(
        "INSERT INTO public.clients SELECT (jsonb_populate_record(one, jsonb_build_object('client_id', 'filler-' || n))).* \
         FROM public.clients one, generate_series({from} + 1, {to}) n WHERE one.client_id = 'acme-backend'; ANALYZE public.clients;"
    );
    let mut psql = Command::new("psql");
    psql.args([&world.stack.postgres.admin_url(), "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-c", &copies]);
    match psql.output() {
        Ok(output) if output.status.success() => Ok(true),
        Ok(output) => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn items(worlds: &Worlds, logs: &Path, reach: Reach, say: fn(&str)) -> io::Result<Vec<Value>> {
    let (world, mut points) = (&worlds.world, Vec::new());
    let token = world.token()?;
    for &at in reach.items {
        let encrypt = world.encrypt_event(&token, at);
        let event = Box::new(move || Ok(encrypt.clone()));
        let (started, right): (_, Right) =
            (world.environment("data-key-encrypt")?, |answer| answer["statusCode"] == 200);
        points.push(
            point(
                &Asked { program: "data-key-encrypt", started, world, laden: None, event, right },
                at,
                logs,
                reach,
                say,
            )
            .await?,
        );
    }
    Ok(points)
}

/// One program beside so much of something: its first answer, its warm calls, its memory.
async fn point(asked: &Asked<'_>, at: usize, logs: &Path, reach: Reach, say: fn(&str)) -> io::Result<Value> {
    let (binary, environment) = &asked.started;
    let event = (asked.event)()?;
    let since = Instant::now();
    let (mut sandbox, _) = Sandbox::start(binary, environment, &logs.join("scale.log")).await?;
    // A program that has not read its trust objects within its window says 503 and reads on, and is asked again.
    let mut tries = 0;
    while let Err(error) = sandbox.call(&event).await {
        tries += 1;
        if tries == TRIES {
            return Err(error);
        }
    }
    let first = since.elapsed().as_secs_f64() * 1e3;
    let again = || (asked.event)();
    let case = Case {
        name: asked.program,
        program: asked.program,
        world: asked.world,
        laden: asked.laden,
        block: reach.block,
        event: Box::new(again),
        right: asked.right,
    };
    let mut tally = Tally::default();
    for _ in 0..reach.rounds {
        block(&case, &mut sandbox, reach.block, &mut tally).await?;
    }
    let (memory, p50, processor) =
        (sandbox.peak_memory()? as f64 / 1024.0, quantile(&tally.took, 0.5), tally.processor_micros());
    say(&format!(
        "  {} beside {at}: first {first:.1} ms, p50 {p50:.0} us, processor {processor:.0} us, {memory:.1} MB\n",
        asked.program
    ));
    Ok(json!({"at": at, "first_answer_ms": rounded(first), "p50_us": rounded(p50), "processor_us": rounded(processor),
        "peak_memory_mb": rounded(memory)}))
}

/// So many of the authorizer at once, all of them busy.
async fn environments(worlds: &Worlds, logs: &Path, reach: Reach, say: fn(&str)) -> io::Result<Vec<Value>> {
    let (world, mut points) = (&worlds.world, Vec::new());
    let event = world.authorizer_event(&world.token()?);
    for &at in reach.environments {
        let mut sandboxes = Vec::new();
        for number in 0..at {
            let (binary, environment) = world.environment("authorizer")?;
            let (mut sandbox, _) =
                Sandbox::start(&binary, &environment, &logs.join(format!("scale-{number}.log"))).await?;
            sandbox.call(&event).await?;
            sandboxes.push(sandbox);
        }
        let calls = reach.block * reach.rounds;
        let (since, mut all) = (Instant::now(), JoinSet::new());
        for mut sandbox in sandboxes {
            let event = event.clone();
            all.spawn(async move {
                let (before, mut took) = (sandbox.processor_time()?, Vec::new());
                for _ in 0..calls {
                    took.push(sandbox.call(&event).await?.took.as_secs_f64() * 1e6);
                }
                io::Result::Ok((took, sandbox.processor_time()? - before, sandbox.peak_memory()?))
            });
        }
        let (mut took, mut processor, mut memory) = (Vec::new(), 0, 0);
        while let Some(one) = all.join_next().await {
            let (mine, spent, held) = one.map_err(io::Error::other)??;
            took.extend(mine);
            processor += spent;
            memory += held;
        }
        let (done, lasted) = (took.len() as f64, since.elapsed().as_secs_f64());
        let (p50, processor) = (quantile(&took, 0.5), processor as f64 / 1e3 / done);
        say(&format!(
            "  {at} authorizers at once: {:.0} calls a second, p50 {p50:.0} us, processor {processor:.0} us\n",
            done / lasted
        ));
        points.push(json!({"at": at, "p50_us": rounded(p50), "processor_us": rounded(processor), "calls_a_second": rounded(done / lasted),
            "peak_memory_mb": rounded(memory as f64 / 1024.0)}));
    }
    Ok(points)
}

fn unfit(unfit: Unfit) -> io::Error {
    io::Error::other(format!("the bench's policies are unfit: {unfit:?}"))
}
