use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::encoding::hex;
use crate::pc1::{DataKey, MAX_PLAINTEXT, MessageId, Unsealed};

const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const CONTEXT: [(&str, &str); 3] =
    [("data_key_id", "01920000-0000-7000-8000-0000000000a1"), ("purpose", "field"), ("tenant", "acme")];
const HEAD: &str = "020478606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f00530003000b646174615f6b65795f6964002430313932303030302d303030302d373030302d383030302d3030303030303030303061310007707572706f736500056669656c64000674656e616e74000461636d65000100076177732d6b6d73004b61726e3a6177733a6b6d733a65752d776573742d313a3131313132323232333333333a6b65792f31323334616263642d313261622d333463642d353665662d3132333435363738393061620008eeeeeeeeeeeeeeee";
const UNFRAMED_C: &str = "0100000000337555133bdca37fac503130de1bab3317066f688718b873874d0fa5c388b0925d1da827f0908023ddb4f48a5fbb04fe000000000000000000000001000000000000000b6be7b45f7ed07563fa9986324bee98240b98cb921fac4f3d06e26d";
const FRAMED_C: &str = "0200001000337555133bdca37fac503130de1bab3317066f688718b873874d0fa5c388b092301e587a1cfd4a801d83f5205f53b5d1ffffffff000000010000000000000000000000010000000b6be7b45f7ed07563fa9986ab6be95a20bc2fa733b6dead346bf34d";

fn counting(from: u8) -> [u8; 32] {
    std::array::from_fn(|at| from + u8::try_from(at).unwrap())
}

fn data_key() -> DataKey {
    DataKey::parse(&counting(0)).unwrap()
}

fn envelope() -> Envelope<'static> {
    Envelope { key_arn: ARN, context: &CONTEXT, wrapped: &[0xee; 8] }
}

fn written(framing: Framing, plaintext: &[u8]) -> Vec<u8> {
    write(&data_key(), MessageId::from_bytes(counting(0x60)), &envelope(), framing, plaintext).unwrap()
}

fn opened(bytes: &[u8]) -> Option<Vec<u8>> {
    Message::parse(bytes, 1).ok()?.open(&data_key()).ok().map(|plaintext| plaintext.to_vec())
}

fn refusal(bytes: &[u8]) -> Malformed {
    Message::parse(bytes, 1).unwrap_err()
}

/// The message with these bytes in the place of those at `at`.
fn with(message: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    [&message[..at], bytes, &message[at + bytes.len()..]].concat()
}

/// Where the content type stands in a message with this framing.
fn content_type() -> usize {
    HEAD.len() / 2
}

#[test]
fn known_answer_c_holds_byte_for_byte() {
    for (framing, tail) in [(Framing::Unframed, UNFRAMED_C), (Framing::USUAL, FRAMED_C)] {
        let message = written(framing, b"123-45-6789");
        assert_eq!(hex(&message), [HEAD, tail].concat());
        let parsed = Message::parse(&message, 1).unwrap();
        assert_eq!(parsed.context(), CONTEXT);
        let [key] = parsed.data_keys() else { panic!("one key") };
        assert_eq!((key.provider, key.info, key.blob), (KMS_PROVIDER, ARN.as_bytes(), &[0xee; 8][..]));
        assert_eq!(parsed.open(&data_key()).unwrap().as_slice(), b"123-45-6789");
    }
}

#[test]
fn every_vector_of_aws_opens_and_the_forged_ones_fail_at_their_commitment() {
    let (mut good, mut forged, mut signed) = (0, 0, 0);
    for line in include_str!("vectors.txt").lines().filter(|line| !line.starts_with('#')) {
        let [status, key, plaintext, message] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let key = DataKey::parse(&STANDARD.decode(key).unwrap()).unwrap();
        let bytes = STANDARD.decode(message).unwrap();
        let message = Message::parse(&bytes, 2).unwrap();
        if status == "forged" {
            forged += 1;
            assert_eq!(message.open(&key).unwrap_err(), Mismatch::Commitment);
            continue;
        }
        good += 1;
        assert_eq!(*message.open(&key).unwrap(), STANDARD.decode(plaintext).unwrap());
        assert_eq!(message.open(&data_key()).unwrap_err(), Mismatch::Commitment);
        if message.suite == Suite::Signed {
            signed += 1;
            everything_signed_matters(&bytes, &key);
        }
    }
    assert_eq!((good, forged, signed), (41, 5, 21));
}

/// One bit in every twentieth byte, and in every byte of the footer.
fn everything_signed_matters(bytes: &[u8], key: &DataKey) {
    let footer = Message::parse(bytes, 2).unwrap().signed.len();
    for at in (0..footer).step_by(20).chain(footer..bytes.len()) {
        let mut altered = bytes.to_vec();
        altered[at] ^= 1;
        let outcome = Message::parse(&altered, 2).ok().and_then(|message| message.open(key).ok());
        assert!(outcome.is_none(), "byte {at} of {}", bytes.len());
    }
    assert!(Message::parse(&bytes[..footer], 2).is_err(), "a signed message without its footer");
}

#[test]
fn no_single_flipped_bit_of_a_message_goes_unnoticed() {
    for framing in [Framing::Unframed, Framing::Frames(4)] {
        let message = written(framing, b"123-45-6789");
        for bit in 0..message.len() * 8 {
            let mut altered = message.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(&altered), None, "{framing:?} bit {bit}");
        }
        for length in 0..message.len() {
            assert!(Message::parse(&message[..length], 1).is_err(), "{framing:?} cut at {length}");
        }
        assert_eq!(refusal(&[&message[..], &[0]].concat()), Malformed::Length);
    }
}

#[test]
fn other_versions_suites_and_signatures_that_are_none_are_refused() {
    let message = written(Framing::Unframed, b"x");
    for (at, bytes, expected) in [
        (0, &[0x01][..], Malformed::Version),
        (0, &[0x01, 0x80], Malformed::Version),
        (1, &[0x03, 0x78], Malformed::Suite),
        (1, &[0x01, 0x78], Malformed::Suite),
        (1, &[0x00, 0x14], Malformed::Suite),
        (1, &[0x05, 0x78], Malformed::Context),
    ] {
        assert_eq!(refusal(&with(&message, at, bytes)), expected, "{bytes:02x?}");
    }
    let reserved = [(PUBLIC_KEY, "AA==")];
    let envelope = Envelope { context: &reserved, ..envelope() };
    let message = write(&data_key(), MessageId::from_bytes(counting(0)), &envelope, Framing::Unframed, b"x").unwrap();
    assert_eq!(refusal(&message), Malformed::Context, "a signer's key without a signature");
}

/// A header up to its body, of parts that may be wrong.
fn header(context: &[u8], keys: &[u8], framing: &[u8]) -> Vec<u8> {
    [&[2, 4, 0x78][..], &counting(0x60), context, keys, framing, &[0; 48]].concat()
}

const ONE_KEY: &[u8] = b"\0\x01\0\x01p\0\x01i\0\x01b";
const NO_CONTEXT: &[u8] = b"\0\0";
const WHOLE: &[u8] = b"\x01\0\0\0\0";

#[test]
fn a_context_of_another_form_is_refused_and_any_order_is_read() {
    let body = [&[0; 12][..], &[0; 8], &[0; 16]].concat();
    let read = |context: &[u8]| {
        let bytes = [header(context, ONE_KEY, WHOLE), body.clone()].concat();
        Message::parse(&bytes, 1).map(|message| message.context().len())
    };
    assert_eq!(read(NO_CONTEXT), Ok(0));
    assert_eq!(read(b"\0\x08\0\x01\0\x01k\0\x01v"), Ok(1));
    assert_eq!(read(b"\0\x0e\0\x02\0\x01z\0\x01v\0\x01a\0\x01v"), Ok(2), "not sorted, and read");
    for bad in [
        &b"\0\x02\0\0"[..],
        b"\0\x01\0",
        b"\0\x08\0\x02\0\x01k\0\x01v",
        b"\0\x09\0\x01\0\x01k\0\x01v!",
        b"\0\x08\0\x01\0\x02k\0\x01v",
        b"\0\x08\0\x01\0\x01\xff\0\x01v",
        b"\0\x0e\0\x02\0\x01k\0\x01v\0\x01k\0\x01w",
    ] {
        assert_eq!(read(bad), Err(Malformed::Context), "{bad:?}");
    }
    assert_eq!(read(b"\xff\xff\0\x01"), Err(Malformed::Length));
    let long = vec![b'v'; 8_192];
    let long = [&u16::try_from(long.len() + 7).unwrap().to_be_bytes()[..], b"\0\x01\0\x01k\x20\0", &long].concat();
    assert_eq!(read(&long), Err(Malformed::TooLarge));
}

#[test]
fn none_or_too_many_data_keys_are_refused() {
    let body = [&[0; 12][..], &[0; 8], &[0; 16]].concat();
    let read = |keys: &[u8], most: usize| {
        let bytes = [header(NO_CONTEXT, keys, WHOLE), body.clone()].concat();
        Message::parse(&bytes, most).map(|message| message.data_keys().len())
    };
    let two = b"\0\x02\0\x01p\0\x01i\0\x01b\0\x01p\0\x01i\0\x01b";
    assert_eq!((read(ONE_KEY, 1), read(two, 2)), (Ok(1), Ok(2)));
    assert_eq!(read(two, 1), Err(Malformed::DataKeys));
    assert_eq!(read(b"\0\0", 1), Err(Malformed::DataKeys));
    assert_eq!(read(b"\0\x01\0\x01\xff\0\x01i\0\x01b", 1), Err(Malformed::DataKeys));
}

#[test]
fn a_body_of_another_form_is_refused() {
    let message = written(Framing::Unframed, b"123-45-6789");
    let at = content_type();
    for framing in [[0_u8, 0, 0, 0, 0], [3, 0, 0, 0, 0], [1, 0, 0, 0, 1], [2, 0, 0, 0, 0]] {
        assert_eq!(refusal(&with(&message, at, &framing)), Malformed::Body, "{framing:?}");
    }
    let length = at + 5 + 48 + 12;
    assert_eq!(refusal(&with(&message, length, &u64::MAX.to_be_bytes())), Malformed::TooLarge);
    assert_eq!(refusal(&with(&message, length, &65_537_u64.to_be_bytes())), Malformed::TooLarge);
    assert_eq!(refusal(&with(&message, length, &65_536_u64.to_be_bytes())), Malformed::Length);
    assert_eq!(refusal(&vec![2; MAX_MESSAGE + 1]), Malformed::TooLarge);
}

#[test]
fn frames_out_of_order_too_many_or_without_an_end_are_refused() {
    let message = written(Framing::Frames(4), b"123-45-6789");
    // Two frames of four bytes and a last one of three.
    let first = content_type() + 5 + 48;
    let (frame, last) = (4 + 12 + 4 + 16, 8 + 12 + 4 + 3 + 16);
    assert_eq!(message.len(), first + 2 * frame + last);
    let (head, one, two, end) = (
        &message[..first],
        &message[first..first + frame],
        &message[first + frame..first + 2 * frame],
        &message[first + 2 * frame..],
    );
    for (parts, expected) in [
        (vec![head, two, one, end], Malformed::Frames),
        (vec![head, one, one, end], Malformed::Frames),
        (vec![head, one, end], Malformed::Frames),
        (vec![head, end], Malformed::Frames),
        (vec![head, one, two], Malformed::Length),
        (vec![head], Malformed::Length),
        (vec![head, one, two, end, end], Malformed::Length),
    ] {
        assert_eq!(refusal(&parts.concat()), expected);
    }
    let longer = with(&message, first + 2 * frame + 8 + 12, &5_u32.to_be_bytes());
    assert_eq!(refusal(&longer), Malformed::Frames, "the last frame is longer than the others");
    let huge = with(&message, content_type() + 1, &u32::MAX.to_be_bytes());
    assert_eq!(refusal(&huge), Malformed::TooLarge);
}

#[test]
fn frames_cannot_be_cut_off_by_making_an_earlier_one_the_last() {
    let message = written(Framing::Frames(4), b"12345678");
    let first = content_type() + 5 + 48;
    let regular = &message[first..first + 36];
    let last = [&LAST.to_be_bytes()[..], &regular[..16], &4_u32.to_be_bytes(), &regular[16..]].concat();
    let cut = [&message[..first], &last].concat();
    let parsed = Message::parse(&cut, 1).unwrap();
    assert_eq!(parsed.open(&data_key()).unwrap_err(), Mismatch::Body);
}

#[test]
fn pieces_of_one_message_do_not_open_in_another() {
    let other = write(&data_key(), MessageId::from_bytes(counting(0x20)), &envelope(), Framing::Unframed, b"same");
    let (one, two) = (written(Framing::Unframed, b"same"), other.unwrap());
    for at in [35, content_type() + 5, content_type() + 5 + 48] {
        assert_eq!(opened(&[&one[..at], &two[at..]].concat()), None, "cut at {at}");
    }
}

#[test]
fn the_largest_plaintext_fits_and_one_byte_more_does_not() {
    let largest = vec![0x5a; MAX_PLAINTEXT];
    for framing in [Framing::Unframed, Framing::USUAL, Framing::Frames(256), Framing::Frames(u32::MAX)] {
        let message = written(framing, &largest);
        assert!(message.len() <= MAX_MESSAGE, "{framing:?}");
        assert_eq!(opened(&message).unwrap(), largest);
    }
    let id = MessageId::from_bytes(counting(0));
    let more = vec![0; MAX_PLAINTEXT + 1];
    assert_eq!(write(&data_key(), id, &envelope(), Framing::USUAL, &more), Err(Unsealed::TooLarge));
}

#[test]
fn debug_of_a_message_shows_nothing_of_it() {
    let message = written(Framing::USUAL, b"123-45-6789");
    assert_eq!(format!("{:?}", Message::parse(&message, 1).unwrap()), "Message { suite: Committing, .. }");
}

proptest! {
    #[test]
    fn whatever_was_written_opens(
        plaintext in proptest::collection::vec(any::<u8>(), 0..600),
        frame in proptest::option::of(1_u32..200),
        key in any::<[u8; 32]>(),
        id in any::<[u8; 32]>(),
        wrapped in proptest::collection::vec(any::<u8>(), 1..300),
    ) {
        let framing = frame.map_or(Framing::Unframed, Framing::Frames);
        let key = DataKey::parse(&key).unwrap();
        let envelope = Envelope { wrapped: &wrapped, ..envelope() };
        let message = write(&key, MessageId::from_bytes(id), &envelope, framing, &plaintext).unwrap();
        let parsed = Message::parse(&message, 1).unwrap();
        prop_assert_eq!(&*parsed.open(&key).unwrap(), &plaintext);
        prop_assert_eq!(parsed.data_keys()[0].blob, &wrapped[..]);
        prop_assert_eq!(parsed.open(&data_key()).unwrap_err(), Mismatch::Commitment);
        let frames = frame.map_or(1, |frame| plaintext.len().max(1).div_ceil(usize::try_from(frame).unwrap()));
        prop_assert_eq!(parsed.pieces.len(), frames);
    }

    #[test]
    fn no_bytes_make_the_parser_panic_or_open(
        tail in proptest::collection::vec(any::<u8>(), 0..400),
        at in 0_usize..300,
        patch in proptest::collection::vec(any::<u8>(), 1..5),
    ) {
        prop_assert_eq!(opened(&[&[2, 4, 0x78][..], &tail].concat()), None);
        let message = written(Framing::Frames(4), b"123-45-6789");
        let at = at.min(message.len() - patch.len());
        let altered = with(&message, at, &patch);
        prop_assert!(altered == message || opened(&altered).is_none());
    }
}
