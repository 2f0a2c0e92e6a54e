//! rtnetlink and generic netlink: interfaces, routes, neighbours.
//!
//! Owns: the sockets and every question asked over them. The kernel answers
//! rtnetlink within the call that asks, so questions block for microseconds.
//! Refuses: to change addresses, routes or links.
//!
//! How it fails: [`SteerError::Netlink`], which is worth another try.

pub(super) mod devices;
pub(super) mod neighbours;
pub(super) mod news;
mod wire;

use std::{io, os::fd::AsRawFd};

use netlink_sys::{Socket, SocketAddr, protocols};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::{TimeVal, TimeValLike},
};

use self::wire::{Body, NLM_F_ACK, NLM_F_DUMP, Request, messages};
use super::error::SteerError;

/// The kernel's largest dump message fits; more would be cut off and seen as such.
const RECEIVE_BYTES: usize = 64 * 1024;

/// An answer that takes longer will not come.
const TIMEOUT_S: i64 = 2;

/// A socket for questions.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink")
            .field("fd", &self.socket.as_raw_fd())
            .finish_non_exhaustive()
    }
}

impl Netlink {
    pub(super) fn route() -> Result<Self, SteerError> {
        Self::open(protocols::NETLINK_ROUTE)
    }

    pub(super) fn generic() -> Result<Self, SteerError> {
        Self::open(protocols::NETLINK_GENERIC)
    }

    fn open(protocol: isize) -> Result<Self, SteerError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(TIMEOUT_S))?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(|e| SteerError::Netlink("a new socket", e))?,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// Sends `request` and shows the payload of each message of the answer to
    /// `see`.
    fn ask(&mut self, request: Request, see: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let is_dump = request.is_dump();
        self.socket.send(&request.finish(self.sequence), 0)?;
        loop {
            self.buffer.clear();
            let length = self.socket.recv(&mut self.buffer, libc::MSG_TRUNC)?;
            if length > self.buffer.len() || length == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            for message in messages(&self.buffer) {
                // An answer to a question that timed out.
                if message.sequence != self.sequence {
                    continue;
                }
                match message.body {
                    Body::Done | Body::Error(0) => return Ok(()),
                    Body::Error(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    Body::Data(payload) => {
                        see(payload);
                        if !is_dump {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    /// A question with one answer; empty if the kernel only acknowledges.
    fn get(&mut self, kind: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        let mut request = Request::new(kind, 0, fixed);
        for (kind, payload) in attributes {
            request = request.with(*kind, payload);
        }
        self.ask(request, &mut |payload| answer = payload.to_vec())?;
        Ok(answer)
    }

    fn change(&mut self, request: Request) -> io::Result<()> {
        self.ask(request, &mut |_| {})
    }
}
