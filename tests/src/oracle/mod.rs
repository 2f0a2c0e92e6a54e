//! The differential oracle: the kernel's own NAT says what is right.
//!
//! Twin worlds get the same frames, byte for byte, at the same places. In one
//! nftables steers, in the other ghostd. What comes out, and where, must be the
//! same but for MAC addresses. See [`rules`] for the few named exceptions.

pub mod build;
mod case;
mod compare;
mod errors;
mod flow;
mod fragments;
mod generate;
mod hostile;
mod lane;
mod options;
mod rig;
mod rng;
pub mod rules;
mod tuple;
mod twins;

pub use case::{Case, Leaf, Step};
pub use compare::{Difference, compare};
pub use generate::{Generator, run_cases, run_seed};
pub use rig::{Out, Rig};
pub use rng::Rng;
pub use twins::{Tally, Twins, Verdict};
