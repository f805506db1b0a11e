//! What the authorizer is compared with: the same runtime and one RS256 signature check. No claim is looked at, nothing
//! is revoked, no route is known.

use std::process::ExitCode;

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let (Some(n), Some(e)) = (variable("BENCH_RSA_N"), variable("BENCH_RSA_E")) else {
        return ExitCode::from(64);
    };
    let Ok(key) = DecodingKey::from_rsa_components(&n, &e) else {
        return ExitCode::from(64);
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let key = &key;
    let check = service_fn(async |event: LambdaEvent<Value>| {
        Ok::<_, Error>(json!({"verified": verified(&event.payload, key)}))
    });
    match runtime.block_on(lambda_runtime::run(check)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn verified(event: &Value, key: &DecodingKey) -> bool {
    let header = event.pointer("/headers/Authorization").and_then(Value::as_str).unwrap_or_default();
    let token = header.strip_prefix("Bearer ").unwrap_or_default();
    let Some((signed, signature)) = token.rsplit_once('.') else { return false };
    matches!(crypto::verify(signature, signed.as_bytes(), key, Algorithm::RS256), Ok(true))
}

#[expect(clippy::disallowed_methods, reason = "a measuring program of the bench, not a function of the house")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
