//! The last words of a process whose thread made a forbidden system call.
#![allow(unsafe_code)]

use std::{fmt::Write as _, mem::offset_of};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use syscalls::Sysno;

use super::filter;

/// What the kernel tells of a trapped call; the head of its `siginfo`.
#[repr(C)]
struct Trapped {
    signal: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    address: *const libc::c_void,
    call: libc::c_int,
    architecture: u32,
}

const _: () = assert!(offset_of!(Trapped, call) == 24);
const _: () = assert!(size_of::<Trapped>() <= size_of::<libc::siginfo_t>());

/// A line in memory that is there already: a handler may not allocate.
struct Line {
    bytes: [u8; 160],
    length: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        for (to, byte) in room.iter_mut().zip(text.bytes()) {
            *to = byte;
            self.length += 1;
        }
        Ok(())
    }
}

pub(super) fn install() -> nix::Result<()> {
    let handler = SigHandler::SigAction(tell);
    let action = SigAction::new(handler, SaFlags::SA_ONSTACK, SigSet::empty());
    // SAFETY: the handler does what a handler may: it reads what it is given,
    // fills memory of its own and makes system calls.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop)
}

extern "C" fn tell(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a whole `siginfo`, which is larger and aligned.
    let trapped = unsafe { &*info.cast::<Trapped>() };
    let mut line = Line {
        bytes: [0; 160],
        length: 0,
    };
    let number = trapped.call;
    let known = usize::try_from(number).ok().and_then(Sysno::new);
    let name = known.map_or("(unknown)", |call| call.name());
    let kind = filter::kind().name();
    // A line that is full is cut, which is no error.
    let _ = writeln!(
        line,
        "error: the thread `{kind}` made the system call {name} ({number}), which the jail forbids"
    );
    // SAFETY: the bytes are ours, and no more than there are. The call ends
    // the process as the first would have: this signal is blocked here, so
    // the kernel does not come back. Where nothing forbids it, `abort` does.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.length);
        libc::syscall(libc::SYS_getppid);
        libc::abort();
    }
}
