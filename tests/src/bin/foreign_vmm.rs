//! A VMM that knows nothing of ghostd: `gdt-foreign-vmm CGROUP CODE` goes into
//! a cgroup, as a manager of VMMs would have it, and runs a few bytes of real
//! mode to their `hlt`, or to their end. Every port takes what is written.
#![allow(unsafe_code)]

use std::{fs, num::NonZeroUsize, path::Path};

use anyhow::{Context, Result, bail};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

const MEMORY: usize = 64 * 1024;
/// Where the code is; the byte that a repeated write sends is at `DATA`.
const CODE: u64 = 0x1000;
const DATA: usize = 0x2000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(cgroup), Some(code)) = (arguments.next(), arguments.next()) else {
        bail!("usage: gdt-foreign-vmm CGROUP CODE");
    };
    let code: Vec<u8> = (0..code.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(code.get(at..at + 2).unwrap_or(""), 16))
        .collect::<Result<_, _>>()
        .context("code in hex")?;
    fs::write(Path::new(&cgroup).join("cgroup.procs"), "0").context("enter the cgroup")?;
    println!("{}", run(&code)?);
    Ok(())
}

/// Says how it ended.
fn run(code: &[u8]) -> Result<String> {
    let vm = Kvm::new()?.create_vm()?;
    let bytes = NonZeroUsize::new(MEMORY).context("no memory")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping, which stays for as long as this process lives.
    let memory = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_SHARED)? };
    // SAFETY: the mapping is this large, and nobody else knows it yet.
    let guest = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr().cast::<u8>(), MEMORY) };
    let start = CODE as usize;
    guest[start..start + code.len()].copy_from_slice(code);
    guest[DATA] = 0xfe;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: memory.as_ptr() as u64,
    };
    // SAFETY: the region is the mapping above.
    unsafe { vm.set_user_memory_region(region)? };
    let mut vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rflags, regs.rsp) = (CODE, 2, 0x8000);
    vcpu.set_regs(&regs)?;
    loop {
        match vcpu.run()? {
            VcpuExit::IoOut(..) | VcpuExit::IoIn(..) => {}
            VcpuExit::Hlt => return Ok("hlt".to_owned()),
            VcpuExit::Shutdown => return Ok("shutdown".to_owned()),
            other => bail!("{other:?}"),
        }
    }
}
