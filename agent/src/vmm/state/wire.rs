//! What a saved state consists of, as bytes.
//!
//! KVM's structs go as the kernel lays them out, which it never changes. A
//! list takes memory only as far as there are bytes for it.

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};

use super::{error::StateError, header};
use crate::vmm::{bus::BusState, linux::ChipState};

/// A microVM but for its memory and its disk.
#[derive(Serialize, Deserialize)]
pub(in crate::vmm) struct Saved {
    pub(in crate::vmm) memory_bytes: u64,
    /// Ticks of the time stamp counter in a millisecond; 0 if not known.
    pub(in crate::vmm) tsc_khz: u32,
    /// KVM's own clock, which Linux guests read.
    pub(in crate::vmm) clock: Option<kvm_clock_data>,
    pub(in crate::vmm) vcpus: Vec<VcpuState>,
    pub(in crate::vmm) bus: BusState,
    /// There if there are interrupt controllers beside those of the vCPUs.
    pub(in crate::vmm) chips: Option<ChipState>,
}

/// In the order in which KVM wants them back.
#[derive(Serialize, Deserialize)]
pub(in crate::vmm) struct VcpuState {
    /// What the guest was shown.
    pub(in crate::vmm) cpuid: Vec<kvm_cpuid_entry2>,
    pub(in crate::vmm) run: kvm_mp_state,
    pub(in crate::vmm) registers: kvm_regs,
    pub(in crate::vmm) system: kvm_sregs,
    pub(in crate::vmm) extended: kvm_xsave,
    pub(in crate::vmm) extended_control: kvm_xcrs,
    pub(in crate::vmm) debug: kvm_debugregs,
    /// There if there is an interrupt controller.
    pub(in crate::vmm) lapic: Option<kvm_lapic_state>,
    pub(in crate::vmm) msrs: Vec<kvm_msr_entry>,
    pub(in crate::vmm) events: kvm_vcpu_events,
}

impl Saved {
    pub(super) fn encode(&self) -> Result<Vec<u8>, StateError> {
        let body = postcard::to_allocvec(self).map_err(StateError::Encode)?;
        header::bounded(body.len() as u64)?;
        Ok(header::frame(&body))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let body = header::body(bytes)?;
        let (saved, rest) = postcard::take_from_bytes(body).map_err(StateError::Malformed)?;
        if !rest.is_empty() {
            return Err(StateError::Leftover(rest.len()));
        }
        Ok(saved)
    }
}
