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
    /// The number of its class in [`policy::class::CLASSES`]; `None` where it is none.
    pub class: Option<u8>,
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
#[rustfmt::skip]
pub const TEMPLATES: &[Template] = &[
    Template {
        name: "unrestricted",
        class: Some(0),
        about: "whoever agrees may use the data, without conditions",
        parameters: &[],
        policy: r#"{"permission": [{"action": "use"}]}"#,
    },
    Template {
        name: "prohibited",
        class: None,
        about: "nobody may use the data",
        parameters: &[],
        policy: r#"{"prohibition": [{"action": "use"}]}"#,
    },
    Template {
        name: "consumer",
        class: Some(1),
        about: "only these participants may use the data",
        parameters: &[
            Parameter { name: "participants", about: "URIs as in their certificates, with commas between", example: "urn:example:reader,urn:example:archive" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "recipient", "operator": "isAnyOf", "rightOperand": "{participants}"}]}]}"#,
    },
    Template {
        name: "connector",
        class: Some(2),
        about: "the data goes to these connectors only",
        parameters: &[
            Parameter { name: "connectors", about: "a participant's URI, or `urn:sha256:` and the fingerprint of a certificate, with commas between", example: "urn:example:reader" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:CONNECTOR", "operator": "isAnyOf", "rightOperand": "{connectors}"}]}]}"#,
    },
    Template {
        name: "application",
        class: Some(3),
        about: "only this application may use the data",
        parameters: &[
            Parameter { name: "application", about: "a URI", example: "https://app.example/reader" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:APPLICATION", "operator": "isAnyOf", "rightOperand": "{application}"}]}]}"#,
    },
    Template {
        name: "user-role",
        class: Some(4),
        about: "only people in this role may use the data",
        parameters: &[
            Parameter { name: "role", about: "a name", example: "analyst" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:ROLE", "operator": "eq", "rightOperand": "{role}"}]}]}"#,
    },
    Template {
        name: "location",
        class: Some(5),
        about: "the data may be used in these places only",
        parameters: &[
            Parameter { name: "places", about: "URIs as in the claims that are kept of participants, with commas between", example: "https://place.example/DE" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "spatial", "operator": "isAnyOf", "rightOperand": "{places}"}]}]}"#,
    },
    Template {
        name: "purpose",
        class: Some(6),
        about: "the data may be used for these purposes only, as the consumer declares them",
        parameters: &[
            Parameter { name: "purposes", about: "URIs, with commas between", example: "https://purpose.example/research" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": "{purposes}"}]}]}"#,
    },
    Template {
        name: "event",
        class: Some(7),
        about: "the data may be used while this event goes on",
        parameters: &[
            Parameter { name: "event", about: "a URI as in the register of events", example: "https://event.example/fair" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "event", "operator": "eq", "rightOperand": "{event}"}]}]}"#,
    },
    Template {
        name: "security-level",
        class: Some(8),
        about: "the participant's connector is certified for this profile or a higher one",
        parameters: &[
            Parameter { name: "level", about: "`idsc:BASE_SECURITY_PROFILE`, `idsc:TRUST_SECURITY_PROFILE` or `idsc:TRUST_PLUS_SECURITY_PROFILE`", example: "idsc:TRUST_SECURITY_PROFILE" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:SECURITY_LEVEL", "operator": "gteq", "rightOperand": "{level}"}]}]}"#,
    },
    Template {
        name: "interval",
        class: Some(9),
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
        class: Some(10),
        about: "the data may be used for so long after the agreement",
        parameters: &[
            Parameter { name: "span", about: "a duration of ISO 8601", example: "P30D" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "elapsedTime", "operator": "lteq", "rightOperand": {"@value": "{span}", "@type": "xsd:duration"}}]}]}"#,
    },
    Template {
        name: "uses",
        class: Some(11),
        about: "the data may be used so many times under one agreement",
        parameters: &[
            Parameter { name: "count", about: "a whole number, from 1", example: "10" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "count", "operator": "lteq", "rightOperand": {"@value": "{count}", "@type": "xsd:integer"}}]}]}"#,
    },
    Template {
        name: "delete",
        class: Some(12),
        about: "the received data is deleted within this time",
        parameters: &[
            Parameter { name: "span", about: "a duration of ISO 8601", example: "P30D" },
        ],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": {"rdf:value": {"@id": "odrl:delete"}, "refinement": [
            {"leftOperand": "delayPeriod", "operator": "lteq", "rightOperand": {"@value": "{span}", "@type": "xsd:duration"}}]}}]}]}"#,
    },
    Template {
        name: "modify-in-transit",
        class: Some(13),
        about: "a field of every record is replaced before it leaves",
        parameters: &[
            Parameter { name: "field", about: "a field of a CSV table or of newline-delimited JSON", example: "$.name" },
            Parameter { name: "with", about: "the text that takes its place", example: "xxxx" },
        ],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": {"rdf:value": {"@id": "idsc:REPLACE"}, "refinement": [
            {"leftOperand": "idsc:JSON_PATH", "operator": "eq", "rightOperand": "{field}"},
            {"leftOperand": "idsc:REPLACE_WITH", "operator": "eq", "rightOperand": "{with}"}]}}]}]}"#,
    },
    Template {
        name: "modify-at-rest",
        class: Some(14),
        about: "the data is anonymised where it is kept",
        parameters: &[],
        policy: r#"{"permission": [{"action": "use"}], "obligation": [{"action": "anonymize"}]}"#,
    },
    Template {
        name: "log",
        class: Some(15),
        about: "every use is logged before it begins",
        parameters: &[],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": "idsc:LOG"}]}]}"#,
    },
    Template {
        name: "inform",
        class: Some(16),
        about: "this party is told of every use",
        parameters: &[
            Parameter { name: "party", about: "a URI as in the setting `policy.inform`", example: "urn:example:trustee" },
        ],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": "inform", "informedParty": "{party}"}]}]}"#,
    },
    Template {
        name: "next-policy",
        class: Some(17),
        about: "the received data is offered on only under this policy",
        parameters: &[
            Parameter { name: "policy", about: "the identifier of a policy that the consumer keeps", example: "urn:example:policy:onward" },
        ],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": "nextPolicy", "hasPolicy": "{policy}"}]}]}"#,
    },
    Template {
        name: "artifact-state",
        class: Some(18),
        about: "the data leaves only while its dataset is labelled with this state",
        parameters: &[
            Parameter { name: "state", about: "`idsc:ENCRYPTED`, `idsc:ANONYMIZED`, `idsc:PSEUDONYMIZED` or another label", example: "idsc:ENCRYPTED" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:ARTIFACT_STATE", "operator": "isAnyOf", "rightOperand": "{state}"}]}]}"#,
    },
    Template {
        name: "sale",
        class: Some(19),
        about: "the data is paid for before its use",
        parameters: &[
            Parameter { name: "amount", about: "a decimal number", example: "500.00" },
            Parameter { name: "unit", about: "a currency as a URI", example: "http://dbpedia.org/resource/Euro" },
        ],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": {"rdf:value": {"@id": "odrl:compensate"}, "refinement": [
            {"leftOperand": "payAmount", "operator": "eq", "rightOperand": {"@value": "{amount}", "@type": "xsd:decimal"}, "unit": "{unit}"}]}}]}]}"#,
    },
    Template {
        name: "rental",
        class: Some(20),
        about: "a rent is paid, again after each span",
        parameters: &[
            Parameter { name: "amount", about: "a decimal number", example: "500.00" },
            Parameter { name: "unit", about: "a currency as a URI", example: "http://dbpedia.org/resource/Euro" },
            Parameter { name: "span", about: "a duration of ISO 8601", example: "P1M" },
        ],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": {"rdf:value": {"@id": "odrl:compensate"}, "refinement": [
            {"leftOperand": "payAmount", "operator": "eq", "rightOperand": {"@value": "{amount}", "@type": "xsd:decimal"}, "unit": "{unit}"},
            {"leftOperand": "timeInterval", "operator": "eq", "rightOperand": "{span}"}]}}]}]}"#,
    },
    Template {
        name: "state",
        class: Some(21),
        about: "the data may be used while this state holds",
        parameters: &[
            Parameter { name: "state", about: "a name as in the register of states", example: "urn:example:state:emergency" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:STATE", "operator": "eq", "rightOperand": "{state}"}]}]}"#,
    },
    Template {
        name: "participant-location",
        class: Some(22),
        about: "members of this group may use the data, if they are in this place",
        parameters: &[
            Parameter { name: "group", about: "a URI as in the claim `assignee.partOf`", example: "urn:example:group" },
            Parameter { name: "place", about: "a URI as in the claim `vcard:hasGeo`", example: "https://place.example/DE" },
        ],
        policy: r#"{"permission": [{"action": "use", "assignee": {"@type": "PartyCollection", "source": "{group}", "refinement": [
            {"leftOperand": "vcard:hasGeo", "operator": "eq", "rightOperand": "{place}"}]}}]}"#,
    },
    Template {
        name: "consent",
        class: Some(23),
        about: "the data may be used once this party consents, and as long as it does",
        parameters: &[
            Parameter { name: "party", about: "a URI", example: "urn:example:person" },
        ],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": "obtainConsent", "consentingParty": "{party}"}]}]}"#,
    },
    Template {
        name: "classification",
        class: Some(24),
        about: "the data leaves while its dataset has none of these labels",
        parameters: &[
            Parameter { name: "dataset", about: "the dataset's identifier, or a collection as in its label `target.partOf`", example: "urn:example:dataset" },
            Parameter { name: "labels", about: "names as in its label `skos:concept`, with commas between", example: "health,confidential" },
        ],
        policy: r#"{"permission": [{"action": "use", "target": {"@type": "AssetCollection", "source": "{dataset}", "refinement": [
            {"leftOperand": "skos:concept", "operator": "isNoneOf", "rightOperand": "{labels}"}]}}]}"#,
    },
    Template {
        name: "private-computation",
        class: Some(25),
        about: "the data takes part in a computation, and is not handed over",
        parameters: &[],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": "idsc:MPC"}]}]}"#,
    },
    Template {
        name: "quantity",
        class: Some(26),
        about: "so much data moves under one agreement, over all its transfers",
        parameters: &[
            Parameter { name: "amount", about: "a whole number", example: "1000000" },
            Parameter { name: "unit", about: "`By`, `kBy`, `MBy`, `GBy`, or `{record}`", example: "By" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:QUANTITY", "operator": "lteq", "rightOperand": "{amount}", "unit": "{unit}"}]}]}"#,
    },
    Template {
        name: "rate",
        class: Some(27),
        about: "the data moves no faster than this",
        parameters: &[
            Parameter { name: "amount", about: "a whole number", example: "1000" },
            Parameter { name: "unit", about: "bytes per second, minute, hour or day, such as `kBy/s`", example: "kBy/s" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:RECURRENCE_RATE", "operator": "lteq", "rightOperand": "{amount}", "unit": "{unit}"}]}]}"#,
    },
    Template {
        name: "delay",
        class: Some(28),
        about: "the data moves not before so long after the agreement",
        parameters: &[
            Parameter { name: "span", about: "a duration of ISO 8601", example: "PT1H" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "delayPeriod", "operator": "gteq", "rightOperand": {"@value": "{span}", "@type": "xsd:duration"}}]}]}"#,
    },
    Template {
        name: "fields",
        class: Some(29),
        about: "nothing is handed over but these fields of every record",
        parameters: &[
            Parameter { name: "fields", about: "fields of a CSV table or of newline-delimited JSON, with commas between", example: "$.id,$.name" },
        ],
        policy: r#"{"permission": [{"action": "use", "constraint": [
            {"leftOperand": "idsc:PATH", "operator": "isAnyOf", "rightOperand": "{fields}"}]}]}"#,
    },
    Template {
        name: "aggregate",
        class: Some(30),
        about: "the provider hands over aggregates only",
        parameters: &[],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": "idsc:AGGREGATE_BY_PROVIDER"}]}]}"#,
    },
    Template {
        name: "provenance",
        class: Some(31),
        about: "it is recorded where the data went",
        parameters: &[],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": "idsc:TRACK_PROVENANCE"}]}]}"#,
    },
    Template {
        name: "encrypt",
        class: Some(32),
        about: "the data is encrypted where it is kept",
        parameters: &[],
        policy: r#"{"permission": [{"action": "use", "duty": [
            {"action": "idsc:ENCRYPT"}]}]}"#,
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
    /// What of it this connector cannot hold to, and why: with one of these it is refused in an offer.
    pub refused: Vec<String>,
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
    /// [`Refusal`] where a parameter is unknown or comes twice, or where its value gives no policy.
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
        let parsed = policy::parse_with(&policy, &capabilities.vocabulary).map_err(|problems| {
            let refusal = policy::refusal(&problems);
            let parameters: Vec<String> = self
                .parameters
                .iter()
                .map(|p| format!("`{}` is {}, such as `{}`", p.name, p.about, p.example))
                .collect();
            let message =
                format!("with these values the template `{}` gives no policy: {}", self.name, refusal.message);
            Refusal { message, cure: Some(parameters.join("; ")), ..refusal }
        })?;
        let refused = policy::plan(&parsed, capabilities).refused.iter().map(ToString::to_string).collect();
        Ok(Filled { template: self.name, about: self.about, examples, refused, policy })
    }

    /// Why this connector does not hold to it; `None` where it does.
    #[must_use]
    pub fn refused(&self, capabilities: &Capabilities) -> Option<String> {
        self.fill(&[], capabilities)
            .map_or_else(|refusal| Some(refusal.message), |filled| filled.refused.into_iter().next())
    }

    /// What can be listed of it.
    #[must_use]
    pub fn view(&self, capabilities: &Capabilities) -> Value {
        let refused = self.refused(capabilities);
        json!({
            "name": self.name, "class": self.class, "about": self.about, "parameters": self.parameters,
            "enforced": refused.is_none(), "refused": refused,
        })
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

#[cfg(test)]
mod tests {
    use kontor_core::policy::class::{CLASSES, Verdict};

    use super::*;

    #[test]
    fn every_class_has_a_template_that_is_enforced_where_the_class_is() {
        let mut all = Capabilities::all();
        all.inform_targets.insert("urn:example:trustee".to_owned());
        for capabilities in [all, Capabilities::default()] {
            for class in CLASSES {
                let template = TEMPLATES.iter().find(|template| template.class == Some(class.number));
                let refused = template.map(|template| template.refused(&capabilities));
                let held = matches!(class.verdict(&capabilities), Verdict::Enforced(_));
                assert_eq!(refused.as_ref().map(Option::is_none), Some(held), "{}: {refused:?}", class.name);
            }
        }
    }
}
