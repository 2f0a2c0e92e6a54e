//! HTTP/1.1 requests, each over a connection of its own.

use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};

use super::{
    ANSWER_LIMIT,
    client::{Client, Outcome, Record, Stop},
};
use crate::{
    clock::{Pace, now_ns},
    host::http::Request,
    machine::{HTTP_PORT, Side},
    netns::NetNs,
};

pub fn start(ns: &NetNs, server: IpAddr, rate: u32) -> Result<Client> {
    let at = SocketAddr::new(server, HTTP_PORT);
    let ns = ns.clone();
    Client::start(
        &format!("http {at}"),
        vec![Box::new(move |record, stop| {
            // See `lines::start`.
            drop(ns.run(|| talk(at, rate, record, stop)));
        })],
    )
}

fn talk(at: SocketAddr, rate: u32, record: &Record, stop: &Stop) {
    let mut pace = Pace::per_second(rate);
    while !stop.asked() {
        let sent_ns = now_ns();
        let number = record.sent(sent_ns, sent_ns);
        let asked = ask(at, number);
        let at_ns = now_ns();
        let outcome = match asked {
            Ok(by) => Outcome::Answered { at_ns, by },
            Err(error) => Outcome::Failed {
                at_ns,
                why: format!("{error:#}"),
            },
        };
        record.close(number, outcome);
        pace.next();
    }
}

fn ask(at: SocketAddr, number: u64) -> Result<Side> {
    let stream = TcpStream::connect_timeout(&at, ANSWER_LIMIT).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let response = Request::get(&format!("/{number}")).send(stream)?;
    ensure!(response.status == 200, "status {}", response.status);
    let body = String::from_utf8_lossy(&response.body);
    let (side, echoed) = body.trim_end().split_once(' ').context("wrong body")?;
    ensure!(echoed == number.to_string(), "answer to another request");
    Side::from_name(side).context("unknown side")
}
