//! Everything that is decided about a packet, as functions that read a frame,
//! ask the [`Kernel`] and give an [`Action`].
//!
//! Owns: parsing, the verdict, the exact translation. Refuses: BPF helpers,
//! maps, clocks: those are behind [`Kernel`], which the BPF programs implement
//! with maps and the tests with plain tables.
//!
//! The order of work is the promise: whatever can make us give up is checked
//! before a byte is touched, so [`ActionKind::Pass`] always means the original
//! packet, or one that was translated whole and goes up the stack.

mod action;
mod addr;
mod checksum;
mod error;
mod ether;
mod extension;
mod fence;
mod frame;
mod kernel;
mod leave;
mod lookup;
mod parse;
mod steer;
mod toobig;
mod translate;
mod verdict;

pub use action::{Action, ActionKind};
pub use addr::{Addr, V4, V6};
pub use checksum::Delta;
pub use error::{Errand, steer_error};
pub use ether::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Link};
pub use extension::walk_extensions;
pub use fence::{PortRule, may_speak, muted_may_pass};
pub use frame::{Frame, Raw, SliceFrame};
pub use kernel::{Kernel, NextHop, Reverse, Rewrite, Route, SwitchState, Target, Traffic, Way};
pub use parse::{Fragmentation, Header, Ip, Packet, Ports, Transport};
pub use steer::{Work, steer};
pub use toobig::{Answer, QUOTE_MIN, write_too_big};
pub use verdict::{lapsed, owner, speaks};
