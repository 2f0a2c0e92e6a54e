//! `reboot(2)`, guarded: only where it ends nothing but a test's own namespace.

// There is no safe wrapper for RESTART2 and for telling the calls apart.
#![allow(unsafe_code)]

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::{
    keeper::say,
    protocol::{How, Report, Who},
};
use crate::clock::now_ns;

/// Environment variable: the PID namespace the keeper lives in.
pub(super) const PARENT_PIDNS: &str = "GDT_PARENT_PIDNS";

/// The initial PID namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const INITIAL_PIDNS: &str = "pid:[4026531836]";

/// uid and gid of a process without privileges.
const NOBODY: u32 = 65534;

/// Proof that the calling process sits in a PID namespace made for it.
struct OwnPidNamespace(());

impl OwnPidNamespace {
    fn check(parent_pidns: &str) -> Result<Self> {
        let own = std::fs::read_link("/proc/self/ns/pid").context("read own PID namespace")?;
        ensure!(
            parent_pidns.starts_with("pid:["),
            "refusing to reboot: the keeper's PID namespace is unknown"
        );
        for foreign in [INITIAL_PIDNS, parent_pidns] {
            ensure!(
                own != Path::new(foreign),
                "refusing to reboot: {} is not a namespace of a test's own",
                own.display()
            );
        }
        Ok(Self(()))
    }
}

/// Carries out an order, in this process or in a child.
pub(super) fn order(how: How, who: Who) -> Result<()> {
    let parent_pidns = std::env::var(PARENT_PIDNS).context("the keeper's PID namespace")?;
    if who == Who::Init {
        ensure!(std::process::id() == 1, "refusing to reboot: not PID 1");
        return call(&OwnPidNamespace::check(&parent_pidns)?, how);
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(["reboot", &serde_json::to_string(&how)?, &parent_pidns]);
    if who == Who::Nobody {
        use std::os::unix::process::CommandExt;
        command.uid(NOBODY).gid(NOBODY);
    }
    let status = command.status().context("start the child that reboots")?;
    ensure!(
        status.success(),
        "the child that reboots ended with {status}"
    );
    Ok(())
}

/// The child's `main`.
pub(super) fn run(how: &str, parent_pidns: &str) -> Result<()> {
    let how = serde_json::from_str(how).context("read how to reboot")?;
    call(&OwnPidNamespace::check(parent_pidns)?, how)
}

/// Reports, calls, and reports again if it is still there.
fn call(_proof: &OwnPidNamespace, how: How) -> Result<()> {
    let command = match how {
        How::Restart => libc::LINUX_REBOOT_CMD_RESTART,
        How::Restart2 => libc::LINUX_REBOOT_CMD_RESTART2,
        How::Halt => libc::LINUX_REBOOT_CMD_HALT,
        How::PowerOff => libc::LINUX_REBOOT_CMD_POWER_OFF,
        How::CadOff => libc::LINUX_REBOOT_CMD_CAD_OFF,
        How::CadOn => libc::LINUX_REBOOT_CMD_CAD_ON,
    };
    say(&Report::Rebooting { at_ns: now_ns() });
    // SAFETY: the last argument is read by RESTART2 only, and is a C string
    // that lives for ever. In a PID namespace that is not the initial one (the
    // proof) the kernel ends that namespace and nothing else (pid_namespace.c,
    // `reboot_pid_ns`). libc's own wrapper has no fourth argument.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_reboot,
            libc::LINUX_REBOOT_MAGIC1,
            libc::LINUX_REBOOT_MAGIC2,
            command,
            c"gdt".as_ptr(),
        )
    };
    let errno = (answer != 0)
        .then(|| std::io::Error::last_os_error().raw_os_error())
        .flatten();
    say(&Report::Survived { errno });
    if answer == 0 && !matches!(how, How::CadOff | How::CadOn) {
        bail!("reboot(2) with {how:?} came back with success");
    }
    Ok(())
}
