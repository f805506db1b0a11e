//! `Fn::Cidr`: slices of an address block.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first `count` blocks with `host_bits` host bits each inside `block`; `None` where they do not fit.
pub(crate) fn slices(block: &str, count: u32, host_bits: u32) -> Option<Vec<String>> {
    let (address, length) = block.split_once('/')?;
    let (base, width) = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let length: u32 = length.parse().ok().filter(|length| *length <= width)?;
    let prefix = width.checked_sub(host_bits).filter(|prefix| *prefix >= length)?;
    // More slices than the block holds is what CloudFormation refuses too.
    if prefix - length < 32 && u64::from(count) > 1_u64 << (prefix - length) {
        return None;
    }
    (0..count)
        .map(|index| {
            let start = base.checked_add(u128::from(index).checked_shl(host_bits)?)?;
            let address = match width {
                32 => IpAddr::V4(Ipv4Addr::from(u32::try_from(start).ok()?)),
                _ => IpAddr::V6(Ipv6Addr::from(start)),
            };
            Some(format!("{address}/{prefix}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_cut_as_cloudformation_cuts_them() {
        let texts = |items: &[&str]| Some(items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>());
        assert_eq!(slices("10.0.0.0/16", 3, 8), texts(&["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]));
        assert_eq!(slices("2001:db8:0:a00::/56", 2, 64), texts(&["2001:db8:0:a00::/64", "2001:db8:0:a01::/64"]));
        assert_eq!(slices("10.0.0.0/24", 3, 7), None);
        assert_eq!(slices("10.0.0.0/24", 1, 9), None);
        assert_eq!(slices("nowhere", 1, 8), None);
    }
}
