//! The two ways in which AWS refuses: a rate (a bucket that fills), and a number at once.

use std::collections::VecDeque;

use crate::event::Seconds;

/// So many a second, and so many at once after a rest.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: f64,
    room: f64,
    left: f64,
    since: Seconds,
    /// What came of it.
    pub tally: Tally,
}

/// What was asked of a quota.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All that was asked for.
    pub asked: u64,
    /// What it refused.
    pub refused: u64,
    /// When it refused first.
    pub first_refusal: Option<Seconds>,
    /// The most that was asked within one second of the clock, and within the last one that was looked at.
    pub peak: u64,
    second: u64,
    within: u64,
}

impl Tally {
    fn ask(&mut self, now: Seconds) {
        self.asked += 1;
        let second = now.max(0.0) as u64;
        if second != self.second {
            (self.second, self.within) = (second, 0);
        }
        self.within += 1;
        self.peak = self.peak.max(self.within);
    }

    fn refuse(&mut self, now: Seconds) {
        self.refused += 1;
        self.first_refusal.get_or_insert(now);
    }

    /// Forgets what was counted, for a part of a run that is looked at by itself.
    pub fn begin(&mut self) {
        *self = Self { second: self.second, ..Self::default() };
    }
}

impl Bucket {
    /// A full one. An infinite rate refuses nothing and counts.
    #[must_use]
    pub fn new(rate: f64, room: f64) -> Self {
        Self { rate, room, left: room, since: 0.0, tally: Tally::default() }
    }

    /// Whether there is one more.
    pub fn take(&mut self, now: Seconds) -> bool {
        self.tally.ask(now);
        if self.rate.is_infinite() {
            return true;
        }
        self.left = (self.left + (now - self.since) * self.rate).min(self.room);
        self.since = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return true;
        }
        self.tally.refuse(now);
        false
    }
}

/// So many at once, and whoever comes then waits in the order of coming: a database's connections behind a proxy.
#[derive(Clone, Debug)]
pub struct Servers<T> {
    all: u64,
    busy: u64,
    waiting: VecDeque<(Seconds, T)>,
    /// The most that were busy.
    pub peak: u64,
    /// All that came.
    pub asked: u64,
    /// Seconds that all together waited.
    pub waited: f64,
}

impl<T> Servers<T> {
    /// So many, all free.
    #[must_use]
    pub fn new(all: u64) -> Self {
        Self { all, busy: 0, waiting: VecDeque::new(), peak: 0, asked: 0, waited: 0.0 }
    }

    /// Whether one is free at once; otherwise `who` waits.
    pub fn come(&mut self, now: Seconds, who: T) -> bool {
        self.asked += 1;
        if self.busy < self.all {
            self.busy += 1;
            self.peak = self.peak.max(self.busy);
            return true;
        }
        self.waiting.push_back((now, who));
        false
    }

    /// One is done: whoever waited longest is served now.
    pub fn leave(&mut self, now: Seconds) -> Option<T> {
        match self.waiting.pop_front() {
            Some((since, who)) => {
                self.waited += now - since;
                Some(who)
            }
            None => {
                self.busy -= 1;
                None
            }
        }
    }

    /// How many wait.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.waiting.len()
    }
}
