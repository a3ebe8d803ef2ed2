//! The connector as a library: what the program `kontor` is made of.

pub mod data;
pub mod model;
pub mod store;
