//! Tracepoint programs: what throws switches without anybody in userspace.
//!
//! A tracepoint link cannot be given another program. So the new one is
//! attached beside the old, and its pin then takes the old one's place: for a
//! moment both are in force, which is harmless, as a switch thrown twice is
//! thrown.

use std::{fs, path::Path};

use agent_common::abi::names;
use aya::{
    Ebpf,
    programs::{links::FdLink, trace_point::TracePointLink},
};

use super::{
    error::SteerError,
    load::{beside, tracepoint, unpin},
};

const CATEGORY: &str = "syscalls";

/// Program, tracepoint, and name of the link's pin.
const WATCHES: [(&str, &str, &str); 2] = [
    // Its counterpart first: it says that a call failed, and must not miss one.
    (names::REBOOT_EXIT, "sys_exit_reboot", "gd_link_reboot_exit"),
    (names::REBOOT, "sys_enter_reboot", "gd_link_reboot"),
];

/// Attaches both programs, and pins them so that they outlive this process.
pub(super) fn attach(root: &Path, ebpf: &mut Ebpf) -> Result<(), SteerError> {
    for (program, tracepoint, pin) in WATCHES {
        attach_one(root, ebpf, program, tracepoint, pin)?;
    }
    Ok(())
}

/// Pins of links that are not there: nobody sees what these would.
pub(super) fn missing(root: &Path) -> impl Iterator<Item = &'static str> {
    let pins = WATCHES.into_iter().map(|(_, _, pin)| pin);
    pins.filter(|pin| !root.join(pin).exists())
}

fn attach_one(
    root: &Path,
    ebpf: &mut Ebpf,
    name: &'static str,
    point: &'static str,
    pin: &str,
) -> Result<(), SteerError> {
    let fail = |hint, source| SteerError::Tracepoint {
        program: name,
        tracepoint: point,
        hint,
        source,
    };
    let program = tracepoint(ebpf, name)?;
    let id = program.attach(CATEGORY, point).map_err(|e| {
        fail(
            "; it takes tracefs (`mount -t tracefs tracefs /sys/kernel/tracing`), \
             CONFIG_FTRACE_SYSCALLS and CAP_PERFMON",
            Box::new(e),
        )
    })?;
    let link: TracePointLink = program.take_link(id).map_err(|e| fail("", Box::new(e)))?;
    let link: FdLink = link.try_into().map_err(|e| {
        fail(
            " so that it outlives ghostd: that takes kernel 5.15",
            Box::new(e),
        )
    })?;
    let path = root.join(pin);
    let new = beside(&path);
    unpin(&new)?;
    link.pin(&new).map_err(|e| fail("", Box::new(e)))?;
    fs::rename(&new, &path).map_err(|e| SteerError::Pin(path, e))
}
