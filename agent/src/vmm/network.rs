//! The network device and the thread that fills its receive queue.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{
    error::VmmError,
    memory::Memory,
    virtio::{self, Mac, Net, Tap},
};

/// A device whose thread has not been started.
pub(super) struct Network {
    net: Arc<Mutex<Net>>,
    tap: Tap,
    wake: Arc<EventFd>,
}

impl Network {
    pub(super) fn new(tap: Tap, mac: Mac, memory: &Memory) -> Result<Self, VmmError> {
        let own = tap.try_clone();
        let own = own.map_err(|e| VmmError::system("share the tap between threads", e))?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags);
        let wake = wake.map_err(|e| VmmError::system("make an eventfd", e))?;
        let wake = Arc::new(wake);
        let net = Net::new(own, mac, memory.map(), Arc::clone(&wake)).map_err(VmmError::Queue)?;
        Ok(Self {
            net: Arc::new(Mutex::new(net)),
            tap,
            wake,
        })
    }

    pub(super) fn net(&self) -> Arc<Mutex<Net>> {
        Arc::clone(&self.net)
    }

    pub(super) fn start(self) -> Result<RunningNetwork, VmmError> {
        let Self { net, tap, wake } = self;
        let own = Arc::clone(&net);
        let thread = thread::Builder::new()
            .name("net".to_owned())
            .spawn(move || virtio::serve(&own, &tap, &wake))
            .map_err(|e| VmmError::system("start the thread of the network", e))?;
        Ok(RunningNetwork {
            net,
            thread: Some(thread),
        })
    }
}

/// A device whose thread runs, or did.
pub(super) struct RunningNetwork {
    net: Arc<Mutex<Net>>,
    thread: Option<JoinHandle<()>>,
}

impl RunningNetwork {
    pub(super) fn counts(&self) -> virtio::Counts {
        self.net
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .counts()
    }

    /// From here on it writes nothing to guest memory; frames wait in the tap.
    pub(super) fn pause(&self) {
        self.net
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pause();
    }

    pub(super) fn resume(&self) {
        self.net
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .resume();
    }

    pub(super) fn stop(&mut self) -> Result<(), VmmError> {
        self.net
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stop();
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(VmmError::NetDied),
            _ => Ok(()),
        }
    }
}

impl Drop for RunningNetwork {
    /// A guest that is gone receives nothing.
    fn drop(&mut self) {
        // A thread that died is gone all the same.
        let _ = self.stop();
    }
}
