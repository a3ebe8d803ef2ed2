//! The demo ends by itself, by a signal or by a failure, and leaves nothing.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kontor_tests::programs::{programs, send_signal, wait_at_most};
use tempfile::TempDir;

/// How long a demo may take; it does everything itself, so only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A demo with a temporary folder of its own, so that all that it leaves is seen.
struct Demo {
    temporary: TempDir,
    child: Child,
}

/// How a demo ended.
struct Ended {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Demo {
    fn start(broker: &Path, arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = Command::new(&programs().connector);
        command.args(["demo", "--broker"]).arg(broker).args(arguments).env("TMPDIR", temporary.path());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { temporary, child }
    }

    /// Sends a signal to the demo alone once it says something; nothing is sent where that never comes.
    fn signal(self, name: &str, at: &str) -> Ended {
        self.end(Some((name, at)))
    }

    /// Waits until it ends by itself.
    fn wait(self) -> Ended {
        self.end(None)
    }

    fn end(mut self, signal: Option<(&str, &str)>) -> Ended {
        let mut stdout = String::new();
        for line in BufReader::new(self.child.stdout.take().unwrap()).lines() {
            stdout += &(line.unwrap() + "\n");
            if let Some((name, _)) = signal.filter(|(_, at)| stdout.ends_with('\n') && last(&stdout).contains(at)) {
                let running = programs_below(self.temporary.path());
                assert_eq!(running.len(), 3, "a broker, a provider and a consumer run: {running:?}");
                send_signal(&self.child, name);
            }
        }
        let status = wait_at_most(&mut self.child, PATIENCE);
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let Some(status) = status else { panic!("the demo does not end:\n{stdout}{stderr}") };
        let left = in_folder(self.temporary.path());
        assert!(left.is_empty(), "{left:?} are left:\n{stdout}{stderr}");
        let running = programs_below(self.temporary.path());
        assert!(running.is_empty(), "{running:?} still run:\n{stdout}{stderr}");
        Ended { success: status.success(), stdout, stderr }
    }
}

fn last(text: &str) -> &str {
    text.lines().next_back().unwrap_or_default()
}

fn in_folder(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The command lines of the programs whose settings lie below a folder.
fn programs_below(folder: &Path) -> Vec<String> {
    let processes = in_folder(Path::new("/proc")).into_iter();
    let lines = processes.filter_map(|process| std::fs::read(process.join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&format!("{}/", folder.display()))).collect()
}

#[test]
fn the_demo_ends_by_itself_and_leaves_nothing() {
    let ended = Demo::start(&programs().broker, &[]).wait();
    assert!(ended.success, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("All nine steps passed"), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("Everything is stopped and removed.\n"), "{}", ended.stdout);
}

#[test]
fn the_demo_over_ones_own_folder_puts_nothing_beside_it() {
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().join("fairs");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("one.csv"), "fair,place\nautumn,Leipzig\n").unwrap();
    // Not to be written to at all, not even for a while.
    std::fs::set_permissions(own.path(), std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    let before = std::fs::metadata(own.path()).unwrap().modified().unwrap();
    let ended = Demo::start(&programs().broker, &["--data", folder.to_str().unwrap()]).wait();
    assert!(ended.success, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(in_folder(own.path()), std::slice::from_ref(&folder));
    assert_eq!(in_folder(&folder), [folder.join("one.csv")]);
    // Root writes in spite of the permissions; that would have changed the time.
    assert_eq!(std::fs::metadata(own.path()).unwrap().modified().unwrap(), before, "something lay there for a while");
    std::fs::set_permissions(own.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_signal_in_the_middle_of_the_demo_leaves_nothing() {
    for (name, at) in [("TERM", "[3/9]"), ("INT", "[5/9]"), ("HUP", "[7/9]")] {
        let ended = Demo::start(&programs().broker, &[]).signal(name, at);
        assert!(!ended.success, "SIG{name}: {}", ended.stdout);
        assert!(ended.stderr.contains(&format!("SIG{name} came before the last step")), "{}", ended.stderr);
        assert!(!ended.stdout.contains("[9/9]"), "it went on after SIG{name}: {}", ended.stdout);
    }
}

#[tokio::test]
async fn the_programs_of_a_demo_that_is_killed_end_by_themselves() {
    let Demo { temporary, mut child } = Demo::start(&programs().broker, &[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("[5/9]")));
    assert_eq!(programs_below(temporary.path()).len(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    while !programs_below(temporary.path()).is_empty() {
        assert!(began.elapsed() < PATIENCE, "{:?} still run", programs_below(temporary.path()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_step_that_fails_fails_the_demo_and_leaves_nothing() {
    let ended = Demo::start(&programs().broker, &["--data", "/nowhere/at/all"]).wait();
    assert!(!ended.success && ended.stderr.contains("`/nowhere/at/all` is not there"), "{}", ended.stderr);

    let ended = Demo::start(Path::new("/nowhere/at/all"), &[]).wait();
    assert!(!ended.success && ended.stderr.contains("--broker"), "{}", ended.stderr);

    // A program that is no broker: it knows no such settings, says so, and ends.
    let ended = Demo::start(&programs().connector, &[]).wait();
    assert!(!ended.success && ended.stderr.contains("broker did not start"), "{}", ended.stderr);
    assert!(ended.stderr.contains("unknown setting"), "its own words are not shown: {}", ended.stderr);
}
