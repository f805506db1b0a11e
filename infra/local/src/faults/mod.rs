//! Faults that a test asks a stand-in to show: throttling, an outage, slowness. Off unless set.
//!
//! [`FaultKnobs`] are switches of one service for a test that wants exactly this now. A [`plan::Plan`] is for whoever wants to live with faults:
//! rules in words ([`grammar`]), by chance or by count, for all services, the database, the functions and the clock, under one seed.

pub mod grammar;
pub mod plan;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What a stand-in does to the calls that follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// This many calls are refused as throttled; counts down.
    pub throttle_next: u32,
    /// Every call fails as an internal error of the service.
    pub unavailable: bool,
    /// Every call waits this long before it is looked at.
    pub latency: Duration,
}

/// How one call fails because a test asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Answer as the service answers too many calls.
    Throttle,
    /// Answer as the service answers its own failure.
    Unavailable,
}

/// The settable [`Faults`] of one stand-in; clones share them.
#[derive(Clone, Debug, Default)]
pub struct FaultKnobs(Arc<Mutex<Faults>>);

impl FaultKnobs {
    /// Replaces the faults from the next call on.
    pub fn set(&self, faults: Faults) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// The faults as they stand.
    #[must_use]
    pub fn current(&self) -> Faults {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits the latency, then says whether this call fails; an outage wins over throttling and uses none of it up.
    ///
    /// A call that a [`plan::Plan`] has struck fails as that says, and uses nothing up here.
    pub async fn strike(&self) -> Option<Strike> {
        if let Some(strike) = crate::call::struck().strike {
            return Some(strike);
        }
        let latency = self.current().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        self.take()
    }

    fn take(&self) -> Option<Strike> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.unavailable {
            return Some(Strike::Unavailable);
        }
        faults.throttle_next = faults.throttle_next.checked_sub(1)?;
        Some(Strike::Throttle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_ends_after_the_asked_number_of_calls() {
        let knobs = FaultKnobs::default();
        knobs.set(Faults { throttle_next: 2, ..Faults::default() });
        assert_eq!([knobs.take(), knobs.take(), knobs.take()], [Some(Strike::Throttle), Some(Strike::Throttle), None]);
    }

    #[test]
    fn an_outage_lasts_until_it_is_lifted() {
        let knobs = FaultKnobs::default();
        knobs.set(Faults { throttle_next: 1, unavailable: true, ..Faults::default() });
        assert_eq!([knobs.take(), knobs.take()], [Some(Strike::Unavailable); 2]);
        knobs.set(Faults::default());
        assert_eq!(knobs.take(), None);
    }
}
