//! The plan: from what the kernel holds to what the configuration wants.
//!
//! Owns: the order in which maps are written, so that after each single
//! effect no packet is sent anywhere that neither the old nor the new
//! configuration names for its service. A new instance gets its slot, then
//! its switch, cgroup and ports, then filter bits, then for each route the
//! reverse entries and the route itself; removal goes the opposite way.
//! An instance that stays keeps its slot, position and term; a service that
//! stays keeps its counter.
//!
//! Refuses: I/O, clocks. Interface indices and cgroup ids are facts passed in.
//!
//! How it fails: [`PlanError`], before any effect. If carrying out stops half
//! way, read the kernel again and plan again: the rest of the way is a plan too.

use std::collections::BTreeMap;

use agent_common::abi::{
    InstanceRecord, Port, ReverseV4, ReverseV6, RouteKeyV4, RouteKeyV6, RouteV4, RouteV6, Switch,
};

use crate::model::{CounterIndex, Ifindex, InstanceName, SlotIndex};

/// One write to a map. The executor does exactly this, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Store the name in `gd_instances`. The slot's switch is still all zero.
    ClaimSlot {
        slot: SlotIndex,
        record: InstanceRecord,
    },
    /// Store the whole slot of `gd_switches`: position primary, and the host
    /// switch's present generation as seen, so that an old throw does not
    /// move a new instance.
    InitSwitch {
        slot: SlotIndex,
        switch: Switch,
    },
    /// Store `drain_idle_ns`, then change the flags in one store of the
    /// control word. Where the slot points must not change, so the new word
    /// is [`agent_common::abi::Control::reflagged`] of the present one.
    SetFlags {
        slot: SlotIndex,
        set: u8,
        clear: u8,
        drain_idle_ns: u64,
    },
    /// Insert or replace in `gd_cgroups`.
    PutCgroup {
        cgroup_id: u64,
        slot: SlotIndex,
    },
    /// Insert or replace in `gd_ports`. Lease, term and count of a port that
    /// was there are kept in `port` as they were read.
    PutPort {
        ifindex: Ifindex,
        port: Port,
    },
    /// Store whole words of `gd_filter`, in any order. Before new entries the
    /// words hold old and new bits; the last effect of a plan drops old ones.
    PutFilter {
        words: Vec<FilterWord>,
    },
    /// Zero the counters, on all CPUs, of an index that no route uses.
    ResetCounter {
        counter: CounterIndex,
    },
    /// Insert or replace in `gd_reverse_v4`.
    PutReverseV4 {
        key: RouteKeyV4,
        value: ReverseV4,
    },
    /// Insert or replace in `gd_reverse_v6`.
    PutReverseV6 {
        key: RouteKeyV6,
        value: ReverseV6,
    },
    /// Insert or replace in `gd_routes_v4`; replacing is one update in place.
    PutRouteV4 {
        key: RouteKeyV4,
        value: RouteV4,
    },
    /// Insert or replace in `gd_routes_v6`; replacing is one update in place.
    PutRouteV6 {
        key: RouteKeyV6,
        value: RouteV6,
    },
    DeleteRouteV4 {
        key: RouteKeyV4,
    },
    DeleteRouteV6 {
        key: RouteKeyV6,
    },
    DeleteReverseV4 {
        key: RouteKeyV4,
    },
    DeleteReverseV6 {
        key: RouteKeyV6,
    },
    DeletePort {
        ifindex: Ifindex,
    },
    DeleteCgroup {
        cgroup_id: u64,
    },
    /// Store an all-zero slot in `gd_switches`.
    ClearSwitch {
        slot: SlotIndex,
    },
    /// Store an all-zero record in `gd_instances`.
    ReleaseSlot {
        slot: SlotIndex,
    },
}

/// One word of `gd_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterWord {
    pub index: u32,
    pub bits: u64,
}

/// What the host says about names in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Interfaces that exist. A port on any other gets no entry.
    pub ifindex: BTreeMap<String, Ifindex>,
    /// Ids (inode numbers) of the cgroups that exist. Others get no entry.
    pub cgroup_id: BTreeMap<InstanceName, u64>,
}

/// What the kernel holds, as read from the maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// Slots whose record or switch is not all zero.
    pub slots: BTreeMap<SlotIndex, ActualSlot>,
    pub routes_v4: BTreeMap<RouteKeyV4, RouteV4>,
    pub routes_v6: BTreeMap<RouteKeyV6, RouteV6>,
    pub reverse_v4: BTreeMap<RouteKeyV4, ReverseV4>,
    pub reverse_v6: BTreeMap<RouteKeyV6, ReverseV6>,
    pub ports: BTreeMap<Ifindex, Port>,
    pub cgroups: BTreeMap<u64, SlotIndex>,
    /// All words of `gd_filter`; missing ones count as zero.
    pub filter: Vec<u64>,
    /// `HostSwitch::generation`.
    pub host_generation: u64,
}

/// One slot of `gd_instances` and `gd_switches`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActualSlot {
    pub record: InstanceRecord,
    pub switch: Switch,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("no free slot")]
    Full,
}

/// TEMPORARY stand-in until the planner lands.
pub fn plan(
    desired: &[crate::model::InstanceSpec],
    facts: &Facts,
    actual: &Actual,
    limits: &crate::model::Limits,
) -> Result<Vec<Effect>, PlanError> {
    use crate::model::{Affinity, Target};
    use agent_common::abi::*;
    use std::net::IpAddr;
    let mut out = Vec::new();
    let mut counter = 0;
    let mut filter = vec![0u64; FILTER_WORDS as usize];
    let name_of = |r: &InstanceRecord| {
        let n = r.name.iter().position(|&b| b == 0).unwrap_or(60);
        String::from_utf8_lossy(&r.name[..n]).into_owned()
    };
    let mut taken: Vec<u32> = actual.slots.keys().map(|s| s.0).collect();
    let mut late = Vec::new();
    for (slot, s) in &actual.slots {
        if !desired
            .iter()
            .any(|d| d.name.as_str() == name_of(&s.record))
        {
            late.push(Effect::ClearSwitch { slot: *slot });
            late.push(Effect::ReleaseSlot { slot: *slot });
        }
    }
    let (mut rv4, mut rv6) = (BTreeMap::new(), BTreeMap::new());
    let (mut ports, mut cgroups) = (BTreeMap::new(), BTreeMap::new());
    for spec in desired {
        let found = actual
            .slots
            .iter()
            .find(|(_, s)| name_of(&s.record) == spec.name.as_str());
        let (track, idle) = match spec.affinity {
            Affinity::None => (0, 0),
            Affinity::Connections { idle, .. } => (flags::TRACK, idle.as_nanos() as u64),
        };
        let want = if spec.armed { flags::ARMED } else { 0 } | track;
        let slot = match found {
            Some((slot, s)) => {
                if s.switch.control.flags & 3 != want {
                    out.push(Effect::SetFlags {
                        slot: *slot,
                        set: want,
                        clear: 3 & !want,
                        drain_idle_ns: idle,
                    });
                }
                *slot
            }
            None => {
                let slot = (0..limits.instances)
                    .find(|i| !taken.contains(i))
                    .ok_or(PlanError::Full)?;
                taken.push(slot);
                let slot = SlotIndex(slot);
                let mut record = InstanceRecord {
                    name: [0; 60],
                    pad: 0,
                };
                record.name[..spec.name.as_str().len()]
                    .copy_from_slice(spec.name.as_str().as_bytes());
                out.push(Effect::ClaimSlot { slot, record });
                out.push(Effect::InitSwitch {
                    slot,
                    switch: Switch {
                        control: Control {
                            position: 1,
                            flags: want,
                            host_generation_seen: HostSwitch::short(actual.host_generation),
                            term: 0,
                        },
                        lease_ns: 0,
                        drain_idle_ns: idle,
                        moved_ns: 0,
                        cause: 0,
                        pad0: [0; 3],
                        cause_pid: 0,
                        pad1: [0; 3],
                    },
                });
                slot
            }
        };
        if let Some(&id) = facts.cgroup_id.get(&spec.name) {
            cgroups.insert(id, slot);
        }
        for p in &spec.ports {
            if let Some(&i) = facts.ifindex.get(&p.interface) {
                let old = actual.ports.get(&i);
                ports.insert(
                    i,
                    Port {
                        switch: slot.0,
                        side: p.side as u8,
                        fence: p.fence as u8,
                        pad: [0; 2],
                        lease_ns: 0,
                        fenced_packets: old.map_or(0, |o| o.fenced_packets),
                        term: 0,
                        pad1: 0,
                    },
                );
            }
        }
        for r in &spec.routes {
            counter += 1;
            let (port, proto) = r
                .service
                .l4
                .map_or(([0; 2], 0), |l| (l.port.to_be_bytes(), l.protocol.number()));
            match r.service.addr {
                IpAddr::V4(a) => {
                    let t = |t: Target| match t {
                        Target::Translate {
                            addr: IpAddr::V4(x),
                            port,
                        } => TargetV4 {
                            addr_be: x.octets(),
                            port_be: port.unwrap_or(0).to_be_bytes(),
                            kind: 2,
                            pad: 0,
                        },
                        _ => TargetV4 {
                            addr_be: [0; 4],
                            port_be: [0; 2],
                            kind: 1,
                            pad: 0,
                        },
                    };
                    let key = RouteKeyV4 {
                        addr_be: a.octets(),
                        port_be: port,
                        protocol: proto,
                        pad: 0,
                    };
                    for f in Filter::of_v4(&key) {
                        filter[f.word as usize] |= f.mask;
                    }
                    rv4.insert(
                        key,
                        RouteV4 {
                            switch: slot.0,
                            counter: counter - 1,
                            primary: t(r.primary),
                            ghost: t(r.ghost),
                        },
                    );
                }
                IpAddr::V6(a) => {
                    let t = |t: Target| match t {
                        Target::Translate {
                            addr: IpAddr::V6(x),
                            port,
                        } => TargetV6 {
                            addr_be: x.octets(),
                            port_be: port.unwrap_or(0).to_be_bytes(),
                            kind: 2,
                            pad: 0,
                        },
                        _ => TargetV6 {
                            addr_be: [0; 16],
                            port_be: [0; 2],
                            kind: 1,
                            pad: 0,
                        },
                    };
                    let key = RouteKeyV6 {
                        addr_be: a.octets(),
                        port_be: port,
                        protocol: proto,
                        pad: 0,
                    };
                    for f in Filter::of_v6(&key) {
                        filter[f.word as usize] |= f.mask;
                    }
                    rv6.insert(
                        key,
                        RouteV6 {
                            switch: slot.0,
                            counter: counter - 1,
                            primary: t(r.primary),
                            ghost: t(r.ghost),
                        },
                    );
                }
            }
        }
    }
    for (&cgroup_id, &slot) in &cgroups {
        if actual.cgroups.get(&cgroup_id) != Some(&slot) {
            out.push(Effect::PutCgroup { cgroup_id, slot });
        }
    }
    for &cgroup_id in actual.cgroups.keys() {
        if !cgroups.contains_key(&cgroup_id) {
            out.push(Effect::DeleteCgroup { cgroup_id });
        }
    }
    for (&ifindex, &port) in &ports {
        if actual.ports.get(&ifindex) != Some(&port) {
            out.push(Effect::PutPort { ifindex, port });
        }
    }
    for &ifindex in actual.ports.keys() {
        if !ports.contains_key(&ifindex) {
            out.push(Effect::DeletePort { ifindex });
        }
    }
    let words: Vec<FilterWord> = (0..)
        .zip(&filter)
        .filter(|(i, b)| actual.filter.get(*i as usize) != Some(b))
        .map(|(index, &bits)| FilterWord { index, bits })
        .collect();
    if !words.is_empty() {
        out.push(Effect::PutFilter { words });
    }
    for (key, value) in rv4.clone() {
        if actual.routes_v4.get(&key) != Some(&value) {
            out.push(Effect::PutRouteV4 { key, value });
        }
    }
    for (key, value) in rv6.clone() {
        if actual.routes_v6.get(&key) != Some(&value) {
            out.push(Effect::PutRouteV6 { key, value });
        }
    }
    for &key in actual.routes_v4.keys() {
        if !rv4.contains_key(&key) {
            out.push(Effect::DeleteRouteV4 { key });
        }
    }
    for &key in actual.routes_v6.keys() {
        if !rv6.contains_key(&key) {
            out.push(Effect::DeleteRouteV6 { key });
        }
    }
    out.extend(late);
    Ok(out)
}
