//! Usage-control classes as ready policies with parameters.

use kontor_core::policy::{self, Capabilities};
use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::odrl::PolicyDocument;
use serde::Serialize;
use serde_json::{Value, json};

/// A policy with parameters.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    /// What it is called here.
    pub name: &'static str,
    /// What it is for, in a sentence.
    pub about: &'static str,
    /// What has to be filled in.
    pub parameters: &'static [Parameter],
    /// The policy, a text `{name}` standing for the value of a parameter.
    policy: &'static str,
}

/// What has to be filled in.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Parameter {
    /// How it is set: `name=value`.
    pub name: &'static str,
    /// What it is, with its form.
    pub about: &'static str,
    /// A value that passes.
    pub example: &'static str,
}

/// The templates, in the order of the classes.
pub const TEMPLATES: &[Template] = &[
    Template {
        name: "unrestricted",
        about: "whoever agrees may use the data, without conditions",
        parameters: &[],
        policy: r#"{"permission": [{"action": "use"}]}"#,
    },
    Template {
        name: "prohibited",
        about: "nobody may use the data",
        parameters: &[],
        policy: r#"{"prohibition": [{"action": "use"}]}"#,
    },
    Template {
        name: "consumer",
        about: "only these participants may use the data",
        parameters: &[Parameter {
            name: "participants",
            about: "URIs as in their certificates, with commas between",
            example: "urn:example:reader,urn:example:archive",
        }],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "recipient", "operator": "isAnyOf", "rightOperand": "{participants}"}]}]}"#,
    },
    Template {
        name: "interval",
        about: "the data may be used from one instant until before another",
        parameters: &[
            Parameter { name: "from", about: "an instant with its zone", example: "2030-01-01T00:00:00Z" },
            Parameter { name: "until", about: "an instant with its zone", example: "2031-01-01T00:00:00Z" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "dateTime", "operator": "gteq", "rightOperand": {"@value": "{from}", "@type": "xsd:dateTime"}},
            {"leftOperand": "dateTime", "operator": "lt", "rightOperand": {"@value": "{until}", "@type": "xsd:dateTime"}}]}]}"#,
    },
    Template {
        name: "duration",
        about: "the data may be used for so long after the agreement",
        parameters: &[Parameter { name: "span", about: "a duration of ISO 8601", example: "P30D" }],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "elapsedTime", "operator": "lteq", "rightOperand": {"@value": "{span}", "@type": "xsd:duration"}}]}]}"#,
    },
    Template {
        name: "uses",
        about: "the data may be used so many times under one agreement",
        parameters: &[Parameter { name: "count", about: "a whole number, from 1", example: "10" }],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "count", "operator": "lteq", "rightOperand": {"@value": "{count}", "@type": "xsd:integer"}}]}]}"#,
    },
];

/// A template that was filled in.
#[derive(Debug, Clone, Serialize)]
pub struct Filled {
    /// What it is called here.
    pub template: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Parameters that nobody set, so that they have the value of the example.
    pub examples: Vec<Parameter>,
    /// The policy, ready for an offer.
    pub policy: PolicyDocument,
}

/// The template of this name.
///
/// # Errors
/// [`Refusal`] with fault `NotFound` that names the nearest.
pub fn template(name: &str) -> Result<&'static Template, Refusal> {
    TEMPLATES.iter().find(|template| template.name == name).ok_or_else(|| {
        let names: Vec<&str> = TEMPLATES.iter().map(|template| template.name).collect();
        unknown("template", name, &names, Fault::NotFound)
    })
}

impl Template {
    /// The policy with these values; a parameter without one has that of its example.
    ///
    /// # Errors
    /// [`Refusal`] where a parameter is unknown or comes twice, or where its value gives no policy
    /// that can be enforced.
    pub fn fill(&self, values: &[(String, String)], capabilities: &Capabilities) -> Result<Filled, Refusal> {
        for (at, (name, _)) in values.iter().enumerate() {
            if !self.parameters.iter().any(|parameter| parameter.name == name) {
                let names: Vec<&str> = self.parameters.iter().map(|parameter| parameter.name).collect();
                return Err(unknown("parameter", name, &names, Fault::Malformed));
            }
            if values.iter().skip(at + 1).any(|(other, _)| other == name) {
                return Err(Refusal::new(Fault::Malformed, "policy.parameter", format!("`{name}` is set twice"))
                    .at(name)
                    .cure("one value"));
            }
        }
        let set = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let examples: Vec<Parameter> =
            self.parameters.iter().filter(|parameter| set(parameter.name).is_none()).copied().collect();
        let mut policy: Value = serde_json::from_str(self.policy).unwrap_or_default();
        for parameter in self.parameters {
            put(&mut policy, parameter.name, set(parameter.name).unwrap_or(parameter.example));
        }
        let policy = super::document(policy)?;
        policy::enforceable(&policy, capabilities).map_err(|refusal| {
            let parameters: Vec<String> = self
                .parameters
                .iter()
                .map(|p| format!("`{}` is {}, such as `{}`", p.name, p.about, p.example))
                .collect();
            let message =
                format!("with these values the template `{}` gives no policy: {}", self.name, refusal.message);
            Refusal { message, cure: Some(parameters.join("; ")), ..refusal }
        })?;
        Ok(Filled { template: self.name, about: self.about, examples, policy })
    }

    /// What can be listed of it.
    #[must_use]
    pub fn view(&self) -> Value {
        json!({ "name": self.name, "about": self.about, "parameters": self.parameters })
    }
}

/// Puts a value where a parameter stands; where an array may stand, commas separate its values.
fn put(value: &mut Value, name: &str, with: &str) {
    match value {
        Value::String(text) if text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) == Some(name) => {
            let parts: Vec<&str> = with.split(',').map(str::trim).collect();
            *value = match parts.as_slice() {
                [one] => json!(one),
                several => json!(several),
            };
        }
        Value::Array(items) => items.iter_mut().for_each(|item| put(item, name, with)),
        Value::Object(map) => map.values_mut().for_each(|member| put(member, name, with)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn unknown(what: &str, name: &str, known: &[&str], fault: Fault) -> Refusal {
    let near = known.iter().map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate));
    let near = near.filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 2).min();
    let hint = near.map(|(_, candidate)| format!(", did you mean `{candidate}`?")).unwrap_or_default();
    let cure = if known.is_empty() { format!("no {what}") } else { known.join(", ") };
    Refusal::new(fault, &format!("policy.{what}"), format!("there is no {what} `{name}`{hint}")).cure(cure)
}
