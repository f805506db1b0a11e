//! Small honest fakes for the ports of shared.

pub mod data_keys;
pub mod wrapping;
