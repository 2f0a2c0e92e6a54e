//! The harness itself, against the kernel alone: nftables does the steering.

use std::{net::UdpSocket, process::Command, time::Duration};

use ghostd_tests::{
    clock::wait_for,
    host::{World, bpf, nft},
    machine::{How, Side, Who},
    netns::NetNs,
    topology::{Family, LEAF, Topology, UPLINK},
    traffic,
    wire::{Tap, payload_of},
};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_namespace_is_gone_with_its_last_holder() -> anyhow::Result<()> {
    let watcher = NetNs::new("watcher")?;
    let short = NetNs::new("short")?;
    watcher.ip(&format!(
        "link add v0 type veth peer name v1 netns {}",
        short.path().display()
    ))?;
    assert!(watcher.ifindex("v0").is_ok());
    drop(short);
    // A veth ends with its peer, and the peer with its namespace.
    wait_for("the veth to go", LIMIT, || {
        watcher.ifindex("v0").is_err().then_some(())
    })?;
    Ok(())
}

#[test]
fn nothing_is_left_behind_even_after_a_panic() -> anyhow::Result<()> {
    let before = Census::take()?;
    let panicked = std::panic::catch_unwind(|| {
        let world = World::new().expect("a world");
        assert_ne!(Census::take().expect("a census"), before);
        let _ = world.primary_cgroup();
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    wait_for("processes to be reaped", LIMIT, || {
        Census::take().ok().filter(|now| *now == before)
    })?;
    Ok(())
}

/// What a test could leave behind on the machine.
#[derive(Debug, PartialEq, Eq)]
struct Census {
    children: Vec<String>,
    interfaces: Vec<String>,
    namespace_names: usize,
    mounts: usize,
    descriptors: usize,
}

impl Census {
    fn take() -> anyhow::Result<Self> {
        let own = std::process::id();
        let mut children = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{own}/task"))? {
            let path = task?.path().join("children");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            children.extend(text.split_ascii_whitespace().map(str::to_owned));
        }
        Ok(Self {
            children,
            interfaces: std::fs::read_dir("/sys/class/net")?
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .collect(),
            namespace_names: std::fs::read_dir("/run/netns").map_or(0, Iterator::count),
            mounts: std::fs::read_to_string("/proc/self/mountinfo")?
                .lines()
                .count(),
            descriptors: std::fs::read_dir("/proc/self/fd")?.count(),
        })
    }
}

#[test]
fn programs_and_sockets_live_inside() -> anyhow::Result<()> {
    let topology = Topology::new()?;
    let shown = topology
        .ghost
        .command(Command::new("ip").args(["-o", "addr"]))?;
    assert!(shown.contains("10.77.2.2/24"), "{shown}");
    assert!(!shown.contains("198.51.100.10"), "{shown}");
    let server = topology.ghost.run(|| UdpSocket::bind("10.77.2.2:9"))??;
    let client = topology.client.run(|| UdpSocket::bind("192.0.2.2:9"))??;
    server.set_read_timeout(Some(LIMIT))?;
    client.send_to(b"inside", "10.77.2.2:9")?;
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer)?;
    assert_eq!(
        (&buffer[..length], from),
        (&b"inside"[..], "192.0.2.2:9".parse()?)
    );
    Ok(())
}

#[test]
fn a_machine_reboots_for_real_and_comes_back() -> anyhow::Result<()> {
    let mut world = World::new()?;
    for (how, who, signal) in [
        (How::Restart, Who::Init, libc_signal::HUP),
        (How::Restart2, Who::Child, libc_signal::HUP),
        (How::Halt, Who::Child, libc_signal::INT),
        (How::PowerOff, Who::Init, libc_signal::INT),
    ] {
        let client = traffic::udp(&world.net.client, Family::V4.service(), 1000)?;
        client.wait_answers(Side::Primary, 5, LIMIT)?;
        let (_, ending) = world.reboot_primary(how, who)?;
        assert_eq!(ending.signal, Some(signal), "{how:?} by {who:?}");
        world.start_primary()?;
        client.wait_answers(Side::Primary, 5, LIMIT)?;
    }
    Ok(())
}

/// Signals by which the kernel tells how a PID namespace ended.
mod libc_signal {
    pub(crate) const HUP: i32 = 1;
    pub(crate) const INT: i32 = 2;
}

#[test]
fn harmless_and_unprivileged_reboot_calls_end_nothing() -> anyhow::Result<()> {
    let mut world = World::new()?;
    let einval = Some(22);
    let eperm = Some(1);
    for (how, who, errno) in [
        (How::CadOff, Who::Init, einval),
        (How::CadOn, Who::Child, einval),
        (How::Restart, Who::Nobody, eperm),
    ] {
        let primary = world.primary()?;
        primary.reboot(how, who)?;
        assert_eq!(primary.survived(LIMIT)?, errno, "{how:?} by {who:?}");
    }
    let client = traffic::udp(&world.net.client, Family::V6.service(), 1000)?;
    client.wait_answers(Side::Primary, 5, LIMIT)?;
    Ok(())
}

#[test]
fn every_client_tells_who_answers() -> anyhow::Result<()> {
    let world = World::new()?;
    for family in Family::BOTH {
        for (server, side) in [
            (family.service(), Side::Primary),
            (family.ghost(), Side::Ghost),
        ] {
            let ns = &world.net.client;
            for client in [
                traffic::udp(ns, server, 500)?,
                traffic::ping(ns, server, 500)?,
                traffic::long_lived(ns, server, 500)?,
                traffic::short_lived(ns, server, 500)?,
                traffic::http(ns, server, 500)?,
            ] {
                client.wait_answers(side, 3, LIMIT)?;
                let name = client.name().to_owned();
                let record = client.stop();
                assert!(
                    record.iter().all(|e| e.answered_by() == Some(side)),
                    "{name}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_kernels_nat_moves_new_connections_to_the_ghost() -> anyhow::Result<()> {
    let world = World::new()?;
    let tap = Tap::start(&world.net.ghost, LEAF)?;
    nft::steer_to_ghost(&world.net.host)?;
    for family in Family::BOTH {
        let client = traffic::udp(&world.net.client, family.service(), 1000)?;
        client.wait_answers(Side::Ghost, 10, LIMIT)?;
        let record = client.stop();
        assert!(record.iter().all(|e| e.answered_by() == Some(Side::Ghost)));
    }
    assert!(tap.stop()?.iter().filter_map(payload_of).count() >= 20);
    nft::stop_steering(&world.net.host)?;
    let client = traffic::http(&world.net.client, Family::V4.service(), 100)?;
    client.wait_answers(Side::Primary, 3, LIMIT)?;
    Ok(())
}

#[test]
fn a_storm_accounts_for_every_datagram() -> anyhow::Result<()> {
    let world = World::new()?;
    let service = Family::V4.service();
    let receivers = [
        (&world.net.primary, service),
        (&world.net.ghost, Family::V4.ghost()),
    ];
    let storm = traffic::Storm::start(&world.net.client, service, 100_000, &receivers)?;
    wait_for("100,000 datagrams", LIMIT, || {
        (storm.sent() > 100_000).then_some(())
    })?;
    let report = storm.stop()?;
    assert_eq!(report.arrived, [report.sent, 0]);
    assert!(
        report.lost.is_empty() && report.doubled.is_empty(),
        "{report:?}"
    );
    Ok(())
}

#[test]
fn a_foreign_program_is_there_as_long_as_its_value() -> anyhow::Result<()> {
    let topology = Topology::new()?;
    let shown = || topology.host.ip(&format!("-d link show dev {UPLINK}"));
    let foreign = bpf::foreign_xdp(&topology.host, UPLINK, "their_firewall")?;
    assert!(shown()?.contains("their_firewall"), "{}", shown()?);
    drop(foreign);
    assert!(!shown()?.contains("their_firewall"), "{}", shown()?);
    Ok(())
}
