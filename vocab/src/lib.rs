//! Words only: the terms of the data space, without behaviour.
//!
//! * [`iri`]: constants of the namespaces that we speak, each with its meaning.
//! * [`context`]: the JSON-LD terms of DSP 2025-1 and ODRL 2.2, and the way back from
//!   prefixed and expanded spellings to the compact one.
//! * [`dsp`]: the messages of the Dataspace Protocol 2025-1, as they travel.
//! * [`odrl`]: an ODRL policy as it travels, with every member kept.
//! * [`dcat`]: catalogue, dataset, distribution and data service, as they travel.
//!
//! Nothing here decides, looks up, waits or reads a clock.

pub mod context;
pub mod dcat;
pub mod dsp;
pub mod iri;
pub mod odrl;
