//! Next hops: resolved before a switch is thrown, and kept so.
//!
//! Sends nothing itself. The kernel is asked to manage the entry (5.16 and
//! later: it then keeps it resolved for as long as it exists, whether or not
//! this process lives), or else to use it once.

use std::{io, net::IpAddr, num::NonZeroU32};

use super::{
    NLM_F_ACK, Netlink, Request,
    wire::{NLM_F_CREATE, NLM_F_REPLACE, attribute, attribute_u32, u32_at},
};
use crate::{model::Ifindex, steer::error::SteerError};

const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const RTM_GETROUTE: u16 = 26;
/// `struct rtmsg`, and `struct ndmsg`.
const RTMSG_BYTES: usize = 12;
const NDMSG_BYTES: usize = 12;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_VIA: u16 = 18;
const RTN_UNICAST: u8 = 1;
const NDA_DST: u16 = 1;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_USE: u8 = 1;
const NTF_EXT_MANAGED: u32 = 1;

// States of an entry (include/uapi/linux/neighbour.h).
const NUD_REACHABLE: u16 = 0x02;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
/// The states in which the kernel has a link-layer address to send to.
const NUD_VALID: u16 = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | 0x10 | 0x04 | 0x08;

/// Where packets to some address go next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    pub ifindex: Ifindex,
    pub addr: IpAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    state: u16,
    managed: bool,
}

/// How far a next hop is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::steer) enum Warmth {
    /// The kernel has its link-layer address.
    Warm,
    /// The kernel was asked to find it.
    Asked,
}

fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn parse_addr(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn ndmsg(hop: &NextHop, flags: u8) -> [u8; NDMSG_BYTES] {
    let mut fixed = [0; NDMSG_BYTES];
    fixed[0] = family(hop.addr);
    fixed[4..8].copy_from_slice(&hop.ifindex.get().to_ne_bytes());
    fixed[10] = flags;
    fixed
}

impl Netlink {
    /// The next hop of the way to `addr`; `None` if there is none to resolve:
    /// no route, or the address is this host's own.
    pub(in crate::steer) fn next_hop(
        &mut self,
        addr: IpAddr,
    ) -> Result<Option<NextHop>, SteerError> {
        let bytes = octets(addr);
        let mut fixed = [0; RTMSG_BYTES];
        fixed[0] = family(addr);
        fixed[1] = u8::try_from(bytes.len() * 8).unwrap_or(0);
        match self.get(RTM_GETROUTE, &fixed, &[(RTA_DST, &bytes)]) {
            Ok(answer) => Ok(decode_route(&answer, addr)),
            Err(e) if is_no_route(&e) => Ok(None),
            Err(e) => Err(SteerError::Netlink("the way to a target", e)),
        }
    }

    fn neighbour(&mut self, hop: &NextHop) -> io::Result<Option<Entry>> {
        let dst = octets(hop.addr);
        match self.get(RTM_GETNEIGH, &ndmsg(hop, 0), &[(NDA_DST, &dst)]) {
            Ok(answer) => Ok(decode_neighbour(&answer)),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Has the kernel resolve a next hop and keep it resolved.
    pub(in crate::steer) fn warm(&mut self, hop: &NextHop) -> Result<Warmth, SteerError> {
        let fail = |e| SteerError::Netlink("about a neighbour", e);
        let entry = self.neighbour(hop).map_err(fail)?;
        let state = entry.map_or(0, |e| e.state);
        let warm = if state & NUD_VALID != 0 {
            Warmth::Warm
        } else {
            Warmth::Asked
        };
        // An entry that somebody set by hand never changes, and asking the
        // kernel to manage it would undo that.
        if state & (NUD_PERMANENT | NUD_NOARP) != 0 || entry.is_some_and(|e| e.managed) {
            return Ok(warm);
        }
        match self.set_managed(hop, NTF_EXT_MANAGED) {
            Ok(()) => Ok(warm),
            // The interface went away in between; its news are on their way.
            Err(e) if is_gone(&e) => Ok(warm),
            // Kernels before 5.16 know neither the attribute nor the flag.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && warm == Warmth::Asked => {
                self.use_once(hop).map_err(fail)?;
                Ok(warm)
            }
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(warm),
            Err(e) => Err(fail(e)),
        }
    }

    /// Leaves a next hop to the kernel's ordinary ageing again.
    pub(in crate::steer) fn unmanage(&mut self, hop: &NextHop) -> Result<(), SteerError> {
        let fail = |e| SteerError::Netlink("about a neighbour", e);
        if self
            .neighbour(hop)
            .map_err(fail)?
            .is_some_and(|e| e.managed)
        {
            let request = neigh_request(hop, NTF_USE);
            self.change(request).map_err(fail)?;
        }
        Ok(())
    }

    fn set_managed(&mut self, hop: &NextHop, flags: u32) -> io::Result<()> {
        let request = neigh_request(hop, 0).with(NDA_FLAGS_EXT, &flags.to_ne_bytes());
        self.change(request)
    }

    fn use_once(&mut self, hop: &NextHop) -> io::Result<()> {
        self.change(neigh_request(hop, NTF_USE))
    }
}

fn neigh_request(hop: &NextHop, flags: u8) -> Request {
    let request_flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    Request::new(RTM_NEWNEIGH, request_flags, &ndmsg(hop, flags)).with(NDA_DST, &octets(hop.addr))
}

/// The entry or its interface is no more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn is_no_route(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EACCES
                | libc::EINVAL
                | libc::ESRCH
                | libc::ENETDOWN
        )
    )
}

fn decode_route(route: &[u8], to: IpAddr) -> Option<NextHop> {
    // `rtm_type`: anything but unicast ends here.
    if *route.get(7)? != RTN_UNICAST {
        return None;
    }
    let attributes = route.get(RTMSG_BYTES..)?;
    let ifindex = NonZeroU32::new(attribute_u32(attributes, RTA_OIF)?)?;
    // `struct rtvia`: the family, then the address.
    let via = attribute(attributes, RTA_VIA).and_then(|v| v.get(2..));
    let gateway = attribute(attributes, RTA_GATEWAY).or(via);
    Some(NextHop {
        ifindex: Ifindex(ifindex),
        addr: match gateway {
            Some(bytes) => parse_addr(bytes)?,
            None => to,
        },
    })
}

fn decode_neighbour(entry: &[u8]) -> Option<Entry> {
    let state = u32_at(entry, 8)?.to_ne_bytes();
    let attributes = entry.get(NDMSG_BYTES..)?;
    let flags = attribute_u32(attributes, NDA_FLAGS_EXT).unwrap_or(0);
    Some(Entry {
        state: u16::from_ne_bytes([state[0], state[1]]),
        managed: flags & NTF_EXT_MANAGED != 0,
    })
}
