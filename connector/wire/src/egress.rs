//! Which addresses we dial when somebody else names them.

use std::net::SocketAddr;

use ipnet::IpNet;
use url::Url;

/// Why an address is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// The URL itself is at fault.
    #[error("`{url}`: {reason}")]
    Url {
        /// The URL, without user and password.
        url: String,
        /// What is wrong with it, and what would have passed.
        reason: String,
    },
    /// The host has only addresses that are not dialled.
    #[error("`{host}` is {address}, {kind}; list its network among the allowed ones if it is meant to be reached")]
    Address {
        /// The host as named.
        host: String,
        /// The first of its addresses.
        address: String,
        /// What kind of address that is.
        kind: &'static str,
    },
    /// The name cannot be resolved.
    #[error("`{host}` cannot be resolved: {reason}")]
    Resolve {
        /// The host as named.
        host: String,
        /// What the resolver said.
        reason: String,
    },
}

/// The filter of addresses.
#[derive(Debug, Clone)]
pub struct EgressFilter {}

impl EgressFilter {
    /// HTTPS to public addresses, and to the networks allowed here.
    #[must_use]
    pub fn new(allow: Vec<IpNet>) -> Self {
        let _ = allow;
        todo!()
    }

    /// Plain HTTP, to loopback only: for the profile whose name says `insecure`.
    #[must_use]
    pub fn insecure() -> Self {
        todo!()
    }

    /// Checks what can be checked without resolving: scheme, user and password, literal addresses.
    ///
    /// # Errors
    /// [`EgressError`].
    pub fn check_url(&self, url: &Url) -> Result<(), EgressError> {
        let _ = url;
        todo!()
    }

    /// Resolves a host to addresses that may be dialled. Dial these and no others.
    ///
    /// # Errors
    /// [`EgressError`].
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, EgressError> {
        let _ = (host, port);
        todo!()
    }
}
