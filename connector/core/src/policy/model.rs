//! A policy in typed form: what was written, and what it means.
//!
//! Everything of ODRL 2.2's core and common vocabularies has a place here; what this connector
//! cannot hold to is marked when it is asked for ([`super::enforceable`]), not lost on the way.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::duty::{DutyKey, DutyTerm};
use super::literal::Duration;
use super::operand::Taxonomy;
use super::permit::Transform;

/// A policy in typed form, atomised: members of the policy that stand for all its rules are in
/// each rule, and a rule with several actions, targets or assignees is several rules.
///
/// Spec: ODRL Information Model 2.2, §2.1 and §2.7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Set, Offer or Agreement.
    pub kind: PolicyKind,
    /// `@id`.
    pub id: Option<String>,
    /// The target of the policy as a whole.
    pub target: Option<String>,
    /// Who grants, for the policy as a whole.
    pub assigner: Option<String>,
    /// Who is granted to, for the policy as a whole.
    pub assignee: Option<String>,
    /// When an agreement was made.
    pub timestamp: Option<Timestamp>,
    /// Profiles that the policy asks its reader to know.
    pub profiles: Vec<String>,
    /// What to do where permission and prohibition meet.
    pub conflict: Option<Conflict>,
    /// Policies whose rules are to be added to this one.
    pub inherits: Vec<String>,
    /// Permissions, prohibitions and obligations, in the order of the document.
    pub rules: Vec<Rule>,
}

/// The kinds of policy that have a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// Rules without parties that are bound.
    Set,
    /// Rules that a provider puts up.
    Offer,
    /// Rules that bind both parties.
    Agreement,
}

/// What to do where permission and prohibition meet (`odrl:conflict`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// `perm`: the permission wins.
    Permission,
    /// `prohibit`: the prohibition wins.
    Prohibition,
    /// `invalid`: the policy is void.
    Invalid,
}

/// What a rule says of its action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleKind {
    /// May.
    Permission,
    /// Must not.
    Prohibition,
    /// Must.
    Obligation,
    /// Must, before the permission that it hangs from can be used.
    Duty,
    /// Must, after the prohibition that it hangs from was infringed.
    Remedy,
    /// Must, after the duty that it hangs from was not done.
    Consequence,
}

impl RuleKind {
    /// The member of the document that holds such rules.
    #[must_use]
    pub fn member(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Prohibition => "prohibition",
            Self::Obligation => "obligation",
            Self::Duty => "duty",
            Self::Remedy => "remedy",
            Self::Consequence => "consequence",
        }
    }
}

impl fmt::Display for RuleKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.member())
    }
}

/// One rule: one action by one party on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// JSON path in the compact document: `permission[0]`.
    pub path: String,
    /// May, must not, must.
    pub kind: RuleKind,
    /// The action: a bare ODRL term.
    pub action: &'static str,
    /// What narrows the action itself.
    pub action_refinements: Vec<Constraint>,
    /// On what, where the rule or the policy says so.
    pub target: Option<Thing>,
    /// Who grants, where the rule or the policy says so.
    pub assigner: Option<Thing>,
    /// Who is granted to, where the rule or the policy says so.
    pub assignee: Option<Thing>,
    /// Parties with other functions in the rule, by function.
    pub parties: Vec<(&'static str, Thing)>,
    /// Conditions; all have to hold.
    pub constraints: Vec<Constraint>,
    /// Duties of a permission, remedies of a prohibition, consequences of a duty.
    pub duties: Vec<Rule>,
    /// What is to be done and when, where this is a duty.
    pub term: Option<DutyTerm>,
    /// By which key an infringement of it is recorded, where this is a prohibition.
    pub infringement: Option<DutyKey>,
}

/// A party or an asset, alone or as a collection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thing {
    /// `@id`, or the collection that it is part of.
    pub id: String,
    /// Whether it stands for the members of a collection.
    pub collection: bool,
    /// What narrows the collection.
    pub refinements: Vec<Constraint>,
}

impl Thing {
    /// One thing, named by its id.
    #[must_use]
    pub fn one(id: impl Into<String>) -> Self {
        Self { id: id.into(), collection: false, refinements: Vec::new() }
    }

    /// The id, where the thing is one and nothing narrows it.
    #[must_use]
    pub fn as_one(&self) -> Option<&str> {
        (!self.collection && self.refinements.is_empty()).then_some(self.id.as_str())
    }
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Constraint {
    /// One comparison.
    Atomic(Atomic),
    /// Several conditions under one operand.
    Logical(Logical),
}

impl Constraint {
    /// JSON path of the condition.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Atomic(atomic) => &atomic.path,
            Self::Logical(logical) => &logical.path,
        }
    }
}

/// One comparison: what is asked, how, with what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Atomic {
    /// JSON path of the condition.
    pub path: String,
    /// The left operand, by its canonical name: a bare ODRL term, a code of the IDS, or an operator's own.
    pub left: Cow<'static, str>,
    /// The operator.
    pub operator: Operator,
    /// The right operand: one value, or several for set operators.
    pub right: Vec<Operand>,
    /// `odrl:unit`, where there is one.
    pub unit: Option<String>,
    /// What the comparison means, where this connector can decide it.
    pub test: Test,
}

/// Conditions under `and`, `or`, `xone` or `andSequence`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Logical {
    /// JSON path of the condition.
    pub path: String,
    /// The operand.
    pub operand: LogicalOperand,
    /// The conditions, at least one.
    pub of: Vec<Constraint>,
}

/// How conditions are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogicalOperand {
    /// All.
    And,
    /// At least one.
    Or,
    /// Exactly one.
    Xone,
    /// All, one after the other in the order written.
    AndSequence,
}

impl LogicalOperand {
    /// The term.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::And => "and",
            Self::Or => "or",
            Self::Xone => "xone",
            Self::AndSequence => "andSequence",
        }
    }
}

/// How a comparison compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the operators of ODRL, by their own names")]
pub enum Operator {
    Eq,
    Gt,
    Gteq,
    Lt,
    Lteq,
    Neq,
    IsA,
    HasPart,
    IsPartOf,
    IsAllOf,
    IsAnyOf,
    IsNoneOf,
}

impl Operator {
    /// The operator of a bare term.
    #[must_use]
    pub fn of(term: &str) -> Option<Self> {
        Some(match term {
            "eq" => Self::Eq,
            "gt" => Self::Gt,
            "gteq" => Self::Gteq,
            "lt" => Self::Lt,
            "lteq" => Self::Lteq,
            "neq" => Self::Neq,
            "isA" => Self::IsA,
            "hasPart" => Self::HasPart,
            "isPartOf" => Self::IsPartOf,
            "isAllOf" => Self::IsAllOf,
            "isAnyOf" => Self::IsAnyOf,
            "isNoneOf" => Self::IsNoneOf,
            _ => return None,
        })
    }

    /// The term.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Gt => "gt",
            Self::Gteq => "gteq",
            Self::Lt => "lt",
            Self::Lteq => "lteq",
            Self::Neq => "neq",
            Self::IsA => "isA",
            Self::HasPart => "hasPart",
            Self::IsPartOf => "isPartOf",
            Self::IsAllOf => "isAllOf",
            Self::IsAnyOf => "isAnyOf",
            Self::IsNoneOf => "isNoneOf",
        }
    }

    /// Whether the right operand is a set of values.
    #[must_use]
    pub fn takes_set(self) -> bool {
        matches!(self, Self::IsAllOf | Self::IsAnyOf | Self::IsNoneOf | Self::HasPart | Self::IsPartOf)
    }

    /// The order that the operator asks for, where it is one of the six comparisons.
    #[must_use]
    pub fn comparison(self) -> Option<Comparison> {
        Some(match self {
            Self::Eq => Comparison::Eq,
            Self::Neq => Comparison::Neq,
            Self::Gt => Comparison::Gt,
            Self::Gteq => Comparison::Gteq,
            Self::Lt => Comparison::Lt,
            Self::Lteq => Comparison::Lteq,
            Self::IsA | Self::HasPart | Self::IsPartOf | Self::IsAllOf | Self::IsAnyOf | Self::IsNoneOf => return None,
        })
    }
}

/// The six comparisons of ordered values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the operators of ODRL, by their own names")]
pub enum Comparison {
    Eq,
    Neq,
    Gt,
    Gteq,
    Lt,
    Lteq,
}

impl Comparison {
    /// Whether `found` compares so to `wanted`.
    pub fn holds<T: Ord>(self, found: &T, wanted: &T) -> bool {
        match self {
            Self::Eq => found == wanted,
            Self::Neq => found != wanted,
            Self::Gt => found > wanted,
            Self::Gteq => found >= wanted,
            Self::Lt => found < wanted,
            Self::Lteq => found <= wanted,
        }
    }
}

/// A value of a right operand, as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operand {
    /// The text or IRI.
    pub text: String,
    /// Its datatype, compact (`xsd:dateTime`), where one was given.
    pub datatype: Option<String>,
    /// Its language, where one was given.
    pub language: Option<String>,
    /// Whether it was written as a reference (`@id`).
    pub is_iri: bool,
}

/// A comparison with a fact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FactTest {
    /// The canonical name of the operand, by which the fact is found.
    pub operand: String,
    /// What is asked of it.
    pub ask: Ask,
}

/// What is asked of a fact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// How its names lie to other names.
    Names(NameTest),
    /// That its level is one of these, of all that there are.
    Level {
        /// The levels for which it holds, in their order.
        allowed: Vec<String>,
        /// All levels, the lowest first.
        levels: Vec<String>,
    },
    /// How its number compares.
    Number(Comparison, Decimal),
    /// How its instant compares.
    Instant(Comparison, Timestamp),
}

/// How names lie to other names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameTest {
    /// Which relation.
    pub relation: NameRelation,
    /// Whether it must hold for each of several names.
    pub every: bool,
    /// The other names, sorted, without repetitions.
    pub names: Vec<String>,
    /// Whether names may have parts, whichever do.
    pub parts: bool,
    /// Which names are parts of which.
    pub taxonomy: Arc<Taxonomy>,
}

/// A relation between names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameRelation {
    /// Is one of them.
    AnyOf,
    /// Is none of them.
    NoneOf,
    /// All of them are.
    AllOf,
    /// Is one of them or a part of one.
    PartOf,
    /// Each of them is one of its parts.
    HasPart,
}

impl NameRelation {
    /// The operator that asks for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnyOf => "isAnyOf",
            Self::NoneOf => "isNoneOf",
            Self::AllOf => "isAllOf",
            Self::PartOf => "isPartOf",
            Self::HasPart => "hasPart",
        }
    }
}

/// What a comparison means, made once when the policy is parsed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// The time of the request.
    Time(Comparison, Timestamp),
    /// The time since the agreement was made.
    Elapsed(Comparison, Duration),
    /// The number of uses, the asked-for one included.
    Count(Comparison, u64),
    /// The participant that the data goes to is (`true`) or is not (`false`) one of these.
    Recipient(bool, Vec<String>),
    /// A fact that is handed in.
    Fact(Box<FactTest>),
    /// How many bytes were moved under the agreement.
    Bytes(Comparison, u64),
    /// How many records were moved under the agreement.
    Records(Comparison, u64),
    /// A burden of a permission: the stream waits until so long after the agreement.
    Delay(Duration),
    /// A burden of a permission: at most so many bytes in such a time.
    Rate(u64, SignedDuration),
    /// A burden of a permission: what is done to the fields.
    Fields(Transform),
    /// Not decided by this connector: never true.
    Undecided,
}
