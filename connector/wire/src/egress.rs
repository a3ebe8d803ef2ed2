//! Which addresses we dial when somebody else names them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use url::{Host, Url};

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
    #[error(
        "`{host}` is {address}, {kind}; list its network in the setting `egress.allow_networks` if it is meant to be reached"
    )]
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

/// The filter of addresses. Everything that a peer names passes here before it is dialled.
#[derive(Debug, Clone)]
pub struct EgressFilter {
    allow: Arc<[IpNet]>,
    hosts: Arc<HashMap<String, Vec<IpAddr>>>,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// HTTPS to public addresses and allowed networks.
    Https,
    /// Plain HTTP to loopback.
    InsecureLoopback,
}

impl EgressFilter {
    /// HTTPS to public addresses, and to the networks allowed here.
    #[must_use]
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self { allow: allow.into(), hosts: Arc::default(), mode: Mode::Https }
    }

    /// Plain HTTP, to loopback only: for the profile whose name says `insecure`.
    #[must_use]
    pub fn insecure() -> Self {
        Self { allow: Arc::default(), hosts: Arc::default(), mode: Mode::InsecureLoopback }
    }

    /// The same filter with fixed addresses for some hosts, asked before the resolver. They are filtered like any
    /// other.
    #[must_use]
    pub fn with_hosts(self, hosts: HashMap<String, Vec<IpAddr>>) -> Self {
        Self { hosts: Arc::new(hosts), ..self }
    }

    pub(crate) fn into_insecure(self) -> Self {
        Self { mode: Mode::InsecureLoopback, ..self }
    }

    /// Checks what can be checked without resolving: scheme, user and password, literal addresses.
    ///
    /// # Errors
    /// [`EgressError`].
    pub fn check_url(&self, url: &Url) -> Result<(), EgressError> {
        let refuse = |reason: &str| Err(EgressError::Url { url: without_userinfo(url), reason: reason.to_owned() });
        match (self.mode, url.scheme()) {
            (Mode::Https, "https") | (Mode::InsecureLoopback, "http") => {}
            (Mode::Https, _) => return refuse("the scheme must be `https`"),
            (Mode::InsecureLoopback, _) => return refuse("the scheme must be `http` in an insecure profile"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("an address carries no user and password; leave out what stands before `@`");
        }
        if url.port_or_known_default() == Some(0) {
            return refuse("port 0 is no port");
        }
        match url.host() {
            None => refuse("the address names no host"),
            Some(Host::Domain(name)) => {
                // Known to be loopback without asking anyone (RFC 6761); a resolver might be told otherwise.
                let name = name.trim_end_matches('.');
                if name == "localhost" || name.ends_with(".localhost") {
                    return self.check_address(name, IpAddr::V4(Ipv4Addr::LOCALHOST));
                }
                Ok(())
            }
            Some(Host::Ipv4(ip)) => self.check_address(&ip.to_string(), ip.into()),
            Some(Host::Ipv6(ip)) => self.check_address(&ip.to_string(), ip.into()),
        }
    }

    /// Resolves a host to addresses that may be dialled. Dial these and no others: to resolve again would open the
    /// door that this closes (DNS rebinding).
    ///
    /// # Errors
    /// [`EgressError`].
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, EgressError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<IpAddr> = if let Ok(ip) = bare.parse() {
            vec![ip]
        } else if let Some(fixed) = self.hosts.get(bare) {
            fixed.clone()
        } else {
            let found = tokio::net::lookup_host((bare, port))
                .await
                .map_err(|error| EgressError::Resolve { host: host.to_owned(), reason: error.to_string() })?;
            found.map(|address| address.ip()).collect()
        };
        self.filter(host, port, &addresses)
    }

    fn filter(&self, host: &str, port: u16, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, EgressError> {
        let mut first = None;
        let mut passed = Vec::new();
        for ip in addresses {
            match self.check_address(host, *ip) {
                Ok(()) => passed.push(SocketAddr::new(*ip, port)),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        if !passed.is_empty() {
            return Ok(passed);
        }
        Err(first.unwrap_or(EgressError::Resolve { host: host.to_owned(), reason: "it has no address".to_owned() }))
    }

    fn check_address(&self, host: &str, ip: IpAddr) -> Result<(), EgressError> {
        let ip = unmapped(ip);
        let refused = match self.mode {
            Mode::InsecureLoopback => {
                (!ip.is_loopback()).then_some("beyond loopback, where an insecure profile never goes")
            }
            Mode::Https if self.allow.iter().any(|net| net.contains(&ip)) => None,
            Mode::Https => kind(ip),
        };
        match refused {
            None => Ok(()),
            Some(kind) => Err(EgressError::Address { host: host.to_owned(), address: ip.to_string(), kind }),
        }
    }
}

fn without_userinfo(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// An IPv4 address that hides in an IPv6 one (`::ffff:a.b.c.d`) is judged as what it is.
fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
    }
}

/// What kind of address this is, if it is not a public one.
fn kind(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

/// The IANA special-purpose registry for IPv4.
fn kind_v4(ip: Ipv4Addr) -> Option<&'static str> {
    Some(match ip.octets() {
        [0, ..] => "an address of this network (0.0.0.0/8)",
        [127, ..] => "a loopback address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address (RFC 1918)",
        [100, 64..=127, ..] => "a shared address of a provider's NAT (100.64.0.0/10)",
        [169, 254, 169, 254] => "the metadata service of a cloud",
        [169, 254, ..] => "a link-local address",
        [192, 0, 0, ..] => "a protocol assignment (192.0.0.0/24)",
        [192, 0, 2, ..] | [198, 51, 100, ..] | [203, 0, 113, ..] => "an address for documentation",
        [192, 88, 99, ..] => "a 6to4 relay",
        [198, 18..=19, ..] => "an address for benchmarks",
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

/// The IANA special-purpose registry for IPv6; only global unicast (2000::/3) can be public.
fn kind_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        kind_v4(Ipv4Addr::new(a, b, c, d))
    };
    Some(match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => "the unspecified address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
        // A gateway would carry these into IPv4: they are judged by the address inside.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return embedded(high, low),
        [0x2002, high, low, ..] => return embedded(high, low),
        [0x64, 0xff9b, 1, ..] => "a local translation address (64:ff9b:1::/48)",
        [0xfc00..=0xfdff, ..] => "a unique local address (fc00::/7)",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => "an address for documentation",
        [0x2001, 0..=0x01ff, ..] => "a protocol assignment (2001::/23)",
        [0x2000..=0x3fff, ..] => return None,
        _ => "no global unicast address",
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        let table = [
            ("9.9.9.9", true),
            ("2620:fe::fe", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("127.255.0.1", false),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("100.127.255.255", false),
            ("100.128.0.1", true),
            ("169.254.1.1", false),
            ("169.254.169.254", false),
            ("192.0.0.8", false),
            ("192.0.2.1", false),
            ("198.18.0.1", false),
            ("203.0.113.9", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:9.9.9.9", true),
            ("::10.0.0.1", false),
            ("64:ff9b::a00:1", false),
            ("64:ff9b::909:909", true),
            ("64:ff9b:1::1", false),
            ("2002:7f00:1::", false),
            ("2002:909:909::1", true),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("fc00::1", false),
            ("fd12::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ];
        let filter = EgressFilter::new(Vec::new());
        for (text, passes) in table {
            let verdict = filter.check_address("host", text.parse().unwrap());
            assert_eq!(verdict.is_ok(), passes, "{text}: {verdict:?}");
        }
    }

    #[test]
    fn urls_are_checked_before_anything_is_resolved() {
        let table = [
            ("https://peer.example/dsp", true),
            ("https://peer.example:8443/", true),
            ("http://peer.example/", false),
            ("ftp://peer.example/", false),
            ("https://user@peer.example/", false),
            ("https://user:secret@peer.example/", false),
            ("https://peer.example:0/", false),
            ("https://localhost/", false),
            ("https://a.localhost./", false),
            ("https://127.1/", false),
            ("https://0x7f000001/", false),
            ("https://[::ffff:127.0.0.1]/", false),
            ("https://169.254.169.254/latest/meta-data", false),
            ("https://9.9.9.9/", true),
        ];
        let filter = EgressFilter::new(Vec::new());
        for (text, passes) in table {
            let verdict = filter.check_url(&Url::parse(text).unwrap());
            assert_eq!(verdict.is_ok(), passes, "{text}: {verdict:?}");
        }
        let told = filter.check_url(&Url::parse("https://user:secret@peer.example/").unwrap()).unwrap_err().to_string();
        assert!(!told.contains("secret"), "{told}");
    }

    #[tokio::test]
    async fn a_name_that_turns_private_is_refused() {
        let hosts = |ips: &[&str]| {
            HashMap::from([("rebind.example".to_owned(), ips.iter().map(|ip| ip.parse().unwrap()).collect())])
        };
        let filter = EgressFilter::new(Vec::new()).with_hosts(hosts(&["10.1.2.3"]));
        let error = filter.resolve("rebind.example", 443).await.unwrap_err().to_string();
        assert!(error.contains("10.1.2.3") && error.contains("private"), "{error}");
        // Of a mixed answer only the public part is dialled.
        let mixed = EgressFilter::new(Vec::new()).with_hosts(hosts(&["127.0.0.1", "9.9.9.9"]));
        assert_eq!(mixed.resolve("rebind.example", 443).await.unwrap(), ["9.9.9.9:443".parse().unwrap()]);
    }

    #[tokio::test]
    async fn allowed_networks_and_insecure_profiles_stay_within_their_bounds() {
        let allowed = EgressFilter::new(vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(allowed.resolve("127.0.0.1", 1).await.is_ok());
        assert!(allowed.check_url(&Url::parse("https://localhost:9/").unwrap()).is_ok());
        assert!(allowed.resolve("10.0.0.1", 1).await.is_err());
        let insecure = EgressFilter::insecure();
        assert!(insecure.resolve("127.0.0.1", 1).await.is_ok());
        assert!(insecure.resolve("9.9.9.9", 1).await.is_err());
        assert!(insecure.check_url(&Url::parse("https://127.0.0.1/").unwrap()).is_err());
    }
}
