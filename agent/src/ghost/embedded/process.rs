//! The process of a `ghost-vmm`: started apart from us, waited for, ended.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    fds::{detach, kill, pidfd_open},
    folder::Folder,
};
use crate::{ghost::error::GhostError, model::CopyId};

/// Milliseconds are the rule; a large image from a slow disk takes longer.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A guest that is told to stop has its threads out in a moment.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// From SIGKILL on the kernel has memory to give back, a GiB in some 100 ms.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// Of what the program says, this much is passed on.
const SAID_BYTES_MAX: usize = 2000;

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    handle: OwnedFd,
    /// `None` if an earlier daemon started it.
    child: Option<Child>,
}

impl Process {
    /// Starts the program, and returns when its guest is as it should be. It
    /// has `kept` by their numbers here.
    pub(super) fn start(
        id: &CopyId,
        mut command: Command,
        folder: &Folder,
        cgroup: Option<OwnedFd>,
        kept: Vec<OwnedFd>,
    ) -> Result<Self, GhostError> {
        let program = Path::new(command.get_program()).to_owned();
        let failed = |e| GhostError::Start(program.clone(), e);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(folder.new_said_file()?);
        detach(&mut command, folder.new_pid_file()?, cgroup, kept);
        let mut child = command.spawn().map_err(failed)?;
        // With it go our ends of what the child keeps.
        drop(command);
        let stdout = child.stdout.take();
        let handle = match pidfd_open(child.id()) {
            Ok(handle) => handle,
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(e));
            }
        };
        let mut process = Self {
            pid: child.id(),
            handle,
            child: Some(child),
        };
        let started = stdout.map(|out| wait_for_start(id, out));
        match started {
            Some(Ok(true)) => Ok(process),
            Some(Err(error)) => {
                let _ = process.end(id);
                Err(error)
            }
            Some(Ok(false)) | None => {
                let _ = process.end(id);
                let said = fs::read(folder.said()).unwrap_or_default();
                let said = String::from_utf8_lossy(said.get(..SAID_BYTES_MAX).unwrap_or(&said));
                let said = said.trim().trim_start_matches("error: ").to_owned();
                let id = id.clone();
                Err(GhostError::Refused { copy: id, said })
            }
        }
    }

    /// One that an earlier daemon started.
    pub(super) fn adopt(pid: u32) -> io::Result<Self> {
        Ok(Self {
            pid,
            handle: pidfd_open(pid)?,
            child: None,
        })
    }

    /// Waits for an end that was asked for, then brings it about.
    pub(super) fn stop(&mut self, id: &CopyId) -> Result<(), GhostError> {
        if self.wait(STOP_LIMIT)? {
            self.reap();
            return Ok(());
        }
        self.end(id)
    }

    /// At once.
    pub(super) fn end(&mut self, id: &CopyId) -> Result<(), GhostError> {
        let failed = |source| GhostError::End {
            copy: id.clone(),
            pid: self.pid,
            source,
        };
        match kill(self.handle.as_fd()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => return Err(failed(e)),
        }
        if !self.wait(KILL_LIMIT)? {
            return Err(failed(io::ErrorKind::TimedOut.into()));
        }
        self.reap();
        Ok(())
    }

    fn reap(&mut self) {
        if let Some(child) = &mut self.child {
            // It has ended; nothing waits here.
            let _ = child.wait();
        }
    }

    /// Whether it has ended within the limit.
    fn wait(&self, limit: Duration) -> Result<bool, GhostError> {
        readable(&self.handle, Instant::now() + limit).map_err(GhostError::Wait)
    }
}

fn readable(fd: &impl std::os::fd::AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Its first words say that the guest is made. `false`: it ended without any.
fn wait_for_start(id: &CopyId, stdout: ChildStdout) -> Result<bool, GhostError> {
    let is_there = readable(&stdout, Instant::now() + START_LIMIT).map_err(GhostError::Wait)?;
    if !is_there {
        return Err(GhostError::Silent {
            copy: id.clone(),
            seconds: START_LIMIT.as_secs(),
        });
    }
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    Ok(read.map_err(GhostError::Wait)? > 0)
}

/// Whether this process is a VMM of ours: its command line names our socket.
/// A number that was given to another process meanwhile does not.
pub(super) fn is_ours(pid: u32, control: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let control = std::os::unix::ffi::OsStrExt::as_bytes(control.as_os_str());
    line.split(|byte| *byte == 0).any(|word| word == control)
}
