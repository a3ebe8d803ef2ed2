//! A policy in plain English, and what it would decide of a concrete request.

use jiff::Timestamp;
use kontor_core::id::ParticipantId;
use kontor_core::policy::{
    self, Capabilities, Decision, DutyState, Policy, Reason, Request, Standing, Vocabulary, World,
};
use kontor_core::refusal::{Fault, Refusal};
use serde::Serialize;

use super::check::no_json;
use super::document;
use super::span::Spans;
use crate::control::fact;

/// What somebody would like to know of a policy.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who asks.
    pub assignee: ParticipantId,
    /// What for: an action of ODRL.
    pub action: String,
    /// On what. Absent: what the policy is about.
    pub target: Option<String>,
    /// When it is asked.
    pub at: Timestamp,
    /// When the agreement was made. Absent: what the policy says itself.
    pub agreed_at: Option<Timestamp>,
    /// Which use it would be, from 1.
    pub uses: Option<u64>,
    /// What is known, by name. What is not stated is not known.
    pub facts: Vec<(String, String)>,
}

/// A policy in words.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// One sentence for each rule.
    pub reading: Vec<String>,
    /// What of it this connector cannot hold to, and why: with one of these it is refused.
    pub refused: Vec<String>,
    /// The answer to the question, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Verdict>,
}

/// What would be decided.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The question in words.
    pub question: String,
    /// Yes or no.
    pub allowed: bool,
    /// Until when the answer stays the same if nothing but time changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// How many uses are allowed in all, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses_max: Option<u64>,
    /// Why; for a no also what would have passed.
    pub reasons: Vec<Reason>,
}

/// Reads a policy aloud, and decides the question under it.
///
/// # Errors
/// [`Refusal`] that names every problem, where the policy cannot be read.
pub fn explain(text: &str, question: Option<&Question>, capabilities: &Capabilities) -> Result<Explanation, Refusal> {
    let (value, spans) = Spans::read(text).map_err(|error| no_json(&error))?;
    let document = document(value)?;
    let parsed = policy::parse_with(&document, &capabilities.vocabulary).map_err(|problems| {
        let refusal = policy::refusal(&problems);
        let line = refusal.field.as_deref().map_or(1, |field| spans.place(field).line);
        // The rest of them, each with its line, is what `check` prints.
        Refusal { message: format!("line {line}: {}", refusal.message), ..refusal }
    })?;
    Ok(Explanation {
        reading: policy::explain(&parsed),
        refused: policy::plan(&parsed, capabilities).refused.iter().map(ToString::to_string).collect(),
        decision: question.map(|question| decide(&parsed, question, &capabilities.vocabulary)).transpose()?,
    })
}

fn decide(policy: &Policy, question: &Question, vocabulary: &Vocabulary) -> Result<Verdict, Refusal> {
    if question.uses == Some(0) {
        return Err(Refusal::new(Fault::Malformed, "policy.question", "the asked-for use is counted, so 0 is none")
            .at("uses")
            .cure("1 for the first use"));
    }
    let target = question.target.clone().or_else(|| policy.target.clone());
    let request = Request { action: question.action.clone(), assignee: question.assignee.clone(), target };
    let agreed_at = question.agreed_at.or(policy.timestamp);
    let mut world = World { now: question.at, agreed_at, uses: question.uses, ..World::default() };
    for (name, text) in &question.facts {
        if matches!(name.as_str(), fact::CONSENT | fact::PAYMENT) {
            for key in fact::fulfilled_by(name, policy) {
                world.duties.insert(key, Standing { state: DutyState::Fulfilled, until: None });
            }
        } else {
            let (name, value) = fact::stated(name, text, vocabulary)?;
            world.facts.insert(&name, value);
        }
    }
    let Decision { allowed, valid_until, uses_max, reasons, .. } = policy::evaluate(policy, &request, &world);
    Ok(Verdict { question: words(&request, &world, &question.facts), allowed, valid_until, uses_max, reasons })
}

fn words(request: &Request, world: &World, facts: &[(String, String)]) -> String {
    let what = request.target.as_ref().map_or_else(|| "the data".to_owned(), |target| format!("`{target}`"));
    let mut words = format!("may `{}` {} {what} at {}", request.assignee, request.action, world.now);
    if let Some(agreed) = world.agreed_at {
        words.push_str(&format!(", under an agreement made at {agreed}"));
    }
    if let Some(uses) = world.uses {
        words.push_str(&format!(", as use {uses}"));
    }
    for (name, value) in facts {
        words.push_str(&format!(", with `{name}` {value}"));
    }
    words.push('?');
    words
}

impl Explanation {
    /// The explanation in words.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec!["What it says:".to_owned()];
        lines.extend(self.reading.iter().map(|sentence| format!("  {sentence}")));
        if !self.refused.is_empty() {
            lines.push(String::new());
            lines.push("This connector does not agree to it, because of:".to_owned());
            lines.extend(self.refused.iter().map(|problem| format!("  {problem}")));
        }
        if let Some(verdict) = &self.decision {
            lines.push(String::new());
            lines.push(format!("Asked: {}", verdict.question));
            lines.push(verdict.answer());
            lines.extend(verdict.reasons.iter().map(|reason| format!("  {}: {}", reason.path, reason.message)));
        }
        lines.join("\n")
    }
}

impl Verdict {
    fn answer(&self) -> String {
        let mut answer = if self.allowed { "Yes".to_owned() } else { "No".to_owned() };
        match self.valid_until {
            Some(turns) => answer.push_str(&format!(", until {turns}")),
            None => answer.push_str(", at any later time too"),
        }
        match self.uses_max {
            Some(0) => answer.push_str(", and for no use"),
            Some(uses) if self.allowed => answer.push_str(&format!(", up to use {uses}")),
            Some(_) | None => {}
        }
        answer.push_str(", because:");
        answer
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const POLICY: &str = r#"{ "permission": [ { "action": "use", "constraint": [
        { "leftOperand": "count", "operator": "lteq", "rightOperand": 2 },
        { "leftOperand": "dateTime", "operator": "lt", "rightOperand": "2030-01-01T00:00:00Z" } ] } ] }"#;

    fn question(at: &str, uses: u64) -> Question {
        Question {
            assignee: ParticipantId::parse("urn:example:reader").unwrap(),
            action: "use".to_owned(),
            target: None,
            at: at.parse().unwrap(),
            agreed_at: None,
            uses: Some(uses),
            facts: Vec::new(),
        }
    }

    #[test]
    fn a_yes_says_until_when_and_how_often() {
        let told = explain(POLICY, Some(&question("2029-12-31T00:00:00Z", 1)), &Capabilities::default()).unwrap();
        let text = told.text();
        assert!(told.decision.unwrap().allowed);
        assert!(text.contains("Yes, until 2030-01-01T00:00:00Z, up to use 2, because:"), "{text}");
    }

    #[test]
    fn a_no_says_what_would_have_passed() {
        let text =
            explain(POLICY, Some(&question("2029-12-31T00:00:00Z", 3)), &Capabilities::default()).unwrap().text();
        assert!(text.contains("\nNo, ") && text.contains("this is use 3, and at most 2 uses is asked for"), "{text}");
    }

    #[test]
    fn what_is_not_enforced_is_read_and_said_to_be_refused() {
        let told = explain(&POLICY.replace("count", "spatial"), None, &Capabilities::default()).unwrap();
        assert!(told.decision.is_none());
        assert!(told.text().contains("does not agree to it") && told.text().contains("`spatial`"), "{}", told.text());
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_line() {
        let refusal = explain(&POLICY.replace("lteq", "hm"), None, &Capabilities::default()).unwrap_err();
        assert!(refusal.message.starts_with("line 2: "), "{refusal}");
        assert!(explain(POLICY, Some(&question("2029-12-31T00:00:00Z", 0)), &Capabilities::default()).is_err());
    }
}
