//! Policies for people: is a policy good, what does it mean, what would be decided, and templates
//! to begin with.
//!
//! The same values are printed by `kontor policy …` and answered by the management API. What a
//! policy means is the core's alone: this room finds the lines and says it in words.

pub mod check;
pub mod command;
pub mod explain;
pub mod span;
pub mod template;

use kontor_core::refusal::{Fault, Refusal};
use kontor_vocab::context::compact;
use kontor_vocab::odrl::PolicyDocument;
use serde_json::Value;

/// The document of a JSON value, in compact form.
///
/// # Errors
/// [`Refusal`] with fault `Malformed`, where the value is no object.
pub fn document(value: Value) -> Result<PolicyDocument, Refusal> {
    let kind = match &value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    PolicyDocument::from_value(compact(value)).map_err(|_| {
        Refusal::new(Fault::Malformed, "policy.malformed", format!("a policy is one JSON object, and this is {kind}"))
            .by("ODRL Information Model 2.2, Policy")
            .cure("`{\"permission\": [{\"action\": \"use\"}]}`, or what `kontor policy templates` prints")
    })
}
