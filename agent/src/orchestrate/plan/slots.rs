//! Who sits in which slot, and the records and switches of new ones.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::abi::{
    Control, HostSwitch, INSTANCE_NAME_BYTES, InstanceRecord, Position, Switch, flags,
};

use super::{Actual, ActualSlot, PlanError};
use crate::model::{Affinity, InstanceName, InstanceSpec, SlotIndex};

/// The record that ties a slot to `name`.
pub fn record(name: &InstanceName) -> InstanceRecord {
    let mut bytes = [0; INSTANCE_NAME_BYTES];
    // A name is never longer than the record; `zip` keeps that from mattering.
    for (to, from) in bytes.iter_mut().zip(name.as_str().bytes()) {
        *to = from;
    }
    InstanceRecord {
        name: bytes,
        pad: 0,
    }
}

/// The name in a record; `None` for an unused slot or bytes that are no name.
pub fn recorded_name(record: &InstanceRecord) -> Option<InstanceName> {
    let end = record.name.iter().position(|&b| b == 0);
    let bytes = &record.name[..end.unwrap_or(INSTANCE_NAME_BYTES)];
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Which slots the wanted instances have already, and which are to go.
pub(super) struct Seats {
    /// By the instance's place in the configuration.
    pub(super) kept: Vec<Option<SlotIndex>>,
    pub(super) stale: BTreeSet<SlotIndex>,
}

impl Seats {
    pub(super) fn match_names(
        desired: &[InstanceSpec],
        actual: &Actual,
    ) -> Result<Self, PlanError> {
        let mut places = BTreeMap::<&InstanceName, usize>::new();
        for (place, spec) in desired.iter().enumerate() {
            if places.insert(&spec.name, place).is_some() {
                return Err(PlanError::SharedName(spec.name.clone()));
            }
        }
        let mut seats = Self {
            kept: vec![None; desired.len()],
            stale: BTreeSet::new(),
        };
        for (&slot, found) in &actual.slots {
            let place = recorded_name(&found.record).and_then(|name| places.get(&name).copied());
            match place {
                // Of two slots with one name the one in use is the instance's.
                Some(place) => match seats.kept[place] {
                    Some(other) if is_used(&actual.slots[&other]) || !is_used(found) => {
                        seats.stale.insert(slot);
                    }
                    Some(other) => {
                        seats.stale.insert(other);
                        seats.kept[place] = Some(slot);
                    }
                    None => seats.kept[place] = Some(slot),
                },
                None => {
                    seats.stale.insert(slot);
                }
            }
        }
        Ok(seats)
    }
}

/// A switch that points somewhere.
pub(super) fn is_used(slot: &ActualSlot) -> bool {
    Position::from_tag(slot.switch.control.position).is_some()
}

/// Flags that the configuration decides; the others are left as they are.
pub(super) const CONFIGURED: u8 = flags::ARMED | flags::TRACK;

pub(super) fn wanted_flags(spec: &InstanceSpec) -> u8 {
    let armed = if spec.armed { flags::ARMED } else { 0 };
    match spec.affinity {
        Affinity::None => armed,
        Affinity::Connections { .. } => armed | flags::TRACK,
    }
}

pub(super) fn drain_idle_ns(spec: &InstanceSpec) -> u64 {
    match spec.affinity {
        Affinity::None => 0,
        Affinity::Connections { idle, .. } => u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX),
    }
}

/// A switch that has never moved.
pub(super) fn new_switch(spec: &InstanceSpec, host_generation: u64) -> Switch {
    Switch {
        control: Control {
            position: Position::Primary as u8,
            flags: wanted_flags(spec),
            host_generation_seen: HostSwitch::short(host_generation),
            term: 0,
        },
        lease_ns: 0,
        drain_idle_ns: drain_idle_ns(spec),
        moved_ns: 0,
        cause: 0,
        pad0: [0; 3],
        cause_pid: 0,
        unarmed_seen_ns: 0,
        pad1: [0; 2],
    }
}
