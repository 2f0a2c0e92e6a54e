//! A vCPU that can be got out of the guest, now or before it next enters.
//!
//! A signal to its thread makes KVM_RUN return; its handler also sets
//! `immediate_exit`, so that a signal that comes just before KVM_RUN is not
//! lost. Only the vCPU's own thread clears that flag.
#![allow(unsafe_code)]

use std::{
    cell::Cell, marker::PhantomData, os::unix::thread::JoinHandleExt as _, ptr, thread::JoinHandle,
};

use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::end::{DETAILS_MAX, End};

/// Nothing else here uses it, and its default would end us, so a mistake shows.
const SIGNAL: Signal = Signal::SIGUSR1;

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs.
    static FLAG: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn leave_guest(_signal: libc::c_int) {
    // A thread that is ending has no vCPU any more.
    let _ = FLAG.try_with(|flag| {
        let flag = flag.get();
        if !flag.is_null() {
            // SAFETY: it points into the mapping of a live vCPU, because
            // `Kickable` takes it away before that goes. There is no safe
            // way: a handler has no arguments of ours.
            unsafe { ptr::write_volatile(flag, 1) };
        }
    });
}

/// Once per process, before the first vCPU thread.
pub(super) fn install() -> nix::Result<()> {
    // Without SA_RESTART, so that KVM_RUN returns.
    let action = SigAction::new(
        SigHandler::Handler(leave_guest),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does what a handler may: it reads a thread-local
    // cell that has no destructor, and stores one byte.
    unsafe { sigaction(SIGNAL, &action) }.map(drop)
}

/// A vCPU on the thread that runs it.
pub(super) struct Kickable {
    vcpu: VcpuFd,
    /// The flag belongs to this thread.
    _here: PhantomData<*mut u8>,
}

impl Kickable {
    pub(super) fn new(mut vcpu: VcpuFd) -> Self {
        FLAG.set(&raw mut vcpu.get_kvm_run().immediate_exit);
        Self {
            vcpu,
            _here: PhantomData,
        }
    }

    /// Into the guest. A kick is the error `EINTR`.
    pub(super) fn run(&mut self) -> Result<VcpuExit<'_>, kvm_ioctls::Error> {
        self.vcpu.run()
    }

    /// For its state, between two entries.
    pub(super) fn vcpu(&self) -> &VcpuFd {
        &self.vcpu
    }

    /// After a kick, before looking for what it was about.
    pub(super) fn take_kick(&mut self) {
        self.vcpu.set_kvm_immediate_exit(0);
    }

    /// Before it goes on after a pause, so that a guest with KVM's clock does
    /// not take the pause for a lock-up.
    pub(super) fn tell_of_pause(&self) {
        // A guest that does not use that clock is the only way to fail.
        let _ = self.vcpu.kvmclock_ctrl();
    }

    /// After an exit for an internal error: what KVM says about it.
    pub(super) fn internal_error(&mut self) -> End {
        // SAFETY: the exit reason says that this member of the union is
        // filled in, and any bytes are valid integers.
        let internal = unsafe { self.vcpu.get_kvm_run().__bindgen_anon_1.internal };
        let count = usize::try_from(internal.ndata).unwrap_or(DETAILS_MAX);
        let details = internal.data.iter().take(count).copied().collect();
        End::InternalError {
            suberror: internal.suberror,
            details,
        }
    }
}

impl Drop for Kickable {
    /// Runs before the vCPU's mapping goes.
    fn drop(&mut self) {
        FLAG.set(ptr::null_mut());
    }
}

/// Makes the vCPU of a thread leave the guest.
pub(super) fn kick<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle keeps the thread's identity until it is joined. A
    // thread that has ended already gets nothing, which is all the same.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGNAL as libc::c_int) };
}
