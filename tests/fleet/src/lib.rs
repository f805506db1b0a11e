//! A fleet, simulated: at which rate which quota of AWS bites first, and what to raise.
//!
//! What is measured comes from the bench, what AWS allows from its pages, and what nobody here can measure is assumed and said
//! so, in `docs/scale.md`. The model is checked against closed forms of queueing theory in `tests/`.

pub mod event;
pub mod model;
pub mod page;
pub mod quota;
