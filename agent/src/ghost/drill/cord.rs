//! The other end of a guest's network: a socket that carries frames, each
//! behind the header that virtio-net has before them.
//!
//! Owns: the two ends. How it fails: a frame that cannot be sent is lost, as
//! on any wire; an end that is closed is silent.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
};
use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};

/// Zero: one buffer, no offloads.
const HEADER_BYTES: usize = 12;
const FRAME_BYTES_MAX: usize = 1514;
/// What a guest sends beyond is cut off, and is no frame then.
const PACKET_BYTES_MAX: usize = 2048;

/// Our end.
#[derive(Debug)]
pub(crate) struct Cord {
    socket: OwnedFd,
}

impl Cord {
    /// With the end that a VMM takes for a tap.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (socket, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self { socket }, its))
    }

    /// Readable when there is a frame, or the other end is closed.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Device for Cord {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let mut packet = [0; PACKET_BYTES_MAX];
        let length = recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT).ok()?;
        let frame = packet.get(HEADER_BYTES..length)?;
        Some((Received(frame.to_vec()), Sending(self.socket.as_fd())))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(self.socket.as_fd()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }
}

#[derive(Debug)]
pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Sending<'a>(BorrowedFd<'a>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; HEADER_BYTES + length];
        let result = write(packet.get_mut(HEADER_BYTES..).unwrap_or_default());
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.0.as_raw_fd(), &packet, flags) {
            // It is asked again, as for any frame that a wire loses.
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR | Errno::EPIPE) => {}
            Err(errno) => tracing::debug!(%errno, "a frame to a drilled guest is lost"),
        }
        result
    }
}
