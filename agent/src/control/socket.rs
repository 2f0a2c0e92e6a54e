//! The socket file: made safely, never taken from a daemon that lives.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
            net as std_unix,
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr},
};
use tokio::net::UnixListener;

use super::access::Access;

/// Where ghostd listens unless told otherwise.
pub const SOCKET_PATH: &str = "/run/ghostd/ghostd.sock";

/// Everyone may look up the folder; the socket and the peer check guard the API.
const FOLDER_MODE: u32 = 0o755;
/// With groups: anyone may connect, and is then judged by who they are. The
/// mode alone cannot express two groups.
const SHARED_MODE: u32 = 0o666;
const PRIVATE_MODE: u32 = 0o600;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("cannot make or open the folder {0} for the API socket")]
    Folder(PathBuf, #[source] io::Error),
    #[error("{0} is there and is not a socket; remove it, or name another path")]
    NotASocket(PathBuf),
    #[error("another ghostd runs: it listens on {0}")]
    AnotherDaemon(PathBuf),
    #[error("cannot tell whether another ghostd listens on {0}")]
    Probe(PathBuf, #[source] io::Error),
    #[error("cannot remove the stale socket {0}")]
    Stale(PathBuf, #[source] io::Error),
    #[error("cannot listen on {0}")]
    Bind(PathBuf, #[source] io::Error),
}

/// Makes the socket and its folder, and listens. To be called within a tokio runtime.
pub fn bind(path: &Path, access: &Access) -> Result<UnixListener, ControlError> {
    // Held until the new socket listens: of two daemons that start together,
    // the second one finds the first.
    let _lock = lock_folder(path)?;
    remove_stale(path)?;
    let fail = |e| ControlError::Bind(path.to_owned(), e);
    let listener = std_unix::UnixListener::bind(path).map_err(fail)?;
    let mode = if access.is_shared() {
        SHARED_MODE
    } else {
        PRIVATE_MODE
    };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    UnixListener::from_std(listener).map_err(fail)
}

fn lock_folder(path: &Path) -> Result<Flock<File>, ControlError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let fail = |e| ControlError::Folder(folder.to_owned(), e);
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(FOLDER_MODE);
    builder.create(folder).map_err(fail)?;
    let folder_file = File::open(folder).map_err(fail)?;
    Flock::lock(folder_file, FlockArg::LockExclusive).map_err(|(_, e)| fail(e.into()))
}

/// A socket that nobody listens on refuses; anything else is left alone.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(ControlError::Probe(path.to_owned(), e)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ControlError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match probe(path) {
        // EAGAIN: its backlog is full, so it is hung or very busy, but alive.
        Ok(()) | Err(Errno::EAGAIN) => Err(ControlError::AnotherDaemon(path.to_owned())),
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(|e| ControlError::Stale(path.to_owned(), e))
        }
        Err(e) => Err(ControlError::Probe(path.to_owned(), e.into())),
    }
}

/// Connects without waiting: a hung daemon must not hang us.
fn probe(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}
