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
    let nanos = (most.as_nanos() * u128::from(u32::from_be_bytes(random))) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use shared::entropy::SystemEntropy;
    use shared::port::FaultKind;

    use super::*;
    use crate::testing::{Pauses, VirtualTime};

    const PER_SECOND: f64 = 40.0;

    /// The default limit of an account: 40 calls a second, and as many saved up.
    struct Limit {
        saved: f64,
        seen: Duration,
        granted: usize,
    }

    impl Limit {
        fn call(&mut self, now: Duration) -> Result<(), Fault> {
            self.saved = (self.saved + (now - self.seen).as_secs_f64() * PER_SECOND).min(PER_SECOND);
            self.seen = now;
            if self.saved < 1.0 {
                return Err(Fault::new(FaultKind::Throttled, "ssm", "GetParameter"));
            }
            self.saved -= 1.0;
            self.granted += 1;
            Ok(())
        }
    }

    #[test]
    fn of_a_thousand_cold_starts_in_a_second_as_many_pass_as_the_limit_allows_and_the_rest_are_told_to_come_back() {
        const STARTS: u32 = 1_000;
        let time = VirtualTime::default();
        let sleep = SharedAsyncSleep::new(Pauses(time.clone()));
        let limit = Mutex::new(Limit { saved: PER_SECOND, seen: Duration::ZERO, granted: 0 });
        let (limit, time, sleep) = (&limit, &time, &sleep);
        let outcomes = time.run(join_all((0..STARTS).map(|number| async move {
            sleep.sleep(Duration::from_secs(1) * number / STARTS).await;
            let attempt = || async move { limit.lock().unwrap().call(time.now()) };
            patiently("GetParameter", sleep, &SystemEntropy, attempt).await.map(|()| time.now())
        })));
        let passed: Vec<Duration> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok().copied()).collect();
        let told: Vec<FaultKind> = outcomes.iter().filter_map(|outcome| Some(outcome.as_ref().err()?.kind)).collect();
        let (granted, last) = (limit.lock().unwrap().granted, passed.iter().max().unwrap().as_secs_f64());
        println!("{granted} of {STARTS} pass, the last after {last:.2} s; {} are told to come back", told.len());
        assert_eq!(passed.len(), granted, "nothing that the limit let through is lost");
        assert!(told.iter().all(|kind| *kind == FaultKind::Throttled));
        // What was saved up, the second of the starts and the patience of the last: hardly anything of it may go unused.
        let allowed = PER_SECOND * (1.0 + 1.0 + BUDGET.as_secs_f64());
        assert!(granted as f64 >= 0.95 * allowed && granted as f64 <= allowed, "{granted} of {allowed}");
        assert!(time.now() <= Duration::from_secs(1) + BUDGET);
    }
}
