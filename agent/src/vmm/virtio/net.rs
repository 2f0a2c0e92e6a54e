//! virtio-net (virtio 1.2, section 5.1) on a tap.
//!
//! What the guest sends goes out on the thread of the vCPU that says so; what
//! comes in is put into its buffers by a thread that waits for the tap.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT as _, QueueT as _, Reader, Writer};
use vm_memory::GuestMemoryMmap;

use super::{
    registers::{Effect, Registers},
    tap::{HEADER_BYTES, Tap},
};

/// Device type.
pub(in crate::vmm) const KIND: u32 = 1;

const FEATURE_MAC: u64 = 1 << 5;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUE_SIZE_MAX: u16 = 256;

/// The largest IP packet, its Ethernet header with a VLAN tag, and ours.
const PACKET_BYTES_MAX: usize = 65_535 + 18 + HEADER_BYTES;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vmm) struct Mac([u8; 6]);

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "six bytes in hexadecimal, as in 02:00:00:00:00:01";
        let byte = |part: &str| {
            let is_plain = part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
            is_plain
                .then(|| u8::from_str_radix(part, 16).ok())
                .flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = <[u8; 6]>::try_from(bytes.unwrap_or_default()).map_err(|_| FORM)?;
        if bytes[0] & 1 != 0 {
            return Err("a group address; the first byte must be even");
        }
        Ok(Self(bytes))
    }
}

/// Frames that went through, and those that did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::vmm) struct Counts {
    pub(in crate::vmm) received: u64,
    pub(in crate::vmm) sent: u64,
    pub(in crate::vmm) receive_dropped: u64,
    pub(in crate::vmm) send_dropped: u64,
    /// Times that the driver broke its queues.
    pub(in crate::vmm) broken: u64,
}

/// What the receiving thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Frames,
    Buffers,
}

pub(in crate::vmm) struct Net {
    registers: Registers,
    memory: Arc<GuestMemoryMmap>,
    tap: Tap,
    /// Told when there may be new buffers.
    wake: Arc<EventFd>,
    packet: Vec<u8>,
    counts: Counts,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    Stopped,
}

impl Net {
    pub(in crate::vmm) fn new(
        tap: Tap,
        mac: Mac,
        memory: Arc<GuestMemoryMmap>,
        wake: Arc<EventFd>,
    ) -> Result<Self, virtio_queue::Error> {
        let queues = vec![Queue::new(QUEUE_SIZE_MAX)?, Queue::new(QUEUE_SIZE_MAX)?];
        Ok(Self {
            registers: Registers::new(KIND, FEATURE_MAC, mac.0.to_vec(), queues),
            memory,
            tap,
            wake,
            packet: vec![0; PACKET_BYTES_MAX],
            counts: Counts::default(),
            phase: Phase::Running,
        })
    }

    pub(in crate::vmm) fn counts(&self) -> Counts {
        self.counts
    }

    pub(in crate::vmm) fn read(&self, offset: u64, data: &mut [u8]) {
        self.registers.read(offset, data);
    }

    pub(in crate::vmm) fn write(&mut self, offset: u64, data: &[u8]) {
        match self.registers.write(offset, data, &self.memory) {
            Effect::Nothing => {}
            Effect::Notified(queue) if queue as usize == TRANSMIT => self.transmit(),
            Effect::Notified(_) | Effect::Started => self.wake(),
        }
    }

    /// Ends the receiving thread.
    pub(in crate::vmm) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.wake();
    }

    /// No more frames to the guest. It sends none, since its vCPUs are paused.
    pub(in crate::vmm) fn pause(&mut self) {
        self.phase = Phase::Paused;
    }

    pub(in crate::vmm) fn resume(&mut self) {
        self.phase = Phase::Running;
        self.wake();
    }

    fn wake(&self) {
        // Fails only if it was told 2^64 times and nobody listened.
        let _ = self.wake.write(1);
    }

    /// All that is in the queue, but no more than fits there at once.
    fn transmit(&mut self) {
        for _ in 0..QUEUE_SIZE_MAX {
            let Some(chain) = self.next(TRANSMIT) else {
                return;
            };
            let head = chain.head_index();
            match self.send(chain) {
                Ok(()) => self.counts.sent += 1,
                Err(_) => self.counts.send_dropped += 1,
            }
            self.give_back(TRANSMIT, head, 0);
        }
    }

    /// The header is ours: no offload was negotiated, so the guest's says nothing.
    fn send(&mut self, chain: DescriptorChain<Arc<GuestMemoryMmap>>) -> io::Result<()> {
        let mut reader: Reader<'_, ()> = chain.reader(&self.memory).map_err(io::Error::other)?;
        let length = reader.available_bytes();
        let packet = self
            .packet
            .get_mut(..length)
            .filter(|packet| packet.len() > HEADER_BYTES)
            .ok_or(io::ErrorKind::InvalidInput)?;
        reader.read_exact(packet)?;
        packet
            .iter_mut()
            .take(HEADER_BYTES)
            .for_each(|byte| *byte = 0);
        self.tap.write(packet)
    }

    /// Fills buffers until there is no frame or no buffer; while frames are
    /// what is missing, the driver is told to be quiet about new buffers.
    fn receive(&mut self) -> Wants {
        for _ in 0..=QUEUE_SIZE_MAX {
            let Some(chain) = self.next(RECEIVE) else {
                if self.has_news_of_buffers() {
                    continue;
                }
                return Wants::Buffers;
            };
            let head = chain.head_index();
            let length = match self.tap.read(&mut self.packet) {
                Ok(length) => length,
                // The buffer is for later.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.await_frames();
                    return Wants::Frames;
                }
                // Somebody took the tap away.
                Err(_) => {
                    self.break_off();
                    return Wants::Buffers;
                }
            };
            match self.deliver(chain, length) {
                Ok(length) => {
                    self.counts.received += 1;
                    self.give_back(RECEIVE, head, length);
                }
                Err(_) => {
                    self.counts.receive_dropped += 1;
                    self.give_back(RECEIVE, head, 0);
                }
            }
        }
        // Others want the device too.
        Wants::Frames
    }

    fn deliver(
        &mut self,
        chain: DescriptorChain<Arc<GuestMemoryMmap>>,
        length: usize,
    ) -> io::Result<u32> {
        /// The last field of the header: how many buffers the frame is in.
        const BUFFERS_AT: usize = 10;
        let mut writer: Writer<'_, ()> = chain.writer(&self.memory).map_err(io::Error::other)?;
        let packet = self.packet.get_mut(..length).unwrap_or_default();
        if writer.available_bytes() < length || length <= HEADER_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let buffers = packet.iter_mut().skip(BUFFERS_AT).zip([1, 0]);
        buffers.for_each(|(to, byte)| *to = byte);
        writer.write_all(packet)?;
        u32::try_from(length).map_err(io::Error::other)
    }

    fn next(&mut self, queue: usize) -> Option<DescriptorChain<Arc<GuestMemoryMmap>>> {
        let next = match self
            .registers
            .running_queue(queue)?
            .iter(Arc::clone(&self.memory))
        {
            Ok(mut chains) => Ok(chains.next()),
            Err(_) => Err(()),
        };
        next.unwrap_or_else(|()| {
            self.break_off();
            None
        })
    }

    /// Asks to be told of new buffers. `true` if there are some already.
    fn has_news_of_buffers(&mut self) -> bool {
        let memory = Arc::clone(&self.memory);
        let Some(queue) = self.registers.running_queue(RECEIVE) else {
            return false;
        };
        queue.enable_notification(&*memory).unwrap_or(false)
    }

    /// Keeps the buffer for later, and does not want to hear of more.
    fn await_frames(&mut self) {
        let memory = Arc::clone(&self.memory);
        if let Some(queue) = self.registers.running_queue(RECEIVE) {
            queue.go_to_previous_position();
            // If it cannot be said, the driver speaks in vain, which costs time only.
            let _ = queue.disable_notification(&*memory);
        }
    }

    fn give_back(&mut self, queue: usize, head: u16, length: u32) {
        let Some(queue) = self.registers.running_queue(queue) else {
            return;
        };
        match queue.add_used(&*self.memory, head, length) {
            Ok(()) => self.registers.tell_used(),
            Err(_) => self.break_off(),
        }
    }

    fn break_off(&mut self) {
        self.counts.broken += 1;
        self.registers.break_off();
    }
}

/// The receiving thread: until it is told to stop.
pub(in crate::vmm) fn serve(net: &Mutex<Net>, tap: &Tap, wake: &EventFd) {
    loop {
        let wants = {
            let mut net = net.lock().unwrap_or_else(PoisonError::into_inner);
            match net.phase {
                Phase::Running => net.receive(),
                // Being told to resume is all it waits for.
                Phase::Paused => Wants::Buffers,
                Phase::Stopped => return,
            }
        };
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watch(wake.as_fd())];
        if wants == Wants::Frames {
            fds.push(watch(tap.as_fd()));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        // Clears it; that it was set is all it says.
        let _ = wake.read();
    }
}
