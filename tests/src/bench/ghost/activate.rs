//! How fast a suspended ghost does something that others notice.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ghost_guest::pattern::COUNTERS;

use super::rig::{Saved, activate, first_store, ghost};
use crate::{
    bench::report::{Section, Target},
    clock::wait_for,
    microvm::LIMIT,
    netns::NetNs,
};

const MEMORY_MIB: u64 = 64;
const ROUNDS: usize = 30;

const GUEST_MAC: &str = "02:00:00:00:00:77";
const GUEST: (&str, u16) = ("10.77.0.2", 7);

pub(in crate::bench) fn measure() -> Result<Section> {
    let mut section = Section::new("A ghost is activated, 64 MiB, resident");
    let counting = Saved::of(ghost(MEMORY_MIB, "do=spin")?, |memory| {
        Ok(memory.word(COUNTERS)? > 0)
    })?;
    let (mut first, mut told) = (Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        let (us, by_vmm) = first_instruction(&counting)?;
        first.push(us);
        told.push(by_vmm);
    }
    drop(counting);
    let packets = first_packets()?;
    // The first round warms.
    let rest = |values: Vec<f64>| values.into_iter().skip(1).collect::<Vec<f64>>();
    section.row(
        "command to the guest's first store",
        rest(first),
        "us",
        Target::AtMost(300.0),
    );
    section.row(
        "command to KVM_RUN, by the VMM's word",
        rest(told),
        "us",
        Target::None,
    );
    section.row(
        "command to the answer to a waiting datagram",
        rest(packets),
        "us",
        Target::AtMost(1000.0),
    );
    section
        .note("first store: a counter in guest memory, watched through the memfd by another CPU");
    section
        .note("datagram: in the tap's queue before the command; answered by the guest's UDP echo");
    Ok(section)
}

fn first_instruction(saved: &Saved) -> Result<(f64, f64)> {
    let (_vm, client) = saved.ghost()?;
    first_store(&client, MEMORY_MIB)
}

/// A primary serves, is saved, and goes. Each of its ghosts gets a datagram
/// while it is suspended.
fn first_packets() -> Result<Vec<f64>> {
    let ns = NetNs::new("bench")?;
    ns.ip("tuntap add dev tap0 mode tap vnet_hdr")?;
    ns.ip("addr add 10.77.0.1/24 dev tap0")?;
    ns.ip("link set tap0 up")?;
    let (address, port) = GUEST;
    ns.ip(&format!(
        "neigh add {address} lladdr {GUEST_MAC} nud permanent dev tap0"
    ))?;
    let mut spec = ghost(MEMORY_MIB, "do=serve v4=10.77.0.2/24")?;
    let net = ["--tap", "tap0", "--mac", GUEST_MAC];
    spec.more.extend(net.map(str::to_owned));
    ns.run(|| -> Result<Vec<f64>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect((address, port))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        // Serves once, so that it has its neighbours.
        let saved = Saved::of(spec, |_| Ok(asked(&socket)))?;
        socket.set_read_timeout(Some(LIMIT))?;
        (0..=ROUNDS)
            .map(|_| first_packet(&ns, &saved, &socket))
            .collect()
    })?
}

fn first_packet(ns: &NetNs, saved: &Saved, socket: &UdpSocket) -> Result<f64> {
    let (_vm, client) = saved.ghost()?;
    // A tap queues nothing until it has noticed that somebody opened it.
    wait_for("the tap to be up", LIMIT, || {
        let shown = ns.ip("link show dev tap0").ok()?;
        shown.contains("state UP").then_some(())
    })?;
    socket.send(b"waiting")?;
    let start = Instant::now();
    client.send(&activate())?;
    let mut answer = [0; 64];
    loop {
        let length = socket.recv(&mut answer).context("no answer of the ghost")?;
        match answer.get(..length) {
            Some(b"waiting") => return Ok(start.elapsed().as_secs_f64() * 1e6),
            // Late, of the primary.
            Some(b"hello") => {}
            other => bail!("a wrong answer: {other:?}"),
        }
    }
}

fn asked(socket: &UdpSocket) -> bool {
    let mut answer = [0; 64];
    socket.send(b"hello").is_ok() && socket.recv(&mut answer).is_ok()
}
