//! What is measured, allowed and assumed; the runs; and the tables made of them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::event::Seconds;
use crate::model::{Fleet, Function, Kind, Load, Outcome, Peaks, Quotas, Refusal, Signs, Waits, run};

/// What the bench measured, checked in.
pub const PARAMETERS: &str = include_str!("../parameters.json");
/// Where the tables stand on the page.
pub const BEGIN: &str = "<!-- what the simulation prints -->\n";
/// And where they end.
pub const END: &str = "<!-- end of what the simulation prints -->\n";

/// A function of 1,769 MB has one processor, and one of less has its part.
const WHOLE: f64 = 1_769.0;
/// Memory of the templates, MB.
const MEMORY: [(&str, f64); 6] = [
    ("authorizer", 256.0),
    ("token", 256.0),
    ("token (SSM)", 256.0),
    ("upload", 256.0),
    ("download", 256.0),
    ("data-key-encrypt", 512.0),
];
/// What a new environment takes before our program starts: assumed.
const PLATFORM: Seconds = 0.1;
/// The network and the service behind it: assumed.
const WAITS: Waits =
    Waits { s3: 0.010, kms: 0.010, ssm: 0.010, statement: 0.001, statement_fixed: false, fresh: 5.0, patience: 5.0 };
/// As an account has them at first, in the larger regions.
pub const QUOTAS: Quotas = Quotas {
    gateway: (10_000.0, 5_000.0),
    concurrency: 1_000,
    invocations: 10_000.0,
    growth: (100.0, 1_000.0),
    kms: 1_000.0,
    ssm: 40.0,
    s3: 5_500.0,
    // 90 of a hundred of the 112 that a db.t4g.micro takes.
    connections: 100,
};
/// Requests a second.
const RATES: [f64; 9] = [10.0, 100.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0];
/// A cold fleet's first seconds are looked at by themselves.
const COLD: Seconds = 5.0;
const SEED: u64 = 2_026;

/// The fleet of the deployment, with these quotas.
///
/// # Errors
/// When a figure is missing in the parameters.
pub fn fleet(parameters: &Value, quotas: Quotas, ssm: bool) -> Result<Fleet, String> {
    let function = |name: &'static str, statements, signs, objects| -> Result<Function, String> {
        let figure = |what: &str| {
            let found = parameters.pointer(&format!("/measured/{name}/{what}")).and_then(Value::as_f64);
            found.ok_or_else(|| format!("no {what} of {name}"))
        };
        let memory = MEMORY.iter().find(|(one, _)| *one == name).map_or(WHOLE, |(_, memory)| *memory);
        let slower = WHOLE / memory;
        let (work, start, first) =
            (figure("processor_us")? / 1e6, figure("start_ms")? / 1e3, figure("first_answer_ms")? / 1e3);
        // Until the first poll an environment has a whole processor.
        let cold = PLATFORM + start + (first - start - work).max(0.0) * slower;
        Ok(Function { name, work: work * slower, cold, statements, signs, objects })
    };
    let token = if ssm { function("token (SSM)", 1, Signs::Ssm, 0)? } else { function("token", 1, Signs::Kms, 0)? };
    Ok(Fleet {
        functions: vec![
            function("authorizer", 0, Signs::Nothing, 6)?,
            token,
            function("upload", 1, Signs::Nothing, 2)?,
            function("download", 1, Signs::Nothing, 2)?,
            function("data-key-encrypt", 0, Signs::Nothing, 2)?,
        ],
        kinds: vec![
            Kind { share: 550, gated: true, function: None },
            Kind { share: 100, gated: false, function: Some(1) },
            Kind { share: 50, gated: true, function: Some(2) },
            Kind { share: 150, gated: true, function: Some(3) },
            Kind { share: 150, gated: true, function: Some(4) },
        ],
        waits: WAITS,
        quotas,
    })
}

/// Everything that the program prints.
///
/// # Errors
/// When the parameters are incomplete.
pub fn print(parameters: &str) -> Result<String, String> {
    let parameters: Value = serde_json::from_str(parameters).map_err(|error| error.to_string())?;
    let mut out = String::new();
    functions(&mut out, &fleet(&parameters, QUOTAS, false)?);
    let (held, lifted) = (fleet(&parameters, QUOTAS, false)?, fleet(&parameters, Quotas::LIFTED, false)?);
    let held: Vec<_> = RATES.iter().map(|rate| (*rate, measured(&held, *rate))).collect();
    let lifted: Vec<_> = RATES.iter().map(|rate| (*rate, measured(&lifted, *rate))).collect();
    as_allowed(&mut out, &held);
    as_asked(&mut out, &lifted);
    bites(&mut out, &lifted);
    bursts(&mut out, &parameters)?;
    Ok(out)
}

fn measured(fleet: &Fleet, rate: f64) -> Outcome {
    // Few requests say little, and many say it soon.
    let lasts = if rate < 1_000.0 { 60.0 } else { COLD + 5.0 };
    run(fleet, Load::Rate(rate, lasts), COLD, SEED)
}

fn functions(out: &mut String, fleet: &Fleet) {
    let _ = writeln!(
        out,
        "| function | a warm call, on its share of a processor | a new environment, besides |\n|---|---|---|"
    );
    for function in &fleet.functions {
        let _ = writeln!(out, "| {} | {} | {} |", function.name, time(function.work), time(function.cold));
    }
}

fn as_allowed(out: &mut String, runs: &[(f64, Outcome)]) {
    let _ = writeln!(
        out,
        "\n**With an account's first quotas.**\n\n| requests a second | answered, first {COLD:.0} s | answered, after | p50 | p99 | refused after, of a hundred |\n|---|---|---|---|---|---|"
    );
    for (rate, outcome) in runs {
        let [cold, warm] = &outcome.parts;
        let share = |part: &crate::model::Part| 100.0 * part.served as f64 / part.came().max(1) as f64;
        let mut refused: Vec<(Refusal, f64)> = Refusal::ALL
            .into_iter()
            .map(|refusal| (refusal, 100.0 * warm.refused_by(refusal) as f64 / warm.came().max(1) as f64))
            .filter(|(_, share)| *share >= 0.05)
            .collect();
        refused.sort_by(|one, other| other.1.total_cmp(&one.1));
        let refused: Vec<String> =
            refused.iter().map(|(refusal, share)| format!("{} {share:.1}", name(*refusal))).collect();
        let _ = writeln!(
            out,
            "| {} | {:.1} % | {:.1} % | {} | {} | {} |",
            number(*rate),
            share(cold),
            share(warm),
            time(warm.quantile(0.5)),
            time(warm.quantile(0.99)),
            if refused.is_empty() { "none".to_owned() } else { refused.join(", ") },
        );
    }
}

fn as_asked(out: &mut String, runs: &[(f64, Outcome)]) {
    let _ = writeln!(
        out,
        "\n**With no quota at all: the most that was asked for within a second (at once, where it says so), the cold start included.**\n\n\
         | requests a second | API Gateway | Lambda, calls | Lambda, at once | new environments of a function | environments | KMS | S3 | connections at once |\n|---|---|---|---|---|---|---|---|---|"
    );
    for (rate, outcome) in runs {
        let peaks = outcome.peaks;
        let cells = [
            peaks.gateway,
            peaks.invocations,
            peaks.concurrency,
            peaks.growth,
            peaks.environments,
            peaks.kms,
            peaks.s3,
            peaks.connections,
        ];
        let cells: Vec<String> = cells.into_iter().map(|count| number(count as f64)).collect();
        let _ = writeln!(out, "| {} | {} |", number(*rate), cells.join(" | "));
    }
}

/// Of each quota: from which rate on it is not enough, and what a hundred thousand would need.
fn bites(out: &mut String, runs: &[(f64, Outcome)]) {
    type Asked = fn(&Peaks) -> u64;
    let quotas: [(&str, f64, Asked); 7] = [
        ("Lambda: calls a second", QUOTAS.invocations, |peaks| peaks.invocations),
        ("Lambda: new environments of a function, at once", QUOTAS.growth.1, |peaks| peaks.growth),
        ("Lambda: at once", QUOTAS.concurrency as f64, |peaks| peaks.concurrency),
        ("API Gateway: requests a second", QUOTAS.gateway.0, |peaks| peaks.gateway),
        ("KMS: RSA signatures a second", QUOTAS.kms, |peaks| peaks.kms),
        ("S3: objects read a second of one prefix", QUOTAS.s3, |peaks| peaks.s3),
        ("the database: connections", QUOTAS.connections as f64, |peaks| peaks.connections),
    ];
    let mut lines: Vec<(f64, String)> = quotas
        .into_iter()
        .map(|(quota, allowed, asked)| {
            let need = |at: &(f64, Outcome)| asked(&at.1.peaks) as f64;
            let over = runs.iter().find(|run| need(run) > allowed);
            // As much a request as at that rate.
            let from = over.map(|run| run.0 * allowed / need(run));
            let most = runs.last().map_or(0.0, need);
            let said =
                from.map_or("not within 100,000".to_owned(), |from| format!("about {}", number(two_digits(from))));
            let line = format!("| {quota} | {} | {said} | {} |", number(allowed), number(two_digits(most * 1.25)));
            (from.unwrap_or(f64::INFINITY), line)
        })
        .collect();
    lines.sort_by(|one, other| one.0.total_cmp(&other.0));
    let _ = writeln!(
        out,
        "\n**Which bites first.** From this rate on the quota is less than what is asked of it; the last column is a quarter more than 100,000 requests a second ask.\n\n\
         | quota | at first | bites from, requests a second | for 100,000 |\n|---|---|---|---|"
    );
    for (_, line) in lines {
        let _ = writeln!(out, "{line}");
    }
}

/// A thousand requests for tokens in one moment, and no environment there.
fn bursts(out: &mut String, parameters: &Value) -> Result<(), String> {
    let _ = writeln!(
        out,
        "\n**A thousand clients ask for a token in one moment, and no environment is there.**\n\n| keys in | answered | told to come back | p50 | p99 |\n|---|---|---|---|---|"
    );
    for (name, ssm, rate) in [
        ("KMS", false, 40.0),
        ("SSM, 40 a second", true, 40.0),
        ("SSM, 10,000 a second (higher throughput)", true, 10_000.0),
    ] {
        let mut fleet = fleet(parameters, Quotas { ssm: rate, ..QUOTAS }, ssm)?;
        fleet.kinds.retain(|kind| kind.function == Some(1));
        for kind in &mut fleet.kinds {
            kind.share = 1_000;
        }
        let outcome = run(&fleet, Load::AtOnce(1_000), f64::INFINITY, SEED);
        let [part, _] = &outcome.parts;
        let cells = [
            name.to_owned(),
            part.served.to_string(),
            (part.came() - part.served).to_string(),
            time(part.quantile(0.5)),
            time(part.quantile(0.99)),
        ];
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    Ok(())
}

/// The parameters of another run of the bench.
///
/// # Errors
/// When the run lacks one of the functions.
pub fn taken(bench: &str) -> Result<String, String> {
    let bench: Value = serde_json::from_str(bench).map_err(|error| error.to_string())?;
    let cases = [
        ("authorizer", "authorizer, new token"),
        ("token", "token"),
        ("token (SSM)", "token (SSM)"),
        ("upload", "upload"),
        ("download", "download, content"),
        ("data-key-encrypt", "encrypt 1"),
    ];
    let mut measured = serde_json::Map::new();
    for (program, case) in cases {
        let figure = |part: &str, of: &str, what: &str| {
            let found =
                bench.get(part).and_then(|part| part.get(of)).and_then(|one| one.get(what)).and_then(Value::as_f64);
            found.ok_or_else(|| format!("the run has no {what} of {of}"))
        };
        let one = json!({"processor_us": figure("cases", case, "processor_us")?, "start_ms": figure("programs", program, "start_ms")?,
            "first_answer_ms": figure("programs", program, "first_answer_ms")?});
        measured.insert(program.to_owned(), one);
    }
    let machine = bench.get("machine").and_then(Value::as_str).unwrap_or("unknown");
    let source = format!(
        "a run of `make bench` on {machine}; `cargo run --package fleet -- take .local/bench.json` takes those of another"
    );
    Ok(format!("{:#}\n", json!({"source": source, "measured": measured})))
}

/// The page with these tables in their place.
#[must_use]
pub fn replaced(page: &str, tables: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{tables}\n{END}{tail}"))
}

fn name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Gateway => "API Gateway",
        Refusal::Concurrency => "Lambda at once",
        Refusal::Invocations => "Lambda calls",
        Refusal::Growth => "Lambda growth",
        Refusal::Kms => "KMS",
        Refusal::Ssm => "SSM",
        Refusal::S3 => "S3",
        Refusal::Database => "database",
    }
}

fn time(seconds: Seconds) -> String {
    let millis = seconds * 1e3;
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{} ms", number(millis)) }
}

/// Whole, with commas.
fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What is known so roughly is said so.
fn two_digits(value: f64) -> f64 {
    if value < 1.0 {
        return value;
    }
    let unit = 10.0_f64.powf(value.log10().floor() - 1.0);
    (value / unit).round() * unit
}
