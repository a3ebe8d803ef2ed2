//! What no container engine is needed for: images are pinned and unprivileged, the compose file names what exists, and nothing
//! that must stay on loopback is published.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use yaml_rust2::{Yaml, YamlLoader};

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

/// The compose file, with its anchors followed.
fn compose() -> Yaml {
    let mut documents = YamlLoader::load_from_str(&read("compose.yaml")).unwrap();
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// The names and values of a mapping; none where it is empty.
fn members(of: &Yaml) -> Vec<(&str, &Yaml)> {
    assert!(of.as_hash().is_some() || of.is_null() || of.is_badvalue(), "no mapping: {of:?}");
    of.as_hash().into_iter().flatten().map(|(key, value)| (key.as_str().unwrap(), value)).collect()
}

/// Refuses a key that the Compose Specification does not know at this place, or that nothing here needs.
fn only(what: &str, of: &Yaml, allowed: &[&str]) {
    for (key, _) in members(of) {
        assert!(allowed.contains(&key), "{what}: `{key}` is none of {allowed:?}");
    }
}

fn texts(of: &Yaml) -> Vec<&str> {
    of.as_vec().into_iter().flatten().map(|one| one.as_str().unwrap()).collect()
}

#[test]
fn the_compose_file_has_no_key_that_an_engine_would_not_know() {
    let file = compose();
    only("the file", &file, &["name", "x-service", "services", "networks", "volumes"]);
    let names: Vec<&str> = members(&file["services"]).iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["keys", "broker", "provider", "consumer"]);
    let (networks, volumes) = (members(&file["networks"]), members(&file["volumes"]));
    let known = |all: &[(&str, &Yaml)], name: &str| all.iter().any(|(known, _)| *known == name);
    for (name, service) in members(&file["services"]).into_iter().chain([("x-service", &file["x-service"])]) {
        let runs = ["image", "build", "entrypoint", "command", "restart", "depends_on", "healthcheck"];
        let confines = ["networks", "volumes", "read_only", "tmpfs", "cap_drop", "security_opt"];
        only(name, service, &[["<<"].as_slice(), &runs, &confines].concat());
        // What is merged in counts where the service says nothing itself.
        let of = |key: &str| if service[key].is_badvalue() { &service["<<"][key] } else { &service[key] };
        only(&format!("{name}.build"), of("build"), &["context", "dockerfile"]);
        only(&format!("{name}.healthcheck"), of("healthcheck"), &["test", "interval", "timeout", "retries"]);
        for (needed, how) in members(of("depends_on")) {
            assert!(names.contains(&needed), "{name} depends on `{needed}`, which is no service");
            only(&format!("{name}.depends_on.{needed}"), how, &["condition"]);
            let conditions = ["service_started", "service_healthy", "service_completed_successfully"];
            assert!(conditions.contains(&how["condition"].as_str().unwrap()), "{name}: {how:?}");
        }
        for network in texts(of("networks")) {
            assert!(known(&networks, network), "{name}: there is no network `{network}`");
        }
        for mount in texts(of("volumes")) {
            let from = mount.split(':').next().unwrap();
            assert!(from.starts_with("./") || known(&volumes, from), "{name}: there is no volume `{from}`");
        }
        assert_eq!(texts(of("cap_drop")), ["ALL"], "{name} keeps rights that it does not need");
        if name != "keys" {
            assert_eq!(of("read_only").as_bool(), Some(true), "{name} can write to its image");
            assert_eq!(texts(of("security_opt")), ["no-new-privileges:true"], "{name}");
        }
        if name != "x-service" {
            assert!(of("image").as_str().is_some_and(|image| image.contains(':')), "{name} has no pinned image");
        }
    }
    for (name, network) in networks {
        only(name, network, &["ipam"]);
        only(&format!("{name}.ipam"), &network["ipam"], &["config"]);
        for part in network["ipam"]["config"].as_vec().unwrap() {
            only(&format!("{name}.ipam.config"), part, &["subnet"]);
        }
    }
    for (name, volume) in volumes {
        only(name, volume, &[]);
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
