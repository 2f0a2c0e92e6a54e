//! News of interfaces: that some came, went or changed. What they are now is
//! asked afterwards, so a lost message costs nothing but its own urgency.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols};
use tokio::io::unix::AsyncFd;

use super::devices::NetdevFamily;
use crate::steer::{
    error::SteerError,
    sys::{self, Watched},
};

const RTNLGRP_LINK: u32 = 1;

/// Messages read in one go, so that a flood does not starve the driver.
const DRAIN_MAX: usize = 256;

/// A multicast socket.
#[derive(Debug)]
pub struct News {
    socket: AsyncFd<Watched<Socket>>,
}

impl News {
    /// Of interfaces that come, go, or change their state.
    pub(in crate::steer) fn of_links() -> Result<Self, SteerError> {
        Self::open(protocols::NETLINK_ROUTE, RTNLGRP_LINK)
    }

    /// Of devices whose XDP abilities change; `None` where the kernel tells none.
    pub(in crate::steer) fn of_abilities(family: NetdevFamily) -> Result<Option<Self>, SteerError> {
        family
            .changes
            .map(|group| Self::open(protocols::NETLINK_GENERIC, group))
            .transpose()
    }

    fn open(protocol: isize, group: u32) -> Result<Self, SteerError> {
        let open = || -> io::Result<AsyncFd<Watched<Socket>>> {
            let mut socket = Socket::new(protocol)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(group)?;
            socket.set_non_blocking(true)?;
            sys::readable(socket)
        };
        Ok(Self {
            socket: open().map_err(|e| SteerError::Netlink("news of interfaces", e))?,
        })
    }

    /// Resolves when there was news. Cancel safe: what was not read stays.
    pub async fn wait(&mut self) -> io::Result<()> {
        let mut ready = self.socket.readable_mut().await?;
        let mut buffer = Vec::with_capacity(8192);
        for _ in 0..DRAIN_MAX {
            buffer.clear();
            match ready.get_inner().0.recv(&mut buffer, libc::MSG_TRUNC) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    break;
                }
                // Overrun: news were lost, which is news.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
