//! The ghost manager: primaries and ghosts that this host runs itself.
//!
//! Owns: for each configured microVM one thread ([`manager`]) that steps a
//! pure machine ([`life`]) and has a backend ([`backend`]) carry its steps
//! out. Copies outlive the daemon: the next one finds and adopts them.
//!
//! Refuses: to move a switch itself (it asks the driver), and to decide how
//! much a ghost may take.
//!
//! How it fails: a step that fails is undone in an order that never has two
//! copies run; a copy that went wrong is destroyed whole, with its reason as
//! an event. What a dead daemon left half done is finished or taken back when
//! the next one starts.

mod backend;
mod drill;
mod embedded;
mod error;
mod life;
pub mod link;
mod manager;

pub use manager::{GhostManager, Parts, beside_us};
