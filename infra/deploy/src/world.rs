//! What the decisions here need of the outside: other programs, the time, a person.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The outside, as the process has it or as a test makes it.
#[derive(Clone, Copy)]
pub struct World<'w> {
    /// The checkout.
    pub root: &'w Path,
    /// The environment of the process.
    pub environment: &'w BTreeMap<String, String>,
    /// Runs other programs.
    pub programs: &'w dyn Programs,
    /// Says what time it is, and waits.
    pub clock: &'w dyn Clock,
    /// Whoever typed the command.
    pub console: &'w dyn Console,
}

impl fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("root", &self.root).finish_non_exhaustive()
    }
}

impl World<'_> {
    /// A path below the checkout.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// A variable of the environment; an empty one counts as absent.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// One line for the person.
    pub fn say(&self, line: impl AsRef<str>) {
        self.console.say(line.as_ref());
    }
}

/// One run of another program. Arguments are handed over one by one: no shell reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The program, by name or by path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What is added to the environment.
    pub environment: Vec<(String, String)>,
    /// Whether the program speaks to the person itself; its output is then not returned.
    pub shown: bool,
}

impl Call {
    /// A call of `program` with `arguments`.
    pub fn new<A: Into<String>>(program: impl Into<String>, arguments: impl IntoIterator<Item = A>) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// How another program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status; −1 where a signal ended it.
    pub status: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// Runs other programs.
pub trait Programs {
    /// Runs one to its end.
    ///
    /// # Errors
    /// When it cannot be started: `NotFound` means that it is not installed.
    fn run(&self, call: &Call) -> io::Result<Answer>;
}

/// Time.
pub trait Clock {
    /// Seconds since 1970.
    fn now(&self) -> u64;
    /// Lets seconds pass.
    fn wait(&self, seconds: u64);
}

/// A person at a terminal, or a log.
pub trait Console {
    /// Shows one line.
    fn say(&self, line: &str);
    /// Asks for one line; `None` where nobody can answer.
    fn ask(&self, question: &str) -> Option<String>;
}
