//! Clients of the key-value service that never stop, and keep a record.

use std::{
    io::{BufRead as _, BufReader, Error, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;

use crate::{
    clock::{Pace, now_ns, wait_for},
    netns::NetNs,
    traffic::ANSWER_LIMIT,
};

/// Requests of each client in a second.
const RATE: u32 = 500;

const KV_PORT: u16 = 7000;
const ECHO_PORT: u16 = 7;

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One TCP connection for all requests: `INCR`, and the answer has to be
    /// one more than the last one.
    Kept,
    /// A TCP connection for each request.
    Fresh,
    /// Datagrams that are echoed.
    Datagrams,
}

/// One request and what came of it. Times are CLOCK_MONOTONIC.
#[derive(Debug, Clone)]
pub struct Asked {
    /// When its connection was opened; without one, when it was sent.
    pub opened_ns: u64,
    pub sent_ns: u64,
    /// When it was answered, or failed, and then why.
    pub ended_ns: u64,
    pub failure: Option<String>,
}

/// A running client; it stops when it is dropped.
pub(super) struct Client {
    pub(super) name: String,
    record: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    pub(super) fn start(ns: &NetNs, kind: Kind, service: IpAddr) -> Result<Self> {
        let name = match kind {
            Kind::Kept => "tcp, one connection",
            Kind::Fresh => "tcp, a new one each time",
            Kind::Datagrams => "udp",
        };
        let name = format!("{name}, to {service}");
        let record = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (ns, shared, over) = (ns.clone(), Arc::clone(&record), Arc::clone(&is_over));
        let thread = std::thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || {
                // Entering a namespace that exists fails for lack of rights
                // only, and then nothing was asked, which is seen.
                drop(ns.run(|| ask_on(kind, service, &shared, &over)));
            })?;
        Ok(Self {
            name,
            record,
            is_over,
            thread: Some(thread),
        })
    }

    /// Waits until so many more requests, sent from now on, are answered.
    pub(super) fn wait_answers(&self, count: usize, limit: Duration) -> Result<()> {
        let now = now_ns();
        let what = format!("{count} answers to {}", self.name);
        wait_for(&what, limit, || {
            let record = lock(&self.record);
            let late = record.iter().rev().take_while(|asked| asked.sent_ns > now);
            let good = late.filter(|asked| asked.failure.is_none()).count();
            (good >= count).then_some(())
        })?;
        Ok(())
    }

    /// Stops asking; gives the record.
    pub(super) fn stop(mut self) -> Vec<Asked> {
        self.finish();
        std::mem::take(&mut *lock(&self.record))
    }

    fn finish(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A client that panicked has a record that ends too early, which is seen.
            drop(thread.join());
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.finish();
    }
}

fn lock(record: &Mutex<Vec<Asked>>) -> MutexGuard<'_, Vec<Asked>> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask_on(kind: Kind, service: IpAddr, record: &Mutex<Vec<Asked>>, is_over: &AtomicBool) {
    let mut pace = Pace::per_second(RATE);
    let mut kept: Option<Connection> = None;
    let mut number = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        let sent_ns = now_ns();
        let opened_ns = kept
            .as_ref()
            .map_or(sent_ns, |connection| connection.opened_ns);
        let result = match kind {
            Kind::Kept => increment(&mut kept, service),
            Kind::Fresh => Connection::open(service).and_then(|mut one| one.ping()),
            Kind::Datagrams => echo(service, number),
        };
        if result.is_err() {
            kept = None;
        }
        lock(record).push(Asked {
            opened_ns,
            sent_ns,
            ended_ns: now_ns(),
            failure: result.err().map(|error| error.to_string()),
        });
        pace.next();
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
    opened_ns: u64,
    /// The last value seen.
    value: Option<u64>,
}

impl Connection {
    fn open(service: IpAddr) -> std::io::Result<Self> {
        let opened_ns = now_ns();
        let at = SocketAddr::new(service, KV_PORT);
        let stream = TcpStream::connect_timeout(&at, ANSWER_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self {
            stream: BufReader::new(stream),
            opened_ns,
            value: None,
        })
    }

    fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        if !answer.ends_with('\n') {
            return Err(Error::other("the connection was closed"));
        }
        Ok(answer)
    }

    fn ping(&mut self) -> std::io::Result<()> {
        match self.ask("PING\n")?.as_str() {
            "PONG\n" => Ok(()),
            other => Err(Error::other(format!("a wrong answer: {other:?}"))),
        }
    }
}

/// Counts on over the kept connection, which is opened if there is none.
fn increment(kept: &mut Option<Connection>, service: IpAddr) -> std::io::Result<()> {
    let connection = match kept {
        Some(connection) => connection,
        None => kept.insert(Connection::open(service)?),
    };
    let key = if service.is_ipv4() { "four" } else { "six" };
    let answer = connection.ask(&format!("INCR {key}\n"))?;
    let wrong = || Error::other(format!("a wrong answer: {answer:?}"));
    // `OK mutations value`
    let value = answer.trim_end().rsplit_once(' ').ok_or_else(wrong)?.1;
    let value: u64 = value.parse().map_err(|_| wrong())?;
    if let Some(last) = connection.value.replace(value)
        && value != last + 1
    {
        return Err(Error::other(format!("{value} came after {last}")));
    }
    Ok(())
}

fn echo(service: IpAddr, number: u64) -> std::io::Result<()> {
    let any = if service.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect((service, ECHO_PORT))?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    socket.send(&number.to_be_bytes())?;
    let mut answer = [0; 16];
    let length = socket.recv(&mut answer)?;
    if answer.get(..length) == Some(&number.to_be_bytes()) {
        Ok(())
    } else {
        Err(Error::other("another echo came back"))
    }
}
