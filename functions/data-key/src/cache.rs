//! A map that forgets: by time, and by number.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use shared::clock::Timestamp;

/// Holds at most `limit` values, each until its time.
pub(crate) struct Cache<K, V> {
    limit: usize,
    held: HashMap<K, (V, Timestamp)>,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: HashMap::new() }
    }

    /// The value, while `now` is before its time.
    pub(crate) fn find<Q>(&mut self, key: &Q, now: Timestamp) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.held.get_mut(key).filter(|(_, until)| now < *until).map(|(value, _)| value)
    }

    /// Holds `value` before `until`. Where there is no room, what ends first goes first.
    pub(crate) fn hold(&mut self, key: K, value: V, now: Timestamp, until: Timestamp) {
        if self.held.len() >= self.limit && !self.held.contains_key(&key) {
            self.held.retain(|_, (_, until)| now < *until);
            let first = self.held.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
            if let (true, Some(first)) = (self.held.len() >= self.limit, first) {
                self.held.remove(&first);
            }
        }
        self.held.insert(key, (value, until));
    }

    /// Lets go of everything whose time has come, so that no key stays in memory past it.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        self.held.retain(|_, (_, until)| now < *until);
    }

    pub(crate) fn forget<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.held.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_at_their_time_and_the_number_is_bounded() {
        let at = Timestamp::from_millis;
        let mut cache = Cache::new(2);
        cache.hold(1, "one", at(0), at(10));
        cache.hold(2, "two", at(0), at(20));
        assert_eq!((cache.find(&1, at(9)).copied(), cache.find(&1, at(10)).copied()), (Some("one"), None));
        cache.hold(3, "three", at(5), at(15));
        assert_eq!(cache.held.len(), 2);
        assert_eq!((cache.find(&1, at(5)).copied(), cache.find(&2, at(5)).copied()), (None, Some("two")));
        cache.hold(4, "four", at(16), at(30));
        assert_eq!((cache.find(&3, at(16)).copied(), cache.find(&2, at(16)).copied()), (None, Some("two")));
        cache.hold(4, "again", at(16), at(30));
        assert_eq!((cache.find(&2, at(16)).copied(), cache.find(&4, at(16)).copied()), (Some("two"), Some("again")));
        cache.sweep(at(25));
        assert_eq!(cache.held.len(), 1);
        cache.forget(&4);
        assert!(cache.held.is_empty());
    }
}
