//! A storm: datagrams at a very high rate, counted on arrival at either copy.
//!
//! Bounded in number and in time. Nothing answers; sender and receivers keep
//! count of every single number, so one lost or doubled datagram shows.

use std::{
    io::IoSlice,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{
        MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt,
    },
};

use crate::{
    clock::{Pace, now_ns},
    machine::{DATAGRAM_BYTES, Datagram},
    netns::NetNs,
};

/// Port of the counting receivers; the machines' own servers are left alone.
pub(super) const STORM_PORT: u16 = 7107;

/// Datagrams a system call sends or takes.
const BATCH: usize = 64;
const LOOK_EVERY: Duration = Duration::from_millis(10);
const RECEIVE_BUFFER_BYTES: usize = 256 << 20;
/// Datagrams of one storm at most: a minute at 100,000 a second.
const COUNT_MAX: u64 = 6_000_000;

/// A storm under way.
#[derive(Debug)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sender: Option<JoinHandle<Result<u64>>>,
    receivers: Vec<JoinHandle<Result<Vec<u8>>>>,
    stop_receivers: Arc<AtomicBool>,
    got: Vec<Arc<AtomicU64>>,
}

/// What became of every datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StormReport {
    pub sent: u64,
    /// Arrivals at each receiver, in the order given.
    pub arrived: Vec<u64>,
    /// Numbers that arrived nowhere; at most the first hundred.
    pub lost: Vec<u64>,
    /// Numbers that arrived more than once; at most the first hundred.
    pub doubled: Vec<u64>,
    pub rate_per_second: u64,
}

impl Storm {
    /// Sends `rate` datagrams a second from `client` to `service`, counted at
    /// each of `receivers` (namespace, address there).
    pub fn start(
        client: &NetNs,
        service: IpAddr,
        rate: u32,
        receivers: &[(&NetNs, IpAddr)],
    ) -> Result<Self> {
        let mut storm = Self {
            stop: Arc::default(),
            sent: Arc::default(),
            sender: None,
            receivers: Vec::new(),
            stop_receivers: Arc::default(),
            got: Vec::new(),
        };
        for (ns, address) in receivers {
            let socket = ns.run(|| bind(SocketAddr::new(*address, STORM_PORT)))??;
            let (stop, got) = (
                Arc::clone(&storm.stop_receivers),
                Arc::<AtomicU64>::default(),
            );
            storm.got.push(Arc::clone(&got));
            let work = move || count(&socket, &stop, &got);
            storm.receivers.push(
                std::thread::Builder::new()
                    .name("storm-in".into())
                    .spawn(work)?,
            );
        }
        let socket = client.run(|| -> Result<UdpSocket> {
            let any = if service.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(SocketAddr::new(service, STORM_PORT))?;
            Ok(socket)
        })??;
        let (stop, sent) = (Arc::clone(&storm.stop), Arc::clone(&storm.sent));
        let work = move || blow(&socket, rate, &stop, &sent);
        storm.sender = Some(
            std::thread::Builder::new()
                .name("storm-out".into())
                .spawn(work)?,
        );
        Ok(storm)
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the storm, waits for what is under way, and accounts for all of it.
    pub fn stop(mut self) -> Result<StormReport> {
        self.stop.store(true, Ordering::Relaxed);
        let sender = self.sender.take().context("a storm stops once")?;
        let took_ns = join(sender)?;
        let sent = self.sent();
        // Either all arrived, or nothing has moved for a while.
        let arrived = || {
            self.got
                .iter()
                .map(|g| g.load(Ordering::Relaxed))
                .sum::<u64>()
        };
        let _ = crate::clock::wait_for("the storm to arrive", Duration::from_secs(2), || {
            (arrived() >= sent).then_some(())
        });
        self.stop_receivers.store(true, Ordering::Relaxed);
        let mut report = StormReport {
            sent,
            arrived: Vec::new(),
            lost: Vec::new(),
            doubled: Vec::new(),
            rate_per_second: sent * 1_000_000_000 / took_ns.max(1),
        };
        let mut times = vec![0_u32; usize::try_from(sent)?];
        for receiver in self.receivers.drain(..) {
            let seen = join(receiver)?;
            report
                .arrived
                .push(seen.iter().map(|&n| u64::from(n)).sum());
            for (total, n) in times.iter_mut().zip(seen) {
                *total += u32::from(n);
            }
        }
        for (number, &n) in times.iter().enumerate() {
            match n {
                0 if report.lost.len() < 100 => report.lost.push(number as u64),
                2.. if report.doubled.len() < 100 => report.doubled.push(number as u64),
                _ => {}
            }
        }
        Ok(report)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.stop_receivers.store(true, Ordering::Relaxed);
    }
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn bind(at: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(at).with_context(|| format!("bind udp {at}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    Ok(socket)
}

/// Sends until told to stop; gives how long it took in ns.
fn blow(socket: &UdpSocket, rate: u32, stop: &AtomicBool, sent: &AtomicU64) -> Result<u64> {
    let started = now_ns();
    let mut pace = Pace::every(Duration::from_secs(1) * BATCH as u32 / rate.max(1));
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let mut next = 0_u64;
    while !stop.load(Ordering::Relaxed) && next < COUNT_MAX {
        let sent_ns = now_ns();
        let packets: Vec<[u8; DATAGRAM_BYTES]> = (next..next + BATCH as u64)
            .map(|number| {
                let side = None;
                Datagram {
                    side,
                    number,
                    sent_ns,
                }
                .encode()
            })
            .collect();
        let mut left = &packets[..];
        while !left.is_empty() {
            let parts: Vec<[IoSlice<'_>; 1]> = left.iter().map(|p| [IoSlice::new(p)]).collect();
            let no_name = vec![None::<SockaddrStorage>; parts.len()];
            let fd = socket.as_raw_fd();
            let flags = MsgFlags::empty();
            match sendmmsg(fd, &mut headers, &parts, no_name, [], flags) {
                Ok(results) => left = &left[results.count()..],
                Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(error) => return Err(error).context("send a batch"),
            }
        }
        next += BATCH as u64;
        sent.store(next, Ordering::Relaxed);
        pace.next();
    }
    ensure!(next < COUNT_MAX, "the storm was not stopped in time");
    Ok(now_ns() - started)
}

/// Counts how often each number arrives.
fn count(socket: &UdpSocket, stop: &AtomicBool, got: &AtomicU64) -> Result<Vec<u8>> {
    let mut seen = vec![0_u8; usize::try_from(COUNT_MAX)?];
    let mut highest = 0;
    let mut buffers = vec![[0_u8; DATAGRAM_BYTES]; BATCH];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    while !stop.load(Ordering::Relaxed) {
        let taken = match take(socket, &mut headers, &mut buffers) {
            Ok(taken) => taken,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("receive a batch"),
        };
        for (buffer, &length) in buffers.iter().zip(&taken) {
            if let Some(datagram) = Datagram::decode(&buffer[..length.min(DATAGRAM_BYTES)]) {
                let place = usize::try_from(datagram.number)?;
                if let Some(times) = seen.get_mut(place) {
                    *times = times.saturating_add(1);
                    highest = highest.max(place + 1);
                }
            }
        }
        got.fetch_add(taken.len() as u64, Ordering::Relaxed);
    }
    seen.truncate(highest);
    Ok(seen)
}

/// Receives a batch; gives the length of each datagram.
fn take(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrStorage>,
    buffers: &mut [[u8; DATAGRAM_BYTES]],
) -> nix::Result<Vec<usize>> {
    let mut parts: Vec<[std::io::IoSliceMut<'_>; 1]> = buffers
        .iter_mut()
        .map(|b| [std::io::IoSliceMut::new(b)])
        .collect();
    let flags = MsgFlags::MSG_WAITFORONE;
    let results = recvmmsg(socket.as_raw_fd(), headers, parts.iter_mut(), flags, None)?;
    Ok(results.map(|result| result.bytes).collect())
}
