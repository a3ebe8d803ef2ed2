//! The README's own commands, run as a newcomer would run them: against a demo that keeps running.

#![expect(clippy::unwrap_used, reason = "tests")]

mod demo;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kontor_tests::programs::{programs, send_signal, wait_at_most};

/// A demo that is told to end, and killed if it does not, when the test is over.
struct Demo(Child);

impl Demo {
    /// Tells it to end, and whether it did so as it should.
    fn end(&mut self) -> bool {
        send_signal(&self.0, "INT");
        wait_at_most(&mut self.0, Duration::from_secs(20)).is_some_and(|status| status.success())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.end();
        }
    }
}

#[test]
fn what_to_try_next_works_against_a_kept_demo() {
    for program in ["bash", "curl"] {
        let found = Command::new(program).arg("--version").output();
        assert!(
            found.is_ok(),
            "`{program}` is missing, which the README's commands use: install the package `{program}`"
        );
    }
    let programs = programs();
    let mut child = Command::new(&programs.connector)
        .args(["demo", "--keep", "--broker"])
        .arg(&programs.broker)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Read to the end of the test: the demo still says goodbye.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut demo = Demo(child);
    let mut printed = String::new();
    for line in lines.by_ref().map_while(Result::ok) {
        printed.push_str(&line);
        printed.push('\n');
        if line.starts_with("State and certificates are in") {
            break;
        }
    }
    let exports: Vec<&str> = printed.lines().map(str::trim).filter(|line| line.starts_with("export ")).collect();
    assert!(exports.len() >= 8, "the demo printed no next steps:\n{printed}");

    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let chapter = readme.split("## What to try next").nth(1).unwrap().split("### The management API").next().unwrap();
    let blocks: Vec<&str> = chapter.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    // The first block shows the lines that the demo prints filled in.
    let (shown, commands) = blocks.split_first().unwrap();
    for name in shown.lines().filter_map(|line| line.strip_prefix("export ")?.split('=').next()) {
        assert!(exports.iter().any(|line| line.starts_with(&format!("export {name}="))), "`{name}` is not printed");
    }
    assert_eq!(commands.len(), 4, "offer, find, negotiate, take back");

    let script = format!("set -euo pipefail\n{}\n{}", exports.join("\n"), commands.join("\n"));
    let ran = Command::new("bash").arg("-c").arg(&script).output().unwrap();
    let output = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{output}");
    for expected in [
        r#""state":"FINALIZED""#,
        r#""state":"COMPLETED""#,
        "digest_blake3",
        "transfer.completed",
        "the figures were wrong",
    ] {
        assert!(output.contains(expected), "`{expected}` is not in what the commands printed:\n{output}");
    }
    assert!(demo.end(), "the demo did not end, or not well, when it was told to");
    drop(lines);
}

#[test]
fn a_connector_is_set_up_by_hand_as_it_is_written() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let chapter = readme.split("### By hand\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let block = chapter.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let (before, serve) = block.trim_end().rsplit_once('\n').unwrap();
    assert!(serve.starts_with("kontor serve "), "the last command runs it: {serve}");
    // On ports that are free here.
    let before = before.replace(":8443", ":0").replace(":8181", ":0");
    let folder = tempfile::tempdir().unwrap();
    let bash = |commands: &str| {
        let program = programs().connector.parent().unwrap().display();
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(format!("set -e\nPATH={program}:$PATH\n{commands}")).current_dir(folder.path());
        bash
    };
    let ran = bash(&before).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("everything is in order"), "{said}");
    let mut child = bash(&format!("exec {serve}")).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first: Vec<String> = lines.take(4).collect();
    send_signal(&child, "TERM");
    assert!(wait_at_most(&mut child, Duration::from_secs(60)).is_some_and(|status| status.success()), "{first:?}");
    assert!(first[0].contains("urn:example:alice") && first[1].contains("mutual TLS"), "{first:?}");
    assert!(folder.path().join("alice/management.token").is_file());
}

#[test]
fn the_commands_about_policies_print_what_is_shown() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let chapter = readme.split("## Policies\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks: Vec<&str> = chapter.split("```").skip(1).step_by(2).collect();
    let folder = tempfile::tempdir().unwrap();
    let mut shown = 0;
    for pair in blocks.chunks(2) {
        let [commands, output] = pair else { panic!("a command without its output: {pair:?}") };
        let (commands, output) = (commands.strip_prefix("sh\n").unwrap(), output.strip_prefix("text\n").unwrap());
        let program = programs().connector.parent().unwrap().display();
        let ran = Command::new("bash")
            .arg("-c")
            .arg(format!("PATH={program}:$PATH\n{commands}"))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), *output, "{}", String::from_utf8_lossy(&ran.stderr));
        shown += 1;
    }
    assert_eq!(shown, 3, "check, explain, refuse");
}
