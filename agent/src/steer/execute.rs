//! Carries out the planner's effects: exactly those, in the order given.
//!
//! Neighbouring puts into the same table go in one system call.

use agent_common::abi::{InstanceRecord, Switch};

use super::{error::SteerError, pins::Pins, switchboard::Swapped, sys, table::Table};
use crate::orchestrate::plan::Effect;

/// Stores of a control word that may be overtaken by the kernel before it is
/// plain that something else is wrong: a switch moves once in a while.
const SWAP_ATTEMPTS: usize = 8;

impl Pins {
    /// On an error, what came before it is done; read and plan again.
    pub fn execute(&self, effects: &[Effect]) -> Result<(), SteerError> {
        let mut rest = effects;
        while let Some(first) = rest.first() {
            let taken = match first {
                Effect::PutRouteV4 { .. } => put_run(&self.routes_v4, rest, |e| match e {
                    Effect::PutRouteV4 { key, value } => Some((*key, *value)),
                    _ => None,
                })?,
                Effect::PutRouteV6 { .. } => put_run(&self.routes_v6, rest, |e| match e {
                    Effect::PutRouteV6 { key, value } => Some((*key, *value)),
                    _ => None,
                })?,
                Effect::PutReverseV4 { .. } => put_run(&self.reverse_v4, rest, |e| match e {
                    Effect::PutReverseV4 { key, value } => Some((*key, *value)),
                    _ => None,
                })?,
                Effect::PutReverseV6 { .. } => put_run(&self.reverse_v6, rest, |e| match e {
                    Effect::PutReverseV6 { key, value } => Some((*key, *value)),
                    _ => None,
                })?,
                other => {
                    self.execute_one(other)?;
                    1
                }
            };
            rest = rest.get(taken.max(1)..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn execute_one(&self, effect: &Effect) -> Result<(), SteerError> {
        match effect {
            Effect::ClaimSlot { slot, record } => self.instances.put(&slot.0, record),
            Effect::InitSwitch { slot, switch } => self.board.store(*slot, switch),
            Effect::SetFlags {
                slot,
                set,
                clear,
                drain_idle_ns,
            } => {
                self.board.set_drain_idle(*slot, *drain_idle_ns)?;
                for _ in 0..SWAP_ATTEMPTS {
                    let swapped = self.board.swap(*slot, None, |control, generation| {
                        Some(control.reflagged(*set, *clear, generation))
                    })?;
                    if swapped != Swapped::Raced {
                        return Ok(());
                    }
                }
                Err(SteerError::Raced)
            }
            Effect::PutCgroup { cgroup_id, slot } => self.cgroups.put(cgroup_id, &slot.0),
            Effect::PutPort { ifindex, port } => self.ports.put(&ifindex.get(), port),
            Effect::PutFilter { words } => {
                let (keys, values): (Vec<u32>, Vec<u64>) =
                    words.iter().map(|w| (w.index, w.bits)).unzip();
                self.filter.put_all(&keys, &values)
            }
            Effect::ResetCounter { counter } => self.counters.reset(counter.0),
            Effect::PutRouteV4 { key, value } => self.routes_v4.put(key, value),
            Effect::PutRouteV6 { key, value } => self.routes_v6.put(key, value),
            Effect::PutReverseV4 { key, value } => self.reverse_v4.put(key, value),
            Effect::PutReverseV6 { key, value } => self.reverse_v6.put(key, value),
            Effect::DeleteRouteV4 { key } => self.routes_v4.delete(key).map(drop),
            Effect::DeleteRouteV6 { key } => self.routes_v6.delete(key).map(drop),
            Effect::DeleteReverseV4 { key } => self.reverse_v4.delete(key).map(drop),
            Effect::DeleteReverseV6 { key } => self.reverse_v6.delete(key).map(drop),
            Effect::DeletePort { ifindex } => self.ports.delete(&ifindex.get()).map(drop),
            Effect::DeleteCgroup { cgroup_id } => self.cgroups.delete(cgroup_id).map(drop),
            Effect::ClearSwitch { slot } => self.board.store(*slot, &sys::zeroed::<Switch>()),
            Effect::ReleaseSlot { slot } => self
                .instances
                .put(&slot.0, &sys::zeroed::<InstanceRecord>()),
        }
    }
}

/// Puts the effects at the head of `effects` for which `entry` gives one, and
/// says how many they were.
fn put_run<K: aya::Pod, V: aya::Pod>(
    table: &Table<K, V>,
    effects: &[Effect],
    entry: impl Fn(&Effect) -> Option<(K, V)>,
) -> Result<usize, SteerError> {
    let (keys, values): (Vec<K>, Vec<V>) = effects.iter().map_while(entry).unzip();
    match (keys.as_slice(), values.as_slice()) {
        ([key], [value]) => table.put(key, value)?,
        (keys, values) => table.put_all(keys, values)?,
    }
    Ok(keys.len())
}
