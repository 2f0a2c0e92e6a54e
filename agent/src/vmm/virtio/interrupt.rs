//! How a device tells its driver that there is news.

use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::eventfd::EventFd;

pub(super) const USED: u32 = 1;
pub(super) const CONFIG: u32 = 2;

/// The interrupt status, and the line to the guest's interrupt controller, if
/// it has one. Neither needs the device, so a driver never waits for it here.
#[derive(Debug)]
pub(super) struct Interrupt {
    status: AtomicU32,
    line: Option<EventFd>,
}

impl Interrupt {
    pub(super) fn new(line: Option<EventFd>) -> Self {
        Self {
            status: AtomicU32::new(0),
            line,
        }
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    pub(super) fn raise(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::SeqCst);
        self.signal();
    }

    pub(super) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Nothing was ever raised. The line stays as it is.
    pub(super) fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
    }

    /// What was raised elsewhere, before the guest came here.
    pub(super) fn restore(&self, status: u32) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Again, because nobody knows whether the controller has heard of it.
    pub(super) fn repeat(&self) {
        if self.status() != 0 {
            self.signal();
        }
    }

    fn signal(&self) {
        if let Some(line) = &self.line {
            // Fails only if it was told 2^64 times and nobody listened.
            let _ = line.write(1);
        }
    }
}
