//! TCP: numbered lines over one connection, or a connection for each line.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Result;

use super::{
    ANSWER_LIMIT,
    client::{Client, Outcome, Record, Stop},
};
use crate::{
    clock::{Pace, now_ns},
    machine::{Side, TCP_PORT},
    netns::NetNs,
};

/// One connection for all lines. It is opened again when it breaks, so each
/// break fails exactly the line that was under way.
pub fn long_lived(ns: &NetNs, server: IpAddr, rate: u32) -> Result<Client> {
    start("tcp long", ns, server, rate, true)
}

/// A new connection for each line.
pub fn short_lived(ns: &NetNs, server: IpAddr, rate: u32) -> Result<Client> {
    start("tcp short", ns, server, rate, false)
}

fn start(kind: &str, ns: &NetNs, server: IpAddr, rate: u32, keep: bool) -> Result<Client> {
    let at = SocketAddr::new(server, TCP_PORT);
    let ns = ns.clone();
    Client::start(
        &format!("{kind} {at}"),
        vec![Box::new(move |record, stop| {
            let talked = ns.run(|| talk(at, rate, keep, record, stop));
            // Entering a namespace that exists fails for lack of rights only,
            // and then nothing was sent: stories see an empty record.
            drop(talked);
        })],
    )
}

fn talk(at: SocketAddr, rate: u32, keep: bool, record: &Record, stop: &Stop) {
    let mut pace = Pace::per_second(rate);
    let mut open: Option<Connection> = None;
    while !stop.asked() {
        let sent_ns = now_ns();
        let opened_ns = open.as_ref().map_or(sent_ns, |c| c.opened_ns);
        let number = record.sent(sent_ns, opened_ns);
        let asked = ask(&mut open, at, number);
        let at_ns = now_ns();
        let outcome = match asked {
            Ok(by) => Outcome::Answered { at_ns, by },
            Err(error) => Outcome::Failed {
                at_ns,
                why: error.to_string(),
            },
        };
        if !keep || matches!(outcome, Outcome::Failed { .. }) {
            open = None;
        }
        record.close(number, outcome);
        pace.next();
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
    opened_ns: u64,
}

fn ask(open: &mut Option<Connection>, at: SocketAddr, number: u64) -> std::io::Result<Side> {
    let connection = match open {
        Some(connection) => connection,
        None => open.insert(connect(at)?),
    };
    let stream = connection.stream.get_mut();
    stream.write_all(format!("{number}\n").as_bytes())?;
    let mut line = String::new();
    connection.stream.read_line(&mut line)?;
    let invalid = || std::io::Error::other(format!("wrong answer `{}`", line.trim_end()));
    let (side, echoed) = line.trim_end().split_once(' ').ok_or_else(invalid)?;
    if echoed != number.to_string() {
        return Err(invalid());
    }
    Side::from_name(side).ok_or_else(invalid)
}

fn connect(at: SocketAddr) -> std::io::Result<Connection> {
    let opened_ns = now_ns();
    let stream = TcpStream::connect_timeout(&at, ANSWER_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    Ok(Connection {
        stream: BufReader::new(stream),
        opened_ns,
    })
}
