//! Lanes: plain frames, and VLANs on the client's cable.

use anyhow::Result;

use super::{Leaf, Step};
use crate::{
    host::bpf::{Attached, pop_vlan},
    netns::NetNs,
    topology::{CLIENT_V4, CLIENT_V6, UPLINK},
};

/// How a client's frames are tagged. Each lane has clients of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Plain,
    /// 802.1Q.
    Tagged,
    /// 802.1ad around 802.1Q.
    Double,
}

impl Lane {
    const ALL: [Self; 3] = [Self::Plain, Self::Tagged, Self::Double];

    fn tags(self) -> &'static [u8] {
        match self {
            Self::Plain => &[],
            Self::Tagged => &[0x81, 0x00, 0x60, 10],
            Self::Double => &[0x88, 0xa8, 0, 20, 0x81, 0x00, 0, 30],
        }
    }

    /// Third byte of its clients' IPv4 addresses, third group of their IPv6 ones.
    pub(super) fn subnet(self) -> (u8, u16) {
        match self {
            Self::Plain => (113, 0x99),
            Self::Tagged => (114, 0x9a),
            Self::Double => (115, 0x9b),
        }
    }

    /// Tags the client's frames. Gives nothing if they no longer fit the cable,
    /// which has room for one tag beyond its MTU.
    pub(super) fn tag(self, mut steps: Vec<Step>, mtu: usize) -> Option<Vec<Step>> {
        let tags = self.tags();
        let clients = |step: &&mut Step| step.from == Leaf::Client;
        for step in steps.iter_mut().filter(clients) {
            for frame in &mut step.frames {
                let at = frame.len().min(12);
                frame.splice(at..at, tags.iter().copied());
                if frame.len() > 14 + mtu && self == Self::Double {
                    return None;
                }
            }
        }
        Some(steps)
    }
}

/// Has the host take tags off, as VLAN devices would, and gives it routes to
/// the clients of all lanes. They are answered without tags, in both worlds.
pub(super) fn lay(host: &NetNs) -> Result<Attached> {
    for lane in Lane::ALL {
        let (third, group) = lane.subnet();
        host.ip(&format!("route add 203.0.{third}.0/24 via {CLIENT_V4}"))?;
        host.ip(&format!(
            "-6 route add 2001:db8:{group:x}::/64 via {CLIENT_V6}"
        ))?;
    }
    pop_vlan(host, UPLINK)
}
