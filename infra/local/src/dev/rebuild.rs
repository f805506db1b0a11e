//! A function whose source changes is built and takes the place of the one that runs. What fails to build changes nothing.
//!
//! The stack runs links to the programs that cargo built, in a folder of its own. A new program takes its link's place in one step, and the
//! pool then starts processes of it alone: an event that a process of the old one holds ends there, and no event waits for a build.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;

use crate::stack::Stack;

/// How often the sources are looked at. They count as changed once two looks have found the same.
const PERIOD: Duration = Duration::from_millis(400);
/// Folders and files, below the checkout, that every function is built from.
const OF_ALL: [&str; 5] = ["shared", "Cargo.toml", "Cargo.lock", "clippy.toml", "infra/aws/openapi.yaml"];
/// More files than this are not sources of ours.
const MOST: usize = 20_000;

/// The programs that a stack runs, by links that can be replaced. The folder goes with this.
#[derive(Debug)]
pub struct Programs {
    built: PathBuf,
    links: tempfile::TempDir,
}

impl Programs {
    /// Links to everything that can be executed in `built`, in a new folder below `run`.
    ///
    /// # Errors
    /// When a link, or where there can be none a copy, cannot be made.
    pub fn link(built: &Path, run: &Path) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::create_dir_all(run)?;
        let links = tempfile::Builder::new().prefix("programs-").tempdir_in(run)?;
        let programs = Self { built: built.to_path_buf(), links };
        for entry in std::fs::read_dir(built)?.flatten() {
            let executable =
                entry.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
            if let (true, Some(name)) = (executable, entry.file_name().to_str()) {
                programs.put(name)?;
            }
        }
        Ok(programs)
    }

    /// Where the links are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.links.path()
    }

    /// Puts the program that is built now at the place of the one before.
    ///
    /// # Errors
    /// When it is not there.
    pub fn put(&self, name: &str) -> io::Result<()> {
        let (from, to, aside) =
            (self.built.join(name), self.folder().join(name), self.folder().join(format!(".{name}.new")));
        let _ = std::fs::remove_file(&aside);
        if std::fs::hard_link(&from, &aside).is_err() {
            std::fs::copy(&from, &aside)?;
        }
        std::fs::rename(aside, to)
    }
}

/// What a source was when it was looked at.
type Looked = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// Looks at the sources below `checkout` from now on, builds what has changed with `cargo`, and puts it in place.
pub fn follow(
    stack: &Arc<Stack>,
    programs: Programs,
    cargo: String,
    checkout: PathBuf,
    say: fn(&str),
) -> JoinHandle<()> {
    let stack = Arc::clone(stack);
    // Before anybody can change anything.
    let mut built = look(&checkout);
    tokio::spawn(async move {
        let names = function_names(&checkout);
        let mut before = None;
        loop {
            tokio::time::sleep(PERIOD).await;
            let now = look(&checkout);
            if now != built && before.as_ref() == Some(&now) {
                let changed = changed(&built, &now);
                let affected = affected(&checkout, &names, &changed);
                built = now;
                before = None;
                if !affected.is_empty() {
                    build(&stack, &programs, &cargo, &checkout, &affected, say).await;
                }
            } else {
                before = Some(now);
            }
        }
    })
}

/// The functions, which are the folders below `functions`.
fn function_names(checkout: &Path) -> BTreeSet<String> {
    let folders = std::fs::read_dir(checkout.join("functions")).into_iter().flatten().flatten();
    folders
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn look(checkout: &Path) -> Looked {
    let mut looked = Looked::new();
    let mut folders: Vec<PathBuf> = OF_ALL.iter().chain(&["functions"]).map(|name| checkout.join(name)).collect();
    while let Some(path) = folders.pop() {
        let Ok(data) = std::fs::metadata(&path) else { continue };
        let hidden = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with('.') || name == "target");
        if data.is_dir() && !hidden {
            folders.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if data.is_file() && !hidden && looked.len() < MOST {
            looked.insert(path, (data.modified().ok(), data.len()));
        }
    }
    looked
}

fn changed(before: &Looked, now: &Looked) -> BTreeSet<PathBuf> {
    let new = now.iter().filter(|(path, data)| before.get(*path) != Some(*data));
    let gone = before.iter().filter(|(path, _)| !now.contains_key(*path));
    new.chain(gone).map(|(path, _)| path.clone()).collect()
}

/// The functions that are built from these files. Tests and texts beside a source change no program.
fn affected(checkout: &Path, names: &BTreeSet<String>, changed: &BTreeSet<PathBuf>) -> BTreeSet<String> {
    let mut affected = BTreeSet::new();
    for path in changed {
        let path = path.strip_prefix(checkout).unwrap_or(path);
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let text = path.extension().is_some_and(|extension| extension == "md");
        match parts.as_slice() {
            ["functions", _, "tests", ..] | ["shared", "tests", ..] => {}
            _ if text => {}
            ["functions", name, ..] if names.contains(*name) => {
                affected.insert((*name).to_owned());
            }
            ["functions", ..] => {}
            _ => return names.clone(),
        }
    }
    affected
}

async fn build(
    stack: &Arc<Stack>,
    programs: &Programs,
    cargo: &str,
    checkout: &Path,
    affected: &BTreeSet<String>,
    say: fn(&str),
) {
    let tell = |level: &'static str, text: &str| {
        stack.account.view.notice(stack.account.clock.now(), level, text);
        say(&format!("{text}\n"));
    };
    let list = affected.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    tell("info", &format!("building {list} ..."));
    let since = Instant::now();
    let mut command = tokio::process::Command::new(cargo);
    // The features of the workspace: any other choice would compile the SDKs again.
    command.args(["build", "--workspace", "--locked", "--quiet", "--color", "never"]);
    command.args(affected.iter().flat_map(|name| ["--bin", name]));
    command.current_dir(checkout).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let said = match command.output().await {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("{cargo}: {error}")),
    };
    if let Some(said) = said {
        tell("error", &format!("{list}: not built, what ran before goes on\n{}", said.trim_end()));
        return;
    }
    for name in affected {
        if let Err(error) = programs.put(name) {
            tell("error", &format!("{name}: built, and not put in place: {error}"));
            return;
        }
    }
    let run: Vec<String> = stack.lambda.functions().map(str::to_owned).collect();
    for function in run {
        let program = stack.lambda.binary(&function);
        let program = program.as_ref().and_then(|path| path.file_name()?.to_str());
        if program.is_some_and(|program| affected.contains(program)) {
            stack.lambda.renew(&function).await;
        }
    }
    tell("info", &format!("{list}: built and put in place after {:.1} s", since.elapsed().as_secs_f64()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_decides_what_is_built() {
        let checkout = Path::new("/c");
        let names: BTreeSet<String> = ["token", "upload"].map(str::to_owned).into();
        let of = |paths: &[&str]| affected(checkout, &names, &paths.iter().map(|path| checkout.join(path)).collect());
        assert_eq!(of(&["functions/token/src/lib.rs"]), ["token".to_owned()].into());
        assert_eq!(of(&["functions/token/Cargo.toml", "functions/upload/build.rs"]), names);
        assert_eq!(
            of(&["functions/token/tests/x.rs", "functions/token/README.md", "functions/gone/src/x.rs"]),
            BTreeSet::new()
        );
        for all in ["shared/src/jwt.rs", "shared/adapters/kms/src/lib.rs", "Cargo.lock", "infra/aws/openapi.yaml"] {
            assert_eq!(of(&[all]), names, "{all}");
        }
    }

    #[test]
    fn a_change_is_a_file_that_is_new_other_or_gone() {
        let file = |name: &str, length| (PathBuf::from(name), (None, length));
        let before: Looked = [file("a", 1), file("b", 1), file("c", 1)].into();
        let now: Looked = [file("a", 1), file("b", 2), file("d", 1)].into();
        assert_eq!(changed(&before, &now), ["b", "c", "d"].map(PathBuf::from).into());
    }

    #[test]
    fn a_link_is_replaced_in_one_step_and_who_runs_the_old_program_keeps_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let (built, run) = (home.path().join("built"), home.path().join("run"));
        std::fs::create_dir(&built).unwrap();
        let write = |text: &str| {
            let _ = std::fs::remove_file(built.join("token"));
            std::fs::write(built.join("token"), text).unwrap();
            std::fs::set_permissions(built.join("token"), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        write("old");
        std::fs::write(built.join("token.d"), "not a program").unwrap();
        let programs = Programs::link(&built, &run).unwrap();
        let link = programs.folder().join("token");
        let held = std::fs::File::open(&link).unwrap();
        write("new");
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "old", "until it is put in place");
        programs.put("token").unwrap();
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "new");
        assert_eq!(std::io::read_to_string(held).unwrap(), "old");
        assert!(!programs.folder().join("token.d").exists());
        assert!(programs.put("gone").is_err());
        let folder = programs.folder().to_path_buf();
        drop(programs);
        assert!(!folder.exists());
    }
}
