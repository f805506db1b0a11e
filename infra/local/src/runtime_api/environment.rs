//! The environment of a function process: empty, plus what Lambda and the stack give it.

use std::{collections::BTreeMap, path::Path};

use crate::{account::Keys, template::FunctionSpec};

/// Names Lambda sets itself and refuses in a template.
const RESERVED: &[&str] = &[
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// The variables of a template that Lambda would refuse to deploy.
pub(crate) fn reserved(spec: &FunctionSpec) -> Vec<String> {
    spec.environment
        .keys()
        .filter(|name| RESERVED.contains(&name.as_str()) || name.starts_with("AWS_ENDPOINT_URL"))
        .map(|name| format!("{}: {name} is reserved and cannot be set by the template", spec.logical_id))
        .collect()
}

/// Where the stack's own services listen, and what else every process gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) region: String,
    /// Service name in lower case → URL.
    pub(crate) endpoints: BTreeMap<String, String>,
    /// URL of the listener that answers 501 to every call meant for AWS itself.
    pub(crate) sink: String,
    pub(crate) extra: BTreeMap<String, String>,
}

/// Everything process number `ordinal` of the function sees.
pub(crate) fn environment(
    spec: &FunctionSpec,
    surroundings: &Surroundings,
    keys: &Keys,
    runtime_api: &str,
    task_root: &Path,
    ordinal: u64,
) -> BTreeMap<String, String> {
    let mut environment = spec.environment.clone();
    environment.extend(surroundings.extra.clone());
    for (service, url) in &surroundings.endpoints {
        environment.insert(format!("AWS_ENDPOINT_URL_{}", service.to_uppercase().replace('-', "_")), url.clone());
    }
    let own = [
        ("AWS_ACCESS_KEY_ID", keys.access_key_id.clone()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ("AWS_DEFAULT_REGION", surroundings.region.clone()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_ENDPOINT_URL", surroundings.sink.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", spec.memory.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", spec.function_name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", spec.function_name)),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("[$LATEST]{ordinal:032x}")),
        ("AWS_LAMBDA_RUNTIME_API", runtime_api.to_owned()),
        ("AWS_REGION", surroundings.region.clone()),
        ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.clone()),
        ("AWS_SESSION_TOKEN", keys.session_token.clone().unwrap_or_default()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ("LAMBDA_TASK_ROOT", task_root.display().to_string()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin".to_owned()),
        ("TZ", ":UTC".to_owned()),
        ("_HANDLER", "bootstrap".to_owned()),
        ("_X_AMZN_TRACE_ID", trace_id(ordinal)),
    ];
    environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
    environment
}

/// An unsampled X-Ray trace header.
pub(crate) fn trace_id(ordinal: u64) -> String {
    format!("Root=1-00000000-{ordinal:024x};Parent={ordinal:016x};Sampled=0")
}
