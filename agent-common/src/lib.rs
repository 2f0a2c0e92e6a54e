//! What kernel and userspace share: the kernel ABI and the pure verdict.
//!
//! Owns: the layout and the names of every BPF map ([`abi`]), and everything
//! that is decided about a packet ([`packet`]). Compiled twice: into the BPF
//! object, and into the daemon and its property tests. What the VMM and its
//! guests share is here too ([`guest`]).
//!
//! Refuses: allocation, `std`, clocks, system calls.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod guest;
pub mod packet;
