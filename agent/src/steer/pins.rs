//! Everything below the pin root, opened by path.
//!
//! Owns: the maps as typed tables, and the commands that need nothing but
//! them, so that `ghostctl` can do without the daemon what the daemon does.
//! Refuses: to load or attach (see `load`).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_common::abi::{
    ABI_VERSION, Cause, Flow, FlowKey, InstanceRecord, Meta, Port, ReverseV4, ReverseV6,
    RouteCounters, RouteKeyV4, RouteKeyV6, RouteV4, RouteV6, names,
};

use super::{
    clock, decode,
    error::SteerError,
    switchboard::{Moved, Swapped, Switchboard},
    table::{PerCpuTable, Table},
};
use crate::{
    model::{InstanceName, SlotIndex},
    orchestrate::{
        command::{Answer, Command, Refusal, Subject},
        motion::Motion,
        plan::{Actual, ActualSlot},
    },
};

/// The pinned maps.
#[derive(Debug)]
pub struct Pins {
    pub(super) root: PathBuf,
    pub(super) board: Switchboard,
    pub(super) meta: Table<u32, Meta>,
    pub(super) instances: Table<u32, InstanceRecord>,
    pub(super) routes_v4: Table<RouteKeyV4, RouteV4>,
    pub(super) routes_v6: Table<RouteKeyV6, RouteV6>,
    pub(super) reverse_v4: Table<RouteKeyV4, ReverseV4>,
    pub(super) reverse_v6: Table<RouteKeyV6, ReverseV6>,
    pub(super) filter: Table<u32, u64>,
    pub(super) counters: PerCpuTable<RouteCounters>,
    pub(super) flows: Table<FlowKey, Flow>,
    pub(super) ports: Table<u32, Port>,
    pub(super) egress: Table<u32, u32>,
    pub(super) cgroups: Table<u64, u32>,
}

impl Pins {
    /// Opens what is pinned at `root`, after a look at its ABI version.
    pub fn open(root: &Path) -> Result<Self, SteerError> {
        check_abi(root)?;
        Ok(Self {
            root: root.to_owned(),
            board: Switchboard::open(root)?,
            meta: Table::open(root, names::META)?,
            instances: Table::open(root, names::INSTANCES)?,
            routes_v4: Table::open(root, names::ROUTES_V4)?,
            routes_v6: Table::open(root, names::ROUTES_V6)?,
            reverse_v4: Table::open(root, names::REVERSE_V4)?,
            reverse_v6: Table::open(root, names::REVERSE_V6)?,
            filter: Table::open(root, names::FILTER)?,
            counters: PerCpuTable::open(root, names::COUNTERS)?,
            flows: Table::open(root, names::FLOWS)?,
            ports: Table::open(root, names::PORTS)?,
            egress: Table::open(root, names::EGRESS)?,
            cgroups: Table::open(root, names::CGROUPS)?,
        })
    }

    pub fn board(&self) -> &Switchboard {
        &self.board
    }

    /// What the planner compares the configuration with.
    pub fn actual(&self) -> Result<Actual, SteerError> {
        let mut actual = Actual {
            routes_v4: self.routes_v4.entries()?.into_iter().collect(),
            routes_v6: self.routes_v6.entries()?.into_iter().collect(),
            reverse_v4: self.reverse_v4.entries()?.into_iter().collect(),
            reverse_v6: self.reverse_v6.entries()?.into_iter().collect(),
            filter: self.filter.entries()?.into_iter().map(|(_, w)| w).collect(),
            host_generation: self.board.host_generation(),
            ..Actual::default()
        };
        self.instances.for_each(|slot, record| {
            let slot = SlotIndex(slot);
            let Some(switch) = self.board.read(slot) else {
                return;
            };
            let named = record.name.iter().any(|&b| b != 0);
            if named || switch.control.to_word() != 0 {
                actual.slots.insert(slot, ActualSlot { record, switch });
            }
        })?;
        for (ifindex, port) in self.ports.entries()? {
            if let Some(ifindex) = std::num::NonZeroU32::new(ifindex) {
                actual.ports.insert(crate::model::Ifindex(ifindex), port);
            }
        }
        for (id, slot) in self.cgroups.entries()? {
            actual.cgroups.insert(id, SlotIndex(slot));
        }
        Ok(actual)
    }

    /// Slot of an instance, as recorded in the kernel.
    pub fn slot(&self, instance: &InstanceName) -> Result<Option<SlotIndex>, SteerError> {
        let mut found = None;
        self.instances.for_each(|slot, record| {
            if decode::name(&record).as_deref() == Some(instance.as_str()) {
                found = Some(SlotIndex(slot));
            }
        })?;
        Ok(found)
    }

    /// Names of all slots in use.
    pub fn names(&self) -> Result<Vec<(SlotIndex, String)>, SteerError> {
        let mut names = Vec::new();
        self.instances.for_each(|slot, record| {
            names.extend(decode::name(&record).map(|name| (SlotIndex(slot), name)));
        })?;
        Ok(names)
    }

    /// Name recorded for a slot.
    pub fn name(&self, slot: SlotIndex) -> Result<Option<String>, SteerError> {
        Ok(self.instances.get(&slot.0)?.as_ref().and_then(decode::name))
    }

    /// Live flows of the ghost of one instance.
    pub fn live_flows(&self, slot: SlotIndex) -> Result<u64, SteerError> {
        let idle_ns = self.board.read(slot).map_or(0, |s| s.drain_idle_ns);
        let now_ns = clock::monotonic_ns();
        let mut live = 0;
        self.flows.for_each(|_, flow| {
            if flow.switch == slot.0 && decode::is_live(&flow, idle_ns, now_ns) {
                live += 1;
            }
        })?;
        Ok(live)
    }

    /// Moves or flags one switch.
    pub fn apply(&self, slot: SlotIndex, motion: Motion, pid: u32) -> Result<Swapped, SteerError> {
        let moved = motion.to().map(|_| Moved {
            at_ns: clock::monotonic_ns(),
            cause: Cause::Commanded,
            pid,
        });
        self.board.swap(slot, moved, |control, generation| {
            motion.apply(control, generation)
        })
    }

    /// Points all armed instances at their ghosts. Gives the new generation.
    pub fn throw_host(&self, pid: u32) -> u64 {
        self.board.throw_host(clock::monotonic_ns(), pid)
    }

    /// Points every instance at its primary. The first error is kept, the
    /// rest is done nevertheless. `false` if all were there already.
    pub fn restore_host(&self, pid: u32) -> Result<bool, SteerError> {
        let mut moved = false;
        let mut failed = None;
        for slot in (0..self.board.slots()).map(SlotIndex) {
            match self.apply(slot, Motion::Restore, pid) {
                Ok(Swapped::Stored) => moved = true,
                Ok(Swapped::Unchanged) => {}
                Ok(Swapped::Raced) => failed = failed.or(Some(SteerError::Raced)),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        failed.map_or(Ok(moved), Err)
    }

    /// Carries out a command on the maps alone, for when there is no daemon.
    /// What needs one is refused.
    pub fn command(&self, command: &Command, pid: u32) -> Result<Answer, Refusal> {
        match command {
            Command::Throw(Subject::Host) => {
                self.throw_host(pid);
                Ok(Answer::Done)
            }
            Command::Restore(Subject::Host) => {
                let moved = self.restore_host(pid).map_err(|e| refusal(&e))?;
                Ok(if moved {
                    Answer::Done
                } else {
                    Answer::Unchanged
                })
            }
            Command::Throw(Subject::Instance(name)) => self.move_one(name, Motion::Throw, pid),
            Command::Restore(Subject::Instance(name)) => self.move_one(name, Motion::Restore, pid),
            Command::Drain(name) => self.move_one(name, Motion::Drain, pid),
            Command::Arm(name) => self.move_one(name, Motion::Arm, pid),
            Command::Disarm(name) => self.move_one(name, Motion::Disarm, pid),
            Command::Snapshot => {
                let snapshot = self.snapshot().map_err(|e| refusal(&e))?;
                Ok(Answer::Snapshot(Box::new(snapshot)))
            }
            Command::IsArmed(name) => {
                let slot = self.slot(name).map_err(|e| refusal(&e))?;
                let slot = slot.ok_or_else(|| Refusal::UnknownInstance(name.clone()))?;
                Ok(Answer::Armed(self.is_armed(slot)))
            }
            Command::Reload | Command::Plan(_) => Err(Refusal::Kernel(
                "only a running ghostd reads the configuration".to_owned(),
            )),
        }
    }

    pub fn is_armed(&self, slot: SlotIndex) -> bool {
        let control = self.board.control(slot);
        control.is_some_and(|c| c.flags & agent_common::abi::flags::ARMED != 0)
    }

    /// Moves or flags the switch of a named instance.
    pub fn move_one(
        &self,
        name: &InstanceName,
        motion: Motion,
        pid: u32,
    ) -> Result<Answer, Refusal> {
        let slot = self.slot(name).map_err(|e| refusal(&e))?;
        let slot = slot.ok_or_else(|| Refusal::UnknownInstance(name.clone()))?;
        self.move_slot(name, slot, motion, pid)
    }

    /// As [`Self::move_one`], where the slot is known.
    pub fn move_slot(
        &self,
        name: &InstanceName,
        slot: SlotIndex,
        motion: Motion,
        pid: u32,
    ) -> Result<Answer, Refusal> {
        let control = self.board.control(slot);
        let tracked = control.is_some_and(|c| c.flags & agent_common::abi::flags::TRACK != 0);
        if motion == Motion::Drain && !tracked {
            return Err(Refusal::NotTracked(name.clone()));
        }
        match self.apply(slot, motion, pid).map_err(|e| refusal(&e))? {
            Swapped::Stored => Ok(Answer::Done),
            Swapped::Unchanged => Ok(Answer::Unchanged),
            Swapped::Raced => Err(refusal(&SteerError::Raced)),
        }
    }

    /// Removes links, programs and maps, in this order, and the folder: after
    /// it nothing is steered. Lists what was removed.
    ///
    /// Needs no readable maps, so it also gets rid of those of another version.
    pub fn clean(root: &Path) -> Result<Vec<PathBuf>, SteerError> {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(SteerError::PinRoot(root.to_owned(), e)),
        };
        let mut pins = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| SteerError::PinRoot(root.to_owned(), e))?;
            pins.push(entry.path());
        }
        pins.sort_by_key(|pin| (removal_rank(pin), pin.clone()));
        for pin in &pins {
            fs::remove_file(pin).map_err(|e| SteerError::Unpin(pin.clone(), e))?;
        }
        fs::remove_dir(root).map_err(|e| SteerError::Unpin(root.to_owned(), e))?;
        Ok(pins)
    }
}

fn removal_rank(pin: &Path) -> u8 {
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(names::LINK_PREFIX) {
        0
    } else if names::PROGRAMS.contains(&name.as_ref()) {
        1
    } else {
        2
    }
}

/// The error and everything that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn refusal(error: &SteerError) -> Refusal {
    Refusal::Kernel(chain(error))
}

/// Refuses maps of another ABI version. Zero is a first start that was cut
/// short before it wrote anything.
pub(super) fn check_abi(root: &Path) -> Result<(), SteerError> {
    let meta = Table::<u32, Meta>::open(root, names::META)?;
    let found = meta.get(&0)?.map_or(0, |m| m.abi_version);
    if found == 0 || found == ABI_VERSION {
        return Ok(());
    }
    Err(SteerError::AbiVersion {
        root: root.to_owned(),
        found,
        expected: ABI_VERSION,
    })
}
