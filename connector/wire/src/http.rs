//! Ordinary HTTP: back ends, documents, the command line. Never a peer: those go through [`crate::client`].

use std::sync::OnceLock;
use std::time::Duration;

pub use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, ClientBuilder};

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

/// A client for hosts that our own operator named. Redirects are not followed, and no proxy is read from the
/// environment.
///
/// # Errors
/// When the TLS library cannot be set up.
pub fn client(limits: &HttpLimits) -> Result<Client, reqwest::Error> {
    builder(limits).build()
}

/// A client for hosts that somebody else named: resolves through the filter. Literal addresses are not resolved, so
/// check the URL with [`EgressFilter::check_url`] first.
///
/// # Errors
/// When the TLS library cannot be set up.
pub fn filtered_client(limits: &HttpLimits, egress: &EgressFilter) -> Result<Client, reqwest::Error> {
    builder(limits).dns_resolver(Filtered(egress.clone())).build()
}

fn builder(limits: &HttpLimits) -> ClientBuilder {
    let mut builder = Client::builder()
        .connect_timeout(limits.connect_timeout)
        .read_timeout(limits.read_timeout)
        .redirect(Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
        .tls_certs_merge(public_authorities().iter().cloned());
    if let Some(timeout) = limits.request_timeout {
        builder = builder.timeout(timeout);
    }
    builder
}

/// The system's public authorities. OpenSSL built from source does not know where the system keeps them.
fn public_authorities() -> &'static [Certificate] {
    static AUTHORITIES: OnceLock<Vec<Certificate>> = OnceLock::new();
    AUTHORITIES.get_or_init(|| {
        let file = openssl_probe::probe().cert_file;
        let pem = file.and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        Certificate::from_pem_bundle(&pem).unwrap_or_default()
    })
}

struct Filtered(EgressFilter);

impl Resolve for Filtered {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.0.clone();
        Box::pin(async move {
            // The port is reqwest's business; it overwrites a zero.
            let addresses = egress.resolve(name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}
