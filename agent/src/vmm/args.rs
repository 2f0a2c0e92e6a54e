//! The command line of ghost-vmm.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::{
    boot::CommandLine,
    error::VmmError,
    jail::{Jail, Strictness, User},
    layout::Ram,
    machine::Plan,
    open::{TapWanted, Wanted},
    place::Place,
    system::Kind,
    vcpu::Start,
    virtio::{Access, Mac},
};

/// Runs one microVM. Started by ghostd; events go to standard output, as JSON.
///
/// Each FILE may be a descriptor that was opened before: fd:7.
#[derive(Debug, Parser)]
#[command(version)]
pub(super) struct Args {
    /// What runs in the guest: a payload, which is an ELF64 executable, or a
    /// Linux kernel (docs/guest-abi.md).
    #[arg(long, value_name = "FILE")]
    image: Place,
    /// What the image is.
    #[arg(long, value_name = "WHAT", default_value = "auto")]
    kind: Kind,
    /// The kernel's initial file system.
    #[arg(long, value_name = "FILE")]
    initrd: Option<Place>,
    /// Guest memory in MiB; even, from 4 to 65536.
    #[arg(long, value_name = "MIB")]
    memory_mib: u64,
    /// Memory that the guest begins with, as a copy of its own: the sealed file
    /// of another ghost-vmm, which stays as it is. Nothing is written to the
    /// copy before `load`, without which the guest does not run; all other
    /// arguments are those of the guest whose state that is.
    #[arg(long, value_name = "FILE", requires = "control")]
    memory_copy: Option<Place>,
    /// Processors of the guest.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    vcpus: u8,
    /// Text that the payload or kernel finds in its memory.
    #[arg(long, value_name = "TEXT", default_value = "")]
    command_line: String,
    /// Where the guest's serial output goes; the latest MiB of it is kept.
    #[arg(long, value_name = "FILE")]
    serial: Place,
    /// Where to listen for commands; nobody may listen there yet.
    #[arg(long, value_name = "FILE")]
    control: Option<Place>,
    /// What to do when the guest has ended. Holding keeps its memory until a
    /// client has said `stop`; it is the default where there is a control socket.
    #[arg(long, value_name = "WHAT", requires_if("hold", "control"))]
    at_end: Option<AtEnd>,
    /// A tap for the guest's network; it must be there already. In its place,
    /// fd:N is an open queue of a tap, or a packet socket.
    #[arg(long, value_name = "NAME", group = "network", requires = "mac")]
    tap: Option<Place>,
    /// A tap that is made, switched on, and gone with the process; there must
    /// be no interface of this name.
    #[arg(long, value_name = "NAME", group = "network", requires = "mac")]
    new_tap: Option<String>,
    /// The Ethernet address of the host's end of the new tap; by default the
    /// kernel takes one by chance.
    #[arg(long, value_name = "ADDRESS", requires = "new_tap")]
    tap_mac: Option<Mac>,
    /// The guest's Ethernet address.
    #[arg(long, value_name = "ADDRESS", requires = "network")]
    mac: Option<Mac>,
    /// Build the microVM, and let no vCPU run until `resume` or `activate`.
    #[arg(long, requires = "control")]
    suspended: bool,
    /// The guest's disk: a raw file, used by nobody else.
    #[arg(long, value_name = "FILE")]
    disk: Option<Place>,
    /// The guest does not write to its disk; others may read it too.
    #[arg(long, requires = "disk")]
    disk_read_only: bool,
    /// The KVM device.
    #[arg(long, value_name = "FILE", default_value = "/dev/kvm")]
    kvm: Place,
    /// A cgroup (version 2) to run in; made if only its last part is missing.
    /// Its owner removes it.
    #[arg(long, value_name = "FOLDER")]
    cgroup: Option<PathBuf>,
    /// Whether the process gives up all rights but those to its open files
    /// before it looks at the image. `auto` gives up what this system lets it
    /// give up, and tells what is missing. On for root, otherwise off.
    #[arg(long, value_name = "HOW")]
    jail: Option<Strictness>,
    /// The user to become in the jail; by default one that nobody else is.
    #[arg(long, value_name = "NUMBER", requires = "gid", value_parser = clap::value_parser!(u32).range(1..i64::from(u32::MAX)))]
    uid: Option<u32>,
    /// Its group.
    #[arg(long, value_name = "NUMBER", requires = "uid", value_parser = clap::value_parser!(u32).range(1..i64::from(u32::MAX)))]
    gid: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AtEnd {
    Exit,
    Hold,
}

impl Args {
    pub(super) fn at_end(&self) -> AtEnd {
        self.at_end.unwrap_or(match self.control {
            Some(_) => AtEnd::Hold,
            None => AtEnd::Exit,
        })
    }

    /// What the process is to become before it looks at the image.
    pub(super) fn jail(&self) -> Jail {
        let is_root = nix::unistd::geteuid().is_root();
        let given = self.uid.zip(self.gid).map(|(uid, gid)| User { uid, gid });
        Jail {
            strictness: self.jail.unwrap_or(match is_root {
                true => Strictness::On,
                false => Strictness::Off,
            }),
            user: given.or(is_root.then(User::of_process)),
            file_bytes_max: self.memory_mib << 20,
        }
    }

    pub(super) fn cgroup(&self) -> Option<PathBuf> {
        self.cgroup.clone()
    }

    /// Checked, with nothing opened.
    pub(super) fn plan(self) -> Result<(Plan, Wanted), VmmError> {
        let line_bytes = self.command_line.len();
        let access = match self.disk_read_only {
            true => Access::ReadOnly,
            false => Access::ReadWrite,
        };
        let plan = Plan {
            ram: Ram::of_mib(self.memory_mib).ok_or(VmmError::MemorySize(self.memory_mib))?,
            vcpus: self.vcpus,
            command_line: CommandLine::new(self.command_line)
                .ok_or(VmmError::CommandLine(line_bytes))?,
            kind: self.kind,
            mac: self.mac,
            start: match self.suspended || self.memory_copy.is_some() {
                true => Start::Paused,
                false => Start::Running,
            },
        };
        let wanted = Wanted {
            kvm: self.kvm,
            image: self.image,
            initrd: self.initrd,
            memory_copy: self.memory_copy,
            serial: self.serial,
            control: self.control,
            tap: match (self.tap, self.new_tap) {
                (Some(Place::Inherited(fd)), _) => Some(TapWanted::Inherited(fd)),
                (Some(Place::Path(name)), _) => Some(TapWanted::There(name.display().to_string())),
                (None, Some(name)) => Some(TapWanted::New {
                    name,
                    host_mac: self.tap_mac,
                }),
                (None, None) => None,
            },
            disk: self.disk.map(|place| (place, access)),
        };
        Ok((plan, wanted))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{Args, AtEnd, Start};

    fn args(more: &[&str]) -> Result<Args, clap::Error> {
        let basic = [
            "ghost-vmm",
            "--image",
            "i",
            "--memory-mib",
            "4",
            "--serial",
            "s",
        ];
        Args::try_parse_from(basic.iter().chain(more))
    }

    #[test]
    fn memory_is_held_where_somebody_can_ask_for_it() {
        assert_eq!(args(&[]).unwrap().at_end(), AtEnd::Exit);
        assert_eq!(args(&["--control", "c"]).unwrap().at_end(), AtEnd::Hold);
        let exit = args(&["--control", "c", "--at-end", "exit"]).unwrap();
        assert_eq!(exit.at_end(), AtEnd::Exit);
        assert!(args(&["--at-end", "hold"]).is_err());
    }

    #[test]
    fn a_copy_waits_for_whoever_loads_its_state() {
        assert!(args(&["--memory-copy", "fd:7"]).is_err());
        let copy = args(&["--memory-copy", "fd:7", "--control", "c"]).unwrap();
        assert_eq!(copy.plan().unwrap().0.start, Start::Paused);
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        assert!(args(&["--vcpus", "0"]).is_err());
        assert!(args(&["--vcpus", "9"]).is_err());
        let mac = ["--mac", "02:00:00:00:00:01"];
        assert!(args(&mac).is_err());
        assert!(args(&["--tap", "t"]).is_err());
        assert!(args(&["--disk-read-only"]).is_err());
        let line = "x".repeat(4097);
        let error = args(&["--command-line", &line])
            .unwrap()
            .plan()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the command line has 4097 bytes, at most 4096 fit"
        );
    }
}
