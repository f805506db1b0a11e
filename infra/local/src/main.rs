//! `local demo`, `local dev` and `local replay`: the stack for people.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use local::dev::command::{Command, Dev, USAGE};
use local::dev::hints::hints;
use local::dev::{self, Parameters, Started, rebuild};
use local::function_files;
use local::journey::Journey;
use local::view::terminal;

fn main() -> ExitCode {
    let Some(command) = Command::parse(std::env::args().skip(1)) else {
        say(USAGE);
        return ExitCode::from(64);
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = match command {
        Command::Demo { parameters } => runtime.block_on(demo(parameters)),
        Command::Dev(wanted) => runtime.block_on(dev(wanted)),
        Command::Replay { file, parameters } => runtime.block_on(replay(&file, parameters)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

async fn demo(parameters: Parameters) -> io::Result<ExitCode> {
    say("starting the stack ... ");
    let Started { stack, clients, manifest, took, .. } = dev::start(None, None, parameters, false).await?;
    say(&format!("ready after {took:.1} s\n"));
    let report = Journey::new(&stack, &clients, true)?.travel().await;
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            say(&format!("\nthe journey broke off: {error}\n"));
            stack.stop().await;
            return Ok(ExitCode::FAILURE);
        }
    };
    let failures = report.failures().len();
    say(&format!("\n{} steps, {failures} of them not as they should be\n", report.rows().len()));
    stack.stop().await;
    dev::forget(&manifest, &stack.places.gateway);
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn dev(wanted: Dev) -> io::Result<ExitCode> {
    // Of programs that read standard output, each line is theirs.
    let say = if wanted.json { complain } else { say };
    // A rule that is none stops it before anything was started.
    local::faults::grammar::read(wanted.faults.as_deref().unwrap_or_default()).map_err(io::Error::other)?;
    let recorder = wanted.record.as_deref().map(local::session::Recorder::create).transpose()?;
    say("starting the stack ... ");
    let mut started = dev::start(wanted.home, wanted.own, wanted.parameters, wanted.rebuild.is_some()).await?;
    say(&format!("ready after {:.1} s\n", started.took));
    let page = dev::watch(&started).await?;
    let (stack, manifest) = (started.stack.clone(), started.manifest.clone());
    let functions = manifest.with_file_name("functions");
    function_files::write(&stack, &functions)?;
    if let Some(recorder) = recorder {
        stack.account.sessions.record(recorder, &stack, &started.clients);
    }
    if let Some(rules) = &wanted.faults {
        stack.account.faults.replace(rules, wanted.seed).map_err(io::Error::other)?;
        say(&format!("faults: {rules} (SEED={})\n", stack.account.faults.seed()));
    }
    let style = terminal::Style::of_stdout(wanted.json);
    let printing = (!wanted.quiet).then(|| terminal::print(&stack.account.view, style));
    let programs = started.programs.take();
    let checkout = std::env::current_dir()?;
    let rebuilding =
        wanted.rebuild.zip(programs).map(|(cargo, programs)| rebuild::follow(&stack, programs, cargo, checkout, say));
    say(&hints(&stack, &manifest, &page.url));
    until_stopped(wanted.attached).await?;
    say("\nstopping\n");
    printing.inspect(tokio::task::JoinHandle::abort);
    rebuilding.inspect(tokio::task::JoinHandle::abort);
    stack.stop().await;
    dev::forget(&manifest, &stack.places.gateway);
    function_files::forget(&functions, &stack.places.gateway);
    Ok(ExitCode::SUCCESS)
}

/// Runs a recorded session against a fresh stack of its own.
async fn replay(file: &Path, parameters: Parameters) -> io::Result<ExitCode> {
    let session = local::session::Session::read(file)?;
    say("starting a stack ... ");
    let home = tempfile::Builder::new().prefix("replay-").tempdir_in(replays()?)?;
    let started = dev::start(Some(home.path().to_path_buf()), None, parameters, false).await?;
    say(&format!("ready after {:.1} s\n", started.took));
    started.stack.account.view.switch_on();
    let report = session.replay(&started.stack, &started.clients).await;
    started.stack.stop().await;
    let report = report?;
    say(&report.to_string());
    Ok(if report.same() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replays() -> io::Result<std::path::PathBuf> {
    let folder = std::env::current_dir()?.join(".local/run");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

async fn until_stopped(attached: bool) -> io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminate.recv() => {}
        () = end_of_stdin(), if attached => {}
    }
    Ok(())
}

/// Returns when nobody can write to stdin any more. Reads on a thread of its own, which the end of the process ends.
async fn end_of_stdin() {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(ended);
    });
    let _ = end.await;
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn fail(error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "\n{error}");
    ExitCode::FAILURE
}
