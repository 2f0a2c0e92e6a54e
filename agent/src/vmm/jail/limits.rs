//! Bounds on what the process may take.
#![allow(unsafe_code)]

use nix::sys::{
    prctl,
    resource::{Resource, setrlimit},
};

use super::{Refusal, cannot};

/// Some thirty are in use with everything a microVM can have.
const FILES_MAX: u64 = 256;

/// Eight vCPUs, four devices, and ourselves, with room.
const THREADS_MAX: u64 = 64;

/// Logs and saved state, when memory and disk are smaller.
const FILE_BYTES_MIN: u64 = 64 << 20;

/// `file_bytes_max` is that of memory and disk.
pub(super) fn set(file_bytes_max: u64) -> Result<(), Refusal> {
    let bounds = [
        // Memory of guests is in no crash dump.
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, FILES_MAX),
        (Resource::RLIMIT_NPROC, THREADS_MAX),
        (Resource::RLIMIT_FSIZE, file_bytes_max.max(FILE_BYTES_MIN)),
        (Resource::RLIMIT_MSGQUEUE, 0),
    ];
    for (resource, bound) in bounds {
        setrlimit(resource, bound, bound).map_err(cannot("limit what it may take"))?;
    }
    // Nobody of the same user looks into it either.
    prctl::set_dumpable(false).map_err(cannot("close its memory to other processes"))
}
