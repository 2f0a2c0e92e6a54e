//! What all devices have: registers, the memory their queues are in, and the
//! ways in which device and driver wake each other.

use std::{
    io,
    sync::{Arc, atomic::Ordering, atomic::fence},
};

use nix::sys::eventfd::EventFd;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

use super::{
    interrupt::{self, Interrupt},
    registers::{Effect, Registers},
    state::{DeviceError, DeviceState},
};
use crate::vmm::{eventfd, memory::GuestRam};

/// Entries of each queue, at most.
pub(super) const QUEUE_SIZE_MAX: u16 = 256;

/// The bit of a driver that does not want to hear of used buffers.
const NO_INTERRUPT: u16 = 1;

pub(super) type Chain = DescriptorChain<Arc<GuestRam>>;

/// Whether a device may look at its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Paused,
    Stopped,
}

#[derive(Debug)]
pub(super) struct Transport {
    registers: Registers,
    memory: Arc<GuestRam>,
    interrupt: Arc<Interrupt>,
    /// Wakes the device's thread.
    wake: Arc<EventFd>,
    phase: Phase,
    /// Queues with used buffers that the driver has not been told of.
    news: Vec<usize>,
    broken: u64,
}

/// What makes a device one of its kind.
pub(super) struct Kind {
    pub(super) number: u32,
    pub(super) features: u64,
    pub(super) config: Vec<u8>,
    pub(super) queues: usize,
}

impl Transport {
    pub(super) fn new(
        kind: Kind,
        memory: Arc<GuestRam>,
        line: Option<EventFd>,
    ) -> io::Result<Self> {
        let queues = (0..kind.queues).map(|_| Queue::new(QUEUE_SIZE_MAX));
        let queues = queues.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let interrupt = Arc::new(Interrupt::new(line));
        let own = Arc::clone(&interrupt);
        Ok(Self {
            registers: Registers::new(kind.number, kind.features, kind.config, queues, own),
            memory,
            interrupt,
            wake: Arc::new(eventfd::new()?),
            phase: Phase::Running,
            news: Vec::new(),
            broken: 0,
        })
    }

    pub(super) fn registers(&self) -> &Registers {
        &self.registers
    }

    pub(super) fn memory(&self) -> &Arc<GuestRam> {
        &self.memory
    }

    pub(super) fn interrupt(&self) -> &Arc<Interrupt> {
        &self.interrupt
    }

    pub(super) fn wake_event(&self) -> &Arc<EventFd> {
        &self.wake
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Times that the driver broke its queues.
    pub(super) fn broken(&self) -> u64 {
        self.broken
    }

    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        self.registers.read(offset, data);
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        if self.registers.write(offset, data, &self.memory) == Effect::Started {
            self.wake();
        }
    }

    pub(super) fn save(&self) -> DeviceState {
        self.registers.save()
    }

    /// Whether [`Self::restore`] would succeed.
    pub(super) fn check(&self, state: &DeviceState) -> Result<(), DeviceError> {
        self.registers.check(state, &self.memory).map(drop)
    }

    /// All of it, or nothing. Only for a device that is paused.
    pub(super) fn restore(&mut self, state: &DeviceState) -> Result<(), DeviceError> {
        self.registers.restore(state, &self.memory)
    }

    /// Looks at no queue from here on, nor at anything else.
    pub(super) fn pause(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Paused;
        }
    }

    /// Goes on, and looks at its queues: a notification may have come meanwhile.
    pub(super) fn resume(&mut self) {
        if self.phase == Phase::Paused {
            self.phase = Phase::Running;
            self.interrupt.repeat();
            self.wake();
        }
    }

    /// Ends the device's thread.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.wake();
    }

    fn wake(&self) {
        // Fails only if it was told 2^64 times and nobody listened.
        let _ = self.wake.write(1);
    }

    /// What the driver has put into this queue, if it has.
    pub(super) fn next(&mut self, queue: usize) -> Option<Chain> {
        let memory = Arc::clone(&self.memory);
        let next = match self.registers.running_queue(queue)?.iter(memory) {
            Ok(mut chains) => Ok(chains.next()),
            Err(_) => Err(()),
        };
        next.unwrap_or_else(|()| {
            self.break_off();
            None
        })
    }

    /// Takes back the last [`Self::next`] of this queue.
    pub(super) fn leave(&mut self, queue: usize) {
        if let Some(queue) = self.registers.running_queue(queue) {
            queue.go_to_previous_position();
        }
    }

    /// Asks to be told of what comes into the queue. `true` if there is something.
    pub(super) fn listen(&mut self, queue: usize) -> bool {
        match self.registers.running_queue(queue) {
            Some(queue) => queue.enable_notification(&*self.memory).unwrap_or(false),
            None => false,
        }
    }

    /// Does not want to hear of more in the queue.
    pub(super) fn ignore(&mut self, queue: usize) {
        if let Some(queue) = self.registers.running_queue(queue) {
            // If it cannot be said, the driver speaks in vain, which costs time only.
            let _ = queue.disable_notification(&*self.memory);
        }
    }

    /// Gives a chain back; `length` bytes of it were written. The driver is
    /// told by the next [`Self::tell`].
    pub(super) fn give_back(&mut self, queue: usize, head: u16, length: u32) {
        let Some(ring) = self.registers.running_queue(queue) else {
            return;
        };
        match ring.add_used(&*self.memory, head, length) {
            Ok(()) if !self.news.contains(&queue) => self.news.push(queue),
            Ok(()) => {}
            Err(_) => self.break_off(),
        }
    }

    /// Interrupts the driver if it wants to know of what was given back.
    pub(super) fn tell(&mut self) {
        while let Some(queue) = self.news.pop() {
            if self.wants_interrupt(queue) {
                self.interrupt.raise(interrupt::USED);
            }
        }
    }

    fn wants_interrupt(&mut self, queue: usize) -> bool {
        let Some(queue) = self.registers.running_queue(queue) else {
            return false;
        };
        // What was used is to be seen before it is asked who wants to know.
        fence(Ordering::SeqCst);
        let flags = self
            .memory
            .load::<u16>(GuestAddress(queue.avail_ring()), Ordering::Relaxed);
        flags.is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT == 0)
    }

    /// Nothing can be done for this driver until it has reset the device.
    pub(super) fn break_off(&mut self) {
        self.broken += 1;
        self.registers.break_off();
    }
}
