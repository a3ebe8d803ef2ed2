//! `kontor` as a process: what its help, `check`, `pki` and the first lines of `serve` say.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program, without what the environment of the tests would set.
#[expect(clippy::disallowed_methods, reason = "a child inherits no setting")]
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontor"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KONTOR") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn told(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The standard output of a run that succeeded; each word is in it.
fn said(arguments: &[&str], words: &[&str]) -> String {
    let output = program(arguments).output().unwrap();
    let (out, err) = told(&output);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{out}\n{err}");
    for word in words {
        assert!(out.contains(word), "{arguments:?}: `{word}` is not in: {out}");
    }
    out
}

/// Runs what must fail with this code; each word is in the standard error.
fn failed(arguments: &[&str], code: i32, words: &[&str]) {
    let output = program(arguments).output().unwrap();
    let (out, err) = told(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    for word in words {
        assert!(err.contains(word), "{arguments:?}: `{word}` is not in: {err}");
    }
}

/// A folder with an authority, a certificate and the settings of a participant.
fn participant() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    said(&["pki", "authority", "--dir", dir, "--name", "Tests"], &["ca.pem", "ca.key"]);
    said(
        &["pki", "participant", "--dir", dir, "--participant", "urn:test:alpha", "--name", "alpha", "--days", "3"],
        &["alpha.pem", "alpha.key"],
    );
    let settings = "participant_id = \"urn:test:alpha\"\ndata_dir = \"state\"\n\
                    [protocol]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"\n\
                    [tls]\ncertificate = \"alpha.pem\"\nkey = \"alpha.key\"\ntrust = \"ca.pem\"\n";
    let file = folder.path().join("kontor.toml");
    std::fs::write(&file, settings).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (folder, file)
}

#[test]
fn the_help_names_every_command_and_every_command_has_one() {
    let help = said(&["--help"], &["a data-space connector", "kontor demo"]);
    for (command, words) in [
        ("serve", &["--config <FILE>", "kontor.toml", "KONTOR__PROTOCOL__LISTEN"][..]),
        ("check", &["--config <FILE>", "without listening"]),
        ("demo", &["--keep", "--data <PATH>", "--broker <FILE>"]),
        ("policy", &["check", "explain", "templates"]),
        ("pki", &["authority", "participant"]),
    ] {
        let listed = help.lines().any(|line| line.trim_start().starts_with(&format!("{command} ")));
        assert!(listed, "`{command}` is not in: {help}");
        said(&[command, "--help"], words);
    }
    for (command, words) in [
        (["policy", "check"], &["--settings <FILE>", "--format"][..]),
        (["policy", "explain"], &["--assignee <URI>", "--fact <NAME=VALUE>"]),
        (["policy", "templates"], &["--set <PARAMETER=VALUE>"]),
        (["pki", "authority"], &["--dir <DIR>", "--name"]),
        (["pki", "participant"], &["--participant <URI>", "--host", "--days"]),
    ] {
        said(&[&command[..], &["--help"]].concat(), words);
    }
    said(&["--version"], &[env!("CARGO_PKG_VERSION")]);
    failed(&[], 2, &["Usage"]);
    failed(&["surve"], 2, &["surve", "serve"]);
}

#[test]
fn certificates_are_made_once_and_the_keys_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, _) = participant();
    let dir = folder.path().to_str().unwrap();
    for (name, kind) in
        [("ca.pem", "CERTIFICATE"), ("alpha.pem", "CERTIFICATE"), ("ca.key", "KEY"), ("alpha.key", "KEY")]
    {
        let file = folder.path().join(name);
        assert!(std::fs::read_to_string(&file).unwrap().contains(&format!("{kind}-----")), "{name}");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert!(kind != "KEY" || mode == 0o600, "{name} can be read by others: {mode:o}");
    }
    // Nothing is written over.
    failed(&["pki", "authority", "--dir", dir], 1, &["ca."]);
    let again = ["pki", "participant", "--dir", dir, "--participant", "urn:test:alpha", "--name", "alpha"];
    failed(&again, 1, &["alpha."]);
    // Nor is one file of another pair left beside it.
    std::fs::remove_file(folder.path().join("alpha.key")).unwrap();
    failed(&again, 1, &["alpha.pem", "another name"]);
    assert!(!folder.path().join("alpha.key").exists());
    let astray = ["pki", "participant", "--dir", dir, "--participant", "urn:test:b", "--name", "../b"];
    failed(&astray, 1, &["`--name ../b`", "without `/`"]);
    let over = ["pki", "participant", "--dir", dir, "--participant", "urn:test:b", "--name", "b", "--days", "0"];
    failed(&over, 1, &["`--days 0`", "1 or more"]);
    let empty = tempfile::tempdir().unwrap();
    let dir = empty.path().to_str().unwrap();
    let orphan = ["pki", "participant", "--dir", dir, "--participant", "urn:test:alpha", "--name", "alpha"];
    failed(&orphan, 1, &["no authority", "kontor pki authority"]);
    said(&["pki", "authority", "--dir", dir], &[]);
    let nobody = ["pki", "participant", "--dir", dir, "--participant", "alpha", "--name", "alpha"];
    failed(&nobody, 1, &["`alpha` is not a URI", "would have passed"]);
}

#[test]
fn good_settings_are_in_order_with_what_was_found() {
    let (folder, file) = participant();
    let found = said(
        &["check", "--config", &file],
        &[
            "settings ",
            "participant  urn:test:alpha",
            "names urn:test:alpha, valid until",
            "is not there yet",
            "store ",
        ],
    );
    assert!(found.ends_with("everything is in order\n"), "{found}");
    assert!(!folder.path().join("state/addresses.json").exists(), "it listens");
}

#[test]
fn bad_settings_are_refused_with_key_and_cure() {
    let (folder, file) = participant();
    let good = std::fs::read_to_string(&file).unwrap();
    for (bad, words) in [
        (good.replace("[protocol]\nlisten", "[protocol]\nlisen"), &["`protocol.lisen`", "did you mean `listen`"][..]),
        (good.replace("urn:test:alpha", "alpha"), &["participant_id", "is not a URI"]),
        (good.replace("urn:test:alpha", "urn:test:beta"), &["`participant_id`", "urn:test:beta", "urn:test:alpha"]),
        (good.replace("alpha.pem", "nowhere.pem"), &["nowhere.pem"]),
        (format!("{good}[limits]\nconnections_max = 0\n"), &["`limits.connections_max`", "would have passed"]),
        (format!("{good}[automation]\nrules = \"nowhere.toml\"\n"), &["nowhere.toml"]),
        ("participant_id = ".to_owned(), &["cannot read the settings"]),
    ] {
        std::fs::write(&file, bad).unwrap();
        failed(&["check", "--config", &file], 1, words);
        failed(&["serve", "--config", &file], 1, words);
    }
    std::fs::write(&file, &good).unwrap();
    std::fs::create_dir_all(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/management.token"), "short").unwrap();
    failed(&["check", "--config", &file], 1, &["management.token", "at least 16 characters"]);
    std::fs::remove_file(folder.path().join("state/management.token")).unwrap();
    std::fs::write(folder.path().join("file"), "no folder").unwrap();
    for (line, setting) in
        [("sink_root = \"file\"", "data.sink_root"), ("source_roots = [\"file/in\"]", "data.source_roots")]
    {
        std::fs::write(&file, format!("{good}[data]\n{line}\n")).unwrap();
        failed(&["serve", "--config", &file], 1, &["cannot make the folder", setting]);
        failed(&["check", "--config", &file], 1, &["cannot write to", setting]);
    }
    std::fs::write(&file, &good).unwrap();
    let nowhere = folder.path().join("none.toml");
    failed(&["check", "--config", nowhere.to_str().unwrap()], 1, &["none.toml"]);
}

/// A connector that is stopped when the test ends.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first lines of `serve`.
fn first_lines(file: &str, count: usize) -> (Served, Vec<String>) {
    let mut command = program(&["serve", "--config", file]);
    let mut served = Served(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let lines = BufReader::new(served.0.stdout.take().unwrap()).lines().take(count);
    let lines = lines.collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(lines.len(), count, "it ended: {lines:?}");
    (served, lines)
}

/// A member of the addresses that a running connector writes down.
fn address(folder: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(folder.join("state/addresses.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    all[name].as_str().unwrap().to_owned()
}

#[test]
fn serve_says_as_whom_what_listens_where_and_with_which_store() {
    let (folder, file) = participant();
    let (_served, lines) = first_lines(&file, 4);
    assert_eq!(lines[0], format!("kontor {} · urn:test:alpha", env!("CARGO_PKG_VERSION")));
    let protocol = format!("protocol    {} (mutual TLS, certificate valid until ", address(folder.path(), "protocol"));
    assert!(lines[1].starts_with(&protocol), "`{}` is not `{protocol}…`", lines[1]);
    let token = folder.path().join("state/management.token");
    let management = format!("management  {} (token in {})", address(folder.path(), "management"), token.display());
    assert_eq!(lines[2], management);
    assert!(token.is_file());
    assert!(lines[3].starts_with("store       ") && lines[3].contains("state"), "{}", lines[3]);
}

#[test]
fn serve_says_that_it_is_insecure_and_that_the_token_is_from_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kontor.toml");
    let settings = "profile = \"insecure\"\nparticipant_id = \"alpha\"\ndata_dir = \"state\"\n\
                    [protocol]\nlisten = \"127.0.0.1:0\"\n\
                    [management]\nlisten = \"127.0.0.1:0\"\ntoken = \"0123456789abcdef\"\n";
    std::fs::write(&file, settings).unwrap();
    let (_served, lines) = first_lines(file.to_str().unwrap(), 4);
    assert!(lines[0].ends_with(" · alpha"), "{}", lines[0]);
    assert!(lines[1].starts_with("protocol    http://127.0.0.1:") && lines[1].contains("INSECURE"), "{}", lines[1]);
    assert!(lines[2].ends_with("(token from the settings)"), "{}", lines[2]);
    assert!(!folder.path().join("state/management.token").exists());
}
