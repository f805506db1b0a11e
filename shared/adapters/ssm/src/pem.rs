//! PEM of one private key (RFC 7468), strictly: one block, no headers, nothing around it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// The longest text that is read: an RSA key of 4,096 bits has 3,272 bytes.
const LONGEST: usize = 8_192;

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Label {
    /// `PRIVATE KEY`: PKCS#8 (RFC 5958).
    Pkcs8,
    /// `RSA PRIVATE KEY`: PKCS#1 (RFC 8017 §A.1.2).
    Pkcs1,
}

const LABELS: [(Label, &str, &str); 2] = [
    (Label::Pkcs8, "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
    (Label::Pkcs1, "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"),
];

/// The DER of the one block in `text`; `None` for anything else, an encrypted key or an `EC PRIVATE KEY` among it.
pub(crate) fn decode(text: &str) -> Option<(Label, Zeroizing<Vec<u8>>)> {
    if text.len() > LONGEST {
        return None;
    }
    let text = text.trim_ascii();
    let (label, body) =
        LABELS.iter().find_map(|(label, begin, end)| Some((*label, text.strip_prefix(begin)?.strip_suffix(end)?)))?;
    if !body.starts_with(['\r', '\n']) || !body.ends_with('\n') {
        return None;
    }
    let mut letters = Zeroizing::new(Vec::with_capacity(body.len()));
    letters.extend(body.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    let mut der = Zeroizing::new(vec![0; letters.len()]);
    let length = STANDARD.decode_slice(letters.as_slice(), &mut der).ok()?;
    der.truncate(length);
    (length > 0).then_some((label, der))
}

/// A PKCS#8 key as PEM.
pub(crate) fn encode(der: &[u8]) -> Zeroizing<String> {
    let (begin, end) = ("-----BEGIN PRIVATE KEY-----\n", "-----END PRIVATE KEY-----\n");
    let mut letters = Zeroizing::new(vec![0; der.len().div_ceil(3) * 4]);
    let length = STANDARD.encode_slice(der, &mut letters).unwrap_or_default();
    // Room for everything at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(begin.len() + end.len() + length + length / 64 + 2));
    text.push_str(begin);
    for line in letters.get(..length).unwrap_or_default().chunks(64) {
        line.iter().for_each(|letter| text.push(char::from(*letter)));
        text.push('\n');
    }
    text.push_str(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        for length in [1, 47, 48, 49, 1_218] {
            let der: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let text = encode(&der);
            assert!(text.capacity() >= text.len() && text.lines().all(|line| line.len() <= 64));
            let (label, read) = decode(&text).unwrap();
            assert_eq!((label, read.as_slice()), (Label::Pkcs8, der.as_slice()));
            let (_, read) = decode(&text.replace('\n', "\r\n")).unwrap();
            assert_eq!(read.as_slice(), der.as_slice());
        }
    }

    #[test]
    fn anything_but_one_plain_private_key_is_refused() {
        let good = encode(b"some der");
        for (what, text) in [
            ("nothing", String::new()),
            ("no block", "AAAA".to_owned()),
            ("text before", format!("x\n{}", *good)),
            ("text after", format!("{}x", *good)),
            ("two blocks", format!("{}{}", *good, *good)),
            ("a public key", good.replace("PRIVATE", "PUBLIC")),
            ("an EC key of its own form", good.replace("PRIVATE", "EC PRIVATE")),
            ("an encrypted key", good.replace("PRIVATE", "ENCRYPTED PRIVATE")),
            ("other labels at both ends", good.replacen("PRIVATE", "RSA PRIVATE", 1)),
            ("a header", good.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1)),
            ("no base64", good.replace("c29", "c*9")),
            ("an empty block", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n".to_owned()),
            ("one line", good.replace('\n', "")),
            ("cut", good.chars().take(good.len() - 3).collect()),
            ("too long", encode(&[1; 8_000]).to_string()),
        ] {
            assert!(decode(&text).is_none(), "{what}");
        }
    }
}
