//! ECDSA signatures: from the DER that KMS answers to the fixed form of JOSE.

/// `SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 §2.2.3) to r‖s of 32 bytes each (RFC 7518 §3.4).
///
/// Strict DER: nothing after the sequence, no negative or zero integer, no needless leading zero.
pub(crate) fn to_fixed(der: &[u8]) -> Option<[u8; 64]> {
    let (0x30, body, []) = element(der)? else { return None };
    let (0x02, r, rest) = element(body)? else { return None };
    let (0x02, s, []) = element(rest)? else { return None };
    let mut fixed = [0; 64];
    let (left, right) = fixed.split_at_mut(32);
    place(r, left)?;
    place(s, right)?;
    Some(fixed)
}

fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = bytes.split_first_chunk::<2>()?;
    // The long form starts at 128 bytes and the longest signature has 72.
    if length > 0x7f {
        return None;
    }
    let (content, rest) = rest.split_at_checked(usize::from(length))?;
    Some((tag, content, rest))
}

fn place(integer: &[u8], out: &mut [u8]) -> Option<()> {
    let magnitude = match integer {
        [0, rest @ ..] => rest.first().filter(|first| **first >= 0x80).map(|_| rest)?,
        [first, ..] if *first < 0x80 => integer,
        _ => return None,
    };
    let start = out.len().checked_sub(magnitude.len())?;
    out.get_mut(start..)?.copy_from_slice(magnitude);
    Some(())
}

#[cfg(test)]
mod tests {
    use shared::encoding::{from_hex, hex};

    use super::*;

    fn fixed(der: &str) -> Option<String> {
        to_fixed(&from_hex(der).unwrap()).map(|fixed| hex(&fixed))
    }

    #[test]
    fn the_known_signatures_become_r_and_s_of_32_bytes() {
        let zeros = |count: usize| "00".repeat(count);
        for (der, expected) in [
            ("3006020101020101".to_owned(), format!("{0}01{0}01", zeros(31))),
            (format!("304502210080{}02200080{}", zeros(31), zeros(30)), format!("80{}0080{}", zeros(31), zeros(30))),
            (
                format!("3046022100{}022100{}", "ff".repeat(32), "80".repeat(32)),
                format!("{}{}", "ff".repeat(32), "80".repeat(32)),
            ),
            (format!("3044{0}{0}", format!("0220{}", "7f".repeat(32))), "7f".repeat(64)),
        ] {
            assert_eq!(fixed(&der), Some(expected), "{der}");
        }
    }

    #[test]
    fn whatever_is_not_strict_der_is_refused() {
        let long = format!("0221{}", "7f".repeat(33));
        for der in [
            "".to_owned(),
            "30".to_owned(),
            "3000".to_owned(),
            "300602010102010100".to_owned(),
            "30060201010201".to_owned(),
            "3007020101020101".to_owned(),
            "30070201010201010a".to_owned(),
            "3005020101020101".to_owned(),
            "310602010102010 1".replace(' ', ""),
            "3006030101020101".to_owned(),
            "3006020101030101".to_owned(),
            "3006020100020101".to_owned(),
            "3006020101020100".to_owned(),
            "3006020181020101".to_owned(),
            "30060201010201ff".to_owned(),
            "300702020001020101".to_owned(),
            "30050200020101".to_owned(),
            "3003020101".to_owned(),
            "308106020101020101".to_owned(),
            "3080020101020101 0000".replace(' ', ""),
            format!("3026{long}020101"),
            format!("302702220080{}020101", "00".repeat(32)),
            format!("3047022100{}022200ff{}", "ff".repeat(32), "ff".repeat(32)),
        ] {
            assert_eq!(fixed(&der), None, "{der}");
        }
    }
}
