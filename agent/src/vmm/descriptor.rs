//! Descriptors that whoever started us has left open.
//!
//! Those that we were told of are taken over, once each; all others are
//! closed before anything else is opened.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

/// After standard input, output and error.
const FIRST: RawFd = 3;

/// What was inherited and is not taken yet.
#[derive(Debug)]
pub(super) struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Closes all but `wanted`. Call it before anything is opened. Fails with
    /// the number that is given twice, or is none of an inherited descriptor.
    pub(super) fn keep(mut wanted: Vec<RawFd>) -> Result<Self, RawFd> {
        wanted.sort_unstable();
        if let Some(twice) = wanted.windows(2).find(|pair| pair.first() == pair.last()) {
            return Err(twice.first().copied().unwrap_or_default());
        }
        if let Some(&standard) = wanted.iter().find(|&&fd| fd < FIRST) {
            return Err(standard);
        }
        let mut next = FIRST;
        for &fd in &wanted {
            close(next, fd - 1);
            next = fd.saturating_add(1);
        }
        close(next, RawFd::MAX);
        Ok(Self(wanted))
    }

    pub(super) fn take(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        let at = self.0.iter().position(|&kept| kept == fd);
        let at = at.ok_or(nix::Error::EBADF)?;
        // SAFETY: the call takes two numbers; if nothing is open there, it fails.
        let result = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        nix::Error::result(result)?;
        self.0.swap_remove(at);
        // SAFETY: it is open, as the call above has shown; it was inherited,
        // so nothing in this process owns it, and it has left the list, so
        // nothing will again.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

fn close(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: nothing is opened yet, so these are nobody's. A kernel without
    // the call leaves them open, which costs only their number.
    unsafe { libc::close_range(first.cast_unsigned(), last.cast_unsigned(), 0) };
}
