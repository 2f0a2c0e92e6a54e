//! A tap: a thread that keeps every frame which arrives at an interface.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::socket::{Frame, PacketSocket};
use crate::{
    machine::{DATAGRAM_BYTES, Datagram},
    netns::NetNs,
};

/// How often the thread looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Frames kept at most; a story that sends more has a fault.
const FRAMES_MAX: usize = 2_000_000;

#[derive(Debug)]
pub struct Tap {
    stop: Arc<AtomicBool>,
    frames: Arc<Mutex<Vec<Frame>>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Tap {
    pub fn start(ns: &NetNs, interface: &str) -> Result<Self> {
        let mut socket = PacketSocket::open(ns, interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let frames = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::Builder::new().name("tap".into()).spawn({
            let (stop, frames) = (Arc::clone(&stop), Arc::clone(&frames));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(frame) = socket.receive(LOOK_EVERY)? else {
                        continue;
                    };
                    let mut kept = lock(&frames);
                    ensure!(kept.len() < FRAMES_MAX, "a tap saw too many frames");
                    kept.push(frame);
                }
                let lost = socket.lost()?;
                ensure!(lost == 0, "a tap had no room for {lost} frames");
                Ok(())
            }
        })?;
        Ok(Self {
            stop,
            frames,
            thread: Some(thread),
        })
    }

    /// A look at what has arrived so far.
    pub fn with<T>(&self, look: impl FnOnce(&[Frame]) -> T) -> T {
        look(&lock(&self.frames))
    }

    /// Ends the tap and gives all it saw; an error if it missed any.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(std::mem::take(&mut lock(&self.frames)))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The numbered datagram in a frame, if there is one: number and time sent.
pub fn payload_of(frame: &Frame) -> Option<(u64, u64)> {
    let at = frame.bytes.len().checked_sub(DATAGRAM_BYTES)?;
    let datagram = Datagram::decode(&frame.bytes[at..])?;
    Some((datagram.number, datagram.sent_ns))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
