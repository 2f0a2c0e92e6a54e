//! How fast a switch is thrown: by the kernel when an instance reboots, and
//! by command.

use std::{
    io::BufReader,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use agent_common::abi::{Switch, names};
use anyhow::{Context, Result, ensure};
use aya::{
    maps::{Array, MapData},
    programs::XdpMode,
};

use super::{
    frames::{L4, frame},
    pins,
    rig::DROP,
    store,
};
use crate::bench::report::{Section, Target};
use crate::{
    bpf::Object,
    clock::{now_ns, wait_for},
    host::{INSTANCE, LIMIT, SOCKET_PATH, Stage, http::Request},
    machine::{How, Who},
    netns::NetNs,
    topology::{CLIENT_V4, GHOST_V4, LEAF, SERVICE_V4},
    wire::{Frame, PacketSocket, Tap},
};

const REBOOTS: usize = 25;
const THROWS: usize = 300;
/// Stores in one timed loop, so that the clock does not count.
const STORES: u32 = 1_000;
const STORE_ROUNDS: usize = 50;

/// Nobody listens there, on either copy.
const PORT: u16 = 9;
/// Where the UDP checksum is, which is left out, and the time of sending.
const CHECKSUM: usize = 40;
const SENT_NS: usize = 42;

pub(super) fn measure() -> Result<Section> {
    // Restored at once: draining is another story.
    let mut stage = Stage::with(|config| config.affinity = "none")?;
    let mut section = Section::new("Throwing a switch");
    reboots(&mut stage, &mut section)?;
    stores(&stage, &mut section)?;
    commands(&stage, &mut section)?;
    Ok(section)
}

fn reboots(stage: &mut Stage, section: &mut Section) -> Result<()> {
    // What comes to the primary is only in the way of the next packet.
    let mut floor = Object::load_floor(&[DROP])?;
    floor.attach(DROP, &stage.world.net.primary, LEAF, XdpMode::Driver)?;
    let mut throws_us = Vec::new();
    let mut firsts_us = Vec::new();
    let mut kernel_us = Vec::new();
    let mut gaps_us = Vec::new();
    for _ in 0..REBOOTS {
        let tap = Tap::start(&stage.world.net.ghost, LEAF)?;
        let sender = Sender::start(&stage.world.net.client)?;
        stage.world.reboot_primary(How::Restart, Who::Init)?;
        let arrived = wait_for("packets at the ghost", LIMIT, || {
            tap.with(|frames| frames.iter().any(ours).then_some(()))
        });
        let gap_ns = sender.stop()?;
        arrived?;
        let seen = stage.wait_event("reboot")?["seen"].clone();
        let word = |name: &str| {
            seen[name]
                .as_u64()
                .with_context(|| format!("{name}: {seen}"))
        };
        let (entered_ns, took_ns) = (word("entered_ns")?, word("throw_took_ns")?);
        let frames = tap.stop()?;
        let first = frames
            .iter()
            .find(|frame| ours(frame))
            .context("the first packet at the ghost")?;
        ensure!(
            first.at_ns > entered_ns,
            "a packet came to the ghost before the reboot, or the event is an old one: {seen}"
        );
        throws_us.push(took_ns as f64 / 1e3);
        firsts_us.push((first.at_ns - entered_ns) as f64 / 1e3);
        let begun_ns = entered_ns.max(sent_ns(first).context("no time in the packet")?);
        kernel_us.push((first.at_ns - begun_ns) as f64 / 1e3);
        gaps_us.push(gap_ns / 1e3);
        stage.world.start_primary()?;
        stage.switch("restore")?;
    }
    let limit = Target::AtMost(10.0);
    section.row(
        "instance reboots: reboot(2) entry to throw",
        throws_us,
        "us",
        limit,
    );
    let name = "  to the first packet at the ghost, kernel time";
    section.row(name, kernel_us, "us", limit);
    let name = "  the same with the wait for a client's packet";
    section.row(name, firsts_us, "us", Target::None);
    let name = "  time between two packets meanwhile";
    section.row(name, gaps_us, "us", Target::None);
    section.note(format!(
        "{REBOOTS} real reboots of an instance in its own PID namespace; entry is the start of \
         the program at the tracepoint. Kernel time to the first packet: from entry, or from \
         that packet's sending if it was later, to its arrival at a packet socket of the ghost"
    ));
    Ok(())
}

/// Whether a frame at the ghost is one of the sender's.
fn ours(frame: &Frame) -> bool {
    let ghost = GHOST_V4.octets();
    frame.bytes.get(30..34) == Some(&ghost) && frame.bytes.get(36..38) == Some(&PORT.to_be_bytes())
}

/// When one of the sender's was sent.
fn sent_ns(frame: &Frame) -> Option<u64> {
    let bytes = frame.bytes.get(SENT_NS..SENT_NS + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// A client that sends one packet after the other, as fast as it can.
struct Sender {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<f64>>,
}

impl Sender {
    fn start(client: &NetNs) -> Result<Self> {
        let socket = PacketSocket::open(client, LEAF)?;
        let mut frame = frame(
            L4::Udp,
            (CLIENT_V4.into(), 9_000),
            (SERVICE_V4.into(), PORT),
        );
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = move || {
            frame[CHECKSUM..CHECKSUM + 2].fill(0);
            let started = Instant::now();
            let mut sent = 0u32;
            while !stopped.load(Ordering::Relaxed) {
                frame[SENT_NS..SENT_NS + 8].copy_from_slice(&now_ns().to_ne_bytes());
                socket.send(&frame)?;
                sent += 1;
            }
            Ok(started.elapsed().as_nanos() as f64 / f64::from(sent.max(1)))
        };
        let thread = thread::Builder::new().name("sender".into()).spawn(work)?;
        Ok(Self { stop, thread })
    }

    /// Gives the mean time between two packets in ns.
    fn stop(self) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// What the store itself costs, on the very map.
fn stores(stage: &Stage, section: &mut Section) -> Result<()> {
    let host = stage.world.host();
    let map = pins::open(host, names::SWITCHES)?;
    let mapped = store::mapped(&map)?;
    let word = mapped.word(0)?;
    let mut array: Array<MapData, Switch> = pins::array(host, names::SWITCHES)?;
    let slot = slot(stage)?;
    let same = array.get(&slot, 0)?;
    let (mut swaps_us, mut calls_us) = (Vec::new(), Vec::new());
    for _ in 0..STORE_ROUNDS {
        let started = Instant::now();
        for _ in 0..STORES {
            store::swap_for_itself(word);
        }
        swaps_us.push(started.elapsed().as_nanos() as f64 / f64::from(STORES) / 1e3);
        let started = Instant::now();
        for _ in 0..STORES {
            array.set(slot, same, 0)?;
        }
        calls_us.push(started.elapsed().as_nanos() as f64 / f64::from(STORES) / 1e3);
    }
    let limit = Target::AtMost(2.0);
    section.row(
        "commanded: the store, to the mapped map as ghostd does",
        swaps_us,
        "us",
        limit,
    );
    section.row(
        "  the same by bpf(2), as an operator's tool does",
        calls_us,
        "us",
        limit,
    );
    Ok(())
}

/// The instance's slot in `gd_switches`.
fn slot(stage: &Stage) -> Result<u32> {
    let slot = stage.shown()?["slot"].as_u64();
    Ok(u32::try_from(slot.context("no slot is shown")?)?)
}

/// One call each, or many over one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    New,
    Kept,
}

fn commands(stage: &Stage, section: &mut Section) -> Result<()> {
    let switches: Array<MapData, Switch> = pins::array(stage.world.host(), names::SWITCHES)?;
    let slot = slot(stage)?;
    for (connection, what) in [
        (Connection::New, "new connection"),
        (Connection::Kept, "kept connection"),
    ] {
        let (mut stored_us, mut answered_us) = (Vec::new(), Vec::new());
        stage.world.host().run(|| -> Result<()> {
            let mut kept = BufReader::new(UnixStream::connect(SOCKET_PATH)?);
            for _ in 0..THROWS {
                let (called_ns, answered_ns) = command("throw", connection, &mut kept)?;
                let moved_ns = switches.get(&slot, 0)?.moved_ns;
                ensure!(
                    (called_ns..answered_ns).contains(&moved_ns),
                    "the call did not move it: {called_ns}, {moved_ns}, {answered_ns}"
                );
                stored_us.push((moved_ns - called_ns) as f64 / 1e3);
                answered_us.push((answered_ns - called_ns) as f64 / 1e3);
                command("restore", connection, &mut kept)?;
            }
            Ok(())
        })??;
        let name = format!("commanded: API call to store, {what}");
        section.row(name, stored_us, "us", Target::AtMost(100.0));
        section.row("  to the answer", answered_us, "us", Target::None);
    }
    section.note(format!(
        "{THROWS} throws of each kind by HTTP over the unix socket: from before connect(2), or \
         before the request is written, to the time that ghostd writes beside the switch right \
         before the store"
    ));
    Ok(())
}

/// When the call began, and when its answer was read.
fn command(
    action: &str,
    connection: Connection,
    kept: &mut BufReader<UnixStream>,
) -> Result<(u64, u64)> {
    let request = Request::post(&format!("/v1/switches/{INSTANCE}/{action}"), None);
    let called_ns = now_ns();
    let response = match connection {
        Connection::New => request.send(UnixStream::connect(SOCKET_PATH)?)?,
        Connection::Kept => request.exchange(kept)?,
    };
    let answered_ns = now_ns();
    ensure!(
        response.status == 200,
        "{action}: {} {}",
        response.status,
        response.text()
    );
    Ok((called_ns, answered_ns))
}
