//! Which thread may make which system call. A new one is one line here.
//!
//! Nothing in here opens, names or looks up a file, makes a socket or a
//! process, signals another process, or makes memory executable.

use syscalls::Sysno;

use super::{codes, filter::Kind};

/// A system call, and when it is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: Sysno,
    pub(super) when: When,
}

/// Arguments count from 0.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Always,
    /// The argument is one of these.
    OneOf(u8, &'static [u64]),
    /// The argument has none of these bits.
    Without(u8, u64),
    /// The argument has all of these bits.
    With(u8, u64),
    /// The argument is this process.
    Ourselves(u8),
}

const fn always(number: Sysno) -> Call {
    Call {
        number,
        when: When::Always,
    }
}

const fn only(number: Sysno, when: When) -> Call {
    Call { number, when }
}

const EXECUTABLE: u64 = libc::PROT_EXEC as u64;

/// Memory, locks, clocks, messages to those who wait, and the end.
const EVERY: &[Call] = &[
    only(Sysno::mmap, When::Without(2, EXECUTABLE)),
    only(Sysno::mprotect, When::Without(2, EXECUTABLE)),
    always(Sysno::munmap),
    always(Sysno::mremap),
    always(Sysno::madvise),
    always(Sysno::brk),
    always(Sysno::futex),
    always(Sysno::sched_yield),
    // The allocator asks for the number of processors.
    always(Sysno::sched_getaffinity),
    always(Sysno::getrandom),
    always(Sysno::clock_gettime),
    always(Sysno::clock_nanosleep),
    always(Sysno::restart_syscall),
    always(Sysno::poll),
    always(Sysno::ppoll),
    always(Sysno::read),
    always(Sysno::write),
    always(Sysno::writev),
    always(Sysno::close),
    // Lets a disk go.
    always(Sysno::flock),
    // Debug builds look whether what they close is open.
    only(Sysno::fcntl, When::OneOf(1, &[libc::F_GETFD as u64])),
    always(Sysno::rt_sigprocmask),
    always(Sysno::rt_sigreturn),
    always(Sysno::sigaltstack),
    always(Sysno::getpid),
    always(Sysno::gettid),
    // To a vCPU, and abort(3).
    only(Sysno::tgkill, When::Ourselves(0)),
    always(Sysno::exit),
    always(Sysno::exit_group),
];

/// The guest, and the serial log.
const VCPU: &[Call] = &[
    only(Sysno::ioctl, When::OneOf(1, codes::VCPU)),
    always(Sysno::pread64),
    always(Sysno::pwrite64),
    always(Sysno::ftruncate),
];

/// Frames.
const NET: &[Call] = &[always(Sysno::poll), always(Sysno::readv)];

/// A disk, already open.
const BLOCK: &[Call] = &[
    always(Sysno::pread64),
    always(Sysno::pwrite64),
    always(Sysno::preadv),
    always(Sysno::pwritev),
    always(Sysno::fdatasync),
    always(Sysno::fallocate),
];

const DESCRIPTORS: When = When::OneOf(
    1,
    &[
        libc::F_GETFD as u64,
        libc::F_SETFD as u64,
        libc::F_GETFL as u64,
        libc::F_SETFL as u64,
        libc::F_DUPFD_CLOEXEC as u64,
        libc::F_ADD_SEALS as u64,
        libc::F_GET_SEALS as u64,
    ],
);

/// Clients; state and dirty pages in memory files; KVM's part of both.
const MAIN: &[Call] = &[
    only(Sysno::ioctl, When::OneOf(1, codes::VM)),
    always(Sysno::accept4),
    always(Sysno::recvfrom),
    always(Sysno::recvmsg),
    always(Sysno::sendto),
    always(Sysno::sendmsg),
    always(Sysno::memfd_create),
    always(Sysno::ftruncate),
    always(Sysno::fallocate),
    only(Sysno::fcntl, DESCRIPTORS),
    always(Sysno::lseek),
    // Of open files: there are no others.
    always(Sysno::fstat),
    always(Sysno::statx),
    always(Sysno::readv),
    always(Sysno::pread64),
    always(Sysno::pwrite64),
    always(Sysno::pwritev),
];

const PRCTL: When = When::OneOf(
    0,
    &[
        libc::PR_SET_NAME as u64,
        libc::PR_SET_NO_NEW_PRIVS as u64,
        libc::PR_SET_VMA as u64,
    ],
);

/// Until the guest runs: KVM's objects, devices, threads and their filters.
const BUILD: &[Call] = &[
    always(Sysno::ioctl),
    always(Sysno::eventfd2),
    // Its flags are in memory, where no filter sees them.
    always(Sysno::clone3),
    only(Sysno::clone, When::With(0, libc::CLONE_THREAD as u64)),
    always(Sysno::set_robust_list),
    always(Sysno::rseq),
    always(Sysno::rt_sigaction),
    only(Sysno::prctl, PRCTL),
    always(Sysno::seccomp),
    always(Sysno::prlimit64),
    // For the one that takes away what was made, if it comes to that.
    always(Sysno::wait4),
];

/// All that threads of this kind may do.
pub(super) fn calls(kind: Kind) -> impl Iterator<Item = Call> {
    let own: &[&[Call]] = match kind {
        // Filters add up, so the first allows what any later one does.
        Kind::Build => &[BUILD, VCPU, NET, BLOCK, MAIN],
        Kind::Main => &[MAIN],
        Kind::Vcpu => &[VCPU],
        Kind::Net => &[NET],
        Kind::Block => &[BLOCK],
    };
    EVERY.iter().chain(own.iter().copied().flatten()).copied()
}
