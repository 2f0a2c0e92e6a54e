//! The kernel side: maps, programs, links, interfaces, neighbours.
//!
//! Owns: everything below the pin root and every netlink message. What runs in
//! the kernel outlives this process; nothing here detaches before something
//! new is in force.
//!
//! Refuses: to decide what should be there (`orchestrate`), and to know who
//! asks (`control`).
//!
//! How it fails: [`SteerError`], whose [`Class`] says whether the daemon tries
//! again, goes on with less, or gives up.

mod attach;
mod btf;
mod cgroups;
mod clock;
mod decode;
mod error;
mod events;
mod execute;
mod load;
mod namespace;
mod netlink;
pub mod object;
mod objects;
mod pins;
mod plane;
mod snapshot;
mod switchboard;
mod sys;
mod table;
mod watch;

pub use attach::Attached;
pub use cgroups::{CgroupNews, cgroup_id};
pub use clock::monotonic_ns;
pub use error::{Class, SteerError};
pub use events::{Events, Read};
pub use netlink::{neighbours::NextHop, news::News};
pub use pins::{Pins, chain};
pub use plane::{Plane, Role, Started, ifindex, interfaces, name_of};
pub use switchboard::{Moved, Swapped, Switchboard};
pub use watch::FormatError;
