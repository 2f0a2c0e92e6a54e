//! `cargo xtask vm`: a VM with the programs of this tree and some tools.

use std::process::ExitCode;

use ghostd_tests::{microvm, vm::Spec};

/// Beside busybox, which has the usual ones.
const TOOLS: [&str; 4] = ["ip", "nft", "tcpdump", "bash"];
/// For KVM on an emulated processor, and networks.
const MODULES: [&str; 7] = [
    "kvm-amd",
    "tun",
    "veth",
    // nf_tables wants checksums from it, without saying so.
    "crc32c_generic",
    "nf_tables",
    "virtio_net",
    "virtio_blk",
];

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let spec = Spec::default()
        .memory_mib(2048)
        .modules(&MODULES)
        .tools(&TOOLS)?
        .built("GHOSTD_BIN", "ghostd")?
        .built("GHOSTCTL_BIN", "ghostctl")?
        .built("GHOST_VMM_BIN", "ghost-vmm")?
        .file(&microvm::payload()?, "/usr/lib/ghost-guest")
        .environment("GHOST_GUEST", "/usr/lib/ghost-guest");
    if words.is_empty() {
        spec.interact()?;
        return Ok(ExitCode::SUCCESS);
    }
    let code = spec.show(&words)?;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}
