//! Blind indexes: equality search over encrypted fields.
//!
//! `docs/formats/blind-index.md` is the specification. The entry of a value is a truncated HMAC-SHA256 under a key that is
//! derived for one tenant, table and column: equal values meet, and truncation makes some unequal ones meet too, so that an
//! index tells less than the value.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use caseless::Caseless as _;
use unicode_normalization::UnicodeNormalization as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::name::{Identifier, Malformed, Tenant};
use crate::pc1::{DataKey, pair};

const INFO: &[u8] = b"pc1\x01INDEXKEY";

/// What counts as the same value. Another normalisation is another index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Normalisation {
    /// Byte for byte.
    Exact,
    /// NFC, full case folding, NFC: `Ann@Example.com` and `ANN@EXAMPLE.COM` are one.
    NfcCasefold,
    /// The ASCII digits alone: `+49 (30) 12-34` and `49301234` are one.
    Digits,
}

impl Normalisation {
    /// By its name in requests.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        match name {
            "exact" => Ok(Self::Exact),
            "nfc_casefold" => Ok(Self::NfcCasefold),
            "digits" => Ok(Self::Digits),
            _ => Err(Malformed("normalisation")),
        }
    }

    /// The value in its one form. Text is UTF-8; `digits` refuses a value without any, and one with digits of another
    /// script, which would be lost without a word.
    pub fn apply(self, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let text = || std::str::from_utf8(value).map_err(|_| Malformed("text"));
        match self {
            Self::Exact => Ok(Zeroizing::new(value.to_vec())),
            Self::NfcCasefold => {
                let text = text()?;
                Ok(collected(|| text.nfc().default_case_fold().nfc()))
            }
            Self::Digits => {
                let text = text()?;
                if text.chars().any(|c| c.is_numeric() && !c.is_ascii()) {
                    return Err(Malformed("digits"));
                }
                let digits = collected(|| text.chars().filter(char::is_ascii_digit));
                if digits.is_empty() { Err(Malformed("digits")) } else { Ok(digits) }
            }
        }
    }
}

/// The UTF-8 of what `characters` yields. Measured first: a buffer that grew would leave copies of the value behind.
fn collected<I: Iterator<Item = char>>(characters: impl Fn() -> I) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(characters().map(char::len_utf8).sum()));
    for character in characters() {
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out
}

/// How many bits of an entry are kept: 1 to 63, or 256 for a column whose values are unique.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bits(u16);

impl Bits {
    /// The whole hash: for columns whose values are unique.
    pub const WHOLE: Self = Self(256);

    /// Checks the range.
    pub fn parse(bits: u64) -> Result<Self, Malformed> {
        match bits {
            1..=63 | 256 => u16::try_from(bits).map(Self).map_err(|_| Malformed("bits")),
            _ => Err(Malformed("bits")),
        }
    }

    /// The bytes that an entry takes.
    fn bytes(self) -> usize {
        usize::from(self.0.div_ceil(8))
    }

    fn truncate(self, hash: &[u8]) -> Vec<u8> {
        let mut entry = hash.get(..self.bytes()).unwrap_or_default().to_vec();
        let unused = (8 - self.0 % 8) % 8;
        if let Some(last) = entry.last_mut() {
            *last &= 0xff << unused;
        }
        entry
    }
}

/// Over how many entries equal values are spread, 1 to 255. A skewed column needs more than one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partitions(u8);

impl Partitions {
    /// All equal values meet in one entry.
    pub const ONE: Self = Self(1);

    /// Checks the range.
    pub fn parse(partitions: u64) -> Result<Self, Malformed> {
        u8::try_from(partitions).ok().filter(|p| *p > 0).map(Self).ok_or(Malformed("partitions"))
    }
}

/// The key of one column's index. It has no `Debug` on purpose, and lives for one batch.
pub struct ColumnKey(hmac::Key);

impl ColumnKey {
    /// Derives it from the tenant's index data key.
    pub fn derive(
        index_key: &DataKey,
        index_key_id: Uuid,
        tenant: &Tenant,
        table: &Identifier,
        column: &Identifier,
    ) -> Result<Self, Unspecified> {
        let key = derived(index_key, index_key_id, tenant, table, column)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_slice())))
    }

    /// The entries of a normalised value, one for each partition. A writer stores one of them, chosen at random; a query
    /// asks for all.
    pub fn entries(&self, value: &[u8], bits: Bits, partitions: Partitions) -> Vec<Vec<u8>> {
        (0..partitions.0)
            .map(|partition| {
                let mut hash = hmac::Context::with_key(&self.0);
                hash.update(&[partition]);
                hash.update(value);
                bits.truncate(hash.sign().as_ref())
            })
            .collect()
    }
}

fn derived(
    index_key: &DataKey,
    index_key_id: Uuid,
    tenant: &Tenant,
    table: &Identifier,
    column: &Identifier,
) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
    let mut context = vec![0, 3];
    pair(&mut context, "column", column.as_str());
    pair(&mut context, "table", table.as_str());
    pair(&mut context, "tenant", tenant.as_str());
    let mut key = Zeroizing::new([0; 32]);
    index_key.derive(index_key_id.as_bytes(), &[INFO, &context], key.as_mut_slice())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::hex;

    fn index_key() -> DataKey {
        DataKey::parse(&(0x80..=0x9f).collect::<Vec<u8>>()).unwrap()
    }

    fn id() -> Uuid {
        Uuid::parse_str("01920000-0000-7000-8000-0000000000b2").unwrap()
    }

    fn column_key(tenant: &str, table: &str, column: &str) -> ColumnKey {
        let (tenant, name) = (Tenant::parse(tenant).unwrap(), |text| Identifier::parse(text).unwrap());
        ColumnKey::derive(&index_key(), id(), &tenant, &name(table), &name(column)).unwrap()
    }

    fn entries(key: &ColumnKey, value: &[u8], bits: u64, partitions: u64) -> Vec<String> {
        let (bits, partitions) = (Bits::parse(bits).unwrap(), Partitions::parse(partitions).unwrap());
        key.entries(value, bits, partitions).iter().map(|entry| hex(entry)).collect()
    }

    #[test]
    fn the_known_answer_d_holds() {
        let (tenant, name) = (Tenant::parse("acme").unwrap(), |text| Identifier::parse(text).unwrap());
        let key = derived(&index_key(), id(), &tenant, &name("users"), &name("email")).unwrap();
        assert_eq!(hex(key.as_slice()), "5267f9759b7213a560d53e3113838424e8bf72b4a4a57781a06e4e95e53c02f2");
        let key = column_key("acme", "users", "email");
        let value = Normalisation::NfcCasefold.apply(b"Ann@Example.com").unwrap();
        assert_eq!(entries(&key, &value, 256, 1), ["c2e553ce241e071294e953fb27a7c09909c3efe92f3a5edeaf7f94cc2c81dba2"]);
        assert_eq!(
            (entries(&key, &value, 12, 1), entries(&key, &value, 16, 1)),
            (vec!["c2e0".into()], vec!["c2e5".into()])
        );
        assert_eq!(entries(&key, &value, 12, 4)[3], "0c20");
        assert!(entries(&key, &value, 32, 4)[3].starts_with("0c2800e3"));
    }

    #[test]
    fn another_tenant_table_or_column_gives_other_bytes() {
        let places = [("acme", "users", "email"), ("globex", "users", "email"), ("acme", "staff", "email")];
        let places = [&places[..], &[("acme", "users", "phone"), ("acme", "email", "users")]].concat();
        let made: std::collections::BTreeSet<Vec<String>> = places
            .iter()
            .map(|(tenant, table, column)| entries(&column_key(tenant, table, column), b"ann@example.com", 63, 1))
            .collect();
        assert_eq!(made.len(), places.len());
    }

    #[test]
    fn bits_are_cut_from_the_front_and_the_rest_of_the_last_byte_is_zero() {
        let key = column_key("acme", "users", "email");
        let whole = key.entries(b"x", Bits::parse(256).unwrap(), Partitions::ONE).remove(0);
        for bits in 1..=63_u64 {
            let entry = key.entries(b"x", Bits::parse(bits).unwrap(), Partitions::ONE).remove(0);
            assert_eq!(entry.len(), usize::try_from(bits.div_ceil(8)).unwrap());
            for bit in 0..entry.len() * 8 {
                let of = |bytes: &[u8]| bytes[bit / 8] >> (7 - bit % 8) & 1;
                assert_eq!(
                    of(&entry),
                    if bit < usize::try_from(bits).unwrap() { of(&whole) } else { 0 },
                    "{bits} {bit}"
                );
            }
        }
        for bad in [0, 64, 128, 255, 257, u64::MAX] {
            assert!(Bits::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_partition_has_an_entry_of_its_own() {
        let key = column_key("acme", "users", "email");
        let all = entries(&key, b"x", 63, 255);
        assert_eq!((all.len(), all.iter().collect::<std::collections::BTreeSet<_>>().len()), (255, 255));
        assert_eq!(all[..1], entries(&key, b"x", 63, 1));
        for bad in [0, 256, u64::MAX] {
            assert!(Partitions::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn normalisations_join_what_they_say_and_nothing_else() {
        let same = |how: Normalisation, one: &str, two: &str| {
            assert_eq!(how.apply(one.as_bytes()), how.apply(two.as_bytes()), "{how:?} {one} {two}");
        };
        let differ = |how: Normalisation, one: &str, two: &str| {
            assert_ne!(how.apply(one.as_bytes()), how.apply(two.as_bytes()), "{how:?} {one} {two}");
        };
        for (one, two) in [
            ("Ann@Example.com", "aNN@eXAMPLE.COM"),
            ("Stra\u{df}e", "STRASSE"),
            ("\u{e9}", "e\u{301}"),
            ("\u{c9}", "e\u{301}"),
            ("\u{3a3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c2}", "\u{3c3}\u{3af}\u{3c3}\u{3c5}\u{3c6}\u{3bf}\u{3c3}"),
            ("\u{1e9e}", "ss"),
            ("\u{fb01}n", "FIN"),
            ("", ""),
        ] {
            same(Normalisation::NfcCasefold, one, two);
            if one != two {
                differ(Normalisation::Exact, one, two);
            }
        }
        // Full folding is not the Turkish one, and compatibility forms stay apart.
        differ(Normalisation::NfcCasefold, "\u{130}", "i");
        differ(Normalisation::NfcCasefold, "\u{2460}", "1");
        differ(Normalisation::NfcCasefold, "a b", "ab");
        same(Normalisation::Digits, "+49 (30) 12-34", "49301234");
        differ(Normalisation::Digits, "030 1", "301");
        assert_eq!(Normalisation::Exact.apply(&[0xff, 0]).unwrap().as_slice(), [0xff, 0]);
    }

    #[test]
    fn what_a_normalisation_cannot_read_is_refused() {
        for (how, value) in [
            (Normalisation::NfcCasefold, &b"\xff"[..]),
            (Normalisation::Digits, b"\xff1"),
            (Normalisation::Digits, b""),
            (Normalisation::Digits, b"n/a"),
            (Normalisation::Digits, "\u{661}\u{662}3".as_bytes()),
        ] {
            assert!(how.apply(value).is_err(), "{how:?} {value:?}");
        }
        for bad in ["", "Exact", "lowercase", "nfkc", "none"] {
            assert!(Normalisation::parse(bad).is_err(), "{bad}");
        }
    }
}
