//! The BPF object: loaded into the kernel, its maps adopted or made.
//!
//! Owns: the check that pinned maps fit before they are adopted, the sizes of
//! new ones, and the pins of programs. What ran before goes on running: a
//! program is replaced where it is attached (see `attach`, `watch`), not here.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use agent_common::abi::{ABI_VERSION, Meta, names};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError, TracePoint, Xdp},
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{
    error::SteerError,
    namespace::HostNamespace,
    pins::{Pins, check_abi},
    sys, table,
};
use crate::model::Limits;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Programs in the kernel, over the pinned maps.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) pins: Pins,
    pub(super) steer: OwnedFd,
    pub(super) port: OwnedFd,
    /// Holds the tracepoint programs until they are attached.
    pub(super) ebpf: Ebpf,
    /// Whether maps of an earlier run were found.
    pub(super) adopted: bool,
}

/// Loads `object` with maps pinned below `root`.
pub(super) fn load(root: &Path, limits: &Limits, object: &[u8]) -> Result<Loaded, SteerError> {
    make_root(root)?;
    let adopted = root.join(names::META).exists();
    if adopted {
        check_abi(root)?;
    }
    let sizes = sizes(limits);
    for &(name, expected) in &sizes {
        check_size(root, name, expected)?;
    }
    let host = HostNamespace::own()?;
    let mut loader = EbpfLoader::new();
    for name in names::MAPS {
        loader.map_pin_path(name, root.join(name));
    }
    for (name, entries) in sizes {
        loader.map_max_entries(name, entries);
    }
    loader
        .override_global(names::globals::HOST_PIDNS_DEV, &host.device, true)
        .override_global(names::globals::HOST_PIDNS_INO, &host.inode, true)
        .override_global(names::globals::HOST_PIDNS_LEVEL, &host.level, true)
        .override_global(names::globals::TASK_OFFSETS, &host.offsets, true);
    let mut ebpf = loader
        .load(object)
        .map_err(|e| SteerError::Load(Box::new(e)))?;
    verify(&mut ebpf)?;
    let steer = pin_xdp(&mut ebpf, root, names::STEER)?;
    let port = pin_xdp(&mut ebpf, root, names::PORT)?;
    for name in [
        names::REBOOT,
        names::REBOOT_EXIT,
        names::KVM_PIO,
        names::KVM_EXIT,
    ] {
        let program = tracepoint(&mut ebpf, name)?;
        let fd = program.fd().map_err(|e| program_error(name, e))?;
        pin_over(fd.as_fd(), &root.join(name))?;
    }
    let pins = Pins::open(root)?;
    pins.meta.put(&0, &meta()?)?;
    Ok(Loaded {
        pins,
        steer,
        port,
        ebpf,
        adopted,
    })
}

/// Entries of the maps whose size the configuration decides.
fn sizes(limits: &Limits) -> [(&'static str, u32); 11] {
    // One cgroup for each instance, and room for a few ports of each copy.
    let ports = limits.instances.saturating_mul(4);
    [
        (names::ROUTES_V4, limits.routes),
        (names::ROUTES_V6, limits.routes),
        (names::REVERSE_V4, limits.reverse()),
        (names::REVERSE_V6, limits.reverse()),
        (names::COUNTERS, limits.counters()),
        (names::SWITCHES, limits.instances),
        (names::INSTANCES, limits.instances),
        (names::CGROUPS, limits.instances),
        (names::PORTS, ports),
        (names::FLOWS, limits.flows),
        (names::FRAGMENTS, limits.fragments),
    ]
}

fn make_root(root: &Path) -> Result<(), SteerError> {
    let fail = |e| SteerError::PinRoot(root.to_owned(), e);
    let parent = root.parent().unwrap_or(root);
    let kind = statfs(parent).map_err(|e| fail(e.into()))?;
    if kind.filesystem_type() != BPF_FS_MAGIC {
        return Err(SteerError::NotBpffs(root.to_owned()));
    }
    match fs::DirBuilder::new().mode(0o700).create(root) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(fail(e)),
        _ => Ok(()),
    }
}

/// A map that is pinned already keeps its size for as long as it lives.
fn check_size(root: &Path, map: &'static str, expected: u32) -> Result<(), SteerError> {
    let found = match table::open(root, map) {
        Ok((_, info)) => info.entries_max,
        Err(SteerError::NoPins(_)) => return Ok(()),
        Err(e) => return Err(e),
    };
    if found == expected {
        return Ok(());
    }
    Err(SteerError::MapShape {
        map,
        what: "entries",
        found,
        expected,
    })
}

fn program_error(program: &'static str, source: ProgramError) -> SteerError {
    SteerError::Program {
        program,
        source: Box::new(source),
    }
}

/// Has the kernel verify all programs at the same time: that is most of what a
/// start takes, and the two XDP programs take the same.
fn verify(ebpf: &mut Ebpf) -> Result<(), SteerError> {
    let programs = ebpf.programs_mut().filter_map(|(found, program)| {
        let name = names::PROGRAMS.into_iter().find(|name| *name == found)?;
        Some((name, program))
    });
    thread::scope(|scope| {
        let verifiers: Vec<_> = programs
            .map(|(name, program)| {
                thread::Builder::new()
                    .name(name.to_owned())
                    .spawn_scoped(scope, move || load_program(name, program))
                    .map_err(|source| SteerError::Thread { name, source })
            })
            .collect();
        for verifier in verifiers {
            let verified = verifier?.join();
            verified.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })
}

fn load_program(name: &'static str, program: &mut Program) -> Result<(), SteerError> {
    let loaded = match program {
        Program::Xdp(xdp) => xdp.load(),
        Program::TracePoint(tracepoint) => tracepoint.load(),
        _ => return Err(SteerError::NoProgram(name)),
    };
    loaded.map_err(|e| program_error(name, e))
}

/// Pins a loaded program.
fn pin_xdp(ebpf: &mut Ebpf, root: &Path, name: &'static str) -> Result<OwnedFd, SteerError> {
    let program = ebpf.program_mut(name).ok_or(SteerError::NoProgram(name))?;
    let program: &mut Xdp = program.try_into().map_err(|e| program_error(name, e))?;
    let fd = program.fd().map_err(|e| program_error(name, e))?.as_fd();
    let path = root.join(name);
    pin_over(fd, &path)?;
    fd.try_clone_to_owned()
        .map_err(|e| SteerError::OpenPin(path, e))
}

pub(super) fn tracepoint<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut TracePoint, SteerError> {
    let program = ebpf.program_mut(name).ok_or(SteerError::NoProgram(name))?;
    program.try_into().map_err(|e| program_error(name, e))
}

/// A name beside `path`, for what is to take its place. A dot is not allowed
/// in names here.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("_new");
    path.with_file_name(name)
}

/// Pins `fd` at `path` in place of whatever is pinned there, without a moment
/// in between.
fn pin_over(fd: BorrowedFd<'_>, path: &Path) -> Result<(), SteerError> {
    let new = beside(path);
    unpin(&new)?;
    sys::obj_pin(fd, &new).map_err(|e| SteerError::Pin(new.clone(), e))?;
    fs::rename(&new, path).map_err(|e| SteerError::Pin(path.to_owned(), e))
}

/// Removes a pin; none there is fine.
pub(super) fn unpin(path: &Path) -> Result<(), SteerError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(SteerError::Unpin(path.to_owned(), e)),
        _ => Ok(()),
    }
}

fn meta() -> Result<Meta, SteerError> {
    let text = fs::read_to_string(BOOT_ID).map_err(|e| SteerError::Read(BOOT_ID.into(), e))?;
    let mut ghostd_version = [0; 16];
    for (to, from) in ghostd_version[..15]
        .iter_mut()
        .zip(env!("CARGO_PKG_VERSION").bytes())
    {
        *to = from;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Meta {
        abi_version: ABI_VERSION,
        pad: 0,
        ghostd_version,
        loaded_at_s: since_1970.map_or(0, |d| d.as_secs()),
        boot_id: parse_boot_id(&text),
        pad1: [0; 2],
    })
}

/// The sixteen bytes of a UUID; what is not hexadecimal counts as nothing.
fn parse_boot_id(text: &str) -> [u8; 16] {
    let mut id = [0; 16];
    let digits = text.chars().filter_map(|c| c.to_digit(16));
    for (i, digit) in digits.take(32).enumerate() {
        // A hexadecimal digit fits.
        id[i / 2] = id[i / 2] << 4 | u8::try_from(digit).unwrap_or(0);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_a_uuid() {
        let id = parse_boot_id("0123abcd-0000-4000-8000-00000000ffee\n");
        assert_eq!(id[..4], [0x01, 0x23, 0xab, 0xcd]);
        assert_eq!(id[14..], [0xff, 0xee]);
        assert_eq!(parse_boot_id(""), [0; 16]);
    }

    #[test]
    fn a_pin_is_made_beside_its_place() {
        let new = beside(Path::new("/sys/fs/bpf/ghostd/gd_steer"));
        assert_eq!(new, Path::new("/sys/fs/bpf/ghostd/gd_steer_new"));
    }
}
