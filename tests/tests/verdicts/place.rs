//! The network around the programs, made once for all tests: a router with
//! cables, each with a quality of its own. Nothing is ever sent on them: test
//! runs only ask the kernel for routes and neighbours.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
};

use anyhow::Result;
use ghostd_tests::{
    link::{End, cable, mac_text},
    netns::NetNs,
    topology::Family,
};

/// The router's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// Towards clients.
    Uplink,
    /// Towards copies, with room for jumbo frames.
    Wide,
    /// Towards copies, with little room.
    Narrow,
    /// Not one that XDP may send to.
    Unlisted,
    /// Where packets come in and forwarding is off.
    NotForwarding,
}

impl Port {
    pub(crate) const ALL: [Self; 5] = [
        Self::Uplink,
        Self::Wide,
        Self::Narrow,
        Self::Unlisted,
        Self::NotForwarding,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Wide => "wide",
            Self::Narrow => "narrow",
            Self::Unlisted => "unlisted",
            Self::NotForwarding => "stuck",
        }
    }

    pub(crate) const fn mtu(self) -> u32 {
        match self {
            Self::Narrow => 1400,
            _ => 9500,
        }
    }

    /// MAC address of the router's end.
    pub(crate) const fn mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 1, self as u8]
    }

    /// MAC address of everyone at the other end.
    pub(crate) const fn far_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 2, self as u8]
    }
}

/// The host `number` of the network behind `port`; 1 is the router itself.
pub(crate) fn at(family: Family, port: Port, number: u8) -> IpAddr {
    let net = port as u8;
    match family {
        Family::V4 => Ipv4Addr::new(10, 77, net, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x77, net.into(), 0, 0, 0, number.into()).into(),
    }
}

/// Those behind each port whose MAC address the router knows.
pub(crate) const NEIGHBOURS: [u8; 3] = [2, 3, 4];
/// Nobody knows the MAC address of this one.
pub(crate) const STRANGER: u8 = 99;

/// Targets that the routing table refuses, each in its way.
pub(crate) const REFUSALS: [(u8, &str); 3] =
    [(1, "unreachable"), (2, "prohibit"), (3, "blackhole")];

pub(crate) fn refused(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 78, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x78, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The router and what is at the other ends of its cables.
pub(crate) struct Place {
    pub(crate) router: NetNs,
    _far: NetNs,
    indices: [u32; Port::ALL.len()],
}

impl Place {
    /// The one that all tests share.
    pub(crate) fn get() -> &'static Self {
        static PLACE: OnceLock<Place> = OnceLock::new();
        PLACE.get_or_init(|| Self::new().unwrap_or_else(|error| panic!("{error:?}")))
    }

    pub(crate) fn index(&self, port: Port) -> u32 {
        self.indices[port as usize]
    }

    fn new() -> Result<Self> {
        let (router, far) = (NetNs::new("router")?, NetNs::new("far")?);
        // On from the start, so that every interface made later has it on.
        router.sysctl("ipv4/ip_forward", "1")?;
        router.sysctl("ipv6/conf/all/forwarding", "1")?;
        let mut indices = [0; Port::ALL.len()];
        for port in Port::ALL {
            lay(&router, &far, port)?;
            indices[port as usize] = router.ifindex(port.name())?;
        }
        let stuck = Port::NotForwarding.name();
        for family in ["ipv4", "ipv6"] {
            router.sysctl(&format!("{family}/conf/{stuck}/forwarding"), "0")?;
        }
        for family in Family::BOTH {
            for (number, kind) in REFUSALS {
                let target = refused(family, number);
                router.ip(&format!("{} route add {kind} {target}", dash(family)))?;
            }
        }
        Ok(Self {
            router,
            _far: far,
            indices,
        })
    }
}

fn lay(router: &NetNs, far: &NetNs, port: Port) -> Result<()> {
    let interface = port.name();
    let end = |ns, mac| End { ns, interface, mac };
    cable(
        end(router, port.mac()),
        end(far, port.far_mac()),
        port.mtu(),
    )?;
    for family in Family::BOTH {
        let (bits, flags) = match family {
            Family::V4 => (24, ""),
            Family::V6 => (64, "nodad"),
        };
        let own = at(family, port, 1);
        router.ip(&format!("addr add {own}/{bits} dev {interface} {flags}"))?;
        for number in NEIGHBOURS {
            let neighbour = at(family, port, number);
            let mac = mac_text(port.far_mac());
            router.ip(&format!(
                "neigh add {neighbour} lladdr {mac} nud permanent dev {interface}"
            ))?;
        }
    }
    Ok(())
}

const fn dash(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}
