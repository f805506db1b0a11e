//! Small honest fakes for the ports of shared.

pub mod clock;
pub mod files;
pub mod objects;

pub use clock::FixedClock;
pub use files::Files;
pub use objects::{Objects, Signing};
