//! Interrupt controllers in KVM, and the lines that lead to them.
//!
//! There is no timer chip: the local APIC of each vCPU has one, and KVM's
//! clock says how fast it is.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip,
};
use kvm_ioctls::VmFd;
use nix::sys::eventfd::EventFd;
use serde::{Deserialize, Serialize};

use crate::vmm::{error::VmmError, eventfd};

/// Each vCPU's local APIC is saved with it.
const CHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// Before there are vCPUs.
pub(in crate::vmm) fn make(vm: &VmFd) -> Result<(), VmmError> {
    vm.create_irq_chip()
        .map_err(|e| VmmError::kvm("make interrupt controllers", e))
}

/// An event that pulses this line of the I/O APIC.
pub(in crate::vmm) fn line(vm: &VmFd, number: u32) -> Result<EventFd, VmmError> {
    let event = eventfd::new().map_err(|e| VmmError::system("make an eventfd", e))?;
    let shared = eventfd::for_kvm(&event).map_err(|e| VmmError::system("share an eventfd", e))?;
    vm.register_irqfd(&shared, number)
        .map_err(|e| VmmError::kvm("listen for a device's interrupt", e))?;
    Ok(event)
}

/// All controllers but the vCPUs' own.
#[derive(Serialize, Deserialize)]
pub(in crate::vmm) struct ChipState(Vec<kvm_irqchip>);

impl ChipState {
    /// Of a guest that does not run.
    pub(in crate::vmm) fn save(vm: &VmFd) -> Result<Self, kvm_ioctls::Error> {
        let read = |chip_id| {
            let mut chip = kvm_irqchip {
                chip_id,
                ..kvm_irqchip::default()
            };
            vm.get_irqchip(&mut chip).map(|()| chip)
        };
        CHIPS
            .into_iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether it has each controller once.
    pub(in crate::vmm) fn is_whole(&self) -> bool {
        self.0.iter().map(|chip| chip.chip_id).eq(CHIPS)
    }

    /// After the vCPUs' own, because what waits in one goes on to them.
    pub(in crate::vmm) fn load(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        self.0.iter().try_for_each(|chip| vm.set_irqchip(chip))
    }
}
