//! What is decided without a person: rules looked up by machine, role and state.
//!
//! The built-in rules follow the policy: a request that means the same as a published offer is
//! agreed to, a verified agreement is finalized, a requested transfer is started when its policy
//! allows it. An operator's file can add rules for single datasets, offers or agreements; the
//! first that matches decides, and `hold` leaves the decision to a person.
//!
//! ```toml
//! [[rule]]
//! machine = "negotiation"      # or "transfer"
//! role = "provider"            # or "consumer"
//! state = "REQUESTED"
//! subject = "urn:data:1"       # dataset (negotiation) or agreement (transfer); absent: all
//! relation = ["wider"]         # negotiation: only where the peer's terms are equal narrower wider conflict unknown; absent: any
//! visit = 1                    # only the n-th time that the state is entered; absent: always
//! action = "hold"              # request offer counter accept agree verify finalize terminate
//!                              # start suspend complete, or hold
//! after_ms = 0                 # waits before it acts
//! ```

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use kontor_core::negotiation::{Negotiation, OfferKind, Role, State, StateName};
use kontor_core::policy::RelationKind;
use kontor_core::transfer::{self, Transfer};
use serde::Deserialize;

use crate::settings::{Approval, SettingsError};

const NEGOTIATION_STATES: [&str; 7] =
    ["REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED", "FINALIZED", "TERMINATED"];
const TRANSFER_STATES: [&str; 5] = ["REQUESTED", "STARTED", "SUSPENDED", "COMPLETED", "TERMINATED"];

/// The state that a step's record tells of, such as `negotiation.offered`. Told by records, since
/// one step passes through two states when a peer's message proves that ours arrived.
#[must_use]
pub fn state_entered(event: &str) -> Option<&'static str> {
    let (machine, word) = event.split_once('.')?;
    let names: &[&'static str] = match machine {
        "negotiation" => &NEGOTIATION_STATES,
        "transfer" => &TRANSFER_STATES,
        _ => return None,
    };
    names.iter().copied().find(|name| name.eq_ignore_ascii_case(word))
}

/// Which machine a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// Contract negotiation.
    Negotiation,
    /// Transfer process.
    Transfer,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing: a person decides.
    Hold,
    /// Consumer: ask again with the same terms.
    Request,
    /// Provider: offer what is on the table.
    Offer,
    /// Provider: offer what is published instead of what was asked for.
    Counter,
    /// Consumer: accept.
    Accept,
    /// Provider: agree.
    Agree,
    /// Consumer: verify.
    Verify,
    /// Provider: finalize.
    Finalize,
    /// Either: terminate.
    Terminate,
    /// Start or resume a transfer.
    Start,
    /// Suspend a transfer.
    Suspend,
    /// Complete a transfer.
    Complete,
}

/// One rule of an operator's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    machine: Machine,
    role: Role,
    state: String,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    relation: Option<Vec<RelationKind>>,
    #[serde(default)]
    visit: Option<u32>,
    action: Action,
    #[serde(default)]
    after_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    rule: Vec<Rule>,
}

/// A decision, and how long to wait before it is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What to do; never `Hold`.
    pub action: Action,
    /// After this time; zero acts in the same commit.
    pub after: Duration,
}

/// The rules in force.
#[derive(Debug)]
pub struct Rules {
    approval: Approval,
    narrower: Approval,
    rules: Vec<Rule>,
}

/// How often a process entered its states, told by the records of its steps.
#[derive(Debug, Default)]
pub struct Visits(HashMap<&'static str, u32>);

impl Visits {
    /// Counts a record; one that tells of no state counts nothing.
    pub fn count(&mut self, event: &str) {
        if let Some(state) = state_entered(event) {
            let count = self.0.entry(state).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Which visit of the state this is, 1 for the first.
    fn of(&self, state: &str) -> u32 {
        self.0.get(state).copied().unwrap_or(0).max(1)
    }
}

impl Rules {
    /// The built-in rules alone.
    #[must_use]
    pub fn built_in(approval: Approval) -> Self {
        Self { approval, narrower: Approval::Manual, rules: Vec::new() }
    }

    /// The same, with who agrees to requests that are narrower than a published offer.
    #[must_use]
    pub fn narrower(self, narrower: Approval) -> Self {
        Self { narrower, ..self }
    }

    /// The built-in rules behind those of a file.
    ///
    /// # Errors
    /// [`SettingsError`] when the file cannot be read or a rule is not one.
    pub fn load(approval: Approval, file: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| SettingsError::Unreadable(format!("{}: {error}", file.display())))?;
        Self::parse(approval, &text)
    }

    /// The built-in rules behind those of a TOML text.
    ///
    /// # Errors
    /// [`SettingsError`] when a rule is not one.
    pub fn parse(approval: Approval, text: &str) -> Result<Self, SettingsError> {
        let file: RuleFile = config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| SettingsError::Value { key: "automation.rules".to_owned(), rule: error.to_string() })?;
        for rule in &file.rule {
            let names: &[&str] = match rule.machine {
                Machine::Negotiation => &NEGOTIATION_STATES,
                Machine::Transfer => &TRANSFER_STATES,
            };
            if !names.contains(&rule.state.as_str()) {
                return Err(SettingsError::Value {
                    key: "automation.rules: state".to_owned(),
                    rule: format!("`{}` is no state; {} would have passed", rule.state, names.join(", ")),
                });
            }
            let brings_terms = match rule.role {
                Role::Provider => "REQUESTED",
                Role::Consumer => "OFFERED",
            };
            if rule.relation.is_some() && (rule.machine != Machine::Negotiation || rule.state != brings_terms) {
                return Err(SettingsError::Value {
                    key: "automation.rules: relation".to_owned(),
                    rule: format!(
                        "terms of the peer are on the table in REQUESTED (provider) and OFFERED (consumer) of a negotiation, not in {}",
                        rule.state
                    ),
                });
            }
        }
        Ok(Self { approval, narrower: Approval::Manual, rules: file.rule })
    }

    /// Whether any rule counts visits; otherwise nobody needs to.
    #[must_use]
    pub fn count_visits(&self) -> bool {
        self.rules.iter().any(|rule| rule.visit.is_some())
    }

    /// What to do with a negotiation as it stands; `None` leaves it to a person or the peer.
    /// `visits` include those of the step that is not committed yet.
    #[must_use]
    pub fn negotiation(&self, negotiation: &Negotiation, visits: &Visits) -> Option<Decision> {
        let subjects: Vec<&str> = match negotiation.offer() {
            Some(offer) => vec![offer.target.as_str(), offer.id.as_str()],
            None => negotiation.agreement().map(|agreement| agreement.target.as_str()).into_iter().collect(),
        };
        let state = negotiation.state.name();
        let relation = negotiation.compared.as_ref().map(|compared| compared.relation);
        let asked = (Machine::Negotiation, negotiation.role, state.as_str());
        if let Some(found) = self.of_file(asked, &subjects, relation, visits) {
            return found;
        }
        let at_once = |action| Some(Decision { action, after: Duration::ZERO });
        let automatic = self.approval == Approval::Automatic;
        match (negotiation.role, &negotiation.state) {
            (Role::Provider, State::Requested { kind: OfferKind::Published, .. }) if automatic => {
                at_once(Action::Agree)
            }
            (Role::Provider, State::Requested { .. })
                if automatic
                    && self.narrower == Approval::Automatic
                    && matches!(relation, Some(RelationKind::Equal | RelationKind::Narrower)) =>
            {
                at_once(Action::Agree)
            }
            // What the consumer accepted is an offer that we made ourselves.
            (Role::Provider, State::Accepted { .. }) => at_once(Action::Agree),
            (Role::Provider, State::Verified { .. }) => at_once(Action::Finalize),
            (Role::Consumer, State::Offered { kind: OfferKind::Published, .. }) => at_once(Action::Accept),
            (Role::Consumer, State::Agreed { .. }) => at_once(Action::Verify),
            _ => None,
        }
    }

    /// What to do with a transfer as it stands; `visits` as for a negotiation.
    #[must_use]
    pub fn transfer(&self, transfer: &Transfer, visits: &Visits) -> Option<Decision> {
        let subjects = [transfer.agreement.as_str(), transfer.dataset.as_str()];
        let state = transfer.state.name();
        let asked = (Machine::Transfer, transfer.role, state.as_str());
        if let Some(found) = self.of_file(asked, &subjects, None, visits) {
            return found;
        }
        match (transfer.role, state) {
            (Role::Provider, transfer::StateName::Requested) => {
                Some(Decision { action: Action::Start, after: Duration::ZERO })
            }
            _ => None,
        }
    }

    /// `Some(None)` is a rule that holds.
    fn of_file(
        &self,
        (machine, role, state): (Machine, Role, &'static str),
        subjects: &[&str],
        relation: Option<RelationKind>,
        visits: &Visits,
    ) -> Option<Option<Decision>> {
        let rule = self.rules.iter().find(|rule| {
            rule.machine == machine
                && rule.role == role
                && rule.state == state
                && rule.subject.as_deref().is_none_or(|subject| subjects.contains(&subject))
                && rule.relation.as_ref().is_none_or(|wanted| relation.is_some_and(|found| wanted.contains(&found)))
                && rule.visit.is_none_or(|wanted| visits.of(state) == wanted)
        })?;
        Some(match rule.action {
            Action::Hold => None,
            action => Some(Decision { action, after: Duration::from_millis(rule.after_ms) }),
        })
    }
}

/// Whether a negotiation in this state can still change by our doing.
#[must_use]
pub fn is_open(state: StateName) -> bool {
    !state.is_terminal()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const RULES: &str = r#"
        [[rule]]
        machine = "negotiation"
        role = "provider"
        state = "REQUESTED"
        subject = "urn:data:1"
        visit = 2
        action = "terminate"
        after_ms = 5
        [[rule]]
        machine = "negotiation"
        role = "provider"
        state = "REQUESTED"
        action = "hold"
    "#;

    fn decided(rules: &Rules, events: &[&str]) -> Option<Action> {
        let mut visits = Visits::default();
        events.iter().for_each(|event| visits.count(event));
        let asked = (Machine::Negotiation, Role::Provider, "REQUESTED");
        let found = rules.of_file(asked, &["urn:data:1"], None, &visits);
        found.unwrap().map(|decision| decision.action)
    }

    #[test]
    fn visits_are_counted_by_the_records_of_a_process() {
        let rules = Rules::parse(Approval::Automatic, RULES).unwrap();
        assert!(rules.count_visits() && !Rules::built_in(Approval::Automatic).count_visits());
        assert_eq!(decided(&rules, &[]), None, "what stands in a state has entered it once");
        assert_eq!(decided(&rules, &["negotiation.requested"]), None, "the first visit is held");
        let again = ["negotiation.requested", "negotiation.intended", "negotiation.offered", "negotiation.requested"];
        assert_eq!(decided(&rules, &again), Some(Action::Terminate));
        assert_eq!(decided(&rules, &[again[0], again[0], again[0]]), None, "the third is not the second");
    }

    #[test]
    fn records_name_the_states_that_were_entered() {
        assert_eq!(state_entered("negotiation.offered"), Some("OFFERED"));
        assert_eq!(state_entered("transfer.started"), Some("STARTED"));
        assert_eq!(state_entered("negotiation.intended"), None);
        assert_eq!(state_entered("transfer.offered"), None);
    }

    #[test]
    fn a_rule_can_ask_how_the_terms_compare() {
        let text = RULES.replacen("visit = 2", "relation = [\"wider\", \"conflict\"]", 1);
        let rules = Rules::parse(Approval::Automatic, &text).unwrap();
        let decided = |relation| {
            let asked = (Machine::Negotiation, Role::Provider, "REQUESTED");
            rules.of_file(asked, &["urn:data:1"], relation, &Visits::default()).unwrap()
        };
        assert_eq!(decided(Some(RelationKind::Wider)).map(|decision| decision.action), Some(Action::Terminate));
        assert_eq!(decided(Some(RelationKind::Narrower)), None);
        assert_eq!(decided(None), None);
        for wrong in [text.replacen("REQUESTED", "VERIFIED", 1), text.replacen("\"provider\"", "\"consumer\"", 1)] {
            let error = Rules::parse(Approval::Automatic, &wrong).unwrap_err().to_string();
            assert!(error.contains("relation"), "{error}");
        }
        assert!(Rules::parse(Approval::Automatic, &text.replacen("wider", "bigger", 1)).is_err());
    }

    #[test]
    fn a_state_that_is_none_is_refused() {
        let error = Rules::parse(Approval::Automatic, &RULES.replacen("REQUESTED", "ASKED", 1)).unwrap_err();
        assert!(error.to_string().contains("`ASKED`"), "{error}");
    }
}
