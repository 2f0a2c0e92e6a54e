//! The question that a drilled guest is asked, by a client that is all of its
//! network.
//!
//! Owns: the conversation. It has the host's address on the guest's link, so
//! that a guest whose memory knows its gateway finds it where it was.
//!
//! Refuses: to start or end a guest. How it fails: a guest that does not
//! answer is a finding, not an error.

mod cord;
mod judge;

use std::{
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use smoltcp::{
    iface::{
        Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
        SocketStorage,
    },
    socket::{tcp, udp},
    time::Instant as NetInstant,
    wire::{EthernetAddress, IpAddress, IpCidr},
};

pub(crate) use self::cord::Cord;
use self::judge::{Judged, judge, quoted};
use super::error::GhostError;
use crate::model::{Health, MacAddress, Network, Protocol};

/// Of an answer, no more is taken in; what is expected has at most 1 KiB.
const ANSWER_BYTES_MAX: usize = 2048;
/// Between two attempts: a guest from an image may need its time to listen.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const FRAMES_AT_ONCE: usize = 32;
/// Ports of ours, as a system would take them by chance.
const PORT_FIRST: u16 = 49152;

/// Whom the guest sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) mac: MacAddress,
    /// The first of the question's family is where it comes from.
    pub(crate) addresses: &'a [Network],
    /// By chance: ports and sequence numbers that no earlier client had.
    pub(crate) seed: u64,
}

/// What became of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    Answered(Duration),
    /// In words.
    Not(String),
}

/// What else may end the waiting.
pub(crate) trait Watch {
    fn wakes(&self) -> Vec<BorrowedFd<'_>>;
    /// `Some`: the guest cannot answer any more, in words.
    fn look(&mut self) -> Result<Option<String>, GhostError>;
}

/// From where a question of this family comes.
pub(crate) fn source(question: &Health, addresses: &[Network]) -> Option<Network> {
    let same = |network: &&Network| network.addr.is_ipv4() == question.addr.is_ipv4();
    addresses.iter().find(same).copied()
}

/// Asks a guest that runs since `since`, until it has answered, cannot any
/// more, or the limit has passed.
pub(crate) fn ask(
    question: &Health,
    asker: Asker<'_>,
    mut cord: Cord,
    since: Instant,
    watch: &mut impl Watch,
) -> Result<Finding, GhostError> {
    let from = source(question, asker.addresses).ok_or(GhostError::NoSource {
        addr: question.addr,
    })?;
    let mut interface = interface(question, asker, from, &mut cord, since);
    let mut storage = [SocketStorage::EMPTY; 1];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let mut buffers = [[0; ANSWER_BYTES_MAX]; 2];
    let mut metas = [[udp::PacketMetadata::EMPTY; 4]; 2];
    let handle = open(question, &mut sockets, &mut buffers, &mut metas);
    let mut talk = Talk {
        question,
        from: from.addr.into(),
        handle,
        port: (asker.seed % 8192) as u16,
        begun: None,
        sent: 0,
        answer: Vec::new(),
        trouble: String::new(),
    };
    let deadline = since + question.limit;
    loop {
        let now = Instant::now();
        let time = net_time(since, now);
        exchange(&mut interface, time, &mut cord, &mut sockets);
        let finding = talk.turn(&mut interface, &mut sockets, now);
        if let Some(finding) = finding {
            return Ok(match finding {
                Judged::Good => Finding::Answered(since.elapsed()),
                Judged::Open | Judged::Bad => Finding::Not(talk.wrong()),
            });
        }
        exchange(&mut interface, time, &mut cord, &mut sockets);
        if let Some(end) = watch.look()? {
            return Ok(Finding::Not(end));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Finding::Not(talk.silence()));
        }
        let due = interface.poll_delay(time, &sockets);
        let due = due.map_or(AGAIN_AFTER, Duration::from).min(AGAIN_AFTER);
        wait(&cord, watch, left.min(due))?;
    }
}

/// Frames in and out, but no more than some: a guest that floods us does not
/// outlast the limit.
fn exchange(
    interface: &mut Interface,
    time: NetInstant,
    cord: &mut Cord,
    sockets: &mut SocketSet<'_>,
) {
    interface.poll_maintenance(time);
    for _ in 0..FRAMES_AT_ONCE {
        let taken = interface.poll_ingress_single(time, cord, sockets);
        if taken == PollIngressSingleResult::None {
            break;
        }
    }
    for _ in 0..FRAMES_AT_ONCE {
        if interface.poll_egress(time, cord, sockets) == PollResult::None {
            break;
        }
    }
}

fn net_time(since: Instant, now: Instant) -> NetInstant {
    let passed = now.saturating_duration_since(since).as_micros();
    NetInstant::from_micros(i64::try_from(passed).unwrap_or(i64::MAX))
}

fn interface(
    question: &Health,
    asker: Asker<'_>,
    from: Network,
    cord: &mut Cord,
    since: Instant,
) -> Interface {
    let mut config = Config::new(EthernetAddress(asker.mac.0).into());
    config.random_seed = asker.seed;
    let mut interface = Interface::new(config, cord, net_time(since, since));
    let to = IpAddress::from(question.addr);
    interface.update_ip_addrs(|own| {
        let from = IpCidr::new(from.addr.into(), from.prefix);
        // A guest that is not on the link is asked for on it nevertheless.
        let from = match from.contains_addr(&to) {
            true => from,
            false => IpCidr::new(from.address(), 0),
        };
        // There is room for this one.
        let _ = own.push(from);
        for Network { addr, prefix } in asker.addresses {
            let more = IpCidr::new((*addr).into(), *prefix);
            if more.address() != from.address() && own.push(more).is_err() {
                break;
            }
        }
    });
    interface
}

fn open<'a>(
    question: &Health,
    sockets: &mut SocketSet<'a>,
    [rx, tx]: &'a mut [[u8; ANSWER_BYTES_MAX]; 2],
    [rx_meta, tx_meta]: &'a mut [[udp::PacketMetadata; 4]; 2],
) -> SocketHandle {
    match question.protocol {
        Protocol::Tcp => sockets.add(tcp::Socket::new(
            tcp::SocketBuffer::new(&mut rx[..]),
            tcp::SocketBuffer::new(&mut tx[..]),
        )),
        Protocol::Udp => sockets.add(udp::Socket::new(
            udp::PacketBuffer::new(&mut rx_meta[..], &mut rx[..]),
            udp::PacketBuffer::new(&mut tx_meta[..], &mut tx[..]),
        )),
    }
}

/// One question, and how far it has come.
struct Talk<'a> {
    question: &'a Health,
    from: IpAddress,
    handle: SocketHandle,
    /// Of ours, from the first one on; each attempt has its own.
    port: u16,
    /// The attempt under way.
    begun: Option<Instant>,
    /// Bytes of the question, of this attempt.
    sent: usize,
    answer: Vec<u8>,
    /// Why the last attempt was not the last one.
    trouble: String,
}

impl Talk<'_> {
    fn turn(
        &mut self,
        interface: &mut Interface,
        sockets: &mut SocketSet<'_>,
        now: Instant,
    ) -> Option<Judged> {
        match self.question.protocol {
            Protocol::Tcp => self.turn_tcp(interface, sockets.get_mut(self.handle), now),
            Protocol::Udp => self.turn_udp(sockets.get_mut(self.handle), now),
        }
    }

    /// Whether it is time for another attempt.
    fn is_due(&self, now: Instant) -> bool {
        self.begun
            .is_none_or(|begun| now.saturating_duration_since(begun) >= AGAIN_AFTER)
    }

    fn next_port(&mut self) -> u16 {
        self.port = (self.port + 1) % 16384;
        PORT_FIRST + self.port
    }

    fn turn_tcp(
        &mut self,
        interface: &mut Interface,
        socket: &mut tcp::Socket<'_>,
        now: Instant,
    ) -> Option<Judged> {
        if !socket.is_open() {
            if self.begun.is_some() {
                "the connection was refused".clone_into(&mut self.trouble);
            }
            if self.is_due(now) {
                self.begun = Some(now);
                self.sent = 0;
                let to = (IpAddress::from(self.question.addr), self.question.port);
                let from = (self.from, self.next_port());
                // Fails only for addresses that are none.
                let _ = socket.connect(interface.context(), to, from);
            }
            return None;
        }
        if !matches!(
            socket.state(),
            tcp::State::Established | tcp::State::CloseWait
        ) {
            return None;
        }
        self.trouble = format!("connected, sent {}", quoted(&self.question.send));
        let rest = self.question.send.get(self.sent..).unwrap_or_default();
        if socket.may_send() && !rest.is_empty() {
            self.sent += socket.send_slice(rest).unwrap_or_default();
        }
        let mut part = [0; ANSWER_BYTES_MAX];
        while let Ok(length @ 1..) = socket.recv_slice(&mut part) {
            self.answer.extend(part.get(..length).unwrap_or_default());
            if self.answer.len() >= ANSWER_BYTES_MAX {
                break;
            }
        }
        let is_whole = socket.state() == tcp::State::CloseWait && !socket.can_recv();
        match judge(self.question, &self.answer, is_whole) {
            Judged::Open => None,
            judged => Some(judged),
        }
    }

    fn turn_udp(&mut self, socket: &mut udp::Socket<'_>, now: Instant) -> Option<Judged> {
        if !socket.is_open() {
            // Fails only for port 0.
            let _ = socket.bind((self.from, self.next_port()));
        }
        if self.is_due(now) && socket.can_send() {
            self.begun = Some(now);
            let to = (IpAddress::from(self.question.addr), self.question.port);
            // What is not sent now is sent with the next attempt.
            let _ = socket.send_slice(&self.question.send, to);
        }
        let mut datagram = [0; ANSWER_BYTES_MAX];
        let (length, from) = socket.recv_slice(&mut datagram).ok()?;
        if from.endpoint.addr != IpAddress::from(self.question.addr) {
            return None;
        }
        self.answer = datagram.get(..length).unwrap_or_default().to_vec();
        Some(judge(self.question, &self.answer, true))
    }

    fn wrong(&self) -> String {
        let expected = match self.question.expect.is_empty() {
            true => "expected any answer".to_owned(),
            false => format!("expected {}", quoted(&self.question.expect)),
        };
        match (self.answer.is_empty(), self.question.protocol) {
            (true, Protocol::Tcp) => format!("ended the connection without an answer, {expected}"),
            _ => format!("answered {}, {expected}", quoted(&self.answer)),
        }
    }

    fn silence(&self) -> String {
        let limit = self.question.limit.as_millis();
        match (self.answer.is_empty(), self.trouble.is_empty()) {
            (false, _) => format!("{} within {limit} ms", self.wrong()),
            (true, true) => format!("no answer within {limit} ms"),
            (true, false) => format!("no answer within {limit} ms: {}", self.trouble),
        }
    }
}

fn wait(cord: &Cord, watch: &impl Watch, limit: Duration) -> Result<(), GhostError> {
    let wakes = watch.wakes();
    let fds = std::iter::once(cord.wake()).chain(wakes.iter().map(|fd| fd.as_fd()));
    let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    // No shorter than the kernel counts: this loop does not spin.
    let limit = limit.max(Duration::from_millis(1));
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(GhostError::Wait(errno.into())),
    }
}

/// For messages.
pub(crate) const fn family(addr: IpAddr) -> &'static str {
    match addr {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
