//! The control socket of a `ghost-vmm`, as seen by its owner.
//!
//! Owns: the connection. Each question has an answer within a deadline, or the
//! connection is as good as lost. Events that come in between are kept.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
        connect, getsockopt, recvmsg, sendmsg, socket, sockopt::PeerCredentials,
    },
};

use super::fds::owned;
use crate::{
    ghost::error::GhostError,
    model::{CopyId, GuestEnd},
    vmm::message::{Answer, Command, Event, Reason, State, encode},
};

/// The longest answer names each region of memory; there are a few.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// What takes longest is to save and to load, a matter of milliseconds; a
/// loaded host takes longer. Beyond this it hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Events nobody has asked for yet. A guest ends once, and what comes before
/// is of no interest.
const EVENTS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Client {
    copy: CopyId,
    socket: OwnedFd,
    events: VecDeque<Event>,
    is_gone: bool,
}

impl Client {
    pub(super) fn connect(copy: &CopyId, path: &Path) -> Result<Self, GhostError> {
        let failed = |errno: Errno| GhostError::Connect {
            copy: copy.clone(),
            source: errno.into(),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failed)?;
        let address = UnixAddr::new(path).map_err(failed)?;
        connect(socket.as_raw_fd(), &address).map_err(failed)?;
        Ok(Self {
            copy: copy.clone(),
            socket,
            events: VecDeque::new(),
            is_gone: false,
        })
    }

    /// A guest may have ended before anybody was there to be told.
    pub(super) fn catch_up(&mut self) -> Result<(), GhostError> {
        let (answer, _) = self.ask("ask", &Command::Status {}, None)?;
        if let Answer::Status {
            state: State::Ended(reason),
            ..
        } = answer
            && self.events.is_empty()
        {
            self.events.push_back(Event::Ended { vcpu: None, reason });
        }
        Ok(())
    }

    /// The process that listens.
    pub(super) fn peer(&self) -> Option<u32> {
        let credentials = getsockopt(&self.socket, PeerCredentials).ok()?;
        u32::try_from(credentials.pid()).ok()
    }

    /// Readable when there may be an event, or the process is gone.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How the guest ended, if it did. Never waits.
    pub(super) fn news(&mut self) -> Option<GuestEnd> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if let Event::Ended { reason, .. } = event
                    && let Some(end) = end_of(&reason)
                {
                    return Some(end);
                }
            }
            if self.is_gone {
                return Some(GuestEnd::Vanished);
            }
            match self.receive() {
                Ok(Some((packet, _))) => self.keep_event(&packet),
                Ok(None) => return None,
                Err(_) => self.is_gone = true,
            }
        }
    }

    /// Whether there is news of an end, which stays there. Never waits.
    pub(super) fn has_news(&mut self) -> bool {
        let is_end = |event: &Event| match event {
            Event::Ended { reason, .. } => end_of(reason).is_some(),
            _ => false,
        };
        while !self.is_gone {
            match self.receive() {
                Ok(Some((packet, _))) => self.keep_event(&packet),
                Ok(None) => break,
                Err(_) => self.is_gone = true,
            }
        }
        self.is_gone || self.events.iter().any(is_end)
    }

    /// Asks, and gives the answer with the descriptor that came with it.
    pub(super) fn ask(
        &mut self,
        what: &'static str,
        command: &Command,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(Answer, Option<File>), GhostError> {
        let copy = self.copy.clone();
        let failed = |source| GhostError::Talk {
            what,
            copy: copy.clone(),
            source,
        };
        self.send(&encode(command), file).map_err(&failed)?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let Some((packet, file)) = self.receive().map_err(&failed)? else {
                self.wait(deadline).map_err(&failed)?;
                continue;
            };
            if serde_json::from_slice::<Event>(&packet).is_ok() {
                self.keep_event(&packet);
                continue;
            }
            let answer = serde_json::from_slice::<Answer>(&packet).map_err(|e| failed(e.into()))?;
            return match answer {
                Answer::Refused { why } => Err(GhostError::Answer { what, copy, why }),
                answer => Ok((answer, file)),
            };
        }
    }

    fn keep_event(&mut self, packet: &[u8]) {
        if let Ok(event) = serde_json::from_slice(packet) {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }

    fn send(&self, packet: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<_> = file.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(packet)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, rights, flags, None)?;
        Ok(())
    }

    /// The next packet, if there is one.
    fn receive(&mut self) -> io::Result<Option<(Vec<u8>, Option<File>)>> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 4]);
        let (length, mut files) = {
            let mut parts = [IoSliceMut::new(&mut packet)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
            let socket = self.socket.as_raw_fd();
            let got = match recvmsg::<()>(socket, &mut parts, Some(&mut space), flags) {
                Ok(got) => got,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            let mut files = Vec::new();
            for message in got.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = message {
                    files.extend(fds.into_iter().map(owned));
                }
            }
            (got.bytes, files)
        };
        if length == 0 {
            self.is_gone = true;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        packet.truncate(length);
        let file = (!files.is_empty()).then(|| File::from(files.swap_remove(0)));
        Ok(Some((packet, file)))
    }

    fn wait(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// `None` for an end that its owner ordered.
pub(super) fn end_of(reason: &Reason) -> Option<GuestEnd> {
    Some(match reason {
        Reason::Ordered => return None,
        Reason::Reset { .. } => GuestEnd::Reset,
        Reason::PowerOff => GuestEnd::PoweredOff,
        Reason::TripleFault => GuestEnd::Crashed("triple fault".to_owned()),
        Reason::Halted => GuestEnd::Crashed("halted for good".to_owned()),
        Reason::SystemEvent { kind } => GuestEnd::Crashed(format!("system event {kind}")),
        Reason::InternalError { suberror, .. } => {
            GuestEnd::Crashed(format!("KVM could not go on, suberror {suberror}"))
        }
        Reason::EntryFailed { hardware_reason } => GuestEnd::Crashed(format!(
            "the processor refused its state, {hardware_reason:#x}"
        )),
        Reason::Unexpected { exit } => GuestEnd::Crashed(format!("unexpected exit {exit}")),
        Reason::RunFailed { errno } => GuestEnd::Crashed(format!("KVM_RUN failed, errno {errno}")),
    })
}
