//! What was found out not long ago, kept in memory within bounds.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much of it is kept: of each of two generations.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries.
    pub entries: usize,
    /// Bytes, as whoever keeps something estimates them.
    pub bytes: usize,
}

/// A map that forgets. It holds two generations within their [`Bounds`]: when the younger is full, the elder goes, and what is asked for
/// moves to the younger. Whoever fills it with what nobody asks for again pushes out only what nobody has asked for meanwhile.
///
/// What is in it was true when it was kept. Whether it still is, whoever asks has to see.
#[derive(Debug)]
pub struct Recent<K, V> {
    bounds: Bounds,
    generations: Mutex<Generations<K, V>>,
}

#[derive(Debug)]
struct Generations<K, V> {
    younger: HashMap<K, (V, usize)>,
    elder: HashMap<K, (V, usize)>,
    /// Of the younger.
    bytes: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Nothing is held yet.
    pub fn new(bounds: Bounds) -> Self {
        let generations = Generations { younger: HashMap::new(), elder: HashMap::new(), bytes: 0 };
        Self { bounds, generations: Mutex::new(generations) }
    }

    /// What is held under this key.
    pub fn find<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let mut held = self.lock();
        if let Some((value, _)) = held.younger.get(key) {
            return Some(value.clone());
        }
        let (key, (value, bytes)) = held.elder.remove_entry(key)?;
        held.keep(self.bounds, key, value.clone(), bytes);
        Some(value)
    }

    /// Keeps a value of about `bytes`, in place of any that was there. One that is larger than a generation may be is not kept.
    pub fn keep(&self, key: K, value: V, bytes: usize) {
        let mut held = self.lock();
        held.forget(&key);
        if bytes <= self.bounds.bytes {
            held.keep(self.bounds, key, value, bytes);
        }
    }

    /// Forgets what is held under this key.
    pub fn forget<Q: Eq + Hash + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.lock().forget(key);
    }

    /// How many entries and bytes are held, both generations together.
    pub fn size(&self) -> (usize, usize) {
        let held = self.lock();
        let elder = held.elder.values().map(|(_, bytes)| bytes).sum::<usize>();
        (held.younger.len() + held.elder.len(), held.bytes + elder)
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K, V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Generations<K, V> {
    fn keep(&mut self, bounds: Bounds, key: K, value: V, bytes: usize) {
        if self.younger.len() >= bounds.entries || self.bytes + bytes > bounds.bytes {
            self.elder = mem::take(&mut self.younger);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.younger.insert(key, (value, bytes));
    }

    fn forget<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.elder.remove(key);
        if let Some((_, bytes)) = self.younger.remove(key) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { entries: 4, bytes: 100 };

    #[test]
    fn what_was_kept_is_found_until_it_is_forgotten_or_replaced() {
        let recent = Recent::new(BOUNDS);
        assert_eq!(recent.find("a"), None::<i32>);
        recent.keep("a".to_owned(), 1, 10);
        recent.keep("a".to_owned(), 2, 20);
        assert_eq!((recent.find("a"), recent.size()), (Some(2), (1, 20)));
        recent.forget("a");
        assert_eq!((recent.find("a"), recent.size()), (None, (0, 0)));
    }

    #[test]
    fn a_flood_stays_within_twice_the_bounds_and_leaves_what_is_asked_for() {
        let recent = Recent::new(BOUNDS);
        recent.keep(-1, "asked for".to_owned(), 5);
        for (number, bytes) in (0..1_000).zip((1..=40).cycle()) {
            recent.keep(number, number.to_string(), bytes);
            let (entries, bytes) = recent.size();
            assert!(entries <= 2 * BOUNDS.entries && bytes <= 2 * BOUNDS.bytes, "{number}: {entries} {bytes}");
            assert_eq!(recent.find(&-1).as_deref(), Some("asked for"), "{number}");
        }
        assert_eq!(recent.find(&0), None);
    }

    #[test]
    fn what_is_too_large_is_not_kept_and_replaces_what_was_there_by_nothing() {
        let recent = Recent::new(BOUNDS);
        recent.keep("a", 1, 100);
        recent.keep("a", 2, 101);
        assert_eq!((recent.find("a"), recent.size()), (None, (0, 0)));
    }

    #[test]
    fn one_value_in_both_generations_is_not_counted_twice() {
        let recent = Recent::new(BOUNDS);
        for number in 0..5 {
            recent.keep(number, number, 1);
        }
        // 0 to 3 are the elder ones now; one of them is replaced and one is asked for.
        recent.keep(0, 10, 1);
        assert_eq!((recent.find(&1), recent.find(&0)), (Some(1), Some(10)));
        assert_eq!(recent.size(), (5, 5));
    }
}
