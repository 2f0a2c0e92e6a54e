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
//! Memory of another guest is only ever read: a copy of it is private.
//!
//! How it fails: exit 2 for what it was given (image, sizes, devices, places
//! of files), with nothing left behind; exit 1 for the system; exit 3 if the
//! guest ended by a fault.

mod args;
mod boot;
mod bus;
mod cgroup;
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
mod frames;
mod guest;
mod image;
mod jail;
mod kick;
mod layout;
mod link;
mod linux;
mod load;
mod machine;
mod made;
mod memory;
pub(crate) mod message;
mod open;
mod place;
mod serial;
mod state;
mod system;
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
    guest::Guest,
    jail::{Janitor, Strictness},
    machine::{Machine, Parts},
    open::Opened,
    virtio::Disk,
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
    let jail = args.jail();
    let cgroup = args.cgroup();
    let (plan, wanted) = args.plan()?;
    let inherited = wanted.inherited()?;
    if let Some(folder) = cgroup {
        cgroup::join(&folder).map_err(|e| VmmError::Cgroup(folder, e))?;
    }
    // Before there is any other thread, or a file that must go.
    let signals = watch::signals()?;
    let Opened {
        kvm,
        image,
        initrd,
        memory_copy,
        serial,
        tap,
        disk,
        control,
        made,
    } = wanted.open(inherited)?;
    let jail = jail.for_files_of(disk.as_ref().map_or(0, Disk::bytes));
    let parts = Parts {
        kvm,
        image,
        initrd,
        memory_copy,
        serial,
        tap,
        disk,
    };
    if jail.strictness == Strictness::Off {
        let machine = Machine::build(&plan, parts)?.start(plan.start)?;
        let _made = made.running();
        let guest = Guest::new(machine, plan.start, None);
        return Watch::new(guest, control, signals, at_end).run();
    }
    let janitor = Janitor::start(made);
    let janitor = janitor.map_err(|e| VmmError::system("leave a process outside the jail", e))?;
    let jail = jail
        .enter()
        .map_err(|(part, source)| VmmError::Jail { part, source })?;
    // Nothing was looked into until here.
    let machine = Machine::build(&plan, parts)?.start(plan.start)?;
    janitor.dismiss();
    jail::confine(jail::Kind::Main);
    let guest = Guest::new(machine, plan.start, jail);
    Watch::new(guest, control, signals, at_end).run()
}
