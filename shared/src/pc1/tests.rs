use aws_lc_rs::{aead, cipher, hmac};
use proptest::prelude::*;
use uuid::{Uuid, uuid};

use super::key::RecordKeys;
use super::*;
use crate::encoding::{from_hex, hex};
use crate::entropy::SystemEntropy;
use crate::name::{Identifier, Tenant};

const KEY_ID: Uuid = uuid!("01920000-0000-7000-8000-0000000000a1");
const RECORD_A: &str = "01019200000000700080000000000000a1404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f7ce9a61e1893d1047e96a58828caeeea38a253a8c74606126d598f512349614eba6ea68dd9c0d7c68d0f8beddfc7e6ae73c88bb9e980a41ef13846";
const RECORD_B: &str = "01019200000000700080000000000000a15f5e5d5c5b5a595857565554535251504f4e4d4c4b4a4948474645444342414011f70726a074fddb947c6c801786060bcfb7e29dd56a68257ecf30df8f2ba366ed59e00b337de3fb0b43e5692349d25d";

struct Place {
    tenant: Tenant,
    table: Identifier,
    column: Identifier,
    row: Row,
    version: Option<Version>,
}

impl Place {
    fn new(tenant: &str, table: &str, column: &str, row: &str, version: Option<u64>) -> Self {
        Self {
            tenant: Tenant::parse(tenant).unwrap(),
            table: Identifier::parse(table).unwrap(),
            column: Identifier::parse(column).unwrap(),
            row: Row::parse(row).unwrap(),
            version: version.map(Version::from),
        }
    }

    fn a() -> Self {
        Self::new("acme", "users", "ssn", "42", None)
    }

    fn context(&self) -> Context<'_> {
        let Self { tenant, table, column, row, version } = self;
        Context { tenant, table, column, row, version: *version }
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.context().encode_into(&mut out);
        out
    }
}

fn counting(from: u8) -> [u8; 32] {
    std::array::from_fn(|at| from + u8::try_from(at).unwrap())
}

fn data_key() -> DataKey {
    DataKey::parse(&counting(0)).unwrap()
}

fn other_key() -> DataKey {
    DataKey::parse(&counting(0x80)).unwrap()
}

fn fresh() -> MessageId {
    MessageIds::draw(1, &SystemEntropy).next().unwrap()
}

fn opens(bytes: &[u8], key: &DataKey, place: &Place) -> bool {
    Record::parse(bytes).is_ok_and(|record| record.open(key, &place.context()).is_ok())
}

#[test]
fn known_answer_a_holds_byte_for_byte() {
    let (place, message_id) = (Place::a(), counting(0x40));
    assert_eq!(
        hex(&place.encoded()),
        "00040006636f6c756d6e000373736e0003726f770002343200057461626c6500057573657273000674656e616e74000461636d65"
    );
    let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, &message_id), &counting(0));
    assert_eq!(
        hex(prk.as_ref()),
        "b0c3f8459bcf6a1475de6478147210f0fd0e5ae7e06f3f16b3205a0b05c2fe997de20a06ed8b0bdf7e1b142c77da91cd36330062b918d994c302c2e28c61a9ec"
    );
    let okm = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, prk.as_ref()), b"pc1\x01KEYCOMMIT\x01");
    let (key, commitment) = okm.as_ref().split_at(32);
    assert_eq!(hex(key), "99fc48b368b215a5db9fe21b200c4002e39308c31d5ff72f8faa472f4cddfcad");
    assert_eq!(hex(commitment), "7ce9a61e1893d1047e96a58828caeeea38a253a8c74606126d598f512349614e");
    assert_eq!(RecordKeys::derive(&data_key(), &message_id).unwrap().commitment(), commitment);

    let record =
        seal(&data_key(), KEY_ID, MessageId::from_bytes(message_id), &place.context(), b"123-45-6789").unwrap();
    assert_eq!(hex(&record), RECORD_A);
    let mut text = String::new();
    encode_into(&record, &mut text);
    assert_eq!(
        text,
        "AQGSAAAAAHAAgAAAAAAAAKFAQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVpbXF1eX3zpph4Yk9EEfpaliCjK7uo4olOox0YGEm1Zj1EjSWFOum6mjdnA18aND4vt38fmrnPIi7npgKQe8ThG"
    );
    let parsed = Record::parse(&record).unwrap();
    assert_eq!(parsed.data_key_id(), KEY_ID);
    assert_eq!(parsed.open(&data_key(), &place.context()).unwrap().as_slice(), b"123-45-6789");
}

#[test]
fn known_answer_b_holds_byte_for_byte() {
    let place = Place::new("acme", "users", "ssn", "42", Some(7));
    let mut message_id = counting(0x40);
    message_id.reverse();
    assert_eq!(
        hex(&place.encoded()),
        "00050006636f6c756d6e000373736e0003726f770002343200057461626c6500057573657273000674656e616e74000461636d65000776657273696f6e000137"
    );
    let record = seal(&data_key(), KEY_ID, MessageId::from_bytes(message_id), &place.context(), b"").unwrap();
    assert_eq!(hex(&record), RECORD_B);
    assert!(Record::parse(&record).unwrap().open(&data_key(), &place.context()).unwrap().is_empty());
}

#[test]
fn no_single_flipped_bit_of_a_record_goes_unnoticed() {
    let record = from_hex(RECORD_A).unwrap();
    let mut refused = 0;
    for bit in 0..record.len() * 8 {
        let mut altered = record.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&altered, &data_key(), &Place::a()), "bit {bit}");
        refused += 1;
    }
    assert_eq!(refused, 864);
}

#[test]
fn a_record_opens_only_in_its_own_place() {
    let record = from_hex(RECORD_A).unwrap();
    assert!(opens(&record, &data_key(), &Place::a()));
    for elsewhere in [
        Place::new("globex", "users", "ssn", "42", None),
        Place::new("acme", "people", "ssn", "42", None),
        Place::new("acme", "users", "email", "42", None),
        Place::new("acme", "users", "ssn", "43", None),
        Place::new("acme", "ssn", "users", "42", None),
        Place::new("acme", "users", "ssn", "42", Some(0)),
        Place::new("acme", "users", "ssn", "42", Some(7)),
    ] {
        let outcome = Record::parse(&record).unwrap().open(&data_key(), &elsewhere.context());
        assert_eq!(outcome.unwrap_err(), Mismatch::Authentication);
    }
    let versioned = from_hex(RECORD_B).unwrap();
    for version in [None, Some(0), Some(6), Some(77)] {
        assert!(!opens(&versioned, &data_key(), &Place::new("acme", "users", "ssn", "42", version)));
    }
}

#[test]
fn a_value_that_looks_like_encoded_pairs_is_a_value() {
    let plain = Place::new("acme", "users", "ssn", "42", None);
    for row in ["42table", "4 2", "42\u{5}table\u{5}users", "4", "2"] {
        if let Ok(row) = Row::parse(row) {
            let disguised = Place { row, ..Place::a() };
            assert_ne!(disguised.encoded(), plain.encoded());
        }
    }
    let (one, two) =
        (Place::new("acme", "ab", "c", "42", None).encoded(), Place::new("acme", "a", "bc", "42", None).encoded());
    assert_ne!(one, two);
}

#[test]
fn lengths_outside_the_format_are_refused() {
    let record = from_hex(RECORD_A).unwrap();
    let empty = from_hex(RECORD_B).unwrap();
    for (bytes, refusal) in [
        (vec![], Malformed::Length),
        (empty[..96].to_vec(), Malformed::Length),
        ([&[1_u8][..], &[0; 65_633]].concat(), Malformed::Length),
        ([&[0_u8][..], &record[1..]].concat(), Malformed::Version),
        ([&[2_u8][..], &record[1..]].concat(), Malformed::EsdkMessage),
        ([&[0xff_u8][..], &record[1..]].concat(), Malformed::Version),
        (b"AQGSAAAAAHAAgAAAAAAAAKFA".repeat(5), Malformed::Version),
    ] {
        assert_eq!(Record::parse(&bytes).unwrap_err(), refusal, "{} bytes", bytes.len());
    }
    assert!(Record::parse(&[&[1_u8][..], &[0; 65_632]].concat()).is_ok());
    let extended = [record.as_slice(), &[0]].concat();
    for altered in [&record[..record.len() - 1], &extended] {
        assert!(!opens(altered, &data_key(), &Place::a()));
    }
}

#[test]
fn the_largest_plaintext_seals_and_one_byte_more_does_not() {
    let largest = vec![0x5a; MAX_PLAINTEXT];
    let record = seal(&data_key(), KEY_ID, fresh(), &Place::a().context(), &largest).unwrap();
    assert_eq!(record.len(), 65_633);
    let opened = Record::parse(&record).unwrap().open(&data_key(), &Place::a().context()).unwrap();
    assert_eq!(*opened, largest);
    let more = vec![0; MAX_PLAINTEXT + 1];
    assert_eq!(seal(&data_key(), KEY_ID, fresh(), &Place::a().context(), &more), Err(Unsealed::TooLarge));
}

#[test]
fn a_ciphertext_under_the_header_of_another_record_does_not_open() {
    let place = Place::a();
    let [one, two] =
        [b"one", b"two"].map(|plaintext| seal(&data_key(), KEY_ID, fresh(), &place.context(), plaintext).unwrap());
    for header in [49, 81] {
        let crossed = [&one[..header], &two[header..]].concat();
        assert!(!opens(&crossed, &data_key(), &place), "header of {header} bytes");
    }
}

#[test]
fn a_commitment_of_another_key_is_refused_though_the_tag_is_valid() {
    let message_id = counting(0x40);
    let mut forged = from_hex(RECORD_A).unwrap();
    let others = RecordKeys::derive(&other_key(), &message_id).unwrap();
    forged[49..81].copy_from_slice(others.commitment());
    let record = Record::parse(&forged).unwrap();
    let context = Place::a();
    assert_eq!(record.open(&data_key(), &context.context()).unwrap_err(), Mismatch::Commitment);
    assert_eq!(record.open(&other_key(), &context.context()).unwrap_err(), Mismatch::Authentication);
}

/// Builds one ciphertext whose tag is valid under two keys, as an attacker who holds both can (GCM commits to no key).
#[test]
fn a_ciphertext_forged_for_two_keys_opens_under_the_committed_one_only() {
    let (place, message_id) = (Place::a(), counting(0x40));
    let keys = [data_key(), other_key()].map(|key| RecordKeys::derive(&key, &message_id).unwrap());
    let header = from_hex(RECORD_A).unwrap()[..49].to_vec();
    let aad = [header.as_slice(), &place.encoded()].concat();

    let ciphertext = forge::two_keys(keys.each_ref().map(|keys| keys.okm().first_chunk().unwrap()), &aad);
    for keys in &keys {
        let mut buffer = ciphertext.clone();
        assert!(keys.cipher().unwrap().open_in_place(nonce(), aead::Aad::from(&aad), &mut buffer).is_ok());
    }
    let record = [header.as_slice(), keys[0].commitment(), &ciphertext].concat();
    let record = Record::parse(&record).unwrap();
    assert!(record.open(&data_key(), &place.context()).is_ok());
    assert_eq!(record.open(&other_key(), &place.context()).unwrap_err(), Mismatch::Commitment);
}

fn nonce() -> aead::Nonce {
    super::key::nonce()
}

mod forge {
    use super::cipher::{AES_256, EncryptingKey, UnboundCipherKey};

    pub(super) fn two_keys(keys: [&[u8; 32]; 2], aad: &[u8]) -> Vec<u8> {
        let mut blocks = padded(aad);
        let free = blocks.len();
        blocks.push(0);
        blocks.push((u128::try_from(aad.len()).unwrap() * 8) << 64 | 128);
        let hash_keys = keys.map(|key| encrypt(key, 0));
        let masks = keys.map(|key| encrypt(key, 1 << 32 | 1));
        let coefficient = |at: usize| hash_keys.map(|h| power(h, blocks.len() - at));
        let known = blocks.iter().enumerate().fold(masks[0] ^ masks[1], |sum, (at, block)| {
            let [one, two] = coefficient(at);
            sum ^ multiply(*block, one ^ two)
        });
        let [one, two] = coefficient(free);
        let block = multiply(known, inverse(one ^ two));
        blocks[free] = block;
        let tag = blocks
            .iter()
            .enumerate()
            .fold(masks[0], |sum, (at, block)| sum ^ multiply(*block, power(hash_keys[0], blocks.len() - at)));
        [block.to_be_bytes(), tag.to_be_bytes()].concat()
    }

    fn padded(bytes: &[u8]) -> Vec<u128> {
        bytes
            .chunks(16)
            .map(|chunk| {
                let mut block = [0; 16];
                block[..chunk.len()].copy_from_slice(chunk);
                u128::from_be_bytes(block)
            })
            .collect()
    }

    fn encrypt(key: &[u8; 32], block: u128) -> u128 {
        let key = EncryptingKey::ecb(UnboundCipherKey::new(&AES_256, key).unwrap()).unwrap();
        let mut bytes = block.to_be_bytes();
        key.encrypt(&mut bytes).unwrap();
        u128::from_be_bytes(bytes)
    }

    // The field of NIST SP 800-38D §6.3.
    fn multiply(x: u128, mut y: u128) -> u128 {
        let mut product = 0;
        for bit in (0..128).rev() {
            if x >> bit & 1 == 1 {
                product ^= y;
            }
            y = y >> 1 ^ if y & 1 == 1 { 0xe1 << 120 } else { 0 };
        }
        product
    }

    fn power(base: u128, exponent: usize) -> u128 {
        (1..exponent).fold(base, |product, _| multiply(product, base))
    }

    fn inverse(x: u128) -> u128 {
        let mut square = multiply(x, x);
        let mut product = square;
        for _ in 0..126 {
            square = multiply(square, square);
            product = multiply(product, square);
        }
        product
    }
}

#[test]
fn rows_and_versions_keep_to_their_grammar() {
    for good in ["4", "é", "a/b c.d", &"x".repeat(256)] {
        assert!(Row::parse(good).is_ok(), "{good}");
    }
    for bad in ["", "a\0b", "a\nb", "a\u{7f}", "a\u{85}", &"x".repeat(257), &"é".repeat(129)] {
        assert!(Row::parse(bad).is_err(), "{bad:?}");
    }
    for good in ["0", "7", "18446744073709551615"] {
        assert!(Version::parse(good).is_ok(), "{good}");
    }
    for bad in ["", "007", "00", "+7", "-1", " 7", "7 ", "1e3", "0x1", "18446744073709551616", "٧"] {
        assert!(Version::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_data_key_has_exactly_32_bytes() {
    for length in [0, 16, 31, 33, 64] {
        assert!(DataKey::parse(&vec![7; length]).is_err(), "{length}");
    }
}

#[test]
fn message_ids_of_a_batch_are_as_many_as_asked_and_all_different() {
    let ids: std::collections::BTreeSet<[u8; 32]> =
        MessageIds::draw(1_000, &SystemEntropy).map(|id| *id.as_bytes()).collect();
    assert_eq!(ids.len(), 1_000);
}

#[test]
fn debug_of_a_record_shows_no_ciphertext() {
    let record = from_hex(RECORD_A).unwrap();
    assert_eq!(
        format!("{:?}", Record::parse(&record).unwrap()),
        "Record { data_key_id: 01920000-0000-7000-8000-0000000000a1, .. }"
    );
}

#[test]
fn only_canonical_base64url_decodes() {
    let mut out = Vec::new();
    for refused in ["AQI=", "AQJ", "A", "A QI", "AQ+/", "AQI\n", " AQI", "AQ.I"] {
        assert!(decode_into(refused, &mut out).is_err(), "{refused:?}");
    }
    for (text, bytes) in [("", &[][..]), ("AA", &[0]), ("AQI", &[1, 2]), ("-_8", &[0xfb, 0xff])] {
        decode_into(text, &mut out).unwrap();
        assert_eq!(out, bytes, "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_was_sealed_opens_in_its_place(
        plaintext in proptest::collection::vec(any::<u8>(), 0..2_000),
        tenant in "[a-z0-9][a-z0-9-]{0,47}",
        table in "[A-Za-z_][A-Za-z0-9_]{0,62}",
        column in "[A-Za-z_][A-Za-z0-9_]{0,62}",
        row in "[^\\p{Cc}]{1,64}",
        version in any::<Option<u64>>(),
        key in any::<[u8; 32]>(),
        id in any::<u128>(),
    ) {
        let place = Place::new(&tenant, &table, &column, &row, version);
        let key = DataKey::parse(&key).unwrap();
        let record = seal(&key, Uuid::from_u128(id), fresh(), &place.context(), &plaintext).unwrap();
        prop_assert_eq!(record.len(), OVERHEAD + plaintext.len());
        let parsed = Record::parse(&record).unwrap();
        prop_assert_eq!(parsed.data_key_id(), Uuid::from_u128(id));
        prop_assert_eq!(&*parsed.open(&key, &place.context()).unwrap(), &plaintext);
        prop_assert!(!opens(&record, &other_key(), &place));
    }

    #[test]
    fn no_bytes_make_the_parser_panic_or_open(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        first in 0_u8..4,
    ) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        prop_assert!(!opens(&bytes, &data_key(), &Place::a()));
    }

    #[test]
    fn different_places_have_different_bytes(
        one in ("[a-c]{1,3}", "[a-c]{1,3}", "[a-c]{1,3}", "[a-c]{1,3}", proptest::option::of(0_u64..3)),
        two in ("[a-c]{1,3}", "[a-c]{1,3}", "[a-c]{1,3}", "[a-c]{1,3}", proptest::option::of(0_u64..3)),
    ) {
        let bytes = |(a, b, c, d, v): &(String, String, String, String, Option<u64>)| Place::new(a, b, c, d, *v).encoded();
        prop_assert_eq!(one == two, bytes(&one) == bytes(&two));
    }

    #[test]
    fn base64url_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut text, mut out) = (String::new(), Vec::new());
        encode_into(&bytes, &mut text);
        decode_into(&text, &mut out).unwrap();
        prop_assert_eq!(out, bytes);
    }
}

#[test]
fn a_row_is_the_text_it_was_read_from() {
    for text in ["42", "é \u{1f600}", &"r".repeat(256)] {
        assert_eq!(Row::parse(text).unwrap().as_str(), text);
    }
}

/// Growing later would leave a copy of what is in it behind.
#[test]
fn a_buffer_has_room_before_anything_is_decoded_into_it() {
    let mut out = Vec::with_capacity(8);
    for plaintext in [&b"a"[..], &[7; 300], &[8; 10]] {
        let mut text = String::new();
        encode_into(plaintext, &mut text);
        let before = (out.capacity(), out.as_ptr());
        decode_into(&text, &mut out).unwrap();
        assert!(out == plaintext && out.capacity() >= text.len() + 3);
        assert!(before.0 < text.len() + 3 || before == (out.capacity(), out.as_ptr()), "what fits stays where it is");
    }
}
