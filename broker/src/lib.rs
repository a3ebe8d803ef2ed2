//! Kontor's metadata broker: self-descriptions in, SPARQL and search out.
//!
//! * [`ingest`] reads what a connector sends, within limits; [`validate`] holds it to the shape; [`registry`] keeps
//!   one description per participant, with a lease.
//! * [`store`] keeps documents in SQLite and the graph in oxigraph; nothing else touches either.
//! * [`query`] and [`search`] read, within limits. [`http`] answers.
//! * [`settings`], [`cli`] and [`app`] put the program together.

pub mod app;
pub mod cli;
pub mod http;
pub mod ingest;
pub mod query;
pub mod registry;
pub mod search;
pub mod settings;
pub mod store;
pub mod validate;
