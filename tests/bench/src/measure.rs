//! The measuring itself: interleaved, so that whatever else the machine does hits everybody alike.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use serde_json::Value;
use shared::entropy::SystemEntropy;
use shared::name::{Identifier, Tenant};
use shared::pc1::{self, Context, DataKey, MessageIds, Row};
use uuid::Uuid;

use crate::laden::Laden;
use crate::peers;
use crate::report::quantile;
use crate::round_trip::RoundTrips;
use crate::runtime_api::Sandbox;
use crate::world::{World, function};

/// How often things are done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Starts of each program.
    starts: usize,
    /// First answers of each program.
    firsts: usize,
    /// Blocks of each case.
    rounds: usize,
    /// Calls of a block, at most.
    block: usize,
}

impl Effort {
    /// For figures.
    pub(crate) const FULL: Effort = Effort { starts: 40, firsts: 10, rounds: 5, block: usize::MAX };
    /// To see that every program starts and every case is answered rightly; its figures mean nothing.
    pub(crate) const TRY: Effort = Effort { starts: 1, firsts: 1, rounds: 1, block: 3 };
}

/// Calls of a block before those that are counted.
const WARMING: usize = 3;
/// Trust objects are fresh for five seconds.
const FRESH: Duration = Duration::from_secs(4);

/// The token function with a key that it signs with itself.
pub(crate) const SIGNING: &str = "token (SSM)";
/// The program that does nothing.
pub(crate) const FLOOR: &str = "floor";
/// The program that checks one RS256 signature.
pub(crate) const BARE: &str = "bare-rs256";
/// The authorizer by the number of policies, and the names of its cases.
const LADEN: [(&str, [&str; 3]); 3] = [
    ("authorizer (10)", ["authorizer (10), new token", "authorizer (10), new client", "authorizer (10), seen before"]),
    (
        "authorizer (100)",
        ["authorizer (100), new token", "authorizer (100), new client", "authorizer (100), seen before"],
    ),
    (
        "authorizer (1,000)",
        ["authorizer (1,000), new token", "authorizer (1,000), new client", "authorizer (1,000), seen before"],
    ),
];
const DEPLOYMENTS: [&str; 11] = [
    "authorizer",
    "token",
    "upload",
    "download",
    "data-key-encrypt",
    "data-key-decrypt",
    "object-events",
    "trust",
    "issuer-keys",
    "admin",
    "migrate",
];

/// Everything that was found out.
#[derive(Default)]
pub(crate) struct Findings {
    /// Program → milliseconds from spawn to the first poll.
    pub(crate) starts: BTreeMap<&'static str, Vec<f64>>,
    /// Program → milliseconds from spawn to the first answer.
    pub(crate) firsts: BTreeMap<&'static str, Vec<f64>>,
    /// Program → peak kibibytes, after all its cases.
    pub(crate) memory: BTreeMap<&'static str, u64>,
    /// Case by case, in order.
    pub(crate) cases: Vec<(&'static str, Tally)>,
    /// Microseconds of the bare cryptography for one field of 64 bytes.
    pub(crate) bare_field: Vec<f64>,
    /// Microseconds of one bare signature, as a token is signed within the process.
    pub(crate) bare_signature: Vec<f64>,
    /// Microseconds on a processor of one bare round trip to the database.
    pub(crate) bare_round_trip: Vec<f64>,
}

/// What the calls of one case came to.
#[derive(Default)]
pub(crate) struct Tally {
    /// Microseconds each call took.
    pub(crate) took: Vec<f64>,
    /// Nanoseconds on a processor, all calls together.
    pub(crate) processor: u64,
    pub(crate) calls: u64,
    pub(crate) outside: Outside,
    /// Block by block.
    pub(crate) blocks: Vec<Block>,
}

/// What one block came to, for the spread.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// Microseconds, the median.
    pub(crate) p50: f64,
    /// Microseconds on a processor, a call.
    pub(crate) processor: f64,
}

/// Program → its binary and its environment.
pub(crate) type Programs = BTreeMap<&'static str, (PathBuf, BTreeMap<String, String>)>;

/// What left the process.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Outside {
    pub(crate) s3: u64,
    pub(crate) kms: u64,
    pub(crate) sts: u64,
    pub(crate) ssm: u64,
    pub(crate) round_trips: u64,
}

/// Whether an answer is what was asked for.
pub(crate) type Right = fn(&Value) -> bool;

/// What is asked of one program, and how often.
pub(crate) struct Case<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
    /// Whose surroundings the program has.
    pub(crate) world: &'a World,
    /// The trust objects it reads, where they are not the surroundings' own.
    pub(crate) laden: Option<&'a Laden>,
    pub(crate) block: usize,
    pub(crate) event: Box<dyn Fn() -> io::Result<Vec<u8>> + 'a>,
    pub(crate) right: Right,
}

/// Where the measured programs live: beside keys in KMS, beside keys that are parameters, and beside much of something.
pub(crate) struct Worlds {
    pub(crate) world: World,
    pub(crate) local: World,
    pub(crate) laden: Vec<Laden>,
}

/// Runs everything.
pub(crate) async fn run(worlds: &Worlds, logs: &Path, effort: Effort, say: fn(&str)) -> io::Result<Findings> {
    std::fs::create_dir_all(logs)?;
    let mut findings = Findings::default();
    let programs = programs(worlds)?;
    let log = |name: &str| logs.join(format!("{name}.log"));

    say("  start-up ...\n");
    for _ in 0..effort.starts {
        for (name, (binary, environment)) in &programs {
            let (_, took) =
                Sandbox::start(binary, environment, &log(name)).await.map_err(|error| named(name, &error))?;
            findings.starts.entry(name).or_default().push(millis(took));
        }
    }

    say("  first answers ...\n");
    let cases = cases(worlds, &programs, &log).await?;
    for _ in 0..effort.firsts {
        let mut done = "";
        for case in &cases {
            if case.program == done {
                continue;
            }
            done = case.program;
            let (binary, environment) = found(&programs, case.program)?;
            let event = (case.event)()?;
            let since = Instant::now();
            let (mut sandbox, _) = Sandbox::start(binary, environment, &log(case.program)).await?;
            let answer = sandbox.call(&event).await?;
            findings.firsts.entry(case.program).or_default().push(millis(since.elapsed()));
            judge(case, &answer.answer)?;
        }
    }

    say("  warm calls ...\n");
    let mut sandboxes = BTreeMap::new();
    for case in &cases {
        if !sandboxes.contains_key(case.program) {
            let (binary, environment) = found(&programs, case.program)?;
            sandboxes.insert(case.program, Sandbox::start(binary, environment, &log(case.program)).await?.0);
        }
        findings.cases.push((case.name, Tally::default()));
    }
    let signature = bare_signatures(&worlds.local.algorithm())?;
    let round_trips = RoundTrips::new(&found(&programs, SIGNING)?.1)?;
    for _ in 0..effort.rounds {
        for (case, (_, tally)) in cases.iter().zip(&mut findings.cases) {
            let sandbox = sandboxes.get_mut(case.program).ok_or_else(|| io::Error::other("no sandbox"))?;
            block(case, sandbox, effort.block.min(case.block), tally)
                .await
                .map_err(|error| named(case.name, &error))?;
        }
        for _ in 0..5 {
            findings.bare_field.push(bare_fields(1_000)?);
            findings.bare_signature.push(signature(20)?);
            findings.bare_round_trip.push(round_trips.take(20).await?);
        }
    }
    for (name, sandbox) in &sandboxes {
        findings.memory.insert(name, sandbox.peak_memory()?);
    }
    Ok(findings)
}

/// Runs the blocks of one case alone for as long as `lasts`, for whoever looks at it with a profiler.
pub(crate) async fn only(worlds: &Worlds, logs: &Path, name: &str, lasts: Duration) -> io::Result<Tally> {
    std::fs::create_dir_all(logs)?;
    let programs = programs(worlds)?;
    let log = |name: &str| logs.join(format!("{name}.log"));
    let cases = cases(worlds, &programs, &log).await?;
    let names = || cases.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    let case = cases.iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| io::Error::other(format!("no case {name}; there are: {}", names())))?;
    let (binary, environment) = found(&programs, case.program)?;
    let (mut sandbox, _) = Sandbox::start(binary, environment, &log(case.program)).await?;
    let (since, mut tally) = (Instant::now(), Tally::default());
    while since.elapsed() < lasts {
        block(case, &mut sandbox, case.block, &mut tally).await?;
    }
    Ok(tally)
}

/// Every program that is measured with its environment.
fn programs(worlds: &Worlds) -> io::Result<Programs> {
    let Worlds { world, local, laden } = worlds;
    let mut programs = BTreeMap::new();
    for name in [FLOOR, BARE] {
        programs.insert(name, world.plain_environment(name)?);
    }
    for name in DEPLOYMENTS {
        programs.insert(name, world.environment(name)?);
    }
    programs.insert(SIGNING, local.environment("token")?);
    for laden in laden {
        let (binary, mut environment) = world.environment("authorizer")?;
        environment.insert("AWS_ENDPOINT_URL_S3".to_owned(), laden.url.clone());
        programs.insert(laden.program, (binary, environment));
    }
    programs.append(&mut peers::programs(worlds)?);
    Ok(programs)
}

/// One block of calls. The first calls are not counted: after a pause a function reads its trust objects again. The block
/// ends before they are due once more, so that what is counted is what a warm call costs.
pub(crate) async fn block(case: &Case<'_>, sandbox: &mut Sandbox, size: usize, tally: &mut Tally) -> io::Result<()> {
    // What is asked is made beforehand: signing a token takes longer than checking it.
    let warming = WARMING.min(size);
    let events = (0..size + warming).map(|_| (case.event)()).collect::<io::Result<Vec<_>>>()?;
    let (warming, counted) = events.split_at(warming);
    let since = Instant::now();
    for event in warming {
        judge(case, &sandbox.call(event).await?.answer)?;
    }
    let (outside, processor, before) = (Outside::of(case), sandbox.processor_time()?, tally.calls);
    let first = tally.took.len();
    for event in counted {
        if since.elapsed() > FRESH && tally.calls > before {
            break;
        }
        let call = sandbox.call(event).await?;
        tally.took.push(call.took.as_secs_f64() * 1e6);
        tally.calls += 1;
        judge(case, &call.answer)?;
    }
    let processor = sandbox.processor_time()?.saturating_sub(processor);
    tally.processor += processor;
    let (p50, calls) = (quantile(tally.took.get(first..).unwrap_or_default(), 0.5), tally.calls - before);
    tally.blocks.push(Block { p50, processor: processor as f64 / 1e3 / calls.max(1) as f64 });
    tally.outside = tally.outside.plus(Outside::of(case).minus(outside));
    Ok(())
}

async fn cases<'a>(
    worlds: &'a Worlds,
    programs: &Programs,
    log: &impl Fn(&str) -> PathBuf,
) -> io::Result<Vec<Case<'a>>> {
    let Worlds { world, local, laden } = worlds;
    let mut cases = plain_cases(world, local, programs, log).await?;
    for laden in laden {
        cases.extend(laden_cases(world, laden)?);
    }
    cases.extend(peers::cases(worlds, programs)?);
    Ok(cases)
}

async fn plain_cases<'a>(
    world: &'a World,
    local: &'a World,
    programs: &Programs,
    log: &impl Fn(&str) -> PathBuf,
) -> io::Result<Vec<Case<'a>>> {
    let token = world.token()?;
    let same = world.authorizer_event(&token);
    let (one, half, many) =
        (world.encrypt_event(&token, 1), world.encrypt_event(&token, 500), world.encrypt_event(&token, 1_000));
    let (binary, environment) = found(programs, "data-key-encrypt")?;
    let (mut encrypt, _) = Sandbox::start(binary, environment, &log("data-key-encrypt")).await?;
    let one_back = world.decrypt_event(&token, &encrypt.call(&one).await?.answer)?;
    let many_back = world.decrypt_event(&token, &encrypt.call(&many).await?.answer)?;
    drop(encrypt);
    let fixed = |event: Vec<u8>| Box::new(move || Ok(event.clone()));
    let ok = |answer: &Value| answer["statusCode"] == 200;
    let (upload, form) = (world.upload_event(&token), world.form_event(&token));
    let (plan, parts) = (world.plan_event(&token), world.parts_event(&token));
    let created = |answer: &Value| answer["statusCode"] == 201;
    let metadata = world.download_event(&token, "/files/{id}");
    let content = world.download_event(&token, "/files/{id}/content");
    let new = move || Ok(world.authorizer_event(&world.token()?));
    let case = |name, program, block, event, right| Case { name, program, world, laden: None, block, event, right };
    let signing: Box<dyn Fn() -> io::Result<Vec<u8>>> = Box::new(|| local.token_event());
    Ok(vec![
        case(FLOOR, FLOOR, 400, fixed(same.clone()), |_| true),
        case(BARE, BARE, 400, Box::new(new), |answer| answer["verified"] == true),
        case("authorizer, new token", "authorizer", 400, Box::new(new), allow),
        case("authorizer, token seen before", "authorizer", 400, fixed(same), allow),
        case("token", "token", 100, Box::new(|| world.token_event()), ok),
        Case { world: local, ..case(SIGNING, SIGNING, 100, signing, ok) },
        case("upload", "upload", 100, fixed(upload), created),
        case("upload, form", "upload", 100, fixed(form), created),
        case("upload, plan of 10,000 parts", "upload", 100, fixed(plan), created),
        case("upload, 500 part URLs", "upload", 20, fixed(parts), ok),
        case("download, metadata", "download", 100, fixed(metadata), ok),
        case("download, content", "download", 100, fixed(content), |answer| answer["statusCode"] == 302),
        case("encrypt 1", "data-key-encrypt", 200, fixed(one), ok),
        case("encrypt 500", "data-key-encrypt", 40, fixed(half), ok),
        case("encrypt 1,000", "data-key-encrypt", 20, fixed(many), ok),
        case("decrypt 1", "data-key-decrypt", 200, fixed(one_back), ok),
        case("decrypt 1,000", "data-key-decrypt", 20, fixed(many_back), ok),
    ])
}

/// The authorizer beside very many revocations and a number of policies: a token nobody has seen of a client that was answered before,
/// one of a client that nobody has seen either, and the same token again.
fn laden_cases<'a>(world: &'a World, laden: &'a Laden) -> io::Result<Vec<Case<'a>>> {
    let named = LADEN.iter().find(|(program, _)| *program == laden.program).map(|(_, names)| names);
    let [token, client, seen] = named.ok_or_else(|| io::Error::other("a program without cases"))?;
    let same = world.authorizer_event(&world.token()?);
    let case =
        |name, event| Case { name, program: laden.program, world, laden: Some(laden), block: 400, event, right: allow };
    Ok(vec![
        case(token, Box::new(move || Ok(world.authorizer_event(&world.token()?)))),
        case(client, Box::new(move || Ok(world.authorizer_event(&world.newcomer()?)))),
        case(seen, Box::new(move || Ok(same.clone()))),
    ])
}

pub(crate) fn allow(answer: &Value) -> bool {
    answer["policyDocument"]["Statement"][0]["Effect"] == "Allow"
}

/// Microseconds a field for sealing `count` fields with nothing around it.
fn bare_fields(count: usize) -> io::Result<f64> {
    let broken = |_| io::Error::other("the bench names a field wrongly");
    let (tenant, table) = (Tenant::parse("acme").map_err(broken)?, Identifier::parse("users").map_err(broken)?);
    let (column, row) = (Identifier::parse("email").map_err(broken)?, Row::parse("42").map_err(broken)?);
    let key = DataKey::parse(&[7; 32]).map_err(broken)?;
    let id = Uuid::from_u128(0x0198_e1a0_0000_7000_8000_0000_0000_0000);
    let context = Context { tenant: &tenant, table: &table, column: &column, row: &row, version: None };
    let since = Instant::now();
    for message in MessageIds::draw(count, &SystemEntropy) {
        let record = pc1::seal(&key, id, message, &context, &[b'x'; 64]);
        black_box(record.map_err(|_| io::Error::other("a field does not seal"))?);
    }
    Ok(since.elapsed().as_secs_f64() * 1e6 / count as f64)
}

/// Signs, and forgets the signature.
type Signs = Box<dyn Fn(&[u8]) -> io::Result<()>>;

/// What makes signatures with nothing around it, and says how many microseconds one takes.
fn bare_signatures(algorithm: &str) -> io::Result<impl Fn(u32) -> io::Result<f64> + use<>> {
    let broken = |_| io::Error::other("no bare signature");
    let random = SystemRandom::new();
    let sign: Signs = match algorithm {
        "RS256" => {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(broken)?;
            Box::new(move |input| {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, input, &mut signature).map_err(broken)?;
                black_box(signature);
                Ok(())
            })
        }
        "ES256" => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(broken)?;
            Box::new(move |input| {
                black_box(pair.sign(&random, input).map_err(broken)?);
                Ok(())
            })
        }
        other => return Err(io::Error::other(format!("no bare {other}"))),
    };
    Ok(move |count: u32| {
        let since = Instant::now();
        for _ in 0..count {
            sign(&[b'x'; 600])?;
        }
        Ok(since.elapsed().as_secs_f64() * 1e6 / f64::from(count))
    })
}

impl Outside {
    fn of(case: &Case<'_>) -> Self {
        let (world, program) = (case.world, case.program.split(' ').next().unwrap_or_default());
        let login = program.replace('-', "_");
        let s3 = case.laden.map_or(0, Laden::calls);
        let mut outside = Self { s3, round_trips: world.stack.proxy.round_trips(&login), ..Self::default() };
        // A session of a function's role is named after the function.
        let session = format!("/{}", function(program));
        for entry in world.stack.account.iam.trail() {
            if entry.principal.ends_with(&session) {
                match entry.service.as_str() {
                    "s3" => outside.s3 += 1,
                    "kms" => outside.kms += 1,
                    "sts" => outside.sts += 1,
                    "ssm" => outside.ssm += 1,
                    _ => {}
                }
            }
        }
        outside
    }

    fn minus(self, before: Self) -> Self {
        Self {
            s3: self.s3.saturating_sub(before.s3),
            kms: self.kms.saturating_sub(before.kms),
            sts: self.sts.saturating_sub(before.sts),
            ssm: self.ssm.saturating_sub(before.ssm),
            round_trips: self.round_trips.saturating_sub(before.round_trips),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            s3: self.s3 + other.s3,
            kms: self.kms + other.kms,
            sts: self.sts + other.sts,
            ssm: self.ssm + other.ssm,
            round_trips: self.round_trips + other.round_trips,
        }
    }
}

fn judge(case: &Case<'_>, answer: &[u8]) -> io::Result<()> {
    let value: Value = serde_json::from_slice(answer)?;
    if (case.right)(&value) {
        return Ok(());
    }
    let text: String = value.to_string().chars().take(300).collect();
    Err(io::Error::other(format!("{}: the answer is wrong: {text}", case.name)))
}

fn found<'a, T>(programs: &'a BTreeMap<&'static str, T>, name: &str) -> io::Result<&'a T> {
    programs.get(name).ok_or_else(|| io::Error::other(format!("no program {name}")))
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{name}: {error}"))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
