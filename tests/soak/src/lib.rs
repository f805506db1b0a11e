//! The whole stack under random faults, and an oracle that knows what must be so whatever fails.
//!
//! Storms and calms take turns. In a storm the stand-ins of AWS, the database, the functions' processes and the gateway fail as the rules of
//! that storm say, and travellers go on asking; each answer is held to what must never be and to the faults that are documented. Then the
//! rules are lifted: a small journey must pass within seconds, from then on every answer must be exactly the right one, and everything that
//! was ever acknowledged is looked for. What a run asks and which rules it has depends on its seed alone.

#![allow(clippy::indexing_slicing, reason = "indexing a JSON value answers null and does not panic")]

pub mod audit;
pub mod connection;
pub mod deeds;
pub mod dice;
pub mod leaks;
pub mod ledger;
pub mod menu;
pub mod oracle;
pub mod run;
pub mod traveller;
pub mod world;
