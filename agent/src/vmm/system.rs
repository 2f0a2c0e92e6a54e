//! What runs in a guest: a payload, or Linux.
//!
//! Owns: which of the two a file is, and all differences that the machine
//! around it need know.

use std::fmt;

use agent_common::guest::{Device, GDT, TABLES, TASK};
use clap::ValueEnum;
use kvm_bindings::{CpuId, kvm_regs, kvm_sregs};

use super::{
    boot::{self, CommandLine},
    entry,
    image::{self, Image, ImageError, Segment},
    layout::Ram,
    linux::{self, Initrd, Kernel, KernelError},
    tables,
};

/// What an image is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// Linux if it is a bzImage or says that it is a kernel; else a payload.
    Auto,
    Payload,
    Linux,
}

/// An image that fits.
pub(super) enum System<'a> {
    Payload(Image<'a>),
    Linux(Kernel<'a>),
}

/// Why an image is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SystemError {
    #[error(transparent)]
    Payload(ImageError),
    #[error(transparent)]
    Linux(KernelError),
}

impl fmt::Debug for System<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payload(_) => "Payload",
            Self::Linux(_) => "Linux",
        })
    }
}

impl<'a> System<'a> {
    pub(super) fn parse(kind: Kind, file: &'a [u8], ram: Ram) -> Result<Self, SystemError> {
        let is_linux = match kind {
            Kind::Auto => linux::is_kernel(file),
            Kind::Payload => false,
            Kind::Linux => true,
        };
        if is_linux {
            let kernel = linux::parse(file, ram).map_err(SystemError::Linux)?;
            Ok(Self::Linux(kernel))
        } else {
            let image = image::parse(file, ram).map_err(SystemError::Payload)?;
            Ok(Self::Payload(image))
        }
    }

    /// Parts of the file, for guest memory.
    pub(super) fn segments(&self) -> &[Segment<'a>] {
        match self {
            Self::Payload(image) => &image.segments,
            Self::Linux(kernel) => &kernel.segments,
        }
    }

    /// Whether it takes interrupts; a payload polls.
    pub(super) fn has_interrupts(&self) -> bool {
        matches!(self, Self::Linux(_))
    }

    /// What it is to know of the processors.
    pub(super) fn features(&self, mut features: CpuId) -> CpuId {
        if self.has_interrupts() {
            linux::features(&mut features);
        }
        features
    }

    /// How a vCPU enters it, if it does not wait for another to start it.
    pub(super) fn registers(&self, cpu: u8, fresh: kvm_sregs) -> Option<(kvm_sregs, kvm_regs)> {
        match self {
            Self::Payload(image) => Some((
                entry::system_registers(fresh),
                entry::registers(image.entry, cpu),
            )),
            Self::Linux(kernel) if cpu == 0 => Some((
                linux::system_registers(fresh),
                linux::registers(kernel.entry),
            )),
            Self::Linux(_) => None,
        }
    }

    /// What is written to guest memory beside the file, and where.
    pub(super) fn pages(&self, told: &Told<'_>) -> Result<Vec<(u64, Vec<u8>)>, KernelError> {
        let &Told {
            ram,
            cpus,
            line,
            initrd,
            tsc_khz,
            devices,
        } = told;
        match self {
            Self::Payload(_) => {
                let mut pages = vec![
                    (TABLES, tables::page_tables(ram)),
                    (GDT, tables::descriptors()),
                    (TASK, tables::task()),
                ];
                pages.extend(boot::pages(ram, cpus, line, tsc_khz, devices));
                Ok(pages)
            }
            Self::Linux(kernel) => linux::pages(kernel, ram, cpus, line.as_str(), initrd, devices),
        }
    }
}

/// What a guest is told of its machine.
pub(super) struct Told<'a> {
    pub(super) ram: Ram,
    pub(super) cpus: u8,
    pub(super) line: &'a CommandLine,
    pub(super) initrd: Option<Initrd>,
    pub(super) tsc_khz: u32,
    pub(super) devices: &'a [Device],
}
