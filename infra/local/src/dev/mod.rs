//! The stack for people: what `local dev` adds to one that runs.

pub mod command;
pub mod hints;
pub mod rebuild;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::http::bind;
use crate::seed;
use crate::stack::{Options, Stack, sibling_binaries, unpacked_postgres};
use crate::view::page::Page;

/// Parameters of the template that replace the stack's own: `local demo Signer=ssm`.
pub type Parameters = std::collections::BTreeMap<String, String>;

/// A seeded stack and what is around it.
pub struct Started {
    /// The stack.
    pub stack: Arc<Stack>,
    /// Its clients.
    pub clients: Vec<seed::Client>,
    /// Its `portcullis.json`.
    pub manifest: PathBuf,
    /// Links to the functions' programs, where they are to be replaced while it runs.
    pub programs: Option<rebuild::Programs>,
    /// How long all that took, in seconds.
    pub took: f64,
}

/// Starts the stack in `home` (`.local`), with a template of somebody's own where there is one, seeds it, writes `portcullis.json` there.
///
/// # Errors
/// What could not be started.
pub async fn start(
    home: Option<PathBuf>,
    own: Option<PathBuf>,
    parameters: Parameters,
    replaceable: bool,
) -> io::Result<Started> {
    let checkout = std::env::current_dir()?;
    let shared = checkout.join(".local");
    let home = home.map_or_else(|| shared.clone(), |home| checkout.join(home));
    let (since, run) = (Instant::now(), home.join("run"));
    let built = sibling_binaries()?;
    let programs = if replaceable { Some(rebuild::Programs::link(&built, &run)?) } else { None };
    let stack = Stack::start(Options {
        binaries: programs.as_ref().map_or(built, |programs| programs.folder().to_path_buf()),
        postgres: unpacked_postgres(&checkout),
        root: run,
        cache: Some(shared.join("cache")),
        clock: Clock::system(),
        parameters,
        own,
    })
    .await?;
    let clients = seed::seed(&stack).await?;
    let manifest = home.join("portcullis.json");
    seed::write_manifest(&stack, &clients, &manifest)?;
    Ok(Started { stack: Arc::new(stack), clients, manifest, programs, took: since.elapsed().as_secs_f64() })
}

/// Begins to look, serves the page and writes its place into the manifest.
///
/// # Errors
/// When there is no port, or the manifest cannot be written.
pub async fn watch(started: &Started) -> io::Result<Page> {
    let account = &started.stack.account;
    // A stack that lives long remembers no more of its decisions than somebody could read.
    account.iam.keep_last(10_000);
    account.view.switch_on();
    let page = Page::serve(Arc::clone(account), bind().await?).await?;
    let text = std::fs::read_to_string(&started.manifest)?;
    let mut manifest: Value = serde_json::from_str(&text).map_err(io::Error::other)?;
    if let Some(members) = manifest.as_object_mut() {
        members.insert("view".to_owned(), json!(page.url));
    }
    seed::write_private(&started.manifest, &serde_json::to_string_pretty(&manifest).unwrap_or_default())?;
    Ok(page)
}

/// Removes the file that names a stack that is gone, unless another stack has written its own meanwhile.
pub fn forget(manifest: &Path, gateway: &str) {
    if std::fs::read_to_string(manifest).is_ok_and(|text| text.contains(gateway)) {
        let _ = std::fs::remove_file(manifest);
    }
}
