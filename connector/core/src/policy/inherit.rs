//! A policy that takes over the rules of others, written out as one that stands alone.
//!
//! A peer must see all that it agrees to, so `inheritFrom` never leaves the connector: the operator's document is
//! written out when it is stored, and what still refers to a parent is refused when it is decided or agreed to.
//! Spec: ODRL Information Model 2.2, §2.9.

use kontor_vocab::context::compact;
use kontor_vocab::odrl::PolicyDocument;
use serde_json::{Map, Value};

use super::enforce::{PROFILES_KNOWN, refusal};
use super::ids;
use super::model::RuleKind;
use super::parse::{DESCRIPTIONS, POLICY_MEMBERS, RULES_MAX, TEXT_BYTES_MAX, clip};
use super::{Problem, ProblemKind};
use crate::refusal::Refusal;

/// Most policies that one inherits from, theirs included.
pub const PARENTS_MAX: usize = 32;
/// How many parents may lie between a policy and the last one it inherits from, that one included.
pub const INHERITANCE_MAX: usize = 8;

/// What a policy may say for all its rules.
const SHARED: [&str; 4] = ["target", "assigner", "assignee", "action"];
/// The rules of a policy.
const RULES: [RuleKind; 3] = [RuleKind::Permission, RuleKind::Prohibition, RuleKind::Obligation];

/// The policy with all rules of all that it inherits from, and without `inheritFrom`: a document that stands alone, in
/// compact form. A document that inherits from nothing is handed back as it is.
///
/// What a parent says for all its rules is put into each of its rules. What a rule's own policy does not say for it, the
/// family says, where it says one thing: so do ODRL's own examples. Titles are not inherited. Whether the rules mean
/// something, and are enforced, is for [`parse`](super::parse) and [`enforceable`](super::enforceable) to say.
///
/// # Errors
/// [`Refusal`] with the place in this document, its fault `Unenforceable` where a parent is not known, inherits from
/// itself, or contradicts another policy of the family (in its profile, its strategy for conflicts, its context, or in
/// what it says for all rules); `Malformed` where a parent is no policy; `Limit` beyond [`PARENTS_MAX`] or
/// [`INHERITANCE_MAX`].
pub fn inherit(
    document: &PolicyDocument,
    parent_of: &dyn Fn(&str) -> Option<PolicyDocument>,
) -> Result<PolicyDocument, Refusal> {
    let child = Member::of(document).map_err(|problem| refusal(&[problem]))?;
    if child.parents.is_empty() && !child.map.contains_key("inheritFrom") {
        return Ok(document.clone());
    }
    let mut family = Family { members: Vec::new(), parent_of };
    let (mut line, parents) = (child.id.clone().into_iter().collect(), child.parents.clone());
    family.members.push(child);
    family.gather(&parents, &mut line, 1).and_then(|()| merged(family.members)).map_err(|problem| refusal(&[problem]))
}

/// One policy of the family, compact.
struct Member {
    id: Option<String>,
    parents: Vec<String>,
    map: Map<String, Value>,
}

impl Member {
    fn of(document: &PolicyDocument) -> Result<Self, Problem> {
        let Value::Object(map) = compact(ids::to_odrl(document.to_value())) else {
            return Err(problem(
                ProblemKind::Malformed,
                "",
                "the policy is not an object",
                "an ODRL policy as a JSON object",
            ));
        };
        let id = ["@id", "uid"].into_iter().find_map(|member| map.get(member)).and_then(Value::as_str);
        let mut parents = Vec::new();
        for parent in many(map.get("inheritFrom")) {
            match parent {
                Value::String(parent) if !parent.is_empty() && parent.len() <= TEXT_BYTES_MAX => {
                    parents.push(parent.clone());
                }
                _ => {
                    let cure = "the IRI of a policy";
                    return Err(problem(
                        ProblemKind::Malformed,
                        "inheritFrom",
                        "a parent is not named by an IRI",
                        cure,
                    ));
                }
            }
        }
        Ok(Self { id: id.map(str::to_owned), parents, map })
    }

    /// What it is called in a message.
    fn name(&self) -> String {
        self.id.as_deref().map_or_else(|| "the policy itself".to_owned(), |id| format!("`{}`", clip(id)))
    }

    fn says(&self, member: &str) -> Option<&Value> {
        self.map.get(member).filter(|value| !value.is_null())
    }
}

/// The policies that are found on the way from a policy to all that it inherits from, each once, it itself first.
struct Family<'a> {
    members: Vec<Member>,
    parent_of: &'a dyn Fn(&str) -> Option<PolicyDocument>,
}

impl Family<'_> {
    /// Adds these parents and theirs; `line` leads from the policy to them, over so many generations.
    fn gather(&mut self, parents: &[String], line: &mut Vec<String>, generation: usize) -> Result<(), Problem> {
        for parent in parents {
            if line.contains(parent) {
                let round: Vec<String> = line.iter().chain([parent]).map(|id| format!("`{}`", clip(id))).collect();
                let message = format!("the policy inherits from itself: {}", round.join(", then "));
                let cure = "parents that do not inherit from their children";
                return Err(problem(ProblemKind::Unenforced, "inheritFrom", message, cure));
            }
            // A grandparent by two ways has its rules once.
            if self.members.iter().any(|member| member.id.as_ref() == Some(parent)) {
                continue;
            }
            if self.members.len() > PARENTS_MAX {
                let message = format!("the policy inherits from more than {PARENTS_MAX} policies");
                return Err(problem(ProblemKind::Limit, "inheritFrom", message, format!("at most {PARENTS_MAX}")));
            }
            if generation > INHERITANCE_MAX {
                let message = format!("the policy inherits over more than {INHERITANCE_MAX} generations");
                let cure = format!("at most {INHERITANCE_MAX} generations");
                return Err(problem(ProblemKind::Limit, "inheritFrom", message, cure));
            }
            let Some(document) = (self.parent_of)(parent) else {
                let message =
                    format!("the policy `{}` is not known here, and its rules are not in the document", clip(parent));
                let cure = "a policy that is stored here, or all rules in one document";
                return Err(problem(ProblemKind::Unenforced, "inheritFrom", message, cure));
            };
            let mut found = Member::of(&document)?;
            // It is known by the name that it was asked for.
            found.id = Some(parent.clone());
            known_members(&found)?;
            let grandparents = found.parents.clone();
            self.members.push(found);
            line.push(parent.clone());
            self.gather(&grandparents, line, generation + 1)?;
            line.pop();
        }
        Ok(())
    }
}

/// What a parent says beside its rules is understood, or is not left behind in silence.
fn known_members(parent: &Member) -> Result<(), Problem> {
    let known = |key: &str| POLICY_MEMBERS.contains(&key) || DESCRIPTIONS.contains(&key);
    match parent.map.keys().find(|key| !known(key)) {
        Some(key) => {
            let message =
                format!("`{}` is not a member of a policy that is known here, and {} has it", clip(key), parent.name());
            Err(problem(ProblemKind::Unknown, "inheritFrom", message, "a parent without it"))
        }
        None => Ok(()),
    }
}

/// One document of a family.
fn merged(family: Vec<Member>) -> Result<PolicyDocument, Problem> {
    same_names(&family)?;
    let profiles = profiles(&family)?;
    let strategy = strategy(&family)?;
    let shared = SHARED.map(|member| (member, Shared::of(&family, member)));
    let mut rules: [Vec<Value>; 3] = Default::default();
    let mut narrowed = Vec::new();
    for (index, policy) in family.iter().enumerate() {
        for (kind, all) in RULES.into_iter().zip(&mut rules) {
            for rule in many(policy.says(kind.member())) {
                let (rule, open) = written_out(rule, policy, index == 0, &shared)?;
                narrowed.extend(open.into_iter().filter(|_| kind != RuleKind::Permission));
                all.push(rule);
            }
        }
    }
    if rules.iter().map(Vec::len).sum::<usize>() > RULES_MAX {
        let message = format!("the policy has more than {RULES_MAX} rules with those that it inherits");
        return Err(problem(ProblemKind::Limit, "inheritFrom", message, format!("at most {RULES_MAX} rules")));
    }
    let [permissions, ..] = &rules;
    for (member, shared) in shared.iter().filter(|(member, _)| narrowed.contains(member)) {
        shared.reaches(member, permissions)?;
    }
    let Some(child) = family.into_iter().next() else { return Ok(PolicyDocument::default()) };
    let mut map = child.map;
    map.shift_remove("inheritFrom");
    for (member, shared) in shared {
        if let (Some(value), false) = (shared.only(), map.get(member).is_some_and(|value| !value.is_null())) {
            map.insert(member.to_owned(), value.clone());
        }
    }
    match profiles.as_slice() {
        [] => {}
        [one] => drop(map.insert("profile".to_owned(), one.clone())),
        _ => drop(map.insert("profile".to_owned(), Value::Array(profiles))),
    }
    if let Some(strategy) = strategy {
        map.insert("conflict".to_owned(), strategy);
    }
    for (kind, all) in RULES.into_iter().zip(rules) {
        if !all.is_empty() {
            map.insert(kind.member().to_owned(), Value::Array(all));
        }
    }
    Ok(PolicyDocument(map))
}

/// A rule with what its own policy, or the family, says for it; and the members that only the family says.
fn written_out(
    rule: &Value,
    policy: &Member,
    is_child: bool,
    shared: &[(&'static str, Shared); 4],
) -> Result<(Value, Vec<&'static str>), Problem> {
    let mut rule = if is_child { rule.clone() } else { without_blank_names(rule) };
    let mut open = Vec::new();
    // What is no node is refused with its place by whoever reads the whole.
    let Value::Object(node) = &mut rule else { return Ok((rule, open)) };
    for (member, family) in shared {
        if node.get(*member).is_some_and(|value| !value.is_null()) {
            continue;
        }
        match (policy.says(member), family) {
            // The child's own stays where it is: it is said once in the whole, too.
            (Some(_), _) if is_child => {}
            (Some(own), _) => {
                node.insert((*member).to_owned(), own.clone());
            }
            (None, Shared::Nothing) => {}
            (None, Shared::One(value)) => {
                node.insert((*member).to_owned(), value.clone());
                open.push(*member);
            }
            (None, Shared::Several) => {
                let message = format!(
                    "policies of the family have different `{member}` for all their rules, and a rule of {} has none",
                    policy.name()
                );
                let cure = format!("`{member}` in each rule that has none, or in its policy");
                return Err(problem(ProblemKind::Unenforced, "inheritFrom", message, cure));
            }
        }
    }
    Ok((rule, open))
}

/// A name that starts with `_:` is one document's own, and may be another node's in the next.
fn without_blank_names(value: &Value) -> Value {
    match value {
        Value::Array(all) => Value::Array(all.iter().map(without_blank_names).collect()),
        Value::Object(node) => Value::Object(
            node.iter()
                .filter(|(key, value)| key.as_str() != "@id" || !value.as_str().is_some_and(|id| id.starts_with("_:")))
                .map(|(key, value)| (key.clone(), without_blank_names(value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// What a family says for all rules, of one member.
enum Shared {
    Nothing,
    One(Value),
    Several,
}

impl Shared {
    fn of(family: &[Member], member: &str) -> Self {
        let mut said = family.iter().filter_map(|policy| policy.says(member));
        match said.next() {
            None => Self::Nothing,
            Some(first) if said.all(|other| other == first) => Self::One(first.clone()),
            Some(_) => Self::Several,
        }
    }

    fn only(&self) -> Option<&Value> {
        match self {
            Self::One(value) => Some(value),
            Self::Nothing | Self::Several => None,
        }
    }

    /// A prohibition or an obligation that its own policy leaves open must reach whatever is permitted.
    fn reaches(&self, member: &str, permissions: &[Value]) -> Result<(), Problem> {
        let Some(value) = self.only() else { return Ok(()) };
        let elsewhere = |rule: &Value| rule.get(member).is_some_and(|own| !own.is_null() && own != value);
        if member == "action" || !permissions.iter().any(elsewhere) {
            return Ok(());
        }
        let message = format!(
            "what the family prohibits or demands would hold for one `{member}` only, and it permits something for another"
        );
        let cure = format!("`{member}` in each rule, and not for all rules");
        Err(problem(ProblemKind::Unenforced, "inheritFrom", message, cure))
    }
}

/// The names that a document binds itself mean the same in all, or nobody could put them side by side.
fn same_names(family: &[Member]) -> Result<(), Problem> {
    let bound = |policy: &Member| -> Vec<Value> {
        many(policy.map.get("@context")).into_iter().filter(|context| context.is_object()).cloned().collect()
    };
    let mut all = family.iter();
    let Some(first) = all.next().map(bound) else { return Ok(()) };
    match all.find(|policy| bound(policy) != first) {
        Some(other) => {
            let message = format!("{} binds other names in its `@context` than the policy does", other.name());
            Err(problem(ProblemKind::Unenforced, "inheritFrom", message, "the same `@context`, or whole IRIs"))
        }
        None => Ok(()),
    }
}

/// All profiles of the family. One that may give terms another meaning must be said by every policy.
fn profiles(family: &[Member]) -> Result<Vec<Value>, Problem> {
    let mut all: Vec<Value> = Vec::new();
    for profile in family.iter().flat_map(|policy| many(policy.says("profile"))) {
        if !all.contains(profile) {
            all.push(profile.clone());
        }
    }
    let known = |profile: &Value| profile.as_str().is_some_and(|profile| PROFILES_KNOWN.contains(&profile));
    for profile in all.iter().filter(|profile| !known(profile)) {
        if let Some(silent) = family.iter().find(|policy| !many(policy.says("profile")).contains(&profile)) {
            let shown = clip(profile.as_str().unwrap_or_default());
            let message = format!("the profile `{shown}` may give the terms of {} another meaning", silent.name());
            return Err(problem(ProblemKind::Unenforced, "inheritFrom", message, "the same profiles in every policy"));
        }
    }
    Ok(all)
}

/// The strategy of the family: the one that is said. Who says nothing means `prohibit`, and does not let a permission
/// win; but is void where another one says so.
fn strategy(family: &[Member]) -> Result<Option<Value>, Problem> {
    // ODRL 2.2, §2.10: a policy with multiple conflict values "after a Policy merge or inheritance" is void.
    let said: Vec<(&Member, &Value)> =
        family.iter().filter_map(|policy| Some((policy, policy.says("conflict")?))).collect();
    let Some((_, first)) = said.first() else { return Ok(None) };
    let other = said.iter().find(|(_, strategy)| strategy != first).map(|(policy, _)| *policy);
    let silent = || family.iter().find(|policy| policy.says("conflict").is_none());
    let other = other.or_else(|| if **first == "perm" { silent() } else { None });
    match other {
        Some(other) => {
            let message = format!("{} has another strategy for conflicts than the rest of the family", other.name());
            Err(problem(ProblemKind::Unenforced, "inheritFrom", message, "the same `conflict` in every policy"))
        }
        None => Ok(Some((*first).clone())),
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

fn problem(kind: ProblemKind, path: &str, message: impl Into<String>, cure: impl Into<String>) -> Problem {
    Problem { kind, path: path.to_owned(), message: message.into(), cure: cure.into() }
}
