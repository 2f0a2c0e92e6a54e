//! Who is at the other end of a connection, by the kernel's word.
//!
//! Both answers are what the peer was when it connected: unlike a look into
//! `/proc/PID`, they cannot name another process that got the same pid.

use std::{io, os::fd::AsRawFd};

use tokio::net::UnixStream;

use super::access::Peer;
use crate::orchestrate::command::Caller;

/// Supplementary groups a process can have (NGROUPS_MAX, include/uapi/linux/limits.h).
const GROUPS_MAX: usize = 65_536;

/// SO_PEERCRED and SO_PEERGROUPS.
pub(super) fn of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    let pid = credentials.pid().unwrap_or(0);
    Ok(Peer {
        caller: Caller {
            // A peer outside our PID namespace has pid 0.
            pid: u32::try_from(pid).unwrap_or(0),
            uid: credentials.uid(),
            gid: credentials.gid(),
        },
        groups: groups(stream)?,
    })
}

/// unix(7): SO_PEERGROUPS fails with ERANGE and the length that is needed.
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut length =
            libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: nix and tokio have no SO_PEERGROUPS. The pointer and the
        // length describe the vector's own memory, and the kernel writes no
        // more than that length of plain integers.
        #[allow(unsafe_code)]
        let answer = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if answer == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        let grows = count > groups.len() && count <= GROUPS_MAX;
        if error.raw_os_error() != Some(libc::ERANGE) || !grows {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}
