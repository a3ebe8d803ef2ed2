//! The public ODRL test suite: its cases are read where they lie, decided by the engine, and
//! compared with the reports that the suite expects.
//!
//! Two levels are scored. L1 is the decision: allow iff some permission is active and no
//! prohibition is. L2 is the report: whether each rule is active and each constraint satisfied, by
//! their IRIs. Both lists of passed cases are kept beside this file and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kontor_core::policy::report::{Activation, ConstraintReport, Satisfaction};
use kontor_core::policy::{evaluate, report};

mod corpus;

use corpus::{Case, READINGS};

/// Cases that are not run, each with the reason. A case that is neither run nor listed fails.
const SKIPPED: &[(&str, &str)] = &[];

/// How to run it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The suite's `data` folder. Default: `../shared/odrl/data`, seen from the repository.
    #[arg(value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Writes the result into the repository.
    #[arg(long)]
    publish: bool,
    /// One case alone, such as `061-violated`, with what the engine said; lists are then not compared.
    #[arg(long, value_name = "ID")]
    only: Option<String>,
}

/// The two levels, each with what went wrong by case.
#[derive(Default)]
struct Score {
    passed: BTreeSet<String>,
    failed: BTreeMap<String, Vec<String>>,
}

impl Score {
    fn note(&mut self, id: &str, wrong: Vec<String>) {
        if wrong.is_empty() {
            self.passed.insert(id.to_owned());
        } else {
            self.failed.insert(id.to_owned(), wrong);
        }
    }
}

/// Whether the cases of the lists passed, no more and no fewer; `true` where the suite is absent.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = tests.join("conformance/odrl");
    let data = match &options.data {
        Some(data) => data.clone(),
        None => tests.join("../../shared/odrl/data"),
    };
    if !data.is_dir() {
        println!("skipped: the ODRL test suite is not at {}; its `data` folder can be named", data.display());
        return Ok(true);
    }
    let mut cases = corpus::load(&data).map_err(|why| anyhow!("the suite cannot be read: {why}"))?;
    let all = cases.len();
    if let Some(only) = &options.only {
        cases.retain(|case| case.id == *only);
        cases.first().with_context(|| format!("no case is named `{only}`"))?;
    }
    for (id, why) in SKIPPED {
        println!("  skipped  {id}: {why}");
    }
    cases.retain(|case| SKIPPED.iter().all(|(id, _)| case.id != *id));
    let (mut decisions, mut reports) = (Score::default(), Score::default());
    for case in &cases {
        decisions.note(&case.id, decision_faults(case));
        reports.note(&case.id, report_faults(case));
    }
    if options.only.is_some() {
        cases.iter().for_each(show);
    }
    let mut whole = true;
    for (level, name, score, list) in
        [("L1", "decisions", &decisions, "passed-l1.txt"), ("L2", "reports", &reports, "passed-l2.txt")]
    {
        println!("ODRL test suite, {level} {name}: {} of {all} passed", score.passed.len());
        for (id, wrong) in &score.failed {
            println!("  failed   {id}: {}", wrong.join("; "));
        }
        whole &= score.failed.is_empty();
        if options.only.is_some() {
            continue;
        }
        let list = kept.join(list);
        if options.publish {
            fs::write(&list, score.passed.iter().map(|id| format!("{id}\n")).collect::<String>())?;
            println!("written: {}", list.display());
        }
        let text = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
        let listed: BTreeSet<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        for id in listed.difference(&score.passed).filter(|id| !score.failed.contains_key(*id)) {
            println!("  missing  {id}: it is in {} and did not run", list.display());
        }
        for id in score.passed.difference(&listed) {
            println!("  new      {id}: it passed and is not in {}", list.display());
        }
        whole &= listed == score.passed;
    }
    println!("readings where the suite leaves something open:");
    READINGS.iter().for_each(|reading| println!("  - {reading}"));
    Ok(whole)
}

fn decision_faults(case: &Case) -> Vec<String> {
    let policy = match &case.policy {
        Ok(policy) => policy,
        Err(why) => return vec![format!("the policy is not read: {why}")],
    };
    let decision = evaluate(policy, &case.request, &case.world);
    if decision.allowed == case.expected.allowed() {
        return Vec::new();
    }
    let word = |allowed: bool| if allowed { "allow" } else { "deny" };
    let mut wrong = vec![format!("{}, and {} is expected", word(decision.allowed), word(case.expected.allowed()))];
    wrong.extend(decision.reasons.iter().map(|reason| format!("{}: {}", reason.path, reason.message)));
    wrong
}

fn report_faults(case: &Case) -> Vec<String> {
    let policy = match &case.policy {
        Ok(policy) => policy,
        Err(why) => return vec![format!("the policy is not read: {why}")],
    };
    let mut rules = BTreeMap::new();
    let mut constraints = BTreeMap::new();
    for rule in report(policy, &case.request, &case.world).rules {
        let iri = case.iri_at(&rule.path).unwrap_or_else(|| rule.path.clone());
        // A rule that was atomised is active where one of its parts is.
        let so_far = rules.entry(iri).or_insert(Activation::Inactive);
        *so_far = (*so_far).max(rule.activation);
        rule.constraints.iter().for_each(|constraint| collect(case, constraint, &mut constraints));
    }
    let mut wrong = Vec::new();
    compare(
        "rule",
        &mut wrong,
        &rules,
        case.expected
            .rules
            .iter()
            .map(|(iri, (_, active))| (iri, if *active { Activation::Active } else { Activation::Inactive })),
    );
    compare(
        "constraint",
        &mut wrong,
        &constraints,
        case.expected.constraints.iter().map(|(iri, satisfied)| {
            (iri, if *satisfied { Satisfaction::Satisfied } else { Satisfaction::Unsatisfied })
        }),
    );
    wrong
}

fn collect(case: &Case, constraint: &ConstraintReport, into: &mut BTreeMap<String, Satisfaction>) {
    let iri = case.iri_at(&constraint.path).unwrap_or_else(|| constraint.path.clone());
    into.insert(iri, constraint.satisfaction);
    constraint.of.iter().for_each(|inner| collect(case, inner, into));
}

/// Notes what differs, and what only one side reports.
fn compare<'a, T: Copy + PartialEq + std::fmt::Debug>(
    what: &str,
    wrong: &mut Vec<String>,
    found: &BTreeMap<String, T>,
    expected: impl Iterator<Item = (&'a String, T)>,
) {
    let mut unexpected: BTreeSet<&String> = found.keys().collect();
    for (iri, expected) in expected {
        unexpected.remove(iri);
        let found = found.get(iri).copied();
        if found != Some(expected) {
            wrong.push(format!("{what} `{iri}` is {found:?}, and {expected:?} is expected"));
        }
    }
    wrong.extend(unexpected.into_iter().map(|iri| format!("{what} `{iri}` is reported, and is not expected")));
}

fn show(case: &Case) {
    println!("{}: {}", case.id, case.title);
    println!("{:#}", serde_json::Value::Object(case.document.0.clone()));
    if let Ok(policy) = &case.policy {
        println!("{:#?}", evaluate(policy, &case.request, &case.world));
        println!("{:#?}", report(policy, &case.request, &case.world));
    }
}
