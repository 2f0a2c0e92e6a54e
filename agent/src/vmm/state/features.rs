//! Whether this host's processor can carry on for the one a guest was saved on.
//!
//! A guest may use whatever CPUID told it at its start, so each feature bit
//! it was shown must be there. What only describes (caches, names, sizes)
//! goes with the guest.

use kvm_bindings::kvm_cpuid_entry2;

use super::error::StateError;

/// Registers of a leaf, in the order in which they are checked.
const NAMES: [&str; 4] = ["EAX", "EBX", "ECX", "EDX"];

/// Leaves whose bits are features, and which of their registers have some.
///
/// AMD64 Architecture Programmer's Manual volume 3, appendix E; Intel SDM
/// volume 2A, CPUID; Linux, Documentation/virt/kvm/x86/cpuid.rst.
const MASKS: [(u32, u32, [u32; 4]); 13] = [
    // EBX has the vCPU's number.
    (0x1, 0, [0, 0, ALL & !OSXSAVE, ALL]),
    (0x7, 0, [0, ALL, ALL & !OSPKE, ALL]),
    (0x7, 1, [ALL, ALL, ALL, ALL]),
    (0x7, 2, [0, 0, 0, ALL]),
    // What XCR0 may have.
    (0xd, 0, [ALL, 0, 0, ALL]),
    (0xd, 1, [ALL, 0, ALL, ALL]),
    (0x14, 0, [0, ALL, ALL, 0]),
    (0x4000_0001, 0, [ALL, 0, 0, 0]),
    (0x8000_0001, 0, [0, 0, ALL, ALL]),
    (0x8000_0007, 0, [0, 0, 0, ALL]),
    (0x8000_0008, 0, [0, ALL, 0, 0]),
    (0x8000_000a, 0, [0, 0, 0, ALL]),
    (0x8000_0021, 0, [ALL, 0, 0, 0]),
];

const ALL: u32 = u32::MAX;
/// These two mirror CR4, not the processor.
const OSXSAVE: u32 = 1 << 27;
const OSPKE: u32 = 1 << 4;

/// Bits of addresses that a guest may put into its page tables.
const LEAF_ADDRESSES: u32 = 0x8000_0008;

/// `host` is what its KVM supports.
pub(super) fn check(
    saved: &[kvm_cpuid_entry2],
    host: &[kvm_cpuid_entry2],
) -> Result<(), StateError> {
    check_vendor(saved, host)?;
    for (leaf, index, masks) in MASKS {
        let wants = registers(find(saved, leaf, index));
        let has = registers(find(host, leaf, index));
        let rows = wants.into_iter().zip(has).zip(masks).zip(NAMES);
        for (((wants, has), mask), register) in rows {
            let lacks = wants & !has & mask;
            if lacks != 0 {
                return Err(StateError::Feature {
                    leaf,
                    index,
                    register,
                    bit: lacks.trailing_zeros(),
                });
            }
        }
    }
    let width = |entries, shift: u32| {
        let eax = find(entries, LEAF_ADDRESSES, 0).map_or(0, |entry| entry.eax);
        (eax >> shift) & 0xff
    };
    for (what, shift) in [("bits of physical addresses", 0), ("bits of addresses", 8)] {
        let (saved, have) = (width(saved, shift), width(host, shift));
        if saved > have {
            return Err(StateError::Narrow { what, saved, have });
        }
    }
    Ok(())
}

fn check_vendor(saved: &[kvm_cpuid_entry2], host: &[kvm_cpuid_entry2]) -> Result<(), StateError> {
    let vendor = |entries| {
        let leaf = find(entries, 0, 0);
        let words = leaf.map_or([0; 3], |leaf| [leaf.ebx, leaf.edx, leaf.ecx]);
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        String::from_utf8_lossy(&bytes).escape_debug().to_string()
    };
    let (saved, have) = (vendor(saved), vendor(host));
    if saved != have {
        return Err(StateError::Vendor { saved, have });
    }
    Ok(())
}

fn find(entries: &[kvm_cpuid_entry2], leaf: u32, index: u32) -> Option<&kvm_cpuid_entry2> {
    let mut entries = entries.iter();
    entries.find(|entry| entry.function == leaf && entry.index == index)
}

/// A leaf that is not there has no feature.
fn registers(entry: Option<&kvm_cpuid_entry2>) -> [u32; 4] {
    entry.map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
}
