//! Tracepoint programs: what throws switches without anybody in userspace.
//!
//! A tracepoint link cannot be given another program. So the new one is
//! attached beside the old, and its pin then takes the old one's place: for a
//! moment both are in force, which is harmless, as a switch thrown twice is
//! thrown.
//!
//! KVM's tracepoints come with its module, which may be loaded later than
//! ghostd starts, or never: absent is not broken. Once attached, they keep the
//! module loaded.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_common::abi::names;
use aya::{
    Ebpf,
    programs::{links::FdLink, trace_point::TracePointLink},
};

use super::{
    error::SteerError,
    load::{beside, tracepoint, unpin},
};

/// A program on a tracepoint.
struct Watch {
    program: &'static str,
    category: &'static str,
    point: &'static str,
    /// Name of the link's pin.
    pin: &'static str,
    /// Fields of the record that the program reads: name, offset, bytes.
    fields: &'static [(&'static str, u32, u32)],
}

const REBOOTS: [Watch; 2] = [
    // Its counterpart first: it says that a call failed, and must not miss one.
    Watch {
        program: names::REBOOT_EXIT,
        category: "syscalls",
        point: "sys_exit_reboot",
        pin: "gd_link_reboot_exit",
        fields: &[("ret", 16, 8)],
    },
    Watch {
        program: names::REBOOT,
        category: "syscalls",
        point: "sys_enter_reboot",
        pin: "gd_link_reboot",
        fields: &[("magic1", 16, 8), ("magic2", 24, 8), ("cmd", 32, 8)],
    },
];

const GUESTS: [Watch; 2] = [
    Watch {
        program: names::KVM_PIO,
        category: "kvm",
        point: "kvm_pio",
        pin: "gd_link_kvm_pio",
        fields: &[("rw", 8, 4), ("port", 12, 4), ("val", 24, 4)],
    },
    Watch {
        program: names::KVM_EXIT,
        category: "kvm",
        point: "kvm_userspace_exit",
        pin: "gd_link_kvm_exit",
        fields: &[("reason", 8, 4), ("errno", 12, 4)],
    },
];

/// Where tracefs may be mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why a tracepoint's record is not what a program reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("its record has no field {0}")]
    NoField(&'static str),
    #[error("its field {field} is {found}, not at offset {offset} with {bytes} bytes")]
    Moved {
        field: &'static str,
        found: String,
        offset: u32,
        bytes: u32,
    },
}

/// Whether guests are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guests {
    Watched,
    /// The kernel has no KVM, or not yet.
    Absent,
}

/// Attaches the programs that see reboots, and pins them so that they outlive
/// this process.
pub(super) fn attach_reboots(root: &Path, ebpf: &mut Ebpf) -> Result<(), SteerError> {
    REBOOTS
        .iter()
        .try_for_each(|watch| attach(root, ebpf, watch))
}

/// As [`attach_reboots`], the programs that see what guests do.
pub(super) fn attach_guests(root: &Path, ebpf: &mut Ebpf) -> Result<Guests, SteerError> {
    for watch in &GUESTS {
        let Some(text) = format_of(watch).map_err(|e| fail(watch, "", e))? else {
            return Ok(Guests::Absent);
        };
        check(&text, watch.fields).map_err(|e| fail(watch, "", e))?;
    }
    GUESTS
        .iter()
        .try_for_each(|watch| attach(root, ebpf, watch))?;
    Ok(Guests::Watched)
}

/// Pins of links that are not there: nobody sees what these would.
pub(super) fn missing(root: &Path) -> Missing {
    let missing = |watches: &[Watch]| {
        let pins = watches.iter().map(|watch| watch.pin);
        pins.filter(|pin| !root.join(pin).exists()).collect()
    };
    Missing {
        reboots: missing(&REBOOTS),
        guests: missing(&GUESTS),
    }
}

/// What is not watched, by the names of pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) reboots: Vec<&'static str>,
    pub(super) guests: Vec<&'static str>,
}

fn fail(
    watch: &Watch,
    hint: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> SteerError {
    SteerError::Tracepoint {
        program: watch.program,
        tracepoint: watch.point,
        hint,
        source: source.into(),
    }
}

/// How the kernel describes a tracepoint's record; `None` if there is none.
fn format_of(watch: &Watch) -> io::Result<Option<String>> {
    for root in TRACEFS {
        let path: PathBuf = [root, "events", watch.category, watch.point, "format"]
            .iter()
            .collect();
        match fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            read => return read.map(Some),
        }
    }
    Ok(None)
}

/// Looks for lines that name a field, then its offset, then its size.
fn check(format: &str, fields: &[(&'static str, u32, u32)]) -> Result<(), FormatError> {
    for &(field, offset, bytes) in fields {
        let found = format.lines().find_map(|line| {
            let mut parts = line.trim().strip_prefix("field:")?.split(';');
            let name = parts.next()?.split_whitespace().next_back()?;
            (name == field).then(|| parts.map(str::trim).take(2).collect::<Vec<_>>().join(" "))
        });
        let found = found.ok_or(FormatError::NoField(field))?;
        if found != format!("offset:{offset} size:{bytes}") {
            return Err(FormatError::Moved {
                field,
                found,
                offset,
                bytes,
            });
        }
    }
    Ok(())
}

fn attach(root: &Path, ebpf: &mut Ebpf, watch: &Watch) -> Result<(), SteerError> {
    let program = tracepoint(ebpf, watch.program)?;
    let id = program.attach(watch.category, watch.point).map_err(|e| {
        let hint = "; it takes tracefs (`mount -t tracefs tracefs /sys/kernel/tracing`), \
             CONFIG_FTRACE_SYSCALLS and CAP_PERFMON";
        fail(watch, hint, e)
    })?;
    let link: TracePointLink = program.take_link(id).map_err(|e| fail(watch, "", e))?;
    let link: FdLink = link
        .try_into()
        .map_err(|e: aya::programs::links::LinkError| {
            let hint = " so that it outlives ghostd: that takes kernel 5.15";
            fail(watch, hint, e)
        })?;
    let path = root.join(watch.pin);
    let new = beside(&path);
    unpin(&new)?;
    link.pin(&new).map_err(|e| fail(watch, "", e))?;
    fs::rename(&new, &path).map_err(|e| SteerError::Pin(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIO: &str = "name: kvm_pio\nID: 110\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:unsigned int rw;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned int port;\toffset:12;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned int val;\toffset:24;\tsize:4;\tsigned:0;\n\n\
        print fmt: \"pio_%s at 0x%x\", REC->rw ? \"write\" : \"read\", REC->port\n";

    #[test]
    fn a_record_is_compared_field_by_field() {
        let [pio, exit] = &GUESTS;
        assert_eq!(check(PIO, pio.fields), Ok(()));
        assert_eq!(check(PIO, exit.fields), Err(FormatError::NoField("reason")));
        assert_eq!(check("", pio.fields), Err(FormatError::NoField("rw")));
        let moved = PIO.replace("offset:12", "offset:16");
        let error = check(&moved, pio.fields).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its field port is offset:16 size:4, not at offset 12 with 4 bytes"
        );
        let wider = PIO.replace("offset:24;\tsize:4", "offset:24;\tsize:8");
        assert!(matches!(
            check(&wider, pio.fields),
            Err(FormatError::Moved { field: "val", .. })
        ));
    }

    #[test]
    fn this_kernels_records_are_as_the_programs_read_them() {
        for watch in REBOOTS.iter().chain(&GUESTS) {
            // Without tracefs or KVM there is nothing to compare.
            if let Ok(Some(format)) = format_of(watch) {
                assert_eq!(check(&format, watch.fields), Ok(()), "{}", watch.point);
            }
        }
    }
}
