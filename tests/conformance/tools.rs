//! What the suites share: the environment, programs on this machine, the program to test.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

#[expect(clippy::disallowed_methods, reason = "a program of the tests, which has no settings")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty() && value != "false")
}

pub(crate) async fn succeeds(program: &str, argument: &str) -> bool {
    let status = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    status.is_ok_and(|status| status.success())
}

/// Where what was fetched is kept.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = match environment("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => Path::new(&environment("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(cache.join("kontor"))
}

/// Builds the program in the profile that this one was built in.
pub(crate) async fn build() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("this program lies in no folder")?;
    let mut cargo = Command::new(environment("CARGO").unwrap_or_else(|| "cargo".to_owned()));
    cargo.args(["build", "--quiet", "--package", "kontor", "--bin", "kontor"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().await.context("cannot run cargo")?;
    ensure!(status.success(), "`kontor` does not build");
    let program = folder.join("kontor");
    ensure!(program.is_file(), "`{}` is not there; name it with --kontor", program.display());
    Ok(program)
}

pub(crate) fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(&rest[..rest.find(end)?])
}
