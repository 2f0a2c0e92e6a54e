//! A drill: a second `ghost-vmm` on a private copy of a ghost's memory.
//!
//! Owns: that VMM and all that is made for it, in a folder within the ghost's,
//! a cgroup and a disk beside the ghost's. They are taken away again whatever
//! becomes of the drill; what cannot be is tried again by the next one, by
//! the next daemon, and when the ghost goes.
//!
//! Refuses: to give the ghost any command that would change it.

use std::{
    fs::File,
    io::Read as _,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
    process::Command as Program,
    time::Instant,
};

use super::{
    Copy, Embedded, adopt, arguments, cgroup, client::Client, folder::Record, moving,
    process::Process, stage,
};
use crate::{
    ghost::{
        backend::{CopyPlan, GhostBackend as _},
        drill::{self, Asker, Cord, Finding, Watch},
        error::GhostError,
        link,
    },
    model::beside,
    orchestrate::vms::Verdict,
};

pub(super) fn drill(
    backend: &Embedded,
    plan: &CopyPlan,
    ghost: &mut Copy,
    primary: Option<&mut Copy>,
) -> Result<Verdict, GhostError> {
    let question = plan.vm.health.as_ref().ok_or(GhostError::NoQuestion)?;
    let has_network = plan.vm.mac.is_some() && plan.interface.is_some();
    if !has_network {
        return Err(GhostError::NoNetwork);
    }
    let addresses = &plan.vm.host_addresses;
    drill::source(question, addresses).ok_or(GhostError::NoSource {
        addr: question.addr,
    })?;
    let asker = Asker {
        mac: link::host_mac(&ghost.id.instance),
        addresses,
        seed: seed().map_err(|e| GhostError::Read("/dev/urandom".into(), e))?,
    };
    clear(backend, ghost)?;
    let (cord, its_end) = Cord::new().map_err(GhostError::Cord)?;
    let mut drilled = Drilled::make(backend, ghost)?;
    drilled.start(plan, ghost, its_end)?;
    drilled.copy.load(&ghost.save()?)?;
    // Whatever it says is no time of the guest's own.
    let since = Instant::now();
    moving::enter(&mut drilled.copy)?;
    let mut watch = Both {
        drilled: &mut drilled.copy,
        primary,
    };
    let finding = drill::ask(question, asker, cord, since, &mut watch)?;
    drilled.end()?;
    Ok(match finding {
        Finding::Answered(after) => Verdict {
            is_healthy: true,
            what: format!("answered within {} ms", after.as_millis().max(1)),
            answered: Some(after),
        },
        Finding::Not(what) => Verdict {
            is_healthy: false,
            what,
            answered: None,
        },
    })
}

/// Takes away what an earlier drill left, if any did.
pub(super) fn clear(backend: &Embedded, ghost: &Copy) -> Result<(), GhostError> {
    let folder = ghost.folder.drill();
    if !folder.is_there() {
        return Ok(());
    }
    backend.destroy(&mut adopt::found(backend, &ghost.id, folder))
}

fn seed() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Goes with all that was made for it.
struct Drilled<'b> {
    backend: &'b Embedded,
    copy: Copy,
    is_gone: bool,
}

impl<'b> Drilled<'b> {
    fn make(backend: &'b Embedded, ghost: &Copy) -> Result<Self, GhostError> {
        let folder = ghost.folder.drill();
        folder.create()?;
        let drilled = Self {
            backend,
            copy: Copy {
                id: ghost.id.clone(),
                record: Record {
                    // Of its own, so that what it takes is not the ghost's.
                    cgroup: ghost
                        .record
                        .cgroup
                        .as_deref()
                        .map(|path| beside(path, ".drill")),
                    owns_cgroup: ghost.record.cgroup.is_some(),
                    disk: ghost
                        .record
                        .disk
                        .as_deref()
                        .map(|path| beside(path, ".drill")),
                    ..ghost.record.clone()
                },
                folder,
                client: None,
                process: None,
                memory: None,
            },
            is_gone: false,
        };
        drilled.copy.folder.write_record(&drilled.copy.record)?;
        if let Some(path) = &drilled.copy.record.cgroup {
            cgroup::make(path)?;
        }
        if let Some((from, to)) = ghost
            .record
            .disk
            .as_ref()
            .zip(drilled.copy.record.disk.as_ref())
        {
            copy_disk(from, to)?;
        }
        Ok(drilled)
    }

    fn start(
        &mut self,
        plan: &CopyPlan,
        ghost: &mut Copy,
        cord: OwnedFd,
    ) -> Result<(), GhostError> {
        let (memory, _) = ghost.memory_file()?;
        let plan = CopyPlan {
            interface: None,
            ..plan.clone()
        };
        let mut program = Program::new(&self.backend.vmm);
        arguments(&mut program, &plan, &self.copy);
        program
            .args(["--memory-copy", &format!("fd:{}", memory.as_raw_fd())])
            .args(["--tap", &format!("fd:{}", cord.as_raw_fd())]);
        if let Some(mac) = plan.vm.mac {
            program.args(["--mac", &mac.to_string()]);
        }
        let copy = &mut self.copy;
        let door = copy.record.cgroup.as_deref().map(cgroup::door);
        let kept = vec![memory.into(), cord];
        let process = Process::start(&copy.id, program, &copy.folder, door.transpose()?, kept)?;
        copy.process = Some(process);
        let mut client = Client::connect(&copy.id, &copy.folder.control())?;
        client.catch_up()?;
        copy.client = Some(client);
        Ok(())
    }

    fn end(mut self) -> Result<(), GhostError> {
        self.is_gone = true;
        self.backend.destroy(&mut self.copy)
    }
}

impl Drop for Drilled<'_> {
    fn drop(&mut self) {
        if self.is_gone {
            return;
        }
        if let Err(error) = self.backend.destroy(&mut self.copy) {
            tracing::warn!(copy = %self.copy.id, error = %error.chain(), "something of a drill is left");
        }
    }
}

fn copy_disk(from: &Path, to: &Path) -> Result<(), GhostError> {
    let source = File::open(from).map_err(|e| GhostError::Read(from.to_owned(), e))?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let failed = |e| GhostError::Write(to.to_owned(), e);
    let target = options.mode(0o600).open(to).map_err(failed)?;
    stage::copy_disk(&source, &target).map(drop).map_err(failed)
}

/// The copy that is drilled may end, and so may the primary, whose ghost is
/// needed then.
struct Both<'c> {
    drilled: &'c mut Copy,
    primary: Option<&'c mut Copy>,
}

impl Watch for Both<'_> {
    fn wakes(&self) -> Vec<BorrowedFd<'_>> {
        let copies = [Some(&*self.drilled), self.primary.as_deref()];
        let clients = copies.into_iter().flatten().flat_map(|copy| &copy.client);
        clients.map(Client::wake).collect()
    }

    fn look(&mut self) -> Result<Option<String>, GhostError> {
        let primary = self.primary.as_mut().and_then(|copy| copy.client.as_mut());
        if primary.is_some_and(Client::has_news) {
            return Err(GhostError::Interrupted);
        }
        let end = self.drilled.client()?.news();
        Ok(end.map(|end| end.to_string()))
    }
}
