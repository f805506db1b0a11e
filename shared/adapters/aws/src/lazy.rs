//! Clients that are built when they are first used.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

/// A value made at its first use, shared by all clones. Building an SDK client costs a noticeable part of a cold start, and many
/// a sandbox answers its first requests without ever asking the service.
pub struct Lazy<T>(Arc<LazyLock<T, Box<dyn FnOnce() -> T + Send>>>);

impl<T> Lazy<T> {
    /// Keeps `make` until the value is wanted.
    pub fn new(make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(make))))
    }
}

impl<T> Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Lazy<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Lazy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_value_is_made_once_and_only_when_it_is_used() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let lazy = Lazy::new(move || counter.fetch_add(1, Ordering::Relaxed) + 41);
        let clone = lazy.clone();
        assert_eq!(made.load(Ordering::Relaxed), 0);
        assert_eq!((*lazy, *clone, made.load(Ordering::Relaxed)), (41, 41, 1));
    }
}
