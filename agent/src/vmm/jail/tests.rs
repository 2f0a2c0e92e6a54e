//! Filters bite: each kind, on a child that then does what it may not.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    sys::{
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork, pipe},
};
use seccompiler::{BpfProgram, apply_filter};
use syscalls::Sysno;

use super::{
    filter::{KIND, Kind, LATER, compile},
    table, trap,
};

/// What one who has taken over the process would try first, and what only
/// another kind of thread may do.
fn forbidden(kind: Kind) -> Vec<(Sysno, [u64; 3])> {
    let executable: u64 = (libc::PROT_READ | libc::PROT_EXEC).cast_unsigned().into();
    let mut calls = vec![
        (Sysno::openat, [0; 3]),
        (Sysno::open, [0; 3]),
        (Sysno::socket, [1, 1, 0]),
        (Sysno::connect, [0; 3]),
        (Sysno::execve, [0; 3]),
        (Sysno::execveat, [0; 3]),
        (Sysno::fork, [0; 3]),
        (Sysno::clone3, [0; 3]),
        (Sysno::kill, [0; 3]),
        (Sysno::tgkill, [1, 1, 0]),
        (Sysno::ptrace, [0; 3]),
        (Sysno::process_vm_writev, [0; 3]),
        (Sysno::pidfd_open, [1, 0, 0]),
        (Sysno::unshare, [0; 3]),
        (Sysno::mount, [0; 3]),
        (Sysno::setuid, [0; 3]),
        (Sysno::bpf, [0; 3]),
        (Sysno::io_uring_setup, [0; 3]),
        (Sysno::userfaultfd, [0; 3]),
        (Sysno::mprotect, [0, 0, executable]),
        (Sysno::mmap, [0, 0, executable]),
        // Puts bytes into a terminal's input.
        (Sysno::ioctl, [0, libc::TIOCSTI, 0]),
    ];
    if kind != Kind::Main {
        calls.push((Sysno::sendmsg, [u64::MAX, 0, 0]));
        calls.push((Sysno::memfd_create, [0; 3]));
    }
    if kind != Kind::Vcpu {
        // KVM_RUN
        calls.push((Sysno::ioctl, [0, 0xae80, 0]));
    }
    if kind != Kind::Block {
        calls.push((Sysno::fdatasync, [0; 3]));
    }
    calls
}

/// In a child with the filter of `kind`: how it ended, and what it said.
fn child(
    kind: Kind,
    filter: &BpfProgram,
    call: Sysno,
    arguments: [u64; 3],
) -> (WaitStatus, String) {
    let (read, write): (OwnedFd, OwnedFd) = pipe().unwrap();
    // SAFETY: the child allocates nothing: it makes system calls only.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let [a, b, c] = arguments;
            // SAFETY: the calls take numbers; those in `arguments` are
            // refused by the filter, or end in the kernel's own checks.
            unsafe {
                libc::dup2(write.as_raw_fd(), libc::STDERR_FILENO);
                KIND.set(kind);
                let is_ready = trap::install().is_ok() && apply_filter(filter).is_ok();
                if is_ready {
                    libc::syscall(libc::c_long::from(call.id()), a, b, c);
                }
                libc::_exit(if is_ready { 7 } else { 8 })
            }
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut said = String::new();
            File::from(read).read_to_string(&mut said).unwrap();
            (waitpid(child, None).unwrap(), said)
        }
    }
}

#[test]
fn each_kind_of_thread_dies_of_what_it_may_not_do() {
    for kind in LATER {
        let filter = compile(kind).unwrap();
        for (call, arguments) in forbidden(kind) {
            let (status, said) = child(kind, &filter, call, arguments);
            assert!(
                matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)),
                "{kind:?} {call}: {status:?} {said}"
            );
            let words = format!("thread `{}` made the system call {call} (", kind.name());
            assert!(said.contains(&words), "{kind:?} {call}: {said}");
        }
    }
}

#[test]
fn each_kind_of_thread_may_do_its_work() {
    for kind in LATER {
        let filter = compile(kind).unwrap();
        let request = match kind {
            Kind::Vcpu => 0xae80,
            _ => 0xae03,
        };
        let mut calls = vec![(Sysno::getpid, [0; 3]), (Sysno::write, [u64::MAX, 0, 0])];
        if matches!(kind, Kind::Main | Kind::Vcpu) {
            // On no descriptor, so only the filter could object.
            calls.push((Sysno::ioctl, [u64::MAX, request, 0]));
        }
        for (call, arguments) in calls {
            let (status, said) = child(kind, &filter, call, arguments);
            assert!(
                matches!(status, WaitStatus::Exited(_, 7)),
                "{kind:?} {call}: {status:?} {said}"
            );
        }
    }
}

#[test]
fn what_builds_a_microvm_allows_all_that_comes_later() {
    let all: Vec<_> = table::calls(Kind::Build).map(|call| call.number).collect();
    for kind in LATER {
        for call in table::calls(kind) {
            assert!(all.contains(&call.number), "{kind:?} {}", call.number);
        }
    }
}
