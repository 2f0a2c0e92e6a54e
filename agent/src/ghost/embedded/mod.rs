//! Copies that are `ghost-vmm` processes on this host.
//!
//! Owns: how one is started and found again, its folder and its cgroup.
//! Refuses: to know what a copy is for, and which one should run.
//! How it fails: what could not be made is taken away again; what could not
//! be taken away is tried again by the next `destroy`.

mod adopt;
mod cgroup;
mod client;
mod drill;
mod fds;
mod folder;
mod moving;
mod process;
mod stage;

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    process::Command as Program,
    time::Duration,
};

use agent_common::abi::Side;

use self::{
    client::Client,
    folder::{Folder, Record},
    moving::Stage,
    process::Process,
    stage::Mapping,
};
use super::{
    backend::{Adopted, Begin, CopyPlan, GhostBackend, Taken},
    error::GhostError,
    life::{Extent, Mark},
};
use crate::{
    model::{CopyId, GuestEnd, beside},
    orchestrate::vms::Verdict,
    vmm::message::{Answer, Command},
};

#[derive(Debug)]
pub(crate) struct Embedded {
    /// The program.
    vmm: PathBuf,
    /// Where copies have their folders.
    run: PathBuf,
    boot_id: String,
}

/// A microVM, or what is left of one.
#[derive(Debug)]
pub(crate) struct Copy {
    id: CopyId,
    folder: Folder,
    record: Record,
    client: Option<Client>,
    process: Option<Process>,
    memory: Option<Mapping>,
}

impl Embedded {
    pub(crate) fn new(vmm: PathBuf, run: PathBuf) -> Result<Self, GhostError> {
        let boot_id = folder::boot_id()?;
        Ok(Self { vmm, run, boot_id })
    }

    fn start(&self, plan: &CopyPlan, copy: &mut Copy) -> Result<(), GhostError> {
        let door = copy.record.cgroup.as_deref().map(cgroup::door);
        let mut program = Program::new(&self.vmm);
        arguments(&mut program, plan, copy);
        let process = Process::start(
            &plan.id,
            program,
            &copy.folder,
            door.transpose()?,
            Vec::new(),
        )?;
        copy.process = Some(process);
        let mut client = Client::connect(&plan.id, &copy.folder.control())?;
        client.catch_up()?;
        copy.client = Some(client);
        Ok(())
    }
}

fn arguments(program: &mut Program, plan: &CopyPlan, copy: &Copy) {
    let vm = &plan.vm;
    program
        .arg("--image")
        .arg(&vm.image)
        .args(["--memory-mib", &vm.memory_mib.to_string()])
        .args(["--vcpus", &vm.vcpus.to_string()])
        .args(["--command-line", &vm.command_line])
        .arg("--serial")
        .arg(copy.folder.serial())
        .arg("--control")
        .arg(copy.folder.control());
    if let Some(initrd) = &vm.initrd {
        program.arg("--initrd").arg(initrd);
    }
    if plan.begin != Begin::Running {
        program.arg("--suspended");
    }
    if let Some((interface, mac)) = plan.interface.as_ref().zip(vm.mac) {
        program.args(["--new-tap", interface, "--mac", &mac.to_string()]);
    }
    if let Some(disk) = &copy.record.disk {
        program.arg("--disk").arg(disk);
    }
}

/// The primary has the disk itself, the ghost a copy beside it.
fn disk_of(plan: &CopyPlan) -> Option<PathBuf> {
    let disk = plan.vm.disk.as_ref()?;
    Some(match plan.id.side {
        Side::Primary => disk.clone(),
        Side::Ghost => beside(disk, ".ghost"),
    })
}

impl Copy {
    fn client(&mut self) -> Result<&mut Client, GhostError> {
        let missing = || GhostError::Connect {
            copy: self.id.clone(),
            source: std::io::ErrorKind::NotConnected.into(),
        };
        let missing = missing();
        self.client.as_mut().ok_or(missing)
    }

    fn ask(&mut self, what: &'static str, command: &Command) -> Result<Answer, GhostError> {
        self.client()?
            .ask(what, command, None)
            .map(|(answer, _)| answer)
    }

    fn confused(&self, what: &'static str) -> GhostError {
        let why = "it gave an answer of the wrong kind".to_owned();
        GhostError::Answer {
            what,
            copy: self.id.clone(),
            why,
        }
    }
}

impl GhostBackend for Embedded {
    type Copy = Copy;
    type Stage = Stage;

    fn create(&self, plan: &CopyPlan) -> Result<Copy, GhostError> {
        let folder = Folder::of(&self.run, &plan.id);
        folder.create()?;
        let mut copy = Copy {
            id: plan.id.clone(),
            record: Record {
                boot_id: self.boot_id.clone(),
                memory_bytes: plan.vm.memory_mib << 20,
                cgroup: plan.cgroup.clone(),
                owns_cgroup: false,
                disk: disk_of(plan),
                epoch: 0,
                is_torn: plan.begin == Begin::Blank,
                works: plan.begin == Begin::Running,
            },
            folder,
            client: None,
            process: None,
            memory: None,
        };
        let made = self.make(plan, &mut copy);
        if let Err(error) = made {
            if let Err(also) = self.destroy(&mut copy) {
                tracing::warn!(error = %also.chain(), "something of a copy is left");
            }
            return Err(error);
        }
        Ok(copy)
    }

    fn adopt(&self) -> Vec<Adopted<Copy>> {
        let all = folder::all(&self.run);
        all.into_iter().map(|id| adopt::adopt(self, id)).collect()
    }

    fn note(&self, copy: &mut Copy, mark: Mark) -> Result<(), GhostError> {
        let Mark {
            epoch,
            is_torn,
            works,
        } = mark;
        let record = Record {
            epoch,
            is_torn,
            works,
            ..copy.record.clone()
        };
        if record != copy.record {
            copy.folder.write_record(&record)?;
            copy.record = record;
        }
        Ok(())
    }

    fn mark(&self, copy: &Copy) -> Mark {
        copy.record.mark()
    }

    fn console(&self, id: &CopyId) -> PathBuf {
        Folder::of(&self.run, id).serial()
    }

    fn pid(&self, copy: &Copy) -> Option<u32> {
        copy.process.as_ref().map(|process| process.pid)
    }

    fn cgroup<'c>(&self, copy: &'c Copy) -> Option<&'c Path> {
        copy.record.cgroup.as_deref()
    }

    fn wake<'c>(&self, copy: &'c Copy) -> Option<BorrowedFd<'c>> {
        copy.client.as_ref().map(Client::wake)
    }

    fn news(&self, copy: &mut Copy) -> Option<GuestEnd> {
        match &mut copy.client {
            Some(client) => {
                let news = client.news();
                if news == Some(GuestEnd::Vanished) {
                    // Said once.
                    copy.client = None;
                }
                news
            }
            None => None,
        }
    }

    fn pause(&self, copy: &mut Copy) -> Result<Duration, GhostError> {
        match copy.ask("pause", &Command::Pause {})? {
            Answer::Paused { pause_us } => Ok(Duration::from_micros(pause_us)),
            _ => Err(copy.confused("pause")),
        }
    }

    fn resume(&self, copy: &mut Copy) -> Result<(), GhostError> {
        match copy.ask("resume", &Command::Resume {})? {
            Answer::Resumed => Ok(()),
            _ => Err(copy.confused("resume")),
        }
    }

    fn begin(&self, to: &mut Copy, extent: Extent) -> Result<Stage, GhostError> {
        moving::begin(to, extent)
    }

    fn gather(&self, from: &mut Copy, stage: &mut Stage) -> Result<Taken, GhostError> {
        moving::gather(from, stage)
    }

    fn cut(&self, from: &mut Copy, stage: &mut Stage) -> Result<Taken, GhostError> {
        moving::cut(from, stage)
    }

    fn apply(&self, to: &mut Copy, stage: &Stage) -> Result<(), GhostError> {
        moving::apply(to, stage)
    }

    fn release(&self, from: &mut Copy, stage: &Stage) -> Result<(), GhostError> {
        moving::release(from, stage)
    }

    fn activate(&self, copy: &mut Copy) -> Result<Duration, GhostError> {
        moving::activate(copy)
    }

    fn forward(&self, from: &mut Copy, to: &mut Copy) -> Result<(), GhostError> {
        moving::forward(from, to)
    }

    fn drill(
        &self,
        plan: &CopyPlan,
        copy: &mut Copy,
        primary: Option<&mut Copy>,
    ) -> Result<Verdict, GhostError> {
        drill::drill(self, plan, copy, primary).map_err(|source| GhostError::Drill {
            copy: copy.id.clone(),
            source: Box::new(source),
        })
    }

    fn destroy(&self, copy: &mut Copy) -> Result<(), GhostError> {
        copy.memory = None;
        if let Some(client) = &mut copy.client {
            // One that does not hear is killed.
            let _ = client.ask("stop", &Command::Stop {}, None);
        }
        copy.client = None;
        if let Some(process) = &mut copy.process {
            process.stop(&copy.id)?;
        }
        copy.process = None;
        // Not before the copy itself is sure to have ended.
        drill::clear(self, copy)?;
        if let Some(path) = copy.record.cgroup.as_deref()
            && copy.record.owns_cgroup
        {
            cgroup::remove(path)?;
        }
        if let (Some(disk), Side::Ghost) = (&copy.record.disk, copy.id.side) {
            remove_file(disk)?;
        }
        copy.folder.remove()
    }
}

impl Embedded {
    fn make(&self, plan: &CopyPlan, copy: &mut Copy) -> Result<(), GhostError> {
        // From the record alone everything can be found and taken away, so it
        // is there before what it tells of.
        copy.record.owns_cgroup = plan.cgroup.as_ref().is_some_and(|path| !path.exists());
        copy.folder.write_record(&copy.record)?;
        if let Some(path) = &plan.cgroup {
            cgroup::make(path)?;
        }
        moving::make_disk(plan, copy)?;
        self.start(plan, copy)
    }
}

fn remove_file(path: &Path) -> Result<(), GhostError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(GhostError::Remove(path.to_owned(), e)),
    }
}
