//! The cases of the public ODRL test suite, read from Turtle into what the engine takes.
//!
//! A graph becomes JSON-LD by form alone (every object that is a subject is written out), so that
//! the engine's own reading of JSON-LD is what is tested. Where the suite leaves something open
//! that ODRL or the engine wants said, the reading is one of [`READINGS`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::policy::model::RuleKind;
use kontor_core::policy::{
    ASSIGNEE_COLLECTIONS, DutyState, DutyStates, FactValue, Facts, Policy, Request, Standing, TARGET_COLLECTIONS,
    World, parse,
};
use kontor_vocab::context::{compact, compact_term};
use kontor_vocab::odrl::PolicyDocument;
use oxrdf::vocab::rdf;
use oxrdf::{Graph, NamedNodeRef, NamedOrBlankNode, NamedOrBlankNodeRef, TermRef};
use oxttl::TurtleParser;
use serde_json::{Map, Value, json};

/// What the suite leaves open, and how it is read here.
pub(crate) const READINGS: &[&str] = &[
    "a rule without an action (policies 1 and 2) is about ODRL's two top actions, `use` and `transfer`; \
     ODRL 2.2 demands an action, and the engine refuses a rule without one",
    "a duty is due after the use, which ODRL writes as `event gt policyUsage`: the policies say that it is to be done \
     eventually, and the engine wants a payment first where nothing is said",
    "a duty that is not set, or of which the state of the world says nothing, is still to be done",
    "the world is closed: who is not said to be part of a collection is not",
];

mod iri {
    pub(super) const ODRL: &str = "http://www.w3.org/ns/odrl/2/";
    pub(super) const EX: &str = "http://example.org/";
    pub(super) const REPORT: &str = "https://w3id.org/force/compliance-report#";
    pub(super) const TITLE: &str = "http://purl.org/dc/terms/title";
    pub(super) const ISSUED: &str = "http://purl.org/dc/terms/issued";
    pub(super) const NOW: &str = "http://example.com/request/currentTime";
}

/// One case of the suite.
pub(crate) struct Case {
    /// Its file's name without `testcase-` and the ending: `001-alice`.
    pub(crate) id: String,
    /// In a sentence.
    pub(crate) title: String,
    /// The policy, compact.
    pub(crate) document: PolicyDocument,
    /// The policy as the engine understands it, or why it does not.
    pub(crate) policy: Result<Policy, String>,
    /// Who asks for what.
    pub(crate) request: Request,
    /// The state of the world.
    pub(crate) world: World,
    /// What the suite expects.
    pub(crate) expected: Expected,
}

/// The expected report, as far as it is compared.
pub(crate) struct Expected {
    /// The IRI of each rule, its kind, and whether it is active.
    pub(crate) rules: BTreeMap<String, (RuleKind, bool)>,
    /// The IRI of each constraint, and whether it is satisfied.
    pub(crate) constraints: BTreeMap<String, bool>,
}

impl Expected {
    /// The decision that follows: some permission is active and no prohibition is.
    pub(crate) fn allowed(&self) -> bool {
        let active = |wanted: RuleKind| self.rules.values().any(|(kind, active)| *kind == wanted && *active);
        active(RuleKind::Permission) && !active(RuleKind::Prohibition)
    }
}

impl Case {
    /// The IRI of what lies at a path of the document.
    pub(crate) fn iri_at(&self, path: &str) -> Option<String> {
        let mut at = &Value::Object(self.document.0.clone());
        let mut found;
        for step in path.split('.') {
            let (member, index) = match step.split_once('[') {
                Some((member, index)) => (member, index.strip_suffix(']')?.parse().ok()?),
                None => (step, 0_usize),
            };
            found = match at.get(member)? {
                Value::Array(all) => all.get(index)?.clone(),
                one => one.clone(),
            };
            at = &found;
        }
        at.get("@id")?.as_str().map(str::to_owned)
    }
}

/// Reads all cases under the suite's `data` folder, in the order of their names.
pub(crate) fn load(data: &Path) -> Result<Vec<Case>, String> {
    let policies = named(&data.join("policies"), "Set")?;
    let requests = named(&data.join("requests"), "Request")?;
    let worlds = graphs(&data.join("sotw"))?
        .into_iter()
        .map(|(name, graph)| {
            let id = subject_of(&graph, &format!("{}Sotw", iri::EX)).ok_or(format!("{name} has no state of the world"));
            id.map(|id| (id, graph))
        })
        .collect::<Result<BTreeMap<_, _>, String>>()?;
    let mut cases = Vec::new();
    for (name, graph) in graphs(&data.join("test_cases"))? {
        let case = read_case(&name, &graph, &policies, &requests, &worlds);
        cases.push(case.map_err(|why| format!("{name}: {why}"))?);
    }
    Ok(cases)
}

type Named = BTreeMap<String, Graph>;

fn read_case(name: &str, graph: &Graph, policies: &Named, requests: &Named, worlds: &Named) -> Result<Case, String> {
    let case = subject_of(graph, &format!("{}TestCase", iri::EX)).ok_or("it describes no case")?;
    let part = |member: &str, among: &'_ Named| -> Result<String, String> {
        let id = one_iri(graph, &case, &format!("{}{member}", iri::EX)).ok_or(format!("it names no {member}"))?;
        if among.contains_key(&id) { Ok(id) } else { Err(format!("its {member} `{id}` is not there")) }
    };
    let (policy_id, request, world) = (part("policy", policies)?, part("request", requests)?, part("sotw", worlds)?);
    let document = policy_document(&policies[&policy_id], &policy_id)?;
    let policy =
        parse(&document).map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    let request = read_request(&requests[&request], &request)?;
    let mut case = Case {
        id: name.trim_start_matches("testcase-").to_owned(),
        title: one_text(graph, &case, iri::TITLE).ok_or("it has no title")?,
        document,
        policy,
        world: World::default(),
        request,
        expected: read_expected(graph)?,
    };
    case.world = read_world(&worlds[&world], &case.request, &policies[&policy_id])?;
    case.world.duties = read_duties(&worlds[&world], &case)?;
    Ok(case)
}

/// The JSON-LD of the policy: expanded as the graph has it, then compact.
fn policy_document(graph: &Graph, id: &str) -> Result<PolicyDocument, String> {
    let mut node = written_out(graph, NamedNodeRef::new_unchecked(id).into(), &[]);
    for member in ["permission", "prohibition", "obligation"] {
        for rule in node.get_mut(&format!("{}{member}", iri::ODRL)).and_then(Value::as_array_mut).into_iter().flatten()
        {
            let action = format!("{}action", iri::ODRL);
            let Some(rule) = rule.as_object_mut() else { continue };
            let duties = rule.get_mut(&format!("{}duty", iri::ODRL)).and_then(Value::as_array_mut);
            duties.into_iter().flatten().for_each(due_after_use);
            if !rule.contains_key(&action) {
                let top = ["use", "transfer"].map(|name| json!({"@id": format!("{}{name}", iri::ODRL)}));
                rule.insert(action, json!(top));
            }
        }
    }
    PolicyDocument::from_value(compact(Value::Object(node))).map_err(|_| format!("`{id}` is no object"))
}

/// A duty that does not say when it is due is due after the use.
fn due_after_use(duty: &mut Value) {
    let constraint = format!("{}constraint", iri::ODRL);
    if let Some(duty) = duty.as_object_mut()
        && !duty.contains_key(&constraint)
    {
        let is = |member: &str, term: &str| {
            (format!("{}{member}", iri::ODRL), json!([{"@id": format!("{}{term}", iri::ODRL)}]))
        };
        let after: Map<String, Value> =
            [is("leftOperand", "event"), is("operator", "gt"), is("rightOperand", "policyUsage")].into_iter().collect();
        duty.insert(constraint, json!([after]));
    }
}

/// A node with everything that the graph says of it. Objects that are subjects are written out,
/// unless they hold the node itself: what names itself, as a policy does with `uid`, is a name.
fn written_out<'a>(
    graph: &'a Graph,
    subject: NamedOrBlankNodeRef<'a>,
    holders: &[NamedOrBlankNodeRef<'a>],
) -> Map<String, Value> {
    let holders = &[holders, &[subject]].concat();
    let mut node = Map::new();
    if let NamedOrBlankNodeRef::NamedNode(name) = subject {
        node.insert("@id".to_owned(), json!(name.as_str()));
    }
    for triple in graph.triples_for_subject(subject) {
        let (member, value) = if triple.predicate == rdf::TYPE {
            ("@type", json!(text_of(triple.object)))
        } else {
            (triple.predicate.as_str(), object(graph, triple.object, holders))
        };
        if let Value::Array(values) = node.entry(member).or_insert_with(|| json!([])) {
            values.push(value);
        }
    }
    node
}

fn object<'a>(graph: &'a Graph, term: TermRef<'a>, holders: &[NamedOrBlankNodeRef<'a>]) -> Value {
    let described = |subject: NamedOrBlankNodeRef<'a>| {
        let known = graph.triples_for_subject(subject).next().is_some() && !holders.contains(&subject);
        known.then(|| Value::Object(written_out(graph, subject, holders)))
    };
    match term {
        TermRef::NamedNode(name) => described(name.into()).unwrap_or_else(|| json!({"@id": name.as_str()})),
        TermRef::BlankNode(blank) => described(blank.into()).unwrap_or_else(|| json!({})),
        TermRef::Literal(literal) => match literal.language() {
            Some(language) => json!({"@value": literal.value(), "@language": language}),
            None => json!({"@value": literal.value(), "@type": literal.datatype().as_str()}),
        },
    }
}

fn read_request(graph: &Graph, id: &str) -> Result<Request, String> {
    let odrl = |member: &str| format!("{}{member}", iri::ODRL);
    let rule = one_iri(graph, id, &odrl("permission")).ok_or("the request asks for nothing")?;
    let action = one_iri(graph, &rule, &odrl("action")).ok_or("the request names no action")?;
    let assignee = one_iri(graph, &rule, &odrl("assignee")).ok_or("the request names no assignee")?;
    Ok(Request {
        action: compact_term(&action),
        assignee: ParticipantId::parse(&assignee).map_err(|error| error.to_string())?,
        target: one_iri(graph, &rule, &odrl("target")),
    })
}

/// The suite's world is closed: who is not said to be part of a collection is not.
fn read_world(graph: &Graph, request: &Request, policy: &Graph) -> Result<World, String> {
    let now = one_text(graph, iri::NOW, iri::ISSUED).ok_or("the state of the world has no time")?;
    let now: Timestamp = now.parse().map_err(|error| format!("`{now}`: {error}"))?;
    let target = request.target.as_deref().unwrap_or_default();
    let facts = Facts::default()
        .with(ASSIGNEE_COLLECTIONS, FactValue::names(collections_of(graph, request.assignee.as_str(), policy)))
        .with(TARGET_COLLECTIONS, FactValue::names(collections_of(graph, target, policy)));
    Ok(World { now, facts, ..World::default() })
}

/// How far the policy's duties are: the engine knows them by their keys, the suite by their IRIs.
fn read_duties(graph: &Graph, case: &Case) -> Result<DutyStates, String> {
    let report = |name: &str| format!("{}{name}", iri::REPORT);
    let mut states = DutyStates::default();
    for subject in subjects_of(graph, &report("DutyReport")) {
        let about = one_iri(graph, &subject, &report("rule")).ok_or("a duty's report names no rule")?;
        let found = one_iri(graph, &subject, &report("deonticState")).unwrap_or_default();
        let state = match found.strip_prefix(iri::REPORT) {
            Some("Fulfilled") => DutyState::Fulfilled,
            Some("Violated") => DutyState::Violated,
            Some("NonSet") => DutyState::Pending,
            _ => return Err(format!("`{found}` is no state of a duty")),
        };
        let rules = case.policy.iter().flat_map(|policy| &policy.rules);
        for duty in rules.flat_map(|rule| &rule.duties).filter(|duty| case.iri_at(&duty.path).as_ref() == Some(&about))
        {
            if let Some(term) = &duty.term {
                states.insert(term.key.clone(), Standing { state, until: None });
            }
        }
    }
    Ok(states)
}

/// The collections that something is part of. A collection and the source that the policy names for it are one.
fn collections_of(graph: &Graph, member: &str, policy: &Graph) -> Vec<String> {
    let [part_of, source] = ["partOf", "source"].map(|name| format!("{}{name}", iri::ODRL));
    let mut collections = Vec::new();
    let named = NamedNodeRef::new_unchecked(member);
    for collection in graph.objects_for_subject_predicate(named, NamedNodeRef::new_unchecked(&part_of)) {
        let collection = text_of(collection);
        collections.extend(one_iri(policy, &collection, &source));
        collections.push(collection);
    }
    collections
}

fn read_expected(graph: &Graph) -> Result<Expected, String> {
    let report = |name: &str| format!("{}{name}", iri::REPORT);
    let mut expected = Expected { rules: BTreeMap::new(), constraints: BTreeMap::new() };
    for (kind, name) in [(RuleKind::Permission, "PermissionReport"), (RuleKind::Prohibition, "ProhibitionReport")] {
        for subject in subjects_of(graph, &report(name)) {
            let rule = one_iri(graph, &subject, &report("rule")).ok_or("a report names no rule")?;
            let active = state(graph, &subject, "activationState", "Active", "Inactive")?;
            expected.rules.insert(rule, (kind, active));
        }
    }
    for subject in subjects_of(graph, &report("ConstraintReport")) {
        let constraint = one_iri(graph, &subject, &report("constraint")).ok_or("a report names no constraint")?;
        let satisfied = state(graph, &subject, "satisfactionState", "Satisfied", "Unsatisfied")?;
        expected.constraints.insert(constraint, satisfied);
    }
    if expected.rules.is_empty() { Err("no rule is expected to be reported".to_owned()) } else { Ok(expected) }
}

fn state(graph: &Graph, subject: &str, member: &str, yes: &str, no: &str) -> Result<bool, String> {
    let found = one_iri(graph, subject, &format!("{}{member}", iri::REPORT)).unwrap_or_default();
    match found.strip_prefix(iri::REPORT) {
        Some(state) if state == yes => Ok(true),
        Some(state) if state == no => Ok(false),
        _ => Err(format!("`{found}` is no {member}")),
    }
}

/// The graphs of a folder, by the names of their files.
fn graphs(folder: &Path) -> Result<BTreeMap<String, Graph>, String> {
    let place = |error: &dyn std::fmt::Display| format!("{}: {error}", folder.display());
    let mut graphs = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| place(&error))? {
        let path = entry.map_err(|error| place(&error))?.path();
        if path.extension().is_some_and(|ending| ending == "ttl") {
            let text = fs::read(&path).map_err(|error| place(&error))?;
            let graph = TurtleParser::new()
                .for_slice(&text)
                .collect::<Result<Graph, _>>()
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
            graphs.insert(name.unwrap_or_default(), graph);
        }
    }
    Ok(graphs)
}

/// The graphs of a folder, by the IRI of the node of an ODRL class.
fn named(folder: &Path, class: &str) -> Result<Named, String> {
    graphs(folder)?
        .into_iter()
        .map(|(name, graph)| {
            let id = subject_of(&graph, &format!("{}{class}", iri::ODRL)).ok_or(format!("{name} has no {class}"))?;
            Ok((id, graph))
        })
        .collect()
}

fn subjects_of(graph: &Graph, class: &str) -> Vec<String> {
    graph
        .subjects_for_predicate_object(rdf::TYPE, NamedNodeRef::new_unchecked(class))
        .filter_map(|subject| match subject.into_owned() {
            NamedOrBlankNode::NamedNode(name) => Some(name.into_string()),
            NamedOrBlankNode::BlankNode(_) => None,
        })
        .collect()
}

fn subject_of(graph: &Graph, class: &str) -> Option<String> {
    subjects_of(graph, class).pop()
}

fn one<'a>(graph: &'a Graph, subject: &str, predicate: &str) -> Option<TermRef<'a>> {
    graph.object_for_subject_predicate(NamedNodeRef::new_unchecked(subject), NamedNodeRef::new_unchecked(predicate))
}

fn one_iri(graph: &Graph, subject: &str, predicate: &str) -> Option<String> {
    match one(graph, subject, predicate)? {
        TermRef::NamedNode(name) => Some(name.as_str().to_owned()),
        TermRef::BlankNode(_) | TermRef::Literal(_) => None,
    }
}

fn one_text(graph: &Graph, subject: &str, predicate: &str) -> Option<String> {
    one(graph, subject, predicate).map(text_of)
}

fn text_of(term: TermRef<'_>) -> String {
    match term {
        TermRef::NamedNode(name) => name.as_str().to_owned(),
        TermRef::BlankNode(blank) => blank.as_str().to_owned(),
        TermRef::Literal(literal) => literal.value().to_owned(),
    }
}
