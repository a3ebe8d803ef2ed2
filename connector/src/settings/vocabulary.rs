//! The operator's own terms: operands that are typed and have a named source, and which names are
//! parts of which.

use kontor_core::policy::{DefinedKind, FactSource, OperandDefinition, Taxonomy, Vocabulary};
use serde::Deserialize;

use super::SettingsError;

/// A left operand that the operator defines.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operand {
    /// Its IRI, as policies name it.
    pub iri: String,
    /// What it asks about, in words that follow "is".
    pub about: String,
    /// Of which type its values are.
    #[serde(rename = "type")]
    pub kind: OperandType,
    /// Who knows the value: `peer`, `dataset`, `register`, `agreement-register`, `connector` or
    /// `declared`.
    pub source: FactSource,
    /// For `level`: the levels, the lowest first.
    #[serde(default)]
    pub levels: Vec<String>,
    /// For `number`: the unit that a condition must name. Default: none.
    #[serde(default)]
    pub unit: Option<String>,
    /// For `names`: whether a condition must hold for each of several values, rather than for one
    /// of them. Default `false`.
    #[serde(default)]
    pub every: bool,
}

/// Of which type the values of an operand are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperandType {
    /// Names, compared with `eq`, `isAnyOf` and the like.
    Names,
    /// One of several levels that have an order.
    Level,
    /// A number.
    Number,
    /// An instant.
    Instant,
}

/// A name that is part of a wider one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The narrower name.
    pub part: String,
    /// The wider one.
    pub of: String,
}

/// The vocabulary that the settings describe, for the policy engine.
///
/// # Errors
/// [`SettingsError::Value`] with the key of the definition that is none.
pub(super) fn vocabulary(operands: &[Operand], parts: &[Part]) -> Result<Vocabulary, SettingsError> {
    let mut vocabulary = Vocabulary {
        parts: Taxonomy::new(parts.iter().map(|pair| (pair.part.as_str(), pair.of.as_str()))),
        ..Vocabulary::default()
    };
    for (index, operand) in operands.iter().enumerate() {
        let wrong = |member: &str, rule: &str| {
            Err(SettingsError::value(&format!("policy.operands[{index}].{member}"), rule.to_owned()))
        };
        if operand.kind != OperandType::Level && !operand.levels.is_empty() {
            return wrong("levels", "only a `level` has levels; no `levels`, or `type = \"level\"` would have passed");
        }
        if operand.kind != OperandType::Number && operand.unit.is_some() {
            return wrong("unit", "only a `number` has a unit; no `unit`, or `type = \"number\"` would have passed");
        }
        if operand.kind != OperandType::Names && operand.every {
            return wrong("every", "only `names` are several; no `every`, or `type = \"names\"` would have passed");
        }
        let kind = match operand.kind {
            OperandType::Names => DefinedKind::Names { every: operand.every, parts: !vocabulary.parts.is_empty() },
            OperandType::Level => DefinedKind::Level { levels: operand.levels.clone() },
            OperandType::Number => DefinedKind::Number { unit: operand.unit.clone() },
            OperandType::Instant => DefinedKind::Instant,
        };
        let definition = OperandDefinition { about: operand.about.clone(), kind, source: operand.source };
        if vocabulary.operands.insert(operand.iri.clone(), definition).is_some() {
            return wrong("iri", &format!("`{}` is defined twice; one definition would have passed", operand.iri));
        }
        // One by one, so that the key of the wrong one can be named.
        if let Err(problem) = vocabulary.check() {
            return wrong("iri", &problem.to_string());
        }
    }
    Ok(vocabulary)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn settings(policy: &str) -> Result<Settings, SettingsError> {
        let rest = "profile = \"insecure\"\nparticipant_id = \"urn:a\"\ndata_dir = \"x\"\n";
        Settings::parse(&format!("{rest}{policy}"))
    }

    fn operand(members: &str) -> Result<Settings, SettingsError> {
        settings(&format!(
            "[[policy.operands]]\niri = \"https://example.com/terms/risk\"\nabout = \"the risk class\"\n{members}"
        ))
    }

    #[test]
    fn operands_are_typed_and_have_a_source() {
        let read = operand("type = \"level\"\nlevels = [\"low\", \"high\"]\nsource = \"peer\"").unwrap();
        let known = &read.capabilities().vocabulary.operands["https://example.com/terms/risk"];
        let levels = vec!["low".to_owned(), "high".to_owned()];
        assert_eq!((&known.kind, known.source), (&DefinedKind::Level { levels }, FactSource::Peer));
    }

    #[test]
    fn what_is_no_operand_is_refused_with_its_key() {
        for (members, expected) in [
            ("type = \"level\"\nlevel = []\nsource = \"peer\"", "did you mean `levels`"),
            ("type = \"mood\"\nsource = \"peer\"", "policy.operands[0].type"),
            ("type = \"names\"\nsource = \"clock\"", "policy.operands[0].iri"),
            ("type = \"names\"\nsource = \"peer\"\nunit = \"m\"", "policy.operands[0].unit"),
            ("type = \"level\"\nsource = \"peer\"", "levels"),
            ("type = \"number\"\nsource = \"peer\"\nevery = true", "policy.operands[0].every"),
        ] {
            let error = operand(members).unwrap_err().to_string();
            assert!(error.contains(expected), "{members}: {error}");
        }
        let known = "[[policy.operands]]\niri = \"purpose\"\nabout = \"x\"\ntype = \"names\"\nsource = \"peer\"";
        assert!(settings(known).unwrap_err().to_string().contains("known already"));
    }
}
