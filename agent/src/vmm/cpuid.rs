//! What a vCPU says of itself: the host's features, and its own number.

use kvm_bindings::CpuId;

const LEAF_FEATURES: u32 = 0x1;
/// The initial APIC id is in the highest byte of EBX.
const APIC_SHIFT: u32 = 24;
/// Topology leaves, with the whole APIC id in EDX.
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;

pub(super) fn of(features: &CpuId, cpu: u8) -> CpuId {
    let mut own = features.clone();
    for entry in own.as_mut_slice() {
        match entry.function {
            LEAF_FEATURES => {
                let rest = entry.ebx & ((1 << APIC_SHIFT) - 1);
                entry.ebx = rest | (u32::from(cpu) << APIC_SHIFT);
            }
            LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 => entry.edx = u32::from(cpu),
            _ => {}
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use kvm_bindings::{CpuId, kvm_cpuid_entry2};

    use super::of;

    #[test]
    fn each_vcpu_has_its_own_number_and_the_same_features() {
        let leaf = |function| kvm_cpuid_entry2 {
            function,
            ebx: 0x00ab_cdef,
            ecx: 7,
            edx: 9,
            ..kvm_cpuid_entry2::default()
        };
        let host = CpuId::from_entries(&[leaf(0), leaf(1), leaf(0xb)]).unwrap();
        let own = of(&host, 3);
        let [zero, one, topology] = own.as_slice() else {
            panic!("three leaves went in");
        };
        assert_eq!(*zero, leaf(0));
        assert_eq!((one.ebx, one.ecx), (0x03ab_cdef, 7));
        assert_eq!((topology.ebx, topology.edx), (0x00ab_cdef, 3));
    }
}
