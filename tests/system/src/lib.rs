//! Whole-house tests: floors, journeys, outside clients.

pub mod signed_attacks;
