//! A tap: frames in and out, each with a virtio-net header before it.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    net::if_::if_nametoindex,
    sys::socket::{SockType, getsockopt, sockopt},
};

const DEVICE: &str = "/dev/net/tun";

/// Header of virtio 1.0 and later, with the number of buffers.
pub(super) const HEADER_BYTES: usize = 12;

/// Whole Ethernet frames, each after a header.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

#[derive(Debug)]
pub(in crate::vmm) struct Tap(File);

impl Tap {
    /// Takes the queue of a tap that is there already, made and fenced by
    /// whoever owns the guest. Offloads are off: the kernel hands over whole
    /// frames with good checksums, and expects the same.
    pub(in crate::vmm) fn open(name: &str) -> io::Result<Self> {
        // Otherwise the kernel would make one, which nobody has fenced.
        if_nametoindex(name)?;
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(DEVICE)?;
        // SAFETY: zeros are a valid `ifreq`: numbers, bytes and a null pointer.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The kernel found an interface of this name, so it is short enough.
        let room = request.ifr_name.len() - 1;
        for (to, byte) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
            *to = byte.cast_signed();
        }
        request.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
        // SAFETY: the request takes an `ifreq`, which lives through the call.
        call(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) })?;
        prepare(file.as_raw_fd())?;
        Ok(Self(file))
    }

    /// A queue of a tap that somebody else has opened, or a local packet
    /// socket that takes frames in the same form.
    pub(in crate::vmm) fn over(fd: OwnedFd) -> io::Result<Self> {
        let is_packets = getsockopt(&fd, sockopt::SockType) == Ok(SockType::SeqPacket);
        if !is_packets {
            // SAFETY: zeros are a valid `ifreq`: numbers, bytes and a null pointer.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            // SAFETY: the request fills an `ifreq`, which lives through the
            // call. A file that is no tap refuses it.
            call(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) })?;
            // SAFETY: this request fills this member.
            let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
            if flags & FLAGS != FLAGS {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            prepare(fd.as_raw_fd())?;
        }
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self(fd.into()))
    }

    /// A header and a frame; `WouldBlock` if there is none.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            // Nobody holds the socket's other end any more.
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }

    /// A header and a frame, as one.
    pub(super) fn write(&mut self, packet: &[u8]) -> io::Result<()> {
        self.0.write(packet).map(drop)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Our header, and no offload.
fn prepare(fd: RawFd) -> io::Result<()> {
    let header = HEADER_BYTES as libc::c_int;
    // SAFETY: the request takes an int, which lives through the call.
    call(unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ as _, &raw const header) })?;
    // SAFETY: the request takes a number, not a pointer.
    call(unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD as _, 0 as libc::c_ulong) })?;
    Ok(())
}

fn call(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
