//! Looks for a secret in the memory of this process, as somebody with a dump of it would.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use shared::entropy::{Entropy as _, SystemEntropy};
use shared::secret::SecretBytes;
use zeroize::Zeroizing;

/// What hides a secret from its own search: nothing here ever holds it in clear.
const MASK: u8 = 0xa5;
const LENGTH: usize = 32;
/// Bytes that are looked at in one piece.
const PIECE: usize = 1 << 18;

/// A secret of 32 bytes that is known here by its mask only.
#[derive(Clone)]
pub struct Canary([u8; LENGTH]);

impl Canary {
    /// A fresh one.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        let mut masked = [0; LENGTH];
        SystemEntropy.fill(&mut masked);
        Self(masked)
    }

    /// The one whose mask this is.
    pub fn of_masked(masked: &[u8]) -> Option<Self> {
        masked.try_into().map(Self).ok()
    }

    /// The secret under its mask.
    pub fn masked(&self) -> &[u8] {
        &self.0
    }

    /// The secret, written where it is to be and nowhere else.
    pub fn reveal(&self) -> SecretBytes {
        SecretBytes::new(self.0.iter().map(|byte| byte ^ MASK).collect())
    }

    /// Whether these bytes are the secret.
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == LENGTH && bytes.iter().zip(&self.0).all(|(byte, masked)| byte ^ MASK == *masked)
    }

    /// How often the secret stands in whatever of this process can be written to: heap, stacks and static data.
    ///
    /// # Errors
    /// When the process may not look at itself.
    pub fn copies(&self) -> io::Result<usize> {
        let memory = File::open("/proc/self/mem")?;
        let mut piece = Zeroizing::new(vec![0; PIECE]);
        let own = u64::try_from(piece.as_ptr().addr()).map_err(io::Error::other)?;
        let mut copies = 0;
        for (start, end) in writable()? {
            let mut at = start;
            while at < end {
                let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
                let Ok(read) = memory.read_at(&mut piece[..length], at) else { break };
                // What was just read stands here once more, and does not count.
                let elsewhere = |place: usize| {
                    let address = at + u64::try_from(place).unwrap_or_default();
                    !(own..own + u64::try_from(PIECE).unwrap_or_default()).contains(&address)
                };
                copies += piece[..read]
                    .windows(LENGTH)
                    .enumerate()
                    .filter(|(place, bytes)| bytes[0] ^ MASK == self.0[0] && self.is(bytes) && elsewhere(*place))
                    .count();
                if read <= LENGTH {
                    break;
                }
                // The next piece begins where a secret could begin that this one cut off.
                at += u64::try_from(read - LENGTH + 1).unwrap_or(u64::MAX);
            }
        }
        Ok(copies)
    }
}

/// From where to where this process can write.
fn writable() -> io::Result<Vec<(u64, u64)>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let region = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        words.next()?.starts_with("rw").then_some((number(start)?, number(end)?))
    };
    Ok(maps.lines().filter_map(region).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_while_it_is_there_and_not_once_it_was_wiped() {
        let canary = Canary::new();
        assert_eq!(canary.copies().unwrap(), 0);
        let held = canary.reveal();
        assert!(canary.is(held.expose()) && canary.copies().unwrap() == 1);
        let on_the_stack: [u8; LENGTH] = held.expose().try_into().unwrap();
        assert!(canary.copies().unwrap() >= 2, "the stack is looked at too");
        let on_the_stack = std::hint::black_box(on_the_stack);
        drop(held);
        assert!(canary.copies().unwrap() >= 1 && canary.is(&on_the_stack));
    }

    #[test]
    fn freed_memory_that_nobody_wiped_is_found() {
        let canary = Canary::new();
        let forgotten: Vec<u8> = canary.reveal().expose().to_vec();
        // The allocator takes the first bytes of a freed block for itself, so the secret stands further back in this one.
        let block = [vec![0; 64], forgotten].concat();
        drop(block);
        assert!(canary.copies().unwrap() >= 1);
    }
}
