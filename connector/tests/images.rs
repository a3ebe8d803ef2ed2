//! What no container engine is needed for: images are pinned and unprivileged, the compose file names what exists, and nothing
//! that must stay on loopback is published.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

fn docker() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docker")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(docker().join(name)).unwrap()
}

#[test]
fn images_are_pinned_and_do_not_run_as_root() {
    for file in ["connector.Dockerfile", "broker.Dockerfile"] {
        let text = read(file);
        let instructions: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let bases: Vec<&str> = instructions.iter().filter_map(|line| line.strip_prefix("FROM ")).collect();
        assert_eq!(bases.len(), 2, "{file}: a builder and a runtime image");
        for base in bases {
            let image = base.split_whitespace().next().unwrap();
            let tag = image.split_once(':').map(|(_, tag)| tag).unwrap_or_default();
            assert!(tag.chars().next().is_some_and(|first| first.is_ascii_digit()), "{file}: `{image}` is not pinned");
        }
        let last = text.rsplit("\nFROM ").next().unwrap();
        let user = last.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
        assert!(!user.starts_with("root") && !user.starts_with('0'), "{file}: runs as `{user}`");
        let entry = last.lines().position(|line| line.starts_with("ENTRYPOINT ")).unwrap();
        assert!(last.lines().position(|line| line.starts_with("USER ")).unwrap() < entry);
        assert!(!instructions.iter().any(|line| line.contains("latest")), "{file}");
        assert!(text.contains("--locked"), "{file}: builds what the lock file says");
    }
}

#[test]
fn the_builder_is_the_rust_version_of_the_workspace() {
    let manifest = read("../Cargo.toml");
    let version =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"').to_owned();
    for file in ["connector.Dockerfile", "broker.Dockerfile"] {
        assert!(read(file).contains(&format!("FROM rust:{version}.")), "{file}: not Rust {version}");
    }
}

#[test]
fn the_compose_file_names_what_exists_and_publishes_nothing() {
    let text = read("compose.yaml");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    assert!(!lines.iter().any(|line| line.contains("latest") || line.starts_with("network_mode:")));
    assert!(!lines.iter().any(|line| line.starts_with("ports:")), "management and browse ports stay inside");
    for path in lines.iter().filter_map(|line| line.strip_prefix("- ./")) {
        let path = path.split(':').next().unwrap();
        assert!(docker().join(path).is_file(), "`{path}` is missing");
    }
    for file in text.split("dockerfile: ").skip(1).map(|rest| rest.split([' ', '}']).next().unwrap()) {
        assert!(docker().join("..").join(file).is_file(), "`{file}` is missing");
    }
}

#[test]
fn the_private_network_is_the_one_that_the_settings_allow() {
    let compose = read("compose.yaml");
    let subnet = compose.lines().find_map(|line| line.trim().strip_prefix("- subnet: ")).unwrap();
    for file in ["config/provider.toml", "config/consumer.toml"] {
        assert!(read(file).contains(&format!("allow_networks = [\"{subnet}\"]")), "{file}: not {subnet}");
    }
}

#[test]
fn every_certificate_of_the_settings_is_made() {
    let keys = read("keys.sh");
    for name in ["broker", "provider", "consumer"] {
        let settings = read(&format!("config/{name}.toml"));
        assert!(settings.contains(&format!("participant_id = \"urn:kontor:compose:{name}\"")));
        assert!(settings.contains(&format!("certificate = \"/keys/{name}.pem\"")));
        let list = keys.lines().find(|line| line.starts_with("for name in ")).unwrap();
        assert!(list.contains(name), "no key for {name}");
    }
}
