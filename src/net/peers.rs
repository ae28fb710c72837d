//! Lists of peers as users write them: addresses, networks, and `gateway` for the default route's gateway.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{canonical, route::default_gateways};

/// A list of peers. `gateway` stands for whatever the default route says when the list is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    networks: Vec<IpNet>,
    gateway: bool,
}

impl Peers {
    /// Adds one entry.
    ///
    /// # Errors
    /// Says what is wrong with it and what could stand there.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let text = text.trim();
        if text == "gateway" {
            self.gateway = true;
        } else if let Ok(address) = text.parse::<IpAddr>() {
            self.networks.push(canonical(address).into());
        } else if let Ok(network) = text.parse::<IpNet>() {
            self.networks.push(unmap(network));
        } else {
            return Err(format!(
                "`{text}` is no peer: write an address (192.0.2.7), a network (10.0.0.0/8) or \"gateway\""
            ));
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.gateway
    }

    /// Whether `gateway` is in the list.
    pub fn has_gateway(&self) -> bool {
        self.gateway
    }

    /// The list with the gateway looked up now.
    #[must_use]
    pub fn resolve(&self) -> Self {
        let mut networks = self.networks.clone();
        if self.gateway {
            networks.extend(default_gateways().into_iter().map(IpNet::from));
        }
        Self { networks, gateway: false }
    }

    /// Whether a peer is in the list; call [`Peers::resolve`] first.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`: addresses are compared in their IPv4 form.
fn unmap(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let short = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    short.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_who_is_in() {
        let mut peers = Peers::default();
        for text in ["10.0.0.0/8", "192.0.2.7", "fd00::/64", "::ffff:172.16.0.0/108"] {
            peers.add(text).expect(text);
        }
        let table = [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd00::1", true),
            ("fd00:0:0:1::1", false),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
        ];
        for (address, expected) in table {
            assert_eq!(peers.contains(address.parse().expect(address)), expected, "{address}");
        }
    }

    #[test]
    fn refuses_what_is_no_peer() {
        for text in ["", "10.0.0.0/33", "localhost", "10.0.0", "Gateway"] {
            let error = Peers::default().add(text).expect_err(text);
            assert!(error.starts_with(&format!("`{text}` is no peer: ")), "{error}");
        }
    }
}
