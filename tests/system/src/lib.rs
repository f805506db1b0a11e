//! Whole-house tests: floors, journeys, outside clients.
