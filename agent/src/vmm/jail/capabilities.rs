//! No capability, and no way to get one.
#![allow(unsafe_code)]

use std::io;

use caps::{CapSet, errors::CapsError};
use nix::{errno::Errno, sys::prctl};

use super::{Refusal, cannot};

/// Of `linux/securebits.h`: root is nobody special, changes of user keep
/// nothing and give nothing, nothing is ambient; all for good.
const SECURE_BITS: libc::c_ulong = 0b1110_1111;

pub(super) fn drop_all() -> Result<(), Refusal> {
    // First, because it takes a capability itself.
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE_BITS, 0, 0, 0) };
    Errno::result(result).map_err(cannot("make root nobody special"))?;
    let failed = |error: CapsError| {
        let source = io::Error::other(error.to_string());
        cannot("drop all capabilities")(source)
    };
    // Bounding before effective, because it takes a capability.
    for set in [
        CapSet::Ambient,
        CapSet::Bounding,
        CapSet::Inheritable,
        CapSet::Permitted,
    ] {
        caps::clear(None, set).map_err(failed)?;
    }
    prctl::set_no_new_privs().map_err(cannot("give up new privileges"))
}
