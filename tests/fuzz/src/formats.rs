//! Sealed fields: records and messages open to what was sealed and to nothing else, and their layout is the documented one.

use serde_json::json;
use shared::blind_index::{Bits, ColumnKey, Normalisation, Partitions};
use shared::esdk::{self, Envelope, Framing, Message};
use shared::name::{Identifier, Tenant};
use shared::pc1::{self, Context, DataKey, MAX_PLAINTEXT, Malformed, MessageId, OVERHEAD, Record, Row, Version};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};
use uuid::Uuid;

use crate::choice;

const ARN: &str = "arn:aws:kms:us-east-1:123456789012:key/1";

fn key() -> DataKey {
    DataKey::parse(&[7; 32]).unwrap()
}

/// The place that records are sealed for.
struct Place(Tenant, Identifier, Identifier, Row);

impl Place {
    fn new(row: &str) -> Self {
        let name = |text: &str| Identifier::parse(text).unwrap();
        Self(Tenant::parse("acme").unwrap(), name("users"), name("email"), Row::parse(row).unwrap())
    }

    fn context(&self, version: Option<u64>) -> Context<'_> {
        Context { tenant: &self.0, table: &self.1, column: &self.2, row: &self.3, version: version.map(Version::from) }
    }
}

/// A `pc1` record: any bytes, or one sealed from them and then altered.
pub fn record(data: &[u8]) {
    let (choice, rest) = choice(data);
    let here = Place::new("7");
    if choice % 2 == 0 {
        any_record(rest, &here);
        return;
    }
    let (place, plaintext) = rest.split_at_checked(2).unwrap_or((&[0, 0], rest));
    let version = (choice & 2 == 2).then_some(u64::from(choice));
    let context = here.context(version);
    let id = Uuid::from_bytes([choice; 16]);
    let message_id = || MessageId::from_bytes([choice; 32]);
    let sealed = pc1::seal(&key(), id, message_id(), &context, plaintext);
    let Ok(sealed) = sealed else {
        assert!(plaintext.len() > MAX_PLAINTEXT);
        return;
    };
    assert_eq!(sealed.len(), plaintext.len() + OVERHEAD);
    let opened = |bytes: &[u8], context: &Context<'_>| {
        Record::parse(bytes).ok().and_then(|record| record.open(&key(), context).ok()).map(|plain| plain.to_vec())
    };
    assert_eq!(opened(&sealed, &context).as_deref(), Some(plaintext));
    let elsewhere = Place::new("8");
    assert_eq!(opened(&sealed, &elsewhere.context(version)), None, "it opens in another row");
    assert_eq!(opened(&sealed, &here.context(Some(1_000))), None, "it opens as another version");
    let mut altered = sealed.clone();
    let bit = usize::from(u16::from_be_bytes([place[0], place[1]])) % (sealed.len() * 8);
    altered[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(opened(&altered, &context), None, "bit {bit} may be another one");
    assert_eq!(opened(&sealed[..sealed.len() - 1], &context), None);
}

/// Version 1 and 97 to 65,633 bytes are a record; what opens is what sealing the same again yields.
fn any_record(bytes: &[u8], here: &Place) {
    let fits = (OVERHEAD..=OVERHEAD + MAX_PLAINTEXT).contains(&bytes.len());
    let parsed = Record::parse(bytes);
    match (bytes.first(), fits) {
        (Some(1), true) => assert!(parsed.is_ok()),
        (None, _) | (Some(1), false) => assert_eq!(parsed.err(), Some(Malformed::Length)),
        (Some(2), _) => assert_eq!(parsed.err(), Some(Malformed::EsdkMessage)),
        (Some(_), _) => assert_eq!(parsed.err(), Some(Malformed::Version)),
    }
    let Ok(record) = Record::parse(bytes) else { return };
    assert_eq!(record.data_key_id().as_bytes(), &bytes[1..17]);
    if let Ok(plain) = record.open(&key(), &here.context(None)) {
        let id = MessageId::from_bytes(bytes[17..49].try_into().unwrap());
        let again = pc1::seal(&key(), record.data_key_id(), id, &here.context(None), &plain);
        assert_eq!(again.ok().as_deref(), Some(bytes), "two records of one message");
    }
}

/// A message of the AWS Encryption SDK: any bytes, or one written and then altered.
pub fn esdk_message(data: &[u8]) {
    let (choice, rest) = choice(data);
    if choice % 2 == 0 {
        let Ok(message) = Message::parse(rest, 3) else { return };
        assert!(rest.len() <= esdk::MAX_MESSAGE && (1..=3).contains(&message.data_keys().len()));
        let mut names: Vec<&str> = message.context().iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "a name twice");
        assert!(Message::parse(&rest[..rest.len() - 1], 3).is_err(), "its last byte may be missing");
        assert!(Message::parse(&[rest, &[0]].concat(), 3).is_err(), "something may stand after it");
        let _ = message.open(&key());
        return;
    }
    let (place, plaintext) = rest.split_at_checked(3).unwrap_or((&[0, 0, 0], rest));
    let framing = match place[2] {
        0 => Framing::Unframed,
        length => Framing::Frames(u32::from(length)),
    };
    let pairs = [("column", "email"), ("tenant", "acme")];
    let context = if choice & 2 == 2 { &pairs[..] } else { &[] };
    let envelope = Envelope { key_arn: ARN, context, wrapped: &[9; 32] };
    let Ok(written) = esdk::write(&key(), MessageId::from_bytes([choice; 32]), &envelope, framing, plaintext) else {
        assert!(plaintext.len() > MAX_PLAINTEXT);
        return;
    };
    let opened = |bytes: &[u8]| {
        Message::parse(bytes, 1).ok().and_then(|message| message.open(&key()).ok()).map(|plain| plain.to_vec())
    };
    // Frames of a byte make a message that is longer than any that is read.
    if written.len() <= esdk::MAX_MESSAGE {
        assert_eq!(opened(&written).as_deref(), Some(plaintext));
        let message = Message::parse(&written, 1).unwrap();
        assert_eq!((message.context(), message.data_keys()[0].info), (context, ARN.as_bytes()));
    }
    let mut altered = written.clone();
    let bit = usize::from(u16::from_be_bytes([place[0], place[1]])) % (written.len() * 8);
    altered[bit / 8] ^= 1 << (bit % 8);
    assert_eq!(opened(&altered), None, "bit {bit} may be another one");
}

/// A value on its way into a blind index.
pub fn blind_index(data: &[u8]) {
    let (choice, rest) = choice(data);
    let name = ["exact", "nfc_casefold", "digits", "no such"][usize::from(choice % 4)];
    let Ok(normalisation) = Normalisation::parse(name) else { return };
    let Ok(normal) = normalisation.apply(rest) else {
        let text = std::str::from_utf8(rest);
        assert!(normalisation != Normalisation::Exact);
        let strange = |text: &str| {
            text.chars().any(|letter| letter.is_numeric() && !letter.is_ascii())
                || !text.bytes().any(|byte| byte.is_ascii_digit())
        };
        assert!(text.is_err() || normalisation == Normalisation::Digits && text.is_ok_and(strange));
        return;
    };
    match normalisation {
        Normalisation::Exact => assert_eq!(normal.as_slice(), rest),
        Normalisation::Digits => {
            assert!(!normal.is_empty() && normal.iter().all(u8::is_ascii_digit));
            assert_eq!(normalisation.apply(&normal).as_deref(), Ok(&*normal));
        }
        Normalisation::NfcCasefold => {
            let (text, normal) = (std::str::from_utf8(rest).unwrap(), std::str::from_utf8(&normal).unwrap());
            assert!(is_nfc(normal));
            // However a keyboard or a database composes it, it is found.
            for spelled in [text.nfd().collect::<String>(), text.nfc().collect(), text.to_ascii_uppercase()] {
                let found = normalisation.apply(spelled.as_bytes()).unwrap();
                assert_eq!(std::str::from_utf8(&found).unwrap(), normal, "{spelled:?}");
            }
        }
    }
    entries(&normal, u64::from(choice), u64::from(rest.first().copied().unwrap_or_default()));
}

fn entries(value: &[u8], bits: u64, partitions: u64) {
    let bits = if bits == 255 { 256 } else { bits };
    let kept = Bits::parse(bits);
    assert_eq!(kept.is_ok(), (1..=63).contains(&bits) || bits == 256, "{}", json!(bits));
    assert_eq!(Partitions::parse(partitions).is_ok(), (1..=255).contains(&partitions));
    let (Ok(kept), Ok(spread)) = (kept, Partitions::parse(partitions)) else { return };
    let Place(tenant, table, column, _) = Place::new("7");
    let column = ColumnKey::derive(&key(), Uuid::nil(), &tenant, &table, &column).unwrap();
    let (short, whole) = (column.entries(value, kept, spread), column.entries(value, Bits::WHOLE, spread));
    assert_eq!(short.len(), usize::try_from(partitions).unwrap());
    for (short, whole) in short.iter().zip(&whole) {
        assert_eq!(short.len(), usize::try_from(bits.div_ceil(8)).unwrap());
        for bit in 0..short.len() * 8 {
            let at = |bytes: &[u8]| bytes[bit / 8] >> (7 - bit % 8) & 1;
            let expected = if u64::try_from(bit).unwrap() < bits { at(whole) } else { 0 };
            assert_eq!(at(short), expected, "bit {bit}");
        }
    }
}
