#![doc = include_str!("../README.md")]

pub mod artifact;
pub mod aws;
pub mod code;
pub mod command;
pub mod cost;
pub mod deploy;
pub mod destroy;
pub mod layout;
pub mod live;
pub mod plan;
pub mod policies;
pub mod preflight;
pub mod render;
pub mod settings;
pub mod stacks;
pub mod world;
