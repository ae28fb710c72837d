//! The default routes' gateways, as `/proc/net` shows them. With bridge networks the kubelet's calls come from
//! there. Who may do what is left to others.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Route flags from `linux/route.h`: usable, through a gateway, refusing.
const UP: u32 = 0x1;
const GATEWAY: u32 = 0x2;
const REJECT: u32 = 0x200;

/// The gateways of all default routes, IPv4 first; empty where there is none or `/proc` is missing.
pub fn default_gateways() -> Vec<IpAddr> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let v4 = v4.lines().filter_map(gateway_v4).map(IpAddr::V4);
    v4.chain(v6.lines().filter_map(gateway_v6).map(IpAddr::V6)).collect()
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`: addresses are the 32 bits in memory order, printed
/// as one native hexadecimal number (net/ipv4/fib_trie.c, `fib_route_seq_show`).
fn gateway_v4(line: &str) -> Option<Ipv4Addr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let mut hex = || u32::from_str_radix(fields.next()?, 16).ok();
    let (destination, gateway, flags) = (hex()?, hex()?, hex()?);
    let mask = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
    let usable = flags & UP != 0 && flags & GATEWAY != 0 && flags & REJECT == 0;
    (destination == 0 && mask == 0 && usable).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
}

/// `destination prefix source prefix next-hop metric refcnt use flags device`, all hexadecimal
/// (net/ipv6/route.c, `rt6_info_route`).
fn gateway_v6(line: &str) -> Option<Ipv6Addr> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, prefix, _, _, next_hop, _, _, _, flags, ..] = fields[..] else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let usable = flags & UP != 0 && flags & GATEWAY != 0 && flags & REJECT == 0;
    let everywhere = prefix == "00" && destination.bytes().all(|digit| digit == b'0');
    (everywhere && usable).then(|| u128::from_str_radix(next_hop, 16).ok().map(Ipv6Addr::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_with_a_gateway_count() {
        let gateway = Some(Ipv4Addr::from(u32::from_str_radix("0100000A", 16).unwrap().to_ne_bytes()));
        for (line, expected) in [
            ("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT", None),
            ("eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0", gateway),
            ("eth0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0", None),
            ("eth0\t0000000A\t0100000A\t0003\t0\t0\t0\t000000FF\t0\t0\t0", None),
            ("eth0\t00000000\t0100000A\t0002\t0\t0\t0\t00000000\t0\t0\t0", None),
            ("eth0\t00000000", None),
            ("", None),
        ] {
            assert_eq!(gateway_v4(line), expected, "{line}");
        }
    }

    #[test]
    fn the_ipv6_table_is_read_too() {
        let zero = "00000000000000000000000000000000";
        let hop = "fe800000000000000000000000000001";
        for (line, expected) in [
            (format!("{zero} 00 {zero} 00 {hop} 00000400 00000001 00000000 00000003     eth0"), true),
            (format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo"), false),
            (format!("{hop} 80 {zero} 00 {hop} 00000400 00000001 00000000 00000003     eth0"), false),
            (format!("{zero} 00 {zero}"), false),
        ] {
            let expected = expected.then(|| "fe80::1".parse::<Ipv6Addr>().unwrap());
            assert_eq!(gateway_v6(&line), expected, "{line}");
        }
    }
}
