//! The reference: `SEMANTICS.md` read off the compact document, one sentence after the other, by brute force. It
//! shares no code with the engine, knows only what [`super::generate`] makes, and is slow.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use kontor_core::policy::{
    ASSIGNEE_COLLECTIONS, Decision, DutyKey, DutyState, FactValue, Request, TARGET_COLLECTIONS, World,
};
use serde_json::Value;

use super::generate::{ACTIONS, LEVELS};

/// The keys under which the states of duties are known, by the duties' actions; those of obligations by `obligation to`
/// an action.
pub(crate) type Keys = BTreeMap<String, DutyKey>;

/// S1, S2, S27 and S33: some permission holds, every prohibition is known not to, unless a permission wins, and what
/// obliges is done.
pub(crate) fn allowed(policy: &Value, request: &Request, world: &World, keys: &Keys) -> bool {
    let holds = |member: &str| -> Vec<Option<bool>> {
        atomised(policy, member).iter().map(|rule| rule_holds(rule, request, world, keys)).collect()
    };
    holds("permission").contains(&Some(true))
        && (policy["conflict"] == "perm" || holds("prohibition").iter().all(|truth| *truth == Some(false)))
        && atomised(policy, "obligation").iter().all(|duty| {
            let about = every_way(&about_things(duty, request, world), &|truths| truths.iter().all(|truth| *truth));
            about == Some(false) || done(duty, world, keys) == Some(true)
        })
}

/// S10: the first instant after now at which [`allowed`] has another answer, found by asking at every instant that
/// the policy names and a nanosecond to either side.
pub(crate) fn valid_until(policy: &Value, request: &Request, world: &World, keys: &Keys) -> Option<Timestamp> {
    let at = |now: Timestamp| allowed(policy, request, &World { now, ..world.clone() }, keys);
    let now = at(world.now);
    let nano = SignedDuration::from_nanos(1);
    let mut instants = Vec::new();
    named_instants(policy, world, &mut instants);
    instants.extend(world.facts.iter().flat_map(|(_, fact)| fact.since.into_iter().chain(fact.until)));
    instants.extend(keys.values().filter_map(|key| world.duties.get(key)?.until));
    let mut probes: Vec<Timestamp> = instants
        .into_iter()
        .flat_map(|instant| [instant.checked_sub(nano).ok(), Some(instant), instant.checked_add(nano).ok()])
        .flatten()
        .filter(|probe| *probe > world.now)
        .collect();
    probes.sort();
    probes.into_iter().find(|probe| at(*probe) != now)
}

/// As [`valid_until`], of an engine that says more often that its decision is another one: when it is asked again at
/// each turn, up to the first one at which it allows or denies otherwise. That something turns each time is checked.
pub(crate) fn turns_at(first: &Decision, ask: impl Fn(Timestamp) -> Decision) -> Result<Option<Timestamp>, String> {
    let said = |decision: &Decision| {
        let duties: Vec<_> = decision.duties.iter().map(|due| (due.key.clone(), due.state)).collect();
        (decision.allowed, decision.allowed.then(|| decision.terms.clone()), duties)
    };
    let (mut before, mut until) = (said(first), first.valid_until);
    while let Some(at) = until {
        let then = ask(at);
        if then.allowed != first.allowed {
            break;
        }
        if said(&then) == before {
            return Err(format!("nothing turns at {at}"));
        }
        (before, until) = (said(&then), then.valid_until);
    }
    Ok(until)
}

/// S12: the last use before the first one that is denied, from the present use on if it is allowed, else from the
/// first. `None` where no use up to one that no condition names is denied.
pub(crate) fn uses_max(policy: &Value, request: &Request, world: &World, keys: &Keys) -> Option<u64> {
    let at = |uses: u64| allowed(policy, request, &World { uses: Some(uses), ..world.clone() }, keys);
    let from = if allowed(policy, request, world, keys) { world.uses.unwrap_or(1) } else { 1 };
    let mut counts = vec![0];
    named_counts(policy, &mut counts);
    let beyond = counts.into_iter().max().unwrap_or(0).max(from) + 2;
    (from..=beyond).find(|uses| !at(*uses)).map(|uses| uses.saturating_sub(1))
}

/// S15: each action, target and assignee of its own; what the rule does not say, the policy says.
fn atomised(policy: &Value, member: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    for rule in many(policy.get(member)) {
        let own = |name: &str| -> Vec<Option<Value>> {
            let values = many(rule.get(name).or_else(|| policy.get(name)));
            if values.is_empty() { vec![None] } else { values.into_iter().map(Some).collect() }
        };
        for action in own("action") {
            for target in own("target") {
                for assignee in own("assignee") {
                    let mut one = rule.clone();
                    one["action"] = action.clone().unwrap_or_default();
                    one["target"] = target.clone().unwrap_or_default();
                    one["assignee"] = assignee.clone().unwrap_or_default();
                    one["is"] = Value::from(member);
                    rules.push(one);
                }
            }
        }
    }
    rules
}

/// S3: all that a rule asks for.
fn rule_holds(rule: &Value, request: &Request, world: &World, keys: &Keys) -> Option<bool> {
    let mut truths = vec![about_action(rule, request)];
    truths.extend(about_things(rule, request, world));
    if rule["is"] == "permission" {
        truths.extend(many(rule.get("duty")).iter().map(|duty| done(duty, world, keys)));
    }
    truths.extend(many(rule.get("constraint")).iter().map(|constraint| holds(constraint, request, world)));
    every_way(&truths, &|truths| truths.iter().all(|truth| *truth))
}

/// Whether the target and the assignee of a rule are those of the request.
fn about_things(rule: &Value, request: &Request, world: &World) -> Vec<Option<bool>> {
    let mut truths = Vec::new();
    for (named, asked) in
        [(&rule["target"], request.target.as_deref()), (&rule["assignee"], Some(request.assignee.as_str()))]
    {
        // S6: what is absent is open; what is present must be asked for.
        match (named, asked) {
            (Value::Null, _) => {}
            (Value::String(named), Some(asked)) => truths.push(Some(named == asked)),
            (Value::Object(_), asked) => truths.extend([asked.map(|_| true), belongs(named, asked, world)]),
            _ => truths.push(None),
        }
    }
    truths
}

/// Who or what is known to be part of a collection is in it; who asks for a whole collection asks for what is in it.
fn belongs(collection: &Value, asked: Option<&str>, world: &World) -> Option<bool> {
    let id = collection["@id"].as_str()?;
    let (fact, asset) = match collection["@type"].as_str()? {
        "AssetCollection" => (TARGET_COLLECTIONS, true),
        _ => (ASSIGNEE_COLLECTIONS, false),
    };
    if asset && asked == Some(id) {
        return Some(true);
    }
    match known(world, fact)? {
        FactValue::Names(collections) => Some(collections.contains(id)),
        _ => None,
    }
}

/// A duty that was violated forbids, one that is done or comes later does not, one that comes first and is still to be
/// done leaves the use in doubt. What was done late is good without consequences.
fn done(duty: &Value, world: &World, keys: &Keys) -> Option<bool> {
    let action = duty["action"].as_str()?;
    let name = if duty["is"] == "obligation" { format!("obligation to {action}") } else { action.to_owned() };
    let standing = keys.get(&name).and_then(|key| world.duties.get(key));
    let state = standing.filter(|standing| standing.until.is_none_or(|until| world.now < until));
    match state.map_or(DutyState::Pending, |standing| standing.state) {
        DutyState::Fulfilled | DutyState::Late => Some(true),
        DutyState::Violated => Some(false),
        DutyState::Pending => (action == "delete").then_some(true),
    }
}

/// A fact that is known up to an instant is unknown from it on, and one that begins is unknown before.
fn known<'a>(world: &'a World, operand: &str) -> Option<&'a FactValue> {
    let fact = world.facts.get(operand)?;
    let begun = fact.since.is_none_or(|since| since <= world.now);
    (begun && fact.until.is_none_or(|until| world.now < until)).then_some(&fact.value)
}

/// How the names that are known lie to those that are asked for. Nobody said here which name is part of which.
fn names(operand: &str, operator: &str, wanted: &[String], world: &World) -> Option<bool> {
    let FactValue::Names(found) = known(world, operand)? else { return None };
    let inside = found.iter().filter(|name| wanted.contains(name)).count();
    match operator {
        "neq" | "isNoneOf" => Some(inside == 0),
        "isAllOf" => Some(wanted.iter().all(|name| found.contains(name))),
        // Events have no parts, and so a part is the same.
        "hasPart" if operand == "event" => Some(wanted.iter().all(|name| found.contains(name))),
        // What is not there has no part; what else is part of which, nobody said here.
        "hasPart" if found.is_empty() => Some(false),
        "hasPart" => wanted.iter().all(|name| found.contains(name)).then_some(true),
        _ if operand == "event" => Some(inside > 0),
        // A use for two purposes is for each of them: some are not all, and not none.
        _ if inside == found.len() && inside > 0 => Some(true),
        "eq" | "isAnyOf" if inside == 0 && !found.is_empty() => Some(false),
        _ => None,
    }
}

/// S6: a rule is about its action and what is included in it; whoever prohibits a part leaves the whole in doubt.
fn about_action(rule: &Value, request: &Request) -> Option<bool> {
    let wider =
        |name: &str| -> &[&str] { ACTIONS.iter().find(|(action, _)| *action == name).map_or(&[], |found| found.1) };
    let (named, asked) = (wider(rule["action"].as_str()?), wider(&request.action));
    if asked.contains(named.first()?) {
        Some(true)
    } else if rule["is"] == "prohibition" && named.contains(asked.first()?) {
        None
    } else {
        Some(false)
    }
}

/// S4: whether a condition holds, where that is known.
fn holds(constraint: &Value, request: &Request, world: &World) -> Option<bool> {
    for operand in ["and", "or", "xone", "andSequence"] {
        if let Some(of) = constraint.get(operand) {
            let truths: Vec<Option<bool>> = many(Some(of)).iter().map(|one| holds(one, request, world)).collect();
            let count = |truths: &[bool]| truths.iter().filter(|truth| **truth).count();
            return match operand {
                "and" => every_way(&truths, &|truths| count(truths) == truths.len()),
                "or" => every_way(&truths, &|truths| count(truths) > 0),
                "xone" => every_way(&truths, &|truths| count(truths) == 1),
                _ => in_sequence(&many(Some(of)), &truths, request, world),
            };
        }
    }
    let operator = constraint["operator"].as_str()?;
    let right = many(constraint.get("rightOperand"));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let first = text(right.first()?);
    match constraint["leftOperand"].as_str()? {
        "dateTime" => compares(operator, &world.now, &first.parse().ok()?),
        "elapsedTime" => compares(operator, &world.now, &after(world.agreed_at?, &first)?),
        "count" => compares(operator, &world.uses?, &first.parse().ok()?),
        "recipient" => {
            let inside = right.iter().any(|one| text(one) == request.assignee.as_str());
            match operator {
                "eq" | "isAnyOf" => Some(inside),
                "neq" | "isNoneOf" => Some(!inside),
                _ => None,
            }
        }
        operand @ ("purpose" | "event") => names(operand, operator, &right.iter().map(text).collect::<Vec<_>>(), world),
        "idsc:SECURITY_LEVEL" => {
            let FactValue::Level(level) = known(world, "idsc:SECURITY_LEVEL")? else { return None };
            let place = |level: &str| LEVELS.iter().position(|one| *one == level);
            compares(operator, &place(level)?, &place(&first)?)
        }
        "idsc:QUANTITY" if constraint["unit"] == "By" => compares(operator, &world.bytes?, &first.parse().ok()?),
        "idsc:QUANTITY" => compares(operator, &world.records?, &first.parse().ok()?),
        _ => None,
    }
}

/// S35: all, one after the other.
fn in_sequence(of: &[Value], truths: &[Option<bool>], request: &Request, world: &World) -> Option<bool> {
    if let [one] = truths {
        return *one;
    }
    if truths.contains(&Some(false)) {
        return Some(false);
    }
    let hold = of.iter().zip(truths).filter(|(_, truth)| **truth == Some(true));
    let began: Vec<_> = hold.filter_map(|(one, _)| began(one, request, world)).collect();
    if !began.is_sorted() {
        return Some(false);
    }
    (began.len() == of.len()).then_some(true)
}

/// Since when a condition that holds does, where that is known; `Some(None)` where it held before everything.
fn began(constraint: &Value, request: &Request, world: &World) -> Option<Option<Timestamp>> {
    for operand in ["and", "or", "xone", "andSequence"] {
        let of = many(constraint.get(operand));
        if of.is_empty() {
            continue;
        }
        let each: Vec<_> = of.iter().map(|one| began(one, request, world)).collect();
        return match operand {
            _ if of.len() == 1 => each[0],
            "and" | "andSequence" => each.into_iter().collect::<Option<Vec<_>>>()?.into_iter().max(),
            "or" => {
                let all_hold = of.iter().all(|one| holds(one, request, world) == Some(true));
                each[0].filter(|first| all_hold && each.iter().all(|other| *other == Some(*first)))
            }
            _ => None,
        };
    }
    let nano = SignedDuration::from_nanos(1);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let right = text(many(constraint.get("rightOperand")).first()?);
    let instant = match constraint["leftOperand"].as_str()? {
        "dateTime" => right.parse().ok()?,
        "elapsedTime" => after(world.agreed_at?, &right)?,
        "recipient" => return Some(None),
        operand => return world.facts.get(operand)?.since.map(Some),
    };
    match constraint["operator"].as_str()? {
        "lt" | "lteq" => Some(None),
        "neq" if world.now < instant => Some(None),
        "gt" | "neq" => Some(Some(instant.checked_add(nano).ok()?)),
        _ => Some(Some(instant)),
    }
}

/// What follows whichever way the unknown ones turn out; `None` where that is not one thing.
fn every_way(truths: &[Option<bool>], of: &dyn Fn(&[bool]) -> bool) -> Option<bool> {
    let unknown: Vec<usize> = (0..truths.len()).filter(|at| truths[*at].is_none()).collect();
    let mut answers = (0..1_u32 << unknown.len()).map(|way| {
        let mut known: Vec<bool> = truths.iter().map(|truth| truth.unwrap_or_default()).collect();
        for (bit, at) in unknown.iter().enumerate() {
            known[*at] = way >> bit & 1 == 1;
        }
        of(&known)
    });
    let first = answers.next()?;
    answers.all(|answer| answer == first).then_some(first)
}

fn compares<T: PartialOrd>(operator: &str, found: &T, wanted: &T) -> Option<bool> {
    Some(match operator {
        "eq" => found == wanted,
        "neq" => found != wanted,
        "lt" => found < wanted,
        "lteq" => found <= wanted,
        "gt" => found > wanted,
        "gteq" => found >= wanted,
        _ => return None,
    })
}

/// S9: so long after an instant, by the calendar in UTC.
fn after(start: Timestamp, duration: &str) -> Option<Timestamp> {
    let span: Span = duration.parse().ok()?;
    Some(start.to_zoned(TimeZone::UTC).checked_add(span).ok()?.timestamp())
}

fn named_instants(value: &Value, world: &World, instants: &mut Vec<Timestamp>) {
    match value {
        Value::String(text) => {
            instants.extend(text.parse::<Timestamp>());
            instants.extend(world.agreed_at.and_then(|agreed| after(agreed, text)));
        }
        Value::Array(all) => all.iter().for_each(|one| named_instants(one, world, instants)),
        Value::Object(members) => members.values().for_each(|one| named_instants(one, world, instants)),
        _ => {}
    }
}

fn named_counts(value: &Value, counts: &mut Vec<u64>) {
    match value {
        Value::Number(number) => counts.extend(number.as_u64()),
        Value::Array(all) => all.iter().for_each(|one| named_counts(one, counts)),
        Value::Object(members) => members.values().for_each(|one| named_counts(one, counts)),
        _ => {}
    }
}

fn many(value: Option<&Value>) -> Vec<Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(all)) => all.clone(),
        Some(one) => vec![one.clone()],
    }
}
