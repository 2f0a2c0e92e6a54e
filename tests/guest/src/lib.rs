//! What the guest payload does, as far as it can be said without a machine.
//!
//! Owns: the words of its command line and of its key-value protocol, the
//! service's state and journal, and the patterns it writes, which tests
//! compute again. Refuses: ports, memory, clocks, allocation, `std`.
#![cfg_attr(not(test), no_std)]

pub mod journal;
pub mod line;
pub mod pattern;
pub mod request;
pub mod store;
pub mod table;
pub mod tail;
pub mod write;
