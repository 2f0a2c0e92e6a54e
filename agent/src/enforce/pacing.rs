//! How fast a sync socket sends.

use std::os::fd::{AsFd, AsRawFd as _};

use super::EnforceError;

/// Has the kernel send no faster than so many bytes a second on this TCP
/// socket (`SO_MAX_PACING_RATE`, socket(7)). TCP paces itself; no queueing
/// discipline is needed. The limit goes with its socket, so there is nothing
/// to undo.
pub fn pace(socket: impl AsFd, bandwidth: u64) -> Result<(), EnforceError> {
    let fd = socket.as_fd();
    let size = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: the option's value is a u64 that lives across the call, with its
    // size; nix has no wrapper for this option. The descriptor is borrowed.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            std::ptr::from_ref(&bandwidth).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(EnforceError::Pace {
            bandwidth,
            source: std::io::Error::last_os_error(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    fn time_for(bytes: usize, bandwidth: Option<u64>) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        if let Some(bandwidth) = bandwidth {
            pace(&sender, bandwidth).unwrap();
        }
        let (mut receiver, _) = listener.accept().unwrap();
        let began = Instant::now();
        let writer = thread::spawn(move || sender.write_all(&vec![1; bytes]).unwrap());
        let mut all = vec![0; bytes];
        receiver.read_exact(&mut all).unwrap();
        writer.join().unwrap();
        began.elapsed()
    }

    #[test]
    fn a_paced_socket_takes_its_time() {
        let (bytes, bandwidth) = (8 << 20, 16 << 20);
        let paced = time_for(bytes, Some(bandwidth));
        // Half a second; the first window goes out at once.
        assert!(paced > Duration::from_millis(350), "{paced:?}");
        assert!(time_for(bytes, None) < paced);
    }
}
