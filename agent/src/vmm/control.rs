//! The control socket: SOCK_SEQPACKET, one JSON object a packet.
//!
//! Owns: the socket and its clients. Refuses: to wait for a client; one that does not read is let go.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        socket::{
            AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg,
            SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockname, getsockopt, listen,
            recvmsg, sendmsg, socket, sockopt,
        },
        stat::{Mode, fchmodat},
    },
    unistd::unlink,
};

use super::{
    error::VmmError,
    made::{Made, Until},
    message::{COMMAND_BYTES_MAX, Command, decode},
};

/// The daemon, the one that replaces it, and a person who looks.
const CLIENTS_MAX: usize = 4;

/// One more than a command may have, so that a longer one is seen to be so.
const PACKET_BYTES: usize = COMMAND_BYTES_MAX + 1;

/// As many as one message can carry (Linux, SCM_MAX_FD).
const FILES_MAX: usize = 253;

pub(super) struct Control {
    listener: OwnedFd,
    clients: Vec<OwnedFd>,
}

/// What a client said.
pub(super) enum Said {
    /// And the file that came with it.
    Command(Command, Option<OwnedFd>),
    Nonsense(String),
    Nothing,
    Goodbye,
}

impl Control {
    /// At a place where there is nothing yet, or a socket whose process is gone.
    pub(super) fn listen(path: &Path, made: &mut Made) -> Result<Self, VmmError> {
        let failed = |errno: Errno| match errno {
            Errno::EADDRINUSE => VmmError::ControlTaken(path.to_owned()),
            errno => VmmError::Control(path.to_owned(), errno.into()),
        };
        let listener = local_socket().map_err(failed)?;
        let address = UnixAddr::new(path).map_err(failed)?;
        let bound = match bind(listener.as_raw_fd(), &address) {
            Err(Errno::EADDRINUSE) if is_left_behind(&address) => {
                unlink(path).map_err(failed)?;
                bind(listener.as_raw_fd(), &address)
            }
            bound => bound,
        };
        bound.map_err(failed)?;
        made.add(path.to_owned(), Until::End);
        // Whoever may connect may take the guest's memory.
        let owner = Mode::S_IRUSR | Mode::S_IWUSR;
        fchmodat(
            nix::fcntl::AT_FDCWD,
            path,
            owner,
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )
        .map_err(failed)?;
        Self::start(listener).map_err(failed)
    }

    /// On a socket that somebody else has bound, and whose file is theirs.
    pub(super) fn over(listener: OwnedFd) -> io::Result<Self> {
        if getsockopt(&listener, sockopt::SockType)? != SockType::SeqPacket {
            return Err(Errno::EPROTOTYPE.into());
        }
        // Fails for another family.
        getsockname::<UnixAddr>(listener.as_raw_fd())?;
        fcntl(&listener, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self::start(listener)?)
    }

    /// From here on clients are told that they speak with this process.
    fn start(listener: OwnedFd) -> nix::Result<Self> {
        listen(&listener, Backlog::new(CLIENTS_MAX as i32)?)?;
        Ok(Self {
            listener,
            clients: Vec::new(),
        })
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.clients.iter().map(AsFd::as_fd)
    }

    /// Takes whoever waits; beyond the most there may be, the oldest goes.
    pub(super) fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // A client that gave up meanwhile is none.
        while let Ok(fd) = accept4(self.listener.as_raw_fd(), flags) {
            if self.clients.len() == CLIENTS_MAX {
                self.clients.remove(0);
            }
            self.clients.push(owned(fd));
        }
    }

    pub(super) fn read(&self, client: usize) -> Said {
        let Some(fd) = self.clients.get(client) else {
            return Said::Nothing;
        };
        let mut packet = [0; PACKET_BYTES];
        let mut space = nix::cmsg_space!([RawFd; FILES_MAX]);
        let (length, file) = {
            let mut parts = [IoSliceMut::new(&mut packet)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let got = match recvmsg::<()>(fd.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(got) => got,
                Err(Errno::EAGAIN | Errno::EINTR) => return Said::Nothing,
                Err(_) => return Said::Goodbye,
            };
            (got.bytes, first_file(&got))
        };
        if length == 0 {
            return Said::Goodbye;
        }
        match decode(packet.get(..length).unwrap_or_default()) {
            Ok(command) => Said::Command(command, file),
            Err(why) => Said::Nonsense(why),
        }
    }

    /// `false` if the client cannot take it.
    pub(super) fn send(&self, client: usize, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> bool {
        let Some(to) = self.clients.get(client) else {
            return false;
        };
        let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let parts = [IoSlice::new(packet)];
        sendmsg::<()>(to.as_raw_fd(), &parts, rights, flags, None).is_ok()
    }

    pub(super) fn broadcast(&mut self, packet: &[u8]) {
        let deaf: Vec<usize> = (0..self.clients.len())
            .filter(|&client| !self.send(client, packet, None))
            .collect();
        for client in deaf.into_iter().rev() {
            self.let_go(client);
        }
    }

    pub(super) fn let_go(&mut self, client: usize) {
        if client < self.clients.len() {
            self.clients.remove(client);
        }
    }
}

fn local_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// Whether there is a socket that nobody listens to any more.
fn is_left_behind(address: &UnixAddr) -> bool {
    let asked = local_socket().and_then(|fd| connect(fd.as_raw_fd(), address));
    asked == Err(Errno::ECONNREFUSED)
}

/// All files but the first are closed.
fn first_file(got: &RecvMsg<'_, '_, ()>) -> Option<OwnedFd> {
    // Not cut off, because there was room for as many as there can be.
    let messages = got.cmsgs().into_iter().flatten();
    let files = messages.flat_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds,
        _ => Vec::new(),
    });
    let mut files: Vec<OwnedFd> = files.map(owned).collect();
    files.truncate(1);
    files.pop()
}

#[allow(unsafe_code)]
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel made it for us just now, and nobody else has it.
    // There is no safe way: nix gives a bare number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
