//! A vCPU's registers, out of KVM and into it. Only on the vCPU's own thread,
//! and only while it is out of the guest.
#![allow(unsafe_code)]

use std::{io, sync::Arc};

use kvm_bindings::{CpuId, KVM_MAX_MSR_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::{error::StateError, fit, wire::VcpuState};

/// Counts ticks since the start.
const MSR_TSC: u32 = 0x10;
/// When the local APIC's timer is due, in ticks.
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// What is to be known of a vCPU besides KVM's view of it.
#[derive(Debug, Clone)]
pub(in crate::vmm) struct Facts {
    pub(in crate::vmm) cpu: u8,
    /// What the guest is shown.
    pub(in crate::vmm) cpuid: CpuId,
    /// The registers that KVM says are to be saved.
    pub(in crate::vmm) msrs: Arc<[u32]>,
    pub(in crate::vmm) has_irqchip: bool,
    pub(in crate::vmm) tsc_khz: u32,
}

impl Facts {
    fn failed(&self, what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> StateError {
        let cpu = self.cpu;
        move |error| StateError::Vcpu {
            cpu,
            what,
            source: io::Error::from_raw_os_error(error.errno()),
        }
    }

    pub(in crate::vmm) fn save(&self, vcpu: &VcpuFd) -> Result<VcpuState, StateError> {
        let lapic = self.has_irqchip.then(|| vcpu.get_lapic()).transpose();
        Ok(VcpuState {
            cpuid: self.cpuid.as_slice().to_vec(),
            run: vcpu
                .get_mp_state()
                .map_err(self.failed("read the run state"))?,
            registers: vcpu.get_regs().map_err(self.failed("read the registers"))?,
            system: vcpu
                .get_sregs()
                .map_err(self.failed("read the system registers"))?,
            // All of it: KVM has more only for features that a process must ask for.
            extended: vcpu
                .get_xsave()
                .map_err(self.failed("read the extended state"))?,
            extended_control: vcpu
                .get_xcrs()
                .map_err(self.failed("read the extended control registers"))?,
            debug: vcpu
                .get_debug_regs()
                .map_err(self.failed("read the debug registers"))?,
            lapic: lapic.map_err(self.failed("read the interrupt controller"))?,
            msrs: self.read_msrs(vcpu)?,
            events: vcpu
                .get_vcpu_events()
                .map_err(self.failed("read the pending events"))?,
        })
    }

    /// Those that can be read; KVM lists some that this processor has not.
    fn read_msrs(&self, vcpu: &VcpuFd) -> Result<Vec<kvm_msr_entry>, StateError> {
        let mut read = Vec::with_capacity(self.msrs.len());
        let mut left: &[u32] = &self.msrs;
        while !left.is_empty() {
            let mut entries = self.entries(left.iter().map(|&index| (index, 0)))?;
            let count = vcpu
                .get_msrs(&mut entries)
                .map_err(self.failed("read the model specific registers"))?;
            read.extend(entries.as_slice().iter().take(count));
            // KVM stops at the first that it cannot read.
            left = after(left, count);
        }
        // The deadline is compared with the counter when it is set.
        read.sort_by_key(|entry: &kvm_msr_entry| match entry.index {
            MSR_TSC => 0,
            MSR_TSC_DEADLINE => 2,
            _ => 1,
        });
        Ok(read)
    }

    /// What fails here leaves a vCPU that must not run.
    pub(in crate::vmm) fn load(
        &mut self,
        vcpu: &VcpuFd,
        state: &VcpuState,
        tsc_khz: u32,
    ) -> Result<(), StateError> {
        self.show(vcpu, &state.cpuid)?;
        // KVM counts on with its own frequency where that is as good.
        if !fit::is_near(tsc_khz, self.tsc_khz) {
            vcpu.set_tsc_khz(tsc_khz)
                .map_err(self.failed("scale the time stamp counter"))?;
            self.tsc_khz = tsc_khz;
        }
        vcpu.set_mp_state(state.run)
            .map_err(self.failed("set the run state"))?;
        vcpu.set_regs(&state.registers)
            .map_err(self.failed("set the registers"))?;
        vcpu.set_sregs(&state.system)
            .map_err(self.failed("set the system registers"))?;
        // SAFETY: KVM reads more than this struct has only if the process has
        // asked for features beyond it, which nothing here does.
        unsafe { vcpu.set_xsave(&state.extended) }
            .map_err(self.failed("set the extended state"))?;
        vcpu.set_xcrs(&state.extended_control)
            .map_err(self.failed("set the extended control registers"))?;
        vcpu.set_debug_regs(&state.debug)
            .map_err(self.failed("set the debug registers"))?;
        if let Some(lapic) = &state.lapic {
            vcpu.set_lapic(lapic)
                .map_err(self.failed("set the interrupt controller"))?;
        }
        self.write_msrs(vcpu, &state.msrs)?;
        vcpu.set_vcpu_events(&state.events)
            .map_err(self.failed("set the pending events"))
    }

    /// KVM takes other features only before a vCPU has run; `fit` has seen to that.
    fn show(&mut self, vcpu: &VcpuFd, cpuid: &[kvm_cpuid_entry2]) -> Result<(), StateError> {
        if self.cpuid.as_slice() == cpuid {
            return Ok(());
        }
        let cpuid = CpuId::from_entries(cpuid).map_err(|_| StateError::Leaves {
            cpu: usize::from(self.cpu),
            count: cpuid.len(),
        })?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(self.failed("set the features"))?;
        self.cpuid = cpuid;
        Ok(())
    }

    fn write_msrs(&self, vcpu: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), StateError> {
        let mut left = msrs;
        while !left.is_empty() {
            let entries = self.entries(left.iter().map(|entry| (entry.index, entry.data)))?;
            let count = vcpu
                .set_msrs(&entries)
                .map_err(self.failed("set the model specific registers"))?;
            // KVM stops at the first that it does not take. One that cannot be
            // written has what it should have, or the guest would notice.
            if let Some(&kvm_msr_entry { index, data, .. }) = left.get(count)
                && count < KVM_MAX_MSR_ENTRIES
                && self.msr(vcpu, index)? != Some(data)
            {
                return Err(StateError::Msr {
                    cpu: self.cpu,
                    index,
                    value: data,
                });
            }
            left = after(left, count);
        }
        Ok(())
    }

    /// As many as KVM takes at once.
    fn entries(&self, values: impl Iterator<Item = (u32, u64)>) -> Result<Msrs, StateError> {
        let entries: Vec<_> = values
            .take(KVM_MAX_MSR_ENTRIES)
            .map(|(index, data)| kvm_msr_entry {
                index,
                data,
                ..kvm_msr_entry::default()
            })
            .collect();
        Msrs::from_entries(&entries).map_err(|_| StateError::Vcpu {
            cpu: self.cpu,
            what: "take the model specific registers",
            source: io::ErrorKind::InvalidInput.into(),
        })
    }

    fn msr(&self, vcpu: &VcpuFd, index: u32) -> Result<Option<u64>, StateError> {
        let mut entries = self.entries([(index, 0)].into_iter())?;
        let count = vcpu
            .get_msrs(&mut entries)
            .map_err(self.failed("read the model specific registers"))?;
        let first = entries.as_slice().first().map(|entry| entry.data);
        Ok(first.filter(|_| count == 1))
    }
}

/// What is left when `count` went well, and one more did not, unless the call was full.
fn after<T>(all: &[T], count: usize) -> &[T] {
    let skipped = usize::from(count < KVM_MAX_MSR_ENTRIES);
    all.get(count + skipped..).unwrap_or_default()
}
