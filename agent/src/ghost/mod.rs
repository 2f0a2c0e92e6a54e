//! The ghost manager: primaries and ghosts that this host runs itself.
//!
//! So far only the host's end of their interfaces.

pub mod link;
