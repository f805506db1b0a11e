//! The existing application behind the gate: `application/legacy.py`, as a process of its own on the socket to which the stack's VPC link leads.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::http::exchange;
use crate::stack::{AUDIENCE, Stack};

/// How long the application may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running application. It ends when this is dropped.
#[derive(Debug)]
pub struct Application {
    socket: PathBuf,
    _process: Child,
}

impl Application {
    /// Starts the application behind `stack`'s gate. With the gate's key set it lets nobody in but whom the gate let in; without, it believes
    /// its headers, as it always did.
    ///
    /// # Errors
    /// When there is no Python, or the application does not listen.
    pub async fn start(stack: &Stack, keys: Option<&Value>) -> io::Result<Self> {
        let socket = stack.places.application.clone();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("application/legacy.py");
        let mut command = Command::new("python3");
        command.arg("-B").arg(script).arg(&socket).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(keys) = keys {
            let file = stack.places.directory.join("application-keys.json");
            std::fs::write(&file, keys.to_string())?;
            command.arg(&stack.places.gateway).arg(AUDIENCE).arg(file);
        }
        let application = Self { _process: command.spawn()?, socket };
        let listening = async {
            while UnixStream::connect(&application.socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let patient = tokio::time::timeout(PATIENCE, listening).await;
        patient.map_err(|_| io::Error::other("the application does not listen"))?;
        Ok(application)
    }

    /// Asks the application around the gate, as somebody would who got into its network.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> io::Result<http::Response<Bytes>> {
        let mut request = http::Request::builder().uri(path).header("host", "inside");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::new())).map_err(io::Error::other)?;
        exchange(UnixStream::connect(&self.socket).await?, request).await
    }
}
