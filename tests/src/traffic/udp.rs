//! Numbered datagrams at a set rate.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};

use super::client::{Client, Outcome, Record, Stop};
use crate::{
    clock::{Pace, now_ns},
    machine::{DATAGRAM_BYTES, Datagram, UDP_PORT, hold_much},
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
    hold_much(&socket)?;
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
    let mut stopping_since = None;
    while !record.settled(stop, &mut stopping_since) {
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
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
    record.give_up();
}
