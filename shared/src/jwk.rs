//! From the public half of a signing key to the JWK that verifiers read.

use crate::encoding::base64url;
use crate::jwks::{Algorithm, KeySet};
use crate::name::Malformed;
use serde_json::{Map, Value, json};

const BAD: Malformed = Malformed("public key");

/// OID and parameters of the algorithm identifiers that are accepted, DER.
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
const P256: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

/// A public JWK with its RFC 7638 thumbprint as `kid`, bound to one algorithm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicJwk {
    /// The key id: SHA-256 thumbprint, base64url.
    pub kid: String,
    /// The members, `kid`, `alg` and `use` among them.
    pub members: Map<String, Value>,
}

impl PublicJwk {
    /// Reads a DER `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7; RFC 3279, 5480, 8410) of a key made for `algorithm`.
    ///
    /// Refused: any other encoding than DER's one, trailing bytes, another key type or curve than the algorithm's, and whatever
    /// our own verifiers would refuse in a key set.
    pub fn from_spki(der: &[u8], algorithm: Algorithm) -> Result<Self, Malformed> {
        let (identifier, key) = split_spki(der)?;
        let own: Vec<(&str, String)> = match (algorithm, identifier) {
            (Algorithm::Rs256, RSA) => {
                let (modulus, exponent) = rsa(key)?;
                vec![("kty", "RSA".to_owned()), ("n", base64url(modulus)), ("e", base64url(exponent))]
            }
            (Algorithm::Es256, P256) => {
                let (x, y) = uncompressed_point(key)?;
                let named = [("kty", "EC".to_owned()), ("crv", "P-256".to_owned())];
                [named, [("x", base64url(x)), ("y", base64url(y))]].concat()
            }
            (Algorithm::EdDsa, ED25519) => {
                vec![("kty", "OKP".to_owned()), ("crv", "Ed25519".to_owned()), ("x", base64url(key))]
            }
            _ => return Err(BAD),
        };
        let common = [("alg", algorithm.as_str().to_owned()), ("use", "sig".to_owned()), ("kid", "unnamed".to_owned())];
        let members = own.into_iter().chain(common);
        let mut members: Map<String, Value> = members.map(|(name, value)| (name.to_owned(), value.into())).collect();
        // The verifiers' own reader judges strength and curve, and computes the thumbprint from the decoded values.
        let read = KeySet::parse(&json!({ "keys": [members] }), &[algorithm])?;
        let kid = read.find("unnamed").ok_or(BAD)?.thumbprint.clone();
        members.insert("kid".to_owned(), kid.clone().into());
        Ok(Self { kid, members })
    }
}

/// The algorithm identifier's content and the bit string's bytes.
fn split_spki(der: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (body, rest) = element(der, SEQUENCE)?;
    let (identifier, after) = element(body, SEQUENCE)?;
    let (bits, end) = element(after, BIT_STRING)?;
    match (bits, rest, end) {
        ([0, key @ ..], [], []) => Ok((identifier, key)),
        _ => Err(BAD),
    }
}

/// RSAPublicKey (RFC 8017 §A.1.1): modulus and exponent, without the sign byte.
fn rsa(key: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (body, rest) = element(key, SEQUENCE)?;
    let (modulus, after) = element(body, INTEGER)?;
    let (exponent, end) = element(after, INTEGER)?;
    if !rest.is_empty() || !end.is_empty() {
        return Err(BAD);
    }
    Ok((positive(modulus)?, positive(exponent)?))
}

fn positive(integer: &[u8]) -> Result<&[u8], Malformed> {
    match integer {
        [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => Ok(rest),
        [1..=0x7f, ..] => Ok(integer),
        _ => Err(BAD),
    }
}

fn uncompressed_point(key: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    match key {
        [4, point @ ..] => point.split_at_checked(32).ok_or(BAD),
        _ => Err(BAD),
    }
}

/// One element of the given tag: its content and what follows it. Lengths have DER's shortest form, two bytes at most; nothing in a key
/// that is taken is from 128 to 255 bytes long.
fn element(der: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Malformed> {
    let (length, rest) = match der {
        [t, length @ 0..=0x7f, rest @ ..] if *t == tag => (usize::from(*length), rest),
        [t, 0x82, high @ 1..=0xff, low, rest @ ..] if *t == tag => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return Err(BAD),
    };
    rest.split_at_checked(length).ok_or(BAD)
}

#[cfg(test)]
mod tests {
    use crate::encoding::{from_base64url, from_hex};

    use super::*;

    const RFC7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    fn rsa_der(e: &str) -> Vec<u8> {
        let mut der = from_hex("30820122300d06092a864886f70d01010105000382010f003082010a0282010100").unwrap();
        der.extend(from_base64url(RFC7638_N).unwrap());
        der.extend(from_hex(e).unwrap());
        der
    }

    fn ec_der() -> Vec<u8> {
        let mut der = from_hex("3059301306072a8648ce3d020106082a8648ce3d03010703420004").unwrap();
        der.extend(from_base64url("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4").unwrap());
        der.extend(from_base64url("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM").unwrap());
        der
    }

    fn ed_der() -> Vec<u8> {
        let mut der = from_hex("302a300506032b6570032100").unwrap();
        der.extend(from_base64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap());
        der
    }

    #[test]
    fn key_ids_are_the_thumbprints_of_the_rfcs() {
        for (der, algorithm, kty, thumbprint) in [
            (rsa_der("0203010001"), Algorithm::Rs256, "RSA", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
            (ec_der(), Algorithm::Es256, "EC", "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"),
            (ed_der(), Algorithm::EdDsa, "OKP", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
        ] {
            let jwk = PublicJwk::from_spki(&der, algorithm).unwrap();
            assert_eq!(jwk.kid, thumbprint);
            assert_eq!(
                (&jwk.members["kid"], &jwk.members["alg"], &jwk.members["use"], &jwk.members["kty"]),
                (&json!(thumbprint), &json!(algorithm.as_str()), &json!("sig"), &json!(kty))
            );
        }
    }

    #[test]
    fn a_key_made_for_another_algorithm_is_refused() {
        for (der, algorithm) in [
            (rsa_der("0203010001"), Algorithm::Es256),
            (rsa_der("0203010001"), Algorithm::Ps256),
            (ec_der(), Algorithm::Rs256),
            (ec_der(), Algorithm::Es384),
            (ed_der(), Algorithm::Es256),
        ] {
            assert!(PublicJwk::from_spki(&der, algorithm).is_err(), "{algorithm}");
        }
    }

    #[test]
    fn only_der_of_the_one_form_is_read() {
        for (der, algorithm) in
            [(rsa_der("0203010001"), Algorithm::Rs256), (ec_der(), Algorithm::Es256), (ed_der(), Algorithm::EdDsa)]
        {
            for length in 0..der.len() {
                assert!(PublicJwk::from_spki(&der[..length], algorithm).is_err(), "cut at {length}");
            }
            assert!(PublicJwk::from_spki(&[der.as_slice(), &[0]].concat(), algorithm).is_err(), "trailing byte");
            // Every byte before the key itself is structure: no other value of any of them may pass.
            let structure = if algorithm == Algorithm::Rs256 {
                32
            } else {
                der.len() - 32 - 32 * usize::from(algorithm == Algorithm::Es256)
            };
            for at in 0..structure {
                for bit in 0..8 {
                    let mut other = der.clone();
                    other[at] ^= 1 << bit;
                    assert!(PublicJwk::from_spki(&other, algorithm).is_err(), "byte {at} bit {bit} of {algorithm}");
                }
            }
        }
    }

    #[test]
    fn weak_and_malformed_keys_are_refused() {
        let mut off_curve = ec_der();
        *off_curve.last_mut().unwrap() ^= 1;
        let mut compressed = from_hex("3039301306072a8648ce3d020106082a8648ce3d03010703220002").unwrap();
        compressed.extend(from_base64url("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4").unwrap());
        let mut even = rsa_der("0203010001");
        even[33 + 255] &= 0xfe;
        // The modulus within lengths that are one too long: of all there is, of the bit string, and of the sequence in it.
        let longer = |sequence: &str, tail: &str| {
            let head = format!("30820123300d06092a864886f70d01010105000382011000{sequence}0282010100");
            let mut der = from_hex(&head).unwrap();
            der.extend(from_base64url(RFC7638_N).unwrap());
            der.extend(from_hex(tail).unwrap());
            der
        };
        let mut long_point = from_hex("305a301306072a8648ce3d020106082a8648ce3d03010703430004").unwrap();
        long_point.extend(&ec_der()[27..]);
        long_point.push(0);
        for (what, der, algorithm) in [
            ("e = 3 with its own length", rsa_der("0203000003"), Algorithm::Rs256),
            ("negative e", rsa_der("0203ff0001"), Algorithm::Rs256),
            ("even modulus", even, Algorithm::Rs256),
            ("a byte after the key", longer("3082010a", "020301000100"), Algorithm::Rs256),
            ("a byte after the exponent", longer("3082010b", "020301000100"), Algorithm::Rs256),
            ("an exponent with a zero before it", longer("3082010b", "020400010001"), Algorithm::Rs256),
            ("a point with a byte more", long_point, Algorithm::Es256),
            ("point off the curve", off_curve, Algorithm::Es256),
            ("compressed point", compressed, Algorithm::Es256),
            ("long form of a short length", from_hex("30812a300506032b6570032100").unwrap(), Algorithm::EdDsa),
            ("indefinite length", from_hex("3080300506032b65700321000000").unwrap(), Algorithm::EdDsa),
        ] {
            assert!(PublicJwk::from_spki(&der, algorithm).is_err(), "{what}");
        }
    }
}
