//! Why we say no: by fault, with the section of the specification and what would have passed.

use serde::{Deserialize, Serialize};

/// Whose fault a refusal is, which decides what the other side can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The message is not a message: wrong shape, type or value. Send another one.
    Malformed,
    /// The message is a message but not now: illegal in the present state.
    IllegalMove,
    /// Unknown, or not for this peer: both read the same, so that nothing can be probed.
    NotFound,
    /// The policy says no.
    Denied,
    /// The policy asks for something that this connector cannot enforce.
    Unenforceable,
    /// What was agreed and what was sent differ.
    Altered,
    /// One of our limits was met.
    Limit,
    /// Our own side cannot, now; trying later may help.
    Unavailable,
}

/// A refusal: what was wrong, where, by which rule, and what would have passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Whose fault.
    pub fault: Fault,
    /// Short stable code, such as `negotiation.illegal-move`.
    pub code: String,
    /// One sentence, lower case, without a final stop, input in backticks.
    pub message: String,
    /// JSON path of the member at fault, such as `offer.permission[0].action`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The rule, with its specification: `DSP 2025-1, Contract Negotiation, states`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What would have passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

impl Refusal {
    /// A refusal with its code and message.
    #[must_use]
    pub fn new(fault: Fault, code: &str, message: impl Into<String>) -> Self {
        Self { fault, code: code.to_owned(), message: message.into(), field: None, rule: None, cure: None }
    }

    /// Names the member at fault.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the rule.
    #[must_use]
    pub fn by(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }

    /// Says what would have passed.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// The refusal in sentences, for a `reason` array of a protocol error.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut all = vec![match &self.field {
            Some(field) => format!("{}: {}", field, self.message),
            None => self.message.clone(),
        }];
        all.extend(self.rule.iter().map(|rule| format!("rule: {rule}")));
        all.extend(self.cure.iter().map(|cure| format!("would have passed: {cure}")));
        all
    }
}
