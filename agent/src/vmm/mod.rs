//! `ghost-vmm`: one process that runs one microVM.
//!
//! Owns: guest memory (a memfd that others may map), vCPUs and their threads,
//! ports, the serial log, the control socket. A payload runs at CPL 3 with
//! guest addresses mapped to themselves; docs/guest-abi.md says what it may
//! rely on, and `agent_common::guest` has the numbers.
//!
//! Refuses: to know what the guest is for, and to decide what happens after
//! its end. An end is told with its reason, on standard output and on the
//! control socket; where there is one, memory is held until a client lets go.
//!
//! How it fails: exit 2 for what it was given (image, sizes, devices, places
//! of files), with nothing left behind; exit 1 for the system; exit 3 if the
//! guest ended by a fault.

mod args;
mod boot;
mod bus;
mod clock;
mod control;
mod cpuid;
mod descriptor;
mod devices;
mod dirty;
mod end;
mod entry;
mod error;
mod eventfd;
mod guest;
mod image;
mod kick;
mod layout;
mod machine;
mod made;
mod memory;
pub(crate) mod message;
mod open;
mod place;
mod serial;
mod state;
mod tables;
mod tracking;
mod transfer;
mod vcpu;
mod virtio;
mod wait;
mod watch;

use std::process::ExitCode;

use anyhow::Error;
use clap::Parser as _;

use self::{
    args::Args,
    end::End,
    error::{Blame, VmmError},
    guest::{Guest, Life},
    machine::{Machine, Parts},
    open::Opened,
    vcpu::Start,
    watch::Watch,
};

/// Exit code for what we were given.
const EXIT_INPUT: u8 = 2;
/// Exit code for a guest that ended by a fault.
const EXIT_GUEST: u8 = 3;

/// The whole of `ghost-vmm`.
pub fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(end) if end.is_orderly() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EXIT_GUEST),
        Err(error) => {
            let code = match error.blame() {
                Blame::Input => ExitCode::from(EXIT_INPUT),
                Blame::System => ExitCode::FAILURE,
            };
            eprintln!("error: {:#}", Error::new(error));
            code
        }
    }
}

fn run(args: Args) -> Result<End, VmmError> {
    let at_end = args.at_end();
    let (plan, wanted) = args.plan()?;
    let inherited = wanted.inherited()?;
    // Before there is any other thread, or a file that must go.
    let signals = watch::signals()?;
    let Opened {
        kvm,
        image,
        serial,
        tap,
        disk,
        control,
        mut made,
    } = wanted.open(inherited)?;
    let parts = Parts {
        kvm,
        image,
        serial,
        tap,
        disk,
    };
    let start = plan.start;
    let life = match start {
        Start::Running => Life::Running,
        Start::Paused => Life::Paused,
    };
    let machine = Machine::build(&plan, parts)?.start(start)?;
    made.running();
    Watch::new(Guest::new(machine, life), control, signals, at_end).run()
}
