//! What a plan says, put into force: cgroup v2, huge pages, pacing.
//!
//! Owns: reading what a host has, writing limits and reading them back, the
//! journal of what was changed, and who gives way under memory pressure.
//!
//! Refuses: who gets what (`allocate`), and processes.
//!
//! How it fails: a limit that the host cannot enforce is named in the report,
//! with the reason; the others stay in force. What was changed is undone in
//! reverse, by the journal even after a crash.

mod capacity;
mod cgroup;
mod error;
mod huge;
mod journal;
mod limits;
mod pacing;
mod pressure;
#[cfg(test)]
mod tree;

pub use capacity::{read_capacity, read_pressure};
pub use cgroup::{Report, apply};
pub use error::EnforceError;
pub use huge::{Pool, reserve_huge_pages};
pub use journal::Journal;
pub use limits::{Setting, of_ghost, of_primary, released, squeezed};
pub use pacing::pace;
pub use pressure::{Pressure, Reading, Yield};
