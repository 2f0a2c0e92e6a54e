//! A tap that is made for one guest, and goes with its process.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// Whole Ethernet frames, each after a header, on an interface that nobody
/// else has.
const FLAGS: libc::c_int =
    libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;

/// Makes it, gives the host's end its address, and switches it on. Fails
/// with `AlreadyExists` for any interface of that name.
pub(super) fn make(name: &str, host_mac: Option<[u8; 6]>) -> io::Result<OwnedFd> {
    if if_nametoindex(name).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut request = request(name)?;
    let tap = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    request.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
    // SAFETY: the request takes an `ifreq`, which lives through the call.
    let made = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) };
    match Errno::result(made) {
        // Somebody was faster.
        Err(Errno::EBUSY) => return Err(io::ErrorKind::AlreadyExists.into()),
        made => made?,
    };
    if let Some(mac) = host_mac {
        let mut address = libc::sockaddr {
            sa_family: libc::ARPHRD_ETHER,
            sa_data: [0; 14],
        };
        let bytes = address.sa_data.iter_mut().zip(mac);
        bytes.for_each(|(to, byte)| *to = byte.cast_signed());
        request.ifr_ifru.ifru_hwaddr = address;
        // SAFETY: as above.
        let set = unsafe {
            libc::ioctl(
                tap.as_raw_fd(),
                libc::SIOCSIFHWADDR as _,
                &raw const request,
            )
        };
        Errno::result(set)?;
    }
    // Flags of interfaces are set on a socket of any family.
    let socket = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_BROADCAST | libc::IFF_MULTICAST) as _;
    // SAFETY: as above.
    let up = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    Errno::result(up)?;
    Ok(tap.into())
}

/// About the interface of this name.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: zeros are a valid `ifreq`: numbers, bytes and a null pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The kernel would cut a longer name; a zero at the end is needed, and a
    // percent sign would be taken for a pattern.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains(['%', '\0']) {
        return Err(Errno::EINVAL.into());
    }
    let bytes = request.ifr_name.iter_mut().zip(name.bytes());
    bytes.for_each(|(to, byte)| *to = byte.cast_signed());
    Ok(request)
}
