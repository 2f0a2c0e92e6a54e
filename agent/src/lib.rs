//! ghostd, the per-host agent, and ghostctl, its operator's tool.
//!
//! Rooms, and who may know whom (see ARCHITECTURE.md):
//! `agent-common <- model <- pure files <- I/O files <- driver <- daemon <- main`.

pub mod allocate;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod enforce;
pub mod ghost;
pub mod model;
pub mod orchestrate;
#[cfg(test)]
mod privilege;
pub mod steer;
pub mod vmm;
