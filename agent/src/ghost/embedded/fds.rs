//! Descriptors and processes, where no safe call is to be had.
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

/// A descriptor that came in a message.
pub(super) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made it for this message, and nobody else has it. nix
    // gives a bare number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Names a process for good: its number may be given to another one later.
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers and no memory; it has no wrapper in nix.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(fd) {
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(super) fn kill(process: BorrowedFd<'_>) -> io::Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: without `siginfo` it takes numbers only; it has no wrapper in nix.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            libc::SIGKILL,
            no_info,
            0,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the child, before it becomes the program: leave our session, so that
/// nothing that ends ours ends it; write its number to `pid`, so that there is
/// never a process that no file names; join the cgroup by `cgroup`; and take
/// `kept` along, by their numbers here.
pub(super) fn detach(
    command: &mut Command,
    pid: OwnedFd,
    cgroup: Option<OwnedFd>,
    kept: Vec<OwnedFd>,
) {
    let work = move || {
        for fd in &kept {
            // SAFETY: takes numbers; no memory is touched.
            if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: takes and gives a number; no memory is touched.
        if unsafe { libc::setsid() } < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut digits = [0; 11];
        write(&pid, decimal(std::process::id(), &mut digits))?;
        match &cgroup {
            // Zero is whoever writes it.
            Some(cgroup) => write(cgroup, b"0"),
            None => Ok(()),
        }
    };
    // SAFETY: the closure makes only system calls that are safe between fork
    // and exec, and takes no memory.
    unsafe { command.pre_exec(work) };
}

fn write(fd: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the slice is valid for its length.
    let written = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Without allocating: other threads' locks are not ours after a fork.
fn decimal(mut number: u32, digits: &mut [u8; 11]) -> &[u8] {
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        start = start.saturating_sub(1);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_written_as_a_person_would() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            let mut digits = [0; 11];
            assert_eq!(
                super::decimal(number, &mut digits),
                number.to_string().as_bytes()
            );
        }
    }
}
