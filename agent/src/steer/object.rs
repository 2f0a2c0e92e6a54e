//! The BPF object, embedded, so that one binary can be copied to a host.

/// The whole ELF file, aligned as the ELF parser needs it.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ghostd.bpf.o"));
