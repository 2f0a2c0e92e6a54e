//! The host's end of a copy's tap: made fit for a primary or for a ghost.
//!
//! Owns: address, state and settings of the interface, host addresses, host
//! routes and neighbours on it. All of it goes with the tap.
//!
//! Refuses: to make or remove the tap, to touch any other interface, and to
//! take a route from one: an address that another interface leads to is an
//! error, not a change.
//!
//! How it fails: [`LinkError`] names the interface and what was tried. What
//! was done before stays; another call goes on from there, and changes
//! nothing that is right already.
//!
//! Ghost and primary have the same addresses, so the host can have a route to
//! them by one tap only: the primary's. A packet that is steered goes the way
//! to a `via` address instead, which leads to the ghost's tap and, by a
//! permanent neighbour, to the guest's MAC: nobody is asked, so frames wait in
//! the tap's queue while the ghost sleeps. Both taps have the same MAC, so
//! that the ghost goes on to use the gateway that its memory remembers.
//!
//! What the ghost asks about its gateway is answered on its own tap: for IPv4
//! the address is on both taps, IPv6 answers for those that it is told to, and
//! only where the interface forwards.
//!
//! Packets *of this host itself* to a service address do not pass XDP: they
//! go to the primary's tap also while the ghost is active.

mod netlink;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use self::netlink::Link;
use crate::model::{InstanceName, InstanceSpec, MacAddress, Network, Target};

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot find the interface {interface}, whose tap a copy should have made")]
    Missing {
        interface: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot open a netlink socket to set up {interface}")]
    Open {
        interface: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {what} on the interface {interface}")]
    Change {
        interface: String,
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {value} to {path}")]
    Setting {
        path: PathBuf,
        value: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {what} of the interface {interface}")]
    Read {
        interface: String,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "the way to {addr} should be by {interface}, and is by {other}: \
         remove the route that leads there"
    )]
    Elsewhere {
        interface: String,
        addr: IpAddr,
        other: String,
    },
    #[error("after it was set up, the interface {interface} has no {wanted}")]
    Undone { interface: String, wanted: String },
}

/// What a primary's tap is to be.
#[derive(Debug, Clone, Copy)]
pub struct PrimaryLink<'a> {
    pub interface: &'a str,
    /// Of the host's end: [`host_mac`].
    pub mac: MacAddress,
    pub host_addresses: &'a [Network],
    /// The guest's own: [`services`].
    pub services: &'a [IpAddr],
}

/// What a ghost's tap is to be.
#[derive(Debug, Clone, Copy)]
pub struct GhostLink<'a> {
    pub interface: &'a str,
    /// Of the host's end, the same as the primary's.
    pub mac: MacAddress,
    pub guest_mac: MacAddress,
    /// Addresses that steered packets are sent the way to: [`vias`].
    pub vias: &'a [IpAddr],
    /// The primary's: its gateways are the ghost's too.
    pub host_addresses: &'a [Network],
}

/// The host's end of both taps of an instance: the same after each restart of
/// anything, and locally administered.
pub fn host_mac(instance: &InstanceName) -> MacAddress {
    // FNV-1a: a MAC wants to be spread, not secret.
    let hash = instance
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let [a, b, c, d, e, f, ..] = (hash ^ hash >> 32).to_le_bytes();
    MacAddress([a & 0xfc | 0x02, b, c, d, e, f])
}

/// Addresses that the primary has itself, without repetition.
pub fn services(instance: &InstanceSpec) -> Vec<IpAddr> {
    let native = instance
        .routes
        .iter()
        .filter(|route| route.primary == Target::Native)
        .map(|route| route.service.addr);
    unique(native)
}

/// Addresses that stand for the ghost as a next hop, without repetition.
pub fn vias(instance: &InstanceSpec) -> Vec<IpAddr> {
    let via = instance
        .routes
        .iter()
        .filter_map(|route| match route.ghost {
            Target::Via { addr } => Some(addr),
            Target::Native | Target::Translate { .. } => None,
        });
    unique(via)
}

fn unique(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut found: Vec<_> = addresses.collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// A guest gives this host no routes and is asked for none; addresses of ours
/// are nobody else's on a cable of two.
const SETTINGS: [Setting; 3] = [
    ("ipv6/conf", "accept_ra", "0"),
    ("ipv6/conf", "accept_dad", "0"),
    ("ipv6/conf", "router_solicitations", "0"),
];

/// The way back to what a ghost sends from is by the primary's tap; what it
/// asks for is answered at once.
const GHOST_SETTINGS: [Setting; 3] = [
    ("ipv4/conf", "rp_filter", "2"),
    ("ipv6/conf", "proxy_ndp", "1"),
    ("ipv6/neigh", "proxy_delay", "0"),
];

/// Folder below `/proc/sys/net`, key, and value of an interface's setting.
type Setting = (&'static str, &'static str, &'static str);

impl PrimaryLink<'_> {
    /// Blocks, for some milliseconds as a rule; not for a thread that runs tokio.
    pub fn prepare(&self) -> Result<(), LinkError> {
        let link = Link::open(self.interface)?;
        set(self.interface, &SETTINGS)?;
        link.raise(self.mac)?;
        for address in self.host_addresses {
            link.add_address(*address)?;
        }
        for service in self.services {
            if !self.host_addresses.iter().any(|n| covers(n, *service)) {
                link.add_route(*service)?;
            }
        }
        link.check_state(self.mac, self.host_addresses)?;
        for network in self.host_addresses {
            link.await_own(network.addr)?;
        }
        self.services
            .iter()
            .try_for_each(|service| link.check_route(*service))
    }
}

impl GhostLink<'_> {
    /// As [`PrimaryLink::prepare`].
    pub fn prepare(&self) -> Result<(), LinkError> {
        let link = Link::open(self.interface)?;
        set(self.interface, &SETTINGS)?;
        set(self.interface, &GHOST_SETTINGS)?;
        link.raise(self.mac)?;
        for via in self.vias {
            // Before the route: no packet is to find one without the other,
            // and ask the ghost for an address.
            link.add_neighbour(*via, self.guest_mac)?;
            link.add_route(*via)?;
        }
        let own = self.own_addresses();
        for address in &own {
            link.add_address(*address)?;
        }
        let v6 = self.host_addresses.iter().filter(|n| n.addr.is_ipv6());
        for network in v6 {
            link.answer_for(network.addr)?;
        }
        link.check_state(self.mac, &own)?;
        for via in self.vias {
            link.check_route(*via)?;
            link.check_neighbour(*via, self.guest_mac)?;
        }
        Ok(())
    }

    /// IPv4 takes nothing from an interface without an address, whatever its
    /// `rp_filter` (`__fib_validate_source` in net/ipv4/fib_frontend.c). So it
    /// has the primary's too, for itself alone: no network is behind it.
    fn own_addresses(&self) -> Vec<Network> {
        let v4 = self.host_addresses.iter().filter(|n| n.addr.is_ipv4());
        v4.map(|n| Network {
            addr: n.addr,
            prefix: 32,
        })
        .collect()
    }
}

/// Whether an address is in a network.
fn covers(network: &Network, addr: IpAddr) -> bool {
    let prefix = u32::from(network.prefix);
    match (network.addr, addr) {
        (IpAddr::V4(net), IpAddr::V4(addr)) => {
            let rest = 32_u32.saturating_sub(prefix);
            let differ = net.to_bits() ^ addr.to_bits();
            differ.checked_shr(rest).unwrap_or(0) == 0
        }
        (IpAddr::V6(net), IpAddr::V6(addr)) => {
            let rest = 128_u32.saturating_sub(prefix);
            let differ = net.to_bits() ^ addr.to_bits();
            differ.checked_shr(rest).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// Settings of this thread's network namespace. A kernel without IPv6 has
/// none for it, and needs none.
fn set(interface: &str, settings: &[Setting]) -> Result<(), LinkError> {
    for (folder, name, value) in settings {
        let root = Path::new("/proc/sys/net").join(folder);
        let path = root.join(interface).join(name);
        let written = match fs::read_to_string(&path) {
            Ok(now) if now.trim() == *value => continue,
            Ok(_) => fs::write(&path, value),
            Err(e) if e.kind() == io::ErrorKind::NotFound && folder.starts_with("ipv6") => continue,
            Err(e) => Err(e),
        };
        written.map_err(|source| LinkError::Setting {
            path,
            value,
            source,
        })?;
    }
    Ok(())
}
