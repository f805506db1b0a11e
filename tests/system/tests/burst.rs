//! Cold environments at once, as processes, while the stand-ins throttle.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use local::faults::Faults;
use support::Running;

const TOKEN: &str = "portcullis-local-token";
const AT_ONCE: usize = 8;

/// Fresh sandboxes for all, and `throttled` calls refused before any is let through: who is not told to come back has a token, who
/// is has his assertion still.
async fn burst(running: &Running, throttled: u32) -> (usize, Duration) {
    running.stack.lambda.recycle(TOKEN).await;
    let knobs = || Faults { throttle_next: throttled, ..Faults::default() };
    running.stack.ssm.faults().set(knobs());
    running.stack.kms.faults().set(knobs());
    let before = running.count("assertion_ids").await;
    let assertions: Vec<String> =
        (0..AT_ONCE).map(|_| running.api.assertion(running.client("acme-backend")).unwrap()).collect();
    let since = Instant::now();
    let answers = join_all(assertions.iter().map(|assertion| async {
        let answer = running.api.token_with(assertion, None).await.unwrap();
        (answer, since.elapsed())
    }))
    .await;
    running.stack.ssm.faults().set(Faults::default());
    running.stack.kms.faults().set(Faults::default());
    let (mut passed, mut last) = (0, Duration::ZERO);
    let mut again = Vec::new();
    for ((answer, at), assertion) in answers.iter().zip(&assertions) {
        match answer.status {
            200 => (passed, last) = (passed + 1, last.max(*at)),
            status => {
                assert_eq!(status, 503, "{}", answer.outcome());
                assert!(!answer.header("retry-after").is_empty(), "503 without Retry-After");
                again.push(assertion);
            }
        }
    }
    assert_eq!(running.count("assertion_ids").await, before + i64::try_from(passed).unwrap());
    for assertion in again {
        let answer = running.api.token_with(assertion, None).await.unwrap();
        assert_eq!(answer.status, 200, "who came back as told: {}", answer.outcome());
    }
    (passed, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_processes_that_are_throttled_lose_no_request() {
    for (signer, operation) in [("ssm", "GetParameter"), ("kms", "Sign")] {
        let running = Running::start_with(&[("Signer", signer)]).await;
        let calls = || match signer {
            "ssm" => running.stack.ssm.calls().get(operation).copied().unwrap_or_default(),
            _ => running.stack.kms.calls().get(operation).copied().unwrap_or_default(),
        };
        let (cold, called) = (running.stack.lambda.cold_starts(TOKEN), calls());
        let (passed, last) = burst(&running, 6).await;
        let starts = running.stack.lambda.cold_starts(TOKEN) - cold;
        println!(
            "{signer}: {passed} of {AT_ONCE} pass though six calls are throttled, the last after {:.2} s; {starts} cold starts, {} calls",
            last.as_secs_f64(),
            calls() - called
        );
        assert_eq!(passed, AT_ONCE, "{signer}: six refusals are waited out");
        assert!(starts > 1, "{signer}: they came at once");
        assert!(last < Duration::from_secs(10), "{signer}: {last:?}");
        let (passed, _) = burst(&running, u32::MAX).await;
        assert_eq!(passed, 0, "{signer}: nobody is let through, and all are told to come back");
        running.stack.stop().await;
    }
}
