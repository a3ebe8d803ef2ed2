//! From document to model: every member is understood or is a [`Problem`] with its path.
//!
//! The document is compacted first, so every JSON-LD spelling of a policy reads the same and the
//! paths are those of the compact form.

use std::sync::Arc;

use kontor_vocab::context::compact;
use kontor_vocab::odrl::{PolicyDocument, terms};
use serde_json::{Map, Value};

use super::duty::{DutyKey, DutyKind, DutyTerm};
use super::literal;
use super::model::{
    Atomic, Comparison, Conflict, Constraint, Logical, LogicalOperand, Operand, Operator, Policy, PolicyKind, Rule,
    RuleKind, Test, Thing,
};
use super::operand::{Known, KnownKind, OperandKind, Taxonomy, Vocabulary};
use super::{Problem, ProblemKind};
use super::{ids, meaning};

/// Most rules in a policy, duties included, after it was atomised.
pub const RULES_MAX: usize = 256;
/// Most parties with functions of their own in the rules of a policy, after it was atomised.
pub const PARTIES_MAX: usize = 256;
/// Most constraints in a policy, nested ones included, after it was atomised.
pub const CONSTRAINTS_MAX: usize = 1_024;
/// How deep logical constraints, and duties of duties, may nest.
pub const NESTING_MAX: usize = 16;
/// Most values of one right operand.
pub const OPERANDS_MAX: usize = 256;
/// Longest text of an identifier or value, in bytes.
pub const TEXT_BYTES_MAX: usize = 2_048;
/// Most problems that are reported at once.
pub const PROBLEMS_MAX: usize = 64;

/// Members that describe and do not rule. `dct:isReplacedBy` and `dct:coverage` are not among
/// them: the one voids a policy, the other limits where it holds.
pub(super) const DESCRIPTIONS: &[&str] = &[
    "dct:title",
    "dct:description",
    "dct:creator",
    "dct:contributor",
    "dct:publisher",
    "dct:issued",
    "dct:created",
    "dct:modified",
    "dct:identifier",
    "dct:subject",
    "dct:language",
    "dct:references",
    "dct:replaces",
    "dct:source",
    "rdfs:label",
    "rdfs:comment",
    "rdfs:seeAlso",
];

/// What a policy may say beside its rules, and its rules.
pub(super) const POLICY_MEMBERS: &[&str] = &[
    "@context",
    "@id",
    "@type",
    "uid",
    "profile",
    "target",
    "assigner",
    "assignee",
    "timestamp",
    "permission",
    "prohibition",
    "obligation",
    "conflict",
    "inheritFrom",
    "action",
];

/// Parses a policy document into the typed model.
///
/// # Errors
/// Every [`Problem`] found, up to [`PROBLEMS_MAX`], not only the first.
pub fn parse(document: &PolicyDocument) -> Result<Policy, Vec<Problem>> {
    parse_with(document, &Vocabulary::default())
}

/// As [`parse`], with an operator's own terms.
///
/// # Errors
/// Every [`Problem`] found, up to [`PROBLEMS_MAX`], not only the first.
pub fn parse_with(document: &PolicyDocument, vocabulary: &Vocabulary) -> Result<Policy, Vec<Problem>> {
    let taxonomy = Arc::new(vocabulary.parts.clone());
    let mut parser = Parser { vocabulary, taxonomy, problems: Vec::new(), rules: 0, constraints: 0, parties: 0 };
    let policy = match compact(ids::to_odrl(document.to_value())) {
        Value::Object(map) => parser.policy(&map),
        _ => {
            parser.malformed("", "the policy is not an object", "an ODRL policy as a JSON object");
            None
        }
    };
    match policy {
        Some(policy) if parser.problems.is_empty() => Ok(policy),
        _ => Err(parser.problems),
    }
}

struct Parser<'v> {
    vocabulary: &'v Vocabulary,
    taxonomy: Arc<Taxonomy>,
    problems: Vec<Problem>,
    rules: usize,
    constraints: usize,
    parties: usize,
}

/// What the policy says for all its rules.
#[derive(Default)]
struct Shared {
    actions: Vec<(&'static str, Vec<Constraint>)>,
    /// Whether there is one, that was refused.
    action_refused: bool,
    targets: Vec<Thing>,
    assigners: Vec<Thing>,
    assignees: Vec<Thing>,
}

impl Parser<'_> {
    fn problem(&mut self, kind: ProblemKind, path: &str, message: impl Into<String>, cure: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { kind, path: path.to_owned(), message: message.into(), cure: cure.into() });
        }
    }

    fn malformed(&mut self, path: &str, message: impl Into<String>, cure: impl Into<String>) {
        self.problem(ProblemKind::Malformed, path, message, cure);
    }

    fn unknown(&mut self, path: &str, message: impl Into<String>, cure: impl Into<String>) {
        self.problem(ProblemKind::Unknown, path, message, cure);
    }

    fn limit(&mut self, path: &str, what: &str, max: usize) {
        // Once over a limit every further item is over it: one report is enough.
        if !self.problems.iter().any(|problem| problem.kind == ProblemKind::Limit) {
            let message = format!("the policy has more than {max} {what}");
            self.problem(ProblemKind::Limit, path, message, format!("at most {max} {what}"));
        }
    }

    fn policy(&mut self, map: &Map<String, Value>) -> Option<Policy> {
        self.members("", map, POLICY_MEMBERS, "a policy");
        let kind = self.policy_kind(map);
        let before = self.problems.len();
        let actions = self.actions("", map);
        let shared = Shared {
            action_refused: actions.is_empty() && self.problems.len() > before,
            actions,
            targets: self.things("", map, "target"),
            assigners: self.things("", map, "assigner"),
            assignees: self.things("", map, "assignee"),
        };
        let timestamp = self.instant_text(map, "timestamp").and_then(|text| match literal::instant(&text) {
            Ok(instant) => Some(instant),
            Err(why) => {
                self.malformed("timestamp", format!("`{text}` {why}"), "such as `2030-01-31T12:00:00Z`");
                None
            }
        });
        let mut rules = Vec::new();
        for kind in [RuleKind::Permission, RuleKind::Prohibition, RuleKind::Obligation] {
            rules.extend(self.rules("", map, kind, Some(&shared), 0));
        }
        if rules.is_empty() && self.problems.is_empty() {
            // ODRL 2.2, §2.1: "A Policy MUST contain at least one Rule".
            let cure = "at least one `permission` or `prohibition`, such as `\"permission\": [{\"action\": \"use\"}]`";
            self.malformed("permission", "the policy has no rule, so it allows nothing", cure);
        }
        let policy = Policy {
            kind: kind?,
            id: self.text("", map, "@id").or_else(|| self.text("", map, "uid")),
            target: only(&shared.targets),
            assigner: only(&shared.assigners),
            assignee: only(&shared.assignees),
            timestamp,
            profiles: self.texts("", map, "profile"),
            conflict: self.conflict(map),
            inherits: self.texts("", map, "inheritFrom"),
            rules,
        };
        if policy.kind == PolicyKind::Agreement {
            self.agreement(&policy);
        }
        Some(policy)
    }

    /// ODRL 2.2, §2.1.3: an Agreement "MUST contain […] a target Asset, […] assigner and assignee".
    fn agreement(&mut self, policy: &Policy) {
        for (member, missing) in [
            ("target", policy.rules.iter().any(|rule| rule.target.is_none())),
            ("assigner", policy.rules.iter().any(|rule| rule.assigner.is_none())),
            ("assignee", policy.rules.iter().any(|rule| rule.assignee.is_none())),
        ] {
            if missing {
                let cure = format!("`{member}`, in the agreement or in each of its rules");
                self.malformed(member, format!("the agreement names no {member}"), cure);
            }
        }
    }

    fn policy_kind(&mut self, map: &Map<String, Value>) -> Option<PolicyKind> {
        let mut names = self.texts("", map, "@type");
        // `Policy` beside a kind says nothing more; alone, or where nothing is said, it is a Set.
        names.retain(|name| name != "Policy");
        let cure = "`Set`, `Offer` or `Agreement`";
        match names.as_slice() {
            [] => Some(PolicyKind::Set),
            [name] => match name.as_str() {
                "Set" => Some(PolicyKind::Set),
                "Offer" => Some(PolicyKind::Offer),
                "Agreement" => Some(PolicyKind::Agreement),
                other if terms::POLICY_KINDS.contains(&other) => {
                    self.unknown("@type", format!("a policy of kind `{other}` is not negotiable here"), cure);
                    None
                }
                other => {
                    self.malformed("@type", format!("`{other}` is not a kind of policy"), cure);
                    None
                }
            },
            several => {
                self.malformed("@type", format!("the policy is of several kinds: `{}`", several.join("`, `")), cure);
                None
            }
        }
    }

    fn conflict(&mut self, map: &Map<String, Value>) -> Option<Conflict> {
        match self.text("", map, "conflict")?.as_str() {
            "perm" => Some(Conflict::Permission),
            "prohibit" => Some(Conflict::Prohibition),
            "invalid" => Some(Conflict::Invalid),
            other => {
                let cure = "`perm`, `prohibit` or `invalid`";
                self.unknown("conflict", format!("`{other}` is not a conflict strategy"), cure);
                None
            }
        }
    }

    /// The rules under a member, each atomised.
    fn rules(
        &mut self,
        path: &str,
        map: &Map<String, Value>,
        kind: RuleKind,
        shared: Option<&Shared>,
        depth: usize,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (path, node) in self.nodes(path, map, kind.member(), "a rule") {
            if self.rules >= RULES_MAX {
                self.limit(&path, "rules", RULES_MAX);
                break;
            }
            if depth > NESTING_MAX {
                self.limit(&path, "levels of duties", NESTING_MAX);
                break;
            }
            rules.extend(self.rule(path, node, kind, shared, depth));
        }
        rules
    }

    fn rule(
        &mut self,
        path: String,
        map: &Map<String, Value>,
        kind: RuleKind,
        shared: Option<&Shared>,
        depth: usize,
    ) -> Vec<Rule> {
        let follow_up = match kind {
            RuleKind::Permission => Some(RuleKind::Duty),
            RuleKind::Prohibition => Some(RuleKind::Remedy),
            RuleKind::Obligation | RuleKind::Duty => Some(RuleKind::Consequence),
            RuleKind::Remedy | RuleKind::Consequence => None,
        };
        let mut known = vec!["@id", "@type", "uid", "target", "action", "constraint"];
        known.extend(terms::PARTY_FUNCTIONS);
        known.extend(follow_up.map(RuleKind::member));
        let is_duty = !matches!(kind, RuleKind::Permission | RuleKind::Prohibition);
        known.extend(is_duty.then_some("hasPolicy"));
        self.members(&path, map, &known, &format!("a {kind}"));
        self.rule_type(&path, map, kind);

        let before = (self.rules, self.constraints, self.parties);
        let problems_before = self.problems.len();
        let own_actions = self.actions(&path, map);
        // What was refused is not missing.
        let action_refused = if map.contains_key("action") {
            self.problems.len() > problems_before
        } else {
            shared.is_some_and(|shared| shared.action_refused)
        };
        let mut own_targets = self.things(&path, map, "target");
        if is_duty {
            // `nextPolicy` names its policy as its target, or by `hasPolicy`.
            own_targets.extend(self.things(&path, map, "hasPolicy"));
        }
        let own_assigners = self.things(&path, map, "assigner");
        let own_assignees = self.things(&path, map, "assignee");
        let mut parties = Vec::new();
        for function in terms::PARTY_FUNCTIONS {
            if !matches!(*function, "assigner" | "assignee") {
                parties.extend(self.things(&path, map, function).into_iter().map(|party| (*function, party)));
            }
        }
        self.parties = self.parties.saturating_add(parties.len());
        let mut constraints = self.constraints(&path, map, "constraint", 0);
        meaning::settle_burdens(&mut constraints, kind == RuleKind::Permission);
        let duties = match follow_up {
            Some(kind) => self.rules(&path, map, kind, None, depth + 1),
            None => Vec::new(),
        };

        // What the rule does not say, the policy says; what neither says is open.
        let inherit = |own: Vec<Thing>, of: fn(&Shared) -> &Vec<Thing>| -> Vec<Option<Thing>> {
            let things = if own.is_empty() { shared.map(|all| of(all).clone()).unwrap_or_default() } else { own };
            if things.is_empty() { vec![None] } else { things.into_iter().map(Some).collect() }
        };
        let actions = if map.contains_key("action") {
            own_actions
        } else {
            shared.map(|s| s.actions.clone()).unwrap_or_default()
        };
        if actions.is_empty() && !action_refused {
            let at = format!("{path}.action");
            self.malformed(&at, "the rule has no action", "`\"action\": \"use\"`");
        }
        let [targets_inherited, assigners_inherited, assignees_inherited] =
            [&own_targets, &own_assigners, &own_assignees].map(|own| own.is_empty());
        let targets = inherit(own_targets, |shared| &shared.targets);
        let assigners = inherit(own_assigners, |shared| &shared.assigners);
        let assignees = inherit(own_assignees, |shared| &shared.assignees);

        // Each copy has its own duties, parties and conditions, and those that the policy says for all.
        let copies = [actions.len(), targets.len(), assigners.len(), assignees.len()];
        let copies = copies.into_iter().fold(1, usize::saturating_mul);
        let copied =
            |now: usize, before: usize| now.saturating_add((now - before).saturating_mul(copies.saturating_sub(1)));
        self.rules = copied(self.rules, before.0).saturating_add(copies);
        self.constraints = copied(self.constraints, before.1);
        self.parties = copied(self.parties, before.2);
        let shared_conditions = |all: &[Option<Thing>], inherited: bool| {
            let of = |thing: &Option<Thing>| thing.as_ref().map_or(0, |thing| conditions(&thing.refinements));
            if inherited { all.iter().map(of).sum::<usize>().saturating_mul(copies / all.len().max(1)) } else { 0 }
        };
        let of_actions = || {
            let each = actions.iter().map(|(_, refinements)| conditions(refinements));
            each.sum::<usize>().saturating_mul(copies / actions.len().max(1))
        };
        let shared_conditions = [
            if map.contains_key("action") { 0 } else { of_actions() },
            shared_conditions(&targets, targets_inherited),
            shared_conditions(&assigners, assigners_inherited),
            shared_conditions(&assignees, assignees_inherited),
        ];
        self.constraints = shared_conditions.into_iter().fold(self.constraints, usize::saturating_add);
        if self.rules > RULES_MAX {
            self.limit(&path, "rules", RULES_MAX);
            return Vec::new();
        }
        if self.parties > PARTIES_MAX {
            self.limit(&path, "parties with other functions", PARTIES_MAX);
            return Vec::new();
        }
        if self.constraints > CONSTRAINTS_MAX {
            self.limit(&path, "constraints", CONSTRAINTS_MAX);
            return Vec::new();
        }
        let mut rules = Vec::with_capacity(copies);
        for (action, refinements) in &actions {
            for target in &targets {
                for assigner in &assigners {
                    for assignee in &assignees {
                        let mut rule = Rule {
                            path: path.clone(),
                            kind,
                            action,
                            action_refinements: refinements.clone(),
                            target: target.clone(),
                            assigner: assigner.clone(),
                            assignee: assignee.clone(),
                            parties: parties.clone(),
                            constraints: constraints.clone(),
                            duties: duties.clone(),
                            term: None,
                            infringement: None,
                        };
                        rule.term = is_duty.then(|| DutyTerm::of(&rule));
                        rule.infringement = (kind == RuleKind::Prohibition).then(|| DutyKey::of_prohibition(&rule));
                        settle_counting(&mut rule);
                        rules.push(rule);
                    }
                }
            }
        }
        rules
    }

    fn rule_type(&mut self, path: &str, map: &Map<String, Value>, kind: RuleKind) {
        let expected = match kind {
            RuleKind::Permission => "Permission",
            RuleKind::Prohibition => "Prohibition",
            RuleKind::Obligation | RuleKind::Duty | RuleKind::Remedy | RuleKind::Consequence => "Duty",
        };
        for name in self.texts(path, map, "@type") {
            if name != expected && name != "Rule" {
                let at = join(path, "@type");
                self.malformed(
                    &at,
                    format!("`{name}` stands where a {kind} belongs"),
                    format!("`{expected}`, or no type"),
                );
            }
        }
    }

    /// The actions of a policy or rule: terms, or terms with refinements.
    fn actions(&mut self, path: &str, map: &Map<String, Value>) -> Vec<(&'static str, Vec<Constraint>)> {
        let at = join(path, "action");
        let mut actions = Vec::new();
        for value in many(map.get("action")) {
            match value {
                Value::String(text) => actions.extend(self.action_term(&at, text).map(|term| (term, Vec::new()))),
                Value::Object(node) => {
                    self.members(&at, node, &["@id", "@type", "rdf:value", "refinement"], "an action");
                    let name = self.text(&at, node, "rdf:value").or_else(|| self.text(&at, node, "@id"));
                    let refinements = self.constraints(&at, node, "refinement", 0);
                    match name {
                        Some(name) => actions.extend(self.action_term(&at, &name).map(|term| (term, refinements))),
                        None => self.malformed(&at, "the action has no name", "`\"action\": \"use\"`"),
                    }
                }
                _ => self.malformed(&at, "the action is not a term", "`\"action\": \"use\"`"),
            }
        }
        actions
    }

    fn action_term(&mut self, path: &str, text: &str) -> Option<&'static str> {
        let term = kontor_vocab::context::compact_term(text);
        let found = terms::action_term(&term).map(|action| action.name).or_else(|| ids::action(&term));
        if found.is_none() {
            self.unknown(path, format!("the action `{}` is not known", clip(text)), "`use`");
        }
        found
    }

    /// Parties or assets under a member.
    fn things(&mut self, path: &str, map: &Map<String, Value>, member: &str) -> Vec<Thing> {
        let at = join(path, member);
        let before = self.problems.len();
        let mut things = Vec::new();
        for value in many(map.get(member)) {
            match value {
                Value::String(id) => {
                    if self.check_text(&at, id) {
                        things.push(Thing::one(id));
                    }
                }
                Value::Object(node) => things.extend(self.thing(&at, node)),
                _ => self.malformed(&at, format!("the {member} is not an identifier"), "a URI, as a string"),
            }
        }
        if map.contains_key(member) && things.is_empty() && self.problems.len() == before {
            // An empty list must not read as "everybody".
            self.malformed(&at, format!("the {member} is empty"), "a URI, or no such member");
        }
        things
    }

    fn thing(&mut self, path: &str, node: &Map<String, Value>) -> Option<Thing> {
        self.members(path, node, &["@id", "@type", "uid", "source", "partOf", "refinement"], "a party or asset");
        let kinds = self.texts(path, node, "@type");
        for kind in &kinds {
            if !matches!(kind.as_str(), "Party" | "Asset" | "PartyCollection" | "AssetCollection") {
                let at = join(path, "@type");
                self.unknown(&at, format!("`{}` is not a kind of party or asset", clip(kind)), "a URI, as a string");
            }
        }
        let part_of = self.text(path, node, "partOf");
        let source = self.text(path, node, "source");
        let mut refinements = self.constraints(path, node, "refinement", 0);
        meaning::settle_refinements(&mut refinements);
        let collection = part_of.is_some() || source.is_some() || kinds.iter().any(|kind| kind.ends_with("Collection"));
        let id = self.text(path, node, "@id").or_else(|| self.text(path, node, "uid"));
        // The members of a collection are meant where nothing else is named; who is named is meant alone.
        if part_of.is_some() && (id.is_some() || source.is_some()) {
            let message = "that who or what is named also belongs to a collection is not held to";
            self.unknown(
                &join(path, "partOf"),
                message,
                "the one, or `partOf` alone for all members of the collection",
            );
        }
        let Some(id) = source.or(id).or(part_of) else {
            self.malformed(path, "the party or asset has no `@id`", "a URI, as a string");
            return None;
        };
        Some(Thing { id, collection, refinements })
    }

    fn constraints(&mut self, path: &str, map: &Map<String, Value>, member: &str, depth: usize) -> Vec<Constraint> {
        let mut constraints = Vec::new();
        for (path, node) in self.nodes(path, map, member, "a constraint") {
            if depth > NESTING_MAX {
                self.limit(&path, "levels of nested constraints", NESTING_MAX);
                break;
            }
            self.constraints += 1;
            if self.constraints > CONSTRAINTS_MAX {
                self.limit(&path, "constraints", CONSTRAINTS_MAX);
                break;
            }
            constraints.extend(self.constraint(path, node, depth));
        }
        constraints
    }

    fn constraint(&mut self, path: String, map: &Map<String, Value>, depth: usize) -> Option<Constraint> {
        let logical: Vec<(&str, LogicalOperand)> = [
            ("and", LogicalOperand::And),
            ("or", LogicalOperand::Or),
            ("xone", LogicalOperand::Xone),
            ("andSequence", LogicalOperand::AndSequence),
        ]
        .into_iter()
        .filter(|(member, _)| map.contains_key(*member))
        .collect();
        let kinds = self.texts(&path, map, "@type");
        if let Some(kind) = kinds.iter().find(|kind| !matches!(kind.as_str(), "Constraint" | "LogicalConstraint")) {
            let at = join(&path, "@type");
            self.malformed(&at, format!("`{}` is not a kind of constraint", clip(kind)), "`Constraint`, or no type");
        }
        match logical.as_slice() {
            [] => self.atomic(path, map),
            [(member, operand)] => {
                self.members(&path, map, &["@id", "@type", "uid", member], "a logical constraint");
                let before = self.problems.len();
                let of = self.constraints(&path, map, member, depth + 1);
                if of.is_empty() {
                    if self.problems.len() == before {
                        let at = join(&path, member);
                        self.malformed(&at, format!("`{member}` is empty"), "at least one constraint");
                    }
                    return None;
                }
                Some(Constraint::Logical(Logical { path, operand: *operand, of }))
            }
            _ => {
                self.malformed(&path, "the constraint has several logical operands", "one of `and`, `or`, `xone`");
                None
            }
        }
    }

    fn atomic(&mut self, path: String, map: &Map<String, Value>) -> Option<Constraint> {
        let known = [
            "@id",
            "@type",
            "uid",
            "leftOperand",
            "operator",
            "rightOperand",
            "rightOperandReference",
            "dataType",
            "unit",
            "status",
        ];
        self.members(&path, map, &known, "a constraint");
        for (member, what) in [
            ("status", "a value set beforehand is not taken for the state of the world"),
            ("rightOperandReference", "a value that must be fetched first is not fetched"),
        ] {
            if map.contains_key(member) {
                self.unknown(&join(&path, member), what, "a `rightOperand`");
            }
        }
        let left = self.left_operand(&path, map);
        let operator = self.operator(&path, map);
        let unit = self.text(&path, map, "unit");
        let data_type = self.text(&path, map, "dataType");
        let right = self.right_operand(&path, map, data_type.as_deref());
        let (left, operator, right) = (left?, operator?, right?);
        let at = join(&path, "rightOperand");
        if right.len() > 1 && !operator.takes_set() {
            let message = format!("`{}` compares with one value, not with {}", operator.as_str(), right.len());
            self.malformed(&at, message, "one value, or `isAnyOf`");
            return None;
        }
        let test = match self.test(&left, operator, &right, unit.as_deref()) {
            Ok(test) => test,
            Err(wrong) => {
                self.problem(wrong.kind, &at, wrong.message, wrong.cure);
                return None;
            }
        };
        Some(Constraint::Atomic(Atomic { path, left: left.name, operator, right, unit, test }))
    }

    fn test(&self, left: &Known, operator: Operator, right: &[Operand], unit: Option<&str>) -> Result<Test, Problem> {
        match left.kind {
            KnownKind::Spec(OperandKind::Time | OperandKind::Elapsed | OperandKind::Count | OperandKind::Recipient) => {
                meaning(&left.name, operator, right, unit.is_some())
            }
            KnownKind::Spec(_) | KnownKind::Defined(_) => meaning::meaning(left, operator, right, unit, &self.taxonomy),
        }
    }

    fn left_operand(&mut self, path: &str, map: &Map<String, Value>) -> Option<Known> {
        let at = join(path, "leftOperand");
        let Some(text) = self.text(path, map, "leftOperand") else {
            self.missing(&at, map, "leftOperand", "`dateTime`");
            return None;
        };
        let found = self.vocabulary.known(&text);
        if found.is_none() {
            let cure = "`dateTime`, `elapsedTime`, `count` or `recipient`";
            self.unknown(&at, format!("the left operand `{}` is not known", clip(&text)), cure);
        }
        found
    }

    fn operator(&mut self, path: &str, map: &Map<String, Value>) -> Option<Operator> {
        let at = join(path, "operator");
        let Some(text) = self.text(path, map, "operator") else {
            self.missing(&at, map, "operator", "`lteq`");
            return None;
        };
        let found = Operator::of(&text).or_else(|| ids::operator(&text).and_then(Operator::of));
        if found.is_none() {
            self.unknown(&at, format!("the operator `{}` is not known", clip(&text)), terms::OPERATORS.join(", "));
        }
        found
    }

    fn missing(&mut self, at: &str, map: &Map<String, Value>, member: &str, cure: &str) {
        if !map.contains_key(member) {
            self.malformed(at, format!("the constraint has no `{member}`"), cure);
        }
    }

    fn right_operand(&mut self, path: &str, map: &Map<String, Value>, data_type: Option<&str>) -> Option<Vec<Operand>> {
        let at = join(path, "rightOperand");
        let values = many(map.get("rightOperand"));
        if values.is_empty() {
            if !map.contains_key("rightOperandReference") {
                self.malformed(&at, "the constraint has no `rightOperand`", "a value");
            }
            return None;
        }
        if values.len() > OPERANDS_MAX {
            self.limit(&at, "values in one right operand", OPERANDS_MAX);
            return None;
        }
        let mut operands = Vec::with_capacity(values.len());
        for value in values {
            operands.push(self.operand(&at, value, data_type)?);
        }
        operands.sort();
        operands.dedup();
        Some(operands)
    }

    fn operand(&mut self, at: &str, value: &Value, data_type: Option<&str>) -> Option<Operand> {
        let plain = |text: String, datatype: Option<&str>| Operand {
            text,
            datatype: datatype.or(data_type).map(str::to_owned),
            language: None,
            is_iri: false,
        };
        let operand = match value {
            Value::String(text) => plain(text.clone(), None),
            Value::Bool(flag) => plain(flag.to_string(), Some("xsd:boolean")),
            Value::Number(number) if number.is_f64() => plain(number.to_string(), Some("xsd:double")),
            Value::Number(number) => plain(number.to_string(), Some("xsd:integer")),
            Value::Object(node) if node.contains_key("@value") => {
                self.members(at, node, &["@value", "@type", "@language"], "a value");
                let inner = node.get("@value").filter(|inner| !inner.is_object() && !inner.is_array());
                let Some(inner) = inner else {
                    self.malformed(at, "`@value` is not a text, number or truth value", "a text");
                    return None;
                };
                let mut operand = self.operand(at, inner, data_type)?;
                if let Some(kind) = self.text(at, node, "@type") {
                    operand.datatype = (kind != "xsd:string").then_some(kind);
                }
                operand.language = self.text(at, node, "@language");
                operand
            }
            Value::Object(node) if node.contains_key("@id") => {
                self.members(at, node, &["@id"], "a reference");
                Operand { text: self.text(at, node, "@id")?, datatype: None, language: None, is_iri: true }
            }
            Value::Null | Value::Array(_) | Value::Object(_) => {
                self.malformed(at, "the value is neither a text, a number, a typed value nor a reference", "a text");
                return None;
            }
        };
        self.check_text(at, &operand.text).then_some(operand)
    }

    /// The nodes under a member, each with its path.
    fn nodes<'a>(
        &mut self,
        path: &str,
        map: &'a Map<String, Value>,
        member: &str,
        what: &str,
    ) -> Vec<(String, &'a Map<String, Value>)> {
        let mut nodes = Vec::new();
        for (index, value) in many(map.get(member)).into_iter().enumerate() {
            let at = format!("{}[{index}]", join(path, member));
            match value {
                Value::Object(node) => nodes.push((at, node)),
                Value::String(id) => {
                    let message = format!("`{}` only refers to {what}, which is not in the document", clip(id));
                    self.malformed(&at, message, format!("{what}, written out"));
                }
                _ => self.malformed(&at, format!("{what} is not an object"), format!("{what} as a JSON object")),
            }
        }
        nodes
    }

    /// Every member is known, or describes, or is a problem: in a rule the unknown could be the
    /// one that matters.
    fn members(&mut self, path: &str, map: &Map<String, Value>, known: &[&str], what: &str) {
        for key in map.keys() {
            if !known.contains(&key.as_str()) && !DESCRIPTIONS.contains(&key.as_str()) {
                let message = format!("`{}` is not a member of {what} that is known here", clip(key));
                self.unknown(&join(path, &clip(key)), message, "the policy without it");
            }
        }
    }

    /// A text member; several or something else is a problem.
    fn text(&mut self, path: &str, map: &Map<String, Value>, member: &str) -> Option<String> {
        let at = join(path, member);
        match map.get(member)? {
            Value::String(text) => self.check_text(&at, text).then(|| text.clone()),
            _ => {
                self.malformed(&at, format!("`{member}` is not one text"), "one string");
                None
            }
        }
    }

    /// An instant of the policy as a whole, as a text or typed.
    fn instant_text(&mut self, map: &Map<String, Value>, member: &str) -> Option<String> {
        let is_instant = |kind: &Value| {
            let kind = kind.as_str().map(kontor_vocab::context::compact_term);
            matches!(kind.as_deref(), Some("xsd:dateTime" | "xsd:dateTimeStamp"))
        };
        let typed = map.get(member).and_then(Value::as_object).filter(|node| node.len() == 2);
        let typed = typed.filter(|node| node.get("@type").is_some_and(is_instant));
        match typed.and_then(|node| node.get("@value")).and_then(Value::as_str) {
            Some(text) => self.check_text(member, text).then(|| text.to_owned()),
            None => self.text("", map, member),
        }
    }

    fn texts(&mut self, path: &str, map: &Map<String, Value>, member: &str) -> Vec<String> {
        let at = join(path, member);
        let mut texts = Vec::new();
        for value in many(map.get(member)) {
            match value {
                Value::String(text) if self.check_text(&at, text) => texts.push(text.clone()),
                Value::String(_) => {}
                _ => self.malformed(&at, format!("`{member}` is not a text"), "a string"),
            }
        }
        texts
    }

    fn check_text(&mut self, at: &str, text: &str) -> bool {
        if text.len() > TEXT_BYTES_MAX {
            self.problem(
                ProblemKind::Limit,
                at,
                format!("the text has {} bytes", text.len()),
                format!("at most {TEXT_BYTES_MAX} bytes"),
            );
            return false;
        }
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            self.malformed(at, "the text is empty or has control characters", "a plain text");
            return false;
        }
        true
    }
}

/// To count a use is what `count` does by itself: the duty to do so says nothing more beside a permission that has one.
fn settle_counting(rule: &mut Rule) {
    if rule.kind != RuleKind::Permission {
        return;
    }
    let counts = rule.constraints.iter().any(|constraint| match constraint {
        Constraint::Atomic(atomic) => matches!(atomic.test, Test::Count(..)),
        Constraint::Logical(_) => false,
    });
    if counts {
        let is_count = |duty: &Rule| duty.term.as_ref().is_some_and(|term| term.kind == DutyKind::Count);
        rule.duties.retain(|duty| !is_count(duty));
    }
}

/// What a comparison means to this connector, or why its value is none.
fn meaning(left: &str, operator: Operator, right: &[Operand], has_unit: bool) -> Result<Test, Problem> {
    let wrong = |kind: ProblemKind, message: String, cure: &str| Problem {
        kind,
        path: String::new(),
        message,
        cure: cure.to_owned(),
    };
    let comparison: Option<(Comparison, &Operand)> = operator.comparison().zip(right.first());
    // A value must be of its operand's type: a reference or another datatype is not silently read as text.
    let typed = |operand: &Operand, allowed: &[&str], cure: &str| -> Result<(), Problem> {
        let ok = operand.datatype.as_deref().is_none_or(|datatype| allowed.contains(&datatype));
        if operand.is_iri || operand.language.is_some() {
            return Err(wrong(ProblemKind::Malformed, format!("`{}` is not a plain value", clip(&operand.text)), cure));
        }
        if !ok {
            let datatype = operand.datatype.as_deref().unwrap_or_default();
            return Err(wrong(
                ProblemKind::Unknown,
                format!("`{left}` does not compare with `{}`", clip(datatype)),
                cure,
            ));
        }
        Ok(())
    };
    let read = |operand: &Operand, why: &str, cure: &str| {
        wrong(ProblemKind::Malformed, format!("`{}` {why}", clip(&operand.text)), cure)
    };
    match left {
        // A unit changes what the number means; none is defined for these operands.
        "dateTime" | "elapsedTime" | "count" | "recipient" if has_unit => Ok(Test::Undecided),
        "dateTime" => {
            let Some((comparison, operand)) = comparison else { return Ok(Test::Undecided) };
            let cure = "an instant with its zone, such as `2030-01-31T12:00:00Z`";
            typed(operand, &["xsd:dateTime", "xsd:dateTimeStamp"], cure)?;
            literal::instant(&operand.text).map(|at| Test::Time(comparison, at)).map_err(|why| read(operand, why, cure))
        }
        "elapsedTime" => {
            let Some((comparison, operand)) = comparison else { return Ok(Test::Undecided) };
            let cure = "a duration, such as `P30D` or `PT12H`";
            typed(operand, &["xsd:duration", "xsd:dayTimeDuration", "xsd:yearMonthDuration"], cure)?;
            literal::duration(&operand.text)
                .map(|span| Test::Elapsed(comparison, span))
                .map_err(|why| read(operand, why, cure))
        }
        "count" => {
            let Some((comparison, operand)) = comparison else { return Ok(Test::Undecided) };
            let cure = "a whole number, such as `5`";
            let whole = [
                "xsd:integer",
                "xsd:nonNegativeInteger",
                "xsd:positiveInteger",
                "xsd:int",
                "xsd:long",
                "xsd:short",
                "xsd:unsignedInt",
                "xsd:unsignedLong",
                "xsd:unsignedShort",
                "xsd:decimal",
                "xsd:double",
            ];
            typed(operand, &whole, cure)?;
            literal::count(&operand.text).map(|n| Test::Count(comparison, n)).map_err(|why| read(operand, why, cure))
        }
        "recipient" => Ok(match operator {
            Operator::Eq | Operator::IsAnyOf | Operator::IsA | Operator::IsPartOf => Test::Recipient(true, ids(right)),
            Operator::Neq | Operator::IsNoneOf => Test::Recipient(false, ids(right)),
            Operator::Gt | Operator::Gteq | Operator::Lt | Operator::Lteq | Operator::HasPart | Operator::IsAllOf => {
                Test::Undecided
            }
        }),
        _ => Ok(Test::Undecided),
    }
}

/// Participants, written as references or as texts.
fn ids(right: &[Operand]) -> Vec<String> {
    let mut ids: Vec<String> = right.iter().map(|operand| operand.text.clone()).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// How many conditions these are, with those in them.
pub(super) fn conditions(constraints: &[Constraint]) -> usize {
    let within = |constraint: &Constraint| match constraint {
        Constraint::Atomic(_) => 1,
        Constraint::Logical(logical) => conditions(&logical.of).saturating_add(1),
    };
    constraints.iter().map(within).fold(0, usize::saturating_add)
}

/// The one thing, where there is exactly one and nothing narrows it.
fn only(things: &[Thing]) -> Option<String> {
    match things {
        [thing] => thing.as_one().map(str::to_owned),
        _ => None,
    }
}

/// The values of a member: none, one, or those of the array.
fn many(value: Option<&Value>) -> Vec<&Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(all)) => all.iter().collect(),
        Some(one) => vec![one],
    }
}

fn join(path: &str, member: &str) -> String {
    if path.is_empty() { member.to_owned() } else { format!("{path}.{member}") }
}

/// A peer's text, short enough and harmless enough to be quoted in a message.
pub(super) fn clip(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect();
    if text.chars().count() > SHOWN_MAX {
        shown.push('…');
    }
    shown
}
