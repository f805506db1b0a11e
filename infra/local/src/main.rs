//! `local demo` and `local dev`: the stack for people.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use local::clock::Clock;
use local::function_files;
use local::journey::Journey;
use local::seed;
use local::stack::{Options, Stack, sibling_binaries, unpacked_postgres};

fn main() -> ExitCode {
    let Some(command) = Command::parse(std::env::args().skip(1)) else {
        say(
            "usage: local demo [Parameter=value …] | local dev [--home DIR] [--attached] [--with TEMPLATE] [Parameter=value …]\n",
        );
        return ExitCode::from(64);
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = match command {
        Command::Demo { parameters } => runtime.block_on(demo(parameters)),
        Command::Dev { home, own, attached, parameters } => runtime.block_on(dev(home, own, attached, parameters)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// Parameters of the template that replace the stack's own: `local demo Signer=ssm`.
type Parameters = BTreeMap<String, String>;

enum Command {
    Demo {
        parameters: Parameters,
    },
    /// `home`: the folder of this stack and its `portcullis.json`, `.local` by default. `attached`: ends when stdin does, so
    /// that a program that started it cannot leave it behind. `own`: a template of somebody's own (docs/local-stack.md).
    Dev {
        home: Option<PathBuf>,
        own: Option<PathBuf>,
        attached: bool,
        parameters: Parameters,
    },
}

impl Command {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let command = arguments.next()?;
        let (mut home, mut own, mut attached, mut parameters) = (None, None, false, Parameters::new());
        while let Some(argument) = arguments.next() {
            match (argument.as_str(), argument.split_once('=')) {
                ("--home", _) if home.is_none() => home = Some(PathBuf::from(arguments.next()?)),
                ("--with", _) if own.is_none() => own = Some(PathBuf::from(arguments.next()?)),
                ("--attached", _) if !attached => attached = true,
                (_, Some((name, value))) if !name.starts_with('-') => {
                    parameters.insert(name.to_owned(), value.to_owned());
                }
                _ => return None,
            }
        }
        match command.as_str() {
            "demo" if home.is_none() && own.is_none() && !attached => Some(Self::Demo { parameters }),
            "dev" => Some(Self::Dev { home, own, attached, parameters }),
            _ => None,
        }
    }
}

/// Starts the stack in `home` (`.local`), seeds it, writes `portcullis.json` there.
async fn start(
    home: Option<PathBuf>,
    own: Option<PathBuf>,
    parameters: Parameters,
) -> io::Result<(Stack, Vec<seed::Client>, PathBuf)> {
    let checkout = std::env::current_dir()?;
    let shared = checkout.join(".local");
    let home = home.map_or_else(|| shared.clone(), |home| checkout.join(home));
    let since = Instant::now();
    say("starting the stack ... ");
    let stack = Stack::start(Options {
        binaries: sibling_binaries()?,
        postgres: unpacked_postgres(&checkout),
        root: home.join("run"),
        cache: Some(shared.join("cache")),
        clock: Clock::system(),
        parameters,
        own,
    })
    .await?;
    let clients = seed::seed(&stack).await?;
    let manifest = home.join("portcullis.json");
    seed::write_manifest(&stack, &clients, &manifest)?;
    say(&format!("ready after {:.1} s\n", since.elapsed().as_secs_f64()));
    Ok((stack, clients, manifest))
}

async fn demo(parameters: Parameters) -> io::Result<ExitCode> {
    let (stack, clients, manifest) = start(None, None, parameters).await?;
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
    let gateway = stack.places.gateway.clone();
    stack.stop().await;
    forget(&manifest, &gateway);
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn dev(
    home: Option<PathBuf>,
    own: Option<PathBuf>,
    attached: bool,
    parameters: Parameters,
) -> io::Result<ExitCode> {
    let (stack, _clients, manifest) = start(home, own, parameters).await?;
    let functions = manifest.with_file_name("functions");
    function_files::write(&stack, &functions)?;
    say(&hints(&stack, &manifest));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        stopped = tokio::signal::ctrl_c() => stopped?,
        _ = terminate.recv() => {}
        () = end_of_stdin(), if attached => {}
    }
    say("\nstopping\n");
    let gateway = stack.places.gateway.clone();
    stack.stop().await;
    forget(&manifest, &gateway);
    function_files::forget(&functions, &gateway);
    Ok(ExitCode::SUCCESS)
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

/// Removes the file that names a stack that is gone, unless another stack has written its own meanwhile.
fn forget(manifest: &Path, gateway: &str) {
    if std::fs::read_to_string(manifest).is_ok_and(|text| text.contains(gateway)) {
        let _ = std::fs::remove_file(manifest);
    }
}

/// Lines to paste.
fn hints(stack: &Stack, manifest: &Path) -> String {
    let places = &stack.places;
    let (gateway, ca) = (&places.gateway, places.ca_file.display());
    let (kms, s3, lambda) = (stack.endpoint("kms"), stack.endpoint("s3"), stack.endpoint("lambda"));
    let ssm = stack.endpoint("ssm");
    let (proxy, database) = (places.proxy_port, local::stack::DATABASE);
    let (key, secret) = (&stack.operator.access_key_id, &stack.operator.secret_access_key);
    format!(
        "
everything an outside client needs: {manifest}
what a function needs that runs by itself (docs/local-stack.md): {functions}/*.env

  curl --cacert {ca} {gateway}/.well-known/oauth-authorization-server
  curl --cacert {ca} {gateway}/.well-known/jwks.json

  export AWS_ACCESS_KEY_ID={key} AWS_SECRET_ACCESS_KEY={secret} AWS_DEFAULT_REGION={region}
  aws --endpoint-url {kms} kms generate-data-key --key-id {data_key} --key-spec AES_256
  aws --endpoint-url {ssm} ssm put-parameter --name /demo/secret --type SecureString --value x
  aws --endpoint-url {s3} s3api list-objects-v2 --bucket {bucket}
  aws --endpoint-url {lambda} lambda invoke --function-name portcullis-{env}-admin --cli-binary-format raw-in-base64-out \\
      --payload '{{\"operation\":\"client.list\",\"operator\":\"me\",\"tenant\":\"acme\"}}' /dev/stdout
  make admin OP=client.list ARGS='{{\"tenant\":\"acme\"}}'

  PGPASSWORD=$(aws rds generate-db-auth-token --hostname localhost --port {proxy} --username token --region {region}) \\
    psql \"host=localhost port={proxy} dbname={database} user=token sslmode=verify-full sslrootcert={ca}\"

Ctrl-C stops it.
",
        manifest = manifest.display(),
        functions = manifest.with_file_name("functions").display(),
        region = local::stack::REGION,
        data_key = places.data_key,
        bucket = places.object_bucket,
        env = local::stack::ENV,
    )
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn fail(error: &io::Error) -> ExitCode {
    let _ = writeln!(io::stderr().lock(), "\n{error}");
    ExitCode::FAILURE
}
