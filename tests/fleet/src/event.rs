//! Time, chance and the queue of what happens next. A run is its seed.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Seconds since a run began.
pub type Seconds = f64;

/// SplitMix64: the same numbers on every machine.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// At least 0 and below 1.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // 53 bits are what a float holds.
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential, with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

/// One thing that will happen.
#[derive(Clone, Copy, Debug)]
struct Due<T> {
    at: Seconds,
    /// What was planned first happens first.
    order: u64,
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.total_cmp(&other.at).then(self.order.cmp(&other.order))
    }
}

/// What happens next.
#[derive(Debug)]
pub struct Agenda<T> {
    due: BinaryHeap<Reverse<Due<T>>>,
    planned: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { due: BinaryHeap::new(), planned: 0 }
    }
}

impl<T> Agenda<T> {
    /// `what` happens at this time.
    pub fn plan(&mut self, at: Seconds, what: T) {
        self.planned += 1;
        self.due.push(Reverse(Due { at, order: self.planned, what }));
    }

    /// Takes the earliest that was planned.
    pub fn earliest(&mut self) -> Option<(Seconds, T)> {
        self.due.pop().map(|Reverse(due)| (due.at, due.what))
    }
}
