//! A client of the payload's key-value service.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};

use super::LIMIT;

/// A connection. Made in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Kv {
    stream: BufReader<TcpStream>,
}

impl Kv {
    pub fn connect(server: &str) -> Result<Self> {
        let address: SocketAddr = server.parse()?;
        let stream = TcpStream::connect_timeout(&address, LIMIT)
            .with_context(|| format!("connect to {server}"))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// One line, and the line that answers it, both without their ends.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.send(format!("{line}\n").as_bytes())?;
        self.answer()
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_ref().write_all(bytes).context("send")
    }

    pub fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let text = line.strip_suffix('\n');
        ensure!(text.is_some(), "the connection ended after {line:?}");
        Ok(text.unwrap_or_default().to_owned())
    }

    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}
