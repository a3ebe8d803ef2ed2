//! Whether this connector can hold to a policy: each problem with its line, and what is enforced
//! when.

use kontor_core::negotiation::Role;
use kontor_core::policy::{self, Capabilities, PROBLEMS_MAX, Phase, Problem, ProblemKind, Step};
use kontor_core::refusal::{Fault, Refusal};
use serde::Serialize;

use super::document;
use super::span::{Place, Spans};

/// What was found in a policy.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Whether all of it is enforced, so that it can be offered and agreed to.
    pub enforceable: bool,
    /// What is not understood or not enforced.
    pub problems: Vec<Placed>,
    /// What is enforced, part by part. Where there are problems nothing is agreed to, and so
    /// nothing comes to be enforced.
    pub enforced: Vec<Enforced>,
    /// The policy in plain English, where it can be read.
    pub reading: Vec<String>,
    /// What two policies that mean the same have in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms_digest: Option<String>,
}

/// A problem with its place in the text.
#[derive(Debug, Clone, Serialize)]
pub struct Placed {
    /// Where in the text.
    #[serde(flatten)]
    pub place: Place,
    /// The problem.
    #[serde(flatten)]
    pub problem: Problem,
}

/// A part that is enforced, with its place in the text.
#[derive(Debug, Clone, Serialize)]
pub struct Enforced {
    /// Where in the text.
    #[serde(flatten)]
    pub place: Place,
    /// What, when and how.
    #[serde(flatten)]
    pub step: Step,
}

/// Checks a policy as it is written, for a connector that can hold to so much.
///
/// # Errors
/// [`Refusal`] with fault `Malformed`, where the text is no JSON object.
pub fn check(text: &str, capabilities: &Capabilities) -> Result<Check, Refusal> {
    let (value, spans) = Spans::read(text).map_err(|error| no_json(&error))?;
    let document = document(value)?;
    let mut problems: Vec<Placed> = spans
        .twice()
        .take(PROBLEMS_MAX)
        .map(|(name, place)| {
            let message = format!("the object has `{name}` twice, and whoever reads JSON keeps the last one alone");
            let cure = "one member with the values of both".to_owned();
            Placed { place, problem: Problem { kind: ProblemKind::Malformed, path: name.to_owned(), message, cure } }
        })
        .collect();
    let placed = |problem: Problem| Placed { place: spans.place(&problem.path), problem };
    let mut found = Check {
        enforceable: false,
        problems: Vec::new(),
        enforced: Vec::new(),
        reading: Vec::new(),
        terms_digest: None,
    };
    match policy::parse_with(&document, &capabilities.vocabulary) {
        Err(unread) => problems.extend(unread.into_iter().map(placed)),
        Ok(parsed) => {
            let plan = policy::plan(&parsed, capabilities);
            problems.extend(plan.refused.into_iter().map(placed));
            let enforced = |step: Step| Enforced { place: spans.place(&step.path), step };
            found.enforced = plan.enforced.into_iter().map(enforced).collect();
            found.reading = policy::explain(&parsed);
            found.terms_digest = Some(policy::terms_digest(&parsed));
        }
    }
    problems.sort_by_key(|problem| problem.place);
    found.enforceable = problems.is_empty();
    found.problems = problems;
    Ok(found)
}

/// The refusal of a text that is no JSON, with the line.
pub(super) fn no_json(error: &serde_json::Error) -> Refusal {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    Refusal::new(Fault::Malformed, "policy.malformed", format!("line {line}, column {column} is no JSON: {what}"))
        .by("RFC 8259")
        .cure("an ODRL policy as JSON")
}

impl Check {
    /// The findings in words, for a text of this name.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        let mut lines = vec![match self.problems.len() {
            0 => format!("{name}: in order, this connector enforces all of it"),
            1 => format!("{name}: refused, there is 1 problem"),
            several => format!("{name}: refused, there are {several} problems"),
        }];
        for Placed { place, problem } in &self.problems {
            let path = if problem.path.is_empty() { "(the policy)" } else { problem.path.as_str() };
            lines.push(String::new());
            lines.push(format!("line {}, {path}", place.line));
            lines.push(format!("  {}", problem.message));
            lines.push(format!("  would have passed: {}", problem.cure));
        }
        if !self.reading.is_empty() {
            lines.push(String::new());
            lines.push("What it says:".to_owned());
            lines.extend(self.reading.iter().map(|sentence| format!("  {sentence}")));
        }
        if !self.enforced.is_empty() {
            lines.push(String::new());
            lines.push(match self.enforceable {
                true => "What is enforced, when and by whom:".to_owned(),
                false => "What would be enforced without the problems, when and by whom:".to_owned(),
            });
            self.phases(&mut lines);
        }
        lines.join("\n")
    }

    /// Phase by phase, in the order in which they come.
    fn phases(&self, lines: &mut Vec<String>) {
        let mut all: Vec<((Phase, Role), &Enforced, &str)> = self
            .enforced
            .iter()
            .flat_map(|part| part.step.phases.iter().map(move |how| ((how.phase, how.by), part, how.how.as_str())))
            .collect();
        all.sort_by_key(|(when, part, _)| (*when, part.place));
        let mut before = None;
        for (when, part, how) in all {
            if before != Some(when) {
                let (phase, by) = when;
                lines.push(format!("  {}, by the {}", phase.words(), by.as_str()));
                before = Some(when);
            }
            lines.push(format!("    line {}, {}: {how}", part.place.line, part.step.term));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const GOOD: &str = r#"{
  "permission": [
    { "action": "use",
      "constraint": [
        { "leftOperand": "count", "operator": "lteq", "rightOperand": 2 } ] }
  ]
}"#;

    #[test]
    fn a_good_policy_says_what_is_enforced_when() {
        let found = check(GOOD, &Capabilities::default()).unwrap();
        assert!(found.enforceable && found.problems.is_empty());
        let text = found.text("ships.json");
        assert!(text.starts_with("ships.json: in order"), "{text}");
        assert!(text.contains("  when a transfer starts, by the provider\n    line 5, at most 2 uses: "), "{text}");
        assert!(text.contains("What it says:\n  Whoever agrees may use the data"), "{text}");
    }

    #[test]
    fn every_problem_has_its_line_path_and_cure() {
        let text = GOOD.replace("\"action\": \"use\"", "\"action\": \"use\", \"mood\": \"good\"").replace("lteq", "hm");
        let found = check(&text, &Capabilities::default()).unwrap();
        let places: Vec<(usize, &str)> =
            found.problems.iter().map(|found| (found.place.line, found.problem.path.as_str())).collect();
        assert_eq!(places, [(3, "permission[0].mood"), (5, "permission[0].constraint[0].operator")]);
        let words = found.text("ships.json");
        assert!(
            words.starts_with("ships.json: refused, there are 2 problems\n\nline 3, permission[0].mood\n"),
            "{words}"
        );
        assert_eq!(words.matches("would have passed: ").count(), 2, "{words}");
    }

    #[test]
    fn what_is_written_twice_is_a_problem() {
        let text = GOOD.replacen("\"permission\"", "\"permission\": [],\n  \"permission\"", 1);
        let found = check(&text, &Capabilities::default()).unwrap();
        assert_eq!((found.enforceable, found.problems[0].place.line), (false, 3));
        assert!(found.problems[0].problem.message.contains("twice"));
    }

    #[test]
    fn what_is_no_policy_at_all_is_refused_with_the_line() {
        let refused = |text: &str| check(text, &Capabilities::default()).unwrap_err().sentences().join("; ");
        assert!(refused("{\n  \"permission\": }").contains("line 2, column 17 is no JSON"), "{}", refused("{\n }}"));
        assert!(refused("[]").contains("this is an array"));
        assert!(refused("").contains("line 1"));
    }
}
