//! The services of an instance: UDP, TCP lines and HTTP/1.1, each answer
//! saying which copy it comes from.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context, Result};
use axum::{Router, extract::Path, routing::get};
use nix::sys::socket::{setsockopt, sockopt};

use super::protocol::{HTTP_PORT, Side, TCP_PORT, UDP_PORT};

/// Bytes of a request or answer on UDP.
pub(crate) const DATAGRAM_BYTES: usize = 24;

/// Starts every numbered datagram, so that a tap can tell it from others.
const MAGIC: [u8; 7] = *b"gdt-dgm";

/// A numbered datagram: magic, side (0 in requests), number, time sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub side: Option<Side>,
    pub number: u64,
    /// Client's CLOCK_MONOTONIC.
    pub sent_ns: u64,
}

impl Datagram {
    pub(crate) fn encode(self) -> [u8; DATAGRAM_BYTES] {
        let mut bytes = [0; DATAGRAM_BYTES];
        bytes[..7].copy_from_slice(&MAGIC);
        bytes[7] = match self.side {
            None => 0,
            Some(Side::Primary) => 1,
            Some(Side::Ghost) => 2,
        };
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; DATAGRAM_BYTES] = bytes.get(..DATAGRAM_BYTES)?.try_into().ok()?;
        let side = match bytes[7] {
            0 => None,
            1 => Some(Side::Primary),
            2 => Some(Side::Ghost),
            _ => return None,
        };
        if bytes[..7] != MAGIC {
            return None;
        }
        Some(Self {
            side,
            number: u64::from_be_bytes(bytes[8..16].try_into().ok()?),
            sent_ns: u64::from_be_bytes(bytes[16..].try_into().ok()?),
        })
    }
}

/// Binds everything, then serves for as long as the process lives.
///
/// Each address is bound by itself: a socket bound to all of them would answer
/// from whatever address the routing table prefers.
pub(super) fn start(side: Side, addresses: &[IpAddr]) -> Result<()> {
    let mut http = Vec::new();
    for &address in addresses {
        let at = |port| SocketAddr::new(address, port);
        let udp = UdpSocket::bind(at(UDP_PORT)).with_context(|| format!("bind udp {address}"))?;
        hold_much(&udp)?;
        let tcp = TcpListener::bind(at(TCP_PORT)).with_context(|| format!("bind tcp {address}"))?;
        let web =
            TcpListener::bind(at(HTTP_PORT)).with_context(|| format!("bind http {address}"))?;
        web.set_nonblocking(true)?;
        http.push(web);
        thread::Builder::new()
            .name("udp".into())
            .spawn(move || serve_udp(side, &udp))?;
        thread::Builder::new()
            .name("tcp".into())
            .spawn(move || serve_tcp(side, &tcp))?;
    }
    thread::Builder::new()
        .name("http".into())
        .spawn(move || serve_http(side, http))?;
    Ok(())
}

/// Bytes that may wait for a reader. A process that does not get the processor
/// for a while must not lose datagrams for it.
const WAITING_BYTES: usize = 8 << 20;

/// Lets a socket's reader be late, beyond what net.core.rmem_max allows.
pub(crate) fn hold_much(socket: &UdpSocket) -> std::io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &WAITING_BYTES)?;
    Ok(())
}

fn serve_udp(side: Side, socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // Errors are those of single packets (an ICMP answer, say).
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if let Some(request) = Datagram::decode(&buffer[..length]) {
            let answer = Datagram {
                side: Some(side),
                ..request
            };
            let _ = socket.send_to(&answer.encode(), client);
        }
    }
}

fn serve_tcp(side: Side, listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let _ = thread::Builder::new()
            .name("line".into())
            .spawn(move || serve_lines(side, stream));
    }
}

/// Answers each line with the side's name and the line, until the client ends.
fn serve_lines(side: Side, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        writer.write_all(format!("{side} {}\n", line?).as_bytes())?;
    }
    Ok(())
}

fn serve_http(side: Side, listeners: Vec<TcpListener>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answered = runtime.and_then(|runtime| runtime.block_on(serve_all_http(side, listeners)));
    if let Err(error) = answered {
        eprintln!("http on {side} ended: {error}");
    }
}

async fn serve_all_http(side: Side, listeners: Vec<TcpListener>) -> std::io::Result<()> {
    let answer = move |Path(number): Path<u64>| async move { format!("{side} {number}\n") };
    let app = Router::new().route("/{number}", get(answer));
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        servers.spawn(axum::serve(listener, app.clone()).into_future());
    }
    while let Some(ended) = servers.join_next().await {
        ended.map_err(std::io::Error::other)??;
    }
    Ok(())
}
