//! One environment file a function, for whoever runs a function outside this stack's own Runtime API: `cargo lambda watch`,
//! a debugger, a profiler.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::seed::write_private;
use crate::stack::{ENV, Stack};

/// How long the credentials in the files work: a working day. The stack itself seldom lives longer.
const LIFE: Duration = Duration::from_secs(12 * 3600);

/// What a Runtime API tells its function itself, and what belongs to the sandbox rather than to the function.
const OF_THE_RUNTIME: &[&str] = &["_HANDLER", "_X_AMZN_TRACE_ID", "LAMBDA_TASK_ROOT", "LANG", "PATH", "TZ"];

/// Writes `<deployment>.env` for every function into `folder`, readable by its owner only: lines `NAME=value`, the
/// function's configuration, the stack's addresses, and a session of the function's own role.
///
/// # Errors
/// When a file cannot be written.
pub fn write(stack: &Stack, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let prefix = format!("portcullis-{ENV}-");
    for function in stack.lambda.functions() {
        let Some(deployment) = function.strip_prefix(&prefix) else { continue };
        let environment = stack.lambda.environment(function, "", LIFE).unwrap_or_default();
        let mut text = format!("# {function}, gateway {}\n", stack.places.gateway);
        for (name, value) in environment {
            if !name.starts_with("AWS_LAMBDA_") && !OF_THE_RUNTIME.contains(&name.as_str()) {
                text.push_str(&format!("{name}={value}\n"));
            }
        }
        write_private(&folder.join(format!("{deployment}.env")), &text)?;
    }
    Ok(())
}

/// Removes the files of the stack at `gateway` and leaves those of another one alone.
pub fn forget(folder: &Path, gateway: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, first_line) = (entry.path(), format!(", gateway {gateway}\n"));
        if std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&first_line)) {
            let _ = std::fs::remove_file(path);
        }
    }
}
