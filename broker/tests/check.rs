//! What `kontor-broker check` and `--help` promise, by the built program.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

use kontor_broker::store::Store;
use kontor_core::id::ParticipantId;
use kontor_wire::pki::{Authority, CertificateRequest};

fn broker(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontor-broker"));
    command.env_clear().args(arguments).output().unwrap()
}

fn check(config: &Path) -> Result<String, String> {
    let output = broker(&["check", "--config", config.to_str().unwrap()]);
    let words = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(words(output.stdout)) } else { Err(words(output.stderr)) }
}

#[test]
fn check_looks_at_settings_keys_and_folders_as_help_says() {
    let help = String::from_utf8(broker(&["--help"]).stdout).unwrap();
    for words in ["are the settings, keys and folders good?", "kontor-broker check --config", "kontor-broker serve"] {
        assert!(help.contains(words), "{help}");
    }

    let folder = tempfile::tempdir().unwrap();
    let who = ParticipantId::parse("urn:example:broker").unwrap();
    let authority = Authority::generate("Throw-away authority").unwrap();
    let request = CertificateRequest::new(who, vec!["localhost".to_owned()]);
    let files = authority.issue(&request).unwrap().save(folder.path(), "broker", &authority).unwrap();
    let config = folder.path().join("broker.toml");
    let write = |data_dir: &str| {
        let tls = format!("certificate = {:?}\nkey = {:?}\ntrust = {:?}", files.certificate, files.key, files.trust);
        let text = format!("participant_id = \"urn:example:broker\"\ndata_dir = \"{data_dir}\"\n[tls]\n{tls}\n");
        std::fs::write(&config, text).unwrap();
    };

    // A folder that is not there is not made by a check.
    write("new/data");
    let said = check(&config).unwrap();
    assert!(said.contains("(will be made)"), "{said}");
    assert!(!folder.path().join("new").exists());

    let data = folder.path().join("data");
    let store = Store::open(&data, 0).unwrap();
    write("data");
    let said = check(&config).unwrap();
    assert!(said.contains("in use by a running kontor-broker"), "{said}");
    drop(store);
    let before = std::fs::read_dir(&data).unwrap().count();
    let said = check(&config).unwrap();
    assert!(said.contains("(can be written)"), "{said}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), before, "a check leaves nothing behind");

    // A file where the folder, or a part of the way to it, should be.
    std::fs::write(folder.path().join("file"), "").unwrap();
    for data_dir in ["file", "file/data", "/proc/kontor"] {
        write(data_dir);
        let said = check(&config).unwrap_err();
        assert!(said.contains("the store cannot be used") && said.contains("cannot be used: "), "{data_dir}: {said}");
    }

    write("data");
    std::fs::remove_file(&files.key).unwrap();
    let said = check(&config).unwrap_err();
    assert!(said.contains("the keys cannot be used"), "{said}");
}
