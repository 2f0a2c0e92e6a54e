//! All instances that this host runs, each with its thread.

mod control;
mod limits;
mod steps;
mod switch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use agent_common::abi::Side;
use anyhow::Context as _;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;

use self::{
    control::{Control, Found, Word},
    switch::Switch,
};
use super::{
    backend::{Adopted, GhostBackend},
    embedded::Embedded,
};
use crate::{
    model::{CopyId, GhostState, InstanceName, InstanceSpec, PrimaryState, Stake},
    orchestrate::{
        command::Request,
        event::EventLog,
        limits::Limits,
        vms::{ORDER_QUEUE, VmDesk, VmRefusal, VmRequest, VmView},
    },
};

/// Of the orders' queue and a little more, for news from the daemon itself.
const WORDS_MAX: usize = ORDER_QUEUE + 2;
/// Between two looks at threads that are to end.
const END_LOOK: Duration = Duration::from_millis(5);

/// What the manager is made of.
pub struct Parts {
    /// The program that runs a microVM.
    pub vmm: PathBuf,
    /// Where copies have their folders.
    pub run: PathBuf,
    /// To the driver, which moves switches.
    pub requests: mpsc::Sender<Request>,
    pub limits: Limits,
    pub log: EventLog,
    pub desk: VmDesk,
}

/// Ends with [`Self::stop`]; copies go on.
#[derive(Debug)]
pub struct GhostManager {
    backend: Arc<Embedded>,
    switch: Switch,
    limits: Limits,
    log: EventLog,
    desk: VmDesk,
    threads: BTreeMap<InstanceName, Thread>,
}

#[derive(Debug)]
struct Thread {
    line: Line,
    handle: JoinHandle<()>,
    spec: InstanceSpec,
}

/// To an instance's thread: a bounded queue, and what wakes the thread.
#[derive(Debug, Clone)]
struct Line {
    words: SyncSender<Word>,
    wake: Arc<EventFd>,
}

impl Line {
    fn say(&self, word: Word) -> Result<(), TrySendError<Word>> {
        self.words.try_send(word)?;
        // Fails only if the counter is full: then it is awake.
        let _ = self.wake.write(1);
        Ok(())
    }
}

impl GhostManager {
    /// Adopts what an earlier daemon left, and controls what is configured.
    pub fn start(parts: Parts, instances: &[InstanceSpec]) -> anyhow::Result<Self> {
        let Parts {
            vmm,
            run,
            requests,
            limits,
            log,
            desk,
        } = parts;
        let backend = Embedded::new(vmm, run).context("cannot manage microVMs")?;
        let mut manager = Self {
            backend: Arc::new(backend),
            switch: Switch::new(requests),
            limits,
            log,
            desk,
            threads: BTreeMap::new(),
        };
        let mut found: BTreeMap<InstanceName, Vec<Adopted<_>>> = BTreeMap::new();
        for adopted in manager.backend.adopt() {
            let name = adopted.id.instance.clone();
            found.entry(name).or_default().push(adopted);
        }
        for spec in instances.iter().filter(|spec| spec.vm.is_some()) {
            let copies = found.remove(&spec.name).unwrap_or_default();
            manager.open(spec, copies)?;
        }
        // Configured no more, and alive: they can be looked at and destroyed.
        for (name, copies) in found {
            tracing::warn!(instance = %name, "a microVM runs here that is not configured");
            manager.open(&unconfigured(name), copies)?;
        }
        Ok(manager)
    }

    /// A new configuration. Copies that run keep what they were made with.
    pub fn configure(&mut self, instances: &[InstanceSpec]) {
        for spec in instances.iter().filter(|spec| spec.vm.is_some()) {
            let Some(thread) = self.threads.get_mut(&spec.name) else {
                if let Err(error) = self.open(spec, Vec::new()) {
                    tracing::error!(instance = %spec.name, error = format!("{error:#}"));
                }
                continue;
            };
            if thread.spec != *spec {
                thread.spec = spec.clone();
                if thread.line.say(Word::Spec(Box::new(spec.clone()))).is_err() {
                    tracing::warn!(instance = %spec.name, "is too busy for its new configuration");
                }
            }
        }
    }

    fn open(&mut self, spec: &InstanceSpec, copies: Vec<Found>) -> anyhow::Result<()> {
        let (words, inbox) = sync_channel(WORDS_MAX);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).context("cannot make an eventfd")?);
        let line = Line {
            words,
            wake: Arc::clone(&wake),
        };
        let orders = line.clone();
        let name = spec.name.clone();
        let order = move |request: VmRequest| {
            orders
                .say(Word::Order(request))
                .map_err(|error| match error {
                    TrySendError::Full(_) => VmRefusal::Busy(name.clone()),
                    TrySendError::Disconnected(_) => VmRefusal::ShuttingDown,
                })
        };
        let (backend, instance) = (Arc::clone(&self.backend), spec.name.clone());
        let console = move |side: Side| {
            let instance = instance.clone();
            backend.console(&CopyId { instance, side })
        };
        self.desk
            .open(&spec.name, view(spec), Box::new(order), console);
        let control = Control::new(
            Arc::clone(&self.backend),
            spec.clone(),
            control::Ways {
                inbox,
                wake,
                switch: self.switch.clone(),
                limits: self.limits.clone(),
                log: self.log.writer(),
                desk: self.desk.clone(),
            },
        );
        let title: String = format!("vm-{}", spec.name).chars().take(15).collect();
        let handle = thread::Builder::new()
            .name(title)
            .spawn(move || control.run(copies))
            .context("cannot start the thread of an instance")?;
        self.threads.insert(
            spec.name.clone(),
            Thread {
                line,
                handle,
                spec: spec.clone(),
            },
        );
        Ok(())
    }

    /// Lets each thread finish what it does, within a limit.
    pub fn stop(self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for (name, thread) in &self.threads {
            self.desk.close(name);
            // A queue that is full is full of orders, which are refused first.
            while let Err(TrySendError::Full(_)) = thread.line.say(Word::Stop) {
                if Instant::now() > deadline {
                    break;
                }
                thread::sleep(END_LOOK);
            }
        }
        for (name, thread) in self.threads {
            while !thread.handle.is_finished() && Instant::now() < deadline {
                thread::sleep(END_LOOK);
            }
            if !thread.handle.is_finished() {
                tracing::warn!(instance = %name, "is still at work; left behind");
            }
        }
    }
}

/// The `ghost-vmm` beside the program that runs.
pub fn beside_us() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find out which program this is")?;
    Ok(own.parent().unwrap_or(Path::new("/")).join("ghost-vmm"))
}

fn view(spec: &InstanceSpec) -> VmView {
    let vm = spec.vm.as_ref();
    VmView {
        primary: PrimaryState::Absent,
        ghost: GhostState::Absent,
        primary_pid: None,
        ghost_pid: None,
        memory_mib: vm.map_or(0, |vm| vm.memory_mib),
        vcpus: vm.map_or(0, |vm| vm.vcpus),
        image: vm.map_or_else(String::new, |vm| vm.image.display().to_string()),
        primary_not_in_force: Vec::new(),
        ghost_not_in_force: Vec::new(),
    }
}

fn unconfigured(name: InstanceName) -> InstanceSpec {
    InstanceSpec {
        name,
        owner: None,
        cgroup: None,
        armed: false,
        affinity: crate::model::Affinity::None,
        routes: Vec::new(),
        ports: Vec::new(),
        vm: None,
        stake: Stake::default(),
    }
}
