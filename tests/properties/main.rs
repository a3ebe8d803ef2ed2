//! The policy engine against a slow evaluator that reads `SEMANTICS.md` literally, and laws that need no second
//! evaluator. Those that a single package can hold are in `connector/core/tests/policy_laws.rs`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod generate;
mod laws;
mod reference;
