//! Which addresses are inside: what nobody outside names to us, so that we do not reach for others what only we can reach. And networks, as
//! an operator writes them, that may be reached all the same.
//!
//! Pure: names are resolved, and connections made, by whoever asks.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// A network: an address, and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// What is wrong with a text that should have been a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network: an address was expected, or one with a length such as 10.0.0.0/8")]
pub struct BadNetwork(String);

/// IPv4 networks outside of the public internet: the IANA registry of special-purpose addresses (RFC 6890) but for anycast services
/// that anybody may reach.
const INTERNAL_V4: [([u8; 4], u8); 16] = [
    ([0, 0, 0, 0], 8),        // this network, and the unspecified address (RFC 791)
    ([10, 0, 0, 0], 8),       // private (RFC 1918)
    ([100, 64, 0, 0], 10),    // carriers' address translation (RFC 6598)
    ([127, 0, 0, 0], 8),      // loopback (RFC 1122)
    ([168, 63, 129, 16], 32), // Azure's own services as its machines see them; not in the registry
    ([169, 254, 0, 0], 16),   // link-local, and the metadata of most clouds (RFC 3927)
    ([172, 16, 0, 0], 12),    // private (RFC 1918)
    ([192, 0, 0, 0], 24),     // protocol assignments (RFC 6890)
    ([192, 0, 2, 0], 24),     // documentation (RFC 5737)
    ([192, 88, 99, 0], 24),   // relays of 6to4, deprecated (RFC 7526)
    ([192, 168, 0, 0], 16),   // private (RFC 1918)
    ([198, 18, 0, 0], 15),    // benchmarking (RFC 2544)
    ([198, 51, 100, 0], 24),  // documentation (RFC 5737)
    ([203, 0, 113, 0], 24),   // documentation (RFC 5737)
    ([224, 0, 0, 0], 4),      // multicast (RFC 1112)
    ([240, 0, 0, 0], 4),      // reserved, and broadcast (RFC 1112, RFC 8190)
];

/// The one IPv6 network of which public addresses are given (RFC 4291, section 2.4). Outside of it are the unspecified address, loopback,
/// the mapped and compatible addresses of IPv4, translation (64:ff9b::/96, 64:ff9b:1::/48), unique local, link-local, site-local and
/// multicast addresses, and whatever is not given out.
const GLOBAL_V6: ([u16; 8], u8) = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What of it is not public.
const INTERNAL_V6: [([u16; 8], u8); 4] = [
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // protocols: Teredo, benchmarking, ORCHID (RFC 2928)
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation (RFC 3849)
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), // 6to4: any IPv4 address may be in it (RFC 3056)
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation (RFC 9637)
];

/// Whether an address is not one of the public internet. Addresses that have an IPv4 address in them are inside, whichever it is: what they
/// lead to is up to the network.
pub fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => INTERNAL_V4.iter().any(|(network, prefix)| of(*network, *prefix).contains(address)),
        IpAddr::V6(_) => {
            !of(GLOBAL_V6.0, GLOBAL_V6.1).contains(address)
                || INTERNAL_V6.iter().any(|(network, prefix)| of(*network, *prefix).contains(address))
        }
    }
}

fn of(address: impl Into<IpAddr>, prefix: u8) -> Network {
    Network { address: address.into(), prefix }
}

impl Network {
    /// Whether the address is in it. One of IPv4 and one of IPv6 have nothing to do with each other.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = (own.to_bits() ^ other.to_bits()).leading_zeros();
                differ >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = (own.to_bits() ^ other.to_bits()).leading_zeros();
                differ >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    /// `10.0.0.0/8`, `fd00::/8`, or a single address. Bits behind the length do not count.
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(bad)?
            }
            Some(_) => return Err(bad()),
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Networks that may be reached although they are inside. In settings: a list of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Networks(Vec<Network>);

impl Networks {
    /// These; texts that are empty are passed over, as a list without anything in it is one in the environment.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, BadNetwork> {
        let mut networks = Vec::new();
        for text in texts {
            let text = text.as_ref().trim();
            if !text.is_empty() {
                networks.push(text.parse()?);
            }
        }
        Ok(Self(networks))
    }

    /// Whether the address is in one of them; an IPv4 address mapped to IPv6 is the same address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let canonical = address.to_canonical();
        self.0.iter().any(|network| network.contains(address) || network.contains(canonical))
    }

    /// Whether somebody outside may have us reach this address.
    pub fn may_reach(&self, address: IpAddr) -> bool {
        !is_internal(address) || self.contains(address)
    }
}

impl TryFrom<Vec<String>> for Networks {
    type Error = BadNetwork;

    fn try_from(texts: Vec<String>) -> Result<Self, BadNetwork> {
        Self::parse(texts)
    }
}

impl From<Networks> for Vec<String> {
    fn from(networks: Networks) -> Self {
        networks.0.iter().map(Network::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// First and last addresses of what is inside, and their neighbours outside.
    #[test]
    fn no_3_addresses_that_are_not_of_the_public_internet_are_inside() {
        let inside = [
            // this network, unspecified
            ("0.0.0.0", "0.255.255.255"),
            // private
            ("10.0.0.0", "10.255.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.168.0.0", "192.168.255.255"),
            // carriers' translation; with it a cloud's metadata, 100.100.100.200
            ("100.64.0.0", "100.127.255.255"),
            // loopback
            ("127.0.0.0", "127.255.255.255"),
            ("127.0.0.1", "127.0.0.53"),
            // link-local and metadata
            ("169.254.0.0", "169.254.255.255"),
            ("169.254.169.254", "169.254.170.2"),
            ("168.63.129.16", "168.63.129.16"),
            // protocol assignments
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.0.192", "192.0.0.171"),
            // documentation
            ("192.0.2.0", "192.0.2.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            // relays of 6to4
            ("192.88.99.0", "192.88.99.255"),
            // benchmarking
            ("198.18.0.0", "198.19.255.255"),
            // multicast, reserved, broadcast
            ("224.0.0.0", "239.255.255.255"),
            ("240.0.0.0", "255.255.255.254"),
            ("255.255.255.255", "255.255.255.255"),
            // unspecified, loopback, compatible
            ("::", "::1"),
            ("::7f00:1", "::808:808"),
            ("::10.0.0.1", "::8.8.8.8"),
            // mapped
            ("::ffff:0.0.0.0", "::ffff:255.255.255.255"),
            ("::ffff:127.0.0.1", "::ffff:8.8.8.8"),
            // translated, of SIIT and NAT64
            ("::ffff:0:0:0", "::ffff:0:808:808"),
            ("64:ff9b::", "64:ff9b::ffff:ffff"),
            ("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
            // discard
            ("100::", "100::ffff:ffff:ffff:ffff"),
            // below and above all that is given out
            ("1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::"),
            ("5f00::", "8000::"),
            // Teredo, benchmarking, ORCHID
            ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff"),
            ("2001:10::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
            // documentation
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
            // 6to4
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2002:7f00:1::", "2002:a9fe:a9fe::1"),
            // unique local; with it a cloud's metadata, fd00:ec2::254
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fd00:ec2::254", "fd20:ce::254"),
            // link-local, site-local, multicast
            ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("ff02::1", "ff0e::1"),
        ];
        for (first, last) in inside {
            assert!(is_internal(ip(first)), "{first}");
            assert!(is_internal(ip(last)), "{last}");
        }
    }

    #[test]
    fn no_3_addresses_of_the_public_internet_are_not() {
        let outside = [
            "1.0.0.0",
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2000::",
            "2001:200::",
            "2001:4860:4860::8888",
            "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
            "2001:db9::",
            "2003::",
            "2606:4700:4700::1111",
            "2a00:1450:4001:81b::200e",
            "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "3fff:1000::",
        ];
        for address in outside {
            assert!(!is_internal(ip(address)), "{address}");
        }
    }

    #[test]
    fn a_network_is_an_address_and_a_length() {
        let network = |text: &str| text.parse::<Network>();
        let inside = |text: &str, address: &str| network(text).unwrap().contains(ip(address));
        assert!(inside("10.0.0.0/8", "10.255.255.255"));
        assert!(inside("10.1.2.3/8", "10.0.0.0"));
        assert!(!inside("10.0.0.0/8", "11.0.0.0"));
        assert!(inside("0.0.0.0/0", "255.255.255.255"));
        assert!(inside("::/0", "ffff::"));
        assert!(!inside("::/0", "1.2.3.4"));
        assert!(!inside("0.0.0.0/0", "::1"));
        assert!(inside("127.0.0.1", "127.0.0.1"));
        assert!(!inside("127.0.0.1", "127.0.0.2"));
        assert!(inside("fd00::/8", "fdff::1"));
        assert!(!inside("::1/128", "::2"));
        for bad in
            ["", "10", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "::/129", "a/8", "::1/8/8"]
        {
            assert_eq!(network(bad), Err(BadNetwork(bad.into())));
        }
    }

    #[test]
    fn an_operator_lets_networks_be_reached() {
        let allowed: Networks = serde_json::from_str(r#"["127.0.0.0/8", " ::1 ", ""]"#).unwrap();
        assert_eq!(serde_json::to_string(&allowed).unwrap(), r#"["127.0.0.0/8","::1/128"]"#);
        for reached in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "8.8.8.8", "2606:4700::1"] {
            assert!(allowed.may_reach(ip(reached)), "{reached}");
        }
        for refused in ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "64:ff9b::7f00:1", "::127.0.0.1"] {
            assert!(!allowed.may_reach(ip(refused)), "{refused}");
        }
        assert!(!Networks::default().may_reach(ip("127.0.0.1")));
        let error = serde_json::from_str::<Networks>(r#"["localhost"]"#).unwrap_err().to_string();
        assert!(error.starts_with("`localhost` is not a network"), "{error}");
    }
}
