//! The floors of the house: who may depend on whom, one TLS stack, and licences we may ship.
//!
//! An allow-list over `cargo metadata` and a look at the imports of each `lib`: a new dependency is a visible diff here.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which packages of the house each package may link (dev-dependencies aside).
const HOUSE: &[(&str, &[&str])] = &[
    ("shared", &[]),
    ("aws", &["shared"]),
    ("kms", &["aws", "shared"]),
    ("s3", &["aws", "shared"]),
    ("ssm", &["aws", "shared"]),
    ("sts", &["aws", "shared"]),
    ("rds", &["aws", "shared"]),
    ("https", &["aws", "shared"]),
    ("cedar", &["shared"]),
    ("authorizer", &["aws", "cedar", "s3", "shared"]),
    ("token", &["aws", "cedar", "kms", "rds", "s3", "shared", "ssm"]),
    ("upload", &["aws", "rds", "s3", "shared", "sts"]),
    ("download", &["aws", "kms", "rds", "s3", "shared", "sts"]),
    ("data-key", &["aws", "kms", "rds", "s3", "shared"]),
    ("object-events", &["aws", "rds", "s3", "shared"]),
    ("trust", &["aws", "kms", "rds", "s3", "shared", "ssm"]),
    ("issuer-keys", &["aws", "https", "s3", "shared"]),
    ("admin", &["aws", "cedar", "rds", "s3", "shared"]),
    ("migrate", &["aws", "rds", "shared"]),
    ("testkit", &["shared"]),
    ("template", &[]),
    ("tunnel", &[]),
    ("invariants", &["template", "tunnel"]),
    ("deploy", &["invariants", "template"]),
    ("policy", &["cedar", "shared"]),
    ("local", &["template"]),
    ("system", &["local", "s3", "shared"]),
    ("bench", &["aws", "local", "rds", "shared"]),
    // A reader of the page has nothing of the house either.
    ("recipes", &[]),
    ("fleet", &[]),
    ("fuzz", &["cedar", "shared"]),
    ("soak", &["local"]),
];

/// Which SDK or driver each adapter may link; nobody else may link any.
const SDKS: &[(&str, &[&str])] = &[
    ("kms", &["aws-sdk-kms"]),
    ("s3", &["aws-sdk-s3"]),
    ("ssm", &["aws-sdk-ssm"]),
    ("sts", &["aws-sdk-sts"]),
    ("rds", &["aws-sdk-rds", "tokio-postgres", "tokio-postgres-rustls"]),
    ("cedar", &["cedar-policy"]),
    ("local", &["tokio-postgres"]),
    ("soak", &["tokio-postgres"]),
    ("recipes", &["postgres"]),
];

const NEVER_SHIPPED: &[&str] = &[
    // another cryptography library or TLS stack, another way out, roots from the machine
    "ring",
    "s2n-tls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "rsa",
    "h2",
    "reqwest",
    "rustls-native-certs",
    "aws-config",
    // what is for tests
    "local",
    "testkit",
    "system",
    "bench",
    "recipes",
    "postgres",
    "ureq",
    "fleet",
    "fuzz",
    "soak",
    "s3s",
    "rcgen",
    "iam-rs",
];

/// What one function may link and no other: trust in the public web belongs where the way out is.
const ONE_MAY: (&str, &[&str]) = ("issuer-keys", &["https", "webpki-roots"]);

const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

struct House {
    root: PathBuf,
    metadata: Value,
}

impl House {
    fn measure() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
            .current_dir(&root)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { root, metadata: serde_json::from_slice(&output.stdout).unwrap() }
    }

    fn packages(&self) -> BTreeMap<&str, &Value> {
        let packages = self.metadata["packages"].as_array().unwrap();
        packages.iter().map(|package| (package["id"].as_str().unwrap(), package)).collect()
    }

    fn members(&self) -> BTreeMap<&str, &Value> {
        let packages = self.packages();
        let ids = self.metadata["workspace_members"].as_array().unwrap();
        ids.iter().map(|id| packages[id.as_str().unwrap()]).map(|p| (p["name"].as_str().unwrap(), p)).collect()
    }

    fn functions(&self) -> Vec<&str> {
        let folder = self.root.join("functions");
        let is_function = |p: &&Value| Path::new(p["manifest_path"].as_str().unwrap()).starts_with(&folder);
        self.members().into_values().filter(is_function).map(|p| p["name"].as_str().unwrap()).collect()
    }

    /// What a package links or runs at build time: names with versions, over normal and build edges, with the features that
    /// are really on (the metadata's own graph lists some that are not).
    fn closure(&self, name: &str) -> BTreeSet<(String, String)> {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--package", name, "--edges", "normal,build", "--prefix", "none"])
            .args(["--format", "{p}", "--target", "x86_64-unknown-linux-gnu"])
            .current_dir(&self.root)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let named = |line: &str| {
            let (name, rest) = line.split_once(" v")?;
            Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
        };
        String::from_utf8(output.stdout).unwrap().lines().filter_map(named).collect()
    }
}

fn dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let all = package["dependencies"].as_array().unwrap();
    all.iter().filter(|d| d["kind"].as_str() != Some("dev")).map(|d| d["name"].as_str().unwrap())
}

#[test]
fn every_package_keeps_to_its_floor() {
    let house = House::measure();
    let members = house.members();
    let allowed: BTreeMap<_, _> = HOUSE.iter().copied().collect();
    assert_eq!(members.keys().copied().collect::<BTreeSet<_>>(), allowed.keys().copied().collect());
    for (name, package) in &members {
        for dependency in dependencies(package) {
            if members.contains_key(dependency) {
                assert!(allowed[name].contains(&dependency), "{name} may not depend on {dependency}");
            }
        }
    }
}

#[test]
fn each_adapter_has_one_sdk_and_nobody_else_has_any() {
    let house = House::measure();
    let allowed: BTreeMap<_, _> = SDKS.iter().copied().collect();
    for (name, package) in house.members() {
        for dependency in dependencies(package) {
            if ["aws-sdk-", "tokio-postgres", "postgres", "cedar-policy"].iter().any(|sdk| dependency.starts_with(sdk))
            {
                let own = allowed.get(name).copied().unwrap_or_default();
                assert!(own.contains(&dependency), "{name} may not link {dependency}");
            }
        }
    }
}

#[test]
fn the_decisions_of_a_function_see_shared_only() {
    let house = House::measure();
    let adapters = ["aws", "kms", "s3", "ssm", "sts", "rds", "https", "cedar"];
    for function in house.functions() {
        let package = house.members()[function];
        let source = Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("src");
        // The real world is main.rs and the modules that only main.rs has.
        let main = std::fs::read_to_string(source.join("main.rs")).unwrap();
        let real = |file: &Path| {
            let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap();
            name == "main" || main.lines().any(|line| line == format!("mod {name};"))
        };
        for file in walk(&source) {
            if real(&file) {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap();
                let seen = adapters.iter().find(|adapter| {
                    code.contains(&format!("use {adapter}::")) || code.contains(&format!(" {adapter}::"))
                });
                assert!(seen.is_none(), "{}:{}: only the real world may name an adapter", file.display(), number + 1);
            }
        }
    }
}

#[test]
fn what_ships_has_one_tls_stack_and_one_cryptography_library() {
    let house = House::measure();
    for function in house.functions() {
        let closure = house.closure(function);
        for name in ["rustls", "aws-lc-sys", "aws-lc-rs", "hyper"] {
            let versions: Vec<_> = closure.iter().filter(|(held, _)| held == name).collect();
            assert!(versions.len() <= 1, "{function} links {versions:?}");
        }
        for (name, version) in &closure {
            assert!(!NEVER_SHIPPED.contains(&name.as_str()), "{function} links {name} {version}");
            let reserved = ONE_MAY.1.contains(&name.as_str()) && function != ONE_MAY.0;
            assert!(!reserved, "{function} links {name} {version}, which is for {} alone", ONE_MAY.0);
        }
    }
    let mirror = house.closure(ONE_MAY.0);
    for name in ONE_MAY.1 {
        assert!(mirror.iter().any(|(held, _)| held == name), "{} has lost its {name}", ONE_MAY.0);
    }
    let authorizer = house.closure("authorizer");
    for name in ["rustls", "aws-lc-sys"] {
        assert!(authorizer.iter().any(|(held, _)| held == name), "the authorizer has lost its {name}");
    }
    assert!(!authorizer.iter().any(|(name, _)| name.contains("postgres")), "the authorizer links a database driver");
}

#[test]
fn everything_that_ships_has_a_licence_we_may_ship() {
    let house = House::measure();
    let packages = house.packages();
    let shipped: BTreeSet<_> = house.functions().into_iter().flat_map(|f| house.closure(f)).collect();
    for package in packages.values() {
        let name = (package["name"].as_str().unwrap().to_owned(), package["version"].as_str().unwrap().to_owned());
        if !shipped.contains(&name) {
            continue;
        }
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        // Every part of an AND must be ours to ship; of an OR one part suffices.
        let fits = licence
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|one| LICENCES.contains(&one.trim().trim_matches(['(', ')']).trim())));
        assert!(fits, "{name:?} is licensed {licence:?}");
    }
}

/// A crate from elsewhere is one that nobody can look up, and one without a digest may be another one tomorrow. `deny.toml` says the same to
/// `cargo deny`, with the same licences.
#[test]
fn every_crate_is_from_the_registry_with_its_digest_and_both_lists_of_licences_are_one() {
    let house = House::measure();
    let lock = std::fs::read_to_string(house.root.join("Cargo.lock")).unwrap();
    let fuzzed = std::fs::read_to_string(house.root.join("tests/fuzz/libfuzzer/Cargo.lock")).unwrap();
    for entry in [lock, fuzzed].iter().flat_map(|lock| lock.split("[[package]]").skip(1)) {
        let from = entry.lines().find_map(|line| line.strip_prefix("source = "));
        let known = matches!(from, None | Some("\"registry+https://github.com/rust-lang/crates.io-index\""));
        assert!(known && from.is_some() == entry.contains("\nchecksum = \""), "{entry}");
    }
    let rules = std::fs::read_to_string(house.root.join("deny.toml")).unwrap();
    let allowed = rules.split_once("\nallow = [\n").unwrap().1.split_once("\n]").unwrap().0;
    let allowed: Vec<&str> = allowed.lines().map(|line| line.trim().trim_matches([',', '"'])).collect();
    assert_eq!(allowed, LICENCES);
    for banned in NEVER_SHIPPED.iter().take_while(|name| **name != "local") {
        assert!(rules.contains(&format!("\"{banned}\"")), "deny.toml does not ban {banned}");
    }
}

#[test]
fn the_release_profile_leaves_nothing_for_a_tool_to_inject() {
    let house = House::measure();
    let manifest = std::fs::read_to_string(house.root.join("Cargo.toml")).unwrap();
    let release = manifest.split("[profile.release]").nth(1).unwrap();
    for line in ["panic = \"unwind\"", "strip = \"symbols\"", "lto = \"fat\"", "codegen-units = 1"] {
        assert!(release.contains(line), "[profile.release] must say {line}");
    }
    for function in house.functions() {
        let metadata = &house.members()[function]["metadata"];
        assert!(metadata["lambda"]["deploy"].is_null(), "{function} must leave its configuration to the template");
    }
}

#[test]
fn no_process_gathers_entropy_from_the_clock_of_the_processor() {
    let house = House::measure();
    let settings = std::fs::read_to_string(house.root.join(".cargo/config.toml")).unwrap();
    assert!(settings.contains("\nAWS_LC_SYS_NO_JITTER_ENTROPY = \"1\"\n"), "{settings}");
}

/// `cargo test --doc` reads a whole crate to find out that it has no example, and twenty-six of them are half a minute.
#[test]
fn a_crate_whose_examples_are_not_run_has_none() {
    let house = House::measure();
    let mut run = Vec::new();
    for (name, package) in house.members() {
        let targets = package["targets"].as_array().unwrap();
        let Some(library) = targets.iter().find(|target| target["kind"][0] == "lib") else { continue };
        if library["doctest"] == true {
            run.push(name);
            continue;
        }
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        for file in walk(&folder.join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let documentation = text
                .lines()
                .map(str::trim_start)
                .filter_map(|line| line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim_start));
            assert!(!has_example(documentation), "{}: `[lib] doctest = false` of {name} hides it", file.display());
        }
        let library = std::fs::read_to_string(folder.join("src/lib.rs")).unwrap();
        if library.contains("include_str!(\"../README.md\")") {
            let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
            assert!(!has_example(readme.lines()), "{name}: `[lib] doctest = false` hides an example of its README");
        }
    }
    assert_eq!(run, ["shared"]);
    for example in [&["```text", "```", "```"][..], &["```no_run", "```"], &["Thus:", "", "    let x = 1;"]] {
        assert!(has_example(example.iter().copied()), "{example:?}");
    }
    assert!(!has_example(["```sh", "", "    rustc", "```", "~~~json", "~~~"].into_iter()));
}

/// Whether there is a code block that rustdoc takes for Rust: fenced without another language, or indented by four.
fn has_example<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let words = ["rust", "ignore", "no_run", "should_panic", "compile_fail"];
    let (mut inside, mut blank) = (false, true);
    for line in lines {
        let fence = line.trim_start().strip_prefix("```").or_else(|| line.trim_start().strip_prefix("~~~"));
        match fence {
            Some(_) if inside => inside = false,
            Some(language) => {
                let mut languages = language.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty());
                if languages.all(|word| words.contains(&word) || word.starts_with("edition")) {
                    return true;
                }
                inside = true;
            }
            None if !inside && blank && line.starts_with("    ") && !line.trim().is_empty() => return true,
            None => {}
        }
        blank = line.trim().is_empty();
    }
    false
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
