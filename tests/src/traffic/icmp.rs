//! Pings. The kernel answers them, not a server: the TTL tells which copy's.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    cmsg_space,
    sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
        SockaddrStorage, recvmsg, setsockopt, socket, sockopt,
    },
};

use super::client::{Client, Outcome, Record, Stop};
use crate::{
    clock::{Pace, now_ns},
    machine::{DATAGRAM_BYTES, Datagram, Side},
    netns::NetNs,
    topology::PRIMARY_TTL,
};

const HEADER_BYTES: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub fn start(ns: &NetNs, server: IpAddr, rate: u32) -> Result<Client> {
    let socket = ns
        .run(|| connect(server))?
        .with_context(|| format!("open a ping socket to {server}"))?;
    let sender = Arc::new(socket);
    let receiver = Arc::clone(&sender);
    let request = if server.is_ipv4() { 8 } else { 128 };
    Client::start(
        &format!("ping {server}"),
        vec![
            Box::new(move |record, stop| send(&sender, request, rate, record, stop)),
            Box::new(move |record, stop| receive(&receiver, server, record, stop)),
        ],
    )
}

/// A "ping socket" (icmp(7)): the kernel fills in identifier and checksum and
/// hands over only answers to our own requests.
fn connect(server: IpAddr) -> Result<UdpSocket> {
    let (family, protocol) = match server {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let fd: OwnedFd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    match server {
        IpAddr::V4(_) => setsockopt(&fd, sockopt::Ipv4RecvTtl, &true)?,
        IpAddr::V6(_) => setsockopt(&fd, sockopt::Ipv6RecvHopLimit, &true)?,
    }
    let socket = UdpSocket::from(fd);
    socket.connect(SocketAddr::new(server, 0))?;
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    Ok(socket)
}

fn send(socket: &UdpSocket, request: u8, rate: u32, record: &Record, stop: &Stop) {
    let mut pace = Pace::per_second(rate);
    while !stop.asked() {
        let sent_ns = now_ns();
        let number = record.sent(sent_ns, sent_ns);
        let mut packet = [0; HEADER_BYTES + DATAGRAM_BYTES];
        packet[0] = request;
        packet[6..8].copy_from_slice(&number.to_be_bytes()[6..]);
        let datagram = Datagram {
            side: None,
            number,
            sent_ns,
        };
        packet[HEADER_BYTES..].copy_from_slice(&datagram.encode());
        if let Err(error) = socket.send(&packet) {
            let why = error.to_string();
            let at_ns = now_ns();
            record.close(number, Outcome::Failed { at_ns, why });
        }
        pace.next();
    }
}

fn receive(socket: &UdpSocket, server: IpAddr, record: &Record, stop: &Stop) {
    let mut stopping_since = None;
    while !record.settled(stop, &mut stopping_since) {
        if let Some((number, by)) = receive_one(socket, server) {
            record.close(
                number,
                Outcome::Answered {
                    at_ns: now_ns(),
                    by,
                },
            );
        }
    }
    record.give_up();
}

/// The next answer from `server`. The kernel hands over answers with our
/// identifier from whatever address; whoever pings looks at that too.
fn receive_one(socket: &UdpSocket, server: IpAddr) -> Option<(u64, Side)> {
    let mut buffer = [0; HEADER_BYTES + DATAGRAM_BYTES];
    let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    let mut control = cmsg_space!(i32, [u64; 4]);
    let fd = socket.as_raw_fd();
    let flags = MsgFlags::empty();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags).ok()?;
    let ttl = message.cmsgs().ok()?.find_map(|c| match c {
        ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => Some(ttl),
        _ => None,
    })?;
    let from = message.address?;
    let from: Option<IpAddr> = match (from.as_sockaddr_in(), from.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (_, Some(v6)) => Some(v6.ip().into()),
        _ => None,
    };
    if from != Some(server) {
        return None;
    }
    let length = message.bytes;
    let datagram = Datagram::decode(buffer.get(HEADER_BYTES..length)?)?;
    let by = if ttl <= i32::from(PRIMARY_TTL) {
        Side::Primary
    } else {
        Side::Ghost
    };
    Some((datagram.number, by))
}
