//! The default route's gateways, from `/proc/net/route` and `/proc/net/ipv6_route`. With a bridge network that
//! address is the node as the pod sees it, where the kubelet's calls and probes come from.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// `RTF_GATEWAY` in the kernel's `include/uapi/linux/route.h`: the route leads through a gateway.
const VIA_GATEWAY: u32 = 0x2;

/// The gateways of all default routes, IPv4 and IPv6; empty where there is none or `/proc` hides it.
pub fn default_gateways() -> Vec<IpAddr> {
    let mut found = parse_v4(&fs::read_to_string("/proc/net/route").unwrap_or_default());
    found.extend(parse_v6(&fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default()));
    found
}

/// Columns: interface, destination, gateway, flags, reference count, use, metric, mask; addresses as the hex of
/// the word as it lies in memory.
fn parse_v4(text: &str) -> Vec<IpAddr> {
    let word = |text: &str| u32::from_str_radix(text, 16).ok();
    let line = |line: &str| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        let (destination, gateway) = (word(columns.next()?)?, word(columns.next()?)?);
        let (flags, mask) = (word(columns.next()?)?, word(columns.nth(3)?)?);
        let leads = destination == 0 && mask == 0 && flags & VIA_GATEWAY != 0;
        leads.then(|| IpAddr::V4(Ipv4Addr::from(gateway.to_ne_bytes())))
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Columns: destination, prefix length, source, prefix length, next hop, metric, reference count, use, flags,
/// interface; addresses as 32 hex digits in network order.
fn parse_v6(text: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, "00", _, _, hop, _, _, _, flags, _] = columns[..] else { return None };
        let leads =
            destination.bytes().all(|digit| digit == b'0') && u32::from_str_radix(flags, 16).ok()? & VIA_GATEWAY != 0;
        let hop = u128::from_str_radix(hop, 16).ok()?;
        leads.then(|| IpAddr::V6(Ipv6Addr::from(hop)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn finds_the_gateway() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(parse_v4(v4), ["192.0.2.1".parse::<IpAddr>().expect("an address")]);
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(parse_v6(&v6), ["fd00::1".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn stumbles_over_nothing() {
        for text in ["", "\n\n", "a b c d e f g h i j k\n", "Iface\neth0 zz\n"] {
            assert_eq!(parse_v4(text), Vec::<IpAddr>::new());
            assert_eq!(parse_v6(text), Vec::<IpAddr>::new());
        }
    }
}
