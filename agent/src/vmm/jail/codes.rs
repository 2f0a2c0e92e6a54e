//! Pure: the numbers of KVM's requests (`linux/kvm.h`).

use kvm_bindings as kvm;

const KVM: u64 = 0xae;

const fn plain(number: u64) -> u64 {
    KVM << 8 | number
}

const fn write<T>(number: u64) -> u64 {
    1 << 30 | (size_of::<T>() as u64) << 16 | plain(number)
}

const fn read<T>(number: u64) -> u64 {
    2 << 30 | (size_of::<T>() as u64) << 16 | plain(number)
}

const fn both<T>(number: u64) -> u64 {
    read::<T>(number) | write::<T>(number)
}

/// What the thread of a vCPU asks: run, and its state in and out.
pub(super) const VCPU: &[u64] = &[
    plain(0x80),                         // KVM_RUN
    plain(0xad),                         // KVM_KVMCLOCK_CTRL
    read::<kvm::kvm_regs>(0x81),         // KVM_GET_REGS
    write::<kvm::kvm_regs>(0x82),        // KVM_SET_REGS
    read::<kvm::kvm_sregs>(0x83),        // KVM_GET_SREGS
    write::<kvm::kvm_sregs>(0x84),       // KVM_SET_SREGS
    both::<kvm::kvm_msrs>(0x88),         // KVM_GET_MSRS
    write::<kvm::kvm_msrs>(0x89),        // KVM_SET_MSRS
    read::<kvm::kvm_fpu>(0x8c),          // KVM_GET_FPU
    write::<kvm::kvm_fpu>(0x8d),         // KVM_SET_FPU
    read::<kvm::kvm_lapic_state>(0x8e),  // KVM_GET_LAPIC
    write::<kvm::kvm_lapic_state>(0x8f), // KVM_SET_LAPIC
    write::<kvm::kvm_cpuid2>(0x90),      // KVM_SET_CPUID2
    both::<kvm::kvm_cpuid2>(0x91),       // KVM_GET_CPUID2
    read::<kvm::kvm_mp_state>(0x98),     // KVM_GET_MP_STATE
    write::<kvm::kvm_mp_state>(0x99),    // KVM_SET_MP_STATE
    read::<kvm::kvm_vcpu_events>(0x9f),  // KVM_GET_VCPU_EVENTS
    write::<kvm::kvm_vcpu_events>(0xa0), // KVM_SET_VCPU_EVENTS
    read::<kvm::kvm_debugregs>(0xa1),    // KVM_GET_DEBUGREGS
    write::<kvm::kvm_debugregs>(0xa2),   // KVM_SET_DEBUGREGS
    plain(0xa2),                         // KVM_SET_TSC_KHZ
    plain(0xa3),                         // KVM_GET_TSC_KHZ
    read::<kvm::kvm_xsave>(0xa4),        // KVM_GET_XSAVE
    write::<kvm::kvm_xsave>(0xa5),       // KVM_SET_XSAVE
    read::<kvm::kvm_xcrs>(0xa6),         // KVM_GET_XCRS
    write::<kvm::kvm_xcrs>(0xa7),        // KVM_SET_XCRS
    read::<kvm::kvm_sregs2>(0xcc),       // KVM_GET_SREGS2
    write::<kvm::kvm_sregs2>(0xcd),      // KVM_SET_SREGS2
    read::<kvm::kvm_xsave>(0xcf),        // KVM_GET_XSAVE2
    write::<kvm::kvm_device_attr>(0xe1), // KVM_SET_DEVICE_ATTR
    write::<kvm::kvm_device_attr>(0xe2), // KVM_GET_DEVICE_ATTR
    write::<kvm::kvm_device_attr>(0xe3), // KVM_HAS_DEVICE_ATTR
];

/// What the main thread asks of the VM while the guest runs: dirty pages,
/// clocks, the state of interrupt controllers.
pub(super) const VM: &[u64] = &[
    plain(0x03),                                     // KVM_CHECK_EXTENSION
    write::<kvm::kvm_dirty_log>(0x42),               // KVM_GET_DIRTY_LOG
    write::<kvm::kvm_userspace_memory_region>(0x46), // KVM_SET_USER_MEMORY_REGION
    write::<kvm::kvm_irq_level>(0x61),               // KVM_IRQ_LINE
    both::<kvm::kvm_irqchip>(0x62),                  // KVM_GET_IRQCHIP
    read::<kvm::kvm_irqchip>(0x63),                  // KVM_SET_IRQCHIP
    write::<kvm::kvm_irqfd>(0x76),                   // KVM_IRQFD
    write::<kvm::kvm_ioeventfd>(0x79),               // KVM_IOEVENTFD
    write::<kvm::kvm_clock_data>(0x7b),              // KVM_SET_CLOCK
    read::<kvm::kvm_clock_data>(0x7c),               // KVM_GET_CLOCK
    read::<kvm::kvm_pit_state2>(0x9f),               // KVM_GET_PIT2
    write::<kvm::kvm_pit_state2>(0xa0),              // KVM_SET_PIT2
    plain(0xa3),                                     // KVM_GET_TSC_KHZ
    both::<kvm::kvm_clear_dirty_log>(0xc0),          // KVM_CLEAR_DIRTY_LOG
    plain(0xc7),                                     // KVM_RESET_DIRTY_RINGS
];

#[cfg(test)]
mod tests {
    use super::{VCPU, VM};

    #[test]
    fn numbers_are_those_of_the_kernels_header() {
        // As a C compiler gives them.
        for known in [0xae80, 0x8090_ae81, 0x4138_ae84, 0xc008_ae88, 0x9000_aea4] {
            assert!(VCPU.contains(&known), "{known:x}");
        }
        for known in [0x4010_ae42, 0x4020_ae46, 0xc018_aec0, 0xaec7, 0x8208_ae63] {
            assert!(VM.contains(&known), "{known:x}");
        }
    }
}
