//! Draws that depend on a seed, a name and a number alone.

use local::faults::plan::draw;

/// One row of draws. Two with the same seed and name are the same.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    name: String,
    drawn: u64,
}

impl Dice {
    /// The row of this name.
    #[must_use]
    pub fn new(seed: u64, name: impl Into<String>) -> Self {
        Self { seed, name: name.into(), drawn: 0 }
    }

    /// The next draw.
    fn number(&mut self) -> u64 {
        self.drawn += 1;
        draw(self.seed, &self.name, self.drawn)
    }

    /// From 0 to one less than `bound`; 0 where there is nothing to choose from.
    pub fn below(&mut self, bound: usize) -> usize {
        let drawn = self.number().checked_rem(u64::try_from(bound).unwrap_or(u64::MAX)).unwrap_or_default();
        usize::try_from(drawn).unwrap_or_default()
    }

    /// Whether something happens that does so this often in a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let at = self.below(of.len());
        of.get(at)
    }

    /// As many letters.
    pub fn word(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
        (0..length).filter_map(|_| self.pick(LETTERS).copied().map(char::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_name_draw_the_same_and_others_do_not() {
        let row = |seed, name: &str| {
            let mut dice = Dice::new(seed, name);
            (0..20).map(|_| dice.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(row(1, "a"), row(1, "a"));
        assert_ne!(row(1, "a"), row(2, "a"));
        assert_ne!(row(1, "a"), row(1, "b"));
        assert!(Dice::new(1, "a").pick::<u8>(&[]).is_none());
    }
}
