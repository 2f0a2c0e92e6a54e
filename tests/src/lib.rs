//! Stories over network namespaces.

pub mod bpf;
