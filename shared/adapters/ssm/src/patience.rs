//! Repeating a call that was throttled or got no answer, after random pauses, for a bounded time.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_async::future::timeout::Timeout;
use aws_smithy_async::rt::sleep::{AsyncSleep as _, SharedAsyncSleep};
use shared::entropy::Entropy;
use shared::port::Fault;

use crate::fault;

/// The first pause is at most this long, each further one at most twice the one before.
const BASE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(2);
/// All attempts and pauses together, in the token endpoint's ten seconds.
pub(crate) const BUDGET: Duration = Duration::from_millis(4_500);

/// Repeats `attempt` while its fault is transient. When time is up, the last fault is the answer.
///
/// Pauses are "full jitter", anything from nothing to the most: a thousand cold starts that were throttled together must not
/// come back together.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, Fault>>>(
    operation: &'static str,
    sleep: &SharedAsyncSleep,
    entropy: &impl Entropy,
    attempt: impl Fn() -> F,
) -> Result<T, Fault> {
    let last = Mutex::new(fault::late(operation));
    let attempts = async {
        let mut most = BASE;
        loop {
            match attempt().await {
                Err(fault) if fault.is_transient() => *last.lock().unwrap_or_else(PoisonError::into_inner) = fault,
                outcome => return outcome,
            }
            sleep.sleep(part_of(most, entropy)).await;
            most = (most * 2).min(LONGEST);
        }
    };
    match Timeout::new(Box::pin(attempts), sleep.sleep(BUDGET)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(last.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    }
}

fn part_of(most: Duration, entropy: &impl Entropy) -> Duration {
    let mut random = [0; 4];
    entropy.fill(&mut random);
    let nanos = most.as_nanos() * u128::from(u32::from_be_bytes(random)) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
