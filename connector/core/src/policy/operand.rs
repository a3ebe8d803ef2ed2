//! Left operands: what each asks about, of which kind its values are, and who knows the answer.
//!
//! The table holds every operand that is decided here, and those of which the reason for not deciding is worth more
//! than the name. An operator adds more with a [`Vocabulary`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kontor_vocab::context::compact_term;
use kontor_vocab::iri::{IDS, IDSC};
use kontor_vocab::odrl::terms;
use serde::{Deserialize, Serialize};

use super::fact::FactSource;
use super::plan::Phase;

/// Of which kind the values of an operand are, and so how they compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperandKind {
    /// The time of the decision.
    Time,
    /// The time since the agreement.
    Elapsed,
    /// The number of uses.
    Count,
    /// How much data was moved: bytes or records.
    Quantity,
    /// How fast data moves.
    Rate,
    /// How long to wait after the agreement.
    Delay,
    /// Which fields of a record are handed over.
    Fields,
    /// The participant that the data goes to.
    Recipient,
    /// Names.
    Names {
        /// Whether a condition must hold for each of several values (`true`), or for one of them (`false`). A use
        /// for two purposes is for each of them; a participant with two roles has either.
        every: bool,
        /// Whether names have parts: places, purposes.
        parts: bool,
    },
    /// Names that have an order, the lowest first.
    Level(&'static [&'static str]),
    /// The parameter of a duty; no condition.
    Parameter,
    /// Nobody here knows the answer.
    Undecided,
}

/// An operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperandSpec {
    /// Its canonical name: the bare ODRL term, or a prefixed name.
    pub name: &'static str,
    /// Other spellings of the same.
    pub aliases: &'static [&'static str],
    /// What it asks about.
    pub about: &'static str,
    /// Of which kind its values are.
    pub kind: OperandKind,
    /// Who knows the value; `None` where nobody does.
    pub source: Option<FactSource>,
    /// When conditions on it are enforced.
    pub phases: &'static [Phase],
    /// Why it is not decided, where it is not.
    pub because: &'static str,
}

/// The security profiles of the IDS, the lowest first.
pub const SECURITY_LEVELS: &[&str] =
    &["idsc:BASE_SECURITY_PROFILE", "idsc:TRUST_SECURITY_PROFILE", "idsc:TRUST_PLUS_SECURITY_PROFILE"];

const NEGOTIATED: &[Phase] = &[Phase::Catalogue, Phase::Negotiation, Phase::TransferStart, Phase::InStream];
const RUNNING: &[Phase] = &[Phase::TransferStart, Phase::InStream];
const STREAMED: &[Phase] = &[Phase::InStream];

const fn decided(
    name: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    kind: OperandKind,
    source: FactSource,
    phases: &'static [Phase],
) -> OperandSpec {
    OperandSpec { name, aliases, about, kind, source: Some(source), phases, because: "" }
}

const fn parameter(name: &'static str, aliases: &'static [&'static str], about: &'static str) -> OperandSpec {
    let because = "it is the parameter of a duty and no condition";
    OperandSpec { name, aliases, about, kind: OperandKind::Parameter, source: None, phases: &[], because }
}

const fn undecided(
    name: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    because: &'static str,
) -> OperandSpec {
    OperandSpec { name, aliases, about, kind: OperandKind::Undecided, source: None, phases: &[], because }
}

const ANY: OperandKind = OperandKind::Names { every: false, parts: false };
const EVERY: OperandKind = OperandKind::Names { every: true, parts: false };
const EVERY_PART: OperandKind = OperandKind::Names { every: true, parts: true };

/// Every operand that has an entry of its own. The other left operands of ODRL 2.2 are known by name, and undecided.
pub const OPERANDS: &[OperandSpec] = &[
    decided(
        "dateTime",
        &["idsc:POLICY_EVALUATION_TIME", "idsc:DATE_TIME"],
        "the time of use",
        OperandKind::Time,
        FactSource::Clock,
        &[Phase::Catalogue, Phase::TransferStart, Phase::InStream],
    ),
    decided(
        "elapsedTime",
        &["idsc:ELAPSED_TIME"],
        "the time since the agreement",
        OperandKind::Elapsed,
        FactSource::Agreement,
        RUNNING,
    ),
    decided(
        "count",
        &["idsc:COUNT"],
        "the number of uses",
        OperandKind::Count,
        FactSource::Uses,
        &[Phase::TransferStart],
    ),
    decided(
        "recipient",
        &["idsc:RECIPIENT"],
        "who receives the data",
        OperandKind::Recipient,
        FactSource::Requester,
        &[Phase::Catalogue, Phase::Negotiation, Phase::TransferStart],
    ),
    decided(
        "idsc:CONNECTOR",
        &["idsc:SYSTEM"],
        "the connector that the data goes to",
        // A transfer has one receiving connector, however many names its certificate gives it.
        ANY,
        FactSource::Connector,
        NEGOTIATED,
    ),
    decided(
        "spatial",
        &["idsc:ABSOLUTE_SPATIAL_POSITION"],
        "the place of use",
        EVERY_PART,
        FactSource::Peer,
        NEGOTIATED,
    ),
    decided("purpose", &["idsc:PURPOSE"], "the purpose of use", EVERY_PART, FactSource::Declared, RUNNING),
    decided("event", &["idsc:EVENT"], "an event that is going on", ANY, FactSource::Register, RUNNING),
    decided("idsc:STATE", &[], "a state of the surroundings", ANY, FactSource::Register, RUNNING),
    decided(
        "idsc:SECURITY_LEVEL",
        &[],
        "the security profile that the participant's connector is certified for",
        OperandKind::Level(SECURITY_LEVELS),
        FactSource::Peer,
        NEGOTIATED,
    ),
    decided(
        "vcard:hasGeo",
        &["http://www.w3.org/2006/vcard/ns#hasGeo"],
        "where the participant has its seat",
        EVERY_PART,
        FactSource::Peer,
        NEGOTIATED,
    ),
    decided(
        "vcard:hasCountryName",
        &["http://www.w3.org/2006/vcard/ns#country-name", "http://www.w3.org/2006/vcard/ns#hasCountryName"],
        "the country in which the participant has its seat, by name",
        EVERY_PART,
        FactSource::Peer,
        NEGOTIATED,
    ),
    decided("industry", &[], "the industry of the participant", EVERY_PART, FactSource::Peer, NEGOTIATED),
    decided("idsc:ARTIFACT_STATE", &[], "the states of the dataset", ANY, FactSource::Dataset, RUNNING),
    decided(
        "skos:concept",
        &["http://www.w3.org/2004/02/skos/core#concept"],
        "the classification of the dataset",
        EVERY_PART,
        FactSource::Dataset,
        RUNNING,
    ),
    decided("fileFormat", &[], "the file format", EVERY, FactSource::Dataset, RUNNING),
    decided("language", &[], "the natural language of the dataset", EVERY, FactSource::Dataset, RUNNING),
    decided("media", &[], "the medium", EVERY, FactSource::Dataset, RUNNING),
    decided("version", &[], "the version of the dataset", EVERY, FactSource::Dataset, RUNNING),
    decided("idsc:QUANTITY", &[], "how much data was moved", OperandKind::Quantity, FactSource::Uses, RUNNING),
    decided("idsc:RECURRENCE_RATE", &[], "how fast data moves", OperandKind::Rate, FactSource::Clock, STREAMED),
    decided(
        "delayPeriod",
        &["idsc:DELAY", "idsc:DELAY_PERIOD"],
        "the time to wait after the agreement",
        OperandKind::Delay,
        FactSource::Agreement,
        STREAMED,
    ),
    decided(
        "idsc:PATH",
        &["idsc:JSON_PATH"],
        "the fields that are handed over",
        OperandKind::Fields,
        FactSource::Dataset,
        STREAMED,
    ),
    undecided(
        "idsc:APPLICATION",
        &[],
        "the application of use",
        "a connector does not see which application reads the data once it is handed over",
    ),
    undecided(
        "idsc:ROLE",
        &["vcard:hasRole"],
        "the role of the user",
        "a connector does not see which of a participant's people use the data",
    ),
    undecided("idsc:USER", &[], "the user", "a connector does not see which of a participant's people use the data"),
    undecided("idsc:ENDPOINT", &[], "the endpoint of use", "an endpoint is an address and proves nothing"),
    undecided(
        "payAmount",
        &["idsc:PAY_AMOUNT", "idsc:PAYMENT"],
        "the amount to pay",
        "a payment is a duty: `compensate`, refined by `payAmount`",
    ),
    parameter("systemDevice", &["idsc:SYSTEM_DEVICE"], "the system that keeps the log"),
    parameter("idsc:LOG_LEVEL", &[], "on which decisions to log"),
    parameter("idsc:NOTIFICATION_LEVEL", &[], "on which decisions to inform"),
    parameter("idsc:REPLACE_WITH", &[], "what to put in place of a value"),
    parameter("idsc:TARGET_POLICY", &[], "the policy to pass on"),
    parameter("idsc:HASH_ALGORITHM", &[], "how to hash"),
    parameter("idsc:OPERAND", &[], "the number to reckon with"),
    parameter("idsc:XPATH", &[], "a field of an XML document"),
    parameter("idsc:MPC_FUNCTION", &[], "what to compute together"),
    parameter("idsc:QUERY", &[], "what to ask"),
];

/// The name of an IDS code in one spelling: `https://w3id.org/idsa/code/artifactState` and `ids:artifact_state` are
/// `idsc:ARTIFACT_STATE`. The information model spells its codes in capitals, its examples do not.
fn code(text: &str) -> Option<String> {
    let name = ["idsc:", "ids:", IDSC, IDS].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return None;
    }
    let mut code = String::from("idsc:");
    let mut lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && lower {
            code.push('_');
        }
        lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        code.push(if c == '-' { '_' } else { c.to_ascii_uppercase() });
    }
    Some(code)
}

/// A name (a value of a fact or of a right operand) in its canonical spelling: codes of the IDS in capitals, anything
/// else as it is.
#[must_use]
pub fn canonical_name(name: &str) -> String {
    match name.strip_prefix("idsc:").or_else(|| name.strip_prefix(IDSC)) {
        Some(_) => code(name).unwrap_or_else(|| name.to_owned()),
        None => name.to_owned(),
    }
}

/// The canonical name of an operand: whichever way it is spelled. What is not known stays as it is.
#[must_use]
pub fn canonical_operand(name: &str) -> String {
    match operand(name) {
        Some(spec) => spec.name.to_owned(),
        None => compact_term(name),
    }
}

/// The entry of an operand, by any of its spellings.
#[must_use]
pub fn operand(name: &str) -> Option<&'static OperandSpec> {
    let find = |name: &str| OPERANDS.iter().find(|spec| spec.name == name || spec.aliases.contains(&name));
    find(name).or_else(|| find(&compact_term(name))).or_else(|| code(name).and_then(|code| find(&code)))
}

/// What is known of an operand that a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub name: Cow<'static, str>,
    pub kind: KnownKind,
}

/// As [`OperandKind`], with what an operator defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KnownKind {
    Spec(OperandKind),
    Defined(DefinedKind),
}

/// Of which kind the values of an operator's own operand are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefinedKind {
    /// Names.
    Names {
        /// Whether a condition must hold for each of several values, or for one of them.
        #[serde(default)]
        every: bool,
        /// Whether names have parts, as the vocabulary's `parts` say.
        #[serde(default)]
        parts: bool,
    },
    /// Names that have an order, the lowest first.
    Level {
        /// The levels.
        levels: Vec<String>,
    },
    /// Numbers.
    Number {
        /// In which unit; a condition must name the same one.
        #[serde(default)]
        unit: Option<String>,
    },
    /// Instants.
    Instant,
}

/// An operand that an operator defines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperandDefinition {
    /// What it asks about.
    pub about: String,
    /// Of which kind its values are.
    pub kind: DefinedKind,
    /// Who knows the value. One of those that are handed in: connector, peer, dataset, registers, declared.
    pub source: FactSource,
}

/// Which names are parts of which: places in countries, purposes in wider purposes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Taxonomy(BTreeMap<String, BTreeSet<String>>);

impl Taxonomy {
    /// From pairs of a name and a wider one.
    pub fn new<T: AsRef<str>>(pairs: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut taxonomy = Self::default();
        for (part, whole) in pairs {
            let (part, whole) = (canonical_name(part.as_ref()), canonical_name(whole.as_ref()));
            taxonomy.0.entry(part).or_default().insert(whole);
        }
        taxonomy
    }

    /// Whether one name is another or a part of it, over any number of steps.
    #[must_use]
    pub fn is_part(&self, part: &str, whole: &str) -> bool {
        if part == whole {
            return true;
        }
        let mut seen = BTreeSet::from([part]);
        let mut waiting = vec![part];
        while let Some(name) = waiting.pop() {
            for wider in self.0.get(name).into_iter().flatten() {
                if wider == whole {
                    return true;
                }
                if seen.insert(wider) {
                    waiting.push(wider);
                }
            }
        }
        false
    }

    /// Whether the name is in the taxonomy at all: only then is "it is no part" known.
    #[must_use]
    pub fn lists(&self, name: &str) -> bool {
        self.0.contains_key(name) || self.0.values().any(|wider| wider.contains(name))
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What an operator adds to the terms that are known: operands and taxonomies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vocabulary {
    /// Operands by their IRI. A term that is known already cannot be redefined.
    pub operands: BTreeMap<String, OperandDefinition>,
    /// Which names are parts of which.
    pub parts: Taxonomy,
}

/// An operator's own term is not well defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{term}` {why}")]
pub struct VocabularyProblem {
    /// The term.
    pub term: String,
    /// What is wrong, and what would have passed.
    pub why: String,
}

impl Vocabulary {
    /// Checks that no term is redefined, and that the sources are such that a value can be handed in.
    ///
    /// # Errors
    /// The first [`VocabularyProblem`].
    pub fn check(&self) -> Result<(), VocabularyProblem> {
        let wrong = |term: &str, why: &str| Err(VocabularyProblem { term: term.to_owned(), why: why.to_owned() });
        for (name, definition) in &self.operands {
            if operand(name).is_some() || terms::left_operand_term(&compact_term(name)).is_some() {
                return wrong(name, "is known already; an IRI of your own would have passed");
            }
            if !name.contains(':') {
                return wrong(name, "is no IRI; an IRI of your own would have passed");
            }
            match definition.source {
                FactSource::Clock | FactSource::Agreement | FactSource::Uses | FactSource::Requester => {
                    return wrong(
                        name,
                        "has a source that knows nothing but its own operand; `peer`, `dataset`, `register`, \
                         `agreement-register`, `connector` or `declared` would have passed",
                    );
                }
                FactSource::Connector
                | FactSource::Peer
                | FactSource::Dataset
                | FactSource::Register
                | FactSource::AgreementRegister
                | FactSource::Declared => {}
            }
            if let DefinedKind::Level { levels } = &definition.kind
                && levels.iter().collect::<BTreeSet<_>>().len() != levels.len().max(1)
            {
                return wrong(name, "has no levels or repeats one; each level once would have passed");
            }
        }
        Ok(())
    }

    /// What is known of an operand, by any of its spellings.
    pub(super) fn known(&self, name: &str) -> Option<Known> {
        if let Some(spec) = operand(name) {
            return Some(Known { name: Cow::Borrowed(spec.name), kind: KnownKind::Spec(spec.kind) });
        }
        let compact = compact_term(name);
        if let Some(term) = terms::left_operand_term(&compact) {
            return Some(Known { name: Cow::Borrowed(term), kind: KnownKind::Spec(OperandKind::Undecided) });
        }
        let definition = self.operands.get(name).or_else(|| self.operands.get(&compact))?;
        Some(Known { name: Cow::Owned(compact), kind: KnownKind::Defined(definition.kind.clone()) })
    }
}
