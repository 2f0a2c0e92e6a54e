//! A process that takes away what was made, if no microVM comes of it.
//!
//! A jailed process cannot remove files any more. So before it goes in, it
//! leaves a child outside, for as long as the guest does not run. It also
//! acts if the process is killed.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    fcntl::OFlag,
    sys::{
        signal::{SigHandler, Signal, signal},
        wait::wait,
    },
    unistd::{ForkResult, fork, pipe2, write},
};

use crate::vmm::made::Made;

/// Holds a pipe that the child listens to.
#[derive(Debug)]
pub(in crate::vmm) struct Janitor(Option<OwnedFd>);

impl Janitor {
    /// There must be one thread only. What was made is the child's to remove.
    pub(in crate::vmm) fn start(made: Made) -> io::Result<Self> {
        if made.is_empty() {
            return Ok(Self(None));
        }
        let (listen, told) = pipe2(OFlag::O_CLOEXEC)?;
        // Nobody has to collect it.
        // SAFETY: there is no handler, so nothing that it could do wrong.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
        // SAFETY: there is one thread, so the child has all of the program.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => {
                made.forget();
                Ok(Self(Some(told)))
            }
            ForkResult::Child => {
                drop(told);
                watch(listen, made)
            }
        }
    }

    /// The guest runs; what was made is its owner's.
    pub(in crate::vmm) fn dismiss(mut self) {
        if let Some(pipe) = self.0.take() {
            // It is there: it ends only when told, or when the pipe closes.
            let _ = write(&pipe, b".");
        }
    }
}

impl Drop for Janitor {
    /// Nothing came of it. Waits until all is gone.
    fn drop(&mut self) {
        if let Some(pipe) = self.0.take() {
            drop(pipe);
            // An ignored child is waited for all the same, and then is none.
            let _ = wait();
        }
    }
}

/// In the child: nothing else is kept open, so no device lives longer for it.
fn watch(listen: OwnedFd, made: Made) -> ! {
    let own = listen.as_raw_fd().cast_unsigned();
    // SAFETY: the child uses no other descriptor, and never returns to code
    // that would. Standard error stays, for what cannot be removed.
    unsafe {
        libc::close_range(0, 1, 0);
        libc::close_range(3, own - 1, 0);
        libc::close_range(own + 1, u32::MAX, 0);
    }
    let mut word = [0];
    match File::from(listen).read_exact(&mut word) {
        Ok(()) => made.forget(),
        Err(_) => drop(made),
    }
    // SAFETY: without the parent's farewells.
    unsafe { libc::_exit(0) }
}
