//! The files that `make dev` writes for whoever runs a function by itself.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use local::function_files;
use support::Running;

#[tokio::test(flavor = "multi_thread")]
async fn each_function_has_an_environment_file_that_its_owner_alone_may_read() {
    let running = Running::start().await;
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("functions");
    std::fs::create_dir_all(&folder).unwrap();
    // One that was readable by everybody before is so no longer.
    std::fs::write(folder.join("token.env"), "AWS_REGION=old\n").unwrap();
    std::fs::set_permissions(folder.join("token.env"), std::fs::Permissions::from_mode(0o644)).unwrap();
    function_files::write(&running.stack, &folder).unwrap();

    let mut secrets = Vec::new();
    for function in running.stack.lambda.functions() {
        let file = folder.join(format!("{}.env", function.strip_prefix("portcullis-local-").unwrap()));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let variables: BTreeMap<_, _> = lines.map(|line| line.split_once('=').unwrap()).collect();
        let names: Vec<_> = variables.keys().collect();
        for name in ["AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "PORTCULLIS_CA_FILE"]
        {
            assert!(variables.get(name).is_some_and(|value| !value.is_empty()), "{function} has no {name}: {names:?}");
        }
        let the_runtimes = variables.keys().any(|name| name.starts_with("AWS_LAMBDA_") || name.starts_with('_'));
        assert!(!the_runtimes, "{function}: {names:?}");
        secrets.push(variables["AWS_SECRET_ACCESS_KEY"].to_owned());
    }
    let count = secrets.len();
    secrets.sort_unstable();
    secrets.dedup();
    assert_eq!((secrets.len(), count >= 10), (count, true), "each function has a session of its own role");

    std::fs::write(folder.join("other.env"), "# portcullis-local-token, gateway https://localhost:1\n").unwrap();
    function_files::forget(&folder, &running.stack.places.gateway);
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["other.env"], "the files of another stack are left alone");
    running.stack.stop().await;
}
