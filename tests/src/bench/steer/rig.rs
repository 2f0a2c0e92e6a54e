//! A host with two cables whose far ends swallow everything, and its own
//! neighbours fixed: nothing on it but what is measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use aya::programs::XdpMode;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::{
    bpf::Object,
    link::{End, cable, mac_text},
    netns::NetNs,
    topology::{
        CLIENT_MAC, CLIENT_V4, CLIENT_V6, GHOST_MAC, GHOST_PORT, GHOST_PORT_MAC, HOST_V4, HOST_V6,
        LEAF, UPLINK, UPLINK_MAC,
    },
};

/// Programs of the floor's object.
pub(super) const EMPTY: &str = "gd_pass";
pub(super) const DROP: &str = "gd_drop";
pub(super) const SEND_BACK: &str = "gd_send_back";
pub(super) const FLOOR: &str = "gd_floor";

/// Which cable an address is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// The one that frames come in by.
    Uplink,
    /// The other.
    Port,
}

impl Behind {
    /// The `index`th address.
    pub(super) fn v4(self, index: u32) -> IpAddr {
        let first = match self {
            Self::Uplink => Ipv4Addr::new(10, 0, 0, 0),
            Self::Port => Ipv4Addr::new(172, 16, 0, 0),
        };
        Ipv4Addr::from(u32::from(first) + index).into()
    }

    pub(super) fn v6(self, index: u32) -> IpAddr {
        let group = match self {
            Self::Uplink => 0x10,
            Self::Port => 0x20,
        };
        let [high, low] = [(index >> 16) as u16, (index & 0xffff) as u16];
        Ipv6Addr::new(0x2001, 0xdb8, group, 0, 0, 0, high, low).into()
    }
}

/// Fields end in this order.
pub(super) struct Rig {
    pub(super) floor: Object,
    pub(super) host: NetNs,
    /// At the other end of the uplink's cable.
    pub(super) near: NetNs,
    /// At the other end of the port's.
    pub(super) far: NetNs,
    pub(super) uplink: u32,
    pub(super) port: u32,
    parked: Vec<NetNs>,
}

impl Rig {
    pub(super) fn new() -> Result<Self> {
        let [host, near, far] = ["host", "near", "far"].map(NetNs::new);
        let (host, near, far) = (host?, near?, far?);
        for (ours, mac, ns, their_mac) in [
            (UPLINK, UPLINK_MAC, &near, CLIENT_MAC),
            (GHOST_PORT, GHOST_PORT_MAC, &far, GHOST_MAC),
        ] {
            let end = |ns, interface, mac| End { ns, interface, mac };
            cable(end(&host, ours, mac), end(ns, LEAF, their_mac), 1500)?;
        }
        address(&host)?;
        let mut floor = Object::load_floor(&[EMPTY, DROP, SEND_BACK, FLOOR])?;
        // A veth has the receive queue that test runs name once XDP is on it.
        floor.attach(EMPTY, &host, UPLINK, XdpMode::Driver)?;
        floor.attach(EMPTY, &host, GHOST_PORT, XdpMode::Driver)?;
        floor.attach(DROP, &near, LEAF, XdpMode::Driver)?;
        floor.attach(DROP, &far, LEAF, XdpMode::Driver)?;
        let (uplink, port) = (host.ifindex(UPLINK)?, host.ifindex(GHOST_PORT)?);
        let mut rig = Self {
            floor,
            host,
            near,
            far,
            uplink,
            port,
            parked: Vec::new(),
        };
        for program in [SEND_BACK, FLOOR] {
            let place = NetNs::new("parking")?;
            rig.floor.attach(program, &place, "lo", XdpMode::Skb)?;
            rig.parked.push(place);
        }
        Ok(rig)
    }

    /// Attaches a program where no packet comes. The kernel patches its table
    /// of direct calls when a program is first attached, or is test-run without
    /// being attached, which takes milliseconds; and all programs are to be
    /// called alike.
    pub(super) fn park(&mut self, object: &mut Object, program: &str) -> Result<()> {
        let place = NetNs::new("parking")?;
        object.attach(program, &place, "lo", XdpMode::Skb)?;
        self.parked.push(place);
        Ok(())
    }

    /// Runs `work` on the host's network and on one CPU.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.host.run(|| {
            stay_on_one_cpu()?;
            work()
        })?
    }

    /// Frames that one of the swallowing ends has received.
    pub(super) fn swallowed(ns: &NetNs) -> Result<u64> {
        let text = ns.ip(&format!("-s -j link show dev {LEAF}"))?;
        let shown: serde_json::Value = serde_json::from_str(&text)?;
        shown[0]["stats64"]["rx"]["packets"]
            .as_u64()
            .with_context(|| format!("no packet count in {text}"))
    }
}

fn address(host: &NetNs) -> Result<()> {
    host.sysctl("ipv4/ip_forward", "1")?;
    host.sysctl("ipv6/conf/all/forwarding", "1")?;
    for line in [
        format!("addr add {HOST_V4}/24 dev {UPLINK}"),
        format!("addr add {HOST_V6}/64 dev {UPLINK} nodad"),
        format!("addr add 10.77.2.1/24 dev {GHOST_PORT}"),
        format!("addr add 2001:db8:77:2::1/64 dev {GHOST_PORT} nodad"),
    ] {
        host.ip(&line)?;
    }
    for (dev, mac, v4, v6, v4_net, v6_net) in [
        (
            UPLINK,
            CLIENT_MAC,
            CLIENT_V4.to_string(),
            CLIENT_V6.to_string(),
            "10.0.0.0/10",
            "2001:db8:10::/48",
        ),
        (
            GHOST_PORT,
            // Not the far end's own, which takes whatever comes: a page that is
            // injected again has to be addressed to the host as it is.
            UPLINK_MAC,
            "10.77.2.2".to_owned(),
            "2001:db8:77:2::2".to_owned(),
            "172.16.0.0/12",
            "2001:db8:20::/48",
        ),
    ] {
        let mac = mac_text(mac);
        for next in [&v4, &v6] {
            host.ip(&format!(
                "neigh replace {next} lladdr {mac} nud permanent dev {dev}"
            ))?;
        }
        host.ip(&format!("route add {v4_net} via {v4}"))?;
        host.ip(&format!("-6 route add {v6_net} via {v6}"))?;
    }
    for key in ["all", "default", UPLINK, GHOST_PORT] {
        host.sysctl(&format!("ipv4/conf/{key}/send_redirects"), "0")?;
    }
    Ok(())
}

/// Keeps the calling thread on the last CPU it may use.
fn stay_on_one_cpu() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("read the CPUs we may use")?;
    let last = (0..CpuSet::count())
        .rev()
        .find(|&cpu| allowed.is_set(cpu).unwrap_or(false))
        .context("no CPU is ours")?;
    let mut one = CpuSet::new();
    one.set(last)?;
    sched_setaffinity(this, &one).context("stay on one CPU")
}
