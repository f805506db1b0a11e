//! Deployments against a fake CloudFormation: what is done, in which order, with what, and what is refused.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use deploy::command::Exit;
use serde_json::json;
use support::{Checkout, Cloud, SETTINGS, option};

fn deployed(line: &str) -> (Checkout, Cloud) {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    let exit = checkout.run(&cloud, format!("deploy {SETTINGS} {line}").trim_end());
    assert_eq!(exit, Exit::Done, "{}", cloud.text());
    (checkout, cloud)
}

const IMAGE: &str = "IMAGE=111122223333.dkr-ecr.eu-central-1.on.aws/portcullis-tunnel@sha256:0123456789012345678901234567890123456789012345678901234567890123";

/// The order without the programs, of which each is one upload.
fn steps(cloud: &Cloud) -> Vec<String> {
    cloud.acts().into_iter().filter(|act| act != "s3api put-object").collect()
}

#[test]
fn a_first_deployment_goes_in_the_one_order_that_works() {
    let (_, cloud) = deployed(IMAGE);
    assert_eq!(
        steps(&cloud),
        [
            "cloudformation execute-change-set bootstrap",
            "cloudformation update-termination-protection bootstrap",
            "cloudformation execute-change-set network",
            "cloudformation execute-change-set data",
            "cloudformation update-termination-protection data",
            "cloudformation execute-change-set functions",
            "lambda invoke migrate",
            "lambda invoke trust",
            "lambda invoke issuer-keys",
            "cloudformation execute-change-set api",
            "cloudformation execute-change-set network",
            "cloudformation execute-change-set edge",
            "cloudformation execute-change-set watch",
        ]
    );
    // For check_calls.py, which hands them to the AWS CLI.
    let calls: Vec<Vec<String>> = cloud.calls.borrow().iter().map(|call| call[1..].to_vec()).collect();
    std::fs::write(format!("{}/calls-deploy.json", env!("CARGO_TARGET_TMPDIR")), json!(calls).to_string()).unwrap();
    // Programs are there before anything that needs them.
    let acts = cloud.acts();
    let last_program = acts.iter().rposition(|act| act == "s3api put-object").unwrap();
    let functions = acts.iter().position(|act| act == "cloudformation execute-change-set functions").unwrap();
    assert!(acts.iter().position(|act| act == "s3api put-object").unwrap() < functions);
    assert!(last_program < acts.len());
}

#[test]
fn outputs_become_parameters_of_the_same_name_and_the_endpoint_is_narrowed_to_the_api() {
    let (_, cloud) = deployed(IMAGE);
    let stacks = cloud.stacks.borrow();
    let functions = &stacks["portcullis-prod-functions"].parameters;
    assert_eq!(functions["TrustBucket"], "out-trustbucket");
    assert_eq!(functions["CodeBucket"], "out-codebucket");
    assert_eq!(functions["TokenSecurityGroupId"], "out-tokensecuritygroupid");
    assert_eq!(functions["DbMode"], "direct");
    assert_eq!(functions["Issuer"], "https://api.example.com");
    assert_eq!(stacks["portcullis-prod-network"].parameters["ApiId"], "out-apiid");
    assert_eq!(stacks["portcullis-prod-watch"].parameters["Tunnel"], "on");
    // The first pass let any API of the account through, the second only ours, and no later one opens it again.
    let again = Checkout::built();
    cloud.calls.borrow_mut().clear();
    drop(stacks);
    assert_eq!(again.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Done, "{}", cloud.text());
    assert_eq!(cloud.stacks.borrow()["portcullis-prod-network"].parameters["ApiId"], "out-apiid");
}

#[test]
fn the_same_deployment_again_changes_nothing() {
    let (checkout, cloud) = deployed(IMAGE);
    cloud.calls.borrow_mut().clear();
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS} {IMAGE}")), Exit::Done);
    let acts = cloud.acts();
    let changing: Vec<&String> = acts.iter().filter(|act| act.contains("execute") || act.contains("update-")).collect();
    assert!(changing.is_empty(), "{changing:?}");
    // Templates that are too large for a request are uploaded again; programs are not.
    let puts = cloud
        .calls
        .borrow()
        .iter()
        .filter(|call| call[2] == "put-object")
        .map(|call| option(call, "--key").unwrap())
        .collect::<Vec<_>>();
    assert!(puts.iter().all(|key| key.starts_with("templates/")), "{puts:?}");
}

#[test]
fn a_tunnel_that_stands_keeps_its_image_when_none_is_given() {
    let (checkout, cloud) = deployed(IMAGE);
    cloud.calls.borrow_mut().clear();
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Done, "{}", cloud.text());
    assert!(cloud.stacks.borrow()["portcullis-prod-edge"].parameters["ImageUri"].contains("@sha256:0123"));
    assert_eq!(cloud.stacks.borrow()["portcullis-prod-watch"].parameters["Tunnel"], "on");
}

#[test]
fn without_an_image_there_is_no_edge_and_that_is_said() {
    let (_, cloud) = deployed("");
    assert!(!cloud.stacks.borrow().contains_key("portcullis-prod-edge"));
    assert_eq!(cloud.stacks.borrow()["portcullis-prod-watch"].parameters["Tunnel"], "off");
    assert!(cloud.text().contains("edge: no IMAGE"), "{}", cloud.text());
}

#[test]
fn a_changed_program_or_parameter_makes_new_versions_and_nothing_else_does() {
    let version = |cloud: &Cloud, id: &str| {
        let stacks = cloud.stacks.borrow();
        let resources = stacks["portcullis-prod-functions"].template["Resources"].as_object().unwrap().clone();
        let found = resources.keys().find(|key| key.starts_with(id) && key.len() == id.len() + 12).cloned();
        (found.unwrap(), resources)
    };
    let (checkout, cloud) = deployed("");
    *cloud.changes.borrow_mut() = vec![["Modify", "TokenFunction", "AWS::Lambda::Function", "False"]];
    let (token, resources) = version(&cloud, "TokenVersion");
    let (upload, _) = version(&cloud, "UploadVersion");
    assert_eq!(resources["TokenAlias"]["Properties"]["FunctionVersion"]["Fn::If"][1]["Fn::GetAtt"][0], json!(token));
    checkout.program("token", b"changed");
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Done, "{}", cloud.text());
    let (changed, resources) = version(&cloud, "TokenVersion");
    assert_ne!(changed, token);
    assert_eq!(version(&cloud, "UploadVersion").0, upload);
    let key = resources["TokenFunction"]["Properties"]["Code"]["S3Key"]["Fn::Sub"].as_str().unwrap();
    assert!(key.starts_with("${CodePrefix}") && key.ends_with("/token.zip") && key.len() > 80, "{key}");
    // The configuration is part of a version too: without a new one the alias would keep the old issuer.
    let other = SETTINGS.replace("ISSUER=https://api.example.com", "ISSUER=https://gate.example.com");
    assert_eq!(checkout.run(&cloud, &format!("deploy {other}")), Exit::Done, "{}", cloud.text());
    assert_ne!(version(&cloud, "TokenVersion").0, changed);
    assert_eq!(version(&cloud, "MigrateVersion").0.len(), "MigrateVersion".len() + 12);
}

#[test]
fn what_holds_data_is_replaced_only_by_name() {
    let (checkout, cloud) = deployed("");
    *cloud.changes.borrow_mut() = vec![["Modify", "Database", "AWS::RDS::DBInstance", "Conditional"]];
    let line = format!("deploy {SETTINGS} PARAMETERS=DbStorage=30");
    cloud.calls.borrow_mut().clear();
    assert_eq!(checkout.run(&cloud, &line), Exit::Refused);
    assert!(cloud.text().contains("may replace Database (AWS::RDS::DBInstance)"), "{}", cloud.text());
    assert!(cloud.text().contains("ALLOW_REPLACE=\"Database\""));
    assert!(!cloud.acts().iter().any(|act| act.ends_with("execute-change-set data")));
    let discarded = cloud.order().iter().filter(|call| *call == "cloudformation delete-change-set data").count();
    assert_eq!(discarded, 1);
    let allowed = format!("{line} ALLOW_REPLACE=Database");
    assert_eq!(checkout.run(&cloud, &allowed), Exit::Done, "{}", cloud.text());
}

#[test]
fn a_step_that_fails_names_its_cause_and_the_next_run_goes_on_from_there() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    *cloud.fails.borrow_mut() = Some(("portcullis-prod-data".to_owned(), "ROLLBACK_COMPLETE".to_owned()));
    let line = format!("deploy {SETTINGS}");
    assert_eq!(checkout.run(&cloud, &line), Exit::Failed);
    let text = cloud.text();
    assert!(text.contains("step 4 of") && text.contains("did not finish"), "{text}");
    assert!(text.contains("Database (AWS::RDS::DBInstance): no capacity"), "{text}");
    assert!(!text.contains("cancelled") && !text.contains("another time"), "{text}");
    assert!(!cloud.stacks.borrow().contains_key("portcullis-prod-functions"));
    *cloud.fails.borrow_mut() = None;
    cloud.calls.borrow_mut().clear();
    assert_eq!(checkout.run(&cloud, &line), Exit::Done, "{}", cloud.text());
    // The name that the failed creation left is cleared first.
    assert_eq!(steps(&cloud)[0], "cloudformation delete-stack data");
}

#[test]
fn a_migration_that_fails_stops_everything_and_an_issuer_that_is_down_does_not() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    *cloud.throws.borrow_mut() = Some("portcullis-prod-migrate".to_owned());
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Failed);
    assert!(cloud.text().contains("make logs ENV=prod FUNCTION=migrate"), "{}", cloud.text());
    assert!(!cloud.stacks.borrow().contains_key("portcullis-prod-api"));
    let cloud = Cloud::new();
    *cloud.throws.borrow_mut() = Some("portcullis-prod-issuer-keys".to_owned());
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Done, "{}", cloud.text());
    assert!(cloud.text().contains("WARNING  portcullis-prod-issuer-keys answered Unhandled"), "{}", cloud.text());
}

#[test]
fn what_an_earlier_stack_says_cannot_be_set() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS} PARAMETERS=TrustBucket=other")), Exit::Refused);
    assert!(cloud.text().contains("TrustBucket is the output of an earlier stack"), "{}", cloud.text());
}

#[test]
fn a_deployment_that_lacks_something_does_not_start() {
    let (checkout, cloud) = (Checkout::new(), Cloud::new());
    cloud.credentials.set(false);
    assert_eq!(checkout.run(&cloud, "deploy PROFILE=lean"), Exit::Missing);
    let text = cloud.text();
    for line in
        ["MISSING   ENV", "MISSING   ISSUER", "MISSING   AUDIENCE", "MISSING   programs", "MISSING   credentials"]
    {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(cloud.acts().is_empty());
    assert_eq!(Exit::Missing.code(), 2);
}

#[test]
fn wrong_forms_are_named_before_anything_is_asked() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    for issuer in [
        "http://api.example.com",
        "https://api.example.com/",
        "https://api.example.com/v1",
        "https://localhost",
        "https://a.b:8443",
    ] {
        cloud.said.borrow_mut().clear();
        let line = SETTINGS.replace("ISSUER=https://api.example.com", &format!("ISSUER={issuer}"));
        assert_eq!(checkout.run(&cloud, &format!("preflight {line}")), Exit::Missing, "{issuer}");
        assert!(cloud.text().contains("MISSING   ISSUER"), "{issuer}");
    }
    assert_eq!(checkout.run(&cloud, &format!("preflight {SETTINGS}")), Exit::Done, "{}", cloud.text());
    assert_eq!(checkout.run(&cloud, &format!("preflight {SETTINGS} PARAMETERS=DbMoed=proxy")), Exit::Missing);
    assert_eq!(checkout.run(&cloud, &format!("preflight {SETTINGS} IMAGE=tunnel:latest")), Exit::Missing);
    let without_team = SETTINGS.replace(" TEAM=acme", "");
    assert_eq!(checkout.run(&cloud, &format!("preflight {without_team}")), Exit::Done);
    assert_eq!(checkout.run(&cloud, &format!("preflight {without_team} WITH=dns-firewall")), Exit::Missing);
    assert_eq!(checkout.run(&cloud, &format!("preflight {SETTINGS} WITH=code-signing")), Exit::Missing);
    assert_eq!(checkout.run(&cloud, &format!("preflight {SETTINGS} PARAMETERS=Scan=guardduty")), Exit::Usage);
    assert_eq!(checkout.run(&cloud, "preflight ENVIRONMENT=prod"), Exit::Usage);
    assert_eq!(
        checkout.run(&cloud, &format!("preflight {SETTINGS} PROFILE=../lean").replace("PROFILE=lean ", "")),
        Exit::Usage
    );
}

#[test]
fn a_plan_fits_a_screen_and_changes_nothing() {
    for (credentials, expected) in [(false, "AWS was not asked"), (true, "account 111122223333")] {
        let (checkout, cloud) = (Checkout::built(), Cloud::new());
        cloud.credentials.set(credentials);
        assert_eq!(
            checkout.run(&cloud, &format!("deploy {SETTINGS} {IMAGE} DRY_RUN=1")),
            Exit::Done,
            "{}",
            cloud.text()
        );
        let said = cloud.said.borrow();
        assert!(said.len() <= 40, "{}", said.len());
        assert!(said[0].contains(expected), "{}", said[0]);
        assert!(said.iter().all(|line| line.chars().count() <= 170));
        assert!(cloud.acts().is_empty(), "{:?}", cloud.acts());
        assert!(cloud.stacks.borrow().is_empty());
    }
}

#[test]
fn a_plan_of_a_deployment_that_stands_says_what_would_change_and_what_is_refused() {
    let (checkout, cloud) = deployed("");
    cloud.said.borrow_mut().clear();
    cloud.calls.borrow_mut().clear();
    *cloud.changes.borrow_mut() =
        vec![["Modify", "Database", "AWS::RDS::DBInstance", "True"], ["Remove", "Old", "AWS::EC2::Route", ""]];
    assert_eq!(checkout.run(&cloud, &format!("plan {SETTINGS} PARAMETERS=DbStorage=30")), Exit::Refused);
    let text = cloud.text().replace('\n', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("1 replaced, 1 removed; replaces Database (AWS::RDS::DBInstance): REFUSED without ALLOW_REPLACE"),
        "{text}"
    );
    assert!(text.contains("nothing changes"), "{text}");
    assert!(!cloud.order().iter().any(|call| call.contains("execute-change-set")));
    let made = cloud.order().iter().filter(|call| call.contains("create-change-set")).count();
    let discarded = cloud.order().iter().filter(|call| call.contains("delete-change-set")).count();
    assert_eq!(made, discarded, "a plan leaves no change behind");
}

#[test]
fn the_deploy_role_leaves_what_it_was_made_by() {
    let (checkout, cloud) = deployed("");
    *cloud.caller.borrow_mut() = "arn:aws:sts::111122223333:assumed-role/portcullis-prod-deploy/run".to_owned();
    let role = "arn:aws:iam::111122223333:role/portcullis-prod-deploy".to_owned();
    cloud
        .stacks
        .borrow_mut()
        .get_mut("portcullis-prod-bootstrap")
        .unwrap()
        .outputs
        .insert("DeployRoleArn".to_owned(), role);
    cloud.calls.borrow_mut().clear();
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Done, "{}", cloud.text());
    assert!(!cloud.order().contains(&"cloudformation create-change-set bootstrap".to_owned()));
    // CloudFormation acts as the role that the bootstrap stack made for it.
    let calls = cloud.calls.borrow();
    let change = calls.iter().find(|call| call[2] == "create-change-set").unwrap();
    assert_eq!(option(change, "--role-arn").unwrap(), "out-executionrolearn");
}

#[test]
fn code_is_replaced_only_where_a_function_is_and_only_the_code() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    cloud.functions_exist.set(false);
    assert_eq!(checkout.run(&cloud, "code ENV=prod FUNCTION=data-key-encrypt"), Exit::Refused);
    assert!(cloud.acts().is_empty(), "{:?}", cloud.acts());
    cloud.functions_exist.set(true);
    assert_eq!(checkout.run(&cloud, "code ENV=prod FUNCTION=data-key-encrypt"), Exit::Done, "{}", cloud.text());
    let calls = cloud.calls.borrow().clone();
    let deploy = calls.iter().find(|call| call.contains(&"deploy".to_owned())).unwrap();
    assert!(option(deploy, "--lambda-dir").unwrap().ends_with("target/lambda"), "{deploy:?}");
    assert_eq!(option(deploy, "--binary-name").unwrap(), "data-key");
    assert_eq!(deploy.last().unwrap(), "portcullis-prod-data-key-encrypt");
    for forbidden in [
        "--alias",
        "--env-var",
        "--env-file",
        "--role",
        "--subnet-ids",
        "--security-group-ids",
        "--memory",
        "--timeout",
        "--tracing",
        "--enable-function-url",
        "--layer",
        "--merge-env",
        "--runtime",
        "--description",
        "--log-retention",
        "--tag",
    ] {
        assert!(!deploy.iter().any(|one| one == forbidden), "{forbidden}");
    }
    assert_eq!(cloud.aliases.borrow()["portcullis-prod-data-key-encrypt"], "2");
    // A configuration that moved all the same is caught, and the alias stays.
    let cloud = Cloud::new();
    *cloud.drift.borrow_mut() = Some(("Timeout", json!(30)));
    assert_eq!(checkout.run(&cloud, "code ENV=prod FUNCTION=token"), Exit::Refused);
    assert!(cloud.text().contains("changed as well: Timeout"), "{}", cloud.text());
    assert!(cloud.aliases.borrow().is_empty());
}

#[test]
fn a_roll_back_moves_the_alias_to_the_version_before_and_a_deployment_moves_it_on() {
    let (checkout, cloud) = deployed("");
    *cloud.versions.borrow_mut() = vec![1, 2, 4, 7];
    cloud.aliases.borrow_mut().insert("portcullis-prod-token".to_owned(), "7".to_owned());
    assert_eq!(checkout.run(&cloud, "rollback ENV=prod FUNCTION=token"), Exit::Done);
    assert_eq!(cloud.aliases.borrow()["portcullis-prod-token"], "4");
    assert_eq!(checkout.run(&cloud, "rollback ENV=prod FUNCTION=token VERSION=2"), Exit::Done);
    assert_eq!(cloud.aliases.borrow()["portcullis-prod-token"], "2");
    assert_eq!(checkout.run(&cloud, "rollback ENV=prod FUNCTION=token VERSION=3"), Exit::Refused);
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Done, "{}", cloud.text());
    assert_eq!(cloud.aliases.borrow()["portcullis-prod-token"], "1");
    assert!(cloud.text().contains("portcullis-prod-token: live was at version 2 and is at 1 now"));
}

#[test]
fn a_deployment_is_destroyed_only_by_its_name_and_never_with_its_data() {
    let (checkout, cloud) = deployed(IMAGE);
    cloud.calls.borrow_mut().clear();
    assert_eq!(checkout.run(&cloud, "destroy ENV=prod"), Exit::Refused);
    *cloud.typed.borrow_mut() = Some("production\n".to_owned());
    assert_eq!(checkout.run(&cloud, "destroy ENV=prod"), Exit::Refused);
    assert!(cloud.acts().is_empty());
    *cloud.typed.borrow_mut() = Some("prod\n".to_owned());
    assert_eq!(checkout.run(&cloud, "destroy ENV=prod"), Exit::Done, "{}", cloud.text());
    assert_eq!(
        cloud.acts(),
        ["edge", "watch", "api", "functions"].map(|stack| format!("cloudformation delete-stack {stack}"))
    );
    for kept in ["Database (AWS::RDS::DBInstance", "DataKey (AWS::KMS::Key"] {
        assert!(cloud.text().contains(kept), "{}", cloud.text());
    }
    assert!(cloud.stacks.borrow().contains_key("portcullis-prod-data"));
}

#[test]
fn preflight_asks_for_the_secret_by_the_name_that_the_templates_use() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    let secret = |cloud: &Cloud, name: &str| *cloud.secret.borrow_mut() = name.to_owned();
    for line in ["", " PARAMETERS=TunnelCredentialsParameter="] {
        assert_eq!(
            checkout.run(&cloud, &format!("preflight {SETTINGS} {IMAGE}{line}")),
            Exit::Done,
            "{}",
            cloud.text()
        );
    }
    assert!(cloud.text().contains("/portcullis/prod/tunnel"), "{}", cloud.text());
    secret(&cloud, "/portcullis/tunnel-credentials");
    assert_eq!(checkout.run(&cloud, &format!("preflight {SETTINGS} {IMAGE}")), Exit::Missing);
    assert!(cloud.text().contains("no parameter /portcullis/prod/tunnel"), "{}", cloud.text());
    secret(&cloud, "/mine");
    let mine = format!("preflight {SETTINGS} {IMAGE} PARAMETERS=TunnelCredentialsParameter=/mine");
    assert_eq!(checkout.run(&cloud, &mine), Exit::Done, "{}", cloud.text());
}

#[test]
fn an_account_whose_api_gateway_may_write_no_logs_is_told_before_anything_starts() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    cloud.log_role.set(false);
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Missing);
    assert!(cloud.text().contains("MISSING   API Gateway's log role"), "{}", cloud.text());
    assert!(cloud.text().contains("PARAMETERS=\"ApiGatewayAccountRole=on\""), "{}", cloud.text());
    assert!(cloud.acts().is_empty(), "{:?}", cloud.acts());
    let on = format!("preflight {SETTINGS} PARAMETERS=ApiGatewayAccountRole=on");
    assert_eq!(checkout.run(&cloud, &on), Exit::Done, "{}", cloud.text());
    // For check_calls.py: the shape of the answer is AWS's.
    let asked = [true, false].map(|role| json!(["apigateway get-account", Cloud::account(role)]));
    std::fs::write(format!("{}/live-answers-account.json", env!("CARGO_TARGET_TMPDIR")), json!(asked).to_string())
        .unwrap();
}

const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const SECOND: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-99999999999999999999999999999999";

/// What preflight says of the import keys, and whether a deployment can start.
fn imports(cloud: &Cloud, keys: &str, arns: &str) -> (Exit, String) {
    let file = "infra/import.env";
    let checkout = Checkout::built();
    std::fs::write(checkout.path(file), format!("PARAMETERS=ImportKeys={keys} ImportKeyArns={arns}\n")).unwrap();
    cloud.said.borrow_mut().clear();
    let exit = checkout.run(cloud, &format!("preflight {SETTINGS} SETTINGS={file}"));
    let said = cloud.said.borrow().iter().filter(|line| line.contains("import key")).cloned().collect::<Vec<_>>();
    (exit, said.join("\n"))
}

#[test]
fn a_key_of_imports_without_an_alias_of_the_deployment_is_told_with_the_command_that_makes_one() {
    let cloud = Cloud::new();
    let has = |key: &str, aliases: Option<Vec<&'static str>>| {
        cloud.key_aliases.borrow_mut().insert(key.to_owned(), aliases);
    };
    has(KEY, Some(vec!["alias/acme", "alias/portcullis-prod-import-acme"]));
    has(SECOND, Some(vec!["alias/portcullis-prod-import-globex"]));
    let (exit, said) = imports(&cloud, &format!("acme={KEY},globex={KEY},globex={SECOND}"), &format!("{KEY},{SECOND}"));
    assert_eq!((exit, said.lines().count()), (Exit::Done, 2), "{said}");
    assert!(
        said.contains(&format!("ok        import key             {KEY} by alias/portcullis-prod-import-acme")),
        "{said}"
    );
    let asked: Vec<_> = cloud.calls.borrow().iter().filter(|call| call[1] == "kms").cloned().collect();
    assert_eq!(asked.len(), 2, "a key is asked about once: {asked:?}");
    assert_eq!(asked[0][2..5], ["list-aliases", "--key-id", KEY]);
    assert_eq!(option(&asked[0], "--region").as_deref(), Some("eu-central-1"));
    // For check_calls.py: the call, and the shape of the answer, are AWS's.
    let folder = env!("CARGO_TARGET_TMPDIR");
    let calls: Vec<_> = asked.iter().map(|call| &call[1..]).collect();
    std::fs::write(format!("{folder}/calls-imports.json"), json!(calls).to_string()).unwrap();
    let answers =
        [["alias/acme"].as_slice(), &[]].map(|aliases| json!(["kms list-aliases", Cloud::aliases_of(KEY, aliases)]));
    std::fs::write(format!("{folder}/live-answers-imports.json"), json!(answers).to_string()).unwrap();

    // Others' aliases, another deployment's, one that only begins alike, none.
    for aliases in [
        vec!["alias/acme"],
        vec!["alias/portcullis-prod2-import"],
        vec!["alias/portcullis-prod", "alias/aws/s3"],
        vec![],
    ] {
        has(KEY, Some(aliases.clone()));
        let (exit, said) = imports(&cloud, &format!("acme={KEY}"), KEY);
        assert_eq!(exit, Exit::Missing, "{aliases:?}");
        assert!(said.contains("MISSING   import key") && aliases.iter().all(|alias| said.contains(alias)), "{said}");
        let create = "aws kms create-alias --region eu-central-1 --alias-name alias/portcullis-prod-import-1234abcd-12ab-34cd-56ef-1234567890ab";
        assert!(said.contains(&format!("{create} --target-key-id {KEY}")), "{said}");
    }
    let acts = cloud.acts();
    assert!(acts.is_empty(), "it is said and not done: {acts:?}");
}

#[test]
fn what_cannot_be_asked_of_a_key_of_imports_is_no_pass_and_what_may_not_is_a_note() {
    let cloud = Cloud::new();
    let named = |arn: &str| imports(&cloud, &format!("acme={arn}"), arn);
    cloud.key_aliases.borrow_mut().insert(KEY.to_owned(), None);
    let (exit, said) = named(KEY);
    assert_eq!(exit, Exit::Done, "the deploy role is denied all of KMS: {said}");
    assert!(
        said.contains("note      import key") && said.contains("not asked") && said.contains("create-alias"),
        "{said}"
    );
    let asked = || cloud.calls.borrow().iter().filter(|call| call[1] == "kms").count();
    assert_eq!((named(SECOND).0, asked()), (Exit::Missing, 2), "no such key");
    for elsewhere in [KEY.replace("111122223333", "444455556666"), KEY.replace("eu-central-1", "us-east-1")] {
        let (exit, said) = named(&elsewhere);
        assert_eq!(exit, Exit::Missing);
        assert!(said.contains("of another account or region: its aliases cannot be asked for"), "{said}");
    }
    for malformed in [
        "alias/acme",
        "1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws:kms:eu-central-1:111122223333:alias/acme",
        "arn:aws:kms:eu-central-1:1:key/x",
        "arn:aws:s3:eu-central-1:111122223333:key/x",
    ] {
        let (exit, said) = named(malformed);
        assert_eq!(exit, Exit::Missing, "{malformed}");
        assert!(said.contains(&format!("`{malformed}` is no key's ARN")), "{said}");
    }
    assert_eq!(asked(), 2, "of those nobody is asked");

    // The two lists say the same.
    cloud.key_aliases.borrow_mut().insert(KEY.to_owned(), Some(vec!["alias/portcullis-prod-import"]));
    let (exit, said) = imports(&cloud, &format!("acme={KEY}"), "");
    assert_eq!(exit, Exit::Missing);
    assert!(said.contains("is in ImportKeys and not in ImportKeyArns"), "{said}");
    let (exit, said) = imports(&cloud, "", KEY);
    assert_eq!(exit, Exit::Done, "{said}");
    assert!(said.contains("note      import key") && said.contains("no tenant's in ImportKeys"), "{said}");

    // Nobody to ask: that is said once, and nothing is said where no key is named.
    cloud.credentials.set(false);
    let (exit, said) = named(KEY);
    assert_eq!(exit, Exit::Missing);
    assert!(said.contains("unasked   import keys            no credentials"), "{said}");
    assert_eq!(imports(&cloud, "", ""), (Exit::Missing, String::new()));
}

#[test]
fn versions_that_are_kept_do_not_stand_in_the_way_of_the_next_creation() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    *cloud.fails.borrow_mut() = Some(("portcullis-prod-functions".to_owned(), "ROLLBACK_COMPLETE".to_owned()));
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Failed);
    *cloud.fails.borrow_mut() = None;
    *cloud.stayed.borrow_mut() = vec!["AWS::Lambda::Version", "AWS::Logs::LogGroup"];
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Refused, "{}", cloud.text());
    assert!(cloud.text().contains("AWS::Logs::LogGroup physical-"), "{}", cloud.text());
    assert!(!cloud.text().contains("(AWS::Lambda::Version"), "{}", cloud.text());
    *cloud.stayed.borrow_mut() = vec!["AWS::Lambda::Version"];
    assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS}")), Exit::Done, "{}", cloud.text());
}

#[test]
fn what_is_left_out_does_not_fall_back_to_its_default_by_itself() {
    let (checkout, cloud) = deployed("PARAMETERS=LogRetention=400");
    cloud.calls.borrow_mut().clear();
    cloud.said.borrow_mut().clear();
    for command in ["plan", "deploy"] {
        assert_eq!(checkout.run(&cloud, &format!("{command} {SETTINGS}")), Exit::Refused, "{}", cloud.text());
        let text = cloud.text();
        assert!(text.contains("network: LogRetention: 400 -> 90") && text.contains("nobody named it"), "{text}");
        assert!(text.contains("PARAMETERS=\"LogRetention=400\"") && text.contains("ALLOW_DEFAULTS=1"), "{text}");
        assert!(cloud.acts().iter().all(|act| !act.contains("execute")), "{:?}", cloud.acts());
        cloud.said.borrow_mut().clear();
    }
    // Named, it is told and done; so is the default where it is meant.
    let named = format!("deploy {SETTINGS} PARAMETERS=LogRetention=365");
    assert_eq!(checkout.run(&cloud, &named), Exit::Done, "{}", cloud.text());
    assert!(cloud.text().contains("data: LogRetention: 400 -> 365"), "{}", cloud.text());
    assert!(!cloud.text().contains("nobody named it"), "{}", cloud.text());
    let allowed = format!("deploy {SETTINGS} ALLOW_DEFAULTS=1");
    assert_eq!(checkout.run(&cloud, &allowed), Exit::Done, "{}", cloud.text());
    assert_eq!(cloud.stacks.borrow()["portcullis-prod-api"].parameters["LogRetention"], "90");
    // What the profile says is a default too.
    let other = SETTINGS.replace("PROFILE=lean ", "");
    assert_eq!(checkout.run(&cloud, &format!("deploy {other}")), Exit::Refused);
    assert!(cloud.text().contains("network: DbMode: direct -> proxy"), "{}", cloud.text());
}

#[test]
fn an_optional_stack_that_stands_is_not_forgotten_by_itself() {
    let (checkout, cloud) = deployed("WITH=malware-scan,app-link PARAMETERS=AppLoadBalancerArn=out-apploadbalancerarn");
    cloud.said.borrow_mut().clear();
    let again = format!("{SETTINGS} WITH=malware-scan,app-link PARAMETERS=AppLoadBalancerArn=out-apploadbalancerarn");
    assert_eq!(checkout.run(&cloud, &format!("plan {again}")), Exit::Done, "{}", cloud.text());
    for command in ["plan", "deploy"] {
        cloud.said.borrow_mut().clear();
        assert_eq!(checkout.run(&cloud, &format!("{command} {SETTINGS}")), Exit::Refused, "{}", cloud.text());
        let text = cloud.text();
        for line in [
            "the stack malware-scan stands and WITH does not name it",
            "data: Scan: guardduty -> off",
            // The plan learns no more than the deployment would: the link is no output of this one.
            "api: AppLinkId: out-applinkid -> (empty)",
            "WITH=\"malware-scan app-link\"",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
    let allowed = format!("deploy {SETTINGS} ALLOW_DEFAULTS=1");
    assert_eq!(checkout.run(&cloud, &allowed), Exit::Done, "{}", cloud.text());
    assert_eq!(cloud.stacks.borrow()["portcullis-prod-api"].parameters["AppLinkId"], "");
    // To want it again is to name what follows from it.
    assert_eq!(checkout.run(&cloud, &format!("deploy {again}")), Exit::Done, "{}", cloud.text());
}

#[test]
fn parameters_of_the_command_line_and_of_the_file_are_merged_by_name() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    let file = checkout.path("settings");
    std::fs::write(&file, "PARAMETERS=LogRetention=400 DbStorage=30\nBackupDays=20\n").unwrap();
    let line = format!("deploy {SETTINGS} SETTINGS=settings PARAMETERS=LogRetention=365");
    assert_eq!(checkout.run(&cloud, &line), Exit::Done, "{}", cloud.text());
    let stacks = cloud.stacks.borrow();
    let data = &stacks["portcullis-prod-data"].parameters;
    assert_eq!([&data["LogRetention"], &data["DbStorage"], &data["BackupDays"]], ["365", "30", "20"]);
}

#[test]
fn what_has_a_setting_of_its_own_is_no_further_parameter() {
    let (checkout, cloud) = (Checkout::built(), Cloud::new());
    for (name, setting) in [
        ("Env", "ENV"),
        ("Issuer", "ISSUER"),
        ("Audience", "AUDIENCE"),
        ("AccessTeam", "TEAM"),
        ("ImageUri", "IMAGE"),
        ("Architecture", "ARCH"),
    ] {
        for line in [format!("PARAMETERS={name}=other"), format!("{name}=other")] {
            cloud.said.borrow_mut().clear();
            assert_eq!(checkout.run(&cloud, &format!("deploy {SETTINGS} {line}")), Exit::Usage, "{line}");
            let told = format!("{name} has a setting of its own: {setting}=other");
            assert!(cloud.text().contains(&told), "{}", cloud.text());
        }
    }
    assert!(cloud.acts().is_empty());
}
