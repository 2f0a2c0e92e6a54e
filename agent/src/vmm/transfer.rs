//! A microVM's state, out of a paused one and into another.

use std::{io, sync::Arc};

use kvm_bindings::{CpuId, kvm_clock_data};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

use super::{
    clock::{self, Generation},
    cpuid,
    dirty::Written,
    error::VmmError,
    layout::Ram,
    linux::ChipState,
    machine::Running,
    state::{Facts, Here, Saved, StateError},
    tracking,
    vcpu::Thread,
};

/// What is to be known of a new machine and its vCPUs to save and load them.
pub(super) fn survey(
    kvm: &Kvm,
    vm: &VmFd,
    vcpus: Vec<VcpuFd>,
    features: CpuId,
    ram: Ram,
    has_irqchip: bool,
) -> Result<(Here, Vec<(VcpuFd, Facts)>), VmmError> {
    // Not known where the host's own clock is no good.
    let tsc_khz = vcpus.first().and_then(|vcpu| vcpu.get_tsc_khz().ok());
    let tsc_khz = tsc_khz.unwrap_or_default();
    let msrs: Arc<[u32]> = kvm
        .get_msr_index_list()
        .map_err(|e| VmmError::kvm("say which registers are to be saved", e))?
        .as_slice()
        .into();
    let here = Here {
        vcpus: vcpus.len(),
        memory_bytes: ram.bytes(),
        has_irqchip,
        shown: Vec::new(),
        features,
        tsc_khz,
        can_scale_tsc: vm.check_extension(Cap::TscControl),
    };
    let facts = |cpu| Facts {
        cpu,
        cpuid: cpuid::of(&here.features, cpu),
        msrs: Arc::clone(&msrs),
        has_irqchip: here.has_irqchip,
        tsc_khz,
    };
    let vcpus = vcpus.into_iter().zip((0..).map(facts)).collect();
    Ok((here, vcpus))
}

impl Running {
    /// What a saved state must fit.
    pub(super) fn here(&self) -> &Here {
        &self.here
    }

    /// Of a paused one.
    pub(super) fn save(&self) -> Result<Saved, StateError> {
        let saving: Vec<_> = self.threads.iter().map(Thread::save).collect();
        let mut vcpus = Vec::with_capacity(saving.len());
        for (cpu, vcpu) in (0..).zip(saving) {
            let state = vcpu.wait().map_err(StateError::Silent)?;
            vcpus.push(state.ok_or(StateError::Silent(cpu))??);
        }
        Ok(Saved {
            memory_bytes: self.ram().bytes(),
            tsc_khz: self.tsc_khz,
            // A KVM without it has no guests that could miss it.
            clock: self.vm.get_clock().ok(),
            vcpus,
            bus: self.bus().save(),
            chips: self
                .here
                .has_irqchip
                .then(|| self.save_chips())
                .transpose()?,
        })
    }

    fn save_chips(&self) -> Result<ChipState, StateError> {
        ChipState::save(&self.vm)
            .map_err(|e| StateError::Chips("read", io::Error::from_raw_os_error(e.errno())))
    }

    /// Into a paused one. If it fails for another reason than its devices,
    /// some of it has been done.
    pub(super) fn load(&mut self, saved: Saved) -> Result<(), StateError> {
        let Saved {
            memory_bytes: _,
            tsc_khz,
            clock,
            vcpus,
            bus,
            chips,
        } = saved;
        let shown = vcpus.iter().map(|vcpu| vcpu.cpuid.as_slice());
        let shown = shown
            .zip(0..)
            .map(|(leaves, cpu)| {
                CpuId::from_entries(leaves).map_err(|_| StateError::Leaves {
                    cpu,
                    count: leaves.len(),
                })
            })
            .collect::<Result<_, _>>()?;
        // First, because it takes all or nothing.
        self.bus().restore(&bus).map_err(StateError::Devices)?;
        let threads = self.threads.iter().zip(vcpus);
        let loading: Vec<_> = threads
            .map(|(thread, state)| thread.load(state, tsc_khz))
            .collect();
        for (cpu, vcpu) in (0..).zip(loading) {
            let done = vcpu.wait().map_err(StateError::Silent)?;
            done.ok_or(StateError::Silent(cpu))??;
        }
        if let Some(chips) = chips {
            let set = chips.load(&self.vm);
            set.map_err(|e| StateError::Chips("set", io::Error::from_raw_os_error(e.errno())))?;
        }
        self.shown = shown;
        self.tsc_khz = tsc_khz;
        self.clock = clock;
        Ok(())
    }

    /// Begins to record what is written.
    pub(super) fn track(&self) -> Result<(), VmmError> {
        tracking::start(&self.vm, self.memory())?;
        self.devices().start_tracking();
        Ok(())
    }

    /// What was written since this was last asked, or tracking began.
    pub(super) fn harvest(&self) -> Result<Written, VmmError> {
        Ok(Written {
            pages: tracking::harvest(&self.vm, self.memory())?,
            blocks: self
                .devices()
                .harvest()
                .map_or_else(Vec::new, |map| map.words().to_vec()),
        })
    }

    /// Tells a paused guest that it is another now, and what time it is.
    pub(super) fn reincarnate(&mut self, generation: Generation) -> Result<(), VmmError> {
        clock::tell(self.memory(), generation)?;
        // It goes on from where it was saved; what passed since then did not
        // pass for the guest, whose wall clock says how long it was.
        if let Some(clock) = self.clock.take() {
            let clock = kvm_clock_data {
                clock: clock.clock,
                ..kvm_clock_data::default()
            };
            self.vm
                .set_clock(&clock)
                .map_err(|e| VmmError::kvm("set the guest's clock", e))?;
        }
        if let Some(line) = &self.renewed {
            // Fails only if it was told 2^64 times and nobody listened.
            let _ = line.write(1);
        }
        Ok(())
    }
}
