//! The data plane as the daemon holds it: programs, pins, and what to ask the
//! kernel about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    attach::{self, Attached, Wanted},
    cgroups::CgroupNews,
    error::SteerError,
    events::Events,
    load::{self, Loaded},
    netlink::{
        Netlink,
        devices::NetdevFamily,
        neighbours::{NextHop, Warmth},
        news::News,
    },
    pins::Pins,
    snapshot::{interface_name, pinned_interfaces},
    watch::{self, Guests},
};
use agent_common::abi::{EGRESS_REFLECT, EGRESS_SLOTS};
use aya::Ebpf;

use crate::model::{Ifindex, Limits, UplinkMode};

/// Which program an interface carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Packets of clients come in here.
    Uplink,
    /// A copy of an instance sits behind it.
    Port,
}

/// The data plane in force.
#[derive(Debug)]
pub struct Plane {
    root: PathBuf,
    pins: Pins,
    steer: OwnedFd,
    port: OwnedFd,
    route: Netlink,
    generic: Netlink,
    limits: Limits,
    /// `None` on kernels that do not tell which devices take XDP redirects.
    netdev: Option<NetdevFamily>,
    /// Next hops that the kernel manages for us.
    managed: BTreeSet<NextHop>,
    /// The loaded object, while its programs for guests wait for KVM.
    unattached: Option<Ebpf>,
}

/// What [`Plane::warm`] found.
#[derive(Debug, Default)]
pub struct Warmed {
    pub hops: BTreeSet<NextHop>,
    /// Of those, the ones that are not resolved yet.
    pub cold: Vec<NextHop>,
}

/// What [`Plane::start`] gives beside the plane.
#[derive(Debug)]
pub struct Started {
    pub plane: Plane,
    pub events: Events,
    /// News of interfaces that come and go.
    pub links: News,
    /// News of devices that begin or cease to take redirects.
    pub abilities: Option<News>,
    /// News of cgroups, once it is told which.
    pub cgroups: CgroupNews,
    /// Whether maps of an earlier run were found and kept.
    pub adopted: bool,
    /// What does not work, though the rest does.
    pub degraded: Vec<SteerError>,
}

impl Plane {
    /// Loads the programs and puts the tracepoints in force. Nothing is
    /// attached to an interface yet. To be called within a tokio runtime.
    pub fn start(root: &Path, limits: &Limits, object: &[u8]) -> Result<Started, SteerError> {
        let Loaded {
            pins,
            steer,
            port,
            mut ebpf,
            adopted,
        } = load::load(root, limits, object)?;
        let mut degraded = Vec::new();
        degraded.extend(watch::attach_reboots(root, &mut ebpf).err());
        let mut generic = Netlink::generic()?;
        let netdev = generic.netdev_family()?;
        let abilities = match netdev {
            Some(family) => News::of_abilities(family)?,
            None => None,
        };
        let plane = Self {
            root: root.to_owned(),
            pins,
            steer,
            port,
            route: Netlink::route()?,
            generic,
            limits: *limits,
            netdev,
            managed: BTreeSet::new(),
            unattached: Some(ebpf),
        };
        Ok(Started {
            plane,
            events: Events::open(root)?,
            links: News::of_links()?,
            abilities,
            cgroups: CgroupNews::open()?,
            adopted,
            degraded,
        })
    }

    /// Puts the programs that see guests' resets in force. `false` while this
    /// kernel has no KVM; to be called again then, or after an error.
    pub fn watch_guests(&mut self) -> Result<bool, SteerError> {
        let Some(ebpf) = &mut self.unattached else {
            return Ok(true);
        };
        let guests = watch::attach_guests(&self.root, ebpf)?;
        if guests == Guests::Watched {
            self.unattached = None;
        }
        Ok(guests == Guests::Watched)
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Sizes of the maps.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Attaches, or replaces the program of a link that is there.
    pub fn attach(
        &mut self,
        ifindex: Ifindex,
        role: Role,
        mode: UplinkMode,
        replace_foreign: bool,
    ) -> Result<Attached, SteerError> {
        let program = match role {
            Role::Uplink => self.steer.as_fd(),
            Role::Port => self.port.as_fd(),
        };
        let wanted = Wanted {
            ifindex,
            program,
            mode,
            replace_foreign,
        };
        attach::ensure(&self.root, &mut self.route, &wanted)
    }

    pub fn detach(&self, ifindex: Ifindex) -> Result<(), SteerError> {
        attach::remove(&self.root, ifindex)
    }

    /// Interfaces that have a pinned link, whether it still holds or not.
    pub fn linked(&self) -> Result<Vec<Ifindex>, SteerError> {
        pinned_interfaces(&self.root)
    }

    /// Tells the programs which devices take redirects. What does not is
    /// handed up the stack. `false` where the kernel does not say.
    pub fn refresh_egress(&mut self) -> Result<bool, SteerError> {
        let Some(family) = self.netdev else {
            return Ok(false);
        };
        let mut wanted = self.generic.egress(family)?;
        for veth in self.route.veths()? {
            let slot = wanted.get_mut((veth % EGRESS_SLOTS) as usize);
            if let Some(slot) = slot.filter(|slot| **slot == veth) {
                *slot |= EGRESS_REFLECT;
            }
        }
        let mut have = vec![0; wanted.len()];
        self.pins.egress.for_each(|slot, ifindex| {
            if let Some(have) = have.get_mut(slot as usize) {
                *have = ifindex;
            }
        })?;
        for (slot, (wanted, have)) in (0u32..).zip(wanted.iter().zip(&have)) {
            if wanted != have {
                self.pins.egress.put(&slot, wanted)?;
            }
        }
        Ok(true)
    }

    /// Has the next hops of `targets` resolved, and kept so.
    pub fn warm(
        &mut self,
        targets: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Warmed, SteerError> {
        let mut warmed = Warmed::default();
        for target in targets {
            let Some(hop) = self.route.next_hop(target)? else {
                continue;
            };
            if !warmed.hops.insert(hop) {
                continue;
            }
            self.managed.insert(hop);
            if self.route.warm(&hop)? == Warmth::Asked {
                warmed.cold.push(hop);
            }
        }
        Ok(warmed)
    }

    /// Leaves every next hop but `hops` to the kernel's ordinary ageing.
    pub fn manage_only(&mut self, hops: &BTreeSet<NextHop>) -> Result<(), SteerError> {
        let surplus: Vec<NextHop> = self.managed.difference(hops).copied().collect();
        for hop in surplus {
            self.route.unmanage(&hop)?;
            self.managed.remove(&hop);
        }
        Ok(())
    }

    /// Of `hops`, those that are not resolved yet.
    pub fn still_cold(&mut self, hops: Vec<NextHop>) -> Result<Vec<NextHop>, SteerError> {
        let mut cold = Vec::new();
        for hop in hops {
            if self.route.warm(&hop)? == Warmth::Asked {
                cold.push(hop);
            }
        }
        Ok(cold)
    }
}

/// Index of an interface by its name.
pub fn ifindex(interface: &str) -> Result<Ifindex, SteerError> {
    let index = nix::net::if_::if_nametoindex(interface)
        .ok()
        .and_then(NonZeroU32::new);
    index
        .map(Ifindex)
        .ok_or_else(|| SteerError::NoInterface(interface.to_owned()))
}

/// Name of an interface; `None` if it is gone.
pub fn name_of(ifindex: Ifindex) -> Option<String> {
    Some(interface_name(ifindex)).filter(|name| !name.is_empty())
}

/// Those of `names` that exist, with their indices.
pub fn interfaces<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<String, Ifindex>, SteerError> {
    let all = nix::net::if_::if_nameindex()
        .map_err(|e| SteerError::Netlink("all interfaces", e.into()))?;
    let mut by_name = BTreeMap::new();
    for interface in &all {
        let index = NonZeroU32::new(interface.index()).map(Ifindex);
        if let (Ok(name), Some(index)) = (interface.name().to_str(), index) {
            by_name.insert(name.to_owned(), index);
        }
    }
    let mut found = BTreeMap::new();
    for name in names {
        // Alternative names are not listed.
        let index = by_name.get(name).copied().or_else(|| ifindex(name).ok());
        if let Some(index) = index {
            found.insert(name.to_owned(), index);
        }
    }
    Ok(found)
}
