//! What the kit finds in the connector that it tests: names, data, agreements and settings. Shared with the suite that
//! plays the kit's side in Rust.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

/// Who the kit is to us.
pub(crate) const KIT: &str = "TCK_PARTICIPANT";
/// Who we are to the kit.
pub(crate) const OWN: &str = "kontor";

/// The kit's negotiations in which we provide.
pub(crate) const NEGOTIATIONS_PROVIDED: [&str; 15] = [
    "01_01", "01_02", "01_03", "01_04", "02_01", "02_02", "02_03", "02_04", "02_05", "02_06", "02_07", "03_01",
    "03_02", "03_03", "03_04",
];
/// Those provided, and again those consumed.
pub(crate) const TRANSFERS: [&str; 16] = [
    "01_01", "01_02", "01_03", "01_04", "01_05", "02_01", "02_02", "02_03", "02_04", "02_05", "03_01", "03_02",
    "03_03", "03_04", "03_05", "03_06",
];

/// Fills a folder with what the connector is started over: `settings.toml`, the seed and the data.
///
/// # Errors
/// When something cannot be written, or the folder's name is no UTF-8.
pub(crate) fn prepare(folder: &Path, rules: &Path) -> io::Result<()> {
    let source = folder.join("state/source");
    fs::create_dir_all(&source)?;
    fs::write(source.join("sample.csv"), "station,value\nnorth,1\nsouth,2\n")?;
    fs::write(folder.join("seed.json"), seed().to_string())?;
    let (state, rules, seed) = (text(&folder.join("state"))?, text(rules)?, text(&folder.join("seed.json"))?);
    fs::write(
        folder.join("settings.toml"),
        format!(
            "participant_id = \"{OWN}\"\ndata_dir = {state}\nprofile = \"insecure\"\n\
             [protocol]\nlisten = \"127.0.0.1:0\"\n[management]\nlisten = \"127.0.0.1:0\"\n\
             [automation]\nrules = {rules}\n\
             [insecure]\ninitiation_listen = \"127.0.0.1:0\"\nseed = {seed}\n"
        ),
    )
}

/// A path as a TOML string.
fn text(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or_else(|| io::Error::other("a path is not UTF-8"))?;
    Ok(Value::from(text).to_string())
}

fn seed() -> Value {
    let policy = json!({ "permission": [{ "action": "use" }] });
    let mut offered: Vec<String> = vec!["CAT0101".to_owned(), "CAT0102".to_owned()];
    offered.extend(NEGOTIATIONS_PROVIDED.iter().map(|test| subject("ACN", test)));
    let datasets: Vec<Value> = offered.iter().map(|id| json!({ "id": id, "file": "sample.csv" })).collect();
    let offers: Vec<Value> =
        offered.iter().map(|id| json!({ "id": offer_id(id), "dataset": id, "policy": policy })).collect();
    let mut agreements = Vec::new();
    for test in TRANSFERS {
        for (prefix, role) in [("ATP", "provider"), ("ATPC", "consumer")] {
            agreements.push(json!({
                "id": subject(prefix, test), "role": role, "counterparty": KIT, "dataset": "CAT0101", "policy": policy,
            }));
        }
    }
    json!({ "datasets": datasets, "offers": offers, "agreements": agreements })
}

/// `ACN0101` of `01_01`.
pub(crate) fn subject(prefix: &str, test: &str) -> String {
    format!("{prefix}{}", test.replace('_', ""))
}

/// One of the kit's tests has this form built in.
pub(crate) fn offer_id(dataset: &str) -> String {
    format!("CD123:{dataset}:456")
}
