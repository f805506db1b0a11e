//! The floor: the same runtime with nothing to do. What this costs, no function can save.

use std::process::ExitCode;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let empty = service_fn(async |_: LambdaEvent<Value>| Ok::<_, Error>(json!({})));
    match runtime.block_on(lambda_runtime::run(empty)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
