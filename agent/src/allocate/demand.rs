//! What an instance's ghost needs, from what is configured.

use crate::model::{Allocation, Demand, InstanceSpec, Need, Owner, Priority, VmSpec};

/// Until it is measured: this part of a guest's memory is written to again
/// and again, as by a service that keeps a cache.
const WORKING_SET_PART: u64 = 16;

/// Until it is measured: this part of a guest's memory is written in a second.
/// A guest of 512 MiB then needs 67 Mbit/s.
const WRITTEN_PART: u64 = 64;

/// The instances whose copies ghostd starts itself.
pub fn demands(instances: &[InstanceSpec], allocation: &Allocation) -> Vec<Demand> {
    let demand = |spec: &InstanceSpec| {
        let vm = spec.vm.as_ref()?;
        let owner = spec.owner.as_ref().map(|name| owner(name, allocation));
        Some(Demand {
            name: spec.name.clone(),
            owner,
            priority: spec.stake.priority,
            risk: spec.stake.risk,
            need: need(vm),
        })
    };
    instances.iter().filter_map(demand).collect()
}

/// As configured; of ordinary priority and without a limit if it is not.
fn owner(name: &str, allocation: &Allocation) -> Owner {
    let configured = allocation.owners.iter().find(|owner| owner.name == name);
    configured.cloned().unwrap_or_else(|| Owner {
        name: name.to_owned(),
        priority: Priority::ORDINARY,
        share_percent: 100,
    })
}

fn need(vm: &VmSpec) -> Need {
    let memory_bytes = vm.memory_mib.saturating_mul(1 << 20);
    Need {
        memory_bytes,
        working_set_bytes: memory_bytes / WORKING_SET_PART,
        vcpus: vm.vcpus,
        dirty_rate: memory_bytes / WRITTEN_PART,
    }
}
