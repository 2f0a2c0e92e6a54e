//! The command line of ghost-vmm.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::{boot::CommandLine, error::VmmError, layout::Ram, machine::Plan, virtio::Mac};

/// Runs one microVM. Started by ghostd; events go to standard output, as JSON.
#[derive(Debug, Parser)]
#[command(version)]
pub(super) struct Args {
    /// The payload: an ELF64 executable (docs/guest-abi.md).
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Guest memory in MiB; even, from 4 to 65536.
    #[arg(long, value_name = "MIB")]
    memory_mib: u64,
    /// Processors of the guest.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    vcpus: u8,
    /// Text that the payload finds in its memory.
    #[arg(long, value_name = "TEXT", default_value = "")]
    command_line: String,
    /// Where the guest's serial output goes; the latest MiB of it is kept.
    #[arg(long, value_name = "FILE")]
    serial: PathBuf,
    /// Where to listen for commands; there must be nothing yet.
    #[arg(long, value_name = "PATH")]
    pub(super) control: Option<PathBuf>,
    /// What to do when the guest has ended. Holding keeps its memory until a
    /// client has said `stop`; it is the default where there is a control socket.
    #[arg(long, value_name = "WHAT", requires_if("hold", "control"))]
    at_end: Option<AtEnd>,
    /// A tap for the guest's network; it must be there already.
    #[arg(long, value_name = "NAME", requires = "mac")]
    tap: Option<String>,
    /// The guest's Ethernet address.
    #[arg(long, value_name = "ADDRESS", requires = "tap")]
    mac: Option<Mac>,
    /// The KVM device.
    #[arg(long, value_name = "FILE", default_value = "/dev/kvm")]
    kvm: PathBuf,
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

    /// Checked, with nothing opened.
    pub(super) fn plan(self) -> Result<Plan, VmmError> {
        let line_bytes = self.command_line.len();
        Ok(Plan {
            image: self.image,
            ram: Ram::of_mib(self.memory_mib).ok_or(VmmError::MemorySize(self.memory_mib))?,
            vcpus: self.vcpus,
            command_line: CommandLine::new(self.command_line)
                .ok_or(VmmError::CommandLine(line_bytes))?,
            serial: self.serial,
            kvm: self.kvm,
            net: self.tap.zip(self.mac),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{Args, AtEnd};

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
    fn numbers_out_of_bounds_are_refused() {
        assert!(args(&["--vcpus", "0"]).is_err());
        assert!(args(&["--vcpus", "9"]).is_err());
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
