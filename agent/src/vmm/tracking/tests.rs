//! A small machine in this process writes; three witnesses say which pages.

#[path = "watcher.rs"]
mod watcher;

use std::collections::BTreeSet;

use agent_common::guest::{GDT, PAYLOAD, TABLES, TASK};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::{PAGE_BYTES, harvest, start};
use crate::vmm::{image::Image, layout::Ram, machine, memory::Memory, system::System, tables};
use watcher::Watcher;

/// Takes an address, a count and a stride from memory, increments that many
/// words, says so by a write to port 0x80, and starts again.
const CODE: [u8; 39] = [
    0x48, 0x8b, 0x04, 0x25, 0x00, 0x10, 0x10, 0x00, // mov rax, [0x101000]
    0x48, 0x8b, 0x0c, 0x25, 0x08, 0x10, 0x10, 0x00, // mov rcx, [0x101008]
    0x48, 0x8b, 0x14, 0x25, 0x10, 0x10, 0x10, 0x00, // mov rdx, [0x101010]
    0x48, 0xff, 0x00, // inc qword [rax]
    0x48, 0x01, 0xd0, // add rax, rdx
    0x48, 0xff, 0xc9, // dec rcx
    0x75, 0xf5, // jnz to the increment
    0xe6, 0x80, // out 0x80, al
    0xeb, 0xd9, // jmp to the beginning
];
const ORDERS: u64 = 0x10_1000;
const _: () = assert!(ORDERS == PAYLOAD + PAGE_BYTES);

struct Probe {
    vcpu: VcpuFd,
    vm: VmFd,
    memory: Memory,
}

impl Probe {
    /// `None` where there is no KVM, which is said aloud.
    fn new(mib: u64) -> Option<Self> {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("skipped: there is no /dev/kvm");
            return None;
        };
        let ram = Ram::of_mib(mib).unwrap();
        let memory = Memory::new(ram).unwrap();
        for (address, bytes) in [
            (TABLES, tables::page_tables(ram)),
            (GDT, tables::descriptors()),
            (TASK, tables::task()),
            (PAYLOAD, CODE.to_vec()),
        ] {
            memory.write(address, &bytes).unwrap();
        }
        let vm = kvm.create_vm().unwrap();
        vm.set_tss_address(0xfffb_d000).unwrap();
        machine::attach(&memory, &vm).unwrap();
        let features = kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .unwrap();
        let system = System::Payload(Image {
            entry: PAYLOAD,
            segments: Vec::new(),
            end: PAYLOAD,
        });
        let vcpu = machine::make_vcpu(&vm, &features, &system, 0).unwrap();
        Some(Self { vcpu, vm, memory })
    }

    /// The guest increments words.
    fn write(&mut self, address: u64, count: u64, stride: u64) {
        for (at, word) in (ORDERS..).step_by(8).zip([address, count, stride]) {
            self.memory.write(at, &word.to_le_bytes()).unwrap();
        }
        match self.vcpu.run().unwrap() {
            VcpuExit::IoOut(0x80, _) => {}
            other => panic!("the guest left by {other:?}"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 32 << 20];
        self.memory.read(0, &mut bytes).unwrap();
        bytes
    }

    fn harvest(&self) -> BTreeSet<u64> {
        let bits = harvest(&self.vm, &self.memory).unwrap();
        (0..bits.len() as u64 * 64)
            .filter(|page| bits[(page / 64) as usize] & (1 << (page % 64)) != 0)
            .collect()
    }
}

/// The naive way.
fn differing(before: &[u8], after: &[u8]) -> BTreeSet<u64> {
    let pages = before.chunks(4096).zip(after.chunks(4096));
    (0..)
        .zip(pages)
        .filter_map(|(page, (before, after))| (before != after).then_some(page))
        .collect()
}

/// The same numbers in each run.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    }
}

#[test]
fn three_witnesses_agree_on_what_was_written() {
    const MIB: u64 = 32;
    let Some(mut probe) = Probe::new(MIB) else {
        return;
    };
    // In the same places, so that its first writes are no news to KVM only.
    probe.write(0x20_0000, 100, PAGE_BYTES);
    start(&probe.vm, &probe.memory).unwrap();
    assert_eq!(probe.harvest(), BTreeSet::new(), "nothing was written yet");
    let watcher = Watcher::over(&probe.memory);
    let mut dice = dice(7);
    for round in 0..20 {
        let before = probe.bytes();
        watcher.forget();
        for _ in 0..4 {
            let count = 1 + dice(200);
            let stride = 8 * (1 + dice(1000));
            let last = (MIB << 20) - count * stride;
            let address = 0x20_0000 + dice(last - 0x20_0000) / 8 * 8;
            probe.write(address, count, stride);
        }
        for _ in 0..dice(20) {
            // Across the border of two pages now and then.
            let bytes = vec![round + 1; 1 + dice(5000) as usize];
            let address = 0x20_0000 + dice((MIB << 20) - 0x20_0000 - 5000);
            probe.memory.write(address, &bytes).unwrap();
        }
        let told = probe.harvest();
        let differs = differing(&before, &probe.bytes());
        let watched = watcher.written();
        let missed: Vec<_> = differs.difference(&told).collect();
        assert!(missed.is_empty(), "round {round}: not told of {missed:?}");
        assert_eq!(told, watched, "round {round}");
        assert_eq!(probe.harvest(), BTreeSet::new(), "round {round}, again");
    }
}
