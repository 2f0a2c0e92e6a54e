//! TEMPORARY: until the build embeds the object.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../target/wip.bpf.o");
