//! The classes of usage control as data: for each its number, its ODRL form and its IDS form as templates.
//!
//! Whether a class is enforced is not said here: it is what [`plan`](super::plan) says of its template.
//! Spec: IDS-G, usage control, policy classes 1 to 25; IDS Information Model 4.2, UsagePolicyClass.

use kontor_vocab::odrl::PolicyDocument;

use super::capability::Capabilities;
use super::enforce::unenforceable;
use super::parse::parse;
use super::plan::{Phase, plan};
use crate::negotiation::Role;

/// A class of usage control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageClass {
    /// Its number; the classes without one are numbered from 26.
    pub number: u8,
    /// Its name.
    pub name: &'static str,
    /// The template in ODRL: JSON, every value an example that may be replaced.
    pub odrl: &'static str,
    /// The same in the words of the IDS; empty where the IDS has no form.
    pub ids: &'static str,
}

const fn class(number: u8, name: &'static str, odrl: &'static str, ids: &'static str) -> UsageClass {
    UsageClass { number, name, odrl, ids }
}

/// A template from its rules alone.
macro_rules! odrl {
    ($rules:literal) => {
        concat!(r#"{"@type":"Offer","permission":["#, $rules, "]}")
    };
}
macro_rules! ids {
    ($rules:literal) => {
        concat!(r#"{"@type":"ids:ContractOffer","ids:permission":["#, $rules, "]}")
    };
}
/// One condition of a permission to use, in both words.
macro_rules! odrl_if {
    ($left:literal, $operator:literal, $right:literal) => {
        concat!(
            r#"{"@type":"Offer","permission":[{"action":"use","constraint":[{"leftOperand":""#,
            $left,
            r#"","operator":""#,
            $operator,
            r#"","rightOperand":"#,
            $right,
            "}]}]}"
        )
    };
}
macro_rules! ids_if {
    ($left:literal, $operator:literal, $right:literal) => {
        concat!(
            r#"{"@type":"ids:ContractOffer","ids:permission":[{"ids:action":[{"@id":"idsc:USE"}],"ids:constraint":[{"@type":"ids:Constraint","ids:leftOperand":{"@id":"idsc:"#,
            $left, r#""},"ids:operator":{"@id":"idsc:"#, $operator, r#""},"ids:rightOperand":"#, $right, "}]}]}"
        )
    };
}

/// Every class.
#[rustfmt::skip]
pub const CLASSES: &[UsageClass] = &[
    class(0, "unrestricted", odrl!(r#"{"action":"use"}"#), ids!(r#"{"ids:action":[{"@id":"idsc:USE"}]}"#)),
    class(1, "consumer",
        r#"{"@type":"Offer","assignee":"did:web:consumer.example","permission":[{"action":"use"}]}"#,
        r#"{"@type":"ids:ContractOffer","ids:consumer":{"@id":"did:web:consumer.example"},"ids:permission":[{"ids:action":[{"@id":"idsc:USE"}]}]}"#),
    class(2, "connector",
        odrl_if!("idsc:CONNECTOR", "isAnyOf", r#"["https://one.example","https://two.example"]"#),
        ids_if!("CONNECTOR", "IN", r#"[{"@value":"https://one.example","@type":"xsd:anyURI"},{"@value":"https://two.example","@type":"xsd:anyURI"}]"#)),
    class(3, "application",
        odrl_if!("idsc:APPLICATION", "isPartOf", r#"["https://app.example"]"#),
        ids_if!("APPLICATION", "IN", r#"["https://app.example"]"#)),
    class(4, "user role", odrl_if!("idsc:ROLE", "eq", r#""analyst""#), ids_if!("ROLE", "EQUALS", r#""analyst""#)),
    class(5, "location of use",
        odrl_if!("spatial", "isPartOf", r#""https://place.example/EU""#),
        ids_if!("ABSOLUTE_SPATIAL_POSITION", "IN", r#""https://place.example/EU""#)),
    class(6, "purpose",
        odrl_if!("purpose", "eq", r#""https://purpose.example/research""#),
        ids_if!("PURPOSE", "SAME_AS", r#"{"@value":"https://purpose.example/research","@type":"xsd:anyURI"}"#)),
    class(7, "event",
        odrl_if!("event", "eq", r#""https://event.example/fair""#),
        ids_if!("EVENT", "SAME_AS", r#""https://event.example/fair""#)),
    class(8, "security level",
        odrl_if!("idsc:SECURITY_LEVEL", "isPartOf", r#"["idsc:TRUST_SECURITY_PROFILE","idsc:TRUST_PLUS_SECURITY_PROFILE"]"#),
        ids_if!("SECURITY_LEVEL", "IN", r#"["https://w3id.org/idsa/code/TRUST_SECURITY_PROFILE","idsc:TRUST_PLUS_SECURITY_PROFILE"]"#)),
    class(9, "time interval",
        odrl!(r#"{"action":"use","constraint":[{"leftOperand":"dateTime","operator":"gt","rightOperand":{"@value":"2030-01-01T00:00:00Z","@type":"xsd:dateTime"}},{"leftOperand":"dateTime","operator":"lt","rightOperand":{"@value":"2031-01-01T00:00:00Z","@type":"xsd:dateTime"}}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:constraint":[{"ids:leftOperand":{"@id":"idsc:POLICY_EVALUATION_TIME"},"ids:operator":{"@id":"idsc:AFTER"},"ids:rightOperand":{"@value":"2030-01-01T00:00:00Z","@type":"xsd:dateTimeStamp"}},{"ids:leftOperand":{"@id":"idsc:DATE_TIME"},"ids:operator":{"@id":"idsc:BEFORE"},"ids:rightOperand":{"@value":"2031-01-01T00:00:00Z","@type":"xsd:dateTimeStamp"}}]}"#)),
    class(10, "duration",
        odrl_if!("elapsedTime", "lteq", r#"{"@value":"P3M","@type":"xsd:duration"}"#),
        ids_if!("ELAPSED_TIME", "SHORTER_EQ", r#"[{"@type":"xsd:duration","@value":"P3M"}]"#)),
    class(11, "number of uses",
        odrl_if!("count", "lteq", "10"),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:constraint":[{"ids:leftOperand":{"@id":"idsc:COUNT"},"ids:operator":{"@id":"idsc:LTEQ"},"ids:rightOperand":{"@value":"10","@type":"xsd:decimal"}}],"ids:postDuty":[{"@type":"ids:Duty","ids:action":[{"@id":"idsc:INCREMENT_COUNTER"}]}]}"#)),
    class(12, "delete",
        odrl!(r#"{"action":"use","duty":[{"action":{"rdf:value":{"@id":"odrl:delete"},"refinement":[{"leftOperand":"delayPeriod","operator":"lteq","rightOperand":{"@value":"P30D","@type":"xsd:duration"}}]}}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:postDuty":[{"@type":"ids:Duty","ids:action":[{"@id":"idsc:DELETE","ids:refinement":[{"ids:leftOperand":{"@id":"idsc:DELAY"},"ids:operator":{"@id":"idsc:SHORTER_EQ"},"ids:rightOperand":{"@value":"P30D","@type":"xsd:duration"}}]}]}]}"#)),
    class(13, "modify in transit",
        odrl!(r#"{"action":"use","duty":[{"action":{"rdf:value":{"@id":"idsc:REPLACE"},"refinement":[{"leftOperand":"idsc:JSON_PATH","operator":"eq","rightOperand":"$.name"},{"leftOperand":"idsc:REPLACE_WITH","operator":"eq","rightOperand":"xxxx"}]},"constraint":[{"leftOperand":"event","operator":"lt","rightOperand":{"@id":"odrl:policyUsage"}}]}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:preDuty":[{"@type":"ids:Duty","ids:action":[{"@id":"idsc:REPLACE","ids:refinement":[{"ids:leftOperand":{"@id":"idsc:REPLACE_WITH"},"ids:operator":{"@id":"idsc:DEFINES_AS"},"ids:rightOperand":{"@value":"xxxx","@type":"xsd:string"}},{"ids:leftOperand":{"@id":"idsc:JSON_PATH"},"ids:operator":{"@id":"idsc:DEFINES_AS"},"ids:rightOperand":{"@value":"$.name","@type":"xsd:string"}}]}]}]}"#)),
    class(14, "modify at rest",
        r#"{"@type":"Offer","permission":[{"action":"use"}],"obligation":[{"action":"anonymize"}]}"#,
        r#"{"@type":"ids:ContractOffer","ids:permission":[{"ids:action":[{"@id":"idsc:USE"}]}],"ids:obligation":[{"ids:action":[{"@id":"idsc:ANONYMIZE"}]}]}"#),
    class(15, "log",
        odrl!(r#"{"action":"use","duty":[{"action":{"rdf:value":{"@id":"idsc:log"},"refinement":[{"leftOperand":"idsc:LOG_LEVEL","operator":"eq","rightOperand":"idsc:ON_ALLOW"}]}}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:postDuty":[{"ids:action":[{"@id":"idsc:LOG","ids:refinement":[{"ids:leftOperand":{"@id":"idsc:LOG_LEVEL"},"ids:operator":{"@id":"idsc:DEFINES_AS"},"ids:rightOperand":{"@value":"idsc:ON_ALLOW","@type":"xsd:string"}}]}]}]}"#)),
    class(16, "inform",
        r#"{"@type":"Offer","assigner":"did:web:provider.example","permission":[{"action":"use","duty":[{"action":"inform","informedParty":"did:web:provider.example"}]}]}"#,
        r#"{"@type":"ids:ContractOffer","ids:provider":{"@id":"did:web:provider.example"},"ids:permission":[{"ids:action":[{"@id":"idsc:USE"}],"ids:postDuty":[{"ids:action":[{"@id":"idsc:NOTIFY","ids:refinement":[{"ids:leftOperand":{"@id":"idsc:RECIPIENT"},"ids:operator":{"@id":"idsc:DEFINES_AS"},"ids:rightOperand":{"@value":"did:web:provider.example","@type":"xsd:anyURI"}}]}]}]}]}"#),
    class(17, "next policy",
        odrl!(r#"{"action":"distribute","duty":[{"action":"nextPolicy","hasPolicy":"urn:policy:next"}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:DISTRIBUTE"}],"ids:preDuty":[{"ids:action":[{"@id":"idsc:NEXT_POLICY","ids:refinement":[{"ids:leftOperand":{"@id":"idsc:TARGET_POLICY"},"ids:operator":{"@id":"idsc:DEFINES_AS"},"ids:rightOperand":{"@value":"urn:policy:next","@type":"xsd:anyURI"}}]}]}]}"#)),
    class(18, "artifact state",
        odrl_if!("ids:artifact_state", "isAnyOf", r#""idsc:encrypted""#),
        ids_if!("ARTIFACT_STATE", "EQUALS", r#"{"@value":"idsc:ENCRYPTED","@type":"xsd:string"}"#)),
    class(19, "sale",
        odrl!(r#"{"action":"use","duty":[{"action":{"rdf:value":{"@id":"odrl:compensate"},"refinement":[{"leftOperand":"payAmount","operator":"eq","rightOperand":{"@value":"500.00","@type":"xsd:decimal"},"unit":"http://dbpedia.org/resource/Euro"}]},"constraint":[{"leftOperand":"event","operator":"lt","rightOperand":{"@id":"odrl:policyUsage"}}]}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:constraint":[{"ids:leftOperand":{"@id":"idsc:PAY_AMOUNT"},"ids:operator":{"@id":"idsc:EQ"},"ids:rightOperand":{"@value":"500","@type":"xsd:double"},"ids:contract":"http://dbpedia.org/page/Sale","ids:unit":"http://dbpedia.org/resource/Euro"}]}"#)),
    class(20, "rental",
        odrl!(r#"{"action":"use","duty":[{"action":{"rdf:value":{"@id":"odrl:compensate"},"refinement":[{"leftOperand":"payAmount","operator":"eq","rightOperand":{"@value":"500.00","@type":"xsd:decimal"},"unit":"http://dbpedia.org/resource/Euro"},{"leftOperand":"timeInterval","operator":"eq","rightOperand":"P1Y"}]}}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:constraint":[{"ids:leftOperand":{"@id":"idsc:PAYMENT"},"ids:operator":{"@id":"idsc:EQ"},"ids:rightOperand":{"@value":"500.0","@type":"xsd:double"},"ids:contract":"http://dbpedia.org/page/Rent","ids:unit":"http://dbpedia.org/resource/Euro","ids:frequency":{"@id":"idsc:ANNUAL"}}]}"#)),
    class(21, "state", odrl_if!("idsc:state", "eq", r#""emergency""#), ids_if!("STATE", "EQUALS", r#""emergency""#)),
    class(22, "participant location",
        odrl!(r#"{"action":"use","assignee":{"@type":"PartyCollection","source":"urn:group","refinement":[{"leftOperand":"vcard:hasGeo","operator":"eq","rightOperand":"https://place.example/DE"}]}}"#), ""),
    class(23, "consent", odrl!(r#"{"action":"use","duty":[{"action":"obtainConsent","consentingParty":"urn:person:1"}]}"#), ""),
    class(24, "data classification",
        odrl!(r#"{"action":"use","target":{"@type":"AssetCollection","source":"urn:collection","refinement":[{"leftOperand":"skos:concept","operator":"isNoneOf","rightOperand":["health","confidential"]}]}}"#), ""),
    class(25, "privacy-enhancing computation", odrl!(r#"{"action":"use","duty":[{"action":"idsc:MPC"}]}"#), ""),
    class(26, "quantity",
        odrl!(r#"{"action":"use","constraint":[{"leftOperand":"idsc:QUANTITY","operator":"lteq","rightOperand":"1000000","unit":"By"}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:constraint":[{"ids:leftOperand":{"@id":"idsc:QUANTITY"},"ids:operator":{"@id":"idsc:LTEQ"},"ids:rightOperand":"1","ids:unit":"MBy"}]}"#)),
    class(27, "rate",
        odrl!(r#"{"action":"use","constraint":[{"leftOperand":"idsc:RECURRENCE_RATE","operator":"lteq","rightOperand":"1000","unit":"kBy/s"}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:constraint":[{"ids:leftOperand":{"@id":"idsc:RECURRENCE_RATE"},"ids:operator":{"@id":"idsc:LTEQ"},"ids:rightOperand":"1","ids:unit":"MBy/s"}]}"#)),
    class(28, "delay", odrl_if!("delayPeriod", "gteq", r#""PT1H""#), ids_if!("DELAY", "LONGER_EQ", r#""PT1H""#)),
    class(29, "field path", odrl_if!("idsc:PATH", "isAnyOf", r#"["$.a","$.b"]"#), ids_if!("JSON_PATH", "IN", r#"["$.a","$.b"]"#)),
    class(30, "aggregate",
        odrl!(r#"{"action":"use","duty":[{"action":"idsc:AGGREGATE_BY_PROVIDER","constraint":[{"leftOperand":"event","operator":"lt","rightOperand":{"@id":"odrl:policyUsage"}}]}]}"#),
        ids!(r#"{"ids:action":[{"@id":"idsc:USE"}],"ids:preDuty":[{"ids:action":[{"@id":"idsc:AGGREGATE_BY_PROVIDER"}]}]}"#)),
    class(31, "track provenance", odrl!(r#"{"action":"use","duty":[{"action":"idsc:TRACK_PROVENANCE"}]}"#), ""),
    class(32, "encrypt", odrl!(r#"{"action":"use","duty":[{"action":"idsc:ENCRYPT"}]}"#), ""),
];

/// What becomes of a class with given capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is held to, in these phases and by these sides.
    Enforced(Vec<(Phase, Role)>),
    /// It is refused before an agreement, with the reason.
    Refused(String),
}

impl UsageClass {
    /// The template in ODRL, as a document; `None` where it is no JSON object, which a test excludes.
    #[must_use]
    pub fn document(&self) -> Option<PolicyDocument> {
        serde_json::from_str(self.odrl).ok()
    }

    /// The template in the words of the IDS, where there is one.
    #[must_use]
    pub fn ids_document(&self) -> Option<PolicyDocument> {
        serde_json::from_str(self.ids).ok()
    }

    /// Whether a connector with these capabilities holds to it: what the plan of its template says.
    #[must_use]
    pub fn verdict(&self, capabilities: &Capabilities) -> Verdict {
        let Some(policy) = self.document().and_then(|document| parse(&document).ok()) else {
            return Verdict::Refused("the template cannot be read".to_owned());
        };
        if let Some(problem) = unenforceable(&policy, capabilities).into_iter().next() {
            return Verdict::Refused(problem.message);
        }
        let plan = plan(&policy, capabilities);
        let mut phases: Vec<(Phase, Role)> =
            plan.enforced.iter().flat_map(|step| &step.phases).map(|how| (how.phase, how.by)).collect();
        phases.sort();
        phases.dedup();
        Verdict::Enforced(phases)
    }
}

/// The classes as a table in Markdown, for given capabilities.
#[must_use]
pub fn class_table(capabilities: &Capabilities) -> String {
    let mut table = String::from("| # | Class | Held to | When, and by whom; or why not |\n|---|---|---|---|\n");
    for class in CLASSES {
        let (held, what) = match class.verdict(capabilities) {
            Verdict::Enforced(phases) if phases.is_empty() => {
                ("yes", "at every request for a transfer (provider)".to_owned())
            }
            Verdict::Enforced(phases) => {
                let words: Vec<String> =
                    phases.iter().map(|(phase, by)| format!("{} ({})", phase.words(), by.as_str())).collect();
                ("yes", words.join(", "))
            }
            Verdict::Refused(why) => ("refused", why),
        };
        table.push_str(&format!("| {} | {} | {held} | {what} |\n", class.number, class.name));
    }
    table
}
