//! Trust and transport, implemented once for both programs.
//!
//! Everything that touches OpenSSL or opens a socket to another participant lives here: TLS 1.3 with mutual
//! authentication ([`tls`], [`identity`]), the accept loop with its limits ([`serve`]), the client that reaches peers
//! ([`client`]) through the address filter ([`egress`]), ordinary HTTP ([`http`]), and the small things that both
//! programs answer with ([`problem`], [`token`], [`trace`]) or end by ([`stdin`]). [`pki`] makes throw-away certificates.
//!
//! Nothing here knows a protocol message or a policy. What leaves this package about a peer is one value, the core's
//! `VerifiedPeer`, and it is made in two places only: [`identity::verified_peer`] and the adapter of the profile whose
//! name says `insecure`.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::panic, clippy::wildcard_enum_match_arm))]

pub mod client;
pub mod egress;
pub mod http;
pub mod identity;
pub mod pki;
pub mod problem;
pub mod serve;
pub mod stdin;
mod stream;
pub mod tls;
pub mod token;
pub mod trace;
