//! The journey of `make demo`, as a test: every step and every refusal, with the real binaries.

mod support;

use local::journey::Journey;
use support::Running;

#[tokio::test(flavor = "multi_thread")]
async fn every_step_and_every_refusal_of_the_journey_holds() {
    let running = Running::start().await;
    let report = Journey::new(&running.stack, &running.clients, false).unwrap().travel().await.unwrap();
    assert!(report.failures().is_empty(), "{:#?}", report.failures());
    assert!(report.rows().len() >= 80, "the journey has lost steps: {}", report.rows().len());
    let undelivered = running.stack.lambda.undelivered();
    assert!(undelivered.is_empty(), "{undelivered:?}");
    let pins = running.stack.proxy.pins();
    assert!(pins.is_empty(), "a real proxy would pin these to one connection: {pins:#?}");
    running.stack.stop().await;
}
