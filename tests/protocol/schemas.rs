//! The specification's JSON Schemas and examples, where the folder `../shared/dsp` beside the repository holds them;
//! skipped with a word where it is absent. Nothing is fetched: the schemas' references to each other are answered
//! from the folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jsonschema::{Registry, Validator};
use serde_json::Value;

struct Schemas {
    /// By the file's name without its ending.
    validators: BTreeMap<String, Validator>,
}

/// The folder, if it is there.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/dsp");
    folder.join("context/dspace.jsonld").is_file().then_some(folder)
}

fn schemas() -> Option<&'static Schemas> {
    static SCHEMAS: OnceLock<Option<Schemas>> = OnceLock::new();
    let load = || {
        let folder = folder();
        if folder.is_none() {
            eprintln!("skipped: the specification's schemas are not at ../shared/dsp");
        }
        folder.map(|folder| Schemas::load(&folder))
    };
    SCHEMAS.get_or_init(load).as_ref()
}

impl Schemas {
    fn load(folder: &Path) -> Self {
        let mut found = Vec::new();
        for chapter in ["catalog", "negotiation", "transfer", "common"] {
            for entry in std::fs::read_dir(folder.join(chapter)).unwrap() {
                let path = entry.unwrap().path();
                let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else {
                    continue;
                };
                if !name.ends_with("-schema") {
                    continue;
                }
                // Some of the published references lack the slash that makes them pointers.
                let text = std::fs::read_to_string(&path).unwrap().replace(".json#definitions/", ".json#/definitions/");
                let schema: Value = serde_json::from_str(&text).unwrap();
                found.push((name.to_owned(), schema));
            }
        }
        let resources = found.iter().map(|(_, schema)| (schema["$id"].as_str().unwrap().to_owned(), schema.clone()));
        let registry = Registry::new().extend(resources).unwrap().prepare().unwrap();
        let compile = |(name, schema): &(String, Value)| {
            let validator = jsonschema::options().with_registry(&registry).offline().build(schema);
            (name.clone(), validator.unwrap_or_else(|error| panic!("{name}: {error}")))
        };
        Self { validators: found.iter().map(compile).collect() }
    }
}

/// Checks a document against the schema of its `@type`; says yes where the schemas are absent.
///
/// # Errors
/// Every fault with its place.
pub(crate) fn valid(document: &Value) -> Result<(), String> {
    let kind = document["@type"].as_str().unwrap_or_default();
    let mut name = String::new();
    for (at, letter) in kind.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    valid_as(&format!("{name}-schema"), document)
}

/// Checks a document against a schema by its name.
///
/// # Errors
/// As [`valid`].
pub(crate) fn valid_as(name: &str, document: &Value) -> Result<(), String> {
    let Some(schemas) = schemas() else { return Ok(()) };
    let validator = schemas.validators.get(name).ok_or_else(|| format!("there is no schema `{name}`"))?;
    let faults: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{} at `{}`", error, error.instance_path())).collect();
    if faults.is_empty() { Ok(()) } else { Err(format!("{name}: {} in {document}", faults.join("; "))) }
}
