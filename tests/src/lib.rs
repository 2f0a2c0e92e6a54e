//! Stories over network namespaces: the harness that end-to-end tests and the
//! demo stand on.
//!
//! Owns: namespaces, machines that can really reboot, clients that keep count,
//! taps on the wire, microVMs, VMs with a kernel of their own, and the kernel's
//! own NAT as a reference. Refuses: knowing how ghostd works inside; it is run
//! as a binary and watched from outside.
//! Everything made here is gone when its value is dropped, also on a panic.

pub mod bench;
pub mod bpf;
pub mod clock;
pub mod demo;
pub mod host;
pub mod link;
pub mod machine;
pub mod microvm;
pub mod netns;
pub mod oracle;
mod skip;
pub mod topology;
pub mod traffic;
pub mod vm;
pub mod wire;

pub use skip::skip;
