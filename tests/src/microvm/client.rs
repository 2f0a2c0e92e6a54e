//! The control socket, from a client's side.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
            UnixAddr, connect, recvmsg, sendmsg, setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use serde_json::{Value, json};

use super::LIMIT;
use crate::clock::wait_for;

const PACKET_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct Client(OwnedFd);

/// A packet, and the file that came with it.
#[derive(Debug)]
pub struct Answer {
    pub json: Value,
    pub file: Option<File>,
}

impl Client {
    /// Waits until somebody listens there.
    pub fn connect(path: &Path) -> Result<Self> {
        let address = UnixAddr::new(path)?;
        wait_for("the control socket", LIMIT, || {
            let fd = socket(
                AddressFamily::Unix,
                SockType::SeqPacket,
                SockFlag::SOCK_CLOEXEC,
                None,
            );
            let fd = match fd {
                Ok(fd) => fd,
                Err(error) => return Some(Err(error.into())),
            };
            match connect(fd.as_raw_fd(), &address) {
                Ok(()) => Some(Self::over(fd)),
                Err(Errno::ENOENT | Errno::ECONNREFUSED) => None,
                Err(error) => Some(Err(error.into())),
            }
        })?
    }

    fn over(fd: OwnedFd) -> Result<Self> {
        let limit = TimeVal::new(i64::try_from(LIMIT.as_secs())?, 0);
        setsockopt(&fd, ReceiveTimeout, &limit)?;
        Ok(Self(fd))
    }

    /// A command that is only a word.
    pub fn ask(&self, command: &str) -> Result<Answer> {
        self.ask_with(&json!({"command": command}), None)
    }

    /// Any command, with a file if it takes one.
    pub fn ask_with(&self, command: &Value, file: Option<&File>) -> Result<Answer> {
        self.send_with(command.to_string().as_bytes(), file)?;
        loop {
            let answer = self.receive()?;
            // Events of what was asked for come in between.
            if answer.json["event"].is_null() {
                return Ok(answer);
            }
        }
    }

    pub fn send(&self, packet: &[u8]) -> Result<()> {
        self.send_with(packet, None)
    }

    fn send_with(&self, packet: &[u8], file: Option<&File>) -> Result<()> {
        let fds: Vec<_> = file.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(packet)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, flags, None)?;
        Ok(())
    }

    /// The guest's memory.
    pub fn memory(&self) -> Result<Memory> {
        let answer = self.ask("memory")?;
        let file = answer.file.context("no descriptor came with the answer")?;
        Ok(Memory(file))
    }

    /// The next packet: an answer, or an event.
    pub fn receive(&self) -> Result<Answer> {
        loop {
            match self.receive_now() {
                // The kernel does not go on with a wait that has a limit.
                Err(error) if error.downcast_ref() == Some(&Errno::EINTR) => {}
                answer => return answer,
            }
        }
    }

    fn receive_now(&self) -> Result<Answer> {
        let mut packet = vec![0; PACKET_BYTES];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let (length, fds) = {
            let mut parts = [IoSliceMut::new(&mut packet)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let got = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
            let mut fds = Vec::new();
            for message in got.cmsgs()? {
                match message {
                    ControlMessageOwned::ScmRights(more) => fds.extend(more),
                    other => bail!("an unexpected control message: {other:?}"),
                }
            }
            (got.bytes, fds)
        };
        ensure!(length > 0, "ghost-vmm closed the control socket");
        packet.truncate(length);
        Ok(Answer {
            json: serde_json::from_slice(&packet).context("a packet")?,
            file: fds.first().map(|&fd| received(fd)),
        })
    }
}

#[allow(unsafe_code)]
fn received(fd: std::os::fd::RawFd) -> File {
    // SAFETY: the kernel made it for this message, and nobody else has it.
    unsafe { File::from_raw_fd(fd) }
}

/// Guest memory as the memfd has it; offsets are those of the file.
#[derive(Debug)]
pub struct Memory(pub File);

impl Memory {
    pub fn word(&self, offset: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, offset)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// All that it has.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.0.metadata()?.len())?];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    pub fn words(&self, offset: u64, count: usize) -> Result<Vec<u64>> {
        let mut bytes = vec![0; count * 8];
        self.0.read_exact_at(&mut bytes, offset)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(words.iter().map(|&word| u64::from_le_bytes(word)).collect())
    }
}
