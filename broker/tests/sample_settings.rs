//! The sample settings mean something to the real parser.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::path::PathBuf;

use kontor_broker::settings::Settings;

#[test]
fn the_sample_parses_and_keeps_the_browse_port_on_loopback() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docker/config/broker.toml");
    let settings = Settings::read(Some(&file), Some(HashMap::new())).unwrap();
    assert_eq!(settings.participant.as_str(), "urn:kontor:compose:broker");
    assert!(settings.browse_listen.unwrap().ip().is_loopback());
    assert_eq!(settings.public_url.unwrap().as_str(), "https://broker:8443/");
    assert_eq!(settings.tls.trust, PathBuf::from("/keys/ca.pem"));
}
