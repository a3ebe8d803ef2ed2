//! The data plane: bytes from a source to a peer, and from a peer into a sink, under a grant.
//!
//! It knows nothing of protocol messages, documents or policy. Two narrow channels tie it to
//! `control`, so that it can later run as its own process: *grants* come in ([`Grants`]), *flow
//! events* go out ([`FlowEvent`]).
//!
//! Provider: [`gate`] turns token + [`VerifiedPeer`](kontor_core::peer::VerifiedPeer) + grant into a
//! [`Permit`]; no permit, no bytes. [`source`] opens what the grant names, [`pump`] moves it in
//! segments and races every one of them against the grant, [`meter`] counts and digests, [`stage`]
//! changes records, [`rate`] and [`quota`] keep to a speed and a quantity, and [`endpoint`] is the HTTP face of all that. A flow that is stopped ends as an aborted body, never
//! as a short one that looks whole.
//!
//! Consumer: [`puller`] asks, resumes after a cut, compares the provider's receipt with what it
//! wrote, and only then lets [`sink`] give the file its name.
//!
//! Memory per flow is constant: a few segments of [`DataLimits::segment_bytes`], whatever the size.

use std::time::Duration;

pub mod endpoint;
pub mod gate;
pub mod meter;
pub mod puller;
pub mod pump;
pub mod quota;
pub mod rate;
pub mod sink;
pub mod source;
pub mod stage;

pub use endpoint::{FlowEvent, ProviderPlane, Receipt, endpoint_url, router};
pub use gate::{GateRefusal, GrantSpec, Grants, Permit, Stop, StopKind, Verdict};
pub use puller::{PullJob, PullOutcome, PullResult, discard_parts, forget_received, pull};
pub use source::{SourceError, SourceRoots};

/// The media type of the listing of a directory source.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.kontor.index+json";
/// Response header: the id of the flow, to fetch its receipt by.
pub const FLOW_HEADER: &str = "kontor-flow";
/// Response header of a refusal: which [`StopKind`] stopped the transfer.
pub const STOP_HEADER: &str = "kontor-stop";
/// The problem of a token that is bound to another certificate.
const OTHER_CERTIFICATE: &str = "other-certificate";

/// Every limit of the data plane, with its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataLimits {
    /// Bytes read, checked, digested and handed over as one. 65,536 to 1,048,576; the default is
    /// 262,144. A cut takes effect within one of these.
    pub segment_bytes: usize,
    /// Segments read before the peer took the last one. Default 2.
    pub read_ahead_segments: usize,
    /// Longest record of a stream that is changed or counted by records, as it comes and as it leaves. Default 1 MiB.
    pub record_bytes_max: usize,
    /// Bytes of a limited quantity that a flow takes at once; a crash gives none of them back. Default 8 MiB.
    pub quota_chunk_bytes: u64,
    /// Records of a limited quantity that a flow takes at once. Default 4,096.
    pub quota_chunk_records: u64,
    /// Flows at once, all peers together; one more is asked to come back. Default 256; each takes one blocking
    /// thread, of which the runtime must have more.
    pub flows_max: usize,
    /// Flows at once under one grant. Default 8.
    pub flows_per_transfer_max: usize,
    /// Grants of transfers that ended, kept to tell whoever still comes why. Default 4,096; the oldest go first.
    pub ended_grants_max: usize,
    /// How long `control` may take to count a use before the flow is refused. Default 10 s.
    pub opening_timeout: Duration,
    /// How long a peer may take no byte of a flow before it is cut. Default 60 s.
    pub stall_timeout: Duration,
    /// Receipts kept for peers that ask; the oldest go first. Default 4,096.
    pub receipts_max: usize,
    /// How long a request for a receipt waits for its flow to end. Default 2 s.
    pub receipt_wait: Duration,
    /// Files of a directory, as source and as sink. Default 10,000.
    pub directory_entries_max: usize,
    /// Directories within directories. Default 16.
    pub directory_depth_max: usize,
    /// Consumer: bytes of a listing, a receipt or a refusal that are read. Default 8 MiB.
    pub document_bytes_max: usize,
    /// Consumer: how long a provider may send nothing, before and within a body. Default 30 s.
    pub idle_timeout: Duration,
    /// Consumer: how long a provider's message may take that says why it refuses, before the pull fails. Default 5 s.
    pub refusal_wait: Duration,
    /// Consumer: attempts in a row that bring no new segment before the pull fails. Default 8.
    pub resume_attempts_max: u32,
    /// Consumer: the first pause between attempts; it doubles each time. Default 200 ms.
    pub resume_backoff: Duration,
    /// Consumer: the longest wait for a provider that says when the time has come, before asking again. Default 1 h.
    pub not_before_wait_max: Duration,
    /// Consumer: the longest pause between attempts. Default 10 s.
    pub resume_backoff_max: Duration,
    /// Consumer: bytes between two points that a pull can resume from after a crash. Default 256 MiB.
    pub checkpoint_bytes: u64,
}

impl Default for DataLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 256 * 1024,
            read_ahead_segments: 2,
            record_bytes_max: 1024 * 1024,
            quota_chunk_bytes: 8 * 1024 * 1024,
            quota_chunk_records: 4096,
            flows_max: 256,
            flows_per_transfer_max: 8,
            ended_grants_max: 4096,
            opening_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            receipts_max: 4096,
            receipt_wait: Duration::from_secs(2),
            directory_entries_max: 10_000,
            directory_depth_max: 16,
            document_bytes_max: 8 * 1024 * 1024,
            idle_timeout: Duration::from_secs(30),
            refusal_wait: Duration::from_secs(5),
            resume_attempts_max: 8,
            resume_backoff: Duration::from_millis(200),
            not_before_wait_max: Duration::from_secs(3600),
            resume_backoff_max: Duration::from_secs(10),
            checkpoint_bytes: 256 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
