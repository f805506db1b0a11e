//! A world without AWS: a fake `aws` that keeps stacks as CloudFormation does, and records every call.
//!
//! It proves order, arguments and what is done with answers. It proves nothing about AWS.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test file uses a part of it; a test may fail loudly"
)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use deploy::command::{Exit, run};
use deploy::world::{Answer, Call, Clock, Console, Programs, World};
use serde_json::{Value, json};

/// A stack of the fake.
#[derive(Clone, Default)]
pub(crate) struct Stack {
    pub(crate) status: String,
    pub(crate) template: Value,
    pub(crate) body: String,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) outputs: BTreeMap<String, String>,
}

struct Change {
    stack: String,
    creates: bool,
    template: Value,
    body: String,
    parameters: BTreeMap<String, String>,
}

/// The fake.
#[derive(Default)]
pub(crate) struct Cloud {
    pub(crate) calls: RefCell<Vec<Vec<String>>>,
    pub(crate) stacks: RefCell<BTreeMap<String, Stack>>,
    pub(crate) said: RefCell<Vec<String>>,
    /// What a person types.
    pub(crate) typed: RefCell<Option<String>>,
    /// Whether there are credentials.
    pub(crate) credentials: Cell<bool>,
    /// The caller.
    pub(crate) caller: RefCell<String>,
    /// The stack that fails, and with which status it ends.
    pub(crate) fails: RefCell<Option<(String, String)>>,
    /// The function that fails when invoked.
    pub(crate) throws: RefCell<Option<String>>,
    /// What an update changes: action, logical id, type, replacement.
    pub(crate) changes: RefCell<Vec<[&'static str; 4]>>,
    /// Versions of aliases by function name.
    pub(crate) aliases: RefCell<BTreeMap<String, String>>,
    /// Published versions of every function.
    pub(crate) versions: RefCell<Vec<u64>>,
    /// Whether `get-function-configuration` finds the function.
    pub(crate) functions_exist: Cell<bool>,
    /// What the second answer about a function's configuration adds.
    pub(crate) drift: RefCell<Option<(&'static str, Value)>>,
    /// Whether the account has a role by which API Gateway writes logs.
    pub(crate) log_role: Cell<bool>,
    /// Aliases of keys, by the key's ARN; of whose the caller may not ask: none.
    pub(crate) key_aliases: RefCell<BTreeMap<String, Option<Vec<&'static str>>>>,
    /// The name of the one secret.
    pub(crate) secret: RefCell<String>,
    /// What stayed of a creation that failed, by type.
    pub(crate) stayed: RefCell<Vec<&'static str>>,
    objects: RefCell<BTreeMap<String, String>>,
    changes_made: RefCell<BTreeMap<String, Change>>,
    time: Cell<u64>,
}

impl Cloud {
    pub(crate) fn new() -> Self {
        let cloud = Self::default();
        cloud.credentials.set(true);
        cloud.functions_exist.set(true);
        cloud.log_role.set(true);
        *cloud.secret.borrow_mut() = "/portcullis/prod/tunnel".to_owned();
        cloud.time.set(1_800_000_000);
        *cloud.caller.borrow_mut() = "arn:aws:iam::111122223333:user/ann".to_owned();
        *cloud.versions.borrow_mut() = vec![1];
        cloud
    }

    /// API Gateway's account, with and without a role for logs.
    pub(crate) fn account(log_role: bool) -> Value {
        let mut answer = json!({"throttleSettings": {"burstLimit": 5000, "rateLimit": 10000.0}, "features": ["UsagePlans"],
            "apiKeyVersion": "4"});
        if log_role {
            answer["cloudwatchRoleArn"] = json!("arn:aws:iam::111122223333:role/logs");
        }
        answer
    }

    /// What KMS lists for a key.
    pub(crate) fn aliases_of(key: &str, aliases: &[&str]) -> Value {
        let (place, id) = key.split_once(":key/").unwrap();
        let alias = |name: &&str| {
            json!({"AliasName": name, "AliasArn": format!("{place}:{name}"), "TargetKeyId": id,
                "CreationDate": 1_800_000_000.0, "LastUpdatedDate": 1_800_000_000.0})
        };
        json!({"Aliases": aliases.iter().map(alias).collect::<Vec<_>>()})
    }

    /// What was said, as one text.
    pub(crate) fn text(&self) -> String {
        self.said.borrow().join("\n")
    }

    /// Calls by service and operation, with the stack or function where one is named.
    pub(crate) fn order(&self) -> Vec<String> {
        let of = |call: &[String]| {
            let name = option(call, "--stack-name").or_else(|| option(call, "--function-name"));
            let name = name.map(|name| format!(" {}", name.trim_start_matches("portcullis-prod-"))).unwrap_or_default();
            format!("{} {}{name}", call[1], call.get(2).map_or("", String::as_str))
        };
        self.calls.borrow().iter().map(|call| of(call)).collect()
    }

    /// Calls that change something, in order.
    pub(crate) fn acts(&self) -> Vec<String> {
        let acting = [
            "execute-change-set",
            "delete-stack",
            "put-object",
            "invoke",
            "update-",
            "cloudformation update",
            "deploy",
        ];
        self.order().into_iter().filter(|call| acting.iter().any(|act| call.contains(act))).collect()
    }

    fn aws(&self, call: &[String]) -> Result<Value, (&'static str, String)> {
        let name = option(call, "--stack-name").unwrap_or_default();
        let operation = format!("{} {}", call[1], call[2]);
        if !self.credentials.get() {
            return Err((
                "",
                "Unable to locate credentials. You can configure credentials by running \"aws configure\".".to_owned(),
            ));
        }
        let absent = || ("ValidationError", format!("Stack with id {name} does not exist"));
        match operation.as_str() {
            "sts get-caller-identity" => {
                Ok(json!({"UserId": "U", "Account": "111122223333", "Arn": *self.caller.borrow()}))
            }
            "ec2 describe-managed-prefix-lists" => {
                Ok(json!({"PrefixLists": [{"PrefixListId": "pl-0123456789abcdef0"}]}))
            }
            "lambda get-account-settings" => Ok(json!({"AccountLimit": {"ConcurrentExecutions": 1000}})),
            "apigateway get-account" => Ok(Self::account(self.log_role.get())),
            "ssm describe-parameters" => {
                let filter = option(call, "--parameter-filters").unwrap_or_default();
                Ok(match filter == format!("Key=Name,Values={}", self.secret.borrow()) {
                    true => json!({"Parameters": [{"Name": *self.secret.borrow(), "Type": "SecureString"}]}),
                    false => json!({"Parameters": []}),
                })
            }
            "kms list-aliases" => {
                let key = option(call, "--key-id").unwrap();
                match self.key_aliases.borrow().get(&key) {
                    Some(Some(aliases)) => Ok(Self::aliases_of(&key, aliases)),
                    Some(None) => Err((
                        "AccessDeniedException",
                        "User: arn:aws:sts::111122223333:assumed-role/portcullis-prod-deploy/job is not authorized to perform: kms:ListAliases".to_owned(),
                    )),
                    None => Err(("NotFoundException", format!("Key '{key}' does not exist"))),
                }
            }
            "ecr describe-images" => Ok(json!({"imageDetails": [{}]})),
            "cloudformation describe-stacks" => {
                let stacks = self.stacks.borrow();
                let stack = stacks.get(&name).ok_or_else(absent)?;
                let pairs = |all: &BTreeMap<String, String>, name: &str, value: &str| -> Vec<Value> {
                    all.iter().map(|(k, v)| json!({name: k, value: v})).collect()
                };
                Ok(json!({"Stacks": [{
                    "StackName": name,
                    "StackStatus": stack.status,
                    "Outputs": pairs(&stack.outputs, "OutputKey", "OutputValue"),
                    "Parameters": pairs(&stack.parameters, "ParameterKey", "ParameterValue"),
                }]}))
            }
            "cloudformation create-change-set" => {
                let creates = option(call, "--change-set-type").unwrap() == "CREATE";
                assert_eq!(creates, !self.stacks.borrow().contains_key(&name), "{name}");
                let body = match option(call, "--template-body") {
                    Some(file) => fs::read_to_string(file.strip_prefix("file://").unwrap()).unwrap(),
                    None => {
                        let url = option(call, "--template-url").unwrap();
                        let key = url.strip_prefix("https://out-codebucket.s3.eu-central-1.amazonaws.com/").unwrap();
                        fs::read_to_string(&self.objects.borrow()[key]).unwrap()
                    }
                };
                assert!(body.len() <= 51_200 || call.contains(&"--template-url".to_owned()), "{name} is too large");
                let template = template::yaml(&body).unwrap();
                let mut parameters = BTreeMap::new();
                if let Some(file) = option(call, "--parameters") {
                    let listed = fs::read_to_string(file.strip_prefix("file://").unwrap()).unwrap();
                    for one in serde_json::from_str::<Vec<Value>>(&listed).unwrap() {
                        let field = |name: &str| one[name].as_str().unwrap().to_owned();
                        parameters.insert(field("ParameterKey"), field("ParameterValue"));
                    }
                }
                for given in parameters.keys() {
                    assert!(template["Parameters"].get(given).is_some(), "{name} has no parameter {given}");
                }
                for (declared, about) in template["Parameters"].as_object().unwrap() {
                    assert!(
                        about.get("Default").is_some() || parameters.contains_key(declared),
                        "{name} lacks {declared}"
                    );
                }
                // As CloudFormation does it, whoever asks sees defaults like what was given.
                for (declared, about) in template["Parameters"].as_object().unwrap() {
                    if let Some(default) = about.get("Default").and_then(template::scalar) {
                        parameters.entry(declared.clone()).or_insert(default);
                    }
                }
                let change = Change { stack: name.clone(), creates, template, body, parameters };
                self.changes_made.borrow_mut().insert(name, change);
                Ok(json!({"Id": "arn:aws:cloudformation:change", "StackId": "arn:aws:cloudformation:stack"}))
            }
            "cloudformation describe-change-set" => {
                let changes = self.changes_made.borrow();
                let change = &changes[&name];
                let stacks = self.stacks.borrow();
                if !change.creates {
                    let stack = &stacks[&name];
                    if stack.body == change.body && stack.parameters == change.parameters {
                        return Ok(json!({"Status": "FAILED", "StatusReason":
                            "The submitted information didn't contain changes. Submit different information to create a change set."}));
                    }
                }
                let listed: Vec<Value> = if change.creates {
                    let resources = change.template["Resources"].as_object().unwrap();
                    let add = |(id, one): (&String, &Value)| {
                        json!({"Type": "Resource", "ResourceChange":
                        {"Action": "Add", "LogicalResourceId": id, "ResourceType": one["Type"]}})
                    };
                    resources.iter().map(add).collect()
                } else {
                    let said = |[action, id, kind, replacement]: &[&str; 4]| {
                        json!({"Type": "Resource", "ResourceChange":
                        {"Action": action, "LogicalResourceId": id, "ResourceType": kind, "Replacement": replacement}})
                    };
                    self.changes.borrow().iter().map(said).collect()
                };
                Ok(json!({"Status": "CREATE_COMPLETE", "Changes": listed}))
            }
            "cloudformation delete-change-set" => {
                self.changes_made.borrow_mut().remove(&name);
                Ok(Value::Null)
            }
            "cloudformation execute-change-set" => {
                let change = self.changes_made.borrow_mut().remove(&name).unwrap();
                assert_eq!(change.stack, name);
                let failing = self.fails.borrow().clone().filter(|(stack, _)| *stack == name);
                let status = match &failing {
                    Some((_, status)) => status.clone(),
                    None if change.creates => "CREATE_COMPLETE".to_owned(),
                    None => "UPDATE_COMPLETE".to_owned(),
                };
                let outputs = change.template.get("Outputs").and_then(Value::as_object).cloned().unwrap_or_default();
                let outputs =
                    outputs.keys().map(|name| (name.clone(), format!("out-{}", name.to_lowercase()))).collect();
                let stack = Stack {
                    status,
                    outputs: if failing.is_some() { BTreeMap::new() } else { outputs },
                    template: change.template,
                    body: change.body,
                    parameters: change.parameters,
                };
                self.stacks.borrow_mut().insert(name, stack);
                Ok(Value::Null)
            }
            "cloudformation describe-stack-events" => Ok(json!({"StackEvents": [
                {"LogicalResourceId": "Other", "ResourceType": "AWS::EC2::Subnet", "ResourceStatus": "CREATE_FAILED",
                 "ResourceStatusReason": "Resource creation cancelled"},
                {"LogicalResourceId": "Database", "ResourceType": "AWS::RDS::DBInstance", "ResourceStatus": "CREATE_FAILED",
                 "ResourceStatusReason": "no capacity"},
                {"LogicalResourceId": name, "ResourceStatus": "CREATE_IN_PROGRESS", "ResourceStatusReason": "User Initiated"},
                {"LogicalResourceId": "Older", "ResourceType": "X", "ResourceStatus": "UPDATE_FAILED",
                 "ResourceStatusReason": "another time"},
            ]})),
            "cloudformation list-stack-resources" => {
                let stacks = self.stacks.borrow();
                let stack = stacks.get(&name).ok_or_else(absent)?;
                let gone = stack.status == "ROLLBACK_COMPLETE";
                let resources = stack.template["Resources"].as_object().cloned().unwrap_or_default();
                let summary = |(id, one): (&String, &Value)| {
                    let function = one["Properties"]["FunctionName"]["Ref"].as_str().unwrap_or_default();
                    let physical = match one["Type"].as_str().unwrap() {
                        "AWS::Lambda::Version" => {
                            let deployed = dashed(function.trim_end_matches("Function"));
                            format!("arn:aws:lambda:eu-central-1:111122223333:function:portcullis-prod-{deployed}:1")
                        }
                        _ => format!("physical-{id}"),
                    };
                    let stayed = self.stayed.borrow().contains(&one["Type"].as_str().unwrap());
                    let status = match (gone, stayed) {
                        (true, true) => "DELETE_SKIPPED",
                        (true, false) => "DELETE_COMPLETE",
                        (false, _) => "CREATE_COMPLETE",
                    };
                    json!({"LogicalResourceId": id, "ResourceType": one["Type"], "PhysicalResourceId": physical, "ResourceStatus": status})
                };
                Ok(json!({"StackResourceSummaries": resources.iter().map(summary).collect::<Vec<_>>()}))
            }
            "cloudformation get-template" => {
                let stacks = self.stacks.borrow();
                Ok(json!({"TemplateBody": stacks.get(&name).ok_or_else(absent)?.body}))
            }
            "cloudformation update-termination-protection" => Ok(json!({"StackId": name})),
            "cloudformation delete-stack" => {
                self.stacks.borrow_mut().remove(&name);
                Ok(Value::Null)
            }
            "s3api head-object" => {
                let key = option(call, "--key").unwrap();
                match self.objects.borrow().contains_key(&key) {
                    true => Ok(json!({"ChecksumSHA256": "zip"})),
                    false => Err(("404", "Not Found".to_owned())),
                }
            }
            "s3api put-object" => {
                let (key, body) = (option(call, "--key").unwrap(), option(call, "--body").unwrap());
                self.objects.borrow_mut().insert(key, body);
                Ok(json!({"ETag": "e"}))
            }
            "lambda invoke" => {
                let function = option(call, "--function-name").unwrap();
                let payload = option(call, "--payload").unwrap();
                assert_eq!(fs::read_to_string(payload.strip_prefix("fileb://").unwrap()).unwrap(), "{}");
                let after = call.iter().position(|one| one == "--output").unwrap();
                fs::write(&call[after - 1], "{\"applied\":[]}").unwrap();
                match self.throws.borrow().as_deref() == Some(&function) {
                    true => Ok(json!({"StatusCode": 200, "FunctionError": "Unhandled"})),
                    false => Ok(json!({"StatusCode": 200})),
                }
            }
            "lambda get-alias" => {
                let function = option(call, "--function-name").unwrap();
                let version = self.aliases.borrow().get(&function).cloned().unwrap_or_else(|| "1".to_owned());
                Ok(json!({"Name": "live", "FunctionVersion": version}))
            }
            "lambda update-alias" => {
                let (function, version) =
                    (option(call, "--function-name").unwrap(), option(call, "--function-version").unwrap());
                self.aliases.borrow_mut().insert(function, version);
                Ok(json!({}))
            }
            "lambda get-function-configuration" if self.functions_exist.get() => {
                let mut answer = json!({"FunctionName": "f", "CodeSha256": "zip", "Architectures": ["arm64"], "Timeout": 10,
                    "Environment": {"Variables": {"PORTCULLIS_ENV": "prod"}}, "Version": "$LATEST"});
                let deployed = self.calls.borrow().iter().any(|call| call.iter().any(|one| one == "--binary-name"));
                if let Some((name, value)) = self.drift.borrow().clone().filter(|_| deployed) {
                    answer[name] = value;
                }
                Ok(answer)
            }
            "lambda get-function-configuration" => Err(("ResourceNotFoundException", "Function not found".to_owned())),
            "lambda list-versions-by-function" => {
                let versions = self.versions.borrow();
                let mut listed = vec![json!({"Version": "$LATEST"})];
                listed.extend(versions.iter().map(|version| json!({"Version": version.to_string()})));
                Ok(json!({"Versions": listed}))
            }
            "lambda wait" => Ok(Value::Null),
            other => panic!("the fake does not know `{other}`"),
        }
    }
}

impl Programs for Cloud {
    fn run(&self, call: &Call) -> io::Result<Answer> {
        let mut line = vec![call.program.clone()];
        line.extend(call.arguments.clone());
        if call.program != "aws" {
            if call.arguments.iter().any(|one| one == "deploy") {
                let next = self.versions.borrow().iter().max().unwrap_or(&0) + 1;
                self.versions.borrow_mut().push(next);
                self.calls.borrow_mut().push(line);
            }
            return Ok(Answer { stdout: "cargo-lambda 1.9.2".to_owned(), ..Answer::default() });
        }
        if call.arguments == ["--version"] {
            return Ok(Answer { stdout: "aws-cli/2.31.4 Python/3.13.7 Linux/6.1".to_owned(), ..Answer::default() });
        }
        if call.arguments.first().is_some_and(|one| one == "configure") {
            return Ok(Answer { status: 1, ..Answer::default() });
        }
        self.calls.borrow_mut().push(line.clone());
        Ok(match self.aws(&line) {
            Ok(Value::Null) => Answer::default(),
            Ok(answer) => Answer { stdout: answer.to_string(), ..Answer::default() },
            Err(("", message)) => Answer { status: 253, stderr: message, ..Answer::default() },
            Err((code, message)) => Answer {
                status: 254,
                stderr: format!("\nAn error occurred ({code}) when calling the X operation: {message}\n"),
                ..Answer::default()
            },
        })
    }
}

impl Clock for Cloud {
    fn now(&self) -> u64 {
        self.time.get()
    }
    fn wait(&self, seconds: u64) {
        self.time.set(self.time.get() + seconds);
    }
}

impl Console for Cloud {
    fn say(&self, line: &str) {
        self.said.borrow_mut().push(line.to_owned());
    }
    fn ask(&self, _: &str) -> Option<String> {
        self.typed.borrow_mut().take()
    }
}

/// A checkout with the house's templates and with programs that are built.
pub(crate) struct Checkout {
    folder: tempfile::TempDir,
    environment: BTreeMap<String, String>,
}

impl Checkout {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let house = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        fs::create_dir_all(folder.path().join("docs")).unwrap();
        fs::create_dir_all(folder.path().join("infra")).unwrap();
        std::os::unix::fs::symlink(house.join("infra/aws"), folder.path().join("infra/aws")).unwrap();
        Self { folder, environment: BTreeMap::from([("AWS_REGION".to_owned(), "eu-central-1".to_owned())]) }
    }

    /// With a zip for every function.
    pub(crate) fn built() -> Self {
        let checkout = Self::new();
        let all = deploy::render::all(&checkout.path("infra/aws")).unwrap();
        for binary in all.iter().flat_map(deploy::render::Rendered::binaries) {
            checkout.program(&binary, binary.as_bytes());
        }
        checkout
    }

    /// Puts a zip there with a program for arm64 that ends in `code`.
    pub(crate) fn program(&self, binary: &str, code: &[u8]) {
        let folder = self.path("target/lambda").join(binary);
        fs::create_dir_all(&folder).unwrap();
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(64, 0);
        program[18] = 0xb7;
        program.extend(code);
        fs::write(folder.join("bootstrap.zip"), zip(&program)).unwrap();
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Runs a command of `deploy`.
    pub(crate) fn run(&self, cloud: &Cloud, line: &str) -> Exit {
        let world = World {
            root: self.folder.path(),
            environment: &self.environment,
            programs: cloud,
            clock: cloud,
            console: cloud,
        };
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        run(world, &arguments)
    }
}

/// What every deployment of the tests is told.
pub(crate) const SETTINGS: &str =
    "ENV=prod PROFILE=lean ISSUER=https://api.example.com AUDIENCE=https://api.example.com TEAM=acme";

pub(crate) fn option(call: &[String], name: &str) -> Option<String> {
    let at = call.iter().position(|one| one == name)?;
    call.get(at + 1).cloned()
}

/// `DataKeyEncrypt` as `data-key-encrypt`.
fn dashed(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn zip(content: &[u8]) -> Vec<u8> {
    let mut header = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header.extend((content.len() as u32).to_le_bytes());
    header.extend((content.len() as u32).to_le_bytes());
    header.extend([9, 0, 0, 0]);
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend(&header);
    zip.extend(b"bootstrap");
    zip.extend(content);
    let start = zip.len();
    zip.extend(b"PK\x01\x02\x14\x03");
    zip.extend(&header);
    zip.extend([0; 14]);
    zip.extend(b"bootstrap");
    let length = zip.len() - start;
    zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    zip.extend((length as u32).to_le_bytes());
    zip.extend((start as u32).to_le_bytes());
    zip.extend([0, 0]);
    zip
}
