//! Ordinary HTTP: back ends, documents, the command line. Never a peer: those go through [`crate::client`].

use std::time::Duration;

use crate::egress::EgressFilter;

/// Limits of ordinary HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Dialling and the TLS handshake.
    pub connect_timeout: Duration,
    /// Longest pause while reading a response.
    pub read_timeout: Duration,
    /// All of a request, if it is to be limited.
    pub request_timeout: Option<Duration>,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            request_timeout: Some(Duration::from_secs(60)),
        }
    }
}

/// A client for hosts that our own operator named. Redirects are not followed.
///
/// # Errors
/// When the TLS library cannot be set up.
pub fn client(limits: &HttpLimits) -> Result<reqwest::Client, reqwest::Error> {
    let _ = limits;
    todo!()
}

/// A client for hosts that somebody else named: resolves through the filter. Literal addresses are not resolved, so
/// check the URL with [`EgressFilter::check_url`] first.
///
/// # Errors
/// When the TLS library cannot be set up.
pub fn filtered_client(limits: &HttpLimits, egress: &EgressFilter) -> Result<reqwest::Client, reqwest::Error> {
    let _ = (limits, egress);
    todo!()
}
