//! base64url without padding and nothing else (RFC 4648 §5, RFC 7515 §2) and hexadecimal.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Encodes without padding.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes; padding, white space, another alphabet and non-zero trailing bits are refused.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Decodes lower- or upper-case hexadecimal of even length.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_decodes() {
        assert_eq!(from_base64url("AQI").as_deref(), Some(&[1, 2][..]));
        for refused in ["AQI=", "AQJ", "A", "A QI", "AQ+/", "AQI\n"] {
            assert_eq!(from_base64url(refused), None, "{refused:?}");
        }
    }

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        assert_eq!(from_hex(&hex(&[0, 255, 16])).as_deref(), Some(&[0, 255, 16][..]));
        for refused in ["0", "0g", "+1", "é"] {
            assert_eq!(from_hex(refused), None, "{refused:?}");
        }
    }
}
