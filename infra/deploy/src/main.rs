//! `deploy`: one deployment of Portcullis, by the user's AWS CLI. `make help` lists what calls it.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deploy::world::{Answer, Call, Clock, Console, Programs, World};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the process's environment")]
    let environment =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let root = match std::env::current_dir() {
        Ok(root) => root,
        Err(error) => {
            Terminal.say(&format!("no current directory: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let world =
        World { root: &root, environment: &environment, programs: &Machine, clock: &Machine, console: &Terminal };
    ExitCode::from(deploy::command::run(world, &arguments).code())
}

struct Machine;

impl Programs for Machine {
    fn run(&self, call: &Call) -> io::Result<Answer> {
        let mut command = Command::new(&call.program);
        command.args(&call.arguments).envs(call.environment.iter().cloned()).stdin(Stdio::null());
        if call.shown {
            let status = command.status()?;
            return Ok(Answer { status: status.code().unwrap_or(-1), ..Answer::default() });
        }
        let output = command.output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Answer {
            status: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }
}

impl Clock for Machine {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time")]
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn wait(&self, seconds: u64) {
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

struct Terminal;

impl Console for Terminal {
    fn say(&self, line: &str) {
        // A closed pipe is no reason to stop in the middle of a deployment.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    fn ask(&self, question: &str) -> Option<String> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let mut out = io::stdout().lock();
        let _ = write!(out, "{question}");
        let _ = out.flush();
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).ok()?;
        Some(line)
    }
}
