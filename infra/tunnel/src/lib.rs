#![doc = include_str!("../README.md")]

mod check;
mod grammar;
mod hosts;
mod render;
mod routes;

pub use check::{Fate, Fault, Why, check};
pub use hosts::{Access, Application, Disagreement, Gate, Hosts, People, Tier, Unreadable};
pub use render::render;
pub use routes::{Edge, RouteFault, routes};
