//! The terms of the ODRL 2.2 core and common vocabularies, as tables.
//!
//! Spec: ODRL Vocabulary & Expression 2.2, §2 (core) and §3 (common).

/// An action and the action that it is part of. `use` and `transfer` are the two roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionTerm {
    /// The bare term: `print`.
    pub name: &'static str,
    /// The action that includes it (`odrl:includedIn`), `None` for a root.
    pub included_in: Option<&'static str>,
}

const fn action(name: &'static str, included_in: &'static str) -> ActionTerm {
    ActionTerm { name, included_in: Some(included_in) }
}

const fn root(name: &'static str) -> ActionTerm {
    ActionTerm { name, included_in: None }
}

/// The actions of ODRL 2.2.
pub const ACTIONS: &[ActionTerm] = &[
    root("use"),
    root("transfer"),
    action("acceptTracking", "use"),
    action("aggregate", "use"),
    action("annotate", "use"),
    action("anonymize", "use"),
    action("archive", "use"),
    action("attribute", "use"),
    action("compensate", "use"),
    action("concurrentUse", "use"),
    action("delete", "use"),
    action("derive", "use"),
    action("digitize", "use"),
    action("display", "play"),
    action("distribute", "use"),
    action("ensureExclusivity", "use"),
    action("execute", "use"),
    action("extract", "reproduce"),
    action("give", "transfer"),
    action("grantUse", "use"),
    action("include", "use"),
    action("index", "use"),
    action("inform", "use"),
    action("install", "use"),
    action("modify", "use"),
    action("move", "use"),
    action("nextPolicy", "use"),
    action("obtainConsent", "use"),
    action("play", "use"),
    action("present", "use"),
    action("print", "use"),
    action("read", "use"),
    action("reproduce", "use"),
    action("reviewPolicy", "use"),
    action("sell", "transfer"),
    action("stream", "use"),
    action("synchronize", "use"),
    action("textToSpeech", "use"),
    action("transform", "use"),
    action("translate", "use"),
    action("uninstall", "use"),
    action("watermark", "use"),
];

/// Deprecated names of actions, each with the action that ODRL 2.2 calls its exact match.
pub const ACTION_SYNONYMS: &[(&str, &str)] = &[
    ("append", "modify"),
    ("appendTo", "modify"),
    ("copy", "reproduce"),
    ("export", "transform"),
    ("license", "grantUse"),
    ("pay", "compensate"),
    ("write", "modify"),
    ("writeTo", "modify"),
];

/// The left operands of ODRL 2.2, each with what it asks about.
pub const LEFT_OPERANDS: &[(&str, &str)] = &[
    ("absolutePosition", "a point in the asset, in absolute terms"),
    ("absoluteSize", "the size of the asset"),
    ("absoluteSpatialPosition", "an area of the asset, in absolute terms"),
    ("absoluteTemporalPosition", "a span of the asset's own time line, in absolute terms"),
    ("count", "the number of uses"),
    ("dateTime", "the time of use"),
    ("delayPeriod", "the time to wait before use"),
    ("deliveryChannel", "the channel of delivery"),
    ("device", "the device of use"),
    ("elapsedTime", "the time since use began"),
    ("event", "an event"),
    ("fileFormat", "the file format"),
    ("industry", "the industry of use"),
    ("language", "the natural language"),
    ("media", "the medium"),
    ("meteredTime", "the accumulated time of use"),
    ("payAmount", "the amount to pay"),
    ("percentage", "a share of the asset"),
    ("product", "the product or service of use"),
    ("purpose", "the purpose of use"),
    ("recipient", "who receives the data"),
    ("relativePosition", "a point in the asset, in relative terms"),
    ("relativeSize", "the size of the asset, in relative terms"),
    ("relativeSpatialPosition", "an area of the asset, in relative terms"),
    ("relativeTemporalPosition", "a span of the asset's own time line, in relative terms"),
    ("resolution", "the resolution of the asset"),
    ("spatial", "the place of use"),
    ("spatialCoordinates", "the coordinates of the place of use"),
    ("system", "the computing system of use"),
    ("systemDevice", "the computing system or device of use"),
    ("timeInterval", "the recurring time between uses"),
    ("unitOfCount", "the unit that uses are counted by"),
    ("version", "the version of the asset"),
    ("virtualLocation", "the place in the network"),
];

/// The operators of ODRL 2.2.
pub const OPERATORS: &[&str] =
    &["eq", "gt", "gteq", "lt", "lteq", "neq", "isA", "hasPart", "isPartOf", "isAllOf", "isAnyOf", "isNoneOf"];

/// The operands of a logical constraint.
pub const LOGICAL: &[&str] = &["and", "or", "xone", "andSequence"];

/// The kinds of policy.
pub const POLICY_KINDS: &[&str] = &["Policy", "Set", "Offer", "Agreement", "Assertion", "Privacy", "Request", "Ticket"];

/// The functions that a party can have in a rule.
pub const PARTY_FUNCTIONS: &[&str] = &[
    "assigner",
    "assignee",
    "attributedParty",
    "attributingParty",
    "compensatedParty",
    "compensatingParty",
    "consentedParty",
    "consentingParty",
    "contractedParty",
    "contractingParty",
    "informedParty",
    "informingParty",
    "trackedParty",
    "trackingParty",
];

/// Properties and classes of ODRL 2.2 that no other table here holds.
pub const OTHER: &[&str] = &[
    "Action",
    "Asset",
    "AssetCollection",
    "ConflictTerm",
    "Constraint",
    "Duty",
    "LeftOperand",
    "LogicalConstraint",
    "Operator",
    "Party",
    "PartyCollection",
    "Permission",
    "Prohibition",
    "RightOperand",
    "Rule",
    "action",
    "conflict",
    "consequence",
    "constraint",
    "dataType",
    "duty",
    "failure",
    "function",
    "hasPolicy",
    "ignore",
    "implies",
    "includedIn",
    "inheritAllowed",
    "inheritFrom",
    "inheritRelation",
    "invalid",
    "leftOperand",
    "obligation",
    "operand",
    "operator",
    "output",
    "partOf",
    "perm",
    "permission",
    "policyUsage",
    "profile",
    "prohibit",
    "prohibition",
    "refinement",
    "relation",
    "remedy",
    "rightOperand",
    "rightOperandReference",
    "scope",
    "source",
    "status",
    "support",
    "target",
    "timedCount",
    "uid",
    "undefined",
    "unit",
];

/// The entry of an action; a deprecated name has the entry of the action that it stands for.
///
/// ```
/// use kontor_vocab::odrl::terms::action_term;
/// assert_eq!(action_term("write").map(|action| action.name), Some("modify"));
/// ```
#[must_use]
pub fn action_term(name: &str) -> Option<&'static ActionTerm> {
    let name = ACTION_SYNONYMS.iter().find(|(old, _)| *old == name).map_or(name, |(_, action)| action);
    ACTIONS.iter().find(|term| term.name == name)
}

/// The bare name of a left operand, as the table spells it.
#[must_use]
pub fn left_operand_term(name: &str) -> Option<&'static str> {
    LEFT_OPERANDS.iter().map(|(term, _)| *term).find(|term| *term == name)
}

/// Whether the bare name is a term of ODRL 2.2 at all.
#[must_use]
pub fn is_term(name: &str) -> bool {
    action_term(name).is_some()
        || left_operand_term(name).is_some()
        || [OPERATORS, LOGICAL, POLICY_KINDS, PARTY_FUNCTIONS, OTHER].iter().any(|table| table.contains(&name))
}
