//! The page and the plot that `scripts/bench-page` makes of what a run left, on a run that never was.

#![allow(clippy::unwrap_used, reason = "helpers outside of #[test] functions; a test may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

const PEERS: [&str; 3] = ["python-floor", "python-presign", "node-token"];

/// As `report.rs` writes it, with one peer that is not installed.
fn run() -> Value {
    let program = |ms: f64| {
        json!({"start_ms": ms, "start_ms_p10": ms * 0.9, "start_ms_p90": ms * 1.5, "start_over_floor": ms,
            "first_answer_ms": ms * 10.0, "peak_memory_mb": 10.0})
    };
    let case = |us: f64| {
        json!({"p50_us": us, "p50_us_blocks": [us * 0.9, us * 1.2], "processor_us_blocks": [us, us], "p99_us": us * 2.0,
            "processor_us": us, "calls": 500, "outside": {"s3": 0, "kms": 1, "sts": 0, "ssm": 0, "round_trips": 1}})
    };
    let ours = ["floor", "authorizer", "token", "data-key-encrypt"].into_iter();
    let programs: Map<String, Value> = ours
        .chain(["python-floor", "python-presign"])
        .zip(1_u8..)
        .map(|(name, ms)| (name.to_owned(), program(ms.into())))
        .collect();
    let asked = ["floor", "authorizer, new token", "token (SSM)", "encrypt 1,000", "python-floor", "python-presign"];
    let cases: Map<String, Value> =
        asked.into_iter().zip(1_u16..).map(|(name, at)| (name.to_owned(), case((at * 100).into()))).collect();
    let peers = PEERS.map(|name| match name {
        "node-token" => json!({"name": name, "installed": false}),
        _ => json!({"name": name, "installed": true, "asked": "a URL for one PUT", "start_ms": 120.0, "peak_memory_mb": 50.0,
            "p50_us": 500.0, "own_processor_us": 420.0, "to_ours": {"start": 80.0, "memory": 4.0, "wait": 0.5, "own_processor": 21.0}}),
    });
    json!({"machine": "2 cores, <of a test>", "programs": programs, "cases": cases, "bare_field_us": 2.0, "bare_signature_us": 237.0,
        "bare_round_trip_us": 36.0, "peers": peers, "wrong_counts": [],
        "goals": [{"what": "presign a PUT, us of a processor", "found": 20.0, "goal": 100.0, "allow": 100.0, "met": true}]})
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_xml(file: &Path) -> bool {
    let mut parse = Command::new("python3");
    parse.args(["-c", "import sys, xml.dom.minidom as one; one.parse(sys.argv[1])"]).arg(file);
    parse.status().unwrap().success()
}

#[test]
fn the_page_and_the_plot_are_made_of_a_run() {
    let root = root();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-page");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("run.json"), run().to_string()).unwrap();
    fs::write(folder.join("bench.md"), "above\n\n## Figures\n\nold\n<!-- end of figures -->\nbelow\n").unwrap();
    let mut script = Command::new("python3");
    script.arg(root.join("scripts/bench-page")).arg("--from").arg(folder.join("run.json")).arg("--into").arg(&folder);
    let output = script.arg("On this machine.").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let page = fs::read_to_string(folder.join("bench.md")).unwrap();
    assert!(
        page.starts_with("above\n\n## Figures\n\nOn this machine.\n")
            && page.ends_with("<!-- end of figures -->\nbelow\n")
    );
    assert!(!page.contains("old"));
    for line in [
        "| floor | 1.00 ms | 0.90 to 1.50 ms | 1.00x | 10.0 ms | 10.0 MB |",
        "| token (SSM) | 300 us | 270 us to 360 us | 600 us | 300 us | 1 KMS, 1 database |",
        "| python-presign | a URL for one PUT | 120 ms **80.0x** | 50 MB **4.0x** | 500 us **0.5x** | 540 us to 720 us | 420 us **21.0x** |",
        "Not installed on that machine, and not measured: node-token.",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    // A peer's start stands in its own table only.
    assert_eq!(page.matches("| python-presign |").count(), 1);

    let plot = fs::read_to_string(folder.join("bench.svg")).unwrap();
    for text in [
        "Python, boto3",
        "Portcullis: token",
        "420 us",
        "20 us",
        "2 cores, &lt;of a test&gt;",
        "prefers-color-scheme: dark",
    ] {
        assert!(plot.contains(text), "{text}");
    }
    assert!(!plot.contains("oidc-provider") && !plot.contains("http://fonts") && !plot.contains("@import"));
    assert!(is_xml(&folder.join("bench.svg")));
}

#[test]
fn what_grows_has_a_table_and_a_plot() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale-page");
    fs::create_dir_all(&folder).unwrap();
    let point = |at: u64, us: f64| json!({"at": at, "first_answer_ms": 12.0, "p50_us": us, "processor_us": us, "peak_memory_mb": 12.0});
    let axes = json!([
        {"axis": "revocations", "asked": "a decision", "points": [point(0, 150.0), point(1_000_000, 155.0)]},
        {"axis": "environments at once", "asked": "a decision",
            "points": [{"at": 8, "p50_us": 20_000.0, "processor_us": 140.0, "peak_memory_mb": 96.0, "calls_a_second": 12_345.6}]},
        {"axis": "clients in the database", "asked": "a token", "points": []},
    ]);
    fs::write(folder.join("run.json"), json!({"machine": "2 cores", "axes": axes}).to_string()).unwrap();
    let page = fs::read_to_string(root().join("docs/scale.md")).unwrap();
    fs::write(folder.join("scale.md"), &page).unwrap();
    let mut script = Command::new("python3");
    script.arg(root().join("scripts/scale-page")).arg("--from").arg(folder.join("run.json")).arg("--into").arg(&folder);
    let output = script.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let found = fs::read_to_string(folder.join("scale.md")).unwrap();
    for line in [
        "| revocations | a decision | 0 | 12.0 ms | 150 us | 150 us | 12.0 MB |  |",
        "| revocations | a decision | 1,000,000 | 12.0 ms | 155 us | 155 us | 12.0 MB |  |",
        "| environments at once | a decision | 8 |  | 20.0 ms | 140 us | 96.0 MB | 12,346 |",
    ] {
        assert!(found.lines().any(|one| one == line), "{line}\n{found}");
    }
    // What the simulation found stays.
    let simulated = |page: &str| page.split_once("## A fleet, simulated").unwrap().1.to_owned();
    assert_eq!(simulated(&found), simulated(&page));
    assert!(is_xml(&folder.join("scale.svg")));
}
