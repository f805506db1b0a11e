//! Turns object-created events into file state.
