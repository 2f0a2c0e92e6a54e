//! Interfaces: which XDP program they carry, and which take XDP redirects.

use std::io;

use agent_common::abi::EGRESS_SLOTS;

use super::{
    NLM_F_ACK, NLM_F_DUMP, Netlink, Request,
    wire::{attribute, attribute_u32, attributes, u32_at},
};
use crate::{
    model::{Ifindex, XdpMode},
    steer::error::SteerError,
};

const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
/// `struct ifinfomsg`.
const IFINFO_BYTES: usize = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;

// Generic netlink (include/uapi/linux/genetlink.h), and its `netdev` family
// (Documentation/netlink/specs/netdev.yaml).
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;
const GENL_BYTES: usize = 4;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 4;

/// An XDP program on an interface, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::steer) struct AttachedXdp {
    pub(in crate::steer) mode: XdpMode,
    pub(in crate::steer) program_id: u32,
}

/// Generic netlink's family for devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::steer) struct NetdevFamily {
    id: u16,
    /// The multicast group that reports changes of devices.
    pub(in crate::steer) changes: Option<u32>,
}

fn ifinfo(ifindex: Ifindex) -> [u8; IFINFO_BYTES] {
    let mut fixed = [0; IFINFO_BYTES];
    fixed[4..8].copy_from_slice(&ifindex.get().to_ne_bytes());
    fixed
}

impl Netlink {
    /// `None` if the interface carries no XDP program. With one for each mode
    /// the native one counts: it is the one that sees packets first.
    pub(in crate::steer) fn attached_xdp(
        &mut self,
        ifindex: Ifindex,
    ) -> Result<Option<AttachedXdp>, SteerError> {
        let answer = self
            .get(RTM_GETLINK, &ifinfo(ifindex), &[])
            .map_err(|e| SteerError::Netlink("which XDP program an interface carries", e))?;
        Ok(decode_xdp(answer.get(IFINFO_BYTES..).unwrap_or(&[])))
    }

    /// Takes an XDP program off that was attached over netlink.
    pub(in crate::steer) fn detach_xdp(&mut self, ifindex: Ifindex, flags: u32) -> io::Result<()> {
        let request = Request::new(RTM_SETLINK, NLM_F_ACK, &ifinfo(ifindex)).with_nested(
            IFLA_XDP,
            &[
                (IFLA_XDP_FD, &(-1i32).to_ne_bytes()),
                (IFLA_XDP_FLAGS, &flags.to_ne_bytes()),
            ],
        );
        self.change(request)
    }

    /// `None` before 6.3, which has no such family.
    pub(in crate::steer) fn netdev_family(&mut self) -> Result<Option<NetdevFamily>, SteerError> {
        let fixed = [CTRL_CMD_GETFAMILY, 1, 0, 0];
        match self.get(
            GENL_ID_CTRL,
            &fixed,
            &[(CTRL_ATTR_FAMILY_NAME, b"netdev\0")],
        ) {
            Ok(answer) => Ok(decode_family(answer.get(GENL_BYTES..).unwrap_or(&[]))),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(SteerError::Netlink("which families it has", e)),
        }
    }

    /// `gd_egress`: the devices that take XDP redirects.
    pub(in crate::steer) fn egress(
        &mut self,
        family: NetdevFamily,
    ) -> Result<Vec<u32>, SteerError> {
        let mut slots = vec![0; EGRESS_SLOTS as usize];
        let request = Request::new(family.id, NLM_F_DUMP, &[NETDEV_CMD_DEV_GET, 1, 0, 0]);
        self.ask(request, &mut |payload| {
            let device = payload.get(GENL_BYTES..).unwrap_or(&[]);
            if let Some(ifindex) = redirect_target(device) {
                slots[(ifindex % EGRESS_SLOTS) as usize] = ifindex;
            }
        })
        .map_err(|e| SteerError::Netlink("which devices take XDP redirects", e))?;
        Ok(slots)
    }

    /// Indexes of all veth interfaces.
    pub(in crate::steer) fn veths(&mut self) -> Result<Vec<u32>, SteerError> {
        let mut found = Vec::new();
        let request = Request::new(RTM_GETLINK, NLM_F_DUMP, &[0; IFINFO_BYTES]);
        self.ask(request, &mut |link| found.extend(veth(link)))
            .map_err(|e| SteerError::Netlink("of what kind interfaces are", e))?;
        Ok(found)
    }
}

fn veth(link: &[u8]) -> Option<u32> {
    let ifindex = u32_at(link, 4)?;
    let info = attribute(link.get(IFINFO_BYTES..)?, IFLA_LINKINFO)?;
    let kind = attribute(info, IFLA_INFO_KIND)?;
    (kind.strip_suffix(b"\0").unwrap_or(kind) == b"veth").then_some(ifindex)
}

fn decode_xdp(link: &[u8]) -> Option<AttachedXdp> {
    let xdp = attribute(link, IFLA_XDP)?;
    // enum in include/uapi/linux/if_link.h; 4 is "one for several modes".
    let (mode, id) = match attribute(xdp, IFLA_XDP_ATTACHED)?.first()? {
        1 => (XdpMode::Native, IFLA_XDP_PROG_ID),
        2 => (XdpMode::Generic, IFLA_XDP_PROG_ID),
        3 => (XdpMode::Offloaded, IFLA_XDP_PROG_ID),
        4 => [
            (XdpMode::Native, IFLA_XDP_DRV_PROG_ID),
            (XdpMode::Generic, IFLA_XDP_SKB_PROG_ID),
            (XdpMode::Offloaded, IFLA_XDP_HW_PROG_ID),
        ]
        .into_iter()
        .find(|&(_, id)| attribute(xdp, id).is_some())?,
        _ => return None,
    };
    Some(AttachedXdp {
        mode,
        program_id: attribute_u32(xdp, id)?,
    })
}

fn decode_family(family: &[u8]) -> Option<NetdevFamily> {
    let id = attribute(family, CTRL_ATTR_FAMILY_ID)?;
    let groups = attribute(family, CTRL_ATTR_MCAST_GROUPS).unwrap_or(&[]);
    let changes = attributes(groups)
        .find(|(_, group)| attribute(group, CTRL_ATTR_MCAST_GRP_NAME) == Some(b"mgmt\0"))
        .and_then(|(_, group)| attribute_u32(group, CTRL_ATTR_MCAST_GRP_ID));
    Some(NetdevFamily {
        id: u16::from_ne_bytes(id.try_into().ok()?),
        changes,
    })
}

fn redirect_target(device: &[u8]) -> Option<u32> {
    let ifindex = u32_at(attribute(device, NETDEV_A_DEV_IFINDEX)?, 0)?;
    let features = attribute(device, NETDEV_A_DEV_XDP_FEATURES)?;
    let features = u64::from_ne_bytes(features.try_into().ok()?);
    (features & NETDEV_XDP_ACT_NDO_XMIT != 0).then_some(ifindex)
}
