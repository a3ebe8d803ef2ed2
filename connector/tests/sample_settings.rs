//! The sample settings mean something to the real parser, and the full sample leaves no key out.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use kontor::settings::{Settings, SettingsError};

fn sample(name: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docker/config").join(name);
    std::fs::read_to_string(file).unwrap()
}

/// The full sample with its shown keys (`#key = value`) in force; prose is behind `# `.
fn in_force(text: &str) -> String {
    let shown =
        |line: &str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    text.lines().map(|line| if shown(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn samples_parse_and_keep_management_on_loopback() {
    for name in ["provider.toml", "consumer.toml"] {
        let settings = Settings::parse(&sample(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(settings.management.listen.ip().is_loopback());
        assert!(settings.tls.is_some() && settings.brokers.len() == 1 && settings.egress.allow_networks.len() == 1);
        let host = format!("https://{}:8443/", name.trim_end_matches(".toml"));
        assert_eq!(settings.protocol.public_url.unwrap().as_str(), host);
    }
}

#[test]
fn shown_keys_exist_and_show_their_defaults() {
    let sample = sample("provider.toml");
    let with = Settings::parse(&in_force(&sample)).unwrap();
    let without = Settings::parse(&sample).unwrap();
    assert_eq!(format!("{:?}", with.limits), format!("{:?}", without.limits));
    assert_eq!(format!("{:?}", with.delivery), format!("{:?}", without.delivery));
    assert_eq!((with.profile, with.automation.approval), (without.profile, without.automation.approval));
    assert_eq!(with.log_filter, without.log_filter);
    assert_eq!(with.brokers[0].lease_seconds, without.brokers[0].lease_seconds);
    assert_eq!((with.source_roots(), with.sink_root()), (without.source_roots(), without.sink_root()));
}

#[test]
fn every_key_is_in_the_full_sample() {
    let sample = in_force(&sample("provider.toml"));
    let sections: Vec<&str> = sample.lines().filter(|line| line.starts_with('[')).collect();
    for section in std::iter::once(&"").chain(&sections) {
        // An unknown key makes the parser list the ones that it knows beside it.
        let asked = if section.is_empty() {
            format!("zzzz = 1\n{sample}")
        } else {
            sample.replacen(&format!("\n{section}\n"), &format!("\n{section}\nzzzz = 1\n"), 1)
        };
        let Err(SettingsError::UnknownKey { known, .. }) = Settings::parse(&asked) else {
            panic!("{section}: an unknown key passed")
        };
        let body = if section.is_empty() {
            sample.split("\n[").next().unwrap()
        } else {
            sample.split(&format!("\n{section}\n")).nth(1).unwrap().split("\n[").next().unwrap()
        };
        // The profile `insecure` has a section of its own, which a sample for real use must not have: it is told in prose.
        for key in known.split(", ").filter(|key| *key != "insecure") {
            let as_section = [format!("[{key}]"), format!("[[{key}]]")];
            let shown = body.lines().any(|line| line.starts_with(&format!("{key} = ")))
                || (section.is_empty() && sections.iter().any(|line| as_section.iter().any(|name| name == line)));
            assert!(shown, "`{key}` of {section} is not in the full sample");
        }
    }
}

#[test]
fn the_section_for_conformance_kits_is_told_and_not_in_force() {
    let sample = sample("provider.toml");
    let asked = "profile = \"insecure\"\nparticipant_id = \"a\"\ndata_dir = \"x\"\n[insecure]\nzzzz = 1\n";
    let Err(SettingsError::UnknownKey { known, .. }) = Settings::parse(asked) else { panic!("an unknown key passed") };
    for key in known.split(", ") {
        assert!(sample.contains(&format!("\n#   {key} = ")), "`{key}` is not in the full sample");
    }
    assert!(Settings::parse(&sample).unwrap().insecure.is_none());
}
