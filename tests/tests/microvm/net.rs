//! The payload behind a tap.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use ghostd_tests::{
    clock::wait_for,
    microvm::{LIMIT, MicroVm, Spec, is_possible},
    netns::NetNs,
};
use nix::sys::{
    signal::Signal,
    socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};
use serde_json::{Value, json};

use crate::{held, refusals::refused};

/// A namespace with a tap, and a payload that serves behind it.
pub(crate) fn wired() -> Result<(NetNs, Spec)> {
    let ns = NetNs::new("microvm")?;
    ns.ip("tuntap add dev tap0 mode tap vnet_hdr")?;
    ns.ip("addr add 10.77.0.1/24 dev tap0")?;
    ns.ip("addr add fd77::1/64 dev tap0 nodad")?;
    ns.ip("link set tap0 up")?;
    let mut spec = held("do=serve v4=10.77.0.2/24 v6=fd77::2/64")?;
    spec.more = ["--tap", "tap0", "--mac", "02:00:00:00:00:77"]
        .map(str::to_owned)
        .to_vec();
    Ok((ns, spec))
}

/// It serves by the time this returns.
pub(crate) fn serving() -> Result<(NetNs, MicroVm)> {
    let (ns, spec) = wired()?;
    let vm = ns.run(|| MicroVm::start(&spec))??;
    wait_for("the payload to serve", LIMIT, || {
        vm.console().contains("serving").then_some(())
    })
    .with_context(|| vm.console())?;
    Ok((ns, vm))
}

/// One echo request, and its reply with the same content. The kernel fills in
/// identifier and checksum, and checks those of the reply.
pub(crate) fn ping(ns: &NetNs, address: &str) -> Result<()> {
    let address: IpAddr = address.parse()?;
    let (family, protocol, request, reply) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    ns.sysctl("ipv4/ping_group_range", "0 0")?;
    ns.run(|| -> Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = UdpSocket::from(socket(family, SockType::Datagram, flags, protocol)?);
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect((address, 0))?;
        let mut sent = vec![request, 0, 0, 0, 0, 0, 0, 1];
        sent.extend(0..=255);
        socket.send(&sent)?;
        let mut answer = [0; 1024];
        let length = socket.recv(&mut answer)?;
        assert_eq!(answer[0], reply, "an echo reply of {address}");
        assert_eq!(answer[6..length], sent[6..]);
        Ok(())
    })?
}

#[test]
fn a_payload_on_a_tap_answers_pings_and_echoes() -> Result<()> {
    if !is_possible("a_payload_on_a_tap_answers_pings_and_echoes") {
        return Ok(());
    }
    let (ns, vm) = serving()?;
    ping(&ns, "10.77.0.2")?;
    ping(&ns, "fd77::2")?;
    for server in ["10.77.0.2:7", "[fd77::2]:7"] {
        let server: SocketAddr = server.parse()?;
        let mine: SocketAddr = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        }
        .parse()?;
        ns.run(|| -> Result<()> {
            let socket = UdpSocket::bind(mine)?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.connect(server)?;
            // Up to the largest that is not cut into fragments.
            for length in (0..500).chain([1400, 1452]) {
                let sent: Vec<u8> = (0..length).map(|at: usize| (at ^ length) as u8).collect();
                socket.send(&sent)?;
                let mut answer = [0; 2048];
                let length = socket.recv(&mut answer)?;
                ensure!(
                    answer[..length] == sent,
                    "{} bytes came back wrong",
                    sent.len()
                );
            }
            Ok(())
        })??;
    }
    let net = vm.connect()?.ask("status")?.json["net"].clone();
    assert!(net["sent"].as_u64() >= Some(1000), "{net}");
    assert_eq!(
        (&net["send_dropped"], &net["broken"]),
        (&json!(0), &json!(0))
    );
    let neighbours = ns.ip("neigh show dev tap0")?;
    assert!(neighbours.contains("02:00:00:00:00:77"), "{neighbours}");
    Ok(())
}

#[test]
fn a_guest_that_writes_nonsense_to_its_device_harms_nobody() -> Result<()> {
    if !is_possible("a_guest_that_writes_nonsense_to_its_device_harms_nobody") {
        return Ok(());
    }
    let ns = NetNs::new("microvm")?;
    ns.ip("tuntap add dev tap0 mode tap vnet_hdr")?;
    ns.ip("link set tap0 up")?;
    let mut broken = 0;
    for seed in 1..=8 {
        let mut spec = held(&format!("do=nonsense seed={seed}"))?;
        spec.more = ["--tap", "tap0", "--mac", "02:00:00:00:00:77"]
            .map(str::to_owned)
            .to_vec();
        let mut vm = ns.run(|| MicroVm::start(&spec))??;
        let ended = loop {
            let event = vm.event()?;
            if event["event"] == "ended" {
                break event;
            }
        };
        assert_eq!(ended["reason"], "reset", "seed {seed}: {}", vm.console());
        let line = format!("nonsense {seed} written");
        assert!(vm.console().contains(&line), "{}", vm.console());
        let status = vm.connect()?.ask("status")?.json;
        assert_eq!(status["state"], "ended");
        broken += status["net"]["broken"].as_u64().context("a count")?;
    }
    assert!(broken > 0, "no nonsense reached a queue");
    Ok(())
}

#[test]
fn a_tap_outlives_a_killed_vmm_and_serves_the_next() -> Result<()> {
    if !is_possible("a_tap_outlives_a_killed_vmm_and_serves_the_next") {
        return Ok(());
    }
    let (ns, vm) = serving()?;
    let mut second = held("do=serve v4=10.77.0.2/24")?;
    second.more = ["--tap", "tap0", "--mac", "02:00:00:00:00:78"]
        .map(str::to_owned)
        .to_vec();
    let busy = ns.run(|| MicroVm::run(&second))??;
    assert_eq!(busy.status.code(), Some(2), "{}", busy.said);
    assert!(
        busy.said.contains("tap0") && busy.said.contains("busy"),
        "{}",
        busy.said
    );
    assert_eq!(busy.left, [] as [&str; 0]);
    vm.signal(Signal::SIGKILL)?;
    vm.ended()?;
    let next = ns.run(|| MicroVm::start(&second))??;
    wait_for("the payload to serve", LIMIT, || {
        next.console().contains("serving").then_some(())
    })?;
    ns.ip("neigh flush dev tap0")?;
    ping(&ns, "10.77.0.2")?;
    Ok(())
}

#[test]
fn a_tap_that_is_none_is_refused_and_none_is_made() -> Result<()> {
    if !is_possible("a_tap_that_is_none_is_refused_and_none_is_made") {
        return Ok(());
    }
    let ns = NetNs::new("microvm")?;
    let net = |spec: &mut Spec, tap: &str| {
        spec.more = ["--tap", tap, "--mac", "02:00:00:00:00:77"]
            .map(str::to_owned)
            .to_vec();
    };
    ns.run(|| -> Result<()> {
        refused(|spec| net(spec, "tap9"), &["tap9", "No such device"])?;
        refused(|spec| net(spec, "lo"), &["the tap lo", "Invalid argument"])?;
        Ok(())
    })??;
    let names: Vec<String> = ns.interfaces()?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["lo"]);
    Ok(())
}

#[test]
fn frames_for_a_paused_guest_wait_and_are_not_lost() -> Result<()> {
    if !is_possible("frames_for_a_paused_guest_wait_and_are_not_lost") {
        return Ok(());
    }
    let (ns, vm) = serving()?;
    let client = vm.connect()?;
    // Each knows the other's address from here on.
    ping(&ns, "10.77.0.2")?;
    client.ask("pause")?;
    let received =
        || -> Result<Value> { Ok(client.ask("status")?.json["net"]["received"].clone()) };
    let before = received()?;
    ns.run(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect("10.77.0.2:7")?;
        for number in 0..20_u8 {
            socket.send(&[number; 32])?;
        }
        for _ in 0..50 {
            assert_eq!(received()?, before, "a paused guest got a frame");
        }
        client.ask("resume")?;
        for number in 0..20_u8 {
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer)?;
            assert_eq!(answer[..length], [number; 32]);
        }
        Ok(())
    })?
}
