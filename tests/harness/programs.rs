//! The programs under test, as cargo builds them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Where the two programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `kontor`.
    pub connector: PathBuf,
    /// `kontor-broker`.
    pub broker: PathBuf,
}

/// The programs of the profile and target folder that this test was built in. Cargo builds the
/// library of a dependency, not its program, so that is asked for once, without network.
///
/// # Panics
/// When the programs cannot be built.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own path");
        // target/debug/deps/scenarios-1234
        let folder = test.ancestors().find(|path| !path.ends_with("deps") && *path != test).expect("a target folder");
        let profile = if folder.ends_with("release") { "release" } else { "dev" };
        build(profile, folder.parent().expect("a target folder"));
        Programs { connector: folder.join("kontor"), broker: folder.join("kontor-broker") }
    })
}

fn build(profile: &str, target: &Path) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--quiet", "--profile", profile, "-p", "kontor", "-p", "kontor-broker", "--bins"])
        // With the tests' package the features are those that the libraries were just built with.
        .args(["-p", "kontor-tests"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace)
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "the programs do not build:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Sends a signal, by the shell's own `kill`: the program of that name is not on every machine.
///
/// # Panics
/// When there is no such process.
pub fn send_signal(child: &Child, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).output().unwrap();
    assert!(sent.status.success(), "SIG{name} was not sent: {}", String::from_utf8_lossy(&sent.stderr));
}

/// Waits for the end of a program, but not for ever: one that goes on is killed, and `None` is given.
#[expect(clippy::disallowed_methods, reason = "there is no event to wait for, and no task to hold up")]
pub fn wait_at_most(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
