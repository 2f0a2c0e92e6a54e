//! Whether a saved state fits the microVM that is to go on with it.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};

use super::{error::StateError, features, wire::Saved};
use crate::vmm::linux::ChipState;

/// Parts in a million by which counters may differ: what KVM itself lets pass
/// (Linux, `tsc_tolerance_ppm` of arch/x86/kvm).
const TSC_TOLERANCE_PPM: u64 = 250;

/// The microVM that is to go on, and its host.
#[derive(Debug)]
pub(in crate::vmm) struct Here {
    pub(in crate::vmm) vcpus: usize,
    pub(in crate::vmm) memory_bytes: u64,
    pub(in crate::vmm) has_irqchip: bool,
    /// What each vCPU has shown to the guest. KVM lets that change only
    /// before a vCPU has run; empty till then.
    pub(in crate::vmm) shown: Vec<CpuId>,
    /// What KVM supports here.
    pub(in crate::vmm) features: CpuId,
    /// 0 if not known.
    pub(in crate::vmm) tsc_khz: u32,
    pub(in crate::vmm) can_scale_tsc: bool,
}

/// Everything that can be said before anything is changed.
pub(super) fn check(saved: &Saved, here: &Here) -> Result<(), StateError> {
    if saved.vcpus.len() != here.vcpus {
        return Err(StateError::Vcpus {
            saved: saved.vcpus.len(),
            have: here.vcpus,
        });
    }
    if saved.memory_bytes != here.memory_bytes {
        return Err(StateError::Memory {
            saved: saved.memory_bytes,
            have: here.memory_bytes,
        });
    }
    for (cpu, vcpu) in saved.vcpus.iter().enumerate() {
        let count = vcpu.cpuid.len();
        if count > KVM_MAX_CPUID_ENTRIES {
            return Err(StateError::Leaves { cpu, count });
        }
        let word = |has| if has { "has" } else { "has not" };
        if vcpu.lapic.is_some() != here.has_irqchip {
            return Err(StateError::Interrupts {
                saved: word(vcpu.lapic.is_some()),
                have: word(here.has_irqchip),
            });
        }
        features::check(&vcpu.cpuid, here.features.as_slice())?;
        if let Some(shown) = here.shown.get(cpu)
            && shown.as_slice() != vcpu.cpuid
        {
            return Err(StateError::HasRun(cpu));
        }
    }
    let has_chips = saved.chips.as_ref().is_some_and(ChipState::is_whole);
    if has_chips != here.has_irqchip {
        let word = |has| if has { "has" } else { "has not" };
        return Err(StateError::Interrupts {
            saved: word(has_chips),
            have: word(here.has_irqchip),
        });
    }
    check_tsc(saved.tsc_khz, here)
}

fn check_tsc(saved: u32, here: &Here) -> Result<(), StateError> {
    let have = here.tsc_khz;
    if here.can_scale_tsc || is_near(saved, have) {
        return Ok(());
    }
    Err(StateError::TscKhz { saved, have })
}

/// Whether a guest cannot tell one counter from the other.
pub(super) fn is_near(saved: u32, have: u32) -> bool {
    u64::from(saved.abs_diff(have)) * 1_000_000 <= u64::from(have) * TSC_TOLERANCE_PPM
}
