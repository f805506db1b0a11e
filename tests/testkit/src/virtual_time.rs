//! A time that jumps to the next timer when nothing else can go on.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

/// The time of one test, which begins at zero. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct VirtualTime(Arc<Mutex<Timers>>);

#[derive(Debug, Default)]
struct Timers {
    now: Duration,
    made: u64,
    waiting: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl VirtualTime {
    /// How much of it has passed.
    pub fn now(&self) -> Duration {
        self.with(|timers| timers.now)
    }

    /// Ends when this much more has passed.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + Sync + use<> {
        let (rings, bell) = oneshot::channel();
        self.with(|timers| {
            timers.made += 1;
            timers.waiting.insert((timers.now + duration, timers.made), rings);
        });
        async move {
            let _ = bell.await;
        }
    }

    /// Runs `future` to its end.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            if !flag.0.swap(false, Ordering::SeqCst) {
                self.advance();
                flag.0.store(false, Ordering::SeqCst);
            }
        }
    }

    fn advance(&self) {
        loop {
            let ((at, _), rings) =
                self.with(|timers| timers.waiting.pop_first()).expect("nothing to wait for, and not done");
            // A timer whose sleeper is gone lets no time pass.
            if !rings.is_closed() {
                self.with(|timers| timers.now = at);
                let _ = rings.send(());
                return;
            }
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Timers) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
