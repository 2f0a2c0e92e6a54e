//! ghostd's API as any local program uses it: HTTP over the unix socket.

use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    SOCKET_PATH,
    http::{Request, Response, read_chunk},
};
use crate::netns::NetNs;

/// No call takes longer, also on a loaded machine.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// The API of the ghostd on a host.
#[derive(Debug, Clone)]
pub struct Api {
    host: NetNs,
}

impl Api {
    pub fn on(host: &NetNs) -> Self {
        Self { host: host.clone() }
    }

    /// Opens the socket, as root.
    pub fn connect(&self) -> Result<UnixStream> {
        let stream = self
            .host
            .run(|| UnixStream::connect(SOCKET_PATH))?
            .with_context(|| format!("connect to {SOCKET_PATH}"))?;
        stream.set_read_timeout(Some(CALL_LIMIT))?;
        Ok(stream)
    }

    /// Opens the socket as a user without any rights, of the given group.
    pub fn connect_as(&self, uid: u32, gid: u32) -> Result<UnixStream> {
        let stream = self.host.run(|| -> std::io::Result<UnixStream> {
            // Raw, so that only this thread changes who it is; it ends here.
            become_thread(uid, gid)?;
            UnixStream::connect(SOCKET_PATH)
        })?;
        let stream = stream.with_context(|| format!("connect as uid {uid}, gid {gid}"))?;
        stream.set_read_timeout(Some(CALL_LIMIT))?;
        Ok(stream)
    }

    pub fn call(&self, request: &Request) -> Result<Response> {
        request.send(self.connect()?)
    }

    /// GET of a JSON document.
    pub fn get(&self, path: &str) -> Result<Value> {
        let response = self.call(&Request::get(path))?;
        ensure!(
            response.status == 200,
            "GET {path}: {} {}",
            response.status,
            response.text()
        );
        response.json()
    }

    /// POST that must succeed.
    pub fn post(&self, path: &str) -> Result<Response> {
        let response = self.call(&Request::post(path, None))?;
        ensure!(
            (200..300).contains(&response.status),
            "POST {path}: {} {}",
            response.status,
            response.text()
        );
        Ok(response)
    }
}

/// Events as they come, one JSON value each.
#[derive(Debug)]
pub struct EventStream {
    body: BufReader<UnixStream>,
    chunked: bool,
    pending: Vec<u8>,
}

impl EventStream {
    /// Opens a stream: either server-sent events or JSON lines.
    pub fn open(api: &Api, path: &str) -> Result<Self> {
        let (head, body) = Request::get(path).open(api.connect()?)?;
        ensure!(head.status == 200, "GET {path}: {}", head.status);
        let chunked = head.header("transfer-encoding") == Some("chunked");
        let pending = Vec::new();
        Ok(Self {
            body,
            chunked,
            pending,
        })
    }

    /// The next event; an error when none comes in time.
    pub fn wait(&mut self) -> Result<Value> {
        loop {
            while let Some(end) = self.pending.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                let text = text.trim();
                let json = text.strip_prefix("data:").unwrap_or(text).trim();
                if json.starts_with('{') {
                    return serde_json::from_str(json).with_context(|| format!("event {json}"));
                }
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<()> {
        let more = if self.chunked {
            read_chunk(&mut self.body)?.unwrap_or_default()
        } else {
            let mut line = Vec::new();
            self.body.read_until(b'\n', &mut line)?;
            line
        };
        ensure!(!more.is_empty(), "the event stream ended");
        self.pending.extend(more);
        Ok(())
    }
}

/// Drops all groups and takes user and group for the calling thread alone.
/// libc's own calls would change every thread of the process.
#[allow(unsafe_code)]
fn become_thread(uid: u32, gid: u32) -> std::io::Result<()> {
    let no_groups: *const libc::gid_t = std::ptr::null();
    // SAFETY: none of these take memory but setgroups, which reads zero entries.
    let failed = unsafe {
        libc::syscall(libc::SYS_setgroups, 0, no_groups) != 0
            || libc::syscall(libc::SYS_setresgid, gid, gid, gid) != 0
            || libc::syscall(libc::SYS_setresuid, uid, uid, uid) != 0
    };
    if failed {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
