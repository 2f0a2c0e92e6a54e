//! Numbered datagrams at a set rate.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    ANSWER_LIMIT,
    client::{Client, Outcome, Record, Stop},
};
use crate::{
    clock::{Pace, now_ns},
    machine::{DATAGRAM_BYTES, Datagram, UDP_PORT},
    netns::NetNs,
};

/// How often a receiver looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Starts a client in `ns` that sends `rate` datagrams a second to `server`.
pub fn start(ns: &NetNs, server: IpAddr, rate: u32) -> Result<Client> {
    let at = SocketAddr::new(server, UDP_PORT);
    let socket = ns
        .run(|| connect(at))?
        .with_context(|| format!("open a udp socket to {at}"))?;
    let sender = Arc::new(socket);
    let receiver = Arc::clone(&sender);
    let name = format!("udp {at}");
    Client::start(
        &name,
        vec![
            Box::new(move |record, stop| send(&sender, rate, record, stop)),
            Box::new(move |record, stop| receive(&receiver, record, stop)),
        ],
    )
}

fn connect(at: SocketAddr) -> std::io::Result<UdpSocket> {
    let any = match at {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    Ok(socket)
}

fn send(socket: &UdpSocket, rate: u32, record: &Record, stop: &Stop) {
    let mut pace = Pace::per_second(rate);
    while !stop.asked() {
        let sent_ns = now_ns();
        let number = record.sent(sent_ns, sent_ns);
        let request = Datagram {
            side: None,
            number,
            sent_ns,
        };
        if let Err(error) = socket.send(&request.encode()) {
            // An ICMP error for an earlier datagram: this one was not sent,
            // and the server was not there.
            record.close(
                number,
                Outcome::Failed {
                    at_ns: now_ns(),
                    why: error.to_string(),
                },
            );
        }
        pace.next();
    }
}

fn receive(socket: &UdpSocket, record: &Record, stop: &Stop) {
    let mut buffer = [0; DATAGRAM_BYTES];
    let mut stopping_since: Option<Instant> = None;
    loop {
        if let Ok(length) = socket.recv(&mut buffer) {
            let answer = Datagram::decode(&buffer[..length]);
            if let Some((number, by)) = answer.and_then(|a| Some((a.number, a.side?))) {
                record.close(
                    number,
                    Outcome::Answered {
                        at_ns: now_ns(),
                        by,
                    },
                );
            }
        }
        if stop.asked() {
            let since = *stopping_since.get_or_insert_with(Instant::now);
            let waiting = || record.lock().iter().any(|e| e.outcome == Outcome::Waiting);
            if since.elapsed() > ANSWER_LIMIT || !waiting() {
                break;
            }
        }
    }
    // Datagrams may be lost; what is still open now is.
    let at_ns = now_ns();
    for exchange in record.lock().iter_mut() {
        if exchange.outcome == Outcome::Waiting {
            let why = "no answer".to_owned();
            exchange.outcome = Outcome::Failed { at_ns, why };
        }
    }
}
