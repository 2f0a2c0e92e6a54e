//! A packet socket bound to one interface: whole Ethernet frames, both ways.

// AF_PACKET addresses and auxiliary data have no safe wrapper.
#![allow(unsafe_code)]

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{clock::realtime_to_monotonic_ns, netns::NetNs};

/// Room for a burst: the harness shares two cores with what it tests.
const RECEIVE_BUFFER_BYTES: libc::c_int = 64 << 20;

/// Larger than any frame between veths (IPv4's limit and three headers).
const FRAME_BYTES_MAX: usize = 66_000;

/// A frame as it was on the wire, VLAN tags included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// When the kernel took it in; CLOCK_MONOTONIC.
    pub at_ns: u64,
}

#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    to_monotonic_ns: i64,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// Sees frames that arrive at `interface` from its cable, and not those it sends.
    pub fn open(ns: &NetNs, interface: &str) -> Result<Self> {
        let index = ns.ifindex(interface)?;
        let fd = ns
            .run(|| open_bound(index))?
            .with_context(|| format!("open a packet socket on {interface} in {}", ns.name()))?;
        Ok(Self {
            fd,
            to_monotonic_ns: realtime_to_monotonic_ns(),
            buffer: vec![0; FRAME_BYTES_MAX],
        })
    }

    /// Puts one frame on the cable.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: pointer and length are those of a live slice.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        check(sent).with_context(|| format!("send a frame of {} bytes", frame.len()))?;
        Ok(())
    }

    /// The next frame, or `None` when none came within `limit`.
    pub fn receive(&mut self, limit: Duration) -> Result<Option<Frame>> {
        set_timeout(&self.fd, limit)?;
        let mut part = libc::iovec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // Words, because control messages are aligned to words.
        let mut control = [0_u64; 32];
        // SAFETY: all-zero is a valid `msghdr`: no name, no parts, no control.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the header points at live, writable buffers of the stated sizes.
        let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        let length = match check(got) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) => return Err(error).context("receive a frame"),
        };
        let mut frame = Frame {
            bytes: self.buffer[..length.min(self.buffer.len())].to_vec(),
            at_ns: 0,
        };
        self.apply_control(&message, &mut frame);
        Ok(Some(frame))
    }

    /// Frames that came but found no room, since the last call.
    pub fn lost(&self) -> Result<u32> {
        // SAFETY: all-zero is a valid value of this plain struct.
        let mut stats: libc::tpacket_stats = unsafe { zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `stats`.
        let got = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        check(got as isize).context("read packet socket statistics")?;
        Ok(stats.tp_drops)
    }

    /// Takes the time stamp, and puts back the VLAN tag the kernel took out.
    fn apply_control(&self, message: &libc::msghdr, frame: &mut Frame) {
        // SAFETY: `message` was filled by `recvmsg`; the macros walk within it.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
        while !next.is_null() {
            // SAFETY: non-null headers from the macros are valid and aligned.
            let header = unsafe { *next };
            // SAFETY: as above; the data follows its header.
            let data = unsafe { libc::CMSG_DATA(next) };
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    // SAFETY: this message holds a timespec; unaligned for safety.
                    let at: libc::timespec =
                        unsafe { data.cast::<libc::timespec>().read_unaligned() };
                    let at_ns = at.tv_sec * 1_000_000_000 + at.tv_nsec + self.to_monotonic_ns;
                    frame.at_ns = at_ns.try_into().unwrap_or(0);
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    // SAFETY: this message holds a tpacket_auxdata.
                    let aux = unsafe { data.cast::<libc::tpacket_auxdata>().read_unaligned() };
                    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 && frame.bytes.len() >= 12 {
                        let protocol = if aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                            aux.tp_vlan_tpid
                        } else {
                            0x8100
                        };
                        let mut tag = [0; 4];
                        tag[..2].copy_from_slice(&protocol.to_be_bytes());
                        tag[2..].copy_from_slice(&aux.tp_vlan_tci.to_be_bytes());
                        frame.bytes.splice(12..12, tag);
                    }
                }
                _ => {}
            }
            // SAFETY: as above.
            next = unsafe { libc::CMSG_NXTHDR(message, next) };
        }
    }
}

fn open_bound(index: u32) -> io::Result<OwnedFd> {
    let all = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no pointers. Protocol 0 sees nothing before `bind` names the interface.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    check(raw as isize)?;
    // SAFETY: a fresh descriptor nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    set(
        &fd,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        RECEIVE_BUFFER_BYTES,
    )?;
    set(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    set(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    // SAFETY: all-zero is a valid value of this plain struct.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: pointer and length are those of a live sockaddr_ll.
    let bound = unsafe {
        libc::bind(
            raw,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(bound as isize)?;
    Ok(fd)
}

fn set(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    set_bytes(fd, level, option, &value)
}

fn set_timeout(fd: &OwnedFd, limit: Duration) -> Result<()> {
    // Zero would mean "for ever".
    let limit = limit.max(Duration::from_micros(1));
    let value = libc::timeval {
        tv_sec: limit.as_secs().cast_signed(),
        tv_usec: i64::from(limit.subsec_micros()),
    };
    set_bytes(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &value).context("set a receive timeout")
}

fn set_bytes<T: Copy>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length are those of a live value of a plain type.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(done as isize).map(drop)
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
