//! What the guest payload does, as far as it can be said without a machine.
//!
//! Owns: the words of its command line, and the patterns it writes, which
//! tests compute again. Refuses: ports, memory, allocation, `std`.
#![cfg_attr(not(test), no_std)]

pub mod line;
pub mod pattern;
