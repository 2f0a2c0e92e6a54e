//! 100,000 routes of 10,000 instances in a real ghostd: how long it takes to
//! load them, what they weigh, and how the reboot of their host moves them.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use agent_common::abi::{EventKind, names};
use anyhow::{Context, Result, bail, ensure};

use super::{
    frames::{L4, frame},
    pins::{self, Events},
    rig::Behind,
};
use crate::bench::report::{Section, Target};
use crate::{
    clock::wait_for,
    host::{Config, Daemon, LIMIT},
    machine::{How, Machine, MachineSpec, Who},
    oracle::Rng,
    topology::{CLIENT_V4, LEAF, Topology},
    wire::PacketSocket,
};

const INSTANCES: u32 = 10_000;
const ROUTES_EACH: u32 = 10;
const SAMPLE: usize = 200;
/// Hosts that are started and rebooted, of each kind.
const HOSTS: usize = 3;

const MIB: f64 = 1024.0 * 1024.0;

/// A host that steers. Fields end in this order.
struct Fleet {
    daemon: Option<Daemon>,
    host: Machine,
    net: Topology,
    /// From the start of ghostd to its first healthy answer.
    started_in: Duration,
}

/// Service and ghost address of a route.
fn addresses(route: u32) -> [IpAddr; 2] {
    [Behind::Uplink, Behind::Port].map(|side| side.v4(0x1_0000 + route))
}

fn config(instances: u32) -> Result<String> {
    let mut config = Config::standard(None);
    config.limits = vec![
        ("instances", u64::from(instances) + 1),
        ("routes", u64::from(instances * ROUTES_EACH) + 1),
    ];
    for instance in 0..instances {
        let out = &mut config.extra;
        writeln!(out, "\n[[instance]]\nname = \"i{instance}\"")?;
        for route in instance * ROUTES_EACH..(instance + 1) * ROUTES_EACH {
            let [service, ghost] = addresses(route);
            writeln!(
                out,
                "[[instance.route]]\nservice = \"{service}\"\nghost = \"{ghost}\""
            )?;
        }
    }
    Ok(config.text())
}

impl Fleet {
    fn start(instances: u32) -> Result<Self> {
        let net = Topology::new()?;
        net.silence()?;
        net.host.ip("route add 10.0.0.0/10 via 10.77.1.2")?;
        net.host.ip("route add 172.16.0.0/12 via 10.77.2.2")?;
        let spec = MachineSpec {
            name: "host".to_owned(),
            serve: None,
            cgroup: None,
        };
        let host = Machine::start(&net.host, &spec)?;
        let config = config(instances)?;
        let started = Instant::now();
        let daemon = Daemon::start(host.inside(), &config)?;
        Ok(Self {
            started_in: started.elapsed(),
            daemon: Some(daemon),
            host,
            net,
        })
    }

    /// Kills ghostd, reboots its host, and gives the nanoseconds between the
    /// entry of the call and the store that moved everything.
    fn reboot_host(&mut self) -> Result<f64> {
        let mut events = Events::open(self.host.inside())?;
        self.daemon.take().context("ghostd is down")?.kill()?;
        while events.next().is_some() {}
        self.host.reboot(How::Restart, Who::Init)?;
        self.host.ended(LIMIT)?;
        let seen = wait_for("the event of the reboot", LIMIT, || events.next())?;
        ensure!(
            seen.kind == EventKind::HostReboot as u8,
            "the event is {seen:?}"
        );
        Ok((seen.thrown_ns - seen.entered_ns) as f64)
    }

    /// Sends a packet for each of some routes, and wants all at one side.
    fn lands(&self, at: Side, instances: u32) -> Result<()> {
        let client = PacketSocket::open(&self.net.client, LEAF)?;
        let ns = match at {
            Side::Primary => &self.net.primary,
            Side::Ghost => &self.net.ghost,
        };
        let mut arrivals = PacketSocket::open(ns, LEAF)?;
        let mut rng = Rng::new(7);
        for _ in 0..SAMPLE {
            let route = rng.below((instances * ROUTES_EACH) as usize) as u32;
            let [service, ghost] = addresses(route);
            let expected = match at {
                Side::Primary => service,
                Side::Ghost => ghost,
            };
            client.send(&frame(L4::Udp, (CLIENT_V4.into(), 9_000), (service, 53)))?;
            loop {
                let Some(frame) = arrivals.receive(LIMIT)? else {
                    bail!("nothing for {service} came to {expected}");
                };
                if target(&frame.bytes) == Some(expected) {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Side {
    Primary,
    Ghost,
}

/// Destination of an IPv4 frame.
fn target(frame: &[u8]) -> Option<IpAddr> {
    let bytes: [u8; 4] = frame.get(30..34)?.try_into().ok()?;
    (frame.get(12..14)? == [8, 0]).then(|| Ipv4Addr::from(bytes).into())
}

pub(super) fn measure() -> Result<Section> {
    let (mut few_ms, mut many_ms) = (Vec::new(), Vec::new());
    let (mut few_ns, mut many_ns) = (Vec::new(), Vec::new());
    let mut memory = Vec::new();
    let mut rss_mib = 0.0;
    for _ in 0..HOSTS {
        for (instances, ms, ns) in [
            (1, &mut few_ms, &mut few_ns),
            (INSTANCES, &mut many_ms, &mut many_ns),
        ] {
            let mut fleet = Fleet::start(instances)?;
            ms.push(fleet.started_in.as_secs_f64() * 1e3);
            if instances == INSTANCES {
                memory = weigh(&fleet)?;
                rss_mib = rss(fleet.daemon.as_ref().context("ghostd")?.pid())?;
            }
            fleet.lands(Side::Primary, instances)?;
            ns.push(fleet.reboot_host()?);
            fleet.lands(Side::Ghost, instances)?;
        }
    }
    let mut section = Section::new("100,000 routes of 10,000 instances in ghostd");
    let none = Target::None;
    section.row("start with 10 routes, to healthy", few_ms, "ms", none);
    let limit = Target::AtMost(2_000.0);
    section.row(
        "start with 100,000 routes, to healthy",
        many_ms,
        "ms",
        limit,
    );
    let total: f64 = memory.iter().map(|(_, mib)| mib).sum();
    for (name, mib) in memory.into_iter().filter(|(_, mib)| *mib >= 0.5) {
        section.row(format!("kernel memory of {name}"), vec![mib], "MiB", none);
    }
    section.row("kernel memory of all maps", vec![total], "MiB", none);
    section.row("RSS of ghostd with them", vec![rss_mib], "MiB", none);
    for (instances, ns) in [(1, few_ns), (INSTANCES, many_ns)] {
        let us = ns.iter().map(|ns| ns / 1e3).collect();
        let name = format!("host reboots: reboot(2) entry to throw, {instances} instances");
        section.row(name, us, "us", Target::AtMost(10.0));
    }
    section.note(format!(
        "{HOSTS} hosts of each kind, each a PID namespace that really reboots, its ghostd killed \
         before; {SAMPLE} packets for routes at random went to the primaries before, and to \
         their own ghosts after it"
    ));
    section.note("start: read and check the file, load, fill, attach, open the API");
    Ok(section)
}

/// MiB of each map.
fn weigh(fleet: &Fleet) -> Result<Vec<(&'static str, f64)>> {
    names::MAPS
        .into_iter()
        .map(|name| Ok((name, pins::bytes(fleet.host.inside(), name)? as f64 / MIB)))
        .collect()
}

/// Resident memory of a process in MiB.
pub(super) fn rss(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kib: f64 = text
        .lines()
        .find_map(|line| {
            let value = line.strip_prefix("VmRSS:")?;
            value.trim().strip_suffix(" kB")?.parse().ok()
        })
        .with_context(|| format!("no VmRSS in {path}"))?;
    Ok(kib / 1024.0)
}
