//! The standard topology, and everything's address.
//!
//! ```text
//!   client eth0 ---- eth0 host p0 ---- eth0 primary   owns the service address
//!                         host g0 ---- eth0 ghost     has an address of its own
//! ```
//! Each `----` is a cable (veth); all have both families. The host forwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::{
    link::{End, cable, mac_text},
    netns::NetNs,
};

pub const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0x10);
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub const GHOST_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
pub const GHOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 2, 0, 0, 0, 2);

/// Interfaces of the host.
pub const UPLINK: &str = "eth0";
pub const PRIMARY_PORT: &str = "p0";
pub const GHOST_PORT: &str = "g0";
/// The only interface of everyone else.
pub const LEAF: &str = "eth0";

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0c];
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x1c];
pub const PRIMARY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0a];
pub const PRIMARY_PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x1a];
pub const GHOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];
pub const GHOST_PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x1b];

/// Default TTL and hop limit of each copy, so that a ping tells who answered.
pub const PRIMARY_TTL: u8 = 64;
pub const GHOST_TTL: u8 = 200;

/// Address family of a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn service(self) -> IpAddr {
        match self {
            Self::V4 => SERVICE_V4.into(),
            Self::V6 => SERVICE_V6.into(),
        }
    }

    pub fn ghost(self) -> IpAddr {
        match self {
            Self::V4 => GHOST_V4.into(),
            Self::V6 => GHOST_V6.into(),
        }
    }
}

/// The four networks, cabled.
#[derive(Debug)]
pub struct Topology {
    pub client: NetNs,
    pub host: NetNs,
    pub primary: NetNs,
    pub ghost: NetNs,
}

impl Topology {
    pub fn new() -> Result<Self> {
        Self::with_mtu(1500)
    }

    /// `mtu` is that of the cables to client and primary; the ghost's is 1500
    /// or less.
    pub fn with_mtu(mtu: u32) -> Result<Self> {
        let topology = Self {
            client: NetNs::new("client")?,
            host: NetNs::new("host")?,
            primary: NetNs::new("primary")?,
            ghost: NetNs::new("ghost")?,
        };
        lay_client(&topology.client, &topology.host, mtu)?;
        topology.lay_primary(mtu)?;
        topology.lay_ghost(mtu.min(1500))?;
        forward(&topology.host)?;
        Ok(topology)
    }

    fn lay_primary(&self, mtu: u32) -> Result<()> {
        let (primary, host) = (&self.primary, &self.host);
        let port = end(host, PRIMARY_PORT, PRIMARY_PORT_MAC);
        cable(port, end(primary, LEAF, PRIMARY_MAC), mtu)?;
        host.ip(&format!("addr add 10.77.1.1/24 dev {PRIMARY_PORT}"))?;
        host.ip(&format!(
            "addr add 2001:db8:77:1::1/64 dev {PRIMARY_PORT} nodad"
        ))?;
        // The service address first, so that it is the preferred source.
        primary.ip(&format!("addr add {SERVICE_V4}/32 dev {LEAF}"))?;
        primary.ip(&format!("addr add {SERVICE_V6}/128 dev {LEAF} nodad"))?;
        primary.ip(&format!("addr add 10.77.1.2/24 dev {LEAF}"))?;
        primary.ip(&format!("addr add 2001:db8:77:1::2/64 dev {LEAF} nodad"))?;
        primary.ip("route add default via 10.77.1.1")?;
        primary.ip("-6 route add default via 2001:db8:77:1::1")?;
        host.ip(&format!("route add {SERVICE_V4}/32 via 10.77.1.2"))?;
        host.ip(&format!(
            "-6 route add {SERVICE_V6}/128 via 2001:db8:77:1::2"
        ))?;
        set_ttl(primary, PRIMARY_TTL)
    }

    fn lay_ghost(&self, mtu: u32) -> Result<()> {
        let (ghost, host) = (&self.ghost, &self.host);
        let port = end(host, GHOST_PORT, GHOST_PORT_MAC);
        cable(port, end(ghost, LEAF, GHOST_MAC), mtu)?;
        host.ip(&format!("addr add 10.77.2.1/24 dev {GHOST_PORT}"))?;
        host.ip(&format!(
            "addr add 2001:db8:77:2::1/64 dev {GHOST_PORT} nodad"
        ))?;
        ghost.ip(&format!("addr add {GHOST_V4}/24 dev {LEAF}"))?;
        ghost.ip(&format!("addr add {GHOST_V6}/64 dev {LEAF} nodad"))?;
        ghost.ip("route add default via 10.77.2.1")?;
        ghost.ip("-6 route add default via 2001:db8:77:2::1")?;
        set_ttl(ghost, GHOST_TTL)
    }

    /// Makes everyone but the host deaf and dumb, with its neighbours fixed and
    /// its own chatter off: what is on the wire is what a test put there, and
    /// what the host made of it.
    pub fn silence(&self) -> Result<()> {
        for leaf in [&self.client, &self.primary, &self.ghost] {
            leaf.ip(&format!("addr flush dev {LEAF}"))?;
            leaf.sysctl(&format!("ipv6/conf/{LEAF}/disable_ipv6"), "1")?;
        }
        for (interface, address, mac) in [
            (UPLINK, "192.0.2.2", CLIENT_MAC),
            (UPLINK, "192.0.2.9", CLIENT_MAC),
            (UPLINK, "2001:db8:1::2", CLIENT_MAC),
            (PRIMARY_PORT, "10.77.1.2", PRIMARY_MAC),
            (PRIMARY_PORT, "10.77.1.9", PRIMARY_MAC),
            (PRIMARY_PORT, "2001:db8:77:1::2", PRIMARY_MAC),
            (GHOST_PORT, "10.77.2.2", GHOST_MAC),
            (GHOST_PORT, "10.77.2.9", GHOST_MAC),
            (GHOST_PORT, "2001:db8:77:2::2", GHOST_MAC),
        ] {
            let mac = mac_text(mac);
            self.host.ip(&format!(
                "neigh replace {address} lladdr {mac} nud permanent dev {interface}"
            ))?;
        }
        for key in ["all", "default", UPLINK, PRIMARY_PORT, GHOST_PORT] {
            self.host
                .sysctl(&format!("ipv4/conf/{key}/send_redirects"), "0")?;
        }
        // Errors are never rate-limited, and carry no random flow label.
        self.host.sysctl("ipv4/icmp_ratemask", "0")?;
        self.host.sysctl("ipv6/icmp/ratelimit", "0")?;
        self.host.sysctl("ipv6/auto_flowlabels", "0")
    }
}

/// The client's cable to the host, and its way to everything behind it.
pub(crate) fn lay_client(client: &NetNs, host: &NetNs, mtu: u32) -> Result<()> {
    cable(
        end(host, UPLINK, UPLINK_MAC),
        end(client, LEAF, CLIENT_MAC),
        mtu,
    )?;
    host.ip(&format!("addr add {HOST_V4}/24 dev {UPLINK}"))?;
    host.ip(&format!("addr add {HOST_V6}/64 dev {UPLINK} nodad"))?;
    client.ip(&format!("addr add {CLIENT_V4}/24 dev {LEAF}"))?;
    client.ip(&format!("addr add {CLIENT_V6}/64 dev {LEAF} nodad"))?;
    client.ip(&format!("route add default via {HOST_V4}"))?;
    client.ip(&format!("-6 route add default via {HOST_V6}"))?;
    client.sysctl("ipv4/ping_group_range", "0 2147483647")
}

pub(crate) fn forward(host: &NetNs) -> Result<()> {
    host.sysctl("ipv4/ip_forward", "1")?;
    host.sysctl("ipv6/conf/all/forwarding", "1")
}

fn end<'a>(ns: &'a NetNs, interface: &'a str, mac: [u8; 6]) -> End<'a> {
    End { ns, interface, mac }
}

fn set_ttl(ns: &NetNs, ttl: u8) -> Result<()> {
    ns.sysctl("ipv4/ip_default_ttl", &ttl.to_string())?;
    ns.sysctl(&format!("ipv6/conf/{LEAF}/hop_limit"), &ttl.to_string())
}
