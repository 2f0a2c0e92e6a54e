//! Event descriptors: counters that wake whoever waits for them.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd as _, FromRawFd as _, IntoRawFd as _},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Nobody ever waits in a read or a write of it.
pub(super) fn new() -> io::Result<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Ok(EventFd::from_flags(flags)?)
}

/// The same one, for another owner.
pub(super) fn twin(event: &EventFd) -> io::Result<EventFd> {
    let own = event.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is an event's.
    Ok(unsafe { EventFd::from_owned_fd(own) })
}

/// The same one, as KVM's calls take it. The kernel keeps what it was given.
pub(super) fn for_kvm(event: &EventFd) -> io::Result<vmm_sys_util::eventfd::EventFd> {
    let own = event.as_fd().try_clone_to_owned()?.into_raw_fd();
    // SAFETY: the descriptor is an event's, and nobody else has it.
    Ok(unsafe { vmm_sys_util::eventfd::EventFd::from_raw_fd(own) })
}
