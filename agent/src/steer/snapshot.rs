//! What the kernel really holds, for people.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    num::NonZeroU32,
    os::fd::AsFd,
};

use agent_common::abi::{FenceMode, Position, Side, names};

use super::{
    clock, decode,
    error::SteerError,
    netlink::Netlink,
    objects,
    pins::Pins,
    sys,
    watch::{self, Missing},
};
use crate::model::{
    CounterIndex, HostView, Ifindex, InstanceView, PortView, RouteSpec, RouteView, SlotIndex,
    Snapshot, SwitchView, Trouble, UplinkView,
};

impl Pins {
    /// A snapshot, made from pins and the kernel's own answers alone.
    pub fn snapshot(&self) -> Result<Snapshot, SteerError> {
        let now_ns = clock::monotonic_ns();
        let generation = self.board.host_generation();
        let (thrown_ns, cause_pid) = self.board.host_thrown();
        let meta = self.meta.get(&0)?;
        let mut routes = self.routes_by_slot()?;
        let mut ports = self.ports_by_slot()?;
        let mut instances = Vec::new();
        let mut draining = BTreeSet::new();
        for (slot, record) in self.instances.entries()? {
            let slot = SlotIndex(slot);
            let (Some(name), Some(switch)) = (decode::name(&record), self.board.read(slot)) else {
                continue;
            };
            let Some(view) = decode::switch(&switch, generation, now_ns) else {
                continue;
            };
            if view.position == Position::Draining {
                draining.insert(slot.0);
            }
            instances.push(InstanceView {
                name,
                slot,
                switch: view,
                routes: routes.remove(&slot.0).unwrap_or_default(),
                ports: ports.remove(&slot.0).unwrap_or_default(),
            });
        }
        self.count_flows(&draining, now_ns, &mut instances)?;
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Snapshot {
            host: HostView {
                generation,
                thrown_ago: decode::ago(now_ns, thrown_ns),
                cause_pid,
                abi_version: meta.map_or(0, |m| m.abi_version),
                ghostd_version: meta
                    .as_ref()
                    .map(decode::ghostd_version)
                    .unwrap_or_default(),
            },
            instances,
            uplinks: self.uplinks()?,
            troubles: self.unwatched(),
        })
    }

    fn unwatched(&self) -> Vec<Trouble> {
        let Missing { reboots, guests } = watch::missing(&self.root);
        let reboots = reboots.into_iter().map(|pin| Trouble::Unwatched { pin });
        let guests = guests
            .into_iter()
            .map(|pin| Trouble::GuestsUnwatched { pin });
        reboots.chain(guests).collect()
    }

    fn routes_by_slot(&self) -> Result<HashMap<u32, Vec<RouteView>>, SteerError> {
        let mut routes = HashMap::<u32, Vec<RouteView>>::new();
        let mut add = |slot: u32, counter: u32, spec: RouteSpec| {
            routes.entry(slot).or_default().push(RouteView {
                spec,
                counter: CounterIndex(counter),
                counters: decode::sum(&[]),
            });
        };
        self.routes_v4
            .for_each(|k, r| add(r.switch, r.counter, decode::route_v4(&k, &r)))?;
        self.routes_v6
            .for_each(|k, r| add(r.switch, r.counter, decode::route_v6(&k, &r)))?;
        let mut per_cpu = self.counters.buffer();
        for views in routes.values_mut() {
            views.sort_by_key(|v| v.spec.service);
            for view in views {
                if self.counters.get(view.counter.0, &mut per_cpu)? {
                    view.counters = decode::sum(&per_cpu);
                }
            }
        }
        Ok(routes)
    }

    fn ports_by_slot(&self) -> Result<BTreeMap<u32, Vec<PortView>>, SteerError> {
        let mut ports = BTreeMap::<u32, Vec<PortView>>::new();
        for (ifindex, port) in self.ports.entries()? {
            let (Some(ifindex), Some(side), Some(fence)) = (
                NonZeroU32::new(ifindex),
                Side::from_tag(port.side),
                FenceMode::from_tag(port.fence),
            ) else {
                continue;
            };
            let views = ports.entry(port.switch).or_default();
            views.push(PortView {
                interface: interface_name(Ifindex(ifindex)),
                ifindex: Ifindex(ifindex),
                side,
                fence,
                fenced_packets: port.fenced_packets,
            });
            views.sort_by_key(|p| p.ifindex);
        }
        Ok(ports)
    }

    /// One walk over the flows, however many instances drain; none if none does.
    fn count_flows(
        &self,
        draining: &BTreeSet<u32>,
        now_ns: u64,
        instances: &mut [InstanceView],
    ) -> Result<(), SteerError> {
        if draining.is_empty() {
            return Ok(());
        }
        let idle = |slot| {
            self.board
                .read(SlotIndex(slot))
                .map_or(0, |s| s.drain_idle_ns)
        };
        let mut counts: BTreeMap<u32, (u64, u64)> = draining
            .iter()
            .map(|&slot| (slot, (idle(slot), 0)))
            .collect();
        self.flows.for_each(|_, flow| {
            if let Some((idle_ns, live)) = counts.get_mut(&flow.switch)
                && decode::is_live(&flow, *idle_ns, now_ns)
            {
                *live += 1;
            }
        })?;
        for view in instances {
            if let Some(&(_, live)) = counts.get(&view.slot.0) {
                let switch: &mut SwitchView = &mut view.switch;
                switch.draining_flows = Some(live);
            }
        }
        Ok(())
    }

    /// Interfaces with a pinned link of ours, by name.
    pub fn uplinks(&self) -> Result<Vec<UplinkView>, SteerError> {
        let mut netlink = Netlink::route()?;
        // To ask for a program by its id takes CAP_SYS_ADMIN, which the daemon
        // does not have.
        let pinned: HashMap<u32, &str> = [names::STEER, names::PORT]
            .into_iter()
            .filter_map(|name| Some((self.program_id(name)?, name)))
            .collect();
        let mut views = Vec::new();
        for ifindex in pinned_interfaces(&self.root)? {
            let path = link_path(&self.root, ifindex);
            let fail = |e| SteerError::OpenPin(path.clone(), e);
            let link = sys::obj_get(&path).map_err(fail)?;
            let info = objects::link_info(link.as_fd()).map_err(fail)?;
            let program = match pinned.get(&info.program_id) {
                Some(&name) => name.to_owned(),
                None => objects::program_by_id(info.program_id)
                    .and_then(|fd| objects::program_info(fd.as_fd()))
                    .map_or(String::new(), |(_, name)| name),
            };
            let attached = if info.ifindex == 0 {
                None
            } else {
                netlink.attached_xdp(ifindex).ok().flatten()
            };
            let ours = attached.filter(|a| a.program_id == info.program_id);
            views.push(UplinkView {
                interface: if info.ifindex == 0 {
                    String::new()
                } else {
                    interface_name(ifindex)
                },
                ifindex,
                mode: ours.map(|a| a.mode),
                program_id: info.program_id,
                program,
            });
        }
        views.sort_by(|a, b| (&a.interface, a.ifindex).cmp(&(&b.interface, b.ifindex)));
        Ok(views)
    }

    fn program_id(&self, name: &str) -> Option<u32> {
        let program = sys::obj_get(&self.root.join(name)).ok()?;
        let (id, _) = objects::program_info(program.as_fd()).ok()?;
        Some(id)
    }
}

/// Empty when the interface is gone.
pub(super) fn interface_name(ifindex: Ifindex) -> String {
    nix::net::if_::if_indextoname(ifindex.get())
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

pub(super) fn link_path(root: &std::path::Path, ifindex: Ifindex) -> std::path::PathBuf {
    root.join(format!("{}{}", names::LINK_PREFIX, ifindex.get()))
}

/// Indices of the interfaces that have a pinned link, attached or not.
pub(super) fn pinned_interfaces(root: &std::path::Path) -> Result<Vec<Ifindex>, SteerError> {
    let fail = |e| SteerError::PinRoot(root.to_owned(), e);
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        let index = name
            .to_str()
            .and_then(|n| n.strip_prefix(names::LINK_PREFIX))
            .and_then(|n| n.parse().ok());
        if let Some(index) = index {
            found.push(Ifindex(index));
        }
    }
    found.sort_unstable();
    Ok(found)
}
