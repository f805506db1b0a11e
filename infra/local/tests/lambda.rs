//! Real processes on the Runtime API, the `Invoke` API and event delivery.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    missing_docs,
    reason = "helpers of tests stop at the first surprise; the fixture function shows its own environment"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use local::{
    account::{Account, Keys},
    ca::Ca,
    clock::Clock,
    events::{Events, Notification, ObjectCreated},
    gateway::Gateway,
    http::{Server, bind, send},
    lambda::{InvokeError, InvokeOutcome, Kind, Lambda, Settings},
    policy::Iam,
    sigv4,
    template::{Deployment, FunctionSpec, PermissionSpec, RoleSpec, RuleSpec, yaml},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The program behind every function here: this test binary, started by a script with this one test selected.
#[test]
#[ignore = "not a test: the function process that the other tests start"]
fn fixture_function() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if std::env::var("FIXTURE_INIT").as_deref() == Ok("exit") {
        std::process::exit(64);
    }
    runtime.block_on(lambda_runtime::run(service_fn(fixture))).unwrap();
}

async fn fixture(event: LambdaEvent<Value>) -> Result<Value, Error> {
    println!("saw {}", event.payload);
    if event.payload["requestContext"].is_object() {
        return match event.payload["body"].as_str() {
            Some("fail") => Err("canary".into()),
            _ => Ok(json!({"statusCode": 200, "body": event.payload.to_string()})),
        };
    }
    match event.payload["do"].as_str().unwrap_or_default() {
        "environment" => Ok(json!(std::env::vars().collect::<BTreeMap<_, _>>())),
        "context" => Ok(json!({
            "request_id": event.context.request_id,
            "arn": event.context.invoked_function_arn,
            "deadline": event.context.deadline,
            "client": event.context.client_context.map(|context| context.custom),
            "pid": std::process::id(),
        })),
        "error" => Err("it went wrong".into()),
        "panic" => panic!("the handler panics"),
        "exit" => std::process::exit(event.payload["status"].as_i64().unwrap() as i32),
        "abort" => std::process::abort(),
        "sleep" => {
            tokio::time::sleep(Duration::from_millis(event.payload["ms"].as_u64().unwrap())).await;
            Ok(json!({"pid": std::process::id()}))
        }
        "large" => Ok(json!("x".repeat(event.payload["bytes"].as_u64().unwrap() as usize))),
        _ => Ok(event.payload),
    }
}

struct Stack {
    account: Arc<Account>,
    lambda: Arc<Lambda>,
    directory: TempDir,
}

fn spec(name: &str, change: impl FnOnce(&mut FunctionSpec)) -> FunctionSpec {
    let mut spec = FunctionSpec {
        logical_id: format!("{name}Function"),
        function_name: name.to_owned(),
        arn: format!("arn:aws:lambda:us-east-1:111122223333:function:{name}"),
        deployment: name.to_owned(),
        binary: "fixture".to_owned(),
        environment: BTreeMap::from([("PORTCULLIS_ENV".to_owned(), "test".to_owned())]),
        role_name: format!("{name}-role"),
        timeout: 20,
        memory: 256,
        reserved_concurrency: None,
        aliases: vec!["live".to_owned()],
        keeps_failures: true,
    };
    change(&mut spec);
    spec
}

fn script(folder: &Path) {
    let program = std::env::current_exe().unwrap();
    let text = format!("#!/bin/sh\nexec {} --exact fixture_function --ignored --nocapture\n", program.display());
    let path = folder.join("fixture");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn role(name: &str, statements: Value) -> RoleSpec {
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ]});
    RoleSpec {
        boundary: None,
        name: name.to_owned(),
        arn: format!("arn:aws:iam::111122223333:role/{name}"),
        policies: vec![json!({"Version": "2012-10-17", "Statement": statements})],
        trust,
    }
}

impl Stack {
    async fn new(functions: Vec<FunctionSpec>, change: impl FnOnce(&mut Settings)) -> Self {
        let invoke = json!([{"Sid": "Invoke", "Effect": "Allow", "Action": "lambda:InvokeFunction",
            "Resource": "arn:aws:lambda:us-east-1:111122223333:function:echo"}]);
        let roles = [role("caller", invoke)];
        let iam = Iam::new("111122223333", "us-east-1", Clock::system(), &roles).unwrap();
        let account = Arc::new(Account::new(iam));
        let directory = tempfile::tempdir().unwrap();
        script(directory.path());
        let mut settings = Settings::new(functions, directory.path().to_owned(), directory.path().to_owned());
        settings.endpoints.insert("kms".to_owned(), "http://127.0.0.1:1".to_owned());
        settings.extra.insert("PORTCULLIS_CA_FILE".to_owned(), "/ca.pem".to_owned());
        settings.retries = [Duration::from_millis(1); 2];
        change(&mut settings);
        let lambda = Lambda::start(Arc::clone(&account), settings).await.unwrap();
        Self { account, lambda, directory }
    }

    async fn one(change: impl FnOnce(&mut FunctionSpec)) -> Self {
        Self::new(vec![spec("echo", change)], |_| {}).await
    }

    async fn call(&self, payload: Value) -> InvokeOutcome {
        self.lambda.invoke("echo", Bytes::from(payload.to_string()), Kind::RequestResponse).await.unwrap()
    }

    async fn value(&self, payload: Value) -> Value {
        let outcome = self.call(payload).await;
        assert_eq!(outcome.function_error, None, "{:?}", outcome.payload);
        serde_json::from_slice(&outcome.payload).unwrap()
    }
}

fn object(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[tokio::test]
async fn an_event_is_answered_and_the_process_stays_warm() {
    let stack = Stack::one(|_| {}).await;
    assert_eq!(stack.value(json!({"hello": "world"})).await, json!({"hello": "world"}));
    let first = stack.value(json!({"do": "context"})).await;
    let second = stack.value(json!({"do": "context"})).await;
    assert_eq!(first["pid"], second["pid"]);
    assert_ne!(first["request_id"], second["request_id"]);
    assert_eq!(first["arn"], "arn:aws:lambda:us-east-1:111122223333:function:echo");
    assert_eq!(stack.lambda.cold_starts("echo"), 1);
}

#[tokio::test]
async fn the_environment_is_lambdas_and_nothing_of_ours() {
    let stack = Stack::one(|_| {}).await;
    let environment = stack.value(json!({"do": "environment"})).await;
    let names: BTreeSet<&str> = environment.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = BTreeSet::from([
        "AWS_ACCESS_KEY_ID",
        "AWS_CONFIG_FILE",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_KMS",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
        "LAMBDA_TASK_ROOT",
        "LANG",
        "PATH",
        "PORTCULLIS_CA_FILE",
        "PORTCULLIS_ENV",
        // The fixture's own script adds it; a real binary is started without a shell in between.
        "PWD",
        "TZ",
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
    ]);
    assert_eq!(names, wanted);
    let key = environment["AWS_ACCESS_KEY_ID"].as_str().unwrap();
    let entry = stack.account.credentials.find(key).unwrap();
    assert_eq!(entry.principal.arn, "arn:aws:sts::111122223333:assumed-role/echo-role/echo");
    assert_eq!(entry.token.as_deref(), environment["AWS_SESSION_TOKEN"].as_str());
}

#[tokio::test]
async fn a_function_that_fails_is_reported_as_lambda_does() {
    let stack = Stack::one(|_| {}).await;
    let exit = |what: &str| format!("RequestId: ID Error: {what}");
    let limit = "Response payload size exceeded maximum allowed payload size (6291556 bytes).";
    let cases = [
        (json!({"do": "exit", "status": 3}), "Runtime.ExitError", exit("Runtime exited with error: exit status 3")),
        (json!({"do": "exit", "status": 0}), "Runtime.ExitError", exit("Runtime exited without providing a reason")),
        (json!({"do": "abort"}), "Runtime.ExitError", exit("Runtime exited with error: signal: aborted")),
        (json!({"do": "large", "bytes": 6_291_556}), "Function.ResponseSizeTooLarge", limit.to_owned()),
    ];
    for (payload, kind, message) in cases {
        let outcome = stack.call(payload.clone()).await;
        assert_eq!(outcome.function_error.as_deref(), Some("Unhandled"), "{payload}");
        let error = object(&outcome.payload);
        assert_eq!(error["errorType"], kind, "{payload}");
        assert_eq!(error["errorMessage"], message.replace("ID", &outcome.request_id), "{payload}");
        // A new process, and it works.
        assert_eq!(stack.value(json!({"after": 1})).await, json!({"after": 1}), "{payload}");
    }
    for (payload, text) in [(json!({"do": "error"}), "it went wrong"), (json!({"do": "panic"}), "the handler panics")] {
        let started = stack.lambda.cold_starts("echo");
        let outcome = stack.call(payload).await;
        assert_eq!(outcome.function_error.as_deref(), Some("Unhandled"));
        assert!(object(&outcome.payload)["errorMessage"].as_str().unwrap().contains(text));
        assert_eq!(stack.lambda.cold_starts("echo"), started, "an error keeps the process");
    }
    let largest = stack.call(json!({"do": "large", "bytes": 6_291_554})).await;
    assert_eq!((largest.function_error, largest.payload.len()), (None, 6_291_556));
}

#[tokio::test]
async fn a_timeout_kills_the_process() {
    let stack = Stack::one(|spec| spec.timeout = 1).await;
    let outcome = stack.call(json!({"do": "sleep", "ms": 60_000})).await;
    let error = object(&outcome.payload);
    assert_eq!(error["errorType"], "Sandbox.Timedout");
    let text = format!("RequestId: {} Error: Task timed out after 1.00 seconds", outcome.request_id);
    assert_eq!(error["errorMessage"], text);
    assert_eq!(stack.value(json!({"ok": 1})).await, json!({"ok": 1}));
    assert_eq!(stack.lambda.cold_starts("echo"), 2);
}

#[tokio::test]
async fn an_event_that_a_vanished_process_never_took_goes_to_a_new_one() {
    let stack = Stack::one(|_| {}).await;
    let pid = stack.value(json!({"do": "context"})).await["pid"].to_string();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let watchdog = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().to_owned();
    let killed = tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await.unwrap();
    assert!(killed.success());
    // The watchdog too: a sandbox whose end nobody has seen yet would still be given the event.
    for process in [pid, watchdog] {
        while fs::read_link(format!("/proc/{process}/exe")).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(stack.value(json!({"ok": 1})).await, json!({"ok": 1}));
    assert_eq!(stack.lambda.cold_starts("echo"), 2);
}

const DOCUMENT: &str = r#"
openapi: 3.0.1
paths:
  /echo/{id}:
    post:
      security: []
      x-portcullis-open: the fixture is public
      x-amazon-apigateway-integration:
        type: aws_proxy
        httpMethod: POST
        uri: arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-1:111122223333:function:echo/invocations
"#;

#[tokio::test]
async fn a_request_goes_through_the_gateway_to_a_real_process() {
    let stack = Stack::one(|_| {}).await;
    let permission = PermissionSpec {
        function_name: "echo".to_owned(),
        principal: "apigateway.amazonaws.com".to_owned(),
        source_arn: "arn:aws:execute-api:us-east-1:111122223333:api/*/POST/echo/*".to_owned(),
    };
    let deployment =
        Deployment { functions: vec![spec("echo", |_| {})], permissions: vec![permission], ..Deployment::default() };
    let settings = local::gateway::Settings::new("api", &deployment);
    let lambda: Arc<dyn local::lambda::Invoke> = Arc::<Lambda>::clone(&stack.lambda);
    let account = Arc::clone(&stack.account);
    let gateway = Gateway::new(&yaml(DOCUMENT).unwrap(), settings, account, lambda).unwrap();
    let ca = Ca::generate().unwrap();
    let tls = ca.server_config(&["localhost", "127.0.0.1"]).unwrap();
    let server = gateway.serve(bind().await.unwrap(), Some(tls)).await.unwrap();
    let post = |body: Vec<u8>| {
        let url = format!("https://localhost:{}/echo/a%20b", server.addr.port());
        let request = http::Request::post(url).body(Full::new(Bytes::from(body))).unwrap();
        send(request, Some(ca.client_config().unwrap()))
    };
    let answer = post(b"hello".to_vec()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let event = object(answer.body());
    assert_eq!((&event["body"], &event["pathParameters"]["id"]), (&json!("hello"), &json!("a%20b")));
    let answer = post(b"fail".to_vec()).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (502, &br#"{"message":"Internal server error"}"#[..]));
    // Fits through the gateway, but not into an event.
    assert_eq!(post(vec![b'a'; 7 * 1024 * 1024]).await.unwrap().status(), 413);
    assert_eq!(post(vec![b'a'; 11 * 1024 * 1024]).await.unwrap().status(), 413);
    assert!(stack.lambda.stray_calls().is_empty());
}

#[tokio::test]
async fn a_process_that_never_polls_is_an_exit_error_with_its_status() {
    let stack = Stack::one(|spec| {
        spec.environment.insert("FIXTURE_INIT".to_owned(), "exit".to_owned());
    })
    .await;
    let error = object(&stack.call(json!({})).await.payload);
    assert_eq!(error["errorType"], "Runtime.ExitError");
    assert!(error["errorMessage"].as_str().unwrap().ends_with("exit status 64"), "{error}");
}

#[tokio::test]
async fn calls_at_the_same_time_get_processes_of_their_own() {
    let stack = Stack::new(vec![spec("echo", |_| {})], |settings| settings.processes = 2).await;
    let sleep = || stack.value(json!({"do": "sleep", "ms": 100}));
    let answers = futures::future::join_all([sleep(), sleep(), sleep(), sleep(), sleep()]).await;
    let processes: BTreeSet<u64> = answers.iter().map(|answer| answer["pid"].as_u64().unwrap()).collect();
    assert_eq!(processes.len(), 2, "the others waited");
}

#[tokio::test]
async fn beyond_reserved_concurrency_calls_are_throttled() {
    let stack = Stack::one(|spec| spec.reserved_concurrency = Some(1)).await;
    let payload = Bytes::from_static(br#"{"do":"sleep","ms":300}"#);
    let call = || stack.lambda.invoke("echo", payload.clone(), Kind::RequestResponse);
    let (first, second) = tokio::join!(call(), call());
    assert!(first.is_ok());
    let reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
    assert_eq!(second.unwrap_err(), InvokeError::Throttled(reason));
    assert!(call().await.is_ok());
}

#[tokio::test]
async fn what_is_not_a_call_is_refused() {
    let stack = Stack::one(|_| {}).await;
    let call = |name: &'static str, payload: Vec<u8>, kind| {
        let lambda = Arc::clone(&stack.lambda);
        async move { lambda.invoke(name, Bytes::from(payload), kind).await.unwrap_err() }
    };
    let large = format!("\"{}\"", "x".repeat(6 * 1024 * 1024)).into_bytes();
    assert_eq!(call("nobody", b"{}".to_vec(), Kind::RequestResponse).await, InvokeError::NotFound);
    assert_eq!(call("echo", b"{".to_vec(), Kind::RequestResponse).await, InvokeError::NotJson);
    assert_eq!(call("echo", large, Kind::RequestResponse).await, InvokeError::TooLarge(6 * 1024 * 1024));
    assert_eq!(stack.lambda.cold_starts("echo"), 0);
}

#[tokio::test]
async fn a_process_is_replaced_before_its_credentials_end() {
    let stack = Stack::one(|_| {}).await;
    let key = |value: Value| value["AWS_ACCESS_KEY_ID"].as_str().unwrap().to_owned();
    let first = key(stack.value(json!({"do": "environment"})).await);
    assert_eq!(key(stack.value(json!({"do": "environment"})).await), first);
    stack.account.clock.advance(Duration::from_secs(3550));
    assert_ne!(key(stack.value(json!({"do": "environment"})).await), first);
}

#[tokio::test]
async fn what_a_process_writes_belongs_to_its_event() {
    let stack = Stack::one(|_| {}).await;
    stack.call(json!({"n": 1})).await;
    let second = stack.call(json!({"n": 2})).await;
    assert!(second.log.contains(r#"saw {"n":2}"#) && !second.log.contains(r#"saw {"n":1}"#), "{}", second.log);
    let all = stack.lambda.log("echo");
    assert!(all.contains(r#"saw {"n":1}"#) && all.contains(r#"saw {"n":2}"#));
    assert!(stack.directory.path().join("logs/echo/0001.log").is_file());
}

#[tokio::test]
async fn shutdown_leaves_no_process_behind() {
    let stack = Stack::one(|_| {}).await;
    let pid = stack.value(json!({"do": "context"})).await["pid"].as_u64().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    stack.lambda.shutdown().await;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// The stack that `a_killed_stack_takes_its_processes_along` kills: reports its function's process id and waits.
#[tokio::test]
#[ignore = "not a test: a stack for another test to kill"]
async fn stack_to_be_killed() {
    let stack = Stack::one(|_| {}).await;
    println!("pid={}", stack.value(json!({"do": "context"})).await["pid"]);
    stack.value(json!({"do": "sleep", "ms": 60_000})).await;
}

#[tokio::test]
async fn a_killed_stack_takes_its_processes_along() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let mut stack = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stack_to_be_killed", "--ignored", "--nocapture"])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stack.stdout.take().unwrap()).lines();
    let pid = loop {
        let line = lines.next_line().await.unwrap().expect("the stack reports a process");
        if let Some((_, pid)) = line.split_once("pid=") {
            break pid.to_owned();
        }
    };
    let function = format!("/proc/{pid}");
    assert!(Path::new(&function).exists());
    stack.kill().await.unwrap();
    let gone = async {
        while Path::new(&function).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the function outlives its stack");
}

#[tokio::test]
async fn a_start_that_cannot_work_names_every_fault() {
    let stack = Stack::one(|_| {}).await;
    let reserved = spec("a", |spec| drop(spec.environment.insert("AWS_REGION".to_owned(), "x".to_owned())));
    let missing = spec("b", |spec| spec.binary = "nowhere".to_owned());
    let folder = stack.directory.path().to_owned();
    let settings = Settings::new(vec![reserved, missing], folder.clone(), folder);
    let faults = Lambda::start(Arc::clone(&stack.account), settings).await.err().unwrap();
    assert_eq!(faults.len(), 2, "{faults:?}");
}

/// A client of the `Invoke` API, signing as the specification says.
struct Client {
    keys: Keys,
    server: Server,
}

impl Client {
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> http::Response<Bytes> {
        let host = self.server.addr.to_string();
        let now = time::OffsetDateTime::from(std::time::SystemTime::now());
        let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
        let date = now.format(format).unwrap();
        let mut signed: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        signed.insert("host".to_owned(), host.clone());
        signed.insert("x-amz-date".to_owned(), date.clone());
        if let Some(token) = &self.keys.session_token {
            signed.insert("x-amz-security-token".to_owned(), token.clone());
        }
        let names: Vec<&str> = signed.keys().map(String::as_str).collect();
        let names = names.join(";");
        let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let path_only = sigv4::canonical_path(path, false);
        let hash = sigv4::sha256_hex(body);
        let canonical = format!("POST\n{path_only}\n\n{lines}\n{names}\n{hash}");
        let scope = format!("{}/us-east-1/lambda/aws4_request", &date[..8]);
        let key = sigv4::signing_key(&self.keys.secret_access_key, &date[..8], "us-east-1", "lambda");
        let signature = sigv4::signature(&key, &sigv4::string_to_sign(&date, &scope, &canonical));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.keys.access_key_id
        );
        let mut request = http::Request::post(format!("http://{host}{path}")).header("authorization", authorization);
        for (name, value) in &signed {
            request = request.header(name, value);
        }
        send(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap(), None).await.unwrap()
    }
}

#[tokio::test]
async fn the_invoke_api_answers_as_lambda_does() {
    let stack = Stack::new(vec![spec("echo", |_| {}), spec("other", |_| {})], |_| {}).await;
    let serve = || async { stack.lambda.serve(bind().await.unwrap()).await.unwrap() };
    let keys = stack.account.credentials.issue(stack.account.operator(), None);
    let operator = Client { keys, server: serve().await };
    let path = |name: &str| format!("/2015-03-31/functions/{name}/invocations");

    let answer = operator.post(&path("echo"), &[], b"{\"a\":1}").await;
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"{\"a\":1}"[..]));
    assert_eq!(answer.headers()["x-amz-executed-version"], "$LATEST");
    assert_eq!(answer.headers().get("x-amz-function-error"), None);

    let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A111122223333%3Afunction%3Aecho";
    assert_eq!(operator.post(&path(arn), &[], b"").await.body(), "{}");

    let answer = operator.post(&path("echo%3Alive"), &[], br#"{"do":"context"}"#).await;
    assert_eq!(object(answer.body())["arn"], "arn:aws:lambda:us-east-1:111122223333:function:echo:live");

    let headers = [("x-amz-log-type", "Tail")];
    let answer = operator.post(&path("echo"), &headers, br#"{"do":"error"}"#).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-amz-function-error"], "Unhandled");
    let log = STANDARD.decode(answer.headers()["x-amz-log-result"].as_bytes()).unwrap();
    assert!(String::from_utf8_lossy(&log).contains("saw"));

    let context = STANDARD.encode(r#"{"custom":{"key":"value"}}"#);
    let headers = [("x-amz-client-context", context.as_str())];
    let answer = operator.post(&path("echo"), &headers, br#"{"do":"context"}"#).await;
    assert_eq!(object(answer.body())["client"], json!({"key": "value"}));

    let answer = operator.post(&path("echo"), &[("x-amz-invocation-type", "Event")], b"{}").await;
    assert_eq!((answer.status().as_u16(), answer.body().len()), (202, 0));
    stack.lambda.idle().await;
    let answer = operator.post(&path("echo"), &[("x-amz-invocation-type", "DryRun")], b"{}").await;
    assert_eq!(answer.status(), 204);

    for (path, headers, body, status, code) in [
        (path("nobody"), vec![], &b"{}"[..], 404, "ResourceNotFoundException"),
        (path("echo%3A7"), vec![], b"{}", 404, "ResourceNotFoundException"),
        (path("echo"), vec![], b"{", 400, "InvalidRequestContentException"),
        (path("echo"), vec![("x-amz-invocation-type", "Later")], b"{}", 400, "InvalidParameterValueException"),
        (path("echo"), vec![("x-amz-client-context", "e")], b"{}", 400, "InvalidRequestContentException"),
        ("/2015-03-31/functions/echo".to_owned(), vec![], b"{}", 404, "UnknownOperationException"),
    ] {
        let answer = operator.post(&path, &headers, body).await;
        assert_eq!(answer.status(), status, "{path} {headers:?}");
        assert_eq!(answer.headers()["x-amzn-errortype"], code, "{path} {headers:?}");
    }
    stack.lambda.throttle("echo", 1);
    let answer = operator.post(&path("echo"), &[], b"{}").await;
    assert_eq!((answer.status().as_u16(), object(answer.body())["message"].as_str()), (429, Some("Rate Exceeded.")));

    let session = stack.account.session("caller", "somebody", None);
    let role = Client { keys: stack.account.credentials.issue(session, None), server: serve().await };
    assert_eq!(role.post(&path("echo"), &[], b"{}").await.status(), 200);
    let denied = role.post(&path("other"), &[], b"{}").await;
    assert_eq!(
        (denied.status().as_u16(), &denied.headers()["x-amzn-errortype"]),
        (403, &"AccessDeniedException".parse().unwrap())
    );

    let forged =
        Client { keys: Keys { secret_access_key: "x".repeat(40), ..role.keys.clone() }, server: serve().await };
    let refused = forged.post(&path("echo"), &[], b"{}").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["x-amzn-errortype"]),
        (403, &"InvalidSignatureException".parse().unwrap())
    );
}

fn created(key: &str) -> ObjectCreated {
    ObjectCreated {
        bucket: "objects".to_owned(),
        key: key.to_owned(),
        size: 5,
        etag: "e".to_owned(),
        version_id: "v1".to_owned(),
        sequencer: "0A".to_owned(),
        reason: "PutObject".to_owned(),
        request_id: "r".to_owned(),
        source_ip: "127.0.0.1".to_owned(),
    }
}

fn deployment() -> Deployment {
    let pattern = json!({
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": ["objects"]}, "object": {"key": [{"prefix": "t/"}]}},
    });
    let objects = RuleSpec {
        name: "objects".to_owned(),
        arn: "arn:aws:events:us-east-1:111122223333:rule/objects".to_owned(),
        pattern: Some(pattern),
        schedule: None,
        targets: vec!["echo".to_owned()],
        input: None,
    };
    let sweep = RuleSpec {
        name: "sweep".to_owned(),
        arn: "arn:aws:events:us-east-1:111122223333:rule/sweep".to_owned(),
        pattern: None,
        schedule: Some("rate(1 minute)".to_owned()),
        targets: vec!["echo".to_owned()],
        input: Some(json!({"operation": "sweep"})),
    };
    let permission = PermissionSpec {
        function_name: "echo".to_owned(),
        principal: "events.amazonaws.com".to_owned(),
        source_arn: "arn:aws:events:us-east-1:111122223333:rule/*".to_owned(),
    };
    Deployment { rules: vec![objects, sweep], permissions: vec![permission], ..Deployment::default() }
}

/// How often the function saw something that contains `text`.
fn seen(stack: &Stack, text: &str) -> usize {
    stack.lambda.log("echo").lines().filter(|line| line.starts_with("saw") && line.contains(text)).count()
}

#[tokio::test]
async fn an_object_event_reaches_the_functions_of_the_rules_it_matches() {
    let stack = Stack::one(|_| {}).await;
    let lambda: Arc<dyn local::lambda::Invoke> = Arc::<Lambda>::clone(&stack.lambda);
    let events = Events::new(Arc::clone(&stack.account), &deployment(), lambda).unwrap();
    events.object_created(created("t/acme/1")).await;
    events.object_created(created("elsewhere/1")).await;
    events.object_created(ObjectCreated { bucket: "other".to_owned(), ..created("t/acme/2") }).await;
    events.idle().await;
    assert_eq!(seen(&stack, "Object Created"), 1);
    for text in [r#""source":"aws.s3""#, r#""version-id":"v1""#, r#""key":"t/acme/1""#, r#""reason":"PutObject""#] {
        assert_eq!(seen(&stack, text), 1, "{text}");
    }
    assert!(events.tick("sweep").await && !events.tick("objects").await);
    events.idle().await;
    assert_eq!(seen(&stack, r#"{"operation":"sweep"}"#), 1);
}

#[tokio::test]
async fn s3_notifies_a_function_itself_where_it_may_and_keys_are_encoded_as_forms_are() {
    let stack = Stack::one(|_| {}).await;
    let lambda: Arc<dyn local::lambda::Invoke> = Arc::<Lambda>::clone(&stack.lambda);
    let wanted = |prefix: &str| Notification {
        id: "direct".to_owned(),
        bucket: "objects".to_owned(),
        prefix: prefix.to_owned(),
        suffix: String::new(),
        function: "echo".to_owned(),
    };
    let refused = Events::new(Arc::clone(&stack.account), &deployment(), Arc::clone(&lambda)).unwrap();
    assert!(refused.notify(wanted("")).unwrap_err().starts_with("Unable to validate"), "EventBridge may, S3 may not");
    let mut deployment = deployment();
    deployment.permissions.push(PermissionSpec {
        function_name: "echo".to_owned(),
        principal: "s3.amazonaws.com".to_owned(),
        source_arn: "arn:aws:s3:::objects".to_owned(),
    });
    let events = Events::new(Arc::clone(&stack.account), &deployment, lambda).unwrap();
    events.notify(wanted("t/")).unwrap();
    assert!(events.notify(Notification { bucket: "other".to_owned(), ..wanted("") }).is_err());
    events.object_created(created("t/a b+c/\u{e9}")).await;
    events.object_created(created("elsewhere/1")).await;
    events.object_created(ObjectCreated { bucket: "other".to_owned(), ..created("t/2") }).await;
    events.idle().await;
    // Both are told, each in its own form.
    assert_eq!((seen(&stack, "Object Created"), seen(&stack, r#""eventVersion":"2.1""#)), (1, 1));
    for text in [r#""key":"t/a+b%2Bc/%C3%A9""#, r#""eventName":"ObjectCreated:Put""#, r#""configurationId":"direct""#] {
        assert_eq!(seen(&stack, text), 1, "{text}");
    }
}

#[tokio::test]
async fn a_rule_without_permission_to_invoke_is_refused_at_the_start() {
    let stack = Stack::one(|_| {}).await;
    let lambda: Arc<dyn local::lambda::Invoke> = Arc::<Lambda>::clone(&stack.lambda);
    let deployment = Deployment { permissions: Vec::new(), ..deployment() };
    let faults = Events::new(Arc::clone(&stack.account), &deployment, lambda).err().unwrap();
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[tokio::test]
async fn delivery_can_be_doubled_lost_and_reordered() {
    let stack = Stack::new(vec![spec("echo", |_| {})], |settings| settings.processes = 1).await;
    let lambda: Arc<dyn local::lambda::Invoke> = Arc::<Lambda>::clone(&stack.lambda);
    let events = Events::new(Arc::clone(&stack.account), &deployment(), lambda).unwrap();
    events.duplicate(1);
    events.object_created(created("t/doubled")).await;
    events.lose(1);
    events.object_created(created("t/lost")).await;
    events.idle().await;
    assert_eq!((seen(&stack, "t/doubled"), seen(&stack, "t/lost")), (2, 0));
    events.hold();
    events.object_created(created("t/first")).await;
    events.object_created(created("t/second")).await;
    events.idle().await;
    assert_eq!(seen(&stack, "t/first"), 0);
    events.release().await;
    events.idle().await;
    let log = stack.lambda.log("echo");
    assert!(log.find("t/second").unwrap() < log.find("t/first").unwrap());
}

#[tokio::test]
async fn a_failing_event_is_tried_three_times_and_then_kept() {
    let stack = Stack::one(|_| {}).await;
    stack.lambda.throttle("echo", 2);
    let payload = Bytes::from_static(br#"{"do":"error"}"#);
    stack.lambda.invoke("echo", payload.clone(), Kind::Event).await.unwrap();
    stack.lambda.idle().await;
    assert_eq!(seen(&stack, "error"), 3);
    let undelivered = stack.lambda.undelivered();
    assert_eq!(undelivered.len(), 1);
    assert_eq!((&undelivered[0].function, &undelivered[0].payload), (&"echo".to_owned(), &payload));
}
