//! A map that forgets: by time, by number, and without letting one tenant push out another's.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use shared::clock::Timestamp;
use shared::name::Tenant;
use shared::port::KeyContext;

/// Whose a key of the cache is.
pub(crate) trait Owned {
    /// The tenant on whose behalf the value is held.
    fn tenant(&self) -> &Tenant;
}

impl Owned for Tenant {
    fn tenant(&self) -> &Tenant {
        self
    }
}

impl<T> Owned for (Tenant, T) {
    fn tenant(&self) -> &Tenant {
        &self.0
    }
}

impl<T> Owned for (KeyContext, T) {
    fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }
}

/// Holds at most `limit` values, each until its time. Where there is no room, the tenant who holds the most makes it: whoever holds no
/// more than its even share never loses a value to somebody else's.
pub(crate) struct Cache<K, V> {
    limit: usize,
    held: HashMap<K, (V, Timestamp)>,
}

impl<K: Hash + Eq + Clone + Owned, V> Cache<K, V> {
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

    /// Holds `value` before `until`. Where there is no room, one value of the tenant that holds the most goes: the one that ends first.
    pub(crate) fn hold(&mut self, key: K, value: V, now: Timestamp, until: Timestamp) {
        if self.held.len() >= self.limit && !self.held.contains_key(&key) {
            self.sweep(now);
            if self.held.len() >= self.limit
                && let Some(given_up) = self.given_up(key.tenant())
            {
                self.held.remove(&given_up);
            }
        }
        self.held.insert(key, (value, until));
    }

    /// What goes to make room for a value of `newcomer`. Among those who hold equally many it is the newcomer who gives up one of its own.
    fn given_up(&self, newcomer: &Tenant) -> Option<K> {
        let mut counts = HashMap::<&Tenant, usize>::new();
        for key in self.held.keys() {
            let count = counts.entry(key.tenant()).or_default();
            *count = count.saturating_add(1);
        }
        let (owner, _) = counts.into_iter().max_by_key(|(tenant, count)| (*count, *tenant == newcomer))?;
        let of_owner = self.held.iter().filter(|(key, _)| key.tenant() == owner);
        of_owner.min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone())
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

    /// Lets go of whatever has a key like this.
    pub(crate) fn forget_all(&mut self, gone: impl Fn(&K) -> bool) {
        self.held.retain(|key, _| !gone(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    #[test]
    fn values_end_at_their_time_and_the_number_is_bounded() {
        let key = |number: u8| (tenant("acme"), number);
        let mut cache = Cache::new(2);
        cache.hold(key(1), "one", at(0), at(10));
        cache.hold(key(2), "two", at(0), at(20));
        assert_eq!((cache.find(&key(1), at(9)).copied(), cache.find(&key(1), at(10)).copied()), (Some("one"), None));
        cache.hold(key(3), "three", at(5), at(15));
        assert_eq!(cache.held.len(), 2);
        assert_eq!((cache.find(&key(1), at(5)).copied(), cache.find(&key(2), at(5)).copied()), (None, Some("two")));
        cache.hold(key(4), "four", at(16), at(30));
        assert_eq!((cache.find(&key(3), at(16)).copied(), cache.find(&key(2), at(16)).copied()), (None, Some("two")));
        cache.hold(key(4), "again", at(16), at(30));
        assert_eq!(
            (cache.find(&key(2), at(16)).copied(), cache.find(&key(4), at(16)).copied()),
            (Some("two"), Some("again"))
        );
        cache.sweep(at(25));
        assert_eq!(cache.held.len(), 1);
        cache.forget(&key(4));
        assert!(cache.held.is_empty());
    }

    #[test]
    fn one_tenants_flood_costs_itself_and_nobody_else() {
        let mut cache = Cache::new(100);
        for number in 0..10 {
            // What ends first of all would be the first to go if only time counted.
            cache.hold((tenant("quiet"), number), (), at(0), at(10));
        }
        for number in 0..10_000 {
            cache.hold((tenant("flood"), number), (), at(0), at(1_000 + number));
        }
        assert_eq!(cache.held.len(), 100);
        assert!((0..10).all(|number| cache.find(&(tenant("quiet"), number), at(1)).is_some()));
        assert!(cache.find(&(tenant("flood"), 9_999), at(1)).is_some(), "the newest of its own is what it keeps");
        // Whoever comes when everything is taken gets room from whoever has the most, up to an even share.
        for number in 0..200 {
            cache.hold((tenant("late"), number), (), at(1), at(2_000 + number));
        }
        let held = |cache: &Cache<(Tenant, i64), ()>, name| {
            cache.held.keys().filter(|(owner, _)| *owner == tenant(name)).count()
        };
        assert_eq!((held(&cache, "quiet"), held(&cache, "late"), held(&cache, "flood")), (10, 45, 45));
        // Many tenants with one value each cannot push out more than what is above their share either.
        for number in 0..1_000 {
            cache.hold((tenant(&format!("t{number}")), 0), (), at(1), at(3_000 + number));
        }
        assert_eq!(cache.held.len(), 100);
    }
}
