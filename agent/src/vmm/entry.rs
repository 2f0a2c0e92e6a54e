//! The registers with which a vCPU enters a payload: long mode, CPL 3.
//!
//! Interrupts are off and there is no interrupt table, so any exception ends
//! the guest as a triple fault.

use agent_common::guest::{BOOT, GDT, STACK_BYTES, STACKS, TASK};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};

use super::tables::{CODE_SELECTOR, DATA_SELECTOR, GDT_LIMIT, ROOT, TASK_LIMIT, TASK_SELECTOR};

/// Protected mode, coprocessor present, native FPU errors, write protection, paging.
const CR0: u64 = 0x8001_0033;
/// Physical address extension, SSE and its exceptions.
const CR4: u64 = 0x0620;
/// Long mode, enabled and active.
const EFER: u64 = 0x0500;
/// The reserved bit that is always set, and I/O privilege for CPL 3.
const RFLAGS: u64 = 0x3002;

const CODE_TYPE: u8 = 0xb;
const DATA_TYPE: u8 = 0x3;

pub(super) fn registers(entry: u64, cpu: u8) -> kvm_regs {
    let stack_end = STACKS + STACK_BYTES * (u64::from(cpu) + 1);
    kvm_regs {
        rip: entry,
        // As after a call, which is how a compiled function expects it: the
        // return address there is zero, and page 0 is not mapped.
        rsp: stack_end - 8,
        rdi: BOOT,
        rsi: u64::from(cpu),
        rflags: RFLAGS,
        ..kvm_regs::default()
    }
}

/// Changes what a new vCPU has.
pub(super) fn system_registers(fresh: kvm_sregs) -> kvm_sregs {
    let data = segment(DATA_SELECTOR, DATA_TYPE);
    let code = kvm_segment {
        l: 1,
        db: 0,
        ..segment(CODE_SELECTOR, CODE_TYPE)
    };
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: kvm_segment {
            base: TASK,
            limit: TASK_LIMIT,
            selector: TASK_SELECTOR,
            ..fresh.tr
        },
        gdt: kvm_dtable {
            base: GDT,
            limit: GDT_LIMIT,
            ..kvm_dtable::default()
        },
        idt: kvm_dtable::default(),
        cr0: CR0,
        cr3: ROOT,
        cr4: CR4,
        efer: EFER,
        ..fresh
    }
}

fn segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..kvm_segment::default()
    }
}
